//! An application with its own device: the library shares the device and its memory with the application's rendering.
//!
//!     cargo run --release --example own_device

use std::path::Path;

use oaif::gpu::{Gpu, GpuOptions};
use oaif::train::Policy;
use oaif::{Wait, wgpu};

fn main() -> oaif::Result<()> {
    // The device of the application. It requests the GPU's own limits, because a model's tensors are large.
    let (device, queue) = oaif::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.expect("a GPU");
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("the application"),
            required_limits: oaif::gpu::required_limits(&adapter),
            // These features are optional: with them the library is faster and can report the time of each phase.
            required_features: adapter.features() & oaif::gpu::FEATURES,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.expect("a device");
        // Errors of the device are reported to the application.
        device.set_device_lost_callback(|reason, why| eprintln!("the GPU was lost ({reason:?}): {why}"));
        device.on_uncaptured_error(std::sync::Arc::new(|error| eprintln!("wgpu: {error}")));
        (device, queue)
    });

    // Both are handles; the application keeps its own. Submits take a few milliseconds each, so that a frame drawn in
    // between does not wait for long.
    let options = GpuOptions::default().submit_ms(4.0);
    let gpu = Gpu::from_device(device.clone(), queue.clone(), &options)?;
    println!("{} through {}", gpu.summary().name, gpu.summary().backend);

    // How probable are these two responses to the same prompt?
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let policy = Policy::frozen(&gpu, &dir, None, None).wait()?;
    let answers = [" ran to the river .", " ran to the the ."];
    for (answer, score) in answers.iter().zip(policy.score("the fox", &answers).wait()?) {
        println!("log p({answer:?}) = {:.3}", score.logp());
    }

    // GPU memory used by the library, by category.
    println!("{:?}", gpu.memory().bytes);
    Ok(())
}
