//! Gradients: the backward pass walks the recording in reverse and applies the rules that ops state beside their
//! launches.

use std::sync::Arc;

use super::buffer::Region;
use super::device::Gpu;
use super::recorder::{Recorder, RuleFn};
use super::tensor::{Accumulate, GradientTarget, Tensor};
use crate::error::Result;

type Segment = Arc<dyn Fn(&mut Recorder) -> Result<Tensor> + Send + Sync>;

impl Recorder {
    /// A recording in which ops register their gradient rules.
    pub fn training(gpu: &Gpu) -> Recorder {
        let mut recorder = Recorder::new(gpu);
        recorder.tape.recording = true;
        recorder
    }

    /// Marks `tensor` as trained; its gradient is *added* to `region`, which the caller clears between updates.
    pub fn train(&mut self, tensor: Tensor, region: &Region) {
        if self.tape.recording {
            let gradient = self.bind(region, tensor.rows, tensor.cols, tensor.format);
            self.tape.gradients.insert(tensor.id, gradient);
            self.tape.dependent.insert(tensor.id, true);
        }
    }

    /// Marks `tensor` as an input whose gradient is wanted, in memory that the plan allocates.
    pub fn watch(&mut self, tensor: Tensor) {
        if self.tape.recording {
            self.tape.dependent.insert(tensor.id, true);
        }
    }

    /// Whether `tensor` needs a gradient.
    pub fn needs_gradient(&self, tensor: Tensor) -> bool {
        self.tape.dependent.contains_key(&tensor.id)
    }

    /// Registers the gradient rule of the launches that just wrote `outputs`. The rule runs during
    /// [`Recorder::backward`]; it reads the gradients of its outputs and adds to those of its inputs.
    pub fn rule(
        &mut self,
        outputs: &[Tensor],
        run: impl FnOnce(&mut Recorder) -> Result<()> + Send + 'static,
    ) {
        if !self.tape.recording {
            return;
        }
        let mut needed = false;
        for output in outputs {
            if let Some(covered) = self.tape.dependent.get_mut(&output.id) {
                *covered = true;
                needed = true;
            }
        }
        if needed {
            self.tape.rules.push(Box::new(run));
        }
    }

    /// Returns the gradient of `tensor` accumulated so far, if any.
    pub fn gradient(&self, tensor: Tensor) -> Option<Tensor> {
        self.tape.gradients.get(&tensor.id).copied()
    }

    /// Returns where to write a contribution to the gradient of `tensor`; `None` if none is needed.
    pub fn gradient_target(&mut self, tensor: Tensor) -> Option<GradientTarget> {
        if !self.needs_gradient(tensor) {
            return None;
        }
        if let Some(known) = self.gradient(tensor) {
            return Some(GradientTarget { tensor: known, accumulate: Accumulate::Add });
        }
        let label = format!("d {}", self.label(tensor));
        let gradient = self.tensor(label, tensor.rows, tensor.cols);
        self.tape.gradients.insert(tensor.id, gradient);
        Some(GradientTarget { tensor: gradient, accumulate: Accumulate::Set })
    }

    /// Makes `gradient` the gradient of `tensor`, without a copy. Returns false if `tensor` already has one, to which
    /// the caller must add. No later rule may read `gradient` as the gradient of another tensor.
    pub fn adopt_gradient(&mut self, tensor: Tensor, gradient: Tensor) -> bool {
        if !self.needs_gradient(tensor) {
            return true;
        }
        if self.tape.gradients.contains_key(&tensor.id) {
            return false;
        }
        self.tape.gradients.insert(tensor.id, gradient);
        true
    }

    /// Walks the recording in reverse from `seeds`: pairs of a tensor and its incoming gradient.
    ///
    /// # Errors
    /// [`Error::NoGradient`] if an op on the path has no rule.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)]) -> Result<()> {
        self.tape.check_rules()?;
        for (tensor, gradient) in seeds {
            assert!(
                self.needs_gradient(*tensor),
                "{} has a gradient, but does not depend on a trained tensor",
                self.label(*tensor)
            );
            self.tape.gradients.insert(tensor.id, *gradient);
        }
        let rules = std::mem::take(&mut self.tape.rules);
        self.walk(rules)
    }

    fn walk(&mut self, rules: Vec<RuleFn>) -> Result<()> {
        let recording = std::mem::replace(&mut self.tape.recording, false);
        for rule in rules.into_iter().rev() {
            rule(self)?;
        }
        self.sum_waiting();
        self.tape.recording = recording;
        Ok(())
    }

    /// Activation checkpointing: records `segment` without keeping what its backward pass needs, and records it again
    /// when the gradient arrives. Trades time for memory.
    pub fn checkpoint(
        &mut self,
        segment: impl Fn(&mut Recorder) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        if !self.tape.recording {
            return segment(self);
        }
        let segment: Segment = Arc::new(segment);
        let rules_before = self.tape.rules.len();
        let output = segment(self)?;
        self.tape.check_rules()?;
        // The rules of the first recording never run, so what they keep is dropped.
        self.tape.rules.truncate(rules_before);
        let again = segment.clone();
        self.rule(&[output], move |recorder| {
            let Some(gradient) = recorder.gradient(output) else { return Ok(()) };
            recorder.tape.recording = true;
            let recomputed = again(recorder);
            let rules = std::mem::take(&mut recorder.tape.rules);
            recorder.tape.recording = false;
            recorder.tape.gradients.insert(recomputed?.id, gradient);
            recorder.walk(rules)
        });
        Ok(output)
    }
}
