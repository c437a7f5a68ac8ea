//! The internals of the library: kernels, layers, steps, files, the program. **There is no promise of stability**: a
//! patch release may change or remove anything in here. Tests, benchmarks and tools use it, and so can you, if you pin
//! the version of this crate (`oaif = "=0.1.0"`).
//!
//! The layers, each of which imports only those before it:
//!
//! - [`error`], [`files`]: the error type; atomic writing of files.
//! - `task`: futures that any executor can poll, and [`Wait`](crate::Wait), which blocks on one.
//! - [`collective`]: communication between the processes of a distributed training.
//! - [`gpu`]: GPUs, buffers, shaders; a [`gpu::Recorder`] records launches, a [`gpu::Plan`] replays them.
//! - [`reference`](mod@reference): every op in plain `f64`, the reference for tests and for `oaif doctor`.
//! - [`data`]: dataset rows, tokenizer, chat templates, packing of prefix trees.
//! - [`ops`]: every op with its launch, its gradient rule and its test cases.
//! - [`tuning`]: choice of kernel variants for a device, by measuring them.
//! - [`model`]: configuration, weights, LoRA, the decoder, scoring.
//! - [`gguf`]: the files of llama.cpp and Ollama, which [`data`] and [`model`] read like a model folder.
//! - [`generate`], [`preference`], [`optim`], [`judge`]: sampling, losses, optimisers, judges.
//! - [`train`], [`eval`]: supervised, offline and online training; evaluation of results.
//! - `bench`: the cases that `oaif bench` and criterion measure.
//! - `report`: reports with figures.
//! - [`demo`]: a small synthetic task to try everything on.
//! - `hub`: models, adapters and datasets by name from the Hugging Face Hub.
//! - `ui`: the live page of a run, and a page for labelling by hand.
//! - `cli`: the program; the only part that prints.
//!
//! Shape letters are the same everywhere: N tokens (rows), S sequences, T target rows, C hidden, H heads, K kv heads, D
//! head size, F feed-forward, V vocabulary, L layers, R LoRA rank.
//! D head size, F feed-forward, V vocabulary, L layers, R LoRA rank.

#[cfg(all(feature = "bench", not(target_arch = "wasm32")))]
#[path = "bench/mod.rs"]
pub mod bench;
#[cfg(feature = "cli")]
#[path = "cli/mod.rs"]
pub mod cli;
#[path = "collective/mod.rs"]
pub mod collective;
#[path = "data/mod.rs"]
pub mod data;
#[cfg(feature = "demo")]
#[path = "demo/mod.rs"]
pub mod demo;
#[path = "error.rs"]
pub mod error;
#[path = "eval/mod.rs"]
pub mod eval;
#[path = "files/mod.rs"]
pub mod files;
#[path = "generate/mod.rs"]
pub mod generate;
#[path = "gguf/mod.rs"]
pub mod gguf;
#[path = "gpu/mod.rs"]
pub mod gpu;
#[cfg(feature = "http")]
#[path = "hub/mod.rs"]
pub mod hub;
#[path = "judge/mod.rs"]
pub mod judge;
#[path = "model/mod.rs"]
pub mod model;
#[path = "ops/mod.rs"]
pub mod ops;
#[path = "optim/mod.rs"]
pub mod optim;
#[path = "preference/mod.rs"]
pub mod preference;
#[path = "reference/mod.rs"]
pub mod reference;
#[cfg(feature = "report")]
#[path = "report/mod.rs"]
pub mod report;
#[path = "train/mod.rs"]
pub mod train;
#[cfg(not(target_arch = "wasm32"))]
#[path = "tuning/mod.rs"]
pub mod tuning;
#[cfg(feature = "ui")]
#[path = "ui/mod.rs"]
pub mod ui;
