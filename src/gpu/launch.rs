//! Launches of kernels as ops state them: bindings, parameters, workgroups, work.

use super::shader::{Binding, Constant, Elements, KernelKey, Parameter};
use super::tensor::{Access, Dim, Format, Tensor};

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

/// A launch's work, with that which grows with the keys that a row sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaunchWork {
    row: Work,
    keys: KeyWork,
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
    /// As it is recorded.
    pub(super) fn note(self, keys: KeyWork) -> NotedLaunch {
        let Launch { kernel: name, constants, params, args, groups, work } = self;
        for Arg { name: binding, tensor, elements, access } in &args {
            let writable = *access == Access::Read || tensor.format.is_written();
            let whole = tensor.cols.is_multiple_of(tensor.format.row_unit());
            let fits = elements.takes(tensor.format) && whole && writable;
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
