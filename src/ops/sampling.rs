//! Sampling: chooses the next token from a row of logits.

use derive_setters::Setters;

use super::logits::LogitTransform;
use super::product::aligned;
use crate::error::{Error, Result};
use crate::gpu::shader::{Constant, Constants, constants};
use crate::gpu::{Arg, Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// How to sample. Filters apply in Hugging Face's order: top-k, top-p, min-p. Tied logits are kept or dropped together.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the largest logit, the lowest id among equals.
    pub temperature: f32,
    /// Keeps the logits that are not below the k-th largest; 0 keeps all.
    pub top_k: u32,
    /// Keeps a token if the probability mass of strictly larger logits is below this; 1 keeps all.
    pub top_p: f32,
    /// Keeps probabilities of at least this fraction of the largest; 0 keeps all.
    pub min_p: f32,
}

impl Default for SamplingParams {
    /// Plain softmax sampling.
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// The smallest temperature above 0: below it, logits divided by the temperature overflow a float.
const MIN_TEMPERATURE: f32 = 1e-4;

impl SamplingParams {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first value that is not.
    pub fn check(&self) -> Result<()> {
        let fail = |what: &str, why: String| Err(Error::Config { what: what.into(), why });
        let t = self.temperature;
        if !(t == 0.0 || t >= MIN_TEMPERATURE && t.is_finite()) {
            return fail("temperature", format!("{t} is neither 0 (greedy) nor at least {MIN_TEMPERATURE}"));
        }
        for (what, p) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&p) {
                return fail(what, format!("{p} is not between 0 and 1"));
            }
        }
        Ok(())
    }
}

constants! {
    struct SampleBest {
        /// Whether scores are logits relative to the row's largest, with noise.
        relative: bool,
        /// Whether there is a threshold.
        filter: bool,
    }
}

constants! {
    struct SampleHistogram {
        /// Whether the histogram is of mass, from logits relative to the row's largest.
        relative: bool,
        /// Whether an earlier filter set a threshold.
        floor: bool,
        /// Whether no bits of the threshold are known yet.
        first: bool,
    }
}

constants! {
    struct SampleThreshold {
        by_mass: bool,
        /// Whether no bits of the threshold are known yet.
        first: bool,
    }
}

/// The number of workgroups, as a multiple of those that keep the device busy.
const GROUPS_PER_BUSY: usize = 2;
/// The most parts of a row, and the number of logits that justifies a part.
const MAX_PARTS: usize = 32;
const MIN_SHARE: usize = 1024;
/// Logits that the lanes of a workgroup process at a time.
const WORKGROUP_ELEMENTS: usize = 256;

/// Samples a token from each row, like `reference::sample`, from the transformed logits with the replay's seed: the
/// noise of a token depends only on the seed, its sequence's number, the position and the token's id.
///   logits (S, V)  sequences (S, 1) u32  positions (S, 1) u32  ->  ids (S, 1) u32
///
/// # Errors
/// [`Error::Config`] for parameters or a transform out of range.
pub fn sample(
    r: &mut Recorder,
    logits: Tensor,
    sequences: Tensor,
    positions: Tensor,
    params: SamplingParams,
    transform: LogitTransform,
) -> Result<Tensor> {
    params.check()?;
    transform.check()?;
    assert_eq!((logits.rows, 1), (sequences.rows, sequences.cols), "sample: sequences");
    assert_eq!((logits.rows, 1), (positions.rows, positions.cols), "sample: positions");
    let SamplingParams { temperature, top_k, top_p, min_p } = params;
    let row = Rows::new(r, logits, transform);
    let (largest, at) = row.best(r, None);
    if temperature == 0.0 {
        return Ok(row.combine(r, largest, at));
    }
    let mut filter = None;
    if top_k > 0 && (top_k as usize) < logits.cols {
        filter = Some(row.threshold(r, Weight::One, top_k as f32, filter));
    }
    if top_p < 1.0 {
        filter = Some(row.threshold(r, Weight::Mass { largest, temperature }, top_p, filter));
    }
    let min_z = if min_p > 0.0 { min_p.ln() } else { -1e30 };
    let noise = Noise { largest, sequences, positions, temperature, min_z, filter };
    let (best, places) = row.best(r, Some(noise));
    Ok(row.combine(r, best, places))
}

/// The weight of a logit in a filter.
#[derive(Clone, Copy)]
enum Weight {
    /// 1.
    One,
    /// exp((x - max x) / temperature).
    Mass { largest: Tensor, temperature: f32 },
}

/// The inputs of scores besides the logits.
struct Noise {
    largest: Tensor,
    sequences: Tensor,
    positions: Tensor,
    temperature: f32,
    min_z: f32,
    /// State of the last filter.
    filter: Option<Tensor>,
}

/// Rows of logits, divided into parts.
struct Rows {
    logits: Tensor,
    transform: LogitTransform,
    parts: usize,
    share: usize,
}

impl Rows {
    fn new(r: &Recorder, logits: Tensor, transform: LogitTransform) -> Rows {
        let wanted = GROUPS_PER_BUSY * r.busy() as usize / logits.rows.max().max(1) as usize;
        let parts = wanted.clamp(1, MAX_PARTS).min(logits.cols.div_ceil(MIN_SHARE));
        let share = logits.cols.div_ceil(parts).next_multiple_of(WORKGROUP_ELEMENTS);
        Rows { logits, transform, parts: logits.cols.div_ceil(share), share }
    }

    /// Launches a kernel that includes shared/row_part.wgsl.
    fn launch(
        &self,
        r: &mut Recorder,
        kernel: &'static str,
        constants: Vec<(String, Constant)>,
        params: Vec<(&'static str, Word)>,
        args: Vec<Arg>,
    ) {
        let Rows { logits, transform, parts, share } = *self;
        let mut all: Vec<(&str, Word)> = vec![
            ("rows", logits.rows.into()),
            ("cols", logits.cols.into()),
            ("parts", parts.into()),
            ("share", share.into()),
        ];
        all.extend(transform.params());
        all.extend(params);
        let logits_arg = read("logits", logits).rows(aligned(&[logits.cols]));
        r.launch_detached(Launch {
            kernel,
            constants: [transform.constants(), constants].concat(),
            params: all,
            args: [vec![logits_arg], args].concat(),
            groups: Groups::over(logits.rows, 1).times(parts as u32),
            work: Work { flops: 10.0 * logits.cols as f64, bytes: 4.0 * logits.cols as f64 },
        });
    }

    /// The best of each part and its index: the best logit, or the best score with noise.
    fn best(&self, r: &mut Recorder, noise: Option<Noise>) -> (Tensor, Tensor) {
        let best = r.tensor("best of a part", self.logits.rows, self.parts);
        let places = r.tensor_u32("places of the best", self.logits.rows, self.parts);
        let filter = noise.as_ref().and_then(|noise| noise.filter);
        let constants = SampleBest { relative: noise.is_some(), filter: filter.is_some() }.list();
        let (mut params, mut args) = (vec![], vec![]);
        if let Some(Noise { largest, sequences, positions, temperature, min_z, .. }) = noise {
            params.extend([("temperature", Word::F32(temperature)), ("min_z", min_z.into())]);
            args.extend([
                read("largest", largest),
                read("sequences", sequences),
                read("positions", positions),
            ]);
            args.extend(filter.map(|state| read("state", state).vec4()));
        }
        args.extend([write("best", best), write("places", places)]);
        self.launch(r, "sample_best", constants, params, args);
        (best, places)
    }

    /// The index of the best over all parts.
    fn combine(&self, r: &mut Recorder, best: Tensor, places: Tensor) -> Tensor {
        let rows = self.logits.rows;
        let ids = r.tensor_u32("sample", rows, 1);
        r.launch_detached(Launch {
            kernel: "sample_combine",
            constants: vec![],
            params: vec![("rows", rows.into()), ("parts", self.parts.into())],
            args: vec![read("best", best), read("places", places), write("ids", ids)],
            groups: Groups::over(rows, 64),
            work: Work { flops: self.parts as f64, bytes: 8.0 * self.parts as f64 },
        });
        ids
    }

    /// The highest threshold at which the logits above or equal weigh `goal` or more, found eight bits at a time, as
    /// the first word of each row of a state (S, 4). Counts only the logits that `floor`, the state of an earlier
    /// filter, keeps.
    fn threshold(&self, r: &mut Recorder, weight: Weight, goal: f32, floor: Option<Tensor>) -> Tensor {
        let rows = self.logits.rows;
        let histograms = r.tensor_u32("histograms", rows, self.parts * 512);
        let state = r.tensor_u32("threshold", rows, 4);
        let by_mass = matches!(weight, Weight::Mass { .. });
        for shift in [24u32, 16, 8, 0] {
            let first = shift == 24;
            let constants = SampleHistogram { relative: by_mass, floor: floor.is_some(), first };
            // The bits that are known so far.
            let mask = u32::MAX.checked_shl(shift + 8).unwrap_or(0);
            let mut params = vec![("mask", Word::U32(mask)), ("shift", shift.into())];
            let mut args: Vec<Arg> = vec![];
            args.extend((!first).then(|| read("state", state).vec4()));
            if let Weight::Mass { largest, temperature } = weight {
                params.push(("temperature", temperature.into()));
                args.push(read("largest", largest));
            }
            args.extend(floor.map(|state| read("floors", state).vec4()));
            args.push(write("histograms", histograms));
            self.launch(r, "sample_histogram", constants.list(), params, args);
            let mut params: Vec<(&str, Word)> =
                vec![("rows", rows.into()), ("parts", self.parts.into()), ("shift", shift.into())];
            params.extend(first.then_some(("goal", Word::F32(goal))));
            r.launch_detached(Launch {
                kernel: "sample_threshold",
                constants: SampleThreshold { by_mass, first }.list(),
                params,
                args: vec![read("histograms", histograms).vec4(), write("state", state).vec4()],
                groups: Groups::over(rows, 1),
                work: Work { flops: 1e3 * self.parts as f64, bytes: 2048.0 * self.parts as f64 },
            });
        }
        state
    }
}
