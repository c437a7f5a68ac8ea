//! Whole runs on the tiny model: files, resuming, and errors.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{fixture, gpu, prompts, words};
use oaif::Error;
use oaif::Task;
use oaif::Wait;
use oaif::unstable::data::rows::{Completion, Pair, Prompt, Text};
use oaif::unstable::generate::SamplingParams;
use oaif::unstable::gpu::{Gpu, GpuOptions};
use oaif::unstable::judge::queue::{InPlace, IntoJudgeQueue, JudgeQueue, Polled, Question};
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::judge::threaded::Threaded;
use oaif::unstable::judge::{Judge, Judgement, Position};
use oaif::unstable::model::{LoraConfig, LoraTargets};
use oaif::unstable::preference::{LOSS_NAMES, LossOptions, Objective, PreferenceLoss};
use oaif::unstable::train::run_dir::Resume;
use oaif::unstable::train::{
    AlignOptions, AlignRun, Control, DpoOptions, DpoRun, Observer, PairChoice, Policy, PolicyLoss, Requests,
    SftRun, Sources, StepReport, TrainOptions,
};
use serde_json::{Value, json};

fn train_options(dir: &Path, steps: usize) -> TrainOptions {
    TrainOptions::default()
        .output_dir(dir)
        .learning_rate(1e-3)
        .warmup_steps(1)
        .batch_size(2)
        .accumulation(2)
        .max_steps(steps)
        .save_steps(2)
}

fn lora() -> LoraConfig {
    let targets = LoraTargets::AllLinear;
    LoraConfig::new(2).targets(targets)
}

fn align_options(loss: &str) -> AlignOptions {
    let loss = PreferenceLoss::parse(loss, None, false).unwrap();
    AlignOptions::new(loss).max_new_tokens(6).slots(3)
}

/// Records all events, and requests a stop after a step.
#[derive(Default)]
struct Listener<'a> {
    steps: Vec<Option<f64>>,
    warnings: Vec<String>,
    /// The steps of an earlier process.
    logged: Vec<u64>,
    stop_after: Option<(usize, &'a Requests)>,
}

impl Observer for Listener<'_> {
    fn logged(&mut self, row: &Value) {
        self.logged.push(row["step"].as_u64().unwrap());
    }

    fn step(&mut self, report: &StepReport) {
        self.steps.push(report.loss);
        if let Some((step, flag)) = self.stop_after
            && report.step == step
        {
            flag.ask_to_stop();
        }
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }
}

fn sources() -> Sources {
    Sources { model: fixture("tiny"), config: json!({"command": "test"}) }
}

fn align(
    gpu: &Gpu,
    train: &TrainOptions,
    options: &AlignOptions,
    rule: &str,
    stop_after: Option<usize>,
) -> Result<PathBuf, Error> {
    align_with(gpu, train, options, InPlace::new(Rule::parse(rule)?), stop_after)
}

fn align_with(
    gpu: &Gpu,
    train: &TrainOptions,
    options: &AlignOptions,
    judge: impl IntoJudgeQueue<'static>,
    stop_after: Option<usize>,
) -> Result<PathBuf, Error> {
    let flag = Requests::new();
    let mut listener = Listener { stop_after: stop_after.map(|step| (step, &flag)), ..Listener::default() };
    align_observed_by(&mut listener, &flag, gpu, train, options, judge)
}

fn align_observed_by(
    listener: &mut Listener<'_>,
    requests: &Requests,
    gpu: &Gpu,
    train: &TrainOptions,
    options: &AlignOptions,
    judge: impl IntoJudgeQueue<'static>,
) -> Result<PathBuf, Error> {
    let policy = Policy::load(gpu, &fixture("tiny"), train).wait()?;
    let run = AlignRun::new(policy, &prompts(), train, options).wait()?;
    run.run(judge, sources(), Control { observer: listener, requests }).wait()
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The metrics without those that depend on the clock, and on a device shared with other tests.
fn untimed(path: &Path) -> Vec<Value> {
    let mut rows = rows(path);
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|key, _| {
            !key.starts_with("time/") && !key.starts_with("memory/") && key != "judge/latency_ms"
        });
    }
    rows
}

fn assert_same_run(a: &Path, b: &Path, weights: &str) {
    assert_eq!(untimed(&a.join("metrics.jsonl")), untimed(&b.join("metrics.jsonl")));
    assert_eq!(rows(&a.join("pairs.jsonl")), rows(&b.join("pairs.jsonl")));
    assert!(
        std::fs::read(a.join(weights)).unwrap() == std::fs::read(b.join(weights)).unwrap(),
        "the weights differ"
    );
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_run_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    for (name, adapter, weights) in [
        ("full", None, "model/model.safetensors"),
        ("lora", Some(lora()), "adapter/adapter_model.safetensors"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let (whole, parts) = (temp.path().join("whole"), temp.path().join("parts"));
        let options = align_options("dpo");
        let mut train = train_options(&whole, 6).lora(adapter);
        align(&gpu, &train, &options, "longer", None).unwrap();
        train.output_dir = Some(parts.clone());
        let stopped = align(&gpu, &train, &options, "longer", Some(3)).unwrap_err();
        assert!(matches!(stopped, Error::Interrupted), "{name}: {stopped}");
        train.resume = Some("last".into());
        align(&gpu, &train, &options, "longer", None).unwrap();
        assert_same_run(&whole, &parts, weights);
        // From an older checkpoint: later steps are repeated.
        train.resume = Some(Resume::Path(parts.join("checkpoints/step-000002")));
        align(&gpu, &train, &options, "longer", None).unwrap();
        assert_same_run(&whole, &parts, weights);
    }
}

/// The number of launches on the device when each batch of questions was submitted.
type Launches = Arc<Mutex<VecDeque<u64>>>;

/// Prefers the longer response, but answers only after other work was submitted to the device.
struct Slow {
    gpu: Gpu,
    launches: Launches,
    /// The number of batches answered although no other work was done in between.
    in_vain: Arc<AtomicUsize>,
}

impl Slow {
    fn on(gpu: &Gpu) -> (Box<dyn JudgeQueue>, Arc<AtomicUsize>) {
        let (launches, in_vain) = (Launches::default(), Arc::default());
        let slow = Slow { gpu: gpu.clone(), launches: Arc::clone(&launches), in_vain: Arc::clone(&in_vain) };
        (Box::new(Submitted { queue: Threaded::new(slow).unwrap(), gpu: gpu.clone(), launches }), in_vain)
    }
}

/// Records the launches before the thread of the judge gets the questions, which may be late on a busy machine.
struct Submitted {
    queue: Threaded,
    gpu: Gpu,
    launches: Launches,
}

impl JudgeQueue for Submitted {
    fn name(&self) -> String {
        self.queue.name()
    }

    fn identity(&self) -> oaif::Result<BTreeMap<String, String>> {
        self.queue.identity()
    }

    fn is_remote(&self) -> bool {
        self.queue.is_remote()
    }

    fn rates(&self) -> bool {
        self.queue.rates()
    }

    fn position(&self) -> Position {
        self.queue.position()
    }

    fn submit(&mut self, questions: Vec<Question>) -> oaif::Result<()> {
        if !questions.is_empty() {
            self.launches.lock().unwrap().push_back(self.gpu.activity().launches);
        }
        self.queue.submit(questions)
    }

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, oaif::Result<Polled>> {
        self.queue.poll(patience)
    }
}

impl Judge for Slow {
    fn name(&self) -> String {
        "slow".into()
    }

    fn judge<'t>(
        &'t mut self,
        pairs: &'t [oaif::unstable::judge::Pair<'t>],
    ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move {
            let (started, launches) = (Instant::now(), self.launches.lock().unwrap().pop_front().unwrap());
            while self.gpu.activity().launches == launches {
                if started.elapsed() > Duration::from_secs(20) {
                    self.in_vain.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Rule::parse("longer")?.judge(pairs).await
        })
    }
}

#[test]
fn with_an_async_level_of_1_responses_are_sampled_while_the_judge_works() {
    let Some(_) = gpu() else { return };
    // A device of its own, to which no other test submits work.
    let gpu = Gpu::open(&GpuOptions::default()).wait().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let responses = |dir: &Path| {
        let pairs = rows(&dir.join("pairs.jsonl")).into_iter();
        let of = |p: Value| (p["step"].as_u64().unwrap(), [p["response_1"].clone(), p["response_2"].clone()]);
        pairs.map(of).collect::<Vec<_>>()
    };
    // The learning rate is so high that a single update changes the samples.
    let fast = |dir: &Path| train_options(dir, 3).learning_rate(1e-1).warmup_steps(0);
    let (on_policy, ahead) = (temp.path().join("on"), temp.path().join("ahead"));
    align(&gpu, &fast(&on_policy), &align_options("dpo"), "longer", None).unwrap();
    let level_1 = align_options("dpo").async_level(1);
    let (slow, in_vain) = Slow::on(&gpu);
    align_with(&gpu, &fast(&ahead), &level_1, slow, None).unwrap();
    assert!(in_vain.load(Ordering::Relaxed) <= 1, "only the last step has no step ahead");
    // The responses of the starting model to the prompts of the second step.
    let untouched = temp.path().join("untouched");
    let train = fast(&untouched).learning_rate(1e-9);
    align(&gpu, &train, &align_options("dpo"), "longer", None).unwrap();
    let of_step = |dir: &Path, step| responses(dir).into_iter().filter(|r| r.0 == step).collect::<Vec<_>>();
    assert_eq!(of_step(&ahead, 1), of_step(&untouched, 1));
    assert_eq!(of_step(&ahead, 2), of_step(&untouched, 2), "off-policy by one update");
    assert_ne!(of_step(&on_policy, 2), of_step(&untouched, 2));
    assert_ne!(of_step(&ahead, 3), of_step(&untouched, 3), "not by more than one");

    let rule = InPlace::new(Rule::parse("longer").unwrap());
    let error = align_with(&gpu, &fast(&temp.path().join("rule")), &level_1, rule, None).unwrap_err();
    assert!(error.to_string().contains("async-level"), "{error}");
    assert!(!temp.path().join("rule").exists());
}

#[test]
fn a_resumed_run_of_async_level_1_equals_an_uninterrupted_run_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let (whole, parts) = (temp.path().join("whole"), temp.path().join("parts"));
    let options = align_options("dpo").async_level(1);
    let mut train = train_options(&whole, 5).learning_rate(1e-2);
    let slow = || Slow::on(&gpu).0;
    align_with(&gpu, &train, &options, slow(), None).unwrap();
    train.output_dir = Some(parts.clone());
    align_with(&gpu, &train, &options, slow(), Some(3)).unwrap_err();
    train.resume = Some("last".into());
    // The checkpoint contains the responses of the fourth step.
    for other in [options.clone().num_samples(3), options.clone().max_new_tokens(3)] {
        let error = align_with(&gpu, &train, &other, slow(), None).unwrap_err().to_string();
        assert!(
            error.contains("checkpoint was written with") && error.contains("`allow-changes`"),
            "{error}"
        );
    }
    align_with(&gpu, &train, &options, slow(), None).unwrap();
    assert_same_run(&whole, &parts, "model/model.safetensors");
}

/// Prefers the longer response, and records the pairs.
struct Counting(Arc<Mutex<Vec<[String; 3]>>>);

impl Judge for Counting {
    fn name(&self) -> String {
        "counting".into()
    }

    fn judge<'t>(
        &'t mut self,
        pairs: &'t [oaif::unstable::judge::Pair<'t>],
    ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move {
            let texts = pairs.iter().map(|p| [p.prompt, p.response_1, p.response_2].map(str::to_owned));
            self.0.lock().unwrap().extend(texts);
            Rule::parse("longer")?.judge(pairs).await
        })
    }
}

#[test]
fn with_several_steps_ahead_a_resumed_run_is_equal_and_no_question_is_repeated() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let (whole, parts) = (temp.path().join("whole"), temp.path().join("parts"));
    let options = align_options("dpo").async_level(3);
    let mut train = train_options(&whole, 7).learning_rate(1e-2);
    let judged_pairs: [Arc<Mutex<Vec<_>>>; 2] = Default::default();
    let queue = |i: usize| Threaded::new(Counting(Arc::clone(&judged_pairs[i]))).unwrap();
    align_with(&gpu, &train, &options, queue(0), None).unwrap();
    let off_policy: Vec<u64> = rows(&whole.join("metrics.jsonl"))
        .iter()
        .map(|row| row["judge/off_policy_steps"].as_u64().unwrap())
        .collect();
    assert_eq!(off_policy, [0, 1, 2, 3, 3, 3, 3]);
    let drawn_by: Vec<u64> =
        rows(&whole.join("pairs.jsonl")).iter().map(|pair| pair["policy_step"].as_u64().unwrap()).collect();
    assert_eq!((drawn_by[0], drawn_by.last()), (0, Some(&3)));

    train.output_dir = Some(parts.clone());
    align_with(&gpu, &train, &options, queue(1), Some(5)).unwrap_err();
    // As after a crash: the last checkpoint is older than the last question.
    train.resume = Some(Resume::Path(parts.join("checkpoints/step-000002")));
    align_with(&gpu, &train, &options, queue(1), None).unwrap();
    assert_same_run(&whole, &parts, "model/model.safetensors");
    let [mut once, mut twice] = judged_pairs.map(|judged_pairs| judged_pairs.lock().unwrap().clone());
    once.sort();
    twice.sort();
    assert_eq!(once, twice, "repeated or missing questions");
}

#[test]
fn an_active_run_judges_one_pair_per_row_and_resumes_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let (whole, parts) = (temp.path().join("whole"), temp.path().join("parts"));
    let options = align_options("dpo").active(2).num_samples(3).async_level(1);
    let train = train_options(&whole, 5).learning_rate(1e-2);
    let judged_pairs: Arc<Mutex<Vec<_>>> = Arc::default();
    let queue = || Threaded::new(Counting(Arc::clone(&judged_pairs))).unwrap();
    align_with(&gpu, &train, &options, queue(), None).unwrap();
    let a_step = train.batch_size * train.accumulation;
    let mut prompts = judged_pairs.lock().unwrap().clone();
    assert!(prompts.len() <= 5 * a_step && prompts.len() > 4 * a_step, "{} pairs", prompts.len());
    prompts.sort();
    prompts.dedup();
    assert!(prompts.len() > a_step, "the selected prompts vary");

    let train = train.output_dir(parts.clone());
    align_with(&gpu, &train, &options, queue(), Some(3)).unwrap_err();
    let train = train.resume(Some("last".into()));
    let other = options.clone().active(3);
    let error = align_with(&gpu, &train, &other, queue(), None).unwrap_err().to_string();
    assert!(error.contains("active 2") && error.contains("active 3"), "{error}");
    align_with(&gpu, &train, &options, queue(), None).unwrap();
    assert_same_run(&whole, &parts, "model/model.safetensors");
}

#[test]
fn in_xpo_one_response_per_prompt_is_the_references_and_the_order_is_random() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let options = align_options("xpo");
    let answers = |name: &str, learning_rate: f64| {
        let dir = temp.path().join(name);
        // The learning rate is so high that a single update changes the samples.
        let train = train_options(&dir, 3).learning_rate(learning_rate).warmup_steps(0);
        align(&gpu, &train, &options, "longer", None).unwrap();
        let pairs = rows(&dir.join("pairs.jsonl")).into_iter().filter(|pair| pair["step"] != 1);
        pairs.map(|pair| [pair["response_1"].clone(), pair["response_2"].clone()]).collect::<Vec<_>>()
    };
    let (moved, still) = (answers("moved", 1e-1), answers("still", 1e-9));
    let dir = temp.path().join("moved");
    let learnt: u64 =
        rows(&dir.join("metrics.jsonl")).iter().map(|r| r["judge/learnt"].as_u64().unwrap()).sum();
    let chosen = rows(&dir.join("pairs.jsonl")).iter().filter(|pair| !pair["chosen"].is_null()).count();
    assert_eq!(chosen as u64, learnt, "pairs learnt from have a chosen response");
    let same =
        |response: usize| moved.iter().zip(&still).filter(move |(a, b)| a[response] == b[response]).count();
    let either = moved.iter().zip(&still).filter(|(a, b)| a[0] == b[0] || a[1] == b[1]).count();
    assert_eq!((moved.len(), either), (still.len(), still.len()), "the reference does not change");
    for response in [0, 1] {
        assert!((1..moved.len()).contains(&same(response)), "the policy changes: {moved:?} {still:?}");
    }

    let three = options.num_samples(3);
    let error = align(&gpu, &train_options(&temp.path().join("three"), 3), &three, "longer", None);
    assert!(error.unwrap_err().to_string().contains("num-samples"));
}

/// Requests a stop in the n-th phase with this name.
struct StopsIn<'a> {
    phase: &'static str,
    times: usize,
    requests: &'a Requests,
}

impl Observer for StopsIn<'_> {
    fn phase(&mut self, name: &str) {
        if name == self.phase {
            self.times -= 1;
            if self.times == 0 {
                self.requests.ask_to_stop();
            }
        }
    }
}

#[test]
fn an_interrupted_evaluation_is_repeated_when_the_run_is_resumed() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let options = align_options("dpo");
    let run =
        |train: &TrainOptions, held_out: &[Prompt], observer: &mut dyn Observer, requests: &Requests| {
            let policy = Policy::load(&gpu, &fixture("tiny"), train).wait()?;
            let run = AlignRun::new(policy, &prompts(), train, &options)
                .wait()?
                .with_held_out(held_out, Some(2))
                .wait()?;
            let longer = InPlace::new(Rule::parse("longer")?);
            run.run(longer, sources(), Control { observer, requests }).wait()
        };
    let held_out = &prompts()[..5];
    let whole = temp.path().join("whole");
    let train = train_options(&whole, 4).learning_rate(1e-2);
    run(&train, held_out, &mut (), &Requests::new()).unwrap();
    let evaluated = |dir: &Path| {
        untimed(&dir.join("metrics.jsonl")).iter().map(|r| r["eval/kl"].as_f64()).collect::<Vec<_>>()
    };
    assert!(evaluated(&whole).iter().map(Option::is_some).eq([false, true, false, true]));
    // In the middle and at the end of the run.
    for times in [1, 2] {
        for phase in ["sampling held-out responses", "judging held-out prompts"] {
            let dir = temp.path().join(format!("{phase} {times}"));
            let train = train.clone().output_dir(dir.clone());
            let requests = Requests::new();
            let mut stops = StopsIn { phase, times, requests: &requests };
            let error = run(&train, held_out, &mut stops, &requests).unwrap_err();
            assert!(matches!(error, Error::Interrupted), "{phase}: {error}");
            assert_eq!(evaluated(&dir).iter().flatten().count(), times - 1, "{phase}");
            let train = train.resume(Some("last".into()));
            let error = run(&train, &held_out[1..], &mut (), &Requests::new()).unwrap_err().to_string();
            assert!(
                error.contains("eval-dataset of 5 rows") && error.contains("eval-dataset of 4"),
                "{error}"
            );
            run(&train, held_out, &mut (), &Requests::new()).unwrap();
            assert_same_run(&whole, &dir, "model/model.safetensors");
        }
    }
}

#[test]
fn a_resumed_run_reports_logged_steps_and_warnings_at_the_start() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let warm = SamplingParams::default().temperature(1.5);
    let options = align_options("dpo").loss(PolicyLoss::rloo()).sampling(SamplingParams::default());
    let longer = || InPlace::new(Rule::parse("longer").unwrap());
    let train = train_options(&dir, 4);
    let requests = Requests::new();
    let mut begun = Listener { stop_after: Some((2, &requests)), ..Listener::default() };
    align_observed_by(&mut begun, &requests, &gpu, &train, &options, longer()).unwrap_err();
    assert!(begun.logged.is_empty() && begun.warnings.is_empty(), "{:?}", begun.warnings);
    let train = train.resume(Some("last".into()));
    let mut resumed = Listener::default();
    align_observed_by(&mut resumed, &Requests::new(), &gpu, &train, &options, longer()).unwrap();
    assert_eq!((&*resumed.logged, resumed.steps.len()), (&[1, 2][..], 2));

    let biased = options.sampling(warm);
    let train = train_options(&temp.path().join("warm"), 1);
    let mut listener = Listener::default();
    align_observed_by(&mut listener, &Requests::new(), &gpu, &train, &biased, longer()).unwrap();
    assert!(listener.warnings.iter().any(|text| text.contains("biased")), "{:?}", listener.warnings);
}

#[test]
fn a_run_without_a_checkpoint_starts_over_and_no_question_is_repeated() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let judged_pairs: Arc<Mutex<Vec<_>>> = Arc::default();
    let queue = || Threaded::new(Counting(Arc::clone(&judged_pairs))).unwrap();
    let mut train = train_options(&dir, 3).save_steps(None);
    align_with(&gpu, &train, &align_options("dpo"), queue(), None).unwrap();
    let first = judged_pairs.lock().unwrap().len();
    let metrics = untimed(&dir.join("metrics.jsonl"));
    std::fs::remove_dir_all(dir.join("checkpoints")).unwrap();
    std::fs::remove_dir_all(dir.join("model")).unwrap();
    train.resume = Some("last".into());
    align_with(&gpu, &train, &align_options("dpo"), queue(), None).unwrap();
    assert_eq!(judged_pairs.lock().unwrap().len(), first);
    assert_eq!(untimed(&dir.join("metrics.jsonl")), metrics);
}

#[test]
fn a_trainer_runs_step_by_step_without_a_folder() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let run = temp.path().join("run");
    let train = train_options(&run, 3);
    align(&gpu, &train, &align_options("dpo"), "longer", None).unwrap();
    let expected = untimed(&run.join("metrics.jsonl"));

    let train = train_options(&temp.path().join("none"), 3);
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let prepared = AlignRun::new(policy, &prompts(), &train, &align_options("dpo")).wait().unwrap();
    let mut trainer = prepared.trainer(InPlace::new(Rule::parse("longer").unwrap())).unwrap();
    let control = &mut Control { observer: &mut (), requests: &Requests::new() };
    let mut reports = Vec::new();
    while let Some(report) = trainer.step_with(control).wait().unwrap() {
        assert_eq!((report.step, report.total_steps), (reports.len() + 1, 3));
        assert_eq!(report.pairs.len(), 4, "four prompts per step, one pair each");
        assert!(report.times.phases.ms("sampling") > 0.0 && report.times.step_ms > 0.0);
        reports.push(report);
    }
    assert!(trainer.is_done() && trainer.step_with(control).wait().unwrap().is_none());
    assert!(!temp.path().join("none").exists());
    for (report, row) in reports.iter().zip(expected) {
        let report: Value = serde_json::from_str(&serde_json::to_string(report).unwrap()).unwrap();
        for (key, value) in row.as_object().unwrap() {
            assert_eq!(&report[key], value, "{key}");
        }
    }
}

#[test]
fn a_step_that_failed_can_be_repeated() {
    struct Moody(usize);
    impl Judge for Moody {
        fn name(&self) -> String {
            "moody".into()
        }
        fn judge<'t>(
            &'t mut self,
            pairs: &'t [oaif::unstable::judge::Pair<'t>],
        ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
            Box::pin(async move {
                self.0 += 1;
                match self.0 {
                    2 => Err(Error::Judge { name: self.name(), why: "asleep".into() }),
                    _ => Rule::parse("longer")?.judge(pairs).await,
                }
            })
        }
    }
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let losses = |moody: Moody| {
        let train = train_options(temp.path(), 3);
        let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
        let prepared = AlignRun::new(policy, &prompts(), &train, &align_options("dpo")).wait().unwrap();
        let mut trainer = prepared.trainer(InPlace::new(moody)).unwrap();
        let control = &mut Control { observer: &mut (), requests: &Requests::new() };
        let (mut losses, mut failures) = (Vec::new(), 0);
        while !trainer.is_done() {
            match trainer.step_with(control).wait() {
                Ok(report) => losses.push(report.unwrap().loss),
                Err(error) => {
                    assert!(error.to_string().contains("asleep"), "{error}");
                    failures += 1;
                }
            }
        }
        (losses, failures)
    };
    let (smooth, moody) = (losses(Moody(2)), losses(Moody(0)));
    assert_eq!((smooth.0, 0, 1), (moody.0, smooth.1, moody.1));
}

/// Judges that ignore the content: they go by the position, by the length, or by chance.
enum Careless {
    First,
    Longer,
    Random,
}

impl Judge for Careless {
    fn name(&self) -> String {
        "careless".into()
    }

    fn position(&self) -> Position {
        if matches!(self, Careless::Longer) { Position::Settled } else { Position::Untold }
    }

    fn judge<'t>(
        &'t mut self,
        pairs: &'t [oaif::unstable::judge::Pair<'t>],
    ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let verdict = |pair: &oaif::unstable::judge::Pair<'_>| match self {
                Careless::First => 1.0,
                Careless::Longer => match pair.response_1.len().cmp(&pair.response_2.len()) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                },
                Careless::Random => {
                    let mut hasher = DefaultHasher::new();
                    (pair.prompt, pair.response_1, pair.response_2).hash(&mut hasher);
                    (hasher.finish() % 2) as f32
                }
            };
            Ok(pairs
                .iter()
                .map(|pair| oaif::unstable::judge::Verdict::from_probability(verdict(pair)).into())
                .collect())
        })
    }
}

/// The steps in which a run warns about its judge, and the warnings.
fn judge_warnings(gpu: &Gpu, judge: Careless) -> Vec<(usize, String)> {
    #[derive(Default)]
    struct Warnings(usize, Vec<(usize, String)>);
    impl Observer for Warnings {
        fn step(&mut self, report: &StepReport) {
            self.0 = report.step;
        }
        fn warning(&mut self, text: &str) {
            if text.contains("judge") {
                self.1.push((self.0 + 1, text.to_owned()));
            }
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let train = train_options(&temp.path().join("run"), 20).learning_rate(1e-9);
    let policy = Policy::load(gpu, &fixture("tiny"), &train).wait().unwrap();
    let run = AlignRun::new(policy, &prompts(), &train, &align_options("dpo")).wait().unwrap();
    let mut warnings = Warnings::default();
    let control = Control { observer: &mut warnings, requests: &Requests::new() };
    // A run with only ties ends with another error.
    let _ = run.run(InPlace::new(judge), sources(), control).wait();
    let noted = std::fs::read_to_string(temp.path().join("run/run.json")).unwrap();
    let noted: Value = serde_json::from_str(&noted).unwrap();
    for (_, text) in &warnings.1 {
        assert!(noted["warnings"].as_array().unwrap().contains(&json!(text)), "{noted}");
    }
    warnings.1
}

#[test]
fn a_biased_judge_is_reported_within_the_first_steps() {
    let Some(gpu) = gpu() else { return };
    let first = judge_warnings(&gpu, Careless::First);
    assert_eq!((first.len(), first[0].0), (1, 1), "{first:?}");
    assert!(first[0].1.contains("same position in both orders in 100 % of"), "{first:?}");
    let longer = judge_warnings(&gpu, Careless::Longer);
    assert!(longer.len() == 1 && longer[0].0 <= 8, "{longer:?}");
    assert!(longer[0].1.contains("longer response in 100 % of"), "{longer:?}");
    let random = judge_warnings(&gpu, Careless::Random);
    assert!(random.len() == 1 && random[0].1.contains("a judge that guesses"), "{random:?}");
    println!("first: {}; longer: {}; random: {}", first[0].0, longer[0].0, random[0].0);
}

#[test]
fn all_pairs_are_learnt_from_on_request_except_unsure_ones() {
    /// Prefers the longer response, with a confidence that grows with the length.
    struct Degrees;
    impl Judge for Degrees {
        fn name(&self) -> String {
            "degrees".into()
        }
        fn judge<'t>(
            &'t mut self,
            pairs: &'t [oaif::unstable::judge::Pair<'t>],
        ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
            Box::pin(async move {
                let p = |pair: &oaif::unstable::judge::Pair<'_>| {
                    let more = pair.response_1.len() as f32 - pair.response_2.len() as f32;
                    1.0 / (1.0 + (-more / 4.0).exp())
                };
                Ok(pairs
                    .iter()
                    .map(|pair| oaif::unstable::judge::Verdict::from_probability(p(pair)).into())
                    .collect())
            })
        }
    }
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let learnt = |name: &str, options: &AlignOptions| {
        let dir = temp.path().join(name);
        align_with(&gpu, &train_options(&dir, 3), options, InPlace::new(Degrees), None).unwrap();
        let (mut sure, mut all) = (0, 0);
        for pair in rows(&dir.join("pairs.jsonl")).iter().filter(|pair| !pair["chosen"].is_null()) {
            let p = pair["p_first"].as_f64().unwrap();
            all += 1;
            sure += usize::from(p.max(1.0 - p) >= 0.75);
        }
        let row = &rows(&dir.join("metrics.jsonl"))[0];
        (all, sure, row["judge/unsure"].as_u64().unwrap())
    };
    let usual = align_options("dpo").num_samples(4);
    let (best, _, unsure) = learnt("best", &usual);
    assert!(best <= 12 && unsure == 0, "one per prompt: {best}");
    let every = usual.clone().pairs(PairChoice::All);
    let (all, sure, _) = learnt("all", &every);
    assert!(all > 3 * best && sure < all, "{all} of {best}, {sure} sure");
    let (kept, still_sure, unsure) = learnt("sure", &every.min_confidence(0.75));
    assert!(kept == still_sure && kept > 0 && unsure > 0, "{kept} {still_sure} {unsure}");
}

#[test]
fn a_run_writes_the_expected_files_and_metrics() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let train = train_options(&dir, 4).save_total_limit(1);
    let saved = align(&gpu, &train, &align_options("ipo"), "shorter", None).unwrap();
    assert_eq!(saved, dir.join("model"));
    for file in ["run.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json"] {
        assert!(dir.join(file).is_file(), "{file}");
    }
    let checkpoints: Vec<_> = std::fs::read_dir(dir.join("checkpoints")).unwrap().flatten().collect();
    assert_eq!(checkpoints.len(), 1, "--save-total-limit 1");
    let metrics = rows(&dir.join("metrics.jsonl"));
    assert_eq!(metrics.iter().map(|m| m["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let names = "loss grad_norm learning_rate epoch rewards/chosen rewards/rejected rewards/accuracies \
                 rewards/margins logps/chosen logps/rejected objective/kl objective/entropy \
                 val/contain_eos_token judge/tie judge/invalid judge/identical judge/order_flip \
                 judge/latency_ms num_tokens time/step_ms time/sampling_ms time/judging_ms \
                 time/reference_ms time/update_ms time/tokens_per_second";
    for row in &metrics {
        for name in names.split_whitespace() {
            assert!(row.get(name).is_some_and(Value::is_number), "{name} in {row}");
        }
    }
    let pairs = rows(&dir.join("pairs.jsonl"));
    assert_eq!(pairs.len(), 16, "four prompts per step, one pair each");
    for pair in &pairs {
        let verdict = pair.get("verdict").and_then(Value::as_str);
        let identical = pair.get("skipped").and_then(Value::as_str) == Some("identical responses");
        assert!(identical || ["1", "2", "tie"].contains(&verdict.unwrap()), "{pair}");
        assert_eq!(pair["chosen"].is_null(), !matches!(verdict, Some("1" | "2")), "{pair}");
    }
}

#[test]
fn a_second_run_in_the_same_folder_is_rejected() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = train_options(&temp.path().join("run"), 1);
    align(&gpu, &train, &align_options("dpo"), "longer", None).unwrap();
    let error = align(&gpu, &train, &align_options("dpo"), "longer", None).unwrap_err().to_string();
    assert!(error.contains("overwrite"), "{error}");
    let again = train.overwrite(true);
    align(&gpu, &again, &align_options("dpo"), "longer", None).unwrap();
}

#[test]
fn more_samples_than_two_learn_from_best_against_worst() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    let options = align_options("slic").num_samples(3).soft_labels(true);
    align(&gpu, &train_options(&dir, 1), &options, "longer", None).unwrap();
    let pairs = rows(&dir.join("pairs.jsonl"));
    assert_eq!(pairs.len(), 4 * 3, "a round robin of three");
    for games in pairs.chunks(3) {
        let learnt: Vec<&Value> = games.iter().filter(|g| !g["chosen"].is_null()).collect();
        assert!(learnt.len() <= 1);
        let Some(game) = learnt.first() else { continue };
        let length = |key: &str| game[key].as_str().unwrap().chars().count();
        let lengths = games.iter().flat_map(|g| ["response_1", "response_2"].map(|k| g[k].as_str().unwrap()));
        let longest = lengths.map(|t| t.chars().count()).max().unwrap();
        let chosen = if game["chosen"] == 1 { "response_1" } else { "response_2" };
        assert_eq!(length(chosen), longest);
    }
}

#[test]
fn too_many_unusable_verdicts_stop_the_run_with_an_explanation() {
    struct Broken;
    impl Judge for Broken {
        fn name(&self) -> String {
            "broken".into()
        }
        fn judge<'t>(
            &'t mut self,
            pairs: &'t [oaif::unstable::judge::Pair<'t>],
        ) -> Task<'t, oaif::Result<Vec<Judgement>>> {
            Box::pin(async move {
                let invalid =
                    || oaif::unstable::judge::Verdict::Invalid { why: "out of paper".into() }.into();
                Ok(pairs.iter().map(|_| invalid()).collect())
            })
        }
    }
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = train_options(&temp.path().join("run"), 50);
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let run = AlignRun::new(policy, &prompts(), &train, &align_options("dpo")).wait().unwrap();
    let control = Control { observer: &mut (), requests: &Requests::new() };
    let error = run.run(InPlace::new(Broken), sources(), control).wait().unwrap_err().to_string();
    assert!(error.contains("out of paper") && error.contains("max-invalid-ratio"), "{error}");
}

fn preferences() -> Vec<Pair> {
    let words = words();
    let pair = |i: usize| Pair {
        prompt: Text::Plain(words[i..i + 3].join(" ")),
        chosen: Text::Plain(format!(" {}", words[i + 3..i + 5].join(" "))),
        rejected: Text::Plain(format!(" {}", words[i + 5..i + 9].join(" "))),
        margin: None,
        place: (i + 1).into(),
    };
    (0..8).map(pair).collect()
}

#[test]
fn offline_preferences_are_learnt() {
    let Some(gpu) = gpu() else { return };
    for loss in ["dpo", "ipo", "slic"] {
        let temp = tempfile::tempdir().unwrap();
        let train = train_options(&temp.path().join("run"), 20).lora(lora()).learning_rate(1e-2);
        let options =
            DpoOptions::new(PreferenceLoss::parse(loss, Some(0.1), false).unwrap()).append_eos(true);
        let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
        let run = DpoRun::new(policy, &preferences(), &train, &options).wait().unwrap();
        let control = Control { observer: &mut (), requests: &Requests::new() };
        let saved = run.run(sources(), control).wait().unwrap();
        assert!(saved.join("adapter_config.json").is_file());
        let metrics = rows(&temp.path().join("run/metrics.jsonl"));
        let margin = metrics[0]["rewards/margins"].as_f64().unwrap();
        assert!(margin.abs() < 1e-4, "starts at the reference, not at {margin}");
        assert!(metrics[19]["rewards/accuracies"].as_f64().unwrap() == 1.0, "{loss}: {}", metrics[19]);
        assert!(metrics[19]["loss"].as_f64().unwrap() < metrics[0]["loss"].as_f64().unwrap());
    }
}

#[test]
fn every_loss_is_learnt_from() {
    let Some(gpu) = gpu() else { return };
    let plain = |loss: &str| LossOptions { loss: loss.into(), ..LossOptions::default() };
    let pairs = |loss: &str| LossOptions { beta: Some(0.1), ..plain(loss) };
    let mut all: Vec<LossOptions> =
        LOSS_NAMES.into_iter().filter(|name| !["xpo", "sft"].contains(name)).map(pairs).collect();
    all.push(plain("sft"));
    all.push(LossOptions { ld_alpha: Some(0.3), rpo_alpha: Some(0.5), ..pairs("dpo") });
    all.push(LossOptions { use_weighting: true, label_smoothing: Some(0.1), ..pairs("dpo,sft") });
    for options in all {
        let objective = Objective::parse(&options).unwrap();
        let temp = tempfile::tempdir().unwrap();
        // Eight pairs, in micro-batches of at most two.
        let train = train_options(&temp.path().join("run"), 12).lora(lora()).learning_rate(1e-2);
        let (needs_reference, use_weighting) = (objective.needs_reference(), objective.use_weighting);
        let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
        let dpo = DpoOptions::new(objective);
        let run = DpoRun::new(policy, &preferences(), &train, &dpo).wait().unwrap();
        let control = Control { observer: &mut (), requests: &Requests::new() };
        run.run(sources(), control).wait().unwrap();
        let metrics = rows(&temp.path().join("run/metrics.jsonl"));
        let number = |step: usize, key: &str| metrics[step][key].as_f64().unwrap();
        if needs_reference {
            assert!(number(0, "rewards/margins").abs() < 1e-4, "{options:?} starts at the reference");
        }
        // The weights grow with the probabilities of the responses.
        let learnt = match use_weighting {
            true => number(11, "rewards/margins") > 0.1,
            false => number(11, "loss") < number(0, "loss"),
        };
        assert!(learnt, "{options:?}: {} {}", metrics[0], metrics[11]);
    }
}

#[test]
fn completions_are_learnt() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = train_options(&temp.path().join("run"), 20).learning_rate(1e-2);
    let row = |p: Pair| Completion {
        prompt: Some(p.prompt),
        completion: p.chosen,
        label: None,
        token_ids: None,
        place: p.place,
    };
    let rows_in: Vec<Completion> = preferences().into_iter().map(row).collect();
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let run = SftRun::new(policy, &rows_in, &train, true).wait().unwrap();
    let control = Control { observer: &mut (), requests: &Requests::new() };
    run.run(sources(), control).wait().unwrap();
    let metrics = rows(&temp.path().join("run/metrics.jsonl"));
    let loss = |i: usize| metrics[i]["loss"].as_f64().unwrap();
    assert!(loss(19) < 0.3 * loss(0), "{} {}", loss(0), loss(19));
}

#[test]
fn steps_that_are_not_finite_change_nothing_and_five_in_a_row_stop_the_run() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    // Weights that are not finite are never saved.
    let train = train_options(&temp.path().join("run"), 50).save_steps(None);
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let weight = policy.model.base().get("model.norm.weight").unwrap().clone();
    policy.model.base().upload("model.norm.weight", &vec![f32::NAN; weight.elements()]).unwrap();
    let other = policy.model.base().get("model.embed_tokens.weight").unwrap().clone();
    let before = policy.model.base().download(&other).wait().unwrap();
    let model = policy.model.clone();
    let options = DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
    let run = DpoRun::new(policy, &preferences(), &train, &options).wait().unwrap();
    let control = Control { observer: &mut (), requests: &Requests::new() };
    let error = run.run(sources(), control).wait().unwrap_err();
    assert!(matches!(error, Error::NonFinite { count: 5 }), "{error}");
    assert_eq!(model.base().download(&other).wait().unwrap(), before);
}

#[test]
fn a_warm_started_adapter_is_part_of_the_reference() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let train = train_options(&temp.path().join("run"), 2).adapter(fixture("tiny_lora"));
    let options = DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let run = DpoRun::new(policy, &preferences(), &train, &options).wait().unwrap();
    let control = Control { observer: &mut (), requests: &Requests::new() };
    run.run(sources(), control).wait().unwrap();
    let metrics = rows(&temp.path().join("run/metrics.jsonl"));
    assert!((metrics[0]["loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-4, "{}", metrics[0]);
}

#[test]
fn a_row_drawn_twice_at_an_epoch_boundary_still_fits() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    // One row is far longer than the others. A batch of two over three rows eventually contains it twice.
    let words = words();
    let mut rows = preferences()[..3].to_vec();
    rows[0].chosen = Text::Plain(format!(" {}", words[..60].join(" ")));
    let train = train_options(&temp.path().join("run"), 12).accumulation(1);
    let options = DpoOptions::new(PreferenceLoss::Dpo { beta: 0.1 });
    let policy = Policy::load(&gpu, &fixture("tiny"), &train).wait().unwrap();
    let run = DpoRun::new(policy, &rows, &train, &options).wait().unwrap();
    let control = Control { observer: &mut (), requests: &Requests::new() };
    run.run(sources(), control).wait().unwrap();
}

#[test]
fn a_run_that_learns_nothing_is_an_error_and_keeps_its_checkpoint() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    // Every comparison is a tie.
    let rule = "contains:zzzz";
    let error = align(&gpu, &train_options(&dir, 2), &align_options("dpo"), rule, None).unwrap_err();
    assert!(error.to_string().contains("nothing was learnt"), "{error}");
    assert!(dir.join("checkpoints/step-000002/state.json").is_file());
    assert!(!dir.join("model").exists());
}

#[test]
fn resuming_with_another_batch_size_is_rejected() {
    let Some(gpu) = gpu() else { return };
    let temp = tempfile::tempdir().unwrap();
    let mut train = train_options(&temp.path().join("run"), 4);
    align(&gpu, &train, &align_options("dpo"), "longer", Some(2)).unwrap_err();
    train.resume = Some("last".into());
    train.batch_size = 4;
    let error = align(&gpu, &train, &align_options("dpo"), "longer", None).unwrap_err().to_string();
    assert!(error.contains("per-device-train-batch-size 2") && error.contains('4'), "{error}");
}
