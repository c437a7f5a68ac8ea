//! Online AI feedback: prompts → samples of the current policy → judge → loss → update (Guo et al. 2024, arXiv
//! 2402.04792, see the crate's documentation). With scores instead of preferences, it is online reinforcement learning.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use web_time::{Duration, Instant};

use super::active;
use super::batches::Draws;
use super::checkpoint::STATE;
use super::habits::Habit;
use super::identity::{Command, RunIdentity};
use super::judging::{Choice, Choosing, Games, Judging, VerdictTotals};
use super::options::AlignOptions;
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy_trainer::{PolicyTrainer, RatedGroup};
use super::ratings::Ratings;
use super::report::{JudgeReport, PairReport, RatingReport};
use super::sampler::{Sampled, Sampler, response_report};
use super::state::OnlineState;
use super::trainer::{Learnt, Method, Step, milliseconds};
use crate::collective::Ranks;
use crate::data::packing::Tree;
use crate::error::{Error, Result};
use crate::eval::judging::{Heard, PairVerdict, Watch, judge_pairs};
use crate::generate::{Response, SamplingParams};
use crate::judge::journal::Journalled;
use crate::judge::queue::{Answer, JudgeQueue, Question, Usage};
use crate::judge::shared::Shared;
use crate::judge::{Counts, Pair, Position};
use crate::preference::Objective;
use crate::task::{Task, yield_now};

/// The interval at which a waiting step checks for a requested stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long the judge's open answers are still awaited after a requested stop.
const GRACE: Duration = Duration::from_secs(2);

/// The training method for the responses of a step.
pub(super) enum Learner {
    /// A loss on the preferred response against another.
    Pairs { trainer: Box<PairTrainer>, loss: Objective },
    /// A policy gradient on the scores of all responses.
    Policy(Box<PolicyTrainer>),
}

/// Online training on a judge's verdicts about the policy's own responses.
pub(super) struct Online<'a> {
    learner: Learner,
    sampler: Sampler,
    options: AlignOptions,
    judge: Journalled<'a>,
    /// The sampled steps whose questions are with the judge, in their order.
    open: VecDeque<Arc<OpenStep>>,
    /// Whether the judge has lost the open questions.
    questions_lost: bool,
    /// The responses of the next steps restored from a checkpoint, and its folder.
    kept: VecDeque<Sampled>,
    kept_in: PathBuf,
    verdicts: VerdictTotals,
    judges_by_rule: bool,
    /// The reason of the first unusable verdict.
    first_invalid: Option<String>,
    /// The biases of the judge that were reported.
    reported_habits: BTreeSet<Habit>,
    /// Both, including the current step, which may have to be repeated.
    counted: Option<Counted>,
    ranks: Ranks,
}

/// The totals including a step's verdicts.
struct Counted {
    verdicts: VerdictTotals,
    reported_habits: BTreeSet<Habit>,
}

/// A sampled step that has not been learnt from.
struct OpenStep {
    /// The rows of the dataset.
    rows: Vec<usize>,
    /// The prompts as text.
    prompts: Vec<String>,
    sampled: Sampled,
    pending: PendingQuestions,
}

/// The questions to the judge about the responses of a step.
enum PendingQuestions {
    /// Which of two responses is better.
    Pairs(Games),
    /// How good each response is.
    Ratings(Ratings),
}

impl PendingQuestions {
    fn questions(&self) -> Vec<Question> {
        match self {
            PendingQuestions::Pairs(games) => games.questions(),
            PendingQuestions::Ratings(ratings) => ratings.questions(),
        }
    }

    fn take(&mut self, answer: &Answer) -> bool {
        match self {
            PendingQuestions::Pairs(games) => games.take(answer),
            PendingQuestions::Ratings(ratings) => ratings.take(answer),
        }
    }

    fn is_answered(&self) -> bool {
        match self {
            PendingQuestions::Pairs(games) => games.are_over(),
            PendingQuestions::Ratings(ratings) => ratings.are_over(),
        }
    }
}

impl<'a> Online<'a> {
    pub fn new(
        learner: Learner,
        sampler: Sampler,
        options: AlignOptions,
        queue: Box<dyn JudgeQueue + 'a>,
        ranks: Ranks,
    ) -> Online<'a> {
        let judge = Journalled::new(match ranks.is_alone() {
            true => queue,
            false => Box::new(Shared::new(queue, ranks.clone())),
        });
        let judges_by_rule =
            judge.identity().is_ok_and(|identity| identity.get("judge").is_some_and(|judge| judge == "rule"));
        Online {
            judges_by_rule,
            learner,
            sampler,
            options,
            judge,
            open: VecDeque::new(),
            questions_lost: false,
            kept: VecDeque::new(),
            kept_in: PathBuf::new(),
            verdicts: VerdictTotals::default(),
            first_invalid: None,
            reported_habits: BTreeSet::new(),
            counted: None,
            ranks,
        }
    }

    /// Samples responses for this step and for the steps ahead with the current policy, and submits the questions about
    /// them.
    async fn ask(&mut self, step: &mut Step<'_, '_>) -> Result<()> {
        if std::mem::take(&mut self.questions_lost) {
            let questions = self.open.iter().flat_map(|open| open.pending.questions()).collect();
            self.judge.submit(questions)?;
        }
        let last = (step.done + self.options.async_level).min(step.batches.total_steps() - 1);
        for number in step.done + self.open.len()..=last {
            step.begin("sampling");
            let started = Instant::now();
            let draws = step.batches.draws(number);
            // The entry stays in `kept` until its questions are submitted, because this future may be dropped at an
            // await.
            let sampled = match self.kept.front().cloned() {
                None => {
                    let mine = draws.part(self.ranks.part(draws.rows.len()));
                    let mine = self.sampler.answer(step.policy, step.rows, &mine, step.done).await;
                    let sampled = Sampled::joined(self.ranks.gather(mine).await?);
                    if self.options.active > 1 { self.choose(sampled, step, &draws).await? } else { sampled }
                }
                Some(kept) => match self.sampler.fault(step.policy, step.rows, &kept, &draws)? {
                    None => kept,
                    Some(why) => {
                        let why = format!(
                            "the stored responses of the next steps are damaged ({why}): resume from another checkpoint"
                        );
                        return Err(Error::file(self.kept_in.join(STATE), why));
                    }
                },
            };
            step.spent("sampling", started);
            let row = |draw: &u64| draws.row(*draw).expect("one of the step's");
            let rows: Vec<usize> = sampled.draws.iter().map(row).collect();
            let prompts = rows.iter().map(|row| step.rows.text(*row)).collect::<Result<Vec<_>>>()?;
            let rated = matches!(self.learner, Learner::Policy(_)) && self.judge.rates();
            let pending = match rated {
                true => PendingQuestions::Ratings(Ratings::new(&sampled.draws, &prompts, &sampled.of)),
                false => {
                    let settled = self.judge.position() == Position::Settled;
                    let probes = if settled { 0 } else { self.options.probes as u64 };
                    PendingQuestions::Pairs(Games::new(
                        &sampled.draws,
                        &prompts,
                        &sampled.of,
                        probes,
                        self.sampler.has_reference(),
                    ))
                }
            };
            let questions = pending.questions();
            let mut open = OpenStep { rows, prompts, sampled, pending };
            if let Learner::Policy(trainer) = &self.learner
                && open.sampled.logps.is_empty()
            {
                let started = Instant::now();
                open.sampled.logps =
                    trainer.log_probabilities(&open.sampled.trees(step.rows, &open.rows)?).await?;
                step.spent("reference", started);
            }
            self.kept.pop_front();
            self.open.push_back(Arc::new(open));
            self.judge.submit(questions)?;
        }
        Ok(())
    }

    /// Selects the pairs on which the policy is least sure from the responses of a step.
    async fn choose(&mut self, sampled: Sampled, step: &mut Step<'_, '_>, draws: &Draws) -> Result<Sampled> {
        let Learner::Pairs { trainer, .. } = &self.learner else { unreachable!("checked by the options") };
        let log_ratios = trainer.log_ratios(&sampled.trees(step.rows, &draws.rows)?).await?;
        Ok(active::least_sure(&sampled, &log_ratios, draws.rows.len() / self.options.active))
    }

    /// Waits until the questions of the first open step are answered.
    async fn wait(&mut self, step: &mut Step<'_, '_>) -> Result<()> {
        step.begin("judging");
        let started = Instant::now();
        let mut stopped: Option<Instant> = None;
        while !self.open.front().expect("submitted before").pending.is_answered() {
            // Yields, because a queue that computes on this thread never does.
            yield_now().await;
            // Answers are taken before anything else is awaited.
            let polled = self.judge.poll(CHECK_INTERVAL).await.inspect_err(|_| self.questions_lost = true)?;
            for note in &polled.notes {
                step.warn(note);
            }
            for answer in &polled.answers {
                take(&mut self.open, answer);
            }
            let ends = step.control.stops() && stopped.get_or_insert_with(Instant::now).elapsed() > GRACE;
            if self.ranks.any(ends).await? {
                return Err(Error::Interrupted);
            }
        }
        step.spent("judging", started);
        Ok(())
    }

    /// Learns from the judge's answers about the responses of a step.
    async fn learn_from(&mut self, step: &mut Step<'_, '_>, open: &OpenStep) -> Result<Learnt> {
        match &open.pending {
            PendingQuestions::Pairs(games) => {
                let (pairs, min_confidence) = (self.options.pairs, self.options.min_confidence);
                let judging = games.judging(Choosing { pairs, min_confidence });
                let (number, policy_step) = (step.done + 1, open.sampled.policy_step);
                let pair_reports = judging.pairs(number, policy_step, &open.prompts, &open.sampled.of);
                self.count(step, open, &judging.counts, judging.first_invalid(), &pair_reports)?;
                match &self.learner {
                    Learner::Pairs { .. } => self.learn_pairs(step, open, &judging, pair_reports).await,
                    Learner::Policy(_) => {
                        // Scores are learnt from, not single pairs.
                        let pair_reports = pair_reports
                            .into_iter()
                            .map(|pair| PairReport { chosen: None, ..pair })
                            .collect();
                        self.learn_scores(step, open, judging.win_rates(), &judging, pair_reports).await
                    }
                }
            }
            PendingQuestions::Ratings(ratings) => {
                self.count(step, open, &ratings.counts(), ratings.first_invalid(), &[])?;
                self.learn_scores(step, open, ratings.scores(), ratings, Vec::new()).await
            }
        }
    }

    /// Counts the verdicts of a step, and warns about biases of the judge.
    fn count(
        &mut self,
        step: &mut Step<'_, '_>,
        open: &OpenStep,
        counts: &Counts,
        invalid: Option<&str>,
        pairs: &[PairReport],
    ) -> Result<()> {
        self.first_invalid = self.first_invalid.take().or_else(|| invalid.map(str::to_owned));
        let (mut verdicts, mut reported_habits) = (self.verdicts.clone(), self.reported_habits.clone());
        verdicts.add(counts, &open.sampled.of, pairs);
        verdicts.check(self.options.max_invalid_ratio, &self.judge.name(), invalid)?;
        let members: Vec<String> = self.judge.members().iter().map(|member| member.name()).collect();
        let mute = verdicts.votes().mute("the ensemble", &members, true).into_iter();
        let mute = mute.map(|(member, text)| (Habit::Mute(member), text));
        for (habit, text) in verdicts.habits().warnings().into_iter().chain(mute) {
            // A rule prefers a length on purpose.
            let meant = habit == Habit::Length && self.judges_by_rule;
            if !meant && reported_habits.insert(habit) {
                step.note(text);
            }
        }
        self.counted = Some(Counted { verdicts, reported_habits });
        Ok(())
    }

    /// The totals including the current step.
    fn counted(&self) -> &VerdictTotals {
        &self.counted.as_ref().expect("counted before").verdicts
    }

    /// Learns from the preferred response of each prompt against another.
    async fn learn_pairs(
        &mut self,
        step: &mut Step<'_, '_>,
        open: &OpenStep,
        judging: &Judging,
        pair_reports: Vec<PairReport>,
    ) -> Result<Learnt> {
        let Learner::Pairs { trainer, loss } = &self.learner else { unreachable!("called for pairs only") };
        step.begin("learning");
        let started = Instant::now();
        let choices: Vec<(usize, &Choice)> =
            judging.choices.iter().enumerate().flat_map(|(i, of)| of.iter().map(move |c| (i, c))).collect();
        let tree = |(i, c): &(usize, &Choice)| {
            open.sampled.tree(step.rows, open.rows[*i], *i, &[c.chosen, c.rejected])
        };
        let trees = choices.iter().map(tree).collect::<Result<Vec<Tree>>>()?;
        let reference = trainer.reference(&trees).await?;
        step.spent("reference", started);
        // The second response is that of the reference model.
        let of_reference = loss.needs_reference_samples();
        let label = |choice: &Choice| if self.options.soft_labels { choice.probability } else { 1.0 };
        let pair = |((tree, reference), (_, choice)): ((Tree, [f32; 2]), &(usize, &Choice))| LabelledPair {
            tree,
            reference,
            label: label(choice),
            by_reference: [choice.chosen, choice.rejected].map(|sample| of_reference && sample == 1),
        };
        let pairs: Vec<LabelledPair> = trees.into_iter().zip(reference).zip(&choices).map(pair).collect();
        let learnt = if pairs.is_empty() { None } else { Some(trainer.learn(&pairs, loss).await?) };
        let times = learnt.iter().flat_map(|learnt| learnt.times());
        times.for_each(|(phase, ms)| step.phases.add(phase, *ms));
        let (answers, policy_step) = (&open.sampled.of, open.sampled.policy_step);
        Ok(Learnt {
            loss: learnt.as_ref().map(|learnt| learnt.loss()),
            preference: learnt.as_ref().map(|learnt| learnt.preference()),
            gradient: None,
            policy: learnt.as_ref().map(|learnt| learnt.policy()),
            entropy: learnt.as_ref().map(|learnt| learnt.entropy()),
            responses: response_report(answers),
            judging: Some(JudgeReport {
                votes: self.counted().votes().report(),
                ..judging.report(
                    step.done - policy_step,
                    self.judge.used(),
                    self.counted().habits().longer_ratio(),
                )
            }),
            pairs: pair_reports,
            ratings: Vec::new(),
            tokens: drawn(answers) + learnt.as_ref().map_or(0, |learnt| learnt.tokens()),
        })
    }

    /// Learns from all responses by their scores.
    async fn learn_scores(
        &mut self,
        step: &mut Step<'_, '_>,
        open: &OpenStep,
        scores: Vec<Vec<Option<f64>>>,
        said: &(dyn SaidOf + Sync),
        pair_reports: Vec<PairReport>,
    ) -> Result<Learnt> {
        let Learner::Policy(trainer) = &self.learner else { unreachable!("called for scores only") };
        step.begin("learning");
        let started = Instant::now();
        let mut logps = open.sampled.logps.iter().cloned();
        let group = |(tree, scores)| RatedGroup { tree, scores, sampler: logps.next().unwrap_or_default() };
        let rated: Vec<RatedGroup> =
            open.sampled.trees(step.rows, &open.rows)?.into_iter().zip(scores).map(group).collect();
        let learnt = trainer.learn(&rated).await?;
        let learning = milliseconds(started);
        learnt.times().iter().for_each(|(phase, ms)| step.phases.add(phase, *ms));
        let on_gpu: f64 = learnt.times().iter().map(|(_, ms)| ms).sum();
        step.phases.add("reference", (learning - on_gpu).max(0.0));
        let (answers, policy_step) = (&open.sampled.of, open.sampled.policy_step);
        let used = learnt.advantages.iter().flatten().filter(|advantage| **advantage != 0.0).count();
        Ok(Learnt {
            loss: learnt.loss(),
            preference: None,
            gradient: Some(learnt.gradient()),
            policy: learnt.policy(),
            entropy: learnt.entropy(),
            responses: response_report(answers),
            judging: Some(JudgeReport {
                votes: self.counted().votes().report(),
                ..said.report(used, step.done - policy_step, self.judge.used())
            }),
            pairs: pair_reports,
            ratings: said.ratings(step.done + 1, open, &learnt.advantages),
            tokens: drawn(answers) + learnt.tokens(),
        })
    }
}

/// Passes an answer to the step whose question it answers.
fn take(open: &mut VecDeque<Arc<OpenStep>>, answer: &Answer) {
    let mut steps = open.iter_mut().map(|step| Arc::get_mut(step).expect("none is being learnt from"));
    steps.any(|step| step.pending.take(answer));
}

/// The number of tokens sampled.
fn drawn(answers: &[Vec<Response>]) -> usize {
    answers.iter().flatten().map(|answer| answer.token_ids.len()).sum()
}

/// The judge's answers from which scores were computed.
trait SaidOf {
    /// The report for `metrics.jsonl`. `learnt` is the number of responses with an advantage.
    fn report(&self, learnt: usize, off_policy_steps: usize, used: Usage) -> JudgeReport;

    /// The ratings for `pairs.jsonl`, if there are any.
    fn ratings(&self, step: usize, open: &OpenStep, advantages: &[Vec<f64>]) -> Vec<RatingReport>;
}

impl SaidOf for Ratings {
    fn report(&self, learnt: usize, off_policy_steps: usize, used: Usage) -> JudgeReport {
        self.report(learnt, off_policy_steps, used)
    }

    fn ratings(&self, step: usize, open: &OpenStep, advantages: &[Vec<f64>]) -> Vec<RatingReport> {
        self.rows(step, open.sampled.policy_step, &open.prompts, &open.sampled.of, advantages)
    }
}

impl SaidOf for Judging {
    fn report(&self, learnt: usize, off_policy_steps: usize, used: Usage) -> JudgeReport {
        let report = self.report(off_policy_steps, used, None);
        JudgeReport { learnt, scores: None, scores_margin: None, ..report }
    }

    fn ratings(&self, _: usize, _: &OpenStep, _: &[Vec<f64>]) -> Vec<RatingReport> {
        Vec::new()
    }
}

impl Method for Online<'_> {
    fn command(&self) -> Command {
        Command::Align
    }

    fn identity(&self, common: RunIdentity) -> Result<RunIdentity> {
        Ok(common.with_online_loss(&self.options.loss).with_feedback(&self.options, self.judge.identity()?))
    }

    fn draws(&self) -> usize {
        self.options.active
    }

    fn learn<'t>(&'t mut self, step: &'t mut Step<'_, '_>) -> Task<'t, Result<Learnt>> {
        Box::pin(async move {
            self.ask(step).await?;
            self.wait(step).await?;
            // The step stays open until it is learnt from, because this future may be dropped at an await.
            let open = self.open.front().expect("submitted before").clone();
            let learnt = self.learn_from(step, &open).await?;
            self.open.pop_front();
            let Counted { verdicts, reported_habits } = self.counted.take().expect("counted before");
            (self.verdicts, self.reported_habits) = (verdicts, reported_habits);
            Ok(learnt)
        })
    }

    fn online(&self) -> Option<OnlineState> {
        let open = self.open.iter().map(|open| &open.sampled);
        let sampled = open.chain(&self.kept).cloned().collect();
        let (verdicts, reported_habits) = (self.verdicts.clone(), self.reported_habits.clone());
        Some(OnlineState { verdicts, reported_habits, sampled })
    }

    fn restore(&mut self, online: Option<OnlineState>, dir: &Path) {
        let OnlineState { verdicts, reported_habits, sampled } = online.unwrap_or_default();
        (self.verdicts, self.reported_habits) = (verdicts, reported_habits);
        self.kept = sampled.into();
        self.kept_in = dir.to_owned();
    }

    fn keep_journal(&mut self, path: &Path) -> Result<()> {
        // Repeating the questions to a local judge costs no more than repeating the step.
        if self.judge.is_remote() { self.judge.open(path) } else { Ok(()) }
    }

    fn drain(&mut self) -> Task<'_, ()> {
        Box::pin(async move {
            if self.judge.is_remote() {
                // Only the error that ended the run is reported.
                let _ = match self.ranks.is_alone() {
                    true => self.judge.drain(GRACE).await,
                    false => {
                        self.judge
                            .drain_together(GRACE.div_duration_f32(CHECK_INTERVAL) as usize, CHECK_INTERVAL)
                            .await
                    }
                };
            }
        })
    }

    fn judge<'t>(
        &'t mut self,
        pairs: &'t [Pair<'t>],
        seed: u32,
        watch: &'t mut Watch<'_>,
    ) -> Task<'t, Result<Option<Vec<PairVerdict>>>> {
        Box::pin(async move {
            let open = &mut self.open;
            let mut watch = |event: Heard<'_>| match event {
                // Answers about the steps ahead.
                Heard::Other(answer) => {
                    take(open, answer);
                    Ok(())
                }
                event => watch(event),
            };
            let judged = judge_pairs(&mut self.judge, pairs, seed, &mut watch);
            judged.await.map(Some).inspect_err(|_| self.questions_lost = true)
        })
    }

    fn first_invalid(&self) -> Option<&str> {
        self.first_invalid.as_deref()
    }

    fn initial_warning(&self) -> Option<String> {
        let own = self.options.sampling == SamplingParams::default();
        (matches!(self.learner, Learner::Policy(_)) && !own).then(|| {
            "responses are not sampled from the policy's own distribution, but the loss uses its log-probabilities: \
             the gradient is biased; leave out temperature, top-k, top-p and min-p to avoid this"
                .into()
        })
    }

    fn conclusion(&self) -> Option<String> {
        self.verdicts.unending_responses(self.options.max_new_tokens)
    }
}
