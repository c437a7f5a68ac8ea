//! The page that compares runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::charts::{self, Chart};
use super::page::Report;
use super::plot::Series;
use super::run::Run;
use super::run_result::{Change, rate_in_words};
use super::scale::{Estimate, Unit, alike, duration, number};
use super::section::{Cell, Section, Table};
use super::svg::COLOURS;
use crate::error::Result;

/// Keys of `run.json` that differ between runs and say nothing about their results.
const LEFT_OUT: [&str; 13] = [
    "output-dir",
    "working_dir",
    "gpu_tier",
    "kernels",
    "total_steps",
    "memory",
    "rows",
    "changes",
    "warnings",
    "error",
    "report",
    "report-to",
    "gpu",
];

/// Keys of the judge that do not change its verdicts.
const NOT_OF_VERDICTS: [&str; 15] = [
    "judge-cache",
    "judge-concurrency",
    "judge-key-env",
    "judge-key-file",
    "judge-max-cost",
    "judge-max-requests",
    "judge-patience",
    "judge-price-completion",
    "judge-price-prompt",
    "judge-probes",
    "judge-requests-per-minute",
    "judge-retries",
    "judge-timeout",
    "judge-tokens-per-minute",
    "judge-url",
];
/// Keys on which losses and rewards depend.
const OF_LOSSES: [&str; 25] = [
    "beta",
    "center-rewards-coefficient",
    "command",
    "cpo-alpha",
    "desirable-weight",
    "discopop-tau",
    "epsilon",
    "epsilon-high",
    "ipo-average-tokens",
    "label-smoothing",
    "ld-alpha",
    "loss",
    "loss-weights",
    "rdpo-alpha",
    "ref-model-mixup-alpha",
    "ref-model-sync-steps",
    "rpo-alpha",
    "scale-rewards",
    "simpo-gamma",
    "soft-labels",
    "sync-ref-model",
    "token-weights",
    "undesirable-weight",
    "use-weighting",
    "xpo-alpha",
];
/// The command that compares two policies with each other.
const DIRECTLY: &str = "compare two policies directly with oaif eval --run A --against B/model (with LoRA: --against-adapter \
                        B/adapter)";

/// A run and its name on the page.
struct Named {
    name: String,
    run: Run,
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
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    report.result(sentence(runs)).lead(format!("oaif report: {}.", list(&names)));
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
fn list(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

fn sentence(runs: &[Named]) -> String {
    let mut rated: Vec<(&str, Estimate)> =
        runs.iter().filter_map(|r| Some((r.name.as_str(), r.run.win_rate()?.rate))).collect();
    rated.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
    let incomparable = incomparable(runs);
    match rated.as_slice() {
        [] => "None of the runs measured a win rate: train with --eval-dataset FILE to measure one.".into(),
        [(name, rate)] => {
            format!("{name} wins {}; the other runs measured no win rate.", rate_in_words(*rate))
        }
        _ if !incomparable.is_empty() => {
            format!("The win rates cannot be compared: they are {}; {DIRECTLY}.", list(&incomparable))
        }
        [(best, rate), (second, next), ..] => {
            let overlap = match rate.low <= next.high {
                true => format!("The intervals overlap: {DIRECTLY}."),
                false => "The intervals do not overlap.".into(),
            };
            format!(
                "{best} has the highest win rate, {}, followed by {second} with {}. {overlap}",
                rate_in_words(*rate),
                rate_in_words(*next)
            )
        }
    }
}

/// Whether the configurations of the runs differ in one of the keys.
fn differ<'r>(runs: impl Iterator<Item = &'r Run> + Clone, keys: &[&str]) -> bool {
    let pairs = || runs.clone().zip(runs.clone().skip(1));
    keys.iter().any(|key| pairs().any(|(a, b)| a.config[*key] != b.config[*key]))
}

/// Why the win rates of the runs cannot be compared, if they cannot.
fn incomparable(runs: &[Named]) -> Vec<&'static str> {
    let rated = runs.iter().map(|named| &named.run).filter(|run| run.win_rate().is_some());
    let keys = rated.clone().filter_map(|run| run.config.as_object()).flat_map(|config| config.keys());
    let of_judge: Vec<&str> = keys
        .map(String::as_str)
        .filter(|key| key.starts_with("judge") && !NOT_OF_VERDICTS.contains(key))
        .collect();
    [
        ("from different judges", of_judge.as_slice()),
        ("against different starting models", &["model", "adapter"]),
        ("on different held-out prompts", &["eval-dataset", "max-eval-samples"]),
    ]
    .into_iter()
    .filter(|(_, keys)| differ(rated.clone(), keys))
    .map(|(how, _)| how)
    .collect()
}

/// Warnings about differences that make results hard to compare.
fn warnings(runs: &[Named]) -> Vec<String> {
    let mut warnings = Vec::new();
    if differ(runs.iter().map(|named| &named.run), &OF_LOSSES) {
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
    let of_some = |chart: &Chart, has: &dyn Fn(&Run) -> bool| {
        let runs = runs.iter().enumerate().filter(|(_, named)| has(&named.run));
        runs.fold(chart.plot(last), |plot, (i, Named { name, run })| {
            plot.series(styled(chart.curve(run, name).without_points(), i))
        })
    };
    let plot = |chart: &Chart| of_some(chart, &|_| true);
    // Different quantities under one metric.
    let losses = [&charts::PAIR_LOSS, &charts::TOKEN_LOSS]
        .map(|chart| of_some(chart, &|run| run.loss_chart() == Some(chart)));
    let distances = [&charts::KL, &charts::MOVING_KL, &charts::LOG_RATIO]
        .map(|chart| of_some(chart, &|run| run.kl_chart() == chart));
    let held_out = [
        charts::WIN_RATE,
        charts::HELD_OUT_KL,
        charts::HELD_OUT_LENGTH,
        charts::HELD_OUT_LOSS,
        charts::HELD_OUT_ACCURACY,
        charts::HELD_OUT_MARGIN,
    ];
    let others = [
        charts::LENGTH,
        charts::MARGIN,
        charts::ACCURACY,
        charts::ENDED,
        charts::ENTROPY,
        charts::GRADIENT_NORM,
        charts::LEARNING_RATE,
        charts::SPEED,
    ];
    let training = [plot(&charts::SCORE)].into_iter().chain(losses).chain(distances);
    let training = training.chain(others.iter().map(plot));
    vec![
        held_out.iter().map(plot).fold(Section::new("Held-out rows"), Section::plot),
        training.fold(Section::new("Training").text("Running means over the steps."), Section::plot),
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
    fn a_winner_is_named_only_where_judges_models_and_prompts_are_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| temp.path().join(name));
        let html = |a: Value, b: Value| {
            run(&dirs[0], &a, Some(0.6));
            run(&dirs[1], &b, Some(0.62));
            Report::comparing(&dirs).unwrap().html()
        };
        let same =
            html(json!({"judge": "llm", "judge-timeout": 60}), json!({"judge": "llm", "judge-timeout": 5}));
        assert!(same.contains("b has the highest win rate"), "{same}");
        assert!(
            same.contains("The intervals overlap: compare two policies directly with oaif eval --run A"),
            "{same}"
        );
        for (a, b, how) in [
            (json!({"judge-instruction": "short"}), json!({}), "from different judges;"),
            (
                json!({"model": "m", "adapter": "x"}),
                json!({"model": "m"}),
                "against different starting models;",
            ),
            (
                json!({"judge": "llm", "eval-dataset": "x"}),
                json!({"judge": "rule", "eval-dataset": "y"}),
                "from different judges and on different held-out prompts;",
            ),
        ] {
            let html = html(a, b);
            assert!(html.contains(&format!("cannot be compared: they are {how}")), "{how}: {html}");
            assert!(!html.contains("highest win rate"), "{html}");
        }
    }

    #[test]
    fn runs_with_another_loss_or_reference_have_charts_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let dirs = ["a", "b", "c"].map(|name| temp.path().join(name));
        let configs = [json!({}), json!({"sync-ref-model": true}), json!({"command": "sft"})];
        for (dir, config) in dirs.iter().zip(configs) {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join(RUN), config.to_string()).unwrap();
            let row = json!({"step": 1, "loss": 0.5, "objective/kl": 0.1});
            fs::write(dir.join(METRICS), format!("{row}\n")).unwrap();
        }
        let html = Report::comparing(&dirs).unwrap().html();
        for expected in [
            ">KL to the reference model</text>",
            ">KL to the moving reference model</text>",
            ">Log-ratio</text>",
            ">nats per token</text>",
            ">mean over the pairs</text>",
        ] {
            assert_eq!(html.matches(expected).count(), 1, "{expected}: {html}");
        }
    }

    #[cfg(feature = "cli")]
    #[test]
    fn the_keys_are_those_of_the_flags() {
        let mut commands = crate::cli::command();
        commands.build();
        let flags = |command: &str, of: &str| -> Vec<String> {
            let command = commands.find_subcommand(command).unwrap();
            let flags = command
                .get_arguments()
                .filter(|flag| flag.get_help_heading().is_some_and(|h| h.starts_with(of)));
            flags.filter_map(|flag| flag.get_long().map(str::to_owned)).collect()
        };
        for command in ["align", "dpo", "reward"] {
            for flag in flags(command, "Loss") {
                assert!(OF_LOSSES.contains(&flag.as_str()), "{flag}");
            }
        }
        let of_judge = flags("align", "Judge");
        let is_known = |key: &&str| of_judge.iter().any(|flag| flag == key);
        // Servers are a feature of their own.
        let known = NOT_OF_VERDICTS.iter().filter(|key| cfg!(feature = "http") || is_known(key));
        assert!(known.copied().all(|key| is_known(&key)), "{of_judge:?}");
    }

    #[test]
    fn results_that_cannot_be_compared_give_warnings() {
        let temp = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| temp.path().join(name).join("run"));
        run(&dirs[0], &json!({"judge": "llm", "loss": "dpo", "total_steps": 30}), Some(0.6));
        run(&dirs[1], &json!({"judge": "rule", "loss": "ipo"}), Some(0.6));
        let html = Report::comparing(&dirs).unwrap().html();
        for expected in [
            "The win rates cannot be compared: they are from different judges; compare",
            "different loss functions",
            "a/run is not finished: 20 of 30",
        ] {
            assert!(html.contains(expected), "{expected}");
        }
        assert!(!html.contains("has the highest win rate"), "{html}");
        let missing =
            Report::comparing(&[dirs[0].clone(), temp.path().join("nowhere")]).unwrap_err().to_string();
        assert!(missing.contains("nowhere: is not a folder"), "{missing}");
    }
}
