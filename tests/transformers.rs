//! The whole model against `transformers` and PyTorch in f64; see tests/fixtures.

mod common;

use common::{
    Tensors, capacity, fixture, gpu, ids, json, logp_differences, pairs, relative_distance, shared,
};
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Adapter, FloatFormat, LoraLayout, Model, Scorer, Weights};
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::{Objective, PreferenceLoss};
use oaif::unstable::train::pair_step::{LabelledPair, PairStep};
use oaif::unstable::train::sft_step::SftStep;
use serde_json::Value;

#[test]
fn tiny_models_give_the_log_probabilities_of_transformers() {
    let Some(gpu) = gpu() else { return };
    for name in ["tiny", "tiny_tied"] {
        let model = Model::load(&gpu, &fixture(name), false).wait().unwrap();
        let file = Tensors::open(&format!("logps_{name}.safetensors"));
        let (all, offsets) = (file.u32("ids"), file.u32("offsets"));
        let rows: Vec<Vec<u32>> =
            offsets.windows(2).map(|o| all[o[0] as usize..o[1] as usize].to_vec()).collect();
        let (largest, mean) = logp_differences(&gpu, &model, &rows, &file.f32("logp"));
        println!("{name}: max {largest:.2e}, mean {mean:.2e}");
        assert!(largest <= 1e-4 && mean <= 1e-5, "{name}: max {largest}, mean {mean}");
    }
}

#[test]
fn a_weight_split_by_rows_gives_the_same_log_probabilities() {
    if gpu().is_none() {
        return;
    }
    // 6 KiB per binding: the embedding and the head (96 x 32) are split into two parts, queries into four, keys and
    // values into two each, gate and up into two that hold both. 64 positions, because the rotary table has to fit as
    // well.
    let short = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture("tiny")).unwrap().map(|f| f.unwrap().path()) {
        std::fs::copy(&file, short.path().join(file.file_name().unwrap())).unwrap();
    }
    let config = std::fs::read_to_string(fixture("tiny").join("config.json")).unwrap();
    let config = config.replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 64");
    std::fs::write(short.path().join("config.json"), config).unwrap();
    let options = GpuOptions::default().max_binding_bytes(6144);
    let gpu = Gpu::open(&options).wait().unwrap();
    let whole = {
        let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
        let model = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
        Scorer::new(&gpu, &model, SMALL, &Arena::new()).wait().unwrap().score(&[small_tree()]).wait().unwrap()
    };
    // In f32 with gradients, and frozen in the bfloat16 of the file.
    for train in [true, false] {
        let model = Model::load(&gpu, short.path(), train).wait().unwrap();
        assert!(model.base().iter().any(|w| w.parts().count() > 1));
        let scorer = Scorer::new(&gpu, &model, SMALL, &Arena::new()).wait().unwrap();
        // The sums over the vocabulary use other chunks, so the last bits differ.
        for (split, whole) in scorer.score(&[small_tree()]).wait().unwrap().iter().zip(&whole) {
            assert!(relative_distance(&split.logps, &whole.logps) < 1e-6, "{split:?} {whole:?}");
            assert!(relative_distance(&split.entropies, &whole.entropies) < 1e-6, "{split:?} {whole:?}");
        }
    }
}

const SMALL: Capacity = Capacity { tokens: 5, targets: 5, sequences: 2 };

fn small_tree() -> Tree {
    Tree { prompt: vec![1, 5], responses: vec![vec![7, 8, 2], vec![9, 2]] }
}

#[test]
fn real_models_give_the_log_probabilities_of_transformers_on_100_stories() {
    let Some(gpu) = gpu() else { return };
    let Some(data) = shared("data/tinystories.jsonl") else { return };
    let stories = std::fs::read_to_string(data).unwrap();
    for (name, file) in [("stories260K", "logps_stories260K"), ("TinyStories-656K", "logps_656K")] {
        let Some(dir) = shared(&format!("models/{name}")) else { return };
        let model = Model::load(&gpu, &dir, false).wait().unwrap();
        let tokenizer = Tokenizer::load(&dir).unwrap();
        let file = Tensors::open(&format!("{file}.safetensors"));
        let rows: Vec<Vec<u32>> = stories
            .lines()
            .take(100)
            .map(|line| {
                let row: Value = serde_json::from_str(line).unwrap();
                let mut ids = tokenizer.encode(row["text"].as_str().unwrap()).unwrap();
                ids.truncate(256);
                ids
            })
            .collect();
        for (row, crc) in rows.iter().zip(file.u32("crc32")) {
            let mut hash = flate2::Crc::new();
            row.iter().for_each(|id| hash.update(&id.to_le_bytes()));
            assert_eq!(hash.sum(), crc, "{name}: a story's token ids");
        }
        let (largest, mean) = logp_differences(&gpu, &model, &rows, &file.f32("logp"));
        println!("{name}: max {largest:.2e}, mean {mean:.2e} nats over 100 stories");
        assert!(largest <= 1e-3 && mean <= 1e-4, "{name}: max {largest}, mean {mean}");
    }
}

#[test]
fn greedy_generation_gives_the_tokens_of_transformers() {
    let Some(gpu) = gpu() else { return };
    for name in ["stories260K", "TinyStories-656K"] {
        let Some(dir) = shared(&format!("models/{name}")) else { return };
        let known = &json("greedy.json")[name];
        let (prompt, expected) = (ids(&known["prompt_ids"]), ids(&known["token_ids"]));
        let model = Model::load(&gpu, &dir, false).wait().unwrap();
        let tokenizer = Tokenizer::load(&dir).unwrap();
        assert_eq!(tokenizer.encode("Once upon a time").unwrap(), prompt);
        let options = GenerateOptions::default()
            .sampling(SamplingParams::default().temperature(0.0))
            .max_new_tokens(expected.len())
            .max_prompt_tokens(prompt.len())
            .slots(2)
            .samples_per_prompt(2)
            .eos(vec![]);
        let generator = Generator::new(&gpu, &model, options, &Arena::new()).wait().unwrap();
        // Three samples in two slots: the third one reuses a slot.
        let request = Request { prompt, samples: 3, first_sequence: 0 };
        let stop = StopMatcher::new([]);
        let answers = generator.run(&tokenizer, &[request], &stop, 1).wait().unwrap().remove(0);
        for answer in answers {
            assert_eq!(answer.token_ids, expected, "{name}");
        }
    }
}

/// Runs one batch and compares the loss and the gradient of every parameter with PyTorch's.
fn check_gradients(
    gpu: &Gpu,
    model: &Model,
    pairs: &[LabelledPair],
    loss: impl Into<Objective>,
    file: &str,
    want: f64,
) {
    let loss = loss.into();
    for checkpointing in [false, true] {
        let step =
            PairStep::new(gpu, model, &loss, capacity(pairs), checkpointing, &Arena::new()).wait().unwrap();
        model.trained().clear_gradients().unwrap();
        let (results, _) = step.run(pairs, 1.0 / pairs.len() as f32).wait().unwrap();
        let got = results.iter().map(|r| r.loss as f64).sum::<f64>() / pairs.len() as f64;
        assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{file}: loss {got}, PyTorch {want}");
        let gradients = Tensors::open(file);
        let mut worst: f64 = 0.0;
        assert_eq!(gradients.names().len(), model.trained().iter().count(), "{file}: parameters");
        for weight in model.trained().iter() {
            let got = model.trained().download_gradient(weight).wait().unwrap();
            let distance = relative_distance(&got, &gradients.f32(&weight.name));
            assert!(distance <= 1e-3, "{file}: {} differs by {distance:.1e}", weight.name);
            worst = worst.max(distance);
        }
        println!("{file}, checkpointing {checkpointing}: worst relative distance {worst:.1e}");
    }
}

fn loss_of(file: &Value, key: &str) -> (PreferenceLoss, f64) {
    let entry = &file["losses"][key];
    let beta = entry["beta"].as_f64().unwrap() as f32;
    let name = entry["kind"].as_str().unwrap_or(key).split('_').next().unwrap();
    (PreferenceLoss::parse(name, Some(beta), false).unwrap(), entry["loss"].as_f64().unwrap())
}

#[test]
fn every_gradient_of_dpo_ipo_and_slic_is_that_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    for (fixture_name, dir) in
        [("tiny", Some(fixture("tiny"))), ("stories260K", shared("models/stories260K"))]
    {
        let Some(dir) = dir else { continue };
        let model = Model::load(&gpu, &dir, true).wait().unwrap();
        let file = json(&format!("pairs_{fixture_name}.json"));
        for name in ["dpo", "ipo", "slic"] {
            let (loss, want) = loss_of(&file, name);
            let gradients = format!("grads_{fixture_name}_{name}.safetensors");
            check_gradients(&gpu, &model, &pairs(&file), loss, &gradients, want);
        }
    }
    let model = Model::load(&gpu, &fixture("tiny_tied"), true).wait().unwrap();
    let file = json("pairs_tiny_tied.json");
    let (loss, want) = loss_of(&file, "dpo");
    check_gradients(&gpu, &model, &pairs(&file), loss, "grads_tiny_tied_dpo.safetensors", want);
}

#[test]
fn soft_labels_and_token_averages_give_the_losses_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
    let file = json("pairs_tiny.json");
    let soft = &file["losses"]["dpo_soft"];
    let mut softened = pairs(&file);
    for (pair, p) in softened.iter_mut().zip(soft["p"].as_array().unwrap()) {
        pair.label = p.as_f64().unwrap() as f32;
    }
    let dpo = PreferenceLoss::parse("dpo", Some(0.1), false).unwrap();
    let want = soft["loss"].as_f64().unwrap();
    check_gradients(&gpu, &model, &softened, dpo, "grads_tiny_dpo_soft.safetensors", want);

    let averaged = &file["losses"]["ipo_average_tokens"];
    let ipo = PreferenceLoss::parse("ipo", Some(1.0), true).unwrap();
    let pairs = pairs(&file);
    let step = PairStep::new(&gpu, &model, ipo, capacity(&pairs), false, &Arena::new()).wait().unwrap();
    let (results, _) = step.run(&pairs, 0.25).wait().unwrap();
    for (result, want) in results.iter().zip(averaged["per_pair"].as_array().unwrap()) {
        let want = want.as_f64().unwrap();
        assert!((result.loss as f64 - want).abs() < 1e-4 * want.max(1.0), "{} {want}", result.loss);
    }
}

#[test]
fn weighted_tokens_and_pairs_give_the_losses_and_gradients_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
    let (pairs, known) = (pairs(&json("pairs_tiny.json")), json("weighted_tiny.json"));
    let number = |value: &Value| value.as_f64().unwrap();
    let weights = &known["loss_weights"];
    let objective = Objective {
        losses: vec![
            (PreferenceLoss::Dpo { beta: number(&known["beta"]) as f32 }, number(&weights[0]) as f32),
            (PreferenceLoss::Sft, number(&weights[1]) as f32),
        ],
        label_smoothing: 0.0,
        use_weighting: true,
        ld_alpha: Some(number(&known["ld_alpha"]) as f32),
        rpo_alpha: None,
    };
    check_gradients(
        &gpu,
        &model,
        &pairs,
        &objective,
        "grads_tiny_weighted.safetensors",
        number(&known["loss"]),
    );
    let step =
        PairStep::new(&gpu, &model, &objective, capacity(&pairs), false, &Arena::new()).wait().unwrap();
    let (results, _) = step.run(&pairs, 0.25).wait().unwrap();
    for (p, result) in results.iter().enumerate() {
        let near = |got: f32, want: f64| (got as f64 - want).abs() < 1e-4 * want.abs().max(1.0);
        assert!(near(result.loss, number(&known["per_pair"][p])), "{p}: {}", result.loss);
        assert!(near(result.logp_chosen, number(&known["logps"][2 * p])), "{p}: {}", result.logp_chosen);
        assert!(near(result.logp_rejected, number(&known["logps"][2 * p + 1])), "{p}");
    }
}

#[test]
fn an_adapter_gives_the_log_probabilities_and_gradients_of_peft() {
    let Some(gpu) = gpu() else { return };
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let model = base.load_adapter(&fixture("tiny_lora"), true).unwrap();
    let (file, known) = (json("pairs_tiny.json"), json("lora_tiny.json"));
    let pairs = pairs(&file);
    let trees: Vec<Tree> = pairs.iter().map(|p| p.tree.clone()).collect();
    let check = |model: &Model, key: &str| {
        let scorer = Scorer::new(&gpu, model, capacity(&pairs), &Arena::new()).wait().unwrap();
        let want = known[key]["logps"].as_array().unwrap().iter().flat_map(|p| p.as_array().unwrap());
        for (got, want) in scorer.score(&trees).wait().unwrap().iter().zip(want) {
            let want = want.as_f64().unwrap();
            assert!((got.logp() - want).abs() < 1e-3, "{key}: {} {want}", got.logp());
        }
    };
    check(&model, "lora");
    let stabilised = base.load_adapter(&fixture("tiny_lora"), false).unwrap();
    let terms = stabilised.adapter().unwrap().layout.terms().to_vec();
    let layout = LoraLayout::new(terms, base.architecture(), true);
    let weights =
        Weights::frozen(&gpu, &layout.weights(base.architecture()), FloatFormat::F32.into()).unwrap();
    for weight in stabilised.adapter().unwrap().weights.iter() {
        let values = stabilised.adapter().unwrap().weights.download(weight).wait().unwrap();
        weights.upload(&weight.name, &values).unwrap();
    }
    check(&base.with_adapter(Adapter { layout, weights, warnings: Vec::new() }).unwrap(), "rslora");

    let want = known["lora"]["loss"].as_f64().unwrap();
    let loss = PreferenceLoss::parse("dpo", Some(0.1), false).unwrap();
    check_gradients(&gpu, &model, &pairs, loss, "grads_tiny_lora_dpo.safetensors", want);
}

#[test]
fn next_token_training_gives_the_loss_and_gradients_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
    let (file, known) = (json("pairs_tiny.json"), json("sft_tiny.json"));
    let trees: Vec<Tree> = pairs(&file)
        .into_iter()
        .map(|p| Tree { responses: p.tree.responses[..1].to_vec(), ..p.tree })
        .collect();
    let tokens = known["tokens"].as_u64().unwrap() as usize;
    let step = SftStep::new(&gpu, &model, Capacity::of(&trees), false, &Arena::new()).wait().unwrap();
    model.trained().clear_gradients().unwrap();
    // In two micro-batches, whose gradients add up.
    let weight = 1.0 / tokens as f32;
    let (first, _) = step.run(&trees[..3], weight).wait().unwrap();
    let (second, _) = step.run(&trees[3..], weight).wait().unwrap();
    assert_eq!(first.tokens + second.tokens, tokens);
    let (loss, want) = ((first.nll + second.nll) / tokens as f64, known["loss"].as_f64().unwrap());
    assert!((loss - want).abs() < 1e-4, "{loss} {want}");
    let gradients = Tensors::open("grads_tiny_sft.safetensors");
    for weight in model.trained().iter() {
        let got = model.trained().download_gradient(weight).wait().unwrap();
        let distance = relative_distance(&got, &gradients.f32(&weight.name));
        assert!(distance <= 1e-3, "{}: {distance}", weight.name);
    }
}

/// Ten steps on the same four pairs, with the initial model as reference; losses and gradient norms against PyTorch's.
fn check_ten_steps(gpu: &Gpu, model: &Model, file: &Value, steps: &Value, kind: OptimiserKind) {
    let mut pairs = pairs(file);
    let arena = Arena::new();
    let scorer = Scorer::new(gpu, model, capacity(&pairs), &arena).wait().unwrap();
    for pair in &mut pairs {
        let scores = scorer.score(std::slice::from_ref(&pair.tree)).wait().unwrap();
        pair.reference = [scores[0].logp() as f32, scores[1].logp() as f32];
    }
    let loss = PreferenceLoss::parse("dpo", Some(0.1), false).unwrap();
    let step = PairStep::new(gpu, model, loss, capacity(&pairs), false, &arena).wait().unwrap();
    let max_grad_norm = steps["max_grad_norm"].as_f64().unwrap() as f32;
    let mut optimiser = Optimiser::new(gpu, model.trained(), kind, max_grad_norm, &arena).wait().unwrap();
    let number = |key: &str, i: usize| steps[key][i].as_f64().unwrap();
    for i in 0..10 {
        model.trained().clear_gradients().unwrap();
        let (results, _) = step.run(&pairs, 0.25).wait().unwrap();
        let loss = results.iter().map(|r| r.loss as f64).sum::<f64>() / 4.0;
        let update = optimiser.update(steps["lr"].as_f64().unwrap()).wait().unwrap();
        let norm = update.grad_norm as f64;
        let near = |got: f64, want: f64| (got - want).abs() <= 1e-3 * want.abs();
        assert!(near(loss, number("loss", i)), "step {i}: loss {loss}, PyTorch {}", number("loss", i));
        let want = number("grad_norm", i);
        assert!(near(norm, want), "step {i}: gradient norm {norm}, PyTorch {want}");
    }
}

#[test]
fn ten_steps_of_adamw_and_adafactor_are_those_of_pytorch_and_transformers() {
    let Some(gpu) = gpu() else { return };
    let adamw = OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    if let Some(dir) = shared("models/stories260K") {
        let model = Model::load(&gpu, &dir, true).wait().unwrap();
        let (file, steps) = (json("pairs_stories260K.json"), json("steps_stories260K.json"));
        check_ten_steps(&gpu, &model, &file, &steps["adamw"], adamw);
    }
    let (file, steps) = (json("pairs_tiny.json"), json("steps_tiny.json"));
    for (name, kind) in [("adamw", adamw), ("adafactor", OptimiserKind::Adafactor { weight_decay: 0.0 })] {
        let model = Model::load(&gpu, &fixture("tiny"), true).wait().unwrap();
        check_ten_steps(&gpu, &model, &file, &steps[name], kind);
        let trained = Tensors::open(&format!("steps_tiny_{name}.safetensors"));
        for weight in model.trained().iter() {
            let got = model.trained().download(weight).wait().unwrap();
            let distance = relative_distance(&got, &trained.f32(&weight.name));
            assert!(distance <= 1e-3, "{name}: {} differs by {distance:.1e} after ten steps", weight.name);
        }
    }
}

#[test]
fn a_merged_adapter_gives_the_same_log_probabilities() {
    let Some(gpu) = gpu() else { return };
    let base = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let model = base.load_adapter(&fixture("tiny_lora"), false).unwrap();
    let score = |model: &Model| {
        let scorer = Scorer::new(&gpu, model, SMALL, &Arena::new()).wait().unwrap();
        scorer.score(&[small_tree()]).wait().unwrap().into_iter().flat_map(|s| s.logps).collect::<Vec<f32>>()
    };
    let (plain, adapted) = (score(&base), score(&model));
    assert!(relative_distance(&plain, &adapted) > 1e-3, "the adapter has an effect");
    let merged = score(&model.merge_adapter().wait().unwrap());
    assert!(relative_distance(&merged, &adapted) < 1e-6, "{merged:?} {adapted:?}");
}
