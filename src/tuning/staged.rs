//! The tiles for a GPU, which depend on the sizes of a product: measured when a recording first has products of a
//! class.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::cache::Entry;
use super::products::{product_case, seconds};
use crate::Wait;
use crate::error::Result;
use crate::gpu::{
    Format, Gpu, ProductClass, ProductForm, ProductTile, Products, StagedProducts, TileChooser, Tuning,
};
use crate::ops::Case;

/// The most time per process spent on measuring; later classes use the default tile for their shape.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a candidate is timed.
const TIMED_FOR: Duration = Duration::from_millis(5);
/// The most elements of an operand or result in measurements; larger ones are cut.
const MOST_ELEMENTS: u32 = 1 << 24;

/// Measures candidates, and saves the results.
pub(super) struct MeasuredTiles {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    known: Entry,
    spent: Duration,
    /// Whether a tile's results are right.
    checked: HashMap<(ProductForm, Format, ProductTile), bool>,
}

impl MeasuredTiles {
    /// Continues from the known results of the device, and saves new ones to this file.
    pub fn new(known: Entry, file: Option<PathBuf>) -> MeasuredTiles {
        MeasuredTiles {
            file,
            state: Mutex::new(State { known, spent: Duration::ZERO, checked: HashMap::new() }),
        }
    }
}

impl TileChooser for MeasuredTiles {
    fn choose(&self, gpu: &Gpu, class: &ProductClass) -> Option<ProductTile> {
        let mut state = self.state.lock().unwrap();
        let Products::Staged(known) = &state.known.tuning.products else { return None };
        if let Some(tile) = known.tile(class) {
            return Some(tile);
        }
        if state.spent > LONGEST {
            return None;
        }
        let started = Instant::now();
        // An error of the device will be reported when the recording runs.
        let fastest = state.fastest(gpu, class).ok().flatten();
        state.spent += started.elapsed();
        let tile = fastest?;
        if let Products::Staged(known) = &mut state.known.tuning.products {
            known.choose(*class, tile);
        }
        if let Some(file) = &self.file {
            // That the file cannot be written was reported when the device was opened.
            let _ = state.known.write(file);
        }
        Some(tile)
    }
}

impl State {
    /// Returns the fastest tile with correct results, of those for which there is time.
    fn fastest(&mut self, gpu: &Gpu, class: &ProductClass) -> Result<Option<ProductTile>> {
        let started = Instant::now();
        let case = measured_case(class);
        let mut fastest = None;
        for tile in class.candidates() {
            if fastest.is_some() && self.spent + started.elapsed() > LONGEST {
                break;
            }
            let products = Products::Staged(StagedProducts::all_in(tile));
            let gpu = gpu.with_tuning(Tuning { products, ..gpu.tuning() });
            if !self.is_right(&gpu, class, tile)? {
                continue;
            }
            let seconds = seconds(&gpu, &case, TIMED_FOR)?;
            if fastest.is_none_or(|(least, _)| seconds < least) {
                fastest = Some((seconds, tile));
            }
        }
        Ok(fastest.map(|(_, tile)| tile))
    }

    /// Whether a tile's results agree with [`crate::reference`].
    fn is_right(&mut self, gpu: &Gpu, class: &ProductClass, tile: ProductTile) -> Result<bool> {
        let ProductClass { form, format, .. } = *class;
        if let Some(right) = self.checked.get(&(form, format, tile)) {
            return Ok(*right);
        }
        let right = checked_case(class).check(gpu).wait().is_ok_and(|report| report.passed());
        // If the device is lost, the failure does not show that the tile is wrong.
        gpu.idle().wait()?;
        if !right {
            self.known.wrong.push(format!("{tile} for {class}"));
        }
        self.checked.insert((form, format, tile), right);
        Ok(right)
    }
}

/// The product that is timed for a class.
fn measured_case(class: &ProductClass) -> Case {
    let [rows, cols, inner] = measured_extents(class);
    product_case(class.form, rows, cols, inner, class.format)
}

/// Returns rows and columns of the results and elements of a sum, reduced so that neither the result nor an operand is
/// too large.
fn measured_extents(class: &ProductClass) -> [usize; 3] {
    let ProductClass { rows, cols, inner, .. } = *class;
    let rows = rows.min(MOST_ELEMENTS / inner);
    [rows, cols.min(MOST_ELEMENTS / inner.max(rows)), inner].map(|n| n as usize)
}

/// A smaller product with partial tiles at every edge, which [`crate::reference`] computes in milliseconds.
fn checked_case(class: &ProductClass) -> Case {
    let ProductClass { form, rows, cols, inner, format } = *class;
    let [rows, mut cols, mut inner] =
        [(rows, 148), (cols, 140), (inner, 300)].map(|(n, most)| n.min(most) as usize);
    // The extent along the rows of the right operand.
    let along_row = if form == ProductForm::AlongBoth { &mut inner } else { &mut cols };
    *along_row = along_row.next_multiple_of(format.row_unit());
    product_case(form, rows, cols, inner, format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceKind, StagedTile, testing};

    fn gpu() -> Option<Gpu> {
        let gpu = testing::gpu()?;
        Some(gpu.with_tuning(Tuning::untuned(None, DeviceKind::Gpu)))
    }

    #[test]
    fn a_tile_with_wrong_results_is_never_chosen_and_is_reported() {
        let Some(gpu) = gpu() else { return };
        let class = ProductClass::new(ProductForm::AlongNeither, 64, 64, 64, Format::F32);
        let chooser = MeasuredTiles::new(Entry::new(&gpu), None);
        let others = class.candidates().into_iter().filter(|t| *t != ProductTile::Staged(StagedTile::SMALL));
        let wrong = others.map(|tile| ((class.form, class.format, tile), false));
        chooser.state.lock().unwrap().checked.extend(wrong);
        assert_eq!(chooser.choose(&gpu, &class), Some(ProductTile::Staged(StagedTile::SMALL)));
        // A tile that the device cannot compute.
        let mut state = chooser.state.lock().unwrap();
        state.checked.clear();
        let huge = StagedTile { rows: 4096, cols: 4096, ..StagedTile::SQUARE };
        let tile = ProductTile::Staged(huge);
        let products = Products::Staged(StagedProducts::all_in(tile));
        let without = gpu.with_tuning(Tuning { products, ..gpu.tuning() });
        assert!(!state.is_right(&without, &class, tile).unwrap());
        assert_eq!(state.known.wrong, [format!("{tile} for {class}")]);
    }

    #[test]
    fn without_time_to_measure_the_tile_depends_on_the_shape() {
        let Some(gpu) = gpu() else { return };
        let class = ProductClass::new(ProductForm::AlongBoth, 1, 64, 64, Format::F32);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kernels.json");
        let chooser = MeasuredTiles::new(Entry::new(&gpu), Some(file.clone()));
        chooser.state.lock().unwrap().spent = 2 * LONGEST;
        assert_eq!(chooser.choose(&gpu, &class), None);
        assert!(!file.exists());
        assert_eq!(gpu.counts().pipelines, 0);
    }

    #[test]
    fn products_are_measured_at_a_size_that_fits_every_gpu() {
        for form in [ProductForm::AlongBoth, ProductForm::AlongLeft, ProductForm::AlongNeither] {
            let class = ProductClass::new(form, 1 << 20, 1 << 20, 1 << 20, Format::F32);
            let [rows, cols, inner] = measured_extents(&class);
            let most = [rows * cols, rows * inner, cols * inner].into_iter().max().unwrap();
            assert!(most <= MOST_ELEMENTS as usize, "{rows} x {cols}, sums of {inner}");
        }
    }
}
