//! Biases of a judge: towards a position, or towards a length.

use serde::{Deserialize, Serialize};

use super::report::PairReport;
use crate::eval::wilson_interval;

/// Counts over the judged pairs of a run. Checkpoints store them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Habits {
    /// Pairs shown in both orders.
    both_orders: usize,
    /// Pairs of these for which the same position was preferred in both orders.
    flips: usize,
    /// Pairs shown in one order with a preference.
    one_order: usize,
    /// Pairs of these in which the response shown first won.
    first: usize,
    /// Pairs with a preference whose responses differ in their number of characters.
    unequal: usize,
    /// Pairs of these in which the longer response won.
    longer: usize,
}

/// A bias that causes a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Habit {
    /// The judge prefers a position, whichever response is shown there.
    Flips,
    /// The judge prefers the first, or the second, of responses shown in random order.
    Position,
    /// The judge prefers the longer, or the shorter, response nearly always.
    Length,
    /// This member of an ensemble gives hardly any usable verdict.
    Mute(usize),
}

/// A judge that guesses flips in 50 % of the pairs; in the paper, the smallest judge does in 56 % and the largest in 18
/// %. Above this share, up to half of the preferences may be noise.
pub(crate) const MOST_FLIPS: f64 = 1.0 / 3.0;
/// The smallest number of pairs for a warning. The counts are tested after every step, so early tests give false
/// alarms.
pub(crate) const FEWEST: usize = 4;
/// With randomly ordered responses, the share of wins of the first response must be within this distance of one half.
const MOST_AWAY: f64 = 0.15;
/// A share of wins of the longer response above this value, or below its complement, indicates a length bias.
const MOST_LONGER: f64 = 0.8;

impl Habits {
    /// Adds the pairs of a step.
    pub fn add(&mut self, pairs: &[PairReport]) {
        for pair in pairs {
            let Some(judgement) = &pair.judgement else { continue };
            let both_orders = judgement.p_12.is_some() && judgement.p_21.is_some();
            self.both_orders += usize::from(both_orders);
            self.flips += usize::from(judgement.order_flip());
            let first = match judgement.verdict.as_str() {
                "1" => true,
                "2" => false,
                _ => continue,
            };
            if !both_orders {
                // If only the reverse order was asked, the second response was shown first.
                self.one_order += 1;
                self.first += usize::from(first != judgement.p_21.is_some());
            }
            let [one, two] = [&pair.response_1, &pair.response_2].map(|text| text.chars().count());
            if one != two {
                self.unequal += 1;
                self.longer += usize::from((one > two) == first);
            }
        }
    }

    /// The share of wins of the longer response, over the pairs with a preference whose lengths differ.
    pub fn longer_ratio(&self) -> Option<f64> {
        (self.unequal > 0).then(|| self.longer as f64 / self.unequal as f64)
    }

    /// The biases that are significant at 95 %, each with a warning.
    pub fn warnings(&self) -> Vec<(Habit, String)> {
        let percent = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
        let mut out = Vec::new();
        if self.both_orders >= FEWEST && wilson_interval(self.flips, self.both_orders).0 > MOST_FLIPS {
            let text = format!(
                "the judge preferred the same position in both orders in {:.0} % of {} pairs \
                 (a judge that guesses does so in 50 %): its verdicts are mostly noise; use a larger judge or another template, \
                 or raise min-confidence to learn only from confident verdicts",
                percent(self.flips, self.both_orders),
                self.both_orders
            );
            out.push((Habit::Flips, text));
        }
        let (low, high) = wilson_interval(self.first, self.one_order);
        if low > 0.5 + MOST_AWAY || high < 0.5 - MOST_AWAY {
            let second = self.one_order - self.first;
            let text = format!(
                "the judge preferred the {} response in {:.0} % of {} pairs although their order is random: its verdicts are \
                 mostly noise; judge in both orders, or use another judge",
                if low > 0.5 { "first" } else { "second" },
                percent(self.first.max(second), self.one_order),
                self.one_order
            );
            out.push((Habit::Position, text));
        }
        let (low, high) = wilson_interval(self.longer, self.unequal);
        if low > MOST_LONGER || high < 1.0 - MOST_LONGER {
            let shorter = self.unequal - self.longer;
            let text = format!(
                "the judge preferred the {} response in {:.0} % of {} pairs: if length should not matter, say so in \
                 its template, and check the length-controlled win rate of oaif eval",
                if low > 0.5 { "longer" } else { "shorter" },
                percent(self.longer.max(shorter), self.unequal),
                self.unequal
            );
            out.push((Habit::Length, text));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::JudgementReport;
    use super::*;

    fn pair(verdict: &str, orders: Option<[f32; 2]>, lengths: [usize; 2]) -> PairReport {
        let [response_1, response_2] = lengths.map(|n| "x".repeat(n));
        let (p_12, p_21) = (orders.map(|o| o[0]), orders.map(|o| o[1]));
        let judgement =
            JudgementReport { p_first: Some(0.5), p_12, p_21, verdict: verdict.into(), votes: vec![] };
        PairReport {
            step: 1,
            policy_step: 0,
            prompt: String::new(),
            response_1,
            response_2,
            judgement: Some(judgement),
            skipped: None,
            chosen: None,
        }
    }

    /// The number of pairs, made by `next`, after which a bias is reported.
    fn reported_after(habit: Habit, next: impl Fn(usize) -> PairReport) -> Option<usize> {
        let mut habits = Habits::default();
        (1..=400).find(|n| {
            habits.add(&[next(*n)]);
            habits.warnings().iter().any(|(reported, _)| *reported == habit)
        })
    }

    #[test]
    fn a_constant_position_bias_is_reported_within_the_first_pairs() {
        // In both orders the judge prefers the first, so the pair is a tie.
        assert_eq!(reported_after(Habit::Flips, |_| pair("tie", Some([1.0, 0.0]), [5, 5])), Some(4));
        assert_eq!(reported_after(Habit::Position, |_| pair("1", None, [5, 5])), Some(8));
        assert_eq!(reported_after(Habit::Position, |_| pair("2", None, [5, 5])), Some(8));
    }

    #[test]
    fn the_position_is_where_the_response_was_shown() {
        // In the reverse order, a preference for the second response is one for the first position.
        let turned = |n: usize| {
            let mut pair = pair(if n.is_multiple_of(2) { "1" } else { "2" }, None, [5, 5]);
            let judgement = pair.judgement.as_mut().unwrap();
            *(if n.is_multiple_of(2) { &mut judgement.p_12 } else { &mut judgement.p_21 }) = Some(0.5);
            pair
        };
        assert_eq!(reported_after(Habit::Position, turned), Some(8));
    }

    #[test]
    fn a_judge_that_guesses_is_reported_for_its_flips() {
        let guess = |n: usize| {
            let flips = n.is_multiple_of(2);
            pair("1", Some([1.0, if flips { 0.0 } else { 1.0 }]), [5, 5])
        };
        let after = reported_after(Habit::Flips, guess).unwrap();
        assert!((20..50).contains(&after), "{after}");
    }

    #[test]
    fn a_length_bias_is_reported_and_an_unbiased_judge_is_not() {
        let longer =
            |n: usize| if n.is_multiple_of(2) { pair("1", None, [9, 5]) } else { pair("2", None, [5, 9]) };
        assert_eq!(reported_after(Habit::Length, longer), Some(16));
        // 20 % flips, half of the wins on each side, 60 % for the longer response.
        let reads = |n: usize| {
            let flips = n.is_multiple_of(5);
            let (verdict, other) = if n.is_multiple_of(2) { ("1", 0.9) } else { ("2", 0.1) };
            let lengths = if (n / 2) % 5 < 3 { [9, 5] } else { [5, 9] };
            let lengths = if verdict == "1" { lengths } else { [lengths[1], lengths[0]] };
            pair(verdict, Some([other, if flips { 1.0 - other } else { other }]), lengths)
        };
        for habit in [Habit::Flips, Habit::Position, Habit::Length] {
            assert_eq!(reported_after(habit, reads), None, "{habit:?}");
        }
    }

    #[test]
    fn each_warning_has_the_count_and_a_way_out() {
        let mut habits = Habits::default();
        (0..60).for_each(|_| habits.add(&[pair("1", Some([0.9, 0.2]), [9, 5])]));
        let texts: Vec<String> = habits.warnings().into_iter().map(|(_, text)| text).collect();
        assert!(texts[0].contains("100 % of 60 pairs") && texts[0].contains("min-confidence"), "{texts:?}");
        assert!(texts[1].contains("longer response in 100 % of 60 pairs"), "{texts:?}");
        assert_eq!((texts.len(), habits.longer_ratio()), (2, Some(1.0)));
    }
}
