//! Recording: model code calls ops on virtual tensors, and each launch is noted with all that it needs.

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
    /// Somebody else's buffer.
    Region(Region),
}

#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub label: String,
    pub tensor: Tensor,
    pub home: Home,
}

/// A gradient rule, which goes on with the recording.
pub(super) type RuleFn = Box<dyn FnOnce(&mut Recorder) -> Result<()> + Send>;

/// What a recording knows about gradients.
#[derive(Default)]
pub(super) struct Tape {
    pub recording: bool,
    pub rules: Vec<RuleFn>,
    /// Tensors that depend on something trained; the value tells whether a rule covers them yet.
    pub dependent: HashMap<u32, bool>,
    /// Kernels that wrote a dependent tensor, for the message when no rule follows.
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

    /// Notes what depends on something trained after a launch.
    fn note(&mut self, launch: &NotedLaunch) {
        if !self.recording {
            return;
        }
        let reads_dependent = launch.args.iter().any(|(t, _)| self.dependent.contains_key(&t.id));
        if reads_dependent {
            for (t, access) in &launch.args {
                if *access == Access::Write {
                    // A rule stated earlier says nothing about what is written now.
                    self.dependent.insert(t.id, false);
                    self.writers.insert(t.id, launch.kernel.name);
                }
            }
        }
    }
}

/// A recording in progress. See [`super::Plan`] for what becomes of it.
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
    /// An empty recording, for GPUs like this one.
    pub fn new(gpu: &Gpu) -> Recorder {
        // Cores are told apart from compute units only by the kind of the device.
        let busy = if gpu.summary().device_kind() == DeviceKind::Processor { 8 } else { 128 };
        Recorder { gpu: Some(gpu.clone()), arithmetic: gpu.arithmetic(), busy, ..Recorder::default() }
    }

    /// The kernels' shapes.
    pub fn tuning(&self) -> Tuning {
        match &self.gpu {
            Some(gpu) => gpu.tuning(),
            None => Tuning::untuned(None, DeviceKind::Gpu),
        }
    }

    /// The tile of such products on a GPU: the one chosen for their class; if nobody chooses, `by_shape`.
    pub(crate) fn tile(&self, class: ProductClass, by_shape: ProductTile) -> ProductTile {
        self.gpu.as_ref().map_or(by_shape, |gpu| gpu.tile(class, by_shape))
    }

    /// How products with frozen f16 matrices are computed.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Workgroups that keep the GPU about busy.
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// Whether gradient rules are being noted, so that what they need must be kept.
    pub fn is_training(&self) -> bool {
        self.tape.is_recording()
    }

    /// Invocations of a subgroup, where kernels may use them.
    pub fn subgroup(&self) -> Option<u32> {
        self.gpu.as_ref().and_then(Gpu::subgroup)
    }

    fn add(&mut self, label: String, rows: Dim, cols: usize, format: Format, home: Home) -> Tensor {
        let tensor = Tensor { id: self.tensors.len() as u32, rows, cols, format };
        self.tensors.push(TensorInfo { label, tensor, home });
        tensor
    }

    /// A new tensor of floats, (rows, cols), whose memory the plan provides.
    pub fn tensor(&mut self, label: impl Into<String>, rows: impl Into<Dim>, cols: usize) -> Tensor {
        self.add(label.into(), rows.into(), cols, Format::F32, Home::Transient)
    }

    /// A new tensor of integers, (rows, cols), whose memory the plan provides.
    pub fn tensor_u32(&mut self, label: impl Into<String>, rows: impl Into<Dim>, cols: usize) -> Tensor {
        self.add(label.into(), rows.into(), cols, Format::U32, Home::Transient)
    }

    /// A tensor that lives in `region`, which outlasts the plan. The same region and shape give the same tensor.
    pub fn bind(&mut self, region: &Region, rows: impl Into<Dim>, cols: usize, format: Format) -> Tensor {
        let rows = rows.into();
        let bytes = format.bytes(rows.max() as u64 * cols as u64);
        assert!(bytes <= region.bytes, "a tensor of {bytes} bytes does not fit {region:?}");
        let key = (region.buffer.id(), region.offset, rows, cols);
        if let Some(known) = self.regions.get(&key) {
            return *known;
        }
        let label = region.buffer.label().to_owned();
        let tensor = self.add(label, rows, cols, format, Home::Region(region.clone()));
        self.regions.insert(key, tensor);
        tensor
    }

    /// Notes a launch. Ops call this; where a gradient is needed they add their rule, see [`Recorder::rule`].
    pub fn launch(&mut self, launch: Launch) {
        self.launch_over_keys(launch, KeyWork::default());
    }

    /// [`Recorder::launch`] of what costs so much more for each key that a row sees.
    pub fn launch_over_keys(&mut self, launch: Launch, keys: KeyWork) {
        let launch = launch.note(keys);
        self.tape.note(&launch);
        self.launches.push(launch);
    }

    /// Notes a launch through which no gradient shall flow: what it writes counts as constant. For what ends a graph,
    /// such as a loss that computes its own gradient, sampling, and the update of weights.
    pub fn launch_detached(&mut self, launch: Launch) {
        self.launches.push(launch.note(KeyWork::default()));
    }

    /// Sums slices: large ones at once, small ones when there are enough of them, at the latest at the end of the
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

    /// Keeps a tensor until the end of the plan and reads it back with every replay.
    pub fn output(&mut self, tensor: Tensor) {
        if !self.outputs.contains(&tensor) {
            self.outputs.push(tensor);
        }
    }

    /// Launches recorded from here on belong to a phase of this name, in profiles and timings.
    pub fn phase(&mut self, name: &'static str) {
        self.phases.push((self.launches.len(), name));
    }

    /// Launches so far.
    pub fn launch_count(&self) -> usize {
        self.launches.len()
    }

    /// Names of the kernels recorded so far, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &KernelKey> {
        self.launches.iter().map(|l| &l.kernel)
    }

    /// Operations and bytes of one replay with these live extents.
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

    /// Name, pieces and units of a piece of each launch in a replay that submits at most so many units at a time.
    #[cfg(test)]
    pub(crate) fn pieces(&self, live: &super::Live, units_per_submit: f64) -> Vec<(&'static str, u32, f64)> {
        let of_launch = |launch: &NotedLaunch| {
            let units = launch.work.of_row(live.keys).units(launch.groups.rows.now(&live.extents));
            let pieces = super::pace::pieces(units, launch.groups.count(&live.extents), units_per_submit);
            (launch.kernel.name, pieces, units / f64::from(pieces))
        };
        self.launches.iter().map(of_launch).collect()
    }

    /// Validates every kernel and its bindings on the host, without a GPU.
    ///
    /// # Errors
    /// [`crate::Error::Shader`] with the kernel's first mistake.
    pub fn validate(&self) -> Result<()> {
        let keys: HashSet<&KernelKey> = self.kernels().collect();
        keys.into_iter().try_for_each(|key| validate(key).map(drop))
    }

    pub(super) fn label(&self, tensor: Tensor) -> &str {
        &self.tensors[tensor.id as usize].label
    }

    /// Checks what would otherwise be found only when the plan is built.
    pub(super) fn check_complete(&self) -> Result<()> {
        self.tape.check_rules()
    }
}
