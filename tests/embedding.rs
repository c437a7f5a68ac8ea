//! Guarantees for an application that embeds the library: futures that any executor may poll, threads that are not
//! blocked, steps that can be cancelled.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use common::{application, fixture, gpu, prompts};
use oaif::data::{Pair, StopMatcher, Tokenizer};
use oaif::files::MemoryFolder;
use oaif::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::gpu::{Arena, Category, Gpu, GpuOptions};
use oaif::judge::{self, Desk, Human, Judge, Judgement, Rule};
use oaif::model::Model;
use oaif::preference::PreferenceLoss;
use oaif::train::{AlignOptions, Control, DpoOptions, Policy, Requests, StepReport, TrainOptions, Trainer};
use oaif::{Task, Wait};

/// The simplest executor: parks its thread until it is woken.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(20)),
        }
    }
}

/// Prefers the longer response, after a delay.
struct Slow;

impl Judge for Slow {
    fn name(&self) -> String {
        "slow".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [judge::Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move {
            futures_timer::Delay::new(Duration::from_millis(2)).await;
            Rule::parse("longer")?.judge(pairs).await
        })
    }
}

async fn trainer(gpu: &Gpu, steps: usize, num_samples: usize) -> oaif::Result<Trainer<'static>> {
    let train = TrainOptions::default().learning_rate(1e-3).batch_size(2).accumulation(2).max_steps(steps);
    let loss = PreferenceLoss::Dpo { beta: 0.1 };
    let options = AlignOptions::new(loss).max_new_tokens(6).num_samples(num_samples);
    let policy = Policy::load(gpu, &fixture("tiny"), &train).await?;
    Trainer::online(policy, &prompts(), Slow, &train, &options).await
}

/// A generator for the tiny model, with or without an end-of-sequence token.
fn generator(gpu: &Gpu, samples_per_prompt: usize, ends: bool) -> (Generator, Tokenizer) {
    let model = Model::load(gpu, &fixture("tiny"), false).wait().unwrap();
    let tokenizer = Tokenizer::load(&fixture("tiny")).unwrap();
    let options = GenerateOptions::default()
        .sampling(SamplingParams::default())
        .max_new_tokens(20)
        .max_prompt_tokens(4)
        .slots(2)
        .samples_per_prompt(samples_per_prompt)
        .eos(if ends { tokenizer.eos_ids().to_vec() } else { Vec::new() });
    (Generator::new(gpu, &model, options, &Arena::new()).wait().unwrap(), tokenizer)
}

/// The values in which two runs must agree.
fn essence(report: &StepReport) -> serde_json::Value {
    let mut row = serde_json::to_value(report).unwrap();
    let clocked =
        |key: &String| key.starts_with("time/") || key.starts_with("memory/") || key == "judge/latency_ms";
    row.as_object_mut().unwrap().retain(|key, _| !clocked(key));
    row["pairs"] = serde_json::to_value(&report.pairs).unwrap();
    row
}

async fn steps(trainer: &mut Trainer<'_>) -> oaif::Result<Vec<serde_json::Value>> {
    let mut reports = Vec::new();
    let requests = Requests::new();
    let mut control = Control { observer: &mut (), requests: &requests };
    while let Some(report) = trainer.step_with(&mut control).await? {
        reports.push(essence(&report));
    }
    Ok(reports)
}

#[test]
fn futures_and_their_types_are_send() {
    fn is_send<T: Send>(_: &T) {}
    fn are_send<T: Send>() {}
    are_send::<(Gpu, Model, Policy, Generator, Trainer<'static>)>();
    fn futures(gpu: &Gpu, trainer: &mut Trainer<'_>, policy: &Policy, generator: &Generator) {
        let requests = Requests::new();
        is_send(&Gpu::open(&GpuOptions::default()));
        is_send(&Model::load(gpu, "".as_ref(), false));
        is_send(&steps(trainer));
        is_send(&generator.run(&policy.tokenizer, &[], &StopMatcher::default(), 1));
        is_send(&trainer.step_with(&mut Control { observer: &mut (), requests: &requests }));
    }
    let _ = futures;
}

#[test]
fn any_executor_gives_the_same_bits_as_a_blocked_thread() {
    let Some(gpu) = gpu() else { return };
    let blocked = async { steps(&mut trainer(&gpu, 4, 2).await.unwrap()).await.unwrap() }.wait();
    let parked = run(async { steps(&mut trainer(&gpu, 4, 2).await.unwrap()).await.unwrap() });
    assert_eq!(blocked.len(), 4);
    assert_eq!(blocked, parked);
}

/// A device shared with an application, on which a step takes many submits.
fn shared() -> Option<Gpu> {
    let (device, queue) = application()?;
    let options = GpuOptions::default().submit_ms(0.05);
    Some(Gpu::from_device(device, queue, &options).unwrap())
}

#[test]
fn dropping_the_future_of_a_step_at_any_point_leaves_no_trace() {
    let Some(gpu) = gpu() else { return };
    drop_futures_at_any_point(&gpu);
}

#[test]
fn dropping_the_future_of_a_step_on_an_applications_device_leaves_no_trace() {
    let Some(gpu) = shared() else { return };
    drop_futures_at_any_point(&gpu);
}

fn drop_futures_at_any_point(gpu: &Gpu) {
    let expected = run(async { steps(&mut trainer(gpu, 20, 3).await.unwrap()).await.unwrap() });
    let mut trainer = run(trainer(gpu, 20, 3)).unwrap();
    let mut reports = Vec::new();
    let requests = Requests::new();
    let mut control = Control { observer: &mut (), requests: &requests };
    // A multiplicative generator for the number of polls before a future is dropped.
    let (mut state, mut dropped, mut longest) = (1u32, 0, Duration::ZERO);
    // How often the step was started: twice it is polled once, then each time it may get further, until it completes.
    let mut begun = 0;
    while !trainer.is_done() {
        let mut future = Box::pin(trainer.step_with(&mut control));
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let polls = match begun {
            0 | 1 => 1,
            2..10 => 1 + (state >> 16) % (6 << (begun - 2)),
            _ => u32::MAX,
        };
        begun += 1;
        let mut report = None;
        for _ in 0..polls {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                report = value.unwrap();
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        match report {
            Some(report) => {
                reports.push(essence(&report));
                begun = 0;
            }
            None => {
                dropped += 1;
                let started = Instant::now();
                drop(future);
                longest = longest.max(started.elapsed());
            }
        }
    }
    assert!(dropped >= 40, "only {dropped} futures were dropped");
    assert_eq!(reports, expected, "after {dropped} dropped futures");
    println!("{dropped} futures dropped, the longest took {longest:?}");
}

#[test]
fn polling_does_not_block_the_thread() {
    let Some(gpu) = gpu() else { return };
    let (generator, tokenizer) = generator(&gpu, 1, false);
    let requests = [Request { prompt: vec![3, 4], samples: 1, first_sequence: 0 }];
    let stop = StopMatcher::default();
    let mut future = pin!(generator.run(&tokenizer, &requests, &stop, 1));
    // The first poll submits, and must return while the GPU works.
    let first = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(first.is_pending(), "a poll that waits for the GPU blocks");
    let answers = run(future).unwrap();
    let again = generator.run(&tokenizer, &requests, &stop, 1).wait().unwrap();
    assert_eq!(answers[0][0].token_ids, again[0][0].token_ids);
}

#[test]
fn a_step_is_cancelled_within_100_ms_and_can_be_taken_again() {
    let Some(gpu) = gpu() else { return };
    let expected = run(async { steps(&mut trainer(&gpu, 8, 3).await.unwrap()).await.unwrap() });
    let mut trainer = run(trainer(&gpu, 8, 3)).unwrap();
    let (requests, mut reports) = (Arc::new(Requests::new()), Vec::new());
    let (mut state, mut latencies) = (7u32, Vec::new());
    while !trainer.is_done() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let delay = Duration::from_micros(u64::from((state >> 16) % 12_000));
        let canceller = (latencies.len() < 50).then(|| {
            let requests = Arc::clone(&requests);
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                requests.ask_to_cancel();
                Instant::now()
            })
        });
        let mut control = Control { observer: &mut (), requests: &requests };
        // On this thread, which waits for the GPU itself.
        let outcome = trainer.step_with(&mut control).wait();
        let ended = Instant::now();
        let cancelled_at = canceller.map(|canceller| canceller.join().unwrap());
        match outcome {
            Ok(report) => reports.push(essence(&report.unwrap())),
            // A request that came too late applies to the next step.
            Err(oaif::Error::Interrupted) => latencies
                .push(cancelled_at.map_or(Duration::ZERO, |cancelled_at| ended - cancelled_at.min(ended))),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(latencies.len() >= 50, "only {} steps were cancelled", latencies.len());
    assert_eq!(reports, expected, "after {} cancelled steps", latencies.len());
    let longest = latencies.iter().max().unwrap();
    println!("{} steps cancelled, the longest wait {longest:?}", latencies.len());
}

#[test]
fn a_streamed_response_is_the_whole_one_in_parts_and_can_be_dropped() {
    let Some(gpu) = gpu() else { return };
    let (generator, tokenizer) = generator(&gpu, 2, true);
    let request =
        |prompt: &[u32], first_sequence| Request { prompt: prompt.into(), samples: 2, first_sequence };
    let requests = [request(&[3, 4], 0), request(&[5], 2), request(&[6, 7, 8], 4)];
    let stop = StopMatcher::default();
    let whole = generator.run(&tokenizer, &requests, &stop, 1).wait().unwrap();
    // The stream is dropped after a few parts.
    run(async {
        let mut stream = generator.stream(&tokenizer, &requests, &stop, 1).await.unwrap();
        for _ in 0..3 {
            assert!(stream.next().await.unwrap().is_some());
        }
    });
    let (mut texts, mut responses, mut parts) = (vec![[String::new(), String::new()]; 3], Vec::new(), 0);
    run(async {
        let mut stream = generator.stream(&tokenizer, &requests, &stop, 1).await.unwrap();
        loop {
            // Dropping the future of a part loses nothing.
            let polled = pin!(stream.next()).poll(&mut Context::from_waker(Waker::noop()));
            let next = match polled {
                Poll::Ready(part) => part,
                Poll::Pending => stream.next().await,
            };
            let Some(part) = next.unwrap() else { break };
            texts[part.request][part.sample] += &part.text;
            responses.extend(part.response.map(|response| ((part.request, part.sample), response)));
            parts += 1;
        }
    });
    responses.sort_by_key(|(place, _)| *place);
    let streamed: Vec<_> = responses.into_iter().map(|(_, response)| response).collect();
    assert_eq!(streamed, whole.concat());
    assert_eq!(
        texts.concat(),
        whole.concat().iter().map(|response| response.text.clone()).collect::<Vec<_>>()
    );
    assert!(parts > 6, "{parts} parts of 6 answers");
}

#[test]
fn a_checkpoint_in_memory_resumes_with_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    let expected = run(async { steps(&mut trainer(&gpu, 6, 2).await.unwrap()).await.unwrap() });
    let folder = MemoryFolder::default();
    let mut first = run(trainer(&gpu, 6, 2)).unwrap();
    for _ in 0..3 {
        first.step().wait().unwrap();
    }
    first.save(folder.path()).wait().unwrap();
    drop(first);
    let mut second = run(trainer(&gpu, 6, 2)).unwrap();
    second.resume(folder.path()).unwrap();
    assert_eq!(second.steps_done(), 3);
    assert_eq!(run(steps(&mut second)).unwrap(), expected[3..]);
    let error = run(trainer(&gpu, 9, 2)).unwrap().resume(folder.path()).unwrap_err().to_string();
    assert!(error.contains("max-steps"), "{error}");
    // The saved files can be loaded as a model, also from memory.
    let model = Model::load(&gpu, folder.path(), false).wait().unwrap();
    assert!(model.adapter().is_none());
}

#[test]
fn a_step_that_waits_for_a_person_can_be_cancelled() {
    let Some(gpu) = gpu() else { return };
    let train = TrainOptions::default().batch_size(2).max_steps(2);
    let options = AlignOptions::new(PreferenceLoss::Dpo { beta: 0.1 }).max_new_tokens(6);
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let desk = Arc::new(Desk::new());
    let person = Human::new(desk.clone());
    let mut trainer = Trainer::online(policy, &prompts(), person, &train, &options).wait().unwrap();
    let requests = trainer.requests();
    let canceller = std::thread::spawn(move || {
        let begun = Instant::now();
        while desk.view(None).counts.open == 0 && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        requests.ask_to_cancel();
        Instant::now()
    });
    let outcome = trainer.step().wait();
    let ended = Instant::now();
    let late = ended.saturating_duration_since(canceller.join().unwrap());
    assert!(matches!(outcome, Err(oaif::Error::Interrupted)), "{:?}", outcome.map(drop));
    assert!(late < Duration::from_secs(30), "{late:?}");
}

#[test]
fn a_run_without_a_last_step_can_take_steps() {
    let Some(gpu) = gpu() else { return };
    let mut endless = run(trainer(&gpu, usize::MAX, 2)).unwrap();
    for step in 1..=3 {
        let report = endless.step().wait().unwrap().unwrap();
        assert_eq!((report.step, report.total_steps), (step, usize::MAX));
    }
}

#[test]
fn an_applications_device_has_at_most_two_submits_in_flight() {
    let (Some(gpu), Some(shared)) = (gpu(), shared()) else { return };
    let expected = run(async { steps(&mut trainer(&gpu, 4, 2).await.unwrap()).await.unwrap() });
    // While another thread generates, on a thread that may block and on one that may not.
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let (generator, tokenizer) = generator(&shared, 1, false);
            let requests = [Request { prompt: vec![3, 4], samples: 1, first_sequence: 0 }];
            for _ in 0..5 {
                generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).wait().unwrap();
            }
        });
        let parked = run(async { steps(&mut trainer(&shared, 4, 2).await.unwrap()).await.unwrap() });
        assert_eq!(parked, expected);
        let blocked = async { steps(&mut trainer(&shared, 4, 2).await.unwrap()).await.unwrap() }.wait();
        assert_eq!(blocked, expected);
    });
    let submits = shared.counts().submits;
    assert!(submits > 1000, "only {submits} submits");
    assert_eq!(shared.activity().most_in_flight, 2);
}

#[test]
fn a_step_that_is_not_polled_does_not_block_the_device() {
    let Some(gpu) = shared() else { return };
    let (generator, tokenizer) = generator(&gpu, 1, false);
    let requests = [Request { prompt: vec![3, 4], samples: 1, first_sequence: 0 }];
    let generate = || generator.run(&tokenizer, &requests, &StopMatcher::default(), 1).wait().unwrap();
    let expected = generate();
    let mut trainer = run(trainer(&gpu, 1, 2)).unwrap();
    let mut step = Box::pin(trainer.step());
    let mut report = None;
    while report.is_none() {
        if let Poll::Ready(value) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            report = Some(value.unwrap());
        }
        assert_eq!(generate(), expected);
    }
}

#[test]
fn an_allocation_above_the_memory_limit_is_refused_and_keeps_no_memory() {
    if gpu().is_none() {
        return;
    }
    let unlimited = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let model = Model::load(&unlimited, &fixture("tiny"), false).wait().unwrap();
    let weights = unlimited.memory().total;
    let limit = weights + (64 << 10);
    let gpu = Gpu::open(&GpuOptions::default().memory_limit(limit)).wait().unwrap();
    let error = gpu.buffer("a large tensor", Category::Weights, limit + 4).unwrap_err().to_string();
    assert!(error.starts_with("out of GPU memory while allocating a large tensor ("), "{error}");
    assert!(error.contains("0 bytes already held, memory_limit allows"), "{error}");
    assert!(error.contains("raise memory_limit, or lower the batch size"), "{error}");
    drop(model);
    let model = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let held = gpu.memory().total;
    let arena = Arena::new();
    let options = GenerateOptions::default()
        .sampling(SamplingParams::default())
        .max_new_tokens(100)
        .max_prompt_tokens(20)
        .slots(8)
        .samples_per_prompt(1)
        .eos(Vec::new());
    let refused = Generator::new(&gpu, &model, options, &arena).wait().err().unwrap();
    assert!(matches!(refused, oaif::Error::OutOfMemory { limit: Some(of), .. } if of == limit), "{refused}");
    assert_eq!(gpu.memory().total, held);
    assert!(gpu.memory().peak <= limit);
    let none = GpuOptions::default().memory_limit(0);
    assert!(Gpu::open(&none).wait().unwrap_err().to_string().contains("memory_limit"));
}

#[test]
fn memory_is_released_and_the_next_step_gives_the_same_bits() {
    let Some(shared) = shared() else { return };
    let own = Gpu::open(&GpuOptions::default()).wait().unwrap();
    for gpu in [own, shared] {
        let expected = run(async { steps(&mut trainer(&gpu, 4, 2).await.unwrap()).await.unwrap() });
        let mut trainer = run(trainer(&gpu, 4, 2)).unwrap();
        let whole = gpu.memory();
        let mut reports = Vec::new();
        while !trainer.is_done() {
            let before = gpu.memory();
            let released = gpu.release_memory().wait().unwrap();
            let after = gpu.memory();
            let given_back = before.bytes[&Category::Activations] + before.bytes[&Category::KvCache];
            assert_eq!((released, before.total - after.total), (given_back, given_back));
            assert!(given_back > 0 && after.bytes[&Category::Weights] == before.bytes[&Category::Weights]);
            // A step that is dropped in the middle and a release of memory must leave no trace.
            let interrupted = reports.len() % 2 == 1;
            if interrupted {
                let mut step = Box::pin(trainer.step());
                let mut poll = || step.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
                assert!((0..3).all(|_| poll()), "three polls were enough for a step");
                drop(step);
                gpu.release_memory().wait().unwrap();
            }
            reports.push(essence(&run(trainer.step()).unwrap().unwrap()));
            // A step that follows an interrupted one may have its responses already, and then needs no KV cache.
            if !interrupted {
                let again = gpu.memory();
                for category in [Category::Activations, Category::KvCache, Category::Weights] {
                    assert_eq!(again.bytes[&category], whole.bytes[&category], "{category:?}");
                }
            }
        }
        assert_eq!(reports, expected);
    }
}

#[test]
fn memory_in_use_by_a_generation_is_not_released() {
    let Some(_) = gpu() else { return };
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let (generator, tokenizer) = generator(&gpu, 1, false);
    let generator = generator.keeping_prompts();
    let requests = [Request { prompt: vec![3, 4, 5], samples: 1, first_sequence: 0 }];
    let stop = StopMatcher::default();
    let expected = generator.run(&tokenizer, &requests, &stop, 1).wait().unwrap();
    let cache = |gpu: &Gpu| gpu.memory().bytes[&Category::KvCache];
    let held = cache(&gpu);
    let streamed = run(async {
        let mut stream = generator.stream(&tokenizer, &requests, &stop, 1).await.unwrap();
        let mut response = None;
        while let Some(part) = stream.next().await.unwrap() {
            response = part.response.or(response);
            gpu.release_memory().await.unwrap();
            assert_eq!(cache(&gpu), held);
        }
        response.unwrap()
    });
    assert_eq!(streamed, expected[0][0]);
    // The prefix cache is released with the memory.
    gpu.release_memory().wait().unwrap();
    assert_eq!(cache(&gpu), 0);
    assert_eq!(generator.run(&tokenizer, &requests, &stop, 1).wait().unwrap(), expected);
}

#[test]
fn a_batch_is_uploaded_once_for_reference_and_policy() {
    if gpu().is_none() {
        return;
    }
    // A separate device, so that uploads of other tests are not counted.
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let pair = |prompt: &str| Pair::new(prompt, " ran to the river .", " ran to the the .");
    let pairs = ["the fox", "the dog", "a fox", "a dog"].map(pair);
    let train = TrainOptions::default().batch_size(2).epochs(2.0).shuffle(false);
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let options = DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
    let mut trainer = Trainer::offline(policy, &pairs, &train, &options).wait().unwrap();
    let mut of_step = Vec::new();
    while !trainer.is_done() {
        let before = gpu.activity().uploaded;
        trainer.step().wait().unwrap();
        of_step.push(gpu.activity().uploaded - before);
    }
    // In the second pass the reference log-probabilities are known.
    assert_eq!(of_step[1], of_step[3], "{of_step:?}");
}
