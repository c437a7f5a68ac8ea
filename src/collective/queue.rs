//! Operations that one thread performs one by one, in the order in which they were posted.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::task::Task;

/// The result of an operation: one entry per rank, or a single one for a broadcast.
pub(super) type Outcome = Result<Vec<Vec<u8>>>;

/// An operation of [`Collective`](super::Collective).
pub(super) enum Work {
    AllGather(Vec<u8>),
    AllToAll(Vec<Vec<u8>>),
    Broadcast(Vec<u8>),
}

/// A posted operation.
pub(super) struct Job {
    pub work: Work,
    pub done: Done,
}

/// Accepts operations. When it is dropped, the thread's channel of jobs is closed.
pub(super) struct Queue {
    jobs: Sender<Job>,
}

impl Queue {
    /// Creates a queue and the receiver of its jobs for the thread.
    pub fn new() -> (Queue, Receiver<Job>) {
        let (jobs, received) = channel();
        (Queue { jobs }, received)
    }

    /// Posts an operation. The future completes when the operation is done.
    pub fn post(&self, work: Work) -> Task<'static, Outcome> {
        let (signal, set) = Signal::new();
        // If the thread has ended, `done` is dropped, which sets the outcome.
        _ = self.jobs.send(Job { work, done: Done(Some(Box::new(set))) });
        Box::pin(async move { signal.arrives().await })
    }

    /// Posts a broadcast.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Task<'static, Result<Vec<u8>>> {
        let outcome = self.post(Work::Broadcast(bytes));
        Box::pin(async { Ok(outcome.await?.pop().expect("a broadcast has one entry")) })
    }
}

/// Sets the outcome of a job, once.
pub(super) struct Done(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Done {
    pub fn set(mut self, outcome: Outcome) {
        self.0.take().expect("set once")(outcome);
    }
}

/// Wakes the waiting task if the thread ended before the job was done.
impl Drop for Done {
    fn drop(&mut self) {
        if let Some(set) = self.0.take() {
            set(Err(Error::Ranks("the thread that communicates with the other ranks has ended".into())));
        }
    }
}
