//! Judges: two responses to a prompt in, a preference out.

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

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::task::Task;

/// Something that prefers one response to another. It can be sent to another thread, so that a run can be, too.
pub trait Judge: Send {
    /// What to call it in messages and in `run.json`.
    fn name(&self) -> String;

    /// One judgement a pair, in order. What is wrong with one pair is [`Verdict::Invalid`]; an error means that
    /// nothing can be judged.
    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>>;

    /// All that decides its verdicts, by the names of its options: a run is not resumed with another judge unawares.
    ///
    /// # Errors
    /// [`Error::Io`] for a model that cannot be read.
    fn identity(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::from([("judge".into(), self.name())]))
    }

    /// Whether it might prefer a position: then pairs are asked both ways round.
    fn position(&self) -> Position {
        Position::Settled
    }

    /// Whether it can say how good a response is by itself.
    fn rates(&self) -> bool {
        false
    }

    /// One score a response, in order, where it [`rates`](Self::rates).
    ///
    /// # Errors
    /// As [`Judge::judge`]; [`Error::Judge`] where it only compares.
    fn rate<'t>(&'t mut self, _responses: &'t [Rated<'t>]) -> Task<'t, Result<Vec<Score>>> {
        Box::pin(async move {
            Err(Error::Judge {
                name: self.name(),
                why: "compares responses, and rates none by itself".into(),
            })
        })
    }
}

/// A judge behind a pointer is one.
macro_rules! judges_as_what_it_points_to {
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

// One that is somebody else's, which a run borrows, and one that is chosen while the program runs.
judges_as_what_it_points_to!(&mut A, Box<A>);

/// What the order of two responses may do to a judge's verdict, and so who is asked about a pair the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    /// Nothing that another question would tell: it asks in both orders itself, looks at each response by itself, or is a
    /// person, to whom they are shown in random order.
    #[default]
    Settled,
    /// It may prefer one: it was told to ask in the given order alone, and its judgements say so. The first pairs of a run are
    /// asked both ways round to find out.
    Given,
    /// It may prefer one, and its judgements tell of no order. An evaluation asks every pair both ways round, too.
    Untold,
}

/// A response to a prompt, to be rated by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rated<'a> {
    /// What was answered.
    pub prompt: &'a str,
    /// The answer.
    pub response: &'a str,
}

/// How good a response is. Differences of scores are log-odds: of two responses, the one that is 1 above the other is
/// preferred with probability σ(1) (Bradley and Terry 1952).
#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// Higher is better; finite.
    Value(f32),
    /// The judge's answer is unusable.
    Invalid {
        /// For `pairs.jsonl`.
        why: String,
    },
}

/// Two responses to one prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// What was answered.
    pub prompt: &'a str,
    /// One answer.
    pub response_1: &'a str,
    /// The other answer.
    pub response_2: &'a str,
}

impl Pair<'_> {
    /// The same pair in the other order.
    pub fn swapped(self) -> Self {
        Pair { prompt: self.prompt, response_1: self.response_2, response_2: self.response_1 }
    }
}

/// Which response is preferred; `p` is the probability that it is `response_1`. Made by
/// [`from_probability`](Self::from_probability), so that p and the variant agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Verdict {
    /// `response_1`.
    First {
        /// The probability that `response_1` is better: above 0.5.
        p: f32,
    },
    /// `response_2`.
    Second {
        /// The probability that `response_1` is better: below 0.5.
        p: f32,
    },
    /// Neither.
    Tie,
    /// The judge's answer is unusable.
    Invalid {
        /// For `pairs.jsonl`.
        why: String,
    },
}

/// A verdict in files, where it is one of several: its probability, or why there is none.
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

impl Verdict {
    /// The verdict of a judge that prefers `response_1` with probability `p`. Exactly 0.5 is a tie; what is
    /// no probability is invalid.
    pub fn from_probability(p: f32) -> Verdict {
        match p {
            p if !(0.0..=1.0).contains(&p) => Verdict::Invalid { why: format!("{p} is not a probability") },
            p if p > 0.5 => Verdict::First { p },
            p if p < 0.5 => Verdict::Second { p },
            _ => Verdict::Tie,
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

    /// The verdict on the pair the other way round.
    pub fn turned(&self) -> Verdict {
        match self.p_first() {
            Some(p) => Verdict::from_probability(1.0 - p),
            None => self.clone(),
        }
    }

    /// What `oaif judge` and `pairs.jsonl` write: "1", "2", "tie" or "invalid".
    pub fn label(&self) -> &'static str {
        match self {
            Verdict::First { .. } => "1",
            Verdict::Second { .. } => "2",
            Verdict::Tie => "tie",
            Verdict::Invalid { .. } => "invalid",
        }
    }
}

/// A verdict, and what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Which response is preferred.
    pub verdict: Verdict,
    /// The probability that `response_1` is preferred when it is shown first; `None` if that was not asked.
    pub p_12: Option<f32>,
    /// The probability that `response_1` is preferred when it is shown second; `None` if that was not asked.
    pub p_21: Option<f32>,
    /// Of an [`Ensemble`](ensemble::Ensemble), each member's verdict. Of others nothing.
    pub votes: Vec<Verdict>,
}

impl Judgement {
    /// The mean over the orders that were asked (paper, "Judge").
    pub fn from_orders(p_12: Option<f32>, p_21: Option<f32>) -> Judgement {
        let verdict = match (p_12, p_21) {
            (Some(a), Some(b)) if (0.0..=1.0).contains(&b) => match Verdict::from_probability(a) {
                Verdict::Invalid { why } => Verdict::Invalid { why },
                _ => Verdict::from_probability(0.5 * (a + b)),
            },
            (_, Some(p)) | (Some(p), None) => Verdict::from_probability(p),
            (None, None) => Verdict::Invalid { why: "no order was asked".into() },
        };
        Judgement { verdict, p_12, p_21, votes: Vec::new() }
    }

    /// The judgement of the pair the other way round.
    pub fn turned(&self) -> Judgement {
        Judgement {
            verdict: self.verdict.turned(),
            p_12: self.p_21.map(|p| 1.0 - p),
            p_21: self.p_12.map(|p| 1.0 - p),
            votes: self.votes.iter().map(Verdict::turned).collect(),
        }
    }

    /// Whether the preferred *position* was the same in both orders.
    pub fn order_flip(&self) -> bool {
        orders_disagree(self.p_12, self.p_21)
    }
}

/// Whether each of two orders prefers another response, given its probability for one and the same response.
pub(crate) fn orders_disagree(p_12: Option<impl Into<f64>>, p_21: Option<impl Into<f64>>) -> bool {
    let sides = (p_12.map(Into::into), p_21.map(Into::into));
    matches!(sides, (Some(a), Some(b)) if (a > 0.5 && b < 0.5) || (a < 0.5 && b > 0.5))
}

/// A judgement of a judge that knows no orders.
impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        Judgement { verdict, p_12: None, p_21: None, votes: Vec::new() }
    }
}

/// What became of a pair.
#[derive(Clone, Debug, PartialEq)]
pub enum PairOutcome {
    /// The judge was asked.
    Judged(Judgement),
    /// The responses are the same text: nothing to ask.
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

/// One judgement a pair, in order.
///
/// # Errors
/// Those of the judge; [`Error::Judge`] for another number of judgements.
pub(crate) async fn one_each(judge: &mut dyn Judge, pairs: &[Pair<'_>]) -> Result<Vec<Judgement>> {
    let judged = judge.judge(pairs).await?;
    match judged.len() == pairs.len() {
        true => Ok(judged),
        false => {
            let why =
                format!("gave {} judgements for {} pairs, it must give one each", judged.len(), pairs.len());
            Err(Error::Judge { name: judge.name(), why })
        }
    }
}

/// Asks `judge` about those of `pairs` whose responses differ. One result a pair, in order.
pub async fn judge_pairs(judge: &mut dyn Judge, pairs: &[Pair<'_>]) -> Result<Vec<PairOutcome>> {
    let identical = |pair: &Pair| pair.response_1 == pair.response_2;
    let asked: Vec<Pair> = pairs.iter().copied().filter(|pair| !identical(pair)).collect();
    let judged = if asked.is_empty() { Vec::new() } else { one_each(judge, &asked).await? };
    let mut judged = judged.into_iter();
    let next = |pair| if identical(pair) { None } else { judged.next() };
    Ok(pairs
        .iter()
        .map(next)
        .map(|judged| judged.map_or(PairOutcome::Identical, PairOutcome::Judged))
        .collect())
}

/// How many pairs came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Pairs that the judge was asked about, ties and invalid ones included.
    pub judged: usize,
    /// Those won by `response_1`.
    pub first: usize,
    /// Those without a preference.
    pub tie: usize,
    /// Those without a usable verdict.
    pub invalid: usize,
    /// Pairs of equal responses, not in `judged`.
    pub identical: usize,
    /// Those of `judged` that were asked about in both orders.
    pub both_orders: usize,
    /// Those of them in which the two orders disagree.
    pub order_flip: usize,
}

impl Counts {
    /// Counts `judged`.
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

    /// The share of the judged pairs that are invalid; 0 where none was judged.
    pub fn invalid_ratio(&self) -> f64 {
        self.invalid as f64 / self.judged.max(1) as f64
    }

    /// The share of the pairs with a preference that `response_1` won; `None` where there is no such pair.
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

/// The pairs (i, j), i < j, in which each of `k` samples meets each other one once.
pub(crate) fn round_robin(k: usize) -> Vec<(usize, usize)> {
    (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j))).collect()
}

/// The samples with the most and the fewest wins among the `games` (i, j, whether i is [`Verdict::First`]) of
/// `k` samples, or `None` where all have equally many. A tie is half a win; the lowest index is taken of several.
///
/// Counted is wins - losses: the same ranking when all verdicts are valid, and when some are not, a sample that
/// nothing is known about stays in the middle (the sum is 0) and is never chosen for want of wins.
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

    /// Gives these judgements and notes how many pairs it was asked about.
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
        assert_eq!(Verdict::from_probability(0.500_001), Verdict::First { p: 0.500_001 });
        assert_eq!(Verdict::from_probability(0.499_999), Verdict::Second { p: 0.499_999 });
        assert_eq!((Verdict::from_probability(1.0), Verdict::from_probability(0.0)), (FIRST, SECOND));
        for p in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 1.000_001] {
            assert_eq!(Verdict::from_probability(p).label(), "invalid", "{p}");
        }
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
    fn both_orders_are_averaged_and_a_position_bias_is_a_flip() {
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
    fn identical_responses_are_never_asked_about_and_order_is_kept() {
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
    fn a_judge_that_loses_a_pair_is_an_error() {
        let error = judge_pairs(&mut Fixed(Vec::new(), Vec::new()), &[pair("a", "b")]).wait().unwrap_err();
        assert!(error.to_string().contains("fixed: gave 0 judgements for 1 pairs"), "{error}");
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
    fn in_a_round_robin_each_meets_each_once() {
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
    fn no_difference_in_wins_is_no_pair() {
        assert_eq!(best_and_worst(2, &[(0, 1, Verdict::Tie)]), None);
        assert_eq!(best_and_worst(3, &[(0, 1, FIRST), (1, 2, FIRST), (0, 2, SECOND)]), None);
        assert_eq!(best_and_worst(0, &[]), None);
    }

    #[test]
    fn an_invalid_verdict_makes_nobody_the_worst() {
        let games = [(0, 1, invalid()), (0, 2, invalid()), (1, 2, FIRST)];
        assert_eq!(best_and_worst(3, &games), Some((1, 2)));
        assert_eq!(best_and_worst(2, &[(0, 1, invalid())]), None);
    }
}
