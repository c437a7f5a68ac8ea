//! Compares a model in a folder with the results of transformers and peft: `expected.json` and gradients, as written by
//! `fixtures/real_size.py` and `fixtures/families.py`.

use std::path::Path;
use std::time::Instant;

use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::pair_step::PairStep;
use oaif::unstable::train::sft_step::SftStep;
use serde_json::Value;

use super::{Tensors, capacity, fixture, ids, logp_differences, pairs, relative_distance};

/// The parameters of the first and last layer whose gradient norms are printed, by the ends of their names.
const SHOWN: [&str; 4] = ["q_proj", "down_proj", "embed_tokens", "norm"];

/// Compares greedy ids, log-probabilities, and the gradient of every parameter, in full training and with a LoRA
/// adapter.
pub fn check(gpu: &Gpu, folder: &Path) {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    println!("{}, {}", folder.file_name().unwrap().to_string_lossy(), expected["versions"]);
    let timed = |what: &str, check: &dyn Fn()| {
        let started = Instant::now();
        check();
        println!("  {what}: {:.1} s", started.elapsed().as_secs_f64());
    };
    let model = Model::load(gpu, folder, true).wait().unwrap();
    timed("greedy ids", &|| check_greedy(gpu, &model, &expected["greedy"]));
    timed("log-probabilities", &|| check_logps(gpu, &model, &expected["sequences"]));
    timed("after a preamble", &|| check_after_preamble(gpu, &model, &expected["sequences"]));
    timed("SFT", &|| check_sft(gpu, &model, &expected["sft"], folder));
    drop(model);
    let base = Model::load(gpu, folder, false).wait().unwrap();
    let model = base.load_adapter(&folder.join("adapter"), true).unwrap();
    timed("DPO under a LoRA adapter", &|| check_dpo(gpu, &model, &expected["dpo"], folder));
}

fn check_greedy(gpu: &Gpu, model: &Model, expected: &Value) {
    let (prompt, want) = (ids(&expected["prompt"]), ids(&expected["ids"]));
    let options = GenerateOptions::default()
        .sampling(SamplingParams::default().temperature(0.0))
        .max_new_tokens(want.len())
        .max_prompt_tokens(prompt.len())
        .slots(2)
        .samples_per_prompt(2)
        .eos(vec![]);
    let generator = Generator::new(gpu, model, options, &Arena::new()).wait().unwrap();
    // The tokenizer of another model: the text is not compared.
    let tokenizer = Tokenizer::load(&fixture("tiny")).unwrap();
    let request = Request { prompt, samples: 2, first_sequence: 0 };
    for answer in generator.run(&tokenizer, &[request], &StopMatcher::new([]), 1).wait().unwrap().remove(0) {
        assert_eq!(answer.token_ids, want);
    }
    println!("  {} greedy ids are equal, smallest gap {}", want.len(), expected["smallest_gap"]);
}

fn check_logps(gpu: &Gpu, model: &Model, sequences: &Value) {
    let sequences = sequences.as_array().unwrap();
    let rows: Vec<Vec<u32>> = sequences.iter().map(|s| ids(&s["ids"])).collect();
    let want: Vec<f32> = sequences.iter().flat_map(|s| numbers(&s["logps"])).collect();
    let (largest, mean) = logp_differences(gpu, model, &rows, &want);
    println!("  {} log-probabilities: largest difference {largest:.1e}, mean {mean:.1e}", want.len());
    assert!(largest <= 1e-3 && mean <= 1e-4);
}

/// Scores the end of each sequence with part of its beginning cached, as for a judge's instructions.
fn check_after_preamble(gpu: &Gpu, model: &Model, sequences: &Value) {
    for sequence in sequences.as_array().unwrap() {
        let (ids, want) = (ids(&sequence["ids"]), numbers(&sequence["logps"]));
        for preamble in
            [1, ids.len() / 3, ids.len() - 2].into_iter().filter(|n| (1..ids.len() - 1).contains(n))
        {
            let prompt = preamble + (ids.len() - preamble) / 2;
            let tree = Tree { prompt: ids[..prompt].to_vec(), responses: vec![ids[prompt..].to_vec()] };
            let capacity = Capacity::of(std::slice::from_ref(&tree));
            let scorer = Scorer::after(gpu, model, &ids[..preamble], capacity, &Arena::new()).wait().unwrap();
            let scored = scorer.score(&[tree]).wait().unwrap().remove(0);
            let want = &want[prompt - 1..];
            let differences = scored.logps.iter().zip(want).map(|(got, want)| (got - want).abs());
            let largest = differences.fold(0.0, f32::max);
            assert_eq!(scored.logps.len(), want.len());
            assert!(largest <= 1e-3, "{preamble} of {} tokens before: {largest:.1e}", ids.len());
        }
    }
}

fn check_sft(gpu: &Gpu, model: &Model, expected: &Value, folder: &Path) {
    let rows = expected["rows"].as_array().unwrap();
    let tree = |row: &Value| Tree { prompt: ids(&row["prompt"]), responses: vec![ids(&row["completion"])] };
    let trees: Vec<Tree> = rows.iter().map(tree).collect();
    let arena = Arena::new();
    let step = SftStep::new(gpu, model, Capacity::of(&trees), false, &arena).wait().unwrap();
    model.trained().clear_gradients().unwrap();
    let tokens = expected["tokens"].as_f64().unwrap();
    let (result, _) = step.run(&trees, 1.0 / tokens as f32).wait().unwrap();
    check_gradients(gpu, model, result.nll / tokens, expected, &folder.join("gradients_sft.safetensors"));
}

fn check_dpo(gpu: &Gpu, model: &Model, expected: &Value, folder: &Path) {
    let pairs = pairs(expected);
    let beta = expected["beta"].as_f64().unwrap() as f32;
    let arena = Arena::new();
    let loss = PreferenceLoss::Dpo { beta };
    let step = PairStep::new(gpu, model, loss, capacity(&pairs), false, &arena).wait().unwrap();
    model.trained().clear_gradients().unwrap();
    let (results, _) = step.run(&pairs, 1.0 / pairs.len() as f32).wait().unwrap();
    let loss = results.iter().map(|r| r.loss as f64).sum::<f64>() / pairs.len() as f64;
    check_gradients(gpu, model, loss, expected, &folder.join("gradients_dpo.safetensors"));
}

/// Compares the loss, the gradient of every parameter, and the total norm, which an optimiser clips.
fn check_gradients(gpu: &Gpu, model: &Model, loss: f64, expected: &Value, file: &Path) {
    let relative = |got: f64, want: f64| (got - want).abs() / want.abs();
    let (want_loss, want_norm) =
        (expected["loss"].as_f64().unwrap(), expected["grad_norm"].as_f64().unwrap());
    let trained = model.trained();
    let gradients = Tensors::read(file);
    assert_eq!(gradients.names().len(), trained.iter().count());
    let last = format!(".layers.{}.", model.architecture().layers - 1);
    let mut distances = Vec::new();
    for weight in trained.iter() {
        let (got, want) = (trained.gradient_as_stored(weight).wait().unwrap(), gradients.f32(&weight.name));
        let distance = relative_distance(&got, &want);
        let name = weight.name.trim_end_matches(".weight");
        let outer = !name.contains("layers.") || name.contains(".layers.0.") || name.contains(&last);
        if outer && SHOWN.iter().any(|end| name.trim_end_matches(".lora_B").ends_with(end)) {
            println!(
                "  {name}: norm {:.6}, expected {:.6}, distance {distance:.1e}",
                norm(&got),
                norm(&want)
            );
        }
        assert!(distance <= 1e-3, "{name} is off by {distance:.1e}");
        distances.push((distance, name));
    }
    let (worst, name) = distances.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let mut optimiser =
        Optimiser::new(gpu, trained, OptimiserKind::Adafactor { weight_decay: 0.0 }, 0.0, &Arena::new())
            .wait()
            .unwrap();
    let got_norm = optimiser.update(0.0).wait().unwrap().grad_norm as f64;
    println!(
        "  loss {loss:.6}, expected {want_loss:.6}; gradient norm {got_norm:.6}, expected {want_norm:.6}"
    );
    println!("  largest relative distance of a parameter's gradient: {worst:.1e}, {name}");
    assert!(relative(loss, want_loss) <= 1e-4);
    assert!(relative(got_norm, want_norm) <= 1e-3);
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt()
}
