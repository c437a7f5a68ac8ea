//! AlpacaEval's metrics of a model against its baseline: win rate, standard error and length-controlled win rate.
//!
//! Dubois et al. 2024, "Length-Controlled AlpacaEval" (arXiv 2404.04475), and the program `alpaca_eval` 0.6 (its
//! `length_controlled_v1`), which this file follows where the paper leaves a choice open:
//!
//! ```text
//! logit P(model wins on prompt i) = θ + φ · tanh(dᵢ / s) + ψ · γᵢ
//! ```
//!
//! - dᵢ is the length of the baseline's output minus that of the model's, in characters; s is its standard deviation
//!   (divisor n − 1). A judge that prefers longer responses has φ < 0.
//! - γᵢ is the difficulty of instruction i, fitted once by the authors over many models. It is an input here.
//! - Rows of two baselines prompted to be verbose or concise are added ("anchors", with their own dᵢ/s, γᵢ and
//!   preference, and without θ), each with weight 0.2/2. They keep φ and ψ close to the values shared by all models.
//! - The penalty is Σ|β| / C on the summed log loss, with C chosen among ten values by 5-fold cross-validation.
//! - The length-controlled win rate is the mean over prompts of σ(θ + ψ γᵢ).

use serde::Serialize;

use crate::error::{Error, Result};
use crate::eval::interval::{Mean, mean_with_error};
use crate::eval::length_control::standard_deviation;
use crate::eval::logistic::{Penalty, Regression, sigmoid};

/// AlpacaEval's total weight of the two anchor rows of a prompt.
pub const ANCHOR_WEIGHT: f64 = 0.2;

/// The plain metrics of AlpacaEval's leaderboard; rates are shares, not per cent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WinRate {
    /// Mean preference for the model.
    pub win_rate: f64,
    /// Sample standard deviation (divisor n − 1) over √n.
    pub standard_error: f64,
    /// The number of preferences above ½.
    pub n_wins: usize,
    /// The number of preferences below ½.
    pub n_wins_base: usize,
    /// The number of preferences of exactly ½.
    pub n_draws: usize,
    /// The number of all preferences.
    pub n_total: usize,
    /// (wins + draws/2) / total.
    pub discrete_win_rate: f64,
}

/// AlpacaEval's win rate for preferences in [0, 1] (its `preference` minus 1). Fails without preferences or for one
/// outside.
pub fn win_rate(preferences: &[f64]) -> Result<WinRate> {
    if let Some(p) = preferences.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::config(
            "preference",
            format!("{p} is outside [0, 1]: subtract 1 from AlpacaEval's 1 to 2"),
        ));
    }
    let Some(Mean { mean, standard_error, count }) = mean_with_error(preferences) else {
        return Err(Error::config("preferences", "are empty: give the judged prompts of one model"));
    };
    let n_wins = preferences.iter().filter(|p| **p > 0.5).count();
    let n_wins_base = preferences.iter().filter(|p| **p < 0.5).count();
    let n_draws = count - n_wins - n_wins_base;
    Ok(WinRate {
        win_rate: mean,
        standard_error,
        n_wins,
        n_wins_base,
        n_draws,
        n_total: count,
        discrete_win_rate: (n_wins as f64 + 0.5 * n_draws as f64) / count as f64,
    })
}

/// A judged prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlpacaPrompt {
    /// Preference for the model over the baseline, in [0, 1].
    pub preference: f64,
    /// Characters of the baseline's output.
    pub baseline_length: f64,
    /// Characters of the model's output.
    pub model_length: f64,
    /// γ of the instruction; 0 for all prompts leaves the term out. AlpacaEval looks it up by the position of the row
    /// in the annotation file, even if the file lacks rows.
    pub difficulty: f64,
}

/// A row that keeps φ and ψ close to those of all models: the judged output of a baseline prompted to be verbose or
/// concise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anchor {
    /// Preference for it over the plain baseline, in [0, 1].
    pub preference: f64,
    /// dᵢ/s of its own outputs.
    pub standardised_difference: f64,
    /// γ of the instruction.
    pub difficulty: f64,
}

/// The strength of the L1 penalty. C is the inverse strength.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strength {
    /// A given C.
    Fixed(f64),
    /// The C with the smallest held-out log loss, out of ten values from 10⁻⁴ to 10⁴ in equal steps of log C.
    ///
    /// Row i of n (anchors first) is in fold (n − 1 − i) mod folds, as in scikit-learn's `GroupKFold` with groups of
    /// equal size if its sort is stable. AlpacaEval uses 5 folds.
    CrossValidated {
        /// At least 2.
        folds: usize,
    },
}

/// φ, ψ and θ, in the order of AlpacaEval's file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AlpacaWeights {
    /// φ of tanh(standardised length difference).
    pub length: f64,
    /// ψ of the instruction's difficulty.
    pub difficulty: f64,
    /// θ of the model.
    pub model: f64,
}

/// AlpacaEval's length-controlled win rate; rates are shares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthControlledWinRate {
    /// Mean over prompts of σ(θ + ψ γᵢ).
    pub win_rate: f64,
    /// AlpacaEval's `lc_standard_error`: the standard deviation of these predictions over √n. It does not include the
    /// uncertainty of the fit and is far too small for an interval of the win rate; `length_control` has one.
    pub standard_error: f64,
    /// The fitted weights.
    pub weights: AlpacaWeights,
    /// The C that was used.
    pub inverse_strength: f64,
}

/// Computes the length-controlled win rate from `weights`: mean and standard error over prompts of σ(θ + ψ γᵢ). Fails
/// without difficulties.
pub fn read_out(weights: &AlpacaWeights, difficulties: impl IntoIterator<Item = f64>) -> Result<Mean> {
    let predictions: Vec<f64> =
        difficulties.into_iter().map(|g| sigmoid(weights.model + weights.difficulty * g)).collect();
    mean_with_error(&predictions)
        .ok_or_else(|| Error::config("difficulties", "are empty: give one for each prompt of the evaluation"))
}

/// AlpacaEval's length-controlled win rate of `prompts`, with `anchors` of total weight [`ANCHOR_WEIGHT`] per prompt
/// (no anchors for its `length_controlled_noreg`).
///
/// Fails without prompts, for preferences outside [0, 1], and for an invalid `strength`.
pub fn length_controlled(
    prompts: &[AlpacaPrompt],
    anchors: &[Anchor],
    strength: Strength,
) -> Result<LengthControlledWinRate> {
    let differences = prompts.iter().map(|p| p.baseline_length - p.model_length);
    let scale = standard_deviation(differences.clone());
    let mut rows: Vec<([f64; 3], f64, f64)> = anchors
        .iter()
        .map(|a| ([a.standardised_difference.tanh(), a.difficulty, 0.0], a.preference, 0.5 * ANCHOR_WEIGHT))
        .collect();
    rows.extend(prompts.iter().zip(differences).map(|(p, difference)| {
        let z = if scale > 0.0 { (difference / scale).tanh() } else { 0.0 };
        ([z, p.difficulty, 1.0], p.preference, 1.0)
    }));
    let inverse_strength = match strength {
        Strength::Fixed(c) if c > 0.0 && c.is_finite() => c,
        Strength::Fixed(c) => {
            return Err(Error::config("strength", format!("C = {c}: give a number above 0")));
        }
        Strength::CrossValidated { folds } => cross_validate(&rows, folds)?,
    };
    let fit = regression(rows.iter())?.fit(Penalty::L1 { strength: 1.0 / inverse_strength })?;
    let weights = AlpacaWeights {
        length: fit.coefficients[0],
        difficulty: fit.coefficients[1],
        model: fit.coefficients[2],
    };
    let Mean { mean, standard_error, .. } = read_out(&weights, prompts.iter().map(|p| p.difficulty))?;
    Ok(LengthControlledWinRate { win_rate: mean, standard_error, weights, inverse_strength })
}

type Row = ([f64; 3], f64, f64);

fn regression<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<Regression> {
    let mut regression = Regression::new(3)?;
    for (x, y, weight) in rows {
        regression.push(x, *y, *weight)?;
    }
    Ok(regression)
}

fn cross_validate(rows: &[Row], folds: usize) -> Result<f64> {
    if folds < 2 || rows.len() < folds {
        return Err(Error::config(
            "folds",
            format!("{folds} folds of {} rows: give 2 or more folds, and as many rows or more", rows.len()),
        ));
    }
    let candidates: Vec<f64> = (0..10).map(|i| 10f64.powf(-4.0 + 8.0 * f64::from(i) / 9.0)).collect();
    let mut losses = vec![0.0; candidates.len()];
    let fold_of = |i: usize| (rows.len() - 1 - i) % folds;
    for fold in 0..folds {
        let part = |held_out: bool| {
            rows.iter()
                .enumerate()
                .filter(move |(i, _)| (fold_of(*i) == fold) == held_out)
                .map(|(_, row)| row)
        };
        let (train, test) = (regression(part(false))?, regression(part(true))?);
        let mut start = vec![0.0; 3];
        for (loss, c) in losses.iter_mut().zip(&candidates) {
            let fit = train.fit_from(Penalty::L1 { strength: 1.0 / c }, &start)?;
            *loss += test.log_loss(&fit.coefficients) / test.len() as f64;
            start = fit.coefficients;
        }
    }
    let best = losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
    Ok(candidates[best])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_alpaca_eval() {
        let rate = win_rate(&[1.0, 0.5, 0.2, 0.9]).unwrap();
        assert_eq!((rate.n_wins, rate.n_draws, rate.n_wins_base, rate.n_total), (2, 1, 1, 4));
        assert!((rate.win_rate - 0.65).abs() < 1e-15 && rate.discrete_win_rate == 0.625);
        assert!(win_rate(&[]).is_err() && win_rate(&[1.7]).is_err());
    }

    #[test]
    fn unusable_settings_are_errors() {
        let prompt =
            AlpacaPrompt { preference: 0.4, baseline_length: 5.0, model_length: 9.0, difficulty: 0.1 };
        assert!(length_controlled(&[prompt], &[], Strength::Fixed(0.0)).is_err());
        assert!(length_controlled(&[prompt], &[], Strength::CrossValidated { folds: 5 }).is_err());
        assert!(length_controlled(&[], &[], Strength::Fixed(1.0)).is_err());
        assert!(length_controlled(&[prompt], &[], Strength::Fixed(1.0)).is_ok());
    }
}
