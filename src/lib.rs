//! Aligns small language models with feedback from a judge, on any GPU that WebGPU supports.
//!
//! In online training, the policy (the model being trained) writes two responses to each prompt, a judge compares them, and
//! the policy is trained on the verdict with DPO, IPO or SLiC
//! ([Guo et al. 2024](https://arxiv.org/abs/2402.04792)). The judge is a model, a rule, a person, a server, or your own
//! code. The library also has supervised fine-tuning, DPO on a dataset of preference pairs, reward models, LoRA adapters and
//! sampling. Models are folders in the Hugging Face layout, or GGUF files.
//!
//! All floating-point computation is done by WGSL compute shaders, which [`wgpu`] runs on Vulkan, Metal or DirectX 12,
//! and in browsers on WebGPU. The library needs neither CUDA nor Python. It prints nothing and returns errors for invalid
//! input.
//!
//! # Example
//!
//! Online DPO with a rule as the judge, which prefers the shorter response:
//!
//! ```no_run
//! use oaif::Wait;
//! use oaif::data::{Columns, read_prompts};
//! use oaif::gpu::{Gpu, GpuOptions};
//! use oaif::judge::Rule;
//! use oaif::preference::PreferenceLoss;
//! use oaif::train::{AlignOptions, Policy, TrainOptions, Trainer};
//!
//! fn main() -> oaif::Result<()> {
//!     let gpu = Gpu::open(&GpuOptions::default()).wait()?;
//!     let train = TrainOptions::default().learning_rate(1e-5);
//!     let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
//!     let prompts = read_prompts("prompts.jsonl".as_ref(), &Columns::default())?;
//!     let policy = Policy::load(&gpu, "MODEL".as_ref(), &train).wait()?;
//!     let judge = Rule::parse("shorter")?;
//!     let mut trainer = Trainer::online(policy, &prompts, judge, &train, &align).wait()?;
//!     while let Some(report) = trainer.step().wait()? {
//!         println!("step {}: loss {:?}", report.step, report.loss);
//!     }
//!     trainer.policy().save("aligned".as_ref()).wait()
//! }
//! ```
//!
//! Everything that waits for the GPU is a future, which any executor can poll. `Wait::wait` blocks on one.
//!
//! # Where to go next
//!
//! - [`train`]: [`train::Trainer`] runs online, offline, supervised and reward training, one step at a time; it saves and
//!   resumes checkpoints.
//! - [`judge`]: the judges, and the trait [`judge::Judge`] to implement your own.
//! - [`generate`]: sampling with [`generate::Generator`], streams of text, and conversations with [`generate::Chat`].
//! - [`data`]: readers for datasets, and the tokenizer.
//! - [`model`]: LoRA settings, weight formats and scoring.
//! - [`gpu`]: opening a GPU, or sharing the `wgpu::Device` of your application with [`gpu::Gpu::from_device`].
//! - [`files`]: folders in memory, which can take the place of folders on disk.
//! - [`unstable`]: the internals. They may change in any release.
//!
//! In the repository, [`docs/how-to/embed-in-an-app.md`] describes how to use the library in an application, and
//! [`docs/how-to/use-from-another-language.md`] how programs in other languages use `oaif`. `docs/surface.rs` lists the
//! stable items. `examples/` has complete programs: `align.rs` has a judge of its own, and `embed.rs` is a whole application.
//!
//! [`docs/how-to/embed-in-an-app.md`]: https://github.com/oaif/oaif/blob/main/docs/how-to/embed-in-an-app.md
//! [`docs/how-to/use-from-another-language.md`]: https://github.com/oaif/oaif/blob/main/docs/how-to/use-from-another-language.md
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cli` | yes | the program `oaif` |
//! | `http` | yes | servers as judges; models and datasets by name from the Hugging Face Hub |
//! | `parquet` | yes | datasets in Parquet |
//! | `ui` | yes | the live page of a run, and a page for labelling by hand |
//! | `demo` | yes | the synthetic task of `oaif demo` |
//! | `report` | by `cli` and `demo` | reports with figures |
//! | `bench` | by `cli` | the cases that `oaif bench` measures |
//! | `mpi` | no | distributed training with MPI; the build needs an MPI library and libclang |
//!
//! An application needs few of them: `oaif = { version = "0.1", default-features = false }` builds the library alone.

#![deny(missing_docs)]
// Some items are used only by tuning, by benchmarks or by the program. Tuning and benchmarks block on the GPU, so they are
// not built for browsers.
#![cfg_attr(
    any(target_arch = "wasm32", not(all(feature = "bench", feature = "cli", feature = "demo"))),
    allow(dead_code, unused_imports)
)]

mod digest;
mod json_lines;
mod listeners;
mod lock;
mod numbers;
mod panics;
#[cfg(doctest)]
mod readme;
#[cfg(feature = "http")]
mod redirects;
mod signal;
mod task;
pub mod unstable;

use unstable::*;

pub use error::{Error, Result};
pub use task::Task;
#[cfg(not(target_arch = "wasm32"))]
pub use task::{Wait, block_on};
/// The version of wgpu whose devices can be shared.
pub use wgpu;

// The stable items, by topic; docs/surface.rs lists them. Within the crate, each of these modules has all items of its topic.

/// GPUs: opening one, sharing the device of an application, and reports of memory use.
pub mod gpu {
    #[doc(inline)]
    pub use crate::unstable::gpu::{
        Arena, Category, FEATURES, Gpu, GpuOptions, GpuSummary, MemoryReport, Tier, list_gpus,
        required_limits,
    };

    pub(crate) use crate::unstable::gpu::*;
}

/// Models, LoRA adapters, and the log-probabilities of texts.
pub mod model {
    #[doc(inline)]
    pub use crate::unstable::model::stream::Capacity;
    #[doc(inline)]
    pub use crate::unstable::model::{
        FloatFormat, FrozenFormat, LoraConfig, LoraTargets, Model, Scored, Scorer,
    };

    pub(crate) use crate::unstable::model::*;
}

/// Datasets and texts: prompts, preference pairs, conversations, tokens.
pub mod data {
    #[doc(inline)]
    pub use crate::unstable::data::packing::Tree;
    #[doc(inline)]
    pub use crate::unstable::data::rows::{
        Columns, Completion, Conversation, Message, Pair, Prompt, Text, read_completions, read_pairs,
        read_prompts,
    };
    #[doc(inline)]
    pub use crate::unstable::data::tokenizer::{StopMatcher, Tokenizer};

    pub(crate) use crate::unstable::data::*;
}

/// Sampling: whole responses, streams of text, and conversations.
pub mod generate {
    #[doc(inline)]
    pub use crate::unstable::generate::{
        AnswerStream, Chat, ChatAnswer, FinishReason, GenerateOptions, Generator, Part, Request, Response,
        SamplingParams,
    };

    pub(crate) use crate::unstable::generate::*;
}

/// Judges, which compare two responses: models, rules, persons, servers, and your own.
pub mod judge {
    #[doc(inline)]
    pub use crate::unstable::judge::human::{
        Desk, GivenLabel, Human, Last, Pick, Refusal, Shown, Tally, View,
    };
    #[doc(inline)]
    pub use crate::unstable::judge::judge_model::JudgeModel;
    #[doc(inline)]
    pub use crate::unstable::judge::likelihood::{LikelihoodJudge, Normalise};
    #[doc(inline)]
    pub use crate::unstable::judge::llm::{LlmJudge, Orders};
    #[cfg(feature = "http")]
    #[doc(inline)]
    pub use crate::unstable::judge::openai::{Api, Key, OpenAi, OpenAiOptions, RatingTemplate};
    #[doc(inline)]
    pub use crate::unstable::judge::queue::IntoJudgeQueue;
    #[doc(inline)]
    pub use crate::unstable::judge::reward::RewardJudge;
    #[doc(inline)]
    pub use crate::unstable::judge::rule::Rule;
    #[doc(inline)]
    pub use crate::unstable::judge::template::JudgeTemplate;
    #[cfg(not(target_arch = "wasm32"))]
    #[doc(inline)]
    pub use crate::unstable::judge::threaded::Threaded;
    #[doc(inline)]
    pub use crate::unstable::judge::{Judge, Judgement, Pair, Position, Rated, Score, Verdict};

    pub(crate) use crate::unstable::judge::*;
}

/// Preference losses.
pub mod preference {
    #[doc(inline)]
    pub use crate::unstable::preference::{Objective, PreferenceLoss};

    pub(crate) use crate::unstable::preference::*;
}

/// Training, one step at a time.
pub mod train {
    #[doc(inline)]
    pub use crate::unstable::optim::OptimiserKind;
    #[doc(inline)]
    pub use crate::unstable::train::report::PairReport;
    #[doc(inline)]
    pub use crate::unstable::train::schedule::ScheduleKind;
    #[doc(inline)]
    pub use crate::unstable::train::{
        AlignOptions, Control, DpoOptions, Observer, OnlineLoss, PairChoice, Policy, PolicyLoss,
        ReferenceSync, Requests, RewardOptions, StepReport, TrainOptions, Trainer,
    };

    pub(crate) use crate::unstable::train::*;
}

/// Files in memory, which are accepted wherever a path is.
pub mod files {
    #[doc(inline)]
    pub use crate::unstable::files::MemoryFolder;

    pub(crate) use crate::unstable::files::*;
}
