//! Submitting what waits in the [`Outbox`](super::outbox::Outbox).

use super::device::Gpu;
use super::outbox::{Job, Jobs};
use crate::error::Result;

impl Gpu {
    /// Adds a job, and submits what may be submitted now. Gives the job's number. A `lasting` one is done even if nobody waits
    /// for it.
    pub(super) fn post(&self, job: Box<dyn Job>, lasting: bool) -> Result<u64> {
        let mut jobs = self.inner.outbox.jobs();
        let number = jobs.push(job, lasting);
        let submitted = self.submit_jobs(&mut jobs, false);
        if submitted.is_err() {
            jobs.remove(number);
        }
        submitted.map(|()| number)
    }

    /// Submits what may be submitted now.
    pub(super) fn advance(&self) -> Result<()> {
        match self.inner.outbox.is_paced() {
            true => self.submit_jobs(&mut self.inner.outbox.jobs(), false),
            false => Ok(()),
        }
    }

    /// Submits every job.
    pub(super) fn flush(&self) -> Result<()> {
        match self.inner.outbox.is_paced() {
            true => self.submit_jobs(&mut self.inner.outbox.jobs(), true),
            false => Ok(()),
        }
    }

    fn submit_jobs(&self, jobs: &mut Jobs, all: bool) -> Result<()> {
        // A lost device finishes nothing: each job is to hear of it.
        let waits = || !all && self.inner.outbox.is_full() && self.look("the submitted work").is_ok();
        while !jobs.is_empty() && !waits() {
            jobs.submit_next()?;
        }
        Ok(())
    }

    /// Counts what was just submitted until it is done.
    pub(super) fn count_in_flight(&self) {
        let Some((count, done)) = self.inner.outbox.count() else { return };
        self.queue().on_submitted_work_done(done);
        let mut activity = self.inner.activity.lock().unwrap();
        activity.most_in_flight = activity.most_in_flight.max(count);
    }
}
