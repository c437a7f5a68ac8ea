//! SplitMix numbers as a function of (seed, stream, counter): any number can be reproduced alone, in any order.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014; constants of Stafford's variant 13).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers: number `i` is SplitMix64's finaliser of `start + i · golden ratio`.
#[derive(Clone, Debug)]
pub struct SplitMix {
    start: u64,
    counter: u64,
}

impl SplitMix {
    /// Stream `stream` of `seed`; streams of one seed are independent for all practical purposes.
    pub fn new(seed: u64, stream: u64) -> SplitMix {
        SplitMix { start: mix(mix(seed.wrapping_add(GOLDEN)) ^ stream.wrapping_mul(GOLDEN)), counter: 0 }
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.start.wrapping_add(self.counter.wrapping_mul(GOLDEN)))
    }

    /// A number in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An index below `count` (multiply and shift, Lemire 2019; the bias is below `count` · 2^-64). 0 when `count` is 0.
    #[inline]
    pub fn below(&mut self, count: usize) -> usize {
        ((self.bits() as u128 * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_function_of_seed_and_stream() {
        let take = |seed, stream| {
            let mut random = SplitMix::new(seed, stream);
            [random.bits(), random.bits(), random.bits()]
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(1, 3));
        assert_ne!(take(1, 2), take(2, 2));
        // Pinned, because reported intervals depend on it. Computed independently in Python.
        assert_eq!(take(0, 0)[0], 0x568a9b0b1a2c05ec);
    }

    #[test]
    fn indices_and_numbers_are_uniform() {
        let mut random = SplitMix::new(7, 0);
        let mut counts = [0usize; 10];
        let mut sum = 0.0;
        for _ in 0..100_000 {
            counts[random.below(10)] += 1;
            sum += random.uniform();
        }
        // Chi-square with 9 degrees of freedom: 27.9 is exceeded once in 1,000 seeds; seed 7.
        let chi: f64 = counts.iter().map(|&c| (c as f64 - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi < 27.9, "seed 7: {chi} {counts:?}");
        assert!((sum / 100_000.0 - 0.5).abs() < 0.004, "seed 7: {sum}");
        assert_eq!(random.below(0), 0);
    }
}
