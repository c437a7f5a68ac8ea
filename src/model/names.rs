//! What the files of a family call its tensors.

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
    /// All three in one, ((H + 2 K)·D, C).
    QueryKeyValue,
    /// Attention's output, (C, H·D).
    Output,
    /// The gate of the feed-forward block, (F, C).
    Gate,
    /// Its other input, or without a gate its only one, (F, C).
    Up,
    /// Both in one, (2 F, C).
    GateUp,
    /// Its output, (C, F).
    Down,
}

impl Projection {
    /// Whether its rows are those of heads.
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
    /// After it.
    AttentionOutput,
    /// Before the feed-forward block.
    FeedForward,
    /// After it.
    FeedForwardOutput,
    /// Of queries.
    Query,
    /// Of keys.
    Key,
}

/// What the files of a family call its tensors; all names but the head's are behind `decoder`.
#[derive(Debug, PartialEq)]
pub struct Names {
    /// What the names of the decoder's tensors begin with, a dot included.
    pub decoder: &'static str,
    /// The embedding.
    pub embedding: &'static str,
    /// The embedding of positions, where it is learned.
    pub positions: &'static str,
    /// What precedes a layer's number.
    pub layers: &'static str,
    /// The last norm.
    pub final_norm: &'static str,
    /// The untied head.
    pub head: &'static str,
    /// The linear maps of a layer, in order.
    pub projections: &'static [(Projection, &'static str)],
    /// Its norms.
    pub norms: &'static [(LayerNorm, &'static str)],
    /// How its matrices lie in files.
    pub matrices: Matrices,
}

/// How the matrices of layers lie in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// As they are used.
    AsUsed,
    /// Transposed: (inputs, outputs).
    Transposed,
    /// As they are used but for [`Projection::QueryKeyValue`], which is [`Stored::ByHead`].
    QkvByHead,
}

impl Names {
    /// The embedding's tensor.
    pub fn embedding(&self) -> String {
        format!("{}{}.weight", self.decoder, self.embedding)
    }

    /// The tensor of learned positions.
    pub fn positions(&self) -> String {
        format!("{}{}.weight", self.decoder, self.positions)
    }

    /// The last norm's module.
    pub fn final_norm(&self) -> String {
        format!("{}{}", self.decoder, self.final_norm)
    }

    /// The untied head's tensor.
    pub fn head(&self) -> String {
        format!("{}.weight", self.head)
    }

    /// A projection's module in a layer, without `.weight`.
    pub fn module(&self, projection: Projection, layer: usize) -> String {
        let found = self.projections.iter().find(|(known, _)| *known == projection);
        let (_, name) = found.expect("a projection of this family");
        format!("{}{}.{layer}.{name}", self.decoder, self.layers)
    }

    /// A norm's module in a layer, without `.weight`.
    pub fn norm(&self, norm: LayerNorm, layer: usize) -> String {
        let (_, name) = self.norms.iter().find(|(known, _)| *known == norm).expect("a norm of this family");
        format!("{}{}.{layer}.{name}", self.decoder, self.layers)
    }

    /// The last names of the projections' modules, each once.
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

    /// Whether a projection reads the same rows as the one before it in a layer.
    pub(super) fn is_stacked(&self, projection: Projection) -> bool {
        use Projection::*;
        let at = self.projections.iter().position(|(known, _)| *known == projection);
        let before = at.and_then(|at| at.checked_sub(1)).map(|at| self.projections[at].0);
        matches!((before, projection), (Some(Query), Key) | (Some(Key), Value) | (Some(Gate), Up))
    }

    /// How a projection's matrix lies in files.
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

/// Llama's names, which most families have.
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

/// OLMo 2's, which normalises after attention and the feed-forward block.
pub const OLMO2: Names = Names {
    norms: &[
        (LayerNorm::AttentionOutput, "post_attention_layernorm"),
        (LayerNorm::FeedForwardOutput, "post_feedforward_layernorm"),
        (LayerNorm::Query, "self_attn.q_norm"),
        (LayerNorm::Key, "self_attn.k_norm"),
    ],
    ..LLAMA
};

/// Gemma 2's and 3's, which normalise before and after.
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

/// Phi-3's, whose projections of the same rows are one.
pub const PHI3: Names = Names {
    projections: &[
        (Projection::QueryKeyValue, "self_attn.qkv_proj"),
        (Projection::Output, "self_attn.o_proj"),
        (Projection::GateUp, "mlp.gate_up_proj"),
        (Projection::Down, "mlp.down_proj"),
    ],
    ..LLAMA
};

/// GPT-2's.
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

/// GPT-NeoX's, Pythia's.
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
