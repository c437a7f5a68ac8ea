//! The queue of work that is not submitted yet, and how much of it the GPU gets at a time.
//!
//! The crate's own device gets everything at once. On an application's device a frame waits for everything submitted
//! before it, so the GPU has at most [`IN_FLIGHT`] submits at a time there. A task that waits for the GPU submits the
//! next jobs (see `waiting.rs`); an operation that cannot wait, such as an upload, submits all jobs first.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::error::Result;

/// The most submits in flight: while the GPU works on one, the next is already queued.
pub(super) const IN_FLIGHT: usize = 2;

/// Work to be submitted.
pub(super) trait Job: Send {
    /// Submits the next part, sized for one submit. Returns whether more is left.
    fn submit_next(&mut self) -> Result<bool>;
}

/// The jobs in the queue.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: VecDeque<Waiting>,
    /// Number of jobs so far.
    count: u64,
}

struct Waiting {
    number: u64,
    job: Box<dyn Job>,
    /// Whether it is completed even if nothing waits for it.
    lasting: bool,
}

impl Jobs {
    /// Appends a job. Returns its number.
    pub fn push(&mut self, job: Box<dyn Job>, lasting: bool) -> u64 {
        self.count += 1;
        self.waiting.push_back(Waiting { number: self.count, job, lasting });
        self.count
    }

    /// Removes a job.
    pub fn remove(&mut self, number: u64) {
        self.waiting.retain(|waiting| waiting.number != number);
    }

    /// Submits the next part of the first job.
    pub fn submit_next(&mut self) -> Result<()> {
        let Some(Waiting { job, .. }) = self.waiting.front_mut() else { return Ok(()) };
        let more = job.submit_next();
        if !matches!(more, Ok(true)) {
            self.waiting.pop_front();
        }
        more.map(drop)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.number == number)
    }
}

#[derive(Default)]
pub(super) struct Outbox {
    jobs: Mutex<Jobs>,
    /// Counts submits; `None` on the crate's own device.
    in_flight: Option<Arc<InFlight>>,
}

/// The submits in flight, and the tasks to wake when one is done.
#[derive(Default)]
struct InFlight {
    count: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl InFlight {
    fn done(&self) {
        self.count.fetch_sub(1, SeqCst);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_when_done(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Outbox {
    /// For a device that the application uses to draw frames.
    pub fn paced() -> Outbox {
        Outbox { in_flight: Some(Arc::default()), ..Outbox::default() }
    }

    /// Whether the number of submits in flight is limited.
    pub fn is_paced(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Locks the queue. Nothing is submitted while the guard is held.
    pub fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // The jobs are valid even if a thread panicked: the rest of its job is still in the queue.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the limit of submits in flight is reached.
    pub fn is_full(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.count.load(SeqCst) >= IN_FLIGHT)
    }

    /// Removes a job, of which a part may have been submitted, unless it must be completed in any case; returns whether
    /// it stays in the queue for that reason.
    pub fn withdraw(&self, number: u64) -> bool {
        let mut jobs = self.jobs();
        let Some(at) = jobs.position(number) else { return false };
        if jobs.waiting[at].lasting {
            return true;
        }
        let withdrawn = jobs.waiting.remove(at);
        drop(jobs);
        // Dropped without the lock, so that other threads are not blocked meanwhile.
        drop(withdrawn);
        false
    }

    /// Marks a job to be completed in any case.
    pub fn keep(&self, number: u64) {
        let mut jobs = self.jobs();
        if let Some(at) = jobs.position(number) {
            jobs.waiting[at].lasting = true;
        }
    }

    /// Counts a submit if the number in flight is limited; returns that number, and the function to call when the
    /// submit is done.
    pub fn count(&self) -> Option<(usize, impl FnOnce() + Send + 'static)> {
        let in_flight = self.in_flight.clone()?;
        let count = in_flight.count.fetch_add(1, SeqCst) + 1;
        Some((count, move || in_flight.done()))
    }

    /// Registers a task to wake when more can be submitted.
    pub fn wake_when_room(&self, waker: &Waker) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.wake_when_done(waker);
        }
    }
}
