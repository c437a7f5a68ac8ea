//! Log-probabilities of given tokens under the output head, without materialising the (T, V) logits.

use super::logits::LogitTransform;
use super::matrix::{Matrix, MatrixRows};
use super::product::{Product, aligned, launch_backward_input, launch_backward_weight, launch_forward};
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{DeviceKind, Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// Results of [`logprob`].
#[derive(Clone, Copy, Debug)]
pub struct LogProb {
    /// Log-probability of each row's target (T, 1), in nats. The only result with a gradient.
    pub logp: Tensor,
    /// Entropy of each row's distribution (T, 1), in nats.
    pub entropy: Tensor,
    /// Log-sum-exp of each row's logits (T, 1).
    pub lse: Tensor,
    /// log Σ p² over each row's distribution (T, 1), from [`logprob_with_squares`].
    pub log_sum_squares: Option<Tensor>,
}

/// Tokens of the vocabulary whose logits are in memory at a time.
pub const VOCAB_CHUNK: usize = 4096;
/// From this number of columns in a chunk, a whole workgroup processes a row: on a GPU as soon as its lanes have enough
/// to load together, on a CPU when the barriers are a small part of the time.
const WIDE_FROM: usize = 256;
const WIDE_FROM_ON_A_PROCESSOR: usize = 1024;
/// The number of logits that justifies a workgroup of the backward pass.
const GROUP_LOGITS: usize = 4096;

/// logp = log softmax(transform(h Wᵀ)) at the target, in chunks of `chunk` tokens of the vocabulary (usually
/// [`VOCAB_CHUNK`]); the backward pass recomputes each chunk.
///   h (T, C)  w (V, C)  targets (T, 1) u32  ->  [`LogProb`]
///
/// # Errors
/// [`crate::Error::Config`] for a transform out of range.
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

/// Like [`logprob`], and also returns the log of the sum of the squared probabilities, i.e. of the expected probability
/// of a token drawn from the distribution.
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
            // Chunks of one part write different rows of its gradient: either all set or all add.
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
        /// Whether a workgroup processes a row; otherwise an invocation does.
        wide: bool,
        /// Whether there were chunks before this one.
        later: bool,
        last: bool,
        /// Whether the sum of the squared probabilities is computed.
        squares: bool,
    }
}

/// The parameters that say which tokens' logits a launch processes, and the logit transform.
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

/// Whether the logits' rows, and the columns in use, are multiples of four.
fn fours(logits: Tensor, tokens: &MatrixRows) -> bool {
    aligned(&[logits.cols, tokens.rows])
}

/// Folds the logits of the tokens `rows` into `state`; after the last chunk, writes the results.
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
