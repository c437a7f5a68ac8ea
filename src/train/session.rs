//! What every kind of training shares: the run's folder, the optimiser, checkpoints, metrics, and the checks that
//! a run makes on itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::options::TrainOptions;
use super::order::RowOrder;
use super::progress::{Observer, Pace, StepEvent};
use super::rows::EncodedRows;
use super::run_dir::RunDir;
use super::schedule::LrSchedule;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Gpu, Region};
use crate::model::safetensors_io::MODEL_FILE;
use crate::model::storage::{ADAPTER_FILE, FloatFormat, restore_weights};
use crate::model::{Model, Weights};
use crate::optim::{Optimiser, Update};

/// Steps in a row without a finite gradient after which a run gives up.
const MAX_NON_FINITE: usize = 5;
/// The optimiser's state in a checkpoint.
const OPTIMISER_FILE: &str = "optimiser.safetensors";
/// What a checkpoint's trainer state is called.
const STATE_FILE: &str = "state.json";

/// What `run.json` holds beside the configuration.
pub const RUN_FACTS: [&str; 5] = ["oaif_version", "gpu_adapter", "gpu_tier", "total_steps", "memory"];

/// Milliseconds since `start`, for the logs.
pub(super) fn milliseconds(start: Instant) -> Value {
    json!((start.elapsed().as_secs_f64() * 1e5).round() / 1e2)
}

/// Whom a run reports to and who may stop it.
pub struct Control<'a> {
    /// Hears of steps and warnings.
    pub observer: &'a mut dyn Observer,
    /// Set to end the run after the current step, with a checkpoint.
    pub interrupted: &'a AtomicBool,
}

/// Where things come from, for `run.json` and for saving.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The model's folder.
    pub model: PathBuf,
    /// The resolved configuration, as `run.json` shows it.
    pub config: Value,
}

/// A run in progress.
pub struct Session<'a> {
    model: Model,
    run: RunDir,
    optimiser: Optimiser,
    schedule: LrSchedule,
    options: TrainOptions,
    sources: Sources,
    control: Control<'a>,
    /// Steps done.
    step: usize,
    non_finite: usize,
    non_finite_in_row: usize,
    /// Updates with a gradient, by a learning rate above 0.
    updates: usize,
    order: RowOrder,
    /// Rows of the dataset, and how many of them a step takes.
    rows: usize,
    batch: usize,
    step_started: Instant,
    /// What must be the same when the run is resumed.
    cursor: Value,
    moved: MovementCheck,
    pace: Pace,
    step_ended: Instant,
    tokens: u64,
    /// What the kind of training keeps across a resume, in `state.json`.
    pub state: Map<String, Value>,
}

/// The rows of the dataset that a step takes.
pub struct Draws {
    /// How many were taken before, in all.
    pub first: u64,
    /// In the order in which they are taken.
    pub rows: Vec<usize>,
}

/// One step, for the logs.
pub struct StepRecord {
    /// The kind of training's own metrics.
    pub metrics: Map<String, Value>,
    /// Rows for `pairs.jsonl`.
    pub pairs: Vec<Value>,
    /// Mean loss; `None` when the step had nothing to learn from.
    pub loss: Option<f64>,
    /// Mean margin, for the progress bar.
    pub margin: Option<f64>,
    /// How often the annotator preferred the first response, for the progress bar.
    pub judge_win: Option<f64>,
    /// Tokens that went through the model.
    pub tokens: usize,
}

impl<'a> Session<'a> {
    /// Opens the run's folder, and goes on from a checkpoint where the options say so.
    pub fn begin(
        model: &Model,
        mut optimiser: Optimiser,
        options: &TrainOptions,
        sources: Sources,
        (total_steps, rows): (usize, usize),
        control: Control<'a>,
    ) -> Result<Session<'a>> {
        let limit = options.save_total_limit.and_then(NonZeroUsize::new);
        let mut run = RunDir::create(&options.output_dir, &options.start(), limit)?;
        let gpu = model.gpu();
        let weights = model.trained();
        let (mut step, mut state) = (0, Map::new());
        let (mut non_finite, mut non_finite_in_row, mut tokens) = (0, 0, 0);
        let cursor = cursor(options, rows);
        let mut updates = 0;
        if let Some(checkpoint) = run.resumed().cloned() {
            let saved = files::read_json(&checkpoint.path.join(STATE_FILE))?;
            same_cursor(&saved["cursor"], &cursor)?;
            let weights_file = if model.adapter().is_some() { ADAPTER_FILE } else { MODEL_FILE };
            restore_weights(weights, &checkpoint.path.join(weights_file))
                .and_then(|()| optimiser.restore(&checkpoint.path.join(OPTIMISER_FILE)))
                .map_err(|e| {
                    let why = format!(
                        "cannot be gone on from ({e}): give the --model, --optim and --lora-r that it was made \
                         with, or an earlier checkpoint"
                    );
                    Error::file(&checkpoint.path, why)
                })?;
            step = checkpoint.step;
            let number = |key: &str| saved[key].as_u64().unwrap_or(0);
            non_finite = number("non_finite") as usize;
            non_finite_in_row = number("non_finite_in_row") as usize;
            tokens = number("num_tokens");
            updates = number("updates") as usize;
            state = saved["training"].as_object().cloned().unwrap_or_default();
            run.truncate_to_step(step)?;
        }
        let mut json = sources.config.clone();
        let facts = [
            json!(env!("CARGO_PKG_VERSION")),
            json!(gpu.summary()),
            json!(gpu.tier().to_string()),
            json!(total_steps),
            json!(gpu.memory()),
        ];
        for (name, fact) in RUN_FACTS.iter().zip(facts) {
            json[*name] = fact;
        }
        run.write_run(&json)?;
        let schedule = LrSchedule {
            kind: options.schedule,
            warmup_steps: options.warmup_steps(total_steps),
            total_steps,
            peak: options.learning_rate,
        };
        model.trained().clear_gradients()?;
        Ok(Session {
            model: model.clone(),
            run,
            optimiser,
            schedule,
            options: options.clone(),
            sources,
            control,
            step,
            non_finite,
            non_finite_in_row,
            updates,
            order: RowOrder::new(rows, options.shuffle.then_some(options.seed)),
            rows,
            batch: options.batch_size * options.accumulation,
            step_started: Instant::now(),
            cursor,
            moved: MovementCheck::before(model)?,
            pace: Pace::default(),
            step_ended: Instant::now(),
            tokens,
            state,
        })
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Begins a step: what it takes.
    pub fn begin_step(&mut self) -> Draws {
        self.step_started = Instant::now();
        self.draws(self.step)
    }

    /// What the step after this one takes, if it is not the last.
    pub fn next_draws(&mut self) -> Option<Draws> {
        let next = self.step + 1;
        (next < self.schedule.total_steps).then(|| self.draws(next))
    }

    fn draws(&mut self, step: usize) -> Draws {
        let first = (step * self.batch) as u64;
        let rows = (first..first + self.batch as u64).map(|draw| self.order.row(draw)).collect();
        Draws { first, rows }
    }

    /// Whether every step is done.
    pub fn is_done(&self) -> bool {
        self.step >= self.schedule.total_steps
    }

    /// Tells the observer of rows that were left out.
    pub fn warn_skipped(&mut self, rows: &EncodedRows) {
        for (count, why) in
            [(rows.too_long, "longer than the limit"), (rows.empty, "without a token to learn")]
        {
            if count > 0 {
                self.warn(&format!("{count} row(s) are {why} and were skipped"));
            }
        }
    }

    /// Tells the observer that a part of the step begins.
    pub fn phase(&mut self, name: &str) {
        self.control.observer.phase(name);
    }

    /// Tells the observer.
    pub fn warn(&mut self, text: &str) {
        self.control.observer.warning(text);
    }

    /// Updates the weights from the gradients, unless they or the loss are not finite; then clears them. Returns the
    /// update's metrics.
    ///
    /// # Errors
    /// [`Error::NonFinite`] after 5 such steps in a row.
    pub fn update(&mut self, loss: f64) -> Result<Map<String, Value>> {
        let started = Instant::now();
        let learning_rate = self.schedule.at(self.step);
        let update = match loss.is_finite() {
            true => self.optimiser.update(learning_rate)?,
            false => Update { grad_norm: f32::NAN, finite: false },
        };
        self.model.trained().clear_gradients()?;
        if update.finite && update.grad_norm > 0.0 && learning_rate > 0.0 {
            self.updates += 1;
            self.moved.updated = true;
        }
        if update.finite {
            self.non_finite_in_row = 0;
        } else {
            self.non_finite += 1;
            self.non_finite_in_row += 1;
            let text = format!("step {}: the loss or gradient is not finite, no update", self.step + 1);
            self.warn(&text);
            if self.non_finite_in_row >= MAX_NON_FINITE {
                return Err(Error::NonFinite { count: MAX_NON_FINITE });
            }
        }
        Ok(Map::from_iter([
            ("grad_norm".to_owned(), json!(update.finite.then_some(update.grad_norm))),
            ("learning_rate".to_owned(), json!(learning_rate)),
            ("time/update_ms".to_owned(), milliseconds(started)),
        ]))
    }

    /// Writes the step's logs, and a checkpoint when one is due.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the checkpoint, when somebody asked the run to stop.
    pub fn end_step(&mut self, record: StepRecord) -> Result<()> {
        self.step += 1;
        self.tokens += record.tokens as u64;
        // Checkpoints take their time too.
        let seconds = self.step_ended.elapsed().as_secs_f64();
        self.step_ended = Instant::now();
        let seconds_left = self.pace.seconds_left(seconds, self.schedule.total_steps - self.step);
        let mut row = Map::new();
        row.insert("step".into(), json!(self.step));
        row.extend(record.metrics);
        row.insert("epoch".into(), json!((self.step * self.batch) as f64 / self.rows as f64));
        row.insert("time/step_ms".into(), milliseconds(self.step_started));
        row.insert("num_tokens".into(), json!(self.tokens));
        row.insert("non_finite_steps".into(), json!(self.non_finite));
        for pair in &record.pairs {
            assert_eq!(pair["step"], json!(self.step), "a pair of another step");
        }
        self.run.append_pairs(&record.pairs)?;
        let step_s = row.get("time/step_ms").and_then(Value::as_f64).unwrap_or(0.0) * 1e-3;
        let tokens_per_second = record.tokens as f64 / step_s.max(1e-9);
        row.insert("time/tokens_per_second".into(), json!(tokens_per_second.round()));
        self.run.append_metrics(&Value::Object(row))?;
        self.control.observer.step(&StepEvent {
            step: self.step,
            total_steps: self.schedule.total_steps,
            loss: record.loss,
            margin: record.margin,
            judge_win: record.judge_win,
            tokens_per_second,
            seconds_left,
        });
        let interrupted = self.control.interrupted.load(Ordering::Relaxed) && !self.is_done();
        let due = self.options.save_steps.is_some_and(|n| self.step.is_multiple_of(n));
        if due || interrupted {
            self.checkpoint()?;
        }
        if interrupted { Err(Error::Interrupted) } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.phase("saving");
        let pending = self.run.begin_checkpoint(self.step)?;
        self.save_model(pending.path())?;
        self.optimiser.save(&pending.path().join(OPTIMISER_FILE))?;
        let state = json!({
            "step": self.step,
            "cursor": self.cursor,
            "num_tokens": self.tokens,
            "updates": self.updates,
            "non_finite": self.non_finite,
            "non_finite_in_row": self.non_finite_in_row,
            "training": self.state,
        });
        files::write_atomic(&pending.path().join(STATE_FILE), format!("{state:#}\n").as_bytes())?;
        self.run.commit(pending)?;
        Ok(())
    }

    fn save_model(&self, dir: &Path) -> Result<()> {
        match self.model.adapter() {
            Some(_) => self.model.save_adapter(dir, &self.sources.model.to_string_lossy()),
            None => self.model.save(dir, Some(&self.sources.model), FloatFormat::F32),
        }
    }

    /// Saves a last checkpoint, checks that training moved what it should and nothing else, and saves the model
    /// (`model/`) or the adapter (`adapter/`).
    ///
    /// # Errors
    /// [`Error::NonFinite`] when no step at all was finite; [`Error::SelfCheck`].
    pub fn finish(mut self) -> Result<PathBuf> {
        if self.non_finite > 0 && self.non_finite == self.step {
            return Err(Error::NonFinite { count: self.non_finite });
        }
        if self.run.latest_checkpoint()?.is_none_or(|c| c.step != self.step) {
            self.checkpoint()?;
        }
        // A run that is all warm-up teaches nothing by intention.
        let meant_to_learn = (0..self.step).any(|step| self.schedule.at(step) > 0.0);
        if self.updates == 0 && meant_to_learn {
            return Err(Error::SelfCheck(
                "nothing was learnt: no step had both a usable row and a gradient, so no model is saved; look at \
                 metrics.jsonl for skipped rows and grad_norm"
                    .into(),
            ));
        }
        self.phase("saving");
        self.moved.after(&self.model)?;
        let name = if self.model.adapter().is_some() { "adapter" } else { "model" };
        let dir = self.run.path().join(name);
        self.save_model(&dir)?;
        Ok(dir)
    }
}

/// What decides which rows a step gets and what is drawn: a resumed run goes on only with the same.
fn cursor(options: &TrainOptions, rows: usize) -> Value {
    json!({
        "seed": options.seed,
        "per-device-train-batch-size": options.batch_size,
        "gradient-accumulation-steps": options.accumulation,
        "shuffle": options.shuffle,
        "rows": rows,
    })
}

fn same_cursor(saved: &Value, now: &Value) -> Result<()> {
    let Some(now) = now.as_object() else { return Ok(()) };
    match now.iter().find(|(key, value)| saved[key.as_str()] != **value) {
        None => Ok(()),
        Some((key, value)) => {
            let why = format!(
                "the checkpoint was written with {key} {}, this run has {value}: make them the same, or begin a new run",
                saved[key.as_str()]
            );
            Err(Error::config("--resume-from-checkpoint", why))
        }
    }
}

/// Trained weights must move, frozen ones must not: a run that trains nothing while its metrics look fine is the
/// worst of mistakes.
struct MovementCheck {
    trained: u64,
    frozen: Option<u64>,
    updated: bool,
}

/// Samples of every tensor: enough to notice an update, little enough for a large model.
const PROBES: u64 = 8;
/// Bytes of a sample.
const PROBE_BYTES: u64 = 4 << 10;

fn fingerprint(gpu: &Gpu, weights: &Weights) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for weight in weights.iter() {
        for (region, ..) in weight.parts() {
            let bytes = region.bytes.min(PROBE_BYTES);
            let last = region.bytes - bytes;
            let probes = if last == 0 { 1 } else { PROBES };
            for i in 0..probes {
                let offset = region.offset + last * i / PROBES.saturating_sub(1).max(1) / 4 * 4;
                let probe = Region { buffer: region.buffer.clone(), offset, bytes };
                gpu.download::<u32>(&probe)?.hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

impl MovementCheck {
    fn before(model: &Model) -> Result<MovementCheck> {
        let trained = fingerprint(model.gpu(), model.trained())?;
        let frozen = model.frozen().map(|w| fingerprint(model.gpu(), w)).transpose()?;
        Ok(MovementCheck { trained, frozen, updated: false })
    }

    fn after(&self, model: &Model) -> Result<()> {
        if self.updated && fingerprint(model.gpu(), model.trained())? == self.trained {
            return Err(Error::SelfCheck(
                "no trained weight moved although updates were made: raise --learning-rate, which may be lost in \
                 rounding"
                    .into(),
            ));
        }
        let frozen = model.frozen().map(|w| fingerprint(model.gpu(), w)).transpose()?;
        match frozen == self.frozen {
            true => Ok(()),
            false => Err(Error::SelfCheck("a frozen weight moved: please report this as a bug".into())),
        }
    }
}
