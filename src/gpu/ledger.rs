//! Bytes on a device, counted by what they are for.

use std::collections::BTreeMap;

use crate::error::{Error, Remedy, Result};

/// What a buffer's bytes are for, in the memory report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Category {
    /// Model weights, trained or frozen.
    Weights,
    /// Gradients of trained weights.
    Gradients,
    /// The optimiser's moments.
    Optimiser,
    /// Activations and their gradients, which plans share.
    Activations,
    /// Keys and values of the sequences being generated.
    KvCache,
    /// Token ids, positions, read-back staging, kernel parameters.
    Workspace,
}

impl Category {
    /// What a reader calls it.
    pub fn name(self) -> &'static str {
        match self {
            Category::Weights => "weights",
            Category::Gradients => "gradients",
            Category::Optimiser => "optimiser",
            Category::Activations => "activations",
            Category::KvCache => "KV cache",
            Category::Workspace => "workspace",
        }
    }

    /// What makes a single buffer of this kind smaller.
    pub(super) fn remedy(self) -> Remedy {
        match self {
            Category::Weights => Remedy::SmallerModel,
            Category::Gradients | Category::Optimiser => Remedy::FewerTrained,
            Category::Activations | Category::KvCache | Category::Workspace => Remedy::SmallerBatch,
        }
    }
}

/// Bytes held now and at most, by category.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Bytes held now.
    pub bytes: BTreeMap<Category, u64>,
    /// The sum of `bytes`.
    pub total: u64,
    /// The largest `total` so far.
    pub peak: u64,
}

/// Memory that can be given back until it is needed again.
pub(super) trait Releasable: Send + Sync {
    /// Gives it back, unless somebody relies on what is in it. Returns the bytes.
    fn release(&self) -> u64;
}

#[derive(Default)]
pub(super) struct Ledger {
    pub report: MemoryReport,
    /// What `report.total` may not exceed.
    limit: Option<u64>,
}

impl Ledger {
    /// An empty one.
    pub fn up_to(limit: Option<u64>) -> Ledger {
        Ledger { limit, ..Ledger::default() }
    }

    /// Counts bytes, unless they are more than the limit allows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for `what`.
    pub fn add(&mut self, what: &str, category: Category, bytes: u64) -> Result<()> {
        let (held, limit) = (self.report.total, self.limit);
        if limit.is_some_and(|limit| bytes > limit.saturating_sub(held)) {
            let remedy = Remedy::LessMemory;
            return Err(Error::OutOfMemory { what: what.into(), bytes, held, limit, remedy });
        }
        *self.report.bytes.entry(category).or_default() += bytes;
        self.report.total += bytes;
        self.report.peak = self.report.peak.max(self.report.total);
        Ok(())
    }

    pub fn remove(&mut self, category: Category, bytes: u64) {
        *self.report.bytes.entry(category).or_default() -= bytes;
        self.report.total -= bytes;
    }
}
