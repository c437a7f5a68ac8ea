//! Online AI feedback: prompts → samples of the current policy → annotator → loss → update (Guo et al. 2024,
//! arXiv 2402.04792, see the crate's documentation).

use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::options::{AlignOptions, TrainOptions};
use super::pair_step::LabelledPair;
use super::pair_trainer::PairTrainer;
use super::policy::Policy;
use super::rows::EncodedRows;
use super::session::{Control, Session, Sources, StepRecord, milliseconds};
use super::total_steps;
use crate::annotate::{
    Annotated, Annotator, Counts, Pair, Verdict, annotate_pairs, best_and_worst, round_robin,
};
use crate::data::packing::Tree;
use crate::data::rows::Prompt;
use crate::data::tokenizer::StopMatcher;
use crate::error::{Error, Result};
use crate::generate::{FinishReason, GenerateOptions, Generator, Request, Response, slots_for};
use crate::gpu::Arena;
use crate::model::Model;
use crate::model::stream::Capacity;
use crate::optim::Optimiser;

/// Judged pairs from which on the share of unusable verdicts says something.
const MIN_JUDGED: usize = 16;

/// What a run holds of the device.
pub(super) struct Plans {
    trainer: PairTrainer,
    generator: Generator,
    optimiser: Optimiser,
}

/// What these prompts need of the device.
pub(super) fn plans(
    model: &Model,
    reference: &Model,
    rows: &EncodedRows,
    eos: &[u32],
    train: &TrainOptions,
    options: &AlignOptions,
) -> Result<Plans> {
    let (batch, max_new) = (train.batch_size, options.max_new_tokens);
    let longest = rows.trees.iter().map(|t| t.prompt.len()).max().unwrap_or(0);
    let capacity = Capacity {
        tokens: rows.largest_batch(batch).tokens + batch * 2 * (max_new - 1),
        targets: batch * 2 * max_new,
        sequences: batch * 2,
    };
    let arena = Arena::new();
    let (trainer, optimiser) = PairTrainer::new(model, reference, train, options.loss, capacity, &arena)?;
    let samples = batch * train.accumulation * options.num_samples;
    let generate = GenerateOptions {
        sampling: options.sampling,
        max_new_tokens: max_new,
        max_prompt_tokens: longest,
        slots: slots_for(options.slots, samples),
        samples_per_prompt: options.num_samples,
        eos: eos.to_vec(),
    };
    let generator = Generator::new(model.gpu(), model, generate, &arena)?;
    Ok(Plans { trainer, generator, optimiser })
}

/// The longest prompt that leaves room for a response.
pub(super) fn prompt_limit(context: usize, train: &TrainOptions, options: &AlignOptions) -> Result<usize> {
    let max_new = options.max_new_tokens;
    if max_new >= context {
        let why = format!("{max_new} leaves no room for a prompt: the model takes {context} tokens in all");
        return Err(Error::config("max-new-tokens", why));
    }
    Ok(train.max_prompt_length.unwrap_or(usize::MAX).min(context - max_new))
}

/// A run that is ready to begin: plans recorded, memory taken.
pub struct AlignRun {
    policy: Policy,
    train: TrainOptions,
    options: AlignOptions,
    rows: EncodedRows,
    texts: Vec<String>,
    trainer: PairTrainer,
    generator: Generator,
    optimiser: Optimiser,
}

impl AlignRun {
    /// Encodes the prompts and records the plans. On a measuring `Gpu` this is the dry run.
    ///
    /// # Errors
    /// [`Error::Config`] where the options leave no room for a response; memory errors.
    pub fn new(
        policy: Policy,
        prompts: &[Prompt],
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<AlignRun> {
        let max_prompt = prompt_limit(policy.model.architecture().context, train, options)?;
        let rows = EncodedRows::prompts(&policy.encoder(), prompts, max_prompt)?;
        let (model, eos) = (&policy.model, policy.tokenizer.eos_ids());
        let plans = plans(model, &policy.reference(train)?, &rows, eos, train, options)?;
        let Plans { trainer, generator, optimiser } = plans;
        let texts = rows.sources.iter().map(|row| prompts[*row].prompt.transcript()).collect();
        let (train, options) = (train.clone(), options.clone());
        Ok(AlignRun { policy, train, options, rows, texts, trainer, generator, optimiser })
    }

    /// The encoded prompts.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> usize {
        total_steps(&self.train, self.rows.trees.len())
    }

    /// Trains; returns where the model or adapter was saved.
    ///
    /// # Errors
    /// [`Error::Annotator`] when too many verdicts are unusable, and what a session reports.
    pub fn run(
        self,
        annotator: &mut dyn Annotator,
        sources: Sources,
        control: Control<'_>,
    ) -> Result<PathBuf> {
        let AlignRun { policy, train, options, rows, texts, trainer, generator, optimiser } = self;
        let total = total_steps(&train, rows.trees.len());
        let mut session =
            Session::begin(&policy.model, optimiser, &train, sources, (total, rows.trees.len()), control)?;
        session.warn_skipped(&rows);
        let k = options.num_samples;
        let stop = StopMatcher::new(options.stop.iter().cloned());
        let mut verdicts = VerdictTotals::restore(&session.state);
        while !session.is_done() {
            let (first, drawn) = (session.first_draw(), session.begin_step());
            let started = Instant::now();
            let request = |(i, row): (usize, &usize)| Request {
                prompt: rows.trees[*row].prompt.clone(),
                samples: k,
                first_sequence: ((first + i as u64) * k as u64) as u32,
            };
            let requests: Vec<Request> = drawn.iter().enumerate().map(request).collect();
            let answers = generator.run(&policy.tokenizer, &requests, &stop, train.seed)?;
            let sampling_ms = milliseconds(started);

            let before = Instant::now();
            let prompts: Vec<&str> = drawn.iter().map(|row| texts[*row].as_str()).collect();
            let annotation = annotate(annotator, &prompts, &answers, k)?;
            let annotation_ms = milliseconds(before);
            verdicts.add(&annotation.counts);
            verdicts.check(options.max_invalid_ratio, &annotator.name(), &annotation)?;
            session.state = verdicts.save();

            let before = Instant::now();
            let choices: Vec<(usize, &Choice)> =
                annotation.choices.iter().enumerate().filter_map(|(i, c)| Some((i, c.as_ref()?))).collect();
            let tree = |(i, c): &(usize, &Choice)| {
                let answer = |s: usize| answers[*i][s].token_ids.clone();
                Tree {
                    prompt: requests[*i].prompt.clone(),
                    responses: vec![answer(c.chosen), answer(c.rejected)],
                }
            };
            let trees: Vec<Tree> = choices.iter().map(tree).collect();
            let reference = trainer.reference(&trees)?;
            let reference_ms = milliseconds(before);
            let pairs: Vec<LabelledPair> = trees
                .into_iter()
                .zip(reference)
                .zip(&choices)
                .map(|((tree, reference), (_, choice))| {
                    let label = if options.soft_labels { choice.probability } else { 1.0 };
                    LabelledPair { tree, reference, label }
                })
                .collect();

            let mut metrics = Map::new();
            let learnt = match pairs.is_empty() {
                true => None,
                false => Some(trainer.learn(&pairs, options.loss)?),
            };
            match &learnt {
                Some(learnt) => {
                    metrics.extend(learnt.metrics());
                    metrics.extend(session.update(learnt.loss())?);
                }
                None => {
                    session.warn("a step without a single usable preference: no update");
                    metrics.insert("loss".into(), Value::Null);
                    metrics.insert("time/update_ms".into(), json!(0.0));
                }
            }
            metrics.extend(response_metrics(&answers));
            metrics.extend(judge_metrics(&annotation.counts, pairs.len()));
            let mean = |of: &dyn Fn(f64) -> f64| {
                let all = choices.iter().map(|(_, c)| of(c.probability as f64));
                (!choices.is_empty()).then(|| all.sum::<f64>() / choices.len() as f64)
            };
            // The annotator's probability for the chosen answer, and how far it is ahead of the other's.
            metrics.insert("objective/scores".into(), json!(mean(&|p| p)));
            metrics.insert("objective/scores_margin".into(), json!(mean(&|p| 2.0 * p - 1.0)));
            metrics.insert("time/sampling_ms".into(), sampling_ms);
            let judged = annotation.counts.judged.max(1) as f64;
            let latency = annotation_ms.as_f64().unwrap_or(0.0) / judged;
            metrics.insert("time/annotation_ms".into(), annotation_ms);
            metrics.insert("judge/latency_ms".into(), json!(latency));
            metrics.insert("time/reference_ms".into(), reference_ms);
            let sampled: usize = answers.iter().flatten().map(|a| a.token_ids.len()).sum();
            session.end_step(StepRecord {
                metrics,
                pairs: annotation.rows(session.step() + 1, &prompts, &answers),
                loss: learnt.as_ref().map(|l| l.loss()),
                margin: learnt.as_ref().map(|l| l.margin()),
                judge_win: annotation.counts.first_ratio(),
                tokens: sampled + learnt.as_ref().map_or(0, |l| l.tokens()),
            })?;
        }
        session.finish()
    }
}

/// The two samples of a prompt to learn from.
struct Choice {
    chosen: usize,
    rejected: usize,
    /// The annotator's probability that the chosen one is better.
    probability: f32,
}

/// What the annotator said about a step's samples.
struct Annotation {
    /// For each prompt its games: samples i, j and what became of them.
    games: Vec<Vec<(usize, usize, Annotated)>>,
    choices: Vec<Option<Choice>>,
    counts: Counts,
}

fn annotate(
    annotator: &mut dyn Annotator,
    prompts: &[&str],
    answers: &[Vec<Response>],
    k: usize,
) -> Result<Annotation> {
    let meetings = round_robin(k);
    let mut pairs = Vec::new();
    for (prompt, samples) in prompts.iter().zip(answers) {
        for (i, j) in &meetings {
            let (response_1, response_2) = (samples[*i].text.as_str(), samples[*j].text.as_str());
            pairs.push(Pair { prompt, response_1, response_2 });
        }
    }
    let annotated = annotate_pairs(annotator, &pairs)?;
    let counts = Counts::of(&annotated);
    let mut annotated = annotated.into_iter();
    let games: Vec<Vec<_>> = prompts
        .iter()
        .map(|_| meetings.iter().map(|(i, j)| (*i, *j, annotated.next().expect("one a pair"))).collect())
        .collect();
    let choices = games.iter().map(|games| choose(k, games)).collect();
    Ok(Annotation { games, choices, counts })
}

/// Best against worst; for two samples, the preferred against the other.
fn choose(k: usize, games: &[(usize, usize, Annotated)]) -> Option<Choice> {
    let verdicts: Vec<(usize, usize, Verdict)> =
        games.iter().map(|(i, j, a)| (*i, *j, a.verdict())).collect();
    let (chosen, rejected) = best_and_worst(k, &verdicts)?;
    // How probably a sample wins a game, over its games with a usable verdict.
    let strength = |sample: usize| {
        let wins = verdicts.iter().filter_map(|(i, j, verdict)| match verdict.p_first()? {
            p if *i == sample => Some(p),
            p if *j == sample => Some(1.0 - p),
            _ => None,
        });
        let wins: Vec<f32> = wins.collect();
        wins.iter().sum::<f32>() / wins.len().max(1) as f32
    };
    // For two samples this is the annotator's own probability.
    let probability = (0.5 + 0.5 * (strength(chosen) - strength(rejected))).clamp(0.5, 1.0);
    Some(Choice { chosen, rejected, probability })
}

impl Annotation {
    /// Rows for `pairs.jsonl`: every pair that was met, and whether it was learnt from.
    fn rows(&self, step: usize, prompts: &[&str], answers: &[Vec<Response>]) -> Vec<Value> {
        let mut out = Vec::new();
        for (p, games) in self.games.iter().enumerate() {
            for (i, j, annotated) in games {
                let mut row = json!({
                    "step": step,
                    "prompt": prompts[p],
                    "response_1": answers[p][*i].text,
                    "response_2": answers[p][*j].text,
                });
                match annotated {
                    Annotated::Judged(judgement) => {
                        row["p_first"] = json!(judgement.verdict.p_first());
                        row["p_12"] = json!(judgement.p_12);
                        row["p_21"] = json!(judgement.p_21);
                        row["verdict"] = json!(judgement.verdict.label());
                        if let Verdict::Invalid { why } = &judgement.verdict {
                            row["skipped"] = json!(why);
                        }
                    }
                    Annotated::Identical => row["skipped"] = json!("identical responses"),
                }
                let choice = self.choices[p].as_ref();
                let learnt =
                    choice.filter(|c| [c.chosen.min(c.rejected), c.chosen.max(c.rejected)] == [*i, *j]);
                row["chosen"] = json!(learnt.map(|c| if c.chosen == *i { 1 } else { 2 }));
                out.push(row);
            }
        }
        out
    }

    fn first_invalid(&self) -> Option<&str> {
        self.games.iter().flatten().find_map(|(_, _, a)| match a {
            Annotated::Judged(j) => match &j.verdict {
                Verdict::Invalid { why } => Some(why.as_str()),
                _ => None,
            },
            Annotated::Identical => None,
        })
    }
}

/// Verdicts of the run so far; they survive a resume.
struct VerdictTotals {
    judged: usize,
    invalid: usize,
}

impl VerdictTotals {
    fn restore(state: &Map<String, Value>) -> VerdictTotals {
        let number = |key: &str| state.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
        VerdictTotals { judged: number("judged"), invalid: number("invalid") }
    }

    fn save(&self) -> Map<String, Value> {
        Map::from_iter([
            ("judged".to_owned(), json!(self.judged)),
            ("invalid".to_owned(), json!(self.invalid)),
        ])
    }

    fn add(&mut self, counts: &Counts) {
        self.judged += counts.judged;
        self.invalid += counts.invalid;
    }

    fn check(&self, limit: f64, name: &str, last: &Annotation) -> Result<()> {
        let ratio = self.invalid as f64 / self.judged.max(1) as f64;
        if self.judged < MIN_JUDGED || ratio <= limit {
            return Ok(());
        }
        let why = format!(
            "{} of {} verdicts were unusable, above --max-invalid-ratio {limit}; the last reason: {}",
            self.invalid,
            self.judged,
            last.first_invalid().unwrap_or("none in this step")
        );
        Err(Error::Annotator { name: name.into(), why })
    }
}

fn response_metrics(answers: &[Vec<Response>]) -> Map<String, Value> {
    let all: Vec<&Response> = answers.iter().flatten().collect();
    let mean = |of: &dyn Fn(&Response) -> f64| all.iter().map(|a| of(a)).sum::<f64>() / all.len() as f64;
    Map::from_iter([
        ("completions/mean_length".to_owned(), json!(mean(&|a| a.token_ids.len() as f64))),
        (
            "val/contain_eos_token".to_owned(),
            json!(mean(&|a| (a.finish_reason == FinishReason::Eos) as u32 as f64)),
        ),
    ])
}

fn judge_metrics(counts: &Counts, learnt: usize) -> Map<String, Value> {
    Map::from_iter(
        [
            ("judge/judged", json!(counts.judged)),
            ("judge/first", json!(counts.first_ratio())),
            ("judge/tie", json!(counts.tie)),
            ("judge/invalid", json!(counts.invalid)),
            ("judge/identical", json!(counts.identical)),
            ("judge/order_flip", json!(counts.order_flip)),
            ("judge/learnt", json!(learnt)),
        ]
        .map(|(k, v)| (k.to_owned(), v)),
    )
}
