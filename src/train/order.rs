//! The order in which rows are drawn: that of the file, or a permutation per epoch derived from the seed.

use crate::reference::pcg4d;

/// The order of the rows of a dataset. It depends only on the seed, so that a resumed run continues in it.
pub struct RowOrder {
    rows: usize,
    shuffle: Option<u32>,
    /// The epoch of the cached permutation.
    epoch: u64,
    permutation: Vec<u32>,
}

impl RowOrder {
    /// An order of `rows` rows; `shuffle` is the seed.
    pub fn new(rows: usize, shuffle: Option<u32>) -> RowOrder {
        RowOrder { rows, shuffle, epoch: u64::MAX, permutation: Vec::new() }
    }

    /// The row of draw number `draw`. Starts over after the last row.
    pub fn row(&mut self, draw: u64) -> usize {
        let (epoch, at) = (draw / self.rows as u64, (draw % self.rows as u64) as usize);
        let Some(seed) = self.shuffle else { return at };
        if epoch != self.epoch {
            // Fisher–Yates with counter-based draws.
            self.permutation = (0..self.rows as u32).collect();
            for i in (1..self.rows).rev() {
                let [bits, ..] = pcg4d([seed, epoch as u32, i as u32, 0x5EED]);
                let j = (bits as u64 * (i as u64 + 1)) >> 32;
                self.permutation.swap(i, j as usize);
            }
            self.epoch = epoch;
        }
        self.permutation[at] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_drawn_once_per_epoch_in_a_new_order() {
        let mut order = RowOrder::new(10, Some(3));
        let epochs: Vec<Vec<usize>> =
            (0..2).map(|e| (0..10).map(|i| order.row(e * 10 + i)).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_eq!(epochs[1][4], RowOrder::new(10, Some(3)).row(14), "resumed in the middle of an epoch");
    }

    #[test]
    fn without_shuffling_rows_come_in_file_order_and_cycle() {
        let mut order = RowOrder::new(3, None);
        assert_eq!((0..7).map(|i| order.row(i)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }
}
