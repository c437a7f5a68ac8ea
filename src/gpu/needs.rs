//! What the kernels need of a device: the limits that WebGPU promises everywhere. An application may have asked for less.

use crate::error::{Error, Result};

/// The limits to ask a GPU for where the device is to be shared with this library
/// ([`Gpu::from_device`](super::Gpu::from_device)): all that it offers, as a model's tensors are large.
///
/// ```no_run
/// # async fn device(adapter: &oaif::wgpu::Adapter) {
/// let descriptor = oaif::wgpu::DeviceDescriptor {
///     required_limits: oaif::gpu::required_limits(adapter),
///     required_features: adapter.features() & oaif::gpu::FEATURES,
///     ..Default::default()
/// };
/// let (device, queue) = adapter.request_device(&descriptor).await.expect("a device");
/// # }
/// ```
pub fn required_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    adapter.limits()
}

/// Refuses an application's device on which kernels could not be made.
///
/// # Errors
/// [`Error::Config`] naming the first limit that is too small.
pub(super) fn check(has: &wgpu::Limits) -> Result<()> {
    match lacking(has) {
        None => Ok(()),
        Some(lack) => {
            let way_out = "ask for oaif::gpu::required_limits(&adapter) when it is requested";
            Err(Error::config("device", format!("{lack}: {way_out}")))
        }
    }
}

/// Refuses a GPU on which kernels could not be made.
///
/// # Errors
/// [`Error::NoGpu`] naming the first limit that is too small.
pub(super) fn check_gpu(name: &str, has: &wgpu::Limits) -> Result<()> {
    match lacking(has) {
        None => Ok(()),
        Some(lack) => Err(Error::NoGpu(format!("{name} {lack}: use another GPU"))),
    }
}

/// The first limit that is too small.
fn lacking(has: &wgpu::Limits) -> Option<String> {
    let needs = wgpu::Limits::default();
    macro_rules! at_least {
        ($($limit:ident),* $(,)?) => {
            [$((stringify!($limit), u64::from(has.$limit), u64::from(needs.$limit))),*]
        };
    }
    let counts = at_least![
        max_storage_buffers_per_shader_stage,
        max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x,
    ];
    // Two groups of bindings, one of which moves.
    let few = [
        ("max_bind_groups", u64::from(has.max_bind_groups), 2),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            u64::from(has.max_dynamic_uniform_buffers_per_pipeline_layout),
            1,
        ),
    ];
    let (limit, has, needs) = counts.into_iter().chain(few).find(|(_, has, needs)| has < needs)?;
    Some(format!("has {limit} = {has}, and the kernels need {needs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_webgpu_promises_is_enough_and_less_is_refused_by_name() {
        check(&wgpu::Limits::default()).unwrap();
        let less = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::default() };
        let error = check(&less).unwrap_err().to_string();
        assert!(
            error.contains("max_storage_buffers_per_shader_stage = 4") && error.contains("need 8"),
            "{error}"
        );
        let error = check_gpu("a small GPU", &less).unwrap_err().to_string();
        let lack = "has max_storage_buffers_per_shader_stage = 4, and the kernels need 8";
        assert_eq!(error, format!("a small GPU {lack}: use another GPU"));
        assert!(check(&wgpu::Limits::downlevel_webgl2_defaults()).is_err());
    }
}
