//! The sampling loop: requests are queued for slots, prompts are read into pages of the cache, and the slots are
//! decoded together.

use std::collections::VecDeque;

use super::{FinishReason, Generator, NO_TOKEN, Request, Response, STEPS_PER_CHECK};
use crate::data::tokenizer::{StopMatcher, Tokenizer};
use crate::error::{Error, Result};
use crate::model::kv_cache::KvPin;

/// The place of a prompt in the cache, and the number of unfinished samples that use it.
struct Page {
    request: usize,
    users: usize,
    /// Whether the prompt has been read into it.
    read: bool,
}

/// The sample in a slot.
struct Running {
    request: usize,
    sample: usize,
    page: usize,
    /// The token ids generated so far.
    ids: Vec<u32>,
}

/// Requests in progress. It holds the generator's slots until it is dropped. Its futures may be dropped at any point.
pub(super) struct Answering<'g> {
    generator: &'g Generator,
    tokenizer: &'g Tokenizer,
    requests: &'g [Request],
    stop: &'g StopMatcher,
    seed: u32,
    results: Vec<Vec<Option<Response>>>,
    /// Samples that are waiting for a slot.
    queue: VecDeque<(usize, usize)>,
    pages: Vec<Option<Page>>,
    running: Vec<Option<Running>>,
    _cache: KvPin,
    _slots: async_lock::MutexGuard<'g, ()>,
}

impl<'g> Answering<'g> {
    /// Waits for the generator's slots.
    pub async fn begin(
        generator: &'g Generator,
        tokenizer: &'g Tokenizer,
        requests: &'g [Request],
        stop: &'g StopMatcher,
        seed: u32,
    ) -> Result<Answering<'g>> {
        generator.check(requests)?;
        let slots = generator.running.lock().await;
        let (pin, is_kept) = generator.cache.pin();
        if !is_kept {
            generator.forget();
        }
        let turn = generator.gpu.turn().await?;
        generator.slots.reset()?;
        drop(turn);
        let samples = |(i, request): (usize, &Request)| (0..request.samples).map(move |sample| (i, sample));
        Ok(Answering {
            generator,
            tokenizer,
            requests,
            stop,
            seed,
            results: requests.iter().map(|r| (0..r.samples).map(|_| None).collect()).collect(),
            queue: requests.iter().enumerate().flat_map(samples).collect(),
            pages: (0..generator.pages).map(|_| None).collect(),
            running: (0..generator.options.slots).map(|_| None).collect(),
            _cache: pin,
            _slots: slots,
        })
    }

    /// Decodes up to `steps` tokens of each running sample; returns `false` when every sample has ended.
    pub async fn look(&mut self, steps: u32) -> Result<bool> {
        self.refill().await?;
        if self.running.iter().all(Option::is_none) {
            return Ok(false);
        }
        let generator = self.generator;
        let used = self.running.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        let outputs = generator.follow(&generator.slots.live(self.seed, used), steps)?.outputs().await?;
        for slot in 0..self.running.len() {
            let Some(run) = &mut self.running[slot] else { continue };
            let (active, ids) = generator.slots.read(&outputs, slot);
            run.ids = ids;
            let run = self.running[slot].as_ref().expect("just seen");
            if let Some(response) = self.finished(&self.requests[run.request], &run.ids, active)? {
                self.end(slot, response);
                if active {
                    let turn = generator.gpu.turn().await?;
                    generator.slots.stop(slot)?;
                    drop(turn);
                }
            }
        }
        Ok(true)
    }

    /// Stores the response of a slot and frees the slot.
    fn end(&mut self, slot: usize, response: Response) {
        let run = self.running[slot].take().expect("it runs");
        self.results[run.request][run.sample] = Some(response);
        let page = self.pages[run.page].as_mut().expect("a running sample has a page");
        page.users -= 1;
        let waiting = self.queue.iter().any(|(request, _)| *request == run.request);
        if page.users == 0 && !waiting {
            self.pages[run.page] = None;
        }
    }

    /// The running samples: request, sample, and the token ids so far.
    pub fn running(&self) -> impl Iterator<Item = (usize, usize, &[u32])> {
        self.running.iter().flatten().map(|run| (run.request, run.sample, &run.ids[..]))
    }

    /// The number of responses that have ended.
    pub fn ended(&self) -> usize {
        self.results.iter().flatten().flatten().count()
    }

    /// The response of a sample, if it has ended.
    pub fn response(&self, request: usize, sample: usize) -> Option<&Response> {
        self.results[request][sample].as_ref()
    }

    pub fn requests(&self) -> &'g [Request] {
        self.requests
    }

    pub fn tokenizer(&self) -> &'g Tokenizer {
        self.tokenizer
    }

    pub fn stop(&self) -> &'g StopMatcher {
        self.stop
    }

    /// All responses, once every sample has ended.
    pub fn finish(self) -> Vec<Vec<Response>> {
        let answer = |response: Option<Response>| response.expect("every sample ran to its end");
        self.results.into_iter().map(|of| of.into_iter().map(answer).collect()).collect()
    }

    /// Returns the response if it has ended.
    fn finished(&self, request: &Request, ids: &[u32], active: bool) -> Result<Option<Response>> {
        let (tokenizer, stop) = (self.tokenizer, self.stop);
        if ids.contains(&NO_TOKEN) {
            let why = "the model's logits are not finite: its weights are damaged, or its training has diverged \
                       (then lower the learning rate)";
            return Err(Error::SelfCheck(why.into()));
        }
        if stop.cut(tokenizer, &request.prompt, ids)?.is_some() {
            // Tokens that were generated after the stop string, before this check, are not part of the response.
            for end in ids.len().saturating_sub(STEPS_PER_CHECK as usize)..=ids.len() {
                if let Some(text) = stop.cut(tokenizer, &request.prompt, &ids[..end])? {
                    let token_ids = ids[..end].to_vec();
                    return Ok(Some(Response { token_ids, text, finish_reason: FinishReason::Stop }));
                }
            }
        }
        if active {
            return Ok(None);
        }
        let ended = ids.last().is_some_and(|id| self.generator.options.eos.contains(id));
        let finish_reason = if ended { FinishReason::Eos } else { FinishReason::Length };
        let shown = if ended { &ids[..ids.len() - 1] } else { ids };
        let text = tokenizer.decode_after(&request.prompt, shown, true)?;
        Ok(Some(Response { token_ids: ids.to_vec(), text, finish_reason }))
    }

    /// Starts queued samples in free slots, and reads their prompts into the cache if they are not there yet.
    async fn refill(&mut self) -> Result<()> {
        let generator = self.generator;
        let turn = generator.gpu.turn().await?;
        for (slot, entry) in self.running.iter_mut().enumerate().filter(|(_, entry)| entry.is_none()) {
            let Some((request, sample)) = self.queue.front().copied() else { break };
            let known = self.pages.iter().position(|p| p.as_ref().is_some_and(|p| p.request == request));
            // The free page with the longest cached part of the prompt, or else the first.
            let prompt = &self.requests[request].prompt;
            let free = (0..self.pages.len()).rev().filter(|page| self.pages[*page].is_none());
            let Some(page) = known.or_else(|| free.max_by_key(|page| generator.known(*page, prompt))) else {
                break;
            };
            self.pages[page].get_or_insert(Page { request, users: 0, read: false }).users += 1;
            self.queue.pop_front();
            *entry = Some(Running { request, sample, page, ids: Vec::new() });
            let request = &self.requests[request];
            let room = generator.model.architecture().context - request.prompt.len();
            let limit = generator.options.max_new_tokens.min(room) as u32;
            generator.start(slot, page, request, request.first_sequence + sample as u32, limit)?;
        }
        drop(turn);
        let unread = |(number, page): (usize, &Option<Page>)| {
            page.as_ref().filter(|page| !page.read).map(|page| (number, &self.requests[page.request]))
        };
        let prompts: Vec<(usize, &Request)> = self.pages.iter().enumerate().filter_map(unread).collect();
        generator.read_prompts(&prompts).await?;
        self.pages.iter_mut().flatten().for_each(|page| page.read = true);
        Ok(())
    }
}
