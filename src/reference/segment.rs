//! Sums over segments of rows: token log-probabilities into sequence log-probabilities.

use super::check;

/// y_s = Σ x_t over offsets_s <= t < offsets_{s+1}: x (T), offsets (S + 1), from 0 to T -> y (S).
pub fn segment_sum(x: &[f64], offsets: &[u32]) -> Vec<f64> {
    check("x", x, &[rows(offsets)]);
    offsets.windows(2).map(|pair| x[pair[0] as usize..pair[1] as usize].iter().sum()).collect()
}

/// dx_t = dy_s for the segment s that contains t: dy (S), offsets (S + 1) -> dx (T).
pub fn segment_sum_backward(dy: &[f64], offsets: &[u32]) -> Vec<f64> {
    rows(offsets);
    check("dy", dy, &[offsets.len() - 1]);
    let length = |pair: &[u32]| (pair[1] - pair[0]) as usize;
    offsets.windows(2).zip(dy).flat_map(|(pair, &dy)| vec![dy; length(pair)]).collect()
}

/// T, the number of rows that the segments cover without a gap.
fn rows(offsets: &[u32]) -> usize {
    assert!(offsets.first() == Some(&0) && offsets.is_sorted(), "offsets should increase from 0");
    offsets[offsets.len() - 1] as usize
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, assert_gradient};
    use super::*;

    #[test]
    fn segments_are_summed_and_may_be_empty() {
        assert_eq!(segment_sum(&[1.0, 2.0, 4.0, 8.0], &[0, 1, 1, 4]), [1.0, 0.0, 14.0]);
    }

    #[test]
    fn segment_sum_gradient_matches_central_differences() {
        for (seed, offsets) in (100..).zip([vec![0, 1], vec![0, 3, 3, 10, 11], vec![0, 0, 5]]) {
            let mut random = Random::new(seed);
            let x = random.values(rows(&offsets));
            let dy = random.values(offsets.len() - 1);
            let dx = segment_sum_backward(&dy, &offsets);
            assert_gradient("x", seed, &x, &dx, &dy, |x| segment_sum(x, &offsets));
        }
    }
}
