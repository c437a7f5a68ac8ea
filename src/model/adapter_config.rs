//! `adapter_config.json`, with PEFT's rules for which modules have a term and for its rank and alpha.

use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::adapter_storage::ADAPTER_CONFIG;
use super::architecture::Architecture;
use super::lora::{LoraLayout, LoraTerm, MAX_RANK};
use super::module_match::{Modules, any, matched, regex};
use crate::error::Error;
use crate::files;

/// Keys that are read below, or that do not affect what an adapter computes.
const KNOWN: [&str; 29] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    // PEFT ignores these four with another `init_lora_weights`.
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    // PEFT decides by the module's type and ignores this value.
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
];

/// Keys that change the computation and are not supported.
const UNSUPPORTED: [&str; 14] = [
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "megatron_config",
    "monteclora_config",
    "velora_config",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "enable_lora",
];

/// Default targets if there is no list: those of Llama and related families, of GPT-2 and of GPT-NeoX.
const DEFAULT_TARGETS: [&str; 4] = ["q_proj", "v_proj", "c_attn", "query_key_value"];

/// Initialisations, other than true and false, that do not change the base weights.
const HARMLESS_INITIALISATIONS: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// A checked `adapter_config.json`.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f32,
    rank_stabilised: bool,
    targets: Modules,
    excluded: Modules,
    /// `None` for all layers.
    layers: Option<Layers>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f32)>,
    /// The base model's name, as the adapter's author wrote it.
    pub base_model: Option<String>,
    /// Whether the head of a reward model is saved with it.
    pub rates: bool,
    /// The dropout on the input of A with which the adapter was trained.
    pub dropout: f64,
    /// Warnings to be shown to the user.
    pub warnings: Vec<String>,
}

/// A selection of layers.
#[derive(Debug)]
struct Layers {
    numbers: Vec<i64>,
    /// Patterns of what precedes the layer's number in a module's name; if empty, anything may.
    before: Vec<Regex>,
}

impl AdapterConfig {
    /// Reads the configuration of the adapter in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) for settings that are not supported, and a file that cannot be read.
    pub fn load(dir: &Path) -> Result<AdapterConfig, Error> {
        let path = dir.join(ADAPTER_CONFIG);
        AdapterConfig::from_json(&files::read_json(&path)?).map_err(|why| Error::file(&path, why))
    }

    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A sentence about the first setting that is invalid or not supported.
    pub fn from_json(json: &Value) -> Result<AdapterConfig, String> {
        let json = json.as_object().ok_or("is not an adapter configuration")?;
        let get = |key: &str| json.get(key).filter(|value| is_set(value));
        if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err("peft_type is not LORA, the only type of adapter that is supported".into());
        }
        if get("bias").is_some_and(|bias| *bias != "none") {
            return Err(format!("bias is trained in this adapter, {NOT_SUPPORTED}"));
        }
        if let Some(key) = UNSUPPORTED.iter().find(|key| get(key).is_some()) {
            return Err(format!("{key} is set in this adapter, {NOT_SUPPORTED}"));
        }
        let saved =
            get("modules_to_save").map(|names| Modules::from_json("modules_to_save", names)).transpose()?;
        let rates = match saved {
            None => false,
            // PEFT's default for classifiers lists both names.
            Some(Modules::Named(names))
                if names.iter().all(|name| ["score", "classifier"].contains(&&**name)) =>
            {
                true
            }
            Some(_) => return Err(format!("modules_to_save is set in this adapter, {NOT_SUPPORTED}")),
        };
        initialisation(json.get("init_lora_weights"))?;
        let targets = match json.get("target_modules") {
            // PEFT's defaults of all supported families; no family has a module of another's name.
            None | Some(Value::Null) => Modules::Named(DEFAULT_TARGETS.map(String::from).to_vec()),
            Some(value) => Modules::from_json("target_modules", value)?,
        };
        let excluded = match get("exclude_modules") {
            None => Modules::Named(Vec::new()),
            Some(value) => Modules::from_json("exclude_modules", value)?,
        };
        let layers = layers(json)?;
        if layers.is_some() && !matches!(targets, Modules::Named(_)) {
            return Err("layers_to_transform requires target_modules to be a list, as in PEFT".into());
        }
        let unknown = json.iter().filter(|(key, value)| is_set(value) && !KNOWN.contains(&key.as_str()));
        let warnings = unknown
            .map(|(key, _)| format!("the adapter's setting {key:?} is unknown and is ignored"))
            .collect();
        Ok(AdapterConfig {
            rank: rank("r", json.get("r").ok_or("r is missing")?)?,
            alpha: alpha("lora_alpha", json.get("lora_alpha").ok_or("lora_alpha is missing")?)?,
            rank_stabilised: flag(json, "use_rslora")?,
            targets,
            excluded,
            layers,
            ranks: pattern(json, "rank_pattern", rank)?,
            alphas: pattern(json, "alpha_pattern", alpha)?,
            rates,
            base_model: get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            dropout: get("lora_dropout").and_then(Value::as_f64).unwrap_or_default(),
            warnings,
        })
    }

    /// Returns the terms of this configuration on a model.
    ///
    /// # Errors
    /// A sentence if no module of the model is selected.
    pub fn layout(&self, architecture: &Architecture) -> Result<LoraLayout, String> {
        let mut terms = Vec::new();
        for layer in 0..architecture.layers {
            for projection in architecture.projections() {
                let module = architecture.names.module(projection, layer);
                if self.includes(&module, layer)? {
                    let rank = matched(&self.ranks, &module)?.unwrap_or(self.rank);
                    let alpha = matched(&self.alphas, &module)?.unwrap_or(self.alpha);
                    terms.push(LoraTerm { layer, projection, rank, alpha });
                }
            }
        }
        if terms.is_empty() {
            let all = architecture.names.targets().join(", ");
            return Err(format!("target_modules matches no module of this model, which has {all}"));
        }
        let layout = LoraLayout::new(terms, architecture, self.rank_stabilised);
        match (self.rates, architecture.rates) {
            (true, false) => {
                let why = "is the adapter of a reward model (modules_to_save lists its head): use it as a judge, or \
                          give an adapter of a language model here";
                Err(why.into())
            }
            (true, true) => Ok(layout),
            (false, _) => Ok(layout.without_head()),
        }
    }

    /// Whether a module has a term: the rules of PEFT's `check_target_module_exists`.
    fn includes(&self, module: &str, layer: usize) -> Result<bool, String> {
        if self.excluded.contain(module)? || !self.targets.contain(module)? {
            return Ok(false);
        }
        match (&self.layers, &self.targets) {
            (Some(Layers { numbers, before }), Modules::Named(names))
                if !names.iter().any(|name| name == module) =>
            {
                let placed = before.is_empty() || any(before, module)?;
                Ok(placed && numbers.contains(&(layer as i64)))
            }
            // A full name includes its layer.
            (_, _) => Ok(true),
        }
    }
}

/// Truth values as in Python: null, false, zero and empty values are not set.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// The end of a message about an adapter that is more than LoRA terms of matrices.
const NOT_SUPPORTED: &str =
    "which is not supported: merge it into its model with PEFT's merge_and_unload, and use the merged model";

fn initialisation(value: Option<&Value>) -> Result<(), String> {
    match value {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if HARMLESS_INITIALISATIONS.contains(&name.to_lowercase().as_str()) => {
            Ok(())
        }
        Some(other) => Err(format!(
            "init_lora_weights is {other}, which changes the base model's weights: convert the adapter with PEFT's \
             save_pretrained(…, path_initial_model_for_weight_conversion=…), or merge it with PEFT and use the merged model"
        )),
    }
}

fn flag(json: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => Err(format!("{key} is {other}, expected true or false")),
    }
}

fn rank(key: &str, value: &Value) -> Result<usize, String> {
    let whole = value.as_u64().map(|r| usize::try_from(r).unwrap_or(usize::MAX));
    let usable = whole.filter(|r| (1..=MAX_RANK).contains(r));
    usable.ok_or_else(|| format!("{key} is {value}, expected a rank of 1 to {MAX_RANK}"))
}

fn alpha(key: &str, value: &Value) -> Result<f32, String> {
    let number = value.as_f64().map(|alpha| alpha as f32).filter(|alpha| alpha.is_finite());
    number.ok_or_else(|| format!("{key} is {value}, expected a number in the range of f32"))
}

/// Reads settings that apply to a pattern of module names, in the order of the file; the first match counts. As in
/// PEFT's `get_pattern_key`, a pattern starts at the beginning of a name or after a dot, and ends at the end of the
/// name.
fn pattern<T>(
    json: &Map<String, Value>,
    key: &str,
    read: impl Fn(&str, &Value) -> Result<T, String>,
) -> Result<Vec<(Regex, T)>, String> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => {
            let entry = |(name, value): (&String, &Value)| {
                let pattern = regex(key, &format!(r"\A(.*\.)?({name})\z"))?;
                Ok((pattern, read(&format!("{key} of {name}"), value)?))
            };
            map.iter().map(entry).collect()
        }
        Some(_) => Err(format!("{key} must be an object of patterns")),
    }
}

fn layers(json: &Map<String, Value>) -> Result<Option<Layers>, String> {
    let before = match json.get("layers_pattern").filter(|value| is_set(value)) {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(names)) => names
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or("layers_pattern has an entry that is not a name")?,
        Some(_) => return Err("layers_pattern must be a name, or a list of names".into()),
    };
    let layers = match json.get("layers_to_transform") {
        None | Some(Value::Null) => {
            return match before.is_empty() {
                true => Ok(None),
                false => Err("layers_pattern is set without layers_to_transform".into()),
            };
        }
        Some(Value::Array(layers)) => layers.iter().map(Value::as_i64).collect(),
        Some(one) => one.as_i64().map(|layer| vec![layer]),
    };
    let numbers: Vec<i64> = layers.ok_or("layers_to_transform must be a list of layer numbers")?;
    let name = |name: &&str| regex("layers_pattern", &format!(r"\A(?:|.*?\.){name}\.\d+\."));
    let before = before.iter().map(name).collect::<Result<_, _>>()?;
    Ok(Some(Layers { numbers, before }).filter(|layers| !layers.numbers.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::ModelConfig;
    use crate::model::names::Projection;

    fn architecture() -> Architecture {
        let config = json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 100});
        ModelConfig::from_json(config).unwrap().architecture
    }

    fn config(changes: Value) -> Result<AdapterConfig, String> {
        let mut json =
            json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        AdapterConfig::from_json(&json)
    }

    /// The modules that have a term, as layer and last name.
    fn modules(changes: Value) -> Vec<String> {
        let layout = config(changes).unwrap().layout(&architecture()).unwrap();
        let last = |term| layout.module(term).rsplit('.').next().unwrap().to_owned();
        layout.terms().iter().map(|term| format!("{} {}", term.layer, last(term))).collect()
    }

    #[track_caller]
    fn assert_refused(changes: Value, parts: &[&str]) {
        let why = config(changes).and_then(|c| c.layout(&architecture())).unwrap_err();
        parts.iter().for_each(|part| assert!(why.contains(part), "{part:?} is not in {why:?}"));
    }

    #[test]
    fn targets_are_matched_by_the_rules_of_peft() {
        let everywhere = |names: &[&str]| -> Vec<String> {
            (0..12).flat_map(|layer| names.iter().map(move |name| format!("{layer} {name}"))).collect()
        };
        let qv = everywhere(&["q_proj", "v_proj"]);
        assert_eq!(modules(json!({})), qv);
        assert_eq!(modules(json!({"target_modules": null})), qv, "PEFT's default for a Llama");
        assert_eq!(modules(json!({"target_modules": r".*\.self_attn\.(q|v)_proj"})), qv);
        assert_eq!(modules(json!({"target_modules": r"(?!.*mlp)(?!.*[ko]_proj).*proj"})), qv, "lookahead");
        assert_eq!(modules(json!({"target_modules": ["self_attn.q_proj", "v_proj"]})), qv);
        assert_eq!(modules(json!({"target_modules": "all-linear"})).len(), 12 * 7);
        assert_eq!(modules(json!({"target_modules": "All-Linear"})).len(), 12 * 7);
        assert_eq!(modules(json!({"target_modules": ["model.layers.1.self_attn.q_proj"]})), ["1 q_proj"]);
        // A regular expression must match the full name: 1 does not match 11.
        assert_eq!(modules(json!({"target_modules": r"model\.layers\.1\.mlp\.up_proj"})), ["1 up_proj"]);
        assert_refused(json!({"target_modules": "q_proj"}), &["matches no module", "q_proj, k_proj"]);
        assert_refused(json!({"target_modules": ["proj"]}), &["matches no module"]);
        assert_refused(json!({"target_modules": ["all-linear"]}), &["matches no module"]);
        assert_refused(json!({"target_modules": []}), &["matches no module"]);
        assert_refused(json!({"target_modules": "(q_proj"}), &["target_modules", "regular expression"]);
        assert_refused(json!({"target_modules": 7}), &["target_modules must be"]);
        assert_refused(json!({"target_modules": ["q_proj", 7]}), &["target_modules has"]);
    }

    #[test]
    fn exclude_modules_follows_the_rules_of_target_modules() {
        assert_eq!(modules(json!({"exclude_modules": ["v_proj"]})).len(), 12);
        assert_eq!(modules(json!({"exclude_modules": r".*layers\.\d\..*"})).len(), 4);
        assert_eq!(modules(json!({"exclude_modules": ["model.layers.3.self_attn.q_proj"]})).len(), 23);
        assert_refused(json!({"exclude_modules": ".*"}), &["matches no module"]);
    }

    #[test]
    fn layers_are_chosen_as_in_peft() {
        assert_eq!(modules(json!({"layers_to_transform": 3})), ["3 q_proj", "3 v_proj"]);
        let two = json!({"layers_to_transform": [1, 11], "layers_pattern": "layers"});
        assert_eq!(modules(two), ["1 q_proj", "1 v_proj", "11 q_proj", "11 v_proj"]);
        assert_eq!(modules(json!({"layers_to_transform": []})).len(), 24);
        // A full name includes its layer.
        let whole =
            json!({"layers_to_transform": [1], "target_modules": ["model.layers.0.mlp.up_proj", "q_proj"]});
        assert_eq!(modules(whole), ["0 up_proj", "1 q_proj"]);
        assert_refused(json!({"layers_to_transform": [1], "layers_pattern": ["h"]}), &["matches no module"]);
        assert_refused(json!({"layers_to_transform": [12, -1]}), &["matches no module"]);
        assert_refused(
            json!({"layers_pattern": ["layers"]}),
            &["layers_pattern", "without layers_to_transform"],
        );
        let regex = json!({"layers_to_transform": [1], "target_modules": ".*q_proj"});
        assert_refused(regex, &["layers_to_transform"]);
        assert_refused(json!({"layers_to_transform": "1"}), &["layers_to_transform must be"]);
    }

    #[test]
    fn the_first_pattern_that_matches_the_end_of_a_name_sets_rank_and_alpha() {
        let ranks =
            json!({"q_proj": 2, "^model.layers.1.self_attn.v_proj": 6, r"layers\.0\..*": 1, "proj": 9});
        let config =
            config(json!({"rank_pattern": ranks, "alpha_pattern": {"self_attn.v_proj": -3}})).unwrap();
        let layout = config.layout(&architecture()).unwrap();
        let term = |layer, projection| {
            let term = layout.term(layer, projection).unwrap();
            (term.rank, term.alpha, layout.scale(term))
        };
        assert_eq!(term(0, Projection::Query), (2, 8.0, 4.0));
        assert_eq!(term(0, Projection::Value), (1, -3.0, -3.0));
        assert_eq!(term(1, Projection::Value), (6, -3.0, -0.5));
        assert_eq!(
            term(11, Projection::Value),
            (4, -3.0, -0.75),
            "proj is only a part of the last component"
        );
        assert!(layout.term(0, Projection::Key).is_none());
    }

    #[test]
    fn a_layout_is_the_same_after_it_was_saved() {
        let changes = [
            json!({}),
            json!({"use_rslora": true, "target_modules": "all-linear", "layers_to_transform": null}),
            json!({"layers_to_transform": [1, 3], "target_modules": ["q_proj", "model.layers.0.mlp.down_proj"]}),
            json!({"rank_pattern": {"q_proj": 2, r".*\.1\..*": 7}, "alpha_pattern": {"v_proj": 0.5}}),
        ];
        for changes in changes {
            let layout = config(changes).unwrap().layout(&architecture()).unwrap();
            let saved = AdapterConfig::from_json(&layout.to_json("base")).unwrap();
            assert_eq!(saved.layout(&architecture()).unwrap(), layout);
            assert!(saved.warnings.is_empty(), "{:?}", saved.warnings);
        }
        let plain = config(json!({})).unwrap().layout(&architecture()).unwrap().to_json("base");
        assert_eq!(plain["target_modules"], json!(["q_proj", "v_proj"]));
        assert_eq!((&plain["rank_pattern"], &plain["alpha_pattern"]), (&json!({}), &json!({})));
    }

    #[test]
    fn initialisations_that_change_the_base_are_errors() {
        for fine in
            [json!(true), json!(false), json!(null), json!("gaussian"), json!("orthogonal"), json!("eva")]
        {
            config(json!({"init_lora_weights": fine})).unwrap();
        }
        config(json!({"init_lora_weights": "mica"})).unwrap();
        for name in
            ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga", "something_new"]
        {
            assert_refused(
                json!({"init_lora_weights": name}),
                &["init_lora_weights", name, "path_initial_model_for_weight_conversion"],
            );
        }
    }

    #[test]
    fn unsupported_settings_are_errors_that_name_the_key() {
        for key in UNSUPPORTED {
            for set in [json!(true), json!(["lm_head"]), json!({"a": 1})] {
                assert_refused(json!({key: set}), &[key, "not supported"]);
            }
            for unset in [json!(null), json!(false), json!([]), json!({})] {
                config(json!({key: unset})).unwrap();
            }
        }
        assert_refused(json!({"bias": "all"}), &["bias"]);
        assert_refused(json!({"peft_type": "IA3"}), &["peft_type"]);
        let known = json!({"bias": "none", "loftq_config": {"a": 1}, "ensure_weight_tying": true, "lora_dropout": 0.1});
        let known = config(known).unwrap();
        assert_eq!((known.dropout, known.warnings.len()), (0.1, 0));
        let unknown = config(json!({"use_newest": true, "other": null})).unwrap();
        assert_eq!(unknown.warnings, ["the adapter's setting \"use_newest\" is unknown and is ignored"]);
    }

    #[test]
    fn invalid_ranks_and_alphas_are_errors() {
        for r in [json!(0), json!(-1), json!(i64::MAX), json!(u64::MAX), json!(4.5), json!("4"), json!(65537)]
        {
            assert_refused(json!({"r": r}), &["r is"]);
            assert_refused(json!({"rank_pattern": {"q_proj": r}}), &["rank_pattern of q_proj"]);
        }
        for alpha in [json!(1e39), json!("8"), json!([])] {
            assert_refused(json!({"lora_alpha": alpha}), &["lora_alpha"]);
            assert_refused(json!({"alpha_pattern": {"q_proj": alpha}}), &["alpha_pattern of q_proj"]);
        }
        assert_refused(json!({"rank_pattern": ["q_proj"]}), &["rank_pattern must be"]);
        assert_refused(json!({"use_rslora": "yes"}), &["use_rslora is \"yes\""]);
    }

    #[test]
    fn a_regular_expression_that_is_too_costly_is_an_error() {
        assert_refused(json!({"target_modules": r"(?=((.*.*)*)*)(.*?)*\2x"}), &["regular expression"]);
        assert_refused(json!({"target_modules": "(".repeat(4000)}), &["regular expression"]);
        assert_refused(json!({"target_modules": "a".repeat(5000)}), &["bytes"]);
        assert_refused(json!({"target_modules": "(((a{1000}){1000}){1000})"}), &["regular expression"]);
    }
}
