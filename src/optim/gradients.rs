//! Sums gradients over several ranks. Each rank has the gradients of its own rows.

use super::state::slice;
use crate::collective::{Ranks, SumDtype};
use crate::error::Result;
use crate::gpu::Region;
use crate::model::Weights;
use crate::task::both;

/// Elements exchanged at a time, while the next ones are copied from the device.
const BUCKET: usize = 1 << 20;

/// Replaces every gradient with its sum over all ranks, see [`Ranks::sum`]: the same bits on every rank.
///
/// # Errors
/// Errors of the device; [`Error::Ranks`](crate::Error::Ranks) if a rank cannot be reached.
pub async fn sum_gradients(weights: &Weights, ranks: &Ranks, dtype: SumDtype) -> Result<()> {
    let gpu = weights.gpu();
    let buckets: Vec<Region> =
        weights.segments.iter().flat_map(|segment| buckets(&segment.gradients)).collect();
    let exchanging = ranks.exchanging();
    let mut coming = match buckets.first() {
        Some(first) => gpu.download::<f32>(first).await?,
        None => Vec::new(),
    };
    for (i, bucket) in buckets.iter().enumerate() {
        let mut numbers = std::mem::take(&mut coming);
        let next = async {
            match buckets.get(i + 1) {
                Some(next) => gpu.download::<f32>(next).await,
                None => Ok(Vec::new()),
            }
        };
        let (summed, next) = both(ranks.sum(&mut numbers, dtype), next).await;
        summed?;
        coming = next?;
        gpu.upload(bucket, &numbers)?;
    }
    exchanging.done();
    Ok(())
}

/// Splits a region into the parts that are exchanged at a time.
fn buckets(region: &Region) -> impl Iterator<Item = Region> {
    let elements = region.bytes as usize / size_of::<f32>();
    let part = move |first: usize| slice(region, &(first..(first + BUCKET).min(elements)));
    (0..elements).step_by(BUCKET).map(part)
}
