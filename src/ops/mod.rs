//! One file an op: shapes, launch and gradient rule side by side, with its rows of the table of cases.
//!
//! Every op takes virtual tensors of a [`crate::gpu::Recorder`] and returns new ones. Shape letters as everywhere:
//! N tokens, S sequences, T target rows, C hidden, H heads, K kv heads, D head size, F feed-forward, V vocabulary,
//! R LoRA rank.

mod add;
mod advance;
mod arithmetic;
mod attention;
mod case;
mod ceiling;
mod feed_forward;
mod gather;
mod linear;
mod logprob;
mod optim;
mod preference;
mod projection;
mod rmsnorm;
mod sampling;
mod segment;
mod tile;
mod tune;

pub use add::residual_add;
pub use advance::{DecodeSlots, decode_advance};
pub use arithmetic::check_arithmetic;
pub use attention::{AttentionShape, KeySource, rope_table, self_attention};
pub use case::{Case, CaseReport, Input, all_cases};
pub use ceiling::Ceilings;
pub use feed_forward::feed_forward;
pub use gather::{Inverse, gather_rows};
pub use linear::{LowRank, Matrix, MatrixRows, Norm, linear, merge_low_rank};
pub use logprob::{LogProb, VOCAB_CHUNK, logprob};
pub use optim::{
    ADAFACTOR_BETA2, Adafactor, AdafactorState, AdamW, INVERSE_BIAS_CORRECTION_1, INVERSE_BIAS_CORRECTION_2,
    LEARNING_RATE, adafactor, adamw, global_norm,
};
pub use preference::{PairLoss, PreferenceTensors, preference_loss};
pub use projection::Projection;
pub use rmsnorm::rmsnorm;
pub use sampling::{SamplingParams, sample};
pub use segment::segment_sum;
pub use tune::{Tuned, tune};

/// The constant `ADD` of kernels that write a gradient.
fn accumulate(target: crate::gpu::GradientTarget) -> u32 {
    (target.accumulate == crate::gpu::Accumulate::Add) as u32
}

/// Workgroups of an elementwise kernel on (rows, cols), as shaders/shared/elements.wgsl shares the elements out.
fn elements(rows: crate::gpu::Dim, cols: usize) -> crate::gpu::Groups {
    use crate::gpu::Groups;
    match cols as u32 {
        1024.. => Groups::over(rows, 1).times(cols.div_ceil(1024) as u32),
        cols => Groups::over(rows, (1024 / cols).min(64)),
    }
}
