//! Residual add.

/// y = a + b, any shape. The gradient of both is dy.
pub fn residual_add(a: &[f64], b: &[f64]) -> Vec<f64> {
    super::check("b", b, &[a.len()]);
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residual_add_is_elementwise() {
        assert_eq!(residual_add(&[1.0, 2.0, -3.0], &[0.5, -2.0, 3.0]), [1.5, 0.0, 0.0]);
    }
}
