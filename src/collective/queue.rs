//! Operations that one thread does one by one, in the order in which they were posted.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::error::{Error, Result};
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
        let state = Arc::new(Mutex::new((None, None::<Waker>)));
        // Without a thread, `done` is dropped, which sets it.
        _ = self.jobs.send(Job { work, done: Done(state.clone()) });
        Box::pin(std::future::poll_fn(move |cx| {
            let mut state = state.lock().unwrap();
            match state.0.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    state.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    /// Posts a broadcast.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Task<'static, Result<Vec<u8>>> {
        let outcome = self.post(Work::Broadcast(bytes));
        Box::pin(async { Ok(outcome.await?.pop().expect("a broadcast has one outcome")) })
    }
}

/// Sets the outcome of a job, once.
pub(super) struct Done(Arc<Mutex<(Option<Outcome>, Option<Waker>)>>);

impl Done {
    pub fn set(self, outcome: Outcome) {
        self.0.lock().unwrap().0 = Some(outcome);
    }
}

/// Wakes the one who waits, also where the thread ended before the job was done.
impl Drop for Done {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        if state.0.is_none() {
            state.0 = Some(Err(Error::Ranks(
                "the thread that talks to the other ranks has ended: start again".into(),
            )));
        }
        if let Some(waker) = state.1.take() {
            drop(state);
            waker.wake();
        }
    }
}
