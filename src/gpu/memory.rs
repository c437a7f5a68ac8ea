//! Memory planning from lifetimes: tensors that are never needed at the same time share a buffer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::buffer::Buffer;
use super::device::Gpu;
use super::ledger::Category;
use super::recorder::{Home, Recorder};
use super::tensor::Tensor;
use crate::error::{Error, Result};

/// The memory layout of a recording's transient tensors.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Bytes of each slot.
    pub slots: Vec<u64>,
    /// The slot of each transient tensor, by id.
    pub slot_of: HashMap<u32, usize>,
}

/// Launches from a tensor's first use to its last.
type Span = (usize, usize);

impl Layout {
    /// Assigns slots, the largest tensors first: each takes the smallest slot that is free during its lifetime ("greedy
    /// by size" of Pisarchyk & Lee 2020, arXiv 2001.03288).
    pub fn plan(recorder: &Recorder) -> Layout {
        let mut spans: HashMap<u32, Span> = HashMap::new();
        let mut tensors: Vec<Tensor> = Vec::new();
        for (i, launch) in recorder.launches.iter().enumerate() {
            for (tensor, _) in &launch.args {
                if matches!(recorder.tensors[tensor.id as usize].home, Home::Transient) {
                    let span = spans.entry(tensor.id).or_insert_with(|| {
                        tensors.push(*tensor);
                        (i, i)
                    });
                    span.1 = i;
                }
            }
        }
        for output in &recorder.outputs {
            if let Some(span) = spans.get_mut(&output.id) {
                span.1 = usize::MAX;
            }
        }
        // A stable sort: tensors of equal size stay in the order of first use.
        tensors.sort_by_key(|t| std::cmp::Reverse(t.bytes()));
        let mut layout = Layout::default();
        // The spans of each slot, in order.
        let mut taken: Vec<Vec<Span>> = Vec::new();
        for tensor in tensors {
            let (first, last) = spans[&tensor.id];
            let place = |taken: &Vec<Span>| {
                let at = taken.partition_point(|span| span.1 < first);
                taken.get(at).is_none_or(|next| last < next.0).then_some(at)
            };
            // Slots are sorted by descending size.
            let found = taken.iter().enumerate().rev().find_map(|(slot, spans)| Some((slot, place(spans)?)));
            let (slot, at) = found.unwrap_or_else(|| {
                layout.slots.push(tensor.bytes());
                taken.push(Vec::new());
                (taken.len() - 1, 0)
            });
            taken[slot].insert(at, (first, last));
            layout.slot_of.insert(tensor.id, slot);
        }
        layout
    }
}

/// Buffers for activations, shared by several plans, since they never run at the same time. Build the largest plan
/// first: the others then fit into its buffers.
#[derive(Clone, Default)]
pub struct Arena {
    buffers: Arc<Mutex<Vec<Buffer>>>,
}

impl Arena {
    /// An arena without memory.
    pub fn new() -> Arena {
        Arena::default()
    }

    /// Returns a buffer for each slot: the largest slot gets the largest buffer; buffers that are too small are
    /// replaced.
    pub(super) fn place(&self, gpu: &Gpu, layout: &Layout) -> Result<Vec<Buffer>> {
        let mut shared = self.buffers.lock().unwrap();
        let mut buffers = shared.clone();
        if buffers.iter().any(|buffer| !buffer.is_of(gpu)) {
            return Err(Error::config("arena", "holds memory of another device: use one arena per device"));
        }
        buffers.sort_by_key(|b| std::cmp::Reverse(b.bytes()));
        let mut order: Vec<usize> = (0..layout.slots.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(layout.slots[*i]));
        let mut placed: Vec<Option<Buffer>> = vec![None; layout.slots.len()];
        for (rank, slot) in order.into_iter().enumerate() {
            let bytes = layout.slots[slot];
            if buffers.get(rank).is_none_or(|b| b.bytes() < bytes) {
                let fresh =
                    gpu.releasable_buffer(format!("activations {rank}"), Category::Activations, bytes)?;
                match buffers.get_mut(rank) {
                    Some(small) => *small = fresh,
                    None => buffers.push(fresh),
                }
            }
            placed[slot] = Some(buffers[rank].clone());
        }
        // If an allocation fails, the arena is unchanged.
        *shared = buffers;
        Ok(placed.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::launch::{Groups, Launch, Work, read, write};
    use super::*;

    fn launch(recorder: &mut Recorder, reads: &[Tensor], writes: &[Tensor]) {
        let args = reads.iter().map(|t| read("x", *t)).chain(writes.iter().map(|t| write("y", *t)));
        recorder.launch(Launch {
            kernel: "none",
            constants: vec![],
            params: vec![],
            args: args.collect(),
            groups: Groups::over(1, 1),
            work: Work::default(),
        });
    }

    #[test]
    fn a_chain_of_tensors_needs_two_slots() {
        let mut r = Recorder::default();
        let t: Vec<Tensor> = (0..10).map(|i| r.tensor(format!("t{i}"), 8, 4)).collect();
        for pair in t.windows(2) {
            launch(&mut r, &pair[..1], &pair[1..]);
        }
        assert_eq!(Layout::plan(&r).slots, vec![128, 128]);
    }

    #[test]
    fn tensors_that_are_alive_at_the_same_time_never_share_a_slot() {
        let mut r = Recorder::default();
        let a = r.tensor("a", 8, 1);
        let b = r.tensor("b", 4, 1);
        let c = r.tensor("c", 16, 1);
        let d = r.tensor("d", 4, 1);
        launch(&mut r, &[], &[a]);
        launch(&mut r, &[a], &[b]);
        launch(&mut r, &[b], &[c]);
        launch(&mut r, &[a, c], &[d]);
        r.output(d);
        let layout = Layout::plan(&r);
        let slot = |t: Tensor| layout.slot_of[&t.id];
        assert_ne!(slot(a), slot(b));
        assert_ne!(slot(a), slot(c));
        assert_ne!(slot(b), slot(c));
        assert_eq!(slot(b), slot(d), "b is not needed any more when d is written");
    }

    #[test]
    fn a_small_tensor_does_not_take_the_slot_of_a_large_one() {
        let mut r = Recorder::default();
        let [first, small, second, end] =
            [("a", 100), ("b", 1), ("c", 100), ("d", 1)].map(|(name, rows)| r.tensor(name, rows, 1));
        launch(&mut r, &[], &[first]);
        launch(&mut r, &[first], &[small]);
        launch(&mut r, &[], &[second]);
        launch(&mut r, &[small, second], &[end]);
        assert_eq!(Layout::plan(&r).slots, [400, 4, 4]);
    }

    #[test]
    fn an_output_keeps_its_slot_to_the_end() {
        let mut r = Recorder::default();
        let t: Vec<Tensor> = (0..4).map(|i| r.tensor(format!("t{i}"), 1, 1)).collect();
        r.output(t[0]);
        for pair in t.windows(2) {
            launch(&mut r, &pair[..1], &pair[1..]);
        }
        let layout = Layout::plan(&r);
        assert!(t[1..].iter().all(|x| layout.slot_of[&x.id] != layout.slot_of[&t[0].id]));
    }
}
