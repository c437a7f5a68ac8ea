//! Cases: rows looked up, and what every 16-bit number becomes.

use super::{Case, Input};
use crate::gpu::{Format, Tensor};
use crate::ops::{Inverse, Matrix, gather_rows, residual_add};
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
                // The backward pass takes the last one first: every row is written, then those present added to.
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
        // Rows of 16 bits are whole vectors of four.
        for format in
            [Format::F32, Format::F16, Format::Bf16].into_iter().filter(|f| *f == Format::F32 || c % 4 == 0)
        {
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
    // Every number that 16 bits hold between two magnitudes; all in one case, the small ones would not be seen beside
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
            every.resize(n, low as f32);
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
