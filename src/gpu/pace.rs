//! How fast this GPU works, as measured, so that no submit holds it for long.

use super::device::Gpu;

impl Gpu {
    /// Units of work that one submit may have.
    pub(super) fn units_per_submit(&self) -> f64 {
        self.inner.pace.lock().unwrap().units_in(self.inner.submit_ms)
    }
}

/// In how many pieces a launch of so many units of work and workgroups is submitted.
pub(super) fn pieces(units: f64, groups: u32, units_per_submit: f64) -> u32 {
    ((units / units_per_submit).ceil() as u32).clamp(1, groups)
}

/// Work per millisecond, in the units of [`super::Work::units`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    units_per_ms: f64,
}

impl Default for Pace {
    /// A slow software driver: a real GPU is found to be faster after the first replay.
    fn default() -> Self {
        Pace { units_per_ms: 1e6 }
    }
}

impl Pace {
    /// Units of work that take this long.
    pub fn units_in(&self, ms: f64) -> f64 {
        self.units_per_ms * ms
    }

    /// Learns from `units` of work that took `ms`. Short runs measure latency rather than speed and teach nothing.
    pub fn learn(&mut self, units: f64, ms: f64) {
        if ms > 2.0 && units > 0.0 {
            self.units_per_ms = 0.5 * (self.units_per_ms + units / ms);
        }
    }
}
