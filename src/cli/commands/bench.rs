//! `oaif bench`.

use serde_json::{Value, json};

use super::annotator;
use crate::annotate::likelihood::{DEFAULT_TEMPLATE, Normalise};
use crate::annotate::rule::Rule;
use crate::bench::{Bench, Case, Measurement, Subject, kernels};
use crate::cli::args::{AnnotatorPlan, BenchPlan, Model, Suite};
use crate::error::Result;

pub fn run(plan: BenchPlan) -> Result<()> {
    let gpu = plan.gpu.open()?;
    let out = Output { json: plan.json };
    let bench = Bench::new(gpu.clone(), plan.runs)?;
    out.ceilings(&bench)?;
    let subject = match &plan.model {
        _ if plan.suites == [Suite::Kernels] => None,
        Model::Random(shape) => Some(Subject::random(&gpu, shape)?),
        Model::Folder(dir) => Some(Subject::load(&gpu, dir)?),
    };
    // One case at a time, each told when it is done.
    let each = |case: Result<Case>| out.measurements(&bench.measure(&mut [case?])?);
    for suite in plan.suites {
        out.heading(suite)?;
        match (suite, &subject) {
            (Suite::Kernels, _) => kernels(&gpu)?.try_for_each(each)?,
            (Suite::Step, Some(subject)) => match plan.sweep {
                None => subject.steps().try_for_each(each)?,
                Some(sweep) => {
                    let measured = bench.measure(&mut subject.sweep(sweep)?)?;
                    out.measurements(&measured)?;
                    let (what, ratio) = sweep.summary(&measured);
                    out.say(json!({"summary": what, "ratio": ratio}), format!("{what}: {ratio:.3}"))?;
                }
            },
            (Suite::Decode, Some(subject)) => {
                Subject::DECODED.into_iter().map(|s| subject.decode(s)).try_for_each(each)?;
            }
            (Suite::Align, Some(subject)) => {
                let judge = match &plan.judge_model {
                    None => AnnotatorPlan::Rule(Rule::parse("longer")?),
                    Some(dir) => AnnotatorPlan::Likelihood {
                        model: dir.clone(),
                        template: DEFAULT_TEMPLATE.into(),
                        instruction: String::new(),
                        normalise: Normalise::default(),
                    },
                };
                let mut judge = annotator(&gpu, judge, true)?;
                out.measurements(&[bench.align(subject, judge.as_mut())?])?;
            }
            (_, None) => unreachable!("only kernels do without a model"),
        }
    }
    Ok(())
}

/// A table, or JSON lines.
struct Output {
    json: bool,
}

impl Output {
    fn say(&self, row: Value, text: String) -> Result<()> {
        if self.json { crate::cli::print(row) } else { crate::cli::print(text) }
    }

    fn ceilings(&self, bench: &Bench) -> Result<()> {
        let (gpu, c) = (bench.gpu.summary(), &bench.ceilings);
        let row = json!({"version": env!("CARGO_PKG_VERSION"), "gpu": gpu, "tier": bench.gpu.tier(), "ceilings": c});
        let text = format!(
            "{} ({}, {})\nceilings: {:.1} GFLOP/s multiply-add, {:.1} GB/s, {:.1} µs a launch, {:.0} µs a submit",
            gpu.name, gpu.backend, gpu.driver, c.gflops, c.gigabytes_per_second, c.launch_us, c.submit_us
        );
        self.say(row, text)
    }

    fn heading(&self, suite: Suite) -> Result<()> {
        let title = format!("{suite:?}").to_lowercase();
        match self.json {
            true => Ok(()),
            false => crate::cli::print(format!(
                "\n{title:<52} {:>9} {:>9} {:>8} {:>7} {:>20} {:>8}",
                "ms", "min ms", "GFLOP/s", "GB/s", "of ceiling", "launches"
            )),
        }
    }

    fn measurements(&self, measured: &[Measurement]) -> Result<()> {
        measured.iter().try_for_each(|m| {
            let row = serde_json::to_value(m).expect("numbers and names");
            self.say(row, table_lines(m))
        })
    }
}

/// The line of the table, and under it what steps have to tell besides.
fn table_lines(m: &Measurement) -> String {
    let name = match m.facts.suite {
        "kernels" => format!("{} ({})", m.facts.case, m.facts.shape),
        _ => m.facts.case.clone(),
    };
    let ceiling = format!("{:.1}% {}", m.percent_of_ceiling, m.bound);
    let mut lines = format!(
        "{name:<52} {:>9.3} {:>9.3} {:>8.2} {:>7.2} {ceiling:>20} {:>8.0}",
        m.ms, m.min_ms, m.gflops, m.gigabytes_per_second, m.launches
    );
    if m.facts.suite == "kernels" {
        return lines;
    }
    let mut more = Vec::new();
    if let Some(us) = m.us_per_token() {
        more.push(format!("{us:.2} µs a token, {:.0} tokens/s", 1e6 / us));
    }
    if let Some(launches) = m.facts.launches_per_layer {
        more.push(format!("{launches} launches a layer"));
    }
    more.push(format!("host {:.1}%", m.host_percent));
    more.push(format!("{:.1} submits", m.submits));
    more.push(format!("{} made after the first", m.made_after_first));
    if let Some(bytes) = m.facts.memory_bytes {
        more.push(format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64));
    }
    lines.push_str(&format!("\n    {}", more.join(", ")));
    if !m.phases.is_empty() {
        let phase = |p: &crate::bench::Phase| format!("{} {:.0} ms ({:.0}%)", p.phase, p.ms, p.percent);
        lines.push_str(&format!("\n    {}", m.phases.iter().map(phase).collect::<Vec<_>>().join(", ")));
    }
    lines
}
