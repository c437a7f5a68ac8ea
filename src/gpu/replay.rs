//! Replays plans with live values: submits, and reads the outputs back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use web_time::Instant;

use super::buffer::{Buffer, MapRequest};
use super::kernels::Kernel;
use super::launch::Work;
use super::outbox::Job;
use super::pace::{SAMPLES, pieces};
use super::plan::Plan;
use super::step::{Live, STEP_SLOTS, STEP_STRIDE, Step};
use super::tensor::Tensor;
use super::timing::{Clock, Load, Pass, Queries};
use crate::error::{Error, Result};
use crate::signal::Signal;

/// A part of a launch that goes into one submit.
struct Piece {
    launch: usize,
    base: u32,
    count: u32,
    load: Load,
}

/// The most pieces in one submit.
const MOST_PIECES: usize = 4096;

impl Plan {
    /// Runs the plan and waits for its outputs.
    ///
    /// # Errors
    /// [`Error::Config`] for a live extent above the recorded maximum; errors of the device.
    pub async fn run(&self, live: &Live) -> Result<Outputs> {
        self.submit(live, 1)?.outputs().await
    }

    /// Runs the launches `times` times, in as many submits as the time cap requires, and returns immediately. On an
    /// application's device most of them are submitted only while a task waits for these outputs or another plan's.
    pub fn submit(&self, live: &Live, times: u32) -> Result<Pending> {
        for (index, (value, room)) in live.extents.iter().zip(&self.made.room).enumerate() {
            if value > room {
                let why = format!("is {value}, but its tensors have room for {room}");
                return Err(Error::config(format!("live extent {index}"), why));
            }
        }
        let (plan, live, started) = (self.clone(), *live, Instant::now());
        let gpu = &self.made.gpu;
        if gpu.is_measuring() {
            return Ok(Pending { plan, live, started, units: 0.0, replay: None });
        }
        let (pieces, units) = self.pieces(&live, times);
        let staging = self.made.ring.lock().unwrap().pop();
        let staging = match staging {
            Some(staging) => staging,
            None => gpu.staging("outputs", self.made.staging_bytes)?,
        };
        let (submitted, notify) = Signal::new();
        let replay = Replay {
            plan: self.clone(),
            live,
            pieces,
            clock: Clock::default(),
            timed: HashMap::new(),
            end: Some((staging, Box::new(notify))),
        };
        let number = gpu.post(Box::new(replay), false)?;
        Ok(Pending { plan, live, started, units, replay: Some((number, submitted)) })
    }

    /// Splits the launches into pieces that each fit into a submit; returns them and their total work.
    fn pieces(&self, live: &Live, times: u32) -> (VecDeque<Piece>, f64) {
        let (pace, submit_ms) = (*self.made.gpu.inner.pace.lock().unwrap(), self.made.gpu.inner.submit_ms);
        let (mut all, mut total) = (VecDeque::new(), 0.0);
        let (mut count, mut work) = (0, Work::default());
        for _ in 0..times {
            for (launch, ready) in self.made.launches.iter().enumerate() {
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
                let ms = pace.ms(&ready.kernel.cost, units);
                let pieces = pieces(ms, groups, submit_ms);
                let share = groups.div_ceil(pieces);
                let load = Load { units: units / pieces as f64, ms: ms / pieces as f64 };
                let bases = (0..groups).step_by(share as usize);
                all.extend(bases.map(|base| Piece { launch, base, count: share.min(groups - base), load }));
            }
        }
        self.made.gpu.note_launches(count, work);
        (all, total)
    }
}

/// The result of submitting a replay: the read-back of its outputs.
type Submitted = Result<(MapRequest, Clock)>;

/// Passes the result of submitting to the task that waits for the replay.
type Notify = Box<dyn FnOnce(Submitted) + Send>;

/// A replay that is not completely submitted yet.
pub(super) struct Replay {
    plan: Plan,
    live: Live,
    pieces: VecDeque<Piece>,
    clock: Clock,
    /// How often each unknown kernel was timed individually.
    timed: HashMap<usize, u32>,
    /// The buffer for the outputs, and the function that receives the result; `None` after the end.
    end: Option<(Buffer, Notify)>,
}

/// A key that identifies a kernel.
fn address(kernel: &Arc<Kernel>) -> usize {
    Arc::as_ptr(kernel) as usize
}

impl Job for Replay {
    /// Submits as many pieces as the time cap allows. Errors go to the task that waits for the outputs.
    fn submit_next(&mut self) -> Result<bool> {
        match self.try_submit() {
            Ok(None) => return Ok(true),
            Ok(Some(map)) => {
                let clock = std::mem::take(&mut self.clock);
                self.notify(Ok((map, clock)));
            }
            Err(error) => self.notify(Err(error)),
        }
        Ok(false)
    }
}

impl Replay {
    fn notify(&mut self, outcome: Submitted) {
        if let Some((_, notify)) = self.end.take() {
            notify(outcome);
        }
    }

    /// Submits the next pieces; returns the read-back of the outputs after the last ones.
    fn try_submit(&mut self) -> Result<Option<MapRequest>> {
        let made = self.plan.made.clone();
        let (taken, load) = self.next_submit(made.gpu.inner.submit_ms);
        let last = taken == self.pieces.len();
        made.bind()?;
        made.gpu.encode_now("a submit", |encoder| {
            self.encode(taken, load, encoder);
            if let Some((staging, _)) = self.end.as_ref().filter(|_| last) {
                self.plan.copy_outputs(encoder, &staging.raw(), &self.clock);
            }
        })?;
        self.pieces.drain(..taken);
        let Some((staging, _)) = self.end.as_ref().filter(|_| last) else { return Ok(None) };
        let bytes = made.staging_bytes.max(4);
        made.gpu.guarded("a read-back", |_| MapRequest::new(staging.clone(), bytes)).map(Some)
    }

    /// Returns the number of pieces in the next submit, and their work.
    fn next_submit(&self, submit_ms: f64) -> (usize, Load) {
        let (mut taken, mut filled, mut slots) = (0, Load::default(), 1);
        for piece in self.pieces.iter().take(MOST_PIECES) {
            slots += usize::from(!self.is_whole(piece));
            if taken > 0 && (filled.ms + piece.load.ms > submit_ms || slots > STEP_SLOTS) {
                break;
            }
            taken += 1;
            filled = Load { units: filled.units + piece.load.units, ms: filled.ms + piece.load.ms };
        }
        (taken, filled)
    }

    /// Arranges the workgroups of a piece in two dimensions.
    fn grid(&self, piece: &Piece) -> (u32, u32) {
        let limit = self.plan.made.gpu.limits().groups_per_dimension;
        (piece.count.min(limit), piece.count.div_ceil(limit))
    }

    /// Whether a piece is a whole launch in a one-dimensional grid, which needs no step slot of its own.
    fn is_whole(&self, piece: &Piece) -> bool {
        piece.base == 0 && self.grid(piece).1 == 1
    }

    /// Whether a kernel should be timed individually.
    fn is_to_be_timed(&self, kernel: &Arc<Kernel>) -> bool {
        let times = self.timed.get(&address(kernel)).copied().unwrap_or(0);
        self.clock.has_room() && times < SAMPLES && kernel.cost.ms_per_unit().is_none()
    }

    /// Encodes the first pieces.
    fn encode(&mut self, taken: usize, load: Load, encoder: &mut wgpu::CommandEncoder) {
        let made = self.plan.made.clone();
        let bindings = made.bindings.lock().unwrap();
        let mut steps: Vec<Step> = vec![Step::new(&self.live, 0, u32::MAX)];
        let per_launch = made.gpu.inner.profile.is_some();
        let mut at = 0;
        while at < taken {
            let first = self.pieces[at].launch;
            let phase = made.launches[first].phase;
            let set = made.queries.as_ref().and_then(|q| q.set.as_ref());
            let alone = set.is_some() && self.is_to_be_timed(&made.launches[first].kernel);
            if alone {
                *self.timed.entry(address(&made.launches[first].kernel)).or_default() += 1;
            }
            let writes = set.and_then(|set| self.clock.next(set, first, phase));
            let is_timed = writes.is_some();
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(phase),
                timestamp_writes: writes,
            });
            while at < taken {
                let piece = &self.pieces[at];
                let ready = &made.launches[piece.launch];
                let begins_pass = piece.launch == first || set.is_none();
                if ready.phase != phase || (!begins_pass && self.is_to_be_timed(&ready.kernel)) {
                    break;
                }
                let slot = match self.is_whole(piece) {
                    true => 0,
                    false => {
                        steps.push(Step::new(&self.live, piece.base, piece.base + piece.count));
                        steps.len() - 1
                    }
                };
                let (x, y) = self.grid(piece);
                pass.set_pipeline(&ready.kernel.pipeline);
                pass.set_bind_group(0, &bindings.groups[piece.launch], &[]);
                pass.set_bind_group(1, made.step_bindings.as_ref(), &[slot as u32 * STEP_STRIDE as u32]);
                pass.dispatch_workgroups(x, y, 1);
                at += 1;
                if per_launch || alone {
                    break;
                }
            }
            drop(pass);
            if let Some(pass) = self.clock.passes.last_mut().filter(|_| is_timed && (per_launch || alone)) {
                pass.units = Some(self.pieces[at - 1].load.units);
            }
        }
        self.clock.end_submit(load);
        let mut bytes = vec![0u8; steps.len() * STEP_STRIDE as usize];
        for (chunk, step) in bytes.chunks_mut(STEP_STRIDE as usize).zip(&steps) {
            chunk[..size_of::<Step>()].copy_from_slice(bytemuck::bytes_of(step));
        }
        made.gpu.queue().write_buffer(&made.steps.raw(), 0, &bytes);
    }
}

impl Plan {
    fn copy_outputs(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, clock: &Clock) {
        let mut at = 0;
        for (tensor, region) in &self.made.outputs {
            encoder.copy_buffer_to_buffer(&region.buffer.raw(), region.offset, staging, at, tensor.bytes());
            at += tensor.bytes();
        }
        if let Some(Queries { set: Some(set), resolved }) = &self.made.queries
            && clock.used > 0
        {
            let resolved = resolved.raw();
            encoder.resolve_query_set(set, 0..clock.used, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, staging, at, clock.used as u64 * 8);
        }
    }
}

/// A replay that is submitted or queued. Dropping it cancels the part that is not submitted yet.
#[must_use = "errors come with the outputs"]
pub struct Pending {
    plan: Plan,
    live: Live,
    started: Instant,
    units: f64,
    /// The job's number, and the result of submitting; `None` on a measuring `Gpu`.
    replay: Option<(u64, Signal<Submitted>)>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((number, _)) = &self.replay {
            let gpu = &self.plan.made.gpu;
            if gpu.inner.outbox.withdraw(*number) {
                // There may be no other task left to submit the rest. An error appears in a later call.
                let _ = gpu.flush();
            }
        }
    }
}

impl Pending {
    /// Lets the replay complete even if this is dropped.
    pub(crate) fn lasting(self) -> Pending {
        if let Some((number, _)) = &self.replay {
            self.plan.made.gpu.inner.outbox.keep(*number);
        }
        self
    }

    /// Waits for the replay and returns its outputs.
    pub async fn outputs(self) -> Result<Outputs> {
        let made = &self.plan.made;
        let (bytes, clock) = match &self.replay {
            None => (vec![0; made.staging_bytes as usize], Clock::default()),
            Some((_, submitted)) => {
                let (map, clock) = made.gpu.until(submitted).await??;
                let (bytes, staging) = map.read(&made.gpu).await?;
                made.ring.lock().unwrap().push(staging);
                (bytes, clock)
            }
        };
        made.gpu.check("a replay")?;
        let mut tensors = Vec::new();
        let mut at = 0;
        for (tensor, _) in &made.outputs {
            let live = tensor.rows.now(&self.live.extents) as usize * tensor.cols * 4;
            tensors.push((*tensor, bytemuck::pod_collect_to_vec(&bytes[at..at + live])));
            at += tensor.bytes() as usize;
        }
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes[at..at + clock.used as usize * 8]);
        self.learn(&clock, &stamps);
        let phases = self.plan.times(&self.live, &clock, &stamps);
        Ok(Outputs { tensors, phases })
    }

    /// Updates the measured speed of the GPU, from the times of the submits if it has timestamps.
    fn learn(&self, clock: &Clock, stamps: &[u64]) {
        let gpu = &self.plan.made.gpu;
        if gpu.is_measuring() {
            return;
        }
        let mut pace = gpu.inner.pace.lock().unwrap();
        if stamps.is_empty() {
            return pace.learn(self.units, self.started.elapsed().as_secs_f64() * 1e3);
        }
        let tick_ns = gpu.queue().get_timestamp_period() as f64;
        let times = clock.submit_times(stamps, tick_ns);
        let sum = |of: fn(&(Load, f64)) -> f64| times.iter().map(of).sum::<f64>();
        let (units, expected_ms, ms) = (sum(|t| t.0.units), sum(|t| t.0.ms), sum(|t| t.1));
        pace.learn(units, ms);
        let launches = &self.plan.made.launches;
        // For unknown kernels the expected time was only a guess, so it is not compared.
        if launches.iter().all(|launch| launch.kernel.cost.ms_per_unit().is_some()) {
            pace.correct(expected_ms, ms);
        }
        for (pass, pair) in clock.passes.iter().zip(stamps.chunks(2)) {
            if let Some(units) = pass.units {
                let ms = pair[1].saturating_sub(pair[0]) as f64 * tick_ns * 1e-6;
                launches[pass.launch].kernel.cost.learn(units, ms);
            }
        }
        let mut activity = gpu.inner.activity.lock().unwrap();
        times.iter().for_each(|(_, ms)| activity.submit_times.add(*ms));
    }
}

/// The outputs of a replay.
#[derive(Clone, Debug)]
pub struct Outputs {
    tensors: Vec<(Tensor, Vec<u32>)>,
    phases: Vec<(&'static str, f64)>,
}

impl Outputs {
    fn words(&self, tensor: Tensor) -> &[u32] {
        let found = self.tensors.iter().find(|(t, _)| *t == tensor);
        &found.expect("the tensor is not an output").1
    }

    /// Returns the live rows of an output of floats.
    pub fn f32(&self, tensor: Tensor) -> &[f32] {
        bytemuck::cast_slice(self.words(tensor))
    }

    /// Returns the live rows of an output of integers.
    pub fn u32(&self, tensor: Tensor) -> &[u32] {
        self.words(tensor)
    }

    /// Returns the milliseconds on the GPU per phase; empty if the GPU has no timestamps.
    pub fn phase_ms(&self) -> &[(&'static str, f64)] {
        &self.phases
    }
}

impl Plan {
    /// Sums a replay's timestamps per phase, and adds each launch to the profile.
    fn times(&self, live: &Live, clock: &Clock, stamps: &[u64]) -> Vec<(&'static str, f64)> {
        if clock.passes.is_empty() {
            return Vec::new();
        }
        let tick_ns = self.made.gpu.queue().get_timestamp_period() as f64;
        let mut phases: Vec<(&'static str, f64)> = Vec::new();
        let mut profile = self.made.gpu.inner.profile.as_ref().map(|p| p.lock().unwrap());
        for (Pass { launch, phase, .. }, pair) in clock.passes.iter().zip(stamps.chunks(2)) {
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
