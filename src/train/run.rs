//! A run in its folder. Drives a trainer from the first step, or from a checkpoint, to the end, writes the reports, and
//! checks that the policy learns.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use web_time::{Duration, Instant};

use futures_timer::Delay;
use serde_json::{Value, json};

use super::evaluation::EvalSample;
use super::health;
use super::identity::{Command, RunIdentity, first_difference};
use super::movement::MovementCheck;
use super::report::StepReport;
use super::run_dir::{RunDir, Start, TENSORBOARD};
use super::run_file::RunFile;
use super::state::{Logs, State};
use super::tensorboard::EventFile;
use super::trainer::{Control, Trainer};
use crate::collective::Ranks;
use crate::error::{Error, Result};
use crate::judge::journal::JOURNAL;
use crate::model::storage::into_folder;

/// The interval at which a paused run checks whether it may continue.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// All ranks must have the same version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Sources of a run, for `run.json` and for saving.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The model's folder.
    pub model: PathBuf,
    /// The resolved configuration, an object, as written to `run.json`.
    pub config: Value,
}

/// A run in progress.
pub(super) struct Run<'a, 'c> {
    trainer: Trainer<'a>,
    dir: RunDir,
    file: RunFile,
    model_dir: PathBuf,
    control: Control<'c>,
    tensorboard: Option<EventFile>,
    /// The state after the last logged step.
    state: State,
    /// Steps done before this process started.
    first_step: usize,
    moved: MovementCheck,
    updates_before: usize,
    ranks: Ranks,
}

/// Checks that all ranks have the same settings.
///
/// # Errors
/// [`Error::Config`] for the first option that differs, reported by rank 0.
async fn agree(ranks: &Ranks, identity: &RunIdentity, config: &Value) -> Result<()> {
    let mine = (VERSION.to_owned(), identity.clone(), config.to_string());
    let all: Vec<(String, RunIdentity, String)> = ranks.gather(Ok(mine)).await?;
    for (rank, (version, other, config)) in all.iter().enumerate() {
        let differs = match *version == all[0].0 {
            true => {
                other.difference(&all[0].1).or_else(|| first_difference(common(config), common(&all[0].2)))
            }
            false => Some(("version".to_owned(), json!(version), json!(all[0].0))),
        };
        if let Some((option, there, here)) = differs {
            let why = format!(
                "is {there} on rank {rank} and {here} on rank 0: start all ranks with the same program, flags, model and rows"
            );
            return Err(ranks.found_by_all(Error::config(option, why)));
        }
    }
    Ok(())
}

/// Paths and devices, which may differ between ranks.
const RANK_SPECIFIC: [&str; 8] =
    ["model", "adapter", "dataset", "eval-dataset", "judge-model", "judge-adapter", "output-dir", "gpu"];

/// The flags that must be the same on all ranks.
fn common(config: &str) -> BTreeMap<String, Value> {
    let mut flags: BTreeMap<String, Value> = serde_json::from_str(config).unwrap_or_default();
    flags.retain(|name, _| !RANK_SPECIFIC.contains(&name.as_str()));
    flags
}

/// Trains in the folder of the trainer's options. Returns the folder of the saved model or adapter.
///
/// # Errors
/// [`Error::Config`] for changes that are not allowed, and for a configuration that is not an object; errors of the
/// folder or the checkpoint; errors of a step, after a checkpoint of the steps done; see [`Run::finish`].
pub(super) async fn run(trainer: Trainer<'_>, sources: Sources, control: Control<'_>) -> Result<PathBuf> {
    let mut run = Run::begin(trainer, sources, control).await?;
    let ended = match run.all_steps().await {
        Ok(()) => run.finish().await,
        Err(error) => Err(run.end_after_error(error).await),
    };
    ended.inspect_err(|error| run.record(error))
}

impl<'a, 'c> Run<'a, 'c> {
    /// Opens the run folder and resumes from a checkpoint if the options say so.
    async fn begin(mut trainer: Trainer<'a>, sources: Sources, control: Control<'c>) -> Result<Run<'a, 'c>> {
        let options = trainer.options().clone();
        let (identity, ranks) = (trainer.identity()?, options.ranks.clone());
        agree(&ranks, &identity, &sources.config).await?;
        identity.check_names(&options.allow_changes)?;
        if !sources.config.is_object() && !sources.config.is_null() {
            return Err(Error::config("config", "is not a JSON object"));
        }
        let total_steps = trainer.total_steps();
        let limit = options.save_total_limit.and_then(NonZeroUsize::new);
        let mut control = control;
        let Some(output_dir) = &options.output_dir else {
            return Err(Error::config("output-dir", "is missing: set the folder of the run"));
        };
        let mut dir = RunDir::create(output_dir, &options.start(), limit)?;
        let gpu = trainer.policy().model.gpu().clone();
        trainer.begin_evaluation(&mut control).await?;
        let state = match dir.resumed().cloned() {
            None => {
                if matches!(options.start(), Start::Resume(_)) {
                    dir.truncate_to_step(0, Logs::default())?;
                }
                State::new(identity, gpu.tuning())
            }
            Some(checkpoint) => {
                let mut state = State::read(&checkpoint.path)?.into_resumed(
                    identity,
                    &options.allow_changes,
                    total_steps,
                )?;
                match dir.resumes_itself() {
                    true => dir.truncate_to_step(state.step, state.logs)?,
                    false => {
                        state.logs = Logs { after_step: state.step, pairs: 0 };
                        // The evaluation and the warnings belong to the other run. Biases of the judge are reported again.
                        state.owes_evaluation = false;
                        state.warnings.clear();
                        state.online.iter_mut().for_each(|online| online.reported_habits.clear());
                    }
                }
                trainer.restore(&checkpoint.path, state.step, state.counters, state.online.clone())?;
                state
            }
        };
        if !gpu.tuning().keeps(&state.kernels) {
            control.observer.warning(
                "this device does not support the kernels with which the checkpoint was computed: the run continues with others, \
                 and its numbers may differ in their last digits",
            );
        }
        let owes_evaluation = ranks.lead(Ok(state.owes_evaluation)).await?;
        let state = State { kernels: gpu.tuning(), owes_evaluation, ..state };
        let file = RunFile::new(&sources.config, &state, &trainer);
        let mut run = Run {
            dir,
            file,
            model_dir: sources.model,
            tensorboard: None,
            control,
            first_step: state.step,
            updates_before: state.counters.updates,
            state,
            moved: MovementCheck::before(&trainer.policy().model).await?,
            trainer,
            ranks,
        };
        run.write_file()?;
        Ok(run)
    }

    /// Opens the journal of the judge's answers, and gives the warnings that are due before the first step.
    fn announce(&mut self) -> Result<()> {
        let journal = self.dir.path().join(JOURNAL);
        self.trainer.keep_journal(&journal)?;
        if self.first_step > 0 && self.trainer.is_done() && !self.state.owes_evaluation {
            let total_steps = self.trainer.total_steps();
            self.warn(&format!("all {total_steps} steps of this run are done: raise max-steps to continue"));
        }
        self.warn_of_rows()?;
        match self.trainer.initial_warning() {
            Some(text) => self.note(text),
            None => Ok(()),
        }
    }

    /// Makes up for an evaluation that the previous process did not finish, and passes the logged rows to the observer.
    async fn catch_up(&mut self) -> Result<()> {
        if self.state.owes_evaluation {
            let (evaluation, samples) = self.trainer.evaluate(&mut self.control).await?.unzip();
            let held_out = json!(self.trainer.evaluate_pairs(&mut self.control).await?);
            self.dir.add_to_metrics(self.state.step, &[json!(evaluation), held_out])?;
            self.keep_samples(samples.as_deref())?;
            self.state.owes_evaluation = false;
        }
        if self.trainer.options().tensorboard {
            self.tensorboard = Some(EventFile::create(&self.dir.path().join(TENSORBOARD))?);
        }
        self.dir.for_each_logged(|row| {
            self.control.observer.logged(row);
            self.tensorboard.as_mut().map_or(Ok(()), |events| events.append(row))
        })
    }

    /// Completes the work that the previous process left unfinished, and takes all remaining steps. Each is logged as soon as it is
    /// done.
    async fn all_steps(&mut self) -> Result<()> {
        self.announce()?;
        self.catch_up().await?;
        loop {
            self.pause().await?;
            let Some(mut report) = self.trainer.step_with(&mut self.control).await? else { return Ok(()) };
            // A step is logged even if its evaluation fails.
            let evaluated = self.trainer.evaluate(&mut self.control).await;
            let held_out = self.trainer.evaluate_pairs(&mut self.control).await;
            self.state.owes_evaluation = evaluated.is_err() || held_out.is_err();
            let evaluation = evaluated.as_ref().ok().and_then(Option::as_ref);
            report.evaluation = evaluation.map(|(evaluation, _)| *evaluation);
            report.held_out = *held_out.as_ref().unwrap_or(&None);
            self.keep_samples(evaluation.map(|(_, samples)| samples.as_slice()))?;
            self.log(&report).await?;
            evaluated?;
            held_out?;
        }
    }

    /// Writes the samples of an evaluation into the run's folder.
    fn keep_samples(&mut self, samples: Option<&[EvalSample]>) -> Result<()> {
        match samples.filter(|_| self.ranks.leads()) {
            Some(samples) => self.dir.write_eval_samples(samples),
            None => Ok(()),
        }
    }

    /// Waits while a pause is requested.
    async fn pause(&mut self) -> Result<()> {
        let requests = self.control.requests;
        let mut since: Option<Instant> = None;
        loop {
            // All ranks pause and continue together.
            let own = (requests.pauses(), requests.stops(), since.is_some() && requests.take_save());
            let all: Vec<(bool, bool, bool)> = self.ranks.gather(Ok(own)).await?;
            let stops = all.iter().any(|(_, stops, _)| *stops);
            let pauses = all.iter().any(|(pauses, ..)| *pauses) && !stops;
            if all.iter().any(|(.., saves)| *saves) && self.state.step > self.first_step {
                self.checkpoint().await?;
            }
            if !pauses {
                since.iter().for_each(|since| self.trainer.leave_out(since.elapsed()));
                return Ok(());
            }
            if since.is_none() {
                since = Some(Instant::now());
                self.control.observer.phase("paused");
            }
            Delay::new(CHECK_INTERVAL).await;
        }
    }

    /// Writes the rows of a step, and a checkpoint if one is due.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the checkpoint, if a stop was requested; [`Error::SelfCheck`] after many steps in a
    /// row without learning.
    async fn log(&mut self, report: &StepReport) -> Result<()> {
        if !report.notes.is_empty() {
            self.file.warnings.extend(report.notes.iter().cloned());
            self.write_file()?;
        }
        self.dir.append_pairs(&report.pairs)?;
        self.dir.append_pairs(&report.ratings)?;
        self.dir.append_metrics(report)?;
        if let Some(events) = &mut self.tensorboard {
            events.append(&json!(report))?;
        }
        self.trainer.note_in(&mut self.state);
        self.state.warnings.extend(report.notes.iter().cloned());
        self.state.logs.pairs += report.pairs.len() + report.ratings.len();
        self.control.observer.step(report);
        let own = (self.control.stops(), self.control.requests.take_save());
        let all: Vec<(bool, bool)> = self.ranks.gather(Ok(own)).await?;
        let interrupted = all.iter().any(|(stops, _)| *stops) && !self.trainer.is_done();
        let save_requested = all.iter().any(|(_, saves)| *saves);
        let due = save_requested
            || self.trainer.options().save_steps.is_some_and(|n| report.step.is_multiple_of(n));
        if due || interrupted {
            self.checkpoint().await?;
        }
        if interrupted {
            return Err(Error::Interrupted);
        }
        self.check_learning()
    }

    /// Fails after many steps in a row without learning.
    fn check_learning(&self) -> Result<()> {
        let counters = self.state.counters;
        let mostly_idle = self.trainer.is_done() && 2 * counters.idle_in_row > self.state.step;
        match health::idle(
            self.trainer.command(),
            counters.idle_in_row,
            counters.idle_rows_in_row,
            mostly_idle,
        ) {
            Some(why) => Err(self.nothing_learnt(&why)),
            None => Ok(()),
        }
    }

    /// The error of a run that does not learn.
    fn nothing_learnt(&self, why: &str) -> Error {
        let invalid = self.trainer.first_invalid();
        let invalid = invalid.map_or(String::new(), |why| format!("; the first unusable verdict: {why}"));
        Error::SelfCheck(format!("{why}{invalid}"))
    }

    /// Warns about the rows of the dataset, and records the important warnings in `run.json`.
    fn warn_of_rows(&mut self) -> Result<()> {
        let rows = self.trainer.rows();
        // If most rows are skipped, the warning concerns the run as a whole.
        let noted = rows.table().skipped().filter(|_| rows.table().skipped_rows() > rows.len());
        for warning in rows.warnings() {
            match noted.as_ref() == Some(&warning) {
                true => self.note(warning)?,
                false => self.warn(&warning),
            }
        }
        Ok(())
    }

    fn warn(&mut self, text: &str) {
        self.control.observer.warning(text);
    }

    /// Warns about the run as a whole. `run.json` stores the warning for the report.
    fn note(&mut self, text: String) -> Result<()> {
        self.warn(&text);
        self.file.warnings.push(text);
        self.write_file()
    }

    fn write_file(&mut self) -> Result<()> {
        self.dir.write_run(&self.file)
    }

    async fn checkpoint(&mut self) -> Result<()> {
        if !self.ranks.leads() {
            return self.trainer.send_state().await;
        }
        self.control.observer.phase("saving");
        // Kernel tiles are chosen while plans are recorded, so they may be new.
        let kernels = self.trainer.policy().model.gpu().tuning();
        if self.state.kernels != kernels {
            self.file.kernels = Some(kernels.clone());
            self.state.kernels = kernels;
            self.write_file()?;
        }
        let pending = self.dir.begin_checkpoint(self.state.step)?;
        self.trainer.save_into(pending.path(), &self.model_dir).await?;
        self.state.write(pending.path())?;
        self.dir.commit(pending)?;
        Ok(())
    }

    /// Whether there is a checkpoint of the last step.
    fn is_saved(&self) -> Result<bool> {
        Ok(self.dir.latest_checkpoint()?.is_some_and(|last| last.step == self.state.step))
    }

    /// Saves the steps done before an error. Returns the error to report.
    async fn end_after_error(&mut self, error: Error) -> Error {
        // Otherwise an error that follows from this one would be reported.
        if let Err(gone) = self.dir.check_exists() {
            return gone;
        }
        // After a requested stop, all ranks end together. After another error, the other ranks no longer respond.
        let together = self.ranks.is_alone() || matches!(error, Error::Interrupted);
        if together {
            self.trainer.drain().await;
        }
        let saved = self.is_saved();
        let saved = if together { self.ranks.lead(saved).await } else { saved }.unwrap_or_default();
        // If a step could not be logged, the weights are those after it, but the logs end before it.
        let is_logged = self.trainer.steps_done() == self.state.step;
        let whole = is_logged && self.trainer.is_between_steps() && (together || !self.trainer.is_sharded());
        if whole && (together || self.ranks.leads()) && self.state.step > self.first_step && !saved {
            // Only the first error is reported.
            let _ = self.checkpoint().await;
        }
        if matches!(error, Error::Judge { .. }) && self.control.stops() {
            self.warn(&error.to_string());
            return Error::Interrupted;
        }
        error
    }

    /// Records in `run.json` the error that ended the run, unless it was interrupted.
    fn record(&mut self, error: &Error) {
        if !matches!(error, Error::Interrupted) && self.dir.check_exists().is_ok() {
            self.file.error = Some(error.to_string());
            // Only the first error is reported.
            let _ = self.write_file();
        }
    }

    /// The warning for a policy that did not change.
    fn unchanged(&self) -> Result<Option<String>> {
        let logged = |metric: &str| self.dir.logged(metric);
        Ok(match self.trainer.command() {
            // A policy stays near a reference that follows it.
            _ if self.trainer.moves_reference() => None,
            Command::Align => health::unchanged_policy(&logged("objective/kl")?),
            Command::Dpo => {
                let beta = logged("beta")?.last().copied().unwrap_or(f64::NAN);
                health::unchanged_on_pairs(&logged("objective/kl")?, &logged("rewards/margins")?, beta)
            }
            Command::Sft | Command::Reward => None,
        })
    }

    /// Saves a last checkpoint, checks that training changed the trained weights and no others, and saves the model
    /// (`model/`) or the adapter (`adapter/`).
    ///
    /// # Errors
    /// [`Error::NonFinite`] if no step was finite, or the last ones were not; [`Error::SelfCheck`].
    async fn finish(&mut self) -> Result<PathBuf> {
        // A run that ended with this error may be resumed when all its steps are done.
        self.check_learning()?;
        if let Some(text) = self.trainer.conclusion() {
            self.note(text)?;
        }
        let counters = self.state.counters;
        let at_end = counters.non_finite_in_row;
        if at_end > 1 || (at_end > 0 && at_end == self.state.step) {
            return Err(Error::NonFinite { count: at_end });
        }
        if at_end == 1 {
            let text = "the loss or gradient of the last step is not finite: test the model before using it";
            self.note(text.into())?;
        }
        if !self.ranks.lead(self.is_saved()).await? {
            self.checkpoint().await?;
        }
        if counters.updates == 0 && self.trainer.could_change_weights() {
            return Err(self.nothing_learnt(
                "nothing was learnt: no step had both a usable row and a gradient, so no model is saved; check \
                 metrics.jsonl for skipped rows and grad_norm",
            ));
        }
        if let Some(text) = self.unchanged()? {
            self.note(text)?;
        }
        self.control.observer.phase("saving");
        self.moved.after(&self.trainer.policy().model, counters.updates > self.updates_before).await?;
        self.dir.check_exists()?;
        let name = if self.trainer.policy().model.adapter().is_some() { "adapter" } else { "model" };
        let dir = self.dir.path().join(name);
        let saved = match self.ranks.leads() {
            true => into_folder(&dir, self.trainer.save_weights_into(&dir, &self.model_dir)).await,
            false => Ok(()),
        };
        self.ranks.gather(saved).await?;
        Ok(dir)
    }
}
