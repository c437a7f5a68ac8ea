//! Models of known sizes with random weights, and the batch that each is timed with.

use crate::annotate::names;
use crate::error::Result;
use crate::model::ModelConfig;

/// A model's sizes and the batch of its steps.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What users call it.
    pub name: &'static str,
    /// C, F, L, H, K, V.
    sizes: [usize; 6],
    /// Sequences of a step.
    pub sequences: usize,
    /// Token rows of each.
    pub length: usize,
}

/// Name; C, F, L, H, K, V; sequences and their length.
const SHAPES: [(&str, [usize; 6], [usize; 2]); 3] = [
    ("stories260k", [64, 172, 5, 8, 4, 512], [16, 128]),
    ("c192", [192, 512, 6, 6, 6, 4096], [8, 128]),
    ("smollm2-135m", [576, 1536, 30, 9, 3, 49152], [8, 512]),
];

impl Shape {
    /// The names of all shapes; the first is the default.
    pub fn names() -> [&'static str; 3] {
        SHAPES.map(|(name, ..)| name)
    }

    /// The shape of this name.
    ///
    /// # Errors
    /// [`crate::Error::Config`] that names the nearest one.
    pub fn named(name: &str) -> Result<Shape> {
        let known = SHAPES.into_iter().find(|(known, ..)| *known == name);
        let (name, sizes, [sequences, length]) =
            known.ok_or_else(|| names::unknown("shape", name, &Shape::names()))?;
        Ok(Shape { name, sizes, sequences, length })
    }

    /// The model.
    pub fn config(&self) -> ModelConfig {
        let [c, f, l, h, k, v] = self.sizes;
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c,
            "intermediate_size": f, "num_hidden_layers": l, "num_attention_heads": h,
            "num_key_value_heads": k, "vocab_size": v, "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        });
        ModelConfig::from_json(config).expect("a configuration of our own")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_model_and_a_slip_gets_the_nearest_name() {
        for name in Shape::names() {
            let shape = Shape::named(name).unwrap();
            assert_eq!((shape.name, shape.config().tie_word_embeddings), (name, true));
        }
        let error = Shape::named("smolm2-135m").unwrap_err().to_string();
        assert!(error.starts_with("shape: ") && error.contains("did you mean \"smollm2-135m\"?"), "{error}");
    }
}
