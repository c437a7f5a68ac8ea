//! The tensor names of a family.

use super::architecture::Stored;

/// The linear maps of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Queries, (H·D, C).
    Query,
    /// Keys, (K·D, C).
    Key,
    /// Values, (K·D, C).
    Value,
    /// Queries, keys and values in one matrix, ((H + 2 K)·D, C).
    QueryKeyValue,
    /// The output of attention, (C, H·D).
    Output,
    /// The gate of the feed-forward block, (F, C).
    Gate,
    /// The up projection of the feed-forward block, (F, C).
    Up,
    /// Gate and up projection in one matrix, (2 F, C).
    GateUp,
    /// The down projection of the feed-forward block, (C, F).
    Down,
}

impl Projection {
    /// Whether its rows are divided into heads.
    pub fn is_of_heads(self) -> bool {
        use Projection::*;
        matches!(self, Query | Key | Value | QueryKeyValue)
    }
}

/// The norms of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerNorm {
    /// Before attention.
    Attention,
    /// After attention.
    AttentionOutput,
    /// Before the feed-forward block.
    FeedForward,
    /// After the feed-forward block.
    FeedForwardOutput,
    /// Of queries.
    Query,
    /// Of keys.
    Key,
}

/// The tensor names of a family. All names except the head's are prefixed with `decoder`.
#[derive(Debug, PartialEq)]
pub struct Names {
    /// The prefix of the decoder's tensor names, including the dot.
    pub decoder: &'static str,
    /// The embedding.
    pub embedding: &'static str,
    /// The embedding of positions, if it is learned.
    pub positions: &'static str,
    /// The name before a layer's number.
    pub layers: &'static str,
    /// The final norm.
    pub final_norm: &'static str,
    /// The untied head.
    pub head: &'static str,
    /// The linear maps of a layer, in order.
    pub projections: &'static [(Projection, &'static str)],
    /// The norms of a layer.
    pub norms: &'static [(LayerNorm, &'static str)],
    /// The layout of its matrices in files.
    pub matrices: Matrices,
}

/// The layout of the layers' matrices in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// The layout in which they are used.
    AsUsed,
    /// Transposed: (inputs, outputs).
    Transposed,
    /// The layout in which they are used, except [`Projection::QueryKeyValue`], which is [`Stored::ByHead`].
    QkvByHead,
}

impl Names {
    /// The name of the embedding's tensor.
    pub fn embedding(&self) -> String {
        format!("{}{}.weight", self.decoder, self.embedding)
    }

    /// The name of the tensor of learned positions.
    pub fn positions(&self) -> String {
        format!("{}{}.weight", self.decoder, self.positions)
    }

    /// The name of the final norm's module.
    pub fn final_norm(&self) -> String {
        format!("{}{}", self.decoder, self.final_norm)
    }

    /// The name of the untied head's tensor.
    pub fn head(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// The name of a projection's module in a layer, without `.weight`.
    pub fn module(&self, projection: Projection, layer: usize) -> String {
        let found = self.projections.iter().find(|(known, _)| *known == projection);
        let (_, name) = found.expect("a projection of this family");
        format!("{}{}.{layer}.{name}", self.decoder, self.layers)
    }

    /// The name of a norm's module in a layer, without `.weight`.
    pub fn norm(&self, norm: LayerNorm, layer: usize) -> String {
        let (_, name) = self.norms.iter().find(|(known, _)| *known == norm).expect("a norm of this family");
        format!("{}{}.{layer}.{name}", self.decoder, self.layers)
    }

    /// The last components of the projections' module names, without duplicates.
    pub fn targets(&self) -> Vec<&'static str> {
        let mut out: Vec<&str> = Vec::new();
        for (_, name) in self.projections {
            let last = name.rsplit('.').next().expect("a name");
            if !out.contains(&last) {
                out.push(last);
            }
        }
        out
    }

    /// Whether a projection reads the same rows as the preceding one of the layer.
    pub(super) fn is_stacked(&self, projection: Projection) -> bool {
        use Projection::*;
        let at = self.projections.iter().position(|(known, _)| *known == projection);
        let before = at.and_then(|at| at.checked_sub(1)).map(|at| self.projections[at].0);
        matches!((before, projection), (Some(Query), Key) | (Some(Key), Value) | (Some(Gate), Up))
    }

    /// The layout of a projection's matrix in files.
    pub(super) fn stored(&self, projection: Projection, heads: usize) -> Stored {
        match (self.matrices, projection) {
            (Matrices::Transposed, _) => Stored::Transposed,
            (Matrices::QkvByHead, Projection::QueryKeyValue) => Stored::ByHead { heads },
            (Matrices::QkvByHead | Matrices::AsUsed, _) => Stored::AsUsed,
        }
    }
}

const SELF_ATTENTION: [(Projection, &str); 4] = [
    (Projection::Query, "self_attn.q_proj"),
    (Projection::Key, "self_attn.k_proj"),
    (Projection::Value, "self_attn.v_proj"),
    (Projection::Output, "self_attn.o_proj"),
];
const MLP: [(Projection, &str); 3] = [
    (Projection::Gate, "mlp.gate_proj"),
    (Projection::Up, "mlp.up_proj"),
    (Projection::Down, "mlp.down_proj"),
];

/// The names of Llama, which most families share.
pub const LLAMA: Names = Names {
    decoder: "model.",
    embedding: "embed_tokens",
    positions: "",
    layers: "layers",
    final_norm: "norm",
    head: "lm_head",
    projections: &[
        SELF_ATTENTION[0],
        SELF_ATTENTION[1],
        SELF_ATTENTION[2],
        SELF_ATTENTION[3],
        MLP[0],
        MLP[1],
        MLP[2],
    ],
    norms: &[
        (LayerNorm::Attention, "input_layernorm"),
        (LayerNorm::FeedForward, "post_attention_layernorm"),
        (LayerNorm::Query, "self_attn.q_norm"),
        (LayerNorm::Key, "self_attn.k_norm"),
    ],
    matrices: Matrices::AsUsed,
};

/// The names of OLMo 2, which normalises after attention and after the feed-forward block.
pub const OLMO2: Names = Names {
    norms: &[
        (LayerNorm::AttentionOutput, "post_attention_layernorm"),
        (LayerNorm::FeedForwardOutput, "post_feedforward_layernorm"),
        (LayerNorm::Query, "self_attn.q_norm"),
        (LayerNorm::Key, "self_attn.k_norm"),
    ],
    ..LLAMA
};

/// The names of Gemma 2 and 3, which normalise before and after each block.
pub const GEMMA: Names = Names {
    norms: &[
        (LayerNorm::Attention, "input_layernorm"),
        (LayerNorm::AttentionOutput, "post_attention_layernorm"),
        (LayerNorm::FeedForward, "pre_feedforward_layernorm"),
        (LayerNorm::FeedForwardOutput, "post_feedforward_layernorm"),
        (LayerNorm::Query, "self_attn.q_norm"),
        (LayerNorm::Key, "self_attn.k_norm"),
    ],
    ..LLAMA
};

/// The names of Phi-3, which has one matrix for the projections of the same rows.
pub const PHI3: Names = Names {
    projections: &[
        (Projection::QueryKeyValue, "self_attn.qkv_proj"),
        (Projection::Output, "self_attn.o_proj"),
        (Projection::GateUp, "mlp.gate_up_proj"),
        (Projection::Down, "mlp.down_proj"),
    ],
    ..LLAMA
};

/// The names of GPT-2.
pub const GPT2: Names = Names {
    decoder: "transformer.",
    embedding: "wte",
    positions: "wpe",
    layers: "h",
    final_norm: "ln_f",
    head: "lm_head",
    projections: &[
        (Projection::QueryKeyValue, "attn.c_attn"),
        (Projection::Output, "attn.c_proj"),
        (Projection::Up, "mlp.c_fc"),
        (Projection::Down, "mlp.c_proj"),
    ],
    norms: &[(LayerNorm::Attention, "ln_1"), (LayerNorm::FeedForward, "ln_2")],
    matrices: Matrices::Transposed,
};

/// The names of GPT-NeoX and Pythia.
pub const GPT_NEOX: Names = Names {
    decoder: "gpt_neox.",
    embedding: "embed_in",
    positions: "",
    layers: "layers",
    final_norm: "final_layer_norm",
    head: "embed_out",
    projections: &[
        (Projection::QueryKeyValue, "attention.query_key_value"),
        (Projection::Output, "attention.dense"),
        (Projection::Up, "mlp.dense_h_to_4h"),
        (Projection::Down, "mlp.dense_4h_to_h"),
    ],
    norms: &[(LayerNorm::Attention, "input_layernorm"), (LayerNorm::FeedForward, "post_attention_layernorm")],
    matrices: Matrices::QkvByHead,
};
