//! Lists the kernels that a model's steps launch, without running any: for checking the kernels with GPU compilers.

use crate::Wait;
use crate::data::packing::Tree;
use crate::error::Result;
use crate::generate::{GenerateOptions, Generator, SamplingParams};
use crate::gpu::shader::KernelKey;
use crate::gpu::{Arena, Category, Format, Gpu, Plan, PlanOptions, Recorder};
use crate::model::stream::Capacity;
use crate::model::{
    FloatFormat, FrozenFormat, LoraConfig, LoraTargets, Model, ModelConfig, Rater, Scorer, Weights,
};
use crate::ops;
use crate::optim::{Optimiser, OptimiserKind};
use crate::preference::{LOSS_NAMES, LossOptions, Objective, PreferenceLoss};
use crate::train::pair_step::PairStep;
use crate::train::policy_step::PolicyStep;
use crate::train::reward_step::RewardStep;
use crate::train::sft_step::SftStep;
use crate::train::{MovingReference, PolicyLoss, ReferenceSync};

/// A kernel, and one of the steps that launch it.
#[derive(Clone, Debug)]
pub struct RecordedKernel {
    /// The weights and the step: "f32 training".
    pub step: String,
    /// The kernel.
    pub key: KernelKey,
}

/// Prompts of a training step, each with two responses: enough rows for the kernels of large batches.
const PROMPTS: usize = 4;
/// Tokens of a prompt.
const PROMPT: usize = 256;
/// Tokens of a response.
const RESPONSE: usize = 128;
/// Numbers of sequences that are decoded in parallel.
const DECODED: [usize; 3] = [1, 8, 64];

/// Returns the kernels that `gpu` would launch for a model of `config`: training with every loss, scoring, prefill,
/// decoding and sampling, and training and scoring of the same model as a reward model; with all weights trained in
/// f32, and with LoRA of rank 16 on a frozen base in f16, in blocks of 8-bit and of 4-bit integers. Each kernel is
/// listed once for every step that launches it. Nothing is allocated and nothing runs.
///
/// # Errors
/// Errors of recording these steps: invalid sizes, a tensor above the limits of `gpu`.
pub fn recorded_kernels(gpu: &Gpu, config: &ModelConfig) -> Result<Vec<RecordedKernel>> {
    let mut all = of_weights("f32", gpu, config, full)?;
    all.extend(record("f32", &FULL_STEPS, gpu, |gpu| full(gpu, config))?);
    for base in [FloatFormat::F16.into(), FrozenFormat::Q8, FrozenFormat::Q4] {
        let weights = format!("{} + LoRA", base.name());
        all.extend(of_weights(&weights, gpu, config, |gpu, config| lora(gpu, config, base))?);
    }
    Ok(all)
}

/// A step's name, and the function that plans it.
type Step = (&'static str, fn(&Gpu, &Model) -> Result<()>);

/// Steps whose kernels depend on the weights.
const STEPS: [Step; 4] =
    [("training", training), ("optimiser", update), ("scoring", scoring), ("generation", generation)];
/// The steps of a reward model.
const REWARD_STEPS: [Step; 2] = [("reward training", reward_training), ("rating", rating)];
/// Steps whose kernels do not depend on the weights' format, or that need all weights in f32.
const FULL_STEPS: [Step; 4] = [
    ("losses", losses),
    ("policy gradients", policy_gradients),
    ("reference", reference),
    ("ceiling", ceiling),
];

fn full(gpu: &Gpu, config: &ModelConfig) -> Result<Model> {
    Model::random(gpu, config.clone(), true, 1).wait()
}

fn lora(gpu: &Gpu, config: &ModelConfig, base: FrozenFormat) -> Result<Model> {
    let specs = config.architecture.weights();
    let base = Weights::frozen(gpu, &specs, base)?;
    let targets = LoraTargets::AllLinear;
    let adapter = LoraConfig { rank: 16, alpha: 32.0, rank_stabilised: false, targets };
    Model::new(gpu, config.clone(), base)?.add_adapter(adapter, 1)
}

/// Records the steps of a model and of its reward model, if its family supports one.
fn of_weights(
    weights: &str,
    gpu: &Gpu,
    config: &ModelConfig,
    model: impl Fn(&Gpu, &ModelConfig) -> Result<Model>,
) -> Result<Vec<RecordedKernel>> {
    let mut all = record(weights, &STEPS, gpu, |gpu| model(gpu, config))?;
    if let Ok(reward) = config.clone().into_reward(None) {
        all.extend(record(weights, &REWARD_STEPS, gpu, |gpu| model(gpu, &reward))?);
    }
    Ok(all)
}

fn record(
    weights: &str,
    steps: &[Step],
    gpu: &Gpu,
    model: impl Fn(&Gpu) -> Result<Model>,
) -> Result<Vec<RecordedKernel>> {
    let mut all = Vec::new();
    for (step, plan) in steps {
        let gpu = gpu.measuring();
        plan(&gpu, &model(&gpu)?)?;
        let step = format!("{weights} {step}");
        all.extend(gpu.planned_kernels().into_iter().map(|key| RecordedKernel { step: step.clone(), key }));
    }
    Ok(all)
}

fn capacity() -> Capacity {
    let tree = Tree { prompt: vec![0; PROMPT], responses: vec![vec![0; RESPONSE]; 2] };
    Capacity::of(&vec![tree; PROMPTS])
}

/// The same trees with each response scored at its end.
fn rated_capacity() -> Capacity {
    Capacity { targets: 2 * PROMPTS, ..capacity() }
}

/// Pair training, also with the log of the sum of squared probabilities and with sums of two parts.
fn training(gpu: &Gpu, model: &Model) -> Result<()> {
    SftStep::new(gpu, model, capacity(), false, &Arena::new()).wait()?;
    let plain = Objective::from(PreferenceLoss::Dpo { beta: 0.1 });
    let weighted = Objective { use_weighting: true, ld_alpha: Some(0.5), ..plain.clone() };
    for objective in [plain, weighted] {
        PairStep::new(gpu, model, objective, capacity(), false, &Arena::new()).wait()?;
    }
    Ok(())
}

/// Every pair loss.
fn losses(gpu: &Gpu, model: &Model) -> Result<()> {
    for objective in objectives()? {
        PairStep::new(gpu, model, objective, capacity(), false, &Arena::new()).wait()?;
    }
    Ok(())
}

/// Every loss, alone and added to another one, with all options that change its kernel.
fn objectives() -> Result<Vec<Objective>> {
    let mut all: Vec<Objective> = Vec::new();
    for name in LOSS_NAMES {
        let first = if PreferenceLoss::parse(name, None, false)?.name() == "dpo" { "ipo" } else { "dpo" };
        for loss in [name.to_owned(), format!("{first},{name}")] {
            let plain = LossOptions { loss, ..LossOptions::default() };
            all.push(Objective::parse(&plain)?);
            let weighted = LossOptions { use_weighting: true, ..plain.clone() };
            let parted = LossOptions { ld_alpha: Some(0.5), ..plain.clone() };
            let both = LossOptions { use_weighting: true, ..parted.clone() };
            let averaged = LossOptions { ipo_average_tokens: true, ..plain };
            // No option is valid for every loss.
            all.extend([weighted, parted, both, averaged].iter().filter_map(|o| Objective::parse(o).ok()));
        }
    }
    Ok(all)
}

/// Policy gradients with on-policy and off-policy samples.
fn policy_gradients(gpu: &Gpu, model: &Model) -> Result<()> {
    for off_policy in [false, true] {
        let gradient = PolicyLoss::grpo().gradient();
        PolicyStep::new(gpu, model, gradient, off_policy, capacity(), false, &Arena::new()).wait()?;
    }
    Ok(())
}

/// The pair loss, without and with the term that keeps scores around 0.
fn reward_training(gpu: &Gpu, model: &Model) -> Result<()> {
    for centring in [0.0, 0.01] {
        RewardStep::new(gpu, model, centring, rated_capacity(), false, &Arena::new()).wait()?;
    }
    Ok(())
}

fn reference(_: &Gpu, model: &Model) -> Result<()> {
    MovingReference::new(model, &model.snapshot().wait()?, ReferenceSync { alpha: 0.6, steps: 1 })
        .wait()
        .map(drop)
}

/// The kernel that measures the ceiling of arithmetic.
fn ceiling(gpu: &Gpu, _: &Model) -> Result<()> {
    let n = 1 << 16;
    let x = gpu.buffer("ceiling input", Category::Workspace, n as u64 * 4)?.region();
    let mut r = Recorder::new(gpu);
    let x = r.bind(&x, n, 1, Format::F32);
    ops::multiply_add(&mut r, x, 64);
    Plan::new(gpu, r, &Arena::new(), PlanOptions::default()).wait().map(drop)
}

fn update(gpu: &Gpu, model: &Model) -> Result<()> {
    for kind in [OptimiserKind::adamw(), OptimiserKind::Adafactor { weight_decay: 0.0 }] {
        Optimiser::new(gpu, model.trained(), kind, 1.0, &Arena::new()).wait()?;
    }
    Ok(())
}

/// From the beginning, and after a prefix that is cached.
fn scoring(gpu: &Gpu, model: &Model) -> Result<()> {
    Scorer::new(gpu, model, capacity(), &Arena::new()).wait()?;
    Scorer::after(gpu, model, &[0; PROMPT], capacity(), &Arena::new()).wait().map(drop)
}

fn rating(gpu: &Gpu, model: &Model) -> Result<()> {
    Rater::new(gpu, model, rated_capacity(), &Arena::new()).wait().map(drop)
}

/// Prefill, decoding, and each kind of sampling.
fn generation(gpu: &Gpu, model: &Model) -> Result<()> {
    let plain = SamplingParams { temperature: 0.9, ..SamplingParams::default() };
    let greedy = SamplingParams { temperature: 0.0, ..plain };
    let likely = SamplingParams { top_p: 0.9, ..plain };
    let restricted = SamplingParams { top_k: 50, ..likely };
    for slots in DECODED {
        for sampling in [plain, greedy, likely, restricted] {
            let options = GenerateOptions {
                sampling,
                max_new_tokens: RESPONSE,
                max_prompt_tokens: PROMPT,
                slots,
                samples_per_prompt: 2,
                eos: vec![],
            };
            Generator::new(gpu, model, options, &Arena::new()).wait()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Shape;
    use crate::gpu::Limits;
    use crate::gpu::shader::{Constants, validate};
    use crate::ops::PairLoss;

    #[test]
    fn every_kernel_of_a_shape_is_recorded_without_a_device() {
        let gpu = Gpu::without_device(Limits::default());
        let all = recorded_kernels(&gpu, &Shape::parse("stories260k").unwrap().config().unwrap()).unwrap();
        let launches = |step: &str, name: &str| all.iter().any(|k| k.step == step && k.key.name == name);
        for (step, name) in [
            ("f32 training", "linear_backward_weight"),
            ("float16 + LoRA training", "preference_loss"),
            ("f32 optimiser", "adamw"),
            ("f32 optimiser", "adafactor_update"),
            ("f32 scoring", "logprob_forward"),
            ("float16 + LoRA generation", "sample_best"),
            ("q4 + LoRA scoring", "linear_forward"),
            ("q8 + LoRA reward training", "preference_loss"),
            ("q8 + LoRA rating", "linear_forward"),
            ("f32 policy gradients", "policy_gradient"),
            ("f32 reference", "mix"),
        ] {
            assert!(launches(step, name), "{step}: {name}");
        }
        assert!(!launches("f32 generation", "linear_backward_weight"));
        for loss in PairLoss::ALL {
            let mut constants = Vec::new();
            loss.add_to("LOSS", &mut constants);
            let is_of = |key: &KernelKey| key.constants.starts_with(&constants);
            assert!(all.iter().any(|k| k.key.name == "preference_loss" && is_of(&k.key)), "{loss:?}");
        }
        all.iter().for_each(|kernel| drop(validate(&kernel.key).unwrap()));
        assert!(gpu.planned_kernels().is_empty(), "recorded elsewhere");
    }
}
