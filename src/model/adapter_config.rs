//! `adapter_config.json`, with PEFT's rules for which modules have a term, and of what rank and alpha.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::architecture::{Architecture, Projection};
use super::lora::{LoraLayout, LoraTerm, MAX_RANK};

/// What makes no difference to what an adapter computes, or is read below.
const KNOWN: [&str; 27] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    // Beside another `init_lora_weights` PEFT passes over these four.
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
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

/// What changes the maths, and is not done here.
const UNSUPPORTED: [&str; 16] = [
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
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

/// Ways to begin that leave the base as it is, beside true and false.
const INNOCENT: [&str; 4] = ["gaussian", "orthogonal", "eva", "mica"];

/// Steps of matching one name after which a regular expression counts as endless.
const MAX_BACKTRACKS: usize = 10_000;

/// A checked `adapter_config.json`.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f32,
    rank_stabilised: bool,
    targets: Modules,
    excluded: Modules,
    /// The layers, and what stands before their numbers in a module's name (if that matters); `None`: all.
    layers: Option<(Vec<i64>, Vec<Regex>)>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f32)>,
    /// Which model it was made for, as its author called it.
    pub base_model: Option<String>,
    /// What training would leave out of the activations that A reads, as its author did.
    pub dropout: f64,
    /// What a user of this adapter should know.
    pub warnings: Vec<String>,
}

/// Which modules: all projections, those whose whole name is matched, or those whose name is or ends in one of these.
#[derive(Debug)]
enum Modules {
    AllLinear,
    Matching(Regex),
    Named(Vec<String>),
}

impl AdapterConfig {
    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A sentence about the first thing in it that is no adapter's, or that this crate does not do.
    pub fn from_json(json: &Value) -> Result<AdapterConfig, String> {
        let json = json.as_object().ok_or("is not an adapter's configuration")?;
        let get = |key: &str| json.get(key).filter(|value| is_set(value));
        if json.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err("peft_type is not LORA, the only kind of adapter read here".into());
        }
        if get("bias").is_some_and(|bias| *bias != "none") {
            return Err("bias is trained in this adapter, which is not supported: expected \"none\"".into());
        }
        if let Some(key) = UNSUPPORTED.iter().find(|key| get(key).is_some()) {
            return Err(format!("{key} is set in this adapter, which is not supported"));
        }
        initialisation(json.get("init_lora_weights"))?;
        let targets = match json.get("target_modules") {
            // PEFT's own choice for a Llama.
            None | Some(Value::Null) => Modules::Named(["q_proj", "v_proj"].map(String::from).to_vec()),
            Some(value) => Modules::from_json("target_modules", value)?,
        };
        let excluded = match get("exclude_modules") {
            None => Modules::Named(Vec::new()),
            Some(value) => Modules::from_json("exclude_modules", value)?,
        };
        let layers = layers(json)?;
        if layers.is_some() && !matches!(targets, Modules::Named(_)) {
            return Err("layers_to_transform goes with a list of target_modules alone, as in PEFT".into());
        }
        let unknown = json.iter().filter(|(key, value)| is_set(value) && !KNOWN.contains(&key.as_str()));
        let warnings = unknown
            .map(|(key, _)| format!("the adapter's {key:?} is not known here: it is passed over"))
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
            base_model: get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            dropout: get("lora_dropout").and_then(Value::as_f64).unwrap_or_default(),
            warnings,
        })
    }

    /// The terms that it asks for on a model.
    ///
    /// # Errors
    /// A sentence where it asks for none.
    pub fn layout(&self, architecture: &Architecture) -> Result<LoraLayout, String> {
        let mut terms = Vec::new();
        for layer in 0..architecture.layers {
            for projection in Projection::ALL {
                let module = projection.module(layer);
                if self.includes(&module, layer)? {
                    let rank = matched(&self.ranks, &module)?.unwrap_or(self.rank);
                    let alpha = matched(&self.alphas, &module)?.unwrap_or(self.alpha);
                    terms.push(LoraTerm { layer, projection, rank, alpha });
                }
            }
        }
        if terms.is_empty() {
            let all = Projection::ALL.map(Projection::name).join(", ");
            return Err(format!("target_modules matches no module of this model, which has {all}"));
        }
        Ok(LoraLayout::new(terms, architecture.layers, self.rank_stabilised))
    }

    /// Whether a module has a term: PEFT's `check_target_module_exists`.
    fn includes(&self, module: &str, layer: usize) -> Result<bool, String> {
        if self.excluded.contain(module)? || !self.targets.contain(module)? {
            return Ok(false);
        }
        match (&self.layers, &self.targets) {
            (Some((layers, before)), Modules::Named(names)) if !names.iter().any(|name| name == module) => {
                let placed = before.is_empty() || any(before, module)?;
                Ok(placed && layers.contains(&(layer as i64)))
            }
            // A whole name says its layer itself.
            (_, _) => Ok(true),
        }
    }
}

impl Modules {
    fn from_json(key: &str, value: &Value) -> Result<Modules, String> {
        match value {
            Value::String(text) if text.to_lowercase() == "all-linear" => Ok(Modules::AllLinear),
            Value::String(text) => Ok(Modules::Matching(regex(key, &format!(r"\A(?:{text})\z"))?)),
            Value::Array(names) => {
                let name = |name: &Value| name.as_str().map(str::to_owned);
                let names = names.iter().map(name).collect::<Option<Vec<_>>>();
                names.map(Modules::Named).ok_or_else(|| format!("{key} holds something that is not a name"))
            }
            _ => Err(format!("{key} must be a list of names, or a regular expression")),
        }
    }

    fn contain(&self, module: &str) -> Result<bool, String> {
        Ok(match self {
            Modules::AllLinear => true,
            Modules::Matching(pattern) => is_match(pattern, module)?,
            Modules::Named(names) => {
                let ends =
                    |name: &String| module.strip_suffix(name.as_str()).is_some_and(|m| m.ends_with('.'));
                names.iter().any(|name| name == module || ends(name))
            }
        })
    }
}

/// Python's notion of it: null, false, zero and what is empty are not set.
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

fn initialisation(value: Option<&Value>) -> Result<(), String> {
    match value {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if INNOCENT.contains(&name.to_lowercase().as_str()) => Ok(()),
        Some(other) => Err(format!(
            "init_lora_weights is {other}, which changes the base model's weights: convert the adapter by PEFT's \
             save_pretrained(…, path_initial_model_for_weight_conversion=…), or merge it there and give the merged model"
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
    number.ok_or_else(|| format!("{key} is {value}, expected a number of 32 bits"))
}

/// Settings by a pattern of the modules' names, in the file's order: the first that matches counts. As PEFT's
/// `get_pattern_key`, a pattern begins at a name's beginning or behind one of its dots, and ends at its end.
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

fn matched<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Result<Option<T>, String> {
    for (pattern, value) in patterns {
        if is_match(pattern, module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn layers(json: &Map<String, Value>) -> Result<Option<(Vec<i64>, Vec<Regex>)>, String> {
    let before = match json.get("layers_pattern").filter(|value| is_set(value)) {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(names)) => names
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or("layers_pattern holds something that is not a name")?,
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
    let layers: Vec<i64> = layers.ok_or("layers_to_transform must be a list of layers' numbers")?;
    let name = |name: &&str| regex("layers_pattern", &format!(r"\A(?:|.*?\.){name}\.\d+\."));
    let before = before.iter().map(name).collect::<Result<_, _>>()?;
    Ok(Some((layers, before)).filter(|(layers, _)| !layers.is_empty()))
}

fn regex(key: &str, pattern: &str) -> Result<Regex, String> {
    // The parser is recursive, and nobody writes a longer one.
    if pattern.len() > 4096 {
        return Err(format!(
            "{key} holds a regular expression of {} bytes, expected 4096 or less",
            pattern.len()
        ));
    }
    let built = RegexBuilder::new(pattern).backtrack_limit(MAX_BACKTRACKS).build();
    built.map_err(|e| format!("{key} holds a regular expression that is not read here ({e})"))
}

fn is_match(pattern: &Regex, module: &str) -> Result<bool, String> {
    pattern
        .is_match(module)
        .map_err(|e| format!("a regular expression cannot be matched with {module} ({e})"))
}

fn any(patterns: &[Regex], module: &str) -> Result<bool, String> {
    for pattern in patterns {
        if is_match(pattern, module)? {
            return Ok(true);
        }
    }
    Ok(false)
}
