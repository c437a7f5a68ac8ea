//! Cases: preference losses.

use super::{Case, Input};
use crate::ops::{PairInputs, PairLoss, PairTerm, preference_loss};
use crate::reference;

impl From<PairLoss> for reference::PairLoss {
    fn from(loss: PairLoss) -> reference::PairLoss {
        use reference::PairLoss as Twin;
        match loss {
            PairLoss::Sigmoid => Twin::Sigmoid,
            PairLoss::Ipo => Twin::Ipo,
            PairLoss::Hinge => Twin::Hinge,
            PairLoss::Exo => Twin::Exo,
            PairLoss::Discopop => Twin::Discopop,
            PairLoss::OddsRatio => Twin::OddsRatio,
            PairLoss::Nca => Twin::Nca,
            PairLoss::Bco => Twin::Bco,
            PairLoss::Sppo => Twin::Sppo,
            PairLoss::Centre => Twin::Centre,
            PairLoss::ApoZero => Twin::ApoZero,
            PairLoss::ApoDown => Twin::ApoDown,
            PairLoss::Kto => Twin::Kto,
            PairLoss::Aot => Twin::Aot,
            PairLoss::AotUnpaired => Twin::AotUnpaired,
            PairLoss::Sft => Twin::Sft,
            PairLoss::Xpo => Twin::Xpo,
        }
    }
}

impl From<PairTerm> for reference::PairTerm {
    fn from(term: PairTerm) -> reference::PairTerm {
        reference::PairTerm {
            loss: term.loss.into(),
            weight: term.weight.into(),
            beta: term.beta.into(),
            label_scale: term.label_scale.into(),
            label_shift: term.label_shift.into(),
            margin: term.margin.into(),
            length_margin: term.length_margin.into(),
            tau: term.tau.into(),
            desirable: term.desirable.into(),
            undesirable: term.undesirable.into(),
            reference_free: term.reference_free,
            average: term.average,
        }
    }
}

/// P, the spread of the scores, and the optional inputs.
#[derive(Clone, Copy)]
struct Shape {
    pairs: usize,
    spread: f32,
    labels: &'static [f32],
    weighting: bool,
    tail_weight: Option<f32>,
}

const HARD: &[f32] = &[1.0];
const SOFT: &[f32] = &[1.0, 0.7, 0.0, 0.5];
const PLAIN: Shape = Shape { pairs: 67, spread: 10.0, labels: SOFT, weighting: false, tail_weight: None };

fn case(name: &str, terms: Vec<PairTerm>, shape: Shape) -> Case {
    let Shape { pairs: p, spread, labels, weighting, tail_weight } = shape;
    let s = 2 * p;
    let parts = if tail_weight.is_some() { 2 } else { 1 };
    let between = |seed: u32, i: usize, low: f64, high: f64| {
        (low + (high - low) * reference::uniform(seed, 11, 0, i as u32)) as f32
    };
    // Log-probabilities of which scores are differences: of whole responses, of their two parts, and of the reference
    // model's.
    let logp = |i: usize| spread * between(1, i, -3.0, -2.0);
    let reference = |i: usize| parts as f32 * spread * between(2, i, -3.5, -1.5);
    let response = |i: usize| [reference(i), (3 + i * 7 % 53) as f32, (i % 3 == 1) as u8 as f32];
    let pair = |i: usize| [labels[i % labels.len()], ((i * 29 % 31) as f32 - 11.0) / 17.0];
    let squares = |i: usize| 0.9 * parts as f32 * logp(i) + (i % 5) as f32;
    let mut inputs = vec![
        Input::f32((0..parts * s).map(logp).collect(), parts * s, 1).live(if parts == 2 { 7 } else { 0 }),
        Input::f32((0..s).flat_map(response).collect(), s, 3).live(0),
        Input::f32((0..p).flat_map(pair).collect(), p, 2).live(1),
    ];
    if weighting {
        inputs.push(Input::f32((0..s).map(squares).collect(), s, 1).live(0));
    }
    let mut label = format!("{name} P {p} spread {spread}");
    label += if weighting { " weighted" } else { "" };
    label += &tail_weight.map_or(String::new(), |weight| format!(" tails times {weight}"));
    let twins: Vec<reference::PairTerm> = terms.iter().map(|term| (*term).into()).collect();
    Case::new(
        "preference_loss",
        label,
        inputs,
        move |r, t| {
            let [policy, responses, pairs] = [t[0], t[1], t[2]];
            let log_sum_squares = t.get(3).copied();
            let inputs = PairInputs { policy, responses, pairs, log_sum_squares, tail_weight };
            let out = preference_loss(r, &inputs, &terms)?;
            Ok(vec![out.table, out.d_policy])
        },
        move |v| {
            let batch = reference::PairBatch {
                policy: &v[0],
                detached: &v[0],
                responses: &v[1],
                pairs: &v[2],
                log_sum_squares: v.get(3).map(|sums| &**sums),
                tail_weight: tail_weight.map(f64::from),
            };
            let out = reference::preference_loss(&twins, &batch);
            vec![out.table, out.d_policy]
        },
    )
}

pub(super) fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for loss in PairLoss::ALL.iter().copied() {
        let usual = PairTerm::new(loss, 0.1);
        let term = match loss {
            // Scores are average log-probabilities per token.
            PairLoss::OddsRatio => PairTerm { reference_free: true, average: true, ..usual },
            // No label is certain.
            PairLoss::Exo => PairTerm { label_scale: 0.998, label_shift: 1e-3, ..usual },
            PairLoss::Discopop => PairTerm { tau: 0.05, ..usual },
            PairLoss::Kto => PairTerm { desirable: 1.2, undesirable: 0.7, ..usual },
            _ => usual,
        };
        let name = format!("{loss:?}");
        let hard = matches!(loss, PairLoss::Aot | PairLoss::AotUnpaired | PairLoss::Kto);
        let usual = Shape { labels: if hard { HARD } else { SOFT }, ..PLAIN };
        out.push(case(&name, vec![term], Shape { pairs: 1, ..usual }));
        out.push(case(&name, vec![term], usual));
        if loss == PairLoss::OddsRatio {
            // Nearly certain responses.
            out.push(case(&name, vec![term], Shape { spread: 0.3, ..usual }));
        } else {
            let wide = PairTerm { beta: 1.0, ..term };
            out.push(case(&format!("{name} beta 1"), vec![wide], Shape { pairs: 13, spread: 1e4, ..usual }));
        }
    }
    let new = PairTerm::new;
    let short = PairTerm { reference_free: true, average: true, margin: -0.5, ..new(PairLoss::Sigmoid, 2.0) };
    let lengths = PairTerm { length_margin: 0.05, ..new(PairLoss::Sigmoid, 0.1) };
    let robust = PairTerm { label_scale: 1.0 / 0.8, label_shift: -0.1 / 0.8, ..new(PairLoss::Sigmoid, 0.1) };
    let average = PairTerm { average: true, ..new(PairLoss::Ipo, 1.0) };
    for (name, term) in [
        ("Sigmoid, averages, no reference", short),
        ("Sigmoid, lengths", lengths),
        ("Sigmoid, flipped labels", robust),
        ("Ipo, averages", average),
    ] {
        out.push(case(name, vec![term], PLAIN));
        out.push(case(name, vec![term], Shape { weighting: true, tail_weight: Some(0.3), ..PLAIN }));
    }
    let dpo = new(PairLoss::Sigmoid, 0.1);
    let sft = PairTerm { weight: 0.2, ..new(PairLoss::Sft, 0.1) };
    let xpo = PairTerm { weight: 0.3, ..new(PairLoss::Xpo, 0.1) };
    for (weighting, tail_weight) in [(false, None), (true, None), (false, Some(0.3)), (true, Some(0.0))] {
        let shape = Shape { weighting, tail_weight, ..PLAIN };
        out.push(case("Sigmoid + Sft + Xpo", vec![dpo, sft, xpo], shape));
        out.push(case("Sft", vec![PairTerm { weight: 1.0, ..sft }], shape));
    }
    out.push(case("Sigmoid, tails", vec![dpo], Shape { tail_weight: Some(0.5), ..PLAIN }));
    let aot = new(PairLoss::Aot, 0.1);
    out.push(case("Aot + Sft", vec![aot, sft], Shape { labels: HARD, tail_weight: Some(0.5), ..PLAIN }));
    out
}
