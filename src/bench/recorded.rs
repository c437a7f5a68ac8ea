//! The kernels that a model's steps launch, told without running any: for checks of the kernels by GPU compilers.

use crate::data::packing::Tree;
use crate::error::Result;
use crate::generate::{GenerateOptions, Generator, SamplingParams};
use crate::gpu::shader::KernelKey;
use crate::gpu::{Arena, Gpu};
use crate::model::stream::Capacity;
use crate::model::{FloatFormat, FrozenFormat, LoraConfig, LoraTargets, Model, ModelConfig, Scorer, Weights};
use crate::optim::{Optimiser, OptimiserKind};
use crate::preference::PreferenceLoss;
use crate::train::pair_step::PairStep;
use crate::train::sft_step::SftStep;

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
/// Sequences that are decoded side by side.
const DECODED: [usize; 3] = [1, 8, 64];

/// The kernels that `gpu` would launch for a model of `config`: training, scoring, prefill, decoding and sampling,
/// with all weights trained in f32, and with LoRA of rank 16 on a frozen base in f16, in blocks of 8-bit and of 4-bit
/// integers. Each kernel is there once for every
/// step that launches it. Nothing is allocated and nothing runs.
///
/// # Errors
/// What recording these steps reports: sizes that no model has, a tensor above the limits of `gpu`.
pub fn recorded_kernels(gpu: &Gpu, config: &ModelConfig) -> Result<Vec<RecordedKernel>> {
    let mut all = full(gpu, config)?;
    for base in [FloatFormat::F16.into(), FrozenFormat::Q8, FrozenFormat::Q4] {
        all.extend(lora(gpu, config, base)?);
    }
    Ok(all)
}

/// Plans a step.
type Recipe = fn(&Gpu, &Model) -> Result<()>;

fn full(gpu: &Gpu, config: &ModelConfig) -> Result<Vec<RecordedKernel>> {
    record("f32", gpu, |gpu| Model::random(gpu, config.clone(), true, 1))
}

fn lora(gpu: &Gpu, config: &ModelConfig, base: FrozenFormat) -> Result<Vec<RecordedKernel>> {
    record(&format!("{} + LoRA", base.name()), gpu, |gpu| {
        let specs = config.architecture.weights();
        let base = Weights::frozen(gpu, &specs, base)?;
        let targets = LoraTargets::AllLinear;
        let adapter = LoraConfig { rank: 16, alpha: 32.0, rank_stabilised: false, targets };
        Model::new(gpu, config.clone(), base)?.add_adapter(adapter, 1)
    })
}

fn record(weights: &str, gpu: &Gpu, model: impl Fn(&Gpu) -> Result<Model>) -> Result<Vec<RecordedKernel>> {
    let steps: [(&str, Recipe); 4] =
        [("training", training), ("optimiser", update), ("scoring", scoring), ("generation", generation)];
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

fn training(gpu: &Gpu, model: &Model) -> Result<()> {
    SftStep::new(gpu, model, capacity(), false, &Arena::new())?;
    PairStep::new(gpu, model, PreferenceLoss::Dpo { beta: 0.1 }, capacity(), false, &Arena::new())?;
    Ok(())
}

fn update(gpu: &Gpu, model: &Model) -> Result<()> {
    for kind in [OptimiserKind::adamw(), OptimiserKind::Adafactor { weight_decay: 0.0 }] {
        Optimiser::new(gpu, model.trained(), kind, 1.0, &Arena::new())?;
    }
    Ok(())
}

fn scoring(gpu: &Gpu, model: &Model) -> Result<()> {
    Scorer::new(gpu, model, capacity(), &Arena::new()).map(drop)
}

/// Prefill, decoding, and each way of sampling.
fn generation(gpu: &Gpu, model: &Model) -> Result<()> {
    let plain = SamplingParams { temperature: 0.9, ..SamplingParams::default() };
    let greedy = SamplingParams { temperature: 0.0, ..plain };
    let restricted = SamplingParams { top_k: 50, top_p: 0.9, ..plain };
    for slots in DECODED {
        for sampling in [plain, greedy, restricted] {
            let options = GenerateOptions {
                sampling,
                max_new_tokens: RESPONSE,
                max_prompt_tokens: PROMPT,
                slots,
                samples_per_prompt: 2,
                eos: vec![],
            };
            Generator::new(gpu, model, options, &Arena::new())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Shape;
    use crate::gpu::Limits;
    use crate::gpu::shader::validate;

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
        ] {
            assert!(launches(step, name), "{step}: {name}");
        }
        assert!(!launches("f32 generation", "linear_backward_weight"));
        all.iter().for_each(|kernel| drop(validate(&kernel.key).unwrap()));
        assert!(gpu.planned_kernels().is_empty(), "recorded elsewhere");
    }
}
