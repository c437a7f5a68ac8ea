//! What is on a desk, and the rules by which it changes.

use std::collections::{HashMap, VecDeque};
use web_time::Instant;

use super::label::{Label, Order};
use super::label_file::{LabelEvent, LabelRow, OtherEvent};
use super::label_pace::LabelPace;
use super::refusal::Refusal;
use super::view::Tally;
use crate::json_lines::JsonLines;
use crate::judge::queue::{Answer, Ask, Question, Said, Usage};

/// All that changes.
#[derive(Default)]
pub(super) struct State {
    /// Where events are written.
    pub record: Option<JsonLines>,
    /// Pairs that wait for a label.
    pub open: Vec<Open>,
    /// Labels that the training has not, in the order in which they were given.
    pub pending: VecDeque<Pending>,
    /// What was labelled before and asked for again, and what is no question for a person.
    pub ready: Vec<Answer>,
    /// Every label that stands, those of earlier processes included, by the questions' ids.
    pub labels: HashMap<String, LabelRow>,
    /// Comments of earlier processes on pairs without a label.
    pub comments: HashMap<String, String>,
    /// Of questions that are not on the desk yet.
    pub priorities: HashMap<String, f32>,
    pub last: Option<(String, Label)>,
    pub counts: Tally,
    pub pace: LabelPace,
    /// Presentations so far.
    pub forms: u64,
    /// Changes so far.
    pub version: u64,
    pub closed: Option<String>,
}

/// A pair that waits.
pub(super) struct Open {
    pub question: Question,
    pub form: u64,
    pub priority: f32,
    /// The number of its first presentation.
    pub number: u64,
    /// Whether its label was undone: then it is shown before all others, the last one first.
    pub undone: bool,
    pub comment: String,
}

/// A label that can still be undone.
pub(super) struct Pending {
    pub open: Open,
    pub answer: Answer,
    pub at: Instant,
}

impl State {
    /// Takes a row of an earlier process.
    pub fn restore(&mut self, row: LabelRow) {
        match row.label {
            LabelEvent::Given(label) => {
                self.comments.remove(&row.id);
                if let Some(before) =
                    self.labels.insert(row.id.clone(), row).and_then(|before| before.given())
                {
                    self.count(before, false);
                }
                self.count(label, true);
            }
            LabelEvent::Other(OtherEvent::Undone) => {
                if let Some(label) = self.labels.remove(&row.id).and_then(|before| before.given()) {
                    self.count(label, false);
                }
                self.comments.insert(row.id, row.comment);
            }
            LabelEvent::Other(OtherEvent::Comment) => drop(self.comments.insert(row.id, row.comment)),
        }
    }

    pub fn put(&mut self, question: Question) {
        let priority = self.priorities.remove(&question.id).unwrap_or(0.0);
        if let Ask::Rate { .. } = question.ask {
            let said =
                Said::invalid(&question.ask, "a person compares responses, and rates none by itself".into());
            self.ready.push(Answer { id: question.id, said, usage: Usage::default(), ms: 0.0 });
        } else if let Some((row, label)) =
            self.labels.get(&question.id).and_then(|row| Some((row, row.given()?)))
        {
            // One that is pending comes by itself.
            if !self.pending.iter().any(|pending| pending.open.question.id == question.id) {
                self.ready.push(answered(row, label));
            }
        } else if !self.open.iter().any(|open| open.question.id == question.id) {
            self.forms += 1;
            let comment = self.comments.remove(&question.id).unwrap_or_default();
            let (form, number) = (self.forms, self.forms);
            self.open.push(Open { question, form, priority, number, undone: false, comment });
        }
    }

    /// The pair to be shown next.
    pub fn next(&self) -> Option<&Open> {
        self.open.iter().min_by(|a, b| {
            let undone = |open: &Open| if open.undone { open.form } else { 0 };
            let undone = undone(b).cmp(&undone(a));
            undone.then(b.priority.total_cmp(&a.priority)).then(a.number.cmp(&b.number))
        })
    }

    /// Where the open pair is that a front end shows as this form.
    pub fn shown(&self, id: &str, form: u64, shown_first: Option<u8>) -> std::result::Result<usize, Refusal> {
        if let Some(why) = &self.closed {
            return Err(Refusal::Closed(why.clone()));
        }
        match self.open.iter().position(|open| open.question.id == id) {
            None if self.labels.contains_key(id) => Err(Refusal::Labelled),
            None => Err(Refusal::Gone),
            Some(at) if self.open[at].form != form => Err(Refusal::Stale),
            Some(_) if shown_first.is_some_and(|first| first != Order::of(id).shown_first()) => {
                Err(Refusal::Stale)
            }
            Some(at) => Ok(at),
        }
    }

    pub fn write(&mut self, row: &LabelRow) -> std::result::Result<(), Refusal> {
        self.record
            .as_mut()
            .map_or(Ok(()), |record| record.append(std::slice::from_ref(row)))
            .map_err(Refusal::Unwritten)
    }

    /// Tally a label that was given, or taken back.
    pub fn count(&mut self, label: Label, given: bool) {
        let change = |count: &mut usize| *count = if given { *count + 1 } else { count.saturating_sub(1) };
        change(&mut self.counts.given);
        match label {
            Label::Tie => change(&mut self.counts.ties),
            Label::Skip => change(&mut self.counts.skipped),
            Label::Response1 | Label::Response2 => {}
        }
    }

    pub fn counts(&self) -> Tally {
        let (open, per_minute) = (self.open.len(), self.pace.per_minute());
        Tally {
            open,
            per_minute,
            seconds_left: per_minute.map(|pace| 60.0 * open as f64 / pace),
            ..self.counts
        }
    }
}

impl LabelRow {
    /// The label, if it is one.
    pub(super) fn given(&self) -> Option<Label> {
        match self.label {
            LabelEvent::Given(label) => Some(label),
            LabelEvent::Other(_) => None,
        }
    }
}

/// The answer that a label is.
pub(super) fn answered(row: &LabelRow, label: Label) -> Answer {
    let said = Said::Judgement(label.judgement(Order::of(&row.id)));
    Answer { id: row.id.clone(), said, usage: Usage::default(), ms: 1e3 * row.seconds }
}
