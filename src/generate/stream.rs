//! Streams of responses.

use std::collections::VecDeque;

use super::answering::Answering;
use super::{Response, TextStream};
use crate::error::Result;

/// Responses in progress, see [`Generator::stream`](super::Generator::stream). Dropping it stops those that have not
/// ended.
pub struct AnswerStream<'g> {
    answering: Answering<'g>,
    /// The text stream of each sample; `None` after its end.
    texts: Vec<Vec<Option<TextStream<'g>>>>,
    parts: VecDeque<Part>,
}

/// A part of a response.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// The index of its request.
    pub request: usize,
    /// The index among the request's samples.
    pub sample: usize,
    /// The text that it adds to the response. It has only complete characters, and no beginning of a possible stop
    /// string.
    pub text: String,
    /// The whole response, in its last part.
    pub response: Option<Response>,
}

impl<'g> AnswerStream<'g> {
    pub(super) fn new(answering: Answering<'g>) -> AnswerStream<'g> {
        let (tokenizer, stop) = (answering.tokenizer(), answering.stop());
        let text = |request: &'g super::Request| {
            (0..request.samples).map(|_| Some(TextStream::new(tokenizer, &request.prompt, stop))).collect()
        };
        AnswerStream {
            texts: answering.requests().iter().map(text).collect(),
            answering,
            parts: VecDeque::new(),
        }
    }

    /// Returns the next part of one of the responses, or `None` when all have ended. Its future may be dropped and
    /// called again.
    ///
    /// # Errors
    /// Device errors; [`Error::SelfCheck`](crate::Error::SelfCheck) for logits that are not finite.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        while self.parts.is_empty() {
            let more = self.answering.look(1).await?;
            self.queue_parts()?;
            if !more {
                break;
            }
        }
        Ok(self.parts.pop_front())
    }

    /// Queues the new parts.
    fn queue_parts(&mut self) -> Result<()> {
        for (request, sample, ids) in self.answering.running() {
            let Some(stream) = &mut self.texts[request][sample] else { continue };
            let text = stream.push(ids)?;
            if !text.is_empty() {
                self.parts.push_back(Part { request, sample, text, response: None });
            }
        }
        for (request, samples) in self.texts.iter_mut().enumerate() {
            for (sample, stream) in samples.iter_mut().enumerate() {
                let Some(response) = self.answering.response(request, sample) else { continue };
                let Some(stream) = stream.take() else { continue };
                let (text, response) = (stream.finish(&response.text), Some(response.clone()));
                self.parts.push_back(Part { request, sample, text, response });
            }
        }
        Ok(())
    }
}
