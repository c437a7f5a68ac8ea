//! The tiles for a processor, which go by its registers and caches rather than by the products' shapes.

use std::time::{Duration, Instant};

use super::products::{product_case, seconds};
use crate::Wait;
use crate::error::Result;
use crate::gpu::{Candidates, Format, Gpu, ProductForm, Products, Tuning, UnrolledTile, UnrolledTiles};
use crate::ops::Case;

/// Candidates that would not be through by then, if they took as long as the one before, stay untried: a processor compiles a
/// tile for up to a second.
const LONGEST: Duration = Duration::from_millis(600);
/// What a candidate is timed for.
const TIMED_FOR: Duration = Duration::from_millis(5);

/// The fastest of each kind that is right, and what was wrong.
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
            // The first is taken unmeasured where the time is up; a wrong one never.
            let begun = started.elapsed();
            if chosen.is_some() && begun + last > LONGEST {
                break;
            }
            let mut candidate = chosen_tiles;
            choose(&mut candidate, *tile);
            let gpu = gpu.with_tuning(Tuning { products: Products::Unrolled(candidate), ..gpu.tuning() });
            if !case.check(&gpu).wait()?.passed() {
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
