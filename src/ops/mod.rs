//! One file an op: shapes, launch and gradient rule side by side, with its rows of the table of cases.
//!
//! Every op takes virtual tensors of a [`crate::gpu::Recorder`] and returns new ones. Shape letters as everywhere:
//! N tokens, S sequences, T target rows, C hidden, H heads, K kv heads, D head size, F feed-forward, V vocabulary,
//! R LoRA rank.

mod add;
mod case;
mod linear;
mod logprob;
mod optim;
mod preference;
mod sampling;
mod segment;

pub use add::residual_add;
pub use case::{Case, CaseReport, Input, all_cases};
pub use linear::{LowRank, Matrix, MatrixRows, linear};
pub use logprob::{LogProb, VOCAB_CHUNK, logprob};
pub use optim::{
    ADAFACTOR_BETA2, Adafactor, AdafactorState, AdamW, INVERSE_BIAS_CORRECTION_1, INVERSE_BIAS_CORRECTION_2,
    LEARNING_RATE, adafactor, adamw, global_norm,
};
pub use preference::{PairLoss, PreferenceTensors, preference_loss};
pub use sampling::{SamplingParams, sample};
pub use segment::segment_sum;

/// The constant `ADD` of kernels that write a gradient.
fn accumulate(target: crate::gpu::GradientTarget) -> u32 {
    (target.accumulate == crate::gpu::Accumulate::Add) as u32
}
