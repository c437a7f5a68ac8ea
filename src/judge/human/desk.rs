//! The desk: pairs that wait for a label, and labels that wait to be taken by the trainer.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use web_time::{Duration, Instant};

use serde::Deserialize;

use super::label::{Order, Pick};
use super::label_file::{self, LabelEvent, LabelRow, OtherEvent};
use super::refusal::Refusal;
use super::state::{Open, Pending, State, answered};
use super::view::{Last, Shown, View};
use crate::error::{Error, Result};
use crate::judge::queue::{Answer, Question};
use crate::listeners::Listeners;

/// Limit on the length of a comment, in characters.
pub const MAX_COMMENT: usize = 4_000;
/// How long the latest label is held back from the trainer.
const HOLD: Duration = Duration::from_secs(5);
/// The timeout of a wait that is restarted when it expires.
const LONG_WAIT: Duration = Duration::from_secs(3600);

/// A label as sent by a front end, with the presentation that it refers to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenLabel {
    /// [`Shown::id`].
    pub id: String,
    /// [`Shown::form`].
    pub form: u64,
    /// [`Shown::shown_first`].
    pub shown_first: u8,
    /// The person's choice.
    pub choice: Pick,
    /// The person's comment; `None` keeps the existing one.
    pub comment: Option<String>,
    /// How long the pair was shown.
    pub seconds: f64,
}

/// Pairs and labels, shared by one queue and any number of front ends. Only [`Desk::take`] and [`Desk::wait`] block.
pub struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    listeners: Listeners,
    hold: Duration,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk that keeps its labels in memory only.
    pub fn new() -> Desk {
        Desk { state: Mutex::default(), changed: Condvar::new(), listeners: Listeners::default(), hold: HOLD }
    }

    /// A desk that appends every event to the file `path` and loads the labels that the file contains: their pairs are
    /// not shown again. A last line that a crash has cut off is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] for any other line that is not an event.
    pub fn open(path: &Path) -> Result<Desk> {
        let desk = Desk::new();
        desk.keep_in(path)?;
        Ok(desk)
    }

    /// Loads and appends to the file `path` from now on, as [`Desk::open`] does.
    ///
    /// # Errors
    /// As [`Desk::open`].
    pub fn keep_in(&self, path: &Path) -> Result<()> {
        let (record, rows) = label_file::open(path)?;
        let mut state = self.lock();
        state.record = Some(record);
        rows.into_iter().for_each(|row| state.restore(row));
        Ok(())
    }

    /// Sets how long the latest label is held back and can be undone; the default is 5 seconds.
    pub fn holding(self, hold: Duration) -> Desk {
        Desk { hold, ..self }
    }

    /// Calls `listener` after every change, as long as it returns `true`. The listener must not use the desk.
    pub fn on_change(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        self.listeners.add(listener);
    }

    /// Sets the priority of a question: higher ones are shown first; the default is 0. It can be set before the
    /// question is put on the desk. A priority that is not finite is ignored.
    pub fn prioritise(&self, id: &str, priority: f32) {
        if !priority.is_finite() {
            return;
        }
        let mut state = self.lock();
        match state.open.iter_mut().find(|open| open.question.id == id) {
            Some(open) => open.priority = priority,
            None => drop(state.priorities.insert(id.to_owned(), priority)),
        }
        self.notify(state);
    }

    /// Puts questions on the desk. A question that has a label is not shown again; one that is open already stays as it
    /// is.
    pub fn put(&self, questions: Vec<Question>) {
        let mut state = self.lock();
        questions.into_iter().for_each(|question| state.put(question));
        self.notify(state);
    }

    /// Returns the labels that are ready for the trainer; waits up to `patience` for one.
    ///
    /// # Errors
    /// [`Error::Judge`] if the desk is closed and all labels are taken: the open questions are dropped.
    pub fn take(&self, patience: Duration) -> Result<Vec<Answer>> {
        // `None` on overflow: there is no deadline.
        let deadline = Instant::now().checked_add(patience);
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            while state.pending.front().is_some_and(|front| {
                state.pending.len() > 1 || state.closed.is_some() || now.duration_since(front.at) >= self.hold
            }) {
                let answer = state.pending.pop_front().map(|pending| pending.answer);
                state.ready.extend(answer);
            }
            if !state.ready.is_empty() {
                let answers = std::mem::take(&mut state.ready);
                self.notify(state);
                return Ok(answers);
            }
            if let Some(why) = state.closed.clone() {
                state.open.clear();
                self.notify(state);
                return Err(Error::Judge { name: super::NAME.into(), why });
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(Vec::new());
            }
            let held = state.pending.front().map(|front| front.at + self.hold);
            let until = held.into_iter().chain(deadline).min();
            let wait = until.map_or(LONG_WAIT, |until| until.saturating_duration_since(now));
            let waited = self.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Removes all pairs from the desk. Labels that the trainer has not taken are returned when their questions are put
    /// on the desk again.
    pub fn withdraw(&self) {
        let mut state = self.lock();
        let State { open, pending, ready, comments, priorities, .. } = &mut *state;
        comments.extend(open.drain(..).map(|open| (open.question.id, open.comment)));
        pending.clear();
        ready.clear();
        priorities.clear();
        self.notify(state);
    }

    /// Closes the desk: no more labels will come. `why` is a reason that fits after a colon.
    pub fn close(&self, why: impl Into<String>) {
        let mut state = self.lock();
        state.closed.get_or_insert(why.into());
        self.notify(state);
    }

    /// The view for a front end that currently shows the presentation `shown` (a [`Shown::form`]). That pair stays in
    /// the view while it is open, so that it does not change while a person reads it.
    pub fn view(&self, shown: Option<u64>) -> View {
        let state = self.lock();
        let same = state.open.iter().find(|open| Some(open.form) == shown);
        let pair = same.or_else(|| state.next());
        View {
            pair: pair.and_then(|open| Shown::of(&open.question, open.form, &open.comment)),
            counts: state.counts(),
            last: state.last.as_ref().map(|(id, label)| Last {
                id: id.clone(),
                choice: Order::of(id).choice(*label),
                undoable: state.pending.back().is_some_and(|pending| pending.open.question.id == *id),
            }),
            closed: state.closed.clone(),
        }
    }

    /// Accepts a label.
    ///
    /// # Errors
    /// A [`Refusal`] if the pair is not open, has a label, or was not shown in the way that the front end says; or if
    /// the label cannot be written to the file.
    pub fn label(&self, given: GivenLabel) -> std::result::Result<(), Refusal> {
        let comment = given.comment.as_deref().map(checked).transpose()?;
        let mut state = self.lock();
        let at = state.shown(&given.id, given.form, Some(given.shown_first))?;
        let order = Order::of(&given.id);
        let label = order.label(given.choice);
        let comment = comment.unwrap_or_else(|| state.open[at].comment.clone());
        let seconds = tenths(given.seconds);
        let row = LabelRow::now(&given.id, LabelEvent::Given(label), order.shown_first(), &comment, seconds);
        state.write(&row)?;
        let open = Open { comment, ..state.open.remove(at) };
        let now = Instant::now();
        let answer = answered(&row, label);
        state.pending.push_back(Pending { open, answer, at: now });
        state.count(label, true);
        state.pace.label(now);
        state.labels.insert(given.id.clone(), row);
        state.last = Some((given.id, label));
        self.notify(state);
        Ok(())
    }

    /// Undoes the label of the pair `id`, which must be the latest one; the pair is shown next. Returns the choice that
    /// was undone.
    ///
    /// # Errors
    /// A [`Refusal`] if it is not the latest label, or if the trainer has taken it.
    pub fn undo(&self, id: &str) -> std::result::Result<Pick, Refusal> {
        let mut state = self.lock();
        match &state.last {
            None => return Err(Refusal::NothingToUndo),
            Some((last, _)) if last != id => return Err(Refusal::NotTheLast),
            Some(_) => {}
        }
        let Some(pending) = state.pending.back().filter(|pending| pending.open.question.id == id) else {
            return Err(Refusal::TooLate);
        };
        let order = Order::of(id);
        let row = LabelRow::now(
            id,
            LabelEvent::Other(OtherEvent::Undone),
            order.shown_first(),
            &pending.open.comment,
            0.0,
        );
        state.write(&row)?;
        let pending = state.pending.pop_back().expect("looked at above");
        let Some((_, label)) = state.last.take() else { return Err(Refusal::NothingToUndo) };
        // The label before it can be undone next.
        let before = state.pending.back().map(|pending| pending.open.question.id.clone());
        state.last = before.and_then(|id| {
            let label = state.labels.get(&id)?.given()?;
            Some((id, label))
        });
        state.labels.remove(id);
        state.count(label, false);
        state.pace.undo();
        state.forms += 1;
        let form = state.forms;
        state.open.push(Open { form, undone: true, ..pending.open });
        self.notify(state);
        Ok(order.choice(label))
    }

    /// Stores a comment on an open pair; it replaces an earlier one.
    ///
    /// # Errors
    /// As [`Desk::label`].
    pub fn comment(&self, id: &str, form: u64, comment: &str) -> std::result::Result<(), Refusal> {
        let comment = checked(comment)?;
        let mut state = self.lock();
        let at = state.shown(id, form, None)?;
        if state.open[at].comment == comment {
            return Ok(());
        }
        let first = Order::of(id).shown_first();
        state.write(&LabelRow::now(id, LabelEvent::Other(OtherEvent::Comment), first, &comment, 0.0))?;
        state.open[at].comment = comment;
        self.notify(state);
        Ok(())
    }

    /// Waits until the version differs from `seen`, or for `patience`; returns the current version.
    pub fn wait(&self, seen: u64, patience: Duration) -> u64 {
        let unchanged = |state: &mut State| state.version == seen;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, unchanged);
        waited.unwrap_or_else(PoisonError::into_inner).0.version
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifies waiting threads and listeners of a change.
    fn notify(&self, mut state: MutexGuard<'_, State>) {
        state.version += 1;
        drop(state);
        self.changed.notify_all();
        self.listeners.call();
    }
}

impl Default for Desk {
    fn default() -> Desk {
        Desk::new()
    }
}

/// The comment without surrounding white space; refused if it is too long.
fn checked(comment: &str) -> std::result::Result<String, Refusal> {
    let comment = comment.trim();
    match comment.chars().count() > MAX_COMMENT {
        true => Err(Refusal::LongComment),
        false => Ok(comment.to_owned()),
    }
}

/// A duration reported by a front end, rounded to tenths of a second; 0 if it is not a valid one.
fn tenths(seconds: f64) -> f64 {
    if seconds.is_finite() { (seconds.clamp(0.0, 1e6) * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
