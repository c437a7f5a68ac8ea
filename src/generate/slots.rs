//! The slots of sequences that are being generated. Their state is on the GPU, so that one submit can decode several
//! tokens.

use std::ops::Range;
use std::sync::Arc;

use super::GenerateOptions;
use crate::error::Result;
use crate::gpu::{Buffer, Category, Dim, Format, Gpu, Live, Outputs, Recorder, Region, Tensor};
use crate::model::kv_cache::KvCache;
use crate::model::stream::extent;
use crate::model::{Keys, Model, StreamTensors};
use crate::ops::{self, DecodeSlots};

/// The initial state of a slot.
pub(super) struct SlotStart {
    /// The prompt's last token.
    pub token: u32,
    /// The position of that token.
    pub position: u32,
    /// The cache rows of the tokens before it.
    pub prefix: Range<u32>,
    /// The number of the sequence, for its random draws.
    pub sequence: u32,
    /// The largest number of tokens to generate.
    pub limit: u32,
}

pub(super) struct Slots {
    gpu: Gpu,
    count: usize,
    /// The first cache row of the slots' own tokens.
    first_row: usize,
    len: usize,
    tokens: Buffer,
    positions: Buffer,
    spans: Buffer,
    sequences: Buffer,
    slots: Buffer,
    history: Buffer,
    eos: Buffer,
    outputs: Option<(Tensor, Tensor)>,
}

impl Slots {
    pub fn new(gpu: &Gpu, count: usize, first_row: usize, options: &GenerateOptions) -> Result<Slots> {
        let words = |label, n: usize| gpu.buffer(label, Category::Workspace, n as u64 * 4);
        // Without an end-of-sequence token, generation stops at the limit: u32::MAX is not a token.
        let eos = if options.eos.is_empty() { vec![u32::MAX] } else { options.eos.clone() };
        let len = options.max_new_tokens;
        Ok(Slots {
            gpu: gpu.clone(),
            count,
            first_row,
            len,
            tokens: words("slot tokens", count)?,
            positions: words("slot positions", count)?,
            spans: words("slot spans", count * 4)?,
            sequences: words("slot sequences", count)?,
            slots: words("slots", count * 4)?,
            history: words("history", count * len)?,
            eos: gpu.buffer_with("end-of-sequence tokens", Category::Workspace, &eos)?,
            outputs: None,
        })
    }

    /// Records a decoding step of one token for every slot.
    pub fn record_step(
        &mut self,
        r: &mut Recorder,
        model: &Model,
        cache: &Arc<KvCache>,
        options: &GenerateOptions,
    ) -> Result<()> {
        let rows = Dim::Live { index: extent::TOKENS, max: self.count as u32 };
        let bind = |r: &mut Recorder, b: &Buffer, cols| r.bind(&b.region(), rows, cols, Format::U32);
        let slots = DecodeSlots {
            tokens: bind(r, &self.tokens, 1),
            positions: bind(r, &self.positions, 1),
            spans: bind(r, &self.spans, 4),
            slots: bind(r, &self.slots, 4),
            history: bind(r, &self.history, self.len),
        };
        let sequences = bind(r, &self.sequences, 1);
        let eos = r.bind(&self.eos.region(), self.eos.bytes() as usize / 4, 1, Format::U32);
        let stream = StreamTensors {
            ids: slots.tokens,
            spans: slots.spans,
            ends: None,
            inverse: None,
            positions: None,
        };
        let keys = Keys::Cache { cache: cache.clone(), apart: true };
        let hidden = model.hidden(r, &stream, &keys, false)?;
        let normed = model.final_norm(r, hidden)?;
        let head = model.head(r);
        let logits = ops::linear(r, normed, &head.into(), None)?;
        let transform = model.logit_transform();
        let sampled = ops::sample(r, logits, sequences, slots.positions, options.sampling, transform)?;
        ops::decode_advance(r, sampled, eos, slots);
        r.output(slots.slots);
        r.output(slots.history);
        self.outputs = Some((slots.slots, slots.history));
        Ok(())
    }

    /// Deactivates every slot.
    pub fn reset(&self) -> Result<()> {
        let clear = [&self.tokens, &self.positions, &self.spans, &self.sequences, &self.slots];
        self.gpu.clear(&clear.map(Buffer::region))
    }

    /// Returns the live values for a step of the first `used` slots.
    pub fn live(&self, seed: u32, used: usize) -> Live {
        let mut live = Live { seed, ..Live::default() };
        live.extents[extent::TOKENS as usize] = used as u32;
        live
    }

    /// Starts a sequence in a slot.
    pub fn start(&self, slot: usize, start: SlotStart) -> Result<()> {
        let own = (self.first_row + slot * self.len) as u32;
        self.write(&self.tokens, slot, &[start.token])?;
        self.write(&self.positions, slot, &[start.position])?;
        self.write(&self.spans, slot, &[start.prefix.start, start.prefix.end, own, own + 1])?;
        self.write(&self.sequences, slot, &[start.sequence])?;
        self.write(&self.slots, slot, &[1, 0, start.limit, 0])
    }

    /// Stops a sequence early.
    pub fn stop(&self, slot: usize) -> Result<()> {
        self.write(&self.spans, slot, &[0; 4])?;
        self.write(&self.slots, slot, &[0; 4])
    }

    fn write(&self, buffer: &Buffer, slot: usize, words: &[u32]) -> Result<()> {
        let bytes = words.len() as u64 * 4;
        self.gpu.upload(&Region { buffer: buffer.clone(), offset: slot as u64 * bytes, bytes }, words)
    }

    /// Returns whether a slot is still active, and the tokens that it has generated.
    pub fn read(&self, outputs: &Outputs, slot: usize) -> (bool, Vec<u32>) {
        let (slots, history) = self.outputs.expect("recorded");
        let state = &outputs.u32(slots)[slot * 4..][..4];
        let ids = &outputs.u32(history)[slot * self.len..][..state[1] as usize];
        (state[0] != 0, ids.to_vec())
    }
}
