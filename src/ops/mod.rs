//! One file an op: shapes, launch and gradient rule side by side, with its rows of the table of cases.
//!
//! Every op takes virtual tensors of a [`crate::gpu::Recorder`] and returns new ones. Shape letters as everywhere:
//! N tokens, S sequences, T target rows, C hidden, H heads, K kv heads, D head size, F feed-forward, V vocabulary,
//! R LoRA rank.

mod activation;
mod add;
mod advance;
mod arithmetic;
mod attention;
mod cases;
mod ceiling;
mod feed_forward;
mod gather;
mod linear;
mod logits;
mod logprob;
mod matrix;
mod norm;
mod optim;
mod preference;
mod product;
mod rotary;
mod sampling;
mod segment;
mod self_attention;
mod tune;

pub use activation::{Activation, activation, gated_activation};
pub use add::residual_add;
pub use advance::{DecodeSlots, decode_advance};
pub use arithmetic::check_arithmetic;
pub use attention::{AttentionShape, KeySource, attention};
pub use cases::{Case, CaseReport, Input, all_cases};
pub use ceiling::Ceilings;
pub use feed_forward::{FeedForward, feed_forward};
pub use gather::{Inverse, embedding, gather_rows};
pub use linear::{Linear, Lora, linear, merge_lora};
pub use logits::LogitTransform;
pub use logprob::{LogProb, VOCAB_CHUNK, logprob};
pub use matrix::{Matrix, MatrixRows};
pub use norm::{Norm, NormKind, head_norm, norm};
pub use optim::{
    ADAFACTOR_BETA2, Adafactor, AdafactorState, AdamW, INVERSE_BIAS_CORRECTION_1, INVERSE_BIAS_CORRECTION_2,
    LEARNING_RATE, adafactor, adamw, global_norm,
};
pub use preference::{PairLoss, PreferenceTensors, preference_loss};
pub use rotary::{Rotary, rope_table, rotary};
pub use sampling::{SamplingParams, sample};
pub use segment::segment_sum;
pub use self_attention::{SelfAttention, self_attention};
pub use tune::{Tuned, tune};

/// Workgroups of an elementwise kernel on (rows, cols), as shaders/shared/elements.wgsl shares the elements out.
fn elements(rows: crate::gpu::Dim, cols: usize) -> crate::gpu::Groups {
    use crate::gpu::Groups;
    match cols.div_ceil(4) as u32 {
        across @ 256.. => Groups::over(rows, 1).times(across.div_ceil(256)),
        across => Groups::over(rows, (256 / across).min(64)),
    }
}
