//! The state of an optimiser: all of it, or this rank's part of it (Rajbhandari et al. 2020, ZeRO, stage 1, arXiv
//! 1910.02054).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::collective::{Exchanging, Ranks, part_of};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Category, Gpu, Region};
use crate::model::FloatFormat;
use crate::model::Weights;
use crate::model::safetensors_io::{TensorFiles, TensorSpec, TensorWriter};

/// A tensor of the state.
pub(super) struct Moment {
    /// Its name in a checkpoint.
    name: String,
    buffer: Buffer,
    /// The elements that this rank holds.
    part: Range<usize>,
    whole: usize,
}

impl Moment {
    /// Allocates these elements of `whole`.
    pub fn new(gpu: &Gpu, name: String, part: Range<usize>, whole: usize) -> Result<Moment> {
        // With more ranks than parts, the part may be empty.
        let bytes = part.len().max(1) * size_of::<f32>();
        let buffer = gpu.buffer(&name, Category::Optimiser, bytes as u64)?;
        Ok(Moment { name, buffer, part, whole })
    }

    pub fn region(&self) -> Region {
        slice(&self.buffer.region(), &(0..self.part.len()))
    }
}

async fn download(gpu: &Gpu, region: &Region) -> Result<Vec<f32>> {
    if region.bytes == 0 { Ok(Vec::new()) } else { gpu.download(region).await }
}

/// Granularity of the parts, in elements: at these offsets a binding is aligned on every GPU.
const UNIT: usize = 256 / size_of::<f32>();

/// Returns the elements that rank `rank` of `size` updates, of a segment of `elements`.
pub(super) fn shard(elements: usize, rank: usize, size: usize) -> Range<usize> {
    let part = part_of(elements.div_ceil(UNIT), rank, size);
    (part.start * UNIT).min(elements)..(part.end * UNIT).min(elements)
}

/// Returns a part of a region of f32.
pub(super) fn slice(region: &Region, part: &Range<usize>) -> Region {
    let bytes = |elements: usize| (elements * size_of::<f32>()) as u64;
    Region {
        buffer: region.buffer.clone(),
        offset: region.offset + bytes(part.start),
        bytes: bytes(part.len()),
    }
}

/// Writes the state to a safetensors file. Every rank calls this; all send their parts to rank 0, which has a `path`.
pub(super) async fn save(
    gpu: &Gpu,
    moments: &[Moment],
    steps: u64,
    shards: Option<&Ranks>,
    path: Option<&Path>,
) -> Result<()> {
    let spec = |moment: &Moment| TensorSpec {
        name: moment.name.clone(),
        shape: vec![moment.whole],
        format: FloatFormat::F32,
    };
    let metadata = BTreeMap::from([("steps".to_owned(), steps.to_string())]);
    let exchanging = shards.map(Ranks::exchanging);
    let mut file = match path {
        Some(path) => Some(TensorWriter::create(path, moments.iter().map(spec).collect(), &metadata)?),
        None => None,
    };
    // Sorted as in the file.
    let mut names: Vec<&str> = moments.iter().map(|moment| moment.name.as_str()).collect();
    names.sort_unstable();
    for name in names {
        let moment = moments.iter().find(|moment| moment.name == name).expect("one of them");
        let mine = download(gpu, &moment.region()).await?;
        let whole = match shards {
            None => mine,
            Some(ranks) => ranks.to_first(&mine).await?,
        };
        if let Some(file) = &mut file {
            debug_assert_eq!(file.wants().map(|spec| spec.name.as_str()), Some(name));
            file.push(&whole)?;
        }
    }
    exchanging.into_iter().for_each(Exchanging::done);
    file.map_or(Ok(()), TensorWriter::finish)
}

/// Reads this rank's part of a state that [`save`] wrote for the same weights. Returns the number of updates before it
/// was saved.
///
/// # Errors
/// Errors of the file, in most cases before anything is changed.
pub(super) fn restore(gpu: &Gpu, moments: &[Moment], path: &Path) -> Result<u64> {
    let found = TensorFiles::open_file(path)?;
    let steps = found.metadata().get("steps").and_then(|s| s.parse().ok());
    let steps = steps.ok_or_else(|| {
        Error::file(path, "does not contain the number of steps after which it was written")
    })?;
    for moment in moments {
        found.check(&moment.name, &[moment.whole])?;
    }
    for moment in moments {
        let whole = found.read_f32(&moment.name, &[moment.whole])?;
        if !moment.part.is_empty() {
            gpu.upload(&moment.region(), &whole[moment.part.clone()])?;
        }
    }
    Ok(steps)
}

/// Sends every rank the weights that the other ranks have updated.
pub(super) async fn gather_weights(weights: &Weights, ranks: &Ranks) -> Result<()> {
    let gpu = weights.gpu();
    let exchanging = ranks.exchanging();
    for segment in &weights.segments {
        let part = |rank: usize| shard(segment.elements, rank, ranks.size());
        let mine = download(gpu, &slice(&segment.values, &part(ranks.rank()))).await?;
        for (rank, values) in ranks.exchange(mine).await?.into_iter().enumerate() {
            if rank != ranks.rank() && !values.is_empty() {
                gpu.upload(&slice(&segment.values, &part(rank)), &values)?;
            }
        }
    }
    exchanging.done();
    Ok(())
}
