//! Bytes allocated on a device, counted by category.

use std::collections::BTreeMap;

use crate::error::{Error, Remedy, Result};

/// What a buffer's bytes are used for, in the memory report.
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
    /// Activations and their gradients, shared by plans.
    Activations,
    /// Keys and values of the sequences being generated.
    KvCache,
    /// Token ids, positions, read-back staging, kernel parameters.
    Workspace,
}

impl Category {
    /// The display name.
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

    /// How to make a single buffer of this category smaller.
    pub(super) fn remedy(self) -> Remedy {
        match self {
            Category::Weights => Remedy::SmallerModel,
            Category::Gradients | Category::Optimiser => Remedy::FewerTrained,
            Category::Activations | Category::KvCache | Category::Workspace => Remedy::SmallerBatch,
        }
    }
}

/// Bytes allocated now and at the peak, by category.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Bytes allocated now.
    pub bytes: BTreeMap<Category, u64>,
    /// The sum of `bytes`.
    pub total: u64,
    /// The largest `total` so far.
    pub peak: u64,
}

/// Memory that can be released until it is needed again.
pub(super) trait Releasable: Send + Sync {
    /// Releases it, unless its contents are needed. Returns the number of bytes released.
    fn release(&self) -> u64;
}

#[derive(Default)]
pub(super) struct Ledger {
    pub report: MemoryReport,
    /// The largest `report.total` allowed.
    limit: Option<u64>,
}

impl Ledger {
    /// Creates an empty ledger.
    pub fn up_to(limit: Option<u64>) -> Ledger {
        Ledger { limit, ..Ledger::default() }
    }

    /// Counts bytes, unless the limit would be exceeded.
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
