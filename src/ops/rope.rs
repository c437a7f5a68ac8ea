//! Rotary position embedding, with the pairs half a head apart as in Hugging Face's layout.

use super::case::{Case, Input};
use super::{accumulate, elements};
use crate::error::Result;
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

/// Cosines, then sines of every position's angles, for [`rope`]: (positions, D), row-major. Made in `f64`, since
/// the sines of drivers lose the large angles. `inv_freq` (D/2) is in radians a position.
pub fn rope_table(inv_freq: &[f64], positions: usize) -> Vec<f32> {
    let row = |position: usize| {
        let angles = inv_freq.iter().map(move |f| position as f64 * f);
        angles.clone().map(f64::cos).chain(angles.map(f64::sin)).map(|x| x as f32)
    };
    (0..positions).flat_map(row).collect()
}

/// Turns the pair (x_j, x_{j + D/2}) of every head by the angles of the row's position (Su et al. 2021,
/// arXiv 2104.09864). Every position must have its row in the table, see [`rope_table`].
///   x (N, heads * D)  positions (N, 1) integers  table (positions, D)  ->  y (N, heads * D)
pub fn rope(r: &mut Recorder, x: Tensor, positions: Tensor, table: Tensor, heads: usize) -> Result<Tensor> {
    let dim = table.cols;
    assert_eq!((x.cols, dim % 2), (heads * dim, 0), "rope: x (N, {}), {heads} heads of {dim}", x.cols);
    assert_eq!((positions.rows, positions.cols), (x.rows, 1), "rope: positions");
    let y = r.tensor("rope", x.rows, x.cols);
    launch(r, x, positions, table, 1.0, y, 0);
    r.rule(&[y], move |r| {
        let Some(dy) = r.gradient(y) else { return Ok(()) };
        if let Some(dx) = r.gradient_target(x) {
            launch(r, dy, positions, table, -1.0, dx.tensor, accumulate(dx));
        }
        Ok(())
    });
    Ok(y)
}

fn launch(r: &mut Recorder, x: Tensor, positions: Tensor, table: Tensor, sign: f32, y: Tensor, add: u32) {
    let half = table.cols / 2;
    let heads = x.cols / table.cols;
    r.launch(Launch {
        kernel: KernelKey {
            name: "rope_forward",
            constants: vec![("HEADS", heads as u32), ("HALF", half as u32), ("ADD", add)],
        },
        params: vec![x.rows.into(), Word::F32(sign)],
        args: vec![(x, Access::Read), (positions, Access::Read), (table, Access::Read), (y, Access::Write)],
        groups: elements(x.rows, heads * half),
        work: Work { flops: 3.0 * x.cols as f64, bytes: 8.0 * x.cols as f64 },
    });
}

pub(super) fn cases() -> Vec<Case> {
    const POSITIONS: usize = 8192;
    let mut out = Vec::new();
    for (n, heads, d) in [(1, 1, 2), (5, 3, 6), (63, 2, 8), (3, 17, 128), (2048, 8, 8)] {
        let shape = format!("N {n} H {heads} D {d}");
        let inv_freq: Vec<f64> = (0..d / 2).map(|j| 1e4f64.powf(-2.0 * j as f64 / d as f64)).collect();
        let table = rope_table(&inv_freq, POSITIONS);
        let inputs = || {
            let positions = (0..n).map(|i| ((i * 4099 + POSITIONS - 1) % POSITIONS) as u32).collect();
            vec![
                Input::normal(1, n, heads * d, 1.0).live(0).watched(),
                Input::u32(positions, n, 1).live(0),
                Input::f32(table.clone(), POSITIONS, d),
                Input::normal(2, n, heads * d, 1.0).live(0),
            ]
        };
        let integers = |v: &[f64]| v.iter().map(|p| *p as u32).collect::<Vec<_>>();
        let frequencies = inv_freq.clone();
        out.push(Case::new(
            "rope_forward",
            &shape,
            inputs(),
            move |r, t| Ok(vec![rope(r, t[0], t[1], t[2], heads)?]),
            move |v| vec![reference::rope_forward(&v[0], &integers(&v[1]), &frequencies, heads, d)],
        ));
        // Twice over, so that the second gradient is added to the first.
        out.push(Case::new(
            "rope_backward",
            &shape,
            inputs(),
            move |r, t| {
                let y = rope(r, t[0], t[1], t[2], heads)?;
                let z = rope(r, t[0], t[1], t[2], heads)?;
                let sum = super::residual_add(r, y, z)?;
                r.backward(&[(sum, t[3])])?;
                Ok(r.gradient(t[0]).into_iter().collect())
            },
            move |v| {
                let dx = reference::rope_backward(&v[3], &integers(&v[1]), &inv_freq, heads, d);
                vec![dx.iter().map(|dx| 2.0 * dx).collect()]
            },
        ));
    }
    out
}
