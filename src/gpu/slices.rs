//! Sums over slices: a gradient whose sum is divided among workgroups is written in slices. Small ones are collected,
//! so that several share a launch.

use super::launch::{Arg, Groups, Launch, Word, Work, read, write};
use super::shader::{Constants, constants};
use super::tensor::{Accumulate, Dim, GradientTarget, Tensor};

/// Slices that are to be summed into a gradient, in order.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// The slices, (slices, len).
    pub x: Tensor,
    /// There is one slice per `share` of these rows.
    pub rows: Dim,
    /// See `rows`.
    pub share: u32,
    /// Elements of a slice.
    pub len: usize,
    /// Where the sum goes.
    pub target: GradientTarget,
    /// Index of the first element of the target.
    pub first: usize,
}

/// The most sums in one launch: each needs two bindings of the eight that every GPU has.
const TASKS: usize = 4;
constants! {
    struct ReduceSlices {
        /// The number of sums in the launch.
        tasks: u32,
    }
}

/// The names of a task's parameters and bindings.
struct Names {
    params: [&'static str; 5],
    x: &'static str,
    y: &'static str,
}

const NAMES: [Names; TASKS] = [
    Names { params: ["rows0", "share0", "len0", "first0", "add0"], x: "x0", y: "y0" },
    Names { params: ["rows1", "share1", "len1", "first1", "add1"], x: "x1", y: "y1" },
    Names { params: ["rows2", "share2", "len2", "first2", "add2"], x: "x2", y: "y2" },
    Names { params: ["rows3", "share3", "len3", "first3", "add3"], x: "x3", y: "y3" },
];

/// Slices up to this size are collected: keeping them longer costs little memory.
const SMALL_BYTES: u64 = 1 << 20;

/// Slices that are not summed yet.
#[derive(Default)]
pub(super) struct Waiting(Vec<Slices>);

impl Waiting {
    /// Adds slices; returns the launches that must come before anything else is recorded.
    pub fn add(&mut self, slices: Slices) -> Vec<Launch> {
        let mut due = Vec::new();
        // The order of two sums into one target matters.
        if self.0.iter().any(|w| w.target.tensor == slices.target.tensor) {
            due.extend(self.take());
        }
        self.0.push(slices);
        // A target that is set, not added to, must be written before anything else is added to it.
        let set = slices.target.accumulate == Accumulate::Set;
        if set || self.0.len() == TASKS || slices.x.bytes() > SMALL_BYTES {
            due.extend(self.take());
        }
        due
    }

    /// Returns the launch that sums all collected slices.
    pub fn take(&mut self) -> Option<Launch> {
        let tasks = std::mem::take(&mut self.0);
        let mut params: Vec<(&str, Word)> = Vec::new();
        let mut args: Vec<Arg> = Vec::new();
        let (mut groups, mut work) = (0, Work::default());
        for (t, names) in tasks.iter().zip(NAMES) {
            let slices = t.rows.max().div_ceil(t.share);
            let add = (t.target.accumulate == Accumulate::Add) as u32;
            let words: [Word; 5] = [t.rows.into(), t.share.into(), t.len.into(), t.first.into(), add.into()];
            params.extend(names.params.into_iter().zip(words));
            args.extend([read(names.x, t.x), write(names.y, t.target.tensor)]);
            groups += t.len.div_ceil(256);
            work.flops += 256.0 * slices as f64;
            work.bytes += 1024.0 * (slices + 1) as f64;
        }
        (!tasks.is_empty()).then(|| Launch {
            kernel: "reduce_slices",
            constants: ReduceSlices { tasks: tasks.len() as u32 }.list(),
            params,
            args,
            groups: Groups::over(groups, 1),
            work,
        })
    }
}
