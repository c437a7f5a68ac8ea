//! How fast this GPU works, as measured, so that no submit holds it for long.
//!
//! A unit of work takes some kernels a hundred times as long as others. So the first launches of each kernel are timed by
//! themselves, where the GPU can tell times; else all kernels are taken for equally fast.

use std::sync::Mutex;

/// In how many pieces a launch that takes so long is submitted.
pub(super) fn pieces(ms: f64, groups: u32, submit_ms: f64) -> u32 {
    ((ms / submit_ms).ceil() as u32).clamp(1, groups)
}

/// Work per millisecond, in the units of [`super::Work::units`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    units_per_ms: f64,
    /// What known kernels take now, as a multiple of what they took when they were timed.
    drift: f64,
}

impl Default for Pace {
    /// A slow software driver: a real GPU is found to be faster after the first replay.
    fn default() -> Self {
        Pace { units_per_ms: 1e6, drift: 1.0 }
    }
}

impl Pace {
    /// Milliseconds that a kernel takes for so many units of work.
    pub fn ms(&self, cost: &Cost, units: f64) -> f64 {
        match cost.ms_per_unit() {
            Some(ms_per_unit) => units * ms_per_unit * self.drift,
            None => units / self.units_per_ms,
        }
    }

    /// Learns from `units` of work that took `ms`. Short runs measure latency rather than speed and teach nothing.
    pub fn learn(&mut self, units: f64, ms: f64) {
        if ms > 2.0 && units > 0.0 {
            self.units_per_ms = 0.5 * (self.units_per_ms + units / ms);
        }
    }

    /// Learns from known kernels that took `ms` rather than `expected_ms`.
    pub fn correct(&mut self, expected_ms: f64, ms: f64) {
        if ms > 2.0 && expected_ms > 0.0 {
            self.drift = (self.drift * (ms / expected_ms).sqrt()).clamp(0.25, 4.0);
        }
    }
}

/// Times after which a kernel is known: a driver may compile it when it first runs.
pub(super) const SAMPLES: u32 = 2;

/// What a unit of work costs a kernel.
#[derive(Default)]
pub(super) struct Cost {
    /// How often it was timed by itself, and the milliseconds for a unit.
    timed: Mutex<(u32, f64)>,
}

impl Cost {
    /// Milliseconds for a unit of work, once that is known.
    pub fn ms_per_unit(&self) -> Option<f64> {
        let (samples, ms_per_unit) = *self.timed.lock().unwrap();
        (samples >= SAMPLES).then_some(ms_per_unit)
    }

    /// Learns from a pass of this kernel alone.
    pub fn learn(&self, units: f64, ms: f64) {
        if ms <= 0.0 || units <= 0.0 {
            return;
        }
        let (samples, known) = &mut *self.timed.lock().unwrap();
        let seen = ms / units;
        *known = match *samples {
            0 => seen,
            n if n < SAMPLES => known.min(seen),
            _ => 0.75 * *known + 0.25 * seen,
        };
        *samples = samples.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_the_shorter_of_its_first_two_times() {
        let (cost, pace) = (Cost::default(), Pace::default());
        assert_eq!(pace.ms(&cost, 3e6), 3.0);
        cost.learn(1e6, 500.0);
        assert_eq!(pace.ms(&cost, 3e6), 3.0, "it may have been compiled meanwhile");
        cost.learn(1e6, 20.0);
        assert!((pace.ms(&cost, 3e6) - 60.0).abs() < 1e-9);
        assert_eq!(pieces(60.0, 100, 4.0), 15);
        assert_eq!(pieces(60.0, 8, 4.0), 8, "a workgroup is not split");
    }

    #[test]
    fn a_gpu_that_slows_down_gets_less_at_a_time() {
        let (cost, mut pace) = (Cost::default(), Pace::default());
        (0..2).for_each(|_| cost.learn(1e6, 1.0));
        for _ in 0..20 {
            let expected = pace.ms(&cost, 1e7);
            pace.correct(expected, 30.0);
        }
        assert!((pace.ms(&cost, 1e7) - 30.0).abs() < 0.1, "{pace:?}");
    }
}
