//! LoRA adapters (Hu et al. 2021, arXiv 2106.09685): where their terms are, and the names that PEFT gives them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, Projection, WeightSpec};
use crate::error::{Error, Result};
use crate::reference::uniform;

/// The largest rank: far above any adapter's, and far below what would overflow a size.
pub const MAX_RANK: usize = 1 << 16;

/// What a new adapter is: one rank and alpha for all its terms.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// R.
    pub rank: usize,
    /// The term's weight is alpha / rank.
    pub alpha: f32,
    /// Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub rank_stabilised: bool,
    /// The projections that get one.
    pub targets: Vec<Projection>,
}

/// The low-rank term of one module: scale · B A, with A (R, I) and B (O, R).
#[derive(Clone, Debug, PartialEq)]
pub struct LoraTerm {
    /// The module's layer.
    pub layer: usize,
    /// Which of the layer's projections it is.
    pub projection: Projection,
    /// R.
    pub rank: usize,
    /// The term's weight is alpha / rank, see [`LoraLayout::scale`].
    pub alpha: f32,
}

/// All terms of an adapter, each of its own rank and alpha.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayout {
    /// By layer, then in the order of [`Projection::ALL`].
    terms: Vec<LoraTerm>,
    /// How many layers the model has.
    layers: usize,
    rank_stabilised: bool,
}

impl LoraConfig {
    /// Projections by name, or `all-linear`.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the names, for an unknown one.
    pub fn parse_targets<S: AsRef<str>>(names: &[S]) -> Result<Vec<Projection>> {
        if names.len() == 1 && names[0].as_ref() == "all-linear" {
            return Ok(Projection::ALL.to_vec());
        }
        let mut out: Vec<Projection> = Vec::new();
        for name in names {
            let found = Projection::ALL.into_iter().find(|p| p.name() == name.as_ref());
            let known = Projection::ALL.map(Projection::name).join(", ");
            out.push(found.ok_or_else(|| {
                let why =
                    format!("no module is called {:?}: choose from {known}, or all-linear", name.as_ref());
                Error::config("lora-target-modules", why)
            })?);
        }
        // In the layer's order, each once, whatever the order of the names.
        Ok(Projection::ALL.into_iter().filter(|p| out.contains(p)).collect())
    }

    /// Its terms on a model.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank or alpha that no adapter has.
    pub fn layout(&self, architecture: &Architecture) -> Result<LoraLayout> {
        let LoraConfig { rank, alpha, rank_stabilised, .. } = *self;
        let term = |layer, &projection| LoraTerm { layer, projection, rank, alpha };
        let terms =
            (0..architecture.layers).flat_map(|layer| self.targets.iter().map(move |p| term(layer, p)));
        let layout = LoraLayout::new(terms.collect(), architecture.layers, rank_stabilised);
        layout.check(architecture.layers).map(|()| layout)
    }
}

impl LoraLayout {
    /// The layout of these terms on a model of so many layers, scaled by alpha / sqrt(rank) if `rank_stabilised`.
    pub fn new(mut terms: Vec<LoraTerm>, layers: usize, rank_stabilised: bool) -> LoraLayout {
        terms.sort_by_key(LoraTerm::place);
        LoraLayout { terms, layers, rank_stabilised }
    }

    /// By layer, then in the order of [`Projection::ALL`].
    pub fn terms(&self) -> &[LoraTerm] {
        &self.terms
    }

    /// The term of a module, where it has one.
    pub fn term(&self, layer: usize, projection: Projection) -> Option<&LoraTerm> {
        let place = (layer, projection as usize);
        self.terms.binary_search_by_key(&place, LoraTerm::place).ok().map(|i| &self.terms[i])
    }

    /// A term's weight.
    pub fn scale(&self, term: &LoraTerm) -> f32 {
        match self.rank_stabilised {
            true => term.alpha / (term.rank as f32).sqrt(),
            false => term.alpha / term.rank as f32,
        }
    }

    /// The adapter's weights: A and B of every term.
    pub fn weights(&self, architecture: &Architecture) -> Vec<WeightSpec> {
        let specs = |term: &LoraTerm| {
            let (outputs, inputs) = architecture.projection_shape(term.projection);
            let [a, b] = term.names();
            [WeightSpec::new(a, vec![term.rank, inputs]), WeightSpec::new(b, vec![outputs, term.rank])]
        };
        self.terms.iter().flat_map(specs).collect()
    }

    /// A starting value as PEFT draws it: A uniform in ±1/sqrt(I), B zero.
    pub fn initial(spec: &WeightSpec, index: usize, seed: u32) -> Vec<f32> {
        let elements: usize = spec.shape.iter().product();
        if spec.name.contains("lora_B") {
            return vec![0.0; elements];
        }
        let bound = 1.0 / (spec.shape[1] as f64).sqrt();
        let draw = |i: usize| ((2.0 * uniform(seed, 0x10_4A, index as u32, i as u32) - 1.0) * bound) as f32;
        (0..elements).map(draw).collect()
    }

    /// `adapter_config.json`, as PEFT reads it. Projections that have a term in every layer are targets by name,
    /// other modules by their whole names; `r` and `lora_alpha` are the most frequent, patterns say the others.
    pub fn to_json(&self, base_model: &str) -> Value {
        let (everywhere, single): (Vec<&LoraTerm>, Vec<&LoraTerm>) =
            self.terms.iter().partition(|term| self.is_everywhere(term.projection));
        let names =
            Projection::ALL.into_iter().filter(|p| everywhere.iter().any(|term| term.projection == *p));
        let mut targets: Vec<String> = names.map(|p| p.name().to_owned()).collect();
        targets.extend(single.iter().map(|term| term.module()));
        let rank = most_frequent(self.terms.iter().map(|term| term.rank)).unwrap_or(1);
        // Bits: what is equal is the same number, and zero has a place in the order.
        let bits = most_frequent(self.terms.iter().map(|term| term.alpha.to_bits()));
        let alpha = f32::from_bits(bits.unwrap_or_default());
        let others = |differs: &dyn Fn(&LoraTerm) -> Option<Value>| -> Map<String, Value> {
            self.terms.iter().filter_map(|term| Some((term.module(), differs(term)?))).collect()
        };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": others(&|term| (term.rank != rank).then(|| json!(term.rank))),
            "alpha_pattern": others(&|term| (term.alpha != alpha).then(|| json!(term.alpha))),
            "use_rslora": self.rank_stabilised,
            "target_modules": targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }

    fn is_everywhere(&self, projection: Projection) -> bool {
        self.terms.iter().filter(|term| term.projection == projection).count() == self.layers
    }
}

impl LoraTerm {
    /// The module's whole name.
    pub fn module(&self) -> String {
        self.projection.module(self.layer)
    }

    /// Names of A and B, as PEFT saves them.
    pub fn names(&self) -> [String; 2] {
        let module = self.module();
        ["lora_A", "lora_B"].map(|m| format!("base_model.model.{module}.{m}.weight"))
    }

    fn place(&self) -> (usize, usize) {
        (self.layer, self.projection as usize)
    }
}

/// The most frequent value, of several the largest.
fn most_frequent<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}
