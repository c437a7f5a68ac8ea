//! The kernels that oaif chooses on the GPU that it finds, and those that tuning may choose.

use std::fs;
use std::path::Path;

use oaif::Wait;
use oaif::unstable::bench::recorded_kernels;
use oaif::unstable::gpu::{
    Gpu, GpuOptions, ProductTile, Products, StagedProducts, StagedTile, Tuning, shader,
};
use oaif::unstable::model::ModelConfig;

use crate::kernel_file::KernelFile;
use crate::{Result, shapes};

/// Writes each kernel that models of these shapes need to a separate file in `dir`.
pub fn write(dir: &Path, shapes: &[&str]) -> Result<()> {
    let names = shapes::names();
    let shapes = if shapes.is_empty() { &names } else { shapes };
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;
    let (mut kernels, mut if_measured) = (Vec::new(), Vec::new());
    for shape in shapes {
        let config = shapes::config(shape)?;
        add(&mut kernels, &gpu, shape, &config)?;
        if let Products::Staged(_) = gpu.tuning().products {
            for tile in StagedTile::ALL {
                let products = Products::Staged(StagedProducts::all_in(ProductTile::Staged(tile)));
                let measured = gpu.with_tuning(Tuning { products, ..gpu.tuning() });
                let shape = format!("{shape}:{}x{}", tile.rows, tile.cols);
                add(&mut if_measured, &measured, &shape, &config)?;
            }
        }
    }
    if_measured.retain(|kernel| kernels.iter().all(|known| known.source != kernel.source));
    kernels.extend(if_measured);
    fs::create_dir_all(dir)?;
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    for (i, kernel) in kernels.iter().enumerate() {
        fs::write(dir.join(format!("{i:03}-{}.wgsl", kernel.kernel)), kernel.to_text())?;
    }
    Ok(())
}

/// Adds the kernels of a model of this size that are not in the list yet.
fn add(kernels: &mut Vec<KernelFile>, gpu: &Gpu, shape: &str, config: &ModelConfig) -> Result<()> {
    for recorded in recorded_kernels(gpu, config).map_err(|e| format!("{shape}: {e}"))? {
        let source = shader::assemble(&recorded.key)?;
        let step = format!("{shape} {}", recorded.step);
        // Kernels with the same source are one kernel, whatever launches it.
        match kernels.iter_mut().find(|known| known.source == source) {
            Some(known) => known.steps.push(step),
            None => {
                let constants = recorded.key.constants.iter();
                kernels.push(KernelFile {
                    kernel: recorded.key.name.to_string(),
                    constants: constants.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                    steps: vec![step],
                    source,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use oaif::unstable::gpu::{DeviceKind, Limits};

    use super::*;

    #[test]
    fn every_kernel_is_recorded() {
        // The limit that GPUs have.
        let limits = Limits { binding: 1 << 31, ..Limits::default() };
        let mut recorded = HashSet::new();
        for kind in [DeviceKind::Gpu, DeviceKind::Processor] {
            let gpu = Gpu::without_device(limits).with_tuning(Tuning::untuned(None, kind));
            for shape in shapes::names() {
                let kernels = recorded_kernels(&gpu, &shapes::config(shape).unwrap()).unwrap();
                recorded.extend(kernels.iter().map(|kernel| kernel.key.name));
            }
        }
        let names = shader::KERNELS.iter().map(|(name, _)| *name);
        let without: Vec<&str> = names.filter(|name| !recorded.contains(name)).collect();
        assert!(without.is_empty(), "no step of a shape launches {without:?}");
    }
}
