//! Conversion of ggml's blocks of quantised numbers to f32, and of f32 to 8 bits.

use half::f16 as F16;

/// The number of elements of a block of [`q8_0`] and [`q4_0`].
const SMALL: usize = 32;

/// The f16 at offset `at`.
fn half(bytes: &[u8], at: usize) -> f32 {
    F16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Decodes a scale d (f16) and 32 integers q of 8 bits: d · q.
pub(super) fn q8_0(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<34>().0 {
        let d = half(block, 0);
        values.extend(block[2..].iter().map(|&q| d * (q as i8) as f32));
    }
}

/// Decodes a scale d (f16) and 16 bytes, whose lower four bits are the first 16 of q and whose upper four bits are the
/// others: d · (q − 8).
pub(super) fn q4_0(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<18>().0 {
        let d = half(block, 0);
        for shift in [0, 4] {
            values.extend(block[2..].iter().map(|&b| d * ((b >> shift & 15) as f32 - 8.0)));
        }
    }
}

/// Decodes scales d and m (f16), eight scales s and minima t of 6 bits in 12 bytes, and 256 integers q of 4 bits, where
/// each group of 32 bytes has the lower four bits first: d · s · q − m · t.
pub(super) fn q4_k(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<144>().0 {
        let (d, m) = (half(block, 0), half(block, 2));
        let packed = &block[4..16];
        for group in 0..8 {
            let (scale, minimum) = match group {
                0..4 => (packed[group] & 63, packed[group + 4] & 63),
                _ => (
                    packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
                    packed[group + 4] >> 4 | packed[group] >> 6 << 4,
                ),
            };
            let (scale, minimum) = (d * scale as f32, m * minimum as f32);
            let (of, shift) = (&block[16 + group / 2 * 32..][..32], 4 * (group % 2));
            values.extend(of.iter().map(|&b| scale * (b >> shift & 15) as f32 - minimum));
        }
    }
}

/// Decodes 256 integers q of 6 bits, with the lower four bits in 128 bytes and the upper two in 64, 16 scales s of 8
/// bits, and a scale d (f16): d · s · (q − 32).
pub(super) fn q6_k(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<210>().0 {
        let (lower, rest) = block.split_at(128);
        let (upper, rest) = rest.split_at(64);
        let d = half(rest, 16);
        for at in 0..256 {
            // Each half of 128 elements has 64 bytes of lower bits and 32 of upper ones, which hold four rows of 32.
            let (part, row, col) = (at / 128, at / 32 % 4, at % 32);
            let low = lower[part * 64 + row % 2 * 32 + col] >> (row / 2 * 4) & 15;
            let high = upper[part * 32 + col] >> (2 * row) & 3;
            let q = (low | high << 4) as i8 - 32;
            values.push(d * (rest[at / 16] as i8) as f32 * q as f32);
        }
    }
}

/// Encodes whole blocks of numbers as [`q8_0`]: each number is rounded to the nearest of 255 steps, relative to the
/// largest of its block. The error is the largest number of a block whose scale overflows half precision.
pub(super) fn to_q8_0(values: &[f32]) -> Result<Vec<u8>, f32> {
    let mut out = Vec::with_capacity(values.len() / SMALL * 34);
    for block in values.chunks_exact(SMALL) {
        let largest = block.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        let d = largest / 127.0;
        let scale = F16::from_f32(d);
        if scale.is_infinite() {
            return Err(block.iter().copied().find(|v| v.abs() == largest).unwrap_or(largest));
        }
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend(scale.to_le_bytes());
        out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_eight_bits_are_within_half_a_step() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let bytes = to_q8_0(&values).unwrap();
        assert_eq!(bytes.len(), 3 * 34);
        let mut back = Vec::new();
        q8_0(&bytes, &mut back);
        for (block, back) in values.chunks(32).zip(back.chunks(32)) {
            let step = block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
            assert!(block.iter().zip(back).all(|(a, b)| (a - b).abs() <= step * 0.57), "{block:?} {back:?}");
        }
        // Numbers that are already in this form do not change.
        let mut again = Vec::new();
        q8_0(&to_q8_0(&back).unwrap(), &mut again);
        assert!(back.iter().zip(&again).all(|(a, b)| (a - b).abs() <= a.abs() * 1e-3));
        let mut zeros = Vec::new();
        q8_0(&to_q8_0(&[0.0; 32]).unwrap(), &mut zeros);
        assert_eq!(zeros, [0.0; 32]);
        assert_eq!(to_q8_0(&[-1e9; 32]), Err(-1e9));
    }
}
