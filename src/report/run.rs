//! The report of a training run, made from its folder.

use std::path::Path;

use serde_json::Value;

use super::page::Report;
use super::run_logs::{Metrics, Pairs, before_and_after, for_each_row, sample};
use super::scale::{Unit, duration, number};
use super::section::Section;
use crate::error::{Error, Result};
use crate::files;
use crate::train::health;
use crate::train::run_dir::{EVAL_SAMPLES, METRICS, PAIRS, RUN};

/// If a smaller share of the responses ended by themselves, the page has a warning.
const FEW_ENDED: f64 = 0.05;

impl Report {
    /// The report of the run in the folder `dir`, finished or not, from its `run.json`, `metrics.jsonl`, `pairs.jsonl` and
    /// `eval_samples.jsonl`. Metrics that the run does not have, and lines cut off by a crash, are left out.
    ///
    /// # Errors
    /// [`Error::File`] for a folder without a run, [`Error::Io`].
    pub fn of_run(dir: &Path) -> Result<Report> {
        Ok(Run::open(dir)?.report())
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The parts that are known, with commas; `None` without any.
fn joined(parts: Vec<Option<String>>) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Align,
    Dpo,
    Reward,
    Sft,
}

#[derive(Default)]
pub(crate) struct Run {
    pub(super) config: Value,
    pub(super) metrics: Metrics,
    pub(super) pairs: Pairs,
    /// Rows of `eval_samples.jsonl`.
    samples: Vec<Value>,
    /// Files with damaged lines, which are left out, and their number.
    damaged: Vec<(&'static str, usize)>,
}

impl Run {
    #[cfg(test)]
    pub(super) fn of(config: Value, metrics: Metrics, pairs: Pairs) -> Run {
        Run { config, metrics, pairs, ..Run::default() }
    }

    /// The run of a configuration, before its first step.
    #[cfg(all(feature = "cli", feature = "ui"))]
    pub(crate) fn before(config: Value) -> Run {
        Run { config, ..Run::default() }
    }

    /// The run in the folder `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Run> {
        if !dir.is_dir() {
            return Err(Error::file(dir, "is not a folder: give a run folder"));
        }
        let config = files::read_json_if_present(&dir.join(RUN))?;
        let (mut metrics, mut pairs, mut samples) = (Metrics::default(), Pairs::default(), Vec::new());
        let skipped = [
            (METRICS, for_each_row(&dir.join(METRICS), |row| metrics.push(&row))?),
            (PAIRS, for_each_row(&dir.join(PAIRS), |row| pairs.push(row))?),
            (EVAL_SAMPLES, for_each_row(&dir.join(EVAL_SAMPLES), |row| samples.push(row))?),
        ];
        if config.is_none() && skipped[0].1.is_none() {
            let why = format!("holds no run (neither {RUN} nor {METRICS}): give a run folder");
            return Err(Error::file(dir, why));
        }
        let damaged = |(file, lines): (&'static str, Option<usize>)| Some((file, lines.filter(|n| *n > 0)?));
        let damaged = skipped.into_iter().filter_map(damaged).collect();
        Ok(Run { config: config.unwrap_or_default(), metrics, pairs, samples, damaged })
    }

    fn report(self) -> Report {
        let mut report = Report::new(self.title());
        let done = self.done();
        report.result(self.sentence()).lead(match self.kind() {
            Kind::Align => "oaif align: in each step the policy writes responses, the judge compares them, and the policy is \
                            trained on the verdicts.",
            Kind::Dpo => "oaif dpo: the policy is trained on given preference pairs.",
            Kind::Reward => "oaif reward: a reward model is trained on given preference pairs.",
            Kind::Sft => "oaif sft: the policy is trained on given completions.",
        });
        if let Some((done, total)) = self.unfinished() {
            let (done, total) = (number(done), number(total));
            report.warning(format!("Not finished: {done} of {total} steps are done."));
        }
        for (file, lines) in &self.damaged {
            report.warning(format!("{lines} line(s) of {file} are damaged and left out."));
        }
        if let Some(error) = self.config["error"].as_str() {
            report.warning(format!("The run ended with an error: {error}."));
        }
        for warning in self.config["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            report.warning(capitalised(warning) + ".");
        }
        if let Some(count) = self.metrics.last("non_finite_steps").filter(|count| *count > 0.0) {
            report.warning(format!(
                "{} step(s) were skipped: their loss or gradient was not finite.",
                number(count)
            ));
        }
        for warning in self.warnings() {
            report.warning(capitalised(&warning) + ".");
        }
        self.facts(&mut report, done, self.seconds());
        self.key_figures(&mut report);
        report
            .add(self.evaluation())
            .add(if self.is_demo() { Section::new("") } else { before_and_after(&self.samples) })
            .add(self.held_out_pairs())
            .add(self.learning())
            .add(self.responses())
            .add(self.judge())
            .add(self.optimiser())
            .add(self.time());
        let shown = self.pairs.sample().count();
        let some = match shown < self.pairs.total {
            true => {
                format!("{shown} of {}, chosen evenly from the whole run.", number(self.pairs.total as f64))
            }
            false => String::new(),
        };
        let title = if self.pairs.rated > 0 { "Rated responses" } else { "Judged pairs" };
        report.add(self.pairs.sample().map(sample).fold(Section::new(title).text(some), Section::sample));
        report.explain_terms().configuration(self.config);
        report
    }

    /// The warnings that `run.json` lacks, because the run has not ended or was too short.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let (m, kl) = (&self.metrics, self.metrics.values("objective/kl"));
        warnings.extend(match self.kind() {
            // A policy stays near a reference that follows it.
            _ if self.moves_reference() => None,
            Kind::Align => health::unchanged_policy(&kl),
            Kind::Dpo => {
                let beta = m.last("beta").unwrap_or(f64::NAN);
                health::unchanged_on_pairs(&kl, &m.values("rewards/margins"), beta)
            }
            Kind::Reward | Kind::Sft => None,
        });
        let ended = self.metrics.ends("val/contain_eos_token").map_or(f64::NAN, |(_, ended)| ended);
        if self.kind() == Kind::Align && ended < FEW_ENDED {
            warnings.push(format!(
                "{} of the responses in the last steps ended by themselves, the others were cut at --max-new-tokens{}: raise \
                 it, or use --stop TEXT",
                match ended {
                    0.0 => "none".to_owned(),
                    share => Unit::Share.format(share),
                },
                self.configured("max-new-tokens").map_or(String::new(), |n| format!(" {n}"))
            ));
        }
        let known: Vec<&str> =
            self.config["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // Warnings of the same kind have the same text before their first number.
        let kind =
            |text: &str| text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default().to_owned();
        let endless = kind(&health::unending_responses(usize::MAX, 0, 1).unwrap_or_default());
        let is_known = |text: &str| {
            let beginning = if text.contains("--max-new-tokens") { endless.clone() } else { kind(text) };
            known.iter().any(|known| kind(known) == beginning)
        };
        warnings.retain(|text| !is_known(text));
        warnings
    }

    /// The time of all steps.
    pub(super) fn seconds(&self) -> f64 {
        self.metrics.values("time/step_ms").iter().sum::<f64>() * 1e-3
    }

    pub(super) fn is_demo(&self) -> bool {
        self.config["command"] == "demo"
    }

    /// The command in `run.json`; without one, `oaif align`.
    pub(super) fn kind(&self) -> Kind {
        match self.config["command"].as_str() {
            Some("dpo") => Kind::Dpo,
            Some("reward") => Kind::Reward,
            Some("sft") => Kind::Sft,
            _ => Kind::Align,
        }
    }

    /// Whether the reference model follows the policy.
    pub(super) fn moves_reference(&self) -> bool {
        self.config["sync-ref-model"] == true
    }

    /// A configured value as text; `None` if it is absent, null or empty.
    pub(crate) fn configured(&self, key: &str) -> Option<String> {
        match &self.config[key] {
            Value::String(text) => Some(text.clone()),
            Value::Number(value) => Some(value.as_f64().map_or_else(|| value.to_string(), number)),
            _ => None,
        }
        .filter(|text| !text.is_empty())
    }

    /// The last part of a configured path, or of a name on the Hugging Face Hub, without its commit.
    pub(crate) fn file(&self, key: &str) -> Option<String> {
        let path = self.configured(key)?;
        let name = Path::new(&path).file_name().map_or(path.as_str().into(), |name| name.to_string_lossy());
        Some(without_commit(&name))
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

    /// "likelihood, TinyStories-656K": the judge and its model, rule or command.
    pub(crate) fn judge_in_words(&self) -> Option<String> {
        let detail =
            self.file("judge-model").or(self.configured("judge-rule")).or(self.configured("judge-command"));
        joined(vec![self.configured("judge"), detail])
    }

    /// "DPO, β 0.1".
    pub(crate) fn loss_in_words(&self) -> Option<String> {
        let beta = self.configured("beta").map(|beta| format!("β {beta}"));
        joined(vec![self.loss().map(str::to_owned).or(self.configured("loss")), beta])
    }

    fn facts(&self, report: &mut Report, done: f64, seconds: f64) {
        let mut fact = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                report.fact(name, value);
            }
        };
        fact("Model", self.file("model"));
        fact("Dataset", self.file("dataset"));
        fact("Judge", self.judge_in_words());
        fact("Loss", self.loss_in_words());
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
        let batch = self.config["rows_per_step"].as_u64().or_else(|| Some(batch? * accumulation));
        let rows = if self.kind() == Kind::Align { "prompts" } else { "rows" };
        let batch = batch.map(|batch| format!("{} {rows} each", number(batch as f64)));
        fact("Steps", joined(vec![Some(number(done)), batch]));
        fact("Seed", self.config["seed"].as_u64().map(|seed| seed.to_string()));
        fact("Time of the steps", (seconds > 0.0).then(|| duration(seconds)));
        let ranks = self.config["ranks"].as_u64().filter(|ranks| *ranks > 1);
        let ranks = ranks.map(|ranks| format!("{ranks} processes"));
        fact("GPU", joined(vec![self.config["gpu_device"]["name"].as_str().map(str::to_owned), ranks]));
        fact("oaif", self.configured("oaif_version"));
    }

    /// Whether the run is trained on scores by policy gradients, whose loss stays around 0 whatever the scores are.
    pub(super) fn learns_from_scores(&self) -> bool {
        self.metrics.last("reward").is_some()
    }

    /// The name of `objective/kl` on pages.
    pub(crate) fn kl_name(&self) -> &'static str {
        self.kl_chart().title
    }
}

/// A name on the Hugging Face Hub without the commit that a run records: `ORG/NAME@COMMIT:SPLIT` is `ORG/NAME:SPLIT`. Other
/// names and paths stay as they are.
pub fn without_commit(name: &str) -> String {
    if let Some((repository, revision)) = name.rsplit_once('@')
        && let Some((commit, split)) = revision.split_at_checked(40)
        && commit.bytes().all(|digit| digit.is_ascii_hexdigit())
        && (split.is_empty() || split.starts_with(':'))
    {
        return format!("{repository}{split}");
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::train::report::PHASES;

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
            "judge/judged": 4, "judge/tie": 1, "judge/invalid": 0, "judge/identical": 0, "judge/both_orders": 4,
            "judge/order_flip": 2,
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
    fn a_run_is_reported_from_its_folder() {
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
        for expected in [
            "<h1>small, aligned online by SLiC</h1>",
            "<dd>llm, judge</dd>",
            "<dd>SLiC, β 0.002</dd>",
            "<dd>LoRA of rank 8</dd>",
            "<dd>7</dd>",
            "<dd>30\u{a0}s</dd>",
            "0.685 in the first steps",
            "Order flips",
            "Without a preference",
            "judge&#39;s probability for response 1: 0.550 (0.800 shown first, 0.300 shown second); order flip",
            "<dt>order flip</dt>",
            "<tr><th>dataset</th><td>x/prompts.jsonl</td></tr>",
        ] {
            assert!(html.contains(expected), "{expected}");
        }
        for absent in [
            "Not finished",
            "not finite",
            "Gradient norm",
            "KL",
            "unusable",
            "<h2>Responses",
            "NaN",
            "Before and",
        ] {
            assert!(!html.contains(absent), "{absent}");
        }
    }

    #[test]
    fn a_page_names_the_command_and_the_loss_of_its_run() {
        for (config, title, lead) in [
            (json!({"command": "sft"}), "m, fine-tuned", "oaif sft: "),
            (json!({"command": "dpo", "loss": "ipo"}), "m, aligned offline by IPO", "oaif dpo: "),
            (json!({"command": "reward"}), "m, trained as a reward model", "oaif reward: "),
            (json!({"command": "align", "loss": "dpo"}), "m, aligned online by DPO", "oaif align: "),
            (json!({"command": "align", "loss": "rloo"}), "m, aligned online by RLOO", "oaif align: "),
            (json!({"command": "align", "loss": "grpo"}), "m, aligned online by GRPO", "oaif align: "),
        ] {
            let mut config = config;
            (config["model"], config["chosen-column"]) = (json!("m"), json!("chosen"));
            let html = report(&[(RUN, config.to_string()), (METRICS, lines((1..=3).map(step)))]).unwrap();
            assert!(html.contains(&format!("<h1>{title}</h1>")) && html.contains(lead), "{config}");
        }
    }

    #[test]
    fn names_on_the_hub_are_shown_without_their_commit() {
        let commit = "0123456789abcdef".repeat(3)[..40].to_owned();
        let config = json!({
            "model": format!("org/small@{commit}"), "dataset": format!("org/rows@{commit}:train"), "judge": "llm",
            "judge-model": "org/judge@main",
        });
        let html = report(&[(RUN, config.to_string())]).unwrap();
        for expected in ["<h1>small, aligned online</h1>", "<dd>rows:train</dd>", "<dd>llm, judge@main</dd>"]
        {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
    }

    #[test]
    fn the_order_flips_of_a_run_are_a_share_of_the_pairs_judged_in_both_orders() {
        let row = |step: usize, both: usize| json!({"step": step, "judge/judged": 8, "judge/both_orders": both, "judge/order_flip": both / 2});
        let html = |both: usize| report(&[(METRICS, lines((1..=3).map(|s| row(s, both))))]).unwrap();
        assert!(html(2).contains("Order flips 50.0") && !html(0).contains("Order flips"), "{}", html(2));
    }

    #[test]
    fn the_times_of_all_phases_are_shown() {
        let mut row = json!({"step": 1, "time/step_ms": 700.0});
        PHASES.iter().for_each(|phase| row[format!("time/{phase}_ms")] = json!(100.0));
        let html = report(&[(METRICS, lines([row]))]).unwrap();
        assert!(PHASES.iter().all(|phase| html.contains(&format!(">{phase}<"))), "{html}");
    }

    #[test]
    fn kl_is_named_by_the_model_that_it_is_measured_against() {
        let named = |config: Value| {
            let rows = (1..=3).map(|s| json!({"step": s, "objective/kl": 0.5}));
            let html = report(&[(RUN, config.to_string()), (METRICS, lines(rows))]).unwrap();
            ["KL to the reference model", "KL to the moving reference model", ">Log-ratio</text>"]
                .map(|name| html.contains(name))
        };
        assert_eq!(named(json!({"command": "align"})), [true, false, false]);
        assert_eq!(named(json!({"command": "align", "sync-ref-model": true})), [false, true, false]);
        assert_eq!(named(json!({"command": "dpo"})), [false, false, true]);
    }

    #[test]
    fn a_dpo_run_that_separates_its_pairs_gets_no_warning() {
        let html = |margin: f64| {
            let row = |step: usize| json!({"step": step, "objective/kl": 0.0, "rewards/margins": margin, "beta": 0.1});
            report(&[(RUN, json!({"command": "dpo"}).to_string()), (METRICS, lines((1..=20).map(row)))])
                .unwrap()
        };
        assert!(html(1e-5).contains("The policy hardly changed: its mean reward margin is 0.0000"));
        assert!(!html(1.0).contains("hardly changed"));
    }

    #[test]
    fn an_unfinished_run_with_incomplete_lines_is_reported() {
        let torn = lines([step(1), step(2)]) + "{\"step\":3,\"loss\":0.";
        let junk = format!("not json\n[1]\n{}\u{0}\n", torn);
        let config = json!({"total_steps": 10, "error": "the judge cannot be reached"});
        let html = report(&[(RUN, config.to_string()), (METRICS, junk), (PAIRS, "{\"ste".into())]).unwrap();
        for warning in [
            "Not finished: 2 of 10 steps are done.",
            "3 line(s) of metrics.jsonl are damaged and left out.",
            "The run ended with an error: the judge cannot be reached.",
        ] {
            assert!(html.contains(warning), "{warning}: {html}");
        }
        assert!(!html.contains("pairs.jsonl are damaged"), "its last line may be incomplete");
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
        assert!(html.contains("1 step(s) were skipped: their loss or gradient was not finite."), "{html}");
        assert!(html.contains("<h2>Learning</h2>") && !html.contains("Gradient norm"), "{html}");
        assert!(!html.contains("NaN") && !html.contains("null"), "{html}");
    }

    #[test]
    fn the_times_of_a_run_leave_out_its_first_step() {
        let timed = |n: usize, ms: f64| json!({"step": n, "time/step_ms": ms, "time/backward_ms": ms, "time/tokens_per_second": 10});
        let html =
            report(&[(METRICS, lines([timed(1, 15_000.0), timed(2, 1000.0), timed(3, 1000.0)]))]).unwrap();
        assert!(html.contains("The first step, which"), "{html}");
        assert!(!html.contains(">15<") && !html.contains("5.67"), "{html}");
        // A run of one step has no other step to show, and the first step here of a resumed run did not compile the kernels.
        let one = report(&[(METRICS, lines([timed(1, 15_000.0)]))]).unwrap();
        assert!(one.contains("Time by phase") && !one.contains("The first step, which"), "{one}");
    }

    #[test]
    fn memory_in_the_configuration_is_readable() {
        let config = json!({
            "model": "m", "adapter": null, "gpu_device": {"name": "llvmpipe", "index": 0},
            "memory": {"total": 2_576_980_378u64, "bytes": {"weights": 1_073_741_824u64}},
        });
        let html = report(&[(RUN, config.to_string())]).unwrap();
        for expected in ["<th>memory.total</th><td>2.4 GiB<", "<th>memory.bytes.weights</th><td>1.0 GiB<"] {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
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
        assert!(html.contains("rating 2.000, advantage 0.500") && !html.contains("response 1"), "{html}");
    }

    #[test]
    fn a_policy_gradient_run_reports_the_score_not_the_loss() {
        let row = |step: usize| json!({"step": step, "loss": 1e-9, "reward": 0.25 * step as f64, "reward_std": 0.5, "objective/scores": 7.0});
        let config = json!({"loss": "grpo"}).to_string();
        let html = report(&[(RUN, config), (METRICS, lines((1..=10).map(row)))]).unwrap();
        assert!(html.contains("2.5") && html.contains("Spread of the scores"), "{html}");
        assert!(!html.contains("mean over the pairs") && !html.contains("Certainty"), "{html}");
    }

    #[test]
    fn responses_before_and_after_are_shown() {
        let row = |verdict: &str, p: Value| {
            json!({
                "step": 30, "prompt": "Once", "starting_response": "dog", "policy_response": "a dog", "verdict": verdict,
                "p_12": p, "p_21": p,
            })
        };
        let rows = [row("win", json!(0.875)), row("loss", json!(0.25)), row("tie", Value::Null)];
        let html = report(&[(METRICS, lines([step(30)])), (EVAL_SAMPLES, lines(rows))]).unwrap();
        assert!(html.contains("<h2>Before and after</h2>"), "{html}");
        assert_eq!(html.matches("policy after 30 steps <b>✓ preferred").count(), 1, "{html}");
        assert_eq!(html.matches("starting model <b>✓ preferred").count(), 1, "{html}");
        assert!(
            html.contains("judge&#39;s probability for the policy&#39;s response: 0.875<")
                && html.contains(">a tie<"),
            "{html}"
        );
    }

    #[test]
    fn a_warning_is_shown_once_and_that_of_an_unfinished_run_too() {
        let row = |step: usize| json!({"step": step, "loss": 0.7, "objective/kl": 0.001, "val/contain_eos_token": 0.0});
        let html = |warnings: &[String]| {
            let config = json!({"command": "align", "warnings": warnings, "max-new-tokens": 24});
            report(&[(RUN, config.to_string()), (METRICS, lines((1..=20).map(row)))]).unwrap()
        };
        let without = html(&[]);
        assert_eq!(without.matches("class=\"warning\"").count(), 2, "{without}");
        assert!(
            without.contains("None of the responses") && without.contains("at --max-new-tokens 24"),
            "{without}"
        );
        let known = [
            health::unchanged_policy(&[0.002; 20]).unwrap(),
            health::unending_responses(640, 0, 24).unwrap(),
        ];
        let with = html(&known);
        assert_eq!(with.matches("class=\"warning\"").count(), 2, "{with}");
        assert!(with.contains("0.0020") && !with.contains("is 0.0010"), "{with}");
    }

    #[test]
    fn responses_are_escaped() {
        let attack = "</p><script>alert(1)</script>";
        let row = json!({"step": 1, "prompt": attack, "response_1": attack, "response_2": attack, "verdict": attack, "skipped": attack});
        let config = json!({"model": attack, "dataset": attack, "judge": attack, "loss": attack, "judge-template": attack});
        let html = report(&[(RUN, config.to_string()), (PAIRS, lines([row]))]).unwrap();
        assert!(!html.contains("<script") && html.matches("&lt;script&gt;").count() >= 6, "{html}");
    }
}
