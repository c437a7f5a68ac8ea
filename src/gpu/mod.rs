//! The engine: a GPU and its device, buffers that know their size, shaders, and plans that are recorded once and
//! replayed. Only this module uses `wgpu::`.
//!
//! The author of a *recording* is trusted: shapes that do not match panic during recording, and kernels do not check
//! the indices they are given (unless [`GpuOptions::checked`] is set). Later operations on a buffer or a plan, and all
//! input of [`crate::model`], [`crate::generate`], [`crate::optim`], [`crate::train`] and [`crate::judge`], are checked
//! and return an [`Error`](crate::Error).

// Contents of a recording.
pub mod blocks;
mod launch;
pub mod shader;
mod slices;
mod tensor;
mod tiles;

// Properties of a GPU, and counters.
mod arithmetic;
mod counters;
mod ledger;
mod limits;
mod needs;
mod options;
mod pace;
mod profile;
mod variants;

// The device.
mod buffer;
mod device;
mod discovery;
mod faults;
mod kernels;
mod llvmpipe;
mod open;
mod outbox;
mod poller;
mod step;
mod submitting;
mod waiting;

// Recordings and plans.
mod gradient;
mod memory;
mod plan;
mod recorder;
mod replay;
#[cfg(test)]
pub(crate) mod testing;
mod timing;

pub use arithmetic::Arithmetic;
pub use buffer::{Buffer, Region};
pub use counters::{Activity, Counts, SubmitTimes};
pub use device::{Gpu, TileChooser};
pub use discovery::{FEATURES, GpuSummary, list_gpus};
pub use launch::{Arg, Groups, KeyWork, Launch, Word, Work, read, write};
pub use ledger::{Category, MemoryReport};
pub use limits::Limits;
pub use memory::Arena;
pub use needs::required_limits;
pub use options::{GpuOptions, Tier};
pub use plan::{Plan, PlanOptions};
pub use profile::{KernelTime, Profile};
pub use recorder::Recorder;
pub use replay::{Outputs, Pending};
pub use slices::Slices;
pub use step::Live;
pub use tensor::{Access, Accumulate, Dim, Format, GradientTarget, Tensor};
pub use tiles::{
    Candidates, ProductClass, ProductForm, ProductTile, StagedTile, UnrolledTile, UnrolledTiles,
};
pub use variants::{ChosenTile, DeviceKind, Products, StagedProducts, Tuning};
