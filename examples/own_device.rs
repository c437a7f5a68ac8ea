//! The application's own device: the runtime shares it, and its memory, with whatever else the program draws.
//!
//!     cargo run --release --example own_device

use std::path::Path;

use oaif::unstable::data::encoder::Encoder;
use oaif::unstable::data::rows::Text;
use oaif::unstable::data::tokenizer::Tokenizer;
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};
use oaif::{Wait, wgpu};

fn main() -> oaif::Result<()> {
    // What an application has anyway. It asks for the GPU's own limits: a model's tensors are large.
    let (device, queue) = oaif::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.expect("a GPU");
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("the application"),
            required_limits: oaif::unstable::gpu::required_limits(&adapter),
            // Nothing of this is needed, but the runtime is faster, and tells how long each phase took, where it is there.
            required_features: adapter.features() & oaif::unstable::gpu::FEATURES,
            ..Default::default()
        };
        adapter.request_device(&descriptor).await.expect("a device")
    });

    // Both are handles: the application keeps its own. Submits last a few milliseconds each, so that a frame that is
    // drawn in between does not wait for long.
    let options = GpuOptions::default().submit_ms(4.0);
    let gpu = Gpu::from_device(device.clone(), queue.clone(), &options)?;
    println!("{} through {}", gpu.summary().name, gpu.summary().backend);

    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let model = Model::load(&gpu, &dir, false).wait()?;
    let tokenizer = Tokenizer::load(&dir)?;

    // How probable are these two answers to the same prompt?
    let answers = [" ran to the river .", " ran to the the ."].map(|answer| Text::Plain(answer.to_owned()));
    let encoder = Encoder { tokenizer: &tokenizer, template: None };
    let tree = [encoder.encode(&Text::Plain("the fox".to_owned()), &answers.each_ref(), false)?.tree];
    let scorer = Scorer::new(&gpu, &model, Capacity::of(&tree), &Arena::new()).wait()?;
    for (answer, score) in answers.iter().zip(scorer.score(&tree).wait()?) {
        println!("log p({answer:?}) = {:.3}", score.logp());
    }

    // What the runtime holds of the device's memory, by category.
    println!("{:?}", gpu.memory().bytes);
    Ok(())
}
