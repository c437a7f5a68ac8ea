//! Online alignment with a judge of your own, written in ten lines.
//!
//!     cargo run --release --example align
//!
//! The policy is a tiny model with random weights that comes with the repository; pass another folder as argument.

use std::path::{Path, PathBuf};

use oaif::data::{Columns, read_prompts};
use oaif::gpu::{Gpu, GpuOptions};
use oaif::judge::{Judge, Judgement, Pair, Verdict};
use oaif::preference::PreferenceLoss;
use oaif::train::{AlignOptions, Policy, TrainOptions, Trainer};
use oaif::{Task, Wait};

/// Prefers the response with fewer repeated words.
struct Variety;

impl Judge for Variety {
    fn name(&self) -> String {
        "variety".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
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

fn main() -> oaif::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let model = std::env::args().nth(1).map_or(root.join("tests/fixtures/tiny"), PathBuf::from);

    // The default GPU; OAIF_GPU selects another one.
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;

    let train = TrainOptions::default().learning_rate(2e-3).max_steps(10);
    let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(16);

    // Loading the model, recording the plans and allocating the memory come first; nothing is allocated during the
    // steps.
    let prompts = read_prompts(&root.join("examples/data/prompts.jsonl"), &Columns::default())?;
    let policy = Policy::load(&gpu, &model, &train).wait()?;
    let mut trainer = Trainer::online(policy, &prompts, Variety, &train, &align).wait()?;
    while let Some(report) = trainer.step().wait()? {
        let (step, steps) = (report.step, report.total_steps);
        let (loss, margin) = (report.loss.unwrap_or(f64::NAN), report.margin().unwrap_or(0.0));
        println!("step {step}/{steps}: loss {loss:.4}, margin {margin:+.4}");
    }
    let saved = std::env::temp_dir().join("oaif-example-align");
    trainer.policy().save(&saved).wait()?;
    println!("the aligned model is in {}", saved.display());
    Ok(())
}
