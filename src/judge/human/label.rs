//! A person's choice, and the label that it gives to the responses.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::super::{Judgement, Verdict};

/// The reason of the invalid verdict of a skipped pair.
pub const SKIPPED: &str = "skipped by the person";

/// A person's choice between two responses as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Pick {
    /// The response shown first is better.
    First,
    /// The response shown second is better.
    Second,
    /// Neither is better.
    Tie,
    /// Skip the pair; it is not used for training.
    Skip,
}

/// The order in which the two responses of a question are shown: random per question, so that a habit of choosing one
/// side favours neither response, and the same whenever the question is shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whether `response_2` is shown first.
    pub swapped: bool,
}

impl Order {
    /// The order for the question `id`.
    pub fn of(id: &str) -> Order {
        Order { swapped: xxh3_64(id.as_bytes()) & 1 == 1 }
    }

    /// Which response is shown first: 1 or 2.
    pub fn shown_first(self) -> u8 {
        if self.swapped { 2 } else { 1 }
    }

    /// The two responses in the order of presentation.
    pub fn show<T>(self, response_1: T, response_2: T) -> (T, T) {
        if self.swapped { (response_2, response_1) } else { (response_1, response_2) }
    }

    /// The label of the responses that this choice gives.
    pub fn label(self, choice: Pick) -> Label {
        match (choice, self.swapped) {
            (Pick::First, false) | (Pick::Second, true) => Label::Response1,
            (Pick::Second, false) | (Pick::First, true) => Label::Response2,
            (Pick::Tie, _) => Label::Tie,
            (Pick::Skip, _) => Label::Skip,
        }
    }

    /// The choice that gave this label: the inverse of [`Order::label`].
    pub fn choice(self, label: Label) -> Pick {
        match (label, self.swapped) {
            (Label::Response1, false) | (Label::Response2, true) => Pick::First,
            (Label::Response2, false) | (Label::Response1, true) => Pick::Second,
            (Label::Tie, _) => Pick::Tie,
            (Label::Skip, _) => Pick::Skip,
        }
    }
}

/// A label of a pair; it refers to the responses as numbered in the question, not to the order in which they were
/// shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Label {
    /// `response_1` is better.
    #[serde(rename = "1")]
    Response1,
    /// `response_2` is better.
    #[serde(rename = "2")]
    Response2,
    /// Neither is better.
    #[serde(rename = "tie")]
    Tie,
    /// Skipped.
    #[serde(rename = "skip")]
    Skip,
}

impl Label {
    /// The judgement for the trainer. Only the order in which the pair was shown has a probability.
    pub fn judgement(self, order: Order) -> Judgement {
        let p = match self {
            Label::Response1 => 1.0,
            Label::Response2 => 0.0,
            Label::Tie => 0.5,
            Label::Skip => return Verdict::Invalid { why: SKIPPED.into() }.into(),
        };
        match order.swapped {
            false => Judgement::from_orders(Some(p), None),
            true => Judgement::from_orders(None, Some(p)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_reproducible_and_each_response_is_shown_first_about_equally_often() {
        let swapped = (0..10_000).filter(|i| Order::of(&format!("{i}-0-1-0123456789abcdef")).swapped).count();
        assert!((4_800..5_200).contains(&swapped), "{swapped}");
        assert_eq!(Order::of("7-0-1-00ff"), Order::of("7-0-1-00ff"));
        // Must never change: a resumed run shows pairs in the same order as the earlier process.
        let pattern: String =
            (0..16).map(|i| if Order::of(&i.to_string()).swapped { '2' } else { '1' }).collect();
        assert_eq!(pattern, "2111212111111111");
    }

    #[test]
    fn a_choice_refers_to_the_response_as_shown_in_either_order() {
        for swapped in [false, true] {
            let order = Order { swapped };
            let shown = order.show(Label::Response1, Label::Response2);
            assert_eq!(order.label(Pick::First), shown.0);
            assert_eq!(order.label(Pick::Second), shown.1);
            for choice in [Pick::First, Pick::Second, Pick::Tie, Pick::Skip] {
                assert_eq!(order.choice(order.label(choice)), choice);
            }
        }
    }

    #[test]
    fn a_judgement_records_the_order_shown_and_a_skip_is_no_preference() {
        let (as_asked, swapped) = (Order { swapped: false }, Order { swapped: true });
        let one = Label::Response1.judgement(as_asked);
        assert_eq!((one.verdict.label(), one.p_12, one.p_21), ("1", Some(1.0), None));
        let two = Label::Response2.judgement(swapped);
        assert_eq!((two.verdict.label(), two.p_12, two.p_21), ("2", None, Some(0.0)));
        assert_eq!(Label::Tie.judgement(swapped).verdict, Verdict::Tie);
        assert_eq!(Label::Skip.judgement(swapped).verdict, Verdict::Invalid { why: SKIPPED.into() });
    }
}
