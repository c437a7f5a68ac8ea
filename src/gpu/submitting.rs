//! Submits the jobs in the [`Outbox`](super::outbox::Outbox).

use std::sync::PoisonError;

use super::device::Gpu;
use super::outbox::{Job, Jobs};
use crate::error::Result;

/// The most submits that are remembered for waiting; beyond that the oldest are forgotten, since waiting for a later
/// one covers them.
const MAX_REMEMBERED: usize = 4096;

impl Gpu {
    /// Adds a job, and submits what may be submitted now. Returns the job's number. A `lasting` job is completed even
    /// if nothing waits for it.
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
        // A lost device finishes nothing: each job must get its error.
        let waits = || !all && self.inner.outbox.is_full() && self.look("the submitted work").is_ok();
        while !jobs.is_empty() && !waits() {
            jobs.submit_next()?;
        }
        Ok(())
    }

    /// Records a submit: on an application's device it counts as in flight until it is done; otherwise it is remembered
    /// for waiting.
    pub(super) fn note_submit(&self, index: wgpu::SubmissionIndex) {
        match self.inner.outbox.count() {
            Some((count, done)) => {
                self.queue().on_submitted_work_done(done);
                let mut activity = self.inner.activity.lock().unwrap();
                activity.most_in_flight = activity.most_in_flight.max(count);
            }
            None => {
                let mut submitted = self.inner.submitted.lock().unwrap_or_else(PoisonError::into_inner);
                if submitted.len() == MAX_REMEMBERED {
                    submitted.pop_front();
                }
                submitted.push_back(index);
            }
        }
    }
}
