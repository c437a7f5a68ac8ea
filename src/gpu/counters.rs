//! What a device has been given to make and to do.

use web_time::Duration;

use super::launch::Work;

/// What was ever made on a device: a replayed plan makes nothing but submits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Buffers, those for read-backs too.
    pub buffers: u64,
    /// Compute pipelines.
    pub pipelines: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Submits.
    pub submits: u64,
}

/// What a device was ever given to do, and what its callers waited for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Activity {
    /// Launches; one that was split along its rows is one.
    pub launches: u64,
    /// Their work, as the ops state it.
    pub work: Work,
    /// How long callers were blocked until the GPU was done.
    pub waited: Duration,
}
