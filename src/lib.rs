#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
// What tuning, benchmarks and the program alone use. The first two wait for the GPU on their thread, and are not for a browser.
#![cfg_attr(
    any(target_arch = "wasm32", not(all(feature = "bench", feature = "cli", feature = "demo"))),
    allow(dead_code, unused_imports)
)]

mod digest;
mod json_lines;
mod listeners;
mod lock;
mod panics;
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
/// The version of wgpu whose devices are shared.
pub use wgpu;

// The surface: what an application may count on, theme by theme; docs/surface.rs lists it. Within the crate the same paths
// lead to all of a theme.

/// GPUs: opening one, or sharing an application's; what they hold.
pub mod gpu {
    #[doc(inline)]
    pub use crate::unstable::gpu::{
        Arena, Category, FEATURES, Gpu, GpuOptions, GpuSummary, MemoryReport, Tier, list_gpus,
        required_limits,
    };

    pub(crate) use crate::unstable::gpu::*;
}

/// Models, LoRA adapters, and the probabilities that a model gives to texts.
pub mod model {
    #[doc(inline)]
    pub use crate::unstable::model::stream::Capacity;
    #[doc(inline)]
    pub use crate::unstable::model::{
        FloatFormat, FrozenFormat, LoraConfig, LoraTargets, Model, Scored, Scorer,
    };

    pub(crate) use crate::unstable::model::*;
}

/// Texts: prompts, preferences, conversations, files of them, tokens.
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

/// Answers: whole, or as they come.
pub mod generate {
    #[doc(inline)]
    pub use crate::unstable::generate::{
        AnswerStream, Chat, ChatAnswer, FinishReason, GenerateOptions, Generator, Part, Request, Response,
        SamplingParams,
    };

    pub(crate) use crate::unstable::generate::*;
}

/// Who says which answer is better: models, rules, people, servers, an application's own.
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

/// Losses of preferences.
pub mod preference {
    #[doc(inline)]
    pub use crate::unstable::preference::{Objective, PreferenceLoss};

    pub(crate) use crate::unstable::preference::*;
}

/// Training, a step at a time.
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

/// Files in memory, which all that takes a path takes.
pub mod files {
    #[doc(inline)]
    pub use crate::unstable::files::MemoryFolder;

    pub(crate) use crate::unstable::files::*;
}
