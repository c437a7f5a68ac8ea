//! Recording: model code calls ops on virtual tensors, and each launch is noted with all that it needs.

use std::collections::{HashMap, HashSet};

use super::adapter::Gpu;
use super::arithmetic::Arithmetic;
use super::buffer::Region;
use super::gradient::Tape;
use super::shader::{Binding, Constant, Elements, KernelKey, Parameter, validate};
use super::slices::Slices;
use super::tuning::{DeviceKind, Tuning};
use crate::error::Result;

/// An extent: fixed when recorded, or live, that is set anew for every replay up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// The same in every replay.
    Fixed(u32),
    /// Number `index` of [`super::Live::extents`], never above `max`.
    Live {
        /// Which live extent.
        index: u8,
        /// The largest value, for which memory is planned.
        max: u32,
    },
}

impl Dim {
    /// The largest value.
    pub fn max(self) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { max, .. } => max,
        }
    }

    /// The value in a replay with these live extents.
    pub fn now(self, extents: &[u32; 8]) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { index, .. } => extents[index as usize],
        }
    }

    fn code(self) -> u32 {
        match self {
            Dim::Fixed(n) => n,
            Dim::Live { index, .. } => 0x8000_0000 | index as u32,
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::Fixed(n as u32)
    }
}

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 32-bit unsigned integers.
    U32,
    /// Half precision, two elements a word, the first in its low half. Read only.
    F16,
    /// Brain floats: the upper halves of 32-bit floats; otherwise as [`Format::F16`].
    Bf16,
}

impl Format {
    /// Bytes of so many elements, in whole words.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            Format::F32 | Format::U32 => elements * 4,
            Format::F16 | Format::Bf16 => elements.next_multiple_of(2) * 2,
        }
    }
}

/// A virtual tensor of a recording: a matrix of `rows` by `cols`, row-major, without gaps between rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub(super) id: u32,
    /// Rows; tokens are rows.
    pub rows: Dim,
    /// Elements of a row.
    pub cols: usize,
    /// How elements are stored.
    pub format: Format,
}

impl Tensor {
    /// Bytes at the largest number of rows.
    pub fn bytes(&self) -> u64 {
        self.format.bytes(self.rows.max() as u64 * self.cols as u64)
    }
}

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

/// What a launch does to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes it, or adds to it: what the kernel declares `read_write`.
    Write,
}

/// The number of workgroups: `ceil(rows / rows_per_group) * columns`.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// The extent that is divided among workgroups.
    pub rows: Dim,
    /// How much of it one workgroup takes.
    pub rows_per_group: u32,
    /// Workgroups for each of these.
    pub columns: u32,
}

impl Groups {
    /// `ceil(rows / rows_per_group)` workgroups.
    pub fn over(rows: impl Into<Dim>, rows_per_group: u32) -> Groups {
        Groups { rows: rows.into(), rows_per_group, columns: 1 }
    }

    /// As many again for each of `columns`.
    pub fn times(self, columns: u32) -> Groups {
        Groups { columns: self.columns * columns, ..self }
    }

    /// Workgroups in a replay with these live extents.
    pub fn count(&self, extents: &[u32; 8]) -> u32 {
        self.rows.now(extents).div_ceil(self.rows_per_group) * self.columns
    }
}

/// A launch's arithmetic and traffic for each row of `Groups::rows`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating-point operations a row (a fused multiply-add is two).
    pub flops: f64,
    /// Bytes read and written a row, each operand counted once.
    pub bytes: f64,
}

impl Work {
    /// One number for the time cap: operations, with memory and launch overhead in the same coin.
    pub(super) fn units(&self, rows: u32) -> f64 {
        rows as f64 * (self.flops + self.bytes) + 2e4
    }
}

/// A launch's work, with that which grows with the keys that a row sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaunchWork {
    row: Work,
    keys: KeyWork,
}

/// Work for each key that a row of attention sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyWork {
    /// Floating-point operations a row and key.
    pub flops: f64,
    /// Keys of a row on average, where a replay does not tell, see [`super::Live::keys`].
    pub usual: u32,
    /// Keys that a row sees at most.
    pub most: u32,
}

impl LaunchWork {
    /// Of a row that sees so many keys; 0: the usual.
    pub fn of_row(&self, keys: u32) -> Work {
        let keys = if keys == 0 { self.keys.usual } else { keys }.min(self.keys.most);
        Work { flops: self.row.flops + self.keys.flops * f64::from(keys), ..self.row }
    }
}

/// A parameter word of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// An unsigned integer.
    U32(u32),
    /// A float.
    F32(f32),
    /// An extent, read in the kernel with `extent(…)`.
    Extent(Dim),
}

impl From<usize> for Word {
    fn from(v: usize) -> Word {
        Word::U32(v as u32)
    }
}
impl From<u32> for Word {
    fn from(v: u32) -> Word {
        Word::U32(v)
    }
}
impl From<f32> for Word {
    fn from(v: f32) -> Word {
        Word::F32(v)
    }
}
impl From<Dim> for Word {
    fn from(v: Dim) -> Word {
        Word::Extent(v)
    }
}

impl Word {
    pub(super) fn bits(self) -> u32 {
        match self {
            Word::U32(v) => v,
            Word::F32(v) => v.to_bits(),
            Word::Extent(d) => d.code(),
        }
    }
}

/// A tensor bound by a launch.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    name: &'static str,
    tensor: Tensor,
    elements: Elements,
    access: Access,
}

/// Binds `tensor` as `name`, to be read: an array of its elements, see [`Arg::rows`] and others for what else it may be.
pub fn read(name: &'static str, tensor: Tensor) -> Arg {
    Arg::new(name, tensor, Access::Read)
}

/// Binds `tensor` as `name`, to be written or added to.
pub fn write(name: &'static str, tensor: Tensor) -> Arg {
    Arg::new(name, tensor, Access::Write)
}

impl Arg {
    fn new(name: &'static str, tensor: Tensor, access: Access) -> Arg {
        let elements = match tensor.format {
            Format::F32 => Elements::F32,
            Format::U32 => Elements::U32,
            format => Elements::Rows { format, aligned: true },
        };
        Arg { name, tensor, elements, access }
    }

    /// By rows, four elements at a time, see [`Elements::Rows`].
    pub fn rows(self, aligned: bool) -> Arg {
        Arg { elements: Elements::Rows { format: self.tensor.format, aligned }, ..self }
    }

    /// An array of vectors of two.
    pub fn vec2(self) -> Arg {
        Arg { elements: Elements::F32x2, ..self }
    }

    /// An array of vectors of four.
    pub fn vec4(self) -> Arg {
        let elements = if self.tensor.format == Format::U32 { Elements::U32x4 } else { Elements::F32x4 };
        Arg { elements, ..self }
    }
}

/// One kernel launch, as an op states it.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Its constants, see [`Constants::list`](super::shader::Constants::list).
    pub constants: Vec<(String, Constant)>,
    /// The words of the kernel's `params`, by name.
    pub params: Vec<(&'static str, Word)>,
    /// The storage bindings.
    pub args: Vec<Arg>,
    /// How many workgroups.
    pub groups: Groups,
    /// What it costs.
    pub work: Work,
}

/// A launch of a recording.
#[derive(Clone, Debug)]
pub(super) struct NotedLaunch {
    pub kernel: KernelKey,
    pub params: Vec<Word>,
    pub args: Vec<(Tensor, Access)>,
    pub groups: Groups,
    pub work: LaunchWork,
}

impl Launch {
    fn note(self, keys: KeyWork) -> NotedLaunch {
        let Launch { kernel: name, constants, params, args, groups, work } = self;
        for Arg { name: binding, tensor, elements, access } in &args {
            let written = *access == Access::Write && matches!(tensor.format, Format::F16 | Format::Bf16);
            let whole = tensor.format == Format::F32 || tensor.format == Format::U32 || tensor.cols % 4 == 0;
            let fits = elements.takes(tensor.format) && whole && !written;
            assert!(
                fits,
                "{name}: {binding} (…, {}) is bound as {elements:?} but stored as {:?}",
                tensor.cols, tensor.format
            );
        }
        let parameter =
            |(name, word): &(&'static str, Word)| Parameter { name, float: matches!(word, Word::F32(_)) };
        let binding = |arg: &Arg| Binding { name: arg.name, elements: arg.elements, access: arg.access };
        NotedLaunch {
            kernel: KernelKey {
                name,
                constants,
                params: params.iter().map(parameter).collect(),
                bindings: args.iter().map(binding).collect(),
            },
            params: params.into_iter().map(|(_, word)| word).collect(),
            args: args.into_iter().map(|arg| (arg.tensor, arg.access)).collect(),
            groups,
            work: LaunchWork { row: work, keys },
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
    subgroup: Option<u32>,
    tuning: Option<Tuning>,
    arithmetic: Arithmetic,
    device_kind: Option<DeviceKind>,
    busy: u32,
    pub(super) waiting: Vec<Slices>,
}

impl Recorder {
    /// An empty recording, for adapters like this one.
    pub fn new(gpu: &Gpu) -> Recorder {
        // Cores are told apart from compute units only by the kind of adapter.
        let busy = if gpu.summary().device_kind() == DeviceKind::Processor { 8 } else { 128 };
        Recorder {
            subgroup: gpu.subgroup(),
            tuning: Some(gpu.tuning()),
            arithmetic: gpu.arithmetic(),
            device_kind: Some(gpu.summary().device_kind()),
            busy,
            ..Recorder::default()
        }
    }

    /// The kernels' shapes.
    pub fn tuning(&self) -> Tuning {
        self.tuning.unwrap_or_else(|| Tuning::untuned(self.subgroup, DeviceKind::Gpu))
    }

    /// How products with frozen f16 matrices are computed.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// What runs the kernels.
    pub fn device_kind(&self) -> DeviceKind {
        self.device_kind.unwrap_or(DeviceKind::Gpu)
    }

    /// Workgroups that keep the adapter about busy.
    pub fn busy(&self) -> u32 {
        self.busy
    }

    /// Whether gradient rules are being noted, so that what they need must be kept.
    pub fn is_training(&self) -> bool {
        self.tape.is_recording()
    }

    /// Invocations of a subgroup, where kernels may use them.
    pub fn subgroup(&self) -> Option<u32> {
        self.subgroup
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
        self.note_launch(&launch);
        self.launches.push(launch);
    }

    /// Notes a launch through which no gradient shall flow: what it writes counts as constant. For what ends a graph,
    /// such as a loss that computes its own gradient, sampling, and the update of weights.
    pub fn launch_detached(&mut self, launch: Launch) {
        self.launches.push(launch.note(KeyWork::default()));
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
            let pieces = super::plan::pieces(units, launch.groups.count(&live.extents), units_per_submit);
            (launch.kernel.name, pieces, units / f64::from(pieces))
        };
        self.launches.iter().map(of_launch).collect()
    }

    /// Validates every kernel and its bindings on the host, without an adapter.
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
