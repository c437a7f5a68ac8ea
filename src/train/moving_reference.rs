//! A reference model that follows the policy (the soft and hard update of TR-DPO, Gorbatovski et al. 2024, arXiv
//! 2404.09656): after every N steps π₀ ← α π + (1 − α) π₀ for every weight, as in TRL.

use std::path::Path;

use super::options::{ReferenceSync, TrainOptions};
use crate::error::Result;
use crate::gpu::{Arena, Format, Live, Pending, Plan, PlanOptions, Recorder};
use crate::model::storage::{restore_weights, save_weights};
use crate::model::{FloatFormat, Model};
use crate::ops;

/// The file of the reference weights in a checkpoint.
const REFERENCE_FILE: &str = "reference.safetensors";

/// The reference model and the plan that updates it.
pub(crate) struct MovingReference {
    reference: Model,
    plan: Plan,
    every: usize,
}

impl MovingReference {
    /// Creates the update of `reference`, an f32 copy of `policy`, if the options enable it.
    pub async fn asked_for(
        policy: &Model,
        reference: &Model,
        options: &TrainOptions,
    ) -> Result<Option<Self>> {
        match options.reference_sync {
            Some(sync) => MovingReference::new(policy, reference, sync).await.map(Some),
            None => Ok(None),
        }
    }

    /// Creates the update of `reference`, an f32 copy of `policy`.
    pub async fn new(policy: &Model, reference: &Model, sync: ReferenceSync) -> Result<MovingReference> {
        let mut r = Recorder::new(policy.gpu());
        r.phase("reference");
        for (from, to) in policy.base().stacks().zip(reference.base().stacks()) {
            assert_eq!(from.bytes, to.bytes, "the reference has another layout");
            let [from, to] =
                [from, to].map(|region| r.bind(region, 1, region.bytes as usize / 4, Format::F32));
            ops::mix(&mut r, from, to, sync.alpha);
        }
        let plan = Plan::new(policy.gpu(), r, &Arena::new(), PlanOptions::default()).await?;
        Ok(MovingReference { reference: reference.clone(), plan, every: sync.steps })
    }

    /// Whether an update is due after `step` steps.
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Submits an update towards the current policy.
    pub fn submit(&self) -> Result<Pending> {
        self.reference.base().note_change();
        self.plan.submit(&Live::default(), 1).map(Pending::lasting)
    }

    /// Writes the reference weights into the folder of a checkpoint.
    pub async fn save(&self, dir: &Path) -> Result<()> {
        save_weights(self.reference.base(), &dir.join(REFERENCE_FILE), FloatFormat::F32).await
    }

    /// Reads the reference weights from the folder of a checkpoint.
    pub fn restore(&self, dir: &Path) -> Result<()> {
        restore_weights(self.reference.base(), &dir.join(REFERENCE_FILE))
    }
}
