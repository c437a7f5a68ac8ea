//! Assigns rows of the dataset to steps.

use std::ops::Range;

use super::options::TrainOptions;
use super::order::RowOrder;

/// The rows of one step.
pub(super) struct Draws {
    /// The number of rows drawn before this step.
    pub first: u64,
    /// In the order in which they are drawn.
    pub rows: Vec<usize>,
}

impl Draws {
    /// A sub-range of the draws.
    pub fn part(&self, part: Range<usize>) -> Draws {
        Draws { first: self.first + part.start as u64, rows: self.rows[part].to_vec() }
    }

    /// The row of draw number `draw`, counted from the start of the run.
    pub fn row(&self, draw: u64) -> Option<usize> {
        self.rows.get(usize::try_from(draw.checked_sub(self.first)?).ok()?).copied()
    }
}

/// The dataset, divided into steps.
pub(super) struct Batches {
    order: RowOrder,
    rows: usize,
    size: usize,
    total_steps: usize,
}

impl Batches {
    /// For a dataset of `rows` rows. A step draws `draws` rows for every row that it learns from.
    pub fn new(options: &TrainOptions, rows: usize, draws: usize) -> Batches {
        Batches {
            order: RowOrder::new(rows, options.shuffle.then_some(options.seed)),
            rows,
            size: options.rows_of_step() * draws,
            total_steps: total_steps(options, rows, draws),
        }
    }

    /// The number of steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// Rows drawn per step.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Passes over the dataset made in `steps` steps.
    pub fn epoch(&self, steps: usize) -> f64 {
        (steps * self.size) as f64 / self.rows as f64
    }

    /// The rows drawn after `step` steps.
    pub fn draws(&mut self, step: usize) -> Draws {
        let first = (step * self.size) as u64;
        let rows = (first..first + self.size as u64).map(|draw| self.order.row(draw)).collect();
        Draws { first, rows }
    }
}

/// The number of steps of a run over `rows` rows. A step draws `draws` rows for every row that it learns from.
pub(super) fn total_steps(options: &TrainOptions, rows: usize, draws: usize) -> usize {
    let batch = options.rows_of_step() * draws;
    let epochs = (rows as f64 * options.epochs / batch as f64).ceil() as usize;
    options.max_steps.unwrap_or(epochs).max(1)
}
