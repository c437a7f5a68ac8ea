//! The families of decoders that run here, and what each makes of its `config.json`. What is missing gets the defaults of
//! `transformers` 5.24.

use super::architecture::{Architecture, Attention, Block, FeedForward, LayerAttention, Norm, QkNorm};
use super::names::{GEMMA, GPT_NEOX, GPT2, LLAMA, Names, OLMO2, PHI3};
use super::rope::{Rope, RopeDefaults};
use super::settings::{MAX_LAYERS, MAX_POSITIONS, MAX_SIZE, Settings};
use crate::ops::{Activation, LogitTransform, NormKind};

/// A family.
pub struct Family {
    /// The name that `architectures` gives its causal models.
    pub architecture: &'static str,
    /// Its `model_type`.
    pub model_type: &'static str,
    /// Models of it that people use, for messages and documentation.
    pub models: &'static str,
    /// What it calls its tensors.
    pub names: &'static Names,
    describe: fn(&Settings, &mut Vec<String>) -> Result<Architecture, String>,
}

impl Family {
    /// The decoder that these settings describe. What a user should know about them is added to `warnings`.
    pub(super) fn describe(&self, s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
        (self.describe)(s, warnings)
    }
}

/// All of them.
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

/// Architectures that are asked for and not supported: what they have that is not, and what is close to them.
pub const UNSUPPORTED: [(&str, &str); 12] = [
    ("MixtralForCausalLM", "has experts: a Mistral is close to it"),
    ("Qwen2MoeForCausalLM", "has experts: a Qwen 2.5 is close to it"),
    ("Qwen3MoeForCausalLM", "has experts: a Qwen 3 of its dense sizes is close to it"),
    ("OlmoeForCausalLM", "has experts: an OLMo 2 is close to it"),
    ("GraniteMoeForCausalLM", "has experts: a Granite 3 of its dense sizes is close to it"),
    ("Qwen3NextForCausalLM", "has Gated DeltaNet layers: a Qwen 3 is close to it"),
    ("Qwen3_5ForCausalLM", "has Gated DeltaNet layers: a Qwen 3 is close to it"),
    ("Lfm2ForCausalLM", "has short convolutions: a SmolLM2 or Qwen 3 is close to it"),
    ("Gemma3nForCausalLM", "has inputs for each layer: a Gemma 3 270M or 1B is close to it"),
    ("Gemma3nForConditionalGeneration", "has inputs for each layer: a Gemma 3 270M or 1B is close to it"),
    ("Gemma3ForConditionalGeneration", "sees images: take a Gemma 3 270M or 1B, which are text alone"),
    ("GemmaForCausalLM", "is Gemma 1: take a Gemma 2 or 3"),
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

/// A setting's value where it is absent.
struct Defaults {
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    context: usize,
    epsilon: f64,
    tied: bool,
}

/// Llama's.
const DEFAULTS: Defaults =
    Defaults { kv_heads: None, head_dim: None, context: 2048, epsilon: 1e-6, tied: false };

/// Llama's.
const ROPE: RopeDefaults = RopeDefaults { theta: 10_000.0, share: 1.0 };

fn head_dim(s: &Settings, hidden: usize, heads: usize, default: Option<usize>) -> Result<usize, String> {
    let of_config = s.size("head_dim", usize::MAX)?;
    let head_dim = match of_config.or(default) {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            return Err(format!(
                "hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
            ));
        }
    };
    if !head_dim.is_multiple_of(8) {
        return Err(format!("the head size is {head_dim}, only multiples of 8 are supported"));
    }
    if head_dim > MAX_SIZE / heads {
        let why = format!("{heads} heads of size {head_dim} are wider than {MAX_SIZE}");
        return Err(format!("{why}: are num_attention_heads and head_dim right?"));
    }
    Ok(head_dim)
}

/// One kind of rotary positions for all layers that have any.
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

/// What Llama and its relatives share, with full attention in every layer; without rotary positions.
fn like_llama(s: &Settings, names: &'static Names, defaults: Defaults) -> Result<Architecture, String> {
    let hidden = s.needed_size("hidden_size", MAX_SIZE)?;
    let heads = s.needed_size("num_attention_heads", MAX_SIZE)?;
    let layers = s.needed_size("num_hidden_layers", MAX_LAYERS)?;
    let kv_heads = s.size("num_key_value_heads", MAX_SIZE)?.or(defaults.kv_heads).unwrap_or(heads);
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
    })
}

fn llama(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    with_rope(like_llama(s, &LLAMA, DEFAULTS)?, s, ROPE, warnings)
}

/// A window in every layer.
fn mistral(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(8), context: 131_072, ..DEFAULTS };
    let mut a = with_rope(like_llama(s, &LLAMA, defaults)?, s, ROPE, warnings)?;
    (a.attention.qkv_bias, a.attention.output_bias, a.feed_forward.bias) = (false, false, false);
    // Null says that there is none; what is absent has the default.
    let absent = s.json().get("sliding_window").is_none();
    let window = s.size("sliding_window", MAX_POSITIONS)?.or(absent.then_some(4096));
    a.attention.layers = s.windowed_layers(a.layers, window, |_| window.is_some())?;
    Ok(a)
}

/// The window of those that have `use_sliding_window`, from layer `max_window_layers` on.
fn switched_window(s: &Settings, a: &mut Architecture) -> Result<(), String> {
    let used = s.flag("use_sliding_window", false)?;
    let window = s.size("sliding_window", MAX_POSITIONS)?.or(Some(4096)).filter(|_| used);
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

/// Heads of queries and keys are normalised.
fn qwen3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(32), head_dim: Some(128), context: 32_768, ..DEFAULTS };
    let mut a = with_rope(like_llama(s, &LLAMA, defaults)?, s, ROPE, warnings)?;
    a.attention.qk_norm = Some(QkNorm::EachHead);
    a.feed_forward.bias = false;
    switched_window(s, &mut a)?;
    Ok(a)
}

/// Norms before and after with weights that stand for 1 + w, a scaled embedding, windows in some layers.
fn gemma(s: &Settings, windows: impl Fn(usize) -> bool) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(4), head_dim: Some(256), context: 8192, tied: true, ..DEFAULTS };
    let mut a = like_llama(s, &GEMMA, defaults)?;
    if s.flag("use_bidirectional_attention", false)? {
        return Err(
            "use_bidirectional_attention is true: only models whose tokens see none after them are supported"
                .into(),
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
    let window = s.size("sliding_window", MAX_POSITIONS)?.unwrap_or(4096);
    a.attention.layers = s.windowed_layers(a.layers, Some(window), windows)?;
    Ok(a)
}

/// A soft cap that is absent has the default; null says that there is none.
fn soft_cap(s: &Settings, key: &str, default: Option<f64>) -> Result<Option<f32>, String> {
    let default = default.filter(|_| s.json().get(key).is_none());
    Ok(s.positive(key)?.or(default).map(|cap| cap as f32))
}

/// Attention's scores and the logits have soft caps; every other layer has a window.
fn gemma2(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = with_rope(gemma(s, |layer| layer % 2 == 0)?, s, ROPE, warnings)?;
    a.attention.soft_cap = soft_cap(s, "attn_logit_softcapping", Some(50.0))?;
    a.logits.soft_cap = soft_cap(s, "final_logit_softcapping", Some(30.0))?;
    Ok(a)
}

/// Heads of queries and keys are normalised; layers with a window have rotary positions of their own.
fn gemma3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let pattern = s.size("sliding_window_pattern", MAX_LAYERS)?.unwrap_or(6);
    let mut a = gemma(s, |layer| !(layer + 1).is_multiple_of(pattern))?;
    a.context = s.size("max_position_embeddings", MAX_POSITIONS)?.unwrap_or(131_072);
    a.attention.qk_norm = Some(QkNorm::EachHead);
    a.attention.soft_cap = soft_cap(s, "attn_logit_softcapping", None)?;
    a.logits.soft_cap = soft_cap(s, "final_logit_softcapping", None)?;
    let [full, windowed] = Rope::pair_from_json(s.json(), a.head_dim, a.context, [1e6, 1e4], warnings)?;
    a.attention.ropes = vec![full, windowed];
    for layer in &mut a.attention.layers {
        layer.rope = Some(layer.window.is_some() as usize);
    }
    Ok(a)
}

/// Every fourth layer is without rotary positions.
fn smollm3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let defaults = Defaults { kv_heads: Some(4), context: 32_768, tied: true, ..DEFAULTS };
    let mut a =
        with_rope(like_llama(s, &LLAMA, defaults)?, s, RopeDefaults { theta: 2e6, ..ROPE }, warnings)?;
    let interval = s.size("no_rope_layer_interval", MAX_LAYERS)?.unwrap_or(4);
    let has_rope: Vec<bool> = match s.get("no_rope_layers") {
        None => (0..a.layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect(),
        // 1 stands for a layer with them.
        Some(serde_json::Value::Array(list)) if list.len() == a.layers => {
            list.iter().map(|flag| flag.as_u64() != Some(0)).collect()
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

/// Norms after attention and the feed-forward block, and of all queries and all keys.
fn olmo2(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &OLMO2, Defaults { epsilon: 1e-5, ..DEFAULTS })?;
    a = with_rope(a, s, ROPE, warnings)?;
    a.block = Block::PostNorm;
    a.attention.qk_norm = Some(QkNorm::AllHeads);
    a.feed_forward.bias = false;
    Ok(a)
}

/// Multipliers.
fn granite(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = with_rope(like_llama(s, &LLAMA, DEFAULTS)?, s, ROPE, warnings)?;
    let multiplier = |key| Ok::<f32, String>(s.positive(key)?.unwrap_or(1.0) as f32);
    a.embedding_scale = multiplier("embedding_multiplier")?;
    a.attention.scale = multiplier("attention_multiplier")?;
    a.residual_scale = multiplier("residual_multiplier")?;
    a.logits.scale = 1.0 / multiplier("logits_scaling")?;
    Ok(a)
}

/// Projections of the same rows in one matrix.
fn phi3(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &PHI3, Defaults { context: 4096, epsilon: 1e-5, ..DEFAULTS })?;
    a = with_rope(a, s, ROPE, warnings)?;
    (a.attention.qkv_bias, a.attention.output_bias, a.feed_forward.bias) = (false, false, false);
    let window = s.size("sliding_window", MAX_POSITIONS)?;
    a.attention.layers = s.windowed_layers(a.layers, window, |_| window.is_some())?;
    Ok(a)
}

/// LayerNorm with a bias, biases everywhere, learned positions.
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
    let head_dim = hidden / heads;
    if !head_dim.is_multiple_of(8) {
        return Err(format!("the head size is {head_dim}, only multiples of 8 are supported"));
    }
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
    })
}

/// LayerNorm with a bias, biases everywhere, a part of each head rotated, attention beside the feed-forward block.
fn gpt_neox(s: &Settings, warnings: &mut Vec<String>) -> Result<Architecture, String> {
    let mut a = like_llama(s, &GPT_NEOX, DEFAULTS)?;
    if a.kv_heads != a.heads {
        return Err(
            "num_key_value_heads differs from num_attention_heads, which GPT-NeoX does not have".into()
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
    let defaults = RopeDefaults {
        theta: s.positive("rotary_emb_base")?.unwrap_or(ROPE.theta),
        share: s.positive("rotary_pct")?.unwrap_or(0.25),
    };
    with_rope(a, s, defaults, warnings)
}
