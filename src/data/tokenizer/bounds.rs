//! Limits around the `tokenizers` library, which panics on some files, and with some makes a text grow without bound.

use std::panic::resume_unwind;

use serde::Deserialize;
use tokenizers::decoders::strip::Strip;
use tokenizers::{
    Decoder, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper,
    PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::panics;

/// The library's tokenizer, with a normalizer and a decoder whose output is limited.
pub(super) type Inner =
    TokenizerImpl<ModelWrapper, BoundedNormalizer, PreTokenizerWrapper, PostProcessorWrapper, BoundedDecoder>;

/// The limit in bytes of the output of a normalizer or decoder. Unicode decompositions grow at most elevenfold.
fn limit(bytes: usize) -> usize {
    16 * bytes + 4096
}

const GREW: &str = "its normalizer or decoder makes the text more than 16 times as long";

/// The panic payload for a text that exceeds its limit; [`guarded`] catches it.
struct Grew;

/// Calls the library, and converts a panic to an error. Known causes of panics are rejected when the file is read; this
/// catches the others.
pub(super) fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    panics::caught_payload(call)
        .unwrap_or_else(|panic| Err(message(&*panic).into()))
        .map_err(|e| e.to_string())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    if panic.is::<Grew>() { GREW.into() } else { panics::message(panic).to_owned() }
}

/// A normalizer that stops when a text exceeds its limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct BoundedNormalizer(NormalizerWrapper);

impl Normalizer for BoundedNormalizer {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let limit = limit(text.len());
        normalize_within(limit, &self.0, text)
    }
}

fn normalize_within(
    limit: usize,
    step: &NormalizerWrapper,
    text: &mut NormalizedString,
) -> tokenizers::Result<()> {
    match step {
        NormalizerWrapper::Sequence(steps) => {
            return steps.as_ref().iter().try_for_each(|step| normalize_within(limit, step, text));
        }
        // The library panics on an empty prefix.
        NormalizerWrapper::Prepend(step) if step.prepend.is_empty() => return Ok(()),
        step => step.normalize(text)?,
    }
    if text.len() > limit {
        // The library ignores the error of a normalizer and continues, so the stack is unwound instead. This prints
        // nothing.
        resume_unwind(Box::new(Grew));
    }
    Ok(())
}

/// A decoder that stops when a text exceeds its limit, and that does not panic on an empty token.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct BoundedDecoder(DecoderWrapper);

impl Decoder for BoundedDecoder {
    fn decode_chain(&self, tokens: Vec<String>) -> tokenizers::Result<Vec<String>> {
        let limit = limit(bytes(&tokens) + tokens.len());
        decode_within(limit, &self.0, tokens)
    }
}

fn decode_within(
    limit: usize,
    step: &DecoderWrapper,
    tokens: Vec<String>,
) -> tokenizers::Result<Vec<String>> {
    if tokens.is_empty() {
        return Ok(tokens);
    }
    let tokens = match step {
        DecoderWrapper::Sequence(steps) => {
            return steps
                .get_decoders()
                .iter()
                .try_fold(tokens, |tokens, step| decode_within(limit, step, tokens));
        }
        DecoderWrapper::Strip(strip) => tokens.iter().map(|token| stripped(strip, token)).collect(),
        step => step.decode_chain(tokens)?,
    };
    if bytes(&tokens) > limit { Err(GREW.into()) } else { Ok(tokens) }
}

fn bytes(tokens: &[String]) -> usize {
    tokens.iter().map(String::len).sum()
}

/// The library's `Strip` panics if nothing is left.
fn stripped(strip: &Strip, token: &str) -> String {
    let mut left = token;
    for _ in 0..strip.start {
        let Some(shorter) = left.strip_prefix(strip.content) else { break };
        left = shorter;
    }
    for _ in 0..strip.stop {
        let Some(shorter) = left.strip_suffix(strip.content) else { break };
        left = shorter;
    }
    left.to_owned()
}
