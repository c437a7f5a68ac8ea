//! The run folder: configuration, logs and checkpoints.
//!
//! ```text
//! RUN/run.json                      the resolved configuration
//!     metrics.jsonl pairs.jsonl     rows with a "step"
//!     judgements.jsonl              answers of a remote judge as they arrived, so that none is requested twice
//!     labels.jsonl                  labels given by a person, as they arrived
//!     eval_samples.jsonl            some held-out prompts with responses before and after, of the last evaluation
//!     tensorboard/                  the metrics as an event file, if enabled
//!     report.html                   a report for readers, if enabled
//!     summary.json                  results of `oaif demo`
//!     checkpoints/step-NNNNNN/      state.json (with the "step"), the trainer's other files, checksums.json
//! ```
//!
//! Whenever the process dies, each checkpoint is either complete or absent, and the logs contain at least the rows up
//! to the last checkpoint. Rows after it are removed when the run is resumed, which writes them again. A run holds a
//! lock on its folder, so that no other run writes into it.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::checkpoint::{CHECKPOINTS, Checkpoint, PendingCheckpoint, in_folder};
use super::evaluation::EvalSample;
use super::log::Log;
use super::state::Logs;
use crate::error::{Error, Result};
use crate::files;
use crate::judge::ensemble::JUDGES;
use crate::judge::human::LABELS;
use crate::judge::journal::JOURNAL;
use crate::lock::{Lock, unwritable};

pub use super::checkpoint::checkpoints;

/// The resolved configuration.
pub const RUN: &str = "run.json";
/// One row per step.
pub const METRICS: &str = "metrics.jsonl";
/// One row per judged pair.
pub const PAIRS: &str = "pairs.jsonl";
/// Some held-out prompts with the responses of the reference model and of the policy, at the last evaluation.
pub const EVAL_SAMPLES: &str = "eval_samples.jsonl";
/// The report created by [`Report::of_run`](crate::report::Report::of_run).
pub const REPORT: &str = "report.html";
/// The folder of the TensorBoard event file, if enabled.
pub const TENSORBOARD: &str = "tensorboard";
/// Results of `oaif demo`.
pub const SUMMARY: &str = "summary.json";
/// Everything a run writes, including its models.
pub(crate) const CONTENTS: [&str; 13] = [
    RUN,
    METRICS,
    PAIRS,
    EVAL_SAMPLES,
    JOURNAL,
    JUDGES,
    LABELS,
    TENSORBOARD,
    CHECKPOINTS,
    "model",
    "adapter",
    REPORT,
    SUMMARY,
];

/// How to handle an existing run in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Fail.
    New,
    /// Delete it, but nothing else in the folder.
    Overwrite,
    /// Resume it.
    Resume(Resume),
}

/// The checkpoint to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The last checkpoint of the run.
    Last,
    /// The folder of a checkpoint: of this run, or of another run, from which a new run starts.
    Path(PathBuf),
}

impl From<&str> for Resume {
    /// `last`, or else a path.
    fn from(text: &str) -> Resume {
        if text == "last" { Resume::Last } else { Resume::Path(text.into()) }
    }
}

/// The folder of a run. Nothing is written and no old run is deleted before [`RunDir::write_run`].
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    save_total_limit: Option<NonZeroUsize>,
    resumed: Option<Checkpoint>,
    overwrite: bool,
    metrics: Log,
    pairs: Log,
    _lock: Lock,
}

impl RunDir {
    /// Creates or opens the folder `path` as `start` says, locks it, checks that it is writable, and removes unfinished
    /// files of a killed process. `save_total_limit` is the number of checkpoints to keep; `None` keeps all.
    ///
    /// Errors: another process writes into the folder, it has a run already, there is no checkpoint to resume from, a
    /// checkpoint is damaged, or the folder is not writable.
    pub fn create(path: &Path, start: &Start, save_total_limit: Option<NonZeroUsize>) -> Result<RunDir> {
        // Checked before anything is created, so that an invalid command leaves no trace.
        if !path.exists() {
            resolve(path, start)?;
            fs::create_dir_all(path).map_err(|e| Error::file(path, unwritable(&e)))?;
        }
        let lock = Lock::take(path)?;
        let resumed = resolve(path, start)?;
        remove_unfinished(path)?;
        let probe = path.join(format!(".writable.{}.tmp", std::process::id()));
        let tried = files::create_new(&probe).and_then(|_| fs::remove_file(&probe));
        tried.map_err(|e| Error::file(path, unwritable(&e)))?;
        let log = |name| Log::new(path.join(name));
        Ok(RunDir {
            path: path.to_owned(),
            save_total_limit,
            resumed,
            overwrite: *start == Start::Overwrite,
            metrics: log(METRICS),
            pairs: log(PAIRS),
            _lock: lock,
        })
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint that [`Start::Resume`] found. The trainer loads it, then calls
    /// [`truncate_to_step`](Self::truncate_to_step).
    pub(super) fn resumed(&self) -> Option<&Checkpoint> {
        self.resumed.as_ref()
    }

    /// Whether the checkpoint found belongs to the run in this folder.
    pub(super) fn resumes_itself(&self) -> bool {
        self.resumed.as_ref().is_some_and(|checkpoint| is_in(&self.path, &checkpoint.path))
    }

    /// Writes `run.json`, before anything else. With [`Start::Overwrite`], the old run is deleted here, so that a
    /// command that fails early, or reads from the old run, does no harm.
    pub(super) fn write_run(&mut self, run: &impl Serialize) -> Result<()> {
        if std::mem::take(&mut self.overwrite) {
            for name in CONTENTS {
                files::remove(&self.path.join(name))?;
            }
        }
        files::write_atomic(&self.path.join(RUN), format!("{:#}\n", json!(run)).as_bytes())
    }

    /// Appends a row with a "step" to `metrics.jsonl`.
    pub(super) fn append_metrics(&mut self, row: &impl Serialize) -> Result<()> {
        assert!(!self.overwrite, "write_run comes first");
        self.metrics.append(std::slice::from_ref(row))
    }

    /// Adds the keys of objects to the row of `step` in `metrics.jsonl`.
    pub(super) fn add_to_metrics(&mut self, step: usize, objects: &[Value]) -> Result<()> {
        self.metrics.add_to(step, objects)
    }

    /// The values of a metric, from the rows that have it.
    pub(super) fn logged(&self, metric: &str) -> Result<Vec<f64>> {
        self.metrics.values(metric)
    }

    /// Calls `each` for every row of `metrics.jsonl`.
    pub(super) fn for_each_logged(&self, each: impl FnMut(&Value) -> Result<()>) -> Result<()> {
        self.metrics.for_each(each)
    }

    /// Appends rows with a "step" to `pairs.jsonl`.
    pub(super) fn append_pairs(&mut self, rows: &[impl Serialize]) -> Result<()> {
        assert!(!self.overwrite, "write_run comes first");
        self.pairs.append(rows)
    }

    /// Replaces the samples of the last evaluation.
    pub(super) fn write_eval_samples(&mut self, rows: &[EvalSample]) -> Result<()> {
        assert!(!self.overwrite, "write_run comes first");
        write_eval_samples(&self.path, rows)
    }

    /// Removes everything after `step`: rows of both logs, including an incomplete last line, samples and checkpoints.
    ///
    /// # Errors
    /// [`Error::File`] if a log lacks rows up to `step`; then nothing is changed.
    pub(super) fn truncate_to_step(&mut self, step: usize, expected: Logs) -> Result<()> {
        let after = expected.after_step;
        let steps: Vec<usize> = (after + 1..=step).collect();
        self.metrics.check(step, |found| found == steps, &format!("the steps {} to {step}", after + 1))?;
        let pairs = expected.pairs;
        self.pairs.check(step, |found| found.len() == pairs, &format!("{pairs} pairs"))?;
        // Checkpoints are removed first, because the logs must contain the rows of every checkpoint.
        for checkpoint in self.checkpoints()?.into_iter().rev().filter(|c| c.step > step) {
            self.remove_checkpoint(&checkpoint)?;
        }
        self.metrics.truncate(step)?;
        self.pairs.truncate(step)?;
        let samples = self.path.join(EVAL_SAMPLES);
        let is_later = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|row| row["step"].as_u64() > Some(step as u64))
        };
        if fs::read_to_string(&samples).is_ok_and(|text| text.lines().any(is_later)) {
            files::remove(&samples)?;
        }
        Ok(())
    }

    /// The last complete checkpoint.
    pub(super) fn latest_checkpoint(&self) -> Result<Option<Checkpoint>> {
        Ok(self.checkpoints()?.pop())
    }

    /// Creates a folder for the checkpoint after `step` steps. It becomes a checkpoint when it is
    /// [committed](Self::commit), and is removed when it is dropped before that.
    pub(super) fn begin_checkpoint(&self, step: usize) -> Result<PendingCheckpoint> {
        assert!(!self.overwrite, "write_run comes first");
        self.check_exists()?;
        PendingCheckpoint::new(&self.checkpoints_dir(), step)
    }

    /// Fails if the folder was removed, moved or replaced, because everything written from now on would be lost.
    pub(super) fn check_exists(&self) -> Result<()> {
        self.metrics.check_exists()?;
        self.pairs.check_exists()
    }

    /// Turns `pending`, which contains a `state.json`, into a durable checkpoint, then removes the oldest checkpoints
    /// beyond the limit. The rows of the step must be appended before. An existing checkpoint of the same step is kept.
    pub(super) fn commit(&mut self, pending: PendingCheckpoint) -> Result<Checkpoint> {
        let committed = pending.committed();
        if !committed.path.exists() {
            // The logs are synced first, because a resumed run does not write these rows again.
            for log in [&self.metrics, &self.pairs] {
                log.sync()?;
            }
            pending.commit()?;
            files::sync_dir(&self.checkpoints_dir())?;
            files::sync_dir(&self.path)?;
        }
        let kept = self.save_total_limit.map_or(usize::MAX, NonZeroUsize::get);
        let all = self.checkpoints()?;
        for oldest in &all[..all.len().saturating_sub(kept)] {
            self.remove_checkpoint(oldest)?;
        }
        Ok(committed)
    }

    fn checkpoints_dir(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        in_folder(&self.checkpoints_dir())
    }

    /// Renames the folder before deleting it, so that a partly deleted checkpoint is not mistaken for one.
    fn remove_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doomed = self.checkpoints_dir().join(format!(".step-{:06}.old.tmp", checkpoint.step));
        files::remove(&doomed)?;
        fs::rename(&checkpoint.path, &doomed).map_err(Error::io("remove", &checkpoint.path))?;
        files::remove(&doomed)
    }
}

/// Whether the run in `dir` can be resumed: from a checkpoint, or, before the first one, with the recorded answers of a
/// judge.
pub fn can_be_resumed(dir: &Path) -> bool {
    let begun = dir.join(JOURNAL).exists() || checkpoints(dir).is_ok_and(|all| !all.is_empty());
    begun && dir.join(RUN).exists()
}

/// The checkpoint from which a run in `dir` resumes, if it does.
pub(super) fn resumed_checkpoint(dir: &Path, start: &Start) -> Result<Option<Checkpoint>> {
    match start {
        Start::Resume(_) => resolve(dir, start),
        Start::New | Start::Overwrite => Ok(None),
    }
}

/// The checkpoint that `start` selects for a run in `dir`, if it selects one.
fn resolve(dir: &Path, start: &Start) -> Result<Option<Checkpoint>> {
    let checkpoints = dir.join(CHECKPOINTS);
    match start {
        Start::New => refuse_a_run_in_the_way(dir).map(|()| None),
        Start::Overwrite => Ok(None),
        Start::Resume(Resume::Last) => {
            let Some(last) = in_folder(&checkpoints)?.pop() else {
                // A run that ended before its first checkpoint starts over; recorded answers of the judge are reused.
                if dir.join(JOURNAL).exists() {
                    return Ok(None);
                }
                let why = "has no checkpoint to resume from: check `output-dir`, or start the run again with `overwrite-output-dir`";
                return Err(Error::file(&checkpoints, why));
            };
            Checkpoint::open(&last.path).map(Some)
        }
        Start::Resume(Resume::Path(path)) => {
            let checkpoint = Checkpoint::open(path)?;
            // With another run's checkpoint, the logs of this run would be truncated at the wrong step.
            if !is_in(dir, path) {
                refuse_a_run_in_the_way(dir)?;
            }
            Ok(Some(checkpoint))
        }
    }
}

/// Whether the checkpoint at `path` belongs to the run in `dir`.
fn is_in(dir: &Path, path: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    let folder = canonical(&dir.join(CHECKPOINTS));
    folder.is_some() && canonical(path).as_deref().and_then(Path::parent) == folder.as_deref()
}

/// Fails if a new run in `dir` would meet another one: a check before models are loaded, which [`RunDir::create`] repeats.
pub fn check_free(dir: &Path, start: &Start) -> Result<()> {
    if *start == Start::New { refuse_a_run_in_the_way(dir) } else { Ok(()) }
}

fn refuse_a_run_in_the_way(dir: &Path) -> Result<()> {
    // A run that did nothing leaves only a configuration. Recorded answers of a judge are reused.
    let mut done = CONTENTS.into_iter().filter(|name| ![RUN, JOURNAL, JUDGES, LABELS].contains(name));
    let Some(name) = done.find(|name| dir.join(name).exists()) else {
        return Ok(());
    };
    let why = format!(
        "already has a run ({name}): set another `output-dir`, resume the run with `resume` {}, or replace it with \
         `overwrite-output-dir`",
        dir.display()
    );
    Err(Error::file(dir, why))
}

fn remove_unfinished(dir: &Path) -> Result<()> {
    for path in [files::list(dir)?, files::list(&dir.join(CHECKPOINTS))?].concat() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ours =
            CONTENTS.iter().chain(&["step-", "writable"]).any(|ours| name.starts_with(&format!(".{ours}")));
        if ours && name.ends_with(".tmp") {
            files::remove(&path)?;
        }
    }
    // Unfinished files of a result.
    for path in [files::list(&dir.join("model"))?, files::list(&dir.join("adapter"))?].concat() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// Replaces the samples of the run in `dir`.
pub(crate) fn write_eval_samples(dir: &Path, rows: &[EvalSample]) -> Result<()> {
    let text: String = rows.iter().map(|row| format!("{}\n", json!(row))).collect();
    files::write_atomic(&dir.join(EVAL_SAMPLES), text.as_bytes())
}

#[cfg(test)]
mod tests;
