//! Shared by the tests: the GPU, fixtures, and the models next to the checkout.
#![allow(dead_code)]

pub mod parity;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::rows::{Prompt, Text};
use oaif::unstable::gpu::{Arena, DeviceKind, FEATURES, Gpu, GpuOptions, Tuning};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};
use oaif::unstable::train::pair_step::LabelledPair;
use serde_json::Value;

/// The GPU of this test run. Without a GPU a test fails if REQUIRE_GPU=1, and otherwise prints that it was skipped.
pub fn gpu() -> Option<Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::open(&GpuOptions::default()).wait() {
        Ok(gpu) => Some(gpu),
        Err(e) if std::env::var("REQUIRE_GPU").is_ok_and(|v| v == "1") => panic!("{e}"),
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            None
        }
    })
    .clone()
}

/// A device created by an application, without error handlers.
pub fn application() -> Option<(wgpu::Device, wgpu::Queue)> {
    gpu()?;
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    let instance = wgpu::Instance::new(descriptor);
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).unwrap();
    let (required_limits, required_features) = (adapter.limits(), adapter.features() & FEATURES);
    let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
    Some(pollster::block_on(adapter.request_device(&descriptor)).unwrap())
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A separate device, whose tuning a test may change, with the kernels for this kind of device.
pub fn gpu_with(options: GpuOptions, kind: DeviceKind) -> Option<Gpu> {
    gpu()?;
    let gpu = Gpu::open(&options).wait().unwrap();
    gpu.set_tuning(Tuning::untuned(gpu.subgroup(), kind));
    Some(gpu)
}

/// A file in `../shared`; if it is missing, prints that the test was skipped.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: ../shared/{name} is absent");
        return None;
    }
    Some(path)
}

pub fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// A safetensors fixture in memory.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(name: &str) -> Tensors {
        Tensors::read(&fixture(name))
    }

    pub fn read(path: &Path) -> Tensors {
        Tensors(std::fs::read(path).unwrap())
    }

    fn words<const N: usize, T>(&self, name: &str, of: impl Fn([u8; N]) -> T) -> Vec<T> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
        tensor.data().chunks_exact(N).map(|c| of(c.try_into().unwrap())).collect()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.words(name, f32::from_le_bytes)
    }

    pub fn u32(&self, name: &str) -> Vec<u32> {
        self.words(name, u32::from_le_bytes)
    }

    pub fn names(&self) -> Vec<String> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(|n| n.to_string()).collect()
    }
}

/// Words that the tiny model's tokenizer knows.
pub fn words() -> Vec<String> {
    let json = json("tiny/tokenizer.json");
    let vocab = json["model"]["vocab"].as_object().unwrap();
    vocab.keys().filter(|w| w.chars().all(char::is_alphabetic)).cloned().collect()
}

/// Ten prompts of one to three of these words.
pub fn prompts() -> Vec<Prompt> {
    let words = words();
    let text = |i: usize| Text::Plain(words[i % words.len()..][..1 + i % 3].join(" "));
    (0..10).map(|i| Prompt { prompt: text(i), reference: None, place: (i + 1).into() }).collect()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// |a - b| / |b|, both as vectors.
pub fn relative_distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(a, b)| square(*a as f64 - *b as f64)).sum();
    let norm: f64 = b.iter().map(|b| square(*b as f64)).sum();
    if norm == 0.0 { distance.sqrt() } else { (distance / norm).sqrt() }
}

/// The fixture's pairs, with its reference log-probabilities.
pub fn pairs(file: &Value) -> Vec<LabelledPair> {
    let number = |v: &Value| v.as_f64().unwrap() as f32;
    let pair = |p: &Value| LabelledPair {
        tree: Tree { prompt: ids(&p["prompt"]), responses: vec![ids(&p["chosen"]), ids(&p["rejected"])] },
        reference: [number(&p["ref_chosen"]), number(&p["ref_rejected"])],
        label: 1.0,
        by_reference: [false; 2],
    };
    file["pairs"].as_array().unwrap().iter().map(pair).collect()
}

pub fn capacity(pairs: &[LabelledPair]) -> Capacity {
    Capacity::of(&pairs.iter().map(|p| p.tree.clone()).collect::<Vec<_>>())
}

/// Log-probabilities of every token except the first, row by row.
pub fn logps(gpu: &Gpu, model: &Model, rows: &[Vec<u32>]) -> Vec<f32> {
    let trees: Vec<Tree> = rows
        .iter()
        .map(|ids| Tree { prompt: ids[..1].to_vec(), responses: vec![ids[1..].to_vec()] })
        .collect();
    let capacity = Capacity { tokens: 2048, targets: 2048, sequences: 16 };
    let scorer = Scorer::new(gpu, model, capacity, &Arena::new()).wait().unwrap();
    scorer.score(&trees).wait().unwrap().into_iter().flat_map(|s| s.logps).collect()
}

/// The largest and the mean difference between token log-probabilities and those of the fixture.
pub fn logp_differences(gpu: &Gpu, model: &Model, rows: &[Vec<u32>], expected: &[f32]) -> (f64, f64) {
    let got = logps(gpu, model, rows);
    assert_eq!(got.len(), expected.len());
    let differences = || got.iter().zip(expected).map(|(a, b)| (*a as f64 - *b as f64).abs());
    (differences().fold(0.0, f64::max), differences().sum::<f64>() / got.len() as f64)
}
