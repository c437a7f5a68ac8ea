//! Optimiser steps and gradient clipping.

use super::{check, dot};

/// sqrt(Σ g²) over all gradients together.
pub fn global_norm(g: &[f64]) -> f64 {
    dot(g, g).sqrt()
}

/// The factor that clips gradients of global norm `norm` to `max_norm`, as PyTorch computes it:
/// min(1, max_norm / (norm + 1e-6)). A `max_norm` of 0 means no clipping.
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    if max_norm == 0.0 { 1.0 } else { (max_norm / (norm + 1e-6)).min(1.0) }
}

/// Results of [`adamw_step`]: the new weights and moments, all of one shape.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Weights.
    pub w: Vec<f64>,
    /// Running mean of the gradient.
    pub m: Vec<f64>,
    /// Running mean of the squared gradient.
    pub v: Vec<f64>,
}

/// One step of AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101), as PyTorch does it: with g times
/// `grad_scale`, w -= lr weight_decay w, m = β1 m + (1 - β1) g, v = β2 v + (1 - β2) g²,
/// w -= lr / (1 - β1^step) m / (sqrt(v) / sqrt(1 - β2^step) + eps). `step` counts from 1.
pub fn adamw_step(
    w: &[f64],
    g: &[f64],
    m: &[f64],
    v: &[f64],
    step: u32,
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    grad_scale: f64,
) -> AdamW {
    let len = w.len();
    check("g", g, &[len]);
    check("m", m, &[len]);
    check("v", v, &[len]);
    assert!(step > 0, "steps count from 1");
    let correction1 = 1.0 - beta1.powf(f64::from(step));
    let correction2 = 1.0 - beta2.powf(f64::from(step));
    let mut new = AdamW { w: w.to_vec(), m: m.to_vec(), v: v.to_vec() };
    for i in 0..len {
        let g = g[i] * grad_scale;
        new.m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        new.v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        let denominator = new.v[i].sqrt() / correction2.sqrt() + eps;
        new.w[i] = w[i] * (1.0 - lr * weight_decay) - lr / correction1 * new.m[i] / denominator;
    }
    new
}

/// Adafactor's running mean of the squared gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum AdafactorState {
    /// For a matrix (rows, cols): its row means (rows) and column means (cols).
    Matrix {
        /// (rows).
        row: Vec<f64>,
        /// (cols).
        col: Vec<f64>,
    },
    /// For a vector, per element.
    Vector {
        /// (len).
        v: Vec<f64>,
    },
}

/// Added to the squared gradient.
pub const ADAFACTOR_EPS: f64 = 1e-30;
/// The largest root mean square of an update, before the learning rate.
pub const ADAFACTOR_CLIP_THRESHOLD: f64 = 1.0;
/// β2 of a step is 1 - step^this.
pub const ADAFACTOR_DECAY_RATE: f64 = -0.8;

/// One step of Adafactor (Shazeer and Stern 2018, arXiv 1804.04235) with an external learning rate, no first moment and
/// no scaling by the parameter, as in `transformers` with `scale_parameter=False, relative_step=False`. With g times
/// `grad_scale`, q = g² + 1e-30 and β = 1 - step^-0.8, a matrix keeps row = β row + (1 - β) mean over columns of q,
/// likewise col, and u = g / sqrt(row col / mean(row)); a vector keeps v = β v + (1 - β) q and u = g / sqrt(v). Then u
/// /= max(1, rms(u)), w -= lr weight_decay w, w -= lr u. `step` counts from 1; at 1, β is 0 and the old state is
/// ignored. Returns the new weights and state.
pub fn adafactor_step(
    w: &[f64],
    g: &[f64],
    state: &AdafactorState,
    step: u32,
    lr: f64,
    weight_decay: f64,
    grad_scale: f64,
) -> (Vec<f64>, AdafactorState) {
    assert!(step > 0, "steps count from 1");
    check("g", g, &[w.len()]);
    let beta2 = 1.0 - f64::from(step).powf(ADAFACTOR_DECAY_RATE);
    let g: Vec<f64> = g.iter().map(|g| g * grad_scale).collect();
    let q: Vec<f64> = g.iter().map(|g| g * g + ADAFACTOR_EPS).collect();
    let average = |old: &[f64], new: &dyn Fn(usize) -> f64| -> Vec<f64> {
        old.iter().enumerate().map(|(i, old)| beta2 * old + (1.0 - beta2) * new(i)).collect()
    };
    let (state, second_moment): (_, Vec<f64>) = match state {
        AdafactorState::Matrix { row, col } => {
            let (rows, cols) = (row.len(), col.len());
            check("w", w, &[rows, cols]);
            let row = average(row, &|i| mean((0..cols).map(|j| q[i * cols + j])));
            let col = average(col, &|j| mean((0..rows).map(|i| q[i * cols + j])));
            let row_mean = mean(row.iter().copied());
            let product = (0..rows * cols).map(|at| row[at / cols] / row_mean * col[at % cols]).collect();
            (AdafactorState::Matrix { row, col }, product)
        }
        AdafactorState::Vector { v } => {
            check("v", v, &[w.len()]);
            let v = average(v, &|i| q[i]);
            (AdafactorState::Vector { v: v.clone() }, v)
        }
    };
    let update: Vec<f64> = g.iter().zip(second_moment).map(|(g, second)| g / second.sqrt()).collect();
    let rms = mean(update.iter().map(|u| u * u)).sqrt();
    let clip = (rms / ADAFACTOR_CLIP_THRESHOLD).max(1.0);
    let w = w.iter().zip(update).map(|(w, u)| w - lr * weight_decay * w - lr * u / clip).collect();
    (w, state)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_close;
    use super::*;

    /// Smooth, reproducible weights and gradients that another program can generate too.
    fn weights(len: usize) -> Vec<f64> {
        (0..len).map(|i| (i as f64 + 1.0).sin()).collect()
    }

    fn gradients(len: usize, step: u32) -> Vec<f64> {
        (0..len).map(|i| (f64::from(step) * (i as f64 + 0.5)).cos() * 10f64.powf(i as f64 - 3.0)).collect()
    }

    #[test]
    fn norm_and_clipping_follow_pytorch() {
        assert_eq!(global_norm(&[3.0, 0.0, -4.0]), 5.0);
        assert_eq!(clip_scale(5.0, 0.0), 1.0);
        assert_eq!(clip_scale(5.0, 10.0), 1.0);
        assert_eq!(clip_scale(5.0, 1.0), 1.0 / 5.000001);
    }

    #[test]
    fn three_adamw_steps_equal_those_of_pytorch() {
        let mut state = AdamW { w: weights(6), m: vec![0.0; 6], v: vec![0.0; 6] };
        for step in 1..=3 {
            // Gradients twice too large, halved by the scale.
            let g: Vec<f64> = gradients(6, step).iter().map(|g| 2.0 * g).collect();
            let AdamW { w, m, v } = state;
            state = adamw_step(&w, &g, &m, &v, step, 0.05, 0.9, 0.95, 1e-4, 0.1, 0.5);
        }
        // PyTorch 2.15 in float64, with the gradients unscaled.
        assert_close(
            &state.w,
            &[
                0.7081016957723362,
                0.9183386007364142,
                0.20932965594199526,
                -0.6793958606820999,
                -0.8406762632564436,
                -0.3547586566483691,
            ],
        );
        assert_close(
            &state.m,
            &[
                0.00012678511520802305,
                -0.001044491913020341,
                -0.00046995043841086844,
                -0.05555548157925633,
                -0.3958411699252487,
                -1.2439141213754716,
            ],
        );
        assert_close(
            &state.v,
            &[
                4.886977099314418e-08,
                4.900158205628176e-06,
                0.00038792481422477793,
                0.0778766970404502,
                5.913417506867803,
                473.3136650340632,
            ],
        );
    }

    #[test]
    fn three_adafactor_steps_equal_those_of_transformers() {
        let matrix = AdafactorState::Matrix { row: vec![0.0; 2], col: vec![0.0; 3] };
        let vector = AdafactorState::Vector { v: vec![0.0; 6] };
        // transformers 5.23 on PyTorch 2.15 in float64, with the gradients unscaled.
        let known = [
            (
                matrix,
                [
                    0.7556144964429906,
                    0.9572270990333617,
                    0.12789634807052055,
                    -0.7073210090447865,
                    -0.8757356682715841,
                    -0.2640751170831336,
                ],
            ),
            (
                vector,
                [
                    0.7346763563103493,
                    0.9295909950947113,
                    0.12791870599329377,
                    -0.7073210037971369,
                    -0.8757357100288274,
                    -0.2640751171441117,
                ],
            ),
        ];
        for (mut state, expected) in known {
            let mut w = weights(6);
            for step in 1..=3 {
                let g: Vec<f64> = gradients(6, step).iter().map(|g| 4.0 * g).collect();
                (w, state) = adafactor_step(&w, &g, &state, step, 0.05, 0.1, 0.25);
            }
            assert_close(&w, &expected);
        }
    }
}
