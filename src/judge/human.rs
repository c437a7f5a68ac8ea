//! People as judges. A [`Desk`] holds the pairs that wait for a label and the labels that were given. The queue of a
//! run, [`Human`], puts pairs on the desk and takes labels from it; a front end (a terminal, a web page) shows the
//! pairs to a person.
//!
//! ```text
//! trainer --submit-->  Human  --puts-->   Desk  --shows-->  a terminal, a page, …
//!         <--poll----         <--takes--        <--labels-         |
//!                                          '-----> labels.jsonl, one event per line, as it happens
//! ```
//!
//! A line of `labels.jsonl` is an event, see [`LabelRow`]. `label` refers to the responses as numbered in the question,
//! not to the order in which they were shown:
//!
//! ```json
//! {"id":"17-0-1-7c7445b34eccf8d5","label":"2","shown_first":2,"comment":"","seconds":8.4,"at":"2026-11-26T22:14:03Z"}
//! ```
//!
//! A label can be undone until the trainer has taken it: the latest label is held back until the next one is given, or
//! for 5 seconds.

mod desk;
mod label;
mod label_file;
mod label_pace;
mod refusal;
mod state;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use web_time::Duration;

pub use desk::{Desk, GivenLabel, MAX_COMMENT};
pub use label::{Label, Order, Pick, SKIPPED};
pub use label_file::{LabelEvent, LabelRow, OtherEvent};
pub use refusal::Refusal;
pub use view::{Last, Shown, Tally, View};

use super::queue::{JudgeQueue, Polled, Question};
use crate::error::Result;
use crate::task::Task;

/// The file of a run's labels.
pub const LABELS: &str = "labels.jsonl";
/// The judge's name.
pub const NAME: &str = "human";

/// One or more people at a desk. When this queue is dropped, its waiting pairs are removed from the desk.
pub struct Human {
    desk: Arc<Desk>,
}

impl Human {
    /// A judge that consists of the people at this desk. Only one queue at a time may use a desk.
    pub fn new(desk: Arc<Desk>) -> Human {
        Human { desk }
    }
}

impl Drop for Human {
    fn drop(&mut self) {
        self.desk.withdraw();
    }
}

impl JudgeQueue for Human {
    fn name(&self) -> String {
        NAME.into()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([("judge".into(), NAME.into())]))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn rates(&self) -> bool {
        false
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        self.desk.put(questions);
        Ok(())
    }

    fn keep_in(&mut self, dir: &Path) -> Result<()> {
        self.desk.keep_in(&dir.join(LABELS))
    }

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move { Ok(Polled { answers: self.desk.take(patience)?, notes: Vec::new() }) })
    }
}
