//! Chooses the kernel variants by measurement, once for each GPU and driver.

use std::path::Path;

use super::cache::Entry;
use super::staged::MeasuredTiles;
use super::unrolled;
use crate::Wait;
use crate::error::Result;
use crate::gpu::{DeviceKind, Gpu, Products, Tuning};
use crate::ops::{Case, for_first_start};

/// The result of [`tune`].
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// Why the cache was not used or not written, if that is so.
    pub warning: Option<String>,
    /// Tiles with wrong results, as text: they are never used.
    pub wrong: Vec<String>,
    /// The case for which the kernels for GPUs gave wrong results, so that those for CPUs are used.
    pub wrong_on_gpu: Option<String>,
}

/// Sets kernel variants that give correct results on this device. On a CPU, takes the fastest tiles of products found
/// in about half a second. On a GPU, the tiles are measured later, when a recording first has products of a class, for
/// at most five seconds in all; if a kernel for GPUs disagrees with [`crate::reference`], those for CPUs are used
/// instead. The choices are saved in the folder `cache`, for this device, driver and version.
///
/// # Errors
/// Errors of the engine. A cache that cannot be read or written is not an error, see [`Tuned::warning`].
pub fn tune(gpu: &Gpu, cache: Option<&Path>) -> Result<Tuned> {
    tune_by(gpu, cache, for_first_start)
}

/// [`tune`] with other cases that the kernels for GPUs must pass.
fn tune_by(gpu: &Gpu, cache: Option<&Path>, first_start: impl FnOnce() -> Vec<Case>) -> Result<Tuned> {
    if gpu.is_measuring() {
        return Ok(Tuned::default());
    }
    let mut entry = Entry::new(gpu);
    let file = cache.map(|folder| entry.file_in(folder));
    let mut warning = None;
    let mut known = match file.as_deref().filter(|file| file.exists()) {
        None => None,
        Some(file) => match entry.read(file) {
            Ok(known) => Some(known),
            Err(why) => {
                warning = Some(format!("{} {why}: tuning again", file.display()));
                None
            }
        },
    };
    if known.is_none() {
        choose(gpu, &mut entry, first_start)?;
        // Another process may have chosen in the meantime. Its choice is used, so that the results of both agree, unless
        // kernels were found wrong here.
        let all_right = entry.wrong.is_empty() && entry.wrong_on_gpu.is_none();
        known = file.as_deref().filter(|_| all_right).and_then(|file| entry.read(file).ok());
        if known.is_none()
            && let Some(Err(why)) = file.as_ref().map(|file| entry.write(file))
        {
            warning = Some(why);
        }
    }
    if let Some(known) = known {
        gpu.set_tuning(known.tuning.clone());
        entry = known;
    }
    let Entry { wrong, wrong_on_gpu, .. } = entry.clone();
    if let Products::Staged(_) = gpu.tuning().products {
        gpu.choose_tiles_by(Box::new(MeasuredTiles::new(entry, file)));
    }
    Ok(Tuned { warning, wrong, wrong_on_gpu })
}

/// Chooses for a device that has no entry yet.
fn choose(gpu: &Gpu, entry: &mut Entry, first_start: impl FnOnce() -> Vec<Case>) -> Result<()> {
    if let Products::Staged(_) = gpu.tuning().products {
        entry.wrong_on_gpu = first_wrong(gpu, &first_start())?;
        if entry.wrong_on_gpu.is_some() {
            gpu.set_tuning(Tuning::untuned(None, DeviceKind::Processor));
        }
    }
    if let Products::Unrolled(untuned) = gpu.tuning().products {
        let (tiles, wrong) = unrolled::choose(gpu, untuned)?;
        entry.wrong = wrong.iter().map(ToString::to_string).collect();
        gpu.set_tuning(Tuning { products: Products::Unrolled(tiles), ..gpu.tuning() });
    }
    entry.tuning = gpu.tuning();
    Ok(())
}

/// Returns the first case that disagrees with [`crate::reference`], or that the driver cannot compile.
fn first_wrong(gpu: &Gpu, cases: &[Case]) -> Result<Option<String>> {
    let wrong = cases.iter().find(|case| !case.check(gpu).wait().is_ok_and(|report| report.passed()));
    // If the device is lost, the failure does not show that the kernel is wrong.
    gpu.idle().wait()?;
    Ok(wrong.map(|case| format!("{} {}", case.kernel, case.shape)))
}

#[cfg(test)]
mod tests {
    use super::super::products::product_case;
    use super::*;
    use crate::gpu::{ChosenTile, Format, ProductClass, ProductForm, ProductTile};
    use crate::gpu::{StagedProducts, StagedTile, testing};

    #[test]
    fn choices_are_cached_and_a_broken_cache_or_one_of_another_driver_is_rebuilt() {
        let Some(gpu) = testing::gpu() else { return };
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("new");
        let first = tune(&gpu, Some(&cache)).unwrap();
        assert!(first.warning.is_none() && first.wrong.is_empty(), "{first:?}");
        let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        // A choice that measuring would not make shows that the file is read.
        let mut known: Entry = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        known.tuning.fused_blocks = false;
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
    fn processes_that_choose_at_the_same_time_use_the_same_kernels() {
        let Some(gpu) = testing::gpu() else { return };
        let dir = tempfile::tempdir().unwrap();
        gpu.set_tuning(Tuning::untuned(None, DeviceKind::Gpu));
        let mut other = Entry::new(&gpu);
        other.tuning.fused_blocks = !other.tuning.fused_blocks;
        let the_other_is_faster = || {
            other.write(&other.file_in(dir.path())).unwrap();
            Vec::new()
        };
        tune_by(&gpu, Some(dir.path()), the_other_is_faster).unwrap();
        assert_eq!(gpu.tuning(), other.tuning);
    }

    #[test]
    fn a_gpu_with_wrong_results_uses_the_kernels_for_cpus_now_and_the_next_time() {
        let Some(gpu) = testing::gpu() else { return };
        let for_gpus = Tuning::untuned(None, DeviceKind::Gpu);
        let tuned = |cache: Option<&Path>, cases: Vec<Case>| {
            gpu.set_tuning(for_gpus.clone());
            tune_by(&gpu, cache, || cases).unwrap()
        };
        let cases = for_first_start;
        assert!(cases().len() >= 4, "products both ways and attention both ways");
        assert_eq!(tuned(None, cases()).wrong_on_gpu, None);
        assert_eq!(gpu.tuning(), for_gpus);
        // The second case gives wrong results.
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
        assert_eq!((again.wrong_on_gpu, gpu.tuning()), (Some(wrong), chosen), "from the cache");
    }

    #[test]
    fn tiles_are_measured_when_a_recording_first_has_such_products_and_cached() {
        let Some(gpu) = testing::gpu() else { return };
        let for_gpus = || gpu.with_tuning(Tuning::untuned(None, DeviceKind::Gpu));
        let chosen = |gpu: &Gpu| {
            let Products::Staged(products) = gpu.tuning().products else { panic!("products of a GPU") };
            products.chosen
        };
        let dir = tempfile::tempdir().unwrap();
        let (case, class) = (
            product_case(ProductForm::AlongLeft, 40, 64, 48, Format::F32),
            ProductClass::new(ProductForm::AlongLeft, 64, 64, 64, Format::F32),
        );
        let first = for_gpus();
        tune_by(&first, Some(dir.path()), Vec::new).unwrap();
        assert_eq!(chosen(&first), []);
        assert!(case.check(&first).wait().unwrap().passed());
        assert_eq!(chosen(&first).iter().map(|choice| choice.class).collect::<Vec<_>>(), [class]);
        assert!(class.candidates().contains(&chosen(&first)[0].tile));
        // The second time, and at the next start, nothing is measured.
        let pipelines = first.counts().pipelines;
        assert!(case.check(&first).wait().unwrap().passed());
        let next = for_gpus();
        tune_by(&next, Some(dir.path()), Vec::new).unwrap();
        assert_eq!(next.tuning(), first.tuning());
        assert!(case.check(&next).wait().unwrap().passed());
        assert_eq!(first.counts().pipelines, pipelines);
        // The choice of a checkpoint takes precedence over measurements.
        for tile in StagedTile::ALL.map(ProductTile::Staged) {
            let products = StagedProducts { chosen: vec![ChosenTile { class, tile }], otherwise: None };
            let of_checkpoint = Tuning { products: Products::Staged(products), ..first.tuning() };
            next.set_tuning(of_checkpoint.clone());
            assert!(case.check(&next).wait().unwrap().passed());
            assert_eq!(next.tuning(), of_checkpoint);
            assert_eq!(first.tuning().keeps(&of_checkpoint), chosen(&first)[0].tile == tile);
        }
    }
}
