//! Reward models compared with transformers and peft (`fixtures/make_reward.py`), and whole training runs of them.

mod common;

use std::path::Path;

use common::{fixture, gpu};
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::rows::{Pair, Text};
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::judge::reward::RewardJudge;
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::judge::{Judge, Pair as Asked, Rated, Score, Verdict};
use oaif::unstable::model::safetensors_io::TensorFiles;
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{LoraConfig, LoraTargets, Model, Rater};
use oaif::unstable::train::reward_step::{RatedPair, RewardStep};
use oaif::unstable::train::{Control, Policy, Requests, RewardOptions, RewardRun, Sources, TrainOptions};
use serde_json::{Value, json};

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("reward.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn pairs(value: &Value) -> Vec<RatedPair> {
    let pair = |p: &Value| RatedPair {
        tree: Tree { prompt: ids(&p["prompt"]), responses: vec![ids(&p["chosen"]), ids(&p["rejected"])] },
        margin: p["margin"].as_f64().unwrap() as f32,
    };
    value.as_array().unwrap().iter().map(pair).collect()
}

const CAPACITY: Capacity = Capacity { tokens: 96, targets: 8, sequences: 8 };

fn scores(gpu: &Gpu, model: &Model, rows: &Value) -> Vec<f32> {
    let trees: Vec<Tree> = pairs(rows).into_iter().map(|pair| pair.tree).collect();
    Rater::new(gpu, model, CAPACITY, &Arena::new()).wait().unwrap().rate(&trees).wait().unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{what}, number {i}: {a}, expected {b}");
    }
}

#[test]
fn scores_of_every_family_equal_transformers() {
    let Some(gpu) = gpu() else { return };
    let expected = expected();
    let padding = expected["padding"].as_u64().map(|id| id as u32);
    let families = expected["families"].as_object().unwrap();
    for (name, family) in families {
        let dir = fixture("families").join(name);
        let model = Model::load_into_reward(&gpu, &dir, None, padding, 1).wait().unwrap();
        model.base().upload("score.weight", &numbers(&family["head"])).unwrap();
        let found = scores(&gpu, &model, &expected["pairs"]);
        assert_close(name, &found, &numbers(&family["scores"]), 1e-5);
    }
    assert_eq!(families.len(), 15);
}

#[test]
fn scores_of_a_saved_classifier_and_adapter_equal_transformers_and_peft() {
    let Some(gpu) = gpu() else { return };
    let tiny = &expected()["tiny"];
    let model = Model::load_reward(&gpu, &fixture("tiny_reward"), None, None).wait().unwrap();
    assert_close("scores", &scores(&gpu, &model, &tiny["pairs"]), &numbers(&tiny["scores"]), 1e-5);
    let base = Model::load_into_reward(&gpu, &fixture("tiny"), None, Some(3), 1).wait().unwrap();
    let adapted = base.load_adapter(&fixture("tiny_reward_lora"), false).unwrap();
    let wanted = numbers(&tiny["adapter_scores"]);
    assert_close("adapter", &scores(&gpu, &adapted, &tiny["pairs"]), &wanted, 1e-5);
    let merged = adapted.merge_adapter().wait().unwrap();
    assert_close("merged", &scores(&gpu, &merged, &tiny["pairs"]), &wanted, 1e-5);
}

#[test]
fn loss_and_gradients_equal_pytorch() {
    let Some(gpu) = gpu() else { return };
    let tiny = &expected()["tiny"];
    let model = Model::load_into_reward(&gpu, &fixture("tiny_reward"), None, None, 1).wait().unwrap();
    let centring = tiny["centring"].as_f64().unwrap() as f32;
    let step = RewardStep::new(&gpu, &model, centring, CAPACITY, false, &Arena::new()).wait().unwrap();
    let pairs = pairs(&tiny["pairs"]);
    let (results, _) = step.run(&pairs, 1.0 / pairs.len() as f32).wait().unwrap();
    let losses: Vec<f32> = results.iter().map(|r| r.loss).collect();
    assert_close("losses", &losses, &numbers(&tiny["losses"]), 1e-5);
    let found: Vec<f32> = results.iter().flat_map(|r| [r.chosen, r.rejected]).collect();
    assert_close("scores", &found, &numbers(&tiny["scores"]), 1e-5);
    let files = TensorFiles::open_file(&fixture("grads_tiny_reward.safetensors")).unwrap();
    let mut compared = 0;
    for weight in model.base().iter() {
        let expected = files.read_f32(&weight.name, &weight.shape).unwrap();
        let found = model.base().gradient_as_stored(weight).wait().unwrap();
        assert_close(&weight.name, &found, &expected, 2e-5);
        compared += 1;
    }
    assert_eq!(compared, files.names().count());
}

#[test]
fn a_reward_model_does_not_generate_and_a_language_model_does_not_rate() {
    let Some(gpu) = gpu() else { return };
    let why = Model::load(&gpu, &fixture("tiny_reward"), false).wait().err().unwrap().to_string();
    assert!(why.contains("is a reward model (LlamaForSequenceClassification)"), "{why}");
    let why = Model::load_reward(&gpu, &fixture("tiny"), None, None).wait().err().unwrap().to_string();
    assert!(why.contains("is not a reward model") && why.contains("oaif reward"), "{why}");
    let model = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let why = model.load_adapter(&fixture("tiny_reward_lora"), false).err().unwrap().to_string();
    assert!(why.contains("is the adapter of a reward model"), "{why}");
    assert!(Rater::new(&gpu, &model, CAPACITY, &Arena::new()).wait().is_err());
    let why =
        Model::load_into_reward(&gpu, &fixture("families/granite"), None, None, 1).wait().err().unwrap();
    assert!(why.to_string().contains("Granite"), "{why}");
}

fn words() -> Vec<String> {
    let json: Value =
        serde_json::from_slice(&std::fs::read(fixture("tiny/tokenizer.json")).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    vocab.keys().filter(|w| w.chars().all(char::is_alphabetic)).cloned().collect()
}

/// Pairs in which the better response has more words.
fn preferences(count: usize, first: usize) -> Vec<Pair> {
    let words = words();
    let some = |at: usize, n: usize| {
        Text::Plain(format!(
            " {}",
            (at..at + n).map(|i| words[i * 7 % words.len()].as_str()).collect::<Vec<_>>().join(" ")
        ))
    };
    let pair = |i: usize| Pair {
        prompt: Text::Plain(words[i % words.len()].clone()),
        chosen: some(3 * i, 5 + i % 3),
        rejected: some(5 * i + 1, 1 + i % 3),
        margin: None,
        place: (i + 1).into(),
    };
    (first..first + count).map(pair).collect()
}

fn text(text: &Text) -> &str {
    let Text::Plain(text) = text else { panic!() };
    text
}

#[test]
fn a_reward_model_learns_ranks_held_out_pairs_and_serves_as_judge() {
    let Some(gpu) = gpu() else { return };
    for (name, lora) in [("full", None), ("lora", Some(2))] {
        let temp = tempfile::tempdir().unwrap();
        let targets = LoraTargets::AllLinear;
        let train = TrainOptions::default()
            .output_dir(temp.path().join("run"))
            .learning_rate(if lora.is_some() { 2e-2 } else { 3e-3 })
            .batch_size(8)
            .max_steps(30)
            .save_steps(20)
            .lora(lora.map(|rank| LoraConfig::new(rank).alpha(4.0).targets(targets)));
        let options = RewardOptions::default().center_rewards_coefficient(0.01).append_eos(true);
        let train_once = |train: &TrainOptions| {
            let policy = Policy::load_for_reward(&gpu, &fixture("tiny"), train).wait().unwrap();
            let run = RewardRun::new(policy, &preferences(48, 0), train, &options).wait().unwrap();
            let sources = Sources { model: fixture("tiny"), config: json!({"command": "reward"}) };
            let control = Control { observer: &mut (), requests: &Requests::new() };
            run.run(sources, control).wait().unwrap()
        };
        let saved = train_once(&train);
        let weights = |dir: &Path| {
            let file = if lora.is_some() { "adapter_model.safetensors" } else { "model.safetensors" };
            std::fs::read(dir.join(file)).unwrap()
        };
        let whole = weights(&saved);
        let resume = Some(temp.path().join("run/checkpoints/step-000020").to_str().unwrap().into());
        train_once(&train.clone().resume(resume));
        assert!(weights(&saved) == whole, "{name}: a resumed run differs");

        let (dir, adapter) = match lora {
            None => (saved.clone(), None),
            Some(_) => (fixture("tiny"), Some(&*saved)),
        };
        let model = Model::load_reward(&gpu, &dir, adapter, None).wait().unwrap();
        let mut judge = RewardJudge::new(&model, &dir, None, true, None, name).wait().unwrap();
        let held_out = preferences(40, 100);
        let asked: Vec<Asked> = held_out
            .iter()
            .map(|p| Asked {
                prompt: text(&p.prompt),
                response_1: text(&p.chosen),
                response_2: text(&p.rejected),
            })
            .collect();
        let verdicts = judge.judge(&asked).wait().unwrap();
        let right = verdicts.iter().filter(|j| matches!(j.verdict, Verdict::First { .. })).count();
        assert!(right >= 36, "{name}: {right} of 40 held-out pairs");
        // The probability is that of Bradley and Terry for the two scores.
        let of = |response| Rated { prompt: asked[0].prompt, response };
        let rated = judge.rate(&[of(asked[0].response_1), of(asked[0].response_2)]).wait().unwrap();
        let [Score::Value(one), Score::Value(two)] = rated[..] else { panic!("{rated:?}") };
        let p = 1.0 / (1.0 + (two - one).exp());
        assert!((verdicts[0].verdict.p_first().unwrap() - p).abs() < 1e-5, "{name}");
        assert!(judge.rates() && Rule::parse("longer").unwrap().rates());
    }
}
