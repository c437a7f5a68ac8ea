//! Cases: preference losses.

use super::{Case, Input};
use crate::ops::{PairLoss, preference_loss};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    use reference::Loss;
    let mut out = Vec::new();
    for (loss, twin) in [(PairLoss::Dpo, Loss::Dpo), (PairLoss::Ipo, Loss::Ipo), (PairLoss::Slic, Loss::Slic)]
    {
        // P, β, the spread of the margins, and whether log-probabilities are averages.
        for (p, beta, spread, average) in
            [(1, 0.1, 10.0, false), (67, 0.1, 100.0, false), (13, 1.0, 1e4, false), (64, 1.0, 30.0, true)]
        {
            let policy: Vec<f32> =
                (0..2 * p).map(|s| -150.0 + spread * ((s * 37 % 101) as f32 / 50.0 - 1.0)).collect();
            let lengths: Vec<f32> = (0..2 * p).map(|s| (1 + s * 7 % 53) as f32).collect();
            let labels: Vec<f32> = (0..p).map(|i| [1.0, 0.7, 0.0, 0.5][i % 4]).collect();
            let mut inputs = vec![
                Input::f32(policy, 2 * p, 1).live(0),
                Input::normal(1, 2 * p, 1, 5.0).live(0),
                Input::f32(labels, p, 1).live(1),
                Input::normal(2, p, 1, 1.0).live(1),
            ];
            if average {
                inputs.push(Input::f32(lengths, 2 * p, 1).live(0));
            }
            let unit = if average { "tokens" } else { "sums" };
            out.push(Case::new(
                "preference_loss",
                format!("{loss:?} P {p} beta {beta} spread {spread} {unit}"),
                inputs,
                move |r, t| {
                    let lengths = t.get(4).copied();
                    let out = preference_loss(r, t[0], t[1], t[2], t[3], lengths, loss, beta)?;
                    Ok(vec![out.table, out.d_policy])
                },
                move |v| {
                    let beta = f64::from(beta);
                    let (mut table, mut d_policy) = (vec![], vec![]);
                    for i in 0..p {
                        let share = [2 * i, 2 * i + 1].map(|s| if average { 1.0 / v[4][s] } else { 1.0 });
                        let x = |values: &[f64], j: usize| values[2 * i + j] * share[j];
                        let (policy, frozen) = (&v[0], &v[1]);
                        let pair = reference::preference_loss(
                            twin,
                            beta,
                            x(policy, 0),
                            x(policy, 1),
                            x(frozen, 0),
                            x(frozen, 1),
                            v[2][i],
                        );
                        let (rewards, h) = ([pair.reward_chosen, pair.reward_rejected], pair.margin / beta);
                        table.extend([pair.loss, pair.d_h, rewards[0], rewards[1], pair.margin]);
                        table.extend([pair.accuracy, h, 0.0]);
                        d_policy.extend([v[3][i] * pair.d_h * share[0], -v[3][i] * pair.d_h * share[1]]);
                    }
                    vec![table, d_policy]
                },
            ));
        }
    }
    out
}
