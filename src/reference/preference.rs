//! Preference losses of one pair, from sequence log-probabilities.

/// Which loss ℓ of the margin h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// ℓ(h) = -ln σ(βh) (Rafailov et al. 2023, arXiv 2305.18290).
    Dpo,
    /// ℓ(h) = (h - 1/(2β))² (Azar et al. 2023, arXiv 2310.12036).
    Ipo,
    /// ℓ(h) = max(0, 1 - βh) (Zhao et al. 2023, arXiv 2305.10425), also called `hinge`.
    Slic,
}

impl Loss {
    /// (ℓ(h), dℓ/dh).
    fn at(self, beta: f64, h: f64) -> (f64, f64) {
        let z = beta * h;
        match self {
            Loss::Dpo => (softplus(-z), -beta * sigmoid(-z)),
            Loss::Ipo => {
                let distance = h - 1.0 / (2.0 * beta);
                (distance * distance, 2.0 * distance)
            }
            Loss::Slic if z < 1.0 => (1.0 - z, -beta),
            Loss::Slic => (0.0, 0.0),
        }
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

/// Results of [`preference_loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The pair's loss.
    pub loss: f64,
    /// dloss/dh: the gradient of the chosen log-probability; the rejected one's is its negative.
    pub d_h: f64,
    /// β (policy - reference) of the chosen response.
    pub reward_chosen: f64,
    /// β (policy - reference) of the rejected response.
    pub reward_rejected: f64,
    /// reward_chosen - reward_rejected.
    pub margin: f64,
    /// 1 where the margin is above 0, else 0.
    pub accuracy: f64,
}

/// loss = p ℓ(h) + (1 - p) ℓ(-h) with h = (policy - reference)(chosen) - (policy - reference)(rejected),
/// all log-probabilities of whole responses. `label` p in [0, 1] is the probability that the chosen
/// response is the better one: 1 is a hard label.
pub fn preference_loss(
    loss: Loss,
    beta: f64,
    policy_chosen: f64,
    policy_rejected: f64,
    reference_chosen: f64,
    reference_rejected: f64,
    label: f64,
) -> Pair {
    let (chosen, rejected) = (policy_chosen - reference_chosen, policy_rejected - reference_rejected);
    let h = chosen - rejected;
    let (right, d_right) = loss.at(beta, h);
    let (wrong, d_wrong) = loss.at(beta, -h);
    let (reward_chosen, reward_rejected) = (beta * chosen, beta * rejected);
    let margin = reward_chosen - reward_rejected;
    Pair {
        loss: label * right + (1.0 - label) * wrong,
        d_h: label * d_right - (1.0 - label) * d_wrong,
        reward_chosen,
        reward_rejected,
        margin,
        accuracy: if margin > 0.0 { 1.0 } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_close, assert_gradient};
    use super::*;

    const LOSSES: [Loss; 3] = [Loss::Dpo, Loss::Ipo, Loss::Slic];

    /// The pair with margin h and hard label.
    fn at(loss: Loss, beta: f64, h: f64) -> Pair {
        preference_loss(loss, beta, h, 0.0, 0.0, 0.0, 1.0)
    }

    #[test]
    fn losses_have_the_known_values() {
        let known = [
            (Loss::Dpo, [std::f64::consts::LN_2, 0.313262, 0.126928]),
            (Loss::Ipo, [25.0, 25.0, 225.0]),
            (Loss::Slic, [1.0, 0.0, 0.0]),
        ];
        for (loss, expected) in known {
            for (h, expected) in [0.0, 10.0, 20.0].into_iter().zip(expected) {
                let found = at(loss, 0.1, h).loss;
                assert!((found - expected).abs() < 1e-6, "{loss:?} at {h}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn gradients_match_central_differences() {
        // SLiC's kinks at βh = ±1 lie further from every h than the step of the differences.
        for loss in LOSSES {
            for label in [1.0, 0.7, 0.5, 0.0] {
                for (seed, beta) in (120..).zip([0.1, 1.0, 0.3]) {
                    let h: Vec<f64> = Random::new(seed).values(9).iter().map(|x| 12.0 * x).collect();
                    let pair = |h: f64| preference_loss(loss, beta, h - 3.0, 1.0, -2.5, 1.5, label);
                    let d_h: Vec<f64> = h.iter().map(|&h| pair(h).d_h).collect();
                    let losses = |h: &[f64]| h.iter().map(|&h| pair(h).loss).collect();
                    assert_gradient(&format!("{loss:?}"), seed, &h, &d_h, &[1.0; 9], losses);
                }
            }
        }
    }

    #[test]
    fn rewards_and_accuracy_describe_the_pair() {
        let pair = preference_loss(Loss::Dpo, 0.5, -10.0, -20.0, -12.0, -16.0, 1.0);
        assert_close(&[pair.reward_chosen, pair.reward_rejected, pair.margin], &[1.0, -2.0, 3.0]);
        assert_eq!(pair.accuracy, 1.0);
        assert_eq!(at(Loss::Dpo, 0.5, 0.0).accuracy, 0.0);
        assert_eq!(at(Loss::Dpo, 0.5, -1.0).accuracy, 0.0);
    }

    #[test]
    fn dpo_is_stable_at_large_margins() {
        assert_close(&[at(Loss::Dpo, 1.0, 100.0).loss], &[(-100.0_f64).exp()]);
        assert_close(&[at(Loss::Dpo, 1.0, 100.0).d_h], &[-(-100.0_f64).exp()]);
        assert_close(&[at(Loss::Dpo, 1.0, -100.0).loss, at(Loss::Dpo, 1.0, -100.0).d_h], &[100.0, -1.0]);
        assert_close(&[at(Loss::Dpo, 1.0, -1e4).loss, at(Loss::Dpo, 1.0, -1e4).d_h], &[1e4, -1.0]);
    }

    #[test]
    fn slic_is_flat_from_the_kink_on() {
        assert_eq!((at(Loss::Slic, 0.5, 2.0).loss, at(Loss::Slic, 0.5, 2.0).d_h), (0.0, 0.0));
        assert_eq!(at(Loss::Slic, 0.5, 1.9).d_h, -0.5);
    }

    #[test]
    fn swapping_a_pair_swaps_its_label() {
        for loss in LOSSES {
            let pair = preference_loss(loss, 0.2, -3.0, -4.0, -3.5, -2.0, 0.8);
            let swapped = preference_loss(loss, 0.2, -4.0, -3.0, -2.0, -3.5, 0.2);
            assert_close(&[pair.loss, pair.d_h], &[swapped.loss, -swapped.d_h]);
        }
    }
}
