//! The summaries of a training run, printed at its start and its end.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::training::quoted;
use crate::cli::args::TrainPlan;
use crate::cli::console::Facts;
use crate::data::chat::ChatTemplate;
use crate::error::size;
use crate::gpu::Gpu;
use crate::model::Model;
use crate::model::weights::Weight;
use crate::numbers::decimals;
use crate::report::{Estimate, RunEnds, unclear};
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

/// The summary at the start of a run.
pub struct Start(Facts);

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
        let mut facts = Facts::default();
        let name = name(plan);
        facts.line("GPU", format!("{} ({}), {}", summary.name, summary.backend, gpu.tier()));
        facts.field("gpu", json!(summary));
        facts.field("tier", json!(gpu.tier()));
        facts.line("memory", format!("{} of GPU memory", size(gpu.memory().total)));
        facts.field("memory_bytes", json!(gpu.memory().total));
        facts.line("model", format!("{name}, {} parameters", count(parameters.all)));
        facts.field("model", json!(name));
        facts.field("parameters", json!(parameters.all));
        facts.line("training", format!("{trained}, {} parameters", count(parameters.trained)));
        facts.field("trained", json!(trained));
        facts.field("trained_parameters", json!(parameters.trained));
        facts.line("rows", format!("{rows}, {steps} steps of {batch}"));
        facts.field("data", table.statistics());
        facts.field("total_steps", json!(steps));
        facts.field("rows_per_step", json!(batch));
        facts.lines.extend(table.lines());
        if let Some(judge) = judge {
            facts.field("judge", json!(judge));
            facts.line("judge", judge);
        }
        facts.line("learning rate", format!("{:e}, {}", options.learning_rate, options.schedule.name()));
        facts.field("learning_rate", json!(options.learning_rate));
        facts.field("lr_scheduler_type", json!(options.schedule.name()));
        Start(facts)
    }

    /// Adds the held-out rows, called `what`: the numbers of rows kept and read.
    pub fn with_held_out(mut self, what: &str, rows: Option<(usize, usize)>) -> Start {
        if let Some(rows) = rows {
            self.0.line("held out", format!("{} {what}", kept_of(rows)));
            self.0.field("held_out_rows", json!(rows.0));
        }
        self
    }

    /// What is printed.
    pub fn facts(self) -> Facts {
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
pub fn end(command: &str, plan: &TrainPlan, saved: &Path, ends: &RunEnds) -> String {
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
    let mut lines: Vec<String> = held_out(ends).into_iter().collect();
    lines.push("Means of the first tenth of the steps -> of the last tenth:".to_owned());
    lines.extend(changes.into_iter().map(|(name, text)| format!("{name:<width$}{text}")));
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
            "try it:      oaif judge --judge reward --judge-model {model}{as_trained} --input responses.jsonl"
        ));
        return lines.join("\n");
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
    lines.join("\n")
}

/// The result on held-out prompts or pairs, if the run has one.
fn held_out(ends: &RunEnds) -> Option<String> {
    let last = |metric: &str| ends.last(metric);
    let share = |Estimate { value, low, high }: Estimate| {
        format!("{:.1} % (95 % interval {:.1} to {:.1})", 100.0 * value, 100.0 * low, 100.0 * high)
    };
    if let Some(rate) = last("eval/win_rate") {
        let rate = Estimate::new(rate, last("eval/win_rate_low")?, last("eval/win_rate_high")?);
        let ties = last("eval/ties")?;
        let ties = if ties == 1.0 { "1 tie".into() } else { format!("{ties} ties") };
        return Some(format!(
            "The policy wins {} of {} held-out prompts against the starting model, by the judge of this run; {ties}.{}",
            share(rate),
            last("eval/prompts")?,
            unclear(rate)
        ));
    }
    let (accuracy, pairs) = (last("eval/rewards/accuracies")?, last("eval/pairs")?);
    let accuracy = Estimate::share((accuracy * pairs).round() as usize, pairs as usize);
    Some(format!(
        "The chosen response has the higher reward in {} of {pairs} held-out pairs; their loss is {:.3}.",
        share(accuracy),
        last("eval/loss")?
    ))
}

/// The fields of the event "end": the path of the result, means over the first and the last tenth of the steps, and the
/// result on held-out rows.
pub fn end_fields(saved: &Path, ends: &RunEnds) -> Value {
    const MEANS: [&str; 6] = [
        "loss",
        "reward",
        "objective/kl",
        "completions/mean_length",
        "rewards/accuracies",
        "rewards/margins",
    ];
    let means = MEANS.into_iter().filter_map(|name| {
        let (first, last) = ends.of(name)?;
        Some((name.to_owned(), json!({"first": first, "last": last})))
    });
    let evaluation = ends.names().filter(|name| name.starts_with("eval/"));
    let evaluation = evaluation.map(|name| (name.to_owned(), json!(ends.last(name))));
    json!({
        "output": saved.display().to_string(),
        "means": Map::from_iter(means),
        "evaluation": Map::from_iter(evaluation),
    })
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
