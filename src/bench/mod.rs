//! Benchmarks of kernels, training steps, prefill, decoding and whole online steps, compared with the GPU's measured
//! ceilings. The cases are defined once, for `oaif bench` and for criterion (`benches/`).
//!
//! A [`Recipe`] has a name and makes a [`Case`], which can be run; [`Bench::measure`] runs it and returns a
//! [`Measurement`], which [`Earlier`] compares with an earlier one. Floating-point operations are those that the
//! mathematics needs: the matrix products and attention of a step, without recomputation.

mod align;
mod ceilings;
mod compare;
mod decode;
mod kernels;
mod passes;
mod recorded;
mod shape;
mod steps;
mod subject;

use std::time::{Duration, Instant};

pub use ceilings::Ceilings;
pub use compare::Earlier;
pub use decode::{SEQUENCES, decode, prefill};
pub use kernels::kernels;
pub use passes::passes;
pub use recorded::{RecordedKernel, recorded_kernels};
pub use shape::{Batch, Shape};
pub use steps::{Sweep, steps};
pub use subject::{Held, Source, Subject};

use crate::error::Result;
use crate::gpu::{Activity, Counts, Gpu, Work};

/// A device, its ceilings, and how often to measure.
pub struct Bench {
    /// The device.
    pub gpu: Gpu,
    /// Its measured ceilings.
    pub ceilings: Ceilings,
    /// Measurements of each case; their median and extremes are reported.
    pub runs: usize,
}

/// A case that is not created yet: its name is known before any memory is allocated for it.
pub struct Recipe<On: ?Sized = Subject> {
    /// The suite it belongs to.
    pub suite: &'static str,
    /// The value of its [`Facts::case`].
    pub name: String,
    make: Make<On>,
}

type Make<On> = Box<dyn FnOnce(&On) -> Result<Case>>;

impl<On: ?Sized> Recipe<On> {
    fn new(
        suite: &'static str,
        name: impl Into<String>,
        make: impl FnOnce(&On) -> Result<Case> + 'static,
    ) -> Recipe<On> {
        Recipe { suite, name: name.into(), make: Box::new(make) }
    }

    /// Creates it and runs it once.
    ///
    /// # Errors
    /// Errors of the engine, such as a lack of memory.
    pub fn make(self, on: &On) -> Result<Case> {
        (self.make)(on)
    }
}

/// Describes what is measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Facts {
    /// `kernels`, `passes`, `step`, `prefill`, `decode` or `align`.
    pub suite: &'static str,
    /// The name of the case.
    pub case: String,
    /// The model, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The sizes, in the crate's letters.
    pub shape: String,
    /// How the model's weights are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Token rows of a run, for cases with tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Launches per additional layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches_per_layer: Option<usize>,
    /// Bytes that the case allocates on the GPU besides the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Operations of a run; `None`: as stated by its launches.
    #[serde(skip)]
    pub flops: Option<f64>,
    /// Bytes that a run reads and writes; `None`: as stated by its launches.
    #[serde(skip)]
    pub bytes: Option<f64>,
}

impl Facts {
    /// The facts of a case with a model.
    fn on(subject: &Subject, suite: &'static str, case: impl Into<String>) -> Facts {
        let (model, weights) = (Some(subject.name.clone()), Some(subject.weights.clone()));
        Facts { model, weights, ..Facts::bare(suite, case, subject.label()) }
    }

    pub(crate) fn bare(suite: &'static str, case: impl Into<String>, shape: impl Into<String>) -> Facts {
        Facts {
            suite,
            case: case.into(),
            model: None,
            shape: shape.into(),
            weights: None,
            tokens: None,
            launches_per_layer: None,
            memory_bytes: None,
            flops: None,
            bytes: None,
        }
    }
}

/// A case that is recorded, warmed up and can be timed.
pub struct Case {
    /// Its description.
    pub facts: Facts,
    call: Box<dyn FnMut(u32) -> Result<()>>,
    /// Runs per unit of `times`: decode steps, for instance, come in sequences.
    pub runs_per_time: u32,
    /// `times` for one measurement.
    times: u32,
    /// The duration of the first call.
    first: Duration,
}

/// How long a case runs before it is measured: an idle GPU has a low clock.
const WARM_UP: Duration = Duration::from_millis(100);
/// If the first call took this long, the warm-up is skipped: such a device has no lower clock.
const SLOW: Duration = Duration::from_secs(2);
/// A short run is repeated for this long, so that its submit and read-back do not matter.
const REPEATED: Duration = Duration::from_millis(20);
/// The most repetitions.
const MAX_TIMES: f64 = 4096.0;

impl Case {
    /// Calls `call(1)` once, to exclude one-time work from the timing.
    fn new(facts: Facts, mut call: impl FnMut(u32) -> Result<()> + 'static) -> Result<Case> {
        let started = Instant::now();
        call(1)?;
        Ok(Case { facts, call: Box::new(call), runs_per_time: 1, times: 1, first: started.elapsed() })
    }

    /// Makes a measurement consist of many runs, for a short case.
    fn repeated(mut self) -> Result<Case> {
        let once = self.time(1)?.as_secs_f64();
        self.times = (REPEATED.as_secs_f64() / once.max(1e-9)).clamp(1.0, MAX_TIMES) as u32;
        Ok(self)
    }

    fn warm_up(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.first < SLOW && started.elapsed() < WARM_UP {
            (self.call)(self.times)?;
        }
        Ok(())
    }

    /// Returns the wall time of `times` runs, or of `times` sequences if runs come in sequences.
    pub fn time(&mut self, times: u32) -> Result<Duration> {
        let started = Instant::now();
        (self.call)(times)?;
        Ok(started.elapsed())
    }
}

/// Returns the CPU time of this thread so far, if the system reports it.
fn thread_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).ok()
    }
    #[cfg(not(unix))]
    None
}

/// The counters of a device at one moment.
struct Moment {
    at: Instant,
    thread_time: Option<Duration>,
    activity: Activity,
    counts: Counts,
}

impl Moment {
    fn now(gpu: &Gpu) -> Moment {
        let (activity, counts) = (gpu.activity(), gpu.counts());
        Moment { activity, counts, thread_time: thread_time(), at: Instant::now() }
    }

    /// Returns the work done since then, per run.
    fn since(&self, gpu: &Gpu, runs: f64) -> Sample {
        let elapsed = self.at.elapsed();
        let thread_time = thread_time();
        let (activity, counts) = (gpu.activity(), gpu.counts());
        // A driver may block the caller in a submit; only the thread's CPU time distinguishes that from work.
        let host = match (thread_time, self.thread_time) {
            (Some(now), Some(before)) => now - before,
            _ => elapsed.saturating_sub(activity.waited - self.activity.waited),
        };
        let work = |of: fn(&Work) -> f64| (of(&activity.work) - of(&self.activity.work)) / runs;
        Sample {
            ms: elapsed.as_secs_f64() * 1e3 / runs,
            host_ms: host.as_secs_f64() * 1e3 / runs,
            launches: (activity.launches - self.activity.launches) as f64 / runs,
            submits: (counts.submits - self.counts.submits) as f64 / runs,
            work: Work { flops: work(|w| w.flops), bytes: work(|w| w.bytes) },
            made: Counts {
                buffers: counts.buffers - self.counts.buffers,
                pipelines: counts.pipelines - self.counts.pipelines,
                bind_groups: counts.bind_groups - self.counts.bind_groups,
                submits: 0,
            },
        }
    }
}

/// The measurement of one run.
#[derive(Clone, Copy)]
struct Sample {
    ms: f64,
    host_ms: f64,
    launches: f64,
    submits: f64,
    work: Work,
    made: Counts,
}

/// A phase of a run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Phase {
    /// Its name.
    pub phase: &'static str,
    /// The median, in milliseconds.
    pub ms: f64,
    /// Its share of the whole step.
    pub percent: f64,
}

/// The results for a case.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Measurement {
    /// The case.
    #[serde(flatten)]
    pub facts: Facts,
    /// The number of measurements.
    pub runs: usize,
    /// Milliseconds per run, the median.
    pub ms: f64,
    /// The fastest.
    pub min_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// GFLOP/s, by the median.
    pub gflops: f64,
    /// GB/s, by the median.
    pub gigabytes_per_second: f64,
    /// The ceiling that the case is nearer to, which limits it: `multiply-add` or `bandwidth`.
    pub bound: &'static str,
    /// The percentage of this ceiling that the case reaches; above 100 if data stays in a cache.
    pub percent_of_ceiling: f64,
    /// Launches per run.
    pub launches: f64,
    /// Submits per run.
    pub submits: f64,
    /// Milliseconds per run in which the calling thread worked rather than waited: preparing, encoding, submitting,
    /// reading back. CPU time if the system reports it, otherwise wall time less the time spent waiting for the GPU.
    /// The median.
    pub host_ms: f64,
    /// The same as a share of the run.
    pub host_percent: f64,
    /// Buffers, pipelines and bind groups created in all these runs.
    pub made_after_first: u64,
    /// The phases, for cases that have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
}

impl Measurement {
    fn of(facts: &Facts, samples: &[Sample], ceilings: &Ceilings) -> Measurement {
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        let ms = of(|s| s.ms);
        let giga_per_second = |amount: f64| amount / ms.max(1e-9) * 1e-6;
        let gflops = giga_per_second(facts.flops.unwrap_or_else(|| of(|s| s.work.flops)));
        let gigabytes_per_second = giga_per_second(facts.bytes.unwrap_or_else(|| of(|s| s.work.bytes)));
        let shares = [
            ("multiply-add", gflops / ceilings.gflops),
            ("bandwidth", gigabytes_per_second / ceilings.gigabytes_per_second),
        ];
        let (bound, share) = if shares[0].1 >= shares[1].1 { shares[0] } else { shares[1] };
        let made = |s: &Sample| s.made.buffers + s.made.pipelines + s.made.bind_groups;
        Measurement {
            facts: facts.clone(),
            runs: samples.len(),
            ms,
            min_ms: samples.iter().map(|s| s.ms).fold(f64::INFINITY, f64::min),
            max_ms: samples.iter().map(|s| s.ms).fold(0.0, f64::max),
            gflops,
            gigabytes_per_second,
            bound,
            percent_of_ceiling: 100.0 * share,
            launches: of(|s| s.launches),
            submits: of(|s| s.submits),
            host_ms: of(|s| s.host_ms),
            host_percent: 100.0 * of(|s| s.host_ms / s.ms),
            made_after_first: samples.iter().map(made).sum(),
            phases: Vec::new(),
        }
    }

    /// Returns the microseconds per token, for cases with tokens.
    pub fn us_per_token(&self) -> Option<f64> {
        self.facts.tokens.map(|n| self.ms * 1e3 / n as f64)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => 0.5 * (sorted[middle - 1] + sorted[middle]),
        _ => sorted[middle],
    }
}

impl Bench {
    /// Measures the device's ceilings.
    pub fn new(gpu: Gpu, runs: usize) -> Result<Bench> {
        let ceilings = Ceilings::measure(&gpu)?;
        Ok(Bench { gpu, ceilings, runs })
    }

    /// Measures the ceilings again, for later measurements. If they changed, something else was using the machine
    /// meanwhile.
    pub fn measure_ceilings(&mut self) -> Result<Ceilings> {
        self.ceilings = Ceilings::measure(&self.gpu)?;
        Ok(self.ceilings)
    }

    /// Measures cases in turns, so that a disturbance of the machine affects all of them.
    pub fn measure(&self, cases: &mut [Case]) -> Result<Vec<Measurement>> {
        cases.iter_mut().try_for_each(Case::warm_up)?;
        let mut samples = vec![Vec::new(); cases.len()];
        for _ in 0..self.runs {
            for (case, samples) in cases.iter_mut().zip(&mut samples) {
                let before = Moment::now(&self.gpu);
                (case.call)(case.times)?;
                samples.push(before.since(&self.gpu, (case.times * case.runs_per_time) as f64));
            }
        }
        let measured = cases.iter().zip(&samples).map(|(c, s)| Measurement::of(&c.facts, s, &self.ceilings));
        Ok(measured.collect())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three runs of this case.
    pub(crate) fn measurement(facts: &Facts) -> Measurement {
        Measurement::of(facts, &[4.0, 1.0, 2.0].map(sample), &CEILINGS)
    }

    const CEILINGS: Ceilings =
        Ceilings { gflops: 10.0, gigabytes_per_second: 5.0, launch_us: 1.0, submit_us: 1.0 };

    fn sample(ms: f64) -> Sample {
        let made = Counts { buffers: 1, ..Counts::default() };
        let work = Work { flops: 2e6, bytes: 4e6 };
        Sample { ms, host_ms: 0.25 * ms, launches: 7.0, submits: 1.0, work, made }
    }

    #[test]
    fn the_nearer_of_the_two_ceilings_is_the_bound() {
        let mut facts = Facts::bare("step", "x", "y");
        let samples = [4.0, 1.0, 2.0].map(sample);
        let m = Measurement::of(&facts, &samples, &CEILINGS);
        assert_eq!((m.ms, m.min_ms, m.max_ms), (2.0, 1.0, 4.0));
        assert_eq!((m.gflops, m.gigabytes_per_second), (1.0, 2.0));
        assert_eq!((m.bound, m.percent_of_ceiling), ("bandwidth", 40.0));
        assert_eq!((m.launches, m.host_percent, m.made_after_first), (7.0, 25.0, 3));
        facts.flops = Some(1e7);
        let m = Measurement::of(&facts, &samples, &CEILINGS);
        assert_eq!((m.bound, m.percent_of_ceiling), ("multiply-add", 50.0));
    }

    #[test]
    fn a_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 2.0, 8.0].into_iter()), 3.0);
    }
}
