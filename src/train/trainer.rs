//! Training, one step at a time. A run writes the reports of the steps into its folder, see `run.rs`.
//!
//! ```text
//! for t = 0, 1, … T - 1:                                                           Trainer::step, here
//!     rows ← the next rows of the dataset, in an order derived from the seed        batches.rs, order.rs
//!     ∇ℓ(θ) ← depends on the kind of training                                       Method::learn, one file each:
//!         sft    −log π(y | x), mean over completion tokens                         sft.rs, sft_step.rs
//!         dpo    ℓ(x, y⁺, y⁻) of given pairs                                        dpo.rs, pair_trainer.rs, pair_step.rs
//!         reward −log σ(r(x, y⁺) − r(x, y⁻)) of given pairs                         reward.rs, reward_step.rs
//!         align  for t′ up to t + async-level:                                      online.rs
//!                    y₁, y₂ ~ π_θ(· | x)                                            sampler.rs, generate/
//!                    with --active, select those on which π_θ is least sure         active.rs
//!                    submit questions to the judge                                  judge/queue.rs, judge/journal.rs
//!                wait for the judgements of step t; ℓ(x, y⁺, y⁻)                    judging.rs, pair_trainer.rs
//!                or for its ratings r; −Σ A(r) log π(y | x)                         ratings.rs, policy_trainer.rs, policy_loss.rs
//!     θ ← θ − η_t · clip(∇ℓ(θ))                                                     updater.rs, schedule.rs, optim/
//!     every ref-model-sync-steps, if enabled: π₀ ← α π_θ + (1 − α) π₀               moving_reference.rs
//!     report the step                                                               report.rs
//!     every eval-steps and at the end: evaluate on held-out rows                    evaluation.rs, eval/
//! ```

use std::path::Path;
use std::sync::Arc;
use web_time::{Duration, Instant};

use super::batches::Batches;
use super::evaluation::{EvalSample, Evaluation, HeldOutPairs};
use super::identity::{Command, RunIdentity};
use super::moving_reference::MovingReference;
use super::options::TrainOptions;
use super::policy::Policy;
use super::progress::{Observer, Pace};
use super::report::{
    EvaluationReport, HeldOutReport, JudgeReport, PairReport, Phases, PolicyGradientReport, PolicyReport,
    PreferenceReport, RanksReport, RatingReport, ResponseReport, StepReport, Times, hundredths,
};
use super::requests::Requests;
use super::rows::EncodedRows;
use super::schedule::LrSchedule;
use super::state::{Counters, OnlineState, State};
use super::updater::Updater;
use crate::collective::{Exchanged, Ranks};
use crate::error::{Error, Result};
use crate::eval::judging::{Heard, PairVerdict, Watch};
use crate::gpu::{Outputs, Pending};
use crate::judge::Pair;
use crate::model::adapter_storage::ADAPTER_FILE;
use crate::model::safetensors_io::MODEL_FILE;
use crate::model::storage::restore_weights;
use crate::model::{FloatFormat, Model};
use crate::optim::Optimiser;
use crate::task::{Task, unless};

/// The file of the optimiser state in a checkpoint.
const OPTIMISER_FILE: &str = "optimiser.safetensors";

/// The observer of a training and the requests to it.
pub struct Control<'a> {
    /// Receives phases, steps and warnings.
    pub observer: &'a mut dyn Observer,
    /// Requests made while the run is running. If a stop is requested, a step that waits for a remote judge ends at
    /// once with [`crate::Error::Interrupted`], and can be repeated.
    pub requests: &'a Requests,
}

impl Control<'_> {
    /// Whether a stop was requested.
    pub(super) fn stops(&self) -> bool {
        self.requests.stops()
    }
}

/// The part of a step that is specific to a kind of training.
pub(super) trait Method: Send {
    /// The kind of training.
    fn command(&self) -> Command;

    /// Adds to `common` the options that determine the numbers of this method.
    fn identity(&self, common: RunIdentity) -> Result<RunIdentity>;

    /// Rows drawn for each row that a step learns from.
    fn draws(&self) -> usize {
        1
    }

    /// Adds the gradient of the step's loss to that of the policy. After an error, the step can be repeated.
    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>>;

    /// Discards cached results of the reference model after it moved.
    fn reference_moved(&mut self) {}

    /// The state for a checkpoint.
    fn online(&self) -> Option<OnlineState> {
        None
    }

    /// Restores the state from the checkpoint in `dir`.
    fn restore(&mut self, _online: Option<OnlineState>, _dir: &Path) {}

    /// Records answers in the file `path` that would be costly to request again.
    fn keep_journal(&mut self, _path: &Path) -> Result<()> {
        Ok(())
    }

    /// Waits briefly for answers on their way, which would be costly to request again. All ranks must call it.
    fn drain(&mut self) -> Task<'_, ()> {
        Box::pin(async {})
    }

    /// The loss on these rows under the current policy, if they are pairs. The caller clears the gradients that it
    /// adds.
    fn held_out<'t>(&'t mut self, _rows: &'t EncodedRows) -> Task<'t, Result<Option<HeldOutReport>>> {
        Box::pin(async move { Ok(None) })
    }

    /// The judge's verdicts on these pairs, in both orders, see [`judge_pairs`](crate::eval::judging::judge_pairs);
    /// `None` without a judge.
    fn judge<'t>(
        &'t mut self,
        _pairs: &'t [Pair<'t>],
        _seed: u32,
        _watch: &'t mut Watch<'_>,
    ) -> Task<'t, Result<Option<Vec<PairVerdict>>>> {
        Box::pin(async move { Ok(None) })
    }

    /// The reason of the first unusable verdict in this process.
    fn first_invalid(&self) -> Option<&str> {
        None
    }

    /// A warning before the first step.
    fn initial_warning(&self) -> Option<String> {
        None
    }

    /// A warning at the end.
    fn conclusion(&self) -> Option<String> {
        None
    }
}

/// The context of a step.
pub(super) struct Step<'s, 'c> {
    /// The number of steps done before it.
    pub done: usize,
    pub policy: &'s Policy,
    pub rows: &'s EncodedRows,
    pub batches: &'s mut Batches,
    pub control: &'s mut Control<'c>,
    /// The time of each phase.
    pub phases: Phases,
    /// Warnings about the run as a whole.
    pub notes: Vec<String>,
}

impl Step<'_, '_> {
    /// Reports the start of a phase to the observer.
    pub fn begin(&mut self, phase: &str) {
        self.control.observer.phase(phase);
    }

    /// Passes a warning to the observer.
    pub fn warn(&mut self, text: &str) {
        self.control.observer.warning(text);
    }

    /// Passes a warning about the run as a whole to the observer, and keeps it for the step's report.
    pub fn note(&mut self, text: String) {
        self.warn(&text);
        self.notes.push(text);
    }

    /// Adds the time since `started` to a phase.
    pub fn spent(&mut self, phase: &'static str, started: Instant) {
        self.phases.add(phase, milliseconds(started));
    }
}

/// The results of a step: the parts of a report that depend on the kind of training.
pub(super) struct Learnt {
    /// `None` if there was nothing to learn from.
    pub loss: Option<f64>,
    pub preference: Option<PreferenceReport>,
    pub gradient: Option<PolicyGradientReport>,
    pub policy: Option<PolicyReport>,
    pub entropy: Option<f64>,
    pub responses: ResponseReport,
    pub judging: Option<JudgeReport>,
    pub pairs: Vec<PairReport>,
    pub ratings: Vec<RatingReport>,
    /// Tokens processed by the model.
    pub tokens: usize,
}

/// A step whose update was submitted to the GPU.
struct Updating {
    learnt: Learnt,
    /// The outputs of the optimiser's plan, if the loss was finite.
    outputs: Task<'static, Result<Option<Outputs>>>,
    learning_rate: f64,
    phases: Phases,
    notes: Vec<String>,
    started: Instant,
    /// The start of the update.
    began: Instant,
}

/// Stops an evaluation on request. With several ranks, which see a request at different times, the evaluation is
/// completed first.
fn check_stop(requests: &Requests, ranks: &Ranks) -> Result<()> {
    if requests.stops() && ranks.is_alone() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Milliseconds since `started`.
pub(super) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

/// The report on the ranks for a step of `step_ms` milliseconds.
async fn ranks_report(ranks: &Ranks, step_ms: f64) -> Result<Option<RanksReport>> {
    if ranks.is_alone() {
        return Ok(None);
    }
    let Exchanged { milliseconds, bytes } = ranks.take_exchanged();
    let mine = (step_ms - milliseconds).max(0.0);
    let (busy, sent): (Vec<f64>, Vec<u64>) = ranks.gather(Ok((mine, bytes))).await?.into_iter().unzip();
    Ok(Some(RanksReport::new(busy, sent[0])))
}

/// Trains a policy.
pub struct Trainer<'a> {
    policy: Policy,
    options: TrainOptions,
    rows: EncodedRows,
    batches: Batches,
    updater: Updater,
    moving_reference: Option<MovingReference>,
    method: Box<dyn Method + 'a>,
    evaluation: Option<Evaluation>,
    held_out: Option<HeldOutPairs>,
    /// After the last completed step.
    counters: Counters,
    step: usize,
    /// Whether a step has started to add to the gradients.
    learning: bool,
    /// A step whose update was submitted.
    updating: Option<Updating>,
    /// Whether the weights have changed since the last completed step.
    moving: bool,
    /// Whether some, but not all, weights of a checkpoint were restored.
    half_resumed: bool,
    pace: Pace,
    step_ended: Instant,
    requests: Arc<Requests>,
}

impl<'a> Trainer<'a> {
    pub(super) fn new(
        policy: Policy,
        options: TrainOptions,
        rows: EncodedRows,
        optimiser: Optimiser,
        method: Box<dyn Method + 'a>,
    ) -> Result<Trainer<'a>> {
        let batches = Batches::new(&options, rows.len(), method.draws());
        let total_steps = batches.total_steps();
        let schedule = LrSchedule {
            kind: options.schedule,
            warmup_steps: options.warmup_of(total_steps),
            total_steps,
            peak: options.learning_rate,
        };
        Ok(Trainer {
            updater: Updater::new(&policy.model, optimiser, schedule)?,
            policy,
            options,
            rows,
            batches,
            method,
            moving_reference: None,
            evaluation: None,
            held_out: None,
            counters: Counters::default(),
            step: 0,
            learning: false,
            updating: None,
            moving: false,
            half_resumed: false,
            pace: Pace::default(),
            step_ended: Instant::now(),
            requests: Arc::default(),
        })
    }

    /// The current policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the policy at the end of the training.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// The encoded rows.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// Warnings about the rows, above all how many were skipped and why. A run passes them to its observer.
    pub fn warnings(&self) -> Vec<String> {
        self.rows.warnings()
    }

    /// The number of steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// The number of steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.batches.total_steps()
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step >= self.total_steps()
    }

    /// Takes a step; returns `None` when all are done. If the future is dropped, the step has not been taken and the
    /// next call repeats it. If its update was already submitted to the GPU, the next call returns its report.
    /// [`Requests::ask_to_cancel`] of [`Trainer::requests`] has the same effect as dropping the future.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] after 5 steps in a row without a finite loss and gradient; [`crate::Error::Judge`]
    /// if the judge fails or gives too many unusable verdicts; [`crate::Error::Interrupted`] if a stop was requested
    /// while waiting for the judge, and if the step was cancelled; errors of the device. The policy is unchanged, and
    /// the step can be repeated.
    pub async fn step(&mut self) -> Result<Option<StepReport>> {
        let requests = self.requests.clone();
        self.step_with(&mut Control { observer: &mut (), requests: &requests }).await
    }

    /// The requests that [`Trainer::step`] checks. They may be set from another thread. Pauses and checkpoints happen
    /// between steps, so that they are left to the caller.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// Like [`Trainer::step`], with an observer and other requests.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub async fn step_with(&mut self, control: &mut Control<'_>) -> Result<Option<StepReport>> {
        self.check_resumed()?;
        if self.updating.is_none() {
            if self.is_done() {
                return Ok(None);
            }
            let requests = control.requests;
            let learnt = unless(requests.cancelled(), self.learn(control)).await;
            self.updating = Some(learnt.unwrap_or(Err(Error::Interrupted))?);
        }
        self.finish(control).await.map(Some)
    }

    /// Computes the gradient from the next rows, and submits the update.
    async fn learn(&mut self, control: &mut Control<'_>) -> Result<Updating> {
        let started = Instant::now();
        if std::mem::replace(&mut self.learning, true) {
            // Clears gradients of a step that was dropped.
            self.updater.clear()?;
        }
        let mut step = Step {
            done: self.step,
            policy: &self.policy,
            rows: &self.rows,
            batches: &mut self.batches,
            control,
            phases: Phases::default(),
            notes: Vec::new(),
        };
        // After an error, `learning` stays set.
        let learnt = self.method.learn(&mut step).await?;
        let Step { control, mut phases, notes, .. } = step;
        if learnt.loss.is_some_and(f64::is_finite) && !self.options.ranks.is_alone() {
            let started = Instant::now();
            self.updater.sum_gradients(&self.options).await?;
            phases.add("exchange", milliseconds(started));
        }
        // From here on nothing is awaited, so the step cannot be dropped before the update is submitted.
        let (began, learning_rate) = (Instant::now(), self.updater.learning_rate(self.step));
        self.moving = true;
        let update = match learnt.loss {
            Some(loss) => self.updater.submit(loss, learning_rate)?,
            None => {
                control.observer.warning(
                    "this step has nothing to learn from (no usable preference, or no difference between scores): no update",
                );
                None
            }
        };
        self.learning = false;
        // If each rank updates only a part of the weights, the reference is updated when all ranks have the whole.
        let followed = if self.updater.is_sharded() { None } else { self.move_reference()? };
        let outputs: Task<'static, Result<Option<Outputs>>> = Box::pin(async move {
            let outputs = match update {
                Some(update) => Some(update.outputs().await?),
                None => None,
            };
            if let Some(followed) = followed {
                followed.outputs().await?;
            }
            Ok(outputs)
        });
        Ok(Updating { learnt, outputs, learning_rate, phases, notes, started, began })
    }

    /// Submits the update of the reference towards the policy, if one is due after this step.
    fn move_reference(&mut self) -> Result<Option<Pending>> {
        let Some(reference) = self.moving_reference.as_ref().filter(|r| r.is_due(self.step + 1)) else {
            return Ok(None);
        };
        self.method.reference_moved();
        reference.submit().map(Some)
    }

    /// Waits for the update and reports the step.
    async fn finish(&mut self, control: &mut Control<'_>) -> Result<StepReport> {
        let outputs = self.updating.as_mut().expect("begun before").outputs.as_mut().await;
        let updating = self.updating.take().expect("begun before");
        let outputs = outputs?;
        let Updating { learnt, learning_rate, mut phases, notes, started, began, .. } = updating;
        let mut counters = self.counters;
        let update = match learnt.loss {
            Some(_) => {
                let before = counters.non_finite;
                if outputs.is_some() {
                    self.updater.gather_weights().await?;
                }
                let update = self.updater.updated(outputs.as_ref(), learning_rate, &mut counters);
                if counters.non_finite > before {
                    let number = self.step + 1;
                    let text = format!("step {number}: the loss or gradient is not finite, no update");
                    control.observer.warning(&text);
                }
                Some(update?)
            }
            None => None,
        };
        if self.updater.is_sharded()
            && let Some(followed) = self.move_reference()?
        {
            followed.outputs().await?;
        }
        phases.add("update", milliseconds(began));
        counters.num_tokens += learnt.tokens as u64;
        let step_ms = milliseconds(started);
        // Includes the time of checkpoints.
        let seconds = self.step_ended.elapsed().as_secs_f64();
        self.step_ended = Instant::now();
        self.step += 1;
        let ranks = ranks_report(&self.options.ranks, step_ms).await?;
        let report = StepReport {
            step: self.step,
            total_steps: self.batches.total_steps(),
            loss: learnt.loss,
            update,
            preference: learnt.preference,
            gradient: learnt.gradient,
            policy: learnt.policy,
            entropy: learnt.entropy,
            responses: learnt.responses,
            judging: learnt.judging,
            evaluation: None,
            held_out: None,
            epoch: self.batches.epoch(self.step),
            num_tokens: counters.num_tokens,
            non_finite_steps: counters.non_finite,
            times: Times {
                step_ms: hundredths(step_ms),
                tokens_per_second: (learnt.tokens as f64 / (step_ms * 1e-3).max(1e-9)).round(),
                phases,
            },
            ranks,
            device_bytes: self.policy.model.gpu().memory().total,
            pairs: learnt.pairs,
            ratings: learnt.ratings,
            notes,
            seconds_left: self.pace.seconds_left(seconds, self.batches.total_steps() - self.step),
        };
        if report.taught() {
            (counters.idle_in_row, counters.idle_rows_in_row) = (0, 0);
        } else {
            counters.idle_in_row += 1;
            counters.idle_rows_in_row += self.batches.size();
        }
        self.counters = counters;
        self.moving = false;
        Ok(report)
    }

    /// Enables a moving reference.
    pub(super) fn with_moving_reference(self, reference: Option<MovingReference>) -> Trainer<'a> {
        Trainer { moving_reference: reference, ..self }
    }

    /// Enables evaluation on held-out prompts, in runs with a folder.
    pub(super) fn with_evaluation(self, evaluation: Option<Evaluation>) -> Trainer<'a> {
        Trainer { evaluation, ..self }
    }

    /// Enables evaluation on held-out pairs.
    pub(super) fn with_held_out(self, held_out: Option<HeldOutPairs>) -> Trainer<'a> {
        Trainer { held_out, ..self }
    }

    /// The loss on the held-out pairs, if an evaluation is due after the last step.
    pub(super) async fn evaluate_pairs(
        &mut self,
        control: &mut Control<'_>,
    ) -> Result<Option<HeldOutReport>> {
        let total = self.batches.total_steps();
        let Some(pairs) = self.held_out.as_ref().filter(|pairs| pairs.are_due(self.step, total)) else {
            return Ok(None);
        };
        control.observer.phase("evaluating held-out pairs");
        let report = self.method.held_out(&pairs.rows).await;
        self.updater.clear()?;
        report
    }

    /// Leaves a pause out of the time of the current step.
    pub(super) fn leave_out(&mut self, pause: Duration) {
        self.step_ended += pause;
    }

    /// Samples the responses of the starting model to the held-out prompts, if there are any. Must be called before a
    /// step is taken or restored.
    pub(super) async fn begin_evaluation(&mut self, control: &mut Control<'_>) -> Result<()> {
        let Some(evaluation) = &mut self.evaluation else { return Ok(()) };
        control.observer.phase("sampling held-out responses of the starting model");
        let (requests, ranks) = (control.requests, &self.options.ranks);
        evaluation.sample_start(&self.policy, &mut |_| check_stop(requests, ranks)).await
    }

    /// Compares the policy with the starting model on the held-out prompts, if an evaluation is due after the last
    /// step. Also returns some of the responses.
    pub(super) async fn evaluate(
        &mut self,
        control: &mut Control<'_>,
    ) -> Result<Option<(EvaluationReport, Vec<EvalSample>)>> {
        let total = self.batches.total_steps();
        let Some(evaluation) = self.evaluation.as_ref().filter(|e| e.is_due(self.step, total)) else {
            return Ok(None);
        };
        control.observer.phase("sampling held-out responses");
        let (requests, ranks) = (control.requests, &self.options.ranks);
        let responses = evaluation.sample(&self.policy, &mut |_| check_stop(requests, ranks)).await?;
        control.observer.phase("judging held-out prompts");
        let mut watch = |event: Heard<'_>| {
            if let Heard::Note(text) = event {
                control.observer.warning(text);
            }
            check_stop(requests, ranks)
        };
        let pairs = evaluation.pairs(&responses);
        let Some(verdicts) = self.method.judge(&pairs, self.options.seed, &mut watch).await? else {
            return Ok(None);
        };
        let report = evaluation.report(&self.policy, &responses, &verdicts).await?;
        if report.is_none() {
            control
                .observer
                .warning("none of the verdicts on the held-out prompts is usable, so there is no win rate");
        }
        Ok(report.map(|report| (report, evaluation.samples(self.step, &responses, &verdicts))))
    }

    pub(super) fn command(&self) -> Command {
        self.method.command()
    }

    pub(super) fn options(&self) -> &TrainOptions {
        &self.options
    }

    pub(super) fn online_state(&self) -> Option<OnlineState> {
        self.method.online()
    }

    pub(super) fn first_invalid(&self) -> Option<&str> {
        self.method.first_invalid()
    }

    pub(super) fn initial_warning(&self) -> Option<String> {
        self.method.initial_warning()
    }

    /// Whether the reference follows the policy.
    pub(super) fn moves_reference(&self) -> bool {
        self.moving_reference.is_some()
    }

    pub(super) fn conclusion(&self) -> Option<String> {
        self.method.conclusion()
    }

    pub(super) async fn drain(&mut self) {
        self.method.drain().await;
    }

    pub(super) fn keep_journal(&mut self, path: &Path) -> Result<()> {
        self.method.keep_journal(path)
    }

    /// Writes the progress so far into a state.
    pub(super) fn note_in(&self, state: &mut State) {
        state.step = self.step;
        state.counters = self.counters;
        state.online = self.online_state();
    }

    /// Whether the weights are those of a completed step. Otherwise they cannot be saved as a checkpoint.
    pub(super) fn is_between_steps(&self) -> bool {
        !self.moving
    }

    /// Whether a step has started.
    pub(super) fn has_begun(&self) -> bool {
        self.step > 0 || self.learning || self.updating.is_some()
    }

    /// Whether one of the steps done may have changed a weight.
    pub(super) fn could_change_weights(&self) -> bool {
        self.updater.learns_within(self.step)
    }

    /// Everything that determines the numbers of the run.
    pub(super) fn identity(&self) -> Result<RunIdentity> {
        let total_steps = self.batches.total_steps();
        let common =
            RunIdentity::new(self.method.command(), &self.policy, &self.options, &self.rows, total_steps)?;
        let identity = self.method.identity(common)?;
        Ok(match (&self.evaluation, &self.held_out) {
            (Some(evaluation), _) => identity.with_evaluation(evaluation),
            (None, Some(pairs)) => identity.with_held_out(&pairs.rows)?,
            (None, None) => identity,
        })
    }

    /// Writes the weights, those of a moving reference, and the optimiser state into the folder of a checkpoint.
    /// `source` is the folder of the model.
    pub(super) async fn save_into(&self, dir: &Path, source: &Path) -> Result<()> {
        self.save_weights_into(dir, source).await?;
        if let Some(reference) = &self.moving_reference {
            reference.save(dir).await?;
        }
        self.updater.save(Some(&dir.join(OPTIMISER_FILE))).await
    }

    /// Whether rank 0 cannot write a checkpoint without the other ranks.
    pub(super) fn is_sharded(&self) -> bool {
        self.updater.is_sharded()
    }

    /// Sends this rank's part of the optimiser state to rank 0, which writes the checkpoint.
    pub(super) async fn send_state(&self) -> Result<()> {
        if self.is_sharded() { self.updater.save(None).await } else { Ok(()) }
    }

    /// Writes the trained weights into an existing folder.
    pub(super) async fn save_weights_into(&self, dir: &Path, source: &Path) -> Result<()> {
        let model: &Model = &self.policy.model;
        match model.adapter() {
            Some(_) => model.save_adapter_into(dir, source).await,
            None => model.save_into(dir, Some(source), FloatFormat::F32).await,
        }
    }

    /// Resumes from the checkpoint in `dir`, which was written after `step` steps.
    pub(super) fn restore(
        &mut self,
        dir: &Path,
        step: usize,
        counters: Counters,
        online: Option<OnlineState>,
    ) -> Result<()> {
        self.half_resumed = true;
        let model = &self.policy.model;
        let weights_file = if model.adapter().is_some() { ADAPTER_FILE } else { MODEL_FILE };
        restore_weights(model.trained(), &dir.join(weights_file))?;
        if let Some(reference) = &self.moving_reference {
            reference.restore(dir)?;
        }
        self.updater.restore(&dir.join(OPTIMISER_FILE))?;
        self.method.restore(online, dir);
        (self.step, self.counters, self.half_resumed) = (step, counters, false);
        Ok(())
    }

    /// Fails if only a part of a checkpoint was restored.
    pub(super) fn check_resumed(&self) -> Result<()> {
        match self.half_resumed {
            true => {
                let why = "failed and left some weights restored: resume again, or create a new trainer";
                Err(Error::config("resume", why))
            }
            false => Ok(()),
        }
    }
}
