//! Cases: row lookups, and the value of every 16-bit number.

use super::{Case, Input, gradients};
use crate::gpu::{Dim, Format, Recorder, Tensor};
use crate::ops::{Inverse, Matrix, embedding, gather_rows, position_embedding, residual_add};
use crate::reference;
use half::{bf16, f16};

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    // V rows in two parts of V1 and V - V1, unless V1 is V; T rows gathered from them.
    for (v, v1, t, c) in [
        (1, 1, 1, 1),
        (7, 3, 13, 5),
        (67, 63, 65, 64),
        (9, 9, 11, 20),
        (130, 65, 64, 17),
        (5, 5, 3, 2053),
        (512, 512, 2048, 64),
    ] {
        let shape = format!("V {v} T {t} C {c} first part {v1}");
        let indices: Vec<u32> = (0..t).map(|i| (i * i * 31 + v1) as u32 % v as u32).collect();
        let sources = |row: u32| (0..t as u32).filter(|i| indices[*i as usize] == row).collect::<Vec<_>>();
        let inverse = |rows: Vec<u32>, live: u8| {
            let groups: Vec<Vec<u32>> = rows.iter().map(|row| sources(*row)).collect();
            let ends = groups.iter().scan(0, |end, g| {
                *end += g.len() as u32;
                Some(*end)
            });
            let offsets: Vec<u32> = [0].into_iter().chain(ends).collect();
            let u = rows.len();
            [
                Input::u32(rows, u, 1).live(live),
                Input::u32(offsets, u + 1, 1),
                Input::u32(groups.concat(), t, 1).live(0),
            ]
        };
        let mut parts = vec![Input::normal(1, v1, c, 1.0).watched()];
        if v1 < v {
            parts.push(Input::normal(2, v - v1, c, 1.0).watched());
        }
        let count = parts.len();
        let present = (0..v as u32).filter(|row| indices.contains(row)).collect();
        let mut inputs = parts;
        inputs.extend([Input::u32(indices.clone(), t, 1).live(0), Input::normal(3, t, c, 1.0).live(0)]);
        inputs.extend(inverse((0..v as u32).collect(), 1));
        inputs.extend(inverse(present, 2));
        let table = |v: &[Vec<f64>], count: usize| v[..count].concat();
        let integers = |v: &[f64]| v.iter().map(|i| *i as u32).collect::<Vec<_>>();
        let inverse_of = |t: &[Tensor]| Some(Inverse { rows: t[0], offsets: t[1], order: t[2] });
        out.push(Case::new(
            "gather_rows_backward",
            &shape,
            inputs,
            move |r, t| {
                let (parts, rest) = t.split_at(count);
                let table = Matrix::new(parts.to_vec());
                // The backward pass starts with the last op: it writes every row; then the rows gathered are added to.
                let y = gather_rows(r, &table, rest[0], inverse_of(&rest[5..]))?;
                let z = gather_rows(r, &table, rest[0], inverse_of(&rest[2..]))?;
                let sum = residual_add(r, y, z)?;
                r.backward(&[(sum, rest[1])])?;
                Ok(parts.iter().filter_map(|t| r.gradient(*t)).collect())
            },
            move |x| {
                let dtable = reference::gather_rows_backward(&integers(&x[count]), &x[count + 1], v, c);
                let twice: Vec<f64> = dtable.iter().map(|d| 2.0 * d).collect();
                match count {
                    1 => vec![twice],
                    _ => vec![twice[..v1 * c].to_vec(), twice[v1 * c..].to_vec()],
                }
            },
        ));
        let formats = [Format::F32, Format::F16, Format::Bf16, Format::Q8, Format::Q4];
        for format in formats.into_iter().filter(|f| c.is_multiple_of(f.row_unit())) {
            let mut inputs = vec![Input::normal(1, v1, c, 1.0).stored(format)];
            if v1 < v {
                inputs.push(Input::normal(2, v - v1, c, 1.0).stored(format));
            }
            inputs.push(Input::u32(indices.clone(), t, 1).live(0));
            out.push(Case::new(
                "gather_rows",
                format!("{shape} {format:?}"),
                inputs,
                move |r, t| Ok(vec![gather_rows(r, &Matrix::new(t[..count].to_vec()), t[count], None)?]),
                move |x| vec![reference::gather_rows(&table(x, count), &integers(&x[count]), c)],
            ));
        }
    }
    out.extend(embeddings());
    out.extend(positions());
    // Every 16-bit number between two magnitudes; in a single case, errors of the small ones would be invisible beside
    // the large. The first f16 are subnormal.
    for format in [Format::F16, Format::Bf16] {
        for (low, high) in [(1e-7, 6.1e-5), (6.1e-5, 0.01), (0.01, 2.0), (2.0, 400.0), (400.0, 7e4)] {
            let number = |bits: u16| match format {
                Format::F16 => f16::from_bits(bits).to_f32(),
                _ => bf16::from_bits(bits).to_f32(),
            };
            let every = (0..=u16::MAX).map(number).filter(|v| (low..high).contains(&v.abs()));
            let mut every: Vec<f32> = every.collect();
            let n = every.len().next_multiple_of(4);
            every.resize(n, low);
            out.push(Case::new(
                "gather_rows",
                format!("{low} to {high} {format:?}"),
                vec![Input::f32(every, 1, n).stored(format), Input::u32(vec![0], 1, 1)],
                |r, t| Ok(vec![gather_rows(r, &t[0].into(), t[1], None)?]),
                |x| vec![x[0].clone()],
            ));
        }
    }
    out
}

/// A table with Gemma's vocabulary in two parts.
pub(super) fn real_shapes() -> Vec<Case> {
    let (part, c, scale) = (131_072, 96, 25.25);
    let rows: Vec<u32> = (0..13).map(|i| i * 20_161 + 1).collect();
    let at = rows.clone();
    vec![Case::new(
        "embedding",
        format!("V {} T 13 C {c} in two parts", 2 * part),
        vec![
            Input::weights(1, part, c, 1.0),
            Input::weights(2, part, c, 1.0),
            Input::u32(rows, 13, 1).live(0),
        ],
        move |r, t| Ok(vec![embedding(r, &Matrix::new(t[..2].to_vec()), t[2], None, scale)?]),
        move |x| vec![reference::embedding(&x[..2].concat(), &at, c, scale as f64)],
    )]
}

/// Scaled rows, as in Gemma's embedding.
fn embeddings() -> Vec<Case> {
    let mut out = Vec::new();
    for (v, t, c) in [(1, 1, 1), (7, 13, 5), (67, 65, 64), (3, 2, 1028)] {
        let scale = (c as f32).sqrt() * 1.5;
        let rows: Vec<u32> = (0..t).map(|i| (i * i * 31 + 2) as u32 % v as u32).collect();
        let mut order: Vec<u32> = (0..t as u32).collect();
        order.sort_by_key(|t| rows[*t as usize]);
        let before = |row: u32| rows.iter().filter(|r| **r < row).count() as u32;
        let shape = format!("V {v} T {t} C {c} scale {scale:.1}");
        let inputs = vec![
            Input::normal(1, v, c, 1.0).watched(),
            Input::u32(rows.clone(), t, 1).live(0),
            Input::normal(2, t, c, 1.0).live(0),
            Input::u32((0..v as u32).collect(), v, 1).live(1),
            Input::u32((0..=v as u32).map(before).collect(), v + 1, 1),
            Input::u32(order, t, 1).live(0),
        ];
        let at = rows.clone();
        out.push(Case::new(
            "embedding_backward",
            &shape,
            inputs,
            move |r, t| {
                let inverse = Inverse { rows: t[3], offsets: t[4], order: t[5] };
                let y = embedding(r, &t[0].into(), t[1], Some(inverse), scale)?;
                let z = embedding(r, &t[0].into(), t[1], Some(inverse), scale)?;
                let sum = residual_add(r, y, z)?;
                r.backward(&[(sum, t[2])])?;
                Ok(gradients(r, &t[..1]))
            },
            move |x| vec![reference::embedding_backward(&at, &x[2], v, c, 2.0 * scale as f64)],
        ));
        for format in [Format::F32, Format::F16, Format::Bf16] {
            if format != Format::F32 && c % 4 != 0 {
                continue;
            }
            let at = rows.clone();
            out.push(Case::new(
                "embedding",
                format!("{shape} {format:?}"),
                vec![Input::normal(1, v, c, 1.0).stored(format), Input::u32(rows.clone(), t, 1).live(0)],
                move |r, t| Ok(vec![embedding(r, &t[0].into(), t[1], None, scale)?]),
                move |x| vec![reference::embedding(&x[0], &at, c, scale as f64)],
            ));
        }
    }
    out
}

/// Learned positions: of rows with keys of their own and of a prefix, without keys, and after preceding keys.
fn positions() -> Vec<Case> {
    let spans: Vec<[u32; 4]> =
        vec![[0, 0, 0, 1], [0, 0, 0, 2], [0, 2, 5, 6], [0, 2, 5, 9], [0, 0, 0, 0], [3, 7, 7, 8]];
    let before = 3;
    let (rows, cols) = (16, 20);
    let position = move |span: &[f64]| before + (span[1] - span[0] + span[3] - span[2]).max(1.0) as u32 - 1;
    let of_spans = move |spans: &[f64]| spans.chunks_exact(4).map(position).collect::<Vec<_>>();
    let (n, flat) = (spans.len(), spans.concat());
    let numbers: Vec<f64> = flat.iter().map(|x| *x as f64).collect();
    let indices = of_spans(&numbers);
    let groups: Vec<Vec<u32>> =
        (0..rows as u32).map(|row| (0..n as u32).filter(|i| indices[*i as usize] == row).collect()).collect();
    let offsets = groups.iter().scan(0, |end, g| {
        *end += g.len() as u32;
        Some(*end)
    });
    let offsets: Vec<u32> = [0].into_iter().chain(offsets).collect();
    let inputs = vec![
        Input::normal(1, rows, cols, 1.0).watched(),
        Input::u32(flat, n, 4).live(0),
        Input::normal(2, n, cols, 1.0).live(0),
        Input::u32((0..rows as u32).collect(), rows, 1),
        Input::u32(offsets, rows + 1, 1),
        Input::u32(groups.concat(), n, 1).live(0),
    ];
    let record = move |r: &mut Recorder, t: &[Tensor]| {
        let inverse = Inverse { rows: t[3], offsets: t[4], order: t[5] };
        position_embedding(r, &t[0].into(), t[1], Dim::Fixed(before), Some(inverse))
    };
    let shape = format!("positions {rows} T {n} C {cols}");
    let forward = Case::new(
        "position_embedding",
        &shape,
        inputs.clone(),
        move |r, t| Ok(vec![record(r, t)?]),
        move |v| vec![reference::gather_rows(&v[0], &of_spans(&v[1]), cols)],
    );
    let backward = Case::new(
        "position_embedding_backward",
        shape,
        inputs,
        move |r, t| {
            let y = record(r, t)?;
            r.backward(&[(y, t[2])])?;
            Ok(gradients(r, &[t[0]]))
        },
        move |v| vec![reference::gather_rows_backward(&of_spans(&v[1]), &v[2], rows, cols)],
    );
    vec![forward, backward]
}
