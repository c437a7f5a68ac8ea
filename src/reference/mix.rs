//! Weights that track other weights (a moving average).

/// y = amount x + (1 - amount) y, any shape. It has no gradient.
pub fn mix(x: &[f64], y: &[f64], amount: f64) -> Vec<f64> {
    super::check("y", y, &[x.len()]);
    x.iter().zip(y).map(|(x, y)| amount * x + (1.0 - amount) * y).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_of_1_copies_x_and_one_of_0_keeps_y() {
        let (x, y) = ([1.0, 2.0, -3.0], [0.5, -2.0, 3.0]);
        assert_eq!(mix(&x, &y, 1.0), x);
        assert_eq!(mix(&x, &y, 0.0), y);
        assert_eq!(mix(&x, &y, 0.25), [0.625, -1.0, 1.5]);
    }
}
