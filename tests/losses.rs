//! Preference losses compared with TRL, and with the papers' formulas differentiated by PyTorch in f64; see
//! tests/fixtures.

mod common;

use std::collections::BTreeMap;

use common::{gpu, json};
use oaif::Wait;
use oaif::unstable::gpu::PlanOptions;
use oaif::unstable::ops::{Case, Input, PairInputs, preference_loss};
use oaif::unstable::preference::{LOSS_NAMES, LossOptions, Objective, PreferenceLoss};
use oaif::unstable::reference::{self, PairBatch};
use serde_json::Value;

/// The largest relative errors, of f32 on a GPU and of `reference` in f64 with parameters rounded to f32.
const KERNEL: f64 = 1e-5;
const REFERENCE: f64 = 1e-6;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The given options; all others are absent.
fn options(given: &Value) -> LossOptions {
    let mut all = serde_json::to_value(LossOptions::default()).unwrap();
    given.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
    serde_json::from_value(all).unwrap()
}

/// The inputs of an objective, computed from the log-probabilities of tokens.
struct Inputs {
    policy: Vec<f64>,
    responses: Vec<f64>,
    pairs: Vec<f64>,
    log_sum_squares: Option<Vec<f64>>,
    tail_weight: Option<f32>,
}

impl Inputs {
    fn new(batch: &Value, labels: &Value, objective: &Objective) -> Inputs {
        let tokens =
            |key: &str| -> Vec<Vec<f64>> { batch[key].as_array().unwrap().iter().map(numbers).collect() };
        let (policy, reference) = (tokens("policy"), tokens("reference"));
        let alpha = objective.ld_alpha.map(f64::from);
        let split = |s: usize, logps: &[f64]| {
            let shared = if alpha.is_some() { policy[s].len().min(policy[s ^ 1].len()) } else { logps.len() };
            [&logps[..shared], &logps[shared..]].map(|part| part.iter().sum::<f64>())
        };
        let drawn = batch["by_reference"].as_array().unwrap();
        let response = |s: usize| {
            let [first, rest] = split(s, &reference[s]);
            let by_reference = drawn[s].as_bool().unwrap() as u8 as f64;
            [first + alpha.unwrap_or(1.0) * rest, policy[s].len() as f64, by_reference]
        };
        let parts = if alpha.is_some() { 2 } else { 1 };
        let (sequences, pairs) = (policy.len(), policy.len() / 2);
        let label = |p: usize| labels.get(p).map_or(1.0, |label| label.as_f64().unwrap());
        let sums = || tokens("log_sum_squares").iter().map(|row| row.iter().sum()).collect();
        Inputs {
            policy: (0..sequences).flat_map(|s| split(s, &policy[s])[..parts].to_vec()).collect(),
            responses: (0..sequences).flat_map(response).collect(),
            pairs: (0..pairs).flat_map(|p| [label(p), 1.0 / pairs as f64]).collect(),
            log_sum_squares: objective.use_weighting.then(sums),
            tail_weight: objective.ld_alpha,
        }
    }

    /// Runs the kernel on them: the table and the gradient.
    fn case(&self, objective: &Objective) -> Case {
        let input = |values: &[f64], cols: usize| {
            Input::f32(values.iter().map(|x| *x as f32).collect(), values.len() / cols, cols)
        };
        let mut inputs = vec![input(&self.policy, 1), input(&self.responses, 3), input(&self.pairs, 2)];
        inputs.extend(self.log_sum_squares.iter().map(|sums| input(sums, 1)));
        let (terms, tail_weight) = (objective.terms(), self.tail_weight);
        Case::new(
            "preference_loss",
            objective.to_string(),
            inputs,
            move |r, t| {
                let (policy, responses, pairs, log_sum_squares) = (t[0], t[1], t[2], t.get(3).copied());
                let inputs = PairInputs { policy, responses, pairs, log_sum_squares, tail_weight };
                let out = preference_loss(r, &inputs, &terms)?;
                Ok(vec![out.table, out.d_policy])
            },
            |_| Vec::new(),
        )
    }

    fn reference(&self, objective: &Objective) -> [Vec<f64>; 2] {
        let terms: Vec<reference::PairTerm> = objective.terms().into_iter().map(|term| term.into()).collect();
        let batch = PairBatch {
            policy: &self.policy,
            detached: &self.policy,
            responses: &self.responses,
            pairs: &self.pairs,
            log_sum_squares: self.log_sum_squares.as_deref(),
            tail_weight: self.tail_weight.map(f64::from),
        };
        let out = reference::preference_loss(&terms, &batch);
        [out.table, out.d_policy]
    }
}

/// The largest value; infinite if one is NaN.
fn largest(errors: impl Iterator<Item = f64>) -> f64 {
    errors.fold(0.0, |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) })
}

/// Relative errors of the mean loss, the mean rewards and the gradient.
fn errors([table, gradient]: &[Vec<f64>; 2], case: &Value) -> [f64; 3] {
    let mean = |column: usize| table.iter().skip(column).step_by(8).sum::<f64>() / (table.len() / 8) as f64;
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs().max(1e-6);
    let rewards = numbers(&case["rewards"]);
    let reward = largest((0..2).map(|i| relative(mean(1 + i), rewards[i])));
    // Without the gradients of padding tokens.
    let wanted = case["gradient"].as_array().unwrap();
    assert_eq!(gradient.len(), wanted.len());
    let pairs: Vec<(f64, f64)> =
        gradient.iter().zip(wanted).filter_map(|(got, want)| Some((*got, want.as_f64()?))).collect();
    let rms = (pairs.iter().map(|(_, want)| want * want).sum::<f64>() / pairs.len() as f64).sqrt();
    let each = pairs.iter().map(|(got, want)| (got - want).abs() / (want.abs() + rms).max(1e-30));
    let loss = largest([relative(mean(0), case["loss"].as_f64().unwrap())].into_iter());
    [loss, reward, largest(each)]
}

#[test]
fn losses_rewards_and_gradients_equal_trl_and_the_papers() {
    let Some(gpu) = gpu() else { return };
    let file = json("losses.json");
    let mut worst: BTreeMap<String, [f64; 6]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in file["cases"].as_array().unwrap() {
        let objective = Objective::parse(&options(&case["options"])).unwrap();
        let batch = &file["batches"][case["batch"].as_u64().unwrap() as usize];
        let inputs = Inputs::new(batch, &case["labels"], &objective);
        let (plan, results, live) =
            inputs.case(&objective).plan(&gpu, PlanOptions::default()).wait().unwrap();
        let outputs = plan.run(&live).wait().unwrap();
        let wide = |i: usize| outputs.f32(results[i]).iter().map(|x| *x as f64).collect();
        let kernel = errors(&[wide(0), wide(1)], case);
        let twin = errors(&inputs.reference(&objective), case);
        let found: [f64; 6] = std::array::from_fn(|i| if i < 3 { kernel[i] } else { twin[i - 3] });
        let near = kernel.iter().all(|e| *e <= KERNEL) && twin.iter().all(|e| *e <= REFERENCE);
        if !near {
            let shown = found.map(|e| format!("{e:.1e}")).join(" ");
            wrong.push(format!("{} batch {} {}: {shown}", case["options"], case["batch"], case["labels"]));
        }
        let worst = worst.entry(objective.to_string()).or_default();
        worst.iter_mut().zip(found).for_each(|(worst, e)| *worst = worst.max(e));
    }
    println!("largest relative errors: loss, rewards, gradient of the kernel, and the same of reference");
    for (loss, worst) in &worst {
        println!("{loss:<20} {}", worst.map(|e| format!("{e:.1e}")).join(" "));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in LOSS_NAMES {
        let name = PreferenceLoss::parse(name, None, false).unwrap().to_string();
        assert!(worst.contains_key(&name), "no case has {name}");
    }
}
