//! LoRA adapters (Hu et al. 2021, arXiv 2106.09685): which modules have a term, and the names of the tensors in PEFT.

use std::collections::{BTreeMap, BTreeSet};

use derive_setters::Setters;
use serde_json::{Map, Value, json};

use super::architecture::{Architecture, RATING_HEAD, WeightSpec};
use super::families::FAMILIES;
use super::names::{Matrices, Names, Projection};
use super::storage::{INITIALIZER_RANGE, normal};
use crate::error::{Error, Result};
use crate::reference::uniform;

/// The largest rank: far above that of any real adapter, and small enough that no size overflows.
pub const MAX_RANK: usize = 1 << 16;

/// The settings of a new adapter: all terms have the same rank and alpha.
#[derive(Clone, Debug, PartialEq, Setters)]
#[non_exhaustive]
pub struct LoraConfig {
    /// The rank R of the terms.
    pub rank: usize,
    /// A term is scaled by alpha / rank.
    pub alpha: f32,
    /// Scales by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub rank_stabilised: bool,
    /// The projections that get a term.
    pub targets: LoraTargets,
}

/// Projections of a model's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoraTargets {
    /// All projections.
    AllLinear,
    /// Those whose module's last name component is one of these, in alphabetical order.
    Named(Vec<String>),
}

impl LoraTargets {
    /// Parses `all-linear`, or module names of any family.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that occurs in no family.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<LoraTargets> {
        if names.len() == 1 && names[0].as_ref() == "all-linear" {
            return Ok(LoraTargets::AllLinear);
        }
        let known: BTreeSet<&str> = FAMILIES.iter().flat_map(|family| family.names.targets()).collect();
        if let Some(unknown) = names.iter().map(AsRef::as_ref).find(|name| !known.contains(name)) {
            let known: Vec<&str> = known.into_iter().collect();
            let why =
                format!("no module is called {unknown:?}: choose from {}, or all-linear", known.join(", "));
            return Err(Error::config("lora-target-modules", why));
        }
        let names: BTreeSet<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Ok(LoraTargets::Named(names.into_iter().collect()))
    }

    /// Returns the projections that these targets select in a model with these names.
    ///
    /// # Errors
    /// [`Error::Config`], which lists the model's module names, for a name that the model does not have.
    fn of(&self, names: &Names) -> Result<Vec<Projection>> {
        let LoraTargets::Named(chosen) = self else {
            return Ok(names.projections.iter().map(|(projection, _)| *projection).collect());
        };
        let targets = names.targets();
        if let Some(unknown) = chosen.iter().find(|name| !targets.contains(&name.as_str())) {
            let why = format!(
                "no module of this model is called {unknown:?}: choose from {}, or all-linear",
                targets.join(", ")
            );
            return Err(Error::config("lora-target-modules", why));
        }
        let is_chosen = |name: &str| chosen.iter().any(|chosen| name.rsplit('.').next() == Some(chosen));
        let all = names.projections.iter();
        Ok(all.filter(|(_, name)| is_chosen(name)).map(|(projection, _)| *projection).collect())
    }
}

impl std::fmt::Display for LoraTargets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoraTargets::AllLinear => f.write_str("all-linear"),
            LoraTargets::Named(names) => f.write_str(&names.join(",")),
        }
    }
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
    /// The term is scaled by alpha / rank, see [`LoraLayout::scale`].
    pub alpha: f32,
}

/// All terms of an adapter, each with its own rank and alpha.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayout {
    /// Sorted by layer, then in the order of [`Projection`].
    terms: Vec<LoraTerm>,
    /// The number of layers of the model.
    layers: usize,
    /// The model's module names.
    names: &'static Names,
    rank_stabilised: bool,
    /// Whether the head of a reward model is trained and saved together with the terms.
    rates: bool,
}

impl LoraConfig {
    /// Terms of this rank for every projection, with alpha = 2 R.
    pub fn new(rank: usize) -> LoraConfig {
        LoraConfig { rank, alpha: 2.0 * rank as f32, rank_stabilised: false, targets: LoraTargets::AllLinear }
    }

    /// Returns the terms of this configuration on a model.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid rank or alpha.
    pub fn layout(&self, architecture: &Architecture) -> Result<LoraLayout> {
        let LoraConfig { rank, alpha, rank_stabilised, .. } = *self;
        let targets = self.targets.of(architecture.names)?;
        let term = |layer, &projection| LoraTerm { layer, projection, rank, alpha };
        let terms = (0..architecture.layers).flat_map(|layer| targets.iter().map(move |p| term(layer, p)));
        let layout = LoraLayout::new(terms.collect(), architecture, rank_stabilised);
        layout.check(architecture).map(|()| layout)
    }
}

impl LoraLayout {
    /// Returns the layout of these terms on a model, scaled by alpha / sqrt(rank) if `rank_stabilised`. On a reward
    /// model it has a head of its own.
    pub fn new(mut terms: Vec<LoraTerm>, model: &Architecture, rank_stabilised: bool) -> LoraLayout {
        terms.sort_by_key(LoraTerm::place);
        LoraLayout { terms, layers: model.layers, names: model.names, rank_stabilised, rates: model.rates }
    }

    /// Returns the layout without a head.
    pub(super) fn without_head(self) -> LoraLayout {
        LoraLayout { rates: false, ..self }
    }

    /// Whether it has the head of a reward model.
    pub fn rates(&self) -> bool {
        self.rates
    }

    /// The name of the head in PEFT's files.
    pub fn head(&self) -> String {
        format!("base_model.model.{RATING_HEAD}")
    }

    /// Whether the model uses the same module names.
    pub(super) fn is_of(&self, model: &Architecture) -> bool {
        self.names == model.names
    }

    /// The full name of a term's module.
    pub fn module(&self, term: &LoraTerm) -> String {
        self.names.module(term.projection, term.layer)
    }

    /// The names of a term's A and B in PEFT's files.
    pub fn tensors(&self, term: &LoraTerm) -> [String; 2] {
        let module = self.module(term);
        ["lora_A", "lora_B"].map(|m| format!("base_model.model.{module}.{m}.weight"))
    }

    /// The terms, sorted by layer, then in the order of [`Projection`].
    pub fn terms(&self) -> &[LoraTerm] {
        &self.terms
    }

    /// The term of a module, if it has one.
    pub fn term(&self, layer: usize, projection: Projection) -> Option<&LoraTerm> {
        let place = (layer, projection as usize);
        self.terms.binary_search_by_key(&place, LoraTerm::place).ok().map(|i| &self.terms[i])
    }

    /// The factor that a term is multiplied with.
    pub fn scale(&self, term: &LoraTerm) -> f32 {
        match self.rank_stabilised {
            true => term.alpha / (term.rank as f32).sqrt(),
            false => term.alpha / term.rank as f32,
        }
    }

    /// The weights of the adapter: A and B of every term, and the head.
    pub fn weights(&self, architecture: &Architecture) -> Vec<WeightSpec> {
        let specs = |term: &LoraTerm| {
            let (outputs, inputs) = architecture.projection_shape(term.projection);
            let [a, b] = self.tensors(term);
            // Where files store the rows of the matrix in another order, they store those of B in that order, too.
            let stored = self.names.stored(term.projection, architecture.heads).of_rows();
            let b = WeightSpec::new(b, vec![outputs, term.rank]);
            [WeightSpec::new(a, vec![term.rank, inputs]), WeightSpec { stored, ..b }]
        };
        let head = self.rates.then(|| WeightSpec::new(self.head(), vec![1, architecture.hidden]));
        self.terms.iter().flat_map(specs).chain(head).collect()
    }

    /// Returns the initial values of a weight, as PEFT draws them: A uniform in ±1/sqrt(I), B zero; the head as
    /// `transformers` does.
    pub fn initial(spec: &WeightSpec, index: usize, seed: u32) -> Vec<f32> {
        let elements: usize = spec.shape.iter().product();
        if spec.name.ends_with(RATING_HEAD) {
            return normal(seed, index as u32, INITIALIZER_RANGE, elements);
        }
        if spec.name.contains("lora_B") {
            return vec![0.0; elements];
        }
        let bound = 1.0 / (spec.shape[1] as f64).sqrt();
        let draw = |i: usize| ((2.0 * uniform(seed, 0x10_4A, index as u32, i as u32) - 1.0) * bound) as f32;
        (0..elements).map(draw).collect()
    }

    /// Returns `adapter_config.json` as PEFT reads it. Projections with a term in every layer are targets by their
    /// short name, other modules by their full name; `r` and `lora_alpha` are the most frequent values, and the
    /// patterns list the exceptions.
    pub fn to_json(&self, base_model: &str) -> Value {
        let (everywhere, single): (Vec<&LoraTerm>, Vec<&LoraTerm>) =
            self.terms.iter().partition(|term| self.is_everywhere(term.projection));
        // A short name that matches two modules of a layer, as c_proj does, is usable only if both are targets in every
        // layer.
        let is_everywhere = |p: &Projection| everywhere.iter().any(|term| term.projection == *p);
        let last = |name: &'static str| name.rsplit('.').next().expect("a name");
        let all = self.names.projections;
        let of_name = |name: &'static str| all.iter().filter(move |(_, other)| last(other) == name);
        let mut targets: Vec<String> = Vec::new();
        for target in self.names.targets() {
            if of_name(target).all(|(p, _)| is_everywhere(p)) {
                targets.push(target.to_owned());
            } else {
                let chosen = of_name(target).filter(|(p, _)| is_everywhere(p));
                targets.extend(chosen.map(|(_, name)| (*name).to_owned()));
            }
        }
        targets.extend(single.iter().map(|term| self.module(term)));
        let rank = most_frequent(self.terms.iter().map(|term| term.rank)).unwrap_or(1);
        // Compared as bits: f32 has no total order.
        let bits = most_frequent(self.terms.iter().map(|term| term.alpha.to_bits()));
        let alpha = f32::from_bits(bits.unwrap_or_default());
        let others = |differs: &dyn Fn(&LoraTerm) -> Option<Value>| -> Map<String, Value> {
            self.terms.iter().filter_map(|term| Some((self.module(term), differs(term)?))).collect()
        };
        json!({
            "peft_type": "LORA",
            "task_type": if self.rates { "SEQ_CLS" } else { "CAUSAL_LM" },
            "modules_to_save": if self.rates { json!(["score"]) } else { Value::Null },
            "base_model_name_or_path": base_model,
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": others(&|term| (term.rank != rank).then(|| json!(term.rank))),
            "alpha_pattern": others(&|term| (term.alpha != alpha).then(|| json!(term.alpha))),
            "use_rslora": self.rank_stabilised,
            "target_modules": targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": self.names.matrices == Matrices::Transposed,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }

    fn is_everywhere(&self, projection: Projection) -> bool {
        self.terms.iter().filter(|term| term.projection == projection).count() == self.layers
    }
}

impl LoraTerm {
    fn place(&self) -> (usize, usize) {
        (self.layer, self.projection as usize)
    }
}

/// The most frequent value; of several, the largest.
fn most_frequent<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}
