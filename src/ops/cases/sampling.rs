//! Cases: sampling.

use super::logprob::transform;
use super::{Case, Input};
use crate::ops::{SamplingParams, sample};
use crate::reference;

pub(super) fn cases() -> Vec<Case> {
    let plain = SamplingParams { temperature: 0.9, ..SamplingParams::default() };
    // The mass above a token is compared with top-p in f32: if a token is within about 1e-6 of the border, the choice
    // may differ from f64. With these parameters and seeds, none is.
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
        let none = (1.0, None);
        let shapes = [
            (1, 1, none),
            (67, 7, none),
            (64, 512, none),
            (5, 2053, none),
            // Several parts per row.
            (1, 49_157, none),
            (3, 30_000, (0.5, Some(4.0))),
        ];
        for (s, v, (scale, soft_cap)) in shapes {
            let (transform, exact_transform) = transform(scale, soft_cap);
            let mut logits = Input::normal(1, s, v, 3.0);
            if v == 7 {
                // Ties, including both zeros.
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
                format!("S {s} V {v} {name} cap {soft_cap:?}"),
                inputs,
                move |r, t| Ok(vec![sample(r, t[0], t[1], t[2], params, transform)?]),
                move |x| {
                    let rows = x[0].chunks(v).zip(numbers.iter().zip(&positions));
                    let ids = rows.map(|(row, (n, at))| {
                        let logits: Vec<f64> = row.iter().map(|x| exact_transform.apply(*x)).collect();
                        reference::sample(&logits, exact, 1, *n, *at).into()
                    });
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
