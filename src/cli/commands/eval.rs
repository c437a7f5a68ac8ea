//! `oaif eval`.

use super::training::quoted;
use crate::Wait;
use crate::cli::args::EvalPlan;
use crate::cli::console::{Console, say};
use crate::cli::labelling::Labelling;
use crate::cli::signals;
use crate::error::{Error, Result};
use crate::eval::evaluation::{Evaluated, Evaluation, Event, Inputs};
use crate::report::Report;
use crate::train::Observer;
use crate::train::run_dir::REPORT;

pub fn run(plan: EvalPlan) -> Result<()> {
    signals::catch_with_message("stopping; responses and verdicts so far are saved");
    let mut console = Console::new();
    let done = evaluate(&plan, &mut console);
    console.clear();
    let output = &plan.options.output;
    let evaluated = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted | Error::Judge { .. }) {
            say(format_args!(
                "oaif: responses and verdicts so far are saved in {}; the same command continues from there",
                quoted(output)
            ));
        }
    })?;
    if plan.json {
        return crate::cli::print(format!("{:#}", evaluated.json(&plan.config)));
    }
    crate::cli::print(evaluated.result.sentence())?;
    let table = evaluated.result.table();
    let width = table.iter().map(|(name, _)| name.len() + 2).max().unwrap_or_default();
    for (name, text) in table {
        crate::cli::print(format!("{name:<width$}{text}"))?;
    }
    say(format_args!("oaif: the report is {}", output.join(REPORT).display()));
    Ok(())
}

fn evaluate(plan: &EvalPlan, console: &mut Console) -> Result<Evaluated> {
    console.phase("reading the prompts");
    let inputs = Inputs::read(&plan.options)?;
    let gpu = plan.gpu.open()?;
    let evaluation = Evaluation::open(&gpu, plan.options.clone(), inputs).wait()?;
    let _terminal = plan.options.desk().map(|desk| Labelling::start(desk, signals::requests()));
    let mut watch = |event: Event<'_>| {
        match event {
            Event::Phase(name) => console.phase(name),
            Event::Warning(text) => console.warning(text),
            Event::Progress { phase, done, total } => {
                console.progress(phase, done, total);
                if signals::requests().stops() {
                    return Err(Error::Interrupted);
                }
            }
        }
        Ok(())
    };
    let mut evaluated = evaluation.run(&mut watch).wait()?;
    let warnings = &mut evaluated.result.warnings;
    warnings.splice(0..0, plan.warnings.iter().cloned());
    warnings.iter().for_each(|text| console.warning(text));
    evaluated.save(&plan.config)?;
    let report = Report::of_eval(&evaluated.result, &evaluated.pairs, plan.config.clone());
    report.write(&plan.options.output.join(REPORT))?;
    Ok(evaluated)
}
