//! What is to be submitted, in order, and how much of it the GPU gets at a time.
//!
//! A device of the crate's own gets everything at once. On an application's device a frame waits for all that was submitted
//! before it, so the GPU has at most [`IN_FLIGHT`] submits at a time there. Whoever waits for the GPU submits the next ones
//! (see `waiting.rs`); what cannot wait, an upload for instance, submits all of them first.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::error::Result;

/// Submits that the GPU has at a time: while it works on one, the next is there already.
pub(super) const IN_FLIGHT: usize = 2;

/// Something to be submitted.
pub(super) trait Job: Send {
    /// Submits a part of it that fits one submit. Returns whether there is more.
    fn submit_next(&mut self) -> Result<bool>;
}

/// The jobs that wait.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: VecDeque<Waiting>,
    /// Jobs so far.
    count: u64,
}

struct Waiting {
    number: u64,
    job: Box<dyn Job>,
    /// Whether it is done even if nobody waits for it.
    lasting: bool,
}

impl Jobs {
    /// Adds a job at the end. Gives its number.
    pub fn push(&mut self, job: Box<dyn Job>, lasting: bool) -> u64 {
        self.count += 1;
        self.waiting.push_back(Waiting { number: self.count, job, lasting });
        self.count
    }

    /// Takes a job away.
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
    /// Where submits are counted.
    in_flight: Option<Arc<InFlight>>,
}

/// Submits that the GPU has, and whom to wake when one is done.
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
    /// For a device that the application draws its frames on.
    pub fn paced() -> Outbox {
        Outbox { in_flight: Some(Arc::default()), ..Outbox::default() }
    }

    /// Whether the GPU gets a few submits at a time.
    pub fn is_paced(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The jobs that wait. Nothing is submitted while they are held.
    pub fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // A thread that panicked has left the rest of its job.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the GPU has all that it gets at a time.
    pub fn is_full(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.count.load(SeqCst) >= IN_FLIGHT)
    }

    /// Takes a job back, of which a part may have been submitted, unless it is to be done in any case: whether it waits for
    /// that.
    pub fn withdraw(&self, number: u64) -> bool {
        let mut jobs = self.jobs();
        let Some(at) = jobs.position(number) else { return false };
        if jobs.waiting[at].lasting {
            return true;
        }
        let withdrawn = jobs.waiting.remove(at);
        drop(jobs);
        // What it holds is freed while others may go on.
        drop(withdrawn);
        false
    }

    /// Has a job done in any case.
    pub fn keep(&self, number: u64) {
        let mut jobs = self.jobs();
        if let Some(at) = jobs.position(number) {
            jobs.waiting[at].lasting = true;
        }
    }

    /// Counts a submit, where submits are counted: how many the GPU has, and what tells that it is done.
    pub fn count(&self) -> Option<(usize, impl FnOnce() + Send + 'static)> {
        let in_flight = self.in_flight.clone()?;
        let count = in_flight.count.fetch_add(1, SeqCst) + 1;
        Some((count, move || in_flight.done()))
    }

    /// Notes whom to wake when more can be submitted.
    pub fn wake_when_room(&self, waker: &Waker) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.wake_when_done(waker);
        }
    }
}
