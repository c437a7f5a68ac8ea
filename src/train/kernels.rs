//! The kernels that a run's numbers depend on: a checkpoint keeps which variants computed it, and a resumed run uses the same
//! ones, whatever was measured on the device since.

use super::options::TrainOptions;
use super::run_dir::resumed_checkpoint;
use super::state::State;
use crate::error::Result;
use crate::gpu::{DeviceKind, Gpu, Products};

/// Chooses the variants that the checkpoint was computed with, where the options resume one and the device has them. To be
/// called before anything is recorded on the device.
///
/// # Errors
/// What is wrong with the checkpoint.
pub(super) fn use_kernels_of_checkpoint(gpu: &Gpu, options: &TrainOptions) -> Result<()> {
    // A dry run computes nothing.
    if gpu.is_measuring() {
        return Ok(());
    }
    if let Some(checkpoint) = resumed_checkpoint(options.folder(), &options.start())? {
        let kernels = State::read(&checkpoint.path)?.kernels;
        // A GPU that does without the kernels for GPUs got wrong results by them.
        let distrusted = gpu.summary().device_kind() == DeviceKind::Gpu
            && matches!(gpu.tuning().products, Products::Unrolled(_));
        if kernels.runs_with(gpu.subgroup()) && !distrusted {
            gpu.set_tuning(kernels);
        }
    }
    Ok(())
}
