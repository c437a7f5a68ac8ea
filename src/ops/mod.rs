//! One file per op, with shapes, launch and gradient rule; its rows of the table of cases are in `cases/`.
//!
//! Every op takes virtual tensors of a [`crate::gpu::Recorder`] and returns new ones. Shape letters: N tokens, S
//! sequences, T target rows, C hidden, H heads, K kv heads, D head size, F feed-forward, V vocabulary, R LoRA rank.

mod activation;
mod add;
mod advance;
mod attention;
mod cases;
mod ceiling;
mod elements;
mod feed_forward;
mod gather;
mod linear;
mod logits;
mod logprob;
mod matrix;
mod mix;
mod norm;
mod optim;
mod policy_gradient;
mod preference;
mod product;
mod rotary;
mod sampling;
mod segment;
mod self_attention;

pub use activation::{Activation, activation, gated_activation};
pub use add::{residual_add, scaled_residual_add};
pub use advance::{DecodeSlots, decode_advance};
pub use attention::{AttentionShape, KeySource, attention};
pub(crate) use cases::for_first_start;
pub use cases::{Case, CaseReport, Input, all_cases, largest_shapes, real_shapes};
pub(crate) use ceiling::multiply_add;
use elements::elements;
pub use feed_forward::{FeedForward, feed_forward};
pub use gather::{Inverse, embedding, gather_rows, position_embedding};
pub use linear::{Linear, Lora, linear, merge_lora};
pub use logits::LogitTransform;
pub use logprob::{LogProb, VOCAB_CHUNK, logprob, logprob_with_squares};
pub use matrix::{Matrix, MatrixRows};
pub use mix::mix;
pub use norm::{Norm, NormKind, head_norm, norm};
pub use optim::{
    ADAFACTOR_BETA2, Adafactor, AdafactorState, AdamW, INVERSE_BIAS_CORRECTION_1, INVERSE_BIAS_CORRECTION_2,
    LEARNING_RATE, adafactor, adamw, global_norm,
};
pub use policy_gradient::{PolicyGradient, PolicyGradientTensors, policy_gradient};
pub use preference::{PairInputs, PairLoss, PairTerm, PreferenceTensors, preference_loss};
pub(crate) use product::product;
pub use rotary::{Rotary, rope_table, rotary};
pub use sampling::{SamplingParams, sample};
pub use segment::segment_sum;
pub use self_attention::{SelfAttention, self_attention};
