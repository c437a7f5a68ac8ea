//! Sampling from a model. Prompts are read into a KV cache that their samples share. Many sequences are decoded
//! together, and the slot of a finished one is refilled from the queue.

mod answering;
mod chat;
mod slots;
mod stream;
mod text_stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use derive_setters::Setters;

use answering::Answering;
pub use chat::{Chat, ChatAnswer};
use slots::{SlotStart, Slots};
pub use stream::{AnswerStream, Part};

use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Buffer, Category, Dim, Format, Gpu, Live, Pending, Plan, PlanOptions, Recorder};
use crate::model::kv_cache::KvCache;
use crate::model::stream::{check_ids, extent, mean_keys};
use crate::model::{Architecture, Keys, Model, StreamTensors};
pub use crate::ops::SamplingParams;
use text_stream::TextStream;

/// The settings of a [`Generator`].
#[derive(Clone, Debug, Setters)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// How tokens are sampled.
    pub sampling: SamplingParams,
    /// The longest response in tokens; the model's context may limit it further.
    pub max_new_tokens: usize,
    /// The longest prompt in tokens.
    pub max_prompt_tokens: usize,
    /// The number of sequences that are decoded together.
    pub slots: usize,
    /// The usual number of samples per prompt; they share the prompt's cache.
    pub samples_per_prompt: usize,
    /// Tokens of the model's vocabulary that end a response.
    #[setters(into)]
    pub eos: Vec<u32>,
}

/// A prompt that the model responds to.
#[derive(Clone, Debug)]
pub struct Request {
    /// The token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// The number of responses, at least one.
    pub samples: usize,
    /// The number of the first response among all those of the run. With the seed and the position it determines every
    /// random draw, whatever else is generated at the same time. The number of the last response must be below 2³².
    pub first_sequence: u32,
}

/// One response to a prompt, the first of its run.
impl From<Vec<u32>> for Request {
    fn from(prompt: Vec<u32>) -> Request {
        Request { prompt, samples: 1, first_sequence: 0 }
    }
}

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it with an end-of-sequence token.
    Eos,
    /// It reached the length limit.
    Length,
    /// A stop string appeared.
    Stop,
}

/// One response.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Response {
    /// The token ids, including the end-of-sequence token if it ended with one.
    pub token_ids: Vec<u32>,
    /// The text that continues the prompt, without special tokens, up to a stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// The number of decoding steps between two checks of the generated tokens.
const STEPS_PER_CHECK: u32 = 8;
/// The sampled id if no logit is a number, see shaders/sample_best.wgsl.
const NO_TOKEN: u32 = u32::MAX;
/// The number of prompt tokens that are read in one pass.
const PREFILL_TOKENS: usize = 1024;

/// The default number of sequences that are decoded together.
const DEFAULT_SLOTS: usize = 64;

/// The largest number of responses of one call, since each takes host memory before it is generated.
const MOST_ANSWERS: usize = 1 << 24;

/// The number of slots for `samples` responses: `wanted`, or else 64, but not more than there are samples.
pub fn slots_for(wanted: Option<usize>, samples: usize) -> usize {
    wanted.unwrap_or(DEFAULT_SLOTS).min(samples)
}

/// The plans and the memory for sampling from one model.
pub struct Generator {
    gpu: Gpu,
    model: Model,
    options: GenerateOptions,
    decode: Plan,
    slots: Slots,
    prefill: Plan,
    prefill_inputs: [Buffer; 2],
    prefill_rows: usize,
    pages: usize,
    cache: Arc<KvCache>,
    /// Locked by the call that uses the slots.
    running: async_lock::Mutex<()>,
    /// The cached prompts, if they are kept between calls.
    kept: Option<Mutex<Kept>>,
}

/// The prompts in the cache.
struct Kept {
    /// For each page of the cache, the tokens whose keys and values are in it.
    pages: Vec<Vec<u32>>,
    /// The value of [`Model::changes`] when they were computed.
    changes: u64,
}

impl Default for GenerateOptions {
    /// One sequence at a time with default sampling, up to 256 tokens after a prompt of up to 512, without
    /// end-of-sequence tokens.
    fn default() -> GenerateOptions {
        GenerateOptions {
            sampling: SamplingParams::default(),
            max_new_tokens: 256,
            max_prompt_tokens: 512,
            slots: 1,
            samples_per_prompt: 1,
            eos: Vec::new(),
        }
    }
}

impl GenerateOptions {
    /// Returns these options if they are valid for a model of this architecture.
    fn checked(mut self, architecture: &Architecture) -> Result<GenerateOptions> {
        let counts = [
            ("max-new-tokens", self.max_new_tokens),
            ("max-prompt-length", self.max_prompt_tokens),
            ("slots", self.slots),
            ("samples-per-prompt", self.samples_per_prompt),
        ];
        if let Some((what, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::config(*what, "is 0, expected at least 1"));
        }
        self.sampling.check()?;
        if !self.eos.is_empty() {
            check_ids(architecture.vocab, || "eos".into(), &self.eos)?;
        }
        let context = architecture.context;
        if self.max_prompt_tokens >= context {
            let what = "the longest prompt".to_owned();
            return Err(Error::TooLong { what, tokens: self.max_prompt_tokens, limit: context - 1 });
        }
        // A response ends at the end of the context.
        self.max_new_tokens = self.max_new_tokens.min(context);
        // Each slot needs room for a prompt and a response, and there is one more page; rows are counted in 32 bits.
        let most = i32::MAX as usize / (self.max_prompt_tokens + self.max_new_tokens) / 4;
        if self.slots >= most {
            return Err(Error::config("slots", format!("are {}, expected less than {most}", self.slots)));
        }
        Ok(self)
    }
}

impl Generator {
    /// Records the plans and allocates the cache. The activations come from `arena`.
    ///
    /// # Errors
    /// [`Error::TooLong`] if the longest prompt leaves no room in the model's context; [`Error::Config`] for an option
    /// that is 0 or out of range, and for a `gpu` or an arena that is not the model's; memory errors.
    pub async fn new(gpu: &Gpu, model: &Model, options: GenerateOptions, arena: &Arena) -> Result<Generator> {
        model.check_gpu(gpu)?;
        let options = options.checked(model.architecture())?;
        let slots = options.slots;
        // Pages for as many prompts as the slots can process, and one for a prompt whose last samples are still
        // running.
        let pages = slots.div_ceil(options.samples_per_prompt) + 1;
        let page_rows = options.max_prompt_tokens;
        // As many prompts as there are slots, up to a limit.
        let prefill_rows = PREFILL_TOKENS.min(slots * page_rows).max(page_rows);
        let cache_rows = pages * page_rows + slots * options.max_new_tokens;
        let longest = options.max_prompt_tokens + options.max_new_tokens;
        let cache = Arc::new(KvCache::new(gpu, model.architecture(), cache_rows, longest)?);

        let (decode, slots) = {
            let mut r = Recorder::new(gpu);
            let mut slots = Slots::new(gpu, slots, pages * page_rows, &options)?;
            r.phase("decode");
            slots.record_step(&mut r, model, &cache, &options)?;
            (Plan::new(gpu, r, arena, PlanOptions::default()).await?, slots)
        };

        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        let prefill_inputs = [words("prompt ids", prefill_rows)?, words("prompt spans", prefill_rows * 4)?];
        let prefill = {
            let mut r = Recorder::new(gpu);
            let rows = Dim::Live { index: extent::TOKENS, max: prefill_rows as u32 };
            let [ids, spans] = &prefill_inputs;
            let bind = |r: &mut Recorder, b: &Buffer, cols| r.bind(&b.region(), rows, cols, Format::U32);
            let stream = StreamTensors {
                ids: bind(&mut r, ids, 1),
                spans: bind(&mut r, spans, 4),
                ends: None,
                inverse: None,
                positions: None,
            };
            r.phase("prefill");
            model.hidden(&mut r, &stream, &Keys::Cache { cache: cache.clone(), apart: false }, false)?;
            Plan::new(gpu, r, arena, PlanOptions::default()).await?
        };
        Ok(Generator {
            gpu: gpu.clone(),
            model: model.clone(),
            options,
            decode,
            slots,
            prefill,
            prefill_inputs,
            prefill_rows,
            pages,
            cache,
            running: async_lock::Mutex::new(()),
            kept: None,
        })
    }

    /// Keeps the cache of prompts between calls, so that only the new part of a conversation is read. The cache is
    /// valid until the model's weights change or [`Gpu::release_memory`] releases it.
    pub fn keeping_prompts(self) -> Generator {
        let kept = Kept { pages: vec![Vec::new(); self.pages], changes: self.model.changes() };
        Generator { kept: Some(Mutex::new(kept)), ..self }
    }

    /// The cached prompts, if they are kept.
    fn kept(&self) -> Option<MutexGuard<'_, Kept>> {
        self.kept.as_ref().map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops the cached prompts.
    fn forget(&self) {
        if let Some(mut kept) = self.kept() {
            kept.pages.iter_mut().for_each(Vec::clear);
        }
    }

    /// The number of a prompt's first tokens that are in a page of the cache.
    fn known(&self, page: usize, prompt: &[u32]) -> usize {
        let Some(mut kept) = self.kept() else { return 0 };
        let changes = self.model.changes();
        if kept.changes != changes {
            kept.pages.iter_mut().for_each(Vec::clear);
            kept.changes = changes;
        }
        kept.pages[page].iter().zip(&prompt[..prompt.len() - 1]).take_while(|(a, b)| a == b).count()
    }

    /// Records the tokens that are in a page; none while the page is being read.
    fn keep(&self, page: usize, tokens: &[u32]) {
        if let Some(mut kept) = self.kept() {
            tokens.clone_into(&mut kept.pages[page]);
        }
    }

    /// Generates the responses to every request, in the order of the requests, `samples` each.
    ///
    /// # Errors
    /// Checked before anything runs: [`Error::TooLong`] for a prompt above the limit; [`Error::Config`] for one that is
    /// empty or has a token id outside the vocabulary, and for a number of samples that is 0 or too large.
    pub async fn run(
        &self,
        tokenizer: &Tokenizer,
        requests: &[Request],
        stop: &StopMatcher,
        seed: u32,
    ) -> Result<Vec<Vec<Response>>> {
        self.run_watched(tokenizer, requests, stop, seed, &mut |_| ()).await
    }

    /// As [`Generator::run`]. `watch` is called with the number of responses that have ended.
    pub(crate) async fn run_watched(
        &self,
        tokenizer: &Tokenizer,
        requests: &[Request],
        stop: &StopMatcher,
        seed: u32,
        watch: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Vec<Response>>> {
        let mut answering = Answering::begin(self, tokenizer, requests, stop, seed).await?;
        while answering.look(STEPS_PER_CHECK).await? {
            watch(answering.ended());
        }
        Ok(answering.finish())
    }

    /// Generates the same responses, a little slower, as a stream: see [`AnswerStream::next`]. Other calls of this
    /// generator wait until the stream is dropped.
    ///
    /// # Errors
    /// As [`Generator::run`].
    pub async fn stream<'s>(
        &'s self,
        tokenizer: &'s Tokenizer,
        requests: &'s [Request],
        stop: &'s StopMatcher,
        seed: u32,
    ) -> Result<AnswerStream<'s>> {
        Ok(AnswerStream::new(Answering::begin(self, tokenizer, requests, stop, seed).await?))
    }

    fn check(&self, requests: &[Request]) -> Result<()> {
        let (vocab, limit) = (self.model.architecture().vocab, self.options.max_prompt_tokens);
        let mut all = 0usize;
        for (i, request) in requests.iter().enumerate() {
            check_ids(vocab, || format!("prompt {i}"), &request.prompt)?;
            let tokens = request.prompt.len();
            if tokens > limit {
                return Err(Error::TooLong { what: format!("prompt {i}"), tokens, limit });
            }
            let Some(after_first) = request.samples.checked_sub(1) else {
                return Err(Error::config(format!("samples of prompt {i}"), "are 0, expected at least 1"));
            };
            all = all.saturating_add(request.samples);
            let last = (request.first_sequence as usize).checked_add(after_first);
            if all > MOST_ANSWERS || last.is_none_or(|last| last > u32::MAX as usize) {
                let why = format!(
                    "are more than can be numbered from {}, or more than {MOST_ANSWERS} in one call",
                    request.first_sequence
                );
                return Err(Error::config(format!("samples of prompt {i}"), why));
            }
        }
        Ok(())
    }

    /// Reads the prompts of requests into the cache, as [`Generator::run`] would, and generates nothing. There is one
    /// request for each slot, with one sample each. It is for timing.
    pub(crate) async fn read_all(&self, requests: &[Request]) -> Result<()> {
        self.check(requests)?;
        let _run = self.running.lock().await;
        self.read_prompts(&requests.iter().enumerate().collect::<Vec<_>>()).await
    }

    /// Decodes `steps` tokens after each of the prompts that [`Generator::read_all`] has read. It is for timing.
    pub(crate) async fn follow_all(&self, requests: &[Request], steps: u32, seed: u32) -> Result<()> {
        let _run = self.running.lock().await;
        let turn = self.gpu.turn().await?;
        self.slots.reset()?;
        for (slot, request) in requests.iter().enumerate() {
            self.start(slot, slot, request, slot as u32, steps)?;
        }
        drop(turn);
        let live = self.slots.live(seed, requests.len());
        for first in (0..steps).step_by(STEPS_PER_CHECK as usize) {
            self.follow(&live, STEPS_PER_CHECK.min(steps - first))?.outputs().await?;
        }
        Ok(())
    }

    /// Submits `steps` decoding steps of every slot.
    fn follow(&self, live: &Live, steps: u32) -> Result<Pending> {
        self.decode.submit(live, steps)
    }

    /// Starts a sample in a slot, after the prompt in a page.
    fn start(&self, slot: usize, page: usize, request: &Request, sequence: u32, limit: u32) -> Result<()> {
        let prompt = request.prompt.len();
        let first = self.page_row(page);
        self.slots.start(
            slot,
            SlotStart {
                token: request.prompt[prompt - 1],
                position: prompt as u32 - 1,
                prefix: first..first + prompt as u32 - 1,
                sequence,
                limit,
            },
        )
    }

    fn page_row(&self, page: usize) -> u32 {
        (page * self.options.max_prompt_tokens) as u32
    }

    /// Writes the keys and values of all tokens of these prompts except the last, which is the first row of each
    /// sample.
    async fn read_prompts(&self, prompts: &[(usize, &Request)]) -> Result<()> {
        let changes = self.model.changes();
        let (mut ids, mut spans) = (vec![], vec![]);
        for (i, (page, request)) in prompts.iter().enumerate() {
            let first = self.page_row(*page);
            let read = &request.prompt[..request.prompt.len() - 1];
            let known = self.known(*page, &request.prompt);
            self.keep(*page, &read[..known]);
            for (position, id) in read.iter().enumerate().skip(known) {
                let row = first + position as u32;
                ids.push(*id);
                spans.push([first, first, first, row + 1]);
            }
            let next = prompts.get(i + 1).map_or(0, |(_, r)| r.prompt.len());
            let last = i + 1 == prompts.len();
            if !ids.is_empty() && (last || ids.len() + next > self.prefill_rows) {
                let inputs = &self.prefill_inputs;
                let turn = self.gpu.turn().await?;
                self.gpu.upload(&inputs[0].region(), &ids)?;
                self.gpu.upload(&inputs[1].region(), &spans)?;
                let mut live = Live { keys: mean_keys(&spans), ..Live::default() };
                live.extents[extent::TOKENS as usize] = ids.len() as u32;
                let running = self.prefill.submit(&live, 1)?;
                drop(turn);
                running.outputs().await?;
                (ids, spans) = (vec![], vec![]);
            }
        }
        // The cache of weights that have changed in the meantime is not kept.
        if self.model.changes() == changes {
            prompts
                .iter()
                .for_each(|(page, request)| self.keep(*page, &request.prompt[..request.prompt.len() - 1]));
        }
        Ok(())
    }
}
