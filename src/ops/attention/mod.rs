//! Attention over prefix trees: a query attends to two ranges of rows.

mod tiles;

use tiles::{DecodeTile, Tile, TiledKernel};

use crate::error::Result;
use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{Arg, Dim, Groups, KeyWork, Launch, Recorder, Tensor, Word, Work, read, write};

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads, H.
    pub heads: usize,
    /// Kv heads, K, a divisor of H: query head h reads kv head h / (H / K).
    pub kv_heads: usize,
    /// Elements per head, D: a multiple of 8.
    pub head_dim: usize,
    /// The factor of the scores, usually 1 / sqrt(D).
    pub scale: f32,
    /// Scores s become cap · tanh(s / cap).
    pub soft_cap: Option<f32>,
    /// A query attends to at most this many keys, the last ones.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Plain attention, with scores divided by sqrt(D).
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
        let scale = 1.0 / (head_dim as f32).sqrt();
        AttentionShape { heads, kv_heads, head_dim, scale, soft_cap: None, window: None }
    }

    /// Columns of queries, keys and values side by side, O = (H + 2 K) D.
    pub fn columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Where keys and values are stored.
#[derive(Clone, Copy, Debug)]
pub enum KeySource {
    /// In the rows themselves. With `ends` (N, 1) there is a gradient rule: the queries that attend to key j are the
    /// rows `j..ends[j]`, i.e. up to the end of the tree for a key of the prompt, and of the response for one of a
    /// response.
    Rows {
        /// See above.
        ends: Option<Tensor>,
    },
    /// In the rows themselves, preceded by `keys` rows that every query attends to, (P, 2 K D), keys before values,
    /// such as a filled cache. No gradient.
    After {
        /// The preceding keys and values.
        kv: Tensor,
        /// How many of them are valid, at most P.
        keys: Dim,
    },
    /// In a cache (M, 2 K D), keys before values, to which the rows' own keys and values were written: each row's at
    /// the last cache row that it attends to. No gradient.
    Cache {
        /// The cache.
        kv: Tensor,
        /// Whether every row belongs to a different sequence, so that rows share no keys.
        apart: bool,
    },
}

impl KeySource {
    /// The keys before the rows' own that every query attends to, and their number.
    pub(super) fn before(self) -> Option<(Tensor, Dim)> {
        match self {
            KeySource::After { kv, keys } => Some((kv, keys)),
            KeySource::Rows { .. } | KeySource::Cache { .. } => None,
        }
    }
}

/// Lanes of a workgroup with one query or one key per lane.
const LANES: u32 = 64;
/// The largest head size of the unrolled kernels over rows. For heads of 256, lavapipe takes minutes to compile the
/// backward kernels, and miscompiles attention_forward with preceding keys (the results are NaN).
const LARGEST_UNROLLED: usize = 128;

/// Softmax attention; the backward pass recomputes the probabilities (Dao et al. 2022, arXiv 2205.14135).
///   q (N, (H + 2 K) D): queries, keys, values, or (N, H D) with the keys in a cache  spans (N, 4) integers  ->  (N, H D)
///
/// A row of `spans` is prefix start, prefix end, own start, own end: the query attends to the keys of both half-open
/// ranges, which do not overlap; its own key is the last of the second. A row without keys gives zeros.
pub fn attention(
    r: &mut Recorder,
    q: Tensor,
    shape: AttentionShape,
    spans: Tensor,
    keys: KeySource,
) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    assert_eq!((heads % kv_heads, head_dim % 8), (0, 0), "attention: {shape:?}");
    assert_eq!((spans.rows, spans.cols), (q.rows, 4), "attention: spans");
    let out = r.tensor("attention", q.rows, heads * head_dim);
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
    assert_eq!((ends.rows, ends.cols), (q.rows, 1), "attention: ends");
    let stats = r.tensor("attention stats", q.rows, 2 * heads);
    launch_forward(r, shape, q, keys, spans, out, Some(stats));
    r.rule(&[out, stats], move |r| {
        let Some(dout) = r.gradient(out) else { return Ok(()) };
        let dq = r.gradient_target(q).expect("the input of attention needs a gradient if its result has one");
        assert_eq!(
            dq.accumulate,
            crate::gpu::Accumulate::Set,
            "an op other than attention reads queries, keys and values"
        );
        launch_backward_query(r, shape, [q, spans, dout, out, stats], dq.tensor);
        launch_backward_key_value(r, shape, [q, spans, ends, dout, stats], dq.tensor);
        Ok(())
    });
    Ok(out)
}

constants! {
    /// The constants of shared/attention.wgsl.
    struct Heads {
        heads: u32,
        kv_heads: u32,
        dim: u32,
        /// Offset of the keys in a row, in vectors of four.
        keys_at: u32,
        soft_cap: bool,
        window: bool,
    }
}

constants! {
    /// Strides of the rows of queries, and of keys and values, in vectors of four.
    struct Strides {
        q_stride: u32,
        kv_stride: u32,
    }
}

constants! {
    /// How lanes share keys in the unrolled kernels.
    struct Lanes {
        /// Whether the lanes of a subgroup share the loads of keys.
        subgroup: bool,
        /// The number of lanes that share.
        lanes: u32,
    }
}

constants! {
    struct Forward {
        /// Whether there are keys before the rows' own.
        before: bool,
        /// Whether log-sum-exps are saved for the backward pass.
        save_stats: bool,
    }
}

constants! {
    struct Sources {
        /// The number of key buffers: 2 if there are keys before the rows' own.
        sources: u32,
    }
}

constants! {
    struct Decode {
        /// Lanes of a workgroup.
        workgroup: u32,
    }
}

impl AttentionShape {
    /// Returns the constants of kernels that read queries and keys.
    fn constants(&self, q: Tensor, kv_cols: usize) -> Vec<(String, Constant)> {
        let mut constants = self.heads_constants(kv_cols);
        constants.extend(Strides { q_stride: q.cols as u32 / 4, kv_stride: kv_cols as u32 / 4 }.list());
        constants
    }

    fn heads_constants(&self, kv_cols: usize) -> Vec<(String, Constant)> {
        let together = kv_cols == self.columns();
        Heads {
            heads: self.heads as u32,
            kv_heads: self.kv_heads as u32,
            dim: self.head_dim as u32,
            keys_at: if together { (self.heads * self.head_dim) as u32 / 4 } else { 0 },
            soft_cap: self.soft_cap.is_some(),
            window: self.window.is_some(),
        }
        .list()
    }

    fn params(&self, rows: Dim) -> Vec<(&'static str, Word)> {
        let mut params = vec![("rows", rows.into()), ("scale", self.scale.into())];
        params.extend(self.soft_cap.map(|cap| ("soft_cap", Word::F32(cap))));
        params.extend(self.window.map(|window| ("window", window.into())));
        params
    }
}

/// Returns how lanes share keys in kernels that are unrolled over the lanes of a subgroup.
fn unrolled_lanes(r: &Recorder) -> Vec<(String, Constant)> {
    Lanes { subgroup: r.subgroup().is_some(), lanes: r.subgroup().unwrap_or(LANES) }.list()
}

/// The part of a row's work that does not grow with its keys.
fn work(shape: AttentionShape) -> Work {
    Work { flops: 0.0, bytes: 16.0 * (shape.heads * shape.head_dim) as f64 }
}

/// The work per key of a row, at `flops` operations per element of the query's heads.
fn key_work(shape: AttentionShape, flops: u32, usual: u32) -> KeyWork {
    let most = shape.window.map_or(u32::MAX, |window| window as u32);
    KeyWork { flops: f64::from(flops) * (shape.heads * shape.head_dim) as f64, usual, most }
}

/// The average number of keys per query in a batch that is one sequence.
fn usual_keys(rows: Dim) -> u32 {
    rows.max().div_ceil(2)
}

/// The largest number of keys per query if rows share a cache, each with a part of its own.
fn part_of_cache(q: Tensor, kv: Tensor) -> u32 {
    kv.rows.max().div_ceil(q.rows.max())
}

/// Whether attention over rows uses the tiled kernels.
fn is_tiled(r: &Recorder, shape: AttentionShape) -> bool {
    r.tuning().tiled_attention || shape.head_dim > LARGEST_UNROLLED
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
    let before = keys.before();
    let before_keys = before.map_or(0, |(_, keys)| keys.max());
    let mut constants = shape.constants(q, kv.cols);
    constants.extend(Forward { before: before.is_some(), save_stats: stats.is_some() }.list());
    let tile = is_tiled(r, shape).then(|| Tile::of(TiledKernel::Forward, shape.head_dim as u32));
    match tile {
        Some(tile) => constants.extend(tile.list()),
        None => {
            constants.extend(unrolled_lanes(r));
            constants.extend(Sources { sources: 1 + before.is_some() as u32 }.list());
        }
    }
    let mut params = shape.params(q.rows);
    let mut args = vec![read("q", q).vec4(), read("kv", kv).vec4(), read("spans", spans).vec4()];
    if let Some((kv, count)) = before {
        params.push(("before_keys", count.into()));
        args.push(read("before", kv).vec4());
    }
    args.push(write("out", out).vec4());
    args.extend(stats.map(|t| write("stats", t).vec2()));
    let launch = Launch {
        kernel: if tile.is_some() { "attention_forward_tiled" } else { "attention_forward" },
        constants,
        params,
        args,
        groups: Groups::over(q.rows, tile.map_or(LANES, |tile| tile.tile_rows)).times(shape.heads as u32),
        work: work(shape),
    };
    r.launch_over_keys(launch, key_work(shape, 4, before_keys + usual_keys(q.rows)));
}

fn launch_decode(r: &mut Recorder, shape: AttentionShape, q: Tensor, kv: Tensor, spans: Tensor, out: Tensor) {
    if r.tuning().tiled_attention {
        return launch_split_decode(r, shape, q, kv, spans, out);
    }
    // One subgroup per query and head, or without subgroups one workgroup.
    let (lanes, workgroup) = r.subgroup().map_or((LANES, LANES), |lanes| (lanes, lanes.max(LANES)));
    let mut constants = shape.constants(q, kv.cols);
    constants.extend(Lanes { subgroup: r.subgroup().is_some(), lanes }.list());
    constants.extend(Decode { workgroup }.list());
    let per_group = (workgroup / lanes) as usize;
    // Whole rows per workgroup if there are few heads, otherwise whole workgroups per row; excess subgroups are idle.
    let groups = match per_group.is_multiple_of(shape.heads) {
        true => Groups::over(q.rows, (per_group / shape.heads) as u32),
        false => Groups::over(q.rows, 1).times(shape.heads.div_ceil(per_group) as u32),
    };
    let launch = Launch {
        kernel: "attention_decode",
        constants,
        params: shape.params(q.rows),
        args: vec![
            read("q", q).vec4(),
            read("kv", kv).vec4(),
            read("spans", spans).vec4(),
            write("out", out).vec4(),
        ],
        groups,
        work: work(shape),
    };
    r.launch_over_keys(launch, key_work(shape, 4, part_of_cache(q, kv)));
}

/// The number of keys that justifies a workgroup of its own.
const SPLIT_KEYS: u32 = 64;
/// The most splits of a row's keys: with this many workgroups per head a GPU is busy.
const MAX_SPLITS: u32 = 64;

/// Decodes with the keys split among workgroups, and combines the splits afterwards.
fn launch_split_decode(
    r: &mut Recorder,
    shape: AttentionShape,
    q: Tensor,
    kv: Tensor,
    spans: Tensor,
    out: Tensor,
) {
    let AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let tile = DecodeTile::of((heads / kv_heads) as u32, head_dim as u32);
    // Rows share the cache: a single row may attend to all of it; of many rows, each attends to roughly its share.
    let splits = kv.rows.max().div_ceil(q.rows.max() * SPLIT_KEYS).clamp(1, MAX_SPLITS);
    let part_stats = r.tensor("decode stats", q.rows, 2 * heads * splits as usize);
    let part_sums = r.tensor("decode sums", q.rows, heads * splits as usize * head_dim);
    let mut constants = shape.constants(q, kv.cols);
    constants.extend(tile.list());
    let how: [(&str, Word); 2] = [("splits", splits.into()), ("least_keys", SPLIT_KEYS.into())];
    let mut params = shape.params(q.rows);
    params.extend(how);
    let launch = Launch {
        kernel: "attention_decode_split",
        constants,
        params,
        args: vec![
            read("q", q).vec4(),
            read("kv", kv).vec4(),
            read("spans", spans).vec4(),
            write("part_stats", part_stats).vec2(),
            write("part_sums", part_sums).vec4(),
        ],
        groups: Groups::over(q.rows, 1).times(heads as u32 / tile.heads_together * splits),
        work: work(shape),
    };
    r.launch_over_keys(launch, key_work(shape, 4, part_of_cache(q, kv)));
    let mut params: Vec<(&str, Word)> = vec![("rows", q.rows.into())];
    params.extend(how);
    params.extend(shape.window.map(|window| ("window", window.into())));
    let vectors = heads * head_dim / 4;
    r.launch(Launch {
        kernel: "attention_decode_combine",
        constants: AttentionShape { soft_cap: None, ..shape }.heads_constants(kv.cols),
        params,
        args: vec![
            read("spans", spans).vec4(),
            read("part_stats", part_stats).vec2(),
            read("part_sums", part_sums).vec4(),
            write("out", out).vec4(),
        ],
        groups: Groups::over(q.rows, 1).times(vectors.div_ceil(64) as u32),
        work: Work { flops: 8.0 * vectors as f64, bytes: 4.0 * (heads * head_dim * 2) as f64 },
    });
}

fn launch_backward_query(
    r: &mut Recorder,
    shape: AttentionShape,
    [qkv, spans, dout, out, stats]: [Tensor; 5],
    dqkv: Tensor,
) {
    let args = vec![
        read("qkv", qkv).vec4(),
        read("spans", spans).vec4(),
        read("dout", dout).vec4(),
        read("out", out).vec4(),
        write("stats", stats).vec2(),
        write("dqkv", dqkv).vec4(),
    ];
    let names = ["attention_backward_query", "attention_backward_query_tiled"];
    launch_backward(r, shape, qkv, names, TiledKernel::BackwardQuery, args, shape.heads);
}

fn launch_backward_key_value(
    r: &mut Recorder,
    shape: AttentionShape,
    [qkv, spans, ends, dout, stats]: [Tensor; 5],
    dqkv: Tensor,
) {
    let mut args = vec![read("qkv", qkv).vec4()];
    // Otherwise `ends` alone determines which queries attend to a key.
    let by_spans = shape.window.is_some() || is_tiled(r, shape);
    args.extend(by_spans.then(|| read("spans", spans).vec4()));
    args.extend([
        read("ends", ends),
        read("dout", dout).vec4(),
        read("stats", stats).vec2(),
        write("dqkv", dqkv).vec4(),
    ]);
    let names = ["attention_backward_key_value", "attention_backward_key_value_tiled"];
    launch_backward(r, shape, qkv, names, TiledKernel::BackwardKeyValue, args, shape.kv_heads);
}

/// Launches one of the backward kernels, unrolled or tiled.
fn launch_backward(
    r: &mut Recorder,
    shape: AttentionShape,
    qkv: Tensor,
    [unrolled, tiled]: [&'static str; 2],
    kind: TiledKernel,
    args: Vec<Arg>,
    heads: usize,
) {
    let mut constants = shape.constants(qkv, qkv.cols);
    let tile = is_tiled(r, shape).then(|| Tile::of(kind, shape.head_dim as u32));
    constants.extend(tile.map_or_else(|| unrolled_lanes(r), |tile| tile.list()));
    let launch = Launch {
        kernel: if tile.is_some() { tiled } else { unrolled },
        constants,
        params: shape.params(qkv.rows),
        args,
        groups: Groups::over(qkv.rows, tile.map_or(LANES, |tile| tile.tile_rows)).times(heads as u32),
        work: work(shape),
    };
    r.launch_over_keys(launch, key_work(shape, 8, usual_keys(qkv.rows)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{DeviceKind, Format, Gpu, Limits, Live, Tuning};

    /// Returns the kernel, number of pieces and units per piece of attention over `rows`, forward and backward.
    fn pieces(
        kind: DeviceKind,
        window: Option<usize>,
        rows: u32,
        keys: u32,
    ) -> Vec<(&'static str, u32, f64)> {
        let gpu = Gpu::without_device(Limits::default());
        gpu.set_tuning(Tuning::untuned(None, kind));
        let shape = AttentionShape { window, ..AttentionShape::new(9, 3, 64) };
        let mut r = Recorder::training(&gpu);
        let dim = Dim::Live { index: 0, max: rows };
        let qkv = r.tensor("qkv", dim, shape.columns());
        r.watch(qkv);
        let [spans, ends] = [4, 1].map(|cols| {
            let words =
                gpu.buffer("words", crate::gpu::Category::Workspace, u64::from(rows) * cols * 4).unwrap();
            r.bind(&words.region(), dim, cols as usize, Format::U32)
        });
        let out = attention(&mut r, qkv, shape, spans, KeySource::Rows { ends: Some(ends) }).unwrap();
        let dout = r.tensor("d out", dim, out.cols);
        r.backward(&[(out, dout)]).unwrap();
        let mut live = Live { keys, ..Live::default() };
        live.extents[0] = rows;
        r.pieces(&live, SUBMIT)
    }

    /// 50 ms at 0.2 TFLOP/s.
    const SUBMIT: f64 = 1e10;

    #[test]
    fn attention_is_split_by_the_keys_that_rows_see() {
        for kind in [DeviceKind::Processor, DeviceKind::Gpu] {
            let [short, batch, long, windowed] = [
                pieces(kind, None, 512, 257),
                // As many rows as in the next case, in sequences of 512.
                pieces(kind, None, 32_768, 257),
                pieces(kind, None, 32_768, 16_385),
                pieces(kind, Some(1024), 32_768, 16_385),
            ];
            assert_eq!(short.len(), 3, "{short:?}");
            for i in 0..3 {
                let name = short[i].0;
                // One piece more than necessary is due to rounding.
                assert_eq!(short[i].1, 1, "{name}");
                assert!((2..=4).contains(&batch[i].1), "{name}: {batch:?}");
                assert!((100..=400).contains(&long[i].1), "{name}: {long:?}");
                assert!((7..=20).contains(&windowed[i].1), "{name}: {windowed:?}");
                for pieces in [&short, &batch, &long, &windowed] {
                    assert!(pieces[i].2 <= SUBMIT, "{name}: {pieces:?}");
                }
            }
            // A replay that does not state its keys is assumed to be one sequence.
            let unknown = pieces(kind, None, 32_768, 0);
            assert!(unknown.iter().zip(&long).all(|(a, b)| a.1.abs_diff(b.1) <= 1), "{unknown:?}");
        }
    }
}
