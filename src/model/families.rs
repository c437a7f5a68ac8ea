//! The supported families of decoders, and how each interprets its `config.json`. Missing settings have the defaults of
//! `transformers` 5.24.

use super::architecture::{Architecture, Attention, Block, FeedForward, LayerAttention, Norm, QkNorm};
use super::names::{GEMMA, GPT_NEOX, GPT2, LLAMA, Names, OLMO2, PHI3};
use super::rope::{Rope, RopeDefaults};
use super::settings::{MAX_LAYERS, MAX_POSITIONS, MAX_SIZE, Settings};
use crate::ops::{Activation, LogitTransform, NormKind};

/// A family of models.
pub struct Family {
    /// The name of its causal language models in `architectures`.
    pub architecture: &'static str,
    /// Its `model_type`.
    pub model_type: &'static str,
    /// Its common models, for messages and documentation.
    pub models: &'static str,
    /// Its tensor names.
    pub names: &'static Names,
    describe: fn(&Settings, &mut Vec<String>) -> Result<Architecture, String>,
}

impl Family {
    /// The name of its reward models in `architectures`.
    pub(super) fn reward_architecture(&self) -> String {
        let stem = self.architecture.trim_end_matches("ForCausalLM").trim_end_matches("LMHeadModel");
        // Gemma 3 has other models, for images.
        let text = if stem == "Gemma3" { "Text" } else { "" };
        format!("{stem}{text}ForSequenceClassification")
    }

    /// Returns the decoder that these settings describe. Warnings for the user are added to `warnings`.
    pub(super) fn describe(&self, s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
        (self.describe)(s, warnings)
    }
}

/// All supported families.
pub const FAMILIES: [Family; 12] = [
    family("LlamaForCausalLM", "llama", "Llama 1 to 3.2, SmolLM, SmolLM2, TinyLlama", &LLAMA, llama),
    family("MistralForCausalLM", "mistral", "Mistral 7B, Ministral 8B", &LLAMA, mistral),
    family("Qwen2ForCausalLM", "qwen2", "Qwen 2, Qwen 2.5", &LLAMA, qwen2),
    family("Qwen3ForCausalLM", "qwen3", "Qwen 3", &LLAMA, qwen3),
    family("Gemma2ForCausalLM", "gemma2", "Gemma 2", &GEMMA, gemma2),
    family("Gemma3ForCausalLM", "gemma3_text", "Gemma 3 270M and 1B", &GEMMA, gemma3),
    family("SmolLM3ForCausalLM", "smollm3", "SmolLM3", &LLAMA, smollm3),
    family("Olmo2ForCausalLM", "olmo2", "OLMo 2", &OLMO2, olmo2),
    family("GraniteForCausalLM", "granite", "Granite 3 dense", &LLAMA, granite),
    family("Phi3ForCausalLM", "phi3", "Phi-3, Phi-4-mini", &PHI3, phi3),
    family("GPT2LMHeadModel", "gpt2", "GPT-2, DistilGPT2", &GPT2, gpt2),
    family("GPTNeoXForCausalLM", "gpt_neox", "Pythia, GPT-NeoX", &GPT_NEOX, gpt_neox),
];

/// Known architectures that are not supported, with their `model_type`, the unsupported feature, and a similar model.
pub const UNSUPPORTED: [(&str, &str, &str); 22] = [
    ("MixtralForCausalLM", "mixtral", "has experts: a similar model is a Mistral"),
    ("Qwen2MoeForCausalLM", "qwen2_moe", "has experts: a similar model is a Qwen 2.5"),
    ("Qwen3MoeForCausalLM", "qwen3_moe", "has experts: a similar model is a dense Qwen 3"),
    ("OlmoeForCausalLM", "olmoe", "has experts: a similar model is an OLMo 2"),
    ("GptOssForCausalLM", "gpt_oss", "has experts: a similar model is a dense Qwen 3"),
    ("GraniteMoeForCausalLM", "granitemoe", "has experts: a similar model is a dense Granite 3"),
    (
        "GraniteMoeHybridForCausalLM",
        "granitemoehybrid",
        "has state-space layers: a similar model is a dense Granite 3",
    ),
    ("Qwen3NextForCausalLM", "qwen3_next", "has Gated DeltaNet layers: a similar model is a Qwen 3"),
    ("Qwen3_5ForCausalLM", "qwen3_5_text", "has Gated DeltaNet layers: a similar model is a Qwen 3"),
    ("Qwen3_5ForConditionalGeneration", "qwen3_5", "has Gated DeltaNet layers: a similar model is a Qwen 3"),
    (
        "Qwen3_5MoeForConditionalGeneration",
        "qwen3_5_moe",
        "has Gated DeltaNet layers: a similar model is a Qwen 3",
    ),
    ("Lfm2ForCausalLM", "lfm2", "has short convolutions: similar models are SmolLM2 and Qwen 3"),
    ("Lfm2MoeForCausalLM", "lfm2_moe", "has short convolutions: similar models are SmolLM2 and Qwen 3"),
    ("Gemma3nForCausalLM", "gemma3n_text", "has per-layer inputs: similar models are Gemma 3 270M and 1B"),
    (
        "Gemma3nForConditionalGeneration",
        "gemma3n",
        "has per-layer inputs: similar models are Gemma 3 270M and 1B",
    ),
    (
        "Gemma3ForConditionalGeneration",
        "gemma3",
        "reads images: use a Gemma 3 270M or 1B, which are text-only",
    ),
    (
        "Gemma4ForConditionalGeneration",
        "gemma4",
        "reads images: use a Gemma 3 270M or 1B, which are text-only",
    ),
    ("GemmaForCausalLM", "gemma", "is Gemma 1: use a Gemma 2 or 3"),
    ("Mistral3ForConditionalGeneration", "mistral3", "reads images: use a Mistral 7B"),
    ("MinistralForCausalLM", "ministral", "has windows only in some layers: use a Mistral 7B"),
    ("Olmo3ForCausalLM", "olmo3", "has windows in some layers: use an OLMo 2"),
    ("PhiForCausalLM", "phi", "is Phi 1 or 2: use a Phi-3 or Phi-4-mini"),
];

const fn family(
    architecture: &'static str,
    model_type: &'static str,
    models: &'static str,
    names: &'static Names,
    describe: fn(&Settings, &mut Vec<String>) -> Result<Architecture, String>,
) -> Family {
    Family { architecture, model_type, models, names, describe }
}

/// The values of settings that are absent.
struct Defaults {
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    context: usize,
    epsilon: f64,
    tied: bool,
}

/// The defaults of Llama.
const DEFAULTS: Defaults =
    Defaults { kv_heads: None, head_dim: None, context: 2048, epsilon: 1e-6, tied: false };

const ROPE: RopeDefaults = RopeDefaults::LLAMA;

fn head_dim(s: &Settings, hidden: usize, heads: usize, default: Option<usize>) -> Result<usize, String> {
    let of_config = match s.get("head_dim") {
        None => None,
        Some(value) => Some(value.as_u64().ok_or_else(|| format!("head_dim is {value}, expected a number"))?),
    };
    let head_dim = match of_config.map(|size| size as usize).or(default) {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(format!(
                "hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and head_dim is missing"
            ));
        }
    };
    check_head_dim(head_dim, heads)
}

/// Returns an error for a head size that the kernels do not support, or that overflows a size.
fn check_head_dim(head_dim: usize, heads: usize) -> Result<usize, String> {
    if head_dim == 0 || !head_dim.is_multiple_of(8) {
        return Err(format!("the head size is {head_dim}, only multiples of 8 are supported"));
    }
    if head_dim > MAX_SIZE / heads {
        let why = format!("{heads} heads of size {head_dim} are wider than {MAX_SIZE}");
        return Err(format!("{why}: check num_attention_heads and head_dim"));
    }
    Ok(head_dim)
}

/// Reads the settings of RoPE, which are the same for all layers that use it.
fn with_rope(
    mut a: Architecture,
    s: &Settings,
    defaults: RopeDefaults,
    warnings: &mut Vec<String>,
) -> Result<Architecture, String> {
    let rope = Rope::from_json(s.json(), a.head_dim, a.context, defaults, warnings)?;
    a.context = rope.context(a.context);
    a.attention.ropes = vec![rope];
    Ok(a)
}

/// The settings that Llama and related families share, with full attention in every layer and without RoPE.
fn like_llama(s: &Settings, names: &'static Names, defaults: Defaults) -> Result<Architecture, String> {
    let hidden = s.needed_size("hidden_size", MAX_SIZE)?;
    let heads = s.needed_size("num_attention_heads", MAX_SIZE)?;
    let layers = s.needed_size("num_hidden_layers", MAX_LAYERS)?;
    let kv_heads = s.size("num_key_value_heads", MAX_SIZE)?;
    // Null means that each query head has its own key head.
    let default = defaults.kv_heads.filter(|_| s.is_absent("num_key_value_heads"));
    let kv_heads = kv_heads.or(default).unwrap_or(heads);
    let head_dim = head_dim(s, hidden, heads, defaults.head_dim)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!(
            "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        ));
    }
    let attention_bias = s.flag("attention_bias", false)?;
    Ok(Architecture {
        hidden,
        feed_forward_size: s.needed_size("intermediate_size", MAX_SIZE)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        vocab: s.needed_size("vocab_size", MAX_SIZE)?,
        context: s.size("max_position_embeddings", MAX_POSITIONS)?.unwrap_or(defaults.context),
        names,
        norm: Norm {
            kind: NormKind::Rms,
            epsilon: s.positive_or_zero("rms_norm_eps", defaults.epsilon)? as f32,
            bias: false,
        },
        block: Block::PreNorm,
        attention: Attention {
            qkv_bias: attention_bias,
            output_bias: attention_bias,
            qk_norm: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            ropes: Vec::new(),
            layers: vec![LayerAttention { rope: Some(0), window: None }; layers],
        },
        feed_forward: FeedForward {
            activation: s.activation("hidden_act", Activation::Silu)?,
            gated: true,
            bias: s.flag("mlp_bias", false)?,
        },
        embedding_scale: 1.0,
        learned_positions: false,
        residual_scale: 1.0,
        logits: LogitTransform::default(),
        tied: s.flag("tie_word_embeddings", defaults.tied)?,
        rates: false,
    })
}

fn llama(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    with_rope(like_llama(s, &LLAMA, DEFAULTS)?, s, ROPE, warnings)
}

/// Every layer has a sliding window.
fn mistral(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(8), context: 131_072, ..DEFAULTS };
    let mut a = with_rope(like_llama(s, &LLAMA, defaults)?, s, ROPE, warnings)?;
    (a.attention.qkv_bias, a.attention.output_bias, a.feed_forward.bias) = (false, false, false);
    one_window(s, &mut a, Some(4096))?;
    Ok(a)
}

/// Every layer has a sliding window, or none: null means no window, and an absent key has the default.
fn one_window(s: &Settings, a: &mut Architecture, default: Option<usize>) -> Result<(), String> {
    let default = default.filter(|_| s.is_absent("sliding_window"));
    let window = s.size("sliding_window", MAX_POSITIONS)?.or(default);
    a.attention.layers = s.windowed_layers(a.layers, window, |_| window.is_some())?;
    match a.attention.layers.iter().all(|layer| layer.window == window) {
        true => Ok(()),
        false => Err("layer_types has different types, but in this family all layers are the same".into()),
    }
}

/// Layers from `max_window_layers` on have a sliding window if `use_sliding_window` is set.
fn switched_window(s: &Settings, a: &mut Architecture) -> Result<(), String> {
    let used = s.flag("use_sliding_window", false)?;
    let default = s.is_absent("sliding_window").then_some(4096);
    let window = s.size("sliding_window", MAX_POSITIONS)?.or(default).filter(|_| used);
    let first = match s.get("max_window_layers") {
        None => 28,
        Some(value) => {
            value.as_u64().ok_or_else(|| format!("max_window_layers is {value}, expected a number"))?
        }
    };
    a.attention.layers =
        s.windowed_layers(a.layers, window, |layer| window.is_some() && layer as u64 >= first)?;
    Ok(())
}

/// Queries, keys and values have a bias.
fn qwen2(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(32), context: 32_768, ..DEFAULTS };
    let mut a = with_rope(like_llama(s, &LLAMA, defaults)?, s, ROPE, warnings)?;
    (a.attention.qkv_bias, a.attention.output_bias, a.feed_forward.bias) = (true, false, false);
    switched_window(s, &mut a)?;
    Ok(a)
}

/// The heads of queries and keys are normalised.
fn qwen3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(32), head_dim: Some(128), context: 32_768, ..DEFAULTS };
    let mut a = with_rope(like_llama(s, &LLAMA, defaults)?, s, ROPE, warnings)?;
    a.attention.qk_norm = Some(QkNorm::EachHead);
    a.feed_forward.bias = false;
    switched_window(s, &mut a)?;
    Ok(a)
}

/// Norms before and after each block with a weight of 1 + w, a scaled embedding, and sliding windows in some layers.
fn gemma(s: &Settings, context: usize, windows: impl Fn(usize) -> bool) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(4), head_dim: Some(256), context, tied: true, ..DEFAULTS };
    let mut a = like_llama(s, &GEMMA, defaults)?;
    if s.flag("use_bidirectional_attention", false)? {
        return Err(
            "use_bidirectional_attention is true: only models with causal attention are supported".into()
        );
    }
    a.norm.kind = NormKind::RmsUnitOffset;
    a.block = Block::BothNorms;
    a.feed_forward = FeedForward {
        activation: s.activation("hidden_activation", Activation::GeluTanh)?,
        gated: true,
        bias: false,
    };
    a.embedding_scale = (a.hidden as f32).sqrt();
    a.attention.scale = 1.0 / s.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt() as f32;
    let default = s.is_absent("sliding_window").then_some(4096);
    let window = s.size("sliding_window", MAX_POSITIONS)?.or(default);
    let window = window.ok_or("sliding_window is null, but layers have one: set it to the number of keys")?;
    a.attention.layers = s.windowed_layers(a.layers, Some(window), windows)?;
    Ok(a)
}

/// Reads a soft cap: an absent key has the default; null means no soft cap.
fn soft_cap(s: &Settings, key: &str, default: Option<f64>) -> Result<Option<f32>, String> {
    let default = default.filter(|_| s.json().get(key).is_none());
    Ok(s.positive(key)?.or(default).map(|cap| cap as f32))
}

/// Attention scores and logits have soft caps; every other layer has a sliding window.
fn gemma2(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = with_rope(gemma(s, 8192, |layer| layer % 2 == 0)?, s, ROPE, warnings)?;
    a.attention.soft_cap = soft_cap(s, "attn_logit_softcapping", Some(50.0))?;
    a.logits.soft_cap = soft_cap(s, "final_logit_softcapping", Some(30.0))?;
    Ok(a)
}

/// The heads of queries and keys are normalised; layers with a sliding window have separate RoPE settings.
fn gemma3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let pattern = s.size("sliding_window_pattern", MAX_LAYERS)?.unwrap_or(6);
    let mut a = gemma(s, 131_072, |layer| !(layer + 1).is_multiple_of(pattern))?;
    a.attention.qk_norm = Some(QkNorm::EachHead);
    a.logits.soft_cap = soft_cap(s, "final_logit_softcapping", None)?;
    let [full, windowed] = Rope::pair_from_json(s.json(), a.head_dim, a.context, [1e6, 1e4], warnings)?;
    a.context = windowed.context(full.context(a.context));
    a.attention.ropes = vec![full, windowed];
    for layer in &mut a.attention.layers {
        layer.rope = Some(layer.window.is_some() as usize);
    }
    Ok(a)
}

/// Every fourth layer has no RoPE.
fn smollm3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(4), context: 32_768, tied: true, ..DEFAULTS };
    let mut a =
        with_rope(like_llama(s, &LLAMA, defaults)?, s, RopeDefaults { theta: 2e6, ..ROPE }, warnings)?;
    let interval = s.size("no_rope_layer_interval", MAX_LAYERS)?.unwrap_or(4);
    let has_rope: Vec<bool> = match s.get("no_rope_layers") {
        None => (0..a.layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect(),
        // 1 means a layer with RoPE; entries beyond the last layer are ignored.
        Some(serde_json::Value::Array(list)) if list.len() >= a.layers => {
            let flag = |value: &serde_json::Value| match value.as_u64() {
                Some(flag) => Ok(flag != 0),
                None => Err(format!("no_rope_layers has {value}, expected 0 or 1")),
            };
            list.iter().take(a.layers).map(flag).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(format!("no_rope_layers must be a list of {} numbers, 0 or 1", a.layers)),
    };
    let used = s.flag("use_sliding_window", false)?;
    let window = s.size("sliding_window", MAX_POSITIONS)?.filter(|_| used);
    a.attention.layers = s.windowed_layers(a.layers, window, |layer| window.is_some() && !has_rope[layer])?;
    for (layer, has_rope) in a.attention.layers.iter_mut().zip(has_rope) {
        layer.rope = has_rope.then_some(0);
    }
    Ok(a)
}

/// Norms after attention and after the feed-forward block; queries and keys are normalised over all heads.
fn olmo2(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &OLMO2, Defaults { epsilon: 1e-5, ..DEFAULTS })?;
    a = with_rope(a, s, ROPE, warnings)?;
    a.block = Block::PostNorm;
    a.attention.qk_norm = Some(QkNorm::AllHeads);
    a.feed_forward.bias = false;
    Ok(a)
}

/// Embedding, attention, residual and logits have multipliers.
fn granite(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = with_rope(like_llama(s, &LLAMA, DEFAULTS)?, s, ROPE, warnings)?;
    let multiplier = |key| Ok::<f32, String>(s.positive(key)?.unwrap_or(1.0) as f32);
    a.embedding_scale = multiplier("embedding_multiplier")?;
    a.attention.scale = multiplier("attention_multiplier")?;
    a.residual_scale = multiplier("residual_multiplier")?;
    a.logits.scale = 1.0 / multiplier("logits_scaling")?;
    Ok(a)
}

/// Projections of the same rows are one matrix.
fn phi3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &PHI3, Defaults { context: 4096, epsilon: 1e-5, ..DEFAULTS })?;
    let original = s.positive("original_max_position_embeddings")?.unwrap_or(4096.0);
    let defaults = RopeDefaults {
        share: Some(1.0),
        original: Some(original),
        scalings: &["default", "longrope"],
        ..ROPE
    };
    a = with_rope(a, s, defaults, warnings)?;
    (a.attention.qkv_bias, a.attention.output_bias, a.feed_forward.bias) = (false, false, false);
    one_window(s, &mut a, None)?;
    Ok(a)
}

/// LayerNorm with a bias, biases in all projections, learned positions.
fn gpt2(s: &Settings, _: &mut Vec<String>) -> Result<Architecture, String> {
    let hidden = s.needed_size("n_embd", MAX_SIZE)?;
    let (layers, heads) = (s.needed_size("n_layer", MAX_LAYERS)?, s.needed_size("n_head", MAX_SIZE)?);
    for (key, expected) in [
        ("scale_attn_weights", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ] {
        if s.flag(key, expected)? != expected {
            return Err(format!("{key} is {}, which is not supported", !expected));
        }
    }
    if !hidden.is_multiple_of(heads) {
        return Err(format!("n_embd {hidden} is not a multiple of n_head {heads}"));
    }
    let head_dim = check_head_dim(hidden / heads, heads)?;
    Ok(Architecture {
        hidden,
        feed_forward_size: s.size("n_inner", MAX_SIZE)?.unwrap_or(4 * hidden),
        layers,
        heads,
        kv_heads: heads,
        head_dim,
        vocab: s.needed_size("vocab_size", MAX_SIZE)?,
        context: s.size("n_positions", MAX_POSITIONS)?.unwrap_or(1024),
        names: &GPT2,
        norm: Norm {
            kind: NormKind::Layer,
            epsilon: s.positive_or_zero("layer_norm_epsilon", 1e-5)? as f32,
            bias: true,
        },
        block: Block::PreNorm,
        attention: Attention {
            qkv_bias: true,
            output_bias: true,
            qk_norm: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            ropes: Vec::new(),
            layers: vec![LayerAttention::default(); layers],
        },
        feed_forward: FeedForward {
            activation: s.activation("activation_function", Activation::GeluTanh)?,
            gated: false,
            bias: true,
        },
        embedding_scale: 1.0,
        learned_positions: true,
        residual_scale: 1.0,
        logits: LogitTransform::default(),
        tied: s.flag("tie_word_embeddings", true)?,
        rates: false,
    })
}

/// LayerNorm with a bias, biases in all projections, partial rotation of each head, attention parallel to the
/// feed-forward block.
fn gpt_neox(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &GPT_NEOX, DEFAULTS)?;
    if a.kv_heads != a.heads {
        return Err(
            "num_key_value_heads differs from num_attention_heads, which GPT-NeoX does not support".into()
        );
    }
    let biased = s.flag("attention_bias", true)?;
    (a.attention.qkv_bias, a.attention.output_bias) = (biased, biased);
    a.norm = Norm {
        kind: NormKind::Layer,
        epsilon: s.positive_or_zero("layer_norm_eps", 1e-5)? as f32,
        bias: true,
    };
    a.block = if s.flag("use_parallel_residual", true)? { Block::Parallel } else { Block::PreNorm };
    a.feed_forward =
        FeedForward { activation: s.activation("hidden_act", Activation::Gelu)?, gated: false, bias: true };
    let theta = s.positive("rotary_emb_base")?.unwrap_or(ROPE.theta);
    let share = s.positive("rotary_pct")?.unwrap_or(0.25);
    for (key, value, other) in
        [("rope_theta", theta, "rotary_emb_base"), ("partial_rotary_factor", share, "rotary_pct")]
    {
        if s.number(key)?.is_some_and(|beside| beside != value) {
            return Err(format!(
                "{key} contradicts {other} ({value}), the key that GPT-NeoX reads: remove the wrong one"
            ));
        }
    }
    let defaults = RopeDefaults { theta, share: Some(share), ..ROPE };
    with_rope(a, s, defaults, warnings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::ModelConfig;
    use crate::model::rope::RopeScaling;

    /// A small configuration of this type with `changes` applied.
    fn config(model_type: &str, changes: Value) -> Result<ModelConfig, String> {
        let mut json = json!({"model_type": model_type, "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
            "n_embd": 64, "n_layer": 4, "n_head": 8});
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        ModelConfig::from_json(json)
    }

    fn windows(model_type: &str, changes: Value) -> Vec<Option<usize>> {
        let a = config(model_type, changes).unwrap().architecture;
        a.attention.layers.iter().map(|layer| layer.window).collect()
    }

    fn thetas(model_type: &str, changes: Value) -> Vec<f64> {
        let a = config(model_type, changes).unwrap().architecture;
        a.attention.ropes.iter().map(|rope| rope.theta).collect()
    }

    #[track_caller]
    fn assert_refused(model_type: &str, changes: Value, part: &str) {
        let why = config(model_type, changes).unwrap_err();
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    }

    /// Expected: the result of transformers 5.24 for these files.
    #[test]
    fn sliding_windows_come_from_the_file_or_the_familys_defaults() {
        let (full, some) = (None, Some(9));
        assert_eq!(windows("mistral", json!({})), [Some(4096); 4]);
        assert_eq!(windows("mistral", json!({"sliding_window": null})), [full; 4]);
        let half = json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 2});
        for family in ["qwen2", "qwen3"] {
            assert_eq!(windows(family, json!({"sliding_window": 9, "use_sliding_window": false})), [full; 4]);
            assert_eq!(windows(family, half.clone()), [full, full, some, some]);
            let null = json!({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0});
            assert_eq!(windows(family, null), [full; 4]);
        }
        assert_eq!(windows("gemma2", json!({"sliding_window": 9})), [some, full, some, full]);
        let pattern = json!({"sliding_window": 9, "sliding_window_pattern": 3});
        assert_eq!(windows("gemma3_text", pattern), [some, some, full, some]);
        let types = json!({"sliding_window": 9, "layer_types":
            ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]});
        assert_eq!(windows("gemma3_text", types.clone()), [full, some, some, full]);
        assert_refused("mistral", types, "all layers are the same");
        assert_refused("gemma2", json!({"sliding_window": null}), "sliding_window is null");
        assert_refused("gemma2", json!({"layer_types": ["full_attention"]}), "a list of 4 names");
        assert_refused("qwen3", json!({"layer_types": vec!["linear_attention"; 4]}), "linear_attention");
    }

    /// Expected: the result of transformers 5.24 for these files.
    #[test]
    fn rope_settings_are_read_from_the_keys_of_each_family() {
        let older = json!({"rope_theta": 5e5, "rope_local_base_freq": 123.0});
        assert_eq!(thetas("gemma3_text", json!({})), [1e6, 1e4]);
        assert_eq!(thetas("gemma3_text", older.clone()), [5e5, 123.0]);
        let mut nested = older;
        nested["rope_parameters"] = json!({"full_attention": {"rope_type": "default"},
            "sliding_attention": {"rope_type": "default", "rope_theta": 77.0}});
        nested["rope_scaling"] = json!({"rope_type": "linear", "factor": 8.0});
        assert_eq!(thetas("gemma3_text", nested.clone()), [5e5, 77.0]);
        let ropes = config("gemma3_text", nested).unwrap().architecture.attention.ropes;
        assert_eq!(ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
        assert_eq!(ropes[1].scaling, RopeScaling::Default);
        assert_refused("gemma3_text", json!({"rope_parameters": {"rope_theta": 5.0}}), "full_attention");
        assert_eq!(thetas("smollm3", json!({})), [2e6]);
        assert_eq!(
            thetas("gpt_neox", json!({"num_key_value_heads": null, "rotary_emb_base": 1000})),
            [1000.0]
        );
        let neox = |changes: Value| {
            let mut changes = changes;
            changes["num_key_value_heads"] = Value::Null;
            config("gpt_neox", changes).map(|config| config.architecture.attention.ropes[0].rotated)
        };
        assert_eq!(neox(json!({})), Ok(4));
        assert_eq!(neox(json!({"rotary_pct": 0.5})), Ok(8));
        assert_eq!(
            neox(json!({"rope_parameters": {"partial_rotary_factor": 1.0, "rope_theta": 10.0}})),
            Ok(16)
        );
        assert!(neox(json!({"rope_theta": 5e5})).unwrap_err().contains("rotary_emb_base"));
        assert_refused("llama", json!({"partial_rotary_factor": 0.5}), "rotate whole heads");
        assert_refused("phi3", json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "\"longrope\"");
        // The rope_type of the first Phi-3 files; the original context is that of the file, or 4096.
        let factors = vec![1.5; 8];
        let long = json!({"max_position_embeddings": 131072,
            "rope_scaling": {"type": "su", "short_factor": factors, "long_factor": factors}});
        let a = config("phi3", long).unwrap().architecture;
        assert_eq!(a.context, 4096);
        assert!(
            (a.attention.ropes[0].attention_factor() - (1.0 + 32f64.ln() / 4096f64.ln()).sqrt()).abs()
                < 1e-12
        );
        // A context that YaRN extends, in a file that states the original one.
        let yarn = json!({"max_position_embeddings": 32768, "rope_scaling":
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}});
        assert_eq!(config("qwen3", yarn).unwrap().architecture.context, 131072);
        let endless = json!({"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}});
        assert_refused("qwen3", endless, "invalid RoPE frequencies");
        assert_refused(
            "llama",
            json!({"rope_scaling": {"rope_type": "linear", "factor": 1e-320}}),
            "invalid RoPE frequencies",
        );
    }

    /// Expected: the result of transformers 5.24 for these files.
    #[test]
    fn absent_and_null_settings_have_the_defaults_of_each_family() {
        let of = |model_type, changes| config(model_type, changes).unwrap().architecture;
        let absent = json!({"num_key_value_heads": null});
        for family in ["llama", "qwen2", "qwen3", "smollm3", "olmo2", "granite"] {
            assert_eq!(of(family, absent.clone()).kv_heads, 8, "{family}");
        }
        let gemma = of("gemma2", json!({}));
        assert_eq!((gemma.attention.soft_cap, gemma.logits.soft_cap), (Some(50.0), Some(30.0)));
        let without = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null});
        let gemma = of("gemma2", without);
        assert_eq!((gemma.attention.soft_cap, gemma.logits.soft_cap), (None, None));
        assert_eq!((gemma.attention.scale, gemma.embedding_scale, gemma.tied), (0.0625, 8.0, true));
        assert_eq!(of("gpt2", json!({"n_inner": null})).feed_forward_size, 256);
        assert_eq!(of("gpt2", json!({"n_inner": 100})).feed_forward_size, 100);
        let layers = of("smollm3", json!({})).attention.layers;
        assert_eq!(
            layers.iter().map(|layer| layer.rope).collect::<Vec<_>>(),
            [Some(0), Some(0), Some(0), None]
        );
        assert_refused("smollm3", json!({"no_rope_layers": [true, true, true, true]}), "expected 0 or 1");
        assert_refused("gpt2", json!({"scale_attn_by_inverse_layer_idx": true}), "not supported");
        let warnings = config("gpt2", json!({"resid_pdrop": 0.1})).unwrap().warnings;
        assert_eq!(warnings, ["config.json has resid_pdrop, but training here has no dropout"]);
    }
}
