//! The state of a running run, in memory that does not grow with its length.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::curve::Curve;
use crate::error::size;
use crate::listeners::Listeners;
use crate::train::StepReport;
use crate::train::report::{JudgementReport, PairReport, RatingReport};

/// The number of latest pairs that are kept.
pub(super) const PAIRS: usize = 50;
/// The maximum length of a text of such a pair, in characters.
const TEXT: usize = 4_000;
/// The number of latest distinct warnings that are kept.
const WARNINGS: usize = 50;
/// The number of latest steps whose times are averaged.
const TIMES: usize = 20;

/// The state of a run for its page, shared by the observer that updates it and the server.
pub struct LiveRun {
    title: String,
    facts: Vec<(String, String)>,
    kl_name: String,
    started: Instant,
    state: Mutex<State>,
    listeners: Listeners,
}

#[derive(Default)]
struct State {
    phase: String,
    outcome: Option<String>,
    step: usize,
    total_steps: usize,
    seconds_left: Option<f64>,
    curves: Curves,
    win_rate: Option<[f64; 3]>,
    times: VecDeque<StepTimes>,
    tokens_per_second: f64,
    memory: u64,
    memory_peak: u64,
    non_finite_steps: usize,
    steps_without_update: usize,
    warnings: VecDeque<Warning>,
    pairs: VecDeque<ShownPair>,
    ratings: VecDeque<ShownRating>,
}

/// The values that are plotted.
#[derive(Clone, Default, Serialize)]
struct Curves {
    loss: Curve,
    margin: Curve,
    accuracy: Curve,
    kl: Curve,
    reward: Curve,
    win_rate: Curve,
    held_out_loss: Curve,
    length: Curve,
    order_flips: Curve,
    first_preferred: Curve,
    longer_preferred: Curve,
    gradient_norm: Curve,
}

impl Curves {
    /// Adds the values of a row of `metrics.jsonl`.
    fn add(&mut self, step: usize, row: &Value) {
        let of = |name: &str| row[name].as_f64();
        let both_orders = of("judge/both_orders").filter(|both| *both > 0.0);
        let order_flips = both_orders.and_then(|both| Some(of("judge/order_flip")? / both));
        let win_rate = of("eval/win_rate");
        if win_rate.is_some() && self.win_rate.latest().is_none() {
            // Before the first step, the policy is the starting model.
            self.win_rate.add(0, 0.5);
        }
        for (curve, value) in [
            (&mut self.loss, of("loss")),
            (&mut self.margin, of("rewards/margins")),
            (&mut self.accuracy, of("rewards/accuracies")),
            (&mut self.kl, of("objective/kl")),
            (&mut self.reward, of("reward")),
            (&mut self.win_rate, win_rate),
            (&mut self.held_out_loss, of("eval/loss")),
            (&mut self.length, of("completions/mean_length")),
            (&mut self.order_flips, order_flips),
            (&mut self.first_preferred, of("judge/first")),
            (&mut self.longer_preferred, of("judge/longer")),
            (&mut self.gradient_norm, of("grad_norm")),
        ] {
            value.into_iter().for_each(|value| curve.add(step, value));
        }
    }
}

/// The time of a step by phase.
struct StepTimes {
    step_ms: f64,
    phases: Vec<(&'static str, f64)>,
}

/// A warning, and how often it occurred.
#[derive(Clone, Serialize)]
struct Warning {
    text: String,
    count: usize,
    /// The number of completed steps when it occurred last.
    step: usize,
}

/// A judged pair and its outcome.
#[derive(Clone, Serialize)]
struct ShownPair {
    step: usize,
    prompt: String,
    response_1: String,
    response_2: String,
    /// "1", "2", "tie", "invalid", or "" for identical responses.
    verdict: String,
    /// The probability that the first response is better.
    p_first: Option<f32>,
    order_flip: bool,
    skipped: Option<String>,
    chosen: Option<u8>,
}

/// A response that the judge rated by itself.
#[derive(Clone, Serialize)]
struct ShownRating {
    step: usize,
    prompt: String,
    response: String,
    score: Option<f32>,
    advantage: Option<f64>,
    skipped: Option<String>,
}

/// The state as sent to a page.
#[derive(Serialize)]
pub(super) struct Snapshot {
    title: String,
    facts: Vec<(String, String)>,
    phase: String,
    /// How the run ended, once it has.
    pub outcome: Option<String>,
    step: usize,
    total_steps: usize,
    seconds: f64,
    seconds_left: Option<f64>,
    curves: Curves,
    /// The latest win rate on held-out prompts, and the ends of its 95 % interval.
    win_rate: Option<[f64; 3]>,
    loss: Option<f64>,
    reward: Option<f64>,
    margin: Option<f64>,
    kl: Option<f64>,
    kl_name: String,
    length: Option<f64>,
    /// Mean milliseconds per phase over the latest steps; the rest is "other".
    phases: Vec<(&'static str, f64)>,
    step_ms: Option<f64>,
    tokens_per_second: f64,
    memory: Option<[String; 2]>,
    non_finite_steps: usize,
    steps_without_update: usize,
    warnings: Vec<Warning>,
    /// The latest first.
    pairs: Vec<ShownPair>,
    /// The latest first.
    ratings: Vec<ShownRating>,
}

impl LiveRun {
    /// A run that has not begun. `facts` describe it: its model, dataset, judge, loss.
    pub fn new(title: impl Into<String>, facts: Vec<(String, String)>) -> LiveRun {
        LiveRun {
            title: title.into(),
            facts,
            kl_name: "KL to the reference model".into(),
            started: Instant::now(),
            state: Mutex::default(),
            listeners: Listeners::default(),
        }
    }

    /// Names the metric `objective/kl`, which is the distance to another model, or no divergence, in some runs.
    pub fn kl_name(mut self, name: impl Into<String>) -> LiveRun {
        self.kl_name = name.into();
        self
    }

    /// Records that a phase of a step begins.
    pub fn phase(&self, name: &str) {
        let mut state = self.lock();
        if state.phase == name {
            return;
        }
        state.phase = name.to_owned();
        self.notify(state);
    }

    /// Records a step of an earlier process from its row of `metrics.jsonl`.
    pub fn logged(&self, row: &Value) {
        let mut state = self.lock();
        state.log(row);
        self.notify(state);
    }

    /// Records a completed step.
    pub fn step(&self, report: &StepReport) {
        let mut state = self.lock();
        state.take(report);
        self.notify(state);
    }

    /// Records a warning.
    pub fn warning(&self, text: &str) {
        let mut state = self.lock();
        let step = state.step;
        let text = shortened(text);
        let before = state.warnings.iter().position(|warning| warning.text == text);
        let count = before.and_then(|at| state.warnings.remove(at)).map_or(0, |warning| warning.count);
        state.warnings.push_back(Warning { text, count: count + 1, step });
        if state.warnings.len() > WARNINGS {
            state.warnings.pop_front();
        }
        self.notify(state);
    }

    /// Records the end of the run; `outcome` is a sentence.
    pub fn end(&self, outcome: impl Into<String>) {
        let mut state = self.lock();
        state.outcome = Some(outcome.into());
        state.phase.clear();
        self.notify(state);
    }

    /// Calls `listener` after every change, as long as it returns `true`.
    pub(super) fn on_change(&self, listener: impl Fn() -> bool + Send + Sync + 'static) {
        self.listeners.add(listener);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let (phases, step_ms) = state.mean_times();
        Snapshot {
            title: self.title.clone(),
            facts: self.facts.clone(),
            phase: state.phase.clone(),
            outcome: state.outcome.clone(),
            step: state.step,
            total_steps: state.total_steps,
            seconds: self.started.elapsed().as_secs_f64(),
            seconds_left: state.seconds_left,
            win_rate: state.win_rate,
            loss: state.curves.loss.latest(),
            reward: state.curves.reward.latest(),
            margin: state.curves.margin.latest(),
            kl: state.curves.kl.latest(),
            kl_name: self.kl_name.clone(),
            length: state.curves.length.latest(),
            curves: state.curves.clone(),
            phases,
            step_ms,
            tokens_per_second: state.tokens_per_second,
            memory: (state.memory_peak > 0).then(|| [state.memory, state.memory_peak].map(size)),
            non_finite_steps: state.non_finite_steps,
            steps_without_update: state.steps_without_update,
            warnings: state.warnings.iter().rev().cloned().collect(),
            pairs: state.pairs.iter().rev().cloned().collect(),
            ratings: state.ratings.iter().rev().cloned().collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.listeners.call();
    }
}

impl State {
    fn take(&mut self, report: &StepReport) {
        (self.total_steps, self.seconds_left) = (report.total_steps, report.seconds_left);
        self.tokens_per_second = report.times.tokens_per_second;
        self.memory = report.device_bytes;
        self.log(&json!(report));

        let phases = report.times.phases.iter().collect();
        self.times.push_back(StepTimes { step_ms: report.times.step_ms, phases });
        self.times.drain(..self.times.len().saturating_sub(TIMES));
        self.pairs.extend(report.pairs.iter().map(ShownPair::of));
        self.pairs.drain(..self.pairs.len().saturating_sub(PAIRS));
        self.ratings.extend(report.ratings.iter().map(ShownRating::of));
        self.ratings.drain(..self.ratings.len().saturating_sub(PAIRS));
    }

    /// Records a row of `metrics.jsonl`.
    fn log(&mut self, row: &Value) {
        let whole = |name: &str| row[name].as_u64().unwrap_or_default();
        self.step = whole("step") as usize;
        self.non_finite_steps = whole("non_finite_steps") as usize;
        self.steps_without_update += usize::from(row["loss"].is_null());
        self.memory_peak = self.memory_peak.max(whole("memory/device_bytes"));
        let [rate, low, high] =
            ["eval/win_rate", "eval/win_rate_low", "eval/win_rate_high"].map(|name| row[name].as_f64());
        if let (Some(rate), Some(low), Some(high)) = (rate, low, high) {
            self.win_rate = Some([rate, low, high]);
        }
        self.curves.add(self.step, row);
    }

    /// Mean milliseconds of the latest steps by phase and in total.
    fn mean_times(&self) -> (Vec<(&'static str, f64)>, Option<f64>) {
        let count = self.times.len() as f64;
        if count == 0.0 {
            return (Vec::new(), None);
        }
        let mut sums: Vec<(&'static str, f64)> = Vec::new();
        for (phase, ms) in self.times.iter().flat_map(|times| &times.phases) {
            match sums.iter_mut().find(|(name, _)| name == phase) {
                Some((_, sum)) => *sum += ms / count,
                None => sums.push((phase, ms / count)),
            }
        }
        let step_ms = self.times.iter().map(|times| times.step_ms).sum::<f64>() / count;
        let other = step_ms - sums.iter().map(|(_, ms)| ms).sum::<f64>();
        if other > 0.0 {
            sums.push(("other", other));
        }
        (sums, Some(step_ms))
    }
}

impl ShownPair {
    fn of(pair: &PairReport) -> ShownPair {
        let judgement = pair.judgement.as_ref();
        ShownPair {
            step: pair.step,
            prompt: shortened(&pair.prompt),
            response_1: shortened(&pair.response_1),
            response_2: shortened(&pair.response_2),
            verdict: judgement.map(|judgement| judgement.verdict.clone()).unwrap_or_default(),
            p_first: judgement.and_then(|judgement| judgement.p_first),
            order_flip: judgement.is_some_and(JudgementReport::order_flip),
            skipped: pair.skipped.as_deref().map(shortened),
            chosen: pair.chosen,
        }
    }
}

impl ShownRating {
    fn of(rating: &RatingReport) -> ShownRating {
        ShownRating {
            step: rating.step,
            prompt: shortened(&rating.prompt),
            response: shortened(&rating.response),
            score: rating.score,
            advantage: Some(rating.advantage),
            skipped: rating.skipped.as_deref().map(shortened),
        }
    }
}

/// Shortens a text that is too long for a page that is redrawn often.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::report::{JudgeReport, JudgementReport, PHASES, PolicyReport};

    fn pair(step: usize, both: bool) -> PairReport {
        let p_21 = both.then_some(0.9);
        let judgement = JudgementReport {
            p_first: Some(0.5),
            p_12: Some(0.1),
            p_21,
            verdict: "tie".into(),
            votes: vec![],
        };
        PairReport {
            step,
            policy_step: step,
            prompt: "x".repeat(TEXT + 1),
            response_1: "a".into(),
            response_2: "é".repeat(TEXT),
            judgement: Some(judgement),
            skipped: None,
            chosen: None,
        }
    }

    fn rating(step: usize) -> RatingReport {
        let [prompt, response] = ["p", "r"].map(str::to_owned);
        RatingReport {
            step,
            policy_step: step,
            prompt,
            response,
            score: Some(0.5),
            advantage: 0.0,
            skipped: None,
        }
    }

    fn report(step: usize, both: bool) -> StepReport {
        StepReport {
            step,
            total_steps: 5_000,
            loss: (step != 3).then_some(0.5),
            policy: Some(PolicyReport { kl: f64::NAN, ..PolicyReport::default() }),
            ratings: vec![rating(step)],
            judging: Some(JudgeReport {
                both_orders: 2 * usize::from(both),
                order_flip: 1,
                ..JudgeReport::default()
            }),
            device_bytes: 1 << 20,
            pairs: vec![pair(step, both), pair(step, both)],
            ..StepReport::default()
        }
    }

    #[test]
    fn memory_is_bounded_for_a_run_of_any_length() {
        let live = LiveRun::new("run", Vec::new());
        for step in 1..=5_000 {
            live.step(&report(step, true));
            live.warning(&format!("warning {}", step % 60));
        }
        let text = serde_json::to_value(live.snapshot()).unwrap();
        assert!(text["curves"]["loss"].as_array().unwrap().len() <= 1_000);
        assert_eq!(
            text["curves"]["kl"].as_array().unwrap().len(),
            0,
            "values that are not finite are ignored"
        );
        assert_eq!(
            (text["pairs"].as_array().unwrap().len(), text["pairs"][0]["step"].as_u64()),
            (50, Some(5_000))
        );
        assert_eq!(text["pairs"][0]["prompt"].as_str().unwrap().chars().count(), TEXT + 1);
        assert_eq!(text["pairs"][0]["order_flip"], true);
        assert_eq!(
            (text["ratings"].as_array().unwrap().len(), &text["ratings"][0]["step"]),
            (50, &5_000.into())
        );
        assert_eq!(text["warnings"].as_array().unwrap().len(), WARNINGS);
        assert_eq!((text["steps_without_update"].as_u64(), text["step"].as_u64()), (Some(1), Some(5_000)));
        assert_eq!(text["memory"][1], "1.0 MiB");
    }

    #[test]
    fn the_win_rate_begins_at_one_half_before_the_first_step() {
        let live = LiveRun::new("run", Vec::new());
        live.logged(&json!({"step": 11, "loss": 0.5}));
        live.logged(&json!({
            "step": 12, "loss": 0.5, "eval/win_rate": 0.75, "eval/win_rate_low": 0.5, "eval/win_rate_high": 0.875,
        }));
        live.logged(&json!({"step": 13, "loss": 0.5}));
        let text = serde_json::to_value(live.snapshot()).unwrap();
        assert_eq!(text["curves"]["win_rate"], json!([[0.0, 0.5], [12.0, 0.75]]));
        assert_eq!(text["win_rate"], json!([0.75, 0.5, 0.875]), "the latest is kept");
    }

    #[test]
    fn a_run_without_evaluations_has_no_win_rate() {
        let live = LiveRun::new("run", Vec::new());
        live.logged(&json!({"step": 1, "loss": 0.5}));
        let text = serde_json::to_value(live.snapshot()).unwrap();
        assert_eq!((&text["curves"]["win_rate"], &text["win_rate"]), (&json!([]), &Value::Null));
    }

    #[test]
    fn equal_warnings_are_shown_once_with_their_count() {
        let live = LiveRun::new("run", Vec::new());
        ["a", "b", "a"].iter().for_each(|text| live.warning(text));
        let text = serde_json::to_value(live.snapshot()).unwrap();
        assert_eq!((&text["warnings"][0]["text"], &text["warnings"][0]["count"]), (&"a".into(), &2.into()));
        assert_eq!(text["warnings"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_page_has_a_colour_for_each_phase() {
        assert!(include_str!("web/run.js").contains(&format!("const PHASES = {PHASES:?};")));
        let css = include_str!("web/ui.css");
        assert!((0..PHASES.len()).all(|i| css.contains(&format!(".k{i} {{"))));
    }

    #[test]
    fn order_flips_are_plotted_only_if_both_orders_are_judged() {
        let live = LiveRun::new("run", Vec::new());
        live.step(&report(1, false));
        assert_eq!(live.lock().curves.order_flips.latest(), None);
        live.step(&report(2, true));
        assert_eq!(live.lock().curves.order_flips.latest(), Some(0.5));
    }
}
