//! Logistic regression on preferences in [0, 1] in f64, for a small number of columns.
//!
//! The weighted log loss is L(β) = Σ wᵢ (log(1 + exp(xᵢβ)) − yᵢ xᵢβ). For yᵢ strictly between 0 and 1, it is the
//! cross-entropy of a row that counts yᵢ as a win and 1 − yᵢ as a loss. All methods are damped Newton iterations (IRLS;
//! McCullagh and Nelder 1989, section 4.4) that only take steps that lower the objective.

use crate::error::{Error, Result};

/// Largest number of columns.
pub const MAX_COLUMNS: usize = 8;
const MAX_STEPS: usize = 200;
/// The largest component of the (sub)gradient at a solution, per unit of row weight.
const TOLERANCE: f64 = 1e-13;

/// The penalty added to the log loss. `strength` is sklearn's 1/C.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// No penalty. Data separated by a hyperplane are an error, because the coefficients would be infinite.
    None,
    /// strength/2 · Σβⱼ².
    L2 {
        /// Above 0.
        strength: f64,
    },
    /// strength · Σ|βⱼ|.
    L1 {
        /// Above 0.
        strength: f64,
    },
}

/// Rows of a regression.
#[derive(Clone, Debug, Default)]
pub struct Regression {
    columns: usize,
    x: Vec<f64>, // (rows, columns)
    y: Vec<f64>,
    weight: Vec<f64>,
}

/// A fitted regression.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// β, one per column.
    pub coefficients: Vec<f64>,
    /// Newton steps taken.
    pub steps: usize,
}

impl Regression {
    /// An empty regression with `columns` columns (1 to [`MAX_COLUMNS`]).
    pub fn new(columns: usize) -> Result<Regression> {
        if columns == 0 || columns > MAX_COLUMNS {
            return Err(Error::config("columns", format!("{columns} columns: give 1 to {MAX_COLUMNS}")));
        }
        Ok(Regression { columns, ..Regression::default() })
    }

    /// Adds a row. Fails unless `x` has the right number of finite values, 0 ≤ `y` ≤ 1, and `weight` is finite and ≥ 0.
    pub fn push(&mut self, x: &[f64], y: f64, weight: f64) -> Result<()> {
        if x.len() != self.columns || x.iter().any(|v| !v.is_finite()) {
            return Err(Error::config(
                "row",
                format!("{x:?} does not have {} finite values: check the features", self.columns),
            ));
        }
        if !(0.0..=1.0).contains(&y) || !weight.is_finite() || weight < 0.0 {
            return Err(Error::config(
                "row",
                format!(
                    "a preference of {y} with weight {weight}: give one of [0, 1] and a weight of 0 or more"
                ),
            ));
        }
        self.x.extend_from_slice(x);
        self.y.push(y);
        self.weight.push(weight);
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.y.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.y.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = (&[f64], f64, f64)> {
        self.x.chunks_exact(self.columns).zip(&self.y).zip(&self.weight).map(|((x, y), w)| (x, *y, *w))
    }

    /// The weighted log loss Σ wᵢ (log(1 + exp(xᵢβ)) − yᵢ xᵢβ).
    pub fn log_loss(&self, coefficients: &[f64]) -> f64 {
        self.iter().map(|(x, y, w)| w * (softplus(dot(x, coefficients)) - y * dot(x, coefficients))).sum()
    }

    /// β that minimises the log loss plus `penalty`. Fails if all weights are 0, and for separated data without a
    /// penalty.
    pub fn fit(&self, penalty: Penalty) -> Result<Fit> {
        self.fit_from(penalty, &vec![0.0; self.columns])
    }

    /// Like [`Regression::fit`], but starts at `start`. The solution is the same, in fewer steps if `start` is close to
    /// it.
    pub fn fit_from(&self, penalty: Penalty, start: &[f64]) -> Result<Fit> {
        let (l1, l2) = match penalty {
            Penalty::None => (0.0, 0.0),
            Penalty::L2 { strength } => (0.0, strength),
            Penalty::L1 { strength } => (strength, 0.0),
        };
        let total: f64 = self.weight.iter().sum();
        if total.is_nan() || total <= 0.0 {
            return Err(Error::config(
                "rows",
                "no row has a weight above 0: give at least one judged prompt",
            ));
        }
        if start.len() != self.columns || start.iter().any(|b| !b.is_finite()) {
            return Err(Error::config(
                "start",
                format!("{start:?} does not have {} finite values", self.columns),
            ));
        }
        if (penalty != Penalty::None && l1 + l2 <= 0.0) || !(l1 + l2).is_finite() {
            return Err(Error::config(
                "penalty",
                format!("{penalty:?}: give a strength above 0, or Penalty::None"),
            ));
        }
        let objective =
            |b: &[f64]| self.log_loss(b) + b.iter().map(|b| l1 * b.abs() + 0.5 * l2 * b * b).sum::<f64>();
        let mut beta = start.to_vec();
        let mut value = objective(&beta);
        for step in 0..MAX_STEPS {
            let (mut gradient, mut hessian) = self.derivatives(&beta);
            for j in 0..self.columns {
                gradient[j] += l2 * beta[j];
                hessian[j][j] += l2;
            }
            if subgradient(&gradient[..self.columns], &beta, l1) <= TOLERANCE * total {
                return self.checked(beta, step, penalty);
            }
            let direction = if l1 > 0.0 {
                lasso_step(&gradient, &hessian, &beta, l1)
            } else {
                newton_step(&gradient, &hessian, self.columns)
            };
            // Halve the step until the objective falls (rounding may hide the last improvements).
            let mut scale = 1.0;
            let accepted = loop {
                let next: Vec<f64> = beta.iter().zip(&direction).map(|(b, d)| b + scale * d).collect();
                let at_next = objective(&next);
                if at_next <= value + 1e-15 * value.abs() {
                    let moved = next.iter().zip(&beta).any(|(a, b)| (a - b).abs() > 1e-15 * (1.0 + b.abs()));
                    beta = next;
                    value = at_next;
                    break moved;
                }
                scale *= 0.5;
                if scale < 1e-12 {
                    break false;
                }
            };
            if !accepted {
                return self.checked(beta, step, penalty);
            }
        }
        self.checked(beta, MAX_STEPS, penalty)
    }

    /// The influence of each row on coefficient `column`: wᵢ (yᵢ − pᵢ) (A⁻¹ xᵢ)ⱼ, where A is the Hessian of the
    /// objective at `coefficients` and `strength` that of an L2 penalty (0 for none). To first order, it is the
    /// coefficient minus its value without row i (infinitesimal jackknife; Efron 1982). The sum of its squares is the
    /// sandwich estimate of the coefficient's variance (Huber 1967, White 1982), which also holds for preferences that
    /// are not binary.
    pub fn influence(&self, coefficients: &[f64], strength: f64, column: usize) -> Vec<f64> {
        let (_, mut hessian) = self.derivatives(coefficients);
        (0..self.columns).for_each(|j| hessian[j][j] += strength);
        let mut unit = [0.0; MAX_COLUMNS];
        if column < self.columns {
            unit[column] = -1.0;
        }
        let solved = newton_step(&unit, &hessian, self.columns);
        self.iter().map(|(x, y, w)| w * (y - sigmoid(dot(x, coefficients))) * dot(x, &solved)).collect()
    }

    /// Detects infinite coefficients: the fit predicts every row with certainty, or does not converge.
    fn checked(&self, coefficients: Vec<f64>, steps: usize, penalty: Penalty) -> Result<Fit> {
        let runaway = coefficients.iter().any(|b| !b.is_finite() || b.abs() > 1e6);
        if penalty == Penalty::None && (runaway || steps == MAX_STEPS || self.separated_by(&coefficients)) {
            return Err(Error::config(
                "penalty",
                "the features separate the preferences, so the coefficients are infinite: use Penalty::L2",
            ));
        }
        Ok(Fit { coefficients, steps })
    }

    fn separated_by(&self, beta: &[f64]) -> bool {
        self.iter().filter(|row| row.2 > 0.0).all(|(x, y, _)| {
            let p = sigmoid(dot(x, beta));
            (y - p).abs() < 1e-9
        }) && self.y.iter().all(|y| *y == 0.0 || *y == 1.0)
    }

    /// Gradient Σ w (p − y) x and Hessian Σ w p (1 − p) x xᵀ of the log loss.
    fn derivatives(&self, beta: &[f64]) -> ([f64; MAX_COLUMNS], [[f64; MAX_COLUMNS]; MAX_COLUMNS]) {
        let mut gradient = [0.0; MAX_COLUMNS];
        let mut hessian = [[0.0; MAX_COLUMNS]; MAX_COLUMNS];
        for (x, y, w) in self.iter() {
            let p = sigmoid(dot(x, beta));
            let (slope, curve) = (w * (p - y), w * p * (1.0 - p));
            for j in 0..x.len() {
                gradient[j] += slope * x[j];
                for k in 0..x.len() {
                    hessian[j][k] += curve * x[j] * x[k];
                }
            }
        }
        (gradient, hessian)
    }
}

/// 1 / (1 + exp(−x)), without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// log(1 + exp(x)), without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn dot(x: &[f64], b: &[f64]) -> f64 {
    x.iter().zip(b).map(|(x, b)| x * b).sum()
}

/// The largest component of the smallest subgradient of the objective.
fn subgradient(gradient: &[f64], beta: &[f64], l1: f64) -> f64 {
    gradient.iter().zip(beta).fold(0.0, |worst: f64, (g, b)| {
        let g = if *b != 0.0 { g + l1 * b.signum() } else { (g.abs() - l1).max(0.0) };
        worst.max(g.abs())
    })
}

/// −H⁻¹ g by Cholesky. A column without curvature (constant 0, or a copy of others) is left unchanged.
fn newton_step(g: &[f64; MAX_COLUMNS], h: &[[f64; MAX_COLUMNS]; MAX_COLUMNS], n: usize) -> Vec<f64> {
    let mut l = [[0.0; MAX_COLUMNS]; MAX_COLUMNS];
    let mut live = [true; MAX_COLUMNS];
    for j in 0..n {
        let pivot = h[j][j] - (0..j).filter(|&k| live[k]).map(|k| l[j][k] * l[j][k]).sum::<f64>();
        live[j] = pivot > 1e-13 * h[j][j] && pivot > f64::MIN_POSITIVE;
        if live[j] {
            l[j][j] = pivot.sqrt();
            for i in j + 1..n {
                let sum: f64 = (0..j).filter(|&k| live[k]).map(|k| l[i][k] * l[j][k]).sum();
                l[i][j] = (h[i][j] - sum) / l[j][j];
            }
        }
    }
    let mut step = vec![0.0; n];
    for i in (0..n).filter(|&i| live[i]) {
        let sum: f64 = (0..i).filter(|&k| live[k]).map(|k| l[i][k] * step[k]).sum();
        step[i] = (-g[i] - sum) / l[i][i];
    }
    for i in (0..n).rev().filter(|&i| live[i]) {
        let sum: f64 = (i + 1..n).filter(|&k| live[k]).map(|k| l[k][i] * step[k]).sum();
        step[i] = (step[i] - sum) / l[i][i];
    }
    step
}

/// The step to the minimum of the quadratic model plus the L1 penalty, by coordinate descent (Friedman, Hastie and
/// Tibshirani 2010).
fn lasso_step(
    g: &[f64; MAX_COLUMNS],
    h: &[[f64; MAX_COLUMNS]; MAX_COLUMNS],
    beta: &[f64],
    l1: f64,
) -> Vec<f64> {
    let n = beta.len();
    let mut step = vec![0.0; n];
    for _ in 0..10_000 {
        let mut moved: f64 = 0.0;
        for j in 0..n {
            let curve = h[j][j].max(1e-12);
            let slope =
                g[j] + (0..n).map(|k| h[j][k] * step[k]).sum::<f64>() - h[j][j] * step[j] - curve * beta[j];
            // min over b of ½ curve b² + slope b + l1 |b|
            let target = -(slope.abs() - l1).max(0.0) * slope.signum() / curve;
            moved = moved.max((target - beta[j] - step[j]).abs());
            step[j] = target - beta[j];
        }
        if moved < 1e-16 {
            break;
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(data: &[(f64, f64)]) -> Regression {
        let mut rows = Regression::new(2).unwrap();
        data.iter().for_each(|(x, y)| rows.push(&[1.0, *x], *y, 1.0).unwrap());
        rows
    }

    #[test]
    fn separated_data_are_an_error_without_a_penalty_and_finite_with_one() {
        for data in
            [rows(&[(-1.0, 0.0), (-0.5, 0.0), (0.5, 1.0), (1.0, 1.0)]), rows(&[(-1.0, 1.0), (1.0, 1.0)])]
        {
            assert!(data.fit(Penalty::None).is_err());
            for penalty in [Penalty::L2 { strength: 0.1 }, Penalty::L1 { strength: 0.1 }] {
                let fit = data.fit(penalty).unwrap();
                assert!(fit.coefficients.iter().all(|b| b.abs() < 50.0), "{penalty:?}: {fit:?}");
            }
        }
    }

    #[test]
    fn the_influence_of_a_row_is_the_change_when_it_is_left_out() {
        let data: Vec<(f64, f64)> =
            (0..400).map(|i| (f64::from(i % 19) / 9.0 - 1.0, f64::from(u8::from(i * 7 % 11 < 6)))).collect();
        let all = rows(&data);
        let penalty = Penalty::L2 { strength: 0.1 };
        let beta = all.fit(penalty).unwrap().coefficients;
        let influence = all.influence(&beta, 0.1, 1);
        for i in [0, 5, 18] {
            let mut without = data.clone();
            without.remove(i);
            let change = beta[1] - rows(&without).fit(penalty).unwrap().coefficients[1];
            assert!((change - influence[i]).abs() < 0.02 * change.abs(), "{i}: {change} {}", influence[i]);
        }
    }

    #[test]
    fn a_column_without_information_stays_at_zero() {
        let fit = rows(&[(0.0, 0.25), (0.0, 0.75), (0.0, 1.0)]).fit(Penalty::None).unwrap();
        assert!((sigmoid(fit.coefficients[0]) - 2.0 / 3.0).abs() < 1e-12 && fit.coefficients[1] == 0.0);
    }

    #[test]
    fn a_strong_l1_penalty_sets_coefficients_to_zero() {
        let fit = rows(&[(0.3, 0.4), (-0.2, 0.6), (1.0, 0.5)]).fit(Penalty::L1 { strength: 10.0 }).unwrap();
        assert_eq!(fit.coefficients, [0.0, 0.0]);
    }

    #[test]
    fn unusable_rows_are_errors() {
        let mut rows = Regression::new(2).unwrap();
        assert!(rows.push(&[1.0], 0.5, 1.0).is_err() && rows.push(&[1.0, f64::NAN], 0.5, 1.0).is_err());
        assert!(rows.push(&[1.0, 0.0], 1.1, 1.0).is_err() && rows.push(&[1.0, 0.0], 1.0, -1.0).is_err());
        assert!(
            rows.fit(Penalty::None).is_err() && Regression::new(0).is_err() && Regression::new(99).is_err()
        );
        rows.push(&[1.0, 0.0], 0.5, 1.0).unwrap();
        assert!(rows.fit(Penalty::L2 { strength: -1.0 }).is_err());
        assert!(rows.fit_from(Penalty::None, &[f64::NAN, 0.0]).is_err());
    }
}
