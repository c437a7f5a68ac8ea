//! One file an op: shapes, launch and gradient rule side by side, with its rows of the table of cases.
//!
//! Every op takes virtual tensors of a [`crate::gpu::Recorder`] and returns new ones. Shape letters as everywhere:
//! N tokens, S sequences, T target rows, C hidden, H heads, K kv heads, D head size, F feed-forward, V vocabulary,
//! R LoRA rank.

mod add;
mod attention;
mod cache;
mod case;
mod ceiling;
mod gather;
mod linear;
mod logprob;
mod optim;
mod preference;
mod rmsnorm;
mod rope;
mod sampling;
mod segment;
mod swiglu;
mod tile;

pub use add::residual_add;
pub use attention::{AttentionShape, attention};
pub use cache::{DecodeSlots, decode_advance, scatter_rows};
pub use case::{Case, CaseReport, Input, all_cases};
pub use ceiling::Ceilings;
pub use gather::{Inverse, gather_rows};
pub use linear::{LowRank, Matrix, MatrixRows, linear, merge_low_rank};
pub use logprob::{LogProb, VOCAB_CHUNK, logprob};
pub use optim::{
    ADAFACTOR_BETA2, Adafactor, AdafactorState, AdamW, INVERSE_BIAS_CORRECTION_1, INVERSE_BIAS_CORRECTION_2,
    LEARNING_RATE, adafactor, adamw, global_norm,
};
pub use preference::{PairLoss, PreferenceTensors, preference_loss};
pub use rmsnorm::rmsnorm;
pub use rope::{rope, rope_table};
pub use sampling::{SamplingParams, sample};
pub use segment::segment_sum;
pub use swiglu::swiglu;

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
