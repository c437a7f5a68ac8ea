//! Decoding: one token for each of several sequences.

use super::{Case, Facts, Subject};
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::Result;
use crate::generate::{GenerateOptions, Generator, Request, SamplingParams};
use crate::gpu::Arena;
use crate::model::architecture::EMBEDDING;

/// Tokens of each sequence.
const TOKENS: usize = 128;

impl Subject {
    /// How many sequences are decoded side by side.
    pub const DECODED: [usize; 3] = [1, 16, 64];

    /// Decode steps of `sequences` from a prompt of one token. Its bytes are what no kernel can do without: the
    /// weights once a step, and the keys and values of the tokens before.
    pub fn decode(&self, sequences: usize) -> Result<Case> {
        let a = self.model.architecture();
        let steps = TOKENS.min(a.context - 1);
        let options = GenerateOptions {
            sampling: SamplingParams { temperature: 0.9, ..SamplingParams::default() },
            max_new_tokens: steps,
            max_prompt_tokens: 1,
            slots: sequences,
            samples_per_prompt: 1,
            eos: vec![],
        };
        let tokenizer = Tokenizer::load(&self.folder()?.path)?;
        let request = |i| Request { prompt: vec![1], samples: 1, first_sequence: i };
        let requests: Vec<Request> = (0..sequences as u32).map(request).collect();

        let mut facts = Facts::new("decode", format!("S {sequences}, {steps} tokens each"), self.label());
        facts.tokens = Some(sequences);
        // A sequence's tokens so far, on average over its steps.
        let keys = sequences as f64 * (steps + 1) as f64 / 2.0;
        facts.flops = Some(self.forward_flops(sequences as f64, keys, sequences as f64));
        let read = self.model.base().iter().filter(|w| a.tied || w.name != EMBEDDING);
        let weights: u64 = read.flat_map(|w| w.parts()).map(|(values, ..)| values.bytes).sum();
        facts.bytes = Some(weights as f64 + keys * (8 * a.layers * a.kv_heads * a.head_dim) as f64);
        let before = self.gpu.memory().total;
        let generator = Generator::new(&self.gpu, &self.model, options, &Arena::new())?;
        facts.memory_bytes = Some(self.gpu.memory().total - before);
        let run = move |times| {
            (0..times)
                .try_for_each(|_| generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).map(drop))
        };
        Ok(Case { runs_per_time: steps as u32, ..Case::new(facts, run)? })
    }
}
