//! Lists the GPUs of this machine and chooses one. What wgpu calls an adapter is called a GPU everywhere else.

use super::arithmetic::Arithmetic;
use super::options::Tier;
use super::variants::DeviceKind;
use crate::error::{Error, Result};

/// The wgpu features that are used if a device has them.
pub const FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP).union(wgpu::Features::SHADER_F16);

/// One GPU, as shown by `oaif doctor`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct GpuSummary {
    /// Position in the list; [`GpuOptions::gpu`](super::GpuOptions::gpu) accepts it.
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
    /// Whether this is a GPU or a CPU with a software driver.
    pub fn device_kind(&self) -> DeviceKind {
        if self.kind == "Cpu" { DeviceKind::Processor } else { DeviceKind::Gpu }
    }

    /// Sort key for kinds of GPU: smaller is preferred.
    pub(crate) fn preference(&self) -> usize {
        ["DiscreteGpu", "IntegratedGpu", "VirtualGpu", "Other"]
            .iter()
            .position(|kind| *kind == self.kind)
            .unwrap_or(4)
    }
}

pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    // Validation layers slow down start-up and are not installed on users' machines.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

/// Returns the subgroup size, if subgroups are supported and all have one size that the kernels are written for.
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

/// Returns every GPU with its wgpu adapter.
pub(super) async fn adapters(instance: &wgpu::Instance) -> Vec<(GpuSummary, wgpu::Adapter)> {
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    found.into_iter().enumerate().map(|(i, a)| (summarise(i, &a.get_info()), a)).collect()
}

/// Lists every GPU of this machine, in the order of [`GpuSummary::index`].
pub async fn list_gpus() -> Vec<GpuSummary> {
    adapters(&instance()).await.into_iter().map(|(summary, _)| summary).collect()
}

const NO_GPU: &str = "no GPU was found: install a Vulkan driver (on Debian or Ubuntu without a GPU: apt-get install \
                      libvulkan1 mesa-vulkan-drivers)";
/// The environment variable that restricts wgpu to some backends.
const BACKENDS: &str = "WGPU_BACKEND";

/// Returns the error that says why no GPU was found.
fn no_gpu(backends: Option<&str>) -> Error {
    Error::NoGpu(match backends {
        Some(backends) => format!(
            "no GPU was found with {BACKENDS}={backends} (environment variable): unset it, or set it to vulkan, metal \
             or dx12"
        ),
        None => NO_GPU.into(),
    })
}

/// Returns the GPU with that index or with that text in its name; if `wanted` is `None`, one of the preferred kind.
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
            // "4090" is not an index but part of a name.
            _ => found.iter().position(|(s, _)| s.name.to_lowercase().contains(&w.to_lowercase())),
        },
    };
    match position {
        Some(i) => Ok(found.swap_remove(i)),
        None => {
            let names: Vec<_> = found.iter().map(|(s, _)| format!("{} {}", s.index, s.name)).collect();
            Err(Error::NoGpu(format!(
                "no GPU has the index or name {:?}: choose one of [{}]",
                wanted.unwrap_or_default(),
                names.join(", ")
            )))
        }
    }
}

/// Returns the arithmetic of the requested tier.
///
/// # Errors
/// [`Error::Config`] if the GPU lacks what T2 needs.
pub(super) fn arithmetic_of(tier: Option<Tier>, name: &str, adapter: &wgpu::Adapter) -> Result<Arithmetic> {
    let missing = |tier: u8, what: &str| {
        let why = format!("{name} has no {what} and cannot run tier {tier}: choose another GPU, or tier 1");
        Error::config("tier", why)
    };
    match tier {
        None | Some(Tier::Portable | Tier::Subgroups) => Ok(Arithmetic::F32),
        Some(Tier::Cooperative) => {
            cooperative(adapter).ok_or_else(|| missing(2, "cooperative matrices of f16 with f32 sums"))
        }
    }
}

/// Returns the cooperative matrices of f16 with f32 sums, preferring the larger size.
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
