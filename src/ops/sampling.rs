//! Choosing the next token from a row of logits.

use crate::error::{Error, Result};
use crate::gpu::shader::{Constants, constants};
use crate::gpu::{Groups, Launch, Recorder, Tensor, Word, Work, read, write};

/// How to choose. Filters apply in Hugging Face's order: top-k, top-p, min-p. Tied logits are kept or dropped
/// together.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the largest logit, the lowest id among equals.
    pub temperature: f32,
    /// Keeps the logits that are not below the k-th largest; 0 keeps all.
    pub top_k: u32,
    /// Keeps a token while the mass of strictly larger logits is below it; 1 keeps all.
    pub top_p: f32,
    /// Keeps the probabilities of at least this share of the largest; 0 keeps all.
    pub min_p: f32,
}

impl Default for SamplingParams {
    /// Plain softmax sampling.
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// The smallest temperature above 0: below it, logits divided by the temperature leave the range of a float.
const MIN_TEMPERATURE: f32 = 1e-4;

impl SamplingParams {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is not.
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
    struct Sample {
        greedy: bool,
        top_k: bool,
        top_p: bool,
    }
}

/// A token of each row, as `reference::sample` chooses it with the replay's seed: the noise of a token depends on
/// the seed, its sequence's number, the position and the token's id alone.
///   logits (S, V)  sequences (S, 1) u32  positions (S, 1) u32  ->  ids (S, 1) u32
///
/// # Errors
/// [`Error::Config`] for parameters out of their ranges.
pub fn sample(
    r: &mut Recorder,
    logits: Tensor,
    sequences: Tensor,
    positions: Tensor,
    params: SamplingParams,
) -> Result<Tensor> {
    params.check()?;
    assert_eq!((logits.rows, 1), (sequences.rows, sequences.cols), "sample: sequences");
    assert_eq!((logits.rows, 1), (positions.rows, positions.cols), "sample: positions");
    let SamplingParams { temperature, top_k, top_p, min_p } = params;
    let ids = r.tensor_u32("sample", logits.rows, 1);
    let by_rank = top_k > 0 && (top_k as usize) < logits.cols;
    let by_mass = top_p < 1.0;
    // Filters find their threshold in one reading of the row for each bit of a float.
    let readings = 2 + 32 * (by_rank as usize + by_mass as usize);
    let cost = (readings * logits.cols) as f64;
    let greedy = temperature == 0.0;
    let mut params: Vec<(&str, Word)> = vec![("rows", logits.rows.into()), ("cols", logits.cols.into())];
    let mut args = vec![read("logits", logits)];
    if !greedy {
        let min_z = if min_p > 0.0 { min_p.ln() } else { -1e30 };
        params.extend([("temperature", temperature.into()), ("min_z", Word::F32(min_z))]);
        params.extend(by_rank.then_some(("top_k", Word::F32(top_k as f32))));
        params.extend(by_mass.then(|| ("top_p", top_p.into())));
        args.extend([read("sequences", sequences), read("positions", positions)]);
    }
    args.push(write("ids", ids));
    r.launch_detached(Launch {
        kernel: "sample",
        constants: Sample { greedy, top_k: by_rank, top_p: by_mass }.list(),
        params,
        args,
        groups: Groups::over(logits.rows, 1),
        work: Work { flops: 10.0 * cost, bytes: 4.0 * cost },
    });
    Ok(ids)
}
