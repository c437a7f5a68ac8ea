//! Online AI feedback: prompts → samples of the current policy → annotator → loss → update (Guo et al. 2024,
//! arXiv 2402.04792, see the crate's documentation).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::annotation::{Annotation, Choice, Games, VerdictTotals};
use super::checkpoint::STATE;
use super::identity::{Command, RunIdentity};
use super::options::AlignOptions;
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::rows::EncodedRows;
use super::sampler::{Sampled, Sampler, response_report};
use super::state::OnlineState;
use super::trainer::{Learnt, Method, Step};
use crate::annotate::journal::Journalled;
use crate::annotate::queue::AnnotationQueue;
use crate::data::packing::Tree;
use crate::error::{Error, Result};

/// Between two looks at whether somebody asked for an end.
const LOOK: Duration = Duration::from_millis(50);
/// How long an annotator that may be about to answer is still awaited then.
const GRACE: Duration = Duration::from_secs(2);

/// Training on what an annotator says of the policy's own answers.
pub(super) struct Online<'a> {
    trainer: PairTrainer,
    sampler: Sampler,
    options: AlignOptions,
    annotator: Journalled<'a>,
    /// Steps whose prompts are answered and whose pairs are with the annotator, in their order.
    open: VecDeque<OpenStep>,
    /// Whether the annotator has forgotten what it was asked.
    forgotten: bool,
    /// What a checkpoint kept of the next steps' answers, and where.
    kept: VecDeque<Sampled>,
    kept_in: PathBuf,
    verdicts: VerdictTotals,
    /// Whether the user knows of an annotator that prefers a position.
    told: bool,
}

/// A step before it is learnt from.
struct OpenStep {
    /// Its rows of the dataset.
    rows: Vec<usize>,
    /// Their prompts as texts.
    prompts: Vec<String>,
    sampled: Sampled,
    games: Games,
}

impl<'a> Online<'a> {
    pub fn new(
        trainer: PairTrainer,
        sampler: Sampler,
        options: AlignOptions,
        queue: Box<dyn AnnotationQueue + 'a>,
    ) -> Online<'a> {
        Online {
            trainer,
            sampler,
            options,
            annotator: Journalled::new(queue),
            open: VecDeque::new(),
            forgotten: false,
            kept: VecDeque::new(),
            kept_in: PathBuf::new(),
            verdicts: VerdictTotals::default(),
            told: false,
        }
    }

    /// Answers the prompts of this step and of those that are asked about ahead, with the policy as it is, and submits
    /// their pairs.
    fn ask(&mut self, step: &mut Step<'_, '_>) -> Result<()> {
        if std::mem::take(&mut self.forgotten) {
            let questions = self.open.iter().flat_map(|open| open.games.questions()).collect();
            self.annotator.submit(questions)?;
        }
        let last = (step.done + self.options.async_level).min(step.batches.total_steps() - 1);
        for number in step.done + self.open.len()..=last {
            step.begin("sampling");
            let started = Instant::now();
            let draws = step.batches.draws(number);
            let sampled = match self.kept.pop_front() {
                None => self.sampler.answer(step.policy, step.rows, &draws, step.done)?,
                Some(kept) => match self.sampler.fault(step.policy, step.rows, &kept, &draws)? {
                    None => kept,
                    Some(why) => {
                        let why = format!(
                            "the answers kept for the next steps are damaged ({why}): resume from another checkpoint"
                        );
                        return Err(Error::file(self.kept_in.join(STATE), why));
                    }
                },
            };
            step.spent("sampling", started);
            let prompts = draws.rows.iter().map(|row| step.rows.text(*row)).collect::<Result<Vec<_>>>()?;
            let games = Games::new(draws.first, &prompts, &sampled.of);
            let questions = games.questions();
            self.open.push_back(OpenStep { rows: draws.rows, prompts, sampled, games });
            self.annotator.submit(questions)?;
        }
        Ok(())
    }

    /// Waits until the first open step's pairs are judged.
    fn wait(&mut self, step: &mut Step<'_, '_>) -> Result<()> {
        step.begin("annotating");
        let started = Instant::now();
        let mut stopped: Option<Instant> = None;
        while !self.open.front().expect("asked before").games.are_over() {
            let polled = self.annotator.poll(LOOK).inspect_err(|_| self.forgotten = true)?;
            for note in &polled.notes {
                step.warn(note);
            }
            for answer in &polled.answers {
                self.open.iter_mut().any(|open| open.games.take(answer));
            }
            if step.control.stops() && stopped.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Err(Error::Interrupted);
            }
        }
        step.spent("annotation", started);
        Ok(())
    }

    /// Learns from the judgements of a step.
    fn learn_from(&mut self, step: &mut Step<'_, '_>, open: &OpenStep) -> Result<Learnt> {
        let (annotation, answers) = (open.games.annotation(), &open.sampled.of);
        let mut verdicts = self.verdicts.clone();
        verdicts.add(&annotation.counts, answers);
        verdicts.check(self.options.max_invalid_ratio, &self.annotator.name(), &annotation)?;
        if let Some(text) = verdicts.position_bias().filter(|_| !self.told) {
            self.told = true;
            step.notes.push(text);
        }
        step.begin("learning");
        let started = Instant::now();
        let pairs = self.pairs(step.rows, open, &annotation)?;
        step.spent("reference", started);
        let learnt = match pairs.is_empty() {
            true => None,
            false => Some(self.trainer.learn(&pairs, &self.options.loss)?),
        };
        let times = learnt.iter().flat_map(|learnt| learnt.times());
        times.for_each(|(phase, ms)| step.phases.add(phase, *ms));
        self.verdicts = verdicts;
        let sampled: usize = answers.iter().flatten().map(|a| a.token_ids.len()).sum();
        let policy_step = open.sampled.policy_step;
        Ok(Learnt {
            loss: learnt.as_ref().map(|learnt| learnt.loss()),
            preference: learnt.as_ref().map(|learnt| learnt.preference()),
            policy: learnt.as_ref().map(|learnt| learnt.policy()),
            entropy: learnt.as_ref().map(|learnt| learnt.entropy()),
            responses: response_report(answers),
            annotation: Some(annotation.report(step.done - policy_step, self.annotator.used())),
            pairs: annotation.pairs(step.done + 1, policy_step, &open.prompts, answers),
            tokens: sampled + learnt.as_ref().map_or(0, |learnt| learnt.tokens()),
        })
    }

    /// The step's pairs, with what the reference makes of them.
    fn pairs(
        &self,
        rows: &EncodedRows,
        open: &OpenStep,
        annotation: &Annotation,
    ) -> Result<Vec<LabelledPair>> {
        let choices: Vec<(usize, &Choice)> =
            annotation.choices.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?))).collect();
        let tree = |(i, c): &(usize, &Choice)| {
            let answer = |s: usize| open.sampled.of[*i][s].token_ids.clone();
            Ok(Tree {
                prompt: rows.tree(open.rows[*i])?.prompt,
                responses: vec![answer(c.chosen), answer(c.rejected)],
            })
        };
        let trees = choices.iter().map(tree).collect::<Result<Vec<Tree>>>()?;
        let reference = self.trainer.reference(&trees)?;
        let label = |choice: &Choice| if self.options.soft_labels { choice.probability } else { 1.0 };
        let pairs = trees.into_iter().zip(reference).zip(&choices);
        Ok(pairs
            .map(|((tree, reference), (_, choice))| LabelledPair {
                tree,
                reference,
                label: label(choice),
                by_reference: [false; 2],
            })
            .collect())
    }
}

impl Method for Online<'_> {
    fn command(&self) -> Command {
        Command::Align
    }

    fn identity(&self, common: RunIdentity) -> Result<RunIdentity> {
        Ok(common.with_loss(&self.options.loss).with_feedback(&self.options, self.annotator.identity()?))
    }

    fn learn(&mut self, step: &mut Step<'_, '_>) -> Result<Learnt> {
        self.ask(step)?;
        self.wait(step)?;
        let open = self.open.pop_front().expect("asked before");
        let learnt = self.learn_from(step, &open);
        if learnt.is_err() {
            self.open.push_front(open);
        }
        learnt
    }

    fn online(&self) -> Option<OnlineState> {
        let open = self.open.iter().map(|open| &open.sampled);
        let sampled = open.chain(&self.kept).cloned().collect();
        Some(OnlineState { verdicts: self.verdicts.clone(), sampled })
    }

    fn restore(&mut self, online: Option<OnlineState>, dir: &Path) {
        let OnlineState { verdicts, sampled } = online.unwrap_or_default();
        self.verdicts = verdicts;
        self.kept = sampled.into();
        self.kept_in = dir.to_owned();
    }

    fn keep_journal(&mut self, path: &Path) -> Result<()> {
        // What is asked here costs no more than the step that is done again.
        if self.annotator.is_remote() { self.annotator.open(path) } else { Ok(()) }
    }

    fn conclusion(&self) -> Option<String> {
        self.verdicts.endless(self.options.max_new_tokens)
    }
}
