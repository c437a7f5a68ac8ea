//! Checks that training changed the trained weights, and no others.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Region};
use crate::model::{Model, Weights};

/// Trained weights must change and frozen ones must not. Otherwise a run could train nothing while its metrics look
/// fine.
pub(super) struct MovementCheck {
    trained: u64,
    frozen: Option<u64>,
}

/// Samples per tensor: enough to notice an update, few enough for a large model.
const PROBES: u64 = 8;
/// Bytes per sample.
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
    /// Takes fingerprints of the current weights.
    pub async fn before(model: &Model) -> Result<MovementCheck> {
        let trained = fingerprint(model.gpu(), model.trained()).await?;
        let frozen = fingerprint_of_frozen(model).await?;
        Ok(MovementCheck { trained, frozen })
    }

    /// Compares the fingerprints with the current weights. `updated`: whether an update was made since.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] if trained weights have not changed, or frozen ones have.
    pub async fn after(&self, model: &Model, updated: bool) -> Result<()> {
        if updated && fingerprint(model.gpu(), model.trained()).await? == self.trained {
            return Err(Error::SelfCheck(
                "no trained weight changed although updates were made: raise the learning rate, because updates may be lost in \
                 rounding"
                    .into(),
            ));
        }
        let frozen = fingerprint_of_frozen(model).await?;
        match frozen == self.frozen {
            true => Ok(()),
            false => Err(Error::SelfCheck("a frozen weight changed: please report this as a bug".into())),
        }
    }
}
