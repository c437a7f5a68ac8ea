//! Validation of architectures, LoRA layouts and weights. Other code relies on it.

use super::architecture::{Architecture, WeightSpec};
use super::lora::{LoraLayout, MAX_RANK};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// The largest dimension: the GPU indexes tensors in 32 bits.
const LARGEST: usize = i32::MAX as usize;
/// The largest number of elements of one weight.
const MOST_ELEMENTS: usize = if usize::BITS > 40 { 1 << 40 } else { usize::MAX };
/// The largest number of layers: the list of weights takes host memory, too.
const MOST_LAYERS: usize = 1 << 16;

impl Architecture {
    /// Returns an error for impossible sizes.
    pub(crate) fn check(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden, LARGEST),
            ("intermediate_size", self.feed_forward_size, LARGEST),
            ("num_hidden_layers", self.layers, MOST_LAYERS),
            ("num_attention_heads", self.heads, LARGEST),
            ("num_key_value_heads", self.kv_heads, LARGEST),
            ("head_dim", self.head_dim, LARGEST),
            ("vocab_size", self.vocab, LARGEST),
            ("max_position_embeddings", self.context, LARGEST),
        ];
        if let Some((what, size, most)) = sizes.into_iter().find(|(_, size, most)| *size == 0 || size > most)
        {
            return Err(Error::config(what, format!("is {size}, expected 1 to {most}")));
        }
        if !self.head_dim.is_multiple_of(8) {
            return Err(Error::config("head_dim", format!("is {}, expected a multiple of 8", self.head_dim)));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let why = format!("is {}, expected a divisor of the {} heads", self.kv_heads, self.heads);
            return Err(Error::config("num_key_value_heads", why));
        }
        // The hidden size and the total width of the heads.
        let widths = [self.hidden, self.heads * self.head_dim];
        if widths[1] > LARGEST {
            return Err(Error::config(
                "head_dim",
                format!("results in heads of {} elements in total", widths[1]),
            ));
        }
        let largest = [self.vocab, self.feed_forward_size, widths[1]].into_iter().max().unwrap_or(0);
        if largest.checked_mul(self.hidden).is_none_or(|elements| elements > MOST_ELEMENTS) {
            let why = format!(
                "results in a matrix of {largest} by {}, which is too large for any GPU",
                self.hidden
            );
            return Err(Error::config("hidden_size", why));
        }
        if self.attention.layers.len() != self.layers {
            let why = format!(
                "is {}, but attention is described for {} layers",
                self.layers,
                self.attention.layers.len()
            );
            return Err(Error::config("num_hidden_layers", why));
        }
        let ropes = self.attention.ropes.len();
        if self.attention.layers.iter().any(|layer| layer.rope.is_some_and(|rope| rope >= ropes)) {
            return Err(Error::config("rope_parameters", "have fewer entries than layers refer to"));
        }
        if self.attention.layers.iter().any(|layer| layer.window == Some(0)) {
            return Err(Error::config("sliding_window", "is 0, expected at least 1"));
        }
        let good = |number: f32| number.is_finite() && number > 0.0;
        let caps = [self.attention.soft_cap, self.logits.soft_cap];
        let numbers = [
            ("norm epsilon", self.norm.epsilon.is_finite() && self.norm.epsilon >= 0.0),
            ("rope_parameters", self.attention.ropes.iter().all(|rope| rope.is_good(self.head_dim))),
            ("attention scale", good(self.attention.scale)),
            ("embedding scale", good(self.embedding_scale)),
            ("residual scale", good(self.residual_scale)),
            ("logit scale", good(self.logits.scale)),
            ("soft cap", caps.into_iter().flatten().all(good)),
        ];
        match numbers.into_iter().find(|(_, good)| !good) {
            Some((what, _)) => Err(Error::config(what, "is out of range")),
            None => Ok(()),
        }
    }
}

impl LoraLayout {
    /// Returns an error if this is not a valid LoRA layout for the model.
    pub(crate) fn check(&self, model: &Architecture) -> Result<()> {
        let layers = model.layers;
        if !self.is_of(model) {
            return Err(Error::config("LoRA layout", "is for a model of another family"));
        }
        if self.terms().is_empty() {
            return Err(Error::config("targets", "select no projection: select at least one"));
        }
        for term in self.terms() {
            if term.rank == 0 || term.rank > MAX_RANK {
                return Err(Error::config(
                    "LoRA rank",
                    format!("is {}, expected 1 to {MAX_RANK}", term.rank),
                ));
            }
            if !term.alpha.is_finite() {
                let why = format!("is {}, expected a number in the range of f32", term.alpha);
                return Err(Error::config("LoRA alpha", why));
            }
            if !model.projections().any(|projection| projection == term.projection) {
                let why = format!("has a term of {:?}, which this model does not have", term.projection);
                return Err(Error::config("LoRA layout", why));
            }
            if term.layer >= layers {
                let why = format!("has a term in layer {}, but the model has {layers} layers", term.layer);
                return Err(Error::config("LoRA layout", why));
            }
        }
        Ok(())
    }
}

impl WeightSpec {
    /// Returns an error unless this is a matrix or a vector of a size that a GPU can hold.
    pub(super) fn check(&self) -> Result<()> {
        let elements = self.shape.iter().try_fold(1, |all: usize, n| all.checked_mul(*n));
        let good =
            matches!(self.shape.len(), 1 | 2) && elements.is_some_and(|n| (1..=MOST_ELEMENTS).contains(&n));
        match good {
            true => Ok(()),
            false => Err(Error::config(&self.name, format!("has the invalid shape {:?}", self.shape))),
        }
    }
}

impl Weights {
    /// Returns an error for weights that are frozen or on another device.
    pub(crate) fn check_trained(&self, gpu: &Gpu) -> Result<()> {
        if !self.gpu().is(gpu) {
            return Err(Error::config("weights", "are on another device"));
        }
        match self.segments.is_empty() {
            true => Err(Error::config("weights", "are frozen: load the model for training")),
            false => Ok(()),
        }
    }

    /// Returns an error unless these are the weights of `specs` and on this device. Kernels rely on their shapes.
    pub(super) fn check(&self, gpu: &Gpu, specs: &[WeightSpec], of: &str) -> Result<()> {
        if !self.gpu().is(gpu) {
            return Err(Error::config("weights", format!("of the {of} are on another device")));
        }
        for (i, spec) in specs.iter().enumerate() {
            let Some(weight) = self.get(&spec.name) else {
                return Err(Error::config("weights", format!("of the {of} lack {}", spec.name)));
            };
            if weight.shape != spec.shape {
                let why = format!(
                    "of the {of} have {} as {:?}, expected {:?}",
                    spec.name, weight.shape, spec.shape
                );
                return Err(Error::config("weights", why));
            }
            // Vectors of a layer's projections are bound as one, and `stored` determines the layout of saved files.
            let vectors = spec.shape.len() == 1 && weight.spec().stacked != spec.stacked;
            let follows =
                || self.before(&spec.name) == i.checked_sub(1).map(|before| specs[before].name.as_str());
            if vectors
                || spec.shape.len() == 1 && spec.stacked && !follows()
                || weight.spec().stored != spec.stored
            {
                let why =
                    format!("of the {of} have {} in another layout: allocate them by its specs", spec.name);
                return Err(Error::config("weights", why));
            }
        }
        Ok(())
    }
}
