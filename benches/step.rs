//! Whole steps of a random model of C 64, F 172, L 5, H 8, K 4, V 512 (the size of stories260K), an element a token
//! row: training, scoring, decoding, updating, and what sharing a prompt saves.
//!
//!     cargo bench --bench step

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oaif::data::packing::Tree;
use oaif::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::gpu::{Arena, Gpu, GpuOptions};
use oaif::model::stream::Capacity;
use oaif::model::{Model, ModelConfig, Scorer};
use oaif::optim::{Optimiser, OptimiserKind};
use oaif::preference::PreferenceLoss;
use oaif::train::pair_step::{LabelledPair, PairStep};
use oaif::train::sft_step::SftStep;

fn model(gpu: &Gpu) -> Model {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    Model::random(gpu, ModelConfig::from_json(config).unwrap(), true, 1).unwrap()
}

/// `trees` prompts of `prompt` tokens, each with `responses` of `response` tokens.
fn trees(trees: usize, prompt: usize, responses: usize, response: usize) -> Vec<Tree> {
    let ids = |n: usize, salt: usize| (0..n).map(|i| ((i * 37 + salt * 101) % 512) as u32).collect();
    let tree = |t: usize| Tree {
        prompt: ids(prompt, t),
        responses: (0..responses).map(|r| ids(response, 100 * (r + 1) + t)).collect(),
    };
    (0..trees).map(tree).collect()
}

fn rows(trees: &[Tree]) -> Throughput {
    Throughput::Elements(Capacity::of(trees).tokens as u64)
}

fn steps(c: &mut Criterion) {
    let gpu = Gpu::open(&GpuOptions::default()).expect("an adapter");
    let (model, arena) = (model(&gpu), Arena::new());

    let mut group = c.benchmark_group("forward and backward");
    let sequences = trees(16, 1, 1, 128);
    let shared = trees(8, 200, 2, 25);
    let unshared: Vec<Tree> = shared.iter().flat_map(Tree::unshared).collect();
    for (name, trees) in [
        ("sft, 16 sequences of 128", &sequences),
        ("sft, 8 prompts of 200 with 2 x 25 shared", &shared),
        ("sft, 8 prompts of 200 with 2 x 25 unshared", &unshared),
    ] {
        let step = SftStep::new(&gpu, &model, Capacity::of(trees), false, &arena).unwrap();
        group.throughput(rows(trees)).bench_function(name, |b| b.iter(|| step.run(trees, 1e-3).unwrap()));
    }
    let pairs: Vec<LabelledPair> = trees(16, 64, 2, 33)
        .into_iter()
        .map(|tree| LabelledPair { tree, reference: [-100.0, -101.0], label: 1.0 })
        .collect();
    let trees: Vec<Tree> = pairs.iter().map(|p| p.tree.clone()).collect();
    let loss = PreferenceLoss::Dpo { beta: 0.1 };
    for (name, checkpointing) in
        [("dpo, 16 pairs of 128 rows", false), ("dpo, 16 pairs of 128 rows, checkpointing", true)]
    {
        let step = PairStep::new(&gpu, &model, loss, Capacity::of(&trees), checkpointing, &arena).unwrap();
        group.throughput(rows(&trees)).bench_function(name, |b| b.iter(|| step.run(&pairs, 1e-3).unwrap()));
    }
    group.finish();

    let mut group = c.benchmark_group("forward");
    let scorer = Scorer::new(&gpu, &model, Capacity::of(&trees), &arena).unwrap();
    group
        .throughput(rows(&trees))
        .bench_function("score, 16 pairs of 128 rows", |b| b.iter(|| scorer.score(&trees).unwrap()));
    group.finish();

    let mut group = c.benchmark_group("update");
    let adamw = OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    for (name, kind) in [("adamw", adamw), ("adafactor", OptimiserKind::Adafactor { weight_decay: 0.0 })] {
        let mut optimiser = Optimiser::new(&gpu, model.trained(), kind, 1.0, &arena).unwrap();
        group.bench_function(name, |b| b.iter(|| optimiser.update(1e-6).unwrap()));
    }
    group.finish();

    decode(c, &gpu, &model);
}

/// 16 prompts with two samples of 64 tokens each, prefill and detokenising included.
fn decode(c: &mut Criterion, gpu: &Gpu, model: &Model) {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let tokenizer = Tokenizer::load(&fixture).unwrap();
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.9, ..SamplingParams::default() },
        max_new_tokens: 64,
        max_prompt_tokens: 64,
        slots: 32,
        samples_per_prompt: 2,
        eos: vec![],
    };
    let generator = Generator::new(gpu, model, options, &Arena::new()).unwrap();
    let prompts = trees(16, 64, 0, 0).into_iter().enumerate();
    let requests: Vec<Request> = prompts
        .map(|(i, tree)| Request { prompt: tree.prompt, samples: 2, first_sequence: 2 * i as u32 })
        .collect();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(32 * 64));
    group.bench_function("32 sequences, 64 tokens each", |b| {
        b.iter(|| generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).unwrap())
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = steps
}
criterion_main!(benches);
