//! Tests of the generator with tests/fixtures/tiny.

mod common;

use std::collections::HashMap;

use common::{fixture, gpu};
use oaif::Error;
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::generate::{FinishReason, GenerateOptions, Generator, Request, Response, SamplingParams};
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::model::stream::Capacity;
use oaif::unstable::model::{Model, Scorer};

fn greedy() -> SamplingParams {
    SamplingParams::default().temperature(0.0)
}
fn warm() -> SamplingParams {
    SamplingParams::default().temperature(0.9)
}
/// The size of the fixture's vocabulary.
const VOCAB: u32 = 96;

fn options(sampling: SamplingParams, max_new_tokens: usize) -> GenerateOptions {
    GenerateOptions::default()
        .sampling(sampling)
        .max_new_tokens(max_new_tokens)
        .max_prompt_tokens(16)
        .slots(4)
        .samples_per_prompt(2)
        .eos(vec![2])
}

struct Fixture {
    gpu: Gpu,
    model: Model,
    tokenizer: Tokenizer,
}

impl Fixture {
    fn new() -> Option<Fixture> {
        let (gpu, dir) = (gpu()?, fixture("tiny"));
        let (model, tokenizer) =
            (Model::load(&gpu, &dir, false).wait().unwrap(), Tokenizer::load(&dir).unwrap());
        Some(Fixture { gpu, model, tokenizer })
    }

    fn generator(&self, options: GenerateOptions) -> Generator {
        Generator::new(&self.gpu, &self.model, options, &Arena::new()).wait().unwrap()
    }

    fn run(&self, options: GenerateOptions, requests: &[Request], stops: &[&str]) -> Vec<Vec<Response>> {
        let stop = StopMatcher::new(stops.iter().map(|s| s.to_string()));
        self.generator(options).run(&self.tokenizer, requests, &stop, SEED).wait().unwrap()
    }

    /// log p of every token after `prompt`, from a complete forward pass.
    fn next_logps(&self, prompt: &[u32]) -> Vec<f64> {
        let responses = (0..VOCAB).map(|id| vec![id]).collect();
        let tree = [Tree { prompt: prompt.to_vec(), responses }];
        let scorer = Scorer::new(&self.gpu, &self.model, Capacity::of(&tree), &Arena::new()).wait().unwrap();
        scorer.score(&tree).wait().unwrap().iter().map(|s| s.logp()).collect()
    }
}

const SEED: u32 = 20;

fn request(prompt: &[u32], samples: usize, first_sequence: u32) -> Request {
    Request { prompt: prompt.to_vec(), samples, first_sequence }
}

#[test]
fn first_tokens_follow_the_softmax_of_the_models_logits() {
    let Some(f) = Fixture::new() else { return };
    let (prompt, draws) = ([1, 14, 60, 35], 4096);
    let settings = options(warm(), 1).slots(64).samples_per_prompt(64).eos(vec![]);
    let answers = f.run(settings, &[request(&prompt, draws, 0)], &[]).remove(0);
    let mut counts = vec![0.0; VOCAB as usize];
    for answer in &answers {
        assert_eq!((answer.token_ids.len(), answer.finish_reason), (1, FinishReason::Length));
        counts[answer.token_ids[0] as usize] += 1.0;
    }
    let weights: Vec<f64> = f.next_logps(&prompt).iter().map(|l| (l / 0.9).exp()).collect();
    let total: f64 = weights.iter().sum();
    // Tokens with an expected count below five are merged into one cell.
    let (mut rare, mut statistic, mut cells) = ((0.0, 0.0), 0.0, 0);
    for (count, weight) in counts.iter().zip(weights) {
        let expected = draws as f64 * weight / total;
        match expected < 5.0 {
            true => rare = (rare.0 + count, rare.1 + expected),
            false => {
                statistic += (count - expected).powi(2) / expected;
                cells += 1;
            }
        }
    }
    if rare.1 > 0.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1;
    }
    // The value that a chi-square statistic exceeds with probability 0.001 (Wilson and Hilferty 1931).
    let freedom = (cells - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 3.09 * spread.sqrt()).powi(3);
    println!("seed {SEED}: chi-square {statistic:.1}, {freedom} degrees of freedom, limit {limit:.1}");
    assert!(cells > 20, "the fixture's distribution has {cells} cells");
    assert!(statistic < limit, "seed {SEED}: {statistic} should be below {limit}");
}

#[test]
fn a_sample_does_not_depend_on_other_samples() {
    let Some(f) = Fixture::new() else { return };
    let prompts: [&[u32]; 5] = [&[1], &[1, 14, 60], &[1, 20, 33, 61, 35, 50, 14, 67], &[1, 14, 62], &[7, 7]];
    let mut requests: Vec<Request> =
        prompts.iter().enumerate().map(|(i, p)| request(p, 1 + i % 3, 10 * i as u32)).collect();
    let by_sequence = |requests: &[Request], answers: Vec<Vec<Response>>| -> HashMap<u32, Response> {
        let numbered = requests.iter().zip(answers);
        numbered.flat_map(|(r, answers)| (r.first_sequence..).zip(answers)).collect()
    };
    let known = by_sequence(&requests, f.run(options(warm(), 21), &requests, &[]));
    assert_eq!(known.len(), 9);
    let different = known.values().map(|r| &r.token_ids).collect::<std::collections::HashSet<_>>();
    assert!(different.len() > 5, "samples differ");
    for (slots, samples_per_prompt) in [(1, 1), (3, 1), (8, 4), (16, 2)] {
        requests.reverse();
        let settings = options(warm(), 21).slots(slots).samples_per_prompt(samples_per_prompt);
        let again = by_sequence(&requests, f.run(settings, &requests, &[]));
        assert_eq!(again, known, "seed {SEED}, {slots} slots, {samples_per_prompt} samples per prompt");
    }
    for one in &requests {
        let alone = f.run(options(warm(), 21), std::slice::from_ref(one), &[]);
        for (sequence, response) in by_sequence(std::slice::from_ref(one), alone) {
            assert_eq!(response, known[&sequence], "seed {SEED}, prompt {:?} alone", one.prompt);
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_a_complete_forward_pass() {
    let Some(f) = Fixture::new() else { return };
    let long: Vec<u32> = (0..16).map(|i| 13 + i * 5).collect();
    let prompts: [&[u32]; 3] = [&[1], &[1, 14], &long];
    let requests: Vec<Request> = prompts.iter().map(|p| request(p, 1, 0)).collect();
    let settings = options(greedy(), 10).eos(vec![]);
    for (prompt, answers) in prompts.iter().zip(f.run(settings, &requests, &[])) {
        let mut all = prompt.to_vec();
        for (at, id) in answers[0].token_ids.iter().enumerate() {
            let logps = f.next_logps(&all);
            let best = logps.iter().cloned().fold(f64::NEG_INFINITY, f64::max);
            assert!(best - logps[*id as usize] < 1e-4, "prompt {prompt:?}: token {at} is {id}");
            all.push(*id);
        }
        assert_eq!(all.len(), prompt.len() + 10);
    }
}

#[test]
fn prompts_that_need_several_prefills_are_all_processed() {
    let Some(f) = Fixture::new() else { return };
    let prompt = |i: u32| (0..110).map(|j| 3 + (i * 31 + j * (7 + i)) % 93).collect::<Vec<u32>>();
    let requests: Vec<Request> = (0..14).map(|i| request(&prompt(i), 1, i)).collect();
    let settings = |slots| options(greedy(), 6).slots(slots).samples_per_prompt(1).max_prompt_tokens(110);
    let together = f.run(settings(14), &requests, &[]);
    assert_eq!(together, f.run(settings(1), &requests, &[]));
}

#[test]
fn a_response_ends_at_its_end_of_sequence_token() {
    let Some(f) = Fixture::new() else { return };
    let one = [request(&[1, 14, 60], 1, 5)];
    let free = f.run(options(warm(), 30).eos(vec![]), &one, &[])[0][0].clone();
    assert_eq!((free.token_ids.len(), free.finish_reason), (30, FinishReason::Length));
    // At any position relative to the intervals at which the generator checks for ended sequences.
    for at in [0, 6, 7, 8, 15, 29] {
        let eos = free.token_ids[at];
        let first = free.token_ids.iter().position(|id| *id == eos).unwrap();
        let ended = f.run(options(warm(), 30).eos(vec![95, eos]), &one, &[])[0][0].clone();
        assert_eq!(ended.token_ids, free.token_ids[..=first], "token {at} ends");
        assert_eq!(ended.finish_reason, FinishReason::Eos);
        let text = f.tokenizer.decode_after(&one[0].prompt, &free.token_ids[..first], true).unwrap();
        assert_eq!(ended.text, text, "the text has no end token");
    }
}

#[test]
fn a_response_ends_at_a_stop_string() {
    let Some(f) = Fixture::new() else { return };
    let requests = [request(&[1, 14, 60], 3, 5), request(&[1, 20], 3, 8)];
    let settings = || options(warm(), 30).eos(vec![]);
    let free = f.run(settings(), &requests, &[]);
    for at in [0, 7, 8, 12] {
        let ids = &free[0][1].token_ids;
        let stop = f.tokenizer.decode(&ids[at..=at], false).unwrap();
        let stopped = f.run(settings(), &requests, &[&stop]);
        for ((free, stopped), request) in free.iter().zip(&stopped).zip(&requests) {
            for (free, stopped) in free.iter().zip(stopped) {
                let end = stopped.token_ids.len();
                assert_eq!(stopped.token_ids, free.token_ids[..end], "{stop:?}: the tokens before it");
                let text = |ids: &[u32]| f.tokenizer.decode_after(&request.prompt, ids, false).unwrap();
                match stopped.finish_reason {
                    FinishReason::Stop => {
                        assert!(text(&free.token_ids[..end]).contains(&stop), "{stop:?} ends {stopped:?}");
                        assert!(!text(&free.token_ids[..end - 1]).contains(&stop), "{stop:?}: no token more");
                        let shown = f.tokenizer.decode_after(&request.prompt, &free.token_ids, true).unwrap();
                        assert!(!stopped.text.contains(&stop) && shown.starts_with(&stopped.text));
                    }
                    _ => {
                        assert!(!text(&free.token_ids).contains(&stop) && end == 30, "{stop:?}: {stopped:?}")
                    }
                }
            }
        }
        assert_eq!(stopped[0][1].finish_reason, FinishReason::Stop);
    }
}

#[test]
fn a_response_ends_with_the_models_context() {
    let Some(f) = Fixture::new() else { return };
    let prompt: Vec<u32> = (0..125).map(|i| 13 + i % 80).collect();
    let settings = options(greedy(), 10).max_prompt_tokens(127).eos(vec![]);
    let answers = f.run(settings, &[request(&prompt, 2, 0), request(&[1], 1, 0)], &[]);
    for answer in &answers[0] {
        assert_eq!((answer.token_ids.len(), answer.finish_reason), (3, FinishReason::Length));
    }
    assert_eq!(answers[1][0].token_ids.len(), 10);
}

#[test]
fn another_seed_gives_other_samples() {
    let Some(f) = Fixture::new() else { return };
    let generator = f.generator(options(warm(), 20));
    let run = |seed| {
        generator.run(&f.tokenizer, &[request(&[1, 14], 1, 0)], &StopMatcher::default(), seed).wait().unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn invalid_requests_are_errors() {
    let Some(f) = Fixture::new() else { return };
    let new = |options| Generator::new(&f.gpu, &f.model, options, &Arena::new()).wait().err().unwrap();
    let good = options(warm(), 4);
    let error = new(good.clone().max_prompt_tokens(128));
    assert!(matches!(error, Error::TooLong { tokens: 128, limit: 127, .. }), "{error}");
    for (name, bad) in [
        ("max-new-tokens", good.clone().max_new_tokens(0)),
        ("slots", good.clone().slots(0)),
        ("top_p", good.clone().sampling(warm().top_p(2.0))),
    ] {
        let message = new(bad).to_string();
        assert!(message.starts_with(name), "{message}");
    }
    let generator = f.generator(good);
    let run = |prompt: &[u32]| {
        let requests = [request(&[1], 1, 0), request(prompt, 1, 1)];
        generator.run(&f.tokenizer, &requests, &StopMatcher::default(), 0).wait().unwrap_err()
    };
    assert!(matches!(run(&[1; 17]), Error::TooLong { tokens: 17, limit: 16, .. }));
    assert!(run(&[]).to_string().starts_with("prompt"));
    assert!(generator.run(&f.tokenizer, &[], &StopMatcher::default(), 0).wait().unwrap().is_empty());
}

/// Multiply-adds of a call on a device that is not used otherwise.
fn work(gpu: &Gpu, call: impl FnOnce()) -> f64 {
    let before = gpu.activity().work.flops;
    call();
    gpu.activity().work.flops - before
}

#[test]
fn a_conversation_processes_only_new_tokens_and_gives_the_same_responses() {
    if gpu().is_none() {
        return;
    }
    // A separate device, so that the work of other tests is not counted.
    let gpu = Gpu::open(&Default::default()).wait().unwrap();
    let dir = fixture("tiny");
    let model = Model::load(&gpu, &dir, false).wait().unwrap();
    let fixture = Fixture { gpu, model, tokenizer: Tokenizer::load(&dir).unwrap() };
    let options = options(warm(), 4).slots(1).samples_per_prompt(1);
    let keeping = fixture.generator(options.clone()).keeping_prompts();
    let stop = StopMatcher::default();
    let answer = |generator: &Generator, prompt: &[u32]| {
        let request = [Request { prompt: prompt.to_vec(), samples: 1, first_sequence: 7 }];
        let answers = generator.run(&fixture.tokenizer, &request, &stop, SEED).wait().unwrap();
        answers[0][0].token_ids.clone()
    };
    let mut prompt = vec![5, 6, 7, 8, 9];
    for turn in 0..3 {
        let (mut kept, mut fresh) = (Vec::new(), Vec::new());
        let with = work(&fixture.gpu, || kept = answer(&keeping, &prompt));
        let without = work(&fixture.gpu, || fresh = answer(&fixture.generator(options.clone()), &prompt));
        assert_eq!(kept, fresh, "turn {turn}");
        assert!(if turn == 0 { with == without } else { with < without }, "turn {turn}: {with} of {without}");
        prompt.extend(kept.iter().take(3));
        prompt.push(10 + turn);
    }
    // Another beginning: no cached prefix may be used for it.
    let other = [4, 6, 7, 8, 9, 11];
    assert_eq!(answer(&keeping, &other), answer(&fixture.generator(options.clone()), &other));
    // The cache is invalid once the weights have changed.
    let weights = fixture.model.base();
    let weight = weights.iter().next().unwrap();
    weights.upload(&weight.name, &weights.download(weight).wait().unwrap()).unwrap();
    let forgotten = work(&fixture.gpu, || drop(answer(&keeping, &other)));
    let fresh = work(&fixture.gpu, || drop(answer(&fixture.generator(options.clone()), &other)));
    assert_eq!(forgotten, fresh);
}
