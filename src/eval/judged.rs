//! The results of a benchmark's file of judgements, computed from the file alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::agreement::{OrderEffect, Share, length_preference, order_effect};
use super::alpaca_eval::{self, AlpacaPrompt, LengthControlledWinRate, Strength};
use super::comparison::{Comparison, Decisions, preferences};
use super::files::{AlpacaAnchors, Benchmark, JudgedAs, JudgementRecord, Judgements, arena_hard_win_rate};
use super::interval::{Interval, Mean, mean_with_error, wilson_of_preferences};
use super::length_control::{LengthControl, LengthControlled, length_controlled};
use crate::error::{Error, Result};

/// AlpacaEval's number of folds in cross-validation.
const FOLDS: usize = 5;

/// A judge's verdicts on a model, over all prompts. Win rates are of the model, counting ties as half a win. Intervals
/// are at 95 %.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedModel {
    /// The judge, if the file names it.
    pub judge: Option<String>,
    /// The model.
    pub model: String,
    /// The model it was compared with, if it was and the file names it.
    pub baseline: Option<String>,
    /// The results of comparisons.
    #[serde(flatten)]
    pub compared: Option<Compared>,
    /// The results of scores.
    #[serde(flatten)]
    pub scored: Option<Scored>,
}

/// The results of comparisons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Wins, ties and losses.
    #[serde(flatten)]
    pub decisions: Decisions,
    /// (wins + ties/2) / decided: AlpacaEval's `discrete_win_rate`.
    pub win_rate: Option<f64>,
    /// Its interval, [`wilson_of_preferences`].
    pub interval: Interval,
    /// Mean of the judge's probabilities, with its standard error: AlpacaEval's `win_rate` and `standard_error`.
    pub mean_preference: Option<Mean>,
    /// The effect of the order of the responses, if the pairs were judged in both.
    pub order: Option<OrderEffect>,
    /// The win rate at equal lengths, if the file has the responses.
    pub length_controlled: Option<LengthControlled>,
    /// How often the longer response wins, if the file has the responses.
    pub length_preference: Option<Share>,
    /// AlpacaEval's length-controlled win rate, if its fitted difficulties and anchors are given.
    pub alpaca_eval: Option<LengthControlledWinRate>,
    /// Arena-Hard's score, in which a strong verdict counts several times.
    pub arena_hard: Option<f64>,
}

/// The results of scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Over all turns, as in MT-Bench.
    pub score: Option<Mean>,
    /// By turn.
    pub turns: BTreeMap<usize, Mean>,
    /// Responses without a score.
    pub without_score: usize,
}

/// The results for each judge, model and baseline in the file.
///
/// # Errors
/// [`Error::Config`] if `anchors` has no difficulty for an instruction.
pub fn judged_models(judgements: &Judgements, anchors: Option<&AlpacaAnchors>) -> Result<Vec<JudgedModel>> {
    type Names<'a> = (&'a Option<String>, &'a String, &'a Option<String>);
    let mut by_names: BTreeMap<Names, Vec<(usize, &JudgementRecord)>> = BTreeMap::new();
    for (position, record) in judgements.records.iter().enumerate() {
        by_names
            .entry((&record.judge, &record.model, &record.baseline))
            .or_default()
            .push((position, record));
    }
    let figures = |((judge, model, baseline), records): (Names, Vec<(usize, &JudgementRecord)>)| {
        let scores = judgements.benchmark == Benchmark::MtBenchScores;
        Ok(JudgedModel {
            judge: judge.clone(),
            model: model.clone(),
            baseline: baseline.clone(),
            compared: (!scores).then(|| compared(judgements.benchmark, &records, anchors)).transpose()?,
            scored: scores.then(|| scored(&records)),
        })
    };
    by_names.into_iter().map(figures).collect()
}

fn compared(
    benchmark: Benchmark,
    records: &[(usize, &JudgementRecord)],
    anchors: Option<&AlpacaAnchors>,
) -> Result<Compared> {
    let outcomes: Vec<Option<Comparison>> =
        records.iter().map(|(_, record)| record.outcome()).collect::<Result<_>>()?;
    let outcomes: Vec<Comparison> = outcomes.into_iter().flatten().collect();
    let decisions = Decisions::of(&outcomes);
    let decided = decisions.decided() > 0;
    let hard: Vec<f64> =
        outcomes.iter().filter_map(|outcome| Some(outcome.decision()?.preference())).collect();
    let with_lengths = decided && records.iter().all(|(_, record)| record.lengths.is_some());
    let controlled = || length_controlled(&outcomes, &LengthControl::default());
    let alpaca = |anchors| alpaca_figure(records, anchors);
    Ok(Compared {
        decisions,
        win_rate: decisions.win_rate(),
        interval: wilson_of_preferences(&hard),
        mean_preference: mean_with_error(&preferences(&outcomes)),
        order: outcomes.iter().any(|outcome| outcome.orders().is_some()).then(|| order_effect(&outcomes)),
        length_controlled: with_lengths.then(controlled).transpose()?,
        length_preference: with_lengths.then(|| length_preference(&outcomes)),
        alpaca_eval: anchors.filter(|_| with_lengths).map(alpaca).transpose()?,
        arena_hard: match benchmark {
            Benchmark::ArenaHard => arena_hard_win_rate(records.iter().map(|(_, record)| *record)),
            _ => None,
        },
    })
}

fn alpaca_figure(
    records: &[(usize, &JudgementRecord)],
    AlpacaAnchors { difficulties, anchors }: &AlpacaAnchors,
) -> Result<LengthControlledWinRate> {
    let mut prompts = Vec::new();
    for (position, record) in records {
        let (JudgedAs::Once(Some(preference)), Some([model_length, baseline_length])) =
            (&record.verdict, record.lengths)
        else {
            continue;
        };
        let Some(difficulty) = difficulties.get(*position).copied() else {
            let why = format!(
                "there are difficulties for {} instructions, but this is row {}: use a file of AlpacaEval's own instructions",
                difficulties.len(),
                position + 1
            );
            return Err(Error::config("judgements", why));
        };
        prompts.push(AlpacaPrompt { preference: *preference, baseline_length, model_length, difficulty });
    }
    alpaca_eval::length_controlled(&prompts, anchors, Strength::CrossValidated { folds: FOLDS })
}

fn scored(records: &[(usize, &JudgementRecord)]) -> Scored {
    let mut turns: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (_, record) in records {
        if let JudgedAs::Score(Some(score)) = record.verdict {
            turns.entry(record.turn).or_default().push(score);
        }
    }
    let all: Vec<f64> = turns.values().flatten().copied().collect();
    Scored {
        score: mean_with_error(&all),
        without_score: records.len() - all.len(),
        turns: turns
            .into_iter()
            .filter_map(|(turn, scores)| Some((turn, mean_with_error(&scores)?)))
            .collect(),
    }
}

impl JudgedModel {
    /// A one-sentence summary.
    pub fn sentence(&self) -> String {
        let by = self.judge.as_ref().map_or_else(String::new, |judge| format!(" (by {judge})"));
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut text = self.model.clone();
        if let Some(Scored { score, turns, without_score }) = &self.scored {
            match score {
                Some(score) => {
                    text += &format!(" scores {:.2} over {} responses{by}", score.mean, score.count)
                }
                None => text += &format!(" has no score{by}"),
            }
            for (turn, score) in turns {
                text += &format!("; turn {turn}: {:.2}", score.mean);
            }
            if *without_score > 0 {
                text += &format!("; {without_score} without a score");
            }
        }
        if let Some(compared) = &self.compared {
            let against = self.baseline.as_deref().unwrap_or("the baseline");
            let Decisions { ties, invalid, .. } = compared.decisions;
            text += &format!(
                " wins {} of {} prompts against {against}{by} (95 % interval {:.1} to {:.1})",
                compared.win_rate.map_or_else(|| "–".into(), percent),
                compared.decisions.decided(),
                100.0 * compared.interval.low,
                100.0 * compared.interval.high,
            );
            if let Some(controlled) = &compared.length_controlled {
                text += &format!(
                    ", length-controlled {} ({:.1} to {:.1})",
                    percent(controlled.win_rate),
                    100.0 * controlled.interval.low,
                    100.0 * controlled.interval.high
                );
            }
            if let Some(alpaca) = &compared.alpaca_eval {
                text +=
                    &format!(", AlpacaEval's length-controlled win rate {:.2} %", 100.0 * alpaca.win_rate);
            }
            if let Some(score) = compared.arena_hard {
                text += &format!(", Arena-Hard's score {}", percent(score));
            }
            text += &format!("; {ties} ties");
            if let Some(mean) = compared.mean_preference {
                text += &format!("; mean preference {}", percent(mean.mean));
            }
            if let Some(flipped) = compared.order.and_then(|order| order.flipped.share) {
                text += &format!("; {} change the winner with the order", percent(flipped));
            }
            if invalid > 0 {
                text += &format!("; {invalid} without a usable verdict");
            }
        }
        text
    }
}
