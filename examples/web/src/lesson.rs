//! A policy that learns.

use std::sync::Arc;
use std::time::Duration;

use oaif::unstable::annotate::Annotator;
use oaif::unstable::annotate::human::{Desk, GivenLabel, Human, Pick};
use oaif::unstable::annotate::judge_model::JudgeModel;
use oaif::unstable::annotate::likelihood::{LikelihoodAnnotator, Normalise};
use oaif::unstable::annotate::queue::{AnnotationQueue, InPlace};
use oaif::unstable::demo::dataset::{LIKELIHOOD_TEMPLATE, prompts};
use oaif::unstable::demo::exam::{Exam, MAX_NEW_TOKENS, TEMPERATURE, Tally};
use oaif::unstable::demo::oracle::Instruction;
use oaif::unstable::files::MemoryFolder;
use oaif::unstable::generate::SamplingParams;
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions, Tier};
use oaif::unstable::model::{LoraConfig, LoraTargets};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::{AlignOptions, AlignRun, Control, Policy, Requests, TrainOptions, Trainer};
use serde::Deserialize;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::told;

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
    models: MemoryFolder,
    trainer: Trainer<'static>,
    exam: Exam,
    /// The policy's summaries of the held-out posts before it learnt.
    before: Vec<String>,
    instruction: Instruction,
    desk: Arc<Desk>,
}

#[wasm_bindgen]
impl Lesson {
    /// Opens the GPU and readies a training. `names` and `contents` are the models' files, such as `policy/config.json`.
    pub async fn open(
        names: Vec<String>,
        contents: Vec<js_sys::Uint8Array>,
        choice: String,
    ) -> Result<Lesson, JsValue> {
        let contents = contents.into_iter().map(|content| content.to_vec());
        let models = MemoryFolder::new(names.into_iter().zip(contents));
        let choice = serde_json::from_str(&choice).map_err(|e| JsValue::from_str(&e.to_string()))?;
        Lesson::begin(models, choice).await.map_err(told)
    }

    /// The GPU, and what there is to show before the first step, as JSON.
    pub fn about(&self) -> String {
        let gpu = self.gpu.summary();
        json!({
            "gpu": if gpu.name.is_empty() { &gpu.backend } else { &gpu.name },
            "steps": self.trainer.total_steps(),
            "memory": self.gpu.memory().total,
            "post": self.exam.texts()[0],
            "before": self.before[0],
        })
        .to_string()
    }

    /// Takes a step, and tells of it as JSON; `null` after the last.
    pub async fn step(&mut self) -> Result<String, JsValue> {
        let requests = Requests::new();
        let mut control = Control { observer: &mut (), requests: &requests };
        let report = self.trainer.step_with(&mut control).await.map_err(told)?;
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

    /// The adapter as PEFT reads it: names and contents in turn.
    pub async fn export(&self) -> Result<js_sys::Array, JsValue> {
        let folder = MemoryFolder::new::<&str>([]);
        let base = self.models.path().join("policy");
        self.trainer.policy().model.save_adapter(folder.path(), &base).await.map_err(told)?;
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
    async fn begin(models: MemoryFolder, choice: Choice) -> oaif::Result<Lesson> {
        // Kernels without subgroups are those that every browser runs.
        let options = GpuOptions::default().tier(Tier::Portable);
        let gpu = Gpu::open(&options).await?;
        let instruction = Instruction::ALL[choice.instruction.min(Instruction::ALL.len() - 1)];
        let lora = LoraConfig::new(16);
        let train = TrainOptions::default().learning_rate(3e-3).warmup_steps(choice.steps / 16).batch_size(choice.batch).max_steps(choice.steps).lora(lora).seed(choice.seed);
        let align = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(MAX_NEW_TOKENS).sampling(SamplingParams::default().temperature(TEMPERATURE));
        let policy = Policy::load(&gpu, &models.path().join("policy"), &train).await?;
        let exam = Exam::new(choice.posts);
        let before = exam.summaries(&policy, 1).await?;
        let desk = Arc::new(Desk::new().holding(Duration::from_secs(2)));
        let queue: Box<dyn AnnotationQueue> = match choice.by_clicks {
            true => Box::new(Human::new(desk.clone())),
            false => Box::new(InPlace::new(judge(&gpu, &models, instruction).await?)),
        };
        let rows = prompts(choice.steps * choice.batch);
        let trainer = AlignRun::new(policy, &rows, &train, &align).await?.trainer(queue)?;
        Ok(Lesson { gpu, models, trainer, exam, before, instruction, desk })
    }
}

/// The judge whose taste is what the instruction says.
async fn judge(
    gpu: &Gpu,
    models: &MemoryFolder,
    instruction: Instruction,
) -> oaif::Result<impl Annotator + use<>> {
    let model = JudgeModel::load(gpu, &models.path().join("judge"), None, &Arena::new()).await?;
    LikelihoodAnnotator::new(model, LIKELIHOOD_TEMPLATE, instruction.text(), Normalise::Sum, "judge")
        .await
        .map(LikelihoodAnnotator::of_whole_responses)
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

    /// Says which answer of the pair that is shown is better: "first", "second", or "tie".
    pub fn pick(&self, form: f64, choice: &str) -> Result<(), JsValue> {
        let Some(pair) = self.desk.view(Some(form as u64)).pair else { return Ok(()) };
        let choice: Pick = serde_json::from_value(json!(choice)).map_err(|e| JsValue::from_str(&e.to_string()))?;
        let label = GivenLabel {
            id: pair.id,
            form: pair.form,
            shown_first: pair.shown_first,
            choice,
            comment: None,
            seconds: 0.0,
        };
        self.desk.label(label).map_err(|refusal| JsValue::from_str(&refusal.to_string()))
    }

    /// Takes the last label back, as long as the training does not have it.
    pub fn undo(&self) -> bool {
        let last = self.desk.view(None).last.filter(|last| last.undoable);
        last.is_some_and(|last| self.desk.undo(&last.id).is_ok())
    }
}
