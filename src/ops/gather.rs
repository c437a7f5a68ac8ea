//! Rows looked up by number: of the embedding table, and of the hidden states.

use super::elements;
use super::matrix::Matrix;
use super::product::aligned;
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Accumulate, Dim, Launch, Recorder, Tensor, Work, read, write};

/// Which rows were gathered from where, turned round, so that every row of the table sums its own gradient:
/// `rows[u]` was gathered to the rows `order[offsets[u]..offsets[u + 1]]`. All integers.
#[derive(Clone, Copy, Debug)]
pub struct Inverse {
    /// The rows of the table that have a gradient, ascending: (U, 1).
    pub rows: Tensor,
    /// Where each one's part of `order` begins, and where the last one's ends: (U + 1, 1).
    pub offsets: Tensor,
    /// Row numbers of the result, grouped by the row of the table that they were gathered from: (T, 1).
    pub order: Tensor,
}

constants! {
    struct GatherRows {
        cols: u32,
        /// Whether a row's index is its position.
        by_position: bool,
    }
}

/// Which row of the table each row of the result is.
#[derive(Clone, Copy)]
enum Indices {
    /// As these integers say, (T, 1).
    Given(Tensor),
    /// Its position: the keys that it sees by its span (T, 4), less one, after those that all rows see before their own.
    Position { spans: Tensor, before: Dim },
}

constants! {
    struct GatherRowsBackward {
        cols: u32,
        add: bool,
    }
}

/// y_t = table_{indices_t}; an index may repeat, and must lie in the table.
///   table (V, C), of f32 or 16 bits  indices (T, 1) integers  ->  y (T, C)
///
/// A gradient flows to the table by `inverse`; without one there is no rule. A trained table's gradient is added
/// to, so its inverse lists the rows gathered. Where this op is the last to use a table that is not trained, such
/// as the hidden states, it is the first to write the gradient, and the inverse must list every row.
pub fn gather_rows(
    r: &mut Recorder,
    table: &Matrix,
    indices: Tensor,
    inverse: Option<Inverse>,
) -> Result<Tensor> {
    embedding(r, table, indices, inverse, 1.0)
}

/// As [`gather_rows`], times `scale`.
pub fn embedding(
    r: &mut Recorder,
    table: &Matrix,
    indices: Tensor,
    inverse: Option<Inverse>,
    scale: f32,
) -> Result<Tensor> {
    assert_eq!(indices.cols, 1, "gather_rows: indices (T, 1)");
    gather(r, table, Indices::Given(indices), inverse, scale)
}

/// y_t = table_{position of t}: learned positions.
///   table (positions, C)  spans (T, 4) integers, see [`super::attention`]  ->  y (T, C)
///
/// Every position must have its row in the table. A gradient flows to the table by `inverse`, as in [`gather_rows`].
pub fn position_embedding(
    r: &mut Recorder,
    table: &Matrix,
    spans: Tensor,
    before: Dim,
    inverse: Option<Inverse>,
) -> Result<Tensor> {
    assert_eq!(spans.cols, 4, "position_embedding: spans (T, 4)");
    gather(r, table, Indices::Position { spans, before }, inverse, 1.0)
}

fn gather(
    r: &mut Recorder,
    table: &Matrix,
    indices: Indices,
    inverse: Option<Inverse>,
    scale: f32,
) -> Result<Tensor> {
    let (index, by_position) = match indices {
        Indices::Given(indices) => (read("indices", indices), None),
        Indices::Position { spans, before } => (read("spans", spans).vec4(), Some(("before", before.into()))),
    };
    let count = match indices {
        Indices::Given(indices) => indices.rows,
        Indices::Position { spans, .. } => spans.rows,
    };
    let y = r.tensor("gather_rows", count, table.cols);
    let cols = table.cols;
    let across = aligned(&[cols]);
    for part in table.chunks(usize::MAX) {
        r.launch(Launch {
            kernel: "gather_rows",
            constants: GatherRows { cols: cols as u32, by_position: by_position.is_some() }.list(),
            params: [
                ("rows", count.into()),
                ("first", part.first.into()),
                ("count", part.rows.into()),
                ("scale", scale.into()),
            ]
            .into_iter()
            .chain(by_position)
            .collect(),
            args: vec![read("table", part.part).rows(across), index, write("y", y).rows(across)],
            groups: elements(count, cols),
            work: Work { flops: 0.0, bytes: 8.0 * cols as f64 },
        });
    }
    let Some(Inverse { rows, offsets, order }) = inverse else { return Ok(y) };
    let table = table.clone();
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        for part in table.chunks(usize::MAX) {
            let Some(dtable) = r.gradient_target(part.part) else { continue };
            // Each row sums as many as share it on average.
            let shared = order.rows.max() as f64 / rows.rows.max() as f64;
            let add = dtable.accumulate == Accumulate::Add;
            r.launch(Launch {
                kernel: "gather_rows_backward",
                constants: GatherRowsBackward { cols: cols as u32, add }.list(),
                params: vec![
                    ("rows", rows.rows.into()),
                    ("first", part.first.into()),
                    ("count", part.rows.into()),
                    ("scale", scale.into()),
                ],
                args: vec![
                    read("dy", dy).rows(across),
                    read("rows", rows),
                    read("offsets", offsets),
                    read("order", order),
                    write("dtable", dtable.tensor).rows(across),
                ],
                groups: elements(rows.rows, cols),
                work: Work { flops: shared * cols as f64, bytes: 4.0 * (shared + 1.0) * cols as f64 },
            });
        }
        Ok(())
    });
    Ok(y)
}
