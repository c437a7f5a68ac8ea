//! Block formats: 32 numbers share a scale, q ≈ x / scale, with 8-bit integers from -127 to 127 or 4-bit integers from
//! -8 to 7. The values are those of llama.cpp's Q8_0 and Q4_0; the layout is different.
//!
//! Two blocks form a [`GROUP`]: their integers, then one word with both scales as f16, multiplied by [`SCALED_BY`],
//! since an f16 below 6.1e-5 has fewer digits, and some GPUs flush it to 0. A word holds four 8-bit integers as q +
//! 128, the first in the lowest byte; or eight 4-bit integers as q + 8, the first four in the low halves of its bytes
//! and the other four in the high halves. So four consecutive elements are one word, a mask and a shift.

use std::thread;

use half::f16;

use super::tensor::{Format, GROUP};

/// Elements that share a scale.
const BLOCK: usize = 32;
/// Below this number of groups, one core does the rounding.
const FEWEST_GROUPS: usize = 1 << 10;
/// The factor that stored scales are multiplied by.
pub const SCALED_BY: u32 = 256;

/// Rounds whole groups of numbers to `format`, on all CPU cores if there are many groups.
///
/// # Errors
/// Returns the first number that is too large for any scale, or not finite.
///
/// # Panics
/// Panics for a format without blocks, and for an incomplete group.
pub fn encode(format: Format, values: &[f32]) -> Result<Vec<u32>, f32> {
    let (groups, []) = values.as_chunks::<GROUP>() else { panic!("a part of a group of blocks") };
    let mut words = vec![0; groups.len() * format.group_words()];
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let share = groups.len().div_ceil(cores).max(FEWEST_GROUPS);
    let mut parts = groups.chunks(share).zip(words.chunks_mut(share * format.group_words()));
    let Some((first, into)) = parts.next() else { return Ok(words) };
    thread::scope(|scope| {
        let others: Vec<_> =
            parts.map(|(groups, words)| scope.spawn(move || encode_groups(format, groups, words))).collect();
        encode_groups(format, first, into)?;
        others.into_iter().try_for_each(|part| part.join().expect("rounding does not panic"))
    })?;
    Ok(words)
}

fn encode_groups(format: Format, groups: &[[f32; GROUP]], words: &mut [u32]) -> Result<(), f32> {
    for (group, words) in groups.iter().zip(words.chunks_exact_mut(format.group_words())) {
        let (integers, scales) = words.split_at_mut(format.group_words() - 1);
        let of_block = integers.len() / 2;
        for (b, block) in group.as_chunks::<BLOCK>().0.iter().enumerate() {
            let integers = &mut integers[b * of_block..][..of_block];
            let scale = match format {
                Format::Q8 => {
                    let (scale, rounded) = block_of_8_bits(block)?;
                    for (word, bytes) in integers.iter_mut().zip(rounded.as_chunks().0) {
                        *word = u32::from_le_bytes(*bytes);
                    }
                    scale
                }
                _ => {
                    let (scale, rounded) = block_of_4_bits(block)?;
                    for (word, q) in integers.iter_mut().zip(rounded.as_chunks::<8>().0) {
                        *word = u32::from_le_bytes(std::array::from_fn(|i| q[i] | q[i + 4] << 4));
                    }
                    scale
                }
            };
            scales[0] |= (scale.to_bits() as u32) << (16 * b);
        }
    }
    Ok(())
}

/// Returns the numbers that these words encode.
pub fn decode(format: Format, words: &[u32]) -> Vec<f32> {
    let mut values = Vec::with_capacity(words.len() / format.group_words() * GROUP);
    for group in words.chunks_exact(format.group_words()) {
        let (integers, scales) = group.split_at(group.len() - 1);
        let scale = |element: usize| {
            let bits = (scales[0] >> (16 * (element / BLOCK))) as u16;
            f16::from_bits(bits).to_f32() / SCALED_BY as f32
        };
        values.extend((0..GROUP).map(|i| {
            let q = match format {
                Format::Q8 => (integers[i / 4] >> (8 * (i % 4)) & 255) as f32 - 128.0,
                _ => (integers[i / 8] >> (8 * (i % 4) + i % 8 / 4 * 4) & 15) as f32 - 8.0,
            };
            q * scale(i)
        }));
    }
    values
}

/// Returns a scale as it is stored, and its value after storing. 0 for a block of zeros.
fn stored(scale: f32, largest: f32) -> Result<(f16, f32), f32> {
    let stored = f16::from_f32(scale * SCALED_BY as f32);
    if stored.is_finite() { Ok((stored, stored.to_f32() / SCALED_BY as f32)) } else { Err(largest) }
}

/// Returns the number with the largest magnitude.
fn largest(block: &[f32; BLOCK]) -> Result<f32, f32> {
    match block.iter().find(|x| !x.is_finite()) {
        Some(x) => Err(*x),
        None => Ok(block.iter().fold(0.0, |most: f32, x| if x.abs() > most.abs() { *x } else { most })),
    }
}

/// Adding and then subtracting this rounds numbers below 2²² to integers; unlike `f32::round`, it vectorises.
const ROUNDING: f32 = 1.5 * (1 << 23) as f32;

/// Returns x / scale, rounded and clamped to a range.
fn rounded(block: &[f32; BLOCK], scale: f32, [least, most]: [f32; 2]) -> [f32; BLOCK] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut integers = [0.0; BLOCK];
    for (q, x) in integers.iter_mut().zip(block) {
        *q = ((x * inverse).max(least).min(most) + ROUNDING) - ROUNDING;
    }
    integers
}

fn block_of_8_bits(block: &[f32; BLOCK]) -> Result<(f16, [u8; BLOCK]), f32> {
    let most = largest(block)?;
    let (bits, scale) = stored(most.abs() / 127.0, most)?;
    Ok((bits, rounded(block, scale, [-127.0, 127.0]).map(|q| (q + 128.0) as u8)))
}

/// The values that the number with the largest magnitude may be mapped to. The first is llama.cpp's choice: it makes
/// rounding idempotent for numbers that llama.cpp has rounded.
const LARGEST_BECOMES: [f32; 4] = [-8.0, -8.6, -7.4, -6.8];

/// Tries several scales and keeps the one with the smallest squared error; then tries the least-squares scale for the
/// integers found. With llama.cpp's scale alone, errors are 5 % larger.
fn block_of_4_bits(block: &[f32; BLOCK]) -> Result<(f16, [u8; BLOCK]), f32> {
    let most = largest(block)?;
    let mut best =
        Rounding { error: f32::INFINITY, scale: f16::ZERO, integers: [0.0; BLOCK], fitted_scale: 0.0 };
    for becomes in LARGEST_BECOMES {
        best.keep_better(block, most / becomes);
    }
    best.keep_better(block, best.fitted_scale);
    match best.error.is_finite() {
        true => Ok((best.scale, best.integers.map(|q| (q + 8.0) as u8))),
        false => Err(most),
    }
}

/// A block rounded to 4 bits.
struct Rounding {
    error: f32,
    scale: f16,
    integers: [f32; BLOCK],
    /// The scale with which these integers have the smallest error.
    fitted_scale: f32,
}

impl Rounding {
    /// Keeps the rounding with this scale if its error is smaller and the scale can be stored.
    fn keep_better(&mut self, block: &[f32; BLOCK], scale: f32) {
        if self.error == 0.0 {
            return;
        }
        let Ok((bits, stored)) = stored(scale, scale) else { return };
        let integers = rounded(block, stored, [-8.0, 7.0]);
        let [error, products, squares] = fit(block, &integers, stored);
        if error < self.error {
            let fitted_scale = if squares == 0.0 { stored } else { products / squares };
            *self = Rounding { error, scale: bits, integers, fitted_scale };
        }
    }
}

/// Returns Σ (x - q scale)², Σ x q, Σ q². Each is kept in eight partial sums, so that the loop vectorises.
fn fit(block: &[f32; BLOCK], integers: &[f32; BLOCK], scale: f32) -> [f32; 3] {
    let mut sums = [[0.0; 8]; 3];
    let (block, integers) = (block.as_chunks::<8>().0, integers.as_chunks::<8>().0);
    for (x, q) in block.iter().zip(integers) {
        for i in 0..8 {
            let error = x[i] - q[i] * scale;
            sums[0][i] += error * error;
            sums[1][i] += x[i] * q[i];
            sums[2][i] += q[i] * q[i];
        }
    }
    sums.map(|sum| sum.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [(Format, &str); 2] = [(Format::Q8, "q8_0"), (Format::Q4, "q4_0")];

    /// Returns numbers, and under a format's name the values that llama.cpp rounds them to.
    fn fixture(name: &str) -> Vec<f32> {
        let fixture: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/blocks.json")).unwrap();
        fixture[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    }

    fn rounded(format: Format, values: &[f32]) -> Vec<f32> {
        decode(format, &encode(format, values).unwrap())
    }

    #[test]
    fn numbers_that_llama_cpp_has_rounded_are_unchanged() {
        for (format, name) in FORMATS {
            let theirs = fixture(name);
            assert_eq!(rounded(format, &theirs), theirs, "{name}");
        }
    }

    #[test]
    fn the_error_of_blocks_is_no_larger_than_that_of_llama_cpp() {
        let values = fixture("values");
        let error = |of: &[f32], block: usize| -> f64 {
            let at = block * BLOCK..(block + 1) * BLOCK;
            let squares = of[at.clone()].iter().zip(&values[at]).map(|(a, b)| ((a - b) as f64).powi(2));
            squares.sum()
        };
        for (format, name) in FORMATS {
            let (ours, theirs) = (rounded(format, &values), fixture(name));
            for block in 0..values.len() / BLOCK {
                let (ours, theirs) = (error(&ours, block), error(&theirs, block));
                // With 8 bits the scale is the same, but llama.cpp rounds it after choosing the integers, and we
                // before.
                let slack = if format == Format::Q8 { 1.05 } else { 1.0 };
                assert!(ours <= theirs * slack + 1e-30, "{name}, block {block}: {ours} after {theirs}");
            }
        }
    }

    #[test]
    fn a_group_takes_17_or_9_words() {
        assert_eq!(encode(Format::Q8, &[0.5; 128]).unwrap().len(), 34);
        assert_eq!(encode(Format::Q4, &[0.5; 128]).unwrap().len(), 18);
        assert_eq!((Format::Q8.bytes(128), Format::Q4.bytes(128)), (136, 72));
    }

    #[test]
    fn numbers_that_no_scale_can_represent_are_refused() {
        for (format, _) in FORMATS {
            for x in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30, f32::MAX] {
                let mut values = [1.0; 64];
                values[40] = x;
                let found = encode(format, &values).unwrap_err();
                assert_eq!(found.to_bits(), x.to_bits(), "{x} as {format:?}");
            }
            let tiny = [f32::MIN_POSITIVE; 64];
            assert_eq!(rounded(format, &tiny), [0.0; 64], "too small for any scale");
        }
    }
}
