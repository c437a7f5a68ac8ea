//! The kernel variants of a run. A checkpoint stores which variants computed it, and a resumed run uses the same ones,
//! regardless of what was tuned on the device since.

use super::options::TrainOptions;
use super::run_dir::resumed_checkpoint;
use super::state::State;
use crate::error::Result;
use crate::gpu::{DeviceKind, Gpu, Products};

/// Selects the kernel variants with which the checkpoint was computed, if the options resume from one and the device
/// supports them. Must be called before anything is recorded on the device.
///
/// # Errors
/// Errors of the checkpoint.
pub(super) fn use_kernels_of_checkpoint(gpu: &Gpu, options: &TrainOptions) -> Result<()> {
    // A dry run computes nothing.
    if gpu.is_measuring() {
        return Ok(());
    }
    if let Some(checkpoint) = resumed_checkpoint(options.folder(), &options.start())? {
        let kernels = State::read(&checkpoint.path)?.kernels;
        // A GPU uses unrolled products only if the GPU kernels computed wrong results on it.
        let distrusted = gpu.summary().device_kind() == DeviceKind::Gpu
            && matches!(gpu.tuning().products, Products::Unrolled(_));
        if kernels.runs_with(gpu.subgroup()) && !distrusted {
            gpu.set_tuning(kernels);
        }
    }
    Ok(())
}
