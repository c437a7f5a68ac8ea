//! Recording: model code calls ops on virtual tensors, and each launch is noted with everything that it needs.

use std::collections::{HashMap, HashSet};

use super::arithmetic::Arithmetic;
use super::buffer::Region;
use super::device::Gpu;
use super::launch::{KeyWork, Launch, NotedLaunch, Work};
use super::shader::{KernelKey, validate};
use super::slices::{Slices, Waiting};
use super::tensor::{Access, Dim, Format, Tensor};
use super::tiles::{ProductClass, ProductTile};
use super::variants::{DeviceKind, Tuning};
use crate::error::{Error, Result};

/// Where a tensor's memory comes from.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// Planned from its lifetime.
    Transient,
    /// A buffer that exists outside the plan.
    Region(Region),
}

#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub label: String,
    pub tensor: Tensor,
    pub home: Home,
}

/// A gradient rule, which adds launches to the recording.
pub(super) type RuleFn = Box<dyn FnOnce(&mut Recorder) -> Result<()> + Send>;

/// The gradient state of a recording.
#[derive(Default)]
pub(super) struct Tape {
    pub recording: bool,
    pub rules: Vec<RuleFn>,
    /// Tensors that depend on a trained one; the value says whether a rule covers them yet.
    pub dependent: HashMap<u32, bool>,
    /// The kernels that wrote a dependent tensor, for the error message if there is no rule.
    writers: HashMap<u32, &'static str>,
    pub gradients: HashMap<u32, Tensor>,
}

impl Tape {
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    pub fn check_rules(&self) -> Result<()> {
        let uncovered = self.dependent.iter().filter(|(_, covered)| !**covered).map(|(id, _)| *id).min();
        match uncovered {
            Some(id) => Err(Error::NoGradient { op: self.writers.get(&id).copied().unwrap_or("an op") }),
            None => Ok(()),
        }
    }

    /// Updates the dependent tensors after a launch.
    fn note(&mut self, launch: &NotedLaunch) {
        if !self.recording {
            return;
        }
        let reads_dependent = launch.args.iter().any(|(t, _)| self.dependent.contains_key(&t.id));
        if reads_dependent {
            for (t, access) in &launch.args {
                if *access == Access::Write {
                    // An earlier rule does not cover the values that are written now.
                    self.dependent.insert(t.id, false);
                    self.writers.insert(t.id, launch.kernel.name);
                }
            }
        }
    }
}

/// A recording in progress. [`super::Plan`] is made from it.
#[derive(Default)]
pub struct Recorder {
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) launches: Vec<NotedLaunch>,
    pub(super) outputs: Vec<Tensor>,
    pub(super) phases: Vec<(usize, &'static str)>,
    pub(super) tape: Tape,
    regions: HashMap<(usize, u64, Dim, usize), Tensor>,
    gpu: Option<Gpu>,
    arithmetic: Arithmetic,
    busy: u32,
    waiting: Waiting,
}

impl Recorder {
    /// Creates an empty recording for this GPU.
    pub fn new(gpu: &Gpu) -> Recorder {
        // Compute units and cores cannot be queried; the kind of device decides.
        let busy = if gpu.summary().device_kind() == DeviceKind::Processor { 8 } else { 128 };
        Recorder { gpu: Some(gpu.clone()), arithmetic: gpu.arithmetic(), busy, ..Recorder::default() }
    }

    /// Returns the kernel variants.
    pub fn tuning(&self) -> Tuning {
        match &self.gpu {
            Some(gpu) => gpu.tuning(),
            None => Tuning::untuned(None, DeviceKind::Gpu),
        }
    }

    /// Returns the tile for these products on a GPU: the one chosen for their class, or `by_shape` if there is no
    /// chooser.
    pub(crate) fn tile(&self, class: ProductClass, by_shape: ProductTile) -> ProductTile {
        self.gpu.as_ref().map_or(by_shape, |gpu| gpu.tile(class, by_shape))
    }

    /// Returns how products with frozen f16 matrices are computed.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Returns the number of workgroups that keep the GPU busy, roughly.
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// Whether gradient rules are recorded, so that their inputs must be kept.
    pub fn is_training(&self) -> bool {
        self.tape.is_recording()
    }

    /// Returns the lanes of a subgroup, if kernels may use subgroups.
    pub fn subgroup(&self) -> Option<u32> {
        self.gpu.as_ref().and_then(Gpu::subgroup)
    }

    fn add(&mut self, label: String, rows: Dim, cols: usize, format: Format, home: Home) -> Tensor {
        let tensor = Tensor { id: self.tensors.len() as u32, rows, cols, format };
        self.tensors.push(TensorInfo { label, tensor, home });
        tensor
    }

    /// Creates a tensor of floats, (rows, cols), whose memory the plan allocates.
    pub fn tensor(&mut self, label: impl Into<String>, rows: impl Into<Dim>, cols: usize) -> Tensor {
        self.add(label.into(), rows.into(), cols, Format::F32, Home::Transient)
    }

    /// Creates a tensor of integers, (rows, cols), whose memory the plan allocates.
    pub fn tensor_u32(&mut self, label: impl Into<String>, rows: impl Into<Dim>, cols: usize) -> Tensor {
        self.add(label.into(), rows.into(), cols, Format::U32, Home::Transient)
    }

    /// Returns a tensor in `region`, which outlives the plan. The same region and shape give the same tensor.
    pub fn bind(&mut self, region: &Region, rows: impl Into<Dim>, cols: usize, format: Format) -> Tensor {
        let rows = rows.into();
        let bytes = format.bytes(rows.max() as u64 * cols as u64);
        assert!(bytes <= region.bytes, "a tensor of {bytes} bytes does not fit into {region:?}");
        let key = (region.buffer.id(), region.offset, rows, cols);
        if let Some(known) = self.regions.get(&key) {
            return *known;
        }
        let label = region.buffer.label().to_owned();
        let tensor = self.add(label, rows, cols, format, Home::Region(region.clone()));
        self.regions.insert(key, tensor);
        tensor
    }

    /// Records a launch. Ops call this; for training they also add a gradient rule, see [`Recorder::rule`].
    pub fn launch(&mut self, launch: Launch) {
        self.launch_over_keys(launch, KeyWork::default());
    }

    /// Like [`Recorder::launch`], for a launch whose cost grows with the number of keys per row.
    pub fn launch_over_keys(&mut self, launch: Launch, keys: KeyWork) {
        let launch = launch.note(keys);
        self.tape.note(&launch);
        self.launches.push(launch);
    }

    /// Records a launch without a gradient: its outputs count as constants. For the end of a graph: a loss that
    /// computes its own gradient, sampling, the update of weights.
    pub fn launch_detached(&mut self, launch: Launch) {
        self.launches.push(launch.note(KeyWork::default()));
    }

    /// Sums slices: large ones immediately, small ones together once there are enough, at the latest at the end of the
    /// backward pass.
    pub fn sum_slices(&mut self, slices: Slices) {
        for launch in self.waiting.add(slices) {
            self.launch(launch);
        }
    }

    pub(super) fn sum_waiting(&mut self) {
        if let Some(launch) = self.waiting.take() {
            self.launch(launch);
        }
    }

    /// Keeps a tensor until the end of the plan and reads it back after every replay.
    pub fn output(&mut self, tensor: Tensor) {
        if !self.outputs.contains(&tensor) {
            self.outputs.push(tensor);
        }
    }

    /// Assigns the following launches to this phase in profiles and timings.
    pub fn phase(&mut self, name: &'static str) {
        self.phases.push((self.launches.len(), name));
    }

    /// Returns the number of launches so far.
    pub fn launch_count(&self) -> usize {
        self.launches.len()
    }

    /// Returns the kernels recorded so far, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelKey> {
        self.launches.iter().map(|l| &l.kernel)
    }

    /// Returns the operations and bytes of one replay with these live extents.
    pub fn work(&self, extents: &[u32; 8]) -> Work {
        let mut total = Work::default();
        for launch in &self.launches {
            let rows = launch.groups.rows.now(extents) as f64;
            let work = launch.work.of_row(0);
            total.flops += rows * work.flops;
            total.bytes += rows * work.bytes;
        }
        total
    }

    /// Returns each launch's kernel, number of pieces and units per piece, in a replay with this many units per submit.
    #[cfg(test)]
    pub(crate) fn pieces(&self, live: &super::Live, units_per_submit: f64) -> Vec<(&'static str, u32, f64)> {
        let of_launch = |launch: &NotedLaunch| {
            let units = launch.work.of_row(live.keys).units(launch.groups.rows.now(&live.extents));
            let pieces = super::pace::pieces(units, launch.groups.count(&live.extents), units_per_submit);
            (launch.kernel.name, pieces, units / f64::from(pieces))
        };
        self.launches.iter().map(of_launch).collect()
    }

    /// Validates every kernel and its bindings on the CPU, without a GPU.
    ///
    /// # Errors
    /// [`crate::Error::Shader`] with the kernel's first error.
    pub fn validate(&self) -> Result<()> {
        let keys: HashSet<&KernelKey> = self.kernels().collect();
        keys.into_iter().try_for_each(|key| validate(key).map(drop))
    }

    pub(super) fn label(&self, tensor: Tensor) -> &str {
        &self.tensors[tensor.id as usize].label
    }

    /// Finds errors that would otherwise appear only when the plan is built.
    pub(super) fn check_complete(&self) -> Result<()> {
        self.tape.check_rules()
    }
}
