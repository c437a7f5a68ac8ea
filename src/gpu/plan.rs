//! A finished recording: memory placed, pipelines and bind groups made once, replayed with live values.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::adapter::Gpu;
use super::buffer::{Buffer, Category, MapRequest, Region};
use super::memory::{Arena, Layout};
use super::recorder::{Dim, Groups, Home, LaunchWork, Recorder, Tensor, Word, Work};
use super::shader::Kernel;
use crate::error::{Error, Remedy, Result};

/// What changes from one replay to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Live {
    /// Live extents, see [`super::Dim::Live`].
    pub extents: [u32; 8],
    /// Scalars that kernels read: learning rate and the like.
    pub scalars: [f32; 8],
    /// Keys that a row of attention sees on average, for the time cap; 0: what its op takes for usual.
    pub keys: u32,
    /// Seed of the random numbers.
    pub seed: u32,
    /// Which draw this is.
    pub draw: u32,
}

/// How to build a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanOptions {
    /// Give every tensor a buffer of its own, filled with NaN and fenced, see [`Plan::check_fences`]. For tests.
    pub fenced: bool,
}

/// A dispatch's view of `Live`, as shaders/shared/step.wgsl declares it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Step {
    base: u32,
    end: u32,
    seed: u32,
    draw: u32,
    extents: [u32; 8],
    scalars: [f32; 8],
}

/// Distance between two `Step`s in their buffer: any device accepts it as a dynamic offset.
const STEP_STRIDE: u64 = 256;
/// Pieces of split launches that one submit can hold; piece 0 is "the whole launch".
const STEP_SLOTS: usize = 64;
/// Timestamps in a replay; passes beyond them go untimed.
const MAX_QUERIES: u32 = 4096;
/// Words of fence on either side of a tensor.
const FENCE: u64 = 256;
const FENCE_WORD: u32 = 0xFFC0_FE4C;

pub(super) fn step_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("step"),
        entries: &[wgpu::BindGroupLayoutEntry {
            binding: 0,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: None,
            },
            count: None,
        }],
    })
}

/// Timestamps, and where they are read from; a measuring `Gpu` has the place alone.
struct Queries {
    set: Option<wgpu::QuerySet>,
    resolved: Buffer,
}

struct Ready {
    name: &'static str,
    kernel: Arc<Kernel>,
    bindings: wgpu::BindGroup,
    groups: Groups,
    work: LaunchWork,
    phase: &'static str,
}

/// In how many pieces a launch of so many units of work and workgroups is submitted.
pub(super) fn pieces(units: f64, groups: u32, units_per_submit: f64) -> u32 {
    ((units / units_per_submit).ceil() as u32).clamp(1, groups)
}

/// A part of a launch that goes into one submit.
struct Piece {
    launch: usize,
    base: u32,
    count: u32,
}

/// A recorded computation, ready to run any number of times.
pub struct Plan {
    gpu: Gpu,
    launches: Vec<Ready>,
    /// Of the recording: a measuring `Gpu` makes none of them ready.
    launch_count: usize,
    slots: Vec<Buffer>,
    /// Parameters, and what the recording was bound to: bind groups keep a buffer alive, but not in the ledger.
    _held: Vec<Buffer>,
    steps: Buffer,
    step_bindings: Option<wgpu::BindGroup>,
    outputs: Vec<(Tensor, Region)>,
    ring: Mutex<Vec<Buffer>>,
    queries: Option<Queries>,
    staging_bytes: u64,
    /// The largest value of each live extent that the tensors have room for.
    room: [u32; 8],
}

impl Plan {
    /// Places the recording's memory in `arena`, compiles its kernels and makes its bind groups. On a measuring
    /// [`Gpu`] the memory is counted and the kernels are noted (see [`Gpu::planned_kernels`]), no more.
    ///
    /// # Errors
    /// [`Error::Limit`] for a tensor above the GPU's binding limit, [`Error::OutOfMemory`], [`Error::Shader`];
    /// [`Error::Config`] where the recording or the arena has memory of another device.
    pub fn new(gpu: &Gpu, recorder: Recorder, arena: &Arena, options: PlanOptions) -> Result<Plan> {
        recorder.check_complete()?;
        for info in &recorder.tensors {
            if let Home::Region(region) = &info.home
                && !region.buffer.is_of(gpu)
            {
                return Err(Error::config("plan", format!("{} is on another device", info.label)));
            }
        }
        let layout = Layout::plan(&recorder);
        for launch in &recorder.launches {
            for (tensor, _) in &launch.args {
                check_binding(gpu, &recorder, *tensor)?;
            }
        }
        let slots = match options.fenced {
            false => arena.place(gpu, &layout)?,
            true => fenced_slots(gpu, &recorder)?,
        };
        let region = |tensor: Tensor| match &recorder.tensors[tensor.id as usize].home {
            Home::Region(region) => Region { bytes: tensor.bytes(), ..region.clone() },
            Home::Transient if options.fenced => {
                Region { buffer: slots[tensor.id as usize].clone(), offset: FENCE * 4, bytes: tensor.bytes() }
            }
            Home::Transient => {
                let slot = layout.slot_of.get(&tensor.id);
                let slot = slot.unwrap_or_else(|| panic!("{} is never written", recorder.label(tensor)));
                Region { buffer: slots[*slot].clone(), offset: 0, bytes: tensor.bytes() }
            }
        };
        let (params, offsets) = upload_params(gpu, &recorder)?;
        let steps = gpu.buffer("steps", Category::Workspace, STEP_STRIDE * STEP_SLOTS as u64)?;
        let mut launches = Vec::new();
        if gpu.is_measuring() {
            gpu.note_planned(recorder.kernels());
        } else {
            for (i, launch) in recorder.launches.iter().enumerate() {
                let kernel = gpu.kernel(&launch.kernel)?;
                let bindings = bind(gpu, &kernel, launch, (&params, offsets[i]), &region)?;
                let phase =
                    recorder.phases.iter().rev().find(|(at, _)| *at <= i).map_or("", |(_, name)| name);
                let (groups, work, name) = (launch.groups, launch.work, launch.kernel.name);
                launches.push(Ready { name, kernel, bindings, groups, work, phase });
            }
        }
        let step_bindings = match gpu.is_measuring() {
            true => None,
            false => Some(step_bindings(gpu, &steps)?),
        };
        let outputs: Vec<_> = recorder.outputs.iter().map(|t| (*t, region(*t))).collect();
        let queries = timing_queries(gpu)?;
        let query_bytes = queries.as_ref().map_or(0, |q| q.resolved.bytes());
        let staging_bytes = outputs.iter().map(|(t, _)| t.bytes()).sum::<u64>() + query_bytes;
        // The first of the ring; a second one is made where a replay is submitted before the last was waited for.
        let ring = Mutex::new(vec![gpu.staging("outputs", staging_bytes)?]);
        let bound = recorder.tensors.iter().filter_map(|info| match &info.home {
            Home::Region(region) => Some(region.buffer.clone()),
            Home::Transient => None,
        });
        let held = bound.chain([params]).collect();
        Ok(Plan {
            gpu: gpu.clone(),
            launches,
            launch_count: recorder.launches.len(),
            slots,
            _held: held,
            steps,
            step_bindings,
            outputs,
            ring,
            queries,
            staging_bytes,
            room: room(&recorder),
        })
    }

    /// Runs the plan and waits for its outputs.
    ///
    /// # Errors
    /// [`Error::Config`] for a live extent above what the plan was recorded for; what the device reports.
    pub fn run(&self, live: &Live) -> Result<Outputs> {
        self.submit(live, 1)?.wait()
    }

    /// Submits the launches `times` over, in as many submits as the time cap asks for, and returns at once.
    pub fn submit(&self, live: &Live, times: u32) -> Result<Pending<'_>> {
        for (index, (value, room)) in live.extents.iter().zip(&self.room).enumerate() {
            if value > room {
                let why = format!("is {value}, its tensors have room for {room}");
                return Err(Error::config(format!("live extent {index}"), why));
            }
        }
        let started = Instant::now();
        if self.gpu.is_measuring() {
            return Ok(Pending { plan: self, state: State::Measured, live: *live, started, units: 0.0 });
        }
        let units_per_submit = self.gpu.inner.pace.lock().unwrap().units_in(self.gpu.inner.submit_ms);
        let mut clock = Clock::default();
        let mut batch: Vec<Piece> = Vec::new();
        let (mut filled, mut total) = (0.0, 0.0);
        let (mut count, mut work) = (0, Work::default());
        for _ in 0..times {
            for (i, ready) in self.launches.iter().enumerate() {
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
        self.gpu.note_launches(count, work);
        let staging = self.ring.lock().unwrap().pop();
        let staging = match staging {
            Some(staging) => staging,
            None => self.gpu.staging("outputs", self.staging_bytes)?,
        };
        self.flush(live, &mut batch, &mut clock, Some(&staging))?;
        let bytes = self.staging_bytes.max(4);
        let map = self.gpu.guarded("a read-back", |_| MapRequest::new(staging, bytes))?;
        let state = State::Running { map, clock };
        Ok(Pending { plan: self, state, live: *live, started, units: total })
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
            self.gpu.encode("a submit", |encoder| self.encode(live, batch, clock, staging, encoder))?;
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
        let mut steps: Vec<Step> = vec![self.step(live, 0, u32::MAX)];
        let per_launch = self.gpu.inner.profile.is_some();
        let mut at = 0;
        while at < batch.len() && steps.len() < STEP_SLOTS {
            let phase = self.launches[batch[at].launch].phase;
            let set = self.queries.as_ref().and_then(|q| q.set.as_ref());
            let writes = set.and_then(|set| clock.next(set, batch[at].launch, phase));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(phase),
                timestamp_writes: writes,
            });
            while at < batch.len() && steps.len() < STEP_SLOTS {
                let piece = &batch[at];
                let ready = &self.launches[piece.launch];
                if ready.phase != phase {
                    break;
                }
                let limit = self.gpu.limits().groups_per_dimension;
                let (x, y) = (piece.count.min(limit), piece.count.div_ceil(limit));
                let whole = piece.base == 0 && y == 1;
                let slot = match whole {
                    true => 0,
                    false => {
                        steps.push(self.step(live, piece.base, piece.base + piece.count));
                        steps.len() - 1
                    }
                };
                pass.set_pipeline(&ready.kernel.pipeline);
                pass.set_bind_group(0, &ready.bindings, &[]);
                pass.set_bind_group(1, self.step_bindings.as_ref(), &[slot as u32 * STEP_STRIDE as u32]);
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
        self.gpu.queue().write_buffer(self.steps.raw(), 0, &bytes);
    }

    fn step(&self, live: &Live, base: u32, end: u32) -> Step {
        Step { base, end, seed: live.seed, draw: live.draw, extents: live.extents, scalars: live.scalars }
    }

    fn copy_outputs(&self, encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer, clock: &Clock) {
        let mut at = 0;
        for (tensor, region) in &self.outputs {
            encoder.copy_buffer_to_buffer(region.buffer.raw(), region.offset, staging, at, tensor.bytes());
            at += tensor.bytes();
        }
        if let Some(Queries { set: Some(set), resolved }) = &self.queries
            && clock.used > 0
        {
            encoder.resolve_query_set(set, 0..clock.used, resolved.raw(), 0);
            encoder.copy_buffer_to_buffer(resolved.raw(), 0, staging, at, clock.used as u64 * 8);
        }
    }

    /// Number of launches in one replay.
    pub fn launch_count(&self) -> usize {
        self.launch_count
    }

    /// Whether the fences around every tensor of a plan built with [`PlanOptions::fenced`] still stand.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] naming the tensor that was overrun.
    pub fn check_fences(&self) -> Result<()> {
        for slot in &self.slots {
            let words: Vec<u32> = self.gpu.download(&slot.region())?;
            let (fence, end) = (FENCE as usize, words.len() - FENCE as usize);
            if words[..fence].iter().chain(&words[end..]).any(|w| *w != FENCE_WORD) {
                return Err(Error::SelfCheck(format!("a kernel wrote outside {}", slot.label())));
            }
        }
        Ok(())
    }
}

fn check_binding(gpu: &Gpu, recorder: &Recorder, tensor: Tensor) -> Result<()> {
    if tensor.bytes() > gpu.limits().binding {
        let remedy = match &recorder.tensors[tensor.id as usize].home {
            Home::Region(region) => region.buffer.remedy(),
            Home::Transient => Remedy::SmallerBatch,
        };
        return Err(Error::Limit {
            what: format!("{} ({}, {})", recorder.label(tensor), tensor.rows.max(), tensor.cols),
            needed: tensor.bytes(),
            limit: gpu.limits().binding,
            remedy,
        });
    }
    Ok(())
}

/// One buffer a tensor, NaN inside, fence words around.
fn fenced_slots(gpu: &Gpu, recorder: &Recorder) -> Result<Vec<Buffer>> {
    let fence = vec![FENCE_WORD; FENCE as usize];
    let slot = |info: &super::recorder::TensorInfo| {
        let words = match info.home {
            Home::Transient => info.tensor.bytes() / 4,
            Home::Region(_) => 0,
        };
        let inside = vec![f32::NAN.to_bits(); words as usize];
        let all = [&fence[..], &inside, &fence].concat();
        gpu.buffer_with(info.label.clone(), Category::Activations, &all)
    };
    recorder.tensors.iter().map(slot).collect()
}

/// All launches' parameters in one buffer, each at an aligned offset.
fn upload_params(gpu: &Gpu, recorder: &Recorder) -> Result<(Buffer, Vec<u64>)> {
    let align = gpu.limits().alignment as usize / 4;
    let mut words: Vec<u32> = Vec::new();
    let mut offsets = Vec::new();
    for launch in &recorder.launches {
        offsets.push(words.len() as u64 * 4);
        words.extend(launch.params.iter().map(|w| w.bits()));
        words.resize(words.len().next_multiple_of(align.max(4)), 0);
    }
    words.resize(words.len().max(align), 0);
    Ok((gpu.buffer_with("kernel parameters", Category::Workspace, &words)?, offsets))
}

fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    launch: &super::recorder::NotedLaunch,
    (params, offset): (&Buffer, u64),
    region: &impl Fn(Tensor) -> Region,
) -> Result<wgpu::BindGroup> {
    let name = launch.kernel.name;
    let regions: Vec<Region> = launch.args.iter().map(|(t, _)| region(*t)).collect();
    let mut entries = Vec::new();
    if !launch.params.is_empty() {
        let bytes = (launch.params.len() as u64 * 4).next_multiple_of(16);
        entries.push(wgpu::BindGroupEntry { binding: 0, resource: binding(params, offset, bytes) });
    }
    for (i, r) in regions.iter().enumerate() {
        let resource = binding(&r.buffer, r.offset, r.bytes.max(4));
        entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
    }
    let (label, layout) = (Some(name), &kernel.layout);
    create_bind_group(gpu, &wgpu::BindGroupDescriptor { label, layout, entries: &entries })
}

fn create_bind_group(gpu: &Gpu, descriptor: &wgpu::BindGroupDescriptor) -> Result<wgpu::BindGroup> {
    gpu.count(|c| c.bind_groups += 1);
    gpu.guarded("a bind group", |device| device.create_bind_group(descriptor))
}

fn binding(buffer: &Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    let size = std::num::NonZero::new(bytes);
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: buffer.raw(), offset, size })
}

fn step_bindings(gpu: &Gpu, steps: &Buffer) -> Result<wgpu::BindGroup> {
    let layout = gpu.inner.step_layout.as_ref().expect("a device has a step layout");
    let resource = binding(steps, 0, size_of::<Step>() as u64);
    let entries = &[wgpu::BindGroupEntry { binding: 0, resource }];
    create_bind_group(gpu, &wgpu::BindGroupDescriptor { label: Some("step"), layout, entries })
}

fn timing_queries(gpu: &Gpu) -> Result<Option<Queries>> {
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

fn room(recorder: &Recorder) -> [u32; 8] {
    let mut room = [u32::MAX; 8];
    let extents = recorder.launches.iter().flat_map(|launch| {
        let params = launch.params.iter().filter_map(|word| match word {
            Word::Extent(dim) => Some(*dim),
            Word::U32(_) | Word::F32(_) => None,
        });
        launch.args.iter().map(|(tensor, _)| tensor.rows).chain(params).chain([launch.groups.rows])
    });
    for dim in extents {
        if let Dim::Live { index, max } = dim {
            let known = &mut room[index as usize];
            *known = max.min(*known);
        }
    }
    room
}

/// Which pass each pair of timestamps belongs to.
#[derive(Default)]
struct Clock {
    used: u32,
    passes: Vec<(usize, &'static str)>,
}

impl Clock {
    fn next<'a>(
        &mut self,
        set: &'a wgpu::QuerySet,
        launch: usize,
        phase: &'static str,
    ) -> Option<wgpu::ComputePassTimestampWrites<'a>> {
        if self.used + 2 > MAX_QUERIES {
            return None;
        }
        let first = self.used;
        self.used += 2;
        self.passes.push((launch, phase));
        Some(wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }
}

enum State {
    Measured,
    Running { map: MapRequest, clock: Clock },
}

/// A submitted replay.
#[must_use = "outputs and errors come with wait()"]
pub struct Pending<'p> {
    plan: &'p Plan,
    state: State,
    live: Live,
    started: Instant,
    units: f64,
}

impl Pending<'_> {
    /// Whether [`Pending::wait`] would return at once. Never blocks.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Measured => true,
            State::Running { map, .. } => {
                // What went wrong shows when the mapping is taken.
                let polled = self.plan.gpu.poll(wgpu::PollType::Poll);
                polled.is_err() || map.is_done()
            }
        }
    }

    /// Blocks until the replay is done and gives its outputs.
    pub fn wait(self) -> Result<Outputs> {
        while !self.is_ready() {
            self.plan.gpu.wait()?;
        }
        self.finish()
    }

    /// Waits without blocking: yields to the executor between looks.
    pub async fn ready(self) -> Result<Outputs> {
        std::future::poll_fn(|cx| match self.is_ready() {
            true => std::task::Poll::Ready(()),
            false => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        })
        .await;
        self.finish()
    }

    fn finish(self) -> Result<Outputs> {
        let plan = self.plan;
        let (bytes, clock) = match self.state {
            State::Measured => (vec![0; plan.staging_bytes as usize], Clock::default()),
            State::Running { map, clock } => {
                let (bytes, staging) = map.take()?;
                plan.ring.lock().unwrap().push(staging);
                (bytes, clock)
            }
        };
        plan.gpu.check("a replay")?;
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        plan.gpu.inner.pace.lock().unwrap().learn(self.units, ms);
        let mut tensors = Vec::new();
        let mut at = 0;
        for (tensor, _) in &plan.outputs {
            let live = tensor.rows.now(&self.live.extents) as usize * tensor.cols * 4;
            tensors.push((*tensor, bytemuck::pod_collect_to_vec(&bytes[at..at + live])));
            at += tensor.bytes() as usize;
        }
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes[at..at + clock.used as usize * 8]);
        let phases = plan.times(&self.live, &clock, &stamps);
        Ok(Outputs { tensors, phases })
    }
}

impl Plan {
    /// Adds a replay's timestamps up by phase, and launch by launch into the profile.
    fn times(&self, live: &Live, clock: &Clock, stamps: &[u64]) -> Vec<(&'static str, f64)> {
        if clock.passes.is_empty() {
            return Vec::new();
        }
        let tick_ns = self.gpu.queue().get_timestamp_period() as f64;
        let mut phases: Vec<(&'static str, f64)> = Vec::new();
        let mut profile = self.gpu.inner.profile.as_ref().map(|p| p.lock().unwrap());
        for ((launch, phase), pair) in clock.passes.iter().zip(stamps.chunks(2)) {
            let ns = pair[1].saturating_sub(pair[0]) as f64 * tick_ns;
            match phases.iter_mut().find(|(name, _)| name == phase) {
                Some((_, ms)) => *ms += ns * 1e-6,
                None => phases.push((phase, ns * 1e-6)),
            }
            if let Some(profile) = &mut profile {
                let ready = &self.launches[*launch];
                let rows = ready.groups.rows.now(&live.extents) as f64;
                let work = ready.work.of_row(live.keys);
                let (flops, bytes) = (rows * work.flops, rows * work.bytes);
                profile.add(ready.name, phase, pair[0] as f64 * tick_ns, ns, flops, bytes);
            }
        }
        phases
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

    /// Milliseconds on the adapter by phase; empty where the adapter cannot tell.
    pub fn phase_ms(&self) -> &[(&'static str, f64)] {
        &self.phases
    }
}
