//! What a decoder is made of, as data: a family is a description that `decoder.rs` follows, see `families.rs`.

use super::names::{LayerNorm, Names, Projection};
use super::rope::Rope;
use crate::ops::{Activation, LogitTransform, NormKind};

/// The tensor of a reward model's head, whatever its family.
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
    /// What its files call its tensors.
    pub names: &'static Names,
    /// How rows are normalised.
    pub norm: Norm,
    /// Where a layer normalises, and what it adds up.
    pub block: Block,
    /// Attention.
    pub attention: Attention,
    /// The feed-forward block.
    pub feed_forward: FeedForward,
    /// What the embedding is multiplied with.
    pub embedding_scale: f32,
    /// Whether each position has a learned embedding, which is added to the token's.
    pub learned_positions: bool,
    /// What attention and the feed-forward block are multiplied with before they are added to the residual stream.
    pub residual_scale: f32,
    /// What becomes of the head's products.
    pub logits: LogitTransform,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Whether the head is one row, whose product says how good a text is: a reward model, which predicts no token.
    pub rates: bool,
}

/// How rows are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// By which mean, and what the weight stands for.
    pub kind: NormKind,
    /// Keeps the root away from zero.
    pub epsilon: f32,
    /// Whether there is a bias.
    pub bias: bool,
}

/// Where a layer normalises, and what it adds up. A is attention, F the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// y = x + A(norm(x)), y + F(norm(y)).
    PreNorm,
    /// y = x + norm(A(x)), y + norm(F(y)).
    PostNorm,
    /// y = x + norm(A(norm(x))), y + norm(F(norm(y))).
    BothNorms,
    /// x + A(norm(x)) + F(norm(x)), each with a norm of its own.
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
    /// Whether the output has.
    pub output_bias: bool,
    /// How queries and keys are normalised, where they are.
    pub qk_norm: Option<QkNorm>,
    /// What scores are multiplied with.
    pub scale: f32,
    /// Scores s become cap · tanh(s / cap).
    pub soft_cap: Option<f32>,
    /// The rotary positions that layers choose from.
    pub ropes: Vec<Rope>,
    /// What differs from layer to layer, for each.
    pub layers: Vec<LayerAttention>,
}

/// Over what queries and keys are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, all with the weight of one.
    EachHead,
    /// All heads together.
    AllHeads,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerAttention {
    /// Which of [`Attention::ropes`] it has; none for a layer without rotary positions.
    pub rope: Option<usize>,
    /// A query sees no more than so many keys, the last ones.
    pub window: Option<usize>,
}

/// The feed-forward block: down(activation(up(x))), or gated down(activation(gate(x)) · up(x)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// The activation.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
    /// Whether its layers have a bias.
    pub bias: bool,
}

/// One weight of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Its tensor name in the model's files.
    pub name: String,
    /// Its shape: a matrix (rows, cols), or a vector (len).
    pub shape: Vec<usize>,
    /// How it lies in the model's files.
    pub(crate) stored: Stored,
    /// Rows that are never torn apart where the matrix has to be split: a head's.
    pub(crate) unit: usize,
    /// Whether it belongs to a layer, as neither embeddings nor the head do.
    pub(crate) of_layer: bool,
    /// Whether it is stacked below the weight before it: both read the same rows, and one product serves both; or it is a
    /// vector whose elements follow those of the one before.
    pub(crate) stacked: bool,
}

/// How a weight lies in the model's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// As it is used.
    #[default]
    AsUsed,
    /// A matrix the other way round, (cols, rows).
    Transposed,
    /// Queries, keys and values of each head together: rows (heads, 3, D), where they are used as (3, heads, D).
    ByHead {
        /// How many heads.
        heads: usize,
    },
}

impl Stored {
    /// How that lies in files which has an element, or a row of another length, for each row of a matrix that lies so.
    pub(super) fn of_rows(self) -> Stored {
        match self {
            Stored::AsUsed | Stored::Transposed => Stored::AsUsed,
            Stored::ByHead { heads } => Stored::ByHead { heads },
        }
    }
}

impl WeightSpec {
    /// A weight by itself.
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

    /// Its elements as they are used, from those in a file.
    pub(super) fn to_used(&self, values: Vec<f32>) -> Vec<f32> {
        match self.stored {
            Stored::AsUsed => values,
            Stored::Transposed => transposed(&values, self.shape[1], self.shape[0]),
            Stored::ByHead { heads } => exchanged(&values, heads, 3),
        }
    }

    /// Its elements as they lie in a file.
    pub(super) fn to_stored(&self, values: Vec<f32>) -> Vec<f32> {
        match self.stored {
            Stored::AsUsed => values,
            Stored::Transposed => transposed(&values, self.shape[0], self.shape[1]),
            Stored::ByHead { heads } => exchanged(&values, 3, heads),
        }
    }
}

/// A matrix (rows, cols) the other way round.
pub(super) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// (outer, inner, …) as (inner, outer, …).
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

    /// Whether there are norms of queries and keys, and of which widths.
    pub(super) fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        let widths = |norm| match norm {
            QkNorm::EachHead => [self.head_dim; 2],
            QkNorm::AllHeads => [self.heads * self.head_dim, self.kv_heads * self.head_dim],
        };
        self.attention.qk_norm.map(widths)
    }

    /// The same with another number of layers, which repeat those that are there.
    pub fn with_layers(&self, layers: usize) -> Architecture {
        let mut with = self.clone();
        with.layers = layers;
        with.attention.layers = self.attention.layers.iter().copied().cycle().take(layers).collect();
        with
    }

    /// What the elements of a new model's vector are: a norm changes nothing.
    pub(super) fn initial(&self, vector: &WeightSpec) -> f32 {
        let stands_for_one_more = self.norm.kind == NormKind::RmsUnitOffset;
        if vector.name.ends_with(".bias") || stands_for_one_more { 0.0 } else { 1.0 }
    }

    /// How many weights there are in matrices, without listing them.
    pub(super) fn elements(&self) -> u128 {
        let elements = |projection| {
            let (rows, cols) = self.projection_shape(projection);
            rows as u128 * cols as u128
        };
        let layer: u128 = self.projections().map(elements).sum();
        2 * self.vocab as u128 * self.hidden as u128 + self.layers as u128 * layer
    }

    /// Every weight, in the order in which they are used.
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
