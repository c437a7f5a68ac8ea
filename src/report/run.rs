//! The report of a training run, from what its folder holds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde_json::Value;

use super::bars::Bars;
use super::page::{KeyFigure, Report};
use super::plot::{Plot, Series, smoothing_window};
use super::scale::{Estimate, Unit, duration, number};
use super::section::{Sample, Section};
use crate::annotate::orders_disagree;
use crate::error::{Error, Result};
use crate::files;
use crate::train::run_dir::{METRICS, PAIRS, RUN};

/// Annotated pairs that a report shows.
const SHOWN: usize = 12;

/// The phases of a step, in order: the metric `time/…_ms` and what it is.
const PHASES: [(&str, &str); 6] = [
    ("sampling", "sampling"),
    ("annotation", "annotation"),
    ("reference", "reference"),
    ("forward", "forward"),
    ("backward", "backward"),
    ("update", "update"),
];

impl Report {
    /// The report of the run in the folder `dir`, finished or not, from its `run.json`, `metrics.jsonl` and
    /// `pairs.jsonl`. Metrics that the run has not, and lines that a crash has torn, are left out.
    ///
    /// # Errors
    /// [`Error::File`] where there is no run, [`Error::Io`].
    pub fn of_run(dir: &Path) -> Result<Report> {
        let config = files::read_json_if_present(&dir.join(RUN))?;
        let mut metrics = Metrics::default();
        let has_metrics = for_each_row(&dir.join(METRICS), |row| metrics.push(&row))?;
        let mut pairs = Pairs::default();
        for_each_row(&dir.join(PAIRS), |row| pairs.push(row))?;
        if config.is_none() && !has_metrics {
            let why = format!("holds no run (neither {RUN} nor {METRICS}): give the output folder of one");
            return Err(Error::file(dir, why));
        }
        let run = Run { config: config.unwrap_or_default(), metrics, pairs };
        Ok(run.report())
    }
}

/// Calls `each` for the objects in the lines of `path`, passing over what is none; tells whether there is such a file.
fn for_each_row(path: &Path, mut each: impl FnMut(Value)) -> Result<bool> {
    let mut log = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        opened => BufReader::new(opened.map_err(Error::io("read", path))?),
    };
    let mut line = Vec::new();
    while log.read_until(b'\n', &mut line).map_err(Error::io("read", path))? > 0 {
        if let Ok(row @ Value::Object(_)) = serde_json::from_slice(&line) {
            each(row);
        }
        line.clear();
    }
    Ok(true)
}

/// What a run's metrics were in the first and in the last tenth of its steps.
pub struct RunEnds(Metrics);

impl RunEnds {
    /// Of the run in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_run(dir: &Path) -> Result<RunEnds> {
        let mut metrics = Metrics::default();
        for_each_row(&dir.join(METRICS), |row| metrics.push(&row))?;
        Ok(RunEnds(metrics))
    }

    /// The last value of a metric; `None` for one that the run has not.
    pub fn last(&self, metric: &str) -> Option<f64> {
        self.0.last(metric)
    }

    /// The means of a metric over the first and the last tenth; `None` for one that the run has not.
    pub fn of(&self, metric: &str) -> Option<(f64, f64)> {
        self.0.ends(metric)
    }
}

/// The numbers of `metrics.jsonl`, by column; NaN where a step has none.
#[derive(Default)]
struct Metrics {
    steps: Vec<f64>,
    columns: HashMap<String, Vec<f64>>,
}

impl Metrics {
    fn push(&mut self, row: &Value) {
        let (Some(step), Some(row)) = (row["step"].as_f64(), row.as_object()) else { return };
        for (name, value) in row {
            if let Some(value) = value.as_f64() {
                let column = self.columns.entry(name.clone()).or_default();
                column.resize(self.steps.len(), f64::NAN);
                column.push(value);
            }
        }
        self.steps.push(step);
    }

    fn column(&self, name: &str) -> impl Iterator<Item = f64> + Clone {
        let column = self.columns.get(name).map(Vec::as_slice).unwrap_or_default();
        (0..self.steps.len()).map(|i| column.get(i).copied().unwrap_or(f64::NAN))
    }

    /// What there is of a column.
    fn values(&self, name: &str) -> Vec<f64> {
        self.column(name).filter(|v| v.is_finite()).collect()
    }

    /// All but the run's first step, where there are others.
    fn without_first(&self) -> Metrics {
        let from = usize::from(self.steps.len() > 1 && self.steps[0] == 1.0);
        let columns = self.columns.iter().map(|(name, values)| {
            let rest = values.get(from..).unwrap_or_default();
            (name.clone(), rest.to_vec())
        });
        Metrics { steps: self.steps[from..].to_vec(), columns: columns.collect() }
    }

    fn curve(&self, name: &str, values: impl Iterator<Item = f64>) -> Series {
        Series::noisy(name, self.steps.iter().copied().zip(values))
    }

    fn last(&self, name: &str) -> Option<f64> {
        self.values(name).last().copied()
    }

    /// The means over the first and the last tenth of the steps.
    fn ends(&self, name: &str) -> Option<(f64, f64)> {
        let values = self.values(name);
        let tenth = values.len().div_ceil(10);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        (tenth > 0).then(|| (mean(&values[..tenth]), mean(&values[values.len() - tenth..])))
    }
}

/// What `pairs.jsonl` holds: counts of all, and some rows evenly from it.
#[derive(Default)]
struct Pairs {
    total: usize,
    first: usize,
    second: usize,
    tie: usize,
    invalid: usize,
    identical: usize,
    /// Responses that were rated by themselves: such a run has no pairs.
    rated: usize,
    /// Pairs that were asked about in both orders, and those of them whose orders disagree.
    both_orders: usize,
    flipped: usize,
    kept: Vec<Value>,
    stride: usize,
}

impl Pairs {
    fn push(&mut self, row: Value) {
        let verdict = match row["verdict"].as_str() {
            Some("1") => &mut self.first,
            Some("2") => &mut self.second,
            Some("tie") => &mut self.tie,
            Some("invalid") => &mut self.invalid,
            _ if is_rating(&row) && row["score"].is_null() => &mut self.invalid,
            _ if is_rating(&row) => &mut self.rated,
            _ => &mut self.identical,
        };
        *verdict += 1;
        if let Some((shown_first, shown_second)) = orders(&row) {
            self.both_orders += 1;
            self.flipped += usize::from(orders_disagree(Some(shown_first), Some(shown_second)));
        }
        self.stride = self.stride.max(1);
        if self.total.is_multiple_of(self.stride) {
            self.kept.push(row);
            if self.kept.len() == 4 * SHOWN {
                // Every other one: those that lie at multiples of twice the stride.
                let mut even = false;
                self.kept.retain(|_| {
                    even = !even;
                    even
                });
                self.stride *= 2;
            }
        }
        self.total += 1;
    }

    /// Rows from the first to the last, evenly.
    fn sample(&self) -> impl Iterator<Item = &Value> {
        let count = self.kept.len().min(SHOWN);
        (0..count).map(move |i| &self.kept[i * (self.kept.len() - 1) / (count - 1).max(1)])
    }

    fn summary(&self) -> String {
        let share = |part: usize, whole: usize| Unit::Share.format(part as f64 / whole as f64);
        let decided = self.first + self.second;
        let what = if self.rated > 0 { "responses" } else { "pairs" };
        let mut parts = vec![format!("{} {what}", number(self.total as f64))];
        if decided > 0 {
            let (count, won) = (number(decided as f64), share(self.first, decided));
            parts.push(format!("{count} with a preference ({won} for the first of the two)"));
        }
        for (count, what) in [
            (self.rated, "rated"),
            (self.tie, "tied"),
            (self.invalid, "unusable"),
            (self.identical, "not asked about"),
        ] {
            if count > 0 {
                parts.push(format!("{} {what}", number(count as f64)));
            }
        }
        let flips = match self.both_orders {
            0 => String::new(),
            asked => format!(
                " Asked in both orders, the annotator preferred the same position twice in {} of the pairs.",
                share(self.flipped, asked)
            ),
        };
        format!("{}.{flips}", parts.join(", "))
    }
}

/// The probabilities for the first answer, where both orders were asked.
fn orders(row: &Value) -> Option<(f64, f64)> {
    row["p_12"].as_f64().zip(row["p_21"].as_f64())
}

/// Whether a row is of one response and its rating, not of a pair.
fn is_rating(row: &Value) -> bool {
    row.get("response").is_some()
}

fn sample(row: &Value) -> Sample {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let verdict = text("verdict");
    let mut sample = Sample::new(text("prompt"));
    if let Some(step) = row["step"].as_u64() {
        sample = sample.label(format!("step {}", number(step as f64)));
    }
    if is_rating(row) {
        let skipped = row["skipped"].as_str().map(|why| format!("skipped: {why}"));
        let rated = row["score"].as_f64().map(|score| {
            format!("rated {score:.3}, an advantage of {:.3}", row["advantage"].as_f64().unwrap_or_default())
        });
        let note = rated.into_iter().chain(skipped).collect::<Vec<_>>().join("; ");
        return sample.answer("answer", text("response")).note(note);
    }
    for (key, won) in [("response_1", "1"), ("response_2", "2")] {
        let label = format!("answer {won}");
        sample =
            if verdict == won { sample.preferred(label, text(key)) } else { sample.answer(label, text(key)) };
    }
    let mut parts = Vec::new();
    if let Some(p) = row["p_first"].as_f64() {
        let each = orders(row).map_or(String::new(), |(a, b)| {
            format!(": {a:.3} when it is shown first, {b:.3} when it is shown second")
        });
        parts.push(format!("P(answer 1 is better) = {p:.3}{each}"));
    }
    if verdict == "tie" {
        parts.push("a tie".into());
    }
    if orders(row).is_some_and(|(a, b)| orders_disagree(Some(a), Some(b))) {
        parts.push("the orders disagree".into());
    }
    match row["skipped"].as_str() {
        Some(why) => parts.push(format!("skipped: {why}")),
        None if ["1", "2"].contains(&verdict) && row.get("chosen").is_some_and(Value::is_null) => {
            parts.push("not learnt from".into());
        }
        None => {}
    }
    sample.note(parts.join("; "))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Align,
    Dpo,
    Reward,
    Sft,
}

struct Run {
    config: Value,
    metrics: Metrics,
    pairs: Pairs,
}

impl Run {
    fn report(self) -> Report {
        let mut report = Report::new(self.title());
        let done = self.metrics.last("step").unwrap_or(0.0);
        let seconds: f64 = self.metrics.values("time/step_ms").iter().sum::<f64>() * 1e-3;
        let command = match self.kind() {
            Kind::Align => "oaif align: answers sampled, judged and learnt from on the spot",
            Kind::Dpo => "oaif dpo: given preferences",
            Kind::Reward => "oaif reward: scores learnt from given preferences",
            Kind::Sft => "oaif sft: given completions",
        };
        report.lead(format!("{command}."));
        if let Some(total) = self.config["total_steps"].as_f64().filter(|total| *total > done) {
            let (done, total) = (number(done), number(total));
            report.warning(format!("Not finished: {done} of {total} steps are done."));
        }
        for warning in self.config["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            report.warning(capitalised(warning) + ".");
        }
        if let Some(count) = self.metrics.last("non_finite_steps").filter(|count| *count > 0.0) {
            report.warning(format!(
                "The loss or the gradient was not finite in {} step(s), which changed nothing.",
                number(count)
            ));
        }
        self.facts(&mut report, done, seconds);
        self.key_figures(&mut report);
        report
            .add(self.learning())
            .add(self.evaluation())
            .add(self.held_out_pairs())
            .add(self.answers())
            .add(self.annotator())
            .add(self.optimiser())
            .add(self.time());
        let shown = self.pairs.sample().count();
        let some = match shown < self.pairs.total {
            true => format!("{shown} of {}, evenly from the whole run.", number(self.pairs.total as f64)),
            false => String::new(),
        };
        let title = if self.pairs.rated > 0 { "Rated responses" } else { "Annotated pairs" };
        report.add(self.pairs.sample().map(sample).fold(Section::new(title).text(some), Section::sample));
        report.configuration(self.config);
        report
    }

    /// By the command that `run.json` names; without one, `oaif align`.
    fn kind(&self) -> Kind {
        match self.config["command"].as_str() {
            Some("dpo") => Kind::Dpo,
            Some("reward") => Kind::Reward,
            Some("sft") => Kind::Sft,
            _ => Kind::Align,
        }
    }

    /// A configured value as words; `None` for what is absent, null or empty.
    fn configured(&self, key: &str) -> Option<String> {
        match &self.config[key] {
            Value::String(text) => Some(text.clone()),
            Value::Number(value) => Some(value.as_f64().map_or_else(|| value.to_string(), number)),
            _ => None,
        }
        .filter(|text| !text.is_empty())
    }

    /// The last part of a configured path.
    fn file(&self, key: &str) -> Option<String> {
        let path = self.configured(key)?;
        Some(Path::new(&path).file_name().map_or(path.clone(), |name| name.to_string_lossy().into_owned()))
    }

    fn loss(&self) -> Option<&'static str> {
        Some(match self.config["loss"].as_str()? {
            "dpo" | "sigmoid" => "DPO",
            "ipo" => "IPO",
            "slic" | "hinge" => "SLiC",
            "rloo" => "RLOO",
            "grpo" => "GRPO",
            _ => return None,
        })
    }

    fn title(&self) -> String {
        let model = self.file("model").unwrap_or_else(|| "A model".into());
        match (self.kind(), self.loss()) {
            (Kind::Align, Some(loss)) => format!("{model}, aligned online by {loss}"),
            (Kind::Align, None) => format!("{model}, aligned online"),
            (Kind::Dpo, Some(loss)) => format!("{model}, aligned offline by {loss}"),
            (Kind::Dpo, None) => format!("{model}, aligned offline"),
            (Kind::Reward, _) => format!("{model}, trained as a reward model"),
            (Kind::Sft, _) => format!("{model}, fine-tuned"),
        }
    }

    fn facts(&self, report: &mut Report, done: f64, seconds: f64) {
        let mut fact = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                report.fact(name, value);
            }
        };
        let joined = |parts: Vec<Option<String>>| {
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            (!parts.is_empty()).then(|| parts.join(", "))
        };
        fact("Model", self.file("model"));
        fact("Dataset", self.file("dataset"));
        let detail =
            self.file("judge-model").or(self.configured("judge-rule")).or(self.configured("judge-command"));
        fact("Annotator", joined(vec![self.configured("judge"), detail]));
        let beta = self.configured("beta").map(|beta| format!("β {beta}"));
        fact("Loss", joined(vec![self.loss().map(str::to_owned).or(self.configured("loss")), beta]));
        let lora_alpha = || self.configured("lora-alpha").map(|alpha| format!("α {alpha}"));
        let on_adapter = self.config["adapter"].is_string();
        fact(
            "Trained",
            match self.config["lora-r"].as_u64() {
                Some(rank) if rank > 0 => joined(vec![Some(format!("LoRA of rank {rank}")), lora_alpha()]),
                Some(_) if on_adapter => Some("a given LoRA adapter".into()),
                Some(_) => Some("all weights".into()),
                None => None,
            },
        );
        let rate = self.configured("learning-rate");
        fact("Learning rate", joined(vec![rate, self.configured("lr-scheduler-type")]));
        let batch = self.config["per-device-train-batch-size"].as_u64();
        let accumulation = self.config["gradient-accumulation-steps"].as_u64().unwrap_or(1);
        let rows = if self.kind() == Kind::Align { "prompts" } else { "rows" };
        let batch = batch.map(|batch| format!("{} {rows} each", number((batch * accumulation) as f64)));
        fact("Steps", joined(vec![Some(number(done)), batch]));
        fact("Seed", self.config["seed"].as_u64().map(|seed| seed.to_string()));
        fact("Time of the steps", (seconds > 0.0).then(|| duration(seconds)));
        fact("GPU", self.config["gpu_device"]["name"].as_str().map(str::to_owned));
        fact("oaif", self.configured("oaif_version"));
    }

    fn key_figures(&self, report: &mut Report) {
        let share = Unit::Share;
        for (name, label, unit) in [
            ("loss", "Loss", Unit::Plain),
            ("rewards/margins", "Reward margin", Unit::Plain),
            ("rewards/accuracies", "Reward accuracy", share),
            ("objective/kl", self.kl().0, Unit::Plain),
            ("completions/mean_length", "Answer's tokens", Unit::Plain),
        ] {
            let Some((first, last)) = self.metrics.ends(name) else { continue };
            let mut figure = KeyFigure::new(label, unit.format(last));
            if self.metrics.steps.len() > 1 {
                figure = figure.note(format!("{} at the start", unit.format(first)));
            }
            report.figure(figure);
        }
        if self.pairs.both_orders > 0 {
            let rate = Estimate::share(self.pairs.flipped, self.pairs.both_orders);
            let figure = KeyFigure::new("Order flips", share.format(rate.value));
            report.figure(figure.note(format!("of {} pairs", number(self.pairs.both_orders as f64))));
        }
    }

    /// What `objective/kl` is called: offline, the responses are not the policy's own.
    fn kl(&self) -> (&'static str, &'static str) {
        match self.kind() {
            Kind::Align => ("KL to the start", "mean of log π − log π₀ of a response, nats"),
            _ => ("log π − log π₀", "mean over both responses, nats"),
        }
    }

    /// A plot over the steps.
    fn plot(&self, title: &str, label: &str) -> Plot {
        Plot::new(title).labels("step", label)
    }

    /// A plot of one metric.
    fn metric(&self, name: &str, title: &str, label: &str) -> Plot {
        self.plot(title, label).series(self.metrics.curve(title, self.metrics.column(name)))
    }

    /// A plot of two metrics of the chosen and the rejected responses.
    fn both(&self, name: &str, title: &str, label: &str) -> Plot {
        ["chosen", "rejected"].into_iter().fold(self.plot(title, label), |plot, which| {
            plot.series(self.metrics.curve(which, self.metrics.column(&format!("{name}/{which}"))))
        })
    }

    fn learning(&self) -> Section {
        let loss = if self.kind() == Kind::Sft { "nats a token" } else { "mean over the pairs" };
        let window = smoothing_window(self.metrics.steps.len());
        let mut text =
            "The figures above are means over the last tenth of the steps, beside the first.".to_owned();
        if window > 1 {
            text += &format!(
                " A dot is a step, a curve the running mean over {} of them.",
                number(window as f64)
            );
        }
        let reward = match self.kind() {
            Kind::Reward => "score of a response, mean",
            _ => "β (log π − log π₀) of a response, mean",
        };
        let (kl, kl_label) = self.kl();
        let accuracy =
            self.metric("rewards/accuracies", "Reward accuracy", "share of the pairs with a margin above 0");
        let learning = Section::new("Learning")
            .text(text)
            .plot(self.metric("loss", "Loss", loss))
            .plot(self.metric("rewards/margins", "Reward margin", "chosen less rejected, mean").level(0.0))
            .plot(accuracy.unit(Unit::Share).level(0.5))
            .plot(self.both("rewards", "Rewards", reward))
            .plot(self.metric("objective/kl", kl, kl_label).level(0.0))
            .plot(self.both("logps", "Log-probabilities", "log π of a response, mean, nats"));
        if self.kind() == Kind::Align { learning } else { learning.plot(self.entropy()) }
    }

    fn entropy(&self) -> Plot {
        self.metric("objective/entropy", "Entropy", "of the next token, nats")
    }

    /// A metric of the steps that have it.
    fn known(&self, label: &str, name: &str) -> Series {
        let points = self.metrics.steps.iter().copied().zip(self.metrics.column(name));
        Series::line(label.to_owned(), points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>())
    }

    /// Loss and accuracy of held-out pairs.
    fn held_out_pairs(&self) -> Section {
        let section = Section::new("Held-out pairs");
        let Some(pairs) = self.metrics.last("eval/pairs") else { return section };
        let accuracy =
            self.plot("Reward accuracy", "share of the pairs with a margin above 0").unit(Unit::Share);
        section
            .text(format!("{} pairs that are not trained on.", number(pairs)))
            .plot(self.plot("Loss", "mean over the pairs").series(self.known("loss", "eval/loss")))
            .plot(accuracy.level(0.5).series(self.known("accuracy", "eval/rewards/accuracies")))
            .plot(
                self.plot("Reward margin", "chosen less rejected, mean")
                    .level(0.0)
                    .series(self.known("margin", "eval/rewards/margins")),
            )
    }

    /// The policy on held-out prompts.
    fn evaluation(&self) -> Section {
        let m = &self.metrics;
        let [rate, low, high] =
            ["eval/win_rate", "eval/win_rate_low", "eval/win_rate_high"].map(|name| m.column(name));
        let estimates = rate.zip(low.zip(high)).map(|(rate, (low, high))| Estimate::new(rate, low, high));
        // A curve has no gaps where nothing was evaluated.
        let points: Vec<(f64, Estimate)> = m
            .steps
            .iter()
            .copied()
            .zip(estimates)
            .filter(|(_, estimate)| estimate.value.is_finite())
            .collect();
        let Some(prompts) = m.last("eval/prompts") else { return Section::new("Held-out prompts") };
        Section::new("Held-out prompts")
            .text(format!(
                "The policy's answers to {} prompts against those of the start, by the annotator that gives the feedback, a tie as \
                 half a win: whether they are better to anybody else is for another judge to say (oaif eval).",
                number(prompts)
            ))
            .plot(
                self.plot("Win rate against the start", "95 % interval")
                    .unit(Unit::Share)
                    .level(0.5)
                    .series(Series::band("win rate", points)),
            )
            .plot(self.plot("Length of the answers", "tokens, mean").from_zero().series(self.known("length", "eval/mean_length")))
            .plot(self.plot("KL to the start", "mean of log π − log π₀, nats").level(0.0).series(self.known("KL", "eval/kl")))
    }

    fn answers(&self) -> Section {
        let section = Section::new("Answers");
        // Given answers are as they are.
        if self.kind() != Kind::Align {
            return section;
        }
        let ended = self.metric("val/contain_eos_token", "Ended by themselves", "share of the answers");
        section
            .plot(self.metric("completions/mean_length", "Length", "tokens, mean").from_zero())
            .plot(ended.unit(Unit::Share).from_zero())
            .plot(self.entropy())
    }

    fn annotator(&self) -> Section {
        let m = &self.metrics;
        let share = |part: &str| {
            let both = m.column(part).zip(m.column("judge/judged")).zip(m.column("judge/identical"));
            // Identical pairs are not among the judged.
            let identical = part == "judge/identical";
            both.map(move |((part, judged), same)| part / if identical { judged + same } else { judged })
                .collect::<Vec<f64>>()
        };
        let unusable = [
            ("judge/tie", "ties"),
            ("judge/invalid", "unusable verdicts"),
            ("judge/identical", "identical answers"),
        ]
        .into_iter()
        .filter(|(metric, _)| m.column(metric).any(|v| v > 0.0))
        .fold(
            self.plot("Without a preference", "share of the pairs").unit(Unit::Share).from_zero(),
            |plot, (metric, name)| plot.series(m.curve(name, share(metric).into_iter())),
        );
        let mut flips = self.plot("Order flips", "share of the pairs whose two orders disagree");
        if self.pairs.both_orders > 0 {
            flips = flips.series(m.curve("order flips", share("judge/order_flip").into_iter()));
        }
        let first =
            self.metric("judge/first", "First answer preferred", "share of the pairs with a preference");
        let certainty =
            self.metric("objective/scores", "Certainty", "annotator's probability for the chosen answer");
        Section::new("Annotator")
            .text(if self.pairs.total > 0 { self.pairs.summary() } else { String::new() })
            .plot(flips.unit(Unit::Share).from_zero())
            .plot(unusable)
            .plot(first.unit(Unit::Share).level(0.5))
            .plot(certainty.level(0.5))
    }

    fn optimiser(&self) -> Section {
        let m = &self.metrics;
        let rate = Series::line("learning rate", m.steps.iter().copied().zip(m.column("learning_rate")));
        Section::new("Optimiser")
            .plot(self.plot("Learning rate", "").series(rate).from_zero())
            .plot(self.metric("grad_norm", "Gradient norm", "before clipping").from_zero())
    }

    fn time(&self) -> Section {
        let m = &self.metrics.without_first();
        let note = match m.steps.len() < self.metrics.steps.len() {
            true => "Without the first step, in which kernels are compiled.",
            false => "",
        };
        let seconds = m.column("time/step_ms").map(|ms| ms * 1e-3);
        let step = self.plot("Time of a step", "seconds").series(m.curve("time", seconds)).from_zero();
        let speed = m.curve("Speed", m.column("time/tokens_per_second"));
        let speed = self.plot("Speed", "tokens a second, sampled and trained on").series(speed);
        let phases = PHASES.iter().fold(
            Bars::new("Where it goes").label("seconds a step: mean, 10th to 90th percentile"),
            |bars, (phase, name)| {
                let mut times = m.values(&format!("time/{phase}_ms"));
                if times.is_empty() {
                    return bars;
                }
                times.sort_by(f64::total_cmp);
                let at = |q: f64| 1e-3 * times[((times.len() - 1) as f64 * q).round() as usize];
                let mean = 1e-3 * times.iter().sum::<f64>() / times.len() as f64;
                bars.group(*name, [Estimate::new(mean, at(0.1), at(0.9))])
            },
        );
        Section::new("Time").text(note).plot(step).bars(phases).plot(speed.from_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn report(files: &[(&str, String)]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        Report::of_run(dir.path()).map(|report| report.html())
    }

    fn lines(rows: impl IntoIterator<Item = Value>) -> String {
        rows.into_iter().map(|row| format!("{row}\n")).collect()
    }

    fn step(step: usize) -> Value {
        json!({
            "step": step, "loss": 0.7 - 0.01 * step as f64, "rewards/margins": 0.1, "learning_rate": 1e-3,
            "judge/judged": 4, "judge/tie": 1, "judge/invalid": 0, "judge/identical": 0, "judge/order_flip": 2,
            "time/step_ms": 1500.0, "time/sampling_ms": 700.0,
        })
    }

    fn pair(step: usize) -> Value {
        json!({
            "step": step, "prompt": format!("prompt of {step}"), "response_1": "a", "response_2": "b",
            "p_first": 0.55, "p_12": 0.8, "p_21": 0.3, "verdict": "1", "chosen": 1,
        })
    }

    #[test]
    fn a_run_is_told_from_its_folder() {
        let config = json!({
            "model": "/models/small/", "dataset": "x/prompts.jsonl", "judge": "llm", "judge-model": "/m/judge",
            "loss": "slic", "beta": 0.002, "lora-r": 8, "seed": 7, "total_steps": 20, "learning-rate": 1e-3,
        });
        let html = report(&[
            (RUN, config.to_string()),
            (METRICS, lines((1..=20).map(step))),
            (PAIRS, lines((1..=20).map(pair))),
        ])
        .unwrap();
        for told in [
            "<h1>small, aligned online by SLiC</h1>",
            "<dd>llm, judge</dd>",
            "<dd>SLiC, β 0.002</dd>",
            "<dd>LoRA of rank 8</dd>",
            "<dd>7</dd>",
            "<dd>30 s</dd>",
            "0.685 at the start",
            "Order flips",
            "Without a preference",
            "P(answer 1 is better) = 0.550: 0.800 when it is shown first, 0.300 when it is shown second; the orders disagree",
            "<tr><th>dataset</th><td>x/prompts.jsonl</td></tr>",
        ] {
            assert!(html.contains(told), "{told}");
        }
        for absent in ["Not finished", "not finite", "Gradient norm", "KL", "unusable", "<h2>Answers", "NaN"]
        {
            assert!(!html.contains(absent), "{absent}");
        }
    }

    #[test]
    fn a_page_names_the_command_and_the_loss_of_its_run() {
        for (config, title, lead) in [
            (json!({"command": "sft"}), "m, fine-tuned", "oaif sft: given completions"),
            (
                json!({"command": "dpo", "loss": "ipo"}),
                "m, aligned offline by IPO",
                "oaif dpo: given preferences",
            ),
            (json!({"command": "reward"}), "m, trained as a reward model", "oaif reward: scores learnt"),
            (json!({"command": "align", "loss": "dpo"}), "m, aligned online by DPO", "oaif align: answers"),
            (json!({"command": "align", "loss": "rloo"}), "m, aligned online by RLOO", "oaif align: answers"),
            (json!({"command": "align", "loss": "grpo"}), "m, aligned online by GRPO", "oaif align: answers"),
        ] {
            let mut config = config;
            (config["model"], config["chosen-column"]) = (json!("m"), json!("chosen"));
            let html = report(&[(RUN, config.to_string()), (METRICS, lines((1..=3).map(step)))]).unwrap();
            assert!(html.contains(&format!("<h1>{title}</h1>")) && html.contains(lead), "{config}");
        }
    }

    #[test]
    fn an_unfinished_run_and_torn_lines_are_no_obstacle() {
        let torn = lines([step(1), step(2)]) + "{\"step\":3,\"loss\":0.";
        let junk = format!("not json\n[1]\n{}\u{0}\n", torn);
        let config = json!({"total_steps": 10});
        let html = report(&[(RUN, config.to_string()), (METRICS, junk), (PAIRS, "{\"ste".into())]).unwrap();
        assert!(html.contains("Not finished: 2 of 10 steps are done."), "{html}");
        assert!(html.contains("<h1>A model, aligned online</h1>"), "{html}");
        let nothing_done = report(&[(RUN, "{}".into())]).unwrap();
        assert!(!nothing_done.contains("<section>"), "{nothing_done}");
        // A library's run without a configuration.
        assert!(report(&[(METRICS, lines([step(1)]))]).unwrap().contains("aligned online"));
        let error = report(&[]).unwrap_err().to_string();
        assert!(error.contains("holds no run") && error.contains("run.json"), "{error}");
    }

    #[test]
    fn losses_that_are_null_are_left_out_and_counted() {
        let bad = json!({"step": 2, "loss": null, "grad_norm": null, "non_finite_steps": 1});
        let html = report(&[(METRICS, lines([json!({"step": 1, "loss": 3.0}), bad]))]).unwrap();
        assert!(html.contains("not finite in 1 step(s)"), "{html}");
        assert!(html.contains("<h2>Learning</h2>") && !html.contains("Gradient norm"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("null"), "{html}");
    }

    #[test]
    fn the_times_of_a_run_leave_out_its_first_step() {
        let timed = |n: usize, ms: f64| json!({"step": n, "time/step_ms": ms, "time/backward_ms": ms, "time/tokens_per_second": 10});
        let html =
            report(&[(METRICS, lines([timed(1, 15_000.0), timed(2, 1000.0), timed(3, 1000.0)]))]).unwrap();
        assert!(html.contains("Without the first step"), "{html}");
        assert!(!html.contains(">15<") && !html.contains("5.67"), "{html}");
        // A run of one step has nothing else to show, and a resumed one did not compile in the step that is first here.
        let one = report(&[(METRICS, lines([timed(1, 15_000.0)]))]).unwrap();
        assert!(one.contains("Where it goes") && !one.contains("Without the first step"), "{one}");
    }

    #[test]
    fn the_configuration_is_what_was_asked_for_and_nothing_of_the_inside() {
        let config = json!({
            "model": "m", "adapter": null, "gpu_device": {"name": "llvmpipe", "index": 0},
            "memory": {"total": 2_576_980_378u64, "bytes": {"weights": 1_073_741_824u64}},
        });
        let html = report(&[(RUN, config.to_string())]).unwrap();
        for told in ["<th>memory.total</th><td>2.4 GiB<", "<th>memory.bytes.weights</th><td>1.0 GiB<"] {
            assert!(html.contains(told), "{told} is not in {html}");
        }
    }

    #[test]
    fn the_pairs_shown_are_spread_over_the_whole_run() {
        for total in [1, 2, SHOWN, SHOWN + 1, 100, 1600, 9999] {
            let mut pairs = Pairs::default();
            (1..=total).for_each(|i| pairs.push(pair(i)));
            let steps: Vec<u64> = pairs.sample().map(|row| row["step"].as_u64().unwrap()).collect();
            assert_eq!(steps.len(), total.min(SHOWN), "{total}");
            assert!(steps.windows(2).all(|w| w[0] < w[1]), "{total}: {steps:?}");
            assert_eq!(steps[0], 1);
            assert!(steps[steps.len() - 1] as f64 >= 0.93 * total as f64, "{total}: {steps:?}");
            assert!(pairs.kept.len() < 4 * SHOWN);
        }
    }

    #[test]
    fn pairs_are_counted_by_what_became_of_them() {
        let mut pairs = Pairs::default();
        let rows = [("1", 0.8, 0.7), ("2", 0.1, 0.2), ("tie", 0.6, 0.4), ("1", 0.9, 0.4)];
        for (verdict, a, b) in rows {
            pairs.push(json!({"verdict": verdict, "p_12": a, "p_21": b}));
        }
        pairs.push(json!({"verdict": "invalid", "p_12": null, "p_21": null, "skipped": "broken"}));
        pairs.push(json!({"skipped": "identical responses"}));
        let expected = "6 pairs, 3 with a preference (66.7 % for the first of the two), 1 tied, 1 unusable, 1 not asked \
                        about. Asked in both orders, the annotator preferred the same position twice in 50.0 % of the pairs.";
        assert_eq!(pairs.summary(), expected);
    }

    #[test]
    fn ratings_are_no_pairs() {
        let rating = |score: Value| json!({"step": 1, "prompt": "p", "response": "only this", "score": score, "advantage": 0.5});
        let rows = [rating(json!(2.0)), rating(json!(-1.0)), rating(Value::Null)];
        let mut pairs = Pairs::default();
        rows.iter().for_each(|row| pairs.push(row.clone()));
        assert_eq!(pairs.summary(), "3 responses, 2 rated, 1 unusable.");
        let html = report(&[(RUN, json!({"loss": "rloo"}).to_string()), (PAIRS, lines(rows))]).unwrap();
        assert!(html.contains("Rated responses") && html.contains("only this"), "{html}");
        assert!(html.contains("rated 2.000, an advantage of 0.500") && !html.contains("answer 1"), "{html}");
    }

    #[test]
    fn what_a_model_wrote_stays_text() {
        let attack = "</p><script>alert(1)</script>";
        let row = json!({"step": 1, "prompt": attack, "response_1": attack, "response_2": attack, "verdict": attack, "skipped": attack});
        let config = json!({"model": attack, "dataset": attack, "judge": attack, "loss": attack, "judge-template": attack});
        let html = report(&[(RUN, config.to_string()), (PAIRS, lines([row]))]).unwrap();
        assert!(!html.contains("<script") && html.matches("&lt;script&gt;").count() >= 6, "{html}");
    }
}
