//! Choosing the kernels' variants by measurement, once for each GPU and driver.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files;
use crate::gpu::{
    Candidates, DeviceKind, Gpu, PlanOptions, Products, Recorder, StagedTile, Tensor, Tuning, UnrolledTile,
    UnrolledTiles,
};
use crate::ops::{Case, Input, for_first_start, linear};
use crate::reference;

/// What became of [`tune`].
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// Why the cache was not used, where there was one.
    pub warning: Option<String>,
    /// Tiles whose results were wrong: they are never used.
    pub wrong: Vec<UnrolledTile>,
    /// The case that came out wrong with the kernels for GPUs, for which reason those for processors are used.
    pub wrong_on_gpu: Option<String>,
}

/// A choice and what it was made for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    version: String,
    gpu: String,
    backend: String,
    driver: String,
    subgroup: Option<u32>,
    tuning: Tuning,
    wrong: Vec<UnrolledTile>,
    wrong_on_gpu: Option<String>,
}

/// Candidates that were not reached by then stay untried.
const LONGEST: Duration = Duration::from_millis(900);

/// Sets the kernels' variants to ones that are right here: on a GPU, those for processors instead where one for GPUs
/// disagrees with [`reference`]; on a processor, the tiles that are fastest as far as a second of trying tells. In `cache`, a
/// folder, the choice is kept for the next time on this device, driver and version.
///
/// # Errors
/// What the engine reports. A cache that cannot be read or written is no error, see [`Tuned::warning`].
pub fn tune(gpu: &Gpu, cache: Option<&Path>) -> Result<Tuned> {
    tune_by(gpu, cache, for_first_start)
}

/// [`tune`] with other cases that the kernels for GPUs have to pass.
fn tune_by(gpu: &Gpu, cache: Option<&Path>, first_start: impl FnOnce() -> Vec<Case>) -> Result<Tuned> {
    if gpu.is_measuring() {
        return Ok(Tuned::default());
    }
    let mut key = entry(gpu);
    let file = cache.map(|dir| dir.join(format!("kernels-{}.json", file_name(&key))));
    let mut warning = None;
    if let Some(file) = file.as_deref().filter(|f| f.exists()) {
        match read(file, &key) {
            Ok(Entry { tuning, wrong, wrong_on_gpu, .. }) => {
                gpu.set_tuning(tuning);
                return Ok(Tuned { warning: None, wrong, wrong_on_gpu });
            }
            Err(why) => warning = Some(format!("{} {why}: tuning again", file.display())),
        }
    }
    if let Products::Staged(_) = gpu.tuning().products {
        key.wrong_on_gpu = first_wrong(gpu, &first_start())?;
        if key.wrong_on_gpu.is_some() {
            gpu.set_tuning(Tuning::untuned(None, DeviceKind::Processor));
        }
    }
    if let Products::Unrolled(untuned) = gpu.tuning().products {
        let tiles;
        (tiles, key.wrong) = measure(gpu, untuned)?;
        set(gpu, tiles);
    }
    key.tuning = gpu.tuning();
    if let Some(file) = &file {
        let text = serde_json::to_vec_pretty(&key).expect("plain data");
        let written = files::create_dir_all(file.parent().expect("a file in a folder"))
            .and_then(|()| files::write_atomic(file, &text));
        if let Err(e) = written {
            warning = Some(format!("the kernels' variants are not kept for the next time: {e}"));
        }
    }
    Ok(Tuned { warning, wrong: key.wrong, wrong_on_gpu: key.wrong_on_gpu })
}

/// The first case that disagrees with [`reference`], or that the driver cannot compile.
fn first_wrong(gpu: &Gpu, cases: &[Case]) -> Result<Option<String>> {
    let wrong = cases.iter().find(|case| !case.check(gpu).is_ok_and(|report| report.passed()));
    // A lost device is nobody's mistake here.
    gpu.wait()?;
    Ok(wrong.map(|case| format!("{} {}", case.kernel, case.shape)))
}

fn set(gpu: &Gpu, tiles: UnrolledTiles) {
    gpu.set_tuning(Tuning { products: Products::Unrolled(tiles), ..gpu.tuning() });
}

fn entry(gpu: &Gpu) -> Entry {
    let summary = gpu.summary();
    Entry {
        version: env!("CARGO_PKG_VERSION").into(),
        gpu: summary.name.clone(),
        backend: summary.backend.clone(),
        driver: summary.driver.clone(),
        subgroup: gpu.subgroup(),
        tuning: gpu.tuning(),
        wrong: Vec::new(),
        wrong_on_gpu: None,
    }
}

/// One file a GPU, backend and tier: whatever its driver or our version.
fn file_name(key: &Entry) -> String {
    let text = format!("{} {} {}", key.gpu, key.backend, key.subgroup.unwrap_or(0));
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn read(file: &Path, key: &Entry) -> Result<Entry, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot be read ({e})"))?;
    let known: Entry = serde_json::from_slice(&bytes).map_err(|_| "is broken".to_owned())?;
    if (&known.version, &known.driver) != (&key.version, &key.driver) {
        return Err(format!("is for version {} and driver {}", known.version, known.driver));
    }
    let exists = match known.tuning.products {
        Products::Unrolled(UnrolledTiles { few_rows, rows, columns }) => {
            let all = Candidates::unrolled(key.subgroup);
            all.few_rows.contains(&few_rows) && all.rows.contains(&rows) && all.columns.contains(&columns)
        }
        Products::Staged(tile) => tile.is_none_or(|tile| StagedTile::ALL.contains(&tile)),
    };
    match exists {
        true => Ok(known),
        false => Err("names variants that this version does not have".into()),
    }
}

/// The fastest of each kind that is right, and what was wrong.
fn measure(gpu: &Gpu, untuned: UnrolledTiles) -> Result<(UnrolledTiles, Vec<UnrolledTile>)> {
    let started = Instant::now();
    let mut chosen_tiles = untuned;
    let all = Candidates::unrolled(gpu.subgroup());
    let mut wrong = Vec::new();
    type Choose = fn(&mut UnrolledTiles, UnrolledTile);
    let mut best = |tiles: &[UnrolledTile], choose: Choose, case: &Case| -> Result<()> {
        let mut fastest = f64::INFINITY;
        let mut chosen = None;
        for tile in tiles {
            // The first is taken unmeasured where the time is up; a wrong one never.
            if chosen.is_some() && started.elapsed() > LONGEST {
                break;
            }
            let mut candidate = chosen_tiles;
            choose(&mut candidate, *tile);
            set(gpu, candidate);
            if !case.check(gpu)?.passed() {
                wrong.push(*tile);
                continue;
            }
            let seconds = time(gpu, case)?;
            if seconds < fastest {
                (fastest, chosen) = (seconds, Some(*tile));
            }
        }
        if let Some(tile) = chosen {
            choose(&mut chosen_tiles, tile);
        }
        Ok(())
    };
    best(&all.rows, |t, tile| t.rows = tile, &product(256, 128, 128))?;
    best(&all.columns, |t, tile| t.columns = tile, &columns(256, 128, 128))?;
    best(&all.few_rows, |t, tile| t.few_rows = tile, &product(8, 256, 512))?;
    Ok((chosen_tiles, wrong))
}

/// Seconds of a launch, the fastest of a few, of which enough are submitted together to count.
fn time(gpu: &Gpu, case: &Case) -> Result<f64> {
    const TOGETHER: u32 = 4;
    let (plan, _, live) = case.plan(gpu, PlanOptions::default())?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        plan.submit(&live, TOGETHER)?.wait()?;
        best = best.min(started.elapsed().as_secs_f64() / TOGETHER as f64);
    }
    Ok(best)
}

pub(super) fn product(n: usize, i: usize, o: usize) -> Case {
    Case::new(
        "product",
        format!("N {n} I {i} O {o}"),
        vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0)],
        |r: &mut Recorder, t: &[Tensor]| Ok(vec![linear(r, t[0], &t[1].into(), None)?]),
        move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
    )
}

fn columns(n: usize, i: usize, o: usize) -> Case {
    Case::new(
        "product_backward",
        format!("N {n} I {i} O {o}"),
        vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0).watched(), Input::normal(3, n, o, 1.0)],
        |r: &mut Recorder, t: &[Tensor]| {
            let y = linear(r, t[0], &t[1].into(), None)?;
            r.backward(&[(y, t[2])])?;
            Ok(vec![r.gradient(t[1]).expect("watched")])
        },
        move |v| vec![reference::linear_backward_weight(&v[2], &v[0], n, i, o)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::GpuOptions;

    #[test]
    fn a_choice_is_kept_and_a_cache_of_another_driver_or_a_broken_one_is_rebuilt() {
        let Ok(gpu) = Gpu::open(&GpuOptions::default()) else {
            assert!(std::env::var("REQUIRE_GPU").is_err(), "no GPU");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("new");
        let first = tune(&gpu, Some(&cache)).unwrap();
        assert!(first.warning.is_none() && first.wrong.is_empty(), "{first:?}");
        let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        // A choice that no measurement would make shows that it is read.
        let mut known: Entry = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        known.tuning.products = Products::Staged(Some(StagedTile::SMALL));
        let write = |entry: &Entry| std::fs::write(&file, serde_json::to_vec(entry).unwrap()).unwrap();
        write(&known);
        assert!(tune(&gpu, Some(&cache)).unwrap().warning.is_none());
        assert_eq!(gpu.tuning(), known.tuning);
        known.driver = "another".into();
        write(&known);
        let again = tune(&gpu, Some(&cache)).unwrap();
        assert!(again.warning.unwrap().contains("driver another: tuning again"));
        std::fs::write(&file, "{").unwrap();
        let again = tune(&gpu, Some(&cache)).unwrap();
        assert!(again.warning.unwrap().contains("is broken: tuning again"));
        assert!(tune(&gpu, Some(&cache)).unwrap().warning.is_none());
    }

    #[test]
    fn a_gpu_on_which_kernels_are_wrong_gets_those_for_processors_now_and_the_next_time() {
        let Ok(gpu) = Gpu::open(&GpuOptions::default()) else {
            assert!(std::env::var("REQUIRE_GPU").is_err(), "no GPU");
            return;
        };
        let for_gpus = Tuning::untuned(None, DeviceKind::Gpu);
        let tuned = |cache: Option<&Path>, cases: Vec<Case>| {
            gpu.set_tuning(for_gpus);
            tune_by(&gpu, cache, || cases).unwrap()
        };
        let cases = for_first_start;
        assert!(cases().len() >= 4, "products both ways and attention both ways");
        assert_eq!(tuned(None, cases()).wrong_on_gpu, None);
        assert_eq!(gpu.tuning(), for_gpus);
        // The second case comes out wrong.
        let mut with_mistake = cases();
        let wrong = format!("{} {}", with_mistake[1].kernel, with_mistake[1].shape);
        let right = std::mem::replace(&mut with_mistake[1].expected, Box::new(|_| Vec::new()));
        with_mistake[1].expected =
            Box::new(move |v| right(v).iter().map(|want| want.iter().map(|x| x + 1.0).collect()).collect());
        let dir = tempfile::tempdir().unwrap();
        let after = tuned(Some(dir.path()), with_mistake);
        assert_eq!(after.wrong_on_gpu.as_ref(), Some(&wrong));
        assert_eq!((gpu.tuning().kind(), gpu.tuning().tiled_attention), (DeviceKind::Processor, false));
        let chosen = gpu.tuning();
        let again = tuned(Some(dir.path()), cases());
        assert_eq!((again.wrong_on_gpu, gpu.tuning()), (Some(wrong), chosen), "of the cache");
    }
}
