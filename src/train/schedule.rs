//! Learning-rate schedules, with the names and values of `transformers.get_scheduler`.

use std::f64::consts::PI;
use std::str::FromStr;

use crate::error::Error;
use crate::judge::names;

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScheduleKind {
    /// Falls linearly to 0 at the end.
    Linear,
    /// Falls to 0 at the end along half a cosine.
    Cosine,
    /// Constant from the first step, without a warm-up.
    Constant,
    /// Constant after the warm-up.
    ConstantWithWarmup,
}

const NAMES: [(&str, ScheduleKind); 4] = [
    ("linear", ScheduleKind::Linear),
    ("cosine", ScheduleKind::Cosine),
    ("constant", ScheduleKind::Constant),
    ("constant_with_warmup", ScheduleKind::ConstantWithWarmup),
];

impl ScheduleKind {
    /// The name, as in `--lr-scheduler-type`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, kind)| *kind == self).expect("every kind has a name").0
    }
}

impl FromStr for ScheduleKind {
    type Err = Error;

    /// `linear`, `cosine`, `constant`, `constant_with_warmup` (or with hyphens).
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = NAMES.iter().find(|(name, _)| *name == text.replace('-', "_"));
        let unknown = || names::unknown("lr-scheduler-type", text, &NAMES.map(|(name, _)| name));
        found.map(|(_, kind)| *kind).ok_or_else(unknown)
    }
}

/// The learning rate of each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrSchedule {
    /// The shape.
    pub kind: ScheduleKind,
    /// Steps in which the learning rate rises from 0 to `peak`.
    pub warmup_steps: usize,
    /// The number of steps of the whole run.
    pub total_steps: usize,
    /// The peak learning rate.
    pub peak: f64,
}

impl LrSchedule {
    /// The learning rate of the update after `step` steps. With a warm-up it is 0 for the first.
    pub fn at(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }

    fn factor(&self, step: usize) -> f64 {
        if self.kind == ScheduleKind::Constant {
            return 1.0;
        }
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let after_warmup = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.kind {
            ScheduleKind::Linear => self.total_steps.saturating_sub(step) as f64 / after_warmup,
            ScheduleKind::Cosine => {
                let progress = (step - self.warmup_steps) as f64 / after_warmup;
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
            ScheduleKind::Constant | ScheduleKind::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn schedules_have_the_values_of_transformers() {
        let known: Value = serde_json::from_str(include_str!("../../tests/fixtures/schedules.json")).unwrap();
        let count = |name: &str| known[name].as_u64().unwrap() as usize;
        for (name, kind) in NAMES {
            let schedule = LrSchedule {
                kind,
                warmup_steps: count("warmup_steps"),
                total_steps: count("total_steps"),
                peak: 2.0,
            };
            let factors = known[name].as_array().unwrap();
            assert_eq!(factors.len(), 21);
            for (step, factor) in factors.iter().enumerate() {
                let (found, expected) = (schedule.at(step), 2.0 * factor.as_f64().unwrap());
                assert!((found - expected).abs() <= 1e-15, "{name}, step {step}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn without_steps_or_with_nothing_but_warm_up_the_rate_is_finite() {
        for (name, kind) in NAMES {
            for (warmup_steps, total_steps) in [(0, 0), (0, 1), (5, 5), (5, 2)] {
                let schedule = LrSchedule { kind, warmup_steps, total_steps, peak: 1.0 };
                for step in 0..8 {
                    let rate = schedule.at(step);
                    assert!(
                        (0.0..=1.0).contains(&rate),
                        "{name} {warmup_steps} {total_steps} {step}: {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        for (name, kind) in NAMES {
            assert_eq!((name.parse::<ScheduleKind>().unwrap(), kind.name()), (kind, name));
        }
        assert_eq!("constant-with-warmup".parse::<ScheduleKind>().unwrap(), ScheduleKind::ConstantWithWarmup);
        let error = "liner".parse::<ScheduleKind>().unwrap_err().to_string();
        assert!(
            error.starts_with("lr-scheduler-type: \"liner\" is unknown (did you mean \"linear\"?)"),
            "{error}"
        );
        assert!(error.contains("constant_with_warmup"), "{error}");
    }
}
