//! The measured speed of this GPU, used to limit how long a submit occupies it.
//!
//! The time for a unit of work differs between kernels by up to a factor of a hundred. So the first launches of each
//! kernel are timed individually if the GPU has timestamps; otherwise all kernels are assumed to be equally fast.

use std::sync::Mutex;

/// Returns the number of pieces in which a launch of this duration is submitted.
pub(super) fn pieces(ms: f64, groups: u32, submit_ms: f64) -> u32 {
    ((ms / submit_ms).ceil() as u32).clamp(1, groups)
}

/// Work per millisecond, in the units of [`super::Work::units`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    units_per_ms: f64,
    /// The current time of known kernels, as a multiple of the time when they were measured.
    drift: f64,
}

impl Default for Pace {
    /// Assumes a slow software driver; a real GPU is found to be faster after the first replay.
    fn default() -> Self {
        Pace { units_per_ms: 1e6, drift: 1.0 }
    }
}

impl Pace {
    /// Returns the milliseconds that a kernel takes for this many units of work.
    pub fn ms(&self, cost: &Cost, units: f64) -> f64 {
        match cost.ms_per_unit() {
            Some(ms_per_unit) => units * ms_per_unit * self.drift,
            None => units / self.units_per_ms,
        }
    }

    /// Updates the speed from `units` of work that took `ms`. Ignores short runs, which measure latency rather than
    /// speed.
    pub fn learn(&mut self, units: f64, ms: f64) {
        if ms > 2.0 && units > 0.0 {
            self.units_per_ms = 0.5 * (self.units_per_ms + units / ms);
        }
    }

    /// Updates the drift from known kernels that took `ms` rather than `expected_ms`.
    pub fn correct(&mut self, expected_ms: f64, ms: f64) {
        if ms > 2.0 && expected_ms > 0.0 {
            self.drift = (self.drift * (ms / expected_ms).sqrt()).clamp(0.25, 4.0);
        }
    }
}

/// Number of measurements after which a kernel is known: a driver may compile it when it first runs.
pub(super) const SAMPLES: u32 = 2;

/// The cost of a unit of work in a kernel.
#[derive(Default)]
pub(super) struct Cost {
    /// How often it was timed individually, and the milliseconds per unit.
    timed: Mutex<(u32, f64)>,
}

impl Cost {
    /// Returns the milliseconds per unit of work, if known.
    pub fn ms_per_unit(&self) -> Option<f64> {
        let (samples, ms_per_unit) = *self.timed.lock().unwrap();
        (samples >= SAMPLES).then_some(ms_per_unit)
    }

    /// Updates the cost from a pass of this kernel alone.
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
        assert_eq!(pace.ms(&cost, 3e6), 3.0, "the first time may include compilation");
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
