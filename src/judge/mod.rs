//! Judges: compare two responses to a prompt.

#[cfg(not(target_arch = "wasm32"))]
pub mod command;
#[cfg(not(target_arch = "wasm32"))]
pub mod config;
pub mod ensemble;
pub mod human;
pub mod journal;
pub mod judge_model;
pub mod likelihood;
pub mod llm;
pub(crate) mod names;
#[cfg(feature = "http")]
pub mod openai;
mod placeholders;
#[cfg(not(target_arch = "wasm32"))]
mod process;
pub mod queue;
pub mod reward;
pub mod rule;
pub(crate) mod shared;
pub mod template;
#[cfg(not(target_arch = "wasm32"))]
pub mod threaded;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::task::Task;

/// The way out where a judge cannot rate a response.
const USE_A_RATER: &str = "use a judge that rates responses (reward, rule, or openai with a rating template)";

/// Compares two responses to a prompt. It must be `Send`, so that a run can be moved to another thread.
pub trait Judge: Send {
    /// The name in messages and in `run.json`.
    fn name(&self) -> String;

    /// Judges the pairs: returns one judgement per pair, in order. A pair that cannot be judged gets
    /// [`Verdict::Invalid`]; an error means that no pair can be judged.
    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>>;

    /// Everything that determines the verdicts, by option name. Checkpoints store it, and a run whose judge differs is
    /// not resumed.
    ///
    /// # Errors
    /// [`Error::Io`] for a model that cannot be read.
    fn identity(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([("judge".into(), self.name())]))
    }

    /// How the order of the responses may affect the verdicts, which decides whether pairs are also judged in the other
    /// order.
    fn position(&self) -> Position {
        Position::Settled
    }

    /// Whether the judge can rate a single response.
    fn rates(&self) -> bool {
        false
    }

    /// Returns one score per response, in order, if it [`rates`](Self::rates).
    ///
    /// # Errors
    /// As [`Judge::judge`]; [`Error::Judge`] if it only compares.
    fn rate<'t>(&'t mut self, _responses: &'t [Rated<'t>]) -> Task<'t, Result<Vec<Score>>> {
        Box::pin(async move {
            Err(Error::Judge { name: self.name(), why: format!("only compares responses: {USE_A_RATER}") })
        })
    }
}

/// Implements [`Judge`] for a pointer to a judge.
macro_rules! judge_through_pointer {
    ($($pointer:ty),*) => {$(
        impl<A: Judge + ?Sized> Judge for $pointer {
            fn name(&self) -> String {
                (**self).name()
            }

            fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
                (**self).judge(pairs)
            }

            fn identity(&self) -> Result<BTreeMap<String, String>> {
                (**self).identity()
            }

            fn position(&self) -> Position {
                (**self).position()
            }

            fn rates(&self) -> bool {
                (**self).rates()
            }

            fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, Result<Vec<Score>>> {
                (**self).rate(responses)
            }
        }
    )*};
}

// `&mut A` lets a run borrow a judge; `Box<A>` lets the program choose one at run time.
judge_through_pointer!(&mut A, Box<A>);

/// How the order of two responses may affect a judge's verdict; decides whether the swapped pair is judged as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// There is nothing to measure: the judge asks in both orders itself, rates each response by itself, or is a person
    /// who sees the responses in random order.
    #[default]
    Settled,
    /// The judge may prefer a position: it was configured to ask only in the given order, and its judgements record
    /// that order. The first pairs of a run are judged in both orders to measure the bias.
    Given,
    /// The judge may prefer a position, and its judgements record no order. An evaluation judges every pair in both
    /// orders, too.
    Untold,
}

/// A response to a prompt, to be rated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rated<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The response to it.
    pub response: &'a str,
}

/// How good a response is. Differences of scores are log-odds: a response whose score is higher by 1 is preferred with
/// probability σ(1) (Bradley and Terry 1952).
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// The score, finite; higher is better.
    Value(f32),
    /// The judge's answer is unusable.
    Invalid {
        /// The reason, for `pairs.jsonl`.
        why: String,
    },
}

/// Two responses to one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The first response.
    pub response_1: &'a str,
    /// The second response.
    pub response_2: &'a str,
}

impl Pair<'_> {
    /// The same pair in the other order.
    pub fn swapped(self) -> Self {
        Pair { prompt: self.prompt, response_1: self.response_2, response_2: self.response_1 }
    }
}

/// Which response is preferred; `p` is the probability that it is `response_1`. Build it with
/// [`from_probability`](Self::from_probability), so that `p` and the variant agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Verdict {
    /// `response_1` is preferred.
    First {
        /// The probability that `response_1` is better: above 0.5.
        p: f32,
    },
    /// `response_2` is preferred.
    Second {
        /// The probability that `response_1` is better: below 0.5.
        p: f32,
    },
    /// Neither is preferred.
    Tie,
    /// The judge's answer is unusable.
    Invalid {
        /// The reason, for `pairs.jsonl`.
        why: String,
    },
}

/// A verdict as an element of a list in files: its probability, or the reason why it is invalid.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Probability(f32),
    Why(String),
}

impl From<Written> for Verdict {
    fn from(written: Written) -> Verdict {
        match written {
            Written::Probability(p) => Verdict::from_probability(p),
            Written::Why(why) => Verdict::Invalid { why },
        }
    }
}

impl From<Verdict> for Written {
    fn from(verdict: Verdict) -> Written {
        match (verdict.p_first(), verdict) {
            (_, Verdict::Invalid { why }) => Written::Why(why),
            (p, _) => Written::Probability(p.unwrap_or(0.5)),
        }
    }
}

/// The distance from ½ up to which a probability is a tie. Two contradictory orders have the mean ½ only up to rounding.
const TIE: f64 = 1e-6;

/// Whether a response with this probability to be preferred is the better one (`Greater`), the worse one (`Less`), or tied
/// (`Equal`).
pub(crate) fn side_of_tie(p: impl Into<f64>) -> Ordering {
    let p = p.into();
    if (p - 0.5).abs() <= TIE {
        Ordering::Equal
    } else if p > 0.5 {
        Ordering::Greater
    } else {
        Ordering::Less
    }
}

impl Verdict {
    /// The verdict of a judge that prefers `response_1` with probability `p`. Within 1e-6 of 0.5 it is a tie; a `p`
    /// outside of 0..=1 is invalid.
    pub fn from_probability(p: f32) -> Verdict {
        if !(0.0..=1.0).contains(&p) {
            return Verdict::Invalid { why: format!("{p} is not a probability") };
        }
        match side_of_tie(p) {
            Ordering::Greater => Verdict::First { p },
            Ordering::Less => Verdict::Second { p },
            Ordering::Equal => Verdict::Tie,
        }
    }

    /// The probability that `response_1` is preferred, 0.5 for a tie, `None` if invalid.
    pub fn p_first(&self) -> Option<f32> {
        match self {
            Verdict::First { p } | Verdict::Second { p } => Some(*p),
            Verdict::Tie => Some(0.5),
            Verdict::Invalid { .. } => None,
        }
    }

    /// The same verdict for the swapped pair.
    pub fn turned(&self) -> Verdict {
        match self.p_first() {
            Some(p) => Verdict::from_probability(1.0 - p),
            None => self.clone(),
        }
    }

    /// The label in the output of `oaif judge` and in `pairs.jsonl`: "1", "2", "tie" or "invalid".
    pub fn label(&self) -> &'static str {
        match self {
            Verdict::First { .. } => "1",
            Verdict::Second { .. } => "2",
            Verdict::Tie => "tie",
            Verdict::Invalid { .. } => "invalid",
        }
    }
}

/// A verdict, and the probabilities that it was computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Which response is preferred.
    pub verdict: Verdict,
    /// The probability that `response_1` is preferred when it is shown first; `None` if this order was not judged.
    pub p_12: Option<f32>,
    /// The probability that `response_1` is preferred when it is shown second; `None` if this order was not judged.
    pub p_21: Option<f32>,
    /// The verdict of each member of an [`Ensemble`](ensemble::Ensemble); empty for other judges.
    pub votes: Vec<Verdict>,
}

impl Judgement {
    /// The mean over the orders that were judged (paper, "Judge").
    pub fn from_orders(p_12: Option<f32>, p_21: Option<f32>) -> Judgement {
        let verdict = match (p_12, p_21) {
            (Some(a), Some(b)) if (0.0..=1.0).contains(&b) => match Verdict::from_probability(a) {
                Verdict::Invalid { why } => Verdict::Invalid { why },
                _ => Verdict::from_probability(0.5 * (a + b)),
            },
            (_, Some(p)) | (Some(p), None) => Verdict::from_probability(p),
            (None, None) => Verdict::Invalid { why: "no order was judged".into() },
        };
        Judgement { verdict, p_12, p_21, votes: Vec::new() }
    }

    /// The same judgement for the swapped pair.
    pub fn turned(&self) -> Judgement {
        Judgement {
            verdict: self.verdict.turned(),
            p_12: self.p_21.map(|p| 1.0 - p),
            p_21: self.p_12.map(|p| 1.0 - p),
            votes: self.votes.iter().map(Verdict::turned).collect(),
        }
    }

    /// Whether the same *position* was preferred in both orders.
    pub fn order_flip(&self) -> bool {
        orders_disagree(self.p_12, self.p_21)
    }
}

/// Whether two orders prefer different responses, given the probabilities of one and the same response in each order.
pub(crate) fn orders_disagree(p_12: Option<impl Into<f64>>, p_21: Option<impl Into<f64>>) -> bool {
    let sides = (p_12.map(side_of_tie), p_21.map(side_of_tie));
    matches!(
        sides,
        (Some(Ordering::Greater), Some(Ordering::Less)) | (Some(Ordering::Less), Some(Ordering::Greater))
    )
}

/// A judgement of a judge that records no orders.
impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Judgement { verdict, p_12: None, p_21: None, votes: Vec::new() }
    }
}

/// The outcome of a pair.
#[derive(Clone, Debug, PartialEq)]
pub enum PairOutcome {
    /// The pair was judged.
    Judged(Judgement),
    /// The responses are the same text, so the pair was not judged.
    Identical,
}

impl PairOutcome {
    /// The verdict for a round robin: identical responses tie.
    pub fn verdict(&self) -> Verdict {
        match self {
            PairOutcome::Judged(judgement) => judgement.verdict.clone(),
            PairOutcome::Identical => Verdict::Tie,
        }
    }
}

/// Judges the pairs: one judgement per pair, in order.
///
/// # Errors
/// Those of the judge; [`Error::Judge`] if the number of judgements is not the number of pairs.
pub(crate) async fn one_each(judge: &mut dyn Judge, pairs: &[Pair<'_>]) -> Result<Vec<Judgement>> {
    let judged = judge.judge(pairs).await?;
    match judged.len() == pairs.len() {
        true => Ok(judged),
        false => {
            let why = format!(
                "returned {} judgements for {} pairs: it must return one per pair",
                judged.len(),
                pairs.len()
            );
            Err(Error::Judge { name: judge.name(), why })
        }
    }
}

/// Judges those of `pairs` whose responses differ. Returns one outcome per pair, in order.
pub async fn judge_pairs(judge: &mut dyn Judge, pairs: &[Pair<'_>]) -> Result<Vec<PairOutcome>> {
    let identical = |pair: &Pair| pair.response_1 == pair.response_2;
    let different: Vec<Pair> = pairs.iter().copied().filter(|pair| !identical(pair)).collect();
    let judged = if different.is_empty() { Vec::new() } else { one_each(judge, &different).await? };
    let mut judged = judged.into_iter();
    let next = |pair| if identical(pair) { None } else { judged.next() };
    Ok(pairs
        .iter()
        .map(next)
        .map(|judged| judged.map_or(PairOutcome::Identical, PairOutcome::Judged))
        .collect())
}

/// Counts of pairs by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Pairs that were judged, including ties and invalid ones.
    pub judged: usize,
    /// Pairs won by `response_1`.
    pub first: usize,
    /// Pairs without a preference.
    pub tie: usize,
    /// Pairs without a usable verdict.
    pub invalid: usize,
    /// Pairs of identical responses; not included in `judged`.
    pub identical: usize,
    /// Those of `judged` that were judged in both orders.
    pub both_orders: usize,
    /// Those of `both_orders` in which the two orders disagree.
    pub order_flip: usize,
}

impl Counts {
    /// Counts these outcomes.
    pub fn of<'a>(outcome: impl IntoIterator<Item = &'a PairOutcome>) -> Counts {
        let mut counts = Counts::default();
        for one in outcome {
            let PairOutcome::Judged(judgement) = one else {
                counts.identical += 1;
                continue;
            };
            counts.judged += 1;
            counts.both_orders += usize::from(judgement.p_12.is_some() && judgement.p_21.is_some());
            counts.order_flip += usize::from(judgement.order_flip());
            match judgement.verdict {
                Verdict::First { .. } => counts.first += 1,
                Verdict::Second { .. } => {}
                Verdict::Tie => counts.tie += 1,
                Verdict::Invalid { .. } => counts.invalid += 1,
            }
        }
        counts
    }

    /// The share of the judged pairs that are invalid; 0 if none was judged.
    pub fn invalid_ratio(&self) -> f64 {
        self.invalid as f64 / self.judged.max(1) as f64
    }

    /// The share of pairs won by `response_1` among those with a preference; `None` if there is none.
    pub fn first_ratio(&self) -> Option<f64> {
        let decided = self.judged - self.tie - self.invalid;
        (decided > 0).then(|| self.first as f64 / decided as f64)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.judged += other.judged;
        self.first += other.first;
        self.tie += other.tie;
        self.invalid += other.invalid;
        self.identical += other.identical;
        self.both_orders += other.both_orders;
        self.order_flip += other.order_flip;
    }
}

/// The pairs (i, j), i < j, of a round robin between `k` samples.
pub(crate) fn round_robin(k: usize) -> Vec<(usize, usize)> {
    (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).collect()
}

/// The samples with the most and the fewest wins among the `games` (i, j, whether i is [`Verdict::First`]) of `k`
/// samples, or `None` if all have equally many. A tie counts as half a win; of equal samples the lowest index is taken.
///
/// Samples are ranked by wins - losses. If all verdicts are valid, this is the same ranking as by wins. If some are
/// invalid, a sample without valid verdicts has 0 and stays in the middle (the sum over all is 0); it is not the worst
/// for lack of wins.
pub(crate) fn best_and_worst(k: usize, games: &[(usize, usize, Verdict)]) -> Option<(usize, usize)> {
    let mut net = vec![0i64; k];
    for (i, j, verdict) in games {
        let result = match verdict {
            Verdict::First { .. } => 1,
            Verdict::Second { .. } => -1,
            Verdict::Tie | Verdict::Invalid { .. } => 0,
        };
        net[*i] += result;
        net[*j] -= result;
    }
    let worst = (0..k).min_by_key(|&i| net[i])?;
    let best = (0..k).min_by_key(|&i| -net[i])?;
    (net[best] > net[worst]).then_some((best, worst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;
    use crate::eval::comparison::{Comparison, Decision};

    /// Returns these judgements and records how many pairs each call had.
    struct Fixed(Vec<Judgement>, Vec<usize>);

    impl Judge for Fixed {
        fn name(&self) -> String {
            "fixed".into()
        }
        fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
            Box::pin(async move {
                self.1.push(pairs.len());
                Ok(self.0.clone())
            })
        }
    }

    const FIRST: Verdict = Verdict::First { p: 1.0 };
    const SECOND: Verdict = Verdict::Second { p: 0.0 };

    fn invalid() -> Verdict {
        Verdict::Invalid { why: "broken".into() }
    }

    fn pair<'a>(response_1: &'a str, response_2: &'a str) -> Pair<'a> {
        Pair { prompt: "x", response_1, response_2 }
    }

    #[test]
    fn a_verdict_agrees_with_its_probability() {
        assert_eq!(Verdict::from_probability(0.5), Verdict::Tie);
        assert_eq!(Verdict::from_probability(0.500_002), Verdict::First { p: 0.500_002 });
        assert_eq!(Verdict::from_probability(0.499_998), Verdict::Second { p: 0.499_998 });
        assert_eq!((Verdict::from_probability(1.0), Verdict::from_probability(0.0)), (FIRST, SECOND));
        for p in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 1.000_001] {
            assert_eq!(Verdict::from_probability(p).label(), "invalid", "{p}");
        }
    }

    #[test]
    fn contradictory_orders_tie_in_training_and_in_an_evaluation() {
        for p in (0..=1000).map(|i| i as f32 / 1000.0) {
            let judgement = Judgement::from_orders(Some(p), Some(1.0 - p));
            assert_eq!(judgement.verdict, Verdict::Tie, "{p}");
            let [first, second] = [p, 1.0 - p].map(|p| Some(f64::from(p)));
            let evaluated = Comparison::both_orders(first, second, 1.0, 1.0).unwrap();
            assert_eq!(evaluated.decision(), Some(Decision::Tie), "{p}");
        }
        // The mean in f64 is 0.5 + 7e-9.
        assert_ne!(0.5 * (f64::from(0.2f32) + f64::from(1.0 - 0.2f32)), 0.5);
        for p in [0.5 - 2e-6, 0.5 + 2e-6] {
            assert_eq!(Decision::of(p).preference(), if p < 0.5 { 0.0 } else { 1.0 });
        }
        // A tie in one order contradicts no preference in the other.
        assert!(!orders_disagree(Some(0.5 + 1e-7), Some(0.4)) && orders_disagree(Some(0.6), Some(0.4)));
    }

    #[test]
    fn an_invalid_verdict_has_no_number_that_could_be_read_as_a_preference() {
        assert_eq!(invalid().p_first(), None);
        assert_eq!([FIRST, SECOND, Verdict::Tie].map(|v| v.p_first()), [Some(1.0), Some(0.0), Some(0.5)]);
        for orders in [(Some(f32::NAN), Some(0.9)), (Some(0.9), Some(f32::NAN)), (Some(2.0), Some(-1.0))] {
            assert_eq!(Judgement::from_orders(orders.0, orders.1).verdict.label(), "invalid", "{orders:?}");
        }
        assert_eq!(Judgement::from_orders(None, None).verdict.label(), "invalid");
    }

    #[test]
    fn both_orders_are_averaged_and_a_position_bias_is_an_order_flip() {
        let judge = |a, b| {
            let judgement = Judgement::from_orders(Some(a), Some(b));
            (judgement.verdict.label(), judgement.order_flip())
        };
        assert_eq!(judge(0.75, 0.5), ("1", false));
        assert_eq!(judge(0.75, 0.0), ("2", true));
        assert_eq!(judge(0.25, 1.0), ("1", true));
        assert_eq!(judge(0.75, 0.25), ("tie", true));
        let one = Judgement::from_orders(Some(0.75), None);
        assert_eq!((one.verdict.clone(), one.order_flip()), (Verdict::First { p: 0.75 }, false));
    }

    #[test]
    fn identical_responses_are_never_judged_and_the_order_is_kept() {
        let judgements = vec![Judgement::from(SECOND), Judgement::from(invalid())];
        let mut judge = Fixed(judgements.clone(), Vec::new());
        let pairs = [pair("a", "a"), pair("a", "b"), pair("", ""), pair("a", "a ")];
        let outcome = judge_pairs(&mut judge, &pairs).wait().unwrap();
        let judged = |i: usize| PairOutcome::Judged(judgements[i].clone());
        assert_eq!(outcome, [PairOutcome::Identical, judged(0), PairOutcome::Identical, judged(1)]);
        judge_pairs(&mut judge, &pairs[..1]).wait().unwrap();
        assert_eq!(judge.1, [2]);
        assert_eq!(outcome[0].verdict(), Verdict::Tie);
    }

    #[test]
    fn a_judge_that_returns_too_few_judgements_is_an_error() {
        let error = judge_pairs(&mut Fixed(Vec::new(), Vec::new()), &[pair("a", "b")]).wait().unwrap_err();
        assert!(error.to_string().contains("fixed: returned 0 judgements for 1 pairs"), "{error}");
    }

    #[test]
    fn counts_keep_ties_invalid_and_identical_pairs_apart() {
        let judged = |a, b| PairOutcome::Judged(Judgement::from_orders(Some(a), Some(b)));
        let outcome = [
            judged(0.9, 0.9),
            judged(0.9, 0.4),
            judged(0.1, 0.2),
            judged(0.5, 0.5),
            PairOutcome::Judged(invalid().into()),
            PairOutcome::Identical,
        ];
        let mut counts = Counts::of(&outcome);
        let expected =
            Counts { judged: 5, first: 2, tie: 1, invalid: 1, identical: 1, both_orders: 4, order_flip: 1 };
        assert_eq!(counts, expected);
        assert_eq!((counts.invalid_ratio(), counts.first_ratio()), (0.2, Some(2.0 / 3.0)));
        counts += Counts::of(&outcome[..1]);
        assert_eq!((counts.judged, counts.first), (6, 3));
        assert_eq!((Counts::default().invalid_ratio(), Counts::default().first_ratio()), (0.0, None));
    }

    #[test]
    fn in_a_round_robin_each_sample_meets_each_other_once() {
        assert_eq!(round_robin(2), [(0, 1)]);
        assert_eq!(round_robin(4), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
        assert!(round_robin(1).is_empty() && round_robin(0).is_empty());
    }

    #[test]
    fn the_best_has_most_wins_and_the_worst_fewest() {
        assert_eq!(best_and_worst(2, &[(0, 1, SECOND)]), Some((1, 0)));
        // Wins: 1, 1½, ½.
        assert_eq!(best_and_worst(3, &[(0, 1, SECOND), (0, 2, FIRST), (1, 2, Verdict::Tie)]), Some((1, 2)));
        // Wins: 2, 2, 1, 1: the lowest index of each.
        let games =
            [(0, 1, FIRST), (0, 2, FIRST), (0, 3, SECOND), (1, 2, FIRST), (1, 3, FIRST), (2, 3, FIRST)];
        assert_eq!(best_and_worst(4, &games), Some((0, 2)));
    }

    #[test]
    fn equal_wins_give_no_pair() {
        assert_eq!(best_and_worst(2, &[(0, 1, Verdict::Tie)]), None);
        assert_eq!(best_and_worst(3, &[(0, 1, FIRST), (1, 2, FIRST), (0, 2, SECOND)]), None);
        assert_eq!(best_and_worst(0, &[]), None);
    }

    #[test]
    fn an_invalid_verdict_makes_no_sample_the_worst() {
        let games = [(0, 1, invalid()), (0, 2, invalid()), (1, 2, FIRST)];
        assert_eq!(best_and_worst(3, &games), Some((1, 2)));
        assert_eq!(best_and_worst(2, &[(0, 1, invalid())]), None);
    }
}
