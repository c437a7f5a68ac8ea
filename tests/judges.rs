//! Judges that use a language model.

mod common;

use common::{fixture, gpu, relative_distance};
use oaif::Wait;
use oaif::unstable::data::packing::{ChoiceTree, Tree};
use oaif::unstable::gpu::{Arena, Category, Gpu, GpuOptions};
use oaif::unstable::judge::judge_model::JudgeModel;
use oaif::unstable::judge::likelihood::{DEFAULT_TEMPLATE, LikelihoodJudge, Normalise};
use oaif::unstable::judge::llm::{LlmJudge, Orders};
use oaif::unstable::judge::template::JudgeTemplate;
use oaif::unstable::judge::{Judge, Pair, Verdict};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};

const CAPACITY: Capacity = Capacity { tokens: 64, targets: 64, sequences: 16 };

fn scorer(gpu: &Gpu) -> Scorer {
    let model = Model::load(gpu, &fixture("tiny"), false).wait().unwrap();
    Scorer::new(gpu, &model, CAPACITY, &Arena::new()).wait().unwrap()
}

#[test]
fn both_orders_in_one_tree_score_as_each_order_alone() {
    let Some(gpu) = gpu() else { return };
    let scorer = scorer(&gpu);
    let tree = ChoiceTree {
        prompt: vec![1, 5, 6],
        branches: vec![vec![7, 8, 9], vec![10, 11]],
        choices: vec![20, 21],
    };
    let other = ChoiceTree { prompt: vec![1], branches: vec![vec![30]], choices: vec![20, 21] };
    let together = scorer.score_choices(&[tree.clone(), other]).wait().unwrap();
    assert_eq!(together.len(), 3);
    for (branch, scored) in tree.branches.iter().zip(&together) {
        let prompt = [&tree.prompt[..], branch].concat();
        let alone = scorer.score(&[Tree { prompt, responses: vec![vec![20], vec![21]] }]).wait().unwrap();
        let alone: Vec<f32> = alone.iter().flat_map(|s| s.logps.clone()).collect();
        assert!(relative_distance(&scored.logps, &alone) < 1e-6, "{:?} {alone:?}", scored.logps);
    }
}

#[test]
fn trees_after_a_cached_preamble_give_the_same_scores_with_less_work() {
    let Some(_) = gpu() else { return };
    // A separate device, so that no other test uses it.
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let model = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let preamble: Vec<u32> = (1..20).collect();
    let whole = Scorer::new(&gpu, &model, CAPACITY, &Arena::new()).wait().unwrap();
    let after = Scorer::after(&gpu, &model, &preamble, CAPACITY, &Arena::new()).wait().unwrap();
    let begun = |more: &[u32]| [&preamble[..], more].concat();
    let tree = |prompt: Vec<u32>| Tree { prompt, responses: vec![vec![7, 8, 9], vec![10, 2]] };
    // With the preamble, without it, with nothing else, and too many for one pass.
    let mut trees = vec![tree(begun(&[30])), tree(vec![1, 5]), tree(begun(&[])), tree(begun(&[3, 4]))];
    trees.extend((20..30).map(|id| tree(begun(&[id, 31, 32]))));
    let score = |scorer: &Scorer| {
        let before = gpu.activity().work.flops;
        let scores = scorer.score(&trees).wait().unwrap();
        (scores, gpu.activity().work.flops - before)
    };
    let ((want, all), (got, less)) = (score(&whole), score(&after));
    assert_eq!(got.len(), 2 * trees.len());
    for (got, want) in got.iter().zip(&want) {
        assert!(relative_distance(&got.logps, &want.logps) < 1e-6, "{got:?} {want:?}");
    }
    assert!(less < 0.5 * all, "{less} of {all} operations");
    assert_eq!(score(&after).0, got, "the same bits");

    let tree = |prompt| ChoiceTree { prompt, branches: vec![vec![7, 8], vec![9]], choices: vec![20, 21] };
    let trees = [tree(begun(&[30])), tree(vec![1, 5]), tree(begun(&[30, 31]))];
    let (got, want) =
        (after.score_choices(&trees).wait().unwrap(), whole.score_choices(&trees).wait().unwrap());
    for (got, want) in got.iter().zip(&want) {
        assert!(relative_distance(&got.logps, &want.logps) < 1e-6, "{got:?} {want:?}");
    }
}

#[test]
fn a_template_that_rejects_the_test_texts_still_judges() {
    let Some(gpu) = gpu() else { return };
    let judge = JudgeModel::load(&gpu, &fixture("tiny"), Some(64), &Arena::new()).wait().unwrap();
    let template = "{{ prompt | int }}";
    let mut judge = LikelihoodJudge::new(judge, template, "", Normalise::Sum, "tiny").wait().unwrap();
    let pair = Pair { prompt: "41", response_1: " fox", response_2: " old" };
    assert!(judge.judge(&[pair]).wait().unwrap()[0].verdict.p_first().is_some());
}

#[test]
fn the_text_before_the_placeholders_is_cached() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let words = words();
    let before = words[3..23].join(" ");
    let source = format!("{before} {{{{ prompt }}}} {{{{ response_1 }}}} {{{{ response_2 }}}} ");
    let template = JudgeTemplate::from_text(&source).unwrap();
    let judge = || JudgeModel::load(&gpu, &fixture("tiny"), Some(64), &Arena::new()).wait().unwrap();
    let hand = judge();
    let pair = Pair { prompt: &words[0], response_1: &words[1], response_2: &words[2] };
    let [one, two] = ["1", "2"].map(|d| hand.tokenizer.token_to_id(d).unwrap());
    let prompt = hand.tokenizer.encode(&template.render(&pair).unwrap()).unwrap();
    let flops = || gpu.activity().work.flops;
    let start = flops();
    let scores = hand.scorer.score(&[Tree { prompt, responses: vec![vec![one], vec![two]] }]).wait().unwrap();
    let whole = flops() - start;
    let [first, second] = [scores[0].logp().exp(), scores[1].logp().exp()];

    let cached = || gpu.memory().bytes.get(&Category::KvCache).copied().unwrap_or(0);
    let start = cached();
    let mut judge = LlmJudge::new(judge(), template, Orders::One, "tiny").wait().unwrap();
    let architecture = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap().architecture().clone();
    let row = 2 * architecture.kv_heads * architecture.head_dim * 4 * architecture.layers;
    assert_eq!(
        (cached() - start) as usize,
        20 * row,
        "the first token and 19 of the 20 words, because the last one may be merged with the text"
    );
    let start = flops();
    let judgement = judge.judge(&[pair]).wait().unwrap().remove(0);
    let rest = flops() - start;
    let got = judgement.verdict.p_first().unwrap() as f64;
    assert!((got - first / (first + second)).abs() < 1e-5, "{got}");
    assert!(rest < 0.5 * whole, "{rest} of {whole} operations");
}

/// Words in the vocabulary of the tiny model.
fn words() -> Vec<String> {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("tiny/tokenizer.json")).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    vocab.keys().filter(|w| w.chars().all(char::is_alphabetic)).cloned().collect()
}

fn template() -> JudgeTemplate {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("judge.txt");
    std::fs::write(&path, "{{ prompt }} {{ response_1 }} {{ response_2 }} ").unwrap();
    JudgeTemplate::from_file(&path).unwrap()
}

#[test]
fn a_prompted_judge_averages_both_orders_over_its_two_answers() {
    let Some(gpu) = gpu() else { return };
    let words = words();
    let judge = || JudgeModel::load(&gpu, &fixture("tiny"), Some(64), &Arena::new()).wait().unwrap();
    let pair = Pair { prompt: &words[0], response_1: &words[1], response_2: &words[2] };

    // Computed by hand: the probability of "1" against "2" after each order.
    let hand = judge();
    let ids = |texts: [&str; 3]| hand.tokenizer.encode(&texts.join(" ")).unwrap();
    let [one, two] = ["1", "2"].map(|d| hand.tokenizer.token_to_id(d).unwrap());
    let p = |texts: [&str; 3]| {
        let tree = Tree { prompt: ids(texts), responses: vec![vec![one], vec![two]] };
        let scores = hand.scorer.score(&[tree]).wait().unwrap();
        let [first, second] = [scores[0].logp().exp(), scores[1].logp().exp()];
        first / (first + second)
    };
    let p_12 = p([pair.prompt, pair.response_1, pair.response_2]);
    let p_21 = 1.0 - p([pair.prompt, pair.response_2, pair.response_1]);

    let mut both = LlmJudge::new(judge(), template(), Orders::Both, "tiny").wait().unwrap();
    let judgement = both.judge(&[pair]).wait().unwrap().remove(0);
    let near =
        |got: Option<f32>, want: f64| assert!((got.unwrap() as f64 - want).abs() < 1e-5, "{got:?} {want}");
    near(judgement.p_12, p_12);
    near(judgement.p_21, p_21);
    near(judgement.verdict.p_first(), 0.5 * (p_12 + p_21));
    // The swapped pair gives the same result.
    let swapped = both.judge(&[pair.swapped()]).wait().unwrap().remove(0);
    near(swapped.verdict.p_first(), 1.0 - 0.5 * (p_12 + p_21));

    let mut one_order = LlmJudge::new(judge(), template(), Orders::One, "tiny").wait().unwrap();
    let judgement = one_order.judge(&[pair]).wait().unwrap().remove(0);
    near(judgement.verdict.p_first(), p_12);
    assert_eq!(judgement.p_21, None);
}

#[test]
fn a_judge_without_tokens_for_its_answers_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("tiny")).unwrap().flatten() {
        let text = std::fs::read(entry.path()).unwrap();
        let path = dir.path().join(entry.file_name());
        match entry.file_name().to_str() {
            Some("tokenizer.json") => {
                let text = String::from_utf8(text).unwrap().replace("\"1\":", "\"one\":");
                std::fs::write(path, text).unwrap();
            }
            _ => std::fs::write(path, text).unwrap(),
        }
    }
    let judge = JudgeModel::load(&gpu, dir.path(), None, &Arena::new()).wait().unwrap();
    let mut judge = LlmJudge::new(judge, template(), Orders::Both, "tiny").wait().unwrap();
    let pair = Pair { prompt: "a", response_1: "b", response_2: "c" };
    let error = judge.judge(&[pair]).wait().unwrap_err().to_string();
    assert!(error.contains("no single token") && error.contains("--judge-model"), "{error}");
}

#[test]
fn a_likelihood_judge_prefers_the_more_probable_response() {
    let Some(gpu) = gpu() else { return };
    let words = words();
    let judge = || JudgeModel::load(&gpu, &fixture("tiny"), Some(64), &Arena::new()).wait().unwrap();
    let (short, long) = (words[3].clone(), words[4..9].join(" "));
    let (short, long) = (format!(" {short}"), format!(" {long}"));
    let pair = Pair { prompt: &words[0], response_1: &short, response_2: &long };
    let hand = judge();
    let prompt = hand.tokenizer.encode(&words[0]).unwrap();
    let logp = |text: &str, whole: bool| {
        let mut ids = hand.tokenizer.encode_plain(text).unwrap();
        ids.extend(hand.tokenizer.eos().into_iter().filter(|_| whole));
        let tree = Tree { prompt: prompt.clone(), responses: vec![ids] };
        hand.scorer.score(&[tree]).wait().unwrap()[0].clone()
    };
    let judge = |normalise, whole| {
        let new = LikelihoodJudge::new(judge(), DEFAULT_TEMPLATE, "", normalise, "tiny").wait().unwrap();
        if whole { new.of_whole_responses() } else { new }
    };
    let first_wins = |judge: &mut LikelihoodJudge, pair: Pair<'_>| {
        judge.judge(&[pair]).wait().unwrap().remove(0).verdict.p_first().unwrap() as f64
    };
    for whole in [false, true] {
        let (a, b) = (logp(&short, whole), logp(&long, whole));
        for normalise in [Normalise::Sum, Normalise::Token, Normalise::Character] {
            let by = |logp: f64, tokens: usize, text: &str| match normalise {
                Normalise::Sum => logp,
                Normalise::Token => logp / tokens as f64,
                Normalise::Character => logp / text.chars().count() as f64,
            };
            let difference = by(a.logp(), a.logps.len(), &short) - by(b.logp(), b.logps.len(), &long);
            let want = 1.0 / (1.0 + (-difference).exp());
            let got = first_wins(&mut judge(normalise, whole), pair);
            assert!((got - want).abs() < 1e-5, "{normalise:?}, whole {whole}: {got} {want}");
        }
    }
    // For complete responses, an empty response is as probable as the end token at this position; otherwise its
    // probability is 1.
    let nothing = Pair { prompt: &words[0], response_1: "", response_2: &short };
    let want = 1.0 / (1.0 + (logp(&short, true).logp() - logp("", true).logp()).exp());
    let got = first_wins(&mut judge(Normalise::Sum, true), nothing);
    assert!((got - want).abs() < 1e-5, "{got} {want}");
}

#[test]
fn a_text_with_a_token_unknown_to_the_judge_is_invalid_and_does_not_end_the_run() {
    let Some(gpu) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("tiny")).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("tokenizer_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["pad_token"] = "<pad>".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let judge = || JudgeModel::load(&gpu, dir.path(), Some(64), &Arena::new()).wait().unwrap();
    let likelihood =
        LikelihoodJudge::new(judge(), DEFAULT_TEMPLATE, "", Normalise::Sum, "tiny").wait().unwrap();
    let prompted = LlmJudge::new(judge(), template(), Orders::Both, "tiny").wait().unwrap();
    let pairs = [
        Pair { prompt: "a", response_1: " b", response_2: " <pad>" },
        Pair { prompt: "a", response_1: " b", response_2: " c d" },
    ];
    for mut judge in [Box::new(likelihood) as Box<dyn Judge>, Box::new(prompted)] {
        let judgements = judge.judge(&pairs).wait().unwrap();
        let Verdict::Invalid { why } = &judgements[0].verdict else { panic!("{:?}", judgements[0]) };
        assert!(why.contains("the judge cannot read it: text has the token \"<pad>\" with id 96"), "{why}");
        assert!(judgements[1].verdict.p_first().is_some());
    }
}

#[test]
fn a_pair_that_the_template_rejects_is_invalid_and_does_not_end_the_run() {
    let Some(gpu) = gpu() else { return };
    let judge = || JudgeModel::load(&gpu, &fixture("tiny"), Some(64), &Arena::new()).wait().unwrap();
    let refusing = "{% if prompt == 'no' %}{{ 1 // 0 }}{% endif %}{{ prompt }}";
    let likelihood = LikelihoodJudge::new(judge(), refusing, "", Normalise::Sum, "tiny").wait().unwrap();
    let template =
        JudgeTemplate::from_text(&format!("{refusing} {{{{ response_1 }}}} {{{{ response_2 }}}}")).unwrap();
    let prompted = LlmJudge::new(judge(), template, Orders::Both, "tiny").wait().unwrap();
    let pairs = ["no", "a"].map(|prompt| Pair { prompt, response_1: " b", response_2: " c d" });
    for mut judge in [Box::new(likelihood) as Box<dyn Judge>, Box::new(prompted)] {
        let judgements = judge.judge(&pairs).wait().unwrap();
        let Verdict::Invalid { why } = &judgements[0].verdict else { panic!("{:?}", judgements[0]) };
        assert!(why.contains("judge-template cannot render this pair"), "{why}");
        assert!(judgements[1].verdict.p_first().is_some(), "{:?}", judgements[1]);
    }
}

#[test]
fn a_text_above_the_judges_length_limit_is_invalid() {
    let Some(gpu) = gpu() else { return };
    let judge = JudgeModel::load(&gpu, &fixture("tiny"), Some(8), &Arena::new()).wait().unwrap();
    let mut judge = LikelihoodJudge::new(judge, DEFAULT_TEMPLATE, "", Normalise::Sum, "tiny").wait().unwrap();
    let long = "fox ".repeat(20);
    let pairs = [
        Pair { prompt: "a", response_1: &long, response_2: " b" },
        Pair { prompt: "a", response_1: " b", response_2: " c d" },
    ];
    let judgements = judge.judge(&pairs).wait().unwrap();
    assert!(
        matches!(&judgements[0].verdict, Verdict::Invalid { why } if why.contains("limit of the judge is 8"))
    );
    assert!(judgements[1].verdict.p_first().is_some());
}
