//! The tiles for a GPU, which go by what is multiplied: measured where a recording first meets products of a class.

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

/// All measuring of a process takes no longer; what comes later goes by its shape.
const LONGEST: Duration = Duration::from_secs(5);
/// What a candidate is timed for.
const TIMED_FOR: Duration = Duration::from_millis(5);
/// Elements of an operand or a result that is measured with; larger ones are cut.
const MOST_ELEMENTS: u32 = 1 << 24;

/// Measures candidates, and keeps what it found.
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
    /// Goes on from what is known of the device, and keeps the rest in this file.
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
        // What the device has against measuring it will say again when it runs.
        let fastest = state.fastest(gpu, class).ok().flatten();
        state.spent += started.elapsed();
        let tile = fastest?;
        if let Products::Staged(known) = &mut state.known.tuning.products {
            known.choose(*class, tile);
        }
        if let Some(file) = &self.file {
            // That it cannot be written was said when the device was opened.
            let _ = state.known.write(file);
        }
        Some(tile)
    }
}

impl State {
    /// The fastest tile that is right, of those for which there is time.
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

    /// Whether a tile's results are [`crate::reference`]'s.
    fn is_right(&mut self, gpu: &Gpu, class: &ProductClass, tile: ProductTile) -> Result<bool> {
        let ProductClass { form, format, .. } = *class;
        if let Some(right) = self.checked.get(&(form, format, tile)) {
            return Ok(*right);
        }
        let right = checked_case(class).check(gpu).wait().is_ok_and(|report| report.passed());
        // A lost device is no tile's mistake.
        gpu.idle().wait()?;
        if !right {
            self.known.wrong.push(format!("{tile} for {class}"));
        }
        self.checked.insert((form, format, tile), right);
        Ok(right)
    }
}

/// Products of a class as they are measured.
fn measured_case(class: &ProductClass) -> Case {
    let [rows, cols, inner] = measured_extents(class);
    product_case(class.form, rows, cols, inner, class.format)
}

/// Rows and columns of the results, and elements of a sum, such that neither they nor an operand is too large.
fn measured_extents(class: &ProductClass) -> [usize; 3] {
    let ProductClass { rows, cols, inner, .. } = *class;
    let rows = rows.min(MOST_ELEMENTS / inner);
    [rows, cols.min(MOST_ELEMENTS / inner.max(rows)), inner].map(|n| n as usize)
}

/// Smaller ones, with parts of tiles at every end, that [`crate::reference`] computes in milliseconds.
fn checked_case(class: &ProductClass) -> Case {
    let ProductClass { form, rows, cols, inner, format } = *class;
    let [rows, mut cols, mut inner] =
        [(rows, 148), (cols, 140), (inner, 300)].map(|(n, most)| n.min(most) as usize);
    // What lies along the rows of the right operand.
    let along_row = if form == ProductForm::AlongBoth { &mut inner } else { &mut cols };
    *along_row = along_row.next_multiple_of(format.row_unit());
    product_case(form, rows, cols, inner, format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceKind, GpuOptions, StagedTile};

    fn gpu() -> Option<Gpu> {
        let Ok(gpu) = Gpu::open(&GpuOptions::default()).wait() else {
            assert!(std::env::var("REQUIRE_GPU").is_err(), "no GPU");
            return None;
        };
        Some(gpu.with_tuning(Tuning::untuned(None, DeviceKind::Gpu)))
    }

    #[test]
    fn a_tile_whose_results_are_wrong_is_never_chosen_and_named() {
        let Some(gpu) = gpu() else { return };
        let class = ProductClass::new(ProductForm::AlongNeither, 64, 64, 64, Format::F32);
        let chooser = MeasuredTiles::new(Entry::new(&gpu), None);
        let others = class.candidates().into_iter().filter(|t| *t != ProductTile::Staged(StagedTile::SMALL));
        let wrong = others.map(|tile| ((class.form, class.format, tile), false));
        chooser.state.lock().unwrap().checked.extend(wrong);
        assert_eq!(chooser.choose(&gpu, &class), Some(ProductTile::Staged(StagedTile::SMALL)));
        // One that the device cannot compute.
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
    fn what_there_is_no_time_to_measure_goes_by_its_shape() {
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
