//! Choosing an adapter and opening its device with the features and limits that it has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::arithmetic::Arithmetic;
use super::buffer::Ledger;
use super::pace::Pace;
use super::profile::Profile;
use super::recorder::Work;
use super::shader::{Kernel, KernelKey};
use super::tuning::{DeviceKind, Tuning};
use crate::error::{Error, Result};

/// How much of the adapter the kernels use. Results are checked against `reference` in every tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Tier {
    /// T0. Core WGSL: at most 128 invocations and 16 KiB of workgroup memory, 8 storage buffers, f32, no subgroups.
    #[default]
    Portable,
    /// T1. Lanes of a subgroup hand each other what they have loaded; for adapters whose subgroups have one size.
    Subgroups,
    /// T2. Products of rows with a frozen f16 matrix by cooperative matrices, which wgpu calls experimental: see
    /// [`Arithmetic::Cooperative`].
    Cooperative,
}

impl Tier {
    /// Every tier, the lowest first: T0, T1, …
    pub const ALL: [Tier; 3] = [Tier::Portable, Tier::Subgroups, Tier::Cooperative];
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tier::Portable => f.write_str("T0 (portable)"),
            Tier::Subgroups => f.write_str("T1 (subgroups)"),
            Tier::Cooperative => f.write_str("T2 (cooperative matrices)"),
        }
    }
}

/// What the runtime makes use of where a device has it.
pub const FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP).union(wgpu::Features::SHADER_F16);

/// What to ask of the adapter.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Index or part of the name, as `oaif doctor` lists them. `None`: `OAIF_GPU`, else the fastest kind.
    pub adapter: Option<String>,
    /// T0 or T1: no higher tier than this. T2: just this one; [`crate::ops::check_arithmetic`] tells whether its
    /// results are right. `None`: T1 where the adapter offers it. Never more, since that would change the numbers.
    pub tier: Option<Tier>,
    /// Keep every runtime check of the shaders (bounds, loops): slower, for tests and for hunting mistakes.
    pub checked: bool,
    /// Pretend that one binding holds no more than this many bytes, to test tensors split by rows.
    pub max_binding_bytes: Option<u64>,
    /// Time every launch, see [`Gpu::profile`].
    pub profile: bool,
    /// The longest that one submit is expected to hold the adapter, in milliseconds. Drivers kill submits after
    /// seconds, a desktop stutters after tens of milliseconds.
    pub submit_ms: f64,
    /// Pretend that a dispatch has no more than this many workgroups in one dimension, to test large grids.
    #[doc(hidden)]
    pub max_groups_per_dimension: Option<u32>,
    /// Ask for no more than the limits that WebGPU promises everywhere, to test that they suffice.
    #[doc(hidden)]
    pub default_limits: bool,
}

impl GpuOptions {
    /// Refuses values that no device can be driven with.
    fn check(&self) -> Result<()> {
        if self.submit_ms.is_nan() || self.submit_ms <= 0.0 {
            return Err(Error::config("submit-ms", format!("{} is no time above 0", self.submit_ms)));
        }
        let limits = [
            ("max_binding_bytes", self.max_binding_bytes == Some(0)),
            ("max_groups_per_dimension", self.max_groups_per_dimension == Some(0)),
        ];
        match limits.iter().find(|(_, is_zero)| *is_zero) {
            Some((what, _)) => Err(Error::config(*what, "is 0, which holds nothing: leave it out")),
            None => Ok(()),
        }
    }
}

impl Default for GpuOptions {
    fn default() -> GpuOptions {
        GpuOptions {
            adapter: None,
            tier: None,
            checked: false,
            max_binding_bytes: None,
            profile: false,
            submit_ms: 50.0,
            max_groups_per_dimension: None,
            default_limits: false,
        }
    }
}

/// The limits that shape plans.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Limits {
    /// Largest storage binding in bytes.
    pub binding: u64,
    /// Largest buffer in bytes.
    pub buffer: u64,
    /// Alignment of a binding's offset in bytes.
    pub alignment: u64,
    /// Workgroups in one dimension of a dispatch.
    pub groups_per_dimension: u32,
}

impl Default for Limits {
    /// What WebGPU promises everywhere.
    fn default() -> Limits {
        Limits { binding: 128 << 20, buffer: 256 << 20, alignment: 256, groups_per_dimension: 65_535 }
    }
}

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
    /// How long callers were blocked until the adapter was done.
    pub waited: Duration,
}

/// One adapter, as `oaif doctor` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AdapterSummary {
    /// Position in the list, by which [`GpuOptions::adapter`] may choose it.
    pub index: usize,
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal, Dx12, …
    pub backend: String,
    /// DiscreteGpu, IntegratedGpu, Cpu, …
    pub kind: String,
    /// The driver and its version.
    pub driver: String,
}

impl AdapterSummary {
    /// Whether it is a GPU or a processor.
    pub fn device_kind(&self) -> DeviceKind {
        if self.kind == "Cpu" { DeviceKind::Processor } else { DeviceKind::Gpu }
    }
}

/// A device with its queue, shaders, and a ledger of what was allocated on it. Cheap to clone.
///
/// A *measuring* `Gpu` (see [`Gpu::measuring`], [`Gpu::without_device`]) has the limits but no device: everything can
/// be allocated and recorded on it, nothing runs, and its ledger tells what the real one would hold.
#[derive(Clone)]
pub struct Gpu {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub device: Option<(wgpu::Device, wgpu::Queue)>,
    pub summary: AdapterSummary,
    pub limits: Limits,
    /// Invocations of a subgroup, from [`Tier::Subgroups`] on.
    pub subgroup: Mutex<Option<u32>>,
    pub arithmetic: Mutex<Arithmetic>,
    pub tuning: Mutex<Tuning>,
    pub checked: bool,
    pub timestamps: bool,
    pub submit_ms: f64,
    pub kernels: Mutex<HashMap<KernelKey, Arc<Kernel>>>,
    /// Of the plans of a measuring `Gpu`, which compiles none.
    planned: Mutex<Vec<KernelKey>>,
    pub step_layout: Option<wgpu::BindGroupLayout>,
    pub ledger: Arc<Mutex<Ledger>>,
    pub counts: Mutex<Counts>,
    pub activity: Mutex<Activity>,
    pub pace: Mutex<Pace>,
    pub profile: Option<Mutex<Profile>>,
    /// What wgpu reported outside a call, and why the device was lost.
    faults: Arc<Mutex<Faults>>,
    /// Held from filling a plan's inputs to reading its outputs: plans share the memory of their activations.
    turn: Mutex<()>,
    /// Whether the device is an application's, which handles its errors itself.
    foreign: bool,
}

#[derive(Default)]
struct Faults {
    uncaptured: Option<String>,
    lost: Option<String>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.inner.summary.name).finish()
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Validation layers cost start-up time and are not there on users' machines.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

/// The size of the subgroups, where they are to be had and all of one size that the kernels are written for.
pub(super) fn subgroup_size(info: &wgpu::AdapterInfo, features: wgpu::Features) -> Option<u32> {
    let one_size = info.subgroup_min_size == info.subgroup_max_size;
    let usable = one_size && [8, 16, 32, 64].contains(&info.subgroup_min_size);
    (features.contains(wgpu::Features::SUBGROUP) && usable).then_some(info.subgroup_min_size)
}

fn summarise(index: usize, info: &wgpu::AdapterInfo) -> AdapterSummary {
    AdapterSummary {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned(),
    }
}

async fn adapters(instance: &wgpu::Instance) -> Vec<(AdapterSummary, wgpu::Adapter)> {
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    found.into_iter().enumerate().map(|(i, a)| (summarise(i, &a.get_info()), a)).collect()
}

/// Every adapter of this machine, in the order of their [`AdapterSummary::index`].
pub fn list_adapters() -> Vec<AdapterSummary> {
    pollster::block_on(async { adapters(&instance()).await.into_iter().map(|(s, _)| s).collect() })
}

const NO_GPU: &str = "no GPU was found: install a Vulkan driver (on Debian or Ubuntu without a GPU: apt-get install \
                      libvulkan1 mesa-vulkan-drivers)";
/// With which wgpu is told to look at some backends alone.
const BACKENDS: &str = "WGPU_BACKEND";

/// Why no GPU was found.
fn no_gpu(backends: Option<&str>) -> Error {
    Error::NoAdapter(match backends {
        Some(backends) => format!(
            "no GPU was found by {BACKENDS}={backends}, which is set in the environment: unset it, or set it to vulkan, metal \
             or dx12"
        ),
        None => NO_GPU.into(),
    })
}

/// Smaller is better: the order in which kinds of adapter are preferred.
fn preference(summary: &AdapterSummary) -> usize {
    ["DiscreteGpu", "IntegratedGpu", "VirtualGpu", "Other"]
        .iter()
        .position(|k| *k == summary.kind)
        .unwrap_or(4)
}

fn choose(
    mut found: Vec<(AdapterSummary, wgpu::Adapter)>,
    wanted: Option<&str>,
) -> Result<(AdapterSummary, wgpu::Adapter)> {
    if found.is_empty() {
        return Err(no_gpu(std::env::var(BACKENDS).ok().filter(|set| !set.is_empty()).as_deref()));
    }
    let position = match wanted {
        None => found.iter().enumerate().min_by_key(|(i, (s, _))| (preference(s), *i)).map(|(i, _)| i),
        Some(w) => match w.parse::<usize>() {
            Ok(index) if index < found.len() => Some(index),
            // "4090" is a name.
            _ => found.iter().position(|(s, _)| s.name.to_lowercase().contains(&w.to_lowercase())),
        },
    };
    match position {
        Some(i) => Ok(found.swap_remove(i)),
        None => {
            let names: Vec<_> = found.iter().map(|(s, _)| format!("{} {}", s.index, s.name)).collect();
            Err(Error::NoAdapter(format!(
                "no GPU is called {:?}: choose by index or name from [{}]",
                wanted.unwrap_or_default(),
                names.join(", ")
            )))
        }
    }
}

impl Gpu {
    /// Opens an adapter. Blocks; see [`Gpu::open_async`].
    pub fn open(options: &GpuOptions) -> Result<Gpu> {
        pollster::block_on(Gpu::open_async(options))
    }

    /// Opens an adapter with all the limits that it offers.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when there is none, or none of the wanted name; [`Error::Config`] where it lacks what tier T2 needs;
    /// [`Error::Gpu`] when the driver refuses the device.
    pub async fn open_async(options: &GpuOptions) -> Result<Gpu> {
        options.check()?;
        let from_env = std::env::var("OAIF_GPU").ok().filter(|v| !v.is_empty());
        let wanted = options.adapter.clone().or(from_env);
        let (summary, adapter) = choose(adapters(&instance()).await, wanted.as_deref())?;
        let arithmetic = Arithmetic::of_tier(options.tier, &summary.name, &adapter)?;
        let mut features = adapter.features() & FEATURES;
        if arithmetic == Arithmetic::F32 {
            features.remove(wgpu::Features::SHADER_F16);
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.tier == Some(Tier::Cooperative) {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: experimental features may have bugs that lead to undefined behaviour. It is used where the user
            // asked for this tier, by one kernel's pattern of loads and stores, all within workgroup memory.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("oaif"),
                required_features: features,
                required_limits: match options.default_limits {
                    true => wgpu::Limits::default(),
                    false => adapter.limits(),
                },
                experimental_features,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Gpu { what: format!("a device on {}", summary.name), why: e.to_string() })?;
        let gpu = Gpu::build(device, queue, summary, options, arithmetic, false);
        gpu.watch();
        Ok(gpu)
    }

    /// Uses the application's own device and queue, best one with all of [`FEATURES`] that its adapter has. Its error
    /// handlers stay the application's. It computes in f32.
    ///
    /// # Errors
    /// [`Error::Config`] for an option out of its range.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Gpu> {
        options.check()?;
        let summary = summarise(0, &device.adapter_info());
        Ok(Gpu::build(device, queue, summary, options, Arithmetic::F32, true))
    }

    /// A `Gpu` of the same limits without a device, to measure what a run would allocate.
    pub fn measuring(&self) -> Gpu {
        let mut summary = self.inner.summary.clone();
        summary.name.push_str(" (measured, not run)");
        let Inner { limits, timestamps, .. } = *self.inner;
        let gpu = Gpu::measuring_with(summary, limits, timestamps, self.subgroup(), self.arithmetic());
        gpu.set_tuning(self.tuning());
        gpu
    }

    /// A measuring `Gpu` for a machine that has no adapter.
    pub fn without_device(limits: Limits) -> Gpu {
        let [name, backend, kind, driver] = ["no device", "none", "none", ""].map(str::to_owned);
        Gpu::measuring_with(
            AdapterSummary { index: 0, name, backend, kind, driver },
            limits,
            false,
            None,
            Arithmetic::F32,
        )
    }

    fn measuring_with(
        summary: AdapterSummary,
        limits: Limits,
        timestamps: bool,
        subgroup: Option<u32>,
        arithmetic: Arithmetic,
    ) -> Gpu {
        let tuning = Tuning::untuned(subgroup, summary.device_kind());
        let inner = Inner {
            device: None,
            summary,
            limits,
            subgroup: Mutex::new(subgroup),
            tuning: Mutex::new(tuning),
            arithmetic: Mutex::new(arithmetic),
            checked: false,
            timestamps,
            submit_ms: f64::INFINITY,
            kernels: Mutex::default(),
            planned: Mutex::default(),
            step_layout: None,
            ledger: Arc::default(),
            counts: Mutex::default(),
            activity: Mutex::default(),
            pace: Mutex::default(),
            profile: None,
            faults: Arc::default(),
            turn: Mutex::default(),
            foreign: false,
        };
        Gpu { inner: Arc::new(inner) }
    }

    fn build(
        device: wgpu::Device,
        queue: wgpu::Queue,
        summary: AdapterSummary,
        options: &GpuOptions,
        arithmetic: Arithmetic,
        foreign: bool,
    ) -> Gpu {
        let l = device.limits();
        let limits = Limits {
            binding: l.max_storage_buffer_binding_size.min(options.max_binding_bytes.unwrap_or(u64::MAX)),
            buffer: l.max_buffer_size,
            alignment: l.min_storage_buffer_offset_alignment.max(l.min_uniform_buffer_offset_alignment)
                as u64,
            groups_per_dimension: l
                .max_compute_workgroups_per_dimension
                .min(options.max_groups_per_dimension.unwrap_or(u32::MAX)),
        };
        let timestamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let highest = options.tier.unwrap_or(Tier::Subgroups);
        let subgroup = subgroup_size(&device.adapter_info(), device.features());
        // Kernels for GPUs do not depend on the size of their subgroups.
        let unrolled = summary.device_kind() == DeviceKind::Processor;
        let subgroup = subgroup.filter(|_| unrolled && highest >= Tier::Subgroups);
        let step_layout = Some(super::plan::step_layout(&device));
        let tuning = Tuning::untuned(subgroup, summary.device_kind());
        let inner = Inner {
            device: Some((device, queue)),
            summary,
            limits,
            subgroup: Mutex::new(subgroup),
            tuning: Mutex::new(tuning),
            arithmetic: Mutex::new(arithmetic),
            checked: options.checked,
            timestamps,
            submit_ms: options.submit_ms,
            kernels: Mutex::default(),
            planned: Mutex::default(),
            step_layout,
            ledger: Arc::default(),
            counts: Mutex::default(),
            activity: Mutex::default(),
            pace: Mutex::default(),
            profile: (options.profile && timestamps).then(Mutex::default),
            faults: Arc::default(),
            turn: Mutex::default(),
            foreign,
        };
        Gpu { inner: Arc::new(inner) }
    }

    /// Takes over the device's error reports, which would otherwise panic.
    fn watch(&self) {
        let Some((device, _)) = &self.inner.device else { return };
        let faults = self.inner.faults.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            faults.lock().unwrap().uncaptured.get_or_insert(e.to_string());
        }));
        let faults = self.inner.faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            faults.lock().unwrap().lost.get_or_insert(format!("{reason:?} {message}"));
        });
    }

    /// Makes a call, and an [`Error`] of what wgpu has to say against it, whoever handles the device's other errors.
    pub(super) fn guarded<T>(&self, what: &str, call: impl FnOnce(&wgpu::Device) -> T) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let device = self.device();
        // On a lost device calls do nothing, without a word.
        self.check(what)?;
        // Dropped on the way out of a panic, in the reverse order of their making.
        let internal = device.push_error_scope(Internal);
        let memory = device.push_error_scope(OutOfMemory);
        let validation = device.push_error_scope(Validation);
        let result = call(device);
        let found = [validation, memory, internal].map(|scope| pollster::block_on(scope.pop()));
        let reported = self.check(what);
        match (reported, found.into_iter().flatten().next()) {
            // What wgpu says of a lost device's remains is beside the point.
            (Err(lost @ Error::DeviceLost(_)), _) => Err(lost),
            (_, Some(why)) => Err(Error::Gpu { what: what.into(), why: why.to_string() }),
            (reported, None) => reported.map(|()| result),
        }
    }

    /// Gives the device up: its memory is freed, and whatever is asked of it afterwards is [`Error::DeviceLost`].
    pub fn destroy(&self) {
        if let Some((device, _)) = &self.inner.device {
            device.destroy();
            self.inner.faults.lock().unwrap().lost.get_or_insert("it was given up".into());
        }
    }

    /// Lets wgpu's callbacks run, after waiting for the submitted work or at once.
    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        let waits = !matches!(poll, wgpu::PollType::Poll);
        let (started, poll) = (Instant::now(), || self.device().poll(poll));
        // wgpu panics where the driver loses the device during a poll.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll));
        if waits {
            self.inner.activity.lock().unwrap().waited += started.elapsed();
        }
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(Error::DeviceLost(e.to_string())),
            Err(_) => self.check("a poll").and(Err(Error::DeviceLost("during a poll".into()))),
        }
    }

    /// Whether the application's device is lost, which wgpu tells the application alone. Calls on it do nothing, without
    /// a word; only a mapping fails at once.
    fn is_dead(&self) -> bool {
        let Some((device, _)) = self.inner.device.as_ref().filter(|_| self.inner.foreign) else {
            return false;
        };
        let failed = Arc::new(AtomicBool::new(false));
        let flag = failed.clone();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let probe = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("probe"),
            size: 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // Not unmapped: a thread that polls the device may be at it. Where it goes well, nobody waits for it.
        probe
            .map_async(wgpu::MapMode::Read, .., move |mapped| flag.store(mapped.is_err(), Ordering::Relaxed));
        drop(pollster::block_on(scope.pop()));
        failed.load(Ordering::Relaxed)
    }

    /// Returns what wgpu reported since the last call, as an error.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        let dead = self.is_dead();
        let mut faults = self.inner.faults.lock().unwrap();
        if dead {
            faults.lost.get_or_insert("the application's device is gone".into());
        }
        if let Some(lost) = &faults.lost {
            return Err(Error::DeviceLost(lost.clone()));
        }
        match faults.uncaptured.take() {
            Some(why) => Err(Error::Gpu { what: what.into(), why }),
            None => Ok(()),
        }
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.inner.device.as_ref().expect("a measuring Gpu runs nothing").0
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.inner.device.as_ref().expect("a measuring Gpu runs nothing").1
    }

    /// Waits until no other thread fills or replays a plan on this device, and keeps them waiting.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        // A thread that panicked has left nothing behind that the next one would not overwrite.
        self.inner.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the same device.
    pub(crate) fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether nothing can run here (see [`Gpu::measuring`]).
    pub fn is_measuring(&self) -> bool {
        self.inner.device.is_none()
    }

    /// The adapter.
    pub fn summary(&self) -> &AdapterSummary {
        &self.inner.summary
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Times of the launches so far, where [`GpuOptions::profile`] asked for them and the adapter can tell.
    pub fn profile(&self) -> Option<Profile> {
        self.inner.profile.as_ref().map(|p| p.lock().unwrap().clone())
    }

    /// What was made so far.
    pub fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap()
    }

    /// What was run so far.
    pub fn activity(&self) -> Activity {
        *self.inner.activity.lock().unwrap()
    }

    /// On a measuring `Gpu`: the kernels of the plans made so far, each once.
    pub fn planned_kernels(&self) -> Vec<KernelKey> {
        self.inner.planned.lock().unwrap().clone()
    }

    pub(super) fn note_planned<'k>(&self, kernels: impl Iterator<Item = &'k KernelKey>) {
        let mut planned = self.inner.planned.lock().unwrap();
        for key in kernels {
            if !planned.contains(key) {
                planned.push(key.clone());
            }
        }
    }

    pub(super) fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.inner.counts.lock().unwrap());
    }

    pub(super) fn note_launches(&self, launches: u64, work: Work) {
        let mut activity = self.inner.activity.lock().unwrap();
        activity.launches += launches;
        activity.work.flops += work.flops;
        activity.work.bytes += work.bytes;
    }

    /// The tier in force.
    pub fn tier(&self) -> Tier {
        match self.arithmetic() {
            Arithmetic::F32 if self.subgroup().is_some() => Tier::Subgroups,
            Arithmetic::F32 => Tier::Portable,
            Arithmetic::Cooperative { .. } => Tier::Cooperative,
        }
    }

    /// How products with frozen f16 matrices are computed in what is recorded from now on.
    pub fn arithmetic(&self) -> Arithmetic {
        *self.inner.arithmetic.lock().unwrap()
    }

    /// Chooses another, see [`crate::ops::check_arithmetic`].
    pub fn set_arithmetic(&self, arithmetic: Arithmetic) {
        *self.inner.arithmetic.lock().unwrap() = arithmetic;
    }

    /// Invocations of a subgroup, where the tier uses subgroups.
    pub fn subgroup(&self) -> Option<u32> {
        *self.inner.subgroup.lock().unwrap()
    }

    /// The kernels' shapes in what is recorded from now on.
    pub fn tuning(&self) -> Tuning {
        *self.inner.tuning.lock().unwrap()
    }

    /// Chooses the kernels' shapes, see [`crate::ops::tune`].
    pub fn set_tuning(&self, tuning: Tuning) {
        *self.inner.tuning.lock().unwrap() = tuning;
    }

    /// Blocks until everything submitted has run.
    pub fn wait(&self) -> Result<()> {
        if !self.is_measuring() {
            self.poll(wgpu::PollType::wait_indefinitely())?;
        }
        self.check("the submitted work")
    }
}
