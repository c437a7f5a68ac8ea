//! Preference losses of a batch of pairs, from sequence log-probabilities. Gradients are computed together with the
//! values, by dual numbers.

use std::ops::{Add, Mul, Neg, Sub};

/// The functions of a pair's scores a (of the chosen response) and b (of the rejected one), see [`PairTerm`]. Losses of
/// the margin use m = β (a - b) + margin + length_margin (tokens of chosen - tokens of rejected), and are labelled as w
/// l(m) + w' l(-m); other losses of a single pair as w l(a, b) + w' l(b, a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairLoss {
    /// l(m) = -ln σ(m).
    Sigmoid,
    /// l(h) = (h - 1/(2β))² of h = a - b.
    Ipo,
    /// l(m) = max(0, 1 - m).
    Hinge,
    /// σ(m) ln(σ(m) / w) + σ(-m) ln(σ(-m) / w').
    Exo,
    /// l(m) = (1 - s) (-ln σ(m)) + s exp(-m) with s = σ(m / tau).
    Discopop,
    /// -β ln σ(o(a) - o(b)) with o(x) = x - ln(1 - exp x).
    OddsRatio,
    /// l(a, b) = -ln σ(βa) - ½ ln σ(-βa) - ½ ln σ(-βb).
    Nca,
    /// l(a, b) = -ln σ(βa) - ln σ(-βb).
    Bco,
    /// l(a, b) = (a - 1/(2β))² + (b + 1/(2β))².
    Sppo,
    /// l(a, b) = (a + b)².
    Centre,
    /// l(a, b) = (1 - σ(βa)) + σ(βb).
    ApoZero,
    /// l(a, b) = σ(βa) + (1 - σ(β (a - b))).
    ApoDown,
    /// ½ desirable (1 - σ(β (a - max(0, mean b)))) + ½ undesirable (1 - σ(β (max(0, mean a) - b))), with constant means.
    Kto,
    /// -ln σ(β (x - y)) of the sorted log-ratios of chosen to rejected: x the policy's, y the reference's.
    Aot,
    /// -ln σ(β (a - b)) of sorted a and sorted b.
    AotUnpaired,
    /// -Σ log π / Σ tokens of all chosen responses.
    Sft,
    /// Σ log π of the responses that the reference model drew.
    Xpo,
}

/// A loss on pairs with its parameters. The score of a response is log π - log π₀, or log π if `reference_free`,
/// divided by its number of tokens if `average`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairTerm {
    /// The function of the scores.
    pub loss: PairLoss,
    /// The factor of the loss.
    pub weight: f64,
    /// β.
    pub beta: f64,
    /// w = label_scale p + label_shift and w' = label_scale (1 - p) + label_shift with the label p.
    pub label_scale: f64,
    /// See `label_scale`.
    pub label_shift: f64,
    /// Added to the margin.
    pub margin: f64,
    /// Added to the margin for each additional token of the chosen response.
    pub length_margin: f64,
    /// Parameter of [`PairLoss::Discopop`].
    pub tau: f64,
    /// Parameter of [`PairLoss::Kto`].
    pub desirable: f64,
    /// Parameter of [`PairLoss::Kto`].
    pub undesirable: f64,
    /// Whether the score is log π alone.
    pub reference_free: bool,
    /// Whether the score is divided by the response's number of tokens.
    pub average: bool,
}

/// A batch: responses 2p and 2p + 1 are the chosen and the rejected one of pair p.
#[derive(Clone, Copy, Debug)]
pub struct PairBatch<'a> {
    /// log π of the responses (S), or with `tail_weight` of their two parts (2S).
    pub policy: &'a [f64],
    /// The same numbers where no gradient flows: a separate copy, so that a test can change one of the two.
    pub detached: &'a [f64],
    /// log π₀, tokens, and 1 for a response that the reference model drew (S, 3).
    pub responses: &'a [f64],
    /// Label and weight (P, 2).
    pub pairs: &'a [f64],
    /// Σ log Σ p² over the tokens of each response (S): each loss is multiplied by the exp of the mean of log π - log Σ
    /// p² over the tokens of the chosen response, and by that of the rejected one.
    pub log_sum_squares: Option<&'a [f64]>,
    /// The factor of a response's second part in its score.
    pub tail_weight: Option<f64>,
}

/// Results of [`preference_loss`].
#[derive(Clone, Debug, PartialEq)]
pub struct Preferences {
    /// (P, 8): the loss of all terms without the pair's weight; then, for the first term, both rewards (chosen,
    /// rejected), their margin, 1 if that is above 0, log π of both, and the weight from `log_sum_squares`.
    pub table: Vec<f64>,
    /// The gradient of Σ weight · loss with respect to `policy`.
    pub d_policy: Vec<f64>,
}

/// A number and its derivative.
#[derive(Clone, Copy, Debug, Default)]
struct Dual {
    x: f64,
    dx: f64,
}

impl Dual {
    /// A function of it, given the function's value and derivative.
    fn map(self, value: f64, slope: f64) -> Dual {
        Dual { x: value, dx: slope * self.dx }
    }

    fn ln_sigmoid(self) -> Dual {
        self.map(-softplus(-self.x), sigmoid(-self.x))
    }

    fn sigmoid(self) -> Dual {
        self.map(sigmoid(self.x), sigmoid(self.x) * sigmoid(-self.x))
    }

    fn exp(self) -> Dual {
        self.map(self.x.exp(), self.x.exp())
    }

    fn relu(self) -> Dual {
        if self.x > 0.0 { self } else { Dual::default() }
    }

    fn square(self) -> Dual {
        self * self
    }

    /// x - ln(1 - exp x); x stays below 0.
    fn log_odds(self) -> Dual {
        let x = self.x.min(-1e-6);
        let rest = -x.exp_m1();
        self.map(x - rest.ln(), 1.0 / rest)
    }
}

impl From<f64> for Dual {
    fn from(x: f64) -> Dual {
        Dual { x, dx: 0.0 }
    }
}

impl<T: Into<Dual>> Add<T> for Dual {
    type Output = Dual;

    fn add(self, other: T) -> Dual {
        let other = other.into();
        Dual { x: self.x + other.x, dx: self.dx + other.dx }
    }
}

impl<T: Into<Dual>> Sub<T> for Dual {
    type Output = Dual;

    fn sub(self, other: T) -> Dual {
        self + -other.into()
    }
}

impl<T: Into<Dual>> Mul<T> for Dual {
    type Output = Dual;

    fn mul(self, other: T) -> Dual {
        let other = other.into();
        Dual { x: self.x * other.x, dx: self.dx * other.x + self.x * other.dx }
    }
}

impl Neg for Dual {
    type Output = Dual;

    fn neg(self) -> Dual {
        Dual { x: -self.x, dx: -self.dx }
    }
}

/// ln(1 + exp x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + exp -x) without overflow, and without cancellation where it is tiny.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

impl PairBatch<'_> {
    fn pairs(&self) -> usize {
        self.pairs.len() / 2
    }

    fn tokens(&self, s: usize) -> f64 {
        self.responses[3 * s + 1].max(1.0)
    }

    /// Returns log π of response s; of two parts, the second is multiplied by `tail_weight`.
    fn logp(&self, policy: &[Dual], s: usize, tail_weight: f64) -> Dual {
        match self.tail_weight {
            Some(_) => policy[2 * s] + policy[2 * s + 1] * tail_weight,
            None => policy[s],
        }
    }

    /// Returns the factor of the loss of pair p from `log_sum_squares`.
    fn weight(&self, p: usize) -> f64 {
        let Some(sums) = self.log_sum_squares else { return 1.0 };
        let detached: Vec<Dual> = self.detached.iter().map(|x| Dual::from(*x)).collect();
        let mean = |s: usize| (self.logp(&detached, s, 1.0).x - sums[s]) / self.tokens(s);
        (mean(2 * p) + mean(2 * p + 1)).exp()
    }
}

impl PairTerm {
    fn score(&self, batch: &PairBatch, policy: &[Dual], s: usize) -> Dual {
        let plain = matches!(self.loss, PairLoss::Sft | PairLoss::Xpo);
        let tail_weight = if plain { 1.0 } else { batch.tail_weight.unwrap_or(1.0) };
        let logp = batch.logp(policy, s, tail_weight);
        let x = if self.reference_free { logp } else { logp - batch.responses[3 * s] };
        x * if self.average { 1.0 / batch.tokens(s) } else { 1.0 }
    }

    /// Returns the losses of all pairs, without the pairs' weights.
    fn losses(&self, batch: &PairBatch, policy: &[Dual]) -> Vec<Dual> {
        let pairs = batch.pairs();
        let detached: Vec<Dual> = batch.detached.iter().map(|x| Dual::from(*x)).collect();
        let half = |policy: &[Dual], first: usize| -> Vec<Dual> {
            (0..pairs).map(|p| self.score(batch, policy, 2 * p + first)).collect()
        };
        let (a, b) = (half(policy, 0), half(policy, 1));
        // Each loss with the index of its pair.
        let losses: Vec<(usize, Dual)> = match self.loss {
            PairLoss::Aot => {
                let reference = |p: usize| batch.responses[6 * p] - batch.responses[6 * p + 3];
                let with_reference = |p: usize| a[p] - b[p] + reference(p);
                let x = sorted((0..pairs).map(with_reference));
                let y = sorted((0..pairs).map(|p| reference(p).into()));
                let loss = |((p, x), (_, y)): ((usize, Dual), (usize, Dual))| {
                    (p, self.labelled((x - y) * self.beta, batch, p))
                };
                x.into_iter().zip(y).map(loss).collect()
            }
            PairLoss::AotUnpaired => {
                let (a, b) = (sorted(a.into_iter()), sorted(b.into_iter()));
                let loss = |((p, a), (_, b)): ((usize, Dual), (usize, Dual))| {
                    (p, self.labelled((a - b) * self.beta, batch, p))
                };
                a.into_iter().zip(b).map(loss).collect()
            }
            PairLoss::Kto => {
                let kl =
                    |scores: Vec<Dual>| (scores.iter().map(|s| s.x).sum::<f64>() / pairs as f64).max(0.0);
                let [kl_a, kl_b] = [0, 1].map(|first| kl(half(&detached, first)));
                let loss = |p: usize| {
                    let good = -((a[p] - kl_b) * self.beta).sigmoid() + 1.0;
                    let bad = -((-b[p] + kl_a) * self.beta).sigmoid() + 1.0;
                    (p, good * (0.5 * self.desirable) + bad * (0.5 * self.undesirable))
                };
                (0..pairs).map(loss).collect()
            }
            PairLoss::Sft => {
                let tokens: f64 = (0..pairs).map(|p| batch.tokens(2 * p)).sum();
                let logp = |p: usize| batch.logp(policy, 2 * p, 1.0);
                let sum = (0..pairs).fold(Dual::default(), |sum, p| sum + logp(p));
                (0..pairs).map(|p| (p, -sum * (1.0 / tokens))).collect()
            }
            PairLoss::Xpo => {
                let drawn = |s: usize| batch.logp(policy, s, 1.0) * batch.responses[3 * s + 2];
                (0..pairs).map(|p| (p, drawn(2 * p) + drawn(2 * p + 1))).collect()
            }
            _ => (0..pairs).map(|p| (p, self.of_pair(a[p], b[p], batch, p))).collect(),
        };
        let mut out = vec![Dual::default(); pairs];
        losses.into_iter().for_each(|(p, loss)| out[p] = loss * (self.weight * batch.weight(p)));
        out
    }

    fn label_weights(&self, batch: &PairBatch, p: usize) -> [f64; 2] {
        let label = batch.pairs[2 * p];
        [label, 1.0 - label].map(|p| self.label_scale * p + self.label_shift)
    }

    /// w l(m) + w' l(-m).
    fn labelled(&self, m: Dual, batch: &PairBatch, p: usize) -> Dual {
        let [right, wrong] = self.label_weights(batch, p);
        self.of_margin(m) * right + self.of_margin(-m) * wrong
    }

    /// l(m).
    fn of_margin(&self, m: Dual) -> Dual {
        match self.loss {
            PairLoss::Ipo => (m - 1.0 / (2.0 * self.beta)).square(),
            PairLoss::Hinge => (-m + 1.0).relu(),
            PairLoss::Discopop => {
                let mixed = m * (1.0 / self.tau);
                // exp(-m) alone can overflow.
                -m.ln_sigmoid() * (-mixed).sigmoid() + (mixed.ln_sigmoid() - m).exp()
            }
            _ => -m.ln_sigmoid(),
        }
    }

    /// w l(a, b) + w' l(b, a), for losses that depend only on pair p.
    fn of_pair(&self, a: Dual, b: Dual, batch: &PairBatch, p: usize) -> Dual {
        let [right, wrong] = self.label_weights(batch, p);
        let more = batch.tokens(2 * p) - batch.tokens(2 * p + 1);
        let margin = (a - b) * self.beta + (self.margin + self.length_margin * more);
        match self.loss {
            PairLoss::Ipo => self.labelled(a - b, batch, p),
            PairLoss::OddsRatio => self.labelled(a.log_odds() - b.log_odds(), batch, p) * self.beta,
            PairLoss::Exo => {
                let part = |m: Dual, w: f64| m.sigmoid() * (m.ln_sigmoid() - w.ln());
                part(margin, right) + part(-margin, wrong)
            }
            PairLoss::Sigmoid | PairLoss::Hinge | PairLoss::Discopop => self.labelled(margin, batch, p),
            _ => self.of_responses(a, b) * right + self.of_responses(b, a) * wrong,
        }
    }

    /// l(a, b).
    fn of_responses(&self, a: Dual, b: Dual) -> Dual {
        let (x, y, half) = (a * self.beta, b * self.beta, 0.5 / self.beta);
        match self.loss {
            PairLoss::Nca => -x.ln_sigmoid() - ((-x).ln_sigmoid() + (-y).ln_sigmoid()) * 0.5,
            PairLoss::Bco => -x.ln_sigmoid() - (-y).ln_sigmoid(),
            PairLoss::Sppo => (a - half).square() + (b + half).square(),
            PairLoss::Centre => (a + b).square(),
            PairLoss::ApoZero => (-x).sigmoid() + y.sigmoid(),
            PairLoss::ApoDown => x.sigmoid() + (y - x).sigmoid(),
            other => unreachable!("{other:?} is not a function of the two responses alone"),
        }
    }
}

/// Returns the numbers in ascending order, each with its index; the sort is stable.
fn sorted(numbers: impl Iterator<Item = Dual>) -> Vec<(usize, Dual)> {
    let mut out: Vec<(usize, Dual)> = numbers.enumerate().collect();
    out.sort_by(|a, b| a.1.x.total_cmp(&b.1.x));
    out
}

/// Returns the sum of the terms' losses on each pair of the batch, and the gradient of Σ weight · loss.
pub fn preference_loss(terms: &[PairTerm], batch: &PairBatch) -> Preferences {
    let losses = |moved: Option<usize>| {
        let dual = |(i, x): (usize, &f64)| Dual { x: *x, dx: if moved == Some(i) { 1.0 } else { 0.0 } };
        let policy: Vec<Dual> = batch.policy.iter().enumerate().map(dual).collect();
        let mut sum = vec![Dual::default(); batch.pairs()];
        for term in terms {
            term.losses(batch, &policy).into_iter().zip(&mut sum).for_each(|(loss, sum)| *sum = *sum + loss);
        }
        sum
    };
    let weighted = |(p, loss): (usize, Dual)| batch.pairs[2 * p + 1] * loss.dx;
    let gradient = |i: usize| losses(Some(i)).into_iter().enumerate().map(weighted).sum();
    let first = terms[0];
    let policy: Vec<Dual> = batch.policy.iter().map(|x| Dual::from(*x)).collect();
    let with_reference = PairTerm { average: false, ..first };
    let row = |(p, loss): (usize, Dual)| {
        let of = if first.reference_free { first } else { with_reference };
        let [chosen, rejected] = [2 * p, 2 * p + 1].map(|s| first.beta * of.score(batch, &policy, s).x);
        let log_p = PairTerm { reference_free: true, ..with_reference };
        let logps = [2 * p, 2 * p + 1].map(|s| log_p.score(batch, &policy, s).x);
        let (margin, accuracy) = (chosen - rejected, (chosen > rejected) as u8 as f64);
        [loss.x, chosen, rejected, margin, accuracy, logps[0], logps[1], batch.weight(p)]
    };
    Preferences {
        table: losses(None).into_iter().enumerate().flat_map(row).collect(),
        d_policy: (0..batch.policy.len()).map(gradient).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    const ALL: [PairLoss; 17] = [
        PairLoss::Sigmoid,
        PairLoss::Ipo,
        PairLoss::Hinge,
        PairLoss::Exo,
        PairLoss::Discopop,
        PairLoss::OddsRatio,
        PairLoss::Nca,
        PairLoss::Bco,
        PairLoss::Sppo,
        PairLoss::Centre,
        PairLoss::ApoZero,
        PairLoss::ApoDown,
        PairLoss::Kto,
        PairLoss::Aot,
        PairLoss::AotUnpaired,
        PairLoss::Sft,
        PairLoss::Xpo,
    ];

    fn term(loss: PairLoss, beta: f64) -> PairTerm {
        PairTerm {
            loss,
            weight: 1.0,
            beta,
            label_scale: 1.0,
            label_shift: 0.0,
            margin: 0.0,
            length_margin: 0.0,
            tau: 0.05,
            desirable: 1.0,
            undesirable: 1.0,
            reference_free: false,
            average: false,
        }
    }

    /// Returns loss and gradient with respect to the chosen log-probability, for a pair with these log-ratios and label
    /// 1.
    fn at(loss: PairLoss, beta: f64, chosen: f64, rejected: f64) -> (f64, f64) {
        let (policy, responses) = ([chosen, rejected], [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        let pairs = [1.0, 1.0];
        let found = preference_loss(&[term(loss, beta)], &batch(&policy, &responses, &pairs));
        (found.table[0], found.d_policy[0])
    }

    fn batch<'a>(policy: &'a [f64], responses: &'a [f64], pairs: &'a [f64]) -> PairBatch<'a> {
        PairBatch { policy, detached: policy, responses, pairs, log_sum_squares: None, tail_weight: None }
    }

    #[test]
    fn losses_have_the_known_values() {
        let known = [
            (PairLoss::Sigmoid, [std::f64::consts::LN_2, 0.313262, 0.126928]),
            (PairLoss::Ipo, [25.0, 25.0, 225.0]),
            (PairLoss::Hinge, [1.0, 0.0, 0.0]),
        ];
        for (loss, expected) in known {
            for (h, expected) in [0.0, 10.0, 20.0].into_iter().zip(expected) {
                let found = at(loss, 0.1, h, 0.0).0;
                assert!((found - expected).abs() < 1e-6, "{loss:?} at {h}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn gradients_match_central_differences() {
        let pairs = 5;
        for loss in ALL {
            // Whether scores are averages, reference-free, or of two parts, and whether losses are weighted by the
            // policy.
            for choice in 0..16_u32 {
                let [average, reference_free, split, weighting] = [0, 1, 2, 3].map(|i| choice >> i & 1 == 1);
                let seed = 120 + choice;
                let mut random = Random::new(seed);
                let mut below = |count: usize, lowest: f64| -> Vec<f64> {
                    random.values(count).iter().map(|x| lowest * (0.5 + 0.49 * x)).collect()
                };
                let parts = if split { 2 } else { 1 };
                let policy = below(2 * pairs * parts, -3.0);
                let (reference, labels) = (below(2 * pairs, -3.0 * parts as f64), below(pairs, 1.0));
                let (weights, squares) = (below(pairs, 1.0), below(2 * pairs, -4.0));
                let response = |s: usize| [reference[s], (1 + s * 7 % 5) as f64, (s % 3 == 1) as u8 as f64];
                let responses: Vec<f64> = (0..2 * pairs).flat_map(response).collect();
                let labelled: Vec<f64> = (0..pairs).flat_map(|p| [labels[p], weights[p]]).collect();
                let of = |policy: &[f64], detached: &[f64]| {
                    let batch = PairBatch {
                        policy,
                        detached,
                        responses: &responses,
                        pairs: &labelled,
                        log_sum_squares: weighting.then_some(&squares),
                        tail_weight: split.then_some(0.3),
                    };
                    let first = PairTerm {
                        weight: 0.7,
                        label_scale: 0.8,
                        label_shift: 0.1,
                        margin: -0.2,
                        length_margin: 0.03,
                        tau: 0.4,
                        desirable: 1.3,
                        undesirable: 0.6,
                        reference_free: reference_free || loss == PairLoss::OddsRatio,
                        average,
                        ..term(loss, 0.6)
                    };
                    preference_loss(&[first, PairTerm { weight: 0.2, ..term(PairLoss::Sft, 1.0) }], &batch)
                };
                let losses = |x: &[f64]| of(x, &policy).table.chunks(8).map(|row| row[0]).collect();
                let gradient = of(&policy, &policy).d_policy;
                assert_gradient(&format!("{loss:?} {choice}"), seed, &policy, &gradient, &weights, losses);
            }
        }
    }

    #[test]
    fn rewards_and_accuracy_describe_the_pair() {
        let (policy, responses) = ([-10.0, -20.0], [-12.0, 4.0, 0.0, -16.0, 5.0, 0.0]);
        let row = |average: bool, reference_free: bool| {
            let term = PairTerm { average, reference_free, ..term(PairLoss::Sigmoid, 0.5) };
            preference_loss(&[term], &batch(&policy, &responses, &[1.0, 1.0])).table
        };
        assert_close(&row(false, false)[1..], &[1.0, -2.0, 3.0, 1.0, -10.0, -20.0, 1.0]);
        assert_close(&row(true, false)[1..4], &[1.0, -2.0, 3.0]);
        assert_close(&row(true, true)[1..4], &[-1.25, -2.0, 0.75]);
    }

    #[test]
    fn losses_are_stable_at_large_margins() {
        assert_close(&[at(PairLoss::Sigmoid, 1.0, 100.0, 0.0).0], &[(-100.0_f64).exp()]);
        assert_close(&[at(PairLoss::Sigmoid, 1.0, 100.0, 0.0).1], &[-(-100.0_f64).exp()]);
        let far = at(PairLoss::Sigmoid, 1.0, -1e4, 0.0);
        assert_close(&[far.0, far.1], &[1e4, -1.0]);
        for loss in ALL.into_iter().filter(|loss| ![PairLoss::OddsRatio, PairLoss::Exo].contains(loss)) {
            for h in [-1e4, 1e4] {
                let (value, slope) = at(loss, 1.0, h, 0.0);
                assert!(value.is_finite() && slope.is_finite(), "{loss:?} at {h}: {value} {slope}");
            }
        }
    }

    #[test]
    fn hinge_is_flat_from_the_kink_on() {
        assert_eq!(at(PairLoss::Hinge, 0.5, 2.0, 0.0), (0.0, 0.0));
        assert_eq!(at(PairLoss::Hinge, 0.5, 1.9, 0.0).1, -0.5);
    }

    #[test]
    fn swapping_a_pair_swaps_its_label() {
        let in_batch = [PairLoss::Kto, PairLoss::Aot, PairLoss::AotUnpaired, PairLoss::Sft, PairLoss::Xpo];
        for loss in ALL.into_iter().filter(|loss| !in_batch.contains(loss)) {
            let term = PairTerm {
                reference_free: loss == PairLoss::OddsRatio,
                length_margin: 0.1,
                ..term(loss, 0.2)
            };
            let of = |policy: [f64; 2], responses: [f64; 6], label: f64| {
                let found = preference_loss(&[term], &batch(&policy, &responses, &[label, 1.0]));
                (found.table[0], found.d_policy)
            };
            let one = of([-3.0, -4.0], [-3.5, 4.0, 0.0, -2.0, 9.0, 0.0], 0.8);
            let other = of([-4.0, -3.0], [-2.0, 9.0, 0.0, -3.5, 4.0, 0.0], 0.2);
            assert_close(&[one.0, one.1[0], one.1[1]], &[other.0, other.1[1], other.1[0]]);
        }
    }
}
