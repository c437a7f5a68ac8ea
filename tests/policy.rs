//! Policy gradients compared with PyTorch (`fixtures/make_policy.py`), and whole runs that learn from scores.

mod common;

use std::path::Path;

use common::{fixture, gpu};
use oaif::Task;
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::rows::{Prompt, Text};
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::judge::queue::{InPlace, IntoJudgeQueue};
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::judge::threaded::Threaded;
use oaif::unstable::judge::{Judge, Judgement, Pair, Rated, Score};
use oaif::unstable::model::Model;
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::ops::PolicyGradient;
use oaif::unstable::train::policy_step::{PolicyStep, ScoredGroup};
use oaif::unstable::train::{
    Advantage, AlignOptions, AlignRun, Control, PairChoice, Policy, PolicyLoss, Requests, Sources,
    TokenWeights, TrainOptions,
};
use serde_json::{Value, json};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6f64, |most, x| most.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, number {i}: {a}, expected {b}");
    }
}

fn loss(case: &Value) -> PolicyLoss {
    let number = |key: &str| case[key].as_f64().unwrap() as f32;
    PolicyLoss {
        advantage: serde_json::from_value::<Advantage>(case["advantage"].clone()).unwrap(),
        tokens: serde_json::from_value::<TokenWeights>(case["tokens"].clone()).unwrap(),
        beta: number("beta"),
        epsilon: number("low"),
        epsilon_high: number("high"),
    }
}

#[test]
fn losses_and_gradients_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let file: Value = serde_json::from_slice(&std::fs::read(fixture("policy.json")).unwrap()).unwrap();
    let f32s = |value: &Value| numbers(value).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let per_group = |key: &str| -> Vec<Vec<Vec<f32>>> {
        let all: Vec<Vec<f32>> = file[key].as_array().unwrap().iter().map(f32s).collect();
        all.chunks(3).map(<[Vec<f32>]>::to_vec).collect()
    };
    let trees: Vec<Tree> = file["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .zip(file["responses"].as_array().unwrap())
        .map(|(prompt, responses)| Tree {
            prompt: ids(prompt),
            responses: responses.as_array().unwrap().iter().map(ids).collect(),
        })
        .collect();
    let lengths: Vec<usize> = trees.iter().flat_map(|t| t.responses.iter().map(Vec::len)).collect();
    let scores = numbers(&file["scores"]);
    let (reference, sampler) = (per_group("reference"), per_group("sampler"));
    let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
    for (name, case) in file["cases"].as_object().unwrap() {
        let loss = loss(case);
        let off_policy = case["off_policy"].as_bool().unwrap();
        let expected = numbers(&case["advantages"]);
        if case["beta"] == 0.0 || loss.advantage != Advantage::LeaveOneOut {
            let all = scores
                .chunks(3)
                .flat_map(|group| loss.advantages(&group.iter().copied().map(Some).collect::<Vec<_>>()));
            assert_close(name, &all.collect::<Vec<_>>(), &expected, 1e-12);
        }
        let weights: Vec<f32> = {
            let all: usize = lengths.iter().sum();
            let weight = |n: &usize| match loss.tokens {
                TokenWeights::Sum => 1.0 / 6.0,
                TokenWeights::Token => 1.0 / all as f32,
                TokenWeights::Response => 1.0 / (6.0 * *n as f32),
            };
            lengths.iter().map(weight).collect()
        };
        let beta = if loss.advantage == Advantage::LeaveOneOut { 0.0 } else { loss.beta };
        let gradient = PolicyGradient { clip_low: loss.epsilon, clip_high: loss.epsilon_high, beta };
        let capacity = Capacity::of(&trees);
        let step = PolicyStep::new(&gpu, &model, gradient, off_policy, capacity, false, &Arena::new())
            .wait()
            .unwrap();
        let groups: Vec<ScoredGroup> = (0..2)
            .map(|g| ScoredGroup {
                tree: trees[g].clone(),
                advantages: expected[3 * g..][..3].iter().map(|a| *a as f32).collect(),
                weights: weights[3 * g..][..3].to_vec(),
                reference: reference[g].clone(),
                sampler: if off_policy { sampler[g].clone() } else { Vec::new() },
            })
            .collect();
        model.trained().clear_gradients().unwrap();
        let (results, _) = step.run(&groups).wait().unwrap();
        let total: f64 = results.iter().map(|r| r.loss).sum();
        assert_close(&format!("{name}: loss"), &[total], &[case["loss"].as_f64().unwrap()], 1e-5);
        for (parameter, expected) in case["gradients"].as_object().unwrap() {
            let weight = model.base().get(parameter).unwrap();
            let found = model.base().gradient_as_stored(weight).wait().unwrap();
            let found: Vec<f64> = found.into_iter().map(f64::from).collect();
            assert_close(&format!("{name}: {parameter}"), &found, &numbers(expected), 2e-5);
        }
        assert_eq!(results.iter().any(|r| r.clipped > 0), off_policy, "{name}");
    }
}

#[test]
fn a_group_that_lacks_a_number_is_rejected() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
    let whole = ScoredGroup {
        tree: Tree { prompt: vec![5], responses: vec![vec![6, 7], vec![8]] },
        advantages: vec![1.0, -1.0],
        weights: vec![0.5, 0.5],
        reference: vec![vec![-1.0, -2.0], vec![-1.0]],
        sampler: Vec::new(),
    };
    let gradient = PolicyGradient { clip_low: 0.2, clip_high: 0.2, beta: 0.0 };
    let capacity = Capacity::of(std::slice::from_ref(&whole.tree));
    let step = PolicyStep::new(&gpu, &model, gradient, false, capacity, false, &Arena::new()).wait().unwrap();
    step.run(std::slice::from_ref(&whole)).wait().unwrap();
    for broken in [
        ScoredGroup { advantages: vec![1.0], ..whole.clone() },
        ScoredGroup { advantages: vec![1.0, f32::NAN], ..whole.clone() },
        ScoredGroup { weights: vec![], ..whole.clone() },
        ScoredGroup { reference: vec![vec![-1.0], vec![-1.0]], ..whole.clone() },
    ] {
        let error = step.run(&[broken]).wait().unwrap_err().to_string();
        assert!(error.contains("group 0"), "{error}");
    }
    assert!(step.run(&[]).wait().is_err());
    let clip = PolicyGradient { clip_low: -0.1, ..gradient };
    assert!(PolicyStep::new(&gpu, &model, clip, false, capacity, false, &Arena::new()).wait().is_err());
}

fn prompts() -> Vec<Prompt> {
    let json: Value =
        serde_json::from_slice(&std::fs::read(fixture("tiny/tokenizer.json")).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let words: Vec<String> = vocab.keys().filter(|w| w.chars().all(char::is_alphabetic)).cloned().collect();
    let prompt = |i: usize| Prompt {
        prompt: Text::Plain(words[i % words.len()].clone()),
        reference: None,
        place: (i + 1).into(),
    };
    (0..10).map(prompt).collect()
}

/// Counts the letters a. If it does not rate, it compares by this count.
struct Letters {
    rates: bool,
}

impl Letters {
    fn count(text: &str) -> f32 {
        text.matches('a').count() as f32
    }
}

impl Judge for Letters {
    fn name(&self) -> String {
        "letters".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move { Rule::parse("more:a")?.judge(pairs).await })
    }

    fn rates(&self) -> bool {
        self.rates
    }

    fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, oaif::Result<Vec<Score>>> {
        Box::pin(async move {
            assert!(self.rates);
            Ok(responses.iter().map(|rated| Score::Value(Letters::count(rated.response))).collect())
        })
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn train(
    gpu: &Gpu,
    options: &TrainOptions,
    align: &AlignOptions,
    queue: impl IntoJudgeQueue<'static>,
) -> oaif::Result<std::path::PathBuf> {
    let policy = Policy::load(gpu, &fixture("tiny"), options).wait()?;
    let run = AlignRun::new(policy, &prompts(), options, align).wait()?;
    let sources = Sources { model: fixture("tiny"), config: json!({"command": "align"}) };
    run.run(queue, sources, Control { observer: &mut (), requests: &Requests::new() }).wait()
}

fn align(loss: PolicyLoss) -> AlignOptions {
    AlignOptions::new(loss).max_new_tokens(8).num_samples(4)
}

#[test]
fn scores_rise_with_a_judge_that_rates_and_with_one_that_compares() {
    let Some(gpu) = gpu() else { return };
    for (name, loss) in [("rloo", PolicyLoss::rloo()), ("grpo", PolicyLoss::grpo())] {
        for rates in [true, false] {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("run");
            let options =
                TrainOptions::default().output_dir(&dir).learning_rate(1e-2).batch_size(8).max_steps(30);
            train(&gpu, &options, &align(loss), InPlace::new(Letters { rates })).unwrap();
            let metrics = rows(&dir.join("metrics.jsonl"));
            let said = rows(&dir.join("pairs.jsonl"));
            let letters = |step: std::ops::RangeInclusive<u64>| {
                let of = said.iter().filter(|row| step.contains(&row["step"].as_u64().unwrap()));
                let texts: Vec<&str> = of
                    .flat_map(|row| ["response", "response_1", "response_2"].map(|key| row[key].as_str()))
                    .flatten()
                    .collect();
                texts.iter().map(|text| Letters::count(text)).sum::<f32>() / texts.len() as f32
            };
            let (first, last) = (letters(1..=3), letters(28..=30));
            assert!(last > first + 0.8, "{name}, rates {rates}: {first} -> {last} letters per response");
            for row in &metrics {
                let n = row["judge/judged"].as_u64().unwrap() + row["judge/identical"].as_u64().unwrap();
                assert_eq!(n, if rates { 32 } else { 8 * 6 }, "{row}");
                if row["loss"].is_number() {
                    assert!(row["reward"].is_number() && row["objective/kl"].is_number(), "{row}");
                }
            }
            let scored = said.iter().filter(|row| row.get("score").is_some_and(Value::is_number)).count();
            assert_eq!(scored, if rates { 30 * 32 } else { 0 });
        }
    }
}

#[test]
fn options_for_single_pairs_are_rejected() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let options = TrainOptions::default().output_dir(temp.path()).batch_size(2).max_steps(2);
    let usual = align(PolicyLoss::grpo());
    for (align, name) in [
        (usual.clone().soft_labels(true), "soft-labels"),
        (usual.clone().pairs(PairChoice::All), "pairs"),
        (usual.min_confidence(0.9), "min-confidence"),
    ] {
        let refused = train(&gpu, &options, &align, InPlace::new(Alike)).unwrap_err().to_string();
        assert!(refused.starts_with(name) && refused.contains("a policy gradient"), "{refused}");
    }
}

#[test]
fn a_step_of_equal_scores_reports_them_and_learns_nothing() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let options = TrainOptions::default().output_dir(&dir).batch_size(2).max_steps(2);
    let refused = train(&gpu, &options, &align(PolicyLoss::rloo()), InPlace::new(Alike)).unwrap_err();
    assert!(matches!(refused, oaif::Error::SelfCheck(_)), "{refused}");
    let metrics = rows(&dir.join("metrics.jsonl"));
    assert_eq!(metrics.len(), 2);
    for row in metrics {
        assert_eq!(
            (&row["reward"], &row["reward_std"], &row["loss"]),
            (&json!(0.25), &json!(0.0), &Value::Null)
        );
        assert_eq!(row["frac_reward_zero_std"], json!(1.0), "{row}");
    }
}

/// Rates all responses equally.
struct Alike;

impl Judge for Alike {
    fn name(&self) -> String {
        "alike".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(
            async move { Ok(pairs.iter().map(|_| oaif::unstable::judge::Verdict::Tie.into()).collect()) },
        )
    }

    fn rates(&self) -> bool {
        true
    }

    fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, oaif::Result<Vec<Score>>> {
        Box::pin(async move { Ok(vec![Score::Value(0.25); responses.len()]) })
    }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_on_and_off_policy() {
    let Some(gpu) = gpu() else { return };
    for (loss, async_level) in [(PolicyLoss::rloo(), 0), (PolicyLoss::grpo(), 2)] {
        let temp = tempfile::tempdir().unwrap();
        let options = |dir: &str| {
            TrainOptions::default()
                .output_dir(temp.path().join(dir))
                .learning_rate(1e-2)
                .batch_size(2)
                .accumulation(2)
                .max_steps(6)
                .save_steps(2)
        };
        let align = align(loss).async_level(async_level);
        let queue = || Threaded::new(Letters { rates: true }).unwrap();
        train(&gpu, &options("whole"), &align, queue()).unwrap();
        train(&gpu, &options("parts"), &align, queue()).unwrap();
        let from = temp.path().join("parts/checkpoints/step-000002");
        let resume = Some(from.to_str().unwrap().into());
        train(&gpu, &options("parts").resume(resume), &align, queue()).unwrap();
        let weights =
            |dir: &str| std::fs::read(temp.path().join(dir).join("model/model.safetensors")).unwrap();
        assert!(weights("whole") == weights("parts"), "{loss:?}: the weights differ");
        let ratios = rows(&temp.path().join("whole/metrics.jsonl"));
        assert!(ratios.iter().all(|row| row["clip_ratio/region_mean"].is_number()));
    }
}
