//! The summaries of a training run, printed at its start and its end.

use std::path::Path;

use super::training::quoted;
use crate::cli::args::TrainPlan;
use crate::data::chat::ChatTemplate;
use crate::error::{Result, size};
use crate::gpu::Gpu;
use crate::model::Model;
use crate::model::weights::Weight;
use crate::numbers::decimals;
use crate::report::RunEnds;
use crate::train::rows::EncodedRows;

/// The number of parameters of a model, and of those that are trained.
pub struct Parameters {
    all: usize,
    trained: usize,
}

impl Parameters {
    pub fn of(model: &Model) -> Parameters {
        let count = |weights: &crate::model::Weights| weights.iter().map(Weight::elements).sum();
        Parameters { all: count(model.base()), trained: count(model.trained()) }
    }
}

/// The summary at the start of a run: names and values.
pub struct Start(Vec<(String, String)>);

impl Start {
    /// `rows`: the rows of the dataset that were kept. `judge`: the name of the judge, if any.
    pub fn of(
        gpu: &Gpu,
        plan: &TrainPlan,
        parameters: &Parameters,
        rows: &EncodedRows,
        steps: usize,
        judge: Option<String>,
    ) -> Start {
        let (summary, options) = (gpu.summary(), &plan.options);
        let trained = match (&options.lora, &options.adapter) {
            (Some(lora), _) => format!("a LoRA adapter of rank {}", lora.rank),
            (None, Some(adapter)) => format!("the LoRA adapter {}", adapter.display()),
            (None, None) => "all weights".into(),
        };
        let (table, kept, read) = (rows.table(), rows.len(), rows.table().read());
        let rows = kept_of((kept, read));
        let batch = options.rows_of_step();
        let fact = |name: &str, fact: String| (name.to_owned(), fact);
        let mut facts = vec![
            fact("GPU", format!("{} ({}), {}", summary.name, summary.backend, gpu.tier())),
            fact("memory", format!("{} of GPU memory", size(gpu.memory().total))),
            fact("model", format!("{}, {} parameters", name(plan), count(parameters.all))),
            fact("training", format!("{trained}, {} parameters", count(parameters.trained))),
            fact("rows", format!("{rows}, {steps} steps of {batch}")),
        ];
        facts.extend(table.lines());
        facts.extend(judge.map(|judge| fact("judge", judge)));
        let rate = format!("{:e}, {}", options.learning_rate, options.schedule.name());
        facts.push(fact("learning rate", rate));
        Start(facts)
    }

    /// Adds the held-out rows: the numbers of rows kept and read.
    pub fn with_held_out(mut self, rows: Option<(usize, usize)>) -> Start {
        self.0.extend(rows.map(|rows| ("held out".to_owned(), format!("{} rows", kept_of(rows)))));
        self
    }

    /// The names and values, in the order in which they are printed.
    pub fn facts(self) -> Vec<(String, String)> {
        self.0
    }
}

/// "120", "100 of 120".
fn kept_of((kept, read): (usize, usize)) -> String {
    if kept == read { read.to_string() } else { format!("{kept} of {read}") }
}

/// The name of the model as given, rather than the folder of a download.
pub fn name(plan: &TrainPlan) -> String {
    let given = plan.config["model"].as_str();
    given.map_or_else(|| plan.model.display().to_string(), str::to_owned)
}

/// "263 thousand", "1.1 billion".
fn count(parameters: usize) -> String {
    let value = parameters as f64;
    for (unit, name) in [(1e9, "billion"), (1e6, "million"), (1e3, "thousand")] {
        // 999.96 thousand is printed as 1.0 million.
        if value >= 0.9995 * unit {
            let value = value / unit;
            let digits = if value < 9.95 { 1 } else { 0 };
            return format!("{value:.digits$} {name}");
        }
    }
    parameters.to_string()
}

/// The summary at the end of a run of `command`: means of its first and last tenth, and commands to use the result in `saved`.
pub fn end(command: &str, plan: &TrainPlan, saved: &Path) -> Result<String> {
    let ends = RunEnds::of_run(plan.options.folder())?;
    let change = |name: &'static str, metric: &str, text: &dyn Fn(f64) -> String, unit: &str| {
        let (first, last) = ends.of(metric)?;
        Some((name, format!("{} -> {}{unit}", text(first), text(last))))
    };
    let plain = |digits: usize| move |value: f64| decimals(value, digits);
    let percent = |share: f64| decimals(100.0 * share, 1);
    // The policy samples the responses in `align` alone; the mean log-ratio of given ones is not a divergence.
    let kl = match (command, &plan.options.reference_sync) {
        ("align", Some(_)) => "KL to the moving reference model",
        ("align", None) => "KL to the reference model",
        _ => "log-ratio",
    };
    let changes = [
        // Policy gradients show the mean score: their loss stays around 0.
        change("mean score", "reward", &plain(3), "").or_else(|| change("loss", "loss", &plain(3), "")),
        change(kl, "objective/kl", &plain(3), " nats"),
        change("response length", "completions/mean_length", &plain(1), " tokens"),
        change("reward accuracy", "rewards/accuracies", &percent, " %"),
    ];
    let changes: Vec<(&str, String)> = changes.into_iter().flatten().collect();
    let width = changes.iter().map(|(name, _)| name.len() + 2).max().unwrap_or_default();
    let (model, saved) = (quoted(Path::new(&name(plan))), quoted(saved));
    let adapted = plan.options.lora.is_some() || plan.options.adapter.is_some();
    let mut lines = vec!["Means of the first tenth of the steps -> of the last tenth:".to_owned()];
    lines.extend(changes.into_iter().map(|(name, text)| format!("{name:<width$}{text}")));
    let last = |metric: &str| ends.last(metric);
    if let (Some(rate), Some(low), Some(high), Some(prompts), Some(ties)) = (
        last("eval/win_rate"),
        last("eval/win_rate_low"),
        last("eval/win_rate_high"),
        last("eval/prompts"),
        last("eval/ties"),
    ) {
        let ties = if ties == 1.0 { "1 tie".into() } else { format!("{ties} ties") };
        lines.push(format!(
            "The policy wins {:.1} % of {prompts} held-out prompts against the starting model, by the judge of this run (95 % \
             interval {:.1} to {:.1}); {ties}",
            100.0 * rate,
            100.0 * low,
            100.0 * high
        ));
    }
    if plan.config["judge"].is_string() {
        let held_out =
            plan.config["eval-dataset"].as_str().map_or("HELD-OUT.jsonl".into(), |p| quoted(Path::new(p)));
        let run = quoted(plan.options.folder());
        lines.push(format!(
            "evaluate it: oaif eval --run {run} --dataset {held_out} --judge llm --judge-model ANOTHER-JUDGE"
        ));
    }
    if command == "reward" {
        let model = match adapted {
            true => format!("{model} --judge-adapter {saved}"),
            false => saved,
        };
        let no_eos = plan.config["no-append-eos"] == true;
        let as_trained = if no_eos { " --judge-no-append-eos" } else { "" };
        lines.push(format!(
            "try it:      oaif judge --judge reward --judge-model {model}{as_trained} --input answers.jsonl"
        ));
        return Ok(lines.join("\n"));
    }
    let result = match adapted {
        true => format!("--model {model} --adapter {saved}"),
        false => format!("--model {saved}"),
    };
    // The run has used the template already, so errors are ignored here.
    lines.push(match ChatTemplate::load(&plan.model) {
        Ok(Some(_)) => format!("try it:      oaif chat {result}"),
        _ => format!("try it:      oaif generate {result} --prompt \"Once upon a time\""),
    });
    if adapted {
        lines.push(format!("merge it:    oaif export {result} --output merged"));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_counted_in_thousands_millions_and_billions() {
        for (parameters, text) in [
            (512, "512"),
            (8_192, "8.2 thousand"),
            (263_328, "263 thousand"),
            (999_999, "1.0 million"),
            (134_515_008, "135 million"),
            (1_235_814_400, "1.2 billion"),
        ] {
            assert_eq!(count(parameters), text);
        }
    }
}
