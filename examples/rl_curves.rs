//! rl_curves SEED OUT [STEPS] [LR] [BATCH]: RLOO on stories260K, reward = count of "and".

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use oaif::annotate::queue::InPlace;
use oaif::annotate::{Annotator, Judgement, Pair, Rated, Score, Verdict};
use oaif::data::rows::{Columns, read_prompts};
use oaif::generate::SamplingParams;
use oaif::gpu::{Gpu, GpuOptions};
use oaif::train::{
    AlignOptions, AlignRun, Control, Observer, OnlineLoss, Policy, PolicyLoss, Requests, Sources, StepReport,
    TrainOptions,
};

fn count(text: &str) -> f32 {
    text.matches("and").count() as f32
}

struct Ands;

impl Annotator for Ands {
    fn name(&self) -> String {
        "ands".into()
    }

    fn annotate(&mut self, pairs: &[Pair<'_>]) -> oaif::Result<Vec<Judgement>> {
        let p = |pair: &Pair<'_>| match count(pair.response_1).total_cmp(&count(pair.response_2)) {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0,
        };
        Ok(pairs.iter().map(|pair| Verdict::from_probability(p(pair)).into()).collect())
    }

    fn rates(&self) -> bool {
        true
    }

    fn rate(&mut self, responses: &[Rated<'_>]) -> oaif::Result<Vec<Score>> {
        Ok(responses.iter().map(|rated| Score::Value(count(rated.response))).collect())
    }
}

struct Log(File, File);

impl Observer for Log {
    fn step(&mut self, e: &StepReport) {
        let mut row = serde_json::to_value(e).unwrap();
        row["ratings"] = e.ratings.len().into();
        writeln!(self.0, "{row}").unwrap();
        for rating in &e.ratings {
            writeln!(self.1, "{}", serde_json::to_string(rating).unwrap()).unwrap();
        }
    }

    fn warning(&mut self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn main() -> oaif::Result<()> {
    let a: Vec<String> = std::env::args().skip(1).collect();
    let (seed, out) = (a[0].parse::<u32>().unwrap(), a[1].clone());
    let steps: usize = a.get(2).map_or(60, |x| x.parse().unwrap());
    let learning_rate: f64 = a.get(3).map_or(1e-4, |x| x.parse().unwrap());
    let batch_size: usize = a.get(4).map_or(8, |x| x.parse().unwrap());
    let model = PathBuf::from("/work/shared/models/stories260K");
    let gpu = Gpu::open(&GpuOptions::default())?;
    let train = TrainOptions {
        learning_rate,
        batch_size,
        max_steps: Some(steps),
        overwrite: true,
        seed,
        ..TrainOptions::new(std::env::temp_dir().join(format!("oaif-rl-{seed}-{}", std::process::id())))
    };
    let align = AlignOptions {
        max_new_tokens: 32,
        num_samples: 4,
        sampling: SamplingParams::default(),
        ..AlignOptions::new(OnlineLoss::Policy(PolicyLoss::rloo()))
    };
    eprintln!("{train:?}\n{align:?}");
    let prompts =
        read_prompts(Path::new("/work/shared/data/tinystories_prompts.jsonl"), &Columns::default())?;
    let policy = Policy::load(&gpu, &model, &train)?;
    let run = AlignRun::new(policy, &prompts, &train, &align)?;
    let mut log = Log(File::create(&out).unwrap(), File::create(format!("{out}.samples")).unwrap());
    let requests = Requests::new();
    let control = Control { observer: &mut log, requests: &requests };
    let sources = Sources { model, config: serde_json::json!({}) };
    let saved = run.run(InPlace::new(Ands), sources, control)?;
    eprintln!("{}", saved.display());
    std::fs::remove_dir_all(&train.output_dir).ok();
    Ok(())
}
