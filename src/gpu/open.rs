//! Opens a GPU's device with its features and limits, or creates one that only measures.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use super::arithmetic::Arithmetic;
use super::device::{Choices, Gpu, Inner};
use super::discovery::{
    FEATURES, GpuSummary, adapters, arithmetic_of, choose, instance, subgroup_size, summarise,
};
use super::faults::Faults;
use super::kernels::Compilation;
use super::ledger::Ledger;
use super::limits::Limits;
use super::llvmpipe;
use super::needs;
use super::options::{GpuOptions, Tier};
use super::outbox::Outbox;
use super::poller::Poller;
use super::step::step_layout;
use super::variants::{DeviceKind, Tuning};
use crate::error::{Error, Result};

impl Gpu {
    /// Opens a GPU with all limits that it offers.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if there is no GPU, none with the wanted name, or none that is large enough; [`Error::Config`]
    /// if it lacks what tier T2 needs; [`Error::Gpu`] if the driver refuses the device.
    pub async fn open(options: &GpuOptions) -> Result<Gpu> {
        options.check()?;
        let from_env = std::env::var("OAIF_GPU").ok().filter(|v| !v.is_empty());
        let wanted = options.gpu.clone().or(from_env);
        let (summary, adapter) = choose(adapters(&instance()).await, wanted.as_deref())?;
        // A browser may hide the name.
        let name = if summary.name.is_empty() { "the GPU" } else { &summary.name };
        needs::check_gpu(name, &adapter.limits())?;
        let arithmetic = arithmetic_of(options.tier, name, &adapter)?;
        let mut features = adapter.features() & FEATURES;
        if arithmetic == Arithmetic::F32 {
            features.remove(wgpu::Features::SHADER_F16);
        }
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if options.tier == Some(Tier::Cooperative) {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: experimental features may have bugs that lead to undefined behaviour. This one is enabled only if
            // the user selected this tier; one kernel uses it, with loads and stores within workgroup memory only.
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
            .map_err(|e| Error::Gpu { what: format!("a device on {name}"), why: e.to_string() })?;
        let faults = Faults::of_own(&device);
        Ok(Gpu::on(device, queue, summary, options, arithmetic, (faults, Outbox::default())))
    }

    /// Uses the application's own device and queue, preferably with all of [`FEATURES`] and
    /// [`required_limits`](super::required_limits) that its GPU has. The application's error handlers stay in place.
    /// Computes in f32.
    ///
    /// # Errors
    /// [`Error::Config`] for an option out of range, and for a device limit that is too small for the kernels (naming
    /// it).
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Gpu> {
        options.check()?;
        needs::check(&device.limits())?;
        let summary = summarise(0, &device.adapter_info());
        let faults = Faults::of_foreign(&device);
        Ok(Gpu::on(device, queue, summary, options, Arithmetic::F32, (faults, Outbox::paced())))
    }

    /// Returns a measuring `Gpu` with the same limits, without a device, to measure what a run would allocate.
    pub fn measuring(&self) -> Gpu {
        let mut summary = self.inner.summary.clone();
        summary.name.push_str(" (measured, not run)");
        let arithmetic = Mutex::new(self.arithmetic());
        let timestamps = self.inner.timestamps;
        let inner =
            Inner { timestamps, arithmetic, ..Inner::measuring(summary, self.limits(), self.subgroup()) };
        Gpu { inner: Arc::new(inner), choices: Choices::new(self.tuning()) }
    }

    /// Returns a measuring `Gpu` for a machine without a GPU.
    pub fn without_device(limits: Limits) -> Gpu {
        let [name, backend, kind, driver] = ["no device", "none", "none", ""].map(str::to_owned);
        let summary = GpuSummary { index: 0, name, backend, kind, driver };
        let tuning = Tuning::untuned(None, summary.device_kind());
        let inner = Arc::new(Inner::measuring(summary, limits, None));
        Gpu { inner, choices: Choices::new(tuning) }
    }

    fn on(
        device: wgpu::Device,
        queue: wgpu::Queue,
        summary: GpuSummary,
        options: &GpuOptions,
        arithmetic: Arithmetic,
        (faults, outbox): (Faults, Outbox),
    ) -> Gpu {
        let timestamps = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let highest = options.tier.unwrap_or(Tier::Subgroups);
        let subgroup = subgroup_size(&device.adapter_info(), device.features());
        // Kernels for GPUs do not depend on the subgroup size.
        let unrolled = summary.device_kind() == DeviceKind::Processor;
        let subgroup = subgroup.filter(|_| unrolled && highest >= Tier::Subgroups);
        let inner = Inner {
            arithmetic: Mutex::new(arithmetic),
            compilation: match options.checked {
                true => Compilation::Checked,
                false if llvmpipe::crashes(&summary.driver) => Compilation::Llvmpipe,
                false => Compilation::Plain,
            },
            timestamps,
            submit_ms: options.submit_ms,
            step_layout: Some(step_layout(&device)),
            profile: (options.profile && timestamps).then(Mutex::default),
            faults,
            outbox,
            ledger: Arc::new(Mutex::new(Ledger::up_to(options.memory_limit))),
            ..Inner::measuring(summary, limits(&device, options), subgroup)
        };
        let tuning = Tuning::untuned(subgroup, inner.summary.device_kind());
        let inner = Arc::new(Inner { device: Some((device, queue)), ..inner });
        Gpu { inner, choices: Choices::new(tuning) }
    }
}

/// Returns a device's limits, or the lower ones of the options.
fn limits(device: &wgpu::Device, options: &GpuOptions) -> Limits {
    let l = device.limits();
    Limits {
        binding: l.max_storage_buffer_binding_size.min(options.max_binding_bytes.unwrap_or(u64::MAX)),
        buffer: l.max_buffer_size,
        alignment: l.min_storage_buffer_offset_alignment.max(l.min_uniform_buffer_offset_alignment) as u64,
        groups_per_dimension: l
            .max_compute_workgroups_per_dimension
            .min(options.max_groups_per_dimension.unwrap_or(u32::MAX)),
    }
}

impl Inner {
    /// Creates the state of a measuring `Gpu`, which computes in f32.
    fn measuring(summary: GpuSummary, limits: Limits, subgroup: Option<u32>) -> Inner {
        Inner {
            device: None,
            summary,
            limits,
            subgroup,
            arithmetic: Mutex::default(),
            compilation: Compilation::Plain,
            timestamps: false,
            submit_ms: f64::INFINITY,
            kernels: Mutex::default(),
            planned: Mutex::default(),
            step_layout: None,
            ledger: Arc::default(),
            counts: Mutex::default(),
            activity: Mutex::default(),
            pace: Mutex::default(),
            profile: None,
            faults: Faults::default(),
            outbox: Outbox::default(),
            releasable: Mutex::default(),
            releases: AtomicUsize::default(),
            staged: AtomicUsize::default(),
            turn: Mutex::default(),
            submitted: Mutex::default(),
            poller: Poller::default(),
        }
    }
}
