//! What a program can call the library with: whatever it is, the answer is right or an `Error`, never a panic and never
//! numbers from beyond a buffer. Each door has its rule here once more, in plain words.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use common::{fixture, gpu, relative_distance};
use oaif::annotate::command::CommandAnnotator;
use oaif::annotate::judge_model::JudgeModel;
use oaif::annotate::likelihood::{DEFAULT_TEMPLATE, LikelihoodAnnotator, Normalise};
use oaif::annotate::llm::{LlmAnnotator, Orders};
use oaif::annotate::template::JudgeTemplate;
use oaif::annotate::{Annotator, Pair};
use oaif::data::packing::{ChoiceTree, Tree};
use oaif::data::rows::{Prompt, Text};
use oaif::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::gpu::{Arena, Category, Dim, Gpu, GpuOptions, Limits, Live, Plan, PlanOptions, Recorder};
use oaif::model::architecture::WeightSpec;
use oaif::model::lora::LoraTerm;
use oaif::model::stream::Capacity;
use oaif::model::{
    Adapter, FloatFormat, LoraConfig, LoraLayout, Model, ModelConfig, Scored, Scorer, Weights,
};
use oaif::ops;
use oaif::optim::{Optimiser, OptimiserKind};
use oaif::preference::PreferenceLoss;
use oaif::train::pair_step::{LabelledPair, PairStep};
use oaif::train::sft_step::SftStep;
use oaif::train::{AlignOptions, AlignRun, Policy, TrainOptions};
use oaif::{Error, Result};

/// Of tests/fixtures/tiny.
const VOCAB: u32 = 96;
const CONTEXT: usize = 128;
const CAPACITY: Capacity = Capacity { tokens: 150, targets: 140, sequences: 4 };

/// Random numbers from a seed (SplitMix64).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly one of `good`, sometimes one of `bad`.
    fn mostly<T: Clone>(&mut self, good: &[T], bad: &[T]) -> T {
        if self.once_in(4) { self.of(bad) } else { self.of(good) }
    }

    fn ids(&mut self, lengths: &[usize]) -> Vec<u32> {
        let length = self.of(lengths);
        let mut ids: Vec<u32> = (0..length).map(|_| self.below(VOCAB as usize) as u32).collect();
        if length > 0 && self.once_in(12) {
            let at = self.below(length);
            ids[at] = self.of(&[VOCAB, VOCAB + 1, 512, i32::MAX as u32, u32::MAX - 1, u32::MAX]);
        }
        ids
    }

    fn tree(&mut self, responses: &[usize]) -> Tree {
        let prompt = self.ids(&[1, 1, 2, 3, 5, 8, 9, 20, 0, 120, 127, 128, 129, 3000]);
        let responses = (0..self.of(responses)).map(|_| self.ids(&[1, 1, 2, 3, 4, 7, 9, 0, 140]));
        Tree { prompt, responses: responses.collect() }
    }
}

fn known(ids: &[u32]) -> bool {
    !ids.is_empty() && ids.iter().all(|id| *id < VOCAB)
}

/// The prompt and every response have a token, the model knows all of them, and a response's last one, which takes no
/// row, lies at most one beyond the context.
fn readable(tree: &Tree) -> bool {
    let rows = |response: &Vec<u32>| tree.prompt.len() + response.len() - 1;
    known(&tree.prompt)
        && tree.prompt.len() <= CONTEXT
        && tree.responses.iter().all(|r| known(r) && rows(r) <= CONTEXT)
}

fn fits(trees: &[Tree]) -> bool {
    let all: Vec<&Vec<u32>> = trees.iter().flat_map(|t| &t.responses).collect();
    let prompts: usize = trees.iter().map(|t| t.prompt.len()).sum();
    let targets: usize = all.iter().map(|r| r.len()).sum();
    prompts + targets - all.len() <= CAPACITY.tokens
        && targets <= CAPACITY.targets
        && all.len() <= CAPACITY.sequences
}

/// A call: what it was, whether it keeps the rules, what came back.
struct Call {
    what: String,
    valid: bool,
    result: Result<()>,
}

fn call<T>(what: impl std::fmt::Debug, valid: bool, result: Result<T>) -> Call {
    Call { what: format!("{what:?}"), valid, result: result.map(drop) }
}

struct Doors {
    gpu: Gpu,
    /// Another device, on which nothing runs.
    dry: Gpu,
    dir: PathBuf,
    frozen: Model,
    trained: Model,
    dry_frozen: Model,
    dry_trained: Model,
    scorer: Scorer,
    preamble: Vec<u32>,
    after: Scorer,
    pairs: PairStep,
    sft: SftStep,
    optimiser: Optimiser,
    generator: Generator,
    tokenizer: Tokenizer,
    annotators: Vec<Box<dyn Annotator>>,
    plan: Plan,
    temp: tempfile::TempDir,
}

const GENERATE: GenerateOptions = GenerateOptions {
    sampling: SamplingParams { temperature: 0.9, top_k: 0, top_p: 1.0, min_p: 0.0 },
    max_new_tokens: 4,
    max_prompt_tokens: 12,
    slots: 4,
    samples_per_prompt: 2,
    eos: Vec::new(),
};
const LOSS: PreferenceLoss = PreferenceLoss::Dpo { beta: 0.1 };

impl Doors {
    fn new(gpu: Gpu) -> Doors {
        let (dir, dry) = (fixture("tiny"), Gpu::without_device(Limits::default()));
        let load = |gpu: &Gpu, train| Model::load(gpu, &dir, train).unwrap();
        let (frozen, trained) = (load(&gpu, false), load(&gpu, true));
        let arena = Arena::new();
        let preamble: Vec<u32> = (1..9).collect();
        let judge = || JudgeModel::load(&gpu, &dir, Some(64), &arena).unwrap();
        let template = JudgeTemplate::from_text("{{ prompt }}{{ response_1 }}{{ response_2 }}").unwrap();
        let llm = |orders| LlmAnnotator::new(judge(), template.clone(), orders, "tiny").unwrap();
        let likelihood =
            LikelihoodAnnotator::new(judge(), DEFAULT_TEMPLATE, "", Normalise::Token, "tiny").unwrap();
        Doors {
            scorer: Scorer::new(&gpu, &frozen, CAPACITY, &arena).unwrap(),
            after: Scorer::after(&gpu, &frozen, &preamble, CAPACITY, &arena).unwrap(),
            pairs: PairStep::new(&gpu, &trained, LOSS, CAPACITY, false, &arena).unwrap(),
            sft: SftStep::new(&gpu, &trained, CAPACITY, false, &arena).unwrap(),
            optimiser: Optimiser::new(&gpu, trained.trained(), OptimiserKind::adamw(), 1.0, &arena).unwrap(),
            generator: Generator::new(&gpu, &frozen, GENERATE, &arena).unwrap(),
            tokenizer: Tokenizer::load(&dir).unwrap(),
            annotators: vec![Box::new(likelihood), Box::new(llm(Orders::Both)), Box::new(llm(Orders::One))],
            plan: plan_of_100_rows(&dry),
            temp: tempfile::tempdir().unwrap(),
            dry_frozen: load(&dry, false),
            dry_trained: load(&dry, true),
            dry,
            gpu,
            dir,
            frozen,
            trained,
            preamble,
        }
    }

    /// The device that recordings are made on, or sometimes the wrong one.
    fn dry_or_not(&self, draws: &mut Draws) -> (&Gpu, bool) {
        if draws.once_in(6) { (&self.gpu, false) } else { (&self.dry, true) }
    }

    /// Responses as whole forward passes of a scorer made for them alone.
    fn fresh_scores(&self, trees: &[Tree]) -> Vec<Scored> {
        Scorer::new(&self.gpu, &self.frozen, CAPACITY, &Arena::new()).unwrap().score(trees).unwrap()
    }

    fn score(&self, draws: &mut Draws) -> Call {
        let trees: Vec<Tree> = (0..draws.below(4)).map(|_| draws.tree(&[1, 2, 2, 3, 0, 5])).collect();
        let valid = trees.iter().all(readable) && trees.iter().all(|tree| fits(std::slice::from_ref(tree)));
        let result = self.scorer.score(&trees);
        if valid && draws.once_in(8) {
            assert_eq!(result.as_ref().unwrap(), &self.fresh_scores(&trees), "{trees:?}");
        }
        call(("score", trees), valid, result)
    }

    fn score_after_a_preamble(&self, draws: &mut Draws) -> Call {
        let mut trees: Vec<Tree> = (0..draws.below(3)).map(|_| draws.tree(&[1, 2, 0])).collect();
        for tree in trees.iter_mut().filter(|_| draws.next() % 2 == 0) {
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
        let result = self.after.score(&trees);
        if valid && draws.once_in(8) && trees.iter().all(|tree| fits(std::slice::from_ref(tree))) {
            for (got, want) in result.as_ref().unwrap().iter().zip(self.fresh_scores(&trees)) {
                assert!(relative_distance(&got.logps, &want.logps) < 1e-5, "{trees:?}");
            }
        }
        call(("score after a preamble", trees), valid, result)
    }

    fn score_choices(&self, draws: &mut Draws) -> Call {
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
        call(("score choices", &trees), trees.iter().all(valid), self.scorer.score_choices(&trees))
    }

    fn learn_pairs(&self, draws: &mut Draws) -> Call {
        let pair = |draws: &mut Draws| LabelledPair {
            tree: draws.tree(&[2, 2, 2, 2, 2, 0, 1, 3]),
            reference: [-20.0, -21.0],
            label: draws.mostly(&[0.0, 0.5, 1.0], &[-0.1, 1.001, f32::NAN, f32::INFINITY]),
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
            true => call(what, good && fits(&unshared), self.pairs.run_unshared(&pairs, weight)),
            false => call(what, good && fits(&trees), self.pairs.run(&pairs, weight)),
        }
    }

    fn learn_completions(&self, draws: &mut Draws) -> Call {
        let trees: Vec<Tree> = (0..draws.of(&[0, 1, 1, 2])).map(|_| draws.tree(&[1, 1, 2, 0])).collect();
        let weight = draws.mostly(&[0.5, 1.0], &[0.0, -1.0, f32::NAN, f32::INFINITY]);
        let good = !trees.is_empty() && trees.iter().all(|t| readable(t) && !t.responses.is_empty());
        let valid = good && fits(&trees) && weight > 0.0 && weight < f32::INFINITY;
        call(("sft", &trees, weight), valid, self.sft.run(&trees, weight))
    }

    fn update(&mut self, draws: &mut Draws) -> Call {
        let rate = draws.mostly(&[0.0, 1e-9], &[-1e-3, f64::NAN, f64::INFINITY, 1e300]);
        let valid = rate >= 0.0 && rate < 1e38;
        call(("update", rate), valid, self.optimiser.update(rate))
    }

    fn generate(&self, draws: &mut Draws) -> Call {
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
        let result = self.generator.run(&self.tokenizer, &requests, &StopMatcher::default(), 3);
        if let (Ok(answers), true) = (&result, valid) {
            for (request, answers) in requests.iter().zip(answers) {
                assert_eq!(answers.len(), request.samples);
                assert!(answers.iter().all(|a| known(&a.token_ids) && a.token_ids.len() <= 4));
            }
        }
        call(("generate", &requests), valid, result)
    }

    fn new_generator(&self, draws: &mut Draws) -> Call {
        let p = [0.0, 0.5, 1.0];
        let no_p = [-0.1, 1.1, f32::NAN];
        let options = GenerateOptions {
            sampling: SamplingParams {
                temperature: draws.mostly(&[0.0, 0.9], &[-1.0, 1e-9, f32::NAN, f32::INFINITY]),
                top_k: draws.of(&[0, 1, u32::MAX]),
                top_p: if draws.once_in(4) { draws.of(&no_p) } else { draws.of(&p) },
                min_p: if draws.once_in(4) { draws.of(&no_p) } else { draws.of(&p) },
            },
            max_new_tokens: draws.mostly(&[1, 4, 500, usize::MAX], &[0]),
            max_prompt_tokens: draws.mostly(&[1, 12, 127], &[0, 128, usize::MAX]),
            slots: draws.mostly(&[1, 4], &[0, usize::MAX, 1 << 40]),
            samples_per_prompt: draws.mostly(&[1, 2, usize::MAX], &[0]),
            eos: draws.ids(&[0, 1, 2]),
        };
        let s = options.sampling;
        let share = |p: f32| (0.0..=1.0).contains(&p);
        let (gpu, right) = self.dry_or_not(draws);
        let valid = right
            && (s.temperature == 0.0 || s.temperature == 0.9)
            && share(s.top_p)
            && share(s.min_p)
            && options.max_new_tokens > 0
            && (1..CONTEXT).contains(&options.max_prompt_tokens)
            && (1..=4).contains(&options.slots)
            && options.samples_per_prompt > 0
            && (options.eos.is_empty() || known(&options.eos));
        let result = Generator::new(gpu, &self.dry_frozen, options.clone(), &Arena::new());
        call(("new generator", options, right), valid, result)
    }

    fn new_plans(&self, draws: &mut Draws) -> Call {
        let size = |draws: &mut Draws| draws.mostly(&[1, 2, 64], &[0, 1 << 31, 1 << 40, usize::MAX]);
        let capacity = Capacity { tokens: size(draws), targets: size(draws), sequences: size(draws) };
        let sizes = [capacity.tokens, capacity.targets, capacity.sequences];
        let (gpu, right) = self.dry_or_not(draws);
        let good = right && sizes.iter().all(|n| (1..=64).contains(n));
        let (arena, beta) = (Arena::new(), draws.mostly(&[0.1, 1.0], &[0.0, -0.1, f32::NAN, f32::INFINITY]));
        let trained = !draws.once_in(4);
        let model = if trained { &self.dry_trained } else { &self.dry_frozen };
        let preamble = draws.ids(&[1, 8, 127, 0, 128, 3000]);
        let what = ("new", capacity, beta, trained, right);
        match draws.below(4) {
            0 => call(what, good, Scorer::new(gpu, model, capacity, &arena)),
            1 => {
                let valid = good && known(&preamble) && preamble.len() < CONTEXT;
                call((what, &preamble), valid, Scorer::after(gpu, model, &preamble, capacity, &arena))
            }
            2 => call(what, good && trained, SftStep::new(gpu, model, capacity, false, &arena)),
            _ => {
                let loss = draws.of(&[
                    PreferenceLoss::Dpo { beta },
                    PreferenceLoss::Ipo { beta, average_tokens: true },
                    PreferenceLoss::Slic { beta },
                ]);
                let valid = good && trained && beta > 0.0 && beta < f32::INFINITY;
                call((what, loss), valid, PairStep::new(gpu, model, loss, capacity, false, &arena))
            }
        }
    }

    fn new_optimiser(&self, draws: &mut Draws) -> Call {
        let number = |draws: &mut Draws, good: f32| draws.mostly(&[good], &[-1.0, f32::NAN, f32::INFINITY]);
        let norm = number(draws, 1.0);
        let decay = number(draws, 0.01);
        let constants = [number(draws, 0.9), number(draws, 0.0), number(draws, 1e-8)];
        let (mut good, kind) = match draws.below(2) {
            0 => (true, OptimiserKind::Adafactor { weight_decay: decay }),
            _ => {
                let [beta1, beta2, epsilon] = constants;
                let good = constants == [0.9, 0.0, 1e-8];
                (good, OptimiserKind::AdamW { beta1, beta2, epsilon, weight_decay: decay })
            }
        };
        let trained = !draws.once_in(4);
        let (gpu, right) = self.dry_or_not(draws);
        good &= norm == 1.0 && decay == 0.01 && trained && right;
        let model = if trained { &self.dry_trained } else { &self.dry_frozen };
        let result = Optimiser::new(gpu, model.trained(), kind, norm, &Arena::new());
        call(("new optimiser", kind, norm, trained, right), good, result)
    }

    fn upload_weights(&self, draws: &mut Draws) -> Call {
        let (name, rows) = draws.of(&[("lm_head.weight", 96), ("model.norm.weight", 1)]);
        let name = if draws.once_in(6) { "no.weight" } else { name };
        let first = draws.of(&[0, 0, 1, 95, 96, 1000, usize::MAX]);
        let length = draws.of(&[32, 64, 96 * 32, 0, 1, 31, 33, 97 * 32]);
        let values = vec![0.01; length];
        let whole = draws.once_in(2);
        let valid = name != "no.weight"
            && match whole {
                true => length == rows * 32,
                false => length % 32 == 0 && first <= rows && length / 32 <= rows - first,
            };
        // Rows from beyond the end on that are none at all are no harm either.
        let valid = valid || (!whole && name != "no.weight" && length == 0);
        let weights = self.trained.base();
        let result = match whole {
            true => weights.upload(name, &values),
            false => weights.upload_rows(name, first, &values),
        };
        call(("upload", name, first, length, whole), valid, result)
    }

    fn move_bytes(&self, draws: &mut Draws) -> Call {
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
                let result = self.gpu.download::<[u32; 2]>(target);
                call(("download", bytes, right), right && held % 8 == 0, result)
            }
            3 => call(("download nothing", bytes), false, self.gpu.download::<()>(target)),
            4 => call(("clear", bytes, right), right, self.gpu.clear(std::slice::from_ref(target))),
            _ => {
                let other = self.gpu.buffer("other", Category::Workspace, 16).unwrap().region();
                call(("copy", bytes, right), right && held == 16, self.gpu.copy(target, &other))
            }
        }
    }

    fn replay(&self, draws: &mut Draws) -> Call {
        let mut live = Live::default();
        let (index, value) = (draws.below(8), draws.of(&[0, 1, 100, 101, u32::MAX]));
        live.extents[index] = value;
        call(("replay", live.extents), index != 0 || value <= 100, self.plan.run(&live))
    }

    fn new_model(&self, draws: &mut Draws) -> Call {
        let sizes = [0, 1, 2, 3, 7, 1 << 31, usize::MAX];
        let good = ModelConfig::load(&self.dir).unwrap();
        let mut config = good.clone();
        // What all of these sizes are too little, too much or too odd for.
        let change = draws.below(10);
        let size = draws.of(&sizes);
        match change {
            0 => config.hidden_size = draws.of(&[0, 1 << 31, usize::MAX]),
            1 => config.intermediate_size = draws.of(&[0, 1 << 31, usize::MAX]),
            2 => config.num_layers = draws.of(&[0, 2_000_000_000, usize::MAX]),
            3 => config.heads = draws.of(&[0, 3, 1 << 31, usize::MAX]),
            4 => config.kv_heads = draws.of(&[0, 3, 5, usize::MAX]),
            5 => config.head_dim = size,
            6 => config.vocab_size = draws.of(&[0, 1 << 31, usize::MAX]),
            7 => config.max_position_embeddings = draws.of(&[0, 1 << 31, usize::MAX]),
            8 => config.rope.theta = draws.of(&[0.0, -1.0, f64::NAN, f64::INFINITY]),
            _ => config.rms_norm_eps = draws.of(&[-1.0, f64::NAN, f64::INFINITY]),
        }
        let config = if draws.once_in(4) { good.clone() } else { config };
        let valid = config == good;
        match draws.below(2) {
            0 => call(("random model", change, size), valid, Model::random(&self.dry, config, true, 1)),
            // The right weights but for one, or on another device.
            _ => {
                let specs: Vec<WeightSpec> =
                    self.frozen.base().iter().map(|w| WeightSpec::new(&w.name, w.shape.clone())).collect();
                let mut given = specs.clone();
                let fault = draws.of(&[0, 0, 1, 2, 3]);
                match fault {
                    1 => drop(given.pop()),
                    2 => given[0].shape = draws.of(&[vec![96, 31], vec![95, 32], vec![32], vec![96, 32, 1]]),
                    3 => given[0].shape = draws.of(&[vec![], vec![0], vec![0, 4], vec![usize::MAX, 2]]),
                    _ => {}
                }
                let (gpu, right) = self.dry_or_not(draws);
                let weights = Weights::frozen(&self.dry, &given, FloatFormat::F32);
                let result = weights.and_then(|weights| Model::new(gpu, config, weights));
                call(("new model", change, size, fault, right), valid && fault == 0 && right, result)
            }
        }
    }

    fn new_adapter(&self, draws: &mut Draws) -> Call {
        let targets = LoraConfig::parse_targets(&["all-linear"]).unwrap();
        let config = LoraConfig {
            rank: draws.mostly(&[1, 2], &[0, 1 << 31, i64::MAX as usize, usize::MAX]),
            alpha: draws.mostly(&[4.0], &[f32::NAN, f32::INFINITY]),
            rank_stabilised: draws.once_in(2),
            targets: draws.mostly(&[targets.clone()], &[vec![]]),
        };
        let good = [1, 2].contains(&config.rank) && config.alpha == 4.0 && !config.targets.is_empty();
        match draws.below(2) {
            0 => call(("add", &config), good, self.dry_frozen.add_adapter(config.clone(), 1)),
            _ => {
                let of = LoraConfig { rank: 2, alpha: 4.0, rank_stabilised: false, targets };
                let architecture = self.frozen.architecture();
                let specs = of.layout(architecture).unwrap().weights(architecture);
                let (gpu, right) = self.dry_or_not(draws);
                let weights = Weights::trained(gpu, &specs).unwrap();
                let valid = good && config.rank == 2 && right;
                let LoraConfig { rank, alpha, .. } = config;
                let term = |layer, &projection| LoraTerm { layer, projection, rank, alpha };
                let layers = draws.mostly(&[architecture.layers], &[architecture.layers + 1]);
                let valid = valid && layers == architecture.layers;
                let terms = (0..layers).flat_map(|layer| config.targets.iter().map(move |p| term(layer, p)));
                let layout = LoraLayout::new(terms.collect(), layers, false);
                let result = self.dry_frozen.with_adapter(Adapter { layout, weights, warnings: Vec::new() });
                call(("with", &config, right), valid, result)
            }
        }
    }

    fn new_run(&self, draws: &mut Draws) -> Call {
        let count = |draws: &mut Draws| draws.mostly(&[1, 2], &[0, usize::MAX]);
        let some = |draws: &mut Draws| draws.mostly(&[None, Some(9)], &[Some(0)]);
        let (mut train, mut options) = (TrainOptions::new(self.temp.path()), AlignOptions::new(LOSS));
        (train.batch_size, options.max_new_tokens) = (2, 3);
        let mut beta = 0.1;
        for _ in 0..draws.of(&[0, 1, 1, 2]) {
            match draws.below(15) {
                0 => train.batch_size = count(draws),
                1 => train.accumulation = count(draws),
                2 => train.max_steps = some(draws),
                3 => train.save_steps = some(draws),
                4 => train.save_total_limit = some(draws),
                5 => train.max_prompt_length = some(draws),
                6 => {
                    train.learning_rate = draws.mostly(&[0.0, 1e-3], &[-1.0, f64::NAN, f64::INFINITY, 1e300])
                }
                7 => train.epochs = draws.mostly(&[0.5, 1e6], &[0.0, -1.0, f64::NAN, f64::INFINITY]),
                8 => train.max_grad_norm = draws.of(&[0.0, 1.0, -1.0, f32::NAN, f32::INFINITY]),
                9 => options.num_samples = draws.of(&[2, 3, 0, 1, usize::MAX]),
                10 => options.max_new_tokens = draws.of(&[1, 3, 0, 128, usize::MAX]),
                11 => options.slots = some(draws),
                12 => options.max_invalid_ratio = draws.of(&[0.0, 1.0, -0.1, 1.1, f64::NAN]),
                13 => options.async_level = draws.of(&[0, 1, 2]),
                _ => beta = draws.mostly(&[0.2], &[0.0, f32::NAN]),
            }
        }
        options.loss = PreferenceLoss::Ipo { beta, average_tokens: false };
        let few = |n: usize| (1..=2).contains(&n);
        let counts = [
            train.max_steps,
            train.save_steps,
            train.save_total_limit,
            train.max_prompt_length,
            options.slots,
        ];
        let valid = few(train.batch_size)
            && few(train.accumulation)
            && !counts.contains(&Some(0))
            && (0.0..1.0).contains(&train.learning_rate)
            && train.epochs > 0.0
            && train.epochs < 1e300
            && (0.0..2.0).contains(&train.max_grad_norm)
            && [2, 3].contains(&options.num_samples)
            && [1, 3].contains(&options.max_new_tokens)
            && (0.0..=1.0).contains(&options.max_invalid_ratio)
            && options.async_level < 2
            && beta > 0.0;
        let prompt = Prompt { prompt: Text::Plain("the fox".into()), reference: None, place: 1.into() };
        let policy = Policy::with_model(self.dry_trained.clone(), &self.dir).unwrap();
        let what = format!("{train:?} {options:?}");
        let result = AlignRun::new(policy, &[prompt], &train, &options).map(drop);
        Call { what, valid, result }
    }

    fn annotate(&mut self, draws: &mut Draws) -> Call {
        let texts = ["", " ", "the fox", "1", "\u{0}\u{1b}", "é漢👩\u{200d}🚀"].map(str::to_owned);
        let long = "fox ".repeat(300);
        let texts = [&texts[..], &[long]].concat();
        let three: [String; 3] = std::array::from_fn(|_| draws.of(&texts));
        let pairs =
            vec![Pair { prompt: &three[0], response_1: &three[1], response_2: &three[2] }; draws.below(3)];
        let annotator = draws.below(self.annotators.len());
        let result = self.annotators[annotator].annotate(&pairs);
        if let Ok(judgements) = &result {
            assert_eq!(judgements.len(), pairs.len());
        }
        // A tokenizer without a single token for the answers after some text is an annotator's error.
        let result = match result {
            Err(Error::Annotator { .. }) => Ok(()),
            other => other.map(drop),
        };
        call(("annotate", annotator, &pairs), true, result)
    }

    fn small_things(&self, draws: &mut Draws) -> Call {
        match draws.below(5) {
            0 => {
                let length = draws.mostly(&[None, Some(1), Some(64), Some(usize::MAX)], &[Some(0)]);
                let result = JudgeModel::of_model(&self.dry_frozen, &self.dir, length, &Arena::new());
                call(("judge", length), length != Some(0), result)
            }
            1 => {
                let beta = draws.mostly(&[None, Some(0.1)], &[Some(0.0), Some(-1.0), Some(f32::NAN)]);
                let valid = beta.is_none_or(|b| b > 0.0);
                call(("loss", beta), valid, PreferenceLoss::parse("dpo", beta, false))
            }
            2 => {
                let options = GpuOptions {
                    submit_ms: draws.of(&[0.0, -1.0, f64::NAN]),
                    max_binding_bytes: draws.of(&[None, Some(0)]),
                    ..GpuOptions::default()
                };
                call(("open", options.submit_ms), false, Gpu::open(&options))
            }
            3 => {
                let command = draws.of(&["", " ", "\n\t", "true"]);
                let result = CommandAnnotator::new(command, Duration::MAX);
                call(("command", command), command == "true", result)
            }
            // Sizes of trees that nobody can read are numbers all the same.
            _ => {
                let trees = [draws.tree(&[0, 1, 2, 3])];
                let size = Capacity::of(&trees);
                assert!(size.tokens <= 3000 + 3 * 140 && trees[0].length() >= trees[0].prompt.len());
                call(("sizes", size), true, Ok(()))
            }
        }
    }

    fn any(&mut self, draws: &mut Draws) -> Call {
        match draws.below(40) {
            0..8 => self.score(draws),
            8..12 => self.score_after_a_preamble(draws),
            12..16 => self.score_choices(draws),
            16..20 => self.learn_pairs(draws),
            20..23 => self.learn_completions(draws),
            23 => self.update(draws),
            24..28 => self.generate(draws),
            28 => self.new_generator(draws),
            29 => self.new_plans(draws),
            30 => self.new_optimiser(draws),
            31..33 => self.upload_weights(draws),
            33 => self.move_bytes(draws),
            34 => self.replay(draws),
            35 => self.new_model(draws),
            36 => self.new_adapter(draws),
            37 => self.new_run(draws),
            38 => self.annotate(draws),
            _ => self.small_things(draws),
        }
    }
}

fn plan_of_100_rows(gpu: &Gpu) -> Plan {
    let mut r = Recorder::new(gpu);
    let rows = Dim::Live { index: 0, max: 100 };
    let (x, y) = (r.tensor("x", rows, 4), r.tensor("y", rows, 4));
    ops::residual_add(&mut r, x, y).unwrap();
    Plan::new(gpu, r, &Arena::new(), PlanOptions::default()).unwrap()
}

/// `OAIF_DOOR_CALLS` calls, 10,000 by default, from `OAIF_DOOR_SEED`.
#[test]
fn no_call_panics_or_passes_that_should_not() {
    let Some(gpu) = gpu() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (calls, seed) = (number("OAIF_DOOR_CALLS").unwrap_or(10_000), number("OAIF_DOOR_SEED").unwrap_or(1));
    let mut doors = Doors::new(gpu);
    let (mut refused, mut answered) = (0, 0);
    for i in 0..calls {
        let call_seed = seed.wrapping_mul(1_000_000_007).wrapping_add(i);
        let made = catch_unwind(AssertUnwindSafe(|| doors.any(&mut Draws(call_seed))));
        let again = format!("call {i} of OAIF_DOOR_SEED={seed}");
        let Ok(Call { what, valid, result }) = made else { panic!("{again} panicked, see above") };
        match (valid, result) {
            (true, Ok(())) => answered += 1,
            (false, Err(error)) => {
                refused += 1;
                assert!(
                    !matches!(error, Error::Gpu { .. }),
                    "{again} came as far as the GPU: {what}: {error}"
                );
            }
            (true, Err(error)) => panic!("{again} should be answered: {what}: {error}"),
            (false, Ok(())) => panic!("{again} should be refused: {what}"),
        }
    }
    println!("{calls} calls from seed {seed}: {answered} answered, {refused} refused");
    assert!(answered > calls / 10 && refused > calls / 4, "{answered} answered, {refused} refused");
}

#[test]
fn what_is_refused_says_which_tree_and_why() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), false).unwrap();
    let scorer = Scorer::new(&gpu, &model, CAPACITY, &Arena::new()).unwrap();
    let good = Tree { prompt: vec![1, 2], responses: vec![vec![3], vec![4, 5]] };
    let why = |prompt: Vec<u32>, response: Vec<u32>| {
        let tree = Tree { prompt, responses: vec![vec![3], response] };
        scorer.score(&[good.clone(), tree]).unwrap_err().to_string()
    };
    assert_eq!(
        why(vec![1], vec![2, 96]),
        "response 1 of tree 1: has the token id 96 at 1, the model knows those below 96"
    );
    assert_eq!(why(vec![], vec![2]), "prompt of tree 1: has no token, at least one is needed");
    assert_eq!(why(vec![1], vec![]), "response 1 of tree 1: has no token, at least one is needed");
    assert_eq!(why(vec![1; 3000], vec![2]), "tree 1 has 3000 tokens, the model takes 128: shorten it");
    let wide = Tree { prompt: vec![1; 100], responses: vec![vec![2; 20]; 5] };
    let error = scorer.score(&[wide]).unwrap_err().to_string();
    assert_eq!(
        error,
        "capacity: a tree takes 195 tokens, 100 targets and 5 sequences, there is room for 150 tokens, 140 targets and 4 \
         sequences: ask for more"
    );
}
