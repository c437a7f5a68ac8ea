//! What a front end shows of a desk.

use serde::Serialize;

use super::label::{Order, Pick};
use crate::judge::queue::Question;

/// A pair as a person sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// The question's.
    pub id: String,
    /// Names this presentation of the pair: it is another one after a label of the pair was undone.
    pub form: u64,
    /// What was answered.
    pub prompt: String,
    /// The answer that is shown first.
    pub first: String,
    /// The answer that is shown second.
    pub second: String,
    /// Which of the question's responses is shown first: 1 or 2.
    pub shown_first: u8,
    /// The comment so far.
    pub comment: String,
}

impl Shown {
    pub(super) fn of(question: &Question, form: u64, comment: &str) -> Option<Shown> {
        let order = Order::of(&question.id);
        let pair = question.pair()?;
        let (first, second) = order.show(pair.response_1, pair.response_2);
        Some(Shown {
            id: question.id.clone(),
            form,
            prompt: question.prompt.clone(),
            first: first.into(),
            second: second.into(),
            shown_first: order.shown_first(),
            comment: comment.into(),
        })
    }
}

/// How far the labelling is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Pairs that wait for a label.
    pub open: usize,
    /// Pairs that have one, ties and skipped ones and those of earlier processes included.
    pub given: usize,
    /// Those of them that are ties.
    pub ties: usize,
    /// Those of them that were skipped.
    pub skipped: usize,
    /// Labels a minute of late, without breaks; `None` until two were given.
    pub per_minute: Option<f64>,
    /// How long the open pairs will take at that pace.
    pub seconds_left: Option<f64>,
}

/// The last label that was given in this process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Last {
    /// The question's.
    pub id: String,
    /// What was said of the answers as they were shown.
    pub choice: Pick,
    /// Whether it can be undone: the training does not have it yet.
    pub undoable: bool,
}

/// All that a front end shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct View {
    /// The pair to label; `None` where none is open.
    pub pair: Option<Shown>,
    /// How far the labelling is.
    pub counts: Tally,
    /// The last label.
    pub last: Option<Last>,
    /// Why no label is taken any more, if that is so.
    pub closed: Option<String>,
}
