//! Measures how long submits occupy the GPU during training: no longer than requested, once the library has measured
//! the speed of the GPU.
//!
//!     cargo run --release --example submit_times -- [SHAPE] [SUBMIT_MS]
//!
//! SHAPE is one of `oaif bench --shape`, a model with random weights.

use oaif::unstable::bench::Shape;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions, SubmitTimes};
use oaif::unstable::model::Model;
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::train::sft_step::SftStep;
use oaif::{Wait, wgpu};

const STEPS: usize = 6;

fn main() -> oaif::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let shape = Shape::parse(arguments.next().as_deref().unwrap_or("c192"))?;
    let submit_ms = arguments.next().map_or(4.0, |text| text.parse().expect("SUBMIT_MS is a number"));
    let options = GpuOptions::default().submit_ms(submit_ms);
    println!("requested: {submit_ms} ms per submit");
    train("a device of its own", &Gpu::open(&options).wait()?, &shape)?;
    let (device, queue) = application();
    train("the application's device", &Gpu::from_device(device, queue, &options)?, &shape)
}

/// The device of an application.
fn application() -> (wgpu::Device, wgpu::Queue) {
    oaif::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.expect("a GPU");
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("the application"),
            required_limits: oaif::unstable::gpu::required_limits(&adapter),
            required_features: adapter.features() & oaif::unstable::gpu::FEATURES,
            ..Default::default()
        };
        adapter.request_device(&descriptor).await.expect("a device")
    })
}

/// Forward and backward passes over random tokens.
fn train(what: &str, gpu: &Gpu, shape: &Shape) -> oaif::Result<()> {
    println!("{what}: {}, {}", gpu.summary().name, shape.name);
    let model = Model::random(gpu, shape.config()?, true, 1).wait()?;
    let vocab = model.architecture().vocab as u32;
    let tokens = |n: usize| (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
    let tree =
        Tree { prompt: tokens(shape.batch.length / 2), responses: vec![tokens(shape.batch.length / 2)] };
    let trees = vec![tree; shape.batch.sequences];
    let step = SftStep::new(gpu, &model, Capacity::of(&trees), false, &Arena::new()).wait()?;
    let mut before = SubmitTimes::default();
    for i in 1..=STEPS {
        let started = std::time::Instant::now();
        step.run(&trees, 1e-3).wait()?;
        let seconds = started.elapsed().as_secs_f64();
        let all = gpu.activity().submit_times;
        let times = all.since(&before);
        before = all;
        println!(
            "  step {i}: {seconds:.3} s, {} submits, ms: median {:.1}, 90 % {:.1}, 99 % {:.1}, longest {:.1}",
            times.count(),
            times.quantile(0.5),
            times.quantile(0.9),
            times.quantile(0.99),
            times.quantile(1.0),
        );
    }
    println!("  maximum number of submits in flight: {}", gpu.activity().most_in_flight);
    Ok(())
}
