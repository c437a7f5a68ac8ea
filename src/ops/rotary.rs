//! Rotary positions (Su et al. 2021, arXiv 2104.09864).

use super::attention::{AttentionShape, KeySource};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Dim, Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// How queries and keys are rotated.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    /// Cosines, then sines of the angles of every position, (positions, rotated), see [`rope_table`].
    pub table: Tensor,
    /// Rotated elements per head, the first ones: an even number, at most D.
    pub rotated: usize,
    /// Whether neighbouring elements form a pair; otherwise an element and the one `rotated` / 2 further on.
    pub interleaved: bool,
}

/// Cosines, then sines of the angles of every position: (positions, 2 · frequencies), row-major. Computed in `f64`,
/// since the sines of drivers are inaccurate for large angles. `inv_freq` is in radians per position.
pub fn rope_table(inv_freq: &[f64], factor: f64, positions: usize) -> Vec<f32> {
    let row = |position: usize| {
        let angles = inv_freq.iter().map(move |f| position as f64 * f);
        angles.clone().map(f64::cos).chain(angles.map(f64::sin)).map(|x| (factor * x) as f32)
    };
    (0..positions).flat_map(row).collect()
}

constants! {
    struct RotaryConstants {
        heads: u32,
        kv_heads: u32,
        dim: u32,
        /// Rotated elements per head.
        rotated: u32,
        interleaved: bool,
        /// Whether to rotate in the opposite direction.
        backward: bool,
        /// Whether keys and values are copied to a cache.
        cache: bool,
        /// Workgroups per row.
        groups_per_row: u32,
    }
}

/// Rotates the queries and keys of `qkv` in place, if there is a rotation; with [`KeySource::Cache`], keys and values
/// are then written to the cache, each row's at the last cache row that it attends to.
///   qkv (N, (H + 2 K) D)  spans (N, 4)  ->  qkv
pub fn rotary(
    r: &mut Recorder,
    qkv: Tensor,
    shape: AttentionShape,
    rotary: Option<Rotary>,
    spans: Tensor,
    keys: KeySource,
) -> Result<()> {
    if rotary.is_none() && !matches!(keys, KeySource::Cache { .. }) {
        return Ok(());
    }
    launch(r, qkv, shape, rotary, spans, keys, false);
    r.rule(&[qkv], move |r| {
        let Some(dqkv) = r.gradient(qkv) else { return Ok(()) };
        launch(r, dqkv, shape, rotary, spans, keys, true);
        Ok(())
    });
    Ok(())
}

/// Launches [`rotary`], or its gradient.
pub(super) fn launch(
    r: &mut Recorder,
    qkv: Tensor,
    shape: AttentionShape,
    rotary: Option<Rotary>,
    spans: Tensor,
    keys: KeySource,
    backward: bool,
) {
    let cache = match keys {
        KeySource::Cache { kv, .. } => Some(kv).filter(|_| !backward),
        KeySource::Rows { .. } | KeySource::After { .. } => None,
    };
    let rotated = rotary.map_or(0, |rotary| rotary.rotated);
    assert!(rotated.is_multiple_of(2) && rotated <= shape.head_dim, "rotary: {rotated} elements of a head");
    assert_eq!(qkv.cols, shape.columns(), "rotary: {shape:?}");
    // Pairs per head, and per row, as the kernel counts them.
    let head_pairs = if cache.is_some() { shape.head_dim / 2 } else { rotated / 2 };
    let kv_heads = if cache.is_some() { 2 * shape.kv_heads } else { shape.kv_heads };
    let groups = ((shape.heads + kv_heads) * head_pairs).div_ceil(64) as u32;
    let constants = RotaryConstants {
        heads: shape.heads as u32,
        kv_heads: shape.kv_heads as u32,
        dim: shape.head_dim as u32,
        rotated: rotated as u32,
        interleaved: rotary.is_some_and(|rotary| rotary.interleaved),
        backward,
        cache: cache.is_some(),
        groups_per_row: groups,
    };
    let mut args = vec![read("spans", spans).vec4()];
    let mut params: Vec<(&str, Word)> = vec![("rows", qkv.rows.into())];
    if let Some(rotary) = rotary {
        assert_eq!(rotary.table.cols, rotated, "rotary: the table");
        args.push(read("table", rotary.table));
        params.push(("before", keys.before().map_or(Dim::Fixed(0), |(_, count)| count).into()));
    }
    args.push(write("qkv", qkv));
    args.extend(cache.map(|kv| write("kv", kv)));
    r.launch(Launch {
        kernel: "rotary",
        constants: constants.list(),
        params,
        args,
        groups: Groups::over(qkv.rows, 1).times(groups),
        work: Work { flops: 3.0 * shape.columns() as f64, bytes: 12.0 * shape.columns() as f64 },
    });
}
