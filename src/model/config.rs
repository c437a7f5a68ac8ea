//! What a model is made of: `config.json`, in both forms that Hugging Face has given it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::adapter_storage::ADAPTER_CONFIG;
use super::format::FloatFormat;
use super::rope::Rope;
use crate::error::{Error, Result};
use crate::files;

/// The architectures that [`ModelConfig::load`] accepts.
pub const ARCHITECTURES: [&str; 1] = ["LlamaForCausalLM"];

/// The sizes and settings of a decoder, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// One of [`ARCHITECTURES`].
    pub architecture: String,
    /// C: the width of the residual stream.
    pub hidden_size: usize,
    /// F: the width inside the feed-forward block.
    pub intermediate_size: usize,
    /// L: how many layers.
    pub num_layers: usize,
    /// H: how many query heads.
    pub heads: usize,
    /// K: how many key and value heads; divides H.
    pub kv_heads: usize,
    /// D: the size of a head, a multiple of 8. H·D may differ from C.
    pub head_dim: usize,
    /// V: how many token ids have an embedding.
    pub vocab_size: usize,
    /// ε of RMSNorm.
    pub rms_norm_eps: f64,
    /// The rotary position embedding.
    pub rope: Rope,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head's matrix is the embedding's.
    pub tie_word_embeddings: bool,
    /// What a user of this model should know about its file.
    pub warnings: Vec<String>,
    /// The file as it was read, so that a saved model keeps what this struct does not know.
    pub raw: Value,
}

/// `config.json` as it is written; what is missing gets `transformers`' default for a Llama.
#[derive(Deserialize)]
struct Raw {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    is_causal: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    attention_dropout: Option<f64>,
    #[serde(default)]
    quantization_config: Value,
}

/// The largest width, vocabulary or head: far above any model's, and far below what would overflow a size.
const MAX_SIZE: usize = 1 << 24;
/// The most layers.
const MAX_LAYERS: usize = 1024;
/// The most weights of a model.
const MAX_WEIGHTS: u128 = 1 << 40;

/// Keys of relatives of Llama that change what a model computes, but not in [`ARCHITECTURES`]; 1 is as good as absent.
const UNUSED: [&str; 10] = [
    "sliding_window",
    "attention_multiplier",
    "logits_scaling",
    "residual_multiplier",
    "embedding_multiplier",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "clip_qkv",
    "use_qk_norm",
];

impl ModelConfig {
    /// Reads and checks `config.json` in `dir`. What it gets wrong, and what this crate cannot run, is
    /// [`Error::File`].
    pub fn load(dir: &Path) -> Result<ModelConfig> {
        let path = dir.join("config.json");
        let json = files::read_json_if_present(&path)?.ok_or_else(|| {
            let why = match dir.join(ADAPTER_CONFIG).exists() {
                true => "is a LoRA adapter's folder: give its base model's folder as the model, this one as adapter",
                false => "has no config.json: give a model's folder as Hugging Face lays it out",
            };
            Error::file(dir, why)
        })?;
        ModelConfig::from_json(json).map_err(|why| Error::file(path, why))
    }

    /// Checks the content of a `config.json`. The error says what is wrong with it, without the path.
    pub fn from_json(json: Value) -> Result<ModelConfig, String> {
        let raw = Raw::deserialize(&json).map_err(|e| format!("is not a model's configuration ({e})"))?;
        let architecture = architecture(&raw)?;
        if raw.attention_bias == Some(true) || raw.mlp_bias == Some(true) {
            let key = if raw.mlp_bias == Some(true) { "mlp_bias" } else { "attention_bias" };
            return Err(format!(
                "{key} is true: projections with a bias are not supported yet, use another model"
            ));
        }
        if raw.is_causal == Some(false) {
            return Err(
                "is_causal is false: only models whose tokens see none after them are supported".into()
            );
        }
        if !raw.quantization_config.is_null() {
            return Err(
                "quantization_config is set: quantised weights are not read, take the model's own in \
                        float32, float16 or bfloat16"
                    .into(),
            );
        }
        match raw.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => return Err(format!("hidden_act is \"{other}\", only \"silu\" is supported")),
        }
        let (hidden_size, heads) = (raw.hidden_size, raw.num_attention_heads);
        let kv_heads = raw.num_key_value_heads.unwrap_or(heads);
        let max_position_embeddings = raw.max_position_embeddings.unwrap_or(2048);
        for (key, size, limit) in [
            ("hidden_size", hidden_size, MAX_SIZE),
            ("intermediate_size", raw.intermediate_size, MAX_SIZE),
            ("num_hidden_layers", raw.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", heads, MAX_SIZE),
            ("num_key_value_heads", kv_heads, MAX_SIZE),
            ("vocab_size", raw.vocab_size, MAX_SIZE),
            ("max_position_embeddings", max_position_embeddings, i32::MAX as usize),
        ] {
            if size == 0 || size > limit {
                return Err(format!("{key} is {size}, expected 1 to {limit}"));
            }
        }
        let head_dim = match raw.head_dim {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                return Err(format!(
                    "hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
                ));
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(8) {
            return Err(format!("the head size is {head_dim}, only multiples of 8 are supported"));
        }
        if head_dim > MAX_SIZE / heads {
            let why = format!("{heads} heads of size {head_dim} are wider than {MAX_SIZE}");
            return Err(format!("{why}: are num_attention_heads and head_dim right?"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            ));
        }
        let rms_norm_eps = raw.rms_norm_eps.unwrap_or(1e-6);
        if !(rms_norm_eps.is_finite() && rms_norm_eps >= 0.0) {
            return Err(format!("rms_norm_eps is {rms_norm_eps}, expected a number ≥ 0"));
        }
        let [c, f, l, v] =
            [hidden_size, raw.intermediate_size, raw.num_hidden_layers, raw.vocab_size].map(|n| n as u128);
        let weights = 2 * v * c + l * c * (3 * f + (2 * (heads + kv_heads) * head_dim) as u128);
        if weights > MAX_WEIGHTS {
            return Err(format!(
                "vocab_size, hidden_size, intermediate_size and num_hidden_layers describe {weights} weights, more \
                 than {MAX_WEIGHTS}: are they right?"
            ));
        }
        let mut warnings = Vec::new();
        let set = |key: &&str| {
            json.get(*key)
                .is_some_and(|v| !v.is_null() && *v != Value::Bool(false) && v.as_f64() != Some(1.0))
        };
        // Where it is said not to be used, its size is no surprise.
        let in_use =
            |key: &&str| *key != "sliding_window" || json["use_sliding_window"] != Value::Bool(false);
        for key in UNUSED.iter().filter(|key| set(key) && in_use(key)) {
            warnings.push(format!("config.json has {key}, which {architecture} does not use"));
        }
        if raw.attention_dropout.is_some_and(|p| p > 0.0) {
            warnings.push("config.json has attention_dropout, which training here does not do".into());
        }
        let rope = Rope::from_json(&json, max_position_embeddings, &mut warnings)?;
        Ok(ModelConfig {
            architecture,
            hidden_size,
            intermediate_size: raw.intermediate_size,
            num_layers: raw.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            vocab_size: raw.vocab_size,
            rms_norm_eps,
            rope,
            max_position_embeddings,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            warnings,
            raw: json,
        })
    }

    /// Gives the head a matrix of its own, for the reason `why`, and says so in what is saved.
    pub(super) fn untie(&mut self, why: String) {
        self.tie_word_embeddings = false;
        self.raw["tie_word_embeddings"] = false.into();
        self.warnings.push(why);
    }

    /// Says in what is saved how the weights are stored, by the keys that are there, or else the newer one.
    pub(super) fn set_dtype(&mut self, format: FloatFormat) {
        let keys: Vec<&str> =
            ["dtype", "torch_dtype"].into_iter().filter(|key| self.raw.get(key).is_some()).collect();
        for key in if keys.is_empty() { vec!["dtype"] } else { keys } {
            self.raw[key] = format.name().into();
        }
    }

    /// Writes `config.json` into `dir` as it was read.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.raw).expect("a JSON value");
        text.push('\n');
        files::write_atomic(&dir.join("config.json"), text.as_bytes())
    }
}

fn architecture(raw: &Raw) -> Result<String, String> {
    let stated = raw.architectures.as_ref().and_then(|list| list.first());
    let found = match (stated, raw.model_type.as_deref()) {
        // transformers goes by model_type, which may change the maths under the same tensor names.
        (Some(stated), Some(family)) if ARCHITECTURES.contains(&stated.as_str()) && family != "llama" => {
            return Err(format!("architectures says {stated}, model_type says \"{family}\": which is it?"));
        }
        (Some(stated), _) => stated.as_str(),
        (None, Some("llama")) => "LlamaForCausalLM",
        (None, other) => other.unwrap_or("missing"),
    };
    if ARCHITECTURES.contains(&found) {
        return Ok(found.to_owned());
    }
    Err(format!("the architecture is {found}, supported are {}: use such a model", ARCHITECTURES.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::files::shared;
    use crate::model::rope::RopeScaling;

    /// A small configuration, with `changes` applied (null removes).
    fn config(changes: Value) -> Result<ModelConfig, String> {
        let mut json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
            "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
            "rms_norm_eps": 1e-5, "eos_token_id": 2, "rope_theta": 5e5
        });
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        ModelConfig::from_json(json)
    }

    #[track_caller]
    fn assert_refused(changes: Value, part: &str) {
        let why = config(changes).unwrap_err();
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    }

    #[test]
    fn real_configurations_are_read() {
        let Some(dir) = shared("models/stories260K") else { return };
        let c = ModelConfig::load(&dir).unwrap();
        assert_eq!(
            (c.hidden_size, c.intermediate_size, c.num_layers, c.heads, c.kv_heads),
            (64, 172, 5, 8, 4)
        );
        assert_eq!(
            (c.head_dim, c.vocab_size, c.rms_norm_eps, c.max_position_embeddings),
            (8, 512, 1e-5, 512)
        );
        assert_eq!(c.rope, Rope { theta: 10_000.0, scaling: RopeScaling::Default });
        assert!(c.tie_word_embeddings);
        let c = ModelConfig::load(&shared("models/TinyStories-656K").unwrap()).unwrap();
        assert_eq!((c.hidden_size, c.intermediate_size, c.num_layers, c.vocab_size), (128, 384, 2, 2048));
    }

    #[test]
    fn what_is_missing_gets_the_defaults_of_transformers() {
        let c = config(json!({"rms_norm_eps": null, "num_key_value_heads": null, "rope_theta": null,
            "architectures": null}))
        .unwrap();
        assert_eq!((c.kv_heads, c.head_dim, c.rms_norm_eps, c.rope.theta), (8, 8, 1e-6, 1e4));
        assert_eq!((c.max_position_embeddings, c.tie_word_embeddings), (2048, false));
        assert_eq!(c.architecture, "LlamaForCausalLM");
    }

    #[test]
    fn the_head_size_may_be_apart_from_the_width() {
        assert_eq!(config(json!({"head_dim": 32})).unwrap().head_dim, 32);
        assert_eq!(config(json!({"head_dim": 32, "hidden_size": 60})).unwrap().hidden_size, 60);
    }

    #[test]
    fn both_forms_of_the_rotary_settings_mean_the_same() {
        let llama3 = json!({"rope_type": "llama3", "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let mut newer = llama3.clone();
        newer["rope_theta"] = json!(5e5);
        let old = config(json!({"rope_scaling": llama3})).unwrap();
        let new = config(json!({"rope_theta": null, "rope_parameters": newer})).unwrap();
        assert_eq!(old.rope, new.rope);
        assert_eq!(old.rope.theta, 5e5);
        assert!(matches!(
            old.rope.scaling,
            RopeScaling::Llama3 { original_max_position_embeddings: 8192, .. }
        ));
        let default =
            config(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})).unwrap();
        assert_eq!(default.rope, config(json!({})).unwrap().rope);
    }

    #[test]
    fn a_saved_configuration_is_the_one_that_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let c = config(json!({"something_newer": {"z": 1, "a": [2]}})).unwrap();
        c.save(dir.path()).unwrap();
        assert_eq!(ModelConfig::load(dir.path()).unwrap(), c);
    }

    #[test]
    fn an_unknown_architecture_lists_the_known() {
        assert_refused(
            json!({"architectures": ["GPT2LMHeadModel"]}),
            "is GPT2LMHeadModel, supported are LlamaForCausalLM",
        );
        assert_refused(json!({"architectures": null, "model_type": "gpt2"}), "is gpt2");
    }

    #[test]
    fn unsupported_settings_are_refused() {
        assert_refused(json!({"attention_bias": true}), "attention_bias is true");
        assert_refused(json!({"mlp_bias": true}), "mlp_bias is true");
        assert_refused(json!({"is_causal": false}), "is_causal is false");
        assert_refused(json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\"");
        let quantised = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
        assert_refused(json!({"quantization_config": quantised}), "quantization_config is set");
        assert_refused(json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "\"linear\"");
        assert_refused(json!({"rope_parameters": {"rope_type": "yarn"}}), "\"yarn\"");
        assert_refused(json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor");
    }

    #[test]
    fn a_family_that_contradicts_the_architecture_is_refused() {
        assert_refused(json!({"model_type": "mistral"}), "model_type says \"mistral\"");
        assert_refused(
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            "LlamaForSequenceClassification",
        );
        config(json!({"model_type": null})).unwrap();
    }

    #[test]
    fn settings_that_a_llama_does_not_use_are_warned_about() {
        for key in UNUSED {
            let set = config(json!({key: 4})).unwrap();
            assert_eq!(set.warnings, [format!("config.json has {key}, which LlamaForCausalLM does not use")]);
            for neutral in [json!(null), json!(false), json!(1.0)] {
                assert!(config(json!({key: neutral})).unwrap().warnings.is_empty());
            }
        }
        let off = config(json!({"sliding_window": 4096, "use_sliding_window": false})).unwrap();
        assert!(off.warnings.is_empty(), "{:?}", off.warnings);
        assert_eq!(config(json!({"attention_dropout": 0.1})).unwrap().warnings.len(), 1);
    }

    #[test]
    fn a_saved_configuration_says_how_its_weights_are_stored() {
        let saved = |changes: Value| {
            let mut c = config(changes).unwrap();
            c.set_dtype(FloatFormat::F16);
            (c.raw["dtype"].clone(), c.raw["torch_dtype"].clone())
        };
        assert_eq!(saved(json!({})), (json!("float16"), json!(null)));
        assert_eq!(saved(json!({"torch_dtype": "float32"})), (json!(null), json!("float16")));
        assert_eq!(saved(json!({"dtype": "float32"})), (json!("float16"), json!(null)));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_refused(
            json!({"num_attention_heads": 6, "num_key_value_heads": 4, "head_dim": 8}),
            "6 is not a multiple",
        );
        assert_refused(json!({"num_attention_heads": 7}), "64 is not a multiple of num_attention_heads 7");
        assert_refused(json!({"num_attention_heads": 0}), "num_attention_heads is 0");
        assert_refused(json!({"num_key_value_heads": 0}), "num_key_value_heads is 0");
        assert_refused(json!({"vocab_size": 0}), "vocab_size is 0");
        assert_refused(json!({"hidden_size": 1u64 << 40}), "hidden_size is 1099511627776");
        assert_refused(
            json!({"hidden_size": 2_147_483_640u32}),
            "hidden_size is 2147483640, expected 1 to 16777216",
        );
        assert_refused(json!({"num_hidden_layers": 2_000_000_000u32}), "num_hidden_layers is 2000000000");
        assert_refused(json!({"vocab_size": 2_000_000_000u32}), "vocab_size is 2000000000");
        assert_refused(json!({"vocab_size": 1 << 24, "hidden_size": 1 << 24}), "describe");
        assert_refused(json!({"head_dim": 1u64 << 62}), "wider than 16777216");
        assert_refused(json!({"head_dim": u64::MAX - 7}), "wider than 16777216");
        assert_refused(
            json!({"max_position_embeddings": 1u64 << 31}),
            "max_position_embeddings is 2147483648",
        );
        assert_refused(json!({"head_dim": 6}), "multiples of 8");
        assert_refused(json!({"head_dim": 0}), "multiples of 8");
        assert_refused(json!({"vocab_size": -1}), "not a model's configuration");
        assert_refused(json!({"vocab_size": null}), "not a model's configuration");
        assert_refused(json!({"rms_norm_eps": -1.0}), "rms_norm_eps is -1");
        assert_refused(json!({"rope_theta": 0}), "rope_theta is 0");
        let llama3 =
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0});
        assert_refused(json!({"rope_scaling": llama3}), "must be above");
        assert_refused(json!({"rope_scaling": {"rope_type": "llama3"}}), "needs low_freq_factor");
    }

    #[test]
    fn a_file_that_is_absent_or_not_json_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = ModelConfig::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has no config.json"), "{error}");
        files::write_atomic(&dir.path().join("config.json"), b"[]").unwrap();
        let error = ModelConfig::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.json: is not a model's configuration"), "{error}");
    }
}
