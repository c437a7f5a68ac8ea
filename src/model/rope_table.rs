//! The RoPE table on the device. It has as many positions as the longest sequence of any plan so far.

use std::sync::Mutex;

use super::rope::Rope;
use crate::error::Result;
use crate::gpu::{Category, Format, Gpu, Recorder, Region, Tensor};
use crate::ops::rope_table;

/// The cosines, then the sines of the angles of every position, (positions, R), see [`rope_table`].
pub(super) struct RopeTable {
    gpu: Gpu,
    /// Radians per position, (R / 2).
    frequencies: Vec<f64>,
    /// The factor of the cosines and sines.
    factor: f64,
    /// The largest number of positions.
    context: usize,
    /// The longest table so far and its number of positions. Plans keep the shorter tables that they were recorded
    /// with.
    longest: Mutex<Option<(Region, usize)>>,
}

impl RopeTable {
    pub fn new(gpu: &Gpu, rope: &Rope, context: usize) -> RopeTable {
        let (frequencies, factor) = (rope.inverse_frequencies(), rope.attention_factor());
        RopeTable { gpu: gpu.clone(), frequencies, factor, context, longest: Mutex::new(None) }
    }

    /// Binds the table in a recording whose sequences have up to `positions` tokens; it has no more rows than the
    /// context.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] or [`crate::Error::OutOfMemory`].
    pub fn bind(&self, r: &mut Recorder, positions: usize) -> Result<Tensor> {
        let cols = 2 * self.frequencies.len();
        let mut longest = self.longest.lock().unwrap();
        let known = longest.take().filter(|(_, rows)| *rows >= positions.min(self.context));
        let (region, rows) = match known {
            Some(known) => known,
            None => {
                // Plans of about the same length share a table.
                let rows = positions.next_power_of_two().min(self.context);
                let bytes = Format::F32.bytes((rows * cols) as u64);
                let region = self.gpu.buffer("rotary table", Category::Weights, bytes)?.region();
                if !self.gpu.is_measuring() {
                    self.gpu.upload(&region, &rope_table(&self.frequencies, self.factor, rows))?;
                }
                (region, rows)
            }
        };
        let table = r.bind(&region, rows, cols, Format::F32);
        *longest = Some((region, rows));
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Limits;
    use crate::model::rope::RopeScaling;

    #[test]
    fn plans_share_a_table_that_grows_with_the_longest_sequence() {
        let gpu = Gpu::without_device(Limits::default());
        let rope = Rope { theta: 1e4, rotated: 64, scaling: RopeScaling::Default };
        let table = RopeTable::new(&gpu, &rope, 3000);
        let held = || gpu.memory().total;
        let mut r = Recorder::new(&gpu);
        let mut rows = |positions| table.bind(&mut r, positions).unwrap().rows.max();
        assert_eq!((rows(100), held()), (128, 128 * 64 * 4));
        assert_eq!((rows(5), rows(128), held()), (128, 128, 128 * 64 * 4));
        // The first recording keeps its shorter table.
        assert_eq!((rows(129), held()), (256, (128 + 256) * 64 * 4));
        // The table is never longer than the context.
        assert_eq!((rows(2500), rows(1 << 30)), (3000, 3000));
    }
}
