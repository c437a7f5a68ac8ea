//! The architecture of a decoder as data: each family (`families.rs`) is a description that `decoder.rs` executes.

use super::names::{LayerNorm, Names, Projection};
use super::rope::Rope;
use crate::ops::{Activation, LogitTransform, NormKind};

/// The name of a reward model's head tensor in every family.
pub(crate) const RATING_HEAD: &str = "score.weight";

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
    /// The names of its tensors.
    pub names: &'static Names,
    /// The normalisation of rows.
    pub norm: Norm,
    /// Where the norms and residual connections of a layer are.
    pub block: Block,
    /// Attention.
    pub attention: Attention,
    /// The feed-forward block.
    pub feed_forward: FeedForward,
    /// The factor of the embedding.
    pub embedding_scale: f32,
    /// Whether each position has a learned embedding, which is added to the token's.
    pub learned_positions: bool,
    /// The factor of the output of attention and of the feed-forward block before it is added to the residual stream.
    pub residual_scale: f32,
    /// The transform from the head's output to logits.
    pub logits: LogitTransform,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Whether this is a reward model: its head has a single row, whose product is the score, and predicts no tokens.
    pub rates: bool,
}

/// The normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// The mean that is used, and the meaning of the weight.
    pub kind: NormKind,
    /// The epsilon under the root.
    pub epsilon: f32,
    /// Whether there is a bias.
    pub bias: bool,
}

/// Where the norms and residual connections of a layer are. A is attention, F the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// y = x + A(norm(x)), y + F(norm(y)).
    PreNorm,
    /// y = x + norm(A(x)), y + norm(F(y)).
    PostNorm,
    /// y = x + norm(A(norm(x))), y + norm(F(norm(y))).
    BothNorms,
    /// x + A(norm(x)) + F(norm(x)), with a separate norm for each.
    Parallel,
}

impl Block {
    /// The norms of a layer.
    pub fn norms(self) -> &'static [LayerNorm] {
        use LayerNorm::*;
        match self {
            Block::PreNorm | Block::Parallel => &[Attention, FeedForward],
            Block::PostNorm => &[AttentionOutput, FeedForwardOutput],
            Block::BothNorms => &[Attention, AttentionOutput, FeedForward, FeedForwardOutput],
        }
    }
}

/// Attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub output_bias: bool,
    /// The normalisation of queries and keys, if any.
    pub qk_norm: Option<QkNorm>,
    /// The factor of the attention scores.
    pub scale: f32,
    /// Scores s become cap · tanh(s / cap).
    pub soft_cap: Option<f32>,
    /// The RoPE variants that layers refer to.
    pub ropes: Vec<Rope>,
    /// The settings of each layer.
    pub layers: Vec<LayerAttention>,
}

/// The scope of the normalisation of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself; all heads share one weight vector.
    EachHead,
    /// All heads together.
    AllHeads,
}

/// The attention settings that differ between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerAttention {
    /// The index into [`Attention::ropes`]; `None` for a layer without RoPE.
    pub rope: Option<usize>,
    /// The sliding window: a query attends to at most this many keys, the most recent ones.
    pub window: Option<usize>,
}

/// The feed-forward block: down(activation(up(x))), or gated down(activation(gate(x)) · up(x)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// The activation.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether its projections have a bias.
    pub bias: bool,
}

/// One weight of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its tensor name in the model's files.
    pub name: String,
    /// Its shape: a matrix (rows, cols), or a vector (len).
    pub shape: Vec<usize>,
    /// How the model's files store it.
    pub(crate) stored: Stored,
    /// The number of rows that a split keeps together: those of a head.
    pub(crate) unit: usize,
    /// Whether it belongs to a layer, unlike embeddings and the head.
    pub(crate) of_layer: bool,
    /// Whether it is stacked below the weight before it. Stacked matrices read the same rows and are computed by one
    /// product; stacked vectors are contiguous.
    pub(crate) stacked: bool,
}

/// How the model's files store a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// In the layout in which it is used.
    #[default]
    AsUsed,
    /// A transposed matrix, (cols, rows).
    Transposed,
    /// Queries, keys and values grouped by head: rows (heads, 3, D), where the layout in use is (3, heads, D).
    ByHead {
        /// The number of heads.
        heads: usize,
    },
}

impl Stored {
    /// The storage of a tensor that has one element or row per row of a matrix stored this way, such as its bias or its
    /// LoRA B.
    pub(super) fn of_rows(self) -> Stored {
        match self {
            Stored::AsUsed | Stored::Transposed => Stored::AsUsed,
            Stored::ByHead { heads } => Stored::ByHead { heads },
        }
    }
}

impl WeightSpec {
    /// Creates a weight that is stacked on no other.
    pub fn new(name: impl Into<String>, shape: Vec<usize>) -> WeightSpec {
        WeightSpec {
            name: name.into(),
            shape,
            stored: Stored::AsUsed,
            unit: 1,
            of_layer: false,
            stacked: false,
        }
    }

    /// Its shape in the model's files.
    pub(super) fn stored_shape(&self) -> Vec<usize> {
        match self.stored {
            Stored::Transposed => self.shape.iter().rev().copied().collect(),
            Stored::AsUsed | Stored::ByHead { .. } => self.shape.clone(),
        }
    }

    /// Converts its elements from the layout of the files to the layout in use.
    pub(super) fn to_used(&self, values: Vec<f32>) -> Vec<f32> {
        match self.stored {
            Stored::AsUsed => values,
            Stored::Transposed => transposed(&values, self.shape[1], self.shape[0]),
            Stored::ByHead { heads } => exchanged(&values, heads, 3),
        }
    }

    /// Converts its elements from the layout in use to the layout of the files.
    pub(super) fn to_stored(&self, values: Vec<f32>) -> Vec<f32> {
        match self.stored {
            Stored::AsUsed => values,
            Stored::Transposed => transposed(&values, self.shape[0], self.shape[1]),
            Stored::ByHead { heads } => exchanged(&values, 3, heads),
        }
    }
}

/// Transposes a matrix (rows, cols).
pub(super) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// Reorders (outer, inner, …) to (inner, outer, …).
fn exchanged(values: &[f32], outer: usize, inner: usize) -> Vec<f32> {
    let block = values.len() / (outer * inner);
    let at = |i: usize, o: usize| &values[(o * inner + i) * block..][..block];
    (0..inner).flat_map(|i| (0..outer).flat_map(move |o| at(i, o))).copied().collect()
}

impl Architecture {
    /// (outputs, inputs) of a projection.
    pub fn projection_shape(&self, projection: Projection) -> (usize, usize) {
        let (c, f) = (self.hidden, self.feed_forward_size);
        let [queries, keys] = [self.heads, self.kv_heads].map(|heads| heads * self.head_dim);
        match projection {
            Projection::Query => (queries, c),
            Projection::Key | Projection::Value => (keys, c),
            Projection::QueryKeyValue => (queries + 2 * keys, c),
            Projection::Output => (c, queries),
            Projection::Gate | Projection::Up => (f, c),
            Projection::GateUp => (2 * f, c),
            Projection::Down => (c, f),
        }
    }

    /// The linear maps of a layer, in order.
    pub fn projections(&self) -> impl Iterator<Item = Projection> + use<> {
        self.names.projections.iter().map(|(projection, _)| *projection)
    }

    pub(super) fn has_bias(&self, projection: Projection) -> bool {
        use Projection::*;
        match projection {
            Query | Key | Value | QueryKeyValue => self.attention.qkv_bias,
            Output => self.attention.output_bias,
            Gate | Up | GateUp | Down => self.feed_forward.bias,
        }
    }

    /// The widths of the norms of queries and keys, if there are any.
    pub(super) fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        let widths = |norm| match norm {
            QkNorm::EachHead => [self.head_dim; 2],
            QkNorm::AllHeads => [self.heads * self.head_dim, self.kv_heads * self.head_dim],
        };
        self.attention.qk_norm.map(widths)
    }

    /// Returns the same architecture with another number of layers; the settings of its layers are repeated in order.
    pub fn with_layers(&self, layers: usize) -> Architecture {
        let mut with = self.clone();
        with.layers = layers;
        with.attention.layers = self.attention.layers.iter().copied().cycle().take(layers).collect();
        with
    }

    /// The initial value of the elements of a vector, with which a norm only normalises.
    pub(super) fn initial(&self, vector: &WeightSpec) -> f32 {
        let stands_for_one_more = self.norm.kind == NormKind::RmsUnitOffset;
        if vector.name.ends_with(".bias") || stands_for_one_more { 0.0 } else { 1.0 }
    }

    /// The number of elements of all matrices (an upper bound, as the head counts even if it is tied), computed without
    /// listing them.
    pub(super) fn elements(&self) -> u128 {
        let elements = |projection| {
            let (rows, cols) = self.projection_shape(projection);
            rows as u128 * cols as u128
        };
        let layer: u128 = self.projections().map(elements).sum();
        2 * self.vocab as u128 * self.hidden as u128 + self.layers as u128 * layer
    }

    /// Returns every weight, in order of use.
    pub fn weights(&self) -> Vec<WeightSpec> {
        let names = self.names;
        let matrix = |name: String, rows, cols| WeightSpec::new(name, vec![rows, cols]);
        let norm = |out: &mut Vec<WeightSpec>, module: &str, width: usize| {
            out.push(WeightSpec::new(format!("{module}.weight"), vec![width]));
            if self.norm.bias {
                out.push(WeightSpec::new(format!("{module}.bias"), vec![width]));
            }
        };
        let mut out = vec![matrix(names.embedding(), self.vocab, self.hidden)];
        if self.learned_positions {
            out.push(matrix(names.positions(), self.context, self.hidden));
        }
        for layer in 0..self.layers {
            for of_layer in self.block.norms() {
                norm(&mut out, &names.norm(*of_layer, layer), self.hidden);
            }
            if let Some(widths) = self.qk_norm_widths() {
                for (of_layer, width) in [LayerNorm::Query, LayerNorm::Key].into_iter().zip(widths) {
                    norm(&mut out, &names.norm(of_layer, layer), width);
                }
            }
            let projections =
                || self.projections().map(|projection| (projection, names.module(projection, layer)));
            for (projection, module) in projections() {
                let (rows, cols) = self.projection_shape(projection);
                let spec = matrix(format!("{module}.weight"), rows, cols);
                let unit = if projection.is_of_heads() { self.head_dim } else { 1 };
                let stored = names.stored(projection, self.heads);
                let stacked = names.is_stacked(projection);
                out.push(WeightSpec { unit, stored, of_layer: true, stacked, ..spec });
            }
            for (projection, module) in projections().filter(|(projection, _)| self.has_bias(*projection)) {
                let (rows, _) = self.projection_shape(projection);
                let stored = names.stored(projection, self.heads).of_rows();
                let spec = WeightSpec::new(format!("{module}.bias"), vec![rows]);
                out.push(WeightSpec { stored, stacked: names.is_stacked(projection), ..spec });
            }
        }
        norm(&mut out, &names.final_norm(), self.hidden);
        if self.rates {
            out.push(matrix(RATING_HEAD.to_owned(), 1, self.hidden));
        } else if !self.tied {
            out.push(matrix(names.head(), self.vocab, self.hidden));
        }
        out
    }
}
