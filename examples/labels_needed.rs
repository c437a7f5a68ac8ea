//! How many human labels does a policy need? A simulated person, who prefers what the oracle of the small world prefers
//! but errs in one pair of ten, labels a policy's own summaries. After each number of labels the policy is compared
//! with the starting model on held-out posts.
//!
//!     cargo run --release --example labels_needed
//!
//! prints one line per instruction, first for pairs in random order and then for those on which the policy is least
//! sure (`--active 4`). Flags: `--seeds N`, `--posts N`.

use oaif::Result;
use oaif::Wait;
use oaif::unstable::demo::dataset::prompts;
use oaif::unstable::demo::draw::Draw;
use oaif::unstable::demo::exam::{Exam, MAX_NEW_TOKENS, Tally};
use oaif::unstable::demo::models::Models;
use oaif::unstable::demo::oracle::Instruction;
use oaif::unstable::demo::person::Person;
use oaif::unstable::gpu::{Gpu, GpuOptions};
use oaif::unstable::judge::queue::InPlace;
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::schedule::ScheduleKind;
use oaif::unstable::train::{AlignOptions, AlignRun, Control, Policy, Requests, TrainOptions};

/// Numbers of labels after which the policy is measured.
const LABELS: [usize; 4] = [50, 100, 200, 300];
/// Pairs per step.
const BATCH: usize = 4;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str, default: usize| {
        let at = arguments.iter().position(|a| a == flag);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (seeds, posts) = (value("--seeds", 3) as u32, value("--posts", 300));
    let (gpu, models) = (Gpu::open(&GpuOptions::default()).wait()?, Models::unpack()?);
    let exam = Exam::new(posts);
    let start = exam.summaries(&Policy::frozen(&gpu, &models.policy(), None, None).wait()?, 1).wait()?;
    println!(
        "win rate against the starting model without ties, mean of {seeds} seeds, after {LABELS:?} labels"
    );
    for taste in Instruction::ALL {
        for active in [1, 4] {
            let mut wins = [0.0; LABELS.len()];
            for seed in 1..=seeds {
                let of_seed = learn(&gpu, &models, &exam, &start, taste, active, seed)?;
                wins.iter_mut().zip(of_seed).for_each(|(sum, wins)| *sum += wins / f64::from(seeds));
            }
            let percent = wins.map(|wins| format!("{:5.1} %", 100.0 * wins)).join("  ");
            println!("{:22} --active {active}: {percent}", taste.text());
        }
    }
    Ok(())
}

/// The policy's win rates against the starting model after each number of labels.
fn learn(
    gpu: &Gpu,
    models: &Models,
    exam: &Exam,
    start: &[String],
    taste: Instruction,
    active: usize,
    seed: u32,
) -> Result<[f64; LABELS.len()]> {
    let folder = tempfile::tempdir().map_err(oaif::Error::io("create", "a temporary folder"))?;
    let train = TrainOptions::default()
        .output_dir(folder.path())
        .learning_rate(3e-4)
        .batch_size(BATCH)
        // A step may judge fewer pairs than it has prompts, because identical responses are not judged.
        .max_steps(LABELS[LABELS.len() - 1])
        .schedule(ScheduleKind::Constant)
        .seed(seed);
    let loss = PreferenceLoss::Dpo { beta: 0.1 };
    let align = AlignOptions::new(loss).max_new_tokens(MAX_NEW_TOKENS).active(active);
    let policy = Policy::load(gpu, &models.policy(), &train).wait()?;
    let person = InPlace::new(Person { taste, draw: Draw::new(seed, 77) });
    let mut trainer = AlignRun::new(policy, &prompts(10_000), &train, &align).wait()?.trainer(person)?;
    let requests = Requests::new();
    let (mut given, mut wins) = (0, [0.0; LABELS.len()]);
    for (labels, wins) in LABELS.iter().zip(&mut wins) {
        while given < *labels {
            let Some(step) =
                trainer.step_with(&mut Control { observer: &mut (), requests: &requests }).wait()?
            else {
                break;
            };
            given += step.judging.map_or(0, |judging| judging.judged);
        }
        let now = exam.summaries(trainer.policy(), 1).wait()?;
        *wins = Tally::of(&exam.by_oracle(taste, start, &now)).win_rate().value;
    }
    Ok(wins)
}
