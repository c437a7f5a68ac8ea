//! Models of known sizes with random weights, and the batches that steps are timed with.

use std::fmt;

use crate::error::{Error, Result};
use crate::judge::names;
use crate::model::ModelConfig;

/// A model's sizes and the batch of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The name for users; for sizes given by number, that text.
    pub name: String,
    /// C, F, L, H, K, D, V.
    sizes: [usize; 7],
    /// The default batch of a step.
    pub batch: Batch,
}

/// The sequences of a step and their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// S.
    pub sequences: usize,
    /// Token rows per sequence.
    pub length: usize,
}

/// Name; C, F, L, H, K, D, V; sequences and their length. All are built as Llama models with tied embeddings: the query
/// and key norms of Qwen3, and the additional norms, sliding windows and GELU of Gemma 3, are left out.
const SHAPES: [(&str, [usize; 7], [usize; 2]); 7] = [
    ("stories260k", [64, 172, 5, 8, 4, 8, 512], [16, 128]),
    ("c192", [192, 512, 6, 6, 6, 32, 4096], [8, 128]),
    ("smollm2-135m", [576, 1536, 30, 9, 3, 64, 49152], [8, 512]),
    ("smollm2-360m", [960, 2560, 32, 15, 5, 64, 49152], [4, 512]),
    ("qwen3-0.6b", [1024, 3072, 28, 16, 8, 128, 151936], [1, 512]),
    ("llama-3.2-1b", [2048, 8192, 16, 32, 8, 64, 128256], [1, 512]),
    ("gemma-3-1b", [1152, 6912, 26, 4, 1, 256, 262144], [1, 512]),
];

/// The letters of the sizes.
const LETTERS: [&str; 7] = ["c", "f", "l", "h", "k", "d", "v"];

/// Context length of a random model.
const CONTEXT: usize = 32_768;
/// The largest size, so that products of a few sizes do not overflow.
const LARGEST: usize = 1 << 24;

impl Shape {
    /// Returns the names of all shapes; the first is the default.
    pub fn names() -> [&'static str; 7] {
        SHAPES.map(|(name, ..)| name)
    }

    /// Parses a shape by its name, or by its sizes: `c=576,f=1536,l=30,h=9,k=3,d=64,v=49152`. K defaults to H, and D to
    /// C / H.
    ///
    /// # Errors
    /// [`Error::Config`] naming the nearest name, or the size that is missing, unknown or not a number.
    pub fn parse(text: &str) -> Result<Shape> {
        if text.contains('=') {
            return Shape::by_sizes(text);
        }
        let known = SHAPES.into_iter().find(|(name, ..)| *name == text);
        let (name, sizes, [sequences, length]) =
            known.ok_or_else(|| names::unknown("shape", text, &Shape::names()))?;
        Ok(Shape { name: name.into(), sizes, batch: Batch { sequences, length } })
    }

    fn by_sizes(text: &str) -> Result<Shape> {
        let refuse = |why: String| Err(Error::config("shape", why));
        let mut found = [None; 7];
        for part in text.split(',') {
            let (letter, value) = part.split_once('=').unwrap_or((part, ""));
            let letter = letter.trim().to_lowercase();
            let Some(at) = LETTERS.iter().position(|known| *known == letter) else {
                return refuse(format!("{letter:?} is not a size: the sizes are c, f, l, h, k, d and v"));
            };
            match value.trim().parse::<usize>() {
                Ok(size) if (1..=LARGEST).contains(&size) && found[at].is_none() => found[at] = Some(size),
                Ok(_) if found[at].is_some() => return refuse(format!("{letter} is given twice")),
                _ => return refuse(format!("{part:?} is not a valid size: write for example c=576")),
            }
        }
        let [c, f, l, h, k, d, v] = found;
        let (Some(c), Some(f), Some(l), Some(h), Some(v)) = (c, f, l, h, v) else {
            return refuse(format!("{text:?} lacks a size: give c, f, l, h and v, for example v=49152"));
        };
        let sizes = [c, f, l, h, k.unwrap_or(h), d.unwrap_or(c / h), v];
        Ok(Shape { name: text.to_lowercase(), sizes, batch: Batch { sequences: 8, length: 128 } })
    }

    /// Returns the same shape with another number of layers, which becomes part of its name.
    pub fn with_layers(mut self, layers: usize) -> Shape {
        self.sizes[2] = layers;
        self.name = format!("{}, {layers} of its layers", self.name);
        self
    }

    /// Returns the model's configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid sizes.
    pub fn config(&self) -> Result<ModelConfig> {
        let [c, f, l, h, k, d, v] = self.sizes;
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": c,
            "intermediate_size": f, "num_hidden_layers": l, "num_attention_heads": h,
            "num_key_value_heads": k, "head_dim": d, "vocab_size": v, "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        });
        ModelConfig::from_json(config).map_err(|why| Error::config("shape", why))
    }
}

impl Batch {
    /// Parses `S x L` or `SxL`.
    pub fn parse(text: &str) -> Option<Batch> {
        let (sequences, length) = text.split_once(['x', 'X', '×'])?;
        let number = |text: &str| text.trim().parse().ok().filter(|n| (1..=LARGEST).contains(n));
        Some(Batch { sequences: number(sequences)?, length: number(length)? })
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.sequences, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_valid_model_and_a_misspelt_name_gets_a_suggestion() {
        for name in Shape::names() {
            let shape = Shape::parse(name).unwrap();
            assert_eq!((&*shape.name, shape.config().unwrap().architecture.tied), (name, true));
        }
        let error = Shape::parse("smolm2-135m").unwrap_err().to_string();
        assert!(error.starts_with("shape: ") && error.contains("did you mean \"smollm2-135m\"?"), "{error}");
    }

    #[test]
    fn a_shape_can_be_given_by_sizes_and_two_of_them_have_defaults() {
        let named = Shape::parse("smollm2-135m").unwrap();
        let shape = Shape::parse("C=576, F=1536,l=30,h=9,k=3,d=64,v=49152").unwrap();
        assert_eq!(shape.sizes, named.sizes);
        let shape = Shape::parse("c=64,f=172,l=5,h=8,v=512").unwrap();
        assert_eq!(shape.sizes, [64, 172, 5, 8, 8, 8, 512]);
        for (text, part) in [
            ("c=64", "lacks a size"),
            ("c=64,c=64", "c is given twice"),
            ("c=64,x=1", "\"x\" is not a size"),
            ("c=sixty", "\"c=sixty\" is not a valid size"),
            ("c=0", "\"c=0\" is not a valid size"),
            ("c=64,f", "\"f\" is not a valid size"),
        ] {
            let error = Shape::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("shape: ") && error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn fewer_layers_show_in_the_name() {
        let shape = Shape::parse("llama-3.2-1b").unwrap().with_layers(2);
        assert_eq!(
            (&*shape.name, shape.config().unwrap().architecture.layers),
            ("llama-3.2-1b, 2 of its layers", 2)
        );
    }

    #[test]
    fn a_batch_is_sequences_by_their_length() {
        for text in ["8x512", "8 x 512", "8×512", "8X512"] {
            assert_eq!(Batch::parse(text).map(|batch| batch.to_string()).as_deref(), Some("8 x 512"));
        }
        for text in ["8", "x512", "8x", "0x4", "8x512x2", "-1x4"] {
            assert_eq!(Batch::parse(text), None, "{text}");
        }
    }
}
