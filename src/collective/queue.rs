//! Operations that one thread does one by one, in the order in which they were posted.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::task::Task;

/// What an operation brings: an entry a rank, or the one of a broadcast.
pub(super) type Outcome = Result<Vec<Vec<u8>>>;

/// An operation of [`Collective`](super::Collective).
pub(super) enum Work {
    AllGather(Vec<u8>),
    AllToAll(Vec<Vec<u8>>),
    Broadcast(Vec<u8>),
}

/// An operation that was posted.
pub(super) struct Job {
    pub work: Work,
    pub done: Done,
}

/// Where operations are posted. The thread sees the end of its jobs when this is dropped.
pub(super) struct Queue {
    jobs: Sender<Job>,
}

impl Queue {
    /// A queue, and the jobs for its thread.
    pub fn new() -> (Queue, Receiver<Job>) {
        let (jobs, received) = channel();
        (Queue { jobs }, received)
    }

    /// Posts an operation; the future is woken when it is done.
    pub fn post(&self, work: Work) -> Task<'static, Outcome> {
        let (signal, set) = Signal::new();
        // Without a thread, `done` is dropped, which sets it.
        _ = self.jobs.send(Job { work, done: Done(Some(Box::new(set))) });
        Box::pin(async move { signal.arrives().await })
    }

    /// Posts a broadcast.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Task<'static, Result<Vec<u8>>> {
        let outcome = self.post(Work::Broadcast(bytes));
        Box::pin(async { Ok(outcome.await?.pop().expect("a broadcast has one outcome")) })
    }
}

/// Sets the outcome of a job, once.
pub(super) struct Done(Option<Box<dyn FnOnce(Outcome) + Send>>);

impl Done {
    pub fn set(mut self, outcome: Outcome) {
        self.0.take().expect("set once")(outcome);
    }
}

/// Wakes the one who waits where the thread ended before the job was done.
impl Drop for Done {
    fn drop(&mut self) {
        if let Some(set) = self.0.take() {
            set(Err(Error::Ranks("the thread that talks to the other ranks has ended".into())));
        }
    }
}
