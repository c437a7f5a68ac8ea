//! The input of all engines: a model's shape, its weights and the tokens, the same for each.

use oaif::unstable::data::packing::Tree;
use oaif::unstable::model::ModelConfig;
use oaif::unstable::model::architecture::WeightSpec;
use serde_json::json;

/// The embedding's tensor name.
pub const EMBEDDING: &str = "model.embed_tokens.weight";

/// A Llama-shaped model and a batch of sequences.
#[derive(Clone, Copy)]
pub struct Case {
    /// C.
    pub hidden: usize,
    /// F.
    pub feed_forward: usize,
    /// L.
    pub layers: usize,
    /// H = K.
    pub heads: usize,
    /// V.
    pub vocab: usize,
    /// S.
    pub sequences: usize,
    /// Tokens of each sequence.
    pub length: usize,
}

const SMALL: Case =
    Case { hidden: 64, feed_forward: 172, layers: 5, heads: 8, vocab: 512, sequences: 16, length: 128 };
const LARGE: Case =
    Case { hidden: 192, feed_forward: 512, layers: 6, heads: 6, vocab: 4096, sequences: 8, length: 128 };

/// Batches of short sequences.
pub const BATCHES: [Case; 2] = [SMALL, LARGE];
/// One long sequence, for engines without batches.
pub const SINGLE: [Case; 2] =
    [Case { sequences: 1, length: 512, ..SMALL }, Case { sequences: 1, length: 512, ..LARGE }];

/// ε of RMSNorm.
pub const EPSILON: f64 = 1e-5;
/// The base of the rotary frequencies.
pub const THETA: f64 = 10_000.0;

impl Case {
    /// For example `C64 F172 L5 H8 V512 16x128`.
    pub fn name(&self) -> String {
        let Case { hidden, feed_forward, layers, heads, vocab, sequences, length } = self;
        format!("C{hidden} F{feed_forward} L{layers} H{heads} V{vocab} {sequences}x{length}")
    }

    /// D.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// N.
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    /// The model configuration, with tied embeddings.
    pub fn config(&self) -> ModelConfig {
        let json = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.heads, "vocab_size": self.vocab,
            "max_position_embeddings": self.length, "rms_norm_eps": EPSILON, "rope_theta": THETA,
            "tie_word_embeddings": true,
        });
        ModelConfig::from_json(json).expect("the cases are valid models")
    }

    /// Every weight with its Hugging Face name and its values: (outputs, inputs) row by row for the matrices.
    pub fn weights(&self) -> impl Iterator<Item = (WeightSpec, Vec<f32>)> {
        let specs = self.config().architecture.weights();
        specs.into_iter().enumerate().map(|(index, spec)| {
            // Large enough that the loss differs from ln V, and that the norm weights matter.
            let (mean, deviation) = match spec.shape[..] {
                [_] => (1.0, 0.1),
                _ if spec.name == EMBEDDING => (0.0, 0.1),
                [_, inputs] => (0.0, 1.0 / (inputs as f64).sqrt()),
                _ => unreachable!("weights are vectors and matrices"),
            };
            let value = |i: u64| {
                let uniform = hash((index as u64) << 32 | i) as f64 / u64::MAX as f64 - 0.5;
                (mean + deviation * 12f64.sqrt() * uniform) as f32
            };
            let values = (0..spec.shape.iter().product::<usize>() as u64).map(value).collect();
            (spec, values)
        })
    }

    /// The tokens of each sequence, one more than its length: every token but the last is an input, every token but
    /// the first a target.
    pub fn ids(&self) -> Vec<Vec<u32>> {
        let id = |s: usize, i: usize| (hash((1 << 63) | (s << 32 | i) as u64) % self.vocab as u64) as u32;
        (0..self.sequences).map(|s| (0..=self.length).map(|i| id(s, i)).collect()).collect()
    }

    /// [`Case::ids`] as oaif's batches: a prompt of one token, the rest is the response.
    pub fn trees(&self) -> Vec<Tree> {
        let tree = |ids: Vec<u32>| Tree { prompt: vec![ids[0]], responses: vec![ids[1..].to_vec()] };
        self.ids().into_iter().map(tree).collect()
    }
}

/// (rows, cols) as (cols, rows).
pub fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(values.len(), rows * cols);
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// The finaliser of SplitMix64 (Steele et al. 2014).
fn hash(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
