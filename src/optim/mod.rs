//! Optimisers for a model's trained weights: their state, their plan, and one call per step.

mod gradients;
mod state;

use std::path::Path;

use state::{Moment, shard, slice};

pub(crate) use gradients::sum_gradients;

use crate::collective::Ranks;
use crate::error::{Error, Result};
use crate::gpu::{Arena, Format, Gpu, Live, Outputs, Pending, Plan, PlanOptions, Recorder, Region, Tensor};
use crate::model::Weights;
use crate::ops;

/// An optimiser with its constants.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "optim", rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimiserKind {
    /// Loshchilov & Hutter 2019, arXiv 1711.05101, as PyTorch computes it.
    AdamW {
        /// Decay of the first moment.
        beta1: f32,
        /// Decay of the second moment.
        beta2: f32,
        /// Keeps the denominator away from zero.
        epsilon: f32,
        /// Decoupled weight decay of matrices; norms are not decayed.
        weight_decay: f32,
    },
    /// Shazeer & Stern 2018, arXiv 1804.04235, as `transformers` computes it with an external learning rate.
    Adafactor {
        /// Weight decay of matrices; norms are not decayed.
        weight_decay: f32,
    },
}

impl OptimiserKind {
    /// Refuses constants out of range.
    fn check(self) -> Result<()> {
        let decay = |d: f32| d >= 0.0 && d.is_finite();
        let constants = match self {
            OptimiserKind::AdamW { beta1, beta2, epsilon, weight_decay } => vec![
                ("beta1", beta1, (0.0..1.0).contains(&beta1)),
                ("beta2", beta2, (0.0..1.0).contains(&beta2)),
                ("epsilon", epsilon, epsilon > 0.0 && epsilon.is_finite()),
                ("weight-decay", weight_decay, decay(weight_decay)),
            ],
            OptimiserKind::Adafactor { weight_decay } => {
                vec![("weight-decay", weight_decay, decay(weight_decay))]
            }
        };
        match constants.into_iter().find(|(_, _, good)| !good) {
            Some((what, value, _)) => Err(Error::config(what, format!("{value} is out of range"))),
            None => Ok(()),
        }
    }

    /// AdamW with the usual constants: 0.9, 0.999, 1e-8, no weight decay.
    pub fn adamw() -> OptimiserKind {
        OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The gradient norm of an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f32,
    /// Whether it was finite; if not, the weights were not changed.
    pub finite: bool,
}

/// An optimiser's state on the device.
pub struct Optimiser {
    gpu: Gpu,
    kind: OptimiserKind,
    plan: Plan,
    norm: Tensor,
    state: Vec<Moment>,
    /// The ranks that each hold a part of the state.
    shards: Option<Ranks>,
    steps: u64,
}

impl Optimiser {
    /// Allocates the state (zeros) and records the update of `weights`. Gradients are clipped to the norm
    /// `max_grad_norm`; 0 means no clipping.
    ///
    /// # Errors
    /// [`Error::Config`] for weights that are frozen or on another device than `gpu`, and for a constant out of range;
    /// memory errors.
    pub async fn new(
        gpu: &Gpu,
        weights: &Weights,
        kind: OptimiserKind,
        max_grad_norm: f32,
        arena: &Arena,
    ) -> Result<Optimiser> {
        Optimiser::with_shards(gpu, weights, kind, max_grad_norm, arena, None).await
    }

    /// Like [`Optimiser::new`], but each rank of `shards` holds the state of only a part of the weights, and updates
    /// that part.
    ///
    /// # Errors
    /// Those of [`Optimiser::new`]; [`Error::Config`] for an optimiser other than AdamW, whose state cannot be sharded.
    pub(crate) async fn with_shards(
        gpu: &Gpu,
        weights: &Weights,
        kind: OptimiserKind,
        max_grad_norm: f32,
        arena: &Arena,
        shards: Option<&Ranks>,
    ) -> Result<Optimiser> {
        kind.check()?;
        if shards.is_some() && !matches!(kind, OptimiserKind::AdamW { .. }) {
            let why = "supports only adamw (the state of adafactor is small): leave it out";
            return Err(Error::config("shard-optim", why));
        }
        if !(max_grad_norm >= 0.0 && max_grad_norm.is_finite()) {
            return Err(Error::config("max-grad-norm", format!("{max_grad_norm} is not a number from 0 on")));
        }
        weights.check_trained(gpu)?;
        let mut r = Recorder::new(gpu);
        r.phase("update");
        let flat =
            |r: &mut Recorder, region: &Region, elements: usize| r.bind(region, 1, elements, Format::F32);
        let mut state: Vec<Moment> = Vec::new();
        let mut moment = |r: &mut Recorder, name: String, rows: usize, cols: usize| -> Result<Tensor> {
            let moment = Moment::new(gpu, name, 0..rows * cols, rows * cols)?;
            let tensor = r.bind(&moment.region(), rows, cols, Format::F32);
            state.push(moment);
            Ok(tensor)
        };
        let gradients: Vec<Tensor> =
            weights.segments.iter().map(|s| flat(&mut r, &s.gradients, s.elements)).collect();
        let norm = ops::global_norm(&mut r, &gradients, max_grad_norm)?;
        match kind {
            OptimiserKind::AdamW { beta1, beta2, epsilon, weight_decay } => {
                for (i, segment) in weights.segments.iter().enumerate() {
                    let whole = segment.elements;
                    let part = shards.map_or(0..whole, |ranks| shard(whole, ranks.rank(), ranks.size()));
                    let moments = ["exp_avg", "exp_avg_sq"]
                        .map(|name| Moment::new(gpu, format!("{name}.{i}"), part.clone(), whole));
                    let [m, v] = moments;
                    let (m, v) = (m?, v?);
                    if !part.is_empty() {
                        let [w, g] = [&segment.values, &segment.gradients]
                            .map(|region| flat(&mut r, &slice(region, &part), part.len()));
                        let [m, v] = [&m, &v].map(|moment| flat(&mut r, &moment.region(), part.len()));
                        let weight_decay = if segment.decayed { weight_decay } else { 0.0 };
                        let settings = ops::AdamW { beta1, beta2, epsilon, weight_decay };
                        ops::adamw(&mut r, w, g, m, v, norm, settings)?;
                    }
                    state.extend([m, v]);
                }
            }
            OptimiserKind::Adafactor { weight_decay } => {
                for weight in weights.iter() {
                    // A part of a split matrix is factored as a separate matrix.
                    for (i, (values, gradient, rows, cols)) in weight.parts().enumerate() {
                        if !values.offset.is_multiple_of(gpu.limits().alignment) {
                            let why =
                                format!("cannot update {} separately on this GPU: use adamw", weight.name);
                            return Err(Error::config("optim adafactor", why));
                        }
                        let w = r.bind(values, rows, cols, Format::F32);
                        let gradient = gradient.expect("a trained weight has a gradient");
                        let g = r.bind(gradient, rows, cols, Format::F32);
                        let name = |what: &str| format!("{what}.{}.{i}", weight.name);
                        let matrix = weight.shape.len() == 2;
                        let state = match matrix {
                            true => ops::AdafactorState::Matrix {
                                row: moment(&mut r, name("exp_avg_sq_row"), rows, 1)?,
                                col: moment(&mut r, name("exp_avg_sq_col"), 1, cols)?,
                            },
                            false => ops::AdafactorState::Vector {
                                v: moment(&mut r, name("exp_avg_sq"), rows, cols)?,
                            },
                        };
                        let weight_decay = if matrix { weight_decay } else { 0.0 };
                        let settings = ops::Adafactor { weight_decay, ..Default::default() };
                        ops::adafactor(&mut r, w, g, state, norm, settings)?;
                    }
                }
            }
        }
        r.output(norm);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        let shards = shards.cloned();
        let optimiser = Optimiser { gpu: gpu.clone(), kind, plan, norm, state, shards, steps: 0 };
        optimiser.clear()?;
        Ok(optimiser)
    }

    fn clear(&self) -> Result<()> {
        self.gpu.clear(&self.state.iter().map(Moment::region).collect::<Vec<_>>())
    }

    /// Updates the weights from their gradients, unless the gradients are not finite.
    ///
    /// # Errors
    /// [`Error::Config`] for a learning rate that is not a number from 0 on.
    pub async fn update(&mut self, learning_rate: f64) -> Result<Update> {
        let outputs = self.submit(learning_rate)?.outputs().await?;
        Ok(self.updated(&outputs))
    }

    /// Starts an update, which completes even if nothing waits for it.
    pub(crate) fn submit(&self, learning_rate: f64) -> Result<Pending> {
        if !(learning_rate >= 0.0 && (learning_rate as f32).is_finite()) {
            return Err(Error::config("learning-rate", format!("{learning_rate} is not a number from 0 on")));
        }
        let step = self.steps + 1;
        let mut live = Live::default();
        live.scalars[ops::LEARNING_RATE] = learning_rate as f32;
        match self.kind {
            OptimiserKind::AdamW { beta1, beta2, .. } => {
                let correction = |beta: f32| (1.0 / (1.0 - (beta as f64).powf(step as f64))) as f32;
                live.scalars[ops::INVERSE_BIAS_CORRECTION_1] = correction(beta1);
                live.scalars[ops::INVERSE_BIAS_CORRECTION_2] = correction(beta2);
            }
            OptimiserKind::Adafactor { .. } => {
                live.scalars[ops::ADAFACTOR_BETA2] = (1.0 - (step as f64).powf(-0.8)) as f32;
            }
        }
        self.plan.submit(&live, 1).map(Pending::lasting)
    }

    /// Reads the result of a started update.
    pub(crate) fn updated(&mut self, outputs: &Outputs) -> Update {
        let norm = outputs.f32(self.norm);
        let update = Update { grad_norm: norm[0], finite: norm[2] > 0.5 };
        if update.finite {
            self.steps += 1;
        }
        update
    }

    /// Returns the number of updates so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Sends every rank the weights that the other ranks have updated, if the state is sharded.
    pub(crate) async fn gather_weights(&self, weights: &Weights) -> Result<()> {
        match &self.shards {
            Some(ranks) => state::gather_weights(weights, ranks).await,
            None => Ok(()),
        }
    }

    /// Whether the state is sharded among the ranks.
    pub(crate) fn is_sharded(&self) -> bool {
        self.shards.is_some()
    }

    /// Writes the state to a safetensors file. If it is sharded, every rank calls this, and only rank 0 passes a path.
    pub async fn save(&self, path: Option<&Path>) -> Result<()> {
        state::save(&self.gpu, &self.state, self.steps, self.shards.as_ref(), path).await
    }

    /// Reads a state that [`Optimiser::save`] wrote for the same weights.
    ///
    /// # Errors
    /// Errors of the file, in most cases before anything is changed.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        self.steps = state::restore(&self.gpu, &self.state, path)?;
        Ok(())
    }
}
