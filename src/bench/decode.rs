//! Times the two phases of sampling: reading a prompt (prefill), and generating tokens one by one (decode).

use super::{Case, Facts, Recipe, Subject};
use crate::Wait;
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generator, Request, SamplingParams};
use crate::gpu::Arena;

/// The default numbers of sequences that are decoded in parallel.
pub const SEQUENCES: [usize; 3] = [1, 16, 64];

/// Tokens per sequence that is generated from the beginning.
const TOKENS: usize = 128;
/// Tokens after a context: few, so that the context hardly grows.
const FEW: usize = 32;

/// Prefill of prompts with these lengths, one at a time, into an empty cache.
pub fn prefill(lengths: &[usize]) -> Vec<Recipe> {
    let of_length = |&length: &usize| {
        let name = format!("one prompt of {length}");
        Recipe::new("prefill", name.clone(), move |s: &Subject| s.prefill(name, length))
    };
    lengths.iter().map(of_length).collect()
}

/// Decode steps of this many sequences in parallel: from a prompt of one token, or after each of these contexts.
pub fn decode(sequences: &[usize], contexts: Option<&[usize]>) -> Vec<Recipe> {
    let mut all = Vec::new();
    for &s in sequences {
        match contexts {
            None => {
                let name = format!("S {s}, from the first token");
                all.push(Recipe::new("decode", name.clone(), move |subject: &Subject| {
                    subject.decode(name, s)
                }));
            }
            Some(contexts) => all.extend(contexts.iter().map(|&context| {
                let name = format!("S {s}, after {context}");
                Recipe::new("decode", name.clone(), move |subject: &Subject| {
                    subject.decode_after(name, s, context)
                })
            })),
        }
    }
    all
}

impl Subject {
    fn options(&self, prompt: usize, tokens: usize, sequences: usize) -> GenerateOptions {
        GenerateOptions {
            sampling: SamplingParams { temperature: 0.9, ..SamplingParams::default() },
            max_new_tokens: tokens,
            max_prompt_tokens: prompt,
            slots: sequences,
            samples_per_prompt: 1,
            eos: vec![],
        }
    }

    /// Refuses texts that are longer than the model's context.
    fn room_for(&self, what: &str, tokens: usize) -> Result<()> {
        let limit = self.model.architecture().context;
        match tokens > limit {
            true => Err(Error::TooLong { what: what.into(), tokens, limit }),
            false => Ok(()),
        }
    }

    /// Returns the generator and its memory in bytes.
    fn generator(&self, options: GenerateOptions) -> Result<(Generator, u64)> {
        let before = self.gpu.memory().total;
        let generator = Generator::new(&self.gpu, &self.model, options, &Arena::new()).wait()?;
        Ok((generator, self.gpu.memory().total - before))
    }

    /// Prompts with different tokens.
    fn requests(&self, count: usize, prompt: usize) -> Vec<Request> {
        let trees = self.trees(count, prompt, 1, 1);
        let request = |(i, tree): (usize, crate::data::packing::Tree)| Request {
            prompt: tree.prompt,
            samples: 1,
            first_sequence: i as u32,
        };
        trees.into_iter().enumerate().map(request).collect()
    }

    /// The smallest number of bytes that must be read: all weights once, and `keys` keys and values.
    fn bytes(&self, keys: f64) -> f64 {
        let a = self.model.architecture();
        let read = self.model.base().iter().filter(|w| a.tied || w.name != a.names.embedding());
        let weights: u64 = read.flat_map(|w| w.parts()).map(|(values, ..)| values.bytes).sum();
        weights as f64 + keys * (8 * a.layers * a.kv_heads * a.head_dim) as f64
    }

    /// Keys and values of a whole prompt; the output head is not computed.
    fn prefill(&self, name: String, length: usize) -> Result<Case> {
        self.room_for("a prompt plus one token", length + 1)?;
        let (rows, mut facts) = (length as f64, Facts::on(self, "prefill", name));
        facts.tokens = Some(length);
        facts.flops = Some(self.forward_flops(rows, rows * (rows + 1.0) / 2.0, 0.0).forward());
        facts.bytes = Some(self.bytes(rows));
        // Prefill leaves a prompt's last token to the first decode step, so the prompt gets an extra token.
        let (generator, memory) = self.generator(self.options(length + 1, 1, 1))?;
        facts.memory_bytes = Some(memory);
        let requests = self.requests(1, length + 1);
        Case::new(facts, move |times| (0..times).try_for_each(|_| generator.read_all(&requests).wait()))
    }

    /// Whole sequences, including all work of the host.
    fn decode(&self, name: String, sequences: usize) -> Result<Case> {
        let steps = TOKENS.min(self.model.architecture().context - 1);
        let tokenizer = Tokenizer::load(&self.folder()?.path)?;
        let requests = self.requests(sequences, 1);
        let (generator, memory) = self.generator(self.options(1, steps, sequences))?;
        let facts = self.decode_facts(name, sequences, 0, steps, memory);
        let run = move |times| {
            (0..times).try_for_each(|_| {
                generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).wait().map(drop)
            })
        };
        Ok(Case { runs_per_time: steps as u32, ..Case::new(facts, run)? })
    }

    /// Decode steps after prompts that were read before the timing starts.
    fn decode_after(&self, name: String, sequences: usize, context: usize) -> Result<Case> {
        self.room_for("a context plus the tokens generated after it", context + FEW)?;
        let requests = self.requests(sequences, context);
        let (generator, memory) = self.generator(self.options(context, FEW, sequences))?;
        let facts = self.decode_facts(name, sequences, context - 1, FEW, memory);
        generator.read_all(&requests).wait()?;
        let run =
            move |times| (0..times).try_for_each(|_| generator.follow_all(&requests, FEW as u32, 1).wait());
        Ok(Case { runs_per_time: FEW as u32, ..Case::new(facts, run)? })
    }

    /// The facts of a decode step, averaged over `steps` after `known` tokens in the cache.
    fn decode_facts(&self, name: String, sequences: usize, known: usize, steps: usize, memory: u64) -> Facts {
        let mut facts = Facts::on(self, "decode", name);
        facts.tokens = Some(sequences);
        let rows = sequences as f64;
        let keys = rows * (known as f64 + (steps + 1) as f64 / 2.0);
        facts.flops = Some(self.forward_flops(rows, keys, rows).forward());
        facts.bytes = Some(self.bytes(keys));
        facts.memory_bytes = Some(memory);
        facts
    }
}
