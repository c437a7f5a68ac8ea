//! What every kind of training shares: the run's folder, the optimiser, checkpoints, metrics, and the checks that
//! a run makes on itself.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::health;
use super::identity::{Change, RunIdentity};
use super::movement::MovementCheck;
use super::options::TrainOptions;
use super::order::RowOrder;
use super::progress::{Observer, Pace, StepEvent};
use super::rows::EncodedRows;
use super::run_dir::RunDir;
use super::schedule::LrSchedule;
use super::state::{Counters, Logs, OnlineState, State};
use crate::error::{Error, Result};
use crate::model::adapter_storage::ADAPTER_FILE;
use crate::model::safetensors_io::MODEL_FILE;
use crate::model::storage::{into_folder, restore_weights};
use crate::model::{FloatFormat, Model};
use crate::optim::{Optimiser, Update};

/// Steps in a row without a finite gradient after which a run gives up.
const MAX_NON_FINITE: usize = 5;
/// The optimiser's state in a checkpoint.
const OPTIMISER_FILE: &str = "optimiser.safetensors";

/// What `run.json` holds beside the configuration.
#[derive(Default, Serialize)]
pub(crate) struct RunFacts {
    /// The kind of training.
    command: Value,
    /// Where it was begun.
    working_dir: Option<String>,
    oaif_version: &'static str,
    /// What it runs on.
    gpu_device: Value,
    gpu_tier: String,
    /// Which variants of its kernels.
    kernels: Value,
    total_steps: usize,
    memory: Value,
    /// What its rows are, see [`EncodedRows::statistics`].
    rows: Value,
    /// What was changed where it was resumed.
    changes: Vec<Change>,
    /// What its user was warned of.
    warnings: Vec<String>,
}

impl RunFacts {
    fn map(&self) -> Map<String, Value> {
        let Ok(Value::Object(map)) = serde_json::to_value(self) else {
            unreachable!("a struct of plain values")
        };
        map
    }

    /// Their names in `run.json`.
    #[cfg(feature = "cli")]
    pub(crate) fn names() -> impl Iterator<Item = String> {
        RunFacts::default().map().into_iter().map(|(name, _)| name)
    }
}

/// Milliseconds since `start`, for the logs.
pub(super) fn milliseconds(start: Instant) -> Value {
    json!((start.elapsed().as_secs_f64() * 1e5).round() / 1e2)
}

/// What a call returns, and the milliseconds that it took.
pub(super) fn timed<T>(call: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let result = call()?;
    Ok((result, milliseconds(started).as_f64().unwrap_or(0.0)))
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
    /// The resolved configuration, an object, as `run.json` shows it.
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
    facts: RunFacts,
    /// As it was when the last step was done.
    state: State,
    /// With what the step in progress has added.
    counters: Counters,
    /// Whether the weights have moved since.
    moving: bool,
    /// Steps done before this process began.
    first_step: usize,
    order: RowOrder,
    /// Rows of the dataset, and how many of them a step takes.
    rows: usize,
    batch: usize,
    step_started: Instant,
    moved: MovementCheck,
    pace: Pace,
    step_ended: Instant,
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
    /// What online training keeps from now on.
    pub online: Option<OnlineState>,
}

impl<'a> Session<'a> {
    /// Opens the run's folder, and goes on from a checkpoint where the options say so.
    ///
    /// # Errors
    /// [`Error::Config`] for changes that are not allowed, and sources whose configuration is no object; what is wrong
    /// with the folder or the checkpoint.
    pub(super) fn begin(
        model: &Model,
        mut optimiser: Optimiser,
        options: &TrainOptions,
        sources: Sources,
        identity: RunIdentity,
        (total_steps, rows): (usize, usize),
        control: Control<'a>,
    ) -> Result<Session<'a>> {
        identity.check_names(&options.allow_changes)?;
        if !sources.config.is_object() && !sources.config.is_null() {
            return Err(Error::config("config", "is no JSON object"));
        }
        let limit = options.save_total_limit.and_then(NonZeroUsize::new);
        let mut run = RunDir::create(&options.output_dir, &options.start(), limit)?;
        let state = match run.resumed().cloned() {
            None => State {
                step: 0,
                logs: Logs::default(),
                counters: Counters::default(),
                identity,
                kernels: model.gpu().tuning(),
                changes: Vec::new(),
                online: None,
            },
            Some(checkpoint) => {
                let mut state =
                    State::read(&checkpoint.path)?.go_on(identity, &options.allow_changes, total_steps)?;
                match run.resumes_itself() {
                    true => run.truncate_to_step(state.step, state.logs)?,
                    false => state.logs = Logs { after_step: state.step, pairs: 0 },
                }
                let weights_file = if model.adapter().is_some() { ADAPTER_FILE } else { MODEL_FILE };
                restore_weights(model.trained(), &checkpoint.path.join(weights_file))?;
                optimiser.restore(&checkpoint.path.join(OPTIMISER_FILE))?;
                state
            }
        };
        let gpu = model.gpu();
        let other_kernels = !gpu.tuning().keeps(&state.kernels);
        let state = State { kernels: gpu.tuning(), ..state };
        let facts = RunFacts {
            // The demo has its own.
            command: sources
                .config
                .get("command")
                .cloned()
                .unwrap_or_else(|| json!(state.identity.command.name())),
            working_dir: std::env::current_dir().ok().map(|dir| dir.to_string_lossy().into_owned()),
            oaif_version: env!("CARGO_PKG_VERSION"),
            gpu_device: json!(gpu.summary()),
            gpu_tier: gpu.tier().to_string(),
            kernels: json!(gpu.tuning()),
            total_steps,
            memory: json!(gpu.memory()),
            rows: Value::Null,
            changes: state.changes.clone(),
            warnings: Vec::new(),
        };
        let schedule = LrSchedule {
            kind: options.schedule,
            warmup_steps: options.warmup_steps(total_steps),
            total_steps,
            peak: options.learning_rate,
        };
        model.trained().clear_gradients()?;
        let mut session = Session {
            model: model.clone(),
            run,
            optimiser,
            schedule,
            options: options.clone(),
            sources,
            control,
            facts,
            counters: state.counters,
            moving: false,
            first_step: state.step,
            state,
            order: RowOrder::new(rows, options.shuffle.then_some(options.seed)),
            rows,
            batch: options.batch_size * options.accumulation,
            step_started: Instant::now(),
            moved: MovementCheck::before(model)?,
            pace: Pace::default(),
            step_ended: Instant::now(),
        };
        session.write_run()?;
        if other_kernels {
            session.warn(
                "this device does not have the kernels that the checkpoint was computed with: the run goes on with others, \
                 and its numbers may differ in their last digits",
            );
        }
        if session.first_step > 0 && session.is_done() {
            session.warn(&format!("all {total_steps} steps of this run are done: raise max-steps to go on"));
        }
        Ok(session)
    }

    /// Whether somebody asked the run to stop.
    pub(super) fn interrupted(&self) -> &'a AtomicBool {
        self.control.interrupted
    }

    /// What online training kept.
    pub(super) fn online(&self) -> Option<&OnlineState> {
        self.state.online.as_ref()
    }

    /// The checkpoint that the run was resumed from.
    pub(super) fn resumed(&self) -> Option<&Path> {
        self.run.resumed().map(|checkpoint| checkpoint.path.as_path())
    }

    /// Steps done.
    pub fn step(&self) -> usize {
        self.state.step
    }

    /// Begins a step: what it takes.
    pub fn begin_step(&mut self) -> Draws {
        self.step_started = Instant::now();
        self.draws(self.state.step)
    }

    /// What the step after this one takes, if it is not the last.
    pub fn next_draws(&mut self) -> Option<Draws> {
        let next = self.state.step + 1;
        (next < self.schedule.total_steps).then(|| self.draws(next))
    }

    fn draws(&mut self, step: usize) -> Draws {
        let first = (step * self.batch) as u64;
        let rows = (first..first + self.batch as u64).map(|draw| self.order.row(draw)).collect();
        Draws { first, rows }
    }

    /// Whether every step is done.
    pub fn is_done(&self) -> bool {
        self.state.step >= self.schedule.total_steps
    }

    /// Notes what the rows are, and tells the observer what is to be known of them.
    pub fn warn_of_rows(&mut self, rows: &EncodedRows) -> Result<()> {
        self.facts.rows = rows.statistics();
        self.write_run()?;
        // Where it is most of them, this is about the run as a whole.
        let noted = rows.table().skipped().filter(|_| rows.table().skipped_rows() > rows.len());
        for warning in rows.warnings() {
            match noted.as_ref() == Some(&warning) {
                true => self.note(warning)?,
                false => self.warn(&warning),
            }
        }
        Ok(())
    }

    /// Tells the observer that a part of the step begins.
    pub fn phase(&mut self, name: &str) {
        self.control.observer.phase(name);
    }

    /// Tells the observer.
    pub fn warn(&mut self, text: &str) {
        self.control.observer.warning(text);
    }

    /// Tells the observer something about the run as a whole, which `run.json` keeps for the report.
    pub(super) fn note(&mut self, text: String) -> Result<()> {
        self.warn(&text);
        self.facts.warnings.push(text);
        self.write_run()
    }

    /// Notes which kernels computed the steps so far: tiles are chosen as plans are recorded.
    fn note_kernels(&mut self) -> Result<()> {
        let kernels = self.model.gpu().tuning();
        if self.state.kernels != kernels {
            self.facts.kernels = json!(kernels);
            self.state.kernels = kernels;
            self.write_run()?;
        }
        Ok(())
    }

    /// The configuration and the facts.
    fn write_run(&mut self) -> Result<()> {
        let mut run = self.sources.config.as_object().cloned().unwrap_or_default();
        run.extend(self.facts.map());
        self.run.write_run(&Value::Object(run))
    }

    /// Updates the weights from the gradients, unless they or the loss are not finite; then clears them. Returns the
    /// update's metrics.
    ///
    /// # Errors
    /// [`Error::NonFinite`] after 5 such steps in a row.
    pub fn update(&mut self, loss: f64) -> Result<Map<String, Value>> {
        let started = Instant::now();
        let learning_rate = self.schedule.at(self.state.step);
        self.moving = true;
        let update = match loss.is_finite() {
            true => self.optimiser.update(learning_rate)?,
            false => Update { grad_norm: f32::NAN, finite: false },
        };
        self.model.trained().clear_gradients()?;
        if update.finite && update.grad_norm > 0.0 && learning_rate > 0.0 {
            self.counters.updates += 1;
            self.moved.updated = true;
        }
        if update.finite {
            self.counters.non_finite_in_row = 0;
        } else {
            self.counters.non_finite += 1;
            self.counters.non_finite_in_row += 1;
            let text = format!("step {}: the loss or gradient is not finite, no update", self.state.step + 1);
            self.warn(&text);
            if self.counters.non_finite_in_row >= MAX_NON_FINITE {
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
        let step = self.state.step + 1;
        let counters = &mut self.counters;
        counters.num_tokens += record.tokens as u64;
        let no_gradient = record.loss.is_some_and(|loss| loss != 0.0)
            && record.metrics.get("grad_norm").and_then(Value::as_f64) == Some(0.0);
        if record.loss.is_none() || no_gradient {
            counters.idle_in_row += 1;
            counters.idle_rows_in_row += self.batch;
        } else {
            (counters.idle_in_row, counters.idle_rows_in_row) = (0, 0);
        }
        // Checkpoints take their time too.
        let seconds = self.step_ended.elapsed().as_secs_f64();
        self.step_ended = Instant::now();
        let seconds_left = self.pace.seconds_left(seconds, self.schedule.total_steps - step);
        let mut row = Map::new();
        row.insert("step".into(), json!(step));
        row.extend(record.metrics);
        row.insert("epoch".into(), json!((step * self.batch) as f64 / self.rows as f64));
        row.insert("time/step_ms".into(), milliseconds(self.step_started));
        row.insert("num_tokens".into(), json!(self.counters.num_tokens));
        row.insert("non_finite_steps".into(), json!(self.counters.non_finite));
        for pair in &record.pairs {
            assert_eq!(pair["step"], json!(step), "a pair of another step");
        }
        self.run.append_pairs(&record.pairs)?;
        let step_s = row.get("time/step_ms").and_then(Value::as_f64).unwrap_or(0.0) * 1e-3;
        let tokens_per_second = record.tokens as f64 / step_s.max(1e-9);
        row.insert("time/tokens_per_second".into(), json!(tokens_per_second.round()));
        self.run.append_metrics(&Value::Object(row))?;
        self.state.step = step;
        self.state.logs.pairs += record.pairs.len();
        self.state.counters = self.counters;
        self.state.online = record.online;
        self.moving = false;
        self.control.observer.step(&StepEvent {
            step,
            total_steps: self.schedule.total_steps,
            loss: record.loss,
            margin: record.margin,
            judge_win: record.judge_win,
            tokens_per_second,
            seconds_left,
        });
        let interrupted = self.control.interrupted.load(Ordering::Relaxed) && !self.is_done();
        let due = self.options.save_steps.is_some_and(|n| step.is_multiple_of(n));
        if due || interrupted {
            self.checkpoint()?;
        }
        if interrupted {
            return Err(Error::Interrupted);
        }
        let Counters { idle_in_row, idle_rows_in_row, .. } = self.counters;
        let command = self.state.identity.command;
        match health::idle(command, idle_in_row, idle_rows_in_row, self.is_done() && 2 * idle_in_row > step) {
            Some(why) => Err(Error::SelfCheck(why)),
            None => Ok(()),
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.phase("saving");
        self.note_kernels()?;
        let pending = self.run.begin_checkpoint(self.state.step)?;
        self.save_model_into(pending.path())?;
        self.optimiser.save(&pending.path().join(OPTIMISER_FILE))?;
        self.state.write(pending.path())?;
        self.run.commit(pending)?;
        Ok(())
    }

    /// Ends the run as its steps ended: saves the result of all of them, or after an error what was done before it.
    ///
    /// # Errors
    /// What ended the steps; else what [`Session::finish`] reports.
    pub(super) fn end(mut self, steps: Result<()>) -> Result<PathBuf> {
        let Err(error) = steps else { return self.finish() };
        // Else an error that came of it would be told.
        self.run.still_there()?;
        let saved = self.run.latest_checkpoint()?.is_some_and(|c| c.step == self.state.step);
        // Weights in between two steps are no checkpoint.
        if !self.moving && self.state.step > self.first_step && !saved {
            // The first error is the one worth telling.
            let _ = self.checkpoint();
        }
        if matches!(error, Error::Annotator { .. }) && self.control.interrupted.load(Ordering::Relaxed) {
            self.warn(&error.to_string());
            return Err(Error::Interrupted);
        }
        Err(error)
    }

    /// Writes what is trained into a folder that is there.
    fn save_model_into(&self, dir: &Path) -> Result<()> {
        match self.model.adapter() {
            Some(_) => self.model.save_adapter_into(dir, &self.sources.model),
            None => self.model.save_into(dir, Some(&self.sources.model), FloatFormat::F32),
        }
    }

    /// Saves a last checkpoint, checks that training moved what it should and nothing else, and saves the model
    /// (`model/`) or the adapter (`adapter/`).
    ///
    /// # Errors
    /// [`Error::NonFinite`] when no step at all was finite; [`Error::SelfCheck`].
    fn finish(mut self) -> Result<PathBuf> {
        if self.counters.non_finite > 0 && self.counters.non_finite == self.state.step {
            return Err(Error::NonFinite { count: self.counters.non_finite });
        }
        if self.run.latest_checkpoint()?.is_none_or(|c| c.step != self.state.step) {
            self.checkpoint()?;
        }
        // A run that is all warm-up teaches nothing by intention.
        let meant_to_learn = (0..self.state.step).any(|step| self.schedule.at(step) > 0.0);
        if self.counters.updates == 0 && meant_to_learn {
            return Err(Error::SelfCheck(
                "nothing was learnt: no step had both a usable row and a gradient, so no model is saved; look at \
                 metrics.jsonl for skipped rows and grad_norm"
                    .into(),
            ));
        }
        if let Some(text) = health::unmoved(&self.run.logged("objective/kl")?) {
            self.note(text)?;
        }
        self.phase("saving");
        self.moved.after(&self.model)?;
        self.run.still_there()?;
        let name = if self.model.adapter().is_some() { "adapter" } else { "model" };
        let dir = self.run.path().join(name);
        into_folder(&dir, || self.save_model_into(&dir))?;
        Ok(dir)
    }
}
