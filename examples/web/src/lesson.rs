//! A policy that learns.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oaif::Error;
use oaif::judge::{Judge, Desk, GivenLabel, Human, JudgeModel, LikelihoodJudge, Normalise, Pick};
use oaif::files::MemoryFolder;
use oaif::generate::SamplingParams;
use oaif::gpu::{Arena, Gpu, GpuOptions, Tier};
use oaif::model::LoraConfig;
use oaif::preference::PreferenceLoss;
use oaif::train::{AlignOptions, Policy, TrainOptions, Trainer};
use oaif::unstable::demo::dataset::{LIKELIHOOD_TEMPLATE, prompts};
use oaif::unstable::demo::exam::{Exam, MAX_NEW_TOKENS, TEMPERATURE, Tally};
use oaif::unstable::demo::oracle::Instruction;
use oaif::unstable::files::{read_json, write_atomic};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::told;

/// Of a checkpoint: the policy's summaries before it learnt, as JSON.
const BEFORE: &str = "before.json";
/// Of a checkpoint: what PEFT reads beside the weights.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// What the page chooses.
#[derive(Deserialize)]
struct Choice {
    /// Index of the instruction.
    instruction: usize,
    /// Whether the visitor judges.
    by_clicks: bool,
    steps: usize,
    /// Prompts of a step.
    batch: usize,
    /// Held-out posts.
    posts: usize,
    seed: u32,
}

/// A policy in training, and what it is measured on.
#[wasm_bindgen]
pub struct Lesson {
    gpu: Gpu,
    /// Holds the folder that the policy is of, which a checkpoint takes its other files from.
    _files: MemoryFolder,
    trainer: Trainer<'static>,
    exam: Exam,
    /// The policy's summaries of the held-out posts before it learnt.
    before: Vec<String>,
    instruction: Instruction,
    desk: Arc<Desk>,
}

#[wasm_bindgen]
impl Lesson {
    /// Opens the GPU and readies a training. `names` and `contents` are the models' files, such as `policy/config.json`;
    /// those of a [`Lesson::checkpoint`] by the same choice, such as `checkpoint/state.json`, have it go on from there.
    pub async fn open(
        names: Vec<String>,
        contents: Vec<js_sys::Uint8Array>,
        choice: String,
    ) -> Result<Lesson, JsValue> {
        let contents = contents.into_iter().map(|content| content.to_vec());
        let files = MemoryFolder::new(names.into_iter().zip(contents));
        let choice = serde_json::from_str(&choice).map_err(|e| JsValue::from_str(&e.to_string()))?;
        Lesson::begin(files, choice).await.map_err(told)
    }

    /// What there is to show before the first step, as JSON.
    pub fn about(&self) -> String {
        json!({
            "steps": self.trainer.total_steps(),
            "done": self.trainer.steps_done(),
            "memory": self.gpu.memory().total,
            "post": self.exam.texts()[0],
            "before": self.before[0],
        })
        .to_string()
    }

    /// Takes a step, and tells of it as JSON; `null` after the last.
    pub async fn step(&mut self) -> Result<String, JsValue> {
        let report = self.trainer.step().await.map_err(told)?;
        let Some(report) = report else { return Ok("null".into()) };
        let mut row = serde_json::to_value(&report).map_err(|e| JsValue::from_str(&e.to_string()))?;
        row["notes"] = json!(report.notes);
        Ok(row.to_string())
    }

    /// How often the oracle prefers the policy's summaries of the held-out posts to those before, as JSON.
    pub async fn evaluate(&mut self) -> Result<String, JsValue> {
        let after = self.exam.summaries(self.trainer.policy(), 1).await.map_err(told)?;
        let tally = Tally::of(&self.exam.by_oracle(self.instruction, &self.before, &after));
        let rate = tally.win_rate();
        Ok(json!({
            "step": self.trainer.steps_done(),
            "wins": tally.wins, "ties": tally.ties, "losses": tally.losses,
            "rate": rate.value, "low": rate.low, "high": rate.high,
            "after": after[0],
        })
        .to_string())
    }

    /// What [`Lesson::open`] goes on from, as names and contents in turn: the adapter as PEFT reads it, the optimiser, the
    /// trainer's state. Between two steps.
    pub async fn checkpoint(&self) -> Result<js_sys::Array, JsValue> {
        let folder = self.save().await.map_err(told)?;
        let out = js_sys::Array::new();
        for (name, content) in folder.files() {
            out.push(&JsValue::from_str(&name.to_string_lossy()));
            out.push(&js_sys::Uint8Array::from(&content[..]));
        }
        Ok(out)
    }

    /// Where the visitor judges, if that was chosen.
    pub fn clicks(&self) -> Clicks {
        Clicks { desk: self.desk.clone() }
    }
}

impl Lesson {
    async fn begin(files: MemoryFolder, choice: Choice) -> oaif::Result<Lesson> {
        // Kernels without subgroups are those that every browser runs.
        let options = GpuOptions::default().tier(Tier::Portable);
        let gpu = Gpu::open(&options).await?;
        let instruction = Instruction::ALL[choice.instruction.min(Instruction::ALL.len() - 1)];
        let train = TrainOptions::default()
            .learning_rate(3e-3)
            .warmup_steps(choice.steps / 16)
            .batch_size(choice.batch)
            .max_steps(choice.steps)
            .lora(LoraConfig::new(16))
            .seed(choice.seed);
        let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 })
            .max_new_tokens(MAX_NEW_TOKENS)
            .sampling(SamplingParams::default().temperature(TEMPERATURE));
        let policy = Policy::load(&gpu, &files.path().join("policy"), &train).await?;
        let exam = Exam::new(choice.posts);
        let checkpoint = files.path().join("checkpoint");
        let resumes = files.files().iter().any(|(name, _)| name.starts_with("checkpoint"));
        let before = match resumes {
            true => kept_before(&checkpoint, exam.texts().len()).map_err(of_checkpoint)?,
            false => exam.summaries(&policy, 1).await?,
        };
        let desk = Arc::new(Desk::new().holding(Duration::from_secs(2)));
        let rows = prompts(choice.steps * choice.batch);
        let mut trainer = match choice.by_clicks {
            true => Trainer::online(policy, &rows, Human::new(desk.clone()), &train, &align).await?,
            false => {
                let judge = judge(&gpu, &files, instruction).await?;
                Trainer::online(policy, &rows, judge, &train, &align).await?
            }
        };
        if resumes {
            trainer.resume(&checkpoint).map_err(of_checkpoint)?;
        }
        Ok(Lesson { gpu, _files: files, trainer, exam, before, instruction, desk })
    }

    async fn save(&self) -> oaif::Result<MemoryFolder> {
        let folder = MemoryFolder::new([(BEFORE, json!(self.before).to_string().into_bytes())]);
        self.trainer.save(folder.path()).await?;
        // Where the policy lies beside the page: its path here says nothing to others.
        let config = folder.path().join(ADAPTER_CONFIG);
        let mut json = read_json(&config)?;
        json["base_model_name_or_path"] = json!("models/policy");
        write_atomic(&config, format!("{json:#}\n").as_bytes())?;
        Ok(folder)
    }
}

/// The summaries that a checkpoint keeps of so many posts.
fn kept_before(checkpoint: &Path, posts: usize) -> oaif::Result<Vec<String>> {
    let path = checkpoint.join(BEFORE);
    let summaries: Option<Vec<String>> = serde_json::from_value(read_json(&path)?).ok();
    let wrong = || Error::file(&path, format!("does not hold the summaries of {posts} posts"));
    summaries.filter(|texts| texts.len() == posts).ok_or_else(wrong)
}

/// Says that an error is about the checkpoint.
fn of_checkpoint(error: Error) -> Error {
    Error::config("the stored training cannot be resumed", error.to_string())
}

/// The judge whose taste is what the instruction says.
async fn judge(
    gpu: &Gpu,
    files: &MemoryFolder,
    instruction: Instruction,
) -> oaif::Result<impl Judge + use<>> {
    let model = JudgeModel::load(gpu, &files.path().join("judge"), None, &Arena::new()).await?;
    LikelihoodJudge::new(model, LIKELIHOOD_TEMPLATE, instruction.text(), Normalise::Sum, "judge")
        .await
        .map(LikelihoodJudge::of_whole_responses)
}

/// The visitor's clicks, which can be given while a step waits for them.
#[wasm_bindgen]
pub struct Clicks {
    desk: Arc<Desk>,
}

#[wasm_bindgen]
impl Clicks {
    /// The pair that waits, and how many others do, as JSON.
    pub fn view(&self) -> String {
        serde_json::to_string(&self.desk.view(None)).unwrap_or_default()
    }

    /// Says which answer of the pair that is shown is better: "first", "second", or "tie". Whether it was taken: the pair may
    /// be gone by now.
    pub fn pick(&self, form: f64, choice: &str) -> Result<bool, JsValue> {
        let form = form as u64;
        let Some(pair) = self.desk.view(Some(form)).pair.filter(|pair| pair.form == form) else {
            return Ok(false);
        };
        let choice: Pick =
            serde_json::from_value(json!(choice)).map_err(|e| JsValue::from_str(&e.to_string()))?;
        let label = GivenLabel {
            id: pair.id,
            form,
            shown_first: pair.shown_first,
            choice,
            comment: None,
            seconds: 0.0,
        };
        Ok(self.desk.label(label).is_ok())
    }

    /// Takes the last label back, as long as the training does not have it.
    pub fn undo(&self) -> bool {
        let last = self.desk.view(None).last.filter(|last| last.undoable);
        last.is_some_and(|last| self.desk.undo(&last.id).is_ok())
    }
}
