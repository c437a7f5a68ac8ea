//! Row lookups by index: of the embedding table, and of the hidden states.

use super::{add_scaled, check, row};

/// y_t = table_{rows_t}: table (V, C), rows (T), which may repeat -> y (T, C).
pub fn gather_rows(table: &[f64], rows: &[u32], c: usize) -> Vec<f64> {
    embedding(table, rows, c, 1.0)
}

/// dtable_v = Σ dy_t over the t with rows_t = v: rows (T), dy (T, C) -> dtable (V, C).
pub fn gather_rows_backward(rows: &[u32], dy: &[f64], v: usize, c: usize) -> Vec<f64> {
    embedding_backward(rows, dy, v, c, 1.0)
}

/// Like [`gather_rows`], times `scale`.
pub fn embedding(table: &[f64], rows: &[u32], c: usize, scale: f64) -> Vec<f64> {
    rows.iter().flat_map(|&at| &table[row(at as usize, c)]).map(|x| scale * x).collect()
}

/// Like [`gather_rows_backward`], times `scale`.
pub fn embedding_backward(rows: &[u32], dy: &[f64], v: usize, c: usize, scale: f64) -> Vec<f64> {
    check("dy", dy, &[rows.len(), c]);
    let mut dtable = vec![0.0; v * c];
    for (t, &at) in rows.iter().enumerate() {
        add_scaled(&mut dtable[row(at as usize, c)], scale, &dy[row(t, c)]);
    }
    dtable
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_gradient};
    use super::*;

    #[test]
    fn embedding_copies_and_scales_rows() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(gather_rows(&table, &[2, 0, 2], 2), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        assert_eq!(embedding(&table, &[1], 2, 0.5), [1.5, 2.0]);
    }

    #[test]
    fn embedding_and_gather_gradients_match_central_differences() {
        for (seed, (t, v, c)) in (80..).zip([(1, 1, 1), (9, 5, 3), (4, 7, 2)]) {
            let mut random = Random::new(seed);
            let (table, rows, dy) = (random.values(v * c), random.below(v, t), random.values(t * c));
            let d = gather_rows_backward(&rows, &dy, v, c);
            assert_gradient("table", seed, &table, &d, &dy, |table| gather_rows(table, &rows, c));
            let d = embedding_backward(&rows, &dy, v, c, 3.5);
            assert_gradient("table", seed, &table, &d, &dy, |table| embedding(table, &rows, c, 3.5));
        }
    }
}
