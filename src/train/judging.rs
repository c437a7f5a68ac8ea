//! The verdicts on the responses of a step, and the choice of the pairs to learn from.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::habits::Habits;
use super::health;
use super::options::PairChoice;
use super::report::{JudgeReport, PairReport, UsageReport};
use crate::error::{Error, Result};
use crate::eval::ensemble::Votes;
use crate::eval::judging::merge_votes;
use crate::eval::random::SplitMix;
use crate::generate::{FinishReason, Response};
use crate::judge::queue::{Answer, Question, Said, Usage};
use crate::judge::{Counts, Judgement, Pair, PairOutcome, Position, Verdict, best_and_worst, round_robin};

/// The smallest number of judged pairs for which the share of unusable verdicts is significant.
const MIN_JUDGED: usize = 16;

/// The pairs of a step: for each prompt, every two of its responses.
pub(super) struct Games {
    of: Vec<Vec<Game>>,
    /// The open questions by their ids.
    open: HashMap<String, (Place, Question)>,
    /// Wall-clock time of the judge for the answered questions, in milliseconds.
    ms: f64,
}

/// Responses i and j of a prompt, and the judgement on them.
#[derive(Default)]
struct Game {
    i: usize,
    j: usize,
    identical: bool,
    judgement: Option<Judgement>,
    /// The judgement on the swapped pair, if it was asked as a question of its own.
    swapped: Option<Judgement>,
}

/// The pair to which a question belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    prompt: usize,
    game: usize,
    swapped: bool,
}

impl Game {
    /// The outcome. For a pair asked in both orders as two questions, the mean of both.
    fn outcome(&self) -> PairOutcome {
        if self.identical {
            return PairOutcome::Identical;
        }
        let judgement = self.judgement.clone().expect("the games are over");
        let Some(swapped) = &self.swapped else { return PairOutcome::Judged(judgement) };
        let orders = (judgement.verdict.p_first(), swapped.verdict.p_first().map(|p| 1.0 - p));
        if let (None, None) = orders {
            return PairOutcome::Judged(judgement);
        }
        let votes = merge_votes(&judgement.votes, swapped.turned().votes);
        PairOutcome::Judged(Judgement { votes, ..Judgement::from_orders(orders.0, orders.1) })
    }
}

impl Games {
    /// Creates the pairs of the responses to these prompts. `draws` are the draw numbers of the prompts. Pairs of draws
    /// below `probes` are asked in both orders, as two questions. If the responses come from `several_policies`, their
    /// order is random, so that a position bias of the judge favours neither.
    pub fn new(
        draws: &[u64],
        prompts: &[String],
        answers: &[Vec<Response>],
        probes: u64,
        several_policies: bool,
    ) -> Games {
        let mut games = Games { of: Vec::new(), open: HashMap::new(), ms: 0.0 };
        for ((p, prompt), samples) in prompts.iter().enumerate().zip(answers) {
            let draw = draws[p];
            let mut of = Vec::new();
            let turned = several_policies && SplitMix::new(0, draw).below(2) == 1;
            for (g, (i, j)) in round_robin(samples.len()).into_iter().enumerate() {
                let (i, j) = if turned { (j, i) } else { (i, j) };
                let (response_1, response_2) = (samples[i].text.as_str(), samples[j].text.as_str());
                let pair = Pair { prompt, response_1, response_2 };
                let identical = response_1 == response_2;
                let mut ask = |swapped: bool, question: Question| {
                    let at = Place { prompt: p, game: g, swapped };
                    games.open.insert(question.id.clone(), (at, question));
                };
                if !identical {
                    let question = Question::compare(&format!("{draw}-{i}-{j}"), &pair);
                    if draw < probes {
                        ask(true, question.turned(&format!("{draw}-{j}-{i}"), Position::Given));
                    }
                    ask(false, question);
                }
                of.push(Game { i, j, identical, ..Game::default() });
            }
            games.of.push(of);
        }
        games
    }

    /// The open questions, in the order of the pairs.
    pub fn questions(&self) -> Vec<Question> {
        let mut open: Vec<&(Place, Question)> = self.open.values().collect();
        open.sort_by_key(|(place, _)| *place);
        open.into_iter().map(|(_, question)| question.clone()).collect()
    }

    /// Takes an answer. Returns whether it belongs to one of these pairs.
    pub fn take(&mut self, answer: &Answer) -> bool {
        let Some((Place { prompt, game, swapped }, _)) = self.open.remove(&answer.id) else { return false };
        let Said::Judgement(judgement) = &answer.said else { unreachable!("a comparison was asked for") };
        let game = &mut self.of[prompt][game];
        *(if swapped { &mut game.swapped } else { &mut game.judgement }) = Some(judgement.clone());
        self.ms += answer.ms;
        true
    }

    /// Whether every question is answered.
    pub fn are_over(&self) -> bool {
        self.open.is_empty()
    }

    /// The outcomes, and the pairs to learn from.
    pub fn judging(&self, choosing: Choosing) -> Judging {
        let known = |game: &Game| (game.i, game.j, game.outcome());
        let games: Vec<Vec<(usize, usize, PairOutcome)>> =
            self.of.iter().map(|games| games.iter().map(known).collect()).collect();
        let counts = Counts::of(games.iter().flatten().map(|(_, _, outcome)| outcome));
        let mut unsure = 0;
        let mut choose = |games: &Vec<(usize, usize, PairOutcome)>| {
            let mut choices = match choosing.pairs {
                PairChoice::BestWorst => best_against_worst(games).into_iter().collect(),
                PairChoice::All => all_decided(games),
            };
            let found = choices.len();
            choices.retain(|choice: &Choice| choice.probability >= choosing.min_confidence);
            unsure += found - choices.len();
            choices
        };
        let choices = games.iter().map(&mut choose).collect();
        let latency_ms = self.ms / counts.judged.max(1) as f64;
        Judging { games, choices, counts, unsure, latency_ms }
    }
}

/// The rule for choosing the pairs to learn from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choosing {
    pub pairs: PairChoice,
    /// The smallest probability that the chosen response is better.
    pub min_confidence: f32,
}

/// Two responses to one prompt to learn from.
pub(super) struct Choice {
    pub chosen: usize,
    pub rejected: usize,
    /// The judge's probability that the chosen response is better.
    pub probability: f32,
}

/// The judgements on the responses of a step.
pub(super) struct Judging {
    /// For each prompt its pairs: the indices i and j, and the outcome.
    games: Vec<Vec<(usize, usize, PairOutcome)>>,
    /// For each prompt, the pairs to learn from.
    pub choices: Vec<Vec<Choice>>,
    pub counts: Counts,
    /// The number of pairs below the minimum confidence.
    unsure: usize,
    /// Wall-clock time of the judge per judged pair, in milliseconds.
    latency_ms: f64,
}

/// Every pair with a preference.
fn all_decided(games: &[(usize, usize, PairOutcome)]) -> Vec<Choice> {
    let choice = |(i, j, outcome): &(usize, usize, PairOutcome)| match outcome.verdict() {
        Verdict::First { p } => Some(Choice { chosen: *i, rejected: *j, probability: p }),
        Verdict::Second { p } => Some(Choice { chosen: *j, rejected: *i, probability: 1.0 - p }),
        Verdict::Tie | Verdict::Invalid { .. } => None,
    };
    games.iter().filter_map(choice).collect()
}

/// The best response against the worst. With two responses, the preferred one against the other.
fn best_against_worst(games: &[(usize, usize, PairOutcome)]) -> Option<Choice> {
    let verdicts: Vec<(usize, usize, Verdict)> =
        games.iter().map(|(i, j, a)| (*i, *j, a.verdict())).collect();
    let samples = games.iter().map(|(i, j, _)| i.max(j) + 1).max()?;
    let (chosen, rejected) = best_and_worst(samples, &verdicts)?;
    // The mean probability that a response wins, over its pairs with a usable verdict.
    let strength = |sample: usize| {
        let wins = verdicts.iter().filter_map(|(i, j, verdict)| match verdict.p_first()? {
            p if *i == sample => Some(p),
            p if *j == sample => Some(1.0 - p),
            _ => None,
        });
        let wins: Vec<f32> = wins.collect();
        wins.iter().sum::<f32>() / wins.len().max(1) as f32
    };
    // With two responses, this is the judge's own probability.
    let probability = (0.5 + 0.5 * (strength(chosen) - strength(rejected))).clamp(0.5, 1.0);
    Some(Choice { chosen, rejected, probability })
}

impl Judging {
    /// For each response, the mean probability that it wins against the other responses to the prompt, over the pairs
    /// with a usable verdict; `None` if there is none. Equal texts tie.
    pub fn win_rates(&self) -> Vec<Vec<Option<f64>>> {
        let of = |games: &Vec<(usize, usize, PairOutcome)>| {
            let samples = games.iter().map(|(_, j, _)| j + 1).max().unwrap_or(0);
            let mut wins = vec![(0.0, 0usize); samples];
            for (i, j, outcome) in games {
                if let Some(p) = outcome.verdict().p_first() {
                    for (sample, won) in [(*i, f64::from(p)), (*j, 1.0 - f64::from(p))] {
                        wins[sample].0 += won;
                        wins[sample].1 += 1;
                    }
                }
            }
            wins.into_iter().map(|(sum, n)| (n > 0).then(|| sum / n as f64)).collect()
        };
        self.games.iter().map(of).collect()
    }

    /// All pairs, with the choice made of them.
    pub fn pairs(
        &self,
        step: usize,
        policy_step: usize,
        prompts: &[String],
        answers: &[Vec<Response>],
    ) -> Vec<PairReport> {
        let mut out = Vec::new();
        for (p, games) in self.games.iter().enumerate() {
            for (i, j, outcome) in games {
                let is_it =
                    |c: &&Choice| [[c.chosen, c.rejected], [c.rejected, c.chosen]].contains(&[*i, *j]);
                let learnt = self.choices[p].iter().find(is_it);
                let pair = PairReport {
                    step,
                    policy_step,
                    prompt: prompts[p].clone(),
                    response_1: answers[p][*i].text.clone(),
                    response_2: answers[p][*j].text.clone(),
                    judgement: None,
                    skipped: None,
                    chosen: learnt.map(|c| if c.chosen == *i { 1 } else { 2 }),
                };
                out.push(pair.judged(outcome));
            }
        }
        out
    }

    /// The reason of the first unusable verdict.
    pub fn first_invalid(&self) -> Option<&str> {
        self.games.iter().flatten().find_map(|(_, _, a)| match a {
            PairOutcome::Judged(j) => match &j.verdict {
                Verdict::Invalid { why } => Some(why.as_str()),
                _ => None,
            },
            PairOutcome::Identical => None,
        })
    }

    /// The report for `metrics.jsonl`.
    pub fn report(&self, off_policy_steps: usize, used: Usage, longer: Option<f64>) -> JudgeReport {
        let counts = &self.counts;
        let learnt: Vec<&Choice> = self.choices.iter().flatten().collect();
        let mean = |of: fn(f64) -> f64| {
            let sum: f64 = learnt.iter().map(|choice| of(choice.probability as f64)).sum();
            (!learnt.is_empty()).then(|| sum / learnt.len() as f64)
        };
        JudgeReport {
            judged: counts.judged,
            first: counts.first_ratio(),
            tie: counts.tie,
            invalid: counts.invalid,
            identical: counts.identical,
            order_flip: counts.order_flip,
            both_orders: counts.both_orders,
            longer,
            unsure: self.unsure,
            learnt: learnt.len(),
            latency_ms: self.latency_ms,
            off_policy_steps,
            scores: mean(|p| p),
            scores_margin: mean(|p| 2.0 * p - 1.0),
            votes: None,
            used: UsageReport::of(used),
        }
    }
}

/// Totals of the verdicts and responses of a run. Checkpoints store them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictTotals {
    counts: Counts,
    /// The last steps, as many as are needed for 16 judged pairs.
    recent: VecDeque<Recent>,
    answers: usize,
    /// Responses that ended with the end-of-sequence token or a stop string.
    ended: usize,
    habits: Habits,
    /// The votes of the members of an ensemble.
    votes: Votes,
}

/// The number of verdicts in a step.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recent {
    judged: usize,
    invalid: usize,
}

impl VerdictTotals {
    pub fn add(&mut self, counts: &Counts, answers: &[Vec<Response>], pairs: &[PairReport]) {
        self.counts += *counts;
        self.habits.add(pairs);
        pairs.iter().filter_map(|pair| pair.judgement.as_ref()).for_each(|said| self.votes.add(&said.votes));
        self.recent.push_back(Recent { judged: counts.judged, invalid: counts.invalid });
        while self.recent.iter().skip(1).map(|step| step.judged).sum::<usize>() >= MIN_JUDGED {
            self.recent.pop_front();
        }
        let all = answers.iter().flatten();
        self.answers += all.clone().count();
        self.ended += all.filter(|answer| answer.finish_reason != FinishReason::Length).count();
    }

    /// Removes what is known about the judge, because another one follows.
    pub fn forget_judge(&mut self) {
        let VerdictTotals { answers, ended, .. } = *self;
        *self = VerdictTotals { answers, ended, ..VerdictTotals::default() };
    }

    /// Fails if the judge gives too few usable verdicts: of all verdicts so far, or none recently.
    pub fn check(&self, limit: f64, name: &str, invalid: Option<&str>) -> Result<()> {
        let sum = |of: fn(&Recent) -> usize| self.recent.iter().map(of).sum::<usize>();
        let recent = (sum(|step| step.invalid), sum(|step| step.judged));
        let total = (self.counts.invalid, self.counts.judged);
        let mute = limit < 1.0 && recent.1 >= MIN_JUDGED && recent.0 == recent.1;
        let mostly = total.1 >= MIN_JUDGED && self.counts.invalid_ratio() > limit;
        let reason = invalid.unwrap_or("none in this step");
        let why = match (mostly, mute) {
            (true, _) => format!(
                "{} of {} verdicts were unusable, more than the max-invalid-ratio of {limit}; the last reason: {reason}",
                total.0, total.1
            ),
            (false, true) => {
                format!("the last {} verdicts were all unusable; the last reason: {reason}", recent.1)
            }
            (false, false) => return Ok(()),
        };
        Err(Error::Judge { name: name.into(), why })
    }

    /// The biases of the judge.
    pub fn habits(&self) -> &Habits {
        &self.habits
    }

    /// The agreement of the members of an ensemble.
    pub fn votes(&self) -> &Votes {
        &self.votes
    }

    /// A warning if no response ended.
    pub fn unending_responses(&self, max_new_tokens: usize) -> Option<String> {
        health::unending_responses(self.answers, self.ended, max_new_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index of the step at which the run stops.
    fn ends_after(limit: f64, steps: impl IntoIterator<Item = (usize, usize)>) -> Option<usize> {
        let mut totals = VerdictTotals::default();
        steps.into_iter().position(|(judged, invalid)| {
            totals.add(&Counts { judged, invalid, ..Counts::default() }, &[], &[]);
            totals.check(limit, "judge", None).is_err()
        })
    }

    fn answers(texts: [&str; 2]) -> Vec<Response> {
        let response =
            |text: &str| Response { token_ids: vec![1], text: text.into(), finish_reason: FinishReason::Eos };
        texts.map(response).into()
    }

    #[test]
    fn the_order_of_responses_of_several_policies_is_random() {
        let draws: Vec<u64> = (0..1000).collect();
        let (prompts, of) = (vec!["p".to_owned(); 1000], vec![answers(["policy", "reference"]); 1000]);
        let first = |several| {
            let games = Games::new(&draws, &prompts, &of, 0, several);
            let first = |question: &Question| question.pair().unwrap().response_1 == "policy";
            games.questions().iter().filter(|question| first(question)).count()
        };
        assert_eq!(first(false), 1000);
        // Four standard deviations of a fair coin.
        assert!((437..=563).contains(&first(true)), "{}", first(true));
    }

    #[test]
    fn a_pair_asked_in_both_orders_uses_the_usable_verdicts() {
        let judged = |one: Verdict, swapped: Verdict| {
            let voted = |verdict: Verdict, vote| Judgement {
                votes: vec![Verdict::from_probability(vote)],
                ..verdict.into()
            };
            let game = Game {
                j: 1,
                judgement: Some(voted(one, 1.0)),
                swapped: Some(voted(swapped, 1.0)),
                ..Game::default()
            };
            let PairOutcome::Judged(judgement) = game.outcome() else { panic!() };
            judgement
        };
        let p = Verdict::from_probability;
        let mute = || Verdict::Invalid { why: "mute".into() };
        let both = judged(p(1.0), p(1.0));
        assert_eq!(
            (both.verdict.clone(), both.votes.clone()),
            (Verdict::Tie, vec![Verdict::Tie]),
            "votes of both orders are merged"
        );
        assert_eq!(judged(mute(), p(1.0)).verdict, Verdict::from_probability(0.0));
        assert_eq!(judged(p(0.75), mute()).verdict, Verdict::from_probability(0.75));
        assert!(judged(mute(), mute()).verdict.p_first().is_none());
    }

    #[test]
    fn a_judge_without_usable_verdicts_stops_the_run_within_a_few_steps() {
        let good = [(4, 0); 30];
        assert_eq!(ends_after(0.5, good.into_iter().chain([(4, 4); 10])), Some(33));
        assert_eq!(ends_after(0.5, good.into_iter().chain([(32, 32); 10])), Some(30));
        assert_eq!(ends_after(1.0, good.into_iter().chain([(4, 4); 10])), None);
        // Single unusable verdicts now and then do not stop a run.
        assert_eq!(ends_after(0.5, (0..1000).map(|i| (4, if i % 4 == 3 { 4 } else { 1 }))), None);
    }
}
