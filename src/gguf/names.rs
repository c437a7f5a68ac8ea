//! The names of tensors in GGUF files, for all supported families.

use crate::model::Architecture;
use crate::model::names::{LayerNorm, Projection};

/// The supported architectures: their names in GGUF, and their `model_type`.
pub(super) const ARCHITECTURES: [(&str, &str); 11] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("smollm3", "smollm3"),
    ("olmo2", "olmo2"),
    ("granite", "granite"),
    ("phi3", "phi3"),
    ("gpt2", "gpt2"),
    ("gptneox", "gpt_neox"),
];

/// Whether files of this architecture have the rows of queries and keys in another order: llama.cpp rotates adjacent
/// pairs, where transformers rotates the halves of a head.
pub(super) fn pairs_are_neighbours(gguf: &str) -> bool {
    matches!(gguf, "llama" | "granite" | "smollm3")
}

/// Tensors with factors of the rotary frequencies, which are settings and not weights: for all sequences, for short
/// ones and for long ones.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
pub(super) const ROPE_SHORT: &str = "rope_factors_short.weight";
pub(super) const ROPE_LONG: &str = "rope_factors_long.weight";

fn projection(projection: Projection) -> &'static str {
    match projection {
        Projection::Query => "attn_q",
        Projection::Key => "attn_k",
        Projection::Value => "attn_v",
        Projection::QueryKeyValue => "attn_qkv",
        Projection::Output => "attn_output",
        Projection::Gate => "ffn_gate",
        Projection::Up | Projection::GateUp => "ffn_up",
        Projection::Down => "ffn_down",
    }
}

fn norm(norm: LayerNorm) -> &'static str {
    match norm {
        LayerNorm::Attention => "attn_norm",
        LayerNorm::AttentionOutput => "post_attention_norm",
        LayerNorm::FeedForward => "ffn_norm",
        LayerNorm::FeedForwardOutput => "post_ffw_norm",
        LayerNorm::Query => "attn_q_norm",
        LayerNorm::Key => "attn_k_norm",
    }
}

/// A module of a model: the prefix of its tensors' names (before `.weight` and `.bias`) in the files of transformers
/// and in GGUF, and its projection if it is one.
pub(super) struct Module {
    pub ours: String,
    pub gguf: String,
    pub projection: Option<Projection>,
    pub is_norm: bool,
}

/// All modules of a model, including those that it may lack.
pub(super) fn modules(architecture: &Architecture) -> Vec<Module> {
    let names = architecture.names;
    let stem = |name: String| name.trim_end_matches(".weight").to_owned();
    let module =
        |ours: String, gguf: &str, is_norm| Module { ours, gguf: gguf.to_owned(), projection: None, is_norm };
    let mut out = vec![
        module(stem(names.embedding()), "token_embd", false),
        module(names.final_norm(), "output_norm", true),
        module(stem(names.head()), "output", false),
    ];
    if architecture.learned_positions {
        out.push(module(stem(names.positions()), "position_embd", false));
    }
    for layer in 0..architecture.layers {
        out.extend(names.norms.iter().map(|(kind, _)| {
            module(names.norm(*kind, layer), &format!("blk.{layer}.{}", norm(*kind)), true)
        }));
        out.extend(names.projections.iter().map(|(kind, _)| Module {
            projection: Some(*kind),
            ..module(names.module(*kind, layer), &format!("blk.{layer}.{}", projection(*kind)), false)
        }));
    }
    out
}
