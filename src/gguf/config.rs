//! Conversion of the metadata of a GGUF file to the `config.json` that transformers would have for the same model,
//! which is read and checked like any other. Missing metadata have the defaults of llama.cpp.

use serde_json::{Map, Value, json};

use super::container::Container;
use super::names::{ARCHITECTURES, ROPE_FREQS, ROPE_LONG, ROPE_SHORT};
use crate::error::Result;
use crate::model::families::FAMILIES;
use crate::model::rope::{Rope, RopeScaling};

/// The layer counts by which llama.cpp detects Gemma's largest models, whose attention is scaled by C / H.
const SCALED_BY_WIDTH: [(&str, u64); 2] = [("gemma2", 46), ("gemma3", 62)];

/// Returns the `config.json` of the model in this file.
///
/// # Errors
/// [`crate::Error::File`] for an architecture that is not supported, and for invalid metadata.
pub(super) fn config_json(container: &Container) -> Result<Value> {
    if let Some(parts) = container.scalar("split.count")?.and_then(Value::as_u64).filter(|parts| *parts > 1) {
        return Err(container.refused(format!(
            "is one of {parts} parts of a model: merge them with llama.cpp's llama-gguf-split --merge"
        )));
    }
    let Some(gguf) = container.text("general.architecture")? else {
        return Err(container.refused("is not a model file: it has no general.architecture"));
    };
    let Some((_, model_type)) = ARCHITECTURES.iter().find(|(name, _)| *name == gguf) else {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
        return Err(container.refused(format!(
            "the architecture is {gguf:?}, supported are {}: use a model of one of these",
            known.join(", ")
        )));
    };
    Reader { container, gguf: &gguf }.read(model_type)
}

struct Reader<'a> {
    container: &'a Container,
    gguf: &'a str,
}

impl Reader<'_> {
    fn read(&self, model_type: &str) -> Result<Value> {
        if self.number("expert_count")?.is_some_and(|n| n > 0.0) {
            return Err(self
                .container
                .refused("the model has experts, which are not supported: use a dense model"));
        }
        let family = FAMILIES.iter().find(|family| family.model_type == model_type).expect("one of them");
        let mut config = json!({
            "architectures": [family.architecture],
            "model_type": model_type,
            "vocab_size": self.vocabulary()?,
        });
        let config_map = config.as_object_mut().expect("just made");
        if self.get("attention.causal")? == Some(Value::Bool(false)) {
            config_map.insert("is_causal".into(), false.into());
        }
        match model_type {
            "gpt2" => self.gpt2(config_map)?,
            _ => self.like_llama(config_map, model_type)?,
        }
        Ok(config)
    }

    /// The number of rows of the embedding.
    fn vocabulary(&self) -> Result<usize> {
        match self.container.tensors().get("token_embd.weight").map(|tensor| &tensor.shape[..]) {
            Some(&[vocab, _]) => Ok(vocab),
            _ => {
                Err(self.container.refused("has no token embedding: it is not the file of a language model"))
            }
        }
    }

    fn gpt2(&self, config: &mut Map<String, Value>) -> Result<()> {
        self.insert(
            config,
            &[
                ("n_embd", "embedding_length"),
                ("n_layer", "block_count"),
                ("n_head", "attention.head_count"),
                ("n_positions", "context_length"),
                ("n_inner", "feed_forward_length"),
                ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
            ],
        )?;
        // Older files repeat the embedding as the head.
        config.insert("tie_word_embeddings".into(), true.into());
        Ok(())
    }

    fn like_llama(&self, config: &mut Map<String, Value>, model_type: &str) -> Result<()> {
        self.insert(
            config,
            &[
                ("hidden_size", "embedding_length"),
                ("num_hidden_layers", "block_count"),
                ("num_attention_heads", "attention.head_count"),
                ("max_position_embeddings", "context_length"),
                ("intermediate_size", "feed_forward_length"),
            ],
        )?;
        let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
        let tied = !self.container.tensors().contains_key("output.weight");
        set("tie_word_embeddings", tied.into());
        let (hidden, heads) = (self.needed("embedding_length")?, self.needed("attention.head_count")?);
        let by_width = hidden / heads;
        let head_dim = self.number("attention.key_length")?.unwrap_or(by_width);
        if self.number("attention.value_length")?.is_some_and(|length| length != head_dim) {
            return Err(self
                .container
                .refused("its value heads have another size than its key heads, which is not supported"));
        }
        if head_dim != by_width || matches!(model_type, "llama" | "qwen3" | "gemma2" | "gemma3_text") {
            set("head_dim", whole(head_dim));
        }
        if model_type != "gpt_neox" {
            set("num_key_value_heads", self.get("attention.head_count_kv")?.unwrap_or(whole(heads)));
        }
        let epsilon = match model_type {
            "gpt_neox" => ("layer_norm_eps", "attention.layer_norm_epsilon"),
            _ => ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        };
        self.insert(config, &[epsilon])?;
        let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
        let has = |name: &str| self.container.tensors().contains_key(name);
        if !matches!(model_type, "qwen2" | "phi3") {
            set("attention_bias", (has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias")).into());
        }
        if has("blk.0.ffn_up.bias") && model_type != "gpt_neox" {
            set("mlp_bias", true.into());
        }
        let rotated = self.number("rope.dimension_count")?.unwrap_or(head_dim) / head_dim;
        let theta = self.get("rope.freq_base")?.unwrap_or(json!(10000.0));
        if model_type == "gpt_neox" {
            set("rotary_emb_base", theta);
            set("rotary_pct", rotated.into());
            let parallel = self.get("use_parallel_residual")?.unwrap_or(true.into());
            set("use_parallel_residual", parallel);
            return Ok(());
        }
        set("rope_theta", theta);
        if rotated != 1.0 {
            set("partial_rotary_factor", rotated.into());
        }
        if let Some(scaling) = self.rope_scaling(head_dim)? {
            set("rope_scaling", scaling);
        }
        match model_type {
            "gemma2" | "gemma3_text" => self.gemma(config, head_dim, by_width),
            "smollm3" => {
                let layers = self.needed("block_count")? as usize;
                let flags: Vec<usize> =
                    (1..=layers.min(4096)).map(|layer| (layer % 4 != 0) as usize).collect();
                set("no_rope_layers", flags.into());
                Ok(())
            }
            "olmo2" if self.number("attention.sliding_window")?.is_some_and(|window| window > 0.0) => {
                Err(self
                    .container
                    .refused("is an OLMo 3, which has sliding windows in some layers: use an OLMo 2"))
            }
            "granite" => {
                if self.container.scalar(&self.key("rope.scaling.finetuned"))? == Some(&Value::Bool(false)) {
                    return Err(self.container.refused("its layers have no RoPE, which is not supported"));
                }
                let scale = self.get("attention.scale")?.filter(|scale| scale.as_f64() != Some(0.0));
                set("attention_multiplier", scale.unwrap_or(json!(1.0 / head_dim.sqrt())));
                self.insert(
                    config,
                    &[
                        ("embedding_multiplier", "embedding_scale"),
                        ("residual_multiplier", "residual_scale"),
                        ("logits_scaling", "logit_scale"),
                    ],
                )
            }
            "phi3" => {
                let window =
                    self.get("attention.sliding_window")?.filter(|window| window.as_u64() != Some(0));
                set("sliding_window", window.unwrap_or(Value::Null));
                self.insert(
                    config,
                    &[("original_max_position_embeddings", "rope.scaling.original_context_length")],
                )
            }
            _ => Ok(()),
        }
    }

    fn gemma(&self, config: &mut Map<String, Value>, head_dim: f64, by_width: f64) -> Result<()> {
        let layers = self.needed("block_count")? as u64;
        let scalar = match SCALED_BY_WIDTH.contains(&(self.gguf, layers)) {
            true => by_width,
            false => head_dim,
        };
        config.insert("query_pre_attn_scalar".into(), scalar.into());
        self.insert(
            config,
            &[
                ("attn_logit_softcapping", "attn_logit_softcapping"),
                ("final_logit_softcapping", "final_logit_softcapping"),
            ],
        )?;
        let (period, window) = match self.gguf {
            "gemma2" => (2, Some(4096.0)),
            _ => (6, None),
        };
        let window = self.number("attention.sliding_window")?.or(window).filter(|window| *window > 0.0);
        let key = self.key("attention.sliding_window_pattern");
        let windowed: Vec<bool> = match self.container.count(&key) {
            Some(_) => {
                let list = self.container.list(&key)?.unwrap_or_default();
                list.iter().map(|flag| flag.as_bool().unwrap_or(flag.as_u64() != Some(0))).collect()
            }
            None => {
                let period = self.number("attention.sliding_window_pattern")?.map_or(period, |n| n as u64);
                (0..layers.min(4096)).map(|layer| period > 1 && layer % period != period - 1).collect()
            }
        };
        let kind = |windowed: &bool| match windowed & window.is_some() {
            true => "sliding_attention",
            false => "full_attention",
        };
        config.insert("layer_types".into(), windowed.iter().map(kind).collect());
        config.insert("sliding_window".into(), whole(window.unwrap_or(4096.0)));
        if self.gguf == "gemma3" {
            let theta = self.get("rope.freq_base_swa")?.unwrap_or(json!(10000.0));
            config.insert("rope_local_base_freq".into(), theta);
        }
        Ok(())
    }

    /// Returns the scaling of the rotary frequencies in the form of `rope_scaling`.
    fn rope_scaling(&self, head_dim: f64) -> Result<Option<Value>> {
        let context = self.needed("context_length")?;
        let original = self.number("rope.scaling.original_context_length")?;
        let kind = self.container.text(&self.key("rope.scaling.type"))?.unwrap_or_default();
        if let Some(short) = self.factors(ROPE_SHORT)? {
            let original = original.unwrap_or(context);
            return Ok(Some(json!({
                "rope_type": "longrope",
                "short_factor": short,
                "long_factor": self.factors(ROPE_LONG)?.unwrap_or(short.clone()),
                "attention_factor": self.get("rope.scaling.attn_factor")?,
                "original_max_position_embeddings": whole(original),
            })));
        }
        if let Some(factors) = self.factors(ROPE_FREQS)? {
            let theta = self.number("rope.freq_base")?.unwrap_or(10000.0);
            return Ok(Some(llama3(&factors, theta, head_dim).unwrap_or_else(|| {
                // Each frequency is divided by its own factor, for sequences of any length.
                json!({
                    "rope_type": "longrope", "short_factor": factors, "long_factor": factors, "attention_factor": 1.0,
                    "original_max_position_embeddings": whole(context),
                })
            })));
        }
        let factor = self.get("rope.scaling.factor")?.filter(|factor| factor.as_f64() != Some(0.0));
        match kind.as_str() {
            "" | "none" => match self.get("rope.scale_linear")?.filter(|factor| factor.as_f64() != Some(1.0)) {
                None => Ok(None),
                Some(factor) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
            },
            "linear" => Ok(factor.map(|factor| json!({"rope_type": "linear", "factor": factor}))),
            "yarn" => {
                let mut yarn = json!({"rope_type": "yarn", "factor": factor.unwrap_or(json!(1.0))});
                let map = yarn.as_object_mut().expect("just made");
                map.insert(
                    "original_max_position_embeddings".into(),
                    whole(original.unwrap_or(context)),
                );
                self.insert(
                    map,
                    &[
                        ("attention_factor", "rope.scaling.yarn_attn_factor"),
                        ("beta_fast", "rope.scaling.yarn_beta_fast"),
                        ("beta_slow", "rope.scaling.yarn_beta_slow"),
                    ],
                )?;
                Ok(Some(yarn))
            }
            other => Err(self.container.refused(format!(
                "rope.scaling.type is {other:?}, supported are \"none\", \"linear\", \"yarn\" and \"longrope\" with its factors"
            ))),
        }
    }

    /// Reads a tensor of factors.
    fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.container.tensors().get(name) else { return Ok(None) };
        let elements: usize = tensor.shape.iter().product();
        if elements > 1 << 16 || !tensor.kind.is_read() {
            return Err(self
                .container
                .refused(format!("tensor {name} has {elements} factors, more than a head can have")));
        }
        self.container.elements(tensor, 0..elements).map(Some)
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.gguf)
    }

    fn get(&self, key: &str) -> Result<Option<Value>> {
        Ok(self.container.scalar(&self.key(key))?.cloned())
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key)? {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Ok(Some(number)),
                None => {
                    Err(self.container.refused(format!("{} is {value}, expected a number", self.key(key))))
                }
            },
        }
    }

    /// A number above 0 that is required.
    fn needed(&self, key: &str) -> Result<f64> {
        match self.number(key)? {
            Some(number) if number > 0.0 => Ok(number),
            Some(number) => {
                Err(self.container.refused(format!("{} is {number}, expected a number > 0", self.key(key))))
            }
            None => Err(self.container.refused(format!("has no {}: download it again", self.key(key)))),
        }
    }

    /// Copies metadata to other names, where they exist.
    fn insert(&self, config: &mut Map<String, Value>, keys: &[(&str, &str)]) -> Result<()> {
        for (ours, theirs) in keys {
            if let Some(value) = self.get(theirs)? {
                config.insert((*ours).to_owned(), value);
            }
        }
        Ok(())
    }
}

/// Converts a computed size to an integer where it is one. Invalid sizes are reported when the configuration is read.
fn whole(number: f64) -> Value {
    match number >= 0.0 && number.fract() == 0.0 && number < 2f64.powi(53) {
        true => (number as u64).into(),
        false => number.into(),
    }
}

/// Returns the settings of Llama 3.1 and later, if they result in these factors.
fn llama3(factors: &[f32], theta: f64, head_dim: f64) -> Option<Value> {
    let factor = factors.iter().copied().fold(1.0, f32::max) as f64;
    let scaling = RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let rotated = 2 * factors.len();
    if rotated as f64 != head_dim {
        return None;
    }
    let frequencies = |scaling| Rope { theta, rotated, scaling }.inverse_frequencies();
    let (plain, scaled) = (frequencies(RopeScaling::Default), frequencies(scaling));
    let same =
        |((plain, scaled), factor): ((&f64, f64), &f32)| (plain / scaled / *factor as f64 - 1.0).abs() < 1e-4;
    let same = plain.iter().zip(scaled).zip(factors).all(same);
    same.then(|| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        })
    })
}
