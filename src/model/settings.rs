//! Settings of a `config.json` by key. Each error is a sentence that names the key.

use serde_json::Value;

use super::architecture::LayerAttention;
use crate::ops::Activation;

/// The content of a `config.json`.
pub(super) struct Settings<'a> {
    json: &'a Value,
}

/// The largest width, vocabulary or head: far above that of any real model, and small enough that no size overflows.
pub(super) const MAX_SIZE: usize = 1 << 24;
/// The largest number of layers.
pub(super) const MAX_LAYERS: usize = 1024;
/// The largest number of tokens in a sequence.
pub(super) const MAX_POSITIONS: usize = i32::MAX as usize;

impl<'a> Settings<'a> {
    pub fn new(json: &'a Value) -> Settings<'a> {
        Settings { json }
    }

    /// The whole object.
    pub fn json(&self) -> &'a Value {
        self.json
    }

    /// The value of a key, if it is present and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is absent. Null may have another meaning.
    pub fn is_absent(&self, key: &str) -> bool {
        self.json.get(key).is_none()
    }

    /// A size from 1 to `limit`, if it is given.
    pub fn size(&self, key: &str, limit: usize) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if (1..=limit as u64).contains(&size) => Ok(Some(size as usize)),
            _ => Err(format!("{key} is {value}, expected 1 to {limit}")),
        }
    }

    /// A size that is required.
    pub fn needed_size(&self, key: &str, limit: usize) -> Result<usize, String> {
        self.size(key, limit)?.ok_or_else(|| format!("is not a model configuration ({key} is missing)"))
    }

    /// A finite number, if it is given.
    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        number(self.get(key), key)
    }

    /// A finite number that is not negative.
    pub fn positive_or_zero(&self, key: &str, default: f64) -> Result<f64, String> {
        match self.number(key)?.unwrap_or(default) {
            number if number >= 0.0 => Ok(number),
            number => Err(format!("{key} is {number}, expected a number ≥ 0")),
        }
    }

    /// A finite number above 0, if it is given.
    pub fn positive(&self, key: &str) -> Result<Option<f64>, String> {
        match self.number(key)? {
            Some(number) if number <= 0.0 => Err(format!("{key} is {number}, expected a number > 0")),
            number => Ok(number),
        }
    }

    pub fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(on)) => Ok(*on),
            Some(other) => Err(format!("{key} is {other}, expected true or false")),
        }
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{key} is {other}, expected a name")),
        }
    }

    /// An activation by its name in `transformers`.
    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, String> {
        match self.text(key)? {
            None => Ok(default),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("relu2") => Ok(Activation::ReluSquared),
            Some(other) => Err(format!(
                "{key} is {other:?}, supported are \"silu\", \"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\" and \"relu2\""
            )),
        }
    }

    /// Which layers have a sliding window of `window` keys: those that `layer_types` lists, or else those for which
    /// `default` returns true.
    pub fn windows(
        &self,
        layers: usize,
        window: Option<usize>,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, String> {
        let windowed = match self.get("layer_types") {
            None => (0..layers).map(default).collect(),
            Some(Value::Array(types)) if types.len() == layers => {
                let windowed = |kind: &Value| match kind.as_str() {
                    Some("full_attention") => Ok(false),
                    Some("sliding_attention") => Ok(true),
                    _ => Err(format!(
                        "layer_types has {kind}, supported are \"full_attention\" and \"sliding_attention\""
                    )),
                };
                types.iter().map(windowed).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(format!("layer_types must be a list of {layers} names, one per layer")),
        };
        if window.is_none() && windowed.contains(&true) {
            return Err("layer_types has \"sliding_attention\", but sliding_window is missing".into());
        }
        Ok(windowed)
    }

    /// The attention settings of layers that differ only in whether they have a window.
    pub fn windowed_layers(
        &self,
        layers: usize,
        window: Option<usize>,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<LayerAttention>, String> {
        let layer = |windowed| LayerAttention { rope: Some(0), window: window.filter(|_| windowed) };
        Ok(self.windows(layers, window, default)?.into_iter().map(layer).collect())
    }
}

/// The value of a setting as a finite number; `None` if it is absent or null.
pub(super) fn number(value: Option<&Value>, key: &str) -> Result<Option<f64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{key} is {value}, expected a number")),
        },
    }
}
