//! Row lookups by index: of the embedding table, and of the hidden states.

use super::elements;
use super::matrix::Matrix;
use super::product::aligned;
use crate::error::Result;
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Accumulate, Dim, Launch, Recorder, Tensor, Work, read, write};

/// The inverse of a lookup, with which every row of the table sums its own gradient: `rows[u]` was gathered to the rows
/// `order[offsets[u]..offsets[u + 1]]`. All integers.
#[derive(Clone, Copy, Debug)]
pub struct Inverse {
    /// The rows of the table that have a gradient, ascending: (U, 1).
    pub rows: Tensor,
    /// Where each row's part of `order` begins, and the end of the last: (U + 1, 1).
    pub offsets: Tensor,
    /// Row numbers of the result, grouped by the table row they were gathered from: (T, 1).
    pub order: Tensor,
}

constants! {
    struct GatherRows {
        cols: u32,
        /// Whether a row's index is its position.
        by_position: bool,
    }
}

/// The table row of each row of the result.
#[derive(Clone, Copy)]
enum Indices {
    /// Given by these integers, (T, 1).
    Given(Tensor),
    /// Its position: the number of keys in its span (T, 4) less one, plus the number of preceding keys.
    Position { spans: Tensor, before: Dim },
}

constants! {
    struct GatherRowsBackward {
        cols: u32,
        add: bool,
    }
}

/// y_t = table_{indices_t}; an index may repeat and must be in the table.
///   table (V, C), of f32 or 16 bits  indices (T, 1) integers  ->  y (T, C)
///
/// The gradient of the table is computed with `inverse`; without it there is no rule. The gradient of a trained table
/// is added to, so its inverse lists only the gathered rows. If this op is the last to use a table that is not trained,
/// such as the hidden states, it is the first to write the gradient, and the inverse must list every row.
pub fn gather_rows(
    r: &mut Recorder,
    table: &Matrix,
    indices: Tensor,
    inverse: Option<Inverse>,
) -> Result<Tensor> {
    embedding(r, table, indices, inverse, 1.0)
}

/// Like [`gather_rows`], times `scale`.
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
/// Every position must have a row in the table. The gradient of the table is computed with `inverse`, as in
/// [`gather_rows`].
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
            // Each row sums the average number of gathered rows.
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
