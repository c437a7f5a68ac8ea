//! Runs steps of direct preference optimisation by hand, as `oaif dpo` does for every batch.
//!
//!     cargo run --release --example dpo_step

use std::path::Path;

use oaif::Wait;
use oaif::unstable::data::encoder::Encoder;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::rows::Text;
use oaif::unstable::data::tokenizer::Tokenizer;
use oaif::unstable::gpu::{Arena, Gpu, GpuOptions};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::pair_step::{LabelledPair, PairStep};

fn main() -> oaif::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let gpu = Gpu::open(&GpuOptions::default()).wait()?;

    // `true`: every weight is trained and gets a gradient.
    let policy = Model::load(&gpu, &dir, true).wait()?;
    let tokenizer = Tokenizer::load(&dir)?;

    // A pair is a tree: the prompt once, then its two responses, the chosen one first. Prompt and response are encoded
    // together, as the model reads them, and end with the end-of-sequence token.
    let encoder = Encoder { tokenizer: &tokenizer, template: None };
    let pair = |prompt: &str, chosen: &str, rejected: &str| -> oaif::Result<Tree> {
        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(|text| Text::Plain(text.to_owned()));
        Ok(encoder.encode(&prompt, &[&chosen, &rejected], true)?.tree)
    };
    let trees = [
        pair("the fox said to the owl", " i liked your boat .", " the the the the .")?,
        pair("the bear wanted", " to sleep under the moon .", " and and but so so .")?,
    ];

    // The plans share the memory of their activations, since they never run at the same time. The largest comes first.
    let arena = Arena::new();
    let capacity = Capacity::of(&trees);
    let loss = PreferenceLoss::Dpo { beta: 0.1 };
    let step = PairStep::new(&gpu, &policy, loss, capacity, false, &arena).wait()?;

    // The reference model is the policy in its current state. Its log-probabilities never change: they are computed
    // once.
    let scorer = Scorer::new(&gpu, &policy.snapshot().wait()?, capacity, &arena).wait()?;
    let scored = scorer.score(&trees).wait()?;
    let pairs: Vec<LabelledPair> = trees
        .iter()
        .zip(scored.chunks(2))
        .map(|(tree, scores)| LabelledPair {
            tree: tree.clone(),
            reference: [scores[0].logp() as f32, scores[1].logp() as f32],
            label: 1.0,               // the first response is certainly better
            by_reference: [false; 2], // not sampled from the reference model
        })
        .collect();

    let adamw = OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let max_grad_norm = 1.0;
    let mut optimiser = Optimiser::new(&gpu, policy.trained(), adamw, max_grad_norm, &arena).wait()?;

    for number in 1..=5 {
        // Gradients accumulate, so that a batch can be split into micro-batches: clear them first.
        policy.trained().clear_gradients()?;

        // Forward, loss and backward in one replay. The weight turns the sum of losses into their mean.
        let (results, _) = step.run(&pairs, 1.0 / pairs.len() as f32).wait()?;

        // Gradient norm, clipping and the update in another replay.
        let update = optimiser.update(1e-3).wait()?;

        let mean = |value: fn(&oaif::unstable::train::pair_step::PairResult) -> f32| {
            results.iter().map(value).sum::<f32>() / results.len() as f32
        };
        println!(
            "step {number}: loss {:.4}, margin {:+.4}, gradient norm {:.3}",
            mean(|r| r.loss),
            mean(|r| r.reward_chosen - r.reward_rejected),
            update.grad_norm
        );
    }
    Ok(())
}
