//! Sums over slices: what gradients come in where their sum is shared out among workgroups. Small ones wait for others,
//! so that several share a launch.

use super::gradient::{Accumulate, GradientTarget};
use super::recorder::{Access, Dim, Groups, Launch, Recorder, Tensor, Word, Work};
use super::shader::KernelKey;

/// Slices that are to be summed, in order, into a gradient.
#[derive(Clone, Copy, Debug)]
pub struct Slices {
    /// The slices, (slices, len).
    pub x: Tensor,
    /// There is a slice for every `share` of these rows.
    pub rows: Dim,
    /// See `rows`.
    pub share: u32,
    /// Elements of a slice.
    pub len: usize,
    /// Where the sum goes.
    pub target: GradientTarget,
    /// The first of the target's elements that it goes to.
    pub first: usize,
}

/// Sums in one launch: two bindings each.
const TASKS: usize = 2;

impl Recorder {
    /// Sums slices, with those that wait.
    pub fn sum_slices(&mut self, slices: Slices) {
        self.wait(slices);
        self.sum_waiting();
    }

    /// Sums slices with others that come later, at the latest at the end of the backward pass: for slices so small
    /// that it does not matter how long they are kept.
    pub fn sum_slices_later(&mut self, slices: Slices) {
        self.wait(slices);
        if self.waiting.len() == TASKS {
            self.sum_waiting();
        }
    }

    fn wait(&mut self, slices: Slices) {
        // Two sums into one target need an order.
        if self.waiting.iter().any(|w| w.target.tensor == slices.target.tensor) {
            self.sum_waiting();
        }
        self.waiting.push(slices);
    }

    pub(super) fn sum_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for tasks in waiting.chunks(TASKS) {
            let mut params = Vec::new();
            let mut args = Vec::new();
            let (mut groups, mut work) = (0, Work::default());
            for t in tasks {
                let slices = t.rows.max().div_ceil(t.share);
                let add = (t.target.accumulate == Accumulate::Add) as u32;
                params.extend::<[Word; 5]>([
                    t.rows.into(),
                    t.share.into(),
                    t.len.into(),
                    t.first.into(),
                    add.into(),
                ]);
                args.extend([(t.x, Access::Read), (t.target.tensor, Access::Write)]);
                groups += t.len.div_ceil(256);
                work.flops += 256.0 * slices as f64;
                work.bytes += 1024.0 * (slices + 1) as f64;
            }
            self.launch(Launch {
                kernel: KernelKey { name: "reduce_slices", constants: vec![("TASKS", tasks.len() as u32)] },
                params,
                args,
                groups: Groups::over(groups, 1),
                work,
            });
        }
    }
}
