//! The GPUs of this machine: listed, and one of them chosen. What wgpu calls an adapter is called a GPU everywhere else.

use super::arithmetic::Arithmetic;
use super::options::Tier;
use super::variants::DeviceKind;
use crate::error::{Error, Result};

/// What the runtime makes use of where a device has it.
pub const FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP).union(wgpu::Features::SHADER_F16);

/// One GPU, as `oaif doctor` shows it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct GpuSummary {
    /// Position in the list, by which [`GpuOptions::gpu`](super::GpuOptions::gpu) may choose it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Vulkan, Metal, Dx12, …
    pub backend: String,
    /// DiscreteGpu, IntegratedGpu, Cpu, …
    pub kind: String,
    /// The driver and its version.
    pub driver: String,
}

impl GpuSummary {
    /// Whether it is a GPU, or a processor by a software driver.
    pub fn device_kind(&self) -> DeviceKind {
        if self.kind == "Cpu" { DeviceKind::Processor } else { DeviceKind::Gpu }
    }

    /// Smaller is better: the order in which kinds of GPU are preferred.
    pub(crate) fn preference(&self) -> usize {
        ["DiscreteGpu", "IntegratedGpu", "VirtualGpu", "Other"]
            .iter()
            .position(|kind| *kind == self.kind)
            .unwrap_or(4)
    }
}

pub(super) fn instance() -> wgpu::Instance {
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

/// A device's summary.
pub(super) fn summarise(index: usize, info: &wgpu::AdapterInfo) -> GpuSummary {
    GpuSummary {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        kind: format!("{:?}", info.device_type),
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_owned(),
    }
}

/// Every GPU with wgpu's adapter for it.
pub(super) async fn adapters(instance: &wgpu::Instance) -> Vec<(GpuSummary, wgpu::Adapter)> {
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    found.into_iter().enumerate().map(|(i, a)| (summarise(i, &a.get_info()), a)).collect()
}

/// Every GPU of this machine, in the order of their [`GpuSummary::index`].
pub async fn list_gpus() -> Vec<GpuSummary> {
    adapters(&instance()).await.into_iter().map(|(summary, _)| summary).collect()
}

const NO_GPU: &str = "no GPU was found: install a Vulkan driver (on Debian or Ubuntu without a GPU: apt-get install \
                      libvulkan1 mesa-vulkan-drivers)";
/// With which wgpu is told to look at some backends alone.
const BACKENDS: &str = "WGPU_BACKEND";

/// Why no GPU was found.
fn no_gpu(backends: Option<&str>) -> Error {
    Error::NoGpu(match backends {
        Some(backends) => format!(
            "no GPU was found by {BACKENDS}={backends}, which is set in the environment: unset it, or set it to vulkan, metal \
             or dx12"
        ),
        None => NO_GPU.into(),
    })
}

/// The GPU of that index or with that in its name; without one of the fastest kind.
pub(super) fn choose(
    mut found: Vec<(GpuSummary, wgpu::Adapter)>,
    wanted: Option<&str>,
) -> Result<(GpuSummary, wgpu::Adapter)> {
    if found.is_empty() {
        return Err(no_gpu(std::env::var(BACKENDS).ok().filter(|set| !set.is_empty()).as_deref()));
    }
    let position = match wanted {
        None => found.iter().enumerate().min_by_key(|(i, (s, _))| (s.preference(), *i)).map(|(i, _)| i),
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
            Err(Error::NoGpu(format!(
                "no GPU is called {:?}: choose by index or name from [{}]",
                wanted.unwrap_or_default(),
                names.join(", ")
            )))
        }
    }
}

/// The arithmetic of a tier that was asked for.
///
/// # Errors
/// [`Error::Config`] where the GPU does not have what T2 needs.
pub(super) fn arithmetic_of(tier: Option<Tier>, name: &str, adapter: &wgpu::Adapter) -> Result<Arithmetic> {
    let missing = |tier: u8, what: &str| {
        let why = format!("{name} cannot run tier {tier}, it has no {what}: choose another GPU, or tier 1");
        Error::config("tier", why)
    };
    match tier {
        None | Some(Tier::Portable | Tier::Subgroups) => Ok(Arithmetic::F32),
        Some(Tier::Cooperative) => {
            cooperative(adapter).ok_or_else(|| missing(2, "cooperative matrices of f16 with f32 sums"))
        }
    }
}

/// The cooperative matrices of f16 with f32 sums, the larger ones first.
fn cooperative(adapter: &wgpu::Adapter) -> Option<Arithmetic> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let features = adapter.features();
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    if !features.contains(needed) {
        return None;
    }
    let lanes = subgroup_size(&adapter.get_info(), features)?;
    let has = |size: u32| {
        adapter.cooperative_matrix_properties().iter().any(|p| {
            (p.m_size, p.n_size, p.k_size) == (size, size, size) && (p.ab_type, p.cr_type) == (F16, F32)
        })
    };
    [16, 8].into_iter().find(|size| has(*size)).map(|size| Arithmetic::Cooperative { size, lanes })
}
