//! General guarantees of the engine: splitting of launches, replays, counters and errors.

mod common;

use common::{application, fixture, gpu, gpu_with, ids, json, relative_distance};
use oaif::Error;
use oaif::Wait;
use oaif::unstable::bench::Shape;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gpu::shader::Constant;
use oaif::unstable::gpu::{
    Arena, Category, Counts, DeviceKind, Format, Gpu, GpuOptions, Groups, Launch, Limits,
};
use oaif::unstable::gpu::{Plan, PlanOptions, Recorder, Tensor, Tier, Work, read, write};
use oaif::unstable::judge::Judge;
use oaif::unstable::judge::command::CommandJudge;
use oaif::unstable::judge::judge_model::JudgeModel;
use oaif::unstable::judge::likelihood::LikelihoodJudge;
use oaif::unstable::judge::llm::LlmJudge;
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::model::architecture::WeightSpec;
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{FloatFormat, FrozenFormat, LoraConfig, Model, ModelConfig, Scorer, Weights};
use oaif::unstable::ops::{self, AttentionShape, KeySource, Norm, Rotary, SelfAttention, all_cases};
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::pair_step::{LabelledPair, PairStep};
use oaif::unstable::train::sft_step::SftStep;
use oaif::unstable::train::{AlignRun, DpoRun, Policy, SftRun};
use serde_json::json;

fn open(options: GpuOptions) -> Gpu {
    Gpu::open(&options).wait().unwrap()
}

fn tiny(gpu: &Gpu, train: bool) -> Model {
    Model::load(gpu, &fixture("tiny"), train).wait().unwrap()
}

fn pairs() -> Vec<LabelledPair> {
    let file = json("pairs_tiny.json");
    let number = |v: &serde_json::Value| v.as_f64().unwrap() as f32;
    let pair = |p: &serde_json::Value| LabelledPair {
        tree: Tree { prompt: ids(&p["prompt"]), responses: vec![ids(&p["chosen"]), ids(&p["rejected"])] },
        reference: [number(&p["ref_chosen"]), number(&p["ref_rejected"])],
        label: 1.0,
        by_reference: [false; 2],
    };
    file["pairs"].as_array().unwrap().iter().map(pair).collect()
}

fn trees() -> Vec<Tree> {
    pairs().into_iter().map(|p| p.tree).collect()
}

const LOSS: PreferenceLoss = PreferenceLoss::Dpo { beta: 0.1 };
const ADAMW: OptimiserKind =
    OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };

fn pair_step(gpu: &Gpu, model: &Model, checkpointing: bool) -> PairStep {
    PairStep::new(gpu, model, LOSS, Capacity::of(&trees()), checkpointing, &Arena::new()).wait().unwrap()
}

/// Losses, log-probabilities and every gradient of one step over the fixture's pairs.
fn step_values(model: &Model, step: &PairStep) -> Vec<f32> {
    model.trained().clear_gradients().unwrap();
    let (results, _) = step.run(&pairs(), 0.25).wait().unwrap();
    let mut values: Vec<f32> =
        results.iter().flat_map(|r| [r.loss, r.logp_chosen, r.logp_rejected, r.entropy]).collect();
    for weight in model.trained().iter() {
        values.extend(model.trained().download_gradient(weight).wait().unwrap());
    }
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn fresh_step_bits(options: GpuOptions) -> Vec<u32> {
    let gpu = open(options);
    let model = tiny(&gpu, true);
    bits(&step_values(&model, &pair_step(&gpu, &model, false)))
}

fn generate_options() -> GenerateOptions {
    GenerateOptions::default()
        .sampling(SamplingParams::default().temperature(0.9))
        .max_new_tokens(12)
        .max_prompt_tokens(16)
        .slots(4)
        .samples_per_prompt(2)
        .eos(vec![2])
}

/// The result bits of every case with the given options, and the number of submits.
fn case_bits(options: GpuOptions) -> (Vec<(String, Vec<u32>)>, u64) {
    let gpu = open(options);
    let before = gpu.counts().submits;
    let run = |case: oaif::unstable::ops::Case| {
        let (plan, results, live) = case.plan(&gpu, PlanOptions::default()).wait().unwrap();
        let outputs = plan.run(&live).wait().unwrap();
        let words = results.iter().flat_map(|t| outputs.u32(*t).to_vec()).collect();
        (format!("{} {}", case.kernel, case.shape), words)
    };
    (all_cases().into_iter().map(run).collect(), gpu.counts().submits - before)
}

#[test]
fn a_pair_that_is_invalid_for_its_loss_is_refused() {
    let Some(gpu) = gpu() else { return };
    let model = tiny(&gpu, true);
    let pair = |label: f32, by_reference: [bool; 2]| LabelledPair {
        tree: Tree { prompt: vec![1, 5], responses: vec![vec![7, 2], vec![9, 8, 2]] },
        reference: [-8.0, -9.0],
        label,
        by_reference,
    };
    let run = |loss: PreferenceLoss, pair: LabelledPair| {
        let capacity = Capacity::of(std::slice::from_ref(&pair.tree));
        let step = PairStep::new(&gpu, &model, loss, capacity, false, &Arena::new()).wait().unwrap();
        step.run(&[pair], 1.0).wait().map(|(results, _)| results[0].loss).map_err(|e| e.to_string())
    };
    let xpo = PreferenceLoss::Xpo { beta: 0.1, alpha: 0.01 };
    assert!(
        run(xpo, pair(1.0, [false; 2])).unwrap_err().contains("needs one response of the reference model")
    );
    assert_ne!(run(xpo, pair(1.0, [true, false])), run(xpo, pair(1.0, [false, true])));
    let aot = PreferenceLoss::Aot { beta: 0.1 };
    assert!(run(aot, pair(0.9, [false; 2])).unwrap_err().contains("soft-labels"));
    run(aot, pair(1.0, [false; 2])).unwrap();
}

#[test]
fn a_split_launch_gives_the_bits_of_a_whole_one() {
    if gpu().is_none() {
        return;
    }
    let (whole, submits) = case_bits(GpuOptions::default().submit_ms(f64::INFINITY));
    assert_eq!(submits, whole.len() as u64, "one submit per plan");
    // Single workgroups; and a few workgroups in ragged grids, so that the grid of a piece overlaps that of the next
    // one.
    for (submit_ms, limit) in [(1e-9, None), (0.2, Some(3))] {
        let split = GpuOptions::default().submit_ms(submit_ms).max_groups_per_dimension(limit);
        let (parts, submits) = case_bits(split);
        assert!(submits > 4 * whole.len() as u64, "{submits} submits");
        for ((name, whole), (_, parts)) in whole.iter().zip(&parts) {
            assert!(whole == parts, "{name} in submits of {submit_ms} ms, {limit:?} groups per dimension");
        }
    }
}

#[test]
fn a_split_step_gives_the_bits_of_a_whole_one() {
    if gpu().is_none() {
        return;
    }
    let whole = fresh_step_bits(GpuOptions::default());
    // With one workgroup per dimension, the views for all launches of the step exceed one submit.
    for (submit_ms, limit) in [(1e-9, None), (50.0, Some(1)), (0.05, Some(3))] {
        let split = GpuOptions::default().submit_ms(submit_ms).max_groups_per_dimension(limit);
        assert!(whole == fresh_step_bits(split), "{submit_ms} ms, {limit:?} groups per dimension");
    }
}

#[test]
fn the_same_replay_gives_the_same_bits_profiled_or_not() {
    let Some(gpu) = gpu() else { return };
    let model = tiny(&gpu, true);
    let step = pair_step(&gpu, &model, false);
    let first = bits(&step_values(&model, &step));
    assert!(first == bits(&step_values(&model, &step)), "a second replay");
    assert!(first == fresh_step_bits(GpuOptions::default().profile(true)), "profiled");
    let checked = GpuOptions::default().checked(true);
    assert!(first == fresh_step_bits(checked), "under runtime checks");
}

#[test]
fn a_profile_holds_every_launch() {
    if gpu().is_none() {
        return;
    }
    let gpu = open(GpuOptions::default().profile(true));
    let model = tiny(&gpu, true);
    let step = pair_step(&gpu, &model, false);
    let Some(before) = gpu.profile() else { return eprintln!("SKIPPED: the GPU has no timestamps") };
    let (_, phases) = step.run(&pairs(), 0.25).wait().unwrap();
    let after = gpu.profile().unwrap();
    let launches = |p: &oaif::unstable::gpu::Profile| p.kernels.values().map(|k| k.launches).sum::<u64>();
    assert_eq!(launches(&after) - launches(&before), step.launch_count() as u64);
    assert_eq!(phases.iter().map(|p| p.0).collect::<Vec<_>>(), ["forward", "backward"]);
    let trace: serde_json::Value = serde_json::from_str(&after.trace()).unwrap();
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), step.launch_count());
    assert!(after.table().contains("attention_backward_query"));
}

#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let Some(gpu) = gpu_with(GpuOptions::default(), kind) else { return };
        a_sequence_does_not_depend_on_its_batch_on(&gpu);
    }
}

fn a_sequence_does_not_depend_on_its_batch_on(gpu: &Gpu) {
    let model = tiny(gpu, true);
    let trees = trees();
    let scorer = Scorer::new(gpu, &model, Capacity::of(&trees), &Arena::new()).wait().unwrap();
    let together = scorer.score(&trees).wait().unwrap();
    for (i, tree) in trees.iter().enumerate() {
        let alone = scorer.score(std::slice::from_ref(tree)).wait().unwrap();
        assert_eq!(alone, together[2 * i..2 * i + 2], "tree {i}");
        // Nor on the other responses, nor on whether the prompt is shared.
        for (response, unshared) in tree.unshared().iter().enumerate() {
            let alone = scorer.score(std::slice::from_ref(unshared)).wait().unwrap();
            assert_eq!(alone[0], together[2 * i + response], "tree {i}, response {response}");
        }
    }
    let step = pair_step(gpu, &model, false);
    let (together, _) = step.run(&pairs(), 0.25).wait().unwrap();
    for (pair, with_others) in pairs().iter().zip(together) {
        let (alone, _) = step.run(std::slice::from_ref(pair), 0.25).wait().unwrap();
        assert_eq!(bits(&[alone[0].loss, alone[0].entropy]), bits(&[with_others.loss, with_others.entropy]));
    }
}

#[test]
fn a_pair_learns_the_same_whether_its_prompt_is_shared_or_repeated() {
    for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
        let Some(gpu) = gpu_with(GpuOptions::default(), kind) else { return };
        let model = tiny(&gpu, true);
        let repeated: Vec<Tree> = trees().iter().flat_map(Tree::unshared).collect();
        let capacity = Capacity::of(&repeated);
        let step = PairStep::new(&gpu, &model, LOSS, capacity, false, &Arena::new()).wait().unwrap();
        let (shared, _) = step.run(&pairs(), 0.25).wait().unwrap();
        let (repeated, _) = step.run_unshared(&pairs(), 0.25).wait().unwrap();
        for (a, b) in shared.iter().zip(&repeated) {
            assert_eq!(bits(&[a.loss, a.entropy]), bits(&[b.loss, b.entropy]), "{kind:?}");
        }
    }
}

#[test]
fn the_work_of_a_device_is_counted() {
    let Some(_) = gpu() else { return };
    let gpu = open(GpuOptions::default());
    let step = pair_step(&gpu, &tiny(&gpu, true), false);
    let dry = gpu.measuring();
    let dry = pair_step(&dry, &tiny(&dry, true), false);
    assert_eq!(step.launch_count(), dry.launch_count(), "a measuring device counts them, too");
    let before = gpu.activity();
    step.run(&pairs(), 0.25).wait().unwrap();
    let after = gpu.activity();
    assert_eq!(after.launches - before.launches, step.launch_count() as u64);
    assert!(after.work.flops > before.work.flops && after.work.bytes > before.work.bytes);
    assert!(after.waited > before.waited);
}

/// Everything that a run allocates, built on `gpu` and used once.
struct Everything {
    model: Model,
    scorer: Scorer,
    step: PairStep,
    generator: Generator,
    optimiser: Optimiser,
}

impl Everything {
    fn new(gpu: &Gpu) -> Everything {
        let (arena, model) = (Arena::new(), tiny(gpu, true));
        let capacity = Capacity::of(&trees());
        let step = PairStep::new(gpu, &model, LOSS, capacity, false, &arena).wait().unwrap();
        let scorer = Scorer::new(gpu, &model.snapshot().wait().unwrap(), capacity, &arena).wait().unwrap();
        let generator = Generator::new(gpu, &model, generate_options(), &arena).wait().unwrap();
        let optimiser = Optimiser::new(gpu, model.trained(), ADAMW, 1.0, &arena).wait().unwrap();
        Everything { model, scorer, step, generator, optimiser }
    }

    fn train(&mut self) {
        self.scorer.score(&trees()).wait().unwrap();
        self.model.trained().clear_gradients().unwrap();
        self.step.run(&pairs(), 0.25).wait().unwrap();
        self.optimiser.update(1e-3).wait().unwrap();
    }

    fn generate(&self) -> oaif::Result<()> {
        let tokenizer = Tokenizer::load(&fixture("tiny")).unwrap();
        let requests: Vec<Request> = (0..5)
            .map(|i| Request { prompt: vec![1, 13 + i, 60], samples: 3, first_sequence: 3 * i })
            .collect();
        self.generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).wait().map(drop)
    }
}

#[test]
fn uploads_of_many_small_buffers_use_no_more_staging_memory_than_one_large_one() {
    let Some(_) = gpu() else { return };
    // A separate device, so that no other test uses it.
    let gpu = open(GpuOptions::default());
    let upload = |of: usize| {
        let before = gpu.counts().submits;
        let data = vec![1u32; of / 4];
        let buffers: Vec<_> = (0..(48 << 20) / of)
            .map(|_| gpu.buffer_with("small", Category::Workspace, &data).unwrap())
            .collect();
        (buffers.len(), gpu.counts().submits - before)
    };
    // At most 16 MiB at a time, regardless of the buffer sizes.
    assert_eq!(upload(48 << 20), (1, 3));
    assert_eq!(upload(1 << 20), (48, 3));
}

#[test]
fn a_replay_only_submits() {
    if gpu().is_none() {
        return;
    }
    let gpu = open(GpuOptions::default());
    let mut all = Everything::new(&gpu);
    let made = |gpu: &Gpu| Counts { submits: 0, ..gpu.counts() };
    let (before, submits) = (made(&gpu), gpu.counts().submits);
    all.train();
    all.generate().unwrap();
    assert_eq!(made(&gpu), before);
    assert!(before.buffers > 0 && before.pipelines > 0 && before.bind_groups > 0, "{before:?}");
    assert!(gpu.counts().submits > submits);
}

#[test]
fn plans_of_the_same_kernels_share_their_pipelines() {
    if gpu().is_none() {
        return;
    }
    let gpu = open(GpuOptions::default());
    let model = tiny(&gpu, false);
    let new = || Scorer::new(&gpu, &model, Capacity::of(&trees()), &Arena::new()).wait().unwrap();
    new();
    let pipelines = gpu.counts().pipelines;
    new();
    assert_eq!(gpu.counts().pipelines, pipelines);
}

#[test]
fn a_dry_run_reports_the_memory_of_the_real_run() {
    let Some(any) = gpu() else { return };
    let dry = any.measuring();
    assert!(dry.is_measuring());
    let mut measured = Everything::new(&dry);
    measured.train();
    let real = open(GpuOptions::default());
    let mut ran = Everything::new(&real);
    ran.train();
    ran.generate().unwrap();
    assert_eq!(dry.memory(), real.memory());
    for category in [Category::Weights, Category::Gradients, Category::Optimiser, Category::KvCache] {
        assert!(real.memory().bytes[&category] > 0, "{category:?}");
    }
    assert_eq!((dry.counts().pipelines, dry.counts().submits), (0, 0));
    drop((measured, ran));
    assert_eq!((dry.memory().total, real.memory().total), (0, 0), "all memory is released");
}

#[test]
fn a_machine_without_a_gpu_can_measure() {
    let gpu = Gpu::without_device(Limits::default());
    Everything::new(&gpu).train();
    assert!(gpu.memory().peak > 0);
}

/// The formats of the matrices of `model`, each once.
fn formats(model: &Model) -> Vec<Format> {
    formats_of(model.base())
}

/// The formats of the matrices, without repetitions.
fn formats_of(weights: &Weights) -> Vec<Format> {
    let mut all: Vec<Format> = weights.iter().filter(|w| w.shape.len() == 2).map(|w| w.format).collect();
    all.dedup();
    all
}

fn logps(gpu: &Gpu, model: &Model, trees: &[Tree]) -> Vec<f32> {
    let scorer = Scorer::new(gpu, model, Capacity::of(trees), &Arena::new()).wait().unwrap();
    scorer.score(trees).wait().unwrap().into_iter().flat_map(|s| s.logps).collect()
}

#[test]
fn cooperative_matrices_score_tokens_close_to_f32_and_the_same_twice() {
    let Some(exact) = gpu() else { return };
    let score = |gpu: &Gpu, name: &str| {
        let model = Model::load_frozen(gpu, &fixture(name), Some(FloatFormat::F16.into())).wait().unwrap();
        logps(gpu, &model, &trees())
    };
    for tier in [Tier::Cooperative] {
        let half = match Gpu::open(&GpuOptions::default().tier(tier)).wait() {
            Ok(gpu) => gpu,
            Err(e) => {
                eprintln!("SKIPPED: {e}");
                continue;
            }
        };
        for name in ["tiny", "tiny_tied"] {
            let (got, want) = (score(&half, name), score(&exact, name));
            let distance = relative_distance(&got, &want);
            println!("{name} in {tier}: {distance:.1e}");
            assert!(distance < 2e-3, "{name} in {tier}: {distance}");
            assert!(distance > 0.0, "{name} was computed in f32");
            assert_eq!(got, score(&half, name), "{name} in {tier}: other bits");
        }
    }
}

#[test]
fn a_16_bit_base_gives_the_results_of_f32_weights_of_the_same_values() {
    let Some(gpu) = gpu() else { return };
    // bfloat16 in the one file, float32 in the other.
    for name in ["tiny", "tiny_tied"] {
        let exact = Model::load_frozen(&gpu, &fixture(name), Some(FloatFormat::F32.into())).wait().unwrap();
        assert_eq!(formats(&exact), [Format::F32]);
        for (wanted, held) in [(FloatFormat::F16, Format::F16), (FloatFormat::Bf16, Format::Bf16)] {
            let short = Model::load_frozen(&gpu, &fixture(name), Some(wanted.into())).wait().unwrap();
            assert_eq!(formats(&short), [held]);
            let rounded = Model::load(&gpu, &fixture(name), true).wait().unwrap();
            for weight in short.base().iter() {
                let values = short.base().download(weight).wait().unwrap();
                let own = exact.base().download(exact.base().get(&weight.name).unwrap()).wait().unwrap();
                let step = if held == Format::F16 { 1.0 / 2048.0 } else { 1.0 / 256.0 };
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= step * b.abs() + 1e-7;
                assert!(values.iter().zip(&own).all(near), "{} in {held:?}", weight.name);
                assert!(weight.shape.len() == 2 || values == own, "{} is no matrix", weight.name);
                rounded.base().upload(&weight.name, &values).unwrap();
            }
            let distance =
                relative_distance(&logps(&gpu, &short, &trees()), &logps(&gpu, &rounded, &trees()));
            assert!(distance <= 1e-6, "{name} {held:?}: {distance}");
            // A 16-bit snapshot of trained weights is the same again.
            let copy = rounded.snapshot_as(wanted.into()).wait().unwrap();
            assert_eq!(formats(&copy), [held]);
            assert_eq!(bits(&logps(&gpu, &copy, &trees())), bits(&logps(&gpu, &short, &trees())));

            let config = LoraConfig::new(3);
            let gradients = |base: &Model| {
                let model = base.add_adapter(config.clone(), 1).unwrap();
                step_values(&model, &pair_step(&gpu, &model, true))
            };
            let frozen =
                Model::load_frozen(&gpu, &fixture(name), Some(FloatFormat::F32.into())).wait().unwrap();
            for weight in short.base().iter() {
                frozen.base().upload(&weight.name, &short.base().download(weight).wait().unwrap()).unwrap();
            }
            let distance = relative_distance(&gradients(&short), &gradients(&frozen));
            assert!(distance <= 1e-6, "{name} {held:?}: gradients {distance}");
        }
        // By default the format of the file is used.
        let found = formats(&Model::load(&gpu, &fixture(name), false).wait().unwrap());
        assert_eq!(found, [if name == "tiny" { Format::Bf16 } else { Format::F32 }]);
    }
}

#[test]
fn a_quantised_base_gives_the_results_of_f32_weights_of_the_same_values() {
    let Some(gpu) = gpu() else { return };
    let shape = Shape::parse("c=128,f=192,l=2,h=4,k=2,d=32,v=96").unwrap();
    let own = Model::random(&gpu, shape.config().unwrap(), false, 5).wait().unwrap();
    let config = LoraConfig::new(3);
    let gradients = |base: &Model| {
        let model = base.add_adapter(config.clone(), 1).unwrap();
        step_values(&model, &pair_step(&gpu, &model, true))
    };
    for (wanted, held, bound) in [
        (FrozenFormat::Q8, &[Format::Q8][..], 0.02),
        // The embedding, which is also the head, belongs to no layer.
        (FrozenFormat::Q4, &[Format::Q8, Format::Q4], 0.3),
    ] {
        let base = own.base().frozen_copy(wanted).wait().unwrap();
        assert_eq!(formats_of(&base), held);
        let exact = own.base().frozen_copy(FloatFormat::F32.into()).wait().unwrap();
        for weight in base.iter() {
            exact.upload(&weight.name, &base.download(weight).wait().unwrap()).unwrap();
        }
        let model = |weights| Model::new(&gpu, own.config().clone(), weights).unwrap();
        let again = base.frozen_copy(wanted).wait().unwrap();
        let (base, exact, again) = (model(base), model(exact), model(again));
        let [short, same, own] = [&base, &exact, &own].map(|model| logps(&gpu, model, &trees()));
        assert_eq!(bits(&logps(&gpu, &again, &trees())), bits(&short), "a copy");
        let distance = relative_distance(&short, &same);
        assert!(distance <= 1e-6, "{held:?}: {distance}");
        let distance = relative_distance(&short, &own);
        assert!(distance > 0.0 && distance < bound, "{held:?}: {distance} from f32");
        let distance = relative_distance(&gradients(&base), &gradients(&exact));
        assert!(distance <= 1e-6, "{held:?}: gradients {distance}");
    }
}

#[test]
fn rows_that_are_not_a_multiple_of_the_group_size_are_held_in_16_bits() {
    let gpu = Gpu::without_device(Limits::default());
    let spec = |shape: [usize; 2]| WeightSpec::new(format!("{shape:?}"), shape.to_vec());
    let specs = [[5, 64], [5, 172], [5, 6], [3, 128]].map(spec);
    let weights = Weights::frozen(&gpu, &specs, FrozenFormat::Q8).unwrap();
    assert_eq!(formats_of(&weights), [Format::Q8, Format::F16, Format::F32, Format::Q8]);
    assert_eq!(gpu.memory().total, 5 * 68 + 5 * 172 * 2 + 5 * 6 * 4 + 3 * 136);
}

#[test]
fn rows_that_are_not_a_multiple_of_the_vector_size_are_held_in_f32() {
    let gpu = Gpu::without_device(Limits::default());
    let spec = |shape: &[usize]| WeightSpec::new(format!("{shape:?}"), shape.to_vec());
    let specs =
        [[5, 7], [5, 8], [5, 6]].map(|s| spec(&s)).into_iter().chain([spec(&[8])]).collect::<Vec<_>>();
    let weights = Weights::frozen(&gpu, &specs, FloatFormat::Bf16.into()).unwrap();
    let formats: Vec<Format> = weights.iter().map(|w| w.format).collect();
    assert_eq!(formats, [Format::F32, Format::Bf16, Format::F32, Format::F32]);
    assert_eq!(gpu.memory().total, 5 * 7 * 4 + 5 * 8 * 2 + 5 * 6 * 4 + 8 * 4);
}

#[test]
fn half_precision_refuses_values_out_of_range() {
    let Some(gpu) = gpu() else { return };
    let specs = [WeightSpec::new("w", vec![1, 4])];
    let weights = Weights::frozen(&gpu, &specs, FloatFormat::F16.into()).unwrap();
    weights.upload("w", &[65504.0, -1.0, 0.5, 1e-9]).unwrap();
    let why = weights.upload("w", &[1.0, 7e4, 0.0, 0.0]).unwrap_err().to_string();
    assert!(why.contains("w holds 70000") && why.contains("bfloat16"), "{why}");
    assert_eq!(weights.download(weights.get("w").unwrap()).wait().unwrap(), [65504.0, -1.0, 0.5, 0.0]);
}

/// A random model in which the layers dominate the memory.
fn deep(gpu: &Gpu) -> Model {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
        "intermediate_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    Model::random(gpu, ModelConfig::from_json(config).unwrap(), true, 7).wait().unwrap()
}

#[test]
fn a_layer_takes_at_most_19_launches_on_a_cpu_and_22_on_a_gpu() {
    let launches = |gpu: &Gpu, layers: usize| {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
            "intermediate_size": 172, "num_hidden_layers": layers, "num_attention_heads": 8,
            "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "tie_word_embeddings": true,
        });
        let model = Model::random(gpu, ModelConfig::from_json(config).unwrap(), true, 7).wait().unwrap();
        let capacity = Capacity { tokens: 2048, targets: 2048, sequences: 16 };
        SftStep::new(gpu, &model, capacity, false, &Arena::new()).wait().unwrap().launch_count()
    };
    let per_layer = |gpu: &Gpu| (launches(gpu, 9) - launches(gpu, 1)) as f64 / 8.0;
    if let Some(gpu) = gpu() {
        println!("{}: {} launches a layer", gpu.summary().name, per_layer(&gpu.measuring()));
    }
    // On a GPU, RMSNorm has its own launches, and the sums of weight gradients are split.
    let large = per_layer(&Gpu::without_device(Limits::default()));
    assert!(large <= 22.0, "{large}");
    if let Some(gpu) = gpu().filter(|gpu| gpu.summary().device_kind() == DeviceKind::Processor) {
        assert!(per_layer(&gpu.measuring()) <= 19.0);
    }
}

#[test]
fn checkpointing_gives_the_same_gradients_in_less_memory() {
    let Some(gpu) = gpu() else { return };
    for model in [tiny(&gpu, true), deep(&gpu)] {
        let plain = step_values(&model, &pair_step(&gpu, &model, false));
        let again = step_values(&model, &pair_step(&gpu, &model, true));
        let distance = relative_distance(&again, &plain);
        assert!(distance <= 1e-6, "{distance}");
    }
    let activations = |checkpointing: bool| {
        let gpu = Gpu::without_device(Limits::default());
        let _step = pair_step(&gpu, &deep(&gpu), checkpointing);
        gpu.memory().bytes[&Category::Activations]
    };
    let (plain, checkpointed) = (activations(false), activations(true));
    assert!(2 * checkpointed < plain, "{checkpointed} of {plain} bytes");
}

/// A tensor of the plan that gradients flow through, and a region for it.
fn training(gpu: &Gpu, rows: usize, cols: usize) -> (Recorder, Tensor) {
    let mut r = Recorder::training(gpu);
    let buffer = gpu.buffer("x", Category::Workspace, (rows * cols * 4) as u64).unwrap();
    let x = r.bind(&buffer.region(), rows, cols, Format::F32);
    r.watch(x);
    (r, x)
}

#[test]
fn an_op_without_a_gradient_rule_cannot_be_trained_through() {
    let gpu = Gpu::without_device(Limits::default());
    let op = |r: Recorder| match Plan::new(&gpu, r, &Arena::new(), PlanOptions::default()).wait() {
        Err(Error::NoGradient { op }) => op,
        other => panic!("{:?}", other.map(|_| "a plan")),
    };
    // Attention without the sequence ends has no gradient rule, and this must be detected although later ops on the
    // path have one.
    let (mut r, x) = training(&gpu, 8, 16);
    let shape = AttentionShape::new(2, 2, 8);
    let [gain, weights, table] = [1, 48, 8].map(|rows| r.tensor("w", rows, if rows == 8 { 8 } else { 16 }));
    let block = SelfAttention {
        norm: Some(Norm::rms(gain, 1e-5)),
        qkv: weights.into(),
        head_norms: None,
        rotary: Some(Rotary { table, rotated: shape.head_dim, interleaved: false }),
        shape,
    };
    let spans = r.tensor_u32("spans", 8, 4);
    let keys = KeySource::Rows { ends: None };
    let mixed = ops::self_attention(&mut r, x, &block, spans, keys).unwrap();
    let y = ops::residual_add(&mut r, mixed, x).unwrap();
    let seed = r.tensor("seed", 8, 16);
    assert!(matches!(r.backward(&[(y, seed)]), Err(Error::NoGradient { op: "attention_forward_tiled" })));
    // Overwriting the output of an op has no gradient rule, because the op's rule needs the old value.
    let copy = |r: &mut Recorder, x: Tensor, y: Tensor| {
        r.launch(Launch {
            kernel: "residual_add",
            constants: ["TWO", "ADD"].map(|name| (name.to_owned(), Constant::Bool(false))).to_vec(),
            params: vec![("rows", x.rows.into()), ("cols", x.cols.into())],
            args: vec![read("a", x), write("y", y)],
            groups: Groups::over(x.rows, 4),
            work: Work::default(),
        })
    };
    let (mut r, x) = training(&gpu, 8, 16);
    let y = ops::residual_add(&mut r, x, x).unwrap();
    copy(&mut r, x, y);
    assert_eq!(op(r), "residual_add");
    // Without gradients all of this is allowed.
    let mut r = Recorder::new(&gpu);
    let [x, y] = ["x", "y"].map(|name| r.tensor(name, 8, 16));
    copy(&mut r, x, y);
    assert!(Plan::new(&gpu, r, &Arena::new(), PlanOptions::default()).wait().is_ok());
}

#[test]
fn a_tensor_above_the_limits_is_an_error_with_its_name_and_a_remedy() {
    let binding = Gpu::without_device(Limits { binding: 4096, ..Limits::default() });
    let model = tiny(&binding, true);
    let capacity = Capacity { tokens: 100, targets: 50, sequences: 4 };
    let new =
        |gpu: &Gpu, model: &Model| PairStep::new(gpu, model, LOSS, capacity, false, &Arena::new()).wait();
    let message = new(&binding, &model).err().unwrap().to_string();
    assert!(message.contains("(100, 32)") && message.contains("12 KiB"), "{message}");
    assert!(message.contains("4.0 KiB: lower the batch size"), "{message}");
    let buffer = Gpu::without_device(Limits { buffer: 1 << 20, ..Limits::default() });
    let error = buffer.buffer("a wide tensor", Category::Weights, 2 << 20).unwrap_err();
    assert!(matches!(&error, Error::Limit { what, needed: 2_097_152, .. } if what == "a wide tensor"));
    assert!(error.to_string().ends_with("use a smaller model"), "{error}");
}

#[test]
fn a_live_extent_never_exceeds_its_tensors() {
    let gpu = Gpu::without_device(Limits::default());
    let mut r = Recorder::new(&gpu);
    let rows = oaif::unstable::gpu::Dim::Live { index: 0, max: 100 };
    let (x, y) = (r.tensor("x", rows, 4), r.tensor("y", rows, 4));
    ops::residual_add(&mut r, x, y).unwrap();
    let plan = Plan::new(&gpu, r, &Arena::new(), PlanOptions::default()).wait().unwrap();
    let mut live = oaif::unstable::gpu::Live::default();
    live.extents[0] = 200;
    let error = plan.run(&live).wait().unwrap_err().to_string();
    assert_eq!(error, "live extent 0: is 200, but its tensors have room for 100");
}

#[test]
fn the_applications_own_device_gives_the_same_bits() {
    let Some((device, queue)) = application() else { return };
    let gpu = Gpu::from_device(device, queue, &GpuOptions::default()).unwrap();
    let model = tiny(&gpu, true);
    let values = bits(&step_values(&model, &pair_step(&gpu, &model, false)));
    assert!(values == fresh_step_bits(GpuOptions::default()));
}

#[test]
fn threads_share_a_device_that_the_application_polls() {
    let Some((device, queue)) = application() else { return };
    let gpu = Gpu::from_device(device.clone(), queue, &GpuOptions::default()).unwrap();
    let work = |thread: u32| {
        for i in 0..1000 {
            let values = [thread, i, thread ^ i];
            let buffer = gpu.buffer_with("values", Category::Workspace, &values).unwrap();
            assert_eq!(gpu.download::<u32>(&buffer.region()).wait().unwrap(), values);
        }
    };
    std::thread::scope(|threads| {
        let work = &work;
        let running = [0, 1, 2, 3].map(|thread| threads.spawn(move || work(thread)));
        while running.iter().any(|thread| !thread.is_finished()) {
            device.poll(wgpu::PollType::Poll).unwrap();
        }
    });
}

/// Checks that every call on a lost device returns the device-lost error.
fn check_loss(gpu: &Gpu, lose: impl FnOnce()) {
    let mut all = Everything::new(gpu);
    all.train();
    let region = gpu.buffer("values", Category::Workspace, 64).unwrap().region();
    lose();
    let lost = |error: Error| {
        let message = error.to_string();
        assert!(matches!(error, Error::DeviceLost(_)), "{message}");
        assert!(message.contains("resume from the last checkpoint"), "{message}");
    };
    lost(all.step.run(&pairs(), 0.25).wait().unwrap_err());
    lost(all.scorer.score(&trees()).wait().unwrap_err());
    lost(all.optimiser.update(1e-3).wait().unwrap_err());
    lost(all.generate().unwrap_err());
    let weight = all.model.trained().iter().next().unwrap();
    lost(all.model.trained().download(weight).wait().unwrap_err());
    lost(all.model.trained().clear_gradients().unwrap_err());
    lost(gpu.buffer("more", Category::Workspace, 64).unwrap_err());
    lost(gpu.upload(&region, &[1u32; 16]).unwrap_err());
    lost(gpu.copy(&region, &region).unwrap_err());
    lost(Scorer::new(gpu, &all.model, Capacity::of(&trees()), &Arena::new()).wait().err().unwrap());
    lost(Model::load(gpu, &fixture("tiny"), false).wait().err().unwrap());
    lost(gpu.idle().wait().unwrap_err());
}

#[test]
fn a_lost_device_is_an_error() {
    if gpu().is_none() {
        return;
    }
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    check_loss(&gpu, || gpu.destroy());
}

#[test]
fn a_lost_device_of_the_application_is_the_same_error() {
    let Some((device, queue)) = application() else { return };
    let gpu = Gpu::from_device(device.clone(), queue, &GpuOptions::default()).unwrap();
    check_loss(&gpu, || device.destroy());
}

#[test]
fn threads_that_share_plans_get_the_bits_of_a_single_thread() {
    let Some(gpu) = gpu() else { return };
    // One arena: the activations of the plans share memory.
    let (arena, model) = (Arena::new(), tiny(&gpu, false));
    let capacity = Capacity::of(&trees());
    let scorer = Scorer::new(&gpu, &model, capacity, &arena).wait().unwrap();
    let other = Scorer::new(&gpu, &model, capacity, &arena).wait().unwrap();
    let trees = trees();
    let alone: Vec<_> = trees.chunks(1).map(|tree| scorer.score(tree).wait().unwrap()).collect();
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let (trees, alone, scorer) = (&trees, &alone, if thread % 2 == 0 { &scorer } else { &other });
            threads.spawn(move || {
                for i in 0..40 {
                    let at = (thread + i) % trees.len();
                    assert_eq!(
                        scorer.score(&trees[at..=at]).wait().unwrap(),
                        alone[at],
                        "thread {thread}, tree {at}"
                    );
                }
            });
        }
    });
}

#[test]
fn the_public_types_are_send() {
    fn sent<T: Send>() {}
    sent::<(Gpu, Model, Plan, Arena, Scorer, Generator, Tokenizer, Weights)>();
    sent::<(PairStep, SftStep, Optimiser)>();
    sent::<(Policy, AlignRun, DpoRun, SftRun)>();
    sent::<(JudgeModel, LlmJudge, LikelihoodJudge, Rule, CommandJudge, Box<dyn Judge>)>();
}

#[test]
fn a_call_that_wgpu_rejects_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let launch = |name: &'static str| {
        let mut r = Recorder::new(&gpu);
        let x = r.tensor("x", 4, 4);
        r.launch(Launch {
            kernel: name,
            constants: vec![],
            params: vec![],
            args: vec![write("x", x)],
            groups: Groups::over(4, 1),
            work: Work::default(),
        });
        Plan::new(&gpu, r, &Arena::new(), PlanOptions::default()).wait().err().unwrap()
    };
    assert!(launch("no_such_kernel").to_string().contains("there is no such kernel"));
    // Its constants are missing.
    let error = launch("gather_rows");
    assert!(matches!(&error, Error::Shader { kernel, .. } if kernel == "gather_rows"), "{error}");
    assert!(gpu.idle().wait().is_ok(), "the device still works");
}
