//! Conversion of a model's architecture to the metadata of a GGUF file, with checks for what llama.cpp would compute
//! differently.

use serde_json::Value;

use super::export::GgufFormat;
use super::names::{ARCHITECTURES, ROPE_FREQS, ROPE_LONG, ROPE_SHORT};
use super::writer::Metadata;
use crate::error::{Error, Result};
use crate::model::architecture::Block;
use crate::model::rope::{Rope, RopeScaling};
use crate::model::{Architecture, ModelConfig};
use crate::ops::{Activation, NormKind};

/// What a model's architecture requires in addition to metadata.
pub(super) struct Described {
    /// The name of the architecture in GGUF.
    pub gguf: &'static str,
    /// Whether the embedding is written again as the head, which llama.cpp requires.
    pub repeats_embedding: bool,
    /// Tensors with factors of the rotary frequencies.
    pub factors: Vec<(&'static str, Vec<f32>)>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// Adds the metadata of a model with this architecture.
///
/// # Errors
/// [`Error::Config`] for a model that llama.cpp would compute differently.
pub(super) fn describe(
    metadata: &mut Metadata,
    config: &ModelConfig,
    a: &Architecture,
    format: GgufFormat,
) -> Result<Described> {
    if a.rates {
        return Err(refused("GGUF has no tensor for the head of a reward model"));
    }
    let model_type = match config.name.as_str() {
        // The same as Llama except for the sliding window.
        "MistralForCausalLM" => "llama",
        name => crate::model::families::FAMILIES
            .iter()
            .find(|family| family.architecture == name)
            .map_or("", |family| family.model_type),
    };
    let Some(&(gguf, _)) = ARCHITECTURES.iter().find(|(_, known)| *known == model_type) else {
        return Err(refused(format!("llama.cpp does not support {}", config.name)));
    };
    metadata.text("general.architecture", gguf);
    metadata.text("general.type", "model");
    metadata.u32("general.file_type", format.file_type());
    metadata.u32("general.quantization_version", 2);
    let mut writer = Writer {
        metadata,
        a,
        gguf,
        out: Described { gguf, repeats_embedding: false, factors: Vec::new(), warnings: Vec::new() },
    };
    writer.sizes(config);
    writer.head()?;
    writer.biases()?;
    writer.activation()?;
    writer.attention()?;
    writer.windows()?;
    writer.positions(config)?;
    Ok(writer.out)
}

fn refused(why: impl Into<String>) -> Error {
    Error::config("gguf", format!("{}: export a folder instead", why.into()))
}

struct Writer<'a> {
    metadata: &'a mut Metadata,
    a: &'a Architecture,
    gguf: &'static str,
    out: Described,
}

impl Writer<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.gguf)
    }

    fn u32(&mut self, key: &str, value: usize) {
        let key = self.key(key);
        self.metadata.u32(&key, value as u32);
    }

    fn f32(&mut self, key: &str, value: f64) {
        let key = self.key(key);
        self.metadata.f32(&key, value);
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.gguf)
    }

    fn sizes(&mut self, config: &ModelConfig) {
        let a = self.a;
        // The context in the file, since a scaling for longer contexts may be limited here.
        let stated =
            ["max_position_embeddings", "n_positions"].iter().find_map(|key| config.raw[*key].as_u64());
        self.u32("context_length", a.context.max(stated.unwrap_or(0) as usize));
        self.u32("embedding_length", a.hidden);
        self.u32("block_count", a.layers);
        self.u32("feed_forward_length", a.feed_forward_size);
        self.u32("vocab_size", a.vocab);
        self.u32("attention.head_count", a.heads);
        self.u32("attention.head_count_kv", a.kv_heads);
        self.u32("attention.key_length", a.head_dim);
        self.u32("attention.value_length", a.head_dim);
        match a.norm.kind {
            NormKind::Layer => self.f32("attention.layer_norm_epsilon", a.norm.epsilon as f64),
            _ => self.f32("attention.layer_norm_rms_epsilon", a.norm.epsilon as f64),
        }
        if self.gguf == "gptneox" {
            let key = self.key("use_parallel_residual");
            self.metadata.flag(&key, a.block == Block::Parallel);
        }
    }

    fn head(&mut self) -> Result<()> {
        if !self.a.tied && self.gguf == "gemma2" {
            return Err(refused(
                "the head is not tied to the embedding, which llama.cpp's gemma2 does not support",
            ));
        }
        self.out.repeats_embedding = self.a.tied && self.is(&["gptneox", "olmo2"]);
        let (embedding, residual, logits) =
            (self.a.embedding_scale, self.a.residual_scale, self.a.logits.scale);
        if self.gguf == "granite" {
            self.f32("embedding_scale", embedding as f64);
            self.f32("residual_scale", residual as f64);
            self.f32("logit_scale", 1.0 / logits as f64);
        }
        if let Some(cap) = self.a.logits.soft_cap {
            self.f32("final_logit_softcapping", cap as f64);
        } else if self.gguf == "gemma2" {
            return Err(refused("the logits have no soft cap, but llama.cpp's gemma2 always has one"));
        }
        Ok(())
    }

    fn biases(&self) -> Result<()> {
        let a = self.a;
        let has = |known: &[&str], found: bool, what: &str| match found && !self.is(known) {
            true => Err(refused(format!("llama.cpp's {} has no {what}", self.gguf))),
            false => Ok(()),
        };
        let of_inputs = ["llama", "qwen2", "granite", "smollm3", "gpt2", "gptneox"];
        has(&of_inputs, a.attention.qkv_bias, "biases of queries, keys and values")?;
        has(&of_inputs, a.attention.output_bias, "bias of attention's output")?;
        has(
            &["llama", "granite", "smollm3", "gpt2", "gptneox"],
            a.feed_forward.bias,
            "biases of the feed-forward block",
        )
    }

    fn activation(&self) -> Result<()> {
        use Activation::*;
        let fits = match self.gguf {
            "gemma2" | "gemma3" | "gpt2" => self.a.feed_forward.activation == GeluTanh,
            // GPT-NeoX's files specify the exact function; llama.cpp uses the approximation for all.
            "gptneox" => matches!(self.a.feed_forward.activation, Gelu | GeluTanh),
            _ => self.a.feed_forward.activation == Silu,
        };
        match fits {
            true => Ok(()),
            false => Err(refused(format!(
                "llama.cpp's {} does not support the activation {:?}",
                self.gguf, self.a.feed_forward.activation
            ))),
        }
    }

    fn attention(&mut self) -> Result<()> {
        let a = self.a;
        if self.gguf == "granite" {
            self.f32("attention.scale", a.attention.scale as f64);
            return self.no_soft_cap();
        }
        let by_width = match (self.gguf, a.layers) {
            ("gemma2", 46) | ("gemma3", 62) => a.hidden / a.heads,
            _ => a.head_dim,
        };
        let expected = 1.0 / (by_width as f32).sqrt();
        if (a.attention.scale / expected - 1.0).abs() > 1e-5 {
            return Err(refused(format!(
                "attention scores are scaled by {}, but llama.cpp's {} scales them by {expected}",
                a.attention.scale, self.gguf
            )));
        }
        if self.gguf == "gemma2" {
            let Some(cap) = a.attention.soft_cap else {
                return Err(refused(
                    "attention scores have no soft cap, but llama.cpp's gemma2 always has one",
                ));
            };
            self.f32("attn_logit_softcapping", cap as f64);
            return Ok(());
        }
        self.no_soft_cap()
    }

    fn no_soft_cap(&self) -> Result<()> {
        match self.a.attention.soft_cap {
            None => Ok(()),
            Some(_) => Err(refused(format!(
                "llama.cpp's {} does not support a soft cap of attention scores",
                self.gguf
            ))),
        }
    }

    fn windows(&mut self) -> Result<()> {
        let layers = &self.a.attention.layers;
        let window = layers.iter().find_map(|layer| layer.window);
        let windowed: Vec<bool> = layers.iter().map(|layer| layer.window.is_some()).collect();
        let Some(window) = window else {
            // llama.cpp uses this value for Phi-4.
            if self.gguf == "phi3" {
                self.u32("attention.sliding_window", 0);
            }
            return match self.gguf {
                "gemma2" => {
                    Err(refused("no layer has a sliding window, but layers of llama.cpp's gemma2 do"))
                }
                _ => Ok(()),
            };
        };
        match self.gguf {
            "gemma2" | "gemma3" => {
                let usual = if self.gguf == "gemma2" { 2 } else { 6 };
                let repeats = |period: &usize| {
                    windowed
                        .iter()
                        .enumerate()
                        .all(|(layer, windowed)| *windowed == (layer % period != period - 1))
                };
                let Some(period) = [usual].into_iter().chain(2..=layers.len() + 1).find(repeats) else {
                    return Err(refused(
                        "the layers with sliding windows do not have a pattern that llama.cpp supports",
                    ));
                };
                if period != usual {
                    self.u32("attention.sliding_window_pattern", period);
                }
                self.u32("attention.sliding_window", window);
            }
            gguf => {
                if gguf == "phi3" {
                    self.u32("attention.sliding_window", window);
                }
                self.out.warnings.push(format!(
                    "llama.cpp has no sliding windows in this architecture: results for texts of more \
                     than {window} tokens differ"
                ));
            }
        }
        Ok(())
    }

    fn positions(&mut self, config: &ModelConfig) -> Result<()> {
        let layers = &self.a.attention.layers;
        let ropes = &self.a.attention.ropes;
        let Some(rope) = ropes.first() else { return Ok(()) };
        let rotates = |layer: usize| self.gguf != "smollm3" || !(layer + 1).is_multiple_of(4);
        if layers.iter().enumerate().any(|(at, layer)| layer.rope.is_some() != rotates(at)) {
            return Err(refused("the layers without RoPE are not those of llama.cpp"));
        }
        self.u32("rope.dimension_count", rope.rotated);
        self.f32("rope.freq_base", rope.theta);
        if let [_, windowed] = &ropes[..] {
            if windowed.scaling != RopeScaling::Default {
                return Err(refused(
                    "the RoPE of layers with a sliding window is scaled, which llama.cpp does not support",
                ));
            }
            self.f32("rope.freq_base_swa", windowed.theta);
        }
        self.scaling(rope, config)
    }

    fn scaling(&mut self, rope: &Rope, config: &ModelConfig) -> Result<()> {
        let key = self.key("rope.scaling.type");
        // Few of llama.cpp's architectures read factors per pair.
        let factors = |known: &[&str]| match self.is(known) {
            true => Ok(()),
            false => Err(refused(format!("llama.cpp's {} does not support this RoPE scaling", self.gguf))),
        };
        let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() }.inverse_frequencies();
        let ratios = || -> Vec<f32> {
            let scaled = rope.inverse_frequencies();
            plain.iter().zip(scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect()
        };
        match &rope.scaling {
            RopeScaling::Default => {}
            RopeScaling::Linear { factor } => {
                self.metadata.text(&key, "linear");
                self.f32("rope.scaling.factor", *factor);
            }
            RopeScaling::Llama3 { .. } => {
                factors(&["llama", "granite"])?;
                self.out.factors.push((ROPE_FREQS, ratios()));
            }
            &RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
                original_max_position_embeddings,
            } => {
                let usual = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                if !truncate || (attention_factor / usual - 1.0).abs() > 1e-5 {
                    return Err(refused(
                        "llama.cpp does not support YaRN with this attention_factor or truncate",
                    ));
                }
                self.metadata.text(&key, "yarn");
                self.f32("rope.scaling.factor", factor);
                self.u32("rope.scaling.original_context_length", original_max_position_embeddings);
                self.f32("rope.scaling.yarn_beta_fast", beta_fast);
                self.f32("rope.scaling.yarn_beta_slow", beta_slow);
            }
            RopeScaling::Long { attention_factor, original_max_position_embeddings, .. }
                if *attention_factor == 1.0
                    && *original_max_position_embeddings >= self.a.context
                    && self.is(&["llama", "granite"]) =>
            {
                self.out.factors.push((ROPE_FREQS, ratios()));
            }
            RopeScaling::Long { short_factor, attention_factor, original_max_position_embeddings } => {
                factors(&["phi3", "llama", "granite"])?;
                let long = ["rope_parameters", "rope_scaling"].iter().find_map(|key| {
                    let list = config.raw[*key]["long_factor"].as_array()?;
                    list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()
                });
                let narrow = |factors: &[f64]| factors.iter().map(|factor| *factor as f32).collect();
                let long = long.filter(|long| long.len() == short_factor.len());
                self.metadata.text(&key, "longrope");
                self.f32("rope.scaling.attn_factor", *attention_factor);
                self.u32("rope.scaling.original_context_length", *original_max_position_embeddings);
                self.out.factors.push((ROPE_LONG, narrow(long.as_ref().unwrap_or(short_factor))));
                self.out.factors.push((ROPE_SHORT, narrow(short_factor)));
            }
        }
        Ok(())
    }
}
