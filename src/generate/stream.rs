//! Answers as they come.

use std::collections::VecDeque;

use super::answering::Answering;
use super::{Response, TextStream};
use crate::error::Result;

/// Answers that are being generated, see [`Generator::stream`](super::Generator::stream). Dropped before their end, they are
/// given up.
pub struct AnswerStream<'g> {
    answering: Answering<'g>,
    /// What was told of each sample; `None` once it has ended.
    texts: Vec<Vec<Option<TextStream<'g>>>>,
    parts: VecDeque<Part>,
}

/// Something of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// The number of its request.
    pub request: usize,
    /// Its number among the request's samples.
    pub sample: usize,
    /// What it adds to the answer's text: whole characters, and none that a stop string may begin with.
    pub text: String,
    /// The whole response, with its last part.
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

    /// The next part of one of the answers; `None` when all have ended. Its future may be dropped and asked for again.
    ///
    /// # Errors
    /// What the device reports; [`Error::SelfCheck`](crate::Error::SelfCheck) for logits that are not finite.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        while self.parts.is_empty() {
            let more = self.answering.look(1).await?;
            self.tell()?;
            if !more {
                break;
            }
        }
        Ok(self.parts.pop_front())
    }

    /// Makes parts of what is new.
    fn tell(&mut self) -> Result<()> {
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
