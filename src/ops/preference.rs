//! Preference losses of pairs, from sequence log-probabilities.

use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};

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

constants! {
    struct PreferenceConstants {
        /// Which of [`PairLoss`].
        loss: u32,
        /// Whether log-probabilities are averages over tokens.
        average: bool,
    }
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
    let mut args = vec![
        read("policy", policy),
        read("reference", reference),
        read("labels", labels),
        read("weights", weights),
    ];
    args.extend(lengths.map(|lengths| read("lengths", lengths)));
    args.extend([write("table", table), write("d_policy", d_policy)]);
    r.launch_detached(Launch {
        kernel: "preference_loss",
        constants: PreferenceConstants { loss: loss as u32, average: lengths.is_some() }.list(),
        params: vec![("pairs", pairs.into()), ("sequences", policy.rows.into()), ("beta", beta.into())],
        args,
        groups: Groups::over(pairs, 64),
        work: Work { flops: 50.0, bytes: 72.0 },
    });
    Ok(PreferenceTensors { table, d_policy })
}
