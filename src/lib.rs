#![doc = include_str!("../README.md")]
//!
//! # The library
//!
//! Layers, each importing only those before it:
//!
//! - [`error`], [`files`]: one error type; files that are whole or absent.
//! - `task`: futures that any executor may poll, and [`Wait`], which waits for one on this thread.
//! - [`gpu`]: GPUs, buffers, shaders; a [`gpu::Recorder`] notes launches, a [`gpu::Plan`] replays them.
//! - [`reference`](mod@reference): every op in plain `f64`, the oracle of tests and of `oaif doctor`.
//! - [`data`]: dataset rows, tokenizer, chat templates, packing of prefix trees.
//! - [`ops`]: every op with its launch, its gradient rule and its rows of the table of cases.
//! - [`tuning`]: which of the kernels' variants a device runs, chosen by trying.
//! - [`model`]: configuration, weights, LoRA, the decoder, scoring.
//! - [`gguf`]: the files of llama.cpp and Ollama, which [`data`] and [`model`] read as if they were a model's folder.
//! - [`generate`], [`preference`], [`optim`], [`annotate`]: sampling, losses, optimisers, annotators.
//! - [`train`], [`eval`]: supervised, offline and online training; judging results.
//! - [`bench`]: the cases that `oaif bench` and criterion time.
//! - [`report`]: pages and pictures of what came out.
//! - [`demo`]: a small world to try it all in.
//! - `hub`: models, adapters and datasets by their names on the Hugging Face hub, behind the feature `http`.
//! - `ui`: a run's live page, and a page on which a person labels, behind the feature of that name.
//! - `cli`: the program, behind the feature of that name; the only place that prints.
//!
//! Shape letters, the same everywhere: N tokens (rows), S sequences, T target rows, C hidden, H heads, K kv heads,
//! D head size, F feed-forward, V vocabulary, L layers, R LoRA rank.
#![deny(missing_docs)]
// What tuning and benchmarks alone use: they wait for the GPU on their thread, and are not for a browser.
#![cfg_attr(target_arch = "wasm32", allow(dead_code, unused_imports))]

pub mod annotate;
#[cfg(not(target_arch = "wasm32"))]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod demo;
mod digest;
pub mod error;
pub mod eval;
pub mod files;
pub mod generate;
pub mod gguf;
pub mod gpu;
#[cfg(feature = "http")]
pub mod hub;
mod json_lines;
mod listeners;
mod lock;
pub mod model;
pub mod ops;
pub mod optim;
mod panics;
pub mod preference;
#[cfg(feature = "http")]
mod redirects;
pub mod reference;
pub mod report;
mod task;
pub mod train;
#[cfg(not(target_arch = "wasm32"))]
pub mod tuning;
#[cfg(feature = "ui")]
pub mod ui;

pub use error::{Error, Result};
pub use task::Task;
#[cfg(not(target_arch = "wasm32"))]
pub use task::{Wait, block_on};
/// The version of wgpu whose devices are shared.
pub use wgpu;
