//! What the library is made of: kernels, layers, steps, files, the program. **No promise is made about any of it**: a
//! patch release may change or remove what is here. Tests, benchmarks and tools that look inside use it, and so may you,
//! with a version of this crate that is pinned (`oaif = "=0.1.0"`).
//!
//! Layers, each importing only those before it:
//!
//! - [`error`], [`files`]: one error type; files that are whole or absent.
//! - `task`: futures that any executor may poll, and [`Wait`](crate::Wait), which waits for one on this thread.
//! - [`collective`]: processes that train together, and what they tell each other.
//! - [`gpu`]: GPUs, buffers, shaders; a [`gpu::Recorder`] notes launches, a [`gpu::Plan`] replays them.
//! - [`reference`](mod@reference): every op in plain `f64`, the oracle of tests and of `oaif doctor`.
//! - [`data`]: dataset rows, tokenizer, chat templates, packing of prefix trees.
//! - [`ops`]: every op with its launch, its gradient rule and its rows of the table of cases.
//! - [`tuning`]: which of the kernels' variants a device runs, chosen by trying.
//! - [`model`]: configuration, weights, LoRA, the decoder, scoring.
//! - [`gguf`]: the files of llama.cpp and Ollama, which [`data`] and [`model`] read as if they were a model's folder.
//! - [`generate`], [`preference`], [`optim`], [`judge`]: sampling, losses, optimisers, judges.
//! - [`train`], [`eval`]: supervised, offline and online training; judging results.
//! - `bench`: the cases that `oaif bench` and criterion time.
//! - `report`: pages and pictures of what came out.
//! - [`demo`]: a small world to try it all in.
//! - `hub`: models, adapters and datasets by their names on the Hugging Face hub.
//! - `ui`: a run's live page, and a page on which a person labels.
//! - `cli`: the program; the only place that prints.
//!
//! Shape letters, the same everywhere: N tokens (rows), S sequences, T target rows, C hidden, H heads, K kv heads,
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
