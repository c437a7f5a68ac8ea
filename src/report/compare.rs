//! The page that compares runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::page::Report;
use super::plot::{Plot, Series};
use super::run::{Kind, Run};
use super::run_result::{Change, rate_in_words};
use super::scale::{Estimate, Unit, alike, duration, number};
use super::section::{Cell, Section, Table};
use super::svg::COLOURS;
use crate::error::Result;

/// Keys of `run.json` that differ between runs and say nothing about their results.
const LEFT_OUT: [&str; 12] = [
    "output-dir",
    "working_dir",
    "gpu_tier",
    "kernels",
    "total_steps",
    "memory",
    "rows",
    "changes",
    "warnings",
    "report",
    "report-to",
    "gpu",
];

/// A run and its name on the page.
struct Named {
    name: String,
    run: Run,
}

/// How the curve of a metric is drawn.
#[derive(Clone, Copy)]
enum Curve {
    /// The running mean over all steps.
    Mean,
    /// The steps that have the metric.
    Points,
}

impl Report {
    /// The page that compares the runs in these folders: their results, the differences between their configurations, and
    /// their metrics in common charts.
    ///
    /// # Errors
    /// As [`Report::of_run`], for the first folder that is not a run.
    pub fn comparing(dirs: &[PathBuf]) -> Result<Report> {
        let runs: Vec<Named> = names(dirs)
            .into_iter()
            .zip(dirs)
            .map(|(name, dir)| Ok(Named { name, run: Run::open(dir)? }))
            .collect::<Result<_>>()?;
        Ok(report(&runs))
    }
}

/// The names of the folders, or as many of the last parts of their paths as are needed to distinguish them.
fn names(dirs: &[PathBuf]) -> Vec<String> {
    let parts = |dir: &Path| -> Vec<String> {
        let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        whole.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    };
    let all: Vec<Vec<String>> = dirs.iter().map(|dir| parts(dir)).collect();
    let longest = all.iter().map(Vec::len).max().unwrap_or_default();
    let named = |count: usize| -> Vec<String> {
        all.iter().map(|parts| parts[parts.len().saturating_sub(count)..].join("/")).collect()
    };
    let differ = |names: &Vec<String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    // The same folder twice has one name.
    (1..longest).map(named).find(differ).unwrap_or_else(|| named(1))
}

fn report(runs: &[Named]) -> Report {
    let mut report = Report::new(format!("{} runs compared", runs.len()));
    report.result(sentence(runs)).lead(format!("oaif report: {}.", list(runs)));
    for warning in warnings(runs) {
        report.warning(warning);
    }
    report.add(results(runs)).add(differences(runs));
    for section in curves(runs) {
        report.add(section);
    }
    report.explain_terms();
    report
}

/// "a, b and c".
fn list(runs: &[Named]) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

fn sentence(runs: &[Named]) -> String {
    let mut rated: Vec<(&str, Estimate)> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.win_rate()?.rate))).collect();
    rated.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
    match rated.as_slice() {
        [] => "None of the runs measured a win rate: train with --eval-dataset FILE to measure one.".into(),
        [(name, rate)] => {
            format!("{name} wins {}; the other runs measured no win rate.", rate_in_words(*rate))
        }
        [(best, rate), (second, next), ..] => {
            let overlap = match rate.low <= next.high {
                true => "The intervals overlap: this is no clear difference.",
                false => "The intervals do not overlap.",
            };
            format!(
                "{best} has the highest win rate, {}, followed by {second} with {}. {overlap}",
                rate_in_words(*rate),
                rate_in_words(*next)
            )
        }
    }
}

/// Warnings about differences that make results hard to compare.
fn warnings(runs: &[Named]) -> Vec<String> {
    let differ = |runs: &[&Named], keys: &[&str]| {
        keys.iter()
            .any(|key| runs.windows(2).any(|pair| pair[0].run.config[*key] != pair[1].run.config[*key]))
    };
    let all: Vec<&Named> = runs.iter().collect();
    let rated: Vec<&Named> = runs.iter().filter(|r| r.run.win_rate().is_some()).collect();
    let mut warnings = Vec::new();
    if differ(&rated, &["judge", "judge-model", "judge-rule", "judge-template", "judge-command"]) {
        warnings.push(
            "The win rates are from different judges and cannot be compared: use oaif eval with one judge."
                .into(),
        );
    }
    if differ(&rated, &["model"]) {
        warnings.push(
            "The win rates are against different starting models and cannot be compared: use oaif eval --against DIR with \
             one model."
                .into(),
        );
    }
    if differ(&rated, &["eval-dataset", "max-eval-samples"]) {
        warnings.push("The win rates are from different held-out prompts.".into());
    }
    if differ(&all, &["command", "loss", "beta"]) {
        warnings.push(
            "The runs have different loss functions: their losses and rewards cannot be compared.".into(),
        );
    }
    for Named { name, run } in runs {
        if let Some((done, total)) = run.unfinished() {
            warnings.push(format!(
                "{name} is not finished: {} of {} steps are done.",
                number(done),
                number(total)
            ));
        }
    }
    warnings
}

/// A row for each run.
fn results(runs: &[Named]) -> Section {
    type Column<'r> = (&'r str, Vec<Option<Cell>>);
    let plain = |of: &dyn Fn(&Run) -> Option<Change>, unit: &str| -> Vec<Option<Cell>> {
        let values: Vec<Option<f64>> = runs.iter().map(|r| of(&r.run).map(|change| change.last)).collect();
        let largest = values.iter().flatten().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        values
            .into_iter()
            .map(|value| Some(format!("{}{unit}", alike([value?, largest])[0]).into()))
            .collect()
    };
    let shares = |of: &dyn Fn(&Run) -> Option<Change>| -> Vec<Option<Cell>> {
        runs.iter().map(|r| Some((Estimate::from(of(&r.run)?.last), Unit::Share).into())).collect()
    };
    let each = |of: &dyn Fn(&Run) -> Option<Cell>| runs.iter().map(|r| of(&r.run)).collect::<Vec<_>>();
    let loss = |run: &Run| if run.learns_from_scores() { None } else { run.loss_change() };
    let columns: Vec<Column<'_>> = vec![
        ("run", runs.iter().map(|r| Some(r.name.as_str().into())).collect()),
        ("win rate", each(&|run| Some((run.win_rate()?.rate, Unit::Share).into()))),
        ("KL", plain(&Run::distance, " nats")),
        ("length", plain(&Run::length, " tokens")),
        ("score", plain(&|run| run.change("reward"), "")),
        ("loss", plain(&loss, "")),
        ("reward accuracy", shares(&Run::accuracy)),
        ("steps", each(&|run| Some(run.done().into()))),
        ("time", each(&|run| Some(duration(Some(run.seconds()).filter(|s| *s > 0.0)?).into()))),
    ];
    let columns: Vec<Column<'_>> =
        columns.into_iter().filter(|(_, cells)| cells.iter().any(Option::is_some)).collect();
    let mut table = Table::new(columns.iter().map(|(name, _)| *name));
    for i in 0..runs.len() {
        table = table.row(columns.iter().map(|(_, cells)| cells[i].clone().unwrap_or_else(|| "–".into())));
    }
    Section::new("Results")
        .text(
            "Win rates, with 95 % intervals, are from the last evaluation on held-out prompts against the starting model. \
             The other figures are from held-out rows where a run has them, else means over the last tenth of its steps. The \
             time is that of the steps.",
        )
        .table(table)
}

/// The keys of the configuration that differ.
fn differences(runs: &[Named]) -> Section {
    let mut keys: Vec<&String> = Vec::new();
    for run in runs {
        let own = run.run.config.as_object().into_iter().flat_map(|config| config.keys());
        keys.extend(
            own.filter(|key| !LEFT_OUT.contains(&key.as_str()))
                .filter(|key| !keys.contains(key))
                .collect::<Vec<_>>(),
        );
    }
    let text = |value: &Value| match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            map.get("name").and_then(Value::as_str).map_or_else(|| value.to_string(), str::to_owned)
        }
        other => other.to_string(),
    };
    let columns = ["option"].into_iter().chain(runs.iter().map(|run| run.name.as_str()));
    let mut table = Table::new(columns);
    let mut none = true;
    for key in keys {
        let values: Vec<String> = runs.iter().map(|run| text(&run.run.config[key])).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table = table.row([key.as_str().into()].into_iter().chain(values.into_iter().map(Cell::from)));
            none = false;
        }
    }
    let text = match none {
        true => "The configurations are the same.",
        false => "Options that differ between the runs; – means that a run does not have the option.",
    };
    let table = if none { Table::new(["option"]).row(["no difference".into()]) } else { table };
    Section::new("Configuration").text(text).table(table)
}

/// The metrics of all runs in common charts.
fn curves(runs: &[Named]) -> Vec<Section> {
    let last = runs.iter().map(|run| run.run.done()).fold(0.0, f64::max);
    let plot = |title: &str, label: &str, metric: &str, curve: Curve| {
        runs.iter().enumerate().fold(
            Plot::new(title).labels("step", label).over(0.0, last),
            |plot, (i, named)| {
                let values = named.run.evaluated(metric);
                let series = match curve {
                    Curve::Mean => Series::noisy(&named.name, values).without_points(),
                    Curve::Points => {
                        let mut values = values.peekable();
                        let start = values.peek().and_then(|_| named.run.before_training(metric));
                        Series::line(&named.name, start.map(|value| (0.0, value)).into_iter().chain(values))
                    }
                };
                plot.series(styled(series, i))
            },
        )
    };
    let share = |plot: Plot| plot.unit(Unit::Share);
    let online = runs.iter().all(|run| run.run.kind() == Kind::Align);
    let (kl, kl_label) = match online {
        true => ("KL to the reference", "mean of log π − log π₀ of a response, nats"),
        false => ("log π − log π₀", "mean over responses, nats"),
    };
    vec![
        Section::new("Held-out rows")
            .plot(
                share(plot(
                    "Win rate against the starting model",
                    "on held-out prompts",
                    "eval/win_rate",
                    Curve::Points,
                ))
                .level(0.5),
            )
            .plot(plot("KL on held-out prompts", "nats", "eval/kl", Curve::Points).level(0.0))
            .plot(
                plot("Length on held-out prompts", "tokens, mean", "eval/mean_length", Curve::Points)
                    .from_zero(),
            )
            .plot(plot("Loss on held-out pairs", "mean", "eval/loss", Curve::Points))
            .plot(
                share(plot(
                    "Accuracy on held-out pairs",
                    "share of the pairs with a margin above 0",
                    "eval/rewards/accuracies",
                    Curve::Points,
                ))
                .level(0.5),
            ),
        Section::new("Training")
            .text("Running means over the steps.")
            .plot(plot("Score", "of a response, mean", "reward", Curve::Mean))
            .plot(plot("Loss", "mean", "loss", Curve::Mean))
            .plot(plot(kl, kl_label, "objective/kl", Curve::Mean).level(0.0))
            .plot(
                plot("Length of the responses", "tokens, mean", "completions/mean_length", Curve::Mean)
                    .from_zero(),
            )
            .plot(
                plot("Reward margin", "chosen minus rejected, mean", "rewards/margins", Curve::Mean)
                    .level(0.0),
            )
            .plot(
                share(plot(
                    "Reward accuracy",
                    "share of the pairs with a margin above 0",
                    "rewards/accuracies",
                    Curve::Mean,
                ))
                .level(0.5),
            )
            .plot(
                share(plot(
                    "Ended by themselves",
                    "share of the responses",
                    "val/contain_eos_token",
                    Curve::Mean,
                ))
                .from_zero(),
            )
            .plot(plot("Entropy", "of the next token, nats", "objective/entropy", Curve::Mean))
            .plot(plot("Gradient norm", "before clipping", "grad_norm", Curve::Mean).from_zero())
            .plot(plot("Learning rate", "", "learning_rate", Curve::Points).from_zero())
            .plot(
                plot(
                    "Speed",
                    "tokens per second, sampled and trained on",
                    "time/tokens_per_second",
                    Curve::Mean,
                )
                .from_zero(),
            ),
    ]
}

/// In the colour of run number `i`; dashed where colours are used again.
fn styled(series: Series, i: usize) -> Series {
    let series = series.colour(i % COLOURS);
    if (i / COLOURS) % 2 == 1 { series.dashed() } else { series }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::train::run_dir::{METRICS, RUN};

    fn run(dir: &Path, config: &Value, rate: Option<f64>) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(RUN), config.to_string()).unwrap();
        let row = |step: usize| {
            let mut row = json!({"step": step, "loss": 0.7, "completions/mean_length": 10 + step, "time/step_ms": 500.0});
            if let Some(rate) = rate.filter(|_| step == 20) {
                row["eval/win_rate"] = json!(rate);
                row["eval/win_rate_low"] = json!(rate - 0.1);
                row["eval/win_rate_high"] = json!(rate + 0.1);
                row["eval/prompts"] = json!(50);
            }
            format!("{row}\n")
        };
        fs::write(dir.join(METRICS), (1..=20).map(row).collect::<String>()).unwrap();
    }

    #[test]
    fn runs_are_compared_by_results_differences_and_curves() {
        let temp = tempfile::tempdir().unwrap();
        let config = |rate: f64| json!({"command": "align", "model": "m", "learning-rate": rate, "output-dir": rate, "seed": 7, "<b>": rate});
        let dirs = ["slow", "<fast>", "none"].map(|name| temp.path().join(name));
        run(&dirs[0], &config(1e-4), Some(0.55));
        run(&dirs[1], &config(1e-3), Some(0.8));
        run(&dirs[2], &config(1e-3), None);
        let html = Report::comparing(&dirs).unwrap().html();
        for expected in [
            "&lt;fast&gt; has the highest win rate, 80\u{a0}% (95\u{a0}% interval 70 to 90), followed by slow with 55\u{a0}%",
            "The intervals do not overlap.",
            "<td>learning-rate</td><td>0.0001</td><td>0.001</td><td>0.001</td>",
            "80.0\u{a0}% <small>(70.0 to 90.0\u{a0}%)</small>",
            "<td>slow</td>",
            ">Length of the responses</text>",
        ] {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
        for absent in [
            "<td>seed",
            "<td>output-dir",
            "<td>model",
            "<fast>",
            "<td><b>",
            "not finished",
            "NaN",
            "class=\"warning\"",
        ] {
            assert!(!html.contains(absent), "{absent}");
        }
        // Each run has its own colour in every chart.
        for class in ["curve s0", "curve s1", "curve s2"] {
            assert!(html.contains(class), "{class}");
        }
        let same = Report::comparing(&[dirs[2].clone(), dirs[2].clone()]).unwrap().html();
        assert!(same.contains("The configurations are the same."), "{same}");
    }

    #[test]
    fn results_that_cannot_be_compared_give_warnings() {
        let temp = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| temp.path().join(name).join("run"));
        run(&dirs[0], &json!({"judge": "llm", "loss": "dpo", "total_steps": 30}), Some(0.6));
        run(&dirs[1], &json!({"judge": "rule", "loss": "ipo"}), Some(0.6));
        let html = Report::comparing(&dirs).unwrap().html();
        for expected in [
            "different judges",
            "different loss functions",
            "a/run is not finished: 20 of 30",
            "no clear difference",
        ] {
            assert!(html.contains(expected), "{expected}");
        }
        let missing =
            Report::comparing(&[dirs[0].clone(), temp.path().join("nowhere")]).unwrap_err().to_string();
        assert!(missing.contains("nowhere: is not a folder"), "{missing}");
    }
}
