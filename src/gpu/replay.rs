//! Plans replayed with live values: submits, and what comes back of them.

use web_time::Instant;

use super::buffer::{Buffer, MapRequest};
use super::launch::Work;
use super::pace::pieces;
use super::plan::Plan;
use super::step::{Live, STEP_SLOTS, STEP_STRIDE, Step};
use super::tensor::Tensor;
use super::timing::{Clock, Queries};
use crate::error::{Error, Result};

/// A part of a launch that goes into one submit.
struct Piece {
    launch: usize,
    base: u32,
    count: u32,
}

impl Plan {
    /// Runs the plan and waits for its outputs.
    ///
    /// # Errors
    /// [`Error::Config`] for a live extent above what the plan was recorded for; what the device reports.
    pub async fn run(&self, live: &Live) -> Result<Outputs> {
        self.submit(live, 1)?.outputs().await
    }

    /// Submits the launches `times` over, in as many submits as the time cap asks for, and returns at once.
    pub fn submit(&self, live: &Live, times: u32) -> Result<Pending> {
        for (index, (value, room)) in live.extents.iter().zip(&self.made.room).enumerate() {
            if value > room {
                let why = format!("is {value}, its tensors have room for {room}");
                return Err(Error::config(format!("live extent {index}"), why));
            }
        }
        let started = Instant::now();
        if self.made.gpu.is_measuring() {
            return Ok(Pending {
                plan: self.clone(),
                state: State::Measured,
                live: *live,
                started,
                units: 0.0,
            });
        }
        let units_per_submit =
            self.made.gpu.inner.pace.lock().unwrap().units_in(self.made.gpu.inner.submit_ms);
        let mut clock = Clock::default();
        let mut batch: Vec<Piece> = Vec::new();
        let (mut filled, mut total) = (0.0, 0.0);
        let (mut count, mut work) = (0, Work::default());
        for _ in 0..times {
            for (i, ready) in self.made.launches.iter().enumerate() {
                let groups = ready.groups.count(&live.extents);
                if groups == 0 {
                    continue;
                }
                let rows = ready.groups.rows.now(&live.extents);
                let row = ready.work.of_row(live.keys);
                let units = row.units(rows);
                total += units;
                count += 1;
                work.flops += rows as f64 * row.flops;
                work.bytes += rows as f64 * row.bytes;
                let pieces = pieces(units, groups, units_per_submit);
                let share = groups.div_ceil(pieces);
                for base in (0..groups).step_by(share as usize) {
                    let part = units / pieces as f64;
                    if !batch.is_empty() && (filled + part > units_per_submit || batch.len() >= 4096) {
                        self.flush(live, &mut batch, &mut clock, None)?;
                        filled = 0.0;
                    }
                    batch.push(Piece { launch: i, base, count: share.min(groups - base) });
                    filled += part;
                }
            }
        }
        self.made.gpu.note_launches(count, work);
        let staging = self.made.ring.lock().unwrap().pop();
        let staging = match staging {
            Some(staging) => staging,
            None => self.made.gpu.staging("outputs", self.made.staging_bytes)?,
        };
        self.flush(live, &mut batch, &mut clock, Some(&staging))?;
        let bytes = self.made.staging_bytes.max(4);
        let map = self.made.gpu.guarded("a read-back", |_| MapRequest::new(staging, bytes))?;
        let state = State::Running { map, clock };
        Ok(Pending { plan: self.clone(), state, live: *live, started, units: total })
    }

    /// Encodes and submits `batch`; with `staging`, the outputs and timestamps are copied to it afterwards.
    fn flush(
        &self,
        live: &Live,
        batch: &mut Vec<Piece>,
        clock: &mut Clock,
        staging: Option<&Buffer>,
    ) -> Result<()> {
        loop {
            self.made.gpu.encode("a submit", |encoder| self.encode(live, batch, clock, staging, encoder))?;
            if batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// Encodes the pieces of `batch` that one submit holds and takes them off it.
    fn encode(
        &self,
        live: &Live,
        batch: &mut Vec<Piece>,
        clock: &mut Clock,
        staging: Option<&Buffer>,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let mut steps: Vec<Step> = vec![Step::new(live, 0, u32::MAX)];
        let per_launch = self.made.gpu.inner.profile.is_some();
        let mut at = 0;
        while at < batch.len() && steps.len() < STEP_SLOTS {
            let phase = self.made.launches[batch[at].launch].phase;
            let set = self.made.queries.as_ref().and_then(|q| q.set.as_ref());
            let writes = set.and_then(|set| clock.next(set, batch[at].launch, phase));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(phase),
                timestamp_writes: writes,
            });
            while at < batch.len() && steps.len() < STEP_SLOTS {
                let piece = &batch[at];
                let ready = &self.made.launches[piece.launch];
                if ready.phase != phase {
                    break;
                }
                let limit = self.made.gpu.limits().groups_per_dimension;
                let (x, y) = (piece.count.min(limit), piece.count.div_ceil(limit));
                let whole = piece.base == 0 && y == 1;
                let slot = match whole {
                    true => 0,
                    false => {
                        steps.push(Step::new(live, piece.base, piece.base + piece.count));
                        steps.len() - 1
                    }
                };
                pass.set_pipeline(&ready.kernel.pipeline);
                pass.set_bind_group(0, &ready.bindings, &[]);
                pass.set_bind_group(1, self.made.step_bindings.as_ref(), &[slot as u32 * STEP_STRIDE as u32]);
                pass.dispatch_workgroups(x, y, 1);
                at += 1;
                if per_launch {
                    break;
                }
            }
        }
        batch.drain(..at);
        if batch.is_empty()
            && let Some(staging) = staging
        {
            self.copy_outputs(encoder, staging.raw(), clock);
        }
        let mut bytes = vec![0u8; steps.len() * STEP_STRIDE as usize];
        for (chunk, step) in bytes.chunks_mut(STEP_STRIDE as usize).zip(&steps) {
            chunk[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        self.made.gpu.queue().write_buffer(self.made.steps.raw(), 0, &bytes);
    }

    fn copy_outputs(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, clock: &Clock) {
        let mut at = 0;
        for (tensor, region) in &self.made.outputs {
            encoder.copy_buffer_to_buffer(region.buffer.raw(), region.offset, staging, at, tensor.bytes());
            at += tensor.bytes();
        }
        if let Some(Queries { set: Some(set), resolved }) = &self.made.queries
            && clock.used > 0
        {
            encoder.resolve_query_set(set, 0..clock.used, resolved.raw(), 0);
            encoder.copy_buffer_to_buffer(resolved.raw(), 0, staging, at, clock.used as u64 * 8);
        }
    }
}

enum State {
    Measured,
    Running { map: MapRequest, clock: Clock },
}

/// A submitted replay.
#[must_use = "errors come with the outputs"]
pub struct Pending {
    plan: Plan,
    state: State,
    live: Live,
    started: Instant,
    units: f64,
}

impl Pending {
    /// Waits for the replay and gives its outputs.
    pub async fn outputs(self) -> Result<Outputs> {
        let Plan { made } = &self.plan;
        let (bytes, clock) = match self.state {
            State::Measured => (vec![0; made.staging_bytes as usize], Clock::default()),
            State::Running { map, clock } => {
                let (bytes, staging) = map.read(&made.gpu).await?;
                made.ring.lock().unwrap().push(staging);
                (bytes, clock)
            }
        };
        made.gpu.check("a replay")?;
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        made.gpu.inner.pace.lock().unwrap().learn(self.units, ms);
        let mut tensors = Vec::new();
        let mut at = 0;
        for (tensor, _) in &made.outputs {
            let live = tensor.rows.now(&self.live.extents) as usize * tensor.cols * 4;
            tensors.push((*tensor, bytemuck::pod_collect_to_vec(&bytes[at..at + live])));
            at += tensor.bytes() as usize;
        }
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes[at..at + clock.used as usize * 8]);
        let phases = self.plan.times(&self.live, &clock, &stamps);
        Ok(Outputs { tensors, phases })
    }
}

/// What a replay gave back.
#[derive(Clone, Debug)]
pub struct Outputs {
    tensors: Vec<(Tensor, Vec<u32>)>,
    phases: Vec<(&'static str, f64)>,
}

impl Outputs {
    fn words(&self, tensor: Tensor) -> &[u32] {
        let found = self.tensors.iter().find(|(t, _)| *t == tensor);
        &found.expect("a tensor is read that was not declared an output").1
    }

    /// The live rows of an output of floats.
    pub fn f32(&self, tensor: Tensor) -> &[f32] {
        bytemuck::cast_slice(self.words(tensor))
    }

    /// The live rows of an output of integers.
    pub fn u32(&self, tensor: Tensor) -> &[u32] {
        self.words(tensor)
    }

    /// Milliseconds on the GPU by phase; empty where the GPU cannot tell.
    pub fn phase_ms(&self) -> &[(&'static str, f64)] {
        &self.phases
    }
}

impl Plan {
    /// Adds a replay's timestamps up by phase, and launch by launch into the profile.
    fn times(&self, live: &Live, clock: &Clock, stamps: &[u64]) -> Vec<(&'static str, f64)> {
        if clock.passes.is_empty() {
            return Vec::new();
        }
        let tick_ns = self.made.gpu.queue().get_timestamp_period() as f64;
        let mut phases: Vec<(&'static str, f64)> = Vec::new();
        let mut profile = self.made.gpu.inner.profile.as_ref().map(|p| p.lock().unwrap());
        for ((launch, phase), pair) in clock.passes.iter().zip(stamps.chunks(2)) {
            let ns = pair[1].saturating_sub(pair[0]) as f64 * tick_ns;
            match phases.iter_mut().find(|(name, _)| name == phase) {
                Some((_, ms)) => *ms += ns * 1e-6,
                None => phases.push((phase, ns * 1e-6)),
            }
            if let Some(profile) = &mut profile {
                let ready = &self.made.launches[*launch];
                let rows = ready.groups.rows.now(&live.extents) as f64;
                let work = ready.work.of_row(live.keys);
                let (flops, bytes) = (rows * work.flops, rows * work.bytes);
                profile.add(ready.name, phase, pair[0] as f64 * tick_ns, ns, flops, bytes);
            }
        }
        phases
    }
}
