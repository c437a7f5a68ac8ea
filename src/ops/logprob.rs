//! Log-probabilities of given tokens under the output head, without the (T, V) logits.

use super::case::{Case, Input};
use super::linear::{
    Matrix, MatrixRows, Product, launch_backward_input, launch_backward_weight, launch_forward,
};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Work};
use crate::reference;

/// Results of [`logprob`].
#[derive(Clone, Copy, Debug)]
pub struct LogProb {
    /// Log-probability of each row's target (T, 1), in nats. Gradients flow through this alone.
    pub logp: Tensor,
    /// Entropy of each row's distribution (T, 1), in nats.
    pub entropy: Tensor,
    /// Log-sum-exp of each row's logits (T, 1).
    pub lse: Tensor,
}

/// Tokens of the vocabulary whose logits are held at a time.
pub const VOCAB_CHUNK: usize = 4096;
/// Columns of a chunk from which on a whole workgroup takes a row.
const WIDE_FROM: usize = 1024;
/// Logits that make a workgroup of the backward pass worth its launch.
const GROUP_LOGITS: usize = 4096;

/// logp = log softmax(h Wᵀ) at the target, in chunks of `chunk` tokens of the vocabulary (usually [`VOCAB_CHUNK`]); the
/// backward pass computes each chunk again.
///   h (T, C)  w (V, C)  targets (T, 1) u32  ->  [`LogProb`]
pub fn logprob(r: &mut Recorder, h: Tensor, w: &Matrix, targets: Tensor, chunk: usize) -> Result<LogProb> {
    assert_eq!(h.cols, w.cols, "logprob: h (T, {}) and w (V, {})", h.cols, w.cols);
    assert_eq!((h.rows, 1), (targets.rows, targets.cols), "logprob: targets");
    let width = chunk.min(w.rows);
    let logits = r.tensor("logits", h.rows, width);
    let state = r.tensor("logprob state", h.rows, 4);
    let [logp, entropy, lse] = ["logp", "entropy", "lse"].map(|name| r.tensor(name, h.rows, 1));
    let out = LogProb { logp, entropy, lse };
    let chunks = w.chunks(chunk);
    for (i, rows) in chunks.iter().enumerate() {
        launch_forward(r, Product::new(h, *rows, logits));
        let last = (i + 1 == chunks.len()).then_some(out);
        fold(r, logits, targets, rows, state, last);
    }
    r.rule(&[logits, state, logp, entropy, lse], move |r| {
        let Some(dlogp) = r.gradient(logp) else { return Ok(()) };
        let dlogits = r.tensor("d logits", h.rows, width);
        let mut dw = None;
        for rows in chunks {
            launch_forward(r, Product::new(h, rows, dlogits));
            launch_backward(r, targets, lse, dlogp, dlogits, &rows);
            // Chunks of one part write different rows of its gradient: all of them set, or all of them add.
            if rows.first_row == 0 {
                dw = r.gradient_target(rows.part);
            }
            if let Some(dw) = dw {
                launch_backward_weight(r, dlogits, 0, h, None, 1.0, rows, dw);
            }
            if let Some(dh) = r.gradient_target(h) {
                launch_backward_input(r, dlogits, 0, rows, 1.0, None, dh);
            }
        }
        Ok(())
    });
    Ok(out)
}

/// Folds the logits of the tokens `rows` into `state`, and after the last of them writes the results.
fn fold(
    r: &mut Recorder,
    logits: Tensor,
    targets: Tensor,
    rows: &MatrixRows,
    state: Tensor,
    last: Option<LogProb>,
) {
    let wide = rows.rows >= WIDE_FROM;
    let mut args = vec![(logits, Access::Read), (targets, Access::Read), (state, Access::Write)];
    args.extend(last.iter().flat_map(|l| [l.logp, l.entropy, l.lse]).map(|t| (t, Access::Write)));
    r.launch(Launch {
        kernel: KernelKey {
            name: "logprob_forward",
            constants: vec![
                ("WIDE", wide as u32),
                ("LATER", (rows.first > 0) as u32),
                ("LAST", last.is_some() as u32),
            ],
        },
        params: vec![logits.rows.into(), rows.rows.into(), logits.cols.into(), rows.first.into()],
        args,
        groups: Groups::over(logits.rows, if wide { 1 } else { 64 }),
        work: Work { flops: 8.0 * rows.rows as f64, bytes: 4.0 * rows.rows as f64 },
    });
}

fn launch_backward(
    r: &mut Recorder,
    targets: Tensor,
    lse: Tensor,
    dlogp: Tensor,
    logits: Tensor,
    rows: &MatrixRows,
) {
    let rows_per_group = (GROUP_LOGITS / rows.rows).max(1) as u32;
    let reads = [targets, lse, dlogp].map(|t| (t, Access::Read));
    r.launch(Launch {
        kernel: KernelKey { name: "logprob_backward", constants: vec![] },
        params: vec![
            logits.rows.into(),
            rows.rows.into(),
            logits.cols.into(),
            rows.first.into(),
            rows_per_group.into(),
        ],
        args: reads.into_iter().chain([(logits, Access::Write)]).collect(),
        groups: Groups::over(logits.rows, rows_per_group),
        work: Work { flops: 5.0 * rows.rows as f64, bytes: 8.0 * rows.rows as f64 },
    });
}

pub(super) fn cases() -> Vec<Case> {
    // T, C, the rows of each part of W, the chunk, and the scale of h: one or several chunks, narrow and wide.
    let shapes: [(usize, usize, &[usize], usize, f32); 9] = [
        (1, 1, &[1], VOCAB_CHUNK, 1.0),
        (5, 3, &[7], 3, 1.0),
        (65, 8, &[64], 64, 1.0),
        (67, 16, &[130, 61], 63, 1.0),
        (13, 16, &[512], VOCAB_CHUNK, 1.0),
        (7, 8, &[1025, 1024], 1024, 1.0),
        (3, 8, &[5003], VOCAB_CHUNK, 1.0),
        // Logits of ±100: nearly certain rows.
        (61, 64, &[257], 100, 5.0),
        (2048, 64, &[512], VOCAB_CHUNK, 1.0),
    ];
    let mut out = Vec::new();
    for (t, c, parts, chunk, scale) in shapes {
        let v: usize = parts.iter().sum();
        let shape = format!("T {t} C {c} V {parts:?} by {chunk} scale {scale}");
        let targets: Vec<u32> = (0..t).map(|i| ((i * 7919 + v - 1) % v) as u32).collect();
        let inputs = |watched: bool| {
            let mark = |input: Input| if watched { input.watched() } else { input };
            let mut inputs = vec![
                mark(Input::normal(1, t, c, scale).live(0)),
                Input::u32(targets.clone(), t, 1).live(0),
                Input::normal(2, t, 1, 1.0).live(0),
            ];
            inputs
                .extend(parts.iter().enumerate().map(|(i, v)| mark(Input::normal(3 + i as u32, *v, c, 1.0))));
            inputs
        };
        let weights = |v: &[Vec<f64>]| v[3..].concat();
        let for_forward = targets.clone();
        out.push(Case::new(
            "logprob_forward",
            &shape,
            inputs(false),
            move |r, t| {
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk)?;
                Ok(vec![l.logp, l.entropy, l.lse])
            },
            move |v| {
                let l = reference::logprob_forward(&v[0], &weights(v), &for_forward, c);
                vec![l.logp, l.entropy, l.lse]
            },
        ));
        out.push(Case::new(
            "logprob_backward",
            &shape,
            inputs(true),
            move |r, t| {
                let l = logprob(r, t[0], &Matrix::new(t[3..].to_vec()), t[1], chunk)?;
                r.backward(&[(l.logp, t[2])])?;
                Ok([&t[..1], &t[3..]].concat().iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |v| {
                let (dh, dw) = reference::logprob_backward(&v[0], &weights(v), &targets, &v[2], c);
                let mut rest = dw.as_slice();
                let dw = parts.iter().map(|rows| {
                    let (part, others) = rest.split_at(rows * c);
                    rest = others;
                    part.to_vec()
                });
                [dh].into_iter().chain(dw).collect()
            },
        ));
    }
    out
}
