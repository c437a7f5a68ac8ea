//! What a decoder is made of, as data: a family is a description that `decoder.rs` follows.

use super::config::ModelConfig;
use super::rope::Rope;

/// How rows are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// y = x / sqrt(mean(x²) + epsilon) · w.
    Rms {
        /// Keeps the root away from zero.
        epsilon: f32,
    },
}

/// The feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// down(silu(gate(x)) · up(x)).
    SwiGlu,
}

/// The linear maps of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Projection {
    /// Queries, (H·D, C).
    Query,
    /// Keys, (K·D, C).
    Key,
    /// Values, (K·D, C).
    Value,
    /// Attention's output, (C, H·D).
    Output,
    /// The gate of the feed-forward block, (F, C).
    Gate,
    /// Its other input, (F, C).
    Up,
    /// Its output, (C, F).
    Down,
}

/// The norms of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerNorm {
    /// Before attention.
    Attention,
    /// Before the feed-forward block.
    FeedForward,
}

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// C.
    pub hidden: usize,
    /// F.
    pub feed_forward_size: usize,
    /// L.
    pub layers: usize,
    /// H.
    pub heads: usize,
    /// K.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// V.
    pub vocab: usize,
    /// Longest sequence.
    pub context: usize,
    /// How rows are normalised.
    pub norm: Norm,
    /// Rotary positions.
    pub rope: Rope,
    /// The feed-forward block.
    pub feed_forward: FeedForward,
    /// Whether the output head is the embedding.
    pub tied: bool,
}

/// The embedding's tensor name.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The last norm's tensor name.
pub const FINAL_NORM: &str = "model.norm.weight";
/// The untied head's tensor name.
pub const HEAD: &str = "lm_head.weight";

impl Projection {
    /// All of them, in a layer's order.
    pub const ALL: [Projection; 7] = {
        use Projection::*;
        [Query, Key, Value, Output, Gate, Up, Down]
    };

    /// What attention reads.
    pub const QKV: [Projection; 3] = [Projection::Query, Projection::Key, Projection::Value];
    /// What a gated feed-forward block begins with.
    pub const GATED: [Projection; 2] = [Projection::Gate, Projection::Up];

    /// The module's last name, which `--lora-target-modules` takes.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Query => "q_proj",
            Projection::Key => "k_proj",
            Projection::Value => "v_proj",
            Projection::Output => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// The module's whole name in layer `layer`, without `.weight`.
    pub fn module(self, layer: usize) -> String {
        let block = match self {
            Projection::Query | Projection::Key | Projection::Value | Projection::Output => "self_attn",
            Projection::Gate | Projection::Up | Projection::Down => "mlp",
        };
        format!("model.layers.{layer}.{block}.{}", self.name())
    }
}

impl Projection {
    /// The weight's tensor name in layer `layer`.
    pub fn weight(self, layer: usize) -> String {
        format!("{}.weight", self.module(layer))
    }
}

impl LayerNorm {
    /// The weight's tensor name in layer `layer`.
    pub fn tensor(self, layer: usize) -> String {
        let name = match self {
            LayerNorm::Attention => "input_layernorm",
            LayerNorm::FeedForward => "post_attention_layernorm",
        };
        format!("model.layers.{layer}.{name}.weight")
    }
}

/// One weight of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its tensor name in the model's files.
    pub name: String,
    /// Its shape: a matrix (rows, cols), or a vector (len).
    pub shape: Vec<usize>,
    /// Rows that are never torn apart where the matrix has to be split: a head's.
    pub(crate) unit: usize,
    /// Whether it is stacked below the weight before it: both read the same rows, and one product serves both.
    pub(crate) stacked: bool,
}

impl WeightSpec {
    /// A weight by itself.
    pub fn new(name: impl Into<String>, shape: Vec<usize>) -> WeightSpec {
        WeightSpec { name: name.into(), shape, unit: 1, stacked: false }
    }
}

impl Architecture {
    /// The Llama family.
    pub fn llama(config: &ModelConfig) -> Architecture {
        Architecture {
            hidden: config.hidden_size,
            feed_forward_size: config.intermediate_size,
            layers: config.num_layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            context: config.max_position_embeddings,
            norm: Norm::Rms { epsilon: config.rms_norm_eps as f32 },
            rope: config.rope.clone(),
            feed_forward: FeedForward::SwiGlu,
            tied: config.tie_word_embeddings,
        }
    }

    /// (outputs, inputs) of a projection.
    pub fn projection_shape(&self, projection: Projection) -> (usize, usize) {
        let (c, f) = (self.hidden, self.feed_forward_size);
        match projection {
            Projection::Query => (self.heads * self.head_dim, c),
            Projection::Key | Projection::Value => (self.kv_heads * self.head_dim, c),
            Projection::Output => (c, self.heads * self.head_dim),
            Projection::Gate | Projection::Up => (f, c),
            Projection::Down => (c, f),
        }
    }

    /// Every weight, in the order in which they are used.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let matrix = |name: String, rows, cols| WeightSpec::new(name, vec![rows, cols]);
        let vector = |name: String| WeightSpec::new(name, vec![self.hidden]);
        let mut out = vec![matrix(EMBEDDING.into(), self.vocab, self.hidden)];
        for layer in 0..self.layers {
            out.push(vector(LayerNorm::Attention.tensor(layer)));
            out.push(vector(LayerNorm::FeedForward.tensor(layer)));
            for projection in Projection::ALL {
                let (rows, cols) = self.projection_shape(projection);
                let unit = if Projection::QKV.contains(&projection) { self.head_dim } else { 1 };
                let stacked = [Projection::Key, Projection::Value, Projection::Up].contains(&projection);
                let spec = matrix(projection.weight(layer), rows, cols);
                out.push(WeightSpec { unit, stacked, ..spec });
            }
        }
        out.push(vector(FINAL_NORM.into()));
        if !self.tied {
            out.push(matrix(HEAD.into(), self.vocab, self.hidden));
        }
        out
    }
}
