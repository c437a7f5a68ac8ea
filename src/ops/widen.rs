//! Frozen matrices of 16 bits, for kernels that read f32 alone.

use half::{bf16, f16};

use super::case::{Case, Input};
use super::linear::{Matrix, MatrixRows, linear};
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Format, Groups, Launch, Recorder, Work};
use crate::reference;

/// Most elements that [`widen_pieces`] makes at a time: 16 MiB of f32.
const PIECE: usize = 4 << 20;
/// Elements of a workgroup.
const GROUP: u32 = 4096;

/// Whether the kernels of `ops` read these elements as they are.
fn is_wide(rows: &MatrixRows) -> bool {
    matches!(rows.part.format, Format::F32)
}

/// The rows in pieces that are small enough for [`widened`]; all of them where they are f32 already.
pub(super) fn widen_pieces(rows: MatrixRows) -> Vec<MatrixRows> {
    let most = if is_wide(&rows) { usize::MAX } else { (PIECE / rows.part.cols).max(1) };
    let piece = |at: usize| MatrixRows {
        first_row: rows.first_row + at,
        first: rows.first + at,
        rows: most.min(rows.rows - at),
        ..rows
    };
    (0..rows.rows).step_by(most).map(piece).collect()
}

/// The rows as f32: themselves where they are, else a copy that lives until its last use. No gradient.
///   rows of w (O, I)  ->  (rows, I)
pub(super) fn widened(r: &mut Recorder, rows: MatrixRows) -> MatrixRows {
    if is_wide(&rows) {
        return rows;
    }
    let cols = rows.part.cols;
    assert!(cols.is_multiple_of(4), "widen_rows: rows of {cols} elements are no whole vectors");
    let y = r.tensor("widen_rows", rows.rows, cols);
    let len = rows.rows * cols;
    r.launch_detached(Launch {
        kernel: KernelKey { name: "widen_rows", constants: vec![("FORMAT", rows.part.format.code())] },
        params: vec![(rows.first_row * cols).into(), len.into()],
        args: vec![(rows.part, Access::Read), (y, Access::Write)],
        groups: Groups::over(len, GROUP),
        work: Work { flops: 0.0, bytes: 6.0 },
    });
    MatrixRows { first: rows.first, ..y.into() }
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for format in [Format::F16, Format::Bf16] {
        // Every number between two magnitudes; in one case they would not be seen beside the largest.
        let number = |bits: u16| match format {
            Format::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        let between = |low: f32, high: f32| {
            let mut all: Vec<f32> =
                (0..=u16::MAX).map(number).filter(|v| (low..high).contains(&v.abs())).collect();
            all.truncate(all.len() / 4 * 4);
            let rows = all.len() / 4;
            (format!("{low} to {high}"), Input::f32(all, rows, 4), 4, 0..rows)
        };
        let inputs = [
            // The f16 below are subnormal.
            between(1e-7, 6.1e-5),
            between(6.1e-5, 0.01),
            between(0.01, 2.0),
            between(2.0, 400.0),
            between(400.0, 7e4),
            ("some rows".into(), Input::normal(1, 67, 12, 1.0), 12, 13..64),
            ("more than a workgroup's".into(), Input::normal(2, 33, 516, 1.0), 516, 1..32),
        ];
        for (what, input, cols, range) in inputs {
            let (first, last) = (range.start, range.end);
            out.push(Case::new(
                "widen_rows",
                format!("{what} {format:?}"),
                vec![input.stored(format)],
                move |r, t| {
                    let rows = MatrixRows { part: t[0], first_row: first, first: 0, rows: last - first };
                    Ok(vec![widened(r, rows).part])
                },
                move |v| vec![v[0][first * cols..last * cols].to_vec()],
            ));
        }
    }
    // Products with matrices of 16 bits: rounded numbers, products in f32 as ever.
    for format in [Format::F16, Format::Bf16] {
        // The last one in two pieces.
        for (n, i, parts) in
            [(1, 4, &[1][..]), (13, 12, &[17, 8]), (65, 64, &[63]), (3, 4096, &[PIECE / 4096 + 5])]
        {
            let o: usize = parts.iter().sum();
            let mut inputs =
                vec![Input::normal(1, n, i, 1.0).live(0).watched(), Input::normal(2, n, o, 1.0).live(0)];
            let part = |(k, rows): (usize, &usize)| Input::normal(3 + k as u32, *rows, i, 1.0).stored(format);
            inputs.extend(parts.iter().enumerate().map(part));
            out.push(Case::new(
                "linear_backward",
                format!("N {n} I {i} O {parts:?} {format:?}"),
                inputs,
                |r, t| {
                    let y = linear(r, t[0], &Matrix::new(t[2..].to_vec()), None, None)?;
                    r.backward(&[(y, t[1])])?;
                    Ok([y].into_iter().chain(r.gradient(t[0])).collect())
                },
                move |v| {
                    let w = v[2..].concat();
                    let y = reference::linear_forward(&v[0], &w, n, i, o);
                    vec![y, reference::linear_backward_input(&v[1], &w, n, i, o)]
                },
            ));
        }
    }
    out
}
