//! The tiles for a CPU, which depend on its registers and caches rather than on the shapes of products.

use std::time::{Duration, Instant};

use super::products::{product_case, seconds};
use crate::Wait;
use crate::error::Result;
use crate::gpu::{Candidates, Format, Gpu, ProductForm, Products, Tuning, UnrolledTile, UnrolledTiles};
use crate::ops::Case;

/// A candidate is skipped if it would end after this time, assuming the duration of the one before: a CPU takes up to a
/// second to compile a tile.
const LONGEST: Duration = Duration::from_millis(600);
/// How long a candidate is timed.
const TIMED_FOR: Duration = Duration::from_millis(5);

/// Returns the fastest correct tile of each kind, and the tiles with wrong results.
pub(super) fn choose(gpu: &Gpu, untuned: UnrolledTiles) -> Result<(UnrolledTiles, Vec<UnrolledTile>)> {
    let started = Instant::now();
    let mut chosen_tiles = untuned;
    let all = Candidates::unrolled(gpu.subgroup());
    let mut wrong = Vec::new();
    type Choose = fn(&mut UnrolledTiles, UnrolledTile);
    let mut best = |tiles: &[UnrolledTile], choose: Choose, case: &Case| -> Result<()> {
        let mut fastest = f64::INFINITY;
        let mut chosen = None;
        let mut last = Duration::ZERO;
        for tile in tiles {
            // At least one correct tile is taken, even after the time is up.
            let begun = started.elapsed();
            if chosen.is_some() && begun + last > LONGEST {
                break;
            }
            let mut candidate = chosen_tiles;
            choose(&mut candidate, *tile);
            let gpu = gpu.with_tuning(Tuning { products: Products::Unrolled(candidate), ..gpu.tuning() });
            let right = case.check(&gpu).wait().is_ok_and(|report| report.passed());
            // If the device is lost, the failure does not show that the tile is wrong.
            gpu.idle().wait()?;
            if !right {
                wrong.push(*tile);
                continue;
            }
            let seconds = seconds(&gpu, case, TIMED_FOR)?;
            if seconds < fastest {
                (fastest, chosen) = (seconds, Some(*tile));
            }
            last = started.elapsed() - begun;
        }
        if let Some(tile) = chosen {
            choose(&mut chosen_tiles, tile);
        }
        Ok(())
    };
    let of = |form, rows, cols, inner| product_case(form, rows, cols, inner, Format::F32);
    best(&all.rows, |t, tile| t.rows = tile, &of(ProductForm::AlongBoth, 256, 128, 128))?;
    best(&all.columns, |t, tile| t.columns = tile, &of(ProductForm::AlongNeither, 128, 128, 256))?;
    best(&all.few_rows, |t, tile| t.few_rows = tile, &of(ProductForm::AlongBoth, 8, 512, 256))?;
    Ok((chosen_tiles, wrong))
}
