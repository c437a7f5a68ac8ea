//! Shared code of the training commands: signals, dry run, profile, report.

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::page::Page;
use super::summary::{self, Parameters, Start};
use super::warn_of;
use crate::Wait;
use crate::cli::args::TrainPlan;
use crate::cli::console::{Console, ended, say, warn};
use crate::cli::signals;
use crate::data::rows::{Columns, Rows};
use crate::error::{Error, Result, size};
use crate::files;
use crate::gpu::{Gpu, Limits};
use crate::report::{Report, RunEnds};
use crate::train::rows::EncodedRows;
use crate::train::run_dir::{REPORT, can_be_resumed, checkpoints};
use crate::train::{Control, DpoRun, DryRun, Observer, Policy, RewardRun, SftRun, Sources, TrainOptions};

/// Opens the GPU of a training command. For a dry run, a device that only measures memory, which needs no GPU.
pub fn open(plan: &TrainPlan) -> Result<Gpu> {
    if let Some(limits) = plan.limits {
        return Ok(Gpu::without_device(limits));
    }
    // A dry run computes nothing, so kernels are not tuned.
    let opened = if plan.dry_run { Gpu::open(&plan.gpu.options).wait() } else { plan.gpu.open() };
    match opened {
        Ok(gpu) if plan.dry_run => Ok(gpu.measuring()),
        Err(Error::NoGpu(why)) if plan.dry_run && plan.gpu.options.gpu.is_none() => {
            warn(format_args!("{why}; measuring against WebGPU's default limits"));
            Ok(Gpu::without_device(Limits::default()))
        }
        opened => opened,
    }
}

/// A run that is ready to start.
pub struct Prepared<R> {
    pub console: Console,
    pub gpu: Gpu,
    pub parameters: Parameters,
    pub run: R,
}

/// Opens rows, GPU and model, in this order, and prepares the run. An error in the first row is reported before anything is
/// loaded.
pub fn prepare<T, R>(
    plan: &TrainPlan,
    rows: fn(&[PathBuf], &Columns) -> Rows<T>,
    load: fn(&Gpu, &Path, &TrainOptions) -> Result<Policy>,
    run: impl FnOnce(Policy, Peekable<Rows<T>>) -> Result<R>,
) -> Result<Prepared<R>> {
    let mut console = Console::new();
    console.phase("opening the rows");
    let mut rows = rows(&plan.dataset, &plan.columns).peekable();
    if let Some(Err(error)) = rows.next_if(Result::is_err) {
        return Err(error);
    }
    console.phase("opening the GPU");
    let gpu = open(plan)?;
    console.phase("loading the model");
    let policy = load(&gpu, &plan.model, &plan.options)?;
    warn_of(&policy.model);
    let parameters = Parameters::of(&policy.model);
    console.phase("reading and encoding the rows, recording the plans");
    let run = run(policy, rows)?;
    Ok(Prepared { console, gpu, parameters, run })
}

/// Runs a kind of training on given rows: prints the report of a dry run, or trains.
pub fn on_rows<R: OnRows>(command: &str, plan: &TrainPlan, prepared: Prepared<R>) -> Result<()> {
    let Prepared { mut console, gpu, parameters, run } = prepared;
    if plan.dry_run {
        console.clear();
        return report(&gpu, plan, run.rows(), run.total_steps());
    }
    let start = Start::of(&gpu, plan, &parameters, run.rows(), run.total_steps(), None)
        .with_held_out("pairs", run.held_out_rows());
    console.begins(start.facts());
    let page = Page::of(command, plan, None);
    train(command, plan, &gpu, console, page, |sources, control| run.run(sources, control))
}

/// A kind of training on given rows.
pub trait OnRows {
    fn rows(&self) -> &EncodedRows;
    /// The numbers of held-out rows kept and read.
    fn held_out_rows(&self) -> Option<(usize, usize)>;
    fn total_steps(&self) -> usize;
    fn run(self, sources: Sources, control: Control<'_>) -> Result<PathBuf>;
}

macro_rules! on_rows {
    ($($run:ty: $held_out:expr),*) => {$(
        impl OnRows for $run {
            fn rows(&self) -> &EncodedRows {
                self.rows()
            }
            fn held_out_rows(&self) -> Option<(usize, usize)> {
                $held_out(self)
            }
            fn total_steps(&self) -> usize {
                self.total_steps()
            }
            fn run(self, sources: Sources, control: Control<'_>) -> Result<PathBuf> {
                self.run(sources, control).wait()
            }
        }
    )*};
}

on_rows!(SftRun: |_| None, DpoRun: DpoRun::held_out_rows, RewardRun: RewardRun::held_out_rows);

/// Trains into `dir` with a progress bar and the page; a signal ends the run with a checkpoint. `command`: the command that
/// resumes the run.
pub fn watched<T>(
    dir: &Path,
    command: &str,
    mut console: Console,
    page: Page,
    run: impl FnOnce(Control<'_>) -> Result<T>,
) -> (Result<T>, Console) {
    signals::catch();
    let requests = signals::requests();
    let result =
        page.beside(&mut console, &requests, |observer| run(Control { observer, requests: &requests }));
    console.end();
    // A run without a step may have found another run in its folder, unless it had started.
    let had_begun = matches!(result, Err(Error::Interrupted | Error::Judge { .. }));
    let saved = checkpoints(dir).ok().and_then(|mut all| all.pop());
    let kept = match (&result, saved) {
        (Ok(_), _) => None,
        (Err(_), Some(last)) if console.stepped() => {
            Some(format!("saved a checkpoint after step {}", last.step))
        }
        (Err(_), Some(last)) if had_begun => Some(format!("the last checkpoint is after step {}", last.step)),
        (Err(_), None) if had_begun && !console.stepped() => {
            Some("no step was done; verdicts so far are saved".into())
        }
        (Err(_), _) => None,
    };
    if let Some(kept) = kept.filter(|_| can_be_resumed(dir)) {
        // Without a step to do, a resumed run does not correct these errors.
        let is_final =
            console.is_done() && matches!(result, Err(Error::SelfCheck(_) | Error::NonFinite { .. }));
        let resume = (!is_final).then(|| format!("; resume with {command} {}", quoted(dir)));
        say(format_args!("oaif: {kept}{}", resume.unwrap_or_default()));
    }
    (result, console)
}

/// A path, quoted for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+:@\\".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Trains with a progress bar, then prints the summary and the path of the result.
pub fn train(
    command: &str,
    plan: &TrainPlan,
    gpu: &Gpu,
    console: Console,
    page: Page,
    run: impl FnOnce(Sources, Control<'_>) -> Result<std::path::PathBuf>,
) -> Result<()> {
    let sources = Sources { model: plan.model.clone(), config: plan.config.clone() };
    let resume = format!("oaif {command} --resume");
    let (result, console) =
        watched(plan.options.folder(), &resume, console, page, |control| run(sources, control));
    // A failed run gets a report too, but not without a step, as its folder may belong to another run.
    let report = match plan.report && (result.is_ok() || console.stepped()) {
        true => write_report(plan.options.folder()),
        false => Ok(()),
    };
    let saved = result?;
    if let (Some(profile), Some(trace)) = (gpu.profile(), &plan.trace) {
        say(profile.table());
        files::write_atomic(trace, profile.trace().as_bytes())?;
        say(format_args!("oaif: the trace is {} (open it in ui.perfetto.dev)", trace.display()));
    } else if plan.trace.is_some() {
        warn("this GPU has no timestamp queries: no profile was recorded");
    }
    let ends = RunEnds::of_run(plan.options.folder())?;
    ended(&summary::end(command, plan, &saved, &ends), summary::end_fields(&saved, &ends));
    crate::cli::print(saved.display())?;
    report
}

fn write_report(dir: &Path) -> Result<()> {
    let path = dir.join(REPORT);
    Report::of_run(dir)?.write(&path)?;
    say(format_args!("oaif: the report is {}", path.display()));
    Ok(())
}

/// Prints the report of a dry run: configuration, data, memory.
pub fn report(gpu: &Gpu, plan: &TrainPlan, rows: &EncodedRows, total_steps: usize) -> Result<()> {
    let table = rows.table();
    table.lines().iter().for_each(|(name, lengths)| say(format_args!("{name:<14}{lengths}")));
    table.skipped().iter().for_each(warn);
    report_of(gpu, plan, rows.statistics(), Some(total_steps))
}

/// Prints the report of a dry run without a dataset.
pub fn report_assumed(gpu: &Gpu, plan: &TrainPlan, run: &DryRun) -> Result<()> {
    let mut data = run.rows().statistics();
    data["rows"] = Value::Null;
    report_of(gpu, plan, data, plan.options.max_steps)
}

fn report_of(gpu: &Gpu, plan: &TrainPlan, data: Value, total_steps: Option<usize>) -> Result<()> {
    let memory = gpu.memory();
    let report: Value = json!({
        "configuration": plan.config,
        "data": data,
        "total_steps": total_steps,
        "gpu": gpu.summary(),
        "limits": gpu.limits(),
        "memory": memory,
    });
    let parts = memory.bytes.iter().filter(|(_, bytes)| **bytes > 0);
    let parts: Vec<String> = parts.map(|(part, bytes)| format!("{} {}", size(*bytes), part.name())).collect();
    crate::cli::print(format!("{report:#}"))?;
    // Printed last: the JSON before it fills the screen.
    say(format_args!("oaif: needs {} of GPU memory: {}", size(memory.peak), parts.join(", ")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_is_quoted() {
        let pasted = ["run/adapter", "my run", "a'b"].map(|path| quoted(Path::new(path)));
        assert_eq!(pasted, ["run/adapter", "'my run'", r"'a'\''b'"]);
    }
}
