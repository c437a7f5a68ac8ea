//! Rotary positions: their settings in `config.json`, in both forms that Hugging Face has given them, and the
//! frequencies that follow.

use std::f64::consts::TAU;

use serde_json::{Map, Value};

/// Rotary position embedding over heads of size D.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// How they are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// Stretching of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Llama 3.1's: long wavelengths by `factor`, short ones not at all, those between smoothly.
    Llama3 {
        /// How many times longer the context has become.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context before the stretching, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// The older key: the scaling alone, with `rope_theta` beside it.
const OLDER: &str = "rope_scaling";
/// The newer one: all settings.
const NEWER: &str = "rope_parameters";

/// What the settings may hold beside the numbers of a scaling.
const GENERAL: [&str; 5] =
    ["rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];
/// The numbers of a scaling.
const SCALING: [&str; 3] = ["factor", "low_freq_factor", "high_freq_factor"];

impl Rope {
    /// Radians a token of each pair of a head of size D: (D/2), θ^(−2j/D), scaled as `transformers` does.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|j| self.theta.powf(-2.0 * j as f64 / head_dim as f64));
        match self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let stretch = |frequency: f64| {
                    let turns = original_max_position_embeddings as f64 * frequency / TAU;
                    let kept =
                        ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    kept * frequency + (1.0 - kept) * frequency / factor
                };
                plain.map(stretch).collect()
            }
        }
    }

    /// Reads the settings of a `config.json` as `transformers` 5.24 does; what it would pass over because another key
    /// says otherwise is an error. Keys that neither uses are added to `warnings`.
    pub(super) fn from_json(
        config: &Value,
        max_positions: usize,
        warnings: &mut Vec<String>,
    ) -> Result<Rope, String> {
        let settings = |key| match &config[key] {
            Value::Null => Ok(None),
            Value::Object(map) => Ok(Some(map).filter(|map| !map.is_empty())),
            _ => Err(format!("{key} must be an object, or be left out")),
        };
        let read = |key, map, warnings: &mut Vec<String>| {
            Settings { key, map, config }.read(max_positions, warnings)
        };
        let (older, newer) = (settings(OLDER)?, settings(NEWER)?);
        match (older, newer) {
            (Some(older), Some(newer)) => {
                let (rope, other) = (read(OLDER, older, warnings)?, read(NEWER, newer, warnings));
                if other.as_ref() != Ok(&rope) {
                    return Err(format!(
                        "{OLDER} and {NEWER} say different things: remove the one that does not belong to the model"
                    ));
                }
                Ok(rope)
            }
            (Some(older), None) => read(OLDER, older, warnings),
            (None, Some(newer)) => read(NEWER, newer, warnings),
            (None, None) => read(NEWER, &Map::new(), warnings),
        }
    }
}

/// One of the two objects with rotary settings, and the `config.json` around it.
struct Settings<'a> {
    key: &'static str,
    map: &'a Map<String, Value>,
    config: &'a Value,
}

impl Settings<'_> {
    fn read(&self, max_positions: usize, warnings: &mut Vec<String>) -> Result<Rope, String> {
        let key = self.key;
        if let Some((layers, _)) = self.map.iter().find(|(_, value)| value.is_object()) {
            return Err(format!(
                "{key} has settings for some layers alone ({layers:?}), which is not supported"
            ));
        }
        let theta = self.beside("rope_theta")?.unwrap_or(10_000.0);
        if theta <= 0.0 {
            return Err(format!("rope_theta is {theta}, expected a number > 0"));
        }
        if self.beside("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(
                "partial_rotary_factor is not 1: rotating a part of each head is not supported".into()
            );
        }
        let original = self.beside("original_max_position_embeddings")?;
        let kind = self.kind()?;
        let scaling = match kind {
            None | Some("default") => {
                let set = |name: &&str| {
                    self.map.get(*name).is_some_and(|v| !v.is_null() && v.as_f64() != Some(1.0))
                };
                if let Some(name) = SCALING.iter().find(|name| set(name)) {
                    let given = kind.map_or("no rope_type".into(), |kind| format!("rope_type \"{kind}\""));
                    return Err(format!("{key} has {name} but {given}: say which scaling it belongs to"));
                }
                RopeScaling::Default
            }
            Some("llama3") => self.llama3(original.unwrap_or(max_positions as f64))?,
            Some(other) => {
                return Err(format!(
                    "the rope_type is \"{other}\", supported are \"default\" and \"llama3\""
                ));
            }
        };
        let known = |name: &str| GENERAL.contains(&name) || SCALING.contains(&name);
        for (name, _) in self.map.iter().filter(|(name, value)| !value.is_null() && !known(name)) {
            warnings.push(format!("{key} has {name:?}, which is not used here"));
        }
        Ok(Rope { theta, scaling })
    }

    fn kind(&self) -> Result<Option<&str>, String> {
        let text = |name| match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(format!("{name} in {} is {other}, expected a name", self.key)),
        };
        match (text("rope_type")?, text("type")?) {
            (Some(newer), Some(older)) if newer != older => {
                let key = self.key;
                Err(format!("{key} has rope_type \"{newer}\" and type \"{older}\": remove the wrong one"))
            }
            (newer, older) => Ok(newer.or(older)),
        }
    }

    /// A number that may stand in these settings or beside them, but not differently in both.
    fn beside(&self, name: &str) -> Result<Option<f64>, String> {
        let (inside, beside) = (number(self.map.get(name), name)?, number(self.config.get(name), name)?);
        match (inside, beside) {
            (Some(inside), Some(beside)) if inside != beside => {
                let key = self.key;
                Err(format!("{name} is {beside}, and {inside} in {key}: remove the wrong one"))
            }
            (inside, beside) => Ok(inside.or(beside)),
        }
    }

    fn llama3(&self, original: f64) -> Result<RopeScaling, String> {
        let need = |name: &str| match number(self.map.get(name), name)? {
            Some(value) if value > 0.0 => Ok(value),
            Some(value) => Err(format!("{name} of rope_type \"llama3\" is {value}, expected a number > 0")),
            None => Err(format!("rope_type \"llama3\" needs {name}")),
        };
        let (low_freq_factor, high_freq_factor) = (need("low_freq_factor")?, need("high_freq_factor")?);
        if high_freq_factor <= low_freq_factor {
            return Err(format!(
                "high_freq_factor {high_freq_factor} must be above low_freq_factor {low_freq_factor}"
            ));
        }
        if original < 1.0 || original.fract() != 0.0 || original > i32::MAX as f64 {
            return Err(format!(
                "original_max_position_embeddings is {original}, expected a number of tokens"
            ));
        }
        Ok(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original as usize,
        })
    }
}

fn number(value: Option<&Value>, name: &str) -> Result<Option<f64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{name} is {value}, expected a number")),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rope(config: Value) -> Result<Rope, String> {
        Rope::from_json(&config, 64, &mut Vec::new())
    }

    fn llama3(changes: Value) -> Value {
        let mut json = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        json
    }

    fn original(rope: Rope) -> usize {
        match rope.scaling {
            RopeScaling::Llama3 { original_max_position_embeddings, .. } => original_max_position_embeddings,
            RopeScaling::Default => panic!("no scaling"),
        }
    }

    #[track_caller]
    fn assert_refused(config: Value, parts: &[&str]) {
        let why = rope(config).unwrap_err();
        parts.iter().for_each(|part| assert!(why.contains(part), "{part:?} is not in {why:?}"));
    }

    /// Expected: what transformers 5.24 makes of these files (tests/fixtures/README.md).
    #[test]
    fn settings_stand_where_transformers_looks_for_them() {
        let default = |theta| Rope { theta, scaling: RopeScaling::Default };
        assert_eq!(rope(json!({})).unwrap(), default(1e4));
        assert_eq!(rope(json!({"rope_theta": 500_000})).unwrap(), default(5e5));
        let inside = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}});
        assert_eq!(rope(inside).unwrap(), default(5e5));
        let beside = json!({"rope_theta": 7e5, "rope_parameters": {"rope_type": "default"}});
        assert_eq!(rope(beside).unwrap(), default(7e5));
        let empty =
            json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}});
        assert_eq!(rope(empty).unwrap(), default(5e5));
        let older = rope(json!({"rope_theta": 7e5, "rope_scaling": llama3(json!({}))})).unwrap();
        assert_eq!(older.theta, 7e5);
        assert_eq!(original(older.clone()), 32);
        let alias =
            json!({"rope_theta": 7e5, "rope_scaling": llama3(json!({"rope_type": null, "type": "llama3"}))});
        assert_eq!(rope(alias).unwrap(), older);
        // Without the context before the stretching, the model's own.
        let absent = llama3(json!({"original_max_position_embeddings": null}));
        assert_eq!(original(rope(json!({"rope_scaling": absent})).unwrap()), 64);
        let beside = json!({"rope_scaling": absent, "original_max_position_embeddings": 16});
        assert_eq!(original(rope(beside).unwrap()), 16);
        // Both forms, saying the same.
        let both = json!({"rope_theta": 7e5, "rope_scaling": llama3(json!({})),
            "rope_parameters": llama3(json!({"rope_theta": 7e5}))});
        assert_eq!(rope(both).unwrap(), older);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_both_keys() {
        let default = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_refused(
            json!({"rope_scaling": llama3(json!({})), "rope_parameters": default}),
            &["rope_scaling and rope_parameters"],
        );
        // rope_scaling has no base of its own, so that transformers would take 10,000.
        let newer = llama3(json!({"rope_theta": 5e5}));
        assert_refused(
            json!({"rope_scaling": llama3(json!({})), "rope_parameters": newer}),
            &["rope_scaling and rope_parameters"],
        );
        assert_refused(
            json!({"rope_theta": 7e5, "rope_parameters": default}),
            &["rope_theta is 700000", "500000 in rope_parameters"],
        );
        assert_refused(
            json!({"rope_scaling": llama3(json!({})), "original_max_position_embeddings": 16}),
            &["original_max_position_embeddings is 16", "32 in rope_scaling"],
        );
        assert_refused(
            json!({"rope_scaling": llama3(json!({"type": "linear"}))}),
            &["rope_type \"llama3\" and type \"linear\""],
        );
    }

    #[test]
    fn half_given_settings_are_refused() {
        assert_refused(
            json!({"rope_scaling": {"factor": 2.0}}),
            &["rope_scaling has factor but no rope_type"],
        );
        assert_refused(
            json!({"rope_parameters": {"rope_type": "default", "low_freq_factor": 4}}),
            &["low_freq_factor but rope_type \"default\""],
        );
        for key in SCALING {
            assert_refused(json!({"rope_scaling": llama3(json!({key: null}))}), &["needs", key]);
            assert_refused(json!({"rope_scaling": llama3(json!({key: "x"}))}), &[key, "expected a number"]);
            assert_refused(
                json!({"rope_scaling": llama3(json!({key: -1}))}),
                &[key, "expected a number > 0"],
            );
        }
        assert_refused(json!({"rope_scaling": "llama3"}), &["rope_scaling must be an object"]);
        assert_refused(json!({"rope_theta": "1e4"}), &["rope_theta is \"1e4\""]);
        assert_refused(json!({"rope_theta": 0}), &["rope_theta is 0"]);
        assert_refused(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor is not 1"]);
        assert_refused(
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            &["rope_parameters", "full_attention"],
        );
        let many = llama3(json!({"original_max_position_embeddings": 1e300}));
        assert_refused(json!({"rope_scaling": many}), &["original_max_position_embeddings"]);
    }

    #[test]
    fn settings_without_a_use_are_warned_about() {
        let mut warnings = Vec::new();
        let json = json!({"rope_scaling": llama3(json!({"attention_factor": 2.0, "beta_fast": null}))});
        Rope::from_json(&json, 64, &mut warnings).unwrap();
        assert_eq!(warnings, ["rope_scaling has \"attention_factor\", which is not used here"]);
    }

    /// Expected: transformers 5.23, LlamaRotaryEmbedding in f32, head_dim 32.
    #[test]
    fn llama3_frequencies_are_those_of_transformers() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let expected = [
            1.0,
            0.44036662578582764,
            0.193922758102417,
            0.08539710193872452,
            0.03760603070259094,
            0.016560440883040428,
            0.00729266507551074,
            0.0032114461064338684,
            0.0005248460220173001,
            7.784655463183299e-05,
            3.428102354519069e-05,
            1.5096217794052791e-05,
            6.647869668086059e-06,
            2.927499735960737e-06,
            1.289173155782919e-06,
            5.677088097399974e-07,
        ];
        let found = Rope { theta: 5e5, scaling }.inverse_frequencies(32);
        assert_eq!(found.len(), expected.len());
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found / expected - 1.0).abs() < 1e-6, "pair {j}: {found}, expected {expected}");
        }
    }

    #[test]
    fn default_frequencies_are_powers_of_theta() {
        let found = Rope { theta: 10_000.0, scaling: RopeScaling::Default }.inverse_frequencies(8);
        for (found, expected) in found.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-12);
        }
    }
}
