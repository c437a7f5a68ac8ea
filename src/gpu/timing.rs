//! Timestamps on the GPU: the duration of each pass.

use super::buffer::Buffer;
use super::device::Gpu;
use super::ledger::Category;
use crate::error::Result;

/// The most timestamps in a replay; later passes are not timed.
const MAX_QUERIES: u32 = 4096;
/// The timestamp queries and their read-back buffer; a measuring `Gpu` has only the buffer.
pub(super) struct Queries {
    pub set: Option<wgpu::QuerySet>,
    pub resolved: Buffer,
}

impl Queries {
    /// Creates them if the device has timestamps.
    pub fn new(gpu: &Gpu) -> Result<Option<Queries>> {
        if !gpu.inner.timestamps {
            return Ok(None);
        }
        let bytes = MAX_QUERIES as u64 * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer_for(usage, "times".into(), Category::Workspace, bytes)?;
        if gpu.is_measuring() {
            return Ok(Some(Queries { set: None, resolved }));
        }
        let (label, ty) = (Some("times"), wgpu::QueryType::Timestamp);
        let descriptor = wgpu::QuerySetDescriptor { label, ty, count: MAX_QUERIES };
        let set = gpu.guarded("timestamps", |device| device.create_query_set(&descriptor))?;
        Ok(Some(Queries { set: Some(set), resolved }))
    }
}

/// The pass that each pair of timestamps belongs to.
#[derive(Default)]
pub(super) struct Clock {
    pub used: u32,
    pub passes: Vec<Pass>,
    /// For each submit: the number of timed passes up to its end, and its load. Submits with an untimed pass are left
    /// out.
    submits: Vec<(usize, Load)>,
}

/// A timed pass.
pub(super) struct Pass {
    /// Its first launch.
    pub launch: usize,
    pub phase: &'static str,
    /// Its units of work, if all of it belongs to one kernel.
    pub units: Option<f64>,
}

/// The expected work of a submit.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    pub units: f64,
    pub ms: f64,
}

impl Clock {
    /// Returns the timestamps for the next pass, if any are left.
    pub fn next<'a>(
        &mut self,
        set: &'a wgpu::QuerySet,
        launch: usize,
        phase: &'static str,
    ) -> Option<wgpu::ComputePassTimestampWrites<'a>> {
        if !self.has_room() {
            return None;
        }
        let first = self.used;
        self.used += 2;
        self.passes.push(Pass { launch, phase, units: None });
        Some(wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }

    /// Whether another pass can be timed.
    pub fn has_room(&self) -> bool {
        self.used + 2 <= MAX_QUERIES
    }

    /// Records the end of a submit.
    pub fn end_submit(&mut self, load: Load) {
        if self.has_room() {
            self.submits.push((self.passes.len(), load));
        }
    }

    /// Returns each submit's load and how long it occupied the GPU, in milliseconds.
    pub fn submit_times(&self, stamps: &[u64], tick_ns: f64) -> Vec<(Load, f64)> {
        let mut first = 0;
        let time = |&(end, load): &(usize, Load)| {
            let passes = 2 * std::mem::replace(&mut first, end)..2 * end;
            let (from, to) = (stamps[passes.start], stamps[passes.end - 1]);
            (load, to.saturating_sub(from) as f64 * tick_ns * 1e-6)
        };
        self.submits.iter().filter(|(end, _)| *end > 0).map(time).collect()
    }
}
