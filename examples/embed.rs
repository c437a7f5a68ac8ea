//! An application that embeds the library: its own device and thread, its own judge, a model that learns in the
//! background while the window draws, a step that is cancelled and taken again, and streamed responses.
//!
//!     cargo run --release --example embed

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use oaif::data::{Columns, StopMatcher, read_prompts};
use oaif::files::MemoryFolder;
use oaif::generate::SamplingParams;
use oaif::gpu::{Gpu, GpuOptions};
use oaif::judge::{Judge, Judgement, Pair, Verdict};
use oaif::model::LoraConfig;
use oaif::preference::PreferenceLoss;
use oaif::train::{AlignOptions, Policy, StepReport, TrainOptions, Trainer};
use oaif::{Error, Result, Task, Wait, wgpu};

/// Prefers exclamation marks.
struct Cheer;

impl Judge for Cheer {
    fn name(&self) -> String {
        "cheer".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        let cheers = |text: &str| text.matches('!').count() as f32;
        let judge = move |pair: &Pair| {
            let (first, second) = (cheers(pair.response_1), cheers(pair.response_2));
            Verdict::from_probability(0.5 + 0.5 * (first - second).clamp(-1.0, 1.0)).into()
        };
        Box::pin(async move { Ok(pairs.iter().map(judge).collect()) })
    }
}

/// Streams the policy's continuation of a text.
async fn say(policy: &Policy, text: &str) -> Result<String> {
    let warm = SamplingParams::default().temperature(0.8);
    let generator = policy.generator(policy.generate_options().sampling(warm).max_new_tokens(40)).await?;
    let (requests, stop) = ([policy.request(text)?], StopMatcher::default());
    let mut stream = generator.stream(&policy.tokenizer, &requests, &stop, 1).await?;
    let mut answer = String::new();
    while let Some(part) = stream.next().await? {
        answer += &part.text;
    }
    Ok(answer)
}

/// Loads a model and prepares its training. It runs on any executor; here a thread blocks on it.
async fn begin(gpu: &Gpu, dir: &Path, prompts: &Path) -> Result<Trainer<'static>> {
    let train =
        TrainOptions::default().learning_rate(1e-3).batch_size(8).max_steps(12).lora(LoraConfig::new(8));
    let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(24);
    let policy = Policy::load(gpu, dir, &train).await?;
    let prompts = read_prompts(prompts, &Columns::default())?;
    Trainer::online(policy, &prompts, Cheer, &train, &align).await
}

/// Takes all steps; a cancelled step is taken again.
fn train(trainer: &mut Trainer, reports: &mpsc::Sender<StepReport>) -> Result<()> {
    loop {
        match trainer.step().wait() {
            Ok(Some(report)) => drop(reports.send(report)),
            Ok(None) => return Ok(()),
            Err(Error::Interrupted) => println!("the step was cancelled and is taken again"),
            Err(error) => return Err(error),
        }
    }
}

fn main() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, prompts) = (here.join("models/policy"), here.join("examples/data/prompts.jsonl"));
    // The device of the application.
    let (device, queue) = oaif::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = instance.request_adapter(&Default::default()).await.expect("a GPU");
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: oaif::gpu::required_limits(&adapter),
            required_features: adapter.features() & oaif::gpu::FEATURES,
            ..Default::default()
        };
        adapter.request_device(&descriptor).await.expect("a device")
    });
    let gpu = Gpu::from_device(device.clone(), queue.clone(), &GpuOptions::default().submit_ms(4.0))?;

    let mut trainer = begin(&gpu, &dir, &prompts).wait()?;
    println!("before: {}", say(trainer.policy(), "Once upon a time").wait()?);
    let (requests, (send, reports)) = (trainer.requests(), mpsc::channel());
    let learner = std::thread::spawn(move || train(&mut trainer, &send).map(|()| trainer));

    // The application's main loop: its frames wait for at most one submit of the training.
    let mut longest = Duration::ZERO;
    while !learner.is_finished() {
        let began = Instant::now();
        let index = queue.submit([device.create_command_encoder(&Default::default()).finish()]);
        let _ = device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None });
        longest = longest.max(began.elapsed());
        while let Ok(report) = reports.recv_timeout(Duration::from_millis(16)) {
            println!("{}/{} loss {:.4?}", report.step, report.total_steps, report.loss.unwrap_or_default());
            if report.step == 6 {
                requests.ask_to_cancel();
            }
        }
    }
    let trainer = learner.join().expect("the thread does not panic")?;
    println!("after: {}", say(trainer.policy(), "Once upon a time").wait()?);
    println!("longest frame {longest:.0?}, {} MB", gpu.memory().total >> 20);

    // Saves the adapter in PEFT's format, here into a folder in memory.
    let adapter = MemoryFolder::default();
    trainer.policy().save(adapter.path()).wait()?;
    for (name, content) in adapter.files() {
        println!("{}: {} bytes", name.display(), content.len());
    }
    Ok(())
}
