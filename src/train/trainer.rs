//! Training, a step at a time. What a run writes into its folder is made of the reports of its steps, see `run.rs`.
//!
//! ```text
//! for t = 0, 1, … T - 1:                                                           Trainer::step, here
//!     rows ← the next ones of the dataset, in an order drawn from the seed          batches.rs, order.rs
//!     ∇ℓ(θ) ← what the kind of training makes of them                               Method::learn, one file a kind:
//!         sft    −log π(y | x), mean over completion tokens                         sft.rs, sft_step.rs
//!         dpo    ℓ(x, y⁺, y⁻) of given pairs                                        dpo.rs, pair_trainer.rs, pair_step.rs
//!         reward −log σ(r(x, y⁺) − r(x, y⁻)) of given pairs                         reward.rs, reward_step.rs
//!         align  for t′ up to t + async-level:                                      online.rs
//!                    y₁, y₂ ~ π_θ(· | x)                                            sampler.rs, generate/
//!                    with --active, those on which π_θ is least sure                active.rs
//!                    ask the judge which is better                              judge/queue.rs, judge/journal.rs
//!                wait for the judgements of step t; ℓ(x, y⁺, y⁻)                    judging.rs, pair_trainer.rs
//!                or for its ratings r; −Σ A(r) log π(y | x)                         ratings.rs, policy_trainer.rs, policy_loss.rs
//!     θ ← θ − η_t · clip(∇ℓ(θ))                                                     updater.rs, schedule.rs, optim/
//!     every ref-model-sync-steps, if asked for: π₀ ← α π_θ + (1 − α) π₀             moving_reference.rs
//!     report what happened                                                          report.rs
//!     every eval-steps, at the end: held-out rows, which change nothing             evaluation.rs, eval/
//! ```

use std::path::Path;
use std::sync::Arc;
use web_time::Instant;

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

/// The optimiser's state in a checkpoint.
const OPTIMISER_FILE: &str = "optimiser.safetensors";

/// Whom training reports to and who may stop it.
pub struct Control<'a> {
    /// Hears of phases, steps and warnings.
    pub observer: &'a mut dyn Observer,
    /// What somebody asks for meanwhile. A step that waits for a judge elsewhere ends at once where the end is asked for,
    /// with [`crate::Error::Interrupted`], and can be taken again.
    pub requests: &'a Requests,
}

impl Control<'_> {
    /// Whether somebody asked for an end.
    pub(super) fn stops(&self) -> bool {
        self.requests.stops()
    }
}

/// What a kind of training does in a step.
pub(super) trait Method: Send {
    /// What it is called.
    fn command(&self) -> Command;

    /// `common` with what decides its numbers besides.
    fn identity(&self, common: RunIdentity) -> Result<RunIdentity>;

    /// Rows that a step takes for each that it learns from.
    fn draws(&self) -> usize {
        1
    }

    /// Adds the gradient of the step's loss to the policy's. After an error the step can be taken again.
    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>>;

    /// Forgets what the reference said before it moved.
    fn reference_moved(&mut self) {}

    /// What a checkpoint keeps of it.
    fn online(&self) -> Option<OnlineState> {
        None
    }

    /// Goes on with what the checkpoint in `dir` kept.
    fn restore(&mut self, _online: Option<OnlineState>, _dir: &Path) {}

    /// Writes down in the file `path` what cannot be had again for nothing.
    fn keep_journal(&mut self, _path: &Path) -> Result<()> {
        Ok(())
    }

    /// Waits a little for what is on its way and would have to be paid for again: where there are several ranks, on all of them.
    fn drain(&mut self) -> Task<'_, ()> {
        Box::pin(async {})
    }

    /// The loss of these rows under the policy as it is, where they are pairs. Gradients that it adds are forgotten.
    fn held_out<'t>(&'t mut self, _rows: &'t EncodedRows) -> Task<'t, Result<Option<HeldOutReport>>> {
        Box::pin(async move { Ok(None) })
    }

    /// What its judge says of these pairs, in both orders, see [`judge_pairs`](crate::eval::judging::judge_pairs);
    /// `None` without a judge.
    fn judge<'t>(
        &'t mut self,
        _pairs: &'t [Pair<'t>],
        _seed: u32,
        _watch: &'t mut Watch<'_>,
    ) -> Task<'t, Result<Option<Vec<PairVerdict>>>> {
        Box::pin(async move { Ok(None) })
    }

    /// Why the first unusable verdict is, of those that this process heard.
    fn first_invalid(&self) -> Option<&str> {
        None
    }

    /// What the user should know before the first step.
    fn caution(&self) -> Option<String> {
        None
    }

    /// What the user should know at the end.
    fn conclusion(&self) -> Option<String> {
        None
    }
}

/// What a step has at hand.
pub(super) struct Step<'s, 'c> {
    /// Steps done before it.
    pub done: usize,
    pub policy: &'s Policy,
    pub rows: &'s EncodedRows,
    pub batches: &'s mut Batches,
    pub control: &'s mut Control<'c>,
    /// Where its time went.
    pub phases: Phases,
    /// What its user should know of the run as a whole.
    pub notes: Vec<String>,
}

impl Step<'_, '_> {
    /// Tells the observer that a part of the step begins.
    pub fn begin(&mut self, phase: &str) {
        self.control.observer.phase(phase);
    }

    /// Tells the observer.
    pub fn warn(&mut self, text: &str) {
        self.control.observer.warning(text);
    }

    /// Tells the observer something about the run as a whole, which the step's report keeps.
    pub fn note(&mut self, text: String) {
        self.warn(&text);
        self.notes.push(text);
    }

    /// Counts the time since `started` for a phase.
    pub fn spent(&mut self, phase: &'static str, started: Instant) {
        self.phases.add(phase, milliseconds(started));
    }
}

/// What a step learnt: all of a report that the kinds of training have for themselves.
pub(super) struct Learnt {
    /// `None` when there was nothing to learn from.
    pub loss: Option<f64>,
    pub preference: Option<PreferenceReport>,
    pub gradient: Option<PolicyGradientReport>,
    pub policy: Option<PolicyReport>,
    pub entropy: Option<f64>,
    pub responses: ResponseReport,
    pub judging: Option<JudgeReport>,
    pub pairs: Vec<PairReport>,
    pub ratings: Vec<RatingReport>,
    /// That went through the model.
    pub tokens: usize,
}

/// A step that has learnt, and whose update is with the GPU.
struct Updating {
    learnt: Learnt,
    /// Of the optimiser's plan, where the loss was finite.
    outputs: Task<'static, Result<Option<Outputs>>>,
    learning_rate: f64,
    phases: Phases,
    notes: Vec<String>,
    started: Instant,
    /// When the update began.
    began: Instant,
}

/// Ends an evaluation where somebody asked for it. Several ranks hear of it at different times: they end after the evaluation.
fn go_on(requests: &Requests, ranks: &Ranks) -> Result<()> {
    if requests.stops() && ranks.is_alone() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Milliseconds since `started`.
pub(super) fn milliseconds(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

/// What the ranks did in a step of so many milliseconds.
async fn ranks_report(ranks: &Ranks, step_ms: f64) -> Result<Option<RanksReport>> {
    if ranks.is_alone() {
        return Ok(None);
    }
    let Exchanged { milliseconds, bytes } = ranks.take_exchanged();
    let mine = (step_ms - milliseconds).max(0.0);
    let (busy, sent): (Vec<f64>, Vec<u64>) = ranks.gather(Ok((mine, bytes))).await?.into_iter().unzip();
    Ok(Some(RanksReport::new(busy, sent[0])))
}

/// A policy in training.
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
    /// As they were when the last step was done.
    counters: Counters,
    step: usize,
    /// Whether a step has begun to add to the gradients.
    learning: bool,
    /// A step that has learnt.
    updating: Option<Updating>,
    /// Whether the weights have moved since.
    moving: bool,
    /// Whether it has some of a checkpoint's weights and not all.
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

    /// The policy as it is now.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy, at the end.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// The encoded rows.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// What its user should know of the rows, a sentence each: how many were left out and why, above all. A run tells its
    /// observer.
    pub fn warnings(&self) -> Vec<String> {
        self.rows.warnings()
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.batches.total_steps()
    }

    /// Whether every step is done.
    pub fn is_done(&self) -> bool {
        self.step >= self.total_steps()
    }

    /// Takes a step; `None` when all are done. A step whose future is dropped has not been taken, and the next call takes it; where
    /// its update was with the GPU already, the next call gives its report. [`Requests::ask_to_cancel`] of
    /// [`Trainer::requests`] does as dropping it does.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`] after 5 steps in a row without a finite loss and gradient; [`crate::Error::Judge`] where one cannot
    /// go on, or gives too many unusable verdicts; [`crate::Error::Interrupted`] where the judge was awaited when somebody asked
    /// for an end, and where the step was cancelled; what the device reports. The policy is as it was before the step, which can be taken again.
    pub async fn step(&mut self) -> Result<Option<StepReport>> {
        let requests = self.requests.clone();
        self.step_with(&mut Control { observer: &mut (), requests: &requests }).await
    }

    /// What [`Trainer::step`] heeds, which another thread may hold. A pause, or a checkpoint, is between two steps: whoever
    /// takes them sees to it.
    pub fn requests(&self) -> Arc<Requests> {
        self.requests.clone()
    }

    /// Takes a step that tells an observer of its parts, and heeds these requests.
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

    /// Learns from the next rows, and submits the update.
    async fn learn(&mut self, control: &mut Control<'_>) -> Result<Updating> {
        let started = Instant::now();
        if std::mem::replace(&mut self.learning, true) {
            // What a step that was dropped has added must not be learnt from.
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
        // Where this fails, `learning` stays.
        let learnt = self.method.learn(&mut step).await?;
        let Step { control, mut phases, notes, .. } = step;
        if learnt.loss.is_some_and(f64::is_finite) && !self.options.ranks.is_alone() {
            let started = Instant::now();
            self.updater.sum_gradients(&self.options).await?;
            phases.add("exchange", milliseconds(started));
        }
        // From here on nothing is awaited: the step is taken.
        let (began, learning_rate) = (Instant::now(), self.updater.learning_rate(self.step));
        self.moving = true;
        let update = match learnt.loss {
            Some(loss) => self.updater.submit(loss, learning_rate)?,
            None => {
                control.observer.warning("nothing to learn from in this step, no usable preference or no difference of scores: no update");
                None
            }
        };
        self.learning = false;
        // Where ranks update a part of the weights each, it follows once all have them.
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

    /// Begins to move the reference towards the policy, where that is due after this step.
    fn move_reference(&mut self) -> Result<Option<Pending>> {
        let Some(reference) = self.moving_reference.as_ref().filter(|r| r.is_due(self.step + 1)) else {
            return Ok(None);
        };
        self.method.reference_moved();
        reference.submit().map(Some)
    }

    /// Waits for the update, and reports the step.
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
        // Checkpoints take their time too.
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

    /// Moves the reference after every so many steps.
    pub(super) fn with_moving_reference(self, reference: Option<MovingReference>) -> Trainer<'a> {
        Trainer { moving_reference: reference, ..self }
    }

    /// Evaluates the policy from time to time, where a run has a folder.
    pub(super) fn with_evaluation(self, evaluation: Option<Evaluation>) -> Trainer<'a> {
        Trainer { evaluation, ..self }
    }

    /// The same, on pairs.
    pub(super) fn with_held_out(self, held_out: Option<HeldOutPairs>) -> Trainer<'a> {
        Trainer { held_out, ..self }
    }

    /// The loss of the held-out pairs, where it is due after the last step.
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

    /// Draws the start's answers to the held-out prompts, if there are any: before a step is done or restored.
    pub(super) async fn begin_evaluation(&mut self, control: &mut Control<'_>) -> Result<()> {
        let Some(evaluation) = &mut self.evaluation else { return Ok(()) };
        control.observer.phase("answering held-out prompts as the start");
        let (requests, ranks) = (control.requests, &self.options.ranks);
        evaluation.answer_as_start(&self.policy, &mut |_| go_on(requests, ranks)).await
    }

    /// The policy on the held-out prompts against the start, where that is due after the last step, and some of the responses.
    pub(super) async fn evaluate(
        &mut self,
        control: &mut Control<'_>,
    ) -> Result<Option<(EvaluationReport, Vec<EvalSample>)>> {
        let total = self.batches.total_steps();
        let Some(evaluation) = self.evaluation.as_ref().filter(|e| e.is_due(self.step, total)) else {
            return Ok(None);
        };
        control.observer.phase("answering held-out prompts");
        let (requests, ranks) = (control.requests, &self.options.ranks);
        let answers = evaluation.answer(&self.policy, &mut |_| go_on(requests, ranks)).await?;
        control.observer.phase("judging held-out prompts");
        let mut watch = |heard: Heard<'_>| {
            if let Heard::Note(text) = heard {
                control.observer.warning(text);
            }
            go_on(requests, ranks)
        };
        let pairs = evaluation.pairs(&answers);
        let Some(verdicts) = self.method.judge(&pairs, self.options.seed, &mut watch).await? else {
            return Ok(None);
        };
        let report = evaluation.report(&self.policy, &answers, &verdicts).await?;
        if report.is_none() {
            control.observer.warning("no verdict on the held-out prompts is usable: there is no win rate");
        }
        Ok(report.map(|report| (report, evaluation.samples(self.step, &answers, &verdicts))))
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

    pub(super) fn caution(&self) -> Option<String> {
        self.method.caution()
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

    /// Notes in a state what was done so far.
    pub(super) fn note_in(&self, state: &mut State) {
        state.step = self.step;
        state.counters = self.counters;
        state.online = self.online_state();
    }

    /// Whether the weights are those of a step that is done: else they are no checkpoint.
    pub(super) fn is_between_steps(&self) -> bool {
        !self.moving
    }

    /// Whether a step has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.step > 0 || self.learning || self.updating.is_some()
    }

    /// Whether one of the steps done may have changed a weight.
    pub(super) fn meant_to_learn(&self) -> bool {
        self.updater.learns_within(self.step)
    }

    /// All that decides the run's numbers.
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

    /// Writes weights, those of a moving reference and optimiser into the folder of a checkpoint; `source` is the folder of the model.
    pub(super) async fn save_into(&self, dir: &Path, source: &Path) -> Result<()> {
        self.save_weights_into(dir, source).await?;
        if let Some(reference) = &self.moving_reference {
            reference.save(dir).await?;
        }
        self.updater.save(Some(&dir.join(OPTIMISER_FILE))).await
    }

    /// Whether rank 0 cannot write a checkpoint by itself.
    pub(super) fn is_sharded(&self) -> bool {
        self.updater.is_sharded()
    }

    /// Sends what rank 0 writes into a checkpoint and does not have.
    pub(super) async fn send_state(&self) -> Result<()> {
        if self.is_sharded() { self.updater.save(None).await } else { Ok(()) }
    }

    /// Writes what is trained into a folder that is there.
    pub(super) async fn save_weights_into(&self, dir: &Path, source: &Path) -> Result<()> {
        let model: &Model = &self.policy.model;
        match model.adapter() {
            Some(_) => model.save_adapter_into(dir, source).await,
            None => model.save_into(dir, Some(source), FloatFormat::F32).await,
        }
    }

    /// Goes on from the checkpoint in `dir`, which was written after `step` steps.
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

    /// Refuses to go on from weights that are partly a checkpoint's.
    pub(super) fn check_resumed(&self) -> Result<()> {
        match self.half_resumed {
            true => Err(Error::config("resume", "has failed half-way: resume again, or begin a new trainer")),
            false => Ok(()),
        }
    }
}
