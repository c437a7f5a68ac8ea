//! What a front end shows of a desk.

use serde::Serialize;

use super::label::{Order, Pick};
use crate::judge::queue::Question;

/// A pair as shown to a person.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// The id of the question.
    pub id: String,
    /// Identifies this presentation of the pair; it changes when a label of the pair is undone.
    pub form: u64,
    /// The prompt.
    pub prompt: String,
    /// The response shown first.
    pub first: String,
    /// The response shown second.
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

/// The progress of the labelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Pairs that wait for a label.
    pub open: usize,
    /// Labelled pairs, including ties, skipped pairs and those of earlier processes.
    pub given: usize,
    /// Those of `given` that are ties.
    pub ties: usize,
    /// Those of `given` that were skipped.
    pub skipped: usize,
    /// Recent labels per minute, without breaks; `None` until two were given.
    pub per_minute: Option<f64>,
    /// The time that the open pairs will take at that pace, in seconds.
    pub seconds_left: Option<f64>,
}

/// The latest label given in this process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Last {
    /// The id of the question.
    pub id: String,
    /// The choice between the responses as shown.
    pub choice: Pick,
    /// Whether it can be undone: the trainer has not taken it yet.
    pub undoable: bool,
}

/// Everything that a front end shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct View {
    /// The pair to label; `None` if none is open.
    pub pair: Option<Shown>,
    /// The progress of the labelling.
    pub counts: Tally,
    /// The latest label.
    pub last: Option<Last>,
    /// Why no more labels are accepted, if the desk is closed.
    pub closed: Option<String>,
}
