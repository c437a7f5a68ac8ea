//! A policy in training.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oaif::Error;
use oaif::files::MemoryFolder;
use oaif::generate::SamplingParams;
use oaif::gpu::{Arena, Gpu, GpuOptions, Tier};
use oaif::judge::{Desk, GivenLabel, Human, Judge, JudgeModel, LikelihoodJudge, Normalise, Pick};
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

use crate::js_error;

/// A file of the checkpoint: the summaries of the starting model, as JSON.
const BEFORE: &str = "before.json";
/// A file of the checkpoint: the configuration of the adapter for PEFT.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The options set by the page.
#[derive(Deserialize)]
struct Choice {
    /// Index of the instruction.
    instruction: usize,
    /// Whether the visitor judges.
    by_clicks: bool,
    steps: usize,
    /// Prompts per step.
    batch: usize,
    /// The number of held-out posts.
    posts: usize,
    seed: u32,
}

/// A policy in training, and its evaluation.
#[wasm_bindgen]
pub struct Lesson {
    gpu: Gpu,
    /// Keeps the folder of the policy, from which a checkpoint copies further files.
    _files: MemoryFolder,
    trainer: Trainer<'static>,
    exam: Exam,
    /// The starting model's summaries of the held-out posts.
    before: Vec<String>,
    instruction: Instruction,
    desk: Arc<Desk>,
}

#[wasm_bindgen]
impl Lesson {
    /// Opens the GPU and prepares a training. `names` and `contents` are the files of the models, such as
    /// `policy/config.json`. If they include the files of a [`Lesson::checkpoint`] with the same options, such as
    /// `checkpoint/state.json`, the training is resumed.
    pub async fn open(
        names: Vec<String>,
        contents: Vec<js_sys::Uint8Array>,
        choice: String,
    ) -> Result<Lesson, JsValue> {
        let contents = contents.into_iter().map(|content| content.to_vec());
        let files = MemoryFolder::new(names.into_iter().zip(contents));
        let choice = serde_json::from_str(&choice).map_err(|e| JsValue::from_str(&e.to_string()))?;
        Lesson::begin(files, choice).await.map_err(js_error)
    }

    /// The information to show before the first step, as JSON.
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

    /// Takes a step and returns its report as JSON; `null` after the last step.
    pub async fn step(&mut self) -> Result<String, JsValue> {
        let report = self.trainer.step().await.map_err(js_error)?;
        let Some(report) = report else { return Ok("null".into()) };
        let mut row = serde_json::to_value(&report).map_err(|e| JsValue::from_str(&e.to_string()))?;
        row["notes"] = json!(report.notes);
        Ok(row.to_string())
    }

    /// How often the oracle prefers the policy's summaries of the held-out posts to those of the starting model, as
    /// JSON.
    pub async fn evaluate(&mut self) -> Result<String, JsValue> {
        let after = self.exam.summaries(self.trainer.policy(), 1).await.map_err(js_error)?;
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

    /// The files from which [`Lesson::open`] resumes, as alternating names and contents: the adapter in PEFT's format,
    /// the optimiser, and the trainer's state. Must be called between two steps.
    pub async fn checkpoint(&self) -> Result<js_sys::Array, JsValue> {
        let folder = self.save().await.map_err(js_error)?;
        let out = js_sys::Array::new();
        for (name, content) in folder.files() {
            out.push(&JsValue::from_str(&name.to_string_lossy()));
            out.push(&js_sys::Uint8Array::from(&content[..]));
        }
        Ok(out)
    }

    /// The interface for the visitor's labels, if the visitor judges.
    pub fn clicks(&self) -> Clicks {
        Clicks { desk: self.desk.clone() }
    }
}

impl Lesson {
    async fn begin(files: MemoryFolder, choice: Choice) -> oaif::Result<Lesson> {
        // Every browser supports the kernels without subgroups.
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
        // The path of the policy relative to the page: the path in memory has no meaning elsewhere.
        let config = folder.path().join(ADAPTER_CONFIG);
        let mut json = read_json(&config)?;
        json["base_model_name_or_path"] = json!("models/policy");
        write_atomic(&config, format!("{json:#}\n").as_bytes())?;
        Ok(folder)
    }
}

/// The summaries in a checkpoint; there must be one for each of `posts` posts.
fn kept_before(checkpoint: &Path, posts: usize) -> oaif::Result<Vec<String>> {
    let path = checkpoint.join(BEFORE);
    let summaries: Option<Vec<String>> = serde_json::from_value(read_json(&path)?).ok();
    let wrong = || Error::file(&path, format!("does not hold the summaries of {posts} posts"));
    summaries.filter(|texts| texts.len() == posts).ok_or_else(wrong)
}

/// Marks an error as one about the checkpoint.
fn of_checkpoint(error: Error) -> Error {
    Error::config("the stored training cannot be resumed", error.to_string())
}

/// The judge for the instruction.
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

/// The visitor's labels, which can be given while a step waits for them.
#[wasm_bindgen]
pub struct Clicks {
    desk: Arc<Desk>,
}

#[wasm_bindgen]
impl Clicks {
    /// The waiting pair and the number of others, as JSON.
    pub fn view(&self) -> String {
        serde_json::to_string(&self.desk.view(None)).unwrap_or_default()
    }

    /// Labels the pair that is shown: "first", "second", or "tie". Returns whether the label was accepted: the pair may
    /// be gone.
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

    /// Undoes the last label, unless the trainer has taken it.
    pub fn undo(&self) -> bool {
        let last = self.desk.view(None).last.filter(|last| last.undoable);
        last.is_some_and(|last| self.desk.undo(&last.id).is_ok())
    }
}
