//! Online alignment with an annotator of your own, written in ten lines.
//!
//!     cargo run --release --example align
//!
//! The policy is a tiny model of random weights that comes with the repository; give another folder as argument.

use std::path::{Path, PathBuf};

use oaif::Task;
use oaif::Wait;
use oaif::unstable::annotate::queue::InPlace;
use oaif::unstable::annotate::{Annotator, Judgement, Pair, Verdict};
use oaif::unstable::data::rows::{Columns, read_prompts};
use oaif::unstable::gpu::{Gpu, GpuOptions};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::{
    AlignOptions, AlignRun, Control, Observer, Policy, Requests, Sources, StepReport, TrainOptions,
};

/// Prefers the response with fewer repeated words. A verdict is a type, not a number: a tie stays a tie.
struct Variety;

impl Annotator for Variety {
    fn name(&self) -> String {
        "variety".into()
    }

    fn annotate<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move {
            let repeats = |text: &str| {
                let mut words: Vec<&str> = text.split_whitespace().collect();
                let all = words.len();
                words.sort();
                words.dedup();
                all - words.len()
            };
            let p = |pair: &Pair<'_>| match repeats(pair.response_1).cmp(&repeats(pair.response_2)) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 0.0,
            };
            Ok(pairs.iter().map(|pair| Verdict::from_probability(p(pair)).into()).collect())
        })
    }
}

/// The library prints nothing: it tells an observer.
struct Print;

impl Observer for Print {
    fn step(&mut self, e: &StepReport) {
        println!(
            "step {}/{}: loss {:.4}, margin {:+.4}",
            e.step,
            e.total_steps,
            e.loss.unwrap_or(f64::NAN),
            e.margin().unwrap_or(0.0)
        );
    }
}

fn main() -> oaif::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = std::env::args().nth(1).map_or(root.join("tests/fixtures/tiny"), PathBuf::from);

    // The GPU that a program would take by default; OAIF_GPU chooses another one.
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;

    let train = TrainOptions::default()
        .output_dir(std::env::temp_dir().join("oaif-example-align"))
        .learning_rate(2e-3)
        .max_steps(10)
        .overwrite(true);
    let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(16);

    // Loading, recording the plans and taking the memory come first: from here on nothing is allocated.
    let prompts = read_prompts(&root.join("examples/data/prompts.jsonl"), &Columns::default())?;
    let policy = Policy::load(&gpu, &model, &train).wait()?;
    let run = AlignRun::new(policy, &prompts, &train, &align).wait()?;

    // Another thread may ask the run to pause, to save, or to end after its current step with a checkpoint.
    let requests = Requests::new();
    let control = Control { observer: &mut Print, requests: &requests };
    let sources = Sources { model, config: serde_json::json!({"program": "examples/align.rs"}) };
    let saved = run.run(InPlace::new(Variety), sources, control).wait()?;
    println!("the aligned model is in {}", saved.display());
    Ok(())
}
