//! Preference losses of pairs, from sequence log-probabilities: sums of terms, one launch each.

use crate::error::Result;
use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Work, read, write};

/// Declares [`PairLoss`], and the constant that selects each loss in the kernel.
macro_rules! pair_losses {
    ($($(#[$doc:meta])* $loss:ident = $constant:literal,)*) => {
        /// A function of a pair's scores a (of the chosen response) and b (of the rejected one), see [`PairTerm`].
        /// Losses of the margin use m = β (a - b) + margin + length_margin (tokens of chosen - tokens of rejected), and
        /// are labelled as w l(m) + w' l(-m), with w and w' of [`PairTerm::label_scale`]; other losses of a single pair
        /// as w l(a, b) + w' l(b, a).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum PairLoss {
            $($(#[$doc])* $loss,)*
        }

        impl PairLoss {
            /// All of them.
            pub const ALL: &[PairLoss] = &[$(PairLoss::$loss),*];
        }

        impl Constants for PairLoss {
            fn add_to(&self, name: &str, list: &mut Vec<(String, Constant)>) {
                (*self as u32).add_to(name, list);
                $((PairLoss::$loss as u32).add_to($constant, list);)*
            }
        }
    };
}

pair_losses! {
    /// l(m) = -ln σ(m).
    Sigmoid = "SIGMOID",
    /// l(h) = (h - 1/(2β))² of h = a - b.
    Ipo = "IPO",
    /// l(m) = max(0, 1 - m).
    Hinge = "HINGE",
    /// The divergence of (σ(m), σ(-m)) from the label's (w, w'): σ(m) ln(σ(m) / w) + σ(-m) ln(σ(-m) / w').
    Exo = "EXO",
    /// l(m) = (1 - s) (-ln σ(m)) + s exp(-m) with s = σ(m / tau).
    Discopop = "DISCOPOP",
    /// -β ln σ(o(a) - o(b)) with the log-odds o(x) = x - ln(1 - exp x), which require scores below 0.
    OddsRatio = "ODDS_RATIO",
    /// l(a, b) = -ln σ(βa) - ½ ln σ(-βa) - ½ ln σ(-βb).
    Nca = "NCA",
    /// l(a, b) = -ln σ(βa) - ln σ(-βb).
    Bco = "BCO",
    /// l(a, b) = (a - 1/(2β))² + (b + 1/(2β))².
    Sppo = "SPPO",
    /// l(a, b) = (a + b)².
    Centre = "CENTRE",
    /// l(a, b) = σ(-βa) + σ(βb).
    ApoZero = "APO_ZERO",
    /// l(a, b) = σ(βa) + σ(-β (a - b)).
    ApoDown = "APO_DOWN",
    /// ½ desirable σ(-β (a - mean b)) + ½ undesirable σ(-β (mean a - b)) with means over the batch, clamped to at least
    /// 0 and without a gradient; without labels.
    Kto = "KTO",
    /// -ln σ of β times the difference of two log-ratios of chosen to rejected: the policy's, and that of the reference
    /// model with the same rank among all pairs of the batch.
    Aot = "AOT",
    /// l(m) = -ln σ(m) with m = β (a - b), where b is of the rejected response with the same rank among the rejected
    /// ones of the batch as a has among the chosen ones.
    AotUnpaired = "AOT_UNPAIRED",
    /// -log π of the chosen responses, averaged over all their tokens in the batch, for every pair; without labels.
    Sft = "SFT",
    /// log π of the responses that the reference model drew; without labels.
    Xpo = "XPO",
}

impl PairLoss {
    /// Whether a pair's loss depends on the other pairs of the batch.
    pub fn takes_batch(self) -> bool {
        self.sorts() || matches!(self, PairLoss::Kto | PairLoss::Sft)
    }

    fn sorts(self) -> bool {
        matches!(self, PairLoss::Aot | PairLoss::AotUnpaired)
    }

    /// Whether all tokens of a response count equally, regardless of [`PairInputs::tail_weight`].
    fn is_of_plain_logps(self) -> bool {
        matches!(self, PairLoss::Sft | PairLoss::Xpo)
    }
}

/// A loss on pairs with its parameters. The score of a response is log π - log π₀, the log-probability of all its
/// tokens under the policy less that under the reference model, unless a field says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairTerm {
    /// The function of the scores.
    pub loss: PairLoss,
    /// The factor of the loss.
    pub weight: f32,
    /// β.
    pub beta: f32,
    /// With `label_shift`, maps the label p of a pair to the weight w = scale p + shift of the pair as given, and w' =
    /// scale (1 - p) + shift of the swapped pair.
    pub label_scale: f32,
    /// See `label_scale`.
    pub label_shift: f32,
    /// Added to the margin.
    pub margin: f32,
    /// Added to the margin for each additional token of the chosen response.
    pub length_margin: f32,
    /// Parameter of [`PairLoss::Discopop`].
    pub tau: f32,
    /// Parameter of [`PairLoss::Kto`].
    pub desirable: f32,
    /// Parameter of [`PairLoss::Kto`].
    pub undesirable: f32,
    /// Whether the score is log π alone.
    pub reference_free: bool,
    /// Whether the score is divided by the response's number of tokens.
    pub average: bool,
}

impl PairTerm {
    /// A term with unchanged labels, no added margins and weights of 1.
    pub fn new(loss: PairLoss, beta: f32) -> PairTerm {
        PairTerm {
            loss,
            weight: 1.0,
            beta,
            label_scale: 1.0,
            label_shift: 0.0,
            margin: 0.0,
            length_margin: 0.0,
            tau: 1.0,
            desirable: 1.0,
            undesirable: 1.0,
            reference_free: false,
            average: false,
        }
    }
}

/// The inputs of [`preference_loss`]. Sequences 2p and 2p + 1 are the chosen and the rejected response of pair p,
/// so S = 2P.
#[derive(Clone, Copy, Debug)]
pub struct PairInputs {
    /// log π of whole responses (S, 1); with `tail_weight`, of their first tokens and of the rest, alternating (2S, 1).
    pub policy: Tensor,
    /// log π₀ of each response, its number of tokens, and 1 if the reference model drew it, otherwise 0 (S, 3).
    pub responses: Tensor,
    /// Each pair's label, the probability that the chosen response is the better one, and the weight of its loss (P, 2).
    pub pairs: Tensor,
    /// Σ log Σ p² over each response's tokens, with p the distributions that they were drawn from (S, 1). Each loss is
    /// multiplied by the exp of the mean of log π - log Σ p² over the tokens of the chosen response, and by that of the
    /// rejected one (WPO, Zhou et al. 2024, arXiv 2406.11827). It has no gradient.
    pub log_sum_squares: Option<Tensor>,
    /// The factor of log π of a response's second part in the score (LD-DPO, Liu et al. 2024, arXiv 2409.06411); log π₀
    /// already includes it.
    pub tail_weight: Option<f32>,
}

/// Results of [`preference_loss`].
#[derive(Clone, Copy, Debug)]
pub struct PreferenceTensors {
    /// One row per pair (P, 8), without the pair's weight: see [`PreferenceTensors::COLUMNS`].
    pub table: Tensor,
    /// The gradient of Σ weight · loss with respect to `policy`, for [`Recorder::backward`].
    pub d_policy: Tensor,
}

impl PreferenceTensors {
    /// The columns of `table`. The loss is that of all terms; the rest belongs to the first. A reward is β (log π - log
    /// π₀) over all tokens, or β times the score if that is reference-free; the margin is the difference of the
    /// rewards; the accuracy is 1 if the margin is above 0; `weight` is that of [`PairInputs::log_sum_squares`],
    /// otherwise 1.
    pub const COLUMNS: [&str; 8] = [
        "loss",
        "reward_chosen",
        "reward_rejected",
        "margin",
        "accuracy",
        "logp_chosen",
        "logp_rejected",
        "weight",
    ];
}

constants! {
    struct PreferenceConstants {
        loss: PairLoss,
        reference_free: bool,
        average: bool,
        /// Whether a response's log-probability is given in two parts.
        split: bool,
        weighting: bool,
        /// Whether there were terms before this one.
        add: bool,
        /// Whether the loss depends on the whole batch.
        batch: bool,
        sort: bool,
    }
}

/// The sum of the terms' losses on each pair, and its gradient. It ends the graph: the gradient is a result, and the op
/// has no gradient rule. Losses of the batch depend on all pairs of the inputs.
///   [`PairInputs`]  ->  [`PreferenceTensors`]
pub fn preference_loss(
    r: &mut Recorder,
    inputs: &PairInputs,
    terms: &[PairTerm],
) -> Result<PreferenceTensors> {
    let PairInputs { policy, responses, pairs, log_sum_squares, tail_weight } = *inputs;
    assert_eq!((policy.cols, responses.cols, pairs.cols), (1, 3, 2), "preference_loss");
    assert!(!terms.is_empty(), "preference_loss: no term");
    let table = r.tensor("preferences", pairs.rows, 8);
    let d_policy = r.tensor("d policy", policy.rows, 1);
    for (i, term) in terms.iter().enumerate() {
        let (batch, sort) = (term.loss.takes_batch(), term.loss.sorts());
        let constants = PreferenceConstants {
            loss: term.loss,
            reference_free: term.reference_free,
            average: term.average,
            split: tail_weight.is_some(),
            weighting: log_sum_squares.is_some(),
            add: i > 0,
            batch,
            sort,
        };
        let mut params = vec![
            ("pairs", pairs.rows.into()),
            ("sequences", responses.rows.into()),
            ("weight", term.weight.into()),
            ("beta", term.beta.into()),
            ("label_scale", term.label_scale.into()),
            ("label_shift", term.label_shift.into()),
            ("margin", term.margin.into()),
            ("length_margin", term.length_margin.into()),
            ("tau", term.tau.into()),
            ("desirable", term.desirable.into()),
            ("undesirable", term.undesirable.into()),
        ];
        params.extend(tail_weight.map(|weight| {
            let weight = if term.loss.is_of_plain_logps() { 1.0 } else { weight };
            ("tail_weight", weight.into())
        }));
        let mut args = vec![read("policy", policy), read("responses", responses), read("pairs", pairs)];
        args.extend(log_sum_squares.map(|sums| read("log_sum_squares", sums)));
        args.extend([write("table", table), write("d_policy", d_policy)]);
        if sort {
            args.push(write("ranked", r.tensor("ranked pairs", pairs.rows, 4)));
        }
        r.launch_detached(Launch {
            kernel: "preference_loss",
            constants: constants.list(),
            params,
            args,
            groups: if batch { Groups::over(1, 1) } else { Groups::over(pairs.rows, 64) },
            work: Work { flops: 100.0, bytes: 96.0 },
        });
    }
    Ok(PreferenceTensors { table, d_policy })
}
