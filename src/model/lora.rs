//! LoRA adapters (Hu et al. 2021, arXiv 2106.09685): where their terms are, and the names that PEFT gives them.

use std::collections::{BTreeMap, BTreeSet};

use derive_setters::Setters;
use serde_json::{Map, Value, json};

use super::architecture::{Architecture, RATING_HEAD, WeightSpec};
use super::families::FAMILIES;
use super::names::{Matrices, Names, Projection};
use super::storage::{INITIALIZER_RANGE, normal};
use crate::error::{Error, Result};
use crate::reference::uniform;

/// The largest rank: far above any adapter's, and far below what would overflow a size.
pub const MAX_RANK: usize = 1 << 16;

/// What a new adapter is: one rank and alpha for all its terms.
#[derive(Clone, Debug, PartialEq, Setters)]
#[non_exhaustive]
pub struct LoraConfig {
    /// R.
    pub rank: usize,
    /// The term's weight is alpha / rank.
    pub alpha: f32,
    /// Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732).
    pub rank_stabilised: bool,
    /// The projections that get one.
    pub targets: LoraTargets,
}

/// Projections of a model's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoraTargets {
    /// All of them.
    AllLinear,
    /// Those whose module has one of these as its last name, in alphabetical order.
    Named(Vec<String>),
}

impl LoraTargets {
    /// `all-linear`, or names of any family.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that no family has.
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

    /// The projections of this model that are meant.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the model's, for a name that it does not have.
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
    /// The term's weight is alpha / rank, see [`LoraLayout::scale`].
    pub alpha: f32,
}

/// All terms of an adapter, each of its own rank and alpha.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraLayout {
    /// By layer, then in the order of [`Projection`].
    terms: Vec<LoraTerm>,
    /// How many layers the model has.
    layers: usize,
    /// What it calls its modules.
    names: &'static Names,
    rank_stabilised: bool,
    /// Whether a reward model's head is trained beside the terms, and saved with them.
    rates: bool,
}

impl LoraConfig {
    /// Terms of this rank beside every projection, scaled by alpha = 2 R.
    pub fn new(rank: usize) -> LoraConfig {
        LoraConfig { rank, alpha: 2.0 * rank as f32, rank_stabilised: false, targets: LoraTargets::AllLinear }
    }

    /// Its terms on a model.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank or alpha that no adapter has.
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
    /// The layout of these terms on a model, scaled by alpha / sqrt(rank) if `rank_stabilised`; on a reward model with a head
    /// of its own.
    pub fn new(mut terms: Vec<LoraTerm>, model: &Architecture, rank_stabilised: bool) -> LoraLayout {
        terms.sort_by_key(LoraTerm::place);
        LoraLayout { terms, layers: model.layers, names: model.names, rank_stabilised, rates: model.rates }
    }

    /// Without a head of its own.
    pub(super) fn without_head(self) -> LoraLayout {
        LoraLayout { rates: false, ..self }
    }

    /// Whether it has a reward model's head.
    pub fn rates(&self) -> bool {
        self.rates
    }

    /// The name of that head, as PEFT saves it.
    pub fn head(&self) -> String {
        format!("base_model.model.{RATING_HEAD}")
    }

    /// Whether its modules are called as those of this model.
    pub(super) fn is_of(&self, model: &Architecture) -> bool {
        self.names == model.names
    }

    /// The whole name of a term's module.
    pub fn module(&self, term: &LoraTerm) -> String {
        self.names.module(term.projection, term.layer)
    }

    /// Names of a term's A and B, as PEFT saves them.
    pub fn tensors(&self, term: &LoraTerm) -> [String; 2] {
        let module = self.module(term);
        ["lora_A", "lora_B"].map(|m| format!("base_model.model.{module}.{m}.weight"))
    }

    /// By layer, then in the order of [`Projection`].
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

    /// The adapter's weights: A and B of every term, and the head.
    pub fn weights(&self, architecture: &Architecture) -> Vec<WeightSpec> {
        let specs = |term: &LoraTerm| {
            let (outputs, inputs) = architecture.projection_shape(term.projection);
            let [a, b] = self.tensors(term);
            // Where rows of the matrix lie in another order in files, so do those of B.
            let stored = self.names.stored(term.projection, architecture.heads).of_rows();
            let b = WeightSpec::new(b, vec![outputs, term.rank]);
            [WeightSpec::new(a, vec![term.rank, inputs]), WeightSpec { stored, ..b }]
        };
        let head = self.rates.then(|| WeightSpec::new(self.head(), vec![1, architecture.hidden]));
        self.terms.iter().flat_map(specs).chain(head).collect()
    }

    /// A starting value as PEFT draws it: A uniform in ±1/sqrt(I), B zero; the head as `transformers` does.
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

    /// `adapter_config.json`, as PEFT reads it. Projections that have a term in every layer are targets by name,
    /// other modules by their whole names; `r` and `lora_alpha` are the most frequent, patterns say the others.
    pub fn to_json(&self, base_model: &str) -> Value {
        let (everywhere, single): (Vec<&LoraTerm>, Vec<&LoraTerm>) =
            self.terms.iter().partition(|term| self.is_everywhere(term.projection));
        // A last name that stands for two modules of a layer, as c_proj does, does only if both are targets everywhere.
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
        // Bits: what is equal is the same number, and zero has a place in the order.
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

/// The most frequent value, of several the largest.
fn most_frequent<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0) += 1);
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(value, _)| value)
}
