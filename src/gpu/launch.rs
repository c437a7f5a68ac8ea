//! Kernel launches as ops state them: bindings, parameters, workgroups, work.

use super::shader::{Binding, Constant, Elements, KernelKey, Parameter};
use super::tensor::{Access, Dim, Format, Tensor};

/// The number of workgroups: `ceil(rows / rows_per_group) * columns`.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// The extent that is divided among workgroups.
    pub rows: Dim,
    /// How much of it one workgroup covers.
    pub rows_per_group: u32,
    /// Factor: so many times the workgroups.
    pub columns: u32,
}

impl Groups {
    /// `ceil(rows / rows_per_group)` workgroups.
    pub fn over(rows: impl Into<Dim>, rows_per_group: u32) -> Groups {
        Groups { rows: rows.into(), rows_per_group, columns: 1 }
    }

    /// Multiplies the number of workgroups by `columns`.
    pub fn times(self, columns: u32) -> Groups {
        Groups { columns: self.columns * columns, ..self }
    }

    /// Returns the number of workgroups in a replay with these live extents.
    pub fn count(&self, extents: &[u32; 8]) -> u32 {
        self.rows.now(extents).div_ceil(self.rows_per_group) * self.columns
    }
}

/// A launch's arithmetic and memory traffic per row of `Groups::rows`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating-point operations per row (a fused multiply-add is two).
    pub flops: f64,
    /// Bytes read and written per row, each operand counted once.
    pub bytes: f64,
}

impl Work {
    /// Returns one number for the time cap: operations, plus memory traffic and launch overhead converted to
    /// operations.
    pub(super) fn units(&self, rows: u32) -> f64 {
        rows as f64 * (self.flops + self.bytes) + 2e4
    }
}

/// Work per key that a row of attention attends to.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyWork {
    /// Floating-point operations per row and key.
    pub flops: f64,
    /// Average number of keys per row, used if a replay does not state it, see [`super::Live::keys`].
    pub usual: u32,
    /// Largest number of keys per row.
    pub most: u32,
}

/// A launch's work, including the part that grows with the number of keys per row.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaunchWork {
    row: Work,
    keys: KeyWork,
}

impl LaunchWork {
    /// Returns the work of a row with this many keys; 0 stands for the usual number.
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

/// Binds `tensor` as `name` for reading, as an array of its elements; [`Arg::rows`] and others change the element type.
pub fn read(name: &'static str, tensor: Tensor) -> Arg {
    Arg::new(name, tensor, Access::Read)
}

/// Binds `tensor` as `name` for writing or adding.
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

    /// Bound by rows, four elements at a time, see [`Elements::Rows`].
    pub fn rows(self, aligned: bool) -> Arg {
        Arg { elements: Elements::Rows { format: self.tensor.format, aligned }, ..self }
    }

    /// Bound as an array of two-element vectors.
    pub fn vec2(self) -> Arg {
        Arg { elements: Elements::F32x2, ..self }
    }

    /// Bound as an array of four-element vectors.
    pub fn vec4(self) -> Arg {
        let elements = if self.tensor.format == Format::U32 { Elements::U32x4 } else { Elements::F32x4 };
        Arg { elements, ..self }
    }
}

/// One kernel launch, as stated by an op.
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
    /// The number of workgroups.
    pub groups: Groups,
    /// Its work per row.
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
    /// Converts it to the recorded form.
    pub(super) fn note(self, keys: KeyWork) -> NotedLaunch {
        let Launch { kernel: name, constants, params, args, groups, work } = self;
        for Arg { name: binding, tensor, elements, access } in &args {
            let writable = *access == Access::Read || tensor.format.is_written();
            let whole = tensor.cols.is_multiple_of(tensor.format.row_unit());
            let fits = elements.takes(tensor.format) && whole && writable;
            assert!(
                fits,
                "{name}: {binding} (…, {}) is bound as {elements:?}, but stored as {:?}",
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
