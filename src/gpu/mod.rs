//! The engine: a GPU and its device, buffers that know their size, shaders, and plans that are recorded
//! once and replayed. `wgpu::` appears here alone.
//!
//! What a *recording* is made of is its author's: shapes that do not belong together panic as they are recorded, and
//! kernels trust the indices that they are given ([`GpuOptions::checked`] has the GPU check them). What is done with a
//! buffer or a plan afterwards, and all that [`crate::model`], [`crate::generate`], [`crate::optim`], [`crate::train`] and
//! [`crate::annotate`] are given, is checked and an [`Error`](crate::Error).

mod adapter;
mod arithmetic;
mod buffer;
mod gradient;
mod memory;
mod pace;
mod plan;
mod profile;
mod recorder;
pub mod shader;
mod slices;
mod tuning;

pub use adapter::{Activity, AdapterSummary, Counts, FEATURES, Gpu, GpuOptions, Limits, Tier, list_adapters};
pub use arithmetic::Arithmetic;
pub use buffer::{Buffer, Category, MemoryReport, Region};
pub use gradient::{Accumulate, GradientTarget};
pub use memory::Arena;
pub use plan::{Live, Outputs, Pending, Plan, PlanOptions};
pub use profile::{KernelTime, Profile};
pub use recorder::{
    Access, Arg, Dim, Format, Groups, KeyWork, Launch, Recorder, Tensor, Word, Work, read, write,
};
pub use slices::Slices;
pub use tuning::{Candidates, DeviceKind, Products, StagedTile, Tuning, UnrolledTile, UnrolledTiles};
