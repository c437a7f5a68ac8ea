//! Preference losses of pairs, from sequence log-probabilities.

use super::case::{Case, Input};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// Which loss l of the margin h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairLoss {
    /// l(h) = -ln σ(βh) (Rafailov et al. 2023, arXiv 2305.18290).
    Dpo,
    /// l(h) = (h - 1/(2β))² (Azar et al. 2023, arXiv 2310.12036).
    Ipo,
    /// l(h) = max(0, 1 - βh) (Zhao et al. 2023, arXiv 2305.10425).
    #[serde(alias = "hinge")]
    Slic,
}

/// Results of [`preference_loss`].
#[derive(Clone, Copy, Debug)]
pub struct PreferenceTensors {
    /// A row a pair (P, 8), unweighted: its columns are [`PreferenceTensors::COLUMNS`] and a zero.
    pub table: Tensor,
    /// The gradient of Σ weight · loss with respect to the policy's log-probabilities (S, 1), for
    /// [`Recorder::backward`].
    pub d_policy: Tensor,
}

impl PreferenceTensors {
    /// What the columns of `table` hold. A reward is β (policy - reference), the margin is that of the rewards.
    pub const COLUMNS: [&str; 7] =
        ["loss", "dloss/dh", "reward_chosen", "reward_rejected", "margin", "accuracy", "h"];
}

/// loss = p l(h) + (1 - p) l(-h) with h = (policy - reference)(chosen) - (policy - reference)(rejected) and the label
/// p, the probability that the chosen response is the better one. Sequences 2p and 2p + 1 are the chosen and the
/// rejected one of pair p, so that S = 2P. With `lengths`, in tokens, all log-probabilities are averages over tokens.
/// It ends the graph: the gradient is a result, and none flows through it.
///   policy, reference (S, 1)  labels, weights (P, 1)  lengths (S, 1)  ->  [`PreferenceTensors`]
#[allow(clippy::too_many_arguments, reason = "one more than seven, each of its own")]
pub fn preference_loss(
    r: &mut Recorder,
    policy: Tensor,
    reference: Tensor,
    labels: Tensor,
    weights: Tensor,
    lengths: Option<Tensor>,
    loss: PairLoss,
    beta: f32,
) -> Result<PreferenceTensors> {
    let pairs = labels.rows;
    assert_eq!((policy.rows, policy.cols), (reference.rows, reference.cols), "preference_loss");
    assert_eq!((pairs, labels.cols), (weights.rows, weights.cols), "preference_loss: labels and weights");
    let table = r.tensor("preferences", pairs, 8);
    let d_policy = r.tensor("d policy", policy.rows, 1);
    let reads = [policy, reference, labels, weights].into_iter().chain(lengths);
    r.launch_detached(Launch {
        kernel: KernelKey {
            name: "preference_loss",
            constants: vec![("LOSS", loss as u32), ("AVERAGE", lengths.is_some() as u32)],
        },
        params: vec![pairs.into(), policy.rows.into(), Word::F32(beta)],
        args: reads
            .map(|t| (t, Access::Read))
            .chain([(table, Access::Write), (d_policy, Access::Write)])
            .collect(),
        groups: Groups::over(pairs, 64),
        work: Work { flops: 50.0, bytes: 72.0 },
    });
    Ok(PreferenceTensors { table, d_policy })
}

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
