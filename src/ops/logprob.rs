//! Log-probabilities of given tokens under the output head, without the (T, V) logits.

use super::logits::LogitTransform;
use super::matrix::{Matrix, MatrixRows};
use super::product::{Product, aligned, launch_backward_input, launch_backward_weight, launch_forward};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{DeviceKind, Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// Results of [`logprob`].
#[derive(Clone, Copy, Debug)]
pub struct LogProb {
    /// Log-probability of each row's target (T, 1), in nats. Gradients flow through this alone.
    pub logp: Tensor,
    /// Entropy of each row's distribution (T, 1), in nats.
    pub entropy: Tensor,
    /// Log-sum-exp of each row's logits (T, 1).
    pub lse: Tensor,
    /// log Σ p² over each row's distribution (T, 1), of [`logprob_with_squares`].
    pub log_sum_squares: Option<Tensor>,
}

/// Tokens of the vocabulary whose logits are held at a time.
pub const VOCAB_CHUNK: usize = 4096;
/// Columns of a chunk from which on a whole workgroup takes a row: as soon as its lanes have something to load together, or, on a
/// processor, when the barriers are a small part of it.
const WIDE_FROM: usize = 256;
const WIDE_FROM_ON_A_PROCESSOR: usize = 1024;
/// Logits that make a workgroup of the backward pass worth its launch.
const GROUP_LOGITS: usize = 4096;

/// logp = log softmax(transform(h Wᵀ)) at the target, in chunks of `chunk` tokens of the vocabulary (usually
/// [`VOCAB_CHUNK`]); the backward pass computes each chunk again.
///   h (T, C)  w (V, C)  targets (T, 1) u32  ->  [`LogProb`]
///
/// # Errors
/// [`crate::Error::Config`] for a transform out of its range.
pub fn logprob(
    r: &mut Recorder,
    h: Tensor,
    w: &Matrix,
    targets: Tensor,
    chunk: usize,
    transform: LogitTransform,
) -> Result<LogProb> {
    record(r, h, w, targets, chunk, transform, false)
}

/// [`logprob`] that also gives the log of the sum of the squared probabilities: what a token drawn from the distribution
/// has as its probability on average.
///
/// # Errors
/// As [`logprob`].
pub fn logprob_with_squares(
    r: &mut Recorder,
    h: Tensor,
    w: &Matrix,
    targets: Tensor,
    chunk: usize,
    transform: LogitTransform,
) -> Result<LogProb> {
    record(r, h, w, targets, chunk, transform, true)
}

fn record(
    r: &mut Recorder,
    h: Tensor,
    w: &Matrix,
    targets: Tensor,
    chunk: usize,
    transform: LogitTransform,
    squares: bool,
) -> Result<LogProb> {
    transform.check()?;
    assert_eq!(h.cols, w.cols, "logprob: h (T, {}) and w (V, {})", h.cols, w.cols);
    assert_eq!((h.rows, 1), (targets.rows, targets.cols), "logprob: targets");
    let width = chunk.min(w.rows);
    let logits = r.tensor("logits", h.rows, width);
    let state = r.tensor("logprob state", h.rows, 4);
    let [logp, entropy, lse] = ["logp", "entropy", "lse"].map(|name| r.tensor(name, h.rows, 1));
    let log_sum_squares = squares.then(|| r.tensor("log sum of squares", h.rows, 1));
    let out = LogProb { logp, entropy, lse, log_sum_squares };
    let chunks = w.chunks(chunk);
    for (i, rows) in chunks.iter().enumerate() {
        launch_forward(r, Product::new(h, *rows, logits));
        fold(r, logits, transform, targets, rows, state, out, i + 1 == chunks.len());
    }
    let written = [logits, state, logp, entropy, lse].into_iter().chain(log_sum_squares);
    r.rule(&written.collect::<Vec<_>>(), move |r| {
        let Some(dlogp) = r.gradient(logp) else { return Ok(()) };
        let dlogits = r.tensor("d logits", h.rows, width);
        let mut dw = None;
        for rows in chunks {
            launch_forward(r, Product::new(h, rows, dlogits));
            launch_backward(r, transform, targets, lse, dlogp, dlogits, &rows);
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

constants! {
    struct LogprobForward {
        /// Whether a workgroup takes a row, else an invocation does.
        wide: bool,
        /// Whether there are chunks before this one.
        later: bool,
        last: bool,
        /// Whether the sum of the squared probabilities is wanted.
        squares: bool,
    }
}

/// Which tokens' logits a launch takes, and what becomes of their products.
fn place(logits: Tensor, transform: LogitTransform, tokens: &MatrixRows) -> Vec<(&'static str, Word)> {
    let mut params: Vec<(&str, Word)> = vec![
        ("rows", logits.rows.into()),
        ("cols", tokens.rows.into()),
        ("stride", logits.cols.into()),
        ("first", tokens.first.into()),
    ];
    params.extend(transform.params());
    params
}

/// Whether rows of the logits, and of the columns used, are whole vectors of four.
fn fours(logits: Tensor, tokens: &MatrixRows) -> bool {
    aligned(&[logits.cols, tokens.rows])
}

/// Folds the logits of the tokens `rows` into `state`, and after the last of them writes the results.
#[allow(clippy::too_many_arguments, reason = "one more than seven, each of its own")]
fn fold(
    r: &mut Recorder,
    logits: Tensor,
    transform: LogitTransform,
    targets: Tensor,
    rows: &MatrixRows,
    state: Tensor,
    out: LogProb,
    last: bool,
) {
    let wide_from = match r.tuning().kind() {
        DeviceKind::Gpu => WIDE_FROM,
        DeviceKind::Processor => WIDE_FROM_ON_A_PROCESSOR,
    };
    let wide = rows.rows >= wide_from;
    let mut constants = transform.constants();
    let squares = out.log_sum_squares.is_some();
    constants.extend(LogprobForward { wide, later: rows.first > 0, last, squares }.list());
    let logits_arg = read("logits", logits).rows(fours(logits, rows));
    let mut args = vec![logits_arg, read("targets", targets), write("state", state).vec4()];
    if last {
        args.extend([write("logp", out.logp), write("entropy", out.entropy), write("lse", out.lse)]);
    }
    args.extend(out.log_sum_squares.map(|sums| write("log_sum_squares", sums)));
    r.launch(Launch {
        kernel: "logprob_forward",
        constants,
        params: place(logits, transform, rows),
        args,
        groups: Groups::over(logits.rows, if wide { 1 } else { 64 }),
        work: Work { flops: 8.0 * rows.rows as f64, bytes: 4.0 * rows.rows as f64 },
    });
}

fn launch_backward(
    r: &mut Recorder,
    transform: LogitTransform,
    targets: Tensor,
    lse: Tensor,
    dlogp: Tensor,
    logits: Tensor,
    rows: &MatrixRows,
) {
    let rows_per_group = (GROUP_LOGITS / rows.rows).max(1) as u32;
    let mut params = place(logits, transform, rows);
    params.push(("rows_per_group", rows_per_group.into()));
    r.launch(Launch {
        kernel: "logprob_backward",
        constants: transform.constants(),
        params,
        args: vec![
            read("targets", targets),
            read("lse", lse),
            read("dlogp", dlogp),
            write("logits", logits).rows(fours(logits, rows)),
        ],
        groups: Groups::over(logits.rows, rows_per_group),
        work: Work { flops: 5.0 * rows.rows as f64, bytes: 8.0 * rows.rows as f64 },
    });
}
