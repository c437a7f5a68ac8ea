//! Updates of the weights from the gradients.

use std::path::Path;

use super::options::TrainOptions;
use super::report::UpdateReport;
use super::schedule::LrSchedule;
use super::state::Counters;
use crate::error::{Error, Result};
use crate::gpu::{Outputs, Pending};
use crate::model::Model;
use crate::optim::{Optimiser, Update, sum_gradients};

/// A run stops after this many steps in a row without a finite gradient.
const MAX_NON_FINITE: usize = 5;

/// The optimiser of a model and its learning rate schedule.
pub(super) struct Updater {
    model: Model,
    optimiser: Optimiser,
    schedule: LrSchedule,
}

impl Updater {
    /// Clears the gradients, so that earlier ones are not learnt from.
    pub fn new(model: &Model, optimiser: Optimiser, schedule: LrSchedule) -> Result<Updater> {
        model.trained().clear_gradients()?;
        Ok(Updater { model: model.clone(), optimiser, schedule })
    }

    /// The learning rate after `step` steps.
    pub fn learning_rate(&self, step: usize) -> f64 {
        self.schedule.at(step)
    }

    /// Sums the gradients over the ranks. Each rank has the gradients of its own part of the rows.
    pub async fn sum_gradients(&self, options: &TrainOptions) -> Result<()> {
        sum_gradients(self.model.trained(), &options.ranks, options.reduce_dtype).await
    }

    /// Submits an update of the weights, which changes nothing if the gradients or the loss are not finite, and clears
    /// the gradients.
    pub fn submit(&self, loss: f64, learning_rate: f64) -> Result<Option<Pending>> {
        let update = if loss.is_finite() { Some(self.optimiser.submit(learning_rate)?) } else { None };
        if update.is_some() {
            self.model.trained().note_change();
        }
        self.clear()?;
        Ok(update)
    }

    /// Distributes the weights that each rank updated to all ranks, after the update.
    pub async fn gather_weights(&self) -> Result<()> {
        self.optimiser.gather_weights(self.model.trained()).await
    }

    /// Whether the optimiser state is sharded among the ranks.
    pub fn is_sharded(&self) -> bool {
        self.optimiser.is_sharded()
    }

    /// Evaluates the outputs of an update; they are `None` if the loss was not finite.
    ///
    /// # Errors
    /// [`Error::NonFinite`] after 5 steps in a row without a finite loss and gradient.
    pub fn updated(
        &mut self,
        outputs: Option<&Outputs>,
        learning_rate: f64,
        counters: &mut Counters,
    ) -> Result<UpdateReport> {
        let update = match outputs {
            Some(outputs) => self.optimiser.updated(outputs),
            None => Update { grad_norm: f32::NAN, finite: false },
        };
        if update.finite && update.grad_norm > 0.0 && learning_rate > 0.0 {
            counters.updates += 1;
        }
        if update.finite {
            counters.non_finite_in_row = 0;
        } else {
            counters.non_finite += 1;
            counters.non_finite_in_row += 1;
            if counters.non_finite_in_row >= MAX_NON_FINITE {
                return Err(Error::NonFinite { count: MAX_NON_FINITE });
            }
        }
        Ok(UpdateReport { grad_norm: update.finite.then_some(update.grad_norm), learning_rate })
    }

    /// Clears the gradients.
    pub fn clear(&self) -> Result<()> {
        self.model.trained().clear_gradients()
    }

    /// Whether one of the first `steps` steps may change a weight. A run that consists only of warm-up at learning rate
    /// 0 intentionally has none.
    pub fn learns_within(&self, steps: usize) -> bool {
        (0..steps).any(|step| self.schedule.at(step) > 0.0)
    }

    /// Writes the optimiser state. Ranks without a `path` send their part of it.
    pub async fn save(&self, path: Option<&Path>) -> Result<()> {
        self.optimiser.save(path).await
    }

    /// Reads the optimiser state.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        self.optimiser.restore(path)
    }
}
