//! The application's own device: the runtime shares it, and its memory, with whatever else the program draws.
//!
//!     cargo run --release --example own_device

use std::path::Path;

use oaif::gpu::{Gpu, GpuOptions};
use oaif::train::Policy;
use oaif::{Wait, wgpu};

fn main() -> oaif::Result<()> {
    // What an application has anyway. It asks for the GPU's own limits: a model's tensors are large.
    let (device, queue) = oaif::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.expect("a GPU");
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("the application"),
            required_limits: oaif::gpu::required_limits(&adapter),
            // Nothing of this is needed, but the runtime is faster, and tells how long each phase took, where it is there.
            required_features: adapter.features() & oaif::gpu::FEATURES,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.expect("a device");
        // The device is the application's, and so is what happens to it.
        device.set_device_lost_callback(|reason, why| eprintln!("the GPU was lost ({reason:?}): {why}"));
        device.on_uncaptured_error(std::sync::Arc::new(|error| eprintln!("wgpu: {error}")));
        (device, queue)
    });

    // Both are handles: the application keeps its own. Submits last a few milliseconds each, so that a frame that is
    // drawn in between does not wait for long.
    let options = GpuOptions::default().submit_ms(4.0);
    let gpu = Gpu::from_device(device.clone(), queue.clone(), &options)?;
    println!("{} through {}", gpu.summary().name, gpu.summary().backend);

    // How probable are these two answers to the same prompt?
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let policy = Policy::frozen(&gpu, &dir, None, None).wait()?;
    let answers = [" ran to the river .", " ran to the the ."];
    for (answer, score) in answers.iter().zip(policy.score("the fox", &answers).wait()?) {
        println!("log p({answer:?}) = {:.3}", score.logp());
    }

    // What the runtime holds of the device's memory, by category.
    println!("{:?}", gpu.memory().bytes);
    Ok(())
}
