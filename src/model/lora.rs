//! LoRA adapters (Hu et al. 2021, arXiv 2106.09685), laid out as PEFT saves them.

use serde_json::{Value, json};

use super::architecture::{Architecture, Projection, WeightSpec};
use crate::error::{Error, Result};
use crate::reference::uniform;

/// A low-rank adapter's shape and place.
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

impl LoraConfig {
    /// The term's weight.
    pub fn scale(&self) -> f32 {
        match self.rank_stabilised {
            true => self.alpha / (self.rank as f32).sqrt(),
            false => self.alpha / self.rank as f32,
        }
    }

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

    /// Names of A and B for a projection, as PEFT saves them.
    pub fn names(projection: Projection, layer: usize) -> [String; 2] {
        let module = projection.module(layer);
        ["lora_A", "lora_B"].map(|m| format!("base_model.model.{module}.{m}.weight"))
    }

    /// The adapter's weights: for each projection A (R, I) and B (O, R).
    pub fn weights(&self, architecture: &Architecture) -> Vec<WeightSpec> {
        let mut out = Vec::new();
        for layer in 0..architecture.layers {
            for projection in &self.targets {
                let (outputs, inputs) = architecture.projection_shape(*projection);
                let [a, b] = LoraConfig::names(*projection, layer);
                out.push(WeightSpec::new(a, vec![self.rank, inputs]));
                out.push(WeightSpec::new(b, vec![outputs, self.rank]));
            }
        }
        out
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

    /// `adapter_config.json`, as PEFT reads it.
    pub fn to_json(&self, base_model: &str) -> Value {
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.rank_stabilised,
            "target_modules": self.targets.iter().map(|p| p.name()).collect::<Vec<_>>(),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
        })
    }

    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A sentence about the first thing in it that this crate does not do.
    pub fn from_json(json: &Value) -> Result<LoraConfig, String> {
        let is_set =
            |key: &str| !matches!(json.get(key), None | Some(Value::Null) | Some(Value::Bool(false)));
        if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err("peft_type is not LORA, the only kind of adapter read here".into());
        }
        if json.get("bias").and_then(Value::as_str).is_some_and(|b| b != "none") {
            return Err("bias is trained in this adapter, which is not supported: expected \"none\"".into());
        }
        let filled = |key: &str| json.get(key).is_some_and(|v| !v.as_object().is_none_or(|o| o.is_empty()));
        for key in ["use_dora", "modules_to_save", "layers_to_transform", "fan_in_fan_out"] {
            if is_set(key) && !json[key].as_array().is_some_and(Vec::is_empty) {
                return Err(format!("{key} is set in this adapter, which is not supported"));
            }
        }
        if filled("rank_pattern") || filled("alpha_pattern") {
            return Err("rank_pattern and alpha_pattern are not supported".into());
        }
        let rank =
            json.get("r").and_then(Value::as_u64).filter(|r| *r > 0).ok_or("r must be a positive number")?;
        let alpha = json.get("lora_alpha").and_then(Value::as_f64).ok_or("lora_alpha is missing")?;
        let targets = match json.get("target_modules") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(names)) => names.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
            _ => return Err("target_modules is missing".into()),
        };
        Ok(LoraConfig {
            rank: rank as usize,
            alpha: alpha as f32,
            rank_stabilised: is_set("use_rslora"),
            targets: LoraConfig::parse_targets(&targets).map_err(|e| e.to_string())?,
        })
    }
}
