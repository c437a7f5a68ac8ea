//! The device limits that the kernels need: those that WebGPU guarantees. An application may have requested lower ones.

use crate::error::{Error, Result};

/// The limits to request for a device that is shared with this library ([`Gpu::from_device`](super::Gpu::from_device)):
/// all that the GPU offers, since the tensors of a model are large.
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

/// Refuses an application's device whose limits are too low for the kernels.
///
/// # Errors
/// [`Error::Config`] naming the first limit that is too small.
pub(super) fn check(has: &wgpu::Limits) -> Result<()> {
    match lacking(has) {
        None => Ok(()),
        Some(lack) => {
            let way_out = "request the device with oaif::gpu::required_limits(&adapter)";
            Err(Error::config("device", format!("{lack}: {way_out}")))
        }
    }
}

/// Refuses a GPU whose limits are too low for the kernels.
///
/// # Errors
/// [`Error::NoGpu`] naming the first limit that is too small.
pub(super) fn check_gpu(name: &str, has: &wgpu::Limits) -> Result<()> {
    match lacking(has) {
        None => Ok(()),
        Some(lack) => Err(Error::NoGpu(format!("{name} {lack}: use another GPU"))),
    }
}

/// Returns the first limit that is too small.
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
    // There are two bind groups; one has a dynamic offset.
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
    fn webgpu_default_limits_are_enough_and_lower_ones_are_refused_by_name() {
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
