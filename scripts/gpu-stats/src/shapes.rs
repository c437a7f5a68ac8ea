//! The models whose kernels are checked.

use std::path::Path;

use oaif::unstable::model::ModelConfig;
use serde_json::json;

use crate::Result;

/// Name; family; C, F, H, K, D, V. Together they launch every kernel.
const SHAPES: [(&str, &str, [usize; 6]); 6] = [
    ("smollm2-135m", "llama", [576, 1536, 9, 3, 64, 49152]),
    ("qwen3-0.6b", "qwen3", [1024, 3072, 16, 8, 128, 151936]),
    ("llama-3.2-1b", "llama", [2048, 8192, 32, 8, 64, 128256]),
    ("gemma-3-1b", "gemma3_text", [1152, 6912, 4, 1, 256, 262144]),
    ("gemma-2-2b", "gemma2", [2304, 9216, 8, 4, 256, 256000]),
    ("pythia-160m", "gpt_neox", [768, 3072, 12, 12, 64, 50304]),
];

/// Later layers use the same kernels; two layers cover them all.
const LAYERS: usize = 2;

pub fn names() -> Vec<&'static str> {
    SHAPES.iter().map(|(name, ..)| *name).collect()
}

/// Returns the model with this name, or that of the `config.json` in this folder.
pub fn config(shape: &str) -> Result<ModelConfig> {
    let Some((_, family, [c, f, h, k, d, v])) = SHAPES.iter().find(|(name, ..)| *name == shape) else {
        if !Path::new(shape).is_dir() {
            return Err(format!("{shape} is neither a folder nor one of {}", names().join(", ")).into());
        }
        let mut config = ModelConfig::load(Path::new(shape))?;
        config.architecture = config.architecture.with_layers(config.architecture.layers.min(LAYERS));
        return Ok(config);
    };
    let config = json!({
        "model_type": family, "hidden_size": c, "intermediate_size": f,
        "num_hidden_layers": LAYERS, "num_attention_heads": h, "num_key_value_heads": k, "head_dim": d,
        "vocab_size": v, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "sliding_window_pattern": LAYERS,
    });
    Ok(ModelConfig::from_json(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_model_and_for_others_the_error_lists_the_names() {
        for name in names() {
            assert_eq!(config(name).unwrap().architecture.layers, LAYERS);
        }
        let error = config("smolm2").unwrap_err().to_string();
        assert!(error.contains("smollm2-135m, qwen3-0.6b"), "{error}");
    }
}
