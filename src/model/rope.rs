//! RoPE: its settings in `config.json`, in both forms that Hugging Face has used, and the resulting frequencies.

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

use super::settings::number;

/// Rotary position embedding over heads of size D.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// The number of elements of a head that are rotated, starting at the first.
    pub rotated: usize,
    /// The scaling for longer contexts.
    pub scaling: RopeScaling,
}

/// The scaling of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// All wavelengths are multiplied by `factor`.
    Linear {
        /// The ratio of the extended context to the original one.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are multiplied by `factor`, short ones are kept, and those between are interpolated.
    Llama3 {
        /// The ratio of the extended context to the original one.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are multiplied by `factor`.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The original context, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): as Llama 3.1, with a ramp over the pairs, and a scaled attention
    /// temperature.
    Yarn {
        /// The ratio of the extended context to the original one.
        factor: f64,
        /// Pairs with at least this many rotations within the original context keep their wavelength.
        beta_fast: f64,
        /// Pairs with at most this many rotations are scaled by the whole factor.
        beta_slow: f64,
        /// Whether the ends of the ramp are rounded to whole pairs.
        truncate: bool,
        /// The factor of the cosines and sines.
        attention_factor: f64,
        /// The original context, in tokens.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753), for sequences within the original context: each pair has its own
    /// factor.
    Long {
        /// The factor of each pair.
        short_factor: Vec<f64>,
        /// The factor of the cosines and sines.
        attention_factor: f64,
        /// The original context, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// The defaults of RoPE settings that the file lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeDefaults {
    /// The base of the frequencies.
    pub theta: f64,
    /// The fraction of a head that is rotated; `None` for families that always rotate whole heads.
    pub share: Option<f64>,
    /// The original context, for families that store it outside the RoPE settings.
    pub original: Option<f64>,
    /// The scalings that the family supports.
    pub scalings: &'static [&'static str],
}

impl RopeDefaults {
    /// The defaults of Llama.
    pub const LLAMA: RopeDefaults = RopeDefaults {
        theta: 10_000.0,
        share: None,
        original: None,
        scalings: &["default", "linear", "dynamic", "llama3", "yarn", "longrope"],
    };
}

/// The older key, which has only the scaling; `rope_theta` is next to it.
const OLDER: &str = "rope_scaling";
/// The newer key, which has all settings.
const NEWER: &str = "rope_parameters";

/// Keys of the settings other than the numbers of a scaling.
const GENERAL: [&str; 5] =
    ["rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];

/// The numbers of each scaling. LongRoPE's long factor is for sequences longer than the supported context.
const SCALINGS: [(&str, &[&str]); 6] = [
    ("default", &[]),
    ("linear", &["factor"]),
    ("dynamic", &["factor", "alpha"]),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor"]),
    (
        "yarn",
        &["factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"],
    ),
    ("longrope", &["factor", "attention_factor", "short_factor", "long_factor"]),
];
/// A scaling has at least one of these.
const FACTORS: [&str; 5] = ["factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor"];

impl Rope {
    /// The angle in radians per token of each rotated pair of a head: (R/2), θ^(−2j/R), scaled as in `transformers`.
    pub fn inverse_frequencies(&self) -> Vec<f64> {
        let rotated = self.rotated as f64;
        let plain = (0..self.rotated / 2).map(|j| self.theta.powf(-2.0 * j as f64 / rotated));
        match &self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            &RopeScaling::Llama3 {
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
            &RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                original_max_position_embeddings,
                ..
            } => {
                // The (fractional) index of the pair with this number of rotations within the original context.
                let pair = |turns: f64| {
                    rotated * (original_max_position_embeddings as f64 / (turns * TAU)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (low, high) = match truncate {
                    true => (pair(beta_fast).floor(), pair(beta_slow).ceil()),
                    false => (pair(beta_fast), pair(beta_slow)),
                };
                let (low, high) = (low.max(0.0), high.min(rotated - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let stretch = |(j, frequency): (usize, f64)| {
                    let stretched = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    stretched * frequency / factor + (1.0 - stretched) * frequency
                };
                plain.enumerate().map(stretch).collect()
            }
            RopeScaling::Long { short_factor, .. } => {
                plain.zip(short_factor).map(|(frequency, factor)| frequency / factor).collect()
            }
        }
    }

    /// Whether these settings are valid for heads of size D.
    pub(super) fn is_good(&self, head_dim: usize) -> bool {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let scaling = match &self.scaling {
            RopeScaling::Default => true,
            RopeScaling::Linear { factor } => positive(*factor),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => {
                [factor, low_freq_factor, high_freq_factor].into_iter().all(positive)
                    && high_freq_factor > low_freq_factor
            }
            &RopeScaling::Yarn { factor, beta_fast, beta_slow, attention_factor, .. } => {
                [factor, beta_fast, beta_slow, attention_factor].into_iter().all(positive)
            }
            RopeScaling::Long { short_factor, attention_factor, .. } => {
                short_factor.len() == self.rotated / 2
                    && short_factor.iter().chain([attention_factor]).copied().all(positive)
            }
        };
        let rotated = self.rotated > 0 && self.rotated <= head_dim && self.rotated.is_multiple_of(2);
        scaling
            && rotated
            && positive(self.theta)
            && (self.attention_factor() as f32).is_finite()
            && self.inverse_frequencies().iter().all(|frequency| frequency.is_finite())
    }

    /// The factor of the cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } | RopeScaling::Long { attention_factor, .. } => {
                attention_factor
            }
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        }
    }

    /// The longest sequence that these frequencies support, in a model of this context.
    pub(super) fn context(&self, context: usize) -> usize {
        match self.scaling {
            RopeScaling::Long { original_max_position_embeddings, .. } => {
                context.min(original_max_position_embeddings)
            }
            // The file may state the original context instead of the extended one.
            RopeScaling::Yarn { factor, original_max_position_embeddings, .. } => {
                context.max((factor * original_max_position_embeddings as f64) as usize)
            }
            _ => context,
        }
    }

    /// Reads the settings of layers with full attention and of layers with a sliding window, in the forms that Gemma 3
    /// uses: an object for each, or `rope_theta` with a scaling, and `rope_local_base_freq`.
    pub(super) fn pair_from_json(
        config: &Value,
        head_dim: usize,
        max_positions: usize,
        thetas: [f64; 2],
        warnings: &mut Vec<String>,
    ) -> Result<[Rope; 2], String> {
        let beside = |name: &str| number(config.get(name), name);
        let full_theta = beside("rope_theta")?.unwrap_or(thetas[0]);
        let windowed_theta = beside("rope_local_base_freq")?.unwrap_or(thetas[1]);
        let mut objects = match &config[NEWER] {
            Value::Null => [json!({}), json!({})],
            settings => ["full_attention", "sliding_attention"].map(|layers| settings[layers].clone()),
        };
        if objects.iter().any(|settings| !settings.is_object()) {
            return Err(format!(
                "{NEWER} must have an object for full_attention and one for sliding_attention"
            ));
        }
        // A scaling under the older key applies to full attention.
        if let Value::Object(scaling) = &config[OLDER] {
            let full = objects[0].as_object_mut().expect("checked above");
            full.extend(scaling.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let mut read = |settings: &Value, theta| {
            let defaults = RopeDefaults { theta, ..RopeDefaults::LLAMA };
            Rope::from_json(&json!({ NEWER: settings }), head_dim, max_positions, defaults, warnings)
        };
        Ok([read(&objects[0], full_theta)?, read(&objects[1], windowed_theta)?])
    }

    /// Reads the settings of a `config.json` as `transformers` 5.24 does. Where that would silently ignore a
    /// contradicting key, this is an error. Unused keys are added to `warnings`.
    pub(super) fn from_json(
        config: &Value,
        head_dim: usize,
        max_positions: usize,
        defaults: RopeDefaults,
        warnings: &mut Vec<String>,
    ) -> Result<Rope, String> {
        let settings = |key| match &config[key] {
            Value::Null => Ok(None),
            Value::Object(map) => Ok(Some(map).filter(|map| !map.is_empty())),
            _ => Err(format!("{key} must be an object, or be left out")),
        };
        let read = |key, map, warnings: &mut Vec<String>| {
            Settings { key, map, config }.read(head_dim, max_positions, defaults, warnings)
        };
        let (older, newer) = (settings(OLDER)?, settings(NEWER)?);
        match (older, newer) {
            (Some(older), Some(newer)) => {
                let (rope, other) = (read(OLDER, older, warnings)?, read(NEWER, newer, warnings));
                if other.as_ref() != Ok(&rope) {
                    return Err(format!(
                        "{OLDER} and {NEWER} contradict each other: remove the one that does not belong to the model"
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

/// One of the two objects with RoPE settings, and the `config.json` that contains it.
struct Settings<'a> {
    key: &'static str,
    map: &'a Map<String, Value>,
    config: &'a Value,
}

impl Settings<'_> {
    fn read(
        &self,
        head_dim: usize,
        max_positions: usize,
        defaults: RopeDefaults,
        warnings: &mut Vec<String>,
    ) -> Result<Rope, String> {
        let key = self.key;
        if let Some((layers, _)) = self.map.iter().find(|(_, value)| value.is_object()) {
            return Err(format!("{key} has separate settings for {layers:?} layers, which is not supported"));
        }
        let theta = self.beside("rope_theta")?.unwrap_or(defaults.theta);
        if theta <= 0.0 {
            return Err(format!("rope_theta is {theta}, expected a number > 0"));
        }
        let given = self.beside("partial_rotary_factor")?;
        if let (Some(share), None) = (given.filter(|share| *share != 1.0), defaults.share) {
            return Err(format!(
                "partial_rotary_factor is {share}, but models of this family rotate whole heads"
            ));
        }
        let share = given.or(defaults.share).unwrap_or(1.0);
        let rotated = (head_dim as f64 * share) as usize;
        if !(share > 0.0 && share <= 1.0) || rotated == 0 || !rotated.is_multiple_of(2) {
            return Err(format!(
                "partial_rotary_factor is {share}: it must select an even number of elements of a head of {head_dim}"
            ));
        }
        let original = self.beside("original_max_position_embeddings")?.or(defaults.original);
        let original = original.unwrap_or(max_positions as f64);
        // The name in Phi-3's first files.
        let kind = self.kind()?.map(|kind| if kind == "su" { "longrope" } else { kind });
        let known = |(name, _): &&(&str, &[&str])| {
            *name == kind.unwrap_or("default") && defaults.scalings.contains(name)
        };
        let Some((name, numbers)) = SCALINGS.iter().find(known) else {
            let all: Vec<String> = defaults.scalings.iter().map(|name| format!("{name:?}")).collect();
            let kind = kind.unwrap_or_default();
            return Err(format!("the rope_type is {kind:?}, supported are {}", all.join(", ")));
        };
        let scaling = match *name {
            "linear" => RopeScaling::Linear { factor: self.need(name, "factor")? },
            // Differs from the default only for sequences longer than the model's context, which are errors.
            "dynamic" => RopeScaling::Default,
            "llama3" => self.llama3(original)?,
            "yarn" => self.yarn(original, max_positions)?,
            "longrope" => self.long(original, max_positions, rotated)?,
            _ => {
                let set = |name: &&str| {
                    self.map.get(*name).is_some_and(|v| !v.is_null() && v.as_f64() != Some(1.0))
                };
                if let Some(name) = FACTORS.iter().find(|name| set(name)) {
                    let given = kind.map_or("no rope_type".into(), |kind| format!("rope_type \"{kind}\""));
                    return Err(format!(
                        "{key} has {name} but {given}: add the rope_type that it belongs to"
                    ));
                }
                RopeScaling::Default
            }
        };
        let known =
            |name: &str| GENERAL.contains(&name) || FACTORS.contains(&name) || numbers.contains(&name);
        for (name, _) in self.map.iter().filter(|(name, value)| !value.is_null() && !known(name)) {
            warnings.push(format!("{key} has {name:?}, which is not used here"));
        }
        let rope = Rope { theta, rotated, scaling };
        if !rope.is_good(head_dim) {
            return Err(format!("{key} results in invalid RoPE frequencies: check theta and the factors"));
        }
        if rope.context(max_positions) < max_positions {
            warnings.push(format!(
                "sequences are limited to {} tokens: the model's RoPE ({name}) for longer ones is not supported",
                rope.context(max_positions)
            ));
        }
        Ok(rope)
    }

    /// Returns a number above 0 that the scaling requires.
    fn need(&self, kind: &str, name: &str) -> Result<f64, String> {
        self.positive(kind, name)?.ok_or_else(|| format!("rope_type \"{kind}\" needs {name}"))
    }

    fn positive(&self, kind: &str, name: &str) -> Result<Option<f64>, String> {
        match number(self.map.get(name), name)? {
            Some(value) if value <= 0.0 => {
                Err(format!("{name} of rope_type \"{kind}\" is {value}, expected a number > 0"))
            }
            value => Ok(value),
        }
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

    /// Returns a number that may be in these settings or next to them; both are allowed if they are equal.
    fn beside(&self, name: &str) -> Result<Option<f64>, String> {
        let (inside, beside) = (number(self.map.get(name), name)?, number(self.config.get(name), name)?);
        match (inside, beside) {
            (Some(inside), Some(beside)) if inside != beside => {
                let key = self.key;
                Err(format!("{name} is {beside}, but {inside} in {key}: remove the wrong one"))
            }
            (inside, beside) => Ok(inside.or(beside)),
        }
    }

    fn llama3(&self, original: f64) -> Result<RopeScaling, String> {
        let need = |name| self.need("llama3", name);
        let (low_freq_factor, high_freq_factor) = (need("low_freq_factor")?, need("high_freq_factor")?);
        if high_freq_factor <= low_freq_factor {
            return Err(format!(
                "high_freq_factor {high_freq_factor} must be above low_freq_factor {low_freq_factor}"
            ));
        }
        Ok(RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: tokens(original)?,
        })
    }

    fn yarn(&self, original: f64, max_positions: usize) -> Result<RopeScaling, String> {
        let positive = |name| self.positive("yarn", name);
        let original = tokens(original)?;
        let factor = positive("factor")?.unwrap_or(max_positions as f64 / original as f64);
        // The paper's attention factor, with a weight.
        let sharper = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let attention_factor =
            match (positive("attention_factor")?, positive("mscale")?, positive("mscale_all_dim")?) {
                (Some(given), ..) => given,
                (None, Some(above), Some(below)) => sharper(above) / sharper(below),
                (None, ..) => sharper(1.0),
            };
        let truncate = match self.map.get("truncate") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(truncate)) => *truncate,
            Some(other) => return Err(format!("truncate is {other}, expected true or false")),
        };
        Ok(RopeScaling::Yarn {
            factor,
            beta_fast: positive("beta_fast")?.unwrap_or(32.0),
            beta_slow: positive("beta_slow")?.unwrap_or(1.0),
            truncate,
            attention_factor,
            original_max_position_embeddings: original,
        })
    }

    fn long(&self, original: f64, max_positions: usize, rotated: usize) -> Result<RopeScaling, String> {
        let original = tokens(original)?;
        let factor = self.positive("longrope", "factor")?.unwrap_or(max_positions as f64 / original as f64);
        let attention_factor = match self.positive("longrope", "attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        let list = self.map.get("short_factor").and_then(Value::as_array);
        let factors: Option<Vec<f64>> = list
            .and_then(|list| list.iter().map(|v| v.as_f64().filter(|v| v.is_finite() && *v > 0.0)).collect());
        let short_factor = factors.filter(|factors| factors.len() == rotated / 2).ok_or_else(|| {
            format!("short_factor of rope_type \"longrope\" must be a list of {} numbers > 0", rotated / 2)
        })?;
        Ok(RopeScaling::Long { short_factor, attention_factor, original_max_position_embeddings: original })
    }
}

/// Checks a number of tokens.
fn tokens(original: f64) -> Result<usize, String> {
    if original < 2.0 || original.fract() != 0.0 || original > i32::MAX as f64 {
        return Err(format!("original_max_position_embeddings is {original}, expected a number of tokens"));
    }
    Ok(original as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rope(config: Value) -> Result<Rope, String> {
        read(&config, &mut Vec::new())
    }

    /// Reads settings for heads of 8 elements in a context of 64.
    fn read(config: &Value, warnings: &mut Vec<String>) -> Result<Rope, String> {
        Rope::from_json(config, 8, 64, RopeDefaults { share: Some(1.0), ..RopeDefaults::LLAMA }, warnings)
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
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn assert_refused(config: Value, parts: &[&str]) {
        let why = rope(config).unwrap_err();
        parts.iter().for_each(|part| assert!(why.contains(part), "{part:?} is not in {why:?}"));
    }

    /// Expected: the result of transformers 5.24 for these files (tests/fixtures/README.md).
    #[test]
    fn settings_are_read_from_the_places_that_transformers_reads() {
        let default = |theta| Rope { theta, rotated: 8, scaling: RopeScaling::Default };
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
        // Without the original context, the model's context is used.
        let absent = llama3(json!({"original_max_position_embeddings": null}));
        assert_eq!(original(rope(json!({"rope_scaling": absent})).unwrap()), 64);
        let beside = json!({"rope_scaling": absent, "original_max_position_embeddings": 16});
        assert_eq!(original(rope(beside).unwrap()), 16);
        // Both forms, with the same content.
        let both = json!({"rope_theta": 7e5, "rope_scaling": llama3(json!({})),
            "rope_parameters": llama3(json!({"rope_theta": 7e5}))});
        assert_eq!(rope(both).unwrap(), older);
    }

    #[test]
    fn contradicting_settings_are_errors_that_name_both_keys() {
        let default = json!({"rope_type": "default", "rope_theta": 5e5});
        assert_refused(
            json!({"rope_scaling": llama3(json!({})), "rope_parameters": default}),
            &["rope_scaling and rope_parameters"],
        );
        // This rope_scaling has no rope_theta, so transformers would use 10,000.
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
    fn incomplete_settings_are_errors() {
        assert_refused(
            json!({"rope_scaling": {"factor": 2.0}}),
            &["rope_scaling has factor but no rope_type"],
        );
        assert_refused(
            json!({"rope_parameters": {"rope_type": "default", "low_freq_factor": 4}}),
            &["low_freq_factor but rope_type \"default\""],
        );
        for key in ["factor", "low_freq_factor", "high_freq_factor"] {
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
        for share in [0.0, 1.1, 0.2, 0.4] {
            assert_refused(
                json!({"partial_rotary_factor": share}),
                &["partial_rotary_factor is", "head of 8"],
            );
        }
        assert_refused(
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            &["rope_parameters", "full_attention"],
        );
        let many = llama3(json!({"original_max_position_embeddings": 1e300}));
        assert_refused(json!({"rope_scaling": many}), &["original_max_position_embeddings"]);
    }

    #[test]
    fn unused_settings_are_warned_about() {
        let mut warnings = Vec::new();
        let json = json!({"rope_scaling": llama3(json!({"attention_factor": 2.0, "beta_fast": null}))});
        read(&json, &mut warnings).unwrap();
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
        let found = Rope { theta: 5e5, rotated: 32, scaling }.inverse_frequencies();
        assert_eq!(found.len(), expected.len());
        for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found / expected - 1.0).abs() < 1e-6, "pair {j}: {found}, expected {expected}");
        }
    }

    #[test]
    fn default_frequencies_are_powers_of_theta() {
        let found = Rope { theta: 10_000.0, rotated: 8, scaling: RopeScaling::Default }.inverse_frequencies();
        for (found, expected) in found.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-12);
        }
    }
}
