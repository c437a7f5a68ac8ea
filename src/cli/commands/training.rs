//! What the training commands share: the progress bar, Ctrl-C, the dry run's report, the profile, the report.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::args::TrainPlan;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Gpu, Limits};
use crate::report::Report;
use crate::train::rows::EncodedRows;
use crate::train::run_dir::REPORT;
use crate::train::{Control, Observer, Sources, StepEvent};

/// Set by Ctrl-C: the run finishes its step, saves and ends. A second Ctrl-C ends the program at once.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn catch_interrupt() {
    // Where no handler can be set, Ctrl-C ends the program as usual; the last checkpoint stays.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("oaif: finishing this step, then saving a checkpoint (Ctrl-C again to stop at once)");
    });
}

/// A progress bar on standard error; plain lines where that is no terminal.
pub struct Console {
    bar: ProgressBar,
    /// Whether a step was done.
    stepped: bool,
}

impl Console {
    fn new() -> Console {
        let bar = ProgressBar::no_length();
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} {msg}");
        bar.set_style(style.expect("a valid template"));
        Console { bar, stepped: false }
    }

    /// Shows a line above the bar.
    pub fn line(&self, text: &str) {
        match self.bar.is_hidden() {
            true => eprintln!("{text}"),
            false => self.bar.println(text),
        }
    }
}

impl Observer for Console {
    fn step(&mut self, e: &StepEvent) {
        self.stepped = true;
        let optional =
            |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!("  {name} {v:.3}"));
        let left = e.seconds_left as u64;
        let message = format!(
            "loss {:.4}{}{}  {:.0} tokens/s  {}:{:02}:{:02} left",
            e.loss,
            optional("margin", e.margin),
            optional("judge 1st", e.judge_win),
            e.tokens_per_second,
            left / 3600,
            left / 60 % 60,
            left % 60
        );
        if self.bar.is_hidden() {
            eprintln!("step {}/{}  {message}", e.step, e.total_steps);
        }
        self.bar.set_length(e.total_steps as u64);
        self.bar.set_position(e.step as u64);
        self.bar.set_message(message);
    }

    fn warning(&mut self, text: &str) {
        self.line(&format!("oaif: warning: {text}"));
    }
}

/// The device of a training command: one that only measures for a dry run, which needs no adapter.
pub fn open(plan: &TrainPlan) -> Result<Gpu> {
    match plan.gpu.open() {
        Ok(gpu) if plan.dry_run => Ok(gpu.measuring()),
        Err(Error::NoAdapter(why)) if plan.dry_run && plan.gpu.options.adapter.is_none() => {
            eprintln!("oaif: warning: {why}; measuring against WebGPU's default limits");
            Ok(Gpu::without_device(Limits::default()))
        }
        opened => opened,
    }
}

/// Trains into `dir` with a progress bar; Ctrl-C ends it with a checkpoint.
pub fn watched<T>(dir: &Path, run: impl FnOnce(Control<'_>) -> Result<T>) -> (Result<T>, Console) {
    catch_interrupt();
    let mut console = Console::new();
    let result = run(Control { observer: &mut console, interrupted: &INTERRUPTED });
    console.bar.finish();
    if let Err(Error::Interrupted) = &result {
        let dir = dir.display();
        console.line(&format!("oaif: saved a checkpoint in {dir}; go on with --resume-from-checkpoint last"));
    }
    (result, console)
}

/// Trains with a progress bar, then says where the result is.
pub fn train(
    plan: &TrainPlan,
    gpu: &Gpu,
    run: impl FnOnce(Sources, Control<'_>) -> Result<std::path::PathBuf>,
) -> Result<()> {
    let sources = Sources { model: plan.model.clone(), config: plan.config.clone() };
    let (result, console) = watched(&plan.options.output_dir, |control| run(sources, control));
    // What a failed run did is worth a look too; but one that did no step may have met another's folder.
    let report = match plan.report && (result.is_ok() || console.stepped) {
        true => write_report(&plan.options.output_dir, &console),
        false => Ok(()),
    };
    let saved = result?;
    if let (Some(profile), Some(trace)) = (gpu.profile(), &plan.trace) {
        console.line(&profile.table());
        files::write_atomic(trace, profile.trace().as_bytes())?;
        console.line(&format!("oaif: the launches are in {} (open it in ui.perfetto.dev)", trace.display()));
    } else if plan.trace.is_some() {
        console.line("oaif: warning: this adapter has no timestamps, so there is no profile");
    }
    crate::cli::print(saved.display())?;
    report
}

fn write_report(dir: &Path, console: &Console) -> Result<()> {
    let path = dir.join(REPORT);
    Report::of_run(dir)?.write(&path)?;
    console.line(&format!("oaif: the report is {}", path.display()));
    Ok(())
}

/// Prints what a run would be: configuration, data, memory.
pub fn report(gpu: &Gpu, plan: &TrainPlan, rows: &EncodedRows, total_steps: usize) -> Result<()> {
    let memory = gpu.memory();
    let report: Value = json!({
        "configuration": plan.config,
        "data": rows.statistics(),
        "total_steps": total_steps,
        "gpu": gpu.summary(),
        "limits": gpu.limits(),
        "memory": memory,
    });
    crate::cli::print(format!("{report:#}"))
}

/// Fails now where the output folder could not be written later.
pub fn check_output(dir: &Path) -> Result<()> {
    let existing =
        dir.ancestors().find(|d| d.exists() && !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match existing.is_dir() {
        true => Ok(()),
        false => Err(Error::file(existing, "is a file, but --output-dir needs a folder there")),
    }
}
