//! The check that training moved what it should, and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Region};
use crate::model::{Model, Weights};

/// Trained weights must move, frozen ones must not: a run that trains nothing while its metrics look fine is the
/// worst of mistakes.
pub(super) struct MovementCheck {
    trained: u64,
    frozen: Option<u64>,
}

/// Samples of every tensor: enough to notice an update, little enough for a large model.
const PROBES: u64 = 8;
/// Bytes of a sample.
const PROBE_BYTES: u64 = 4 << 10;

async fn fingerprint(gpu: &Gpu, weights: &Weights) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for weight in weights.iter() {
        for (region, ..) in weight.parts() {
            let bytes = region.bytes.min(PROBE_BYTES);
            let last = region.bytes - bytes;
            let probes = if last == 0 { 1 } else { PROBES };
            for i in 0..probes {
                let offset = region.offset + last * i / PROBES.saturating_sub(1).max(1) / 4 * 4;
                let probe = Region { buffer: region.buffer.clone(), offset, bytes };
                gpu.download::<u32>(&probe).await?.hash(&mut hasher);
            }
        }
    }
    Ok(hasher.finish())
}

async fn fingerprint_of_frozen(model: &Model) -> Result<Option<u64>> {
    match model.frozen() {
        Some(weights) => fingerprint(model.gpu(), weights).await.map(Some),
        None => Ok(None),
    }
}

impl MovementCheck {
    /// The weights as they are now.
    pub async fn before(model: &Model) -> Result<MovementCheck> {
        let trained = fingerprint(model.gpu(), model.trained()).await?;
        let frozen = fingerprint_of_frozen(model).await?;
        Ok(MovementCheck { trained, frozen })
    }

    /// `updated`: whether an update was made that must show.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] for trained weights that have not moved, and for frozen ones that have.
    pub async fn after(&self, model: &Model, updated: bool) -> Result<()> {
        if updated && fingerprint(model.gpu(), model.trained()).await? == self.trained {
            return Err(Error::SelfCheck(
                "no trained weight moved although updates were made: raise the learning rate, which may be lost in \
                 rounding"
                    .into(),
            ));
        }
        let frozen = fingerprint_of_frozen(model).await?;
        match frozen == self.frozen {
            true => Ok(()),
            false => Err(Error::SelfCheck("a frozen weight moved: please report this as a bug".into())),
        }
    }
}
