//! Choosing the next token from a row of logits.

use super::case::{Case, Input};
use crate::error::{Error, Result};
use crate::gpu::shader::KernelKey;
use crate::gpu::{Access, Groups, Launch, Recorder, Tensor, Word, Work};
use crate::reference;

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
    r.launch_detached(Launch {
        kernel: KernelKey {
            name: "sample",
            constants: vec![
                ("GREEDY", (temperature == 0.0) as u32),
                ("TOP_K", by_rank as u32),
                ("TOP_P", by_mass as u32),
            ],
        },
        params: vec![
            logits.rows.into(),
            logits.cols.into(),
            Word::F32(temperature),
            Word::F32(top_k as f32),
            Word::F32(top_p),
            Word::F32(if min_p > 0.0 { min_p.ln() } else { -1e30 }),
        ],
        args: vec![
            (logits, Access::Read),
            (sequences, Access::Read),
            (positions, Access::Read),
            (ids, Access::Write),
        ],
        groups: Groups::over(logits.rows, 1),
        work: Work { flops: 10.0 * cost, bytes: 4.0 * cost },
    });
    Ok(ids)
}

pub(super) fn cases() -> Vec<Case> {
    let plain = SamplingParams { temperature: 0.9, ..SamplingParams::default() };
    // The mass above a token is compared with top-p in f32: a case whose token lies within some 1e-6 of the border
    // may choose otherwise than f64 does. These, with their seeds, have none.
    let params = [
        ("greedy", SamplingParams { temperature: 0.0, ..plain }),
        ("temperature 0.9", plain),
        ("top-k", SamplingParams { top_k: 5, ..plain }),
        ("top-p", SamplingParams { top_p: 0.6, ..plain }),
        ("top-p 0", SamplingParams { top_p: 0.0, ..plain }),
        ("min-p", SamplingParams { min_p: 0.2, ..plain }),
        ("all", SamplingParams { temperature: 1.3, top_k: 40, top_p: 0.8, min_p: 0.05 }),
    ];
    let mut out = Vec::new();
    for (name, params) in params {
        for (s, v) in [(1, 1), (67, 7), (64, 512), (5, 2053)] {
            let mut logits = Input::normal(1, s, v, 3.0);
            if v == 7 {
                // Ties, of both zeros too.
                let values = [1.0, -0.0, 0.0, -1.5, 1.0, 0.0, -2.0, 1.0, -0.0, 0.5, -1.5];
                logits = Input::f32((0..s * v).map(|i| values[i % values.len()]).collect(), s, v);
            }
            let numbers: Vec<u32> = (0..s as u32).map(|i| 1000 + i * i).collect();
            let positions: Vec<u32> = (0..s as u32).map(|i| i * 7).collect();
            let inputs = vec![
                logits.live(0),
                Input::u32(numbers.clone(), s, 1).live(0),
                Input::u32(positions.clone(), s, 1).live(0),
            ];
            let exact = reference::SamplingParams {
                temperature: params.temperature.into(),
                top_k: params.top_k,
                top_p: params.top_p.into(),
                min_p: params.min_p.into(),
            };
            out.push(Case::new(
                "sample",
                format!("S {s} V {v} {name}"),
                inputs,
                move |r, t| Ok(vec![sample(r, t[0], t[1], t[2], params)?]),
                move |x| {
                    let rows = x[0].chunks(v).zip(numbers.iter().zip(&positions));
                    let ids = rows.map(|(row, (n, at))| reference::sample(row, exact, 1, *n, *at).into());
                    vec![ids.collect()]
                },
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let good = SamplingParams::default();
        assert!(good.check().is_ok());
        for (name, bad) in [
            ("temperature", SamplingParams { temperature: -1.0, ..good }),
            ("temperature", SamplingParams { temperature: f32::NAN, ..good }),
            ("temperature", SamplingParams { temperature: 1e-9, ..good }),
            ("top_p", SamplingParams { top_p: 1.5, ..good }),
            ("min_p", SamplingParams { min_p: f32::NAN, ..good }),
        ] {
            let message = bad.check().unwrap_err().to_string();
            assert!(message.starts_with(name), "{message}");
        }
    }
}
