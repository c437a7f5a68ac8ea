//! Rows looked up by number: of the embedding table, and of the hidden states.

use super::{add_scaled, check, row};

/// y_n = w_{ids_n}: w (V, C), ids (N) -> y (N, C).
pub fn embedding_forward(w: &[f64], ids: &[u32], c: usize) -> Vec<f64> {
    ids.iter().flat_map(|&id| &w[row(id as usize, c)]).copied().collect()
}

/// dw_v = Σ dy_n over the n with ids_n = v: ids (N), dy (N, C) -> dw (V, C).
pub fn embedding_backward(ids: &[u32], dy: &[f64], v: usize, c: usize) -> Vec<f64> {
    check("dy", dy, &[ids.len(), c]);
    let mut dw = vec![0.0; v * c];
    for (token, &id) in ids.iter().enumerate() {
        add_scaled(&mut dw[row(id as usize, c)], 1.0, &dy[row(token, c)]);
    }
    dw
}

/// y_t = x_{rows_t}: x (N, C), rows (T), which may repeat -> y (T, C).
pub fn gather_rows(x: &[f64], rows: &[u32], c: usize) -> Vec<f64> {
    embedding_forward(x, rows, c)
}

/// dx_n = Σ dy_t over the t with rows_t = n: rows (T), dy (T, C) -> dx (N, C).
pub fn gather_rows_backward(rows: &[u32], dy: &[f64], n: usize, c: usize) -> Vec<f64> {
    embedding_backward(rows, dy, n, c)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_gradient};
    use super::*;

    #[test]
    fn embedding_copies_rows() {
        let w = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(embedding_forward(&w, &[2, 0, 2], 2), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    }

    #[test]
    fn embedding_and_gather_gradients_match_central_differences() {
        for (seed, (n, v, c)) in (80..).zip([(1, 1, 1), (9, 5, 3), (4, 7, 2)]) {
            let mut random = Random::new(seed);
            let (w, ids, dy) = (random.values(v * c), random.below(v, n), random.values(n * c));
            let dw = embedding_backward(&ids, &dy, v, c);
            assert_gradient("w", seed, &w, &dw, &dy, |w| embedding_forward(w, &ids, c));
            let dx = gather_rows_backward(&ids, &dy, v, c);
            assert_gradient("x", seed, &w, &dx, &dy, |x| gather_rows(x, &ids, c));
        }
    }
}
