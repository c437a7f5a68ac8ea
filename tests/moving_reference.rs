//! A reference model that follows the policy (TR-DPO): losses compared with PyTorch, resuming, and invalid options.

mod common;

use std::path::Path;

use common::{fixture, gpu};
use oaif::Wait;
use oaif::unstable::data::rows::{Pair, Prompt, Text};
use oaif::unstable::gpu::Gpu;
use oaif::unstable::judge::queue::InPlace;
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::model::{FloatFormat, FrozenFormat, LoraConfig, LoraTargets};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::run_dir::Resume;
use oaif::unstable::train::schedule::ScheduleKind;
use oaif::unstable::train::{
    AlignOptions, AlignRun, Control, DpoOptions, DpoRun, OnlineLoss, Policy, PolicyLoss, ReferenceSync,
    Requests, Sources, TrainOptions,
};
use serde_json::{Value, json};

fn known() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("sync_tiny.json")).unwrap()).unwrap()
}

fn pairs() -> Vec<Pair> {
    let known = known();
    let rows = known["pairs"].as_array().unwrap().iter().enumerate();
    let pair = |(i, row): (usize, &Value)| {
        let text = |side: &str| Text::Plain(row[side].as_str().unwrap().into());
        let [prompt, chosen, rejected] = ["prompt", "chosen", "rejected"].map(text);
        Pair { prompt, chosen, rejected, margin: None, place: (i + 1).into() }
    };
    rows.map(pair).collect()
}

/// Options with all four pairs in every step.
fn options(dir: &Path, steps: usize, alpha: f32, every: usize) -> TrainOptions {
    TrainOptions::default()
        .output_dir(dir)
        .learning_rate(1e-3)
        .schedule(ScheduleKind::Constant)
        .batch_size(4)
        .max_steps(steps)
        .save_steps(1)
        .max_grad_norm(0.0)
        .reference_sync(ReferenceSync { alpha, steps: every })
}

fn dpo_options() -> DpoOptions {
    DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).append_eos(false)
}

fn sources() -> Sources {
    Sources { model: fixture("tiny"), config: json!({"command": "test"}) }
}

fn dpo(gpu: &Gpu, train: &TrainOptions) -> oaif::Result<Vec<Value>> {
    let policy = Policy::load(gpu, &fixture("tiny"), train).wait()?;
    let run = DpoRun::new(policy, &pairs(), train, &dpo_options()).wait()?;
    run.run(sources(), Control { observer: &mut (), requests: &Requests::new() }).wait()?;
    Ok(metrics(train.output_dir.as_ref().unwrap()))
}

fn align(gpu: &Gpu, train: &TrainOptions, loss: impl Into<OnlineLoss>) -> oaif::Result<Vec<Value>> {
    let policy = Policy::load(gpu, &fixture("tiny"), train).wait()?;
    let prompt = |pair: Pair| Prompt { prompt: pair.prompt, reference: None, place: pair.place };
    let prompts: Vec<Prompt> = pairs().into_iter().map(prompt).collect();
    let options = AlignOptions::new(loss).max_new_tokens(6);
    let run = AlignRun::new(policy, &prompts, train, &options).wait()?;
    let judge = InPlace::new(Rule::parse("longer")?);
    run.run(judge, sources(), Control { observer: &mut (), requests: &Requests::new() }).wait()?;
    Ok(metrics(train.output_dir.as_ref().unwrap()))
}

/// The metrics of a run without those that depend on the clock and the device.
fn metrics(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let timed =
        |key: &str| key.starts_with("time/") || key.starts_with("memory/") || key == "judge/latency_ms";
    rows.iter_mut().for_each(|row| row.as_object_mut().unwrap().retain(|key, _| !timed(key)));
    rows
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

#[test]
fn losses_with_a_synced_reference_equal_pytorch_and_trl() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let known = known();
    let want: Vec<f64> = known["loss"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
    let (alpha, every) = (number(&known, "alpha") as f32, known["every"].as_u64().unwrap() as usize);
    let rows = dpo(&gpu, &options(&temp.path().join("run"), want.len(), alpha, every)).unwrap();
    for (i, (row, want)) in rows.iter().zip(&want).enumerate() {
        let loss = number(row, "loss");
        assert!((loss - want).abs() <= 1e-3 * want, "step {}: loss {loss}, PyTorch {want}", i + 1);
    }
    assert_eq!(rows.len(), want.len());
}

#[test]
fn margins_stay_0_if_the_reference_becomes_the_policy_after_each_step() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    for row in dpo(&gpu, &options(&temp.path().join("run"), 4, 1.0, 1)).unwrap() {
        assert!(number(&row, "rewards/margins").abs() < 1e-4, "{row}");
        assert!((number(&row, "loss") - 2f64.ln()).abs() < 1e-4, "{row}");
    }
    let loss = PolicyLoss { beta: 0.04, ..PolicyLoss::grpo() };
    for row in align(&gpu, &options(&temp.path().join("grpo"), 4, 1.0, 1), loss).unwrap() {
        assert!(number(&row, "objective/kl").abs() < 1e-4, "{row}");
    }
    let unused = align(&gpu, &options(&temp.path().join("unused"), 4, 1.0, 1), PolicyLoss::grpo());
    assert!(unused.unwrap_err().to_string().contains("a loss with beta 0"));
}

#[test]
fn the_evaluated_kl_is_to_the_initial_policy_even_with_a_moving_reference() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let held_out: Vec<Prompt> =
        pairs().into_iter().map(|p| Prompt { prompt: p.prompt, reference: None, place: p.place }).collect();
    let kl = |dir: &Path, sync: Option<ReferenceSync>| {
        let train = options(dir, 4, 1.0, 1).reference_sync(sync).learning_rate(1e-2);
        let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
        let loss = PreferenceLoss::Dpo { beta: 0.1 };
        let align = AlignOptions::new(loss).max_new_tokens(6);
        let run =
            AlignRun::new(policy, &held_out, &train, &align).wait().unwrap().with_held_out(&held_out, None);
        let control = Control { observer: &mut (), requests: &Requests::new() };
        run.wait()
            .unwrap()
            .run(InPlace::new(Rule::parse("longer").unwrap()), sources(), control)
            .wait()
            .unwrap();
        number(metrics(dir).last().unwrap(), "eval/kl")
    };
    let sync = ReferenceSync { alpha: 1.0, steps: 1 };
    let (moving, still) = (kl(&temp.path().join("moving"), Some(sync)), kl(&temp.path().join("still"), None));
    assert!(moving > 0.1 && still > 0.1, "moving {moving}, still {still}");
}

#[test]
fn a_resumed_run_with_a_moving_reference_equals_an_uninterrupted_one_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let run = |dir: &Path, resume: Option<Resume>, online: bool| {
        // Between two updates of the reference, and right after one.
        let train = options(dir, 5, 0.6, 2).resume(resume);
        let rows = match online {
            true => align(&gpu, &train, PreferenceLoss::Dpo { beta: 0.1 }),
            false => dpo(&gpu, &train),
        };
        (rows.unwrap(), std::fs::read(dir.join("model/model.safetensors")).unwrap())
    };
    for online in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("run");
        let whole = run(&dir, None, online);
        for step in [3, 2] {
            let from = Resume::Path(dir.join(format!("checkpoints/step-00000{step}")));
            assert!(run(&dir, Some(from), online) == whole, "from step {step}, online: {online}");
        }
    }
}

#[test]
fn other_sync_options_are_rejected_on_resume() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = options(&temp.path().join("run"), 2, 0.6, 2);
    dpo(&gpu, &train).unwrap();
    let sync = ReferenceSync { alpha: 0.5, steps: 2 };
    for (reference_sync, what) in [(Some(sync), "ref-model-mixup-alpha"), (None, "ref-model-sync-steps")] {
        let allow_changes = vec![what.to_owned()];
        let other = train.clone().reference_sync(reference_sync).resume(Some("last".into()));
        for train in [other.clone(), other.allow_changes(allow_changes)] {
            let error = dpo(&gpu, &train).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}

#[test]
fn syncing_is_rejected_without_a_reference_copy_in_f32() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = options(&temp.path().join("run"), 2, 0.6, 2);
    let targets = LoraTargets::AllLinear;
    let lora = Some(LoraConfig::new(2).targets(targets));
    let sync = |alpha, steps| Some(ReferenceSync { alpha, steps });
    for (train, why) in [
        (train.clone().lora(lora), "train all weights"),
        (train.clone().base_dtype(FrozenFormat::from(FloatFormat::Bf16)), "base-dtype"),
        (train.clone().reference_sync(sync(0.0, 1)), "ref-model-mixup-alpha"),
        (train.clone().reference_sync(sync(1.5, 1)), "ref-model-mixup-alpha"),
        (train.clone().reference_sync(sync(0.5, 0)), "ref-model-sync-steps"),
    ] {
        let error = dpo(&gpu, &train).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let simpo = PreferenceLoss::parse("simpo", None, false).unwrap();
    let error = align(&gpu, &train, simpo).unwrap_err().to_string();
    assert!(error.contains("the loss simpo uses no reference model"), "{error}");
}
