//! Times steps of the whole loop: sampling, judging, scoring under the reference model, learning, update.

use serde_json::Value;

use super::subject::temporary;
use super::{Bench, Facts, Measurement, Moment, Phase, Sample, Subject, median};
use crate::Wait;
use crate::data::rows::{Prompt, Text};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::judge::queue::JudgeQueue;
use crate::preference::PreferenceLoss;
use crate::train::{
    AlignOptions, AlignRun, Control, Observer, Policy, Requests, Sources, StepReport, TrainOptions,
};

/// Prompts per step; each gets two responses of up to 64 tokens.
const PROMPTS: usize = 16;

/// The phases of a step in `metrics.jsonl`; the rest of the step is learning: forward, loss and backward pass.
const PHASES: [(&str, &str); 4] = [
    ("sampling", "time/sampling_ms"),
    ("judging", "time/judging_ms"),
    ("reference", "time/reference_ms"),
    ("update", "time/update_ms"),
];

/// Takes a sample at each step's end.
struct Watch {
    gpu: Gpu,
    last: Moment,
    samples: Vec<Sample>,
}

impl Observer for Watch {
    fn step(&mut self, _: &StepReport) {
        self.samples.push(self.last.since(&self.gpu, 1.0));
        self.last = Moment::now(&self.gpu);
    }
}

impl Bench {
    /// Times steps of 16 prompts, training with DPO and AdamW, after one step that is not counted. The run is written
    /// to a temporary folder.
    pub fn align(&self, subject: &Subject, judge: Box<dyn JudgeQueue>) -> Result<Measurement> {
        let (folder, output) = (subject.folder()?, temporary()?);
        let run_dir = output.path().join("run");
        let mut train = TrainOptions::default().output_dir(run_dir.clone());
        train.batch_size = PROMPTS;
        train.max_steps = Some(self.runs + 1);
        // Enough to change every weight, which the run checks.
        train.learning_rate = 1e-5;
        train.lora = subject.held.lora();
        let mut options = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
        options.max_invalid_ratio = 1.0;
        let new = options.max_new_tokens;
        let prompt = |i: usize| Prompt {
            prompt: Text::Plain(format!("Once upon a time there was number {i}")),
            reference: None,
            place: (i + 1).into(),
        };
        let prompts: Vec<Prompt> = (0..PROMPTS).map(prompt).collect();
        let policy = Policy::with_model(subject.model.clone(), &folder.path)?;
        let run = AlignRun::new(policy, &prompts, &train, &options).wait()?;
        let name = judge.name();
        let mut watch = Watch { gpu: self.gpu.clone(), last: Moment::now(&self.gpu), samples: Vec::new() };
        let sources = Sources { model: folder.path.clone(), config: Value::Null };
        run.run(judge, sources, Control { observer: &mut watch, requests: &Requests::new() }).wait()?;

        let case = format!("{PROMPTS} prompts x 2 x {new} tokens, {name}");
        let facts = Facts::on(subject, "align", case);
        let mut measured = Measurement::of(&facts, &watch.samples[1..], &self.ceilings);
        measured.phases = phases(&metrics(&run_dir)?[1..]);
        Ok(measured)
    }
}

fn metrics(run_dir: &std::path::Path) -> Result<Vec<Value>> {
    let path = run_dir.join("metrics.jsonl");
    let bytes = files::read(&path)?;
    let rows = serde_json::Deserializer::from_slice(&bytes).into_iter();
    rows.collect::<Result<_, _>>().map_err(|e| Error::file(&path, e.to_string()))
}

fn phases(rows: &[Value]) -> Vec<Phase> {
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    let whole = |row: &Value| number(row, "time/step_ms");
    let rest = |row: &Value| whole(row) - PHASES.iter().map(|(_, key)| number(row, key)).sum::<f64>();
    let phase = |phase, of: &dyn Fn(&Value) -> f64| Phase {
        phase,
        ms: median(rows.iter().map(of)),
        percent: median(rows.iter().map(|row| 100.0 * of(row) / whole(row))),
    };
    let mut out: Vec<Phase> =
        PHASES.into_iter().map(|(name, key)| phase(name, &|row| number(row, key))).collect();
    out.insert(3, phase("learning", &rest));
    out
}
