//! The counter-based random number generator, identical to the GPU's bit for bit.

/// A hash of four words to four words (Jarzynski and Olano 2020, "Hash Functions for GPU Rendering",
/// Journal of Computer Graphics Techniques 9(3)); all arithmetic wraps.
pub fn pcg4d(v: [u32; 4]) -> [u32; 4] {
    let mut v = v.map(|word| word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    mix(&mut v);
    v = v.map(|word| word ^ (word >> 16));
    mix(&mut v);
    v
}

/// x += y w, y += z x, z += x y, w += y z, in this order.
fn mix(v: &mut [u32; 4]) {
    for (to, a, b) in [(0, 1, 3), (1, 2, 0), (2, 0, 1), (3, 1, 2)] {
        v[to] = v[to].wrapping_add(v[a].wrapping_mul(v[b]));
    }
}

/// A uniform number in the open interval (0, 1), an odd multiple of 2^-24 and therefore exact in f32: word `index % 4`
/// of `pcg4d([seed, sequence, position, index / 4])`, truncated to its 23 highest bits.
pub fn uniform(seed: u32, sequence: u32, position: u32, index: u32) -> f64 {
    let bits = pcg4d([seed, sequence, position, index / 4])[index as usize % 4];
    (f64::from(bits >> 9) + 0.5) / f64::from(1 << 23)
}

#[cfg(test)]
mod tests {
    use super::super::testing::chi_square_limit;
    use super::*;

    #[test]
    fn pcg4d_has_the_known_values() {
        // Computed from the published definition with arbitrary-precision integers.
        let known = [
            ([0, 0, 0, 0], [0x0f02_f829, 0x2d56_8769, 0x32b0_c43b, 0xd325_48ea]),
            ([1, 2, 3, 4], [0x3622_cd16, 0xf114_71d8, 0xe110_9b3f, 0x02b9_4c2f]),
            ([u32::MAX, 1 << 31, 12345, 0xdead_beef], [0x50a9_5531, 0x1479_dfd1, 0x1f12_c6c2, 0x26b4_3426]),
        ];
        for (input, expected) in known {
            assert_eq!(pcg4d(input), expected, "of {input:?}");
        }
    }

    #[test]
    fn uniform_is_exact_in_f32_and_inside_the_open_interval() {
        for index in 0..100_000 {
            let u = uniform(1, 2, 3, index);
            assert!(u > 0.0 && u < 1.0 && f64::from(u as f32) == u, "index {index}: {u}");
        }
        let extremes = [0u32, u32::MAX].map(|bits| (f64::from(bits >> 9) + 0.5) / f64::from(1 << 23));
        assert_eq!(extremes.map(|u| f64::from(u as f32)), [2f64.powi(-24), 1.0 - 2f64.powi(-24)]);
        assert_eq!(extremes, extremes.map(|u| f64::from(u as f32)));
    }

    #[test]
    fn neighbouring_counters_draw_independently() {
        // Pairs of numbers one counter apart fill a 16 × 16 grid evenly, for each of the counters.
        const SIDE: usize = 16;
        let cell = |u: f64| (u * SIDE as f64) as usize;
        for moved in 0..4 {
            let mut counts = vec![0.0; SIDE * SIDE];
            for sequence in 0..16 {
                for position in 0..16 {
                    for index in 0..256 {
                        let draw = |step: u32| {
                            let mut key = [7, 3 * sequence, 5 * position, 2 * index];
                            key[moved] += step;
                            uniform(key[0], key[1], key[2], key[3])
                        };
                        counts[cell(draw(0)) * SIDE + cell(draw(1))] += 1.0;
                    }
                }
            }
            let expected = 65536.0 / (SIDE * SIDE) as f64;
            let statistic: f64 = counts.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
            let limit = chi_square_limit(SIDE * SIDE - 1);
            assert!(statistic < limit, "counter {moved}: {statistic} should be below {limit}");
        }
    }
}
