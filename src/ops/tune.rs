//! Choosing the kernels' shapes by measurement, once for each adapter and driver.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::case::{Case, Input};
use super::linear;
use crate::error::Result;
use crate::files;
use crate::gpu::{Arithmetic, Format, Gpu, PlanOptions, Recorder, Tensor, Tile, Tuning};
use crate::reference;

/// What became of [`tune`].
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// Why the cache was not used, where there was one; or that the arithmetic which was asked for is not.
    pub warning: Option<String>,
    /// Tiles whose results were wrong: they are never used.
    pub wrong: Vec<Tile>,
    /// Arithmetic whose results were wrong: it is not used either.
    pub wrong_arithmetic: Vec<Arithmetic>,
}

impl Tuned {
    /// Says so where the only arithmetic that there was to choose, because it was asked for, is wrong.
    fn of(gpu: &Gpu, wrong: Vec<Tile>, wrong_arithmetic: Vec<Arithmetic>, warning: Option<String>) -> Tuned {
        let refused = gpu.arithmetics().iter().all(|a| wrong_arithmetic.contains(a));
        let warning = warning.or(refused.then(|| {
            format!("the results of {} are wrong on this adapter: f32 is used instead", gpu.arithmetics()[0])
        }));
        Tuned { warning, wrong, wrong_arithmetic }
    }
}

/// A choice and what it was made for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    version: String,
    adapter: String,
    backend: String,
    driver: String,
    subgroup: Option<u32>,
    arithmetics: Vec<Arithmetic>,
    tuning: Tuning,
    wrong: Vec<Tile>,
    wrong_arithmetic: Vec<Arithmetic>,
}

/// Candidates that were not reached by then stay untried.
const LONGEST: Duration = Duration::from_millis(900);

/// Sets the kernels' shapes to the fastest ones here, as far as a second of trying tells; each must agree with
/// [`reference`] before it counts. In `cache`, a folder, the choice is kept for the next time on this adapter, driver and
/// version.
///
/// # Errors
/// What the engine reports. A cache that cannot be read or written is no error, see [`Tuned::warning`].
pub fn tune(gpu: &Gpu, cache: Option<&Path>) -> Result<Tuned> {
    if gpu.is_measuring() {
        return Ok(Tuned::default());
    }
    let key = entry(gpu, gpu.tuning(), Vec::new(), Vec::new());
    let file = cache.map(|dir| dir.join(format!("tuning-{}.json", file_name(&key))));
    let mut warning = None;
    if let Some(file) = file.as_deref().filter(|f| f.exists()) {
        match read(file, &key) {
            Ok(known) => {
                gpu.set_tuning(known.tuning);
                return Ok(Tuned::of(gpu, known.wrong, known.wrong_arithmetic, None));
            }
            Err(why) => warning = Some(format!("{} {why}: tuning again", file.display())),
        }
    }
    let started = Instant::now();
    let (tuning, wrong) = measure(gpu, started)?;
    gpu.set_tuning(tuning);
    let wrong_arithmetic = choose_arithmetic(gpu, gpu.arithmetics(), started)?;
    if let Some(file) = &file {
        let entry = entry(gpu, gpu.tuning(), wrong.clone(), wrong_arithmetic.clone());
        let text = serde_json::to_vec_pretty(&entry).expect("plain data");
        let written = files::create_dir_all(file.parent().expect("a file in a folder"))
            .and_then(|()| files::write_atomic(file, &text));
        if let Err(e) = written {
            warning = Some(format!("the kernels' shapes are not kept for the next time: {e}"));
        }
    }
    Ok(Tuned::of(gpu, wrong, wrong_arithmetic, warning))
}

/// Without any tuning: makes sure that arithmetic which was asked for agrees with [`reference`], or f32 is used.
///
/// # Errors
/// What the engine reports.
pub fn check_arithmetic(gpu: &Gpu) -> Result<Tuned> {
    let asked_for = gpu.tuning().arithmetic;
    if gpu.is_measuring() || agrees(gpu, asked_for) {
        return Ok(Tuned::default());
    }
    gpu.wait()?;
    use_arithmetic(gpu, Arithmetic::F32);
    Ok(Tuned::of(gpu, Vec::new(), vec![asked_for], None))
}

fn entry(gpu: &Gpu, tuning: Tuning, wrong: Vec<Tile>, wrong_arithmetic: Vec<Arithmetic>) -> Entry {
    let summary = gpu.summary();
    Entry {
        version: env!("CARGO_PKG_VERSION").into(),
        adapter: summary.name.clone(),
        backend: summary.backend.clone(),
        driver: summary.driver.clone(),
        subgroup: gpu.subgroup(),
        arithmetics: gpu.arithmetics().to_vec(),
        tuning,
        wrong,
        wrong_arithmetic,
    }
}

/// One file an adapter, backend and tier: whatever its driver or our version.
fn file_name(key: &Entry) -> String {
    let arithmetics: Vec<String> = key.arithmetics.iter().map(Arithmetic::to_string).collect();
    let subgroup = key.subgroup.unwrap_or(0);
    let text = format!("{} {} {subgroup} {}", key.adapter, key.backend, arithmetics.join(" "));
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn read(file: &Path, key: &Entry) -> Result<Entry, String> {
    let bytes = std::fs::read(file).map_err(|e| format!("cannot be read ({e})"))?;
    let known: Entry = serde_json::from_slice(&bytes).map_err(|_| "is broken".to_owned())?;
    if (&known.version, &known.driver) != (&key.version, &key.driver) {
        return Err(format!("is for version {} and driver {}", known.version, known.driver));
    }
    let all = Tuning::candidates(key.subgroup);
    let Tuning { few_rows, rows, columns, arithmetic } = known.tuning;
    if !all.few_rows.contains(&few_rows) || !all.rows.contains(&rows) || !all.columns.contains(&columns) {
        return Err("names shapes that this version does not have".into());
    }
    // What was wrong may have left f32 alone.
    let refused = |a: &Arithmetic| known.wrong_arithmetic.contains(a);
    let right: Vec<&Arithmetic> = key.arithmetics.iter().filter(|a| !refused(a)).collect();
    let chosen = right.contains(&&arithmetic) || right.is_empty() && arithmetic == Arithmetic::F32;
    match known.arithmetics == key.arithmetics && chosen {
        true => Ok(known),
        false => Err(format!("chooses {arithmetic}, which is not to be had here")),
    }
}

fn use_arithmetic(gpu: &Gpu, arithmetic: Arithmetic) {
    gpu.set_tuning(Tuning { arithmetic, ..gpu.tuning() });
}

/// Whether products in this arithmetic agree with [`reference`], of a few large rows and of many. A driver that cannot even
/// compile them is one more that is wrong.
fn agrees(gpu: &Gpu, arithmetic: Arithmetic) -> bool {
    use_arithmetic(gpu, arithmetic);
    let right = |case: Case| case.check(gpu).is_ok_and(|report| report.passed());
    // In f32 the tiles have been checked.
    arithmetic == Arithmetic::F32
        || right(half_product(8, 132, 92, 1e6)) && right(half_product(131, 132, 92, 1.0))
}

/// How much less time f16 must take than f32 to be worth its rounding.
const CLEARLY: f64 = 0.9;

/// Sets the first arithmetic that is right, or a later one that is right and clearly faster; returns what is wrong.
fn choose_arithmetic(gpu: &Gpu, all: &[Arithmetic], started: Instant) -> Result<Vec<Arithmetic>> {
    let mut wrong = Vec::new();
    let mut chosen: Option<(Arithmetic, f64)> = None;
    for arithmetic in all {
        if chosen.is_some() && started.elapsed() > LONGEST {
            break;
        }
        if !agrees(gpu, *arithmetic) {
            // Unless the device was lost.
            gpu.wait()?;
            wrong.push(*arithmetic);
            continue;
        }
        let seconds = if all.len() > 1 { time(gpu, &half_product(256, 1024, 1024, 1.0))? } else { 0.0 };
        if chosen.is_none_or(|(_, fastest)| seconds < CLEARLY * fastest) {
            chosen = Some((*arithmetic, seconds));
        }
    }
    use_arithmetic(gpu, chosen.map_or(Arithmetic::F32, |(arithmetic, _)| arithmetic));
    Ok(wrong)
}

/// The fastest of each kind that is right, and what was wrong.
fn measure(gpu: &Gpu, started: Instant) -> Result<(Tuning, Vec<Tile>)> {
    let mut tuning = gpu.tuning();
    let all = Tuning::candidates(gpu.subgroup());
    let mut wrong = Vec::new();
    let mut best = |tiles: &[Tile], choose: fn(&mut Tuning, Tile), case: &Case| -> Result<()> {
        let mut fastest = f64::INFINITY;
        let mut chosen = None;
        for tile in tiles {
            // The first is taken unmeasured where the time is up; a wrong one never.
            if chosen.is_some() && started.elapsed() > LONGEST {
                break;
            }
            let mut candidate = tuning;
            choose(&mut candidate, *tile);
            gpu.set_tuning(candidate);
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
            choose(&mut tuning, tile);
        }
        Ok(())
    };
    best(&all.rows, |t, tile| t.rows = tile, &product(256, 128, 128))?;
    best(&all.columns, |t, tile| t.columns = tile, &columns(256, 128, 128))?;
    best(&all.few_rows, |t, tile| t.few_rows = tile, &product(8, 256, 512))?;
    Ok((tuning, wrong))
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

fn product(n: usize, i: usize, o: usize) -> Case {
    Case::new(
        "product",
        format!("N {n} I {i} O {o}"),
        vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0)],
        |r: &mut Recorder, t: &[Tensor]| Ok(vec![linear::linear(r, t[0], &t[1].into(), None, None)?]),
        move |v| vec![reference::linear_forward(&v[0], &v[1], n, i, o)],
    )
}

/// As [`product`], with a frozen f16 matrix; x is of this scale.
fn half_product(n: usize, i: usize, o: usize, scale: f32) -> Case {
    let mut case = product(n, i, o);
    case.inputs = vec![Input::normal(1, n, i, scale), Input::normal(2, o, i, 1.0).stored(Format::F16)];
    case
}

fn columns(n: usize, i: usize, o: usize) -> Case {
    Case::new(
        "product_backward",
        format!("N {n} I {i} O {o}"),
        vec![Input::normal(1, n, i, 1.0), Input::normal(2, o, i, 1.0).watched(), Input::normal(3, n, o, 1.0)],
        |r: &mut Recorder, t: &[Tensor]| {
            let y = linear::linear(r, t[0], &t[1].into(), None, None)?;
            r.backward(&[(y, t[2])])?;
            Ok(vec![r.gradient(t[1]).expect("watched")])
        },
        move |v| vec![reference::linear_backward_weight(&v[2], &v[0], n, i, o)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{GpuOptions, Sharing, Tier};

    #[test]
    fn a_choice_is_kept_and_a_cache_of_another_driver_or_a_broken_one_is_rebuilt() {
        let Ok(gpu) = Gpu::open(&GpuOptions::default()) else {
            assert!(std::env::var("REQUIRE_GPU").is_err(), "no adapter");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("new");
        let first = tune(&gpu, Some(&cache)).unwrap();
        assert!(first.warning.is_none() && first.wrong.is_empty(), "{first:?}");
        let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        // A choice that no measurement would make shows that it is read.
        let mut known: Entry = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let staged = Tuning::candidates(gpu.subgroup());
        known.tuning.rows = *staged.rows.iter().find(|t| t.sharing == Sharing::Workgroup).unwrap();
        let write = |entry: &Entry| std::fs::write(&file, serde_json::to_vec(entry).unwrap()).unwrap();
        write(&known);
        assert!(tune(&gpu, Some(&cache)).unwrap().warning.is_none());
        assert_eq!(gpu.tuning(), known.tuning);
        let [size, lanes] = [4, 4];
        let foreign = Tuning { arithmetic: Arithmetic::Cooperative { size, lanes }, ..known.tuning };
        write(&entry(&gpu, foreign, Vec::new(), Vec::new()));
        assert!(
            tune(&gpu, Some(&cache)).unwrap().warning.unwrap().contains("not to be had here: tuning again")
        );
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
    fn arithmetic_that_is_slower_or_that_the_driver_refuses_is_not_chosen() {
        let Ok(gpu) = Gpu::open(&GpuOptions { tier: Some(Tier::Half), ..GpuOptions::default() }) else {
            return eprintln!("SKIPPED: no adapter with f16");
        };
        assert_eq!((gpu.arithmetics(), gpu.tier()), (&[Arithmetic::F16][..], Tier::Half));
        let choose = |all: &[Arithmetic]| {
            let wrong = choose_arithmetic(&gpu, all, Instant::now()).unwrap();
            (gpu.tuning().arithmetic, wrong)
        };
        assert_eq!(choose(&[Arithmetic::F16]), (Arithmetic::F16, vec![]));
        // The device was opened without them.
        let (size, lanes) = (8, 8);
        let refused = Arithmetic::Cooperative { size, lanes };
        assert_eq!(choose(&[refused]), (Arithmetic::F32, vec![refused]));
        assert_eq!(choose(&[refused, Arithmetic::F16]), (Arithmetic::F16, vec![refused]));
        let (chosen, wrong) = choose(&[Arithmetic::F32, Arithmetic::F16]);
        assert!(wrong.is_empty());
        let seconds = [Arithmetic::F32, Arithmetic::F16].map(|arithmetic| {
            use_arithmetic(&gpu, arithmetic);
            time(&gpu, &half_product(256, 1024, 1024, 1.0)).unwrap()
        });
        println!("f32 {:.1} ms, f16 {:.1} ms: {chosen}", seconds[0] * 1e3, seconds[1] * 1e3);
    }
}
