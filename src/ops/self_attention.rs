//! The first part of an attention block: normalisation, queries, keys and values, rotation, attention. If the block
//! supports it, everything before attention itself is one launch; otherwise it is a sequence of ops.

use super::attention::{AttentionShape, KeySource, attention};
use super::linear::{self, Linear, linear, lora_terms};
use super::norm::{self, Norm, head_norm};
use super::product::{self, Forward, Shared, aligned};
use super::rotary::{self, Rotary};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Dim, Launch, Recorder, Tensor, Word, Work, read, write};

/// Queries, keys and values of rows, and how they are compared.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// The normalisation of the rows, if any.
    pub norm: Option<Norm>,
    /// Queries, keys and values: ((H + 2 K) D, C).
    pub qkv: Linear,
    /// Normalisation of the queries and of the keys: of each head, or of all heads together if the weight is that wide.
    pub head_norms: Option<[Norm; 2]>,
    /// The rotation of queries and keys, if any.
    pub rotary: Option<Rotary>,
    /// The heads.
    pub shape: AttentionShape,
}

/// Softmax attention among the rows, see [`attention`].
///   x (N, C)  spans (N, 4)  ->  (N, H D)
///
/// The position of a row is its number of keys less one, plus [`KeySource::After`]'s keys; every position must have a
/// row in the table of the rotation.
pub fn self_attention(
    r: &mut Recorder,
    x: Tensor,
    block: &SelfAttention,
    spans: Tensor,
    keys: KeySource,
) -> Result<Tensor> {
    let shape = block.shape;
    assert_eq!(block.qkv.weights.rows, shape.columns(), "self_attention: {shape:?}");
    assert_eq!((spans.rows, spans.cols), (x.rows, 4), "self_attention: spans");
    let fused_norm = block.norm.filter(|norm| norm.fused(r).is_some());
    let rotary = fusable(r, block, keys, fused_norm.is_some());
    // Normalise separately unless the first launch does it.
    let x = match &block.norm {
        Some(norm) if rotary.is_none() || fused_norm.is_none() => norm::norm(r, x, norm)?,
        _ => x,
    };
    if let Some(rotary) = rotary {
        let q = fused(r, x, block, fused_norm, rotary, spans, keys)?;
        return attention(r, q, shape, spans, keys);
    }
    let mut qkv = linear(r, x, &block.qkv, None)?;
    if let Some([of_queries, of_keys]) = block.head_norms {
        let [queries, keys] = [shape.heads, shape.kv_heads].map(|heads| heads * shape.head_dim);
        let part = |first, width, norm: Norm| (first, width / norm.weight.cols, norm);
        qkv = head_norm(r, qkv, &[part(0, queries, of_queries), part(queries, keys, of_keys)])?;
    }
    rotary::rotary(r, qkv, shape, block.rotary, spans, keys)?;
    attention(r, qkv, shape, spans, keys)
}

/// Storage buffers per kernel that every GPU supports.
const BINDINGS: usize = 8;

/// Returns the rotation if one launch can do everything before attention: heads are rotated whole and in halves, and
/// there are enough bindings.
fn fusable(r: &Recorder, block: &SelfAttention, keys: KeySource, norm: bool) -> Option<Rotary> {
    let whole = |rotary: &Rotary| rotary.rotated == block.shape.head_dim && !rotary.interleaved;
    let rotary = block.rotary.filter(whole)?;
    let cache = matches!(keys, KeySource::Cache { .. });
    // x, w, spans, the table and the result; then the optional ones.
    let more = [norm, block.qkv.bias.is_some(), !block.qkv.lora.is_empty(), cache, norm && r.is_training()];
    let bindings = 5 + more.into_iter().filter(|there| *there).count();
    (r.tuning().fused_blocks && block.head_norms.is_none() && bindings <= BINDINGS).then_some(rotary)
}

constants! {
    struct QkvForward {
        heads: u32,
        kv_heads: u32,
        dim: u32,
        bias: bool,
        lora: bool,
        cache: bool,
        save_for_backward: bool,
    }
}

/// Multiplies rows (normalised first if there is a norm) by the matrix and rotates; with a cache, keys and values are
/// written to it. Returns the queries, and without a cache keys and values beside them.
fn fused(
    r: &mut Recorder,
    x: Tensor,
    block: &SelfAttention,
    norm: Option<Norm>,
    rotary: Rotary,
    spans: Tensor,
    keys: KeySource,
) -> Result<Tensor> {
    let SelfAttention { qkv: w, shape, .. } = block;
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    let terms = lora_terms(r, x, norm.and_then(|norm| norm.fused(r)), w);
    let saved = r.is_training().then_some(norm).flatten();
    let inverse = saved.map(|_| r.tensor("inverse rms", x.rows, 1));
    let cache = match keys {
        KeySource::Rows { .. } | KeySource::After { .. } => None,
        KeySource::Cache { kv, .. } => Some(kv),
    };
    let q = r.tensor("qkv", x.rows, if cache.is_some() { heads * head_dim } else { shape.columns() });
    let kind = QkvForward {
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        dim: head_dim as u32,
        bias: w.bias.is_some(),
        lora: terms.sum.is_some(),
        cache: cache.is_some(),
        save_for_backward: inverse.is_some(),
    };
    let along = aligned(&[x.cols]);
    for piece in &w.weights.pieces {
        assert_eq!(piece.rows % head_dim, 0, "a head is split");
        let mut args = vec![read("x", x).rows(along), read("w", piece.part).rows(along)];
        args.extend(norm.map(|norm| read("norm_weight", norm.weight).rows(along)));
        args.extend([read("spans", spans).vec4(), read("table", rotary.table).vec4()]);
        args.extend(w.bias.map(|bias| read("bias", bias).vec4()));
        args.extend(terms.sum.map(|lora| read("lora", lora).vec4()));
        args.push(write("qkv", q).vec4());
        args.extend(cache.map(|kv| write("kv", kv).vec4()));
        args.extend(inverse.map(|inverse| write("inverse_rms", inverse)));
        let forward = Forward {
            rows: x.rows,
            cols: piece.rows / 2,
            inner: x.cols,
            format: piece.part.format,
            two_terms: false,
            paired: true,
            norm: norm.is_some(),
        };
        let Shared { groups, mut constants } = product::along_both(r, forward);
        constants.extend(kind.list());
        let before = keys.before().map_or(Dim::Fixed(0), |(_, count)| count);
        let mut params: Vec<(&str, Word)> = vec![
            ("rows", x.rows.into()),
            ("inner", x.cols.into()),
            ("pairs", (piece.rows / 2).into()),
            ("first_col", piece.first.into()),
            ("first_row", piece.first_row.into()),
            ("before", before.into()),
        ];
        params.extend(norm.map(|norm| ("eps", Word::F32(norm.eps))));
        r.launch(Launch {
            kernel: "qkv_forward",
            constants,
            params,
            args,
            groups,
            work: Work {
                flops: 2.0 * (x.cols * piece.rows) as f64,
                bytes: 4.0 * (x.cols + 2 * piece.rows) as f64,
            },
        });
    }
    let outputs: Vec<Tensor> =
        terms.hidden.iter().copied().chain(terms.sum).chain(inverse).chain([q]).collect();
    let (w, shape) = (w.clone(), *shape);
    r.rule(&outputs, move |r| {
        let Some(dq) = r.gradient(q) else { return Ok(()) };
        rotary::launch(r, dq, shape, Some(rotary), spans, keys, true);
        linear::fused_backward(r, x, norm.zip(inverse), &w, &terms.hidden, dq);
        Ok(())
    });
    Ok(q)
}
