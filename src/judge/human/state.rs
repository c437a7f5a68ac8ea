//! The state of a desk, and its transitions.

use std::collections::{HashMap, VecDeque};
use web_time::Instant;

use super::super::USE_A_RATER;
use super::label::{Label, Order};
use super::label_file::{LabelEvent, LabelRow, OtherEvent};
use super::label_pace::LabelPace;
use super::refusal::Refusal;
use super::view::Tally;
use crate::json_lines::JsonLines;
use crate::judge::queue::{Answer, Ask, Question, Said, Usage};

/// The mutable state of a desk.
#[derive(Default)]
pub(super) struct State {
    /// The file to which events are appended.
    pub record: Option<JsonLines>,
    /// Pairs that wait for a label.
    pub open: Vec<Open>,
    /// Labels that the trainer has not taken, in the order in which they were given.
    pub pending: VecDeque<Pending>,
    /// Answers for the next `take`: pairs that had a label when they were submitted, and questions that a person cannot
    /// answer.
    pub ready: Vec<Answer>,
    /// Every valid label, including those of earlier processes, by question id.
    pub labels: HashMap<String, LabelRow>,
    /// Comments from earlier processes on pairs without a label.
    pub comments: HashMap<String, String>,
    /// Priorities of questions that are not on the desk yet.
    pub priorities: HashMap<String, f32>,
    pub last: Option<(String, Label)>,
    pub counts: Tally,
    pub pace: LabelPace,
    /// The number of presentations so far.
    pub forms: u64,
    /// The number of changes so far.
    pub version: u64,
    pub closed: Option<String>,
}

/// A pair that waits for a label.
pub(super) struct Open {
    pub question: Question,
    pub form: u64,
    pub priority: f32,
    /// The number of its first presentation.
    pub number: u64,
    /// Whether its label was undone: such pairs are shown first, the one undone last before the others.
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
    /// Applies a row of an earlier process.
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
            let why = format!("a person only compares responses: {USE_A_RATER}");
            let said = Said::invalid(&question.ask, why);
            self.ready.push(Answer { id: question.id, said, usage: Usage::default(), ms: 0.0 });
        } else if let Some((row, label)) =
            self.labels.get(&question.id).and_then(|row| Some((row, row.given()?)))
        {
            // A pending label is returned anyway.
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

    /// The pair to show next.
    pub fn next(&self) -> Option<&Open> {
        self.open.iter().min_by(|a, b| {
            let undone = |open: &Open| if open.undone { open.form } else { 0 };
            let undone = undone(b).cmp(&undone(a));
            undone.then(b.priority.total_cmp(&a.priority)).then(a.number.cmp(&b.number))
        })
    }

    /// The index of the open pair that a front end shows as this form.
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

    /// Counts a label that was given or undone.
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
    /// The label of the row, if it has one.
    pub(super) fn given(&self) -> Option<Label> {
        match self.label {
            LabelEvent::Given(label) => Some(label),
            LabelEvent::Other(_) => None,
        }
    }
}

/// The answer for a label.
pub(super) fn answered(row: &LabelRow, label: Label) -> Answer {
    let said = Said::Judgement(label.judgement(Order::of(&row.id)));
    Answer { id: row.id.clone(), said, usage: Usage::default(), ms: 1e3 * row.seconds }
}
