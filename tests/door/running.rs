//! Calls that use what was built: scoring, training, generating, copying data.

use oaif::Error;
use oaif::Wait;
use oaif::unstable::data::packing::{ChoiceTree, Tree};
use oaif::unstable::data::tokenizer::StopMatcher;
use oaif::unstable::generate::Request;
use oaif::unstable::gpu::{Arena, Category, Live};
use oaif::unstable::judge::Pair;
use oaif::unstable::model::{Scored, Scorer};
use oaif::unstable::train::pair_step::LabelledPair;

use crate::common::relative_distance;
use crate::draws::{CAPACITY, CONTEXT, Draws, fits, known, readable};
use crate::{Call, Doors, call};

impl Doors {
    /// Scores the responses by separate forward passes with a new scorer.
    fn fresh_scores(&self, trees: &[Tree]) -> Vec<Scored> {
        Scorer::new(&self.gpu, &self.frozen, CAPACITY, &Arena::new())
            .wait()
            .unwrap()
            .score(trees)
            .wait()
            .unwrap()
    }

    pub fn score(&self, draws: &mut Draws) -> Call {
        let trees: Vec<Tree> = (0..draws.below(4)).map(|_| draws.tree(&[1, 2, 2, 3, 0, 5])).collect();
        let valid = trees.iter().all(readable) && trees.iter().all(|tree| fits(std::slice::from_ref(tree)));
        let result = self.scorer.score(&trees).wait();
        if valid && draws.once_in(8) {
            assert_eq!(result.as_ref().unwrap(), &self.fresh_scores(&trees), "{trees:?}");
        }
        call(("score", trees), valid, result)
    }

    pub fn score_after_a_preamble(&self, draws: &mut Draws) -> Call {
        let mut trees: Vec<Tree> = (0..draws.below(3)).map(|_| draws.tree(&[1, 2, 0])).collect();
        for tree in trees.iter_mut().filter(|_| draws.once_in(2)) {
            tree.prompt.splice(0..0, self.preamble.iter().copied());
        }
        let room = |tree: &Tree| {
            let mut tree = tree.clone();
            if tree.prompt.len() > self.preamble.len() && tree.prompt.starts_with(&self.preamble) {
                tree.prompt.drain(..self.preamble.len());
            }
            fits(&[tree])
        };
        let valid = trees.iter().all(|tree| readable(tree) && room(tree));
        let result = self.after.score(&trees).wait();
        if valid && draws.once_in(8) && trees.iter().all(|tree| fits(std::slice::from_ref(tree))) {
            for (got, want) in result.as_ref().unwrap().iter().zip(self.fresh_scores(&trees)) {
                assert!(relative_distance(&got.logps, &want.logps) < 1e-5, "{trees:?}");
            }
        }
        call(("score after a preamble", trees), valid, result)
    }

    pub fn score_choices(&self, draws: &mut Draws) -> Call {
        let tree = |draws: &mut Draws| ChoiceTree {
            prompt: draws.ids(&[1, 2, 3, 9, 20, 0, 127, 128]),
            branches: (0..draws.below(4)).map(|_| draws.ids(&[1, 2, 3, 4, 0, 140])).collect(),
            choices: draws.ids(&[1, 2, 2, 3, 0]),
        };
        let trees: Vec<ChoiceTree> = (0..draws.below(3)).map(|_| tree(draws)).collect();
        let valid = |t: &ChoiceTree| {
            let branches: usize = t.branches.iter().map(Vec::len).sum();
            known(&t.prompt)
                && known(&t.choices)
                && t.branches.iter().all(|b| known(b) && t.prompt.len() + b.len() <= CONTEXT)
                && t.prompt.len() <= CONTEXT
                && t.prompt.len() + branches <= CAPACITY.tokens
                && t.branches.len() * t.choices.len() <= CAPACITY.targets
        };
        call(("score choices", &trees), trees.iter().all(valid), self.scorer.score_choices(&trees).wait())
    }

    pub fn learn_pairs(&self, draws: &mut Draws) -> Call {
        let pair = |draws: &mut Draws| LabelledPair {
            tree: draws.tree(&[2, 2, 2, 2, 2, 0, 1, 3]),
            reference: [-20.0, -21.0],
            label: draws.mostly(&[0.0, 0.5, 1.0], &[-0.1, 1.001, f32::NAN, f32::INFINITY]),
            by_reference: [false, draws.once_in(2)],
        };
        let pairs: Vec<LabelledPair> = (0..draws.of(&[0, 1, 1, 2])).map(|_| pair(draws)).collect();
        let weight = draws.mostly(&[0.5, 1.0], &[0.0, -1.0, f32::NAN, f32::INFINITY]);
        let trees: Vec<Tree> = pairs.iter().map(|p| p.tree.clone()).collect();
        let labels = pairs.iter().all(|p| (0.0..=1.0).contains(&p.label));
        let two = trees.iter().all(|t| t.responses.len() == 2);
        let good = labels && two && weight > 0.0 && weight < f32::INFINITY;
        let good = good && !pairs.is_empty() && trees.iter().all(readable);
        let unshared: Vec<Tree> = trees.iter().flat_map(Tree::unshared).collect();
        let what = ("learn", &pairs, weight);
        match draws.once_in(4) {
            true => call(what, good && fits(&unshared), self.pairs.run_unshared(&pairs, weight).wait()),
            false => call(what, good && fits(&trees), self.pairs.run(&pairs, weight).wait()),
        }
    }

    pub fn learn_completions(&self, draws: &mut Draws) -> Call {
        let trees: Vec<Tree> = (0..draws.of(&[0, 1, 1, 2])).map(|_| draws.tree(&[1, 1, 2, 0])).collect();
        let weight = draws.mostly(&[0.5, 1.0], &[0.0, -1.0, f32::NAN, f32::INFINITY]);
        let good = !trees.is_empty() && trees.iter().all(|t| readable(t) && !t.responses.is_empty());
        let valid = good && fits(&trees) && weight > 0.0 && weight < f32::INFINITY;
        call(("sft", &trees, weight), valid, self.sft.run(&trees, weight).wait())
    }

    pub fn update(&mut self, draws: &mut Draws) -> Call {
        let rate = draws.mostly(&[0.0, 1e-9], &[-1e-3, f64::NAN, f64::INFINITY, 1e300]);
        let valid = (0.0..1e38).contains(&rate);
        call(("update", rate), valid, self.optimiser.update(rate).wait())
    }

    pub fn generate(&self, draws: &mut Draws) -> Call {
        let request = |draws: &mut Draws| Request {
            prompt: draws.ids(&[1, 2, 3, 12, 12, 0, 13, 500]),
            samples: draws.mostly(&[1, 1, 2], &[0, 1 << 25, usize::MAX]),
            first_sequence: draws.mostly(&[0, 7, u32::MAX - 1], &[u32::MAX]),
        };
        let requests: Vec<Request> = (0..draws.below(3)).map(|_| request(draws)).collect();
        let valid = requests.iter().all(|r| {
            let numbered =
                (r.first_sequence as u64).checked_add(r.samples as u64).is_some_and(|n| n <= 1 << 32);
            known(&r.prompt) && r.prompt.len() <= 12 && (1..=1 << 24).contains(&r.samples) && numbered
        });
        let result = self.generator.run(&self.tokenizer, &requests, &StopMatcher::default(), 3).wait();
        if let (Ok(answers), true) = (&result, valid) {
            for (request, answers) in requests.iter().zip(answers) {
                assert_eq!(answers.len(), request.samples);
                assert!(answers.iter().all(|a| known(&a.token_ids) && a.token_ids.len() <= 4));
            }
        }
        call(("generate", &requests), valid, result)
    }

    pub fn upload_weights(&self, draws: &mut Draws) -> Call {
        let (name, rows) = draws.of(&[("lm_head.weight", 96), ("model.norm.weight", 1)]);
        let name = if draws.once_in(6) { "no.weight" } else { name };
        let first = draws.of(&[0, 0, 1, 95, 96, 1000, usize::MAX]);
        let length = draws.of(&[32, 64, 96 * 32, 0, 1, 31, 33, 97 * 32]);
        let values = vec![0.01; length];
        let whole = draws.once_in(2);
        let valid = name != "no.weight"
            && match whole {
                true => length == rows * 32,
                false => length.is_multiple_of(32) && first <= rows && length / 32 <= rows - first,
            };
        // An upload of zero rows beyond the end is harmless.
        let valid = valid || (!whole && name != "no.weight" && length == 0);
        let weights = self.trained.base();
        let result = match whole {
            true => weights.upload(name, &values),
            false => weights.upload_rows(name, first, &values),
        };
        call(("upload", name, first, length, whole), valid, result)
    }

    pub fn move_bytes(&self, draws: &mut Draws) -> Call {
        let bytes = draws.of(&[0, 1, 4, 16, 60, 64]);
        let region = self.gpu.buffer("values", Category::Workspace, bytes).unwrap().region();
        let held = bytes.max(4).next_multiple_of(4) as usize;
        let foreign = self.dry.buffer("elsewhere", Category::Workspace, bytes).unwrap().region();
        let right = !draws.once_in(5);
        let target = if right { &region } else { &foreign };
        let words = draws.of(&[0, 1, 4, 15, 16, 17, 4000]);
        match draws.below(6) {
            0 => {
                let bytes = draws.of(&[u64::MAX, u64::MAX - 1, 1 << 62]);
                call(("buffer", bytes), false, self.gpu.buffer("huge", Category::Workspace, bytes))
            }
            1 => {
                let result = self.gpu.upload(target, &vec![7u32; words]);
                call(("upload", bytes, words, right), right && words * 4 <= held, result)
            }
            2 => {
                let result = self.gpu.download::<[u32; 2]>(target).wait();
                call(("download", bytes, right), right && held.is_multiple_of(8), result)
            }
            3 => call(("download nothing", bytes), false, self.gpu.download::<()>(target).wait()),
            4 => call(("clear", bytes, right), right, self.gpu.clear(std::slice::from_ref(target))),
            _ => {
                let other = self.gpu.buffer("other", Category::Workspace, 16).unwrap().region();
                call(("copy", bytes, right), right && held == 16, self.gpu.copy(target, &other))
            }
        }
    }

    pub fn replay(&self, draws: &mut Draws) -> Call {
        let mut live = Live::default();
        let (index, value) = (draws.below(8), draws.of(&[0, 1, 100, 101, u32::MAX]));
        live.extents[index] = value;
        call(("replay", live.extents), index != 0 || value <= 100, self.plan.run(&live).wait())
    }

    pub fn judge(&mut self, draws: &mut Draws) -> Call {
        let texts = ["", " ", "the fox", "1", "\u{0}\u{1b}", "é漢👩\u{200d}🚀"].map(str::to_owned);
        let long = "fox ".repeat(300);
        let texts = [&texts[..], &[long]].concat();
        let three: [String; 3] = std::array::from_fn(|_| draws.of(&texts));
        let pairs =
            vec![Pair { prompt: &three[0], response_1: &three[1], response_2: &three[2] }; draws.below(3)];
        let judge = draws.below(self.judges.len());
        let result = self.judges[judge].judge(&pairs).wait();
        if let Ok(judgements) = &result {
            assert_eq!(judgements.len(), pairs.len());
        }
        // A tokenizer without single tokens for the answers after some text is an error of the judge.
        let result = match result {
            Err(Error::Judge { .. }) => Ok(()),
            other => other.map(drop),
        };
        call(("judge", judge, &pairs), true, result)
    }
}
