//! Times the parts of a training pass: forward, forward and loss, forward and loss and backward.

use super::subject::Flops;
use super::{Batch, Case, Recipe, Subject};
use crate::Wait;
use crate::data::packing::{Packed, Tree};
use crate::error::Result;
use crate::gpu::{Arena, Plan, PlanOptions, Recorder};
use crate::model::Keys;
use crate::model::stream::{Capacity, Stream};
use crate::ops;

/// The parts for each batch of S sequences of L rows. Every row predicts a token.
pub fn passes(batches: &[Batch]) -> Vec<Recipe> {
    let of_batch = |&b: &Batch| {
        let new = |what: &str, make: fn(&Subject, &str, &[Tree]) -> Result<Case>| {
            let name = format!("{what}, {b}");
            Recipe::new("passes", name.clone(), move |s: &Subject| {
                make(s, &name, &s.trees(b.sequences, 1, 1, b.length))
            })
        };
        [
            new("forward", Subject::forward),
            new("forward + loss", |s, name, trees| s.score("passes", name, trees)),
            new("forward + loss + backward", |s, name, trees| s.sft("passes", name, trees)),
        ]
    };
    batches.iter().flat_map(of_batch).collect()
}

impl Subject {
    /// From token ids to the logits of every row, which stay on the GPU. The other parts never materialise them.
    fn forward(&self, name: &str, trees: &[Tree]) -> Result<Case> {
        let facts = self.facts("passes", name, trees, Flops::forward)?;
        let packed = Packed::new(trees);
        self.step(facts, || {
            let stream = Stream::new(&self.gpu, &self.model, Capacity::of(trees), false)?;
            let mut r = Recorder::new(&self.gpu);
            let (tokens, _) = stream.bind(&mut r);
            let hidden = self.model.hidden(&mut r, &tokens, &Keys::Stream, false)?;
            let normed = self.model.final_norm(&mut r, hidden)?;
            let head = self.model.head(&mut r);
            ops::linear(&mut r, normed, &head.into(), None)?;
            let plan = Plan::new(&self.gpu, r, &Arena::new(), PlanOptions::default()).wait()?;
            Ok(move || plan.run(&stream.upload(&packed)?).wait().map(drop))
        })
    }
}
