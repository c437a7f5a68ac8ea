//! Self-attention over prefix trees: the keys that a query sees are two ranges of rows.

use std::sync::Arc;

use super::case::{Case, Input};
use super::linear::{LowRank, Norm, aligned};
use super::projection::{self, Prepared, Projection};
use super::tile::{self, lanes};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Dim, Format, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

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
        let (groups, mut constants) = tile::divide(tile, x.rows, piece.rows, aligned(&[x.cols]));
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

/// A prompt's length and its responses'.
type Tree = (usize, &'static [usize]);

/// The spans and ends of trees.
fn trees(trees: &[Tree]) -> (Vec<u32>, Vec<u32>) {
    let (mut spans, mut ends) = (Vec::new(), Vec::new());
    for (prompt, responses) in trees {
        let start = ends.len();
        let (middle, end) = (start + prompt, start + prompt + responses.iter().sum::<usize>());
        for row in start..middle {
            spans.extend([start, start, start, row + 1]);
            ends.push(end);
        }
        for response in *responses {
            let own = ends.len();
            for row in own..own + response {
                spans.extend([start, middle, own, row + 1]);
                ends.push(own + response);
            }
        }
    }
    let integers = |v: Vec<usize>| v.into_iter().map(|x| x as u32).collect();
    (integers(spans), integers(ends))
}

fn reference_spans(spans: &[f64]) -> Vec<reference::Span> {
    let span = |s: &[f64]| {
        let [prefix_start, prefix_end, own_start, own_end] = [0, 1, 2, 3].map(|i| s[i] as u32);
        reference::Span { prefix_start, prefix_end, own_start, own_end }
    };
    spans.chunks(4).map(span).collect()
}

/// A case's size: N rows in trees, the rest seeing nothing; C; the heads; ranks of low-rank terms on q, k and v.
struct Size {
    trees: &'static [Tree],
    empty: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ranks: [usize; 3],
    /// Of the projection.
    format: Format,
}

const EPS: f32 = 1e-3;

/// Inputs: x, gain, qkv, spans, ends, table, dout, then A and B of q, k and v.
fn inputs(size: &Size, spans: &[u32], ends: &[u32], inv_freq: &[f64], watched: bool) -> Vec<Input> {
    let watch = |input: Input| if watched { input.watched() } else { input };
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let n = ends.len();
    let positions = spans.chunks(4).map(|s| s[1] - s[0] + s[3] - s[2]).max().unwrap_or(1).max(1) as usize;
    let mut out = vec![
        watch(Input::normal(1, n, c, 1.0).live(0)),
        watch(Input::normal(2, 1, c, 1.0)),
        watch(Input::normal(3, (heads + 2 * kv_heads) * d, c, 1.5 / (c as f32).sqrt())).stored(size.format),
        Input::u32(spans.to_vec(), n, 4).live(0),
        Input::u32(ends.to_vec(), n, 1).live(0),
        Input::f32(rope_table(inv_freq, positions), positions, d),
        Input::normal(4, n, heads * d, 1.0).live(0),
    ];
    for (i, (rank, heads)) in ranks.into_iter().zip([heads, kv_heads, kv_heads]).enumerate() {
        out.push(watch(Input::normal(5 + 2 * i as u32, rank.max(1), c, 0.3)));
        out.push(watch(Input::normal(6 + 2 * i as u32, heads * d, rank.max(1), 0.3)));
    }
    out
}

/// The block's matrices with their low-rank terms, and what `reference` makes of them.
struct Expected {
    weights: Vec<f64>,
    normed: Vec<f64>,
    inv: Vec<f64>,
    qkv: [Vec<f64>; 3],
    out: Vec<f64>,
    lse: Vec<f64>,
}

fn expected(v: &[Vec<f64>], size: &Size, inv_freq: &[f64], n: usize) -> Expected {
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let mut weights = v[2].clone();
    let mut first = 0;
    for (i, (rank, heads)) in ranks.into_iter().zip([heads, kv_heads, kv_heads]).enumerate() {
        for (o, j) in (0..heads * d).flat_map(|o| (0..c).map(move |j| (o, j))) {
            let term =
                (0..rank).map(|k| 0.5 * v[8 + 2 * i][o * rank + k] * v[7 + 2 * i][k * c + j]).sum::<f64>();
            weights[(first + o) * c + j] += term;
        }
        first += heads * d;
    }
    let (normed, inv) = reference::rmsnorm_forward(&v[0], &v[1], EPS as f64);
    let positions = positions(&v[3]);
    let (keys, values) = (heads * d, (heads + kv_heads) * d);
    let project = |rows: std::ops::Range<usize>| {
        reference::linear_forward(&normed, &weights[rows.start * c..rows.end * c], n, c, rows.len())
    };
    let turn = |x: Vec<f64>, heads| reference::rope_forward(&x, &positions, inv_freq, heads, d);
    let q = turn(project(0..keys), heads);
    let k = turn(project(keys..values), kv_heads);
    let value = project(values..values + kv_heads * d);
    let (spans, scale) = (reference_spans(&v[3]), (d as f64).powf(-0.5));
    let (out, lse) = reference::attention_forward(&q, &k, &value, &spans, heads, kv_heads, d, scale);
    Expected { weights, normed, inv, qkv: [q, k, value], out, lse }
}

fn positions(spans: &[f64]) -> Vec<u32> {
    spans.chunks(4).map(|s| ((s[1] - s[0] + s[3] - s[2]) as u32).max(1) - 1).collect()
}

/// dx, dgain, dqkv, then dA and dB of every low-rank term.
fn expected_gradients(v: &[Vec<f64>], size: &Size, inv_freq: &[f64], n: usize) -> Vec<Vec<f64>> {
    let Size { hidden: c, heads, kv_heads, head_dim: d, ranks, .. } = *size;
    let e = expected(v, size, inv_freq, n);
    let (spans, scale, positions) = (reference_spans(&v[3]), (d as f64).powf(-0.5), positions(&v[3]));
    let [q, k, value] = &e.qkv;
    let (dq, dk, dv) =
        reference::attention_backward(q, k, value, &spans, &e.out, &e.lse, &v[6], heads, kv_heads, d, scale);
    let dq = reference::rope_backward(&dq, &positions, inv_freq, heads, d);
    let dk = reference::rope_backward(&dk, &positions, inv_freq, kv_heads, d);
    let (mut dnormed, mut dw, mut low, mut first) = (vec![0.0; n * c], Vec::new(), Vec::new(), 0);
    for (i, dy) in [dq, dk, dv].into_iter().enumerate() {
        let (rows, rank) = (dy.len() / n, ranks[i]);
        let w = &e.weights[first * c..(first + rows) * c];
        dnormed = reference::residual_add(&dnormed, &reference::linear_backward_input(&dy, w, n, c, rows));
        let d = reference::linear_backward_weight(&dy, &e.normed, n, c, rows);
        if rank > 0 {
            // dA = scale Bᵀ dW, dB = scale dW Aᵀ.
            let (a, b) = (&v[7 + 2 * i], &v[8 + 2 * i]);
            let at_a = |k: usize, j: usize| (0..rows).map(|o| 0.5 * b[o * rank + k] * d[o * c + j]).sum();
            let at_b = |o: usize, k: usize| (0..c).map(|j| 0.5 * d[o * c + j] * a[k * c + j]).sum();
            low.push((0..rank * c).map(|m| at_a(m / c, m % c)).collect());
            low.push((0..rows * rank).map(|m| at_b(m / rank, m % rank)).collect());
        }
        dw.extend(d);
        first += rows;
    }
    let (dx, dgain) = reference::rmsnorm_backward(&v[0], &v[1], &e.inv, &dnormed);
    [dx, dgain, dw].into_iter().chain(low).collect()
}

/// Trees after `known` rows that lie in a cache. `reference` goes through those anew for every tree.
fn after_case(
    name: &str,
    size: Arc<Size>,
    known: usize,
    rest: &'static [Tree],
    inv_freq: &[f64],
    shape: AttentionShape,
    projection: impl Fn(&[Tensor]) -> Projection + Send + Sync + 'static,
) -> Case {
    let AttentionShape { kv_heads, head_dim, .. } = shape;
    let (known_spans, _) = trees(&[(known, &[])]);
    let (spans, ends) = trees(rest);
    let whole: Vec<Tree> = rest.iter().map(|(prompt, responses)| (known + prompt, *responses)).collect();
    let (whole_spans, whole_ends) = trees(&whole);
    let positions = whole_ends.len();
    let mut inputs = inputs(&size, &spans, &ends, inv_freq, false);
    inputs[5] = Input::f32(rope_table(inv_freq, positions), positions, head_dim);
    inputs.push(Input::normal(20, known, size.hidden, 1.0).live(1));
    inputs.push(Input::u32(known_spans, known, 4).live(1));
    let inv_freq = inv_freq.to_vec();
    Case::new(
        "self_attention_after",
        name,
        inputs,
        move |r, t| {
            let (x, spans, qkv) = (t[13], t[14], projection(t));
            let kv = r.tensor("cache", x.rows, 2 * kv_heads * head_dim);
            self_attention(r, x, &qkv, shape, spans, t[5], KeySource::Cache { kv, apart: false })?;
            let keys = KeySource::After { kv, keys: x.rows };
            Ok(vec![self_attention(r, t[0], &qkv, shape, t[3], t[5], keys)?])
        },
        move |v| {
            let (c, mut x, mut own, mut first) = (size.hidden, Vec::new(), Vec::new(), 0);
            for (prompt, responses) in rest {
                x.extend(&v[13]);
                let rows = prompt + responses.iter().sum::<usize>();
                own.extend(x.len() / c..x.len() / c + rows);
                x.extend(&v[0][first * c..(first + rows) * c]);
                first += rows;
            }
            let mut v = v.to_vec();
            v[0] = x;
            v[3] = whole_spans.iter().map(|s| *s as f64).collect();
            let out = expected(&v, &size, &inv_freq, positions).out;
            let cols = shape.heads * head_dim;
            vec![own.iter().flat_map(|row: &usize| out[row * cols..(row + 1) * cols].to_vec()).collect()]
        },
    )
}

pub(super) fn cases() -> Vec<Case> {
    const BATCH: [Tree; 16] = [(128, &[]); 16];
    let size = |trees, empty, hidden, heads, kv_heads, head_dim, ranks| Size {
        trees,
        empty,
        hidden,
        heads,
        kv_heads,
        head_dim,
        ranks,
        format: Format::F32,
    };
    let sizes: [Size; 10] = [
        size(&[(1, &[])], 0, 1, 1, 1, 8, [0; 3]),
        size(&[(5, &[3, 4])], 2, 12, 4, 2, 8, [4, 0, 4]),
        size(&[(31, &[33, 1]), (2, &[])], 0, 33, 6, 1, 16, [0, 3, 0]),
        size(&[(63, &[]), (1, &[1, 1]), (17, &[5, 64])], 1, 20, 3, 3, 24, [0; 3]),
        size(&[(67, &[13])], 0, 16, 2, 1, 64, [8, 4, 4]),
        size(&[(7, &[3, 11])], 0, 8, 2, 2, 8, [0; 3]),
        size(&[(9, &[]), (5, &[3, 4]), (1, &[1]), (70, &[])], 0, 12, 4, 2, 8, [4, 0, 4]),
        size(&BATCH, 0, 64, 8, 4, 8, [0; 3]),
        // Frozen weights of 16 bits.
        Size { format: Format::F16, ..size(&[(5, &[3, 4])], 2, 12, 4, 2, 8, [4, 0, 4]) },
        Size { format: Format::Bf16, ..size(&[(7, &[3, 11])], 0, 16, 2, 1, 8, [0; 3]) },
    ];
    let mut out = Vec::new();
    for size in sizes {
        let Size { hidden, heads, kv_heads, head_dim, ranks, format, .. } = size;
        let (mut spans, mut ends) = trees(size.trees);
        spans.extend(vec![0; 4 * size.empty]);
        ends.extend(vec![0; size.empty]);
        let n = ends.len();
        let name = format!(
            "N {n} C {hidden} H {heads} K {kv_heads} D {head_dim} trees {} R {ranks:?} {format:?}",
            size.trees.len()
        );
        let inv_freq: Vec<f64> =
            (0..head_dim / 2).map(|j| 1e4f64.powf(-2.0 * j as f64 / head_dim as f64)).collect();
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: (head_dim as f32).powf(-0.5) };
        let projection = move |t: &[Tensor]| {
            let firsts = [0, heads * head_dim, (heads + kv_heads) * head_dim];
            let low = |i: usize| (firsts[i], LowRank { a: t[7 + 2 * i], b: t[8 + 2 * i], scale: 0.5 });
            let low_rank = (0..3).filter(|i| ranks[*i] > 0).map(low).collect();
            Projection { norm: Norm { gain: t[1], eps: EPS }, weights: t[2].into(), low_rank }
        };
        let record = move |r: &mut Recorder, t: &[Tensor]| {
            self_attention(r, t[0], &projection(t), shape, t[3], t[5], KeySource::Rows { ends: Some(t[4]) })
        };
        let size = Arc::new(size);
        let (sized, frequencies) = (size.clone(), inv_freq.clone());
        out.push(Case::new(
            "self_attention_forward",
            &name,
            inputs(&size, &spans, &ends, &inv_freq, true),
            move |r, t| Ok(vec![record(r, t)?]),
            move |v| vec![expected(v, &sized, &frequencies, n).out],
        ));
        let (sized, frequencies) = (size.clone(), inv_freq.clone());
        out.push(Case::new(
            "self_attention_backward",
            &name,
            inputs(&size, &spans, &ends, &inv_freq, true),
            move |r, t| {
                let y = record(r, t)?;
                r.backward(&[(y, t[6])])?;
                Ok([&t[..3], &t[7..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let mut all = expected_gradients(v, &sized, &frequencies, n);
                if format != Format::F32 {
                    all.remove(2);
                }
                all
            },
        ));
        // Trees after the first one's prompt, which lies in a cache.
        if let [(known, []), rest @ ..] = size.trees
            && !rest.is_empty()
            && size.empty == 0
        {
            out.push(after_case(&name, size.clone(), *known, rest, &inv_freq, shape, projection));
        }
        // Over a cache that the rows fill themselves: all at once, and each row by itself.
        for apart in [false, true] {
            let (sized, frequencies) = (size.clone(), inv_freq.clone());
            out.push(Case::new(
                if apart { "self_attention_decode" } else { "self_attention_prefill" },
                &name,
                inputs(&size, &spans, &ends, &inv_freq, false),
                move |r, t| {
                    let kv = r.tensor("cache", n, 2 * kv_heads * head_dim);
                    Ok(vec![self_attention(
                        r,
                        t[0],
                        &projection(t),
                        shape,
                        t[3],
                        t[5],
                        KeySource::Cache { kv, apart },
                    )?])
                },
                move |v| vec![expected(v, &sized, &frequencies, n).out],
            ));
        }
    }
    out
}
