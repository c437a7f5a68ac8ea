//! Numbers as text, and places spread evenly over a list.

/// `value` with this many digits after the point. What rounds to 0 has no sign.
pub(crate) fn decimals(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|c| matches!(c, b'0' | b'.')) => zero.to_owned(),
        _ => text,
    }
}

/// `count` indices from the first to the last of `n`, evenly spread; all of them if there are no more.
pub(crate) fn evenly(n: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(n);
    (0..count).map(move |i| i * (n - 1) / (count - 1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_zero_has_no_sign() {
        let texts = [(-0.0004, 3), (-0.0, 0), (-0.4, 0), (-0.0006, 3), (-10.0, 0), (0.26, 1)];
        assert_eq!(
            texts.map(|(value, digits)| decimals(value, digits)),
            ["0.000", "0", "0", "-0.001", "-10", "0.3"]
        );
        assert_eq!(decimals(f64::NEG_INFINITY, 2), "-inf");
    }

    #[test]
    fn places_are_spread_from_the_first_to_the_last() {
        let places = |n, count| evenly(n, count).collect::<Vec<_>>();
        assert_eq!(places(10, 4), [0, 3, 6, 9]);
        assert_eq!(places(3, 12), [0, 1, 2]);
        assert_eq!((places(5, 1), places(0, 4)), (vec![0], vec![]));
    }
}
