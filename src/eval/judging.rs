//! A judge's verdicts on responses of A and B, in both orders.

use std::collections::HashMap;

use serde::Serialize;

use super::comparison::{Comparison, Decision};
use super::random::SplitMix;
use crate::error::Result;
use crate::judge::journal::Journalled;
use crate::judge::queue::{Answer, CHUNK, LOOK, Polled, Question, Said};
use crate::judge::{Judgement, Pair, Position, Verdict};

/// A judge's verdict on the responses of A and B to one prompt. Probabilities are that A's response is better.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PairVerdict {
    /// With A's response shown first; `None` if this order was not judged, or the verdict is not usable.
    pub p_12: Option<f64>,
    /// With A's response shown second.
    pub p_21: Option<f64>,
    /// Whether the two responses are equal. They are not judged and count as a tie.
    pub identical: bool,
    /// Whether the judge was configured to judge one order only.
    pub one_order: bool,
    /// Why there is no usable verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The verdicts of the members of an ensemble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub votes: Vec<Verdict>,
}

impl PairVerdict {
    /// The comparison used by the statistics.
    ///
    /// # Errors
    /// As [`Comparison::both_orders`].
    pub fn comparison(&self, length_a: f64, length_b: f64) -> Result<Comparison> {
        match (self.identical, self.why.is_some(), self.p_12, self.p_21) {
            (true, ..) => Comparison::single(Some(0.5), length_a, length_b),
            (_, true, ..) => Comparison::single(None, length_a, length_b),
            (_, _, Some(p), None) | (_, _, None, Some(p)) if self.one_order => {
                Comparison::single(Some(p), length_a, length_b)
            }
            (_, _, first, second) => Comparison::both_orders(first, second, length_a, length_b),
        }
    }

    /// Which response is better; `None` without a usable verdict.
    pub fn decision(&self) -> Option<Decision> {
        self.comparison(0.0, 0.0).ok()?.decision()
    }

    /// Adds a judgement on the pair by a judge with this `position`. `a_first`: whether A's response was the first.
    /// Returns whether the other order still has to be judged.
    fn take(&mut self, judgement: &Judgement, a_first: bool, position: Position) -> bool {
        let of_a = |p: f32| if a_first { f64::from(p) } else { 1.0 - f64::from(p) };
        let votes = if a_first { judgement.votes.clone() } else { judgement.turned().votes };
        self.votes = merge_votes(&self.votes, votes);
        if let Verdict::Invalid { why } = &judgement.verdict {
            self.why.get_or_insert_with(|| why.clone());
            return false;
        }
        match (judgement.p_12, judgement.p_21) {
            (Some(first), Some(second)) => {
                let [a, b] = if a_first { [first, second] } else { [second, first] };
                (self.p_12, self.p_21) = (Some(of_a(a)), Some(of_a(b)));
                false
            }
            // The judge handles orders and was configured for one: this one, or (for a person) the other.
            (Some(p), None) => self.judged_once(a_first, of_a(p)),
            (None, Some(p)) => self.judged_once(!a_first, of_a(p)),
            (None, None) => {
                *self.shown(a_first) = judgement.verdict.p_first().map(of_a);
                if position != Position::Untold {
                    // The judge does not see an order.
                    *self.shown(!a_first) = *self.shown(a_first);
                }
                self.p_12.is_none() || self.p_21.is_none()
            }
        }
    }

    fn judged_once(&mut self, a_first: bool, p: f64) -> bool {
        self.one_order = true;
        *self.shown(a_first) = Some(p);
        false
    }

    fn shown(&mut self, a_first: bool) -> &mut Option<f64> {
        if a_first { &mut self.p_12 } else { &mut self.p_21 }
    }
}

/// Merges the votes of an ensemble on a pair that was judged twice.
pub(crate) fn merge_votes(first: &[Verdict], second: Vec<Verdict>) -> Vec<Verdict> {
    let both = |(one, two): (&Verdict, Verdict)| match (one.p_first(), two.p_first()) {
        (Some(one), Some(two)) => Verdict::from_probability((one + two) / 2.0),
        (None, Some(_)) => two,
        (_, None) => one.clone(),
    };
    if first.is_empty() { second } else { first.iter().zip(second).map(both).collect() }
}

/// An event while pairs are judged.
pub enum Heard<'t> {
    /// The number of pairs judged so far.
    Judged(usize),
    /// A warning for the user.
    Note(&'t str),
    /// An answer to an earlier question that does not belong to these pairs.
    Other(&'t Answer),
}

/// Receives the events of an evaluation and may stop it with an error.
pub type Watch<'w> = dyn FnMut(Heard<'_>) -> Result<()> + Send + 'w;

/// Judges all `pairs`, in which A's responses are the first and B's the second. A judge that may have a position bias
/// and does not handle orders itself is given both orders, any other one a single question. The order of the first
/// question is drawn from the seed, so that a judge of one order favours neither side. `watch` may stop it with an
/// error; the answers so far are in the journal.
///
/// # Errors
/// As [`Journalled::poll`]; those of `watch`.
pub async fn judge_pairs(
    judge: &mut Journalled<'_>,
    pairs: &[Pair<'_>],
    seed: u32,
    watch: &mut Watch<'_>,
) -> Result<Vec<PairVerdict>> {
    let identical = |pair: &Pair| pair.response_1 == pair.response_2;
    let mut verdicts: Vec<PairVerdict> = pairs
        .iter()
        .map(|pair| PairVerdict { identical: identical(pair), ..PairVerdict::default() })
        .collect();
    let a_first = |number: usize| SplitMix::new(u64::from(seed), number as u64).below(2) == 0;
    let different: Vec<usize> = (0..pairs.len()).filter(|number| !identical(&pairs[*number])).collect();
    let mut judged = pairs.len() - different.len();
    let position = judge.position();
    let chunk = if judge.is_remote() { different.len().max(1) } else { CHUNK };
    for numbers in different.chunks(chunk) {
        watch(Heard::Judged(judged))?;
        let question = |number: usize| {
            let pair = if a_first(number) { pairs[number] } else { pairs[number].swapped() };
            Question::compare(&number.to_string(), &pair)
        };
        let mut open: HashMap<String, (usize, bool)> = HashMap::new();
        // Whether the question is about the swapped pair.
        let mut questions: Vec<(usize, bool)> = numbers.iter().map(|number| (*number, false)).collect();
        while !questions.is_empty() || !open.is_empty() {
            let mut texts = Vec::new();
            for (number, turned) in questions.drain(..) {
                let drawn = question(number);
                let question =
                    if turned { drawn.turned(&number.to_string(), Position::Untold) } else { drawn };
                open.insert(question.id.clone(), (number, a_first(number) != turned));
                texts.push(question);
            }
            if !texts.is_empty() {
                judge.submit(texts)?;
            }
            let Polled { answers, notes } = judge.poll(LOOK).await?;
            for note in &notes {
                watch(Heard::Note(note))?;
            }
            for answer in &answers {
                let (Some((number, a_first)), Said::Judgement(judgement)) =
                    (open.remove(&answer.id), &answer.said)
                else {
                    watch(Heard::Other(answer))?;
                    continue;
                };
                match verdicts[number].take(judgement, a_first, position) {
                    true => questions.push((number, true)),
                    false => judged += 1,
                }
            }
            watch(Heard::Judged(judged))?;
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;
    use crate::judge::Judge;
    use crate::judge::ensemble::{Ensemble, Vote};
    use crate::judge::queue::{InPlace, JudgeQueue};
    use crate::judge::rule::Rule;
    use crate::task::Task;

    /// Judges with a function and counts the pairs. It may have a position bias.
    struct Counted<F>(F, std::sync::Arc<std::sync::Mutex<usize>>);

    impl<F: Fn(&Pair<'_>) -> Judgement + Send> Judge for Counted<F> {
        fn name(&self) -> String {
            "test".into()
        }
        fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
            Box::pin(async move {
                *self.1.lock().unwrap() += pairs.len();
                Ok(pairs.iter().map(&self.0).collect())
            })
        }
        fn position(&self) -> Position {
            Position::Untold
        }
    }

    fn verdicts(judge: impl Judge, responses: &[(&str, &str)]) -> Vec<PairVerdict> {
        let pairs: Vec<Pair> =
            responses.iter().map(|(a, b)| Pair { prompt: "x", response_1: a, response_2: b }).collect();
        let mut judge = Journalled::new(Box::new(InPlace::new(judge)));
        judge_pairs(&mut judge, &pairs, 7, &mut |_| Ok(())).wait().unwrap()
    }

    fn decisions(verdicts: &[PairVerdict]) -> Vec<Option<Decision>> {
        verdicts.iter().map(PairVerdict::decision).collect()
    }

    #[test]
    fn a_rule_gives_the_same_verdict_in_both_orders() {
        let responses = [("aaa", "b"), ("a", "bbb"), ("a", "b"), ("same", "same")].repeat(30);
        let verdicts = verdicts(Rule::parse("longer").unwrap(), &responses);
        let expected = [Decision::Win, Decision::Loss, Decision::Tie, Decision::Tie].map(Some).repeat(30);
        assert_eq!(decisions(&verdicts), expected);
        assert!(verdicts.iter().all(|v| v.identical || (v.p_12 == v.p_21 && v.p_12.is_some())));
        assert!(verdicts[3].identical && verdicts[3].p_12.is_none());
    }

    #[test]
    fn a_position_bias_gives_ties_in_both_orders_and_favours_no_side_in_one() {
        let judged_pairs = std::sync::Arc::default();
        let responses = [("a", "b")].repeat(200);
        let first = |_: &Pair| Judgement::from(Verdict::First { p: 1.0 });
        let both = verdicts(Counted(first, std::sync::Arc::clone(&judged_pairs)), &responses);
        assert!(decisions(&both).iter().all(|d| *d == Some(Decision::Tie)));
        assert!(both.iter().all(|v| (v.p_12, v.p_21) == (Some(1.0), Some(0.0))));
        assert_eq!(*judged_pairs.lock().unwrap(), 400, "both orders");
        let one = |_: &Pair| Judgement::from_orders(Some(1.0), None);
        let one = verdicts(Counted(one, std::sync::Arc::clone(&judged_pairs)), &responses);
        assert_eq!(*judged_pairs.lock().unwrap(), 600, "in one order");
        let wins = decisions(&one).iter().filter(|d| **d == Some(Decision::Win)).count();
        // Four standard deviations of a fair coin; seed 7.
        assert!((72..=128).contains(&wins), "{wins} of 200 wins by chance");
    }

    #[test]
    fn a_judge_of_one_order_judges_each_pair_once() {
        let judged_pairs = std::sync::Arc::default();
        // The judgement of a page that swapped every pair: the probability of the first response, which was shown
        // second.
        let turned = |pair: &Pair| {
            Judgement::from_orders(None, Some(if pair.response_1 == "better" { 1.0 } else { 0.0 }))
        };
        let said =
            verdicts(Counted(turned, std::sync::Arc::clone(&judged_pairs)), &[("better", "b")].repeat(40));
        assert_eq!(*judged_pairs.lock().unwrap(), 40);
        assert!(decisions(&said).iter().all(|d| *d == Some(Decision::Win)), "{said:?}");
        let shown_first = said.iter().filter(|v| v.p_12.is_some()).count();
        assert!(said.iter().all(|v| v.one_order && v.p_12.is_some() != v.p_21.is_some()));
        assert!((1..40).contains(&shown_first), "{shown_first}");
    }

    #[test]
    fn a_judge_that_returns_both_orders_judges_each_pair_once() {
        let judged_pairs = std::sync::Arc::default();
        // 0.9 for the better text "a" when it comes first, 0.7 when it comes second.
        let orders = |pair: &Pair| match pair.response_1 {
            "a" => Judgement::from_orders(Some(0.9), Some(0.7)),
            _ => Judgement::from_orders(Some(0.3), Some(0.1)),
        };
        let said = verdicts(Counted(orders, std::sync::Arc::clone(&judged_pairs)), &[("a", "b")].repeat(20));
        assert_eq!(*judged_pairs.lock().unwrap(), 20);
        for verdict in said {
            let (p_12, p_21) = (verdict.p_12.unwrap(), verdict.p_21.unwrap());
            assert!((p_12 - 0.9).abs() < 1e-6 && (p_21 - 0.7).abs() < 1e-6, "{verdict:?}");
        }
    }

    #[test]
    fn members_of_an_ensemble_judge_as_if_they_were_alone() {
        let judged_pairs: [std::sync::Arc<std::sync::Mutex<usize>>; 2] = Default::default();
        let first = |_: &Pair| Judgement::from(Verdict::First { p: 1.0 });
        /// Judges both orders itself.
        struct Both(std::sync::Arc<std::sync::Mutex<usize>>);
        impl Judge for Both {
            fn name(&self) -> String {
                "both".into()
            }
            fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
                Box::pin(async move {
                    *self.0.lock().unwrap() += pairs.len();
                    let of = |pair: &Pair| match pair.response_1 {
                        "a" => Judgement::from_orders(Some(1.0), Some(0.5)),
                        _ => Judgement::from_orders(Some(0.5), Some(0.0)),
                    };
                    Ok(pairs.iter().map(of).collect())
                })
            }
        }
        let members: Vec<Box<dyn JudgeQueue>> = vec![
            Box::new(InPlace::new(Both(judged_pairs[0].clone()))),
            Box::new(InPlace::new(Counted(first, judged_pairs[1].clone()))),
        ];
        let mut judge = Journalled::new(Box::new(Ensemble::new(Vote::Mean, members).unwrap()));
        let pairs = [Pair { prompt: "x", response_1: "a", response_2: "b" }; 20];
        let said = judge_pairs(&mut judge, &pairs, 7, &mut |_| Ok(())).wait().unwrap();
        assert_eq!(judged_pairs.each_ref().map(|judged_pairs| *judged_pairs.lock().unwrap()), [20, 40]);
        // 0.75 of the first member in either order; 1 and 0 of the second.
        assert!(said.iter().all(|v| (v.p_12, v.p_21) == (Some(0.875), Some(0.375))), "{said:?}");
        assert!(said.iter().all(|v| v.votes == [Verdict::First { p: 0.75 }, Verdict::Tie]), "{said:?}");
    }

    #[test]
    fn an_unusable_verdict_in_one_order_excludes_the_pair() {
        let broken = |pair: &Pair| match pair.response_1 {
            "a" => Judgement::from(Verdict::First { p: 1.0 }),
            _ => Judgement::from(Verdict::Invalid { why: "mute".into() }),
        };
        let said = verdicts(Counted(broken, std::sync::Arc::default()), &[("a", "b")].repeat(20));
        assert!(said.iter().all(|v| v.decision().is_none() && v.why.as_deref() == Some("mute")));
    }
}
