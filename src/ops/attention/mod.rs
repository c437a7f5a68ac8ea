//! Self-attention over prefix trees: the keys that a query sees are two ranges of rows.

mod cases;

use super::linear::aligned;
use super::projection::{self, Prepared, Projection};
use super::tile::{self, lanes};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Dim, Groups, Launch, Recorder, Tensor, Word, Work};

pub(super) use cases::{cases, small_cases};

/// How rows divide into heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads, H.
    pub heads: usize,
    /// Kv heads, K, which divides H: head h reads kv head h / (H / K).
    pub kv_heads: usize,
    /// Elements of a head, D: a multiple of 8.
    pub head_dim: usize,
    /// What scores are multiplied with, usually 1 / sqrt(D).
    pub scale: f32,
}

impl AttentionShape {
    /// Columns of queries, keys and values together, O = (H + 2 K) D.
    pub fn columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Where keys and values lie.
#[derive(Clone, Copy, Debug)]
pub enum KeySource {
    /// In the rows themselves. With `ends` (N, 1) there is a gradient rule: the queries that see key j are the rows
    /// `j..ends[j]`: to the end of the tree for a prompt's key, of the response for a response's.
    Rows {
        /// See above.
        ends: Option<Tensor>,
    },
    /// In the rows themselves, and before them `keys` others that every row sees, (P, 2 K D), keys before values: what a
    /// cache was filled with. No gradient.
    After {
        /// The others.
        kv: Tensor,
        /// How many of them count, at most P.
        keys: Dim,
    },
    /// In a cache (M, 2 K D), keys before values, to which the rows' own are written first: each at the last row that
    /// it sees. No gradient.
    Cache {
        /// The cache.
        kv: Tensor,
        /// Whether every row belongs to another sequence, so that rows share no keys.
        apart: bool,
    },
}

/// Cosines, then sines of every position's angles: (positions, D), row-major. Made in `f64`, since the sines of drivers
/// lose the large angles. `inv_freq` (D/2) is in radians a position.
pub fn rope_table(inv_freq: &[f64], positions: usize) -> Vec<f32> {
    let row = |position: usize| {
        let angles = inv_freq.iter().map(move |f| position as f64 * f);
        angles.clone().map(f64::cos).chain(angles.map(f64::sin)).map(|x| x as f32)
    };
    (0..positions).flat_map(row).collect()
}

/// Lanes of a workgroup where each has a query or a key.
const LANES: u32 = 64;
/// About as many keys as a query sees, where there are that many: for the time cap, since spans are known to the
/// GPU alone.
const USUAL_KEYS: u32 = 256;

/// Queries, keys and values of the normalised rows, the former two turned by their positions' angles (Su et al. 2021,
/// arXiv 2104.09864), then softmax attention; probabilities are recomputed in the backward pass (Dao et al. 2022,
/// arXiv 2205.14135).
///   x (N, C)  qkv ((H + 2 K) D, C)  spans (N, 4) integers  table (positions, D)  ->  (N, H D)
///
/// A row of `spans` is prefix start, prefix end, own start, own end: the row sees the keys of both half-open ranges, which
/// do not overlap and of which its own is the last. Their number less one is its position, after [`KeySource::After`]'s.
/// A row without keys gives zeros. Every position must have its row in the table, see [`rope_table`].
pub fn self_attention(
    r: &mut Recorder,
    x: Tensor,
    qkv: &Projection,
    shape: AttentionShape,
    spans: Tensor,
    table: Tensor,
    keys: KeySource,
) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    assert_eq!((heads % kv_heads, head_dim % 8), (0, 0), "self_attention: {shape:?}");
    assert_eq!((qkv.weights.rows, table.cols), (shape.columns(), head_dim), "self_attention: {shape:?}");
    assert_eq!((spans.rows, spans.cols), (x.rows, 4), "self_attention: spans");
    let prepared = projection::prepare(r, x, qkv);
    let columns = match keys {
        KeySource::Rows { .. } | KeySource::After { .. } => shape.columns(),
        KeySource::Cache { .. } => heads * head_dim,
    };
    let q = r.tensor("qkv", x.rows, columns);
    launch_qkv(r, x, qkv, &prepared, shape, spans, table, q, keys);
    let out = r.tensor("attention", x.rows, heads * head_dim);
    let ends = match keys {
        KeySource::Rows { ends: Some(ends) } => ends,
        _ => {
            match keys {
                KeySource::Cache { kv, apart: true } => launch_decode(r, shape, q, kv, spans, out),
                _ => launch_forward(r, shape, q, keys, spans, out, None),
            }
            return Ok(out);
        }
    };
    assert_eq!((ends.rows, ends.cols), (x.rows, 1), "self_attention: ends");
    let stats = r.tensor("attention stats", x.rows, 2 * heads);
    launch_forward(r, shape, q, keys, spans, out, Some(stats));
    let outputs: Vec<Tensor> = prepared.outputs().chain([q, out, stats]).collect();
    let qkv = qkv.clone();
    r.rule(&outputs, move |r| {
        let Some(dout) = r.gradient(out) else { return Ok(()) };
        let dq = r.tensor("d qkv", x.rows, columns);
        let reads = [q, spans, table, dout, out];
        launch_backward(r, "attention_backward_query", shape, &reads, &[stats, dq], heads);
        let reads = [q, spans, ends, table, dout, stats];
        launch_backward(r, "attention_backward_key_value", shape, &reads, &[dq], kv_heads);
        projection::backward(r, x, &qkv, &prepared, dq);
        Ok(())
    });
    Ok(out)
}

fn constants(shape: AttentionShape, together: bool) -> Vec<(&'static str, u32)> {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    vec![
        ("HEADS", heads as u32),
        ("KV_HEADS", kv_heads as u32),
        ("DIM", head_dim as u32),
        ("TOGETHER", together as u32),
    ]
}

#[allow(clippy::too_many_arguments, reason = "the operands of one launch")]
fn launch_qkv(
    r: &mut Recorder,
    x: Tensor,
    p: &Projection,
    prepared: &Prepared,
    shape: AttentionShape,
    spans: Tensor,
    table: Tensor,
    q: Tensor,
    keys: KeySource,
) {
    let cache = match keys {
        KeySource::Rows { .. } | KeySource::After { .. } => None,
        KeySource::Cache { kv, .. } => Some(kv),
    };
    for piece in &p.weights.pieces {
        assert_eq!(piece.rows % shape.head_dim, 0, "a head is torn apart");
        let mut args = [x, piece.part, p.norm.gain, spans, table].map(|t| (t, Access::Read)).to_vec();
        args.extend(prepared.addend.map(|t| (t, Access::Read)));
        args.extend([q].into_iter().chain(cache).chain(prepared.inv).map(|t| (t, Access::Write)));
        let (tile, arithmetic) = tile::of_product(r, x.rows, piece.part.format);
        let (groups, mut constants) = tile::divide(r, tile, x.rows, piece.rows, aligned(&[x.cols]));
        constants.extend(arithmetic);
        constants.extend(self::constants(shape, cache.is_none()));
        constants.extend([
            ("NORM", 1),
            ("ADDEND", prepared.addend.is_some() as u32),
            ("CACHE", cache.is_some() as u32),
            ("KEEP", prepared.inv.is_some() as u32),
        ]);
        r.launch(Launch {
            kernel: KernelKey { name: "qkv_forward", constants },
            params: vec![
                x.rows.into(),
                x.cols.into(),
                piece.rows.into(),
                piece.first.into(),
                piece.first_row.into(),
                before(keys).map_or(Dim::Fixed(0), |(_, count)| count).into(),
                Word::F32(p.norm.eps),
            ],
            args,
            groups,
            work: Work {
                flops: 2.0 * (x.cols * piece.rows) as f64,
                bytes: 4.0 * (x.cols + 2 * piece.rows) as f64,
            },
        });
    }
}

/// The work of a row at `flops` operations for each key and element of a query's heads.
fn work(shape: AttentionShape, keys: u32, flops: u32) -> Work {
    let columns = (shape.heads * shape.head_dim) as f64;
    Work { flops: (flops * keys.min(2 * USUAL_KEYS) / 2) as f64 * columns, bytes: 16.0 * columns }
}

/// The keys that every row sees before its own, and how many they are.
fn before(keys: KeySource) -> Option<(Tensor, Dim)> {
    match keys {
        KeySource::After { kv, keys } => Some((kv, keys)),
        KeySource::Rows { .. } | KeySource::Cache { .. } => None,
    }
}

fn launch_forward(
    r: &mut Recorder,
    shape: AttentionShape,
    q: Tensor,
    keys: KeySource,
    spans: Tensor,
    out: Tensor,
    stats: Option<Tensor>,
) {
    let kv = match keys {
        KeySource::Cache { kv, .. } => kv,
        KeySource::Rows { .. } | KeySource::After { .. } => q,
    };
    let before = before(keys);
    let mut constants = constants(shape, q == kv);
    constants.extend(lanes(r));
    constants.extend([("KEEP", stats.is_some() as u32), ("BEFORE", before.is_some() as u32)]);
    let reads = [q, kv, spans].into_iter().chain(before.map(|b| b.0)).map(|t| (t, Access::Read));
    let writes = [out].into_iter().chain(stats).map(|t| (t, Access::Write));
    r.launch(Launch {
        kernel: KernelKey { name: "attention_forward", constants },
        params: vec![
            q.rows.into(),
            before.map_or(Dim::Fixed(0), |(_, count)| count).into(),
            Word::F32(shape.scale),
        ],
        args: reads.chain(writes).collect(),
        groups: Groups::over(q.rows, LANES).times(shape.heads as u32),
        work: work(shape, kv.rows.max(), 4),
    });
}

fn launch_decode(r: &mut Recorder, shape: AttentionShape, q: Tensor, kv: Tensor, spans: Tensor, out: Tensor) {
    let mut constants = constants(shape, false);
    // A subgroup a query and head, or else a workgroup.
    let (lanes, group) = r.subgroup().map_or((LANES, LANES), |lanes| (lanes, lanes.max(LANES)));
    let subgroup = r.subgroup().is_some() as u32;
    constants.extend([("LANES", lanes), ("GROUP", group), ("SUBGROUP", subgroup)]);
    let per_group = (group / lanes) as usize;
    // Whole rows a workgroup where heads are few, else whole workgroups a row; the rest finds nothing to do.
    let groups = match per_group.is_multiple_of(shape.heads) {
        true => Groups::over(q.rows, (per_group / shape.heads) as u32),
        false => Groups::over(q.rows, 1).times(shape.heads.div_ceil(per_group) as u32),
    };
    r.launch(Launch {
        kernel: KernelKey { name: "attention_decode", constants },
        params: vec![q.rows.into(), Word::F32(shape.scale)],
        args: vec![(q, Access::Read), (kv, Access::Read), (spans, Access::Read), (out, Access::Write)],
        groups,
        work: work(shape, kv.rows.max(), 4),
    });
}

fn launch_backward(
    r: &mut Recorder,
    name: &'static str,
    shape: AttentionShape,
    reads: &[Tensor],
    writes: &[Tensor],
    heads: usize,
) {
    let rows = reads[0].rows;
    let mut constants = constants(shape, true);
    constants.extend(lanes(r));
    let reads = reads.iter().map(|t| (*t, Access::Read));
    r.launch(Launch {
        kernel: KernelKey { name, constants },
        params: vec![rows.into(), Word::F32(shape.scale)],
        args: reads.chain(writes.iter().map(|t| (*t, Access::Write))).collect(),
        groups: Groups::over(rows, LANES).times(heads as u32),
        work: work(shape, rows.max(), 8),
    });
}
