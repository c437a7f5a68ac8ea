//! `oaif demo`: a complete online run with the built-in models, including evaluation and report.

mod page;

pub use page::report_of;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::page::Page as RunPage;
use super::training;
use crate::Wait;
use crate::cli::args::DemoPlan;
use crate::cli::console::{Console, say};
use crate::cli::{print, signals};
use crate::demo::dataset::prompts;
use crate::demo::exam::{Exam, Tally};
use crate::demo::models::Models;
use crate::demo::oracle::Instruction;
use crate::error::{Error, Result};
use crate::eval::comparison::Decision;
use crate::files;
use crate::gpu::Gpu;
use crate::judge::llm::Orders;
use crate::model::weights::Weight;
use crate::report::Estimate;
use crate::train::run_dir::{REPORT, RUN, RunDir, SUMMARY, checkpoints, write_eval_samples};
use crate::train::{AlignRun, EvalSample, Observer, Policy, Sources};

/// Number of posts that prompts are drawn from, in random order.
const PROMPTS: usize = 10_000;
/// Held-out posts in `eval_samples.jsonl`: the first ones, so that none is chosen.
const SAMPLES: usize = 8;
/// The seed of the summaries of held-out posts, independent of the run's seed.
const EXAM_SEED: u32 = 1;

pub fn run(plan: DemoPlan) -> Result<()> {
    let began = Instant::now();
    let dir = plan.train.folder();
    if plan.train.resume.is_some() {
        same_question(dir, &plan.config)?;
    }
    let mut console = Console::new();
    console.phase("opening the GPU");
    let gpu = plan.gpu.open()?;
    console.phase("loading the models");
    // A folder that cannot be used is refused before anything is printed.
    RunDir::create(dir, &plan.train.start(), None)?;
    let models = Models::unpack()?;
    let policy = Policy::load(&gpu, &models.policy(), &plan.train).wait()?;
    let judge = models.judge(&gpu, plan.judge_kind, plan.judge, Orders::Both, plan.instruction).wait()?;
    say(format_args!(
        "A policy of {} thousand parameters learns to write summaries; the judge ({}, {}) prefers those that are \"{}\".",
        policy.model.base().iter().map(Weight::elements).sum::<usize>() / 1000,
        plan.judge,
        plan.judge_kind,
        plan.instruction.text()
    ));
    let run = AlignRun::new(policy, &prompts(PROMPTS), &plan.train, &plan.align).wait()?;
    let mut config = plan.config.clone();
    config["command"] = json!("demo");
    let sources = Sources { model: models.policy(), config };
    let resume = "oaif demo --resume-from-checkpoint last --output-dir";
    let (results, mut console) = training::watched(dir, resume, console, RunPage::default(), |control| {
        run.run(judge, sources, control).wait()?;
        examine(&gpu, &models, plan.instruction, Exam::new(plan.held_out), dir)
    });
    console.clear();
    let results = results?;
    let summary = results.summary(began.elapsed().as_secs_f64());
    files::write_atomic(&dir.join(SUMMARY), format!("{summary:#}\n").as_bytes())?;
    write_eval_samples(dir, &results.samples(plan.instruction))?;
    if let Some(report) = page::report_of(dir)? {
        report.write(&dir.join(REPORT))?;
    }
    conclude(&results, dir)
}

/// Refuses to resume a run with other settings.
fn same_question(dir: &Path, config: &Value) -> Result<()> {
    let Some(run) = files::read_json_if_present(&dir.join(RUN))? else { return Ok(()) };
    for key in ["instruction", "judge", "judge-kind", "loss", "beta", "learning-rate", "steps"] {
        if run[key] != config[key] {
            let why = format!(
                "is {}, but the run in {} was started with {}: give the same value, or start a new run",
                config[key],
                dir.display(),
                run[key]
            );
            return Err(Error::config(format!("--{key}"), why));
        }
    }
    Ok(())
}

/// The policy after some number of steps, compared with the starting model π₀.
struct Stage {
    step: usize,
    summaries: Vec<String>,
    /// Mean utility of its summaries.
    utility: f64,
    /// Their mean length in words.
    words: f64,
    oracle: Tally,
    judge: Tally,
}

/// The evaluation of π₀, the first stage, and of each checkpoint.
struct Results {
    exam: Exam,
    stages: Vec<Stage>,
}

/// Evaluates π₀ and each checkpoint with the oracle and with the evaluation judge, which took no part in training.
fn examine(gpu: &Gpu, models: &Models, instruction: Instruction, exam: Exam, dir: &Path) -> Result<Results> {
    let mut judge = models.evaluation_judge(gpu, instruction).wait()?;
    let mut stages: Vec<Stage> = Vec::new();
    let checkpoints = checkpoints(dir)?;
    let folders = checkpoints.iter().map(|c| (c.step, c.path.clone()));
    for (step, folder) in [(0, models.policy())].into_iter().chain(folders) {
        if signals::requests().stops() {
            return Err(Error::Interrupted);
        }
        let summaries =
            exam.summaries(&Policy::frozen(gpu, &folder, None, None).wait()?, EXAM_SEED).wait()?;
        let before = stages.first().map_or(&summaries, |first| &first.summaries);
        let oracle = Tally::of(&exam.by_oracle(instruction, before, &summaries));
        let judge = Tally::of(&exam.by_judge(judge.as_mut(), before, &summaries).wait()?);
        let qualities = exam.qualities(&summaries);
        let mean = |of: &dyn Fn(&_) -> f64| qualities.iter().map(of).sum::<f64>() / qualities.len() as f64;
        let (utility, words) = (mean(&|q| instruction.utility(q)), mean(&|q| q.words as f64));
        let rate = oracle.win_rate();
        match step {
            0 => say(format_args!("step 0: {words:.1} words per summary")),
            _ => say(format_args!(
                "step {step}: the oracle prefers {:.1} % to those of step 0, {words:.1} words per summary",
                100.0 * rate.value
            )),
        }
        stages.push(Stage { step, summaries, utility, words, oracle, judge });
    }
    Ok(Results { exam, stages })
}

impl Results {
    fn before(&self) -> &Stage {
        self.stages.first().expect("π₀ is one")
    }

    fn after(&self) -> &Stage {
        self.stages.last().expect("π₀ is one")
    }

    /// `eval_samples.jsonl`: the first held-out posts with both summaries; the verdict is the oracle's.
    fn samples(&self, instruction: Instruction) -> Vec<EvalSample> {
        let (before, after) = (&self.before().summaries, &self.after().summaries);
        let gaps = self.exam.by_oracle(instruction, before, after);
        let rows = self.exam.texts().iter().zip(before).zip(after.iter().zip(gaps)).take(SAMPLES);
        rows.map(|((post, before), (after, gap))| {
            let verdict = match gap {
                gap if gap > 0.0 => Decision::Win,
                gap if gap < 0.0 => Decision::Loss,
                _ => Decision::Tie,
            };
            EvalSample {
                step: self.after().step,
                prompt: post.clone(),
                starting_response: before.clone(),
                policy_response: after.clone(),
                verdict: verdict.name(),
                p_12: None,
                p_21: None,
            }
        })
        .collect()
    }

    /// `summary.json`. Win rates exclude ties, lengths are in words, the wall time is that of this process.
    fn summary(&self, wall_s: f64) -> Value {
        let (before, after) = (self.before(), self.after());
        let [oracle, judge] = [after.oracle.win_rate(), after.judge.win_rate()];
        let number = |value: f64| json!(value.is_finite().then_some((value * 1e4).round() / 1e4));
        let tally = |t: &Tally| json!({"wins": t.wins, "ties": t.ties, "losses": t.losses});
        let stage = |s: &Stage| {
            let Estimate { value, low, high } = s.oracle.win_rate();
            let [value, low, high] = [value, low, high].map(number);
            json!({"step": s.step, "oracle_win_rate": value, "oracle_win_rate_low": low,
                "oracle_win_rate_high": high, "judge_win_rate": number(s.judge.win_rate().value),
                "mean_utility": number(s.utility), "mean_length": number(s.words)})
        };
        json!({
            "oracle_win_rate": number(oracle.value),
            "oracle_win_rate_low": number(oracle.low),
            "oracle_win_rate_high": number(oracle.high),
            "judge_win_rate": number(judge.value),
            "judge_win_rate_low": number(judge.low),
            "judge_win_rate_high": number(judge.high),
            "oracle": tally(&after.oracle),
            "judge": tally(&after.judge),
            "mean_utility_before": number(before.utility),
            "mean_utility_after": number(after.utility),
            "mean_length_before": number(before.words),
            "mean_length_after": number(after.words),
            "held_out_posts": self.exam.texts().len(),
            "steps": after.step,
            "wall_s": (wall_s * 10.0).round() / 10.0,
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
        })
    }
}

/// Prints the results.
fn conclude(results: &Results, dir: &Path) -> Result<()> {
    let (before, after) = (results.before(), results.after());
    let rate = |tally: &Tally| {
        let Estimate { value, low, high } = tally.win_rate();
        match value.is_finite() {
            true => format!(
                "{:.1} % ({:.1} to {:.1}), {} ties",
                100.0 * value,
                100.0 * low,
                100.0 * high,
                tally.ties
            ),
            false => "only ties".into(),
        }
    };
    print(format!(
        "After {} steps, on {} held-out posts, against the starting model:",
        after.step,
        results.exam.texts().len()
    ))?;
    print(format!("  wins by the oracle            {}", rate(&after.oracle)))?;
    print(format!("  wins by the evaluation judge  {}", rate(&after.judge)))?;
    print(format!("  utility  {:.2} -> {:.2}", before.utility, after.utility))?;
    print(format!("  length   {:.1} -> {:.1} words", before.words, after.words))?;
    print(format!("  post     {}", results.exam.texts()[0]))?;
    print(format!("  before   {}", before.summaries[0]))?;
    print(format!("  after    {}", after.summaries[0]))?;
    print(dir.join(SUMMARY).display())?;
    say(format_args!("oaif: the report is {}", dir.join(REPORT).display()));
    Ok(())
}
