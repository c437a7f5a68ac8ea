//! A model's configuration: `config.json`, in both forms that Hugging Face has used.

use std::path::Path;

use serde_json::{Value, json};

use super::adapter_storage::ADAPTER_CONFIG;
use super::architecture::Architecture;
use super::families::{FAMILIES, Family, UNSUPPORTED};
use super::format::FloatFormat;
use super::settings::Settings;
use super::storage::INITIALIZER_RANGE;
use crate::error::{Error, Result};
use crate::{files, gguf};

/// The checked description of a decoder, and the file that it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The name of the family's causal language model, as in `architectures`.
    pub name: String,
    /// The architecture of the decoder.
    pub architecture: Architecture,
    /// Warnings about the file, to be shown to the user.
    pub warnings: Vec<String>,
    /// The file as it was read, so that a saved model keeps keys that are unknown here.
    pub raw: Value,
}

/// The largest number of weights of a model.
const MAX_WEIGHTS: u128 = 1 << 40;

/// Keys that change the computation of some families, and the families that use them. A value of 1 is treated as
/// absent.
const USED_BY: [(&str, &[&str]); 10] = [
    (
        "sliding_window",
        &[
            "MistralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen3ForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForCausalLM",
            "SmolLM3ForCausalLM",
            "Phi3ForCausalLM",
        ],
    ),
    ("attention_multiplier", &["GraniteForCausalLM"]),
    ("logits_scaling", &["GraniteForCausalLM"]),
    ("residual_multiplier", &["GraniteForCausalLM"]),
    ("embedding_multiplier", &["GraniteForCausalLM"]),
    ("final_logit_softcapping", &["Gemma2ForCausalLM", "Gemma3ForCausalLM"]),
    ("attn_logit_softcapping", &["Gemma2ForCausalLM"]),
    ("query_pre_attn_scalar", &["Gemma2ForCausalLM", "Gemma3ForCausalLM"]),
    ("clip_qkv", &[]),
    ("use_qk_norm", &[]),
];

/// Keys of dropout, which training here does not apply.
const DROPOUTS: [&str; 6] =
    ["attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "embedding_dropout"];

impl ModelConfig {
    /// Reads and checks `config.json` in `dir`, or the metadata of a GGUF file. Invalid and unsupported settings are
    /// [`Error::File`].
    pub fn load(dir: &Path) -> Result<ModelConfig> {
        let (path, json) = gguf::json(dir, "config.json")?;
        let json = json.ok_or_else(|| {
            let why = match files::exists(&dir.join(ADAPTER_CONFIG)) {
                true => "is the folder of a LoRA adapter: give its base model's folder as the model and this one as the adapter",
                false => "has no config.json: give a model folder in the Hugging Face layout",
            };
            Error::file(dir, why)
        })?;
        let mut config = ModelConfig::from_json(json).map_err(|why| Error::file(&path, why))?;
        if dir != path && gguf::has_gguf_extension(&path) {
            config
                .warnings
                .push(format!("the weights are read from {}, the only ones in its folder", path.display()));
        }
        Ok(config)
    }

    /// Checks the content of a `config.json`. The error describes the fault, without the path.
    pub fn from_json(json: Value) -> Result<ModelConfig, String> {
        if !json.is_object() {
            return Err("is not a model configuration (it is not an object)".into());
        }
        let settings = Settings::new(&json);
        let (family, rates) = family(&json)?;
        if settings.get("is_causal") == Some(&Value::Bool(false)) {
            return Err("is_causal is false: only models with causal attention are supported".into());
        }
        if settings.get("quantization_config").is_some() {
            return Err(
                "quantization_config is set: quantised weights cannot be read, use the model's original weights in \
                        float32, float16 or bfloat16"
                    .into(),
            );
        }
        let mut warnings = Vec::new();
        let mut architecture = family.describe(&settings, &mut warnings)?;
        if rates {
            check_one_label(&json)?;
            (architecture.rates, architecture.tied) = (true, false);
        }
        let weights = architecture.elements();
        if weights > MAX_WEIGHTS {
            return Err(format!(
                "vocab_size, hidden_size, intermediate_size and num_hidden_layers result in {weights} weights, more \
                 than {MAX_WEIGHTS}: check these values"
            ));
        }
        let name = family.architecture;
        let set = |key: &str| {
            json.get(key).is_some_and(|v| !v.is_null() && *v != Value::Bool(false) && v.as_f64() != Some(1.0))
        };
        // The size of a window that is switched off needs no warning.
        let in_use = |key: &str| key != "sliding_window" || json["use_sliding_window"] != Value::Bool(false);
        for (key, families) in USED_BY {
            if set(key) && in_use(key) && !families.contains(&name) {
                warnings.push(format!("config.json has {key}, which {name} does not use"));
            }
        }
        for key in DROPOUTS {
            if settings.number(key)?.is_some_and(|p| p > 0.0) {
                warnings.push(format!("config.json has {key}, but training here has no dropout"));
            }
        }
        let name = if rates { family.reward_architecture() } else { name.to_owned() };
        Ok(ModelConfig { name, architecture, warnings, raw: json })
    }

    /// Converts this to the configuration of a reward model, as `AutoModelForSequenceClassification` reads it.
    /// `padding` is the padding token if the file has none.
    ///
    /// # Errors
    /// [`Error::Config`] for a decoder without such a class in `transformers`.
    pub(crate) fn into_reward(mut self, padding: Option<u32>) -> Result<ModelConfig> {
        if self.architecture.rates {
            return Ok(self);
        }
        let (family, _) = family(&self.raw).expect("read before");
        if family.model_type == "granite" {
            let why = "is a Granite, for which transformers has no AutoModelForSequenceClassification: use another family";
            return Err(Error::config("model", why));
        }
        self.name = family.reward_architecture();
        (self.architecture.rates, self.architecture.tied) = (true, false);
        self.raw["architectures"] = json!([self.name]);
        self.raw["num_labels"] = 1.into();
        self.raw["id2label"] = json!({"0": "LABEL_0"});
        self.raw["label2id"] = json!({"LABEL_0": 0});
        if self.raw["pad_token_id"].as_u64().is_none() {
            self.raw["pad_token_id"] = padding.into();
        }
        Ok(self)
    }

    /// The standard deviation of new weights.
    pub(super) fn initializer_range(&self) -> f64 {
        self.raw.get("initializer_range").and_then(Value::as_f64).unwrap_or(INITIALIZER_RANGE)
    }

    /// The id of the padding token in `config.json`.
    pub fn padding(&self) -> Option<u32> {
        self.raw["pad_token_id"].as_u64().and_then(|id| id.try_into().ok())
    }

    /// Gives the head its own matrix, also in the saved configuration; `why` becomes a warning.
    pub(super) fn separate_head(&mut self, why: String) {
        self.architecture.tied = false;
        self.raw["tie_word_embeddings"] = false.into();
        self.warnings.push(why);
    }

    /// Records the format of the weights in the saved configuration: under the keys that it has, or under `dtype`, the
    /// newer one.
    pub(super) fn set_dtype(&mut self, format: FloatFormat) {
        let keys: Vec<&str> =
            ["dtype", "torch_dtype"].into_iter().filter(|key| self.raw.get(key).is_some()).collect();
        for key in if keys.is_empty() { vec!["dtype"] } else { keys } {
            self.raw[key] = format.name().into();
        }
    }

    /// Writes `config.json` to `dir`, with the keys that were read.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(&self.raw).expect("a JSON value");
        text.push('\n');
        files::write_atomic(&dir.join("config.json"), text.as_bytes())
    }
}

/// Returns an error for a classifier with more than one label.
fn check_one_label(json: &Value) -> Result<(), String> {
    let named = json["id2label"].as_object().map(|labels| labels.len() as u64);
    // The default of transformers is two.
    match named.or(json["num_labels"].as_u64()).unwrap_or(2) {
        1 => Ok(()),
        labels => Err(format!("num_labels is {labels}: only classifiers of one label are reward models")),
    }
}

/// Returns the family of a model by `architectures`, or else by `model_type`, and whether it is a reward model.
fn family(json: &Value) -> Result<(&'static Family, bool), String> {
    let model_type = json["model_type"].as_str();
    let stated = match &json["architectures"] {
        Value::Null => None,
        Value::Array(names) => names.first().and_then(Value::as_str),
        _ => return Err("is not a model configuration (architectures is not a list)".into()),
    };
    let of_name = |stated: &str| {
        let families = FAMILIES.iter().flat_map(|family| [(family, false), (family, true)]);
        let name = |(family, rates): &(&'static Family, bool)| match rates {
            true => family.reward_architecture(),
            false => family.architecture.to_owned(),
        };
        families.into_iter().find(|found| name(found) == stated)
    };
    let named = stated.map(of_name);
    match (named, model_type) {
        // transformers uses model_type, which can mean another computation with the same tensor names.
        (Some(Some((family, _))), Some(model_type)) if family.model_type != model_type => {
            let stated = stated.unwrap_or_default();
            return Err(format!(
                "architectures says {stated}, but model_type says \"{model_type}\": correct the wrong one"
            ));
        }
        (Some(Some(found)), _) => return Ok(found),
        (None, Some(model_type)) => {
            if let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) {
                return Ok((family, false));
            }
        }
        (Some(None) | None, _) => {}
    }
    let found = stated.or(model_type).unwrap_or("missing");
    if let Some((.., why)) =
        UNSUPPORTED.iter().find(|(name, model_type, _)| [*name, *model_type].contains(&found))
    {
        return Err(format!("the architecture {found} is not supported: it {why}"));
    }
    let supported: Vec<&str> = FAMILIES.iter().map(|family| family.architecture).collect();
    Err(format!(
        "the architecture is {found}, supported are {}: use a model of one of these",
        supported.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::shared;
    use crate::model::rope::{Rope, RopeScaling};

    /// A small configuration with `changes` applied; null removes a key.
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
        let a = ModelConfig::load(&dir).unwrap().architecture;
        assert_eq!((a.hidden, a.feed_forward_size, a.layers, a.heads, a.kv_heads), (64, 172, 5, 8, 4));
        assert_eq!((a.head_dim, a.vocab, a.norm.epsilon, a.context), (8, 512, 1e-5, 512));
        let rope = Rope { theta: 10_000.0, rotated: 8, scaling: RopeScaling::Default };
        assert_eq!(a.attention.ropes, [rope]);
        assert!(a.tied);
        let a = ModelConfig::load(&shared("models/TinyStories-656K").unwrap()).unwrap().architecture;
        assert_eq!((a.hidden, a.feed_forward_size, a.layers, a.vocab), (128, 384, 2, 2048));
    }

    #[test]
    fn missing_settings_have_the_defaults_of_transformers() {
        let c = config(json!({"rms_norm_eps": null, "num_key_value_heads": null, "rope_theta": null,
            "architectures": null}))
        .unwrap();
        assert_eq!(c.name, "LlamaForCausalLM");
        let a = c.architecture;
        assert_eq!((a.kv_heads, a.head_dim, a.norm.epsilon, a.attention.ropes[0].theta), (8, 8, 1e-6, 1e4));
        assert_eq!((a.context, a.tied), (2048, false));
    }

    #[test]
    fn the_head_size_is_independent_of_the_width() {
        assert_eq!(config(json!({"head_dim": 32})).unwrap().architecture.head_dim, 32);
        assert_eq!(config(json!({"head_dim": 32, "hidden_size": 60})).unwrap().architecture.hidden, 60);
    }

    #[test]
    fn both_forms_of_the_rope_settings_are_equivalent() {
        let llama3 = json!({"rope_type": "llama3", "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let mut newer = llama3.clone();
        newer["rope_theta"] = json!(5e5);
        let ropes = |changes| config(changes).unwrap().architecture.attention.ropes;
        let old = ropes(json!({"rope_scaling": llama3}));
        assert_eq!(old, ropes(json!({"rope_theta": null, "rope_parameters": newer})));
        assert_eq!(old[0].theta, 5e5);
        assert!(matches!(old[0].scaling, RopeScaling::Llama3 { original_max_position_embeddings: 8192, .. }));
        let default = ropes(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}));
        assert_eq!(default, ropes(json!({})));
    }

    #[test]
    fn a_saved_configuration_is_the_one_that_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let c = config(json!({"something_newer": {"z": 1, "a": [2]}})).unwrap();
        c.save(dir.path()).unwrap();
        assert_eq!(ModelConfig::load(dir.path()).unwrap(), c);
    }

    #[test]
    fn the_error_for_an_unknown_architecture_lists_the_supported_ones() {
        assert_refused(
            json!({"architectures": ["MambaForCausalLM"]}),
            "is MambaForCausalLM, supported are LlamaForCausalLM, MistralForCausalLM",
        );
        assert_refused(json!({"architectures": null, "model_type": "mamba"}), "is mamba");
        for (name, model_type, why) in UNSUPPORTED {
            assert_refused(json!({"architectures": [name], "model_type": model_type}), why);
            assert_refused(json!({"architectures": null, "model_type": model_type}), why);
        }
    }

    #[test]
    fn unsupported_settings_are_refused() {
        assert_refused(json!({"is_causal": false}), "is_causal is false");
        assert_refused(json!({"hidden_act": "relu"}), "hidden_act is \"relu\"");
        let quantised = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
        assert_refused(json!({"quantization_config": quantised}), "quantization_config is set");
        assert_refused(json!({"rope_scaling": {"type": "mrope", "factor": 2.0}}), "\"mrope\"");
        assert_refused(json!({"rope_parameters": {"partial_rotary_factor": 1.5}}), "partial_rotary_factor");
    }

    #[test]
    fn a_classifier_of_one_label_is_a_reward_model() {
        let reward = |labels: Value| {
            config(json!({
                "architectures": ["LlamaForSequenceClassification"], "id2label": labels, "tie_word_embeddings": true
            }))
        };
        let one = reward(json!({"0": "LABEL_0"})).unwrap();
        assert_eq!(
            (&*one.name, one.architecture.rates, one.architecture.tied),
            ("LlamaForSequenceClassification", true, false)
        );
        let head = one.architecture.weights().pop().unwrap();
        assert_eq!((&*head.name, head.shape), ("score.weight", vec![1, 64]));
        for labels in [json!({"0": "a", "1": "b"}), Value::Null] {
            assert!(reward(labels).unwrap_err().contains("num_labels is 2"));
        }
        let made = config(json!({})).unwrap().into_reward(Some(3)).unwrap();
        assert_eq!(made.architecture, one.architecture);
        assert_eq!((made.padding(), &made.raw["num_labels"]), (Some(3), &json!(1)));
        assert_eq!(ModelConfig::from_json(made.raw.clone()).unwrap().architecture, made.architecture);
    }

    #[test]
    fn a_family_that_contradicts_the_architecture_is_refused() {
        assert_refused(json!({"model_type": "mistral"}), "model_type says \"mistral\"");
        assert_refused(
            json!({"architectures": ["LlamaForTokenClassification"]}),
            "LlamaForTokenClassification",
        );
        config(json!({"model_type": null})).unwrap();
    }

    #[test]
    fn settings_that_a_llama_does_not_use_are_warned_about() {
        for (key, _) in USED_BY {
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
    fn a_saved_configuration_has_the_format_of_its_weights() {
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
        assert_refused(json!({"vocab_size": 1 << 24, "hidden_size": 1 << 24}), "result in");
        assert_refused(json!({"head_dim": 1u64 << 62}), "wider than 16777216");
        assert_refused(json!({"head_dim": u64::MAX - 7}), "wider than 16777216");
        assert_refused(
            json!({"max_position_embeddings": 1u64 << 31}),
            "max_position_embeddings is 2147483648",
        );
        assert_refused(json!({"head_dim": 6}), "multiples of 8");
        assert_refused(json!({"head_dim": 0}), "multiples of 8");
        assert_refused(json!({"vocab_size": -1}), "vocab_size is -1");
        assert_refused(json!({"vocab_size": null}), "vocab_size is missing");
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
        assert!(error.contains("config.json: is not a model configuration"), "{error}");
    }
}
