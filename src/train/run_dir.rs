//! The folder of a run: its configuration, its logs, its checkpoints.
//!
//! ```text
//! RUN/run.json                      the resolved configuration
//!     metrics.jsonl pairs.jsonl     rows with a "step"
//!     report.html                   what happened, for a reader, where it was asked for
//!     summary.json                  what came out, by `oaif demo`
//!     checkpoints/step-NNNNNN/      state.json (with the "step") and what else the trainer writes
//! ```
//!
//! Whenever the process dies, each checkpoint is whole or absent, and the logs hold at least the rows up to the
//! last one. The rows after it go when the run is resumed, which writes them again.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files;

/// The resolved configuration.
pub const RUN: &str = "run.json";
/// A row a step.
pub const METRICS: &str = "metrics.jsonl";
/// A row an annotated pair.
pub const PAIRS: &str = "pairs.jsonl";
/// What [`Report::of_run`](crate::report::Report::of_run) makes of them.
pub const REPORT: &str = "report.html";
/// What came out, by `oaif demo`.
pub const SUMMARY: &str = "summary.json";
const CHECKPOINTS: &str = "checkpoints";
const STATE: &str = "state.json";
/// What a run leaves, its models included.
const CONTENTS: [&str; 8] = [RUN, METRICS, PAIRS, CHECKPOINTS, "model", "adapter", REPORT, SUMMARY];

/// What to do about the run that the folder may hold already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Refuse it.
    New,
    /// Delete it (nothing else in the folder).
    Overwrite,
    /// Go on with it.
    Resume(Resume),
}

/// The checkpoint to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The run's last.
    Last,
    /// A checkpoint's folder: of this run, or of another one to begin a new run from.
    Path(PathBuf),
}

impl FromStr for Resume {
    type Err = std::convert::Infallible;

    /// `last`, or else a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "last" { Resume::Last } else { Resume::Path(text.into()) })
    }
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps done.
    pub step: usize,
    /// Its folder.
    pub path: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in the folder `path`; its step is the `"step"` of its `state.json`.
    fn open(path: &Path) -> Result<Checkpoint> {
        let Some(state) = files::read_json_if_present(&path.join(STATE))? else {
            let why = format!(
                "is not a checkpoint (it has no {STATE}): give --resume-from-checkpoint a folder RUN/{CHECKPOINTS}/step-NNNNNN, or last"
            );
            return Err(Error::file(path, why));
        };
        let step = step_of(&state).ok_or_else(|| Error::file(path.join(STATE), "has no \"step\""))?;
        Ok(Checkpoint { step, path: path.to_owned() })
    }
}

/// The folder of a run. Nothing is written, and no old run deleted, before [`RunDir::write_run`].
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    save_total_limit: Option<NonZeroUsize>,
    resumed: Option<Checkpoint>,
    overwrite: bool,
    metrics: Option<File>,
    pairs: Option<File>,
}

impl RunDir {
    /// Creates the folder `path`, or opens it as `start` says, makes sure that it can be written to, and removes
    /// what a killed process has left unfinished. `save_total_limit`: keep that many checkpoints, `None` all.
    ///
    /// Errors: a run in the way, no checkpoint to resume from, a folder that cannot be written to.
    pub fn create(path: &Path, start: &Start, save_total_limit: Option<NonZeroUsize>) -> Result<RunDir> {
        let overwrite = *start == Start::Overwrite;
        let (resumed, metrics, pairs) = (None, None, None);
        let mut run = RunDir { path: path.to_owned(), save_total_limit, resumed, overwrite, metrics, pairs };
        // Looked at before anything is created: a wrong command leaves no trace.
        match start {
            Start::New => run.refuse_a_run_in_the_way()?,
            Start::Overwrite => {}
            Start::Resume(resume) => run.resumed = Some(run.resolve(resume)?),
        }
        let probe = path.join(".writable.tmp");
        let tried = fs::create_dir_all(path).and_then(|()| File::create(&probe));
        tried.and_then(|_| fs::remove_file(&probe)).map_err(|e| {
            Error::file(path, format!("cannot be written to ({e}): give another --output-dir"))
        })?;
        run.remove_unfinished()?;
        Ok(run)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint that [`Start::Resume`] found. The trainer loads it, then calls
    /// [`truncate_to_step`](Self::truncate_to_step).
    pub fn resumed(&self) -> Option<&Checkpoint> {
        self.resumed.as_ref()
    }

    /// Writes `run.json`, before anything else; with [`Start::Overwrite`] this is when the old run goes, so that
    /// a command that fails early, or reads from the old run, does no harm.
    pub fn write_run(&mut self, run: &Value) -> Result<()> {
        if std::mem::take(&mut self.overwrite) {
            for name in CONTENTS {
                remove(&self.path.join(name))?;
            }
        }
        files::write_atomic(&self.path.join(RUN), format!("{run:#}\n").as_bytes())
    }

    /// Appends a row with a "step" to `metrics.jsonl`.
    pub fn append_metrics(&mut self, row: &Value) -> Result<()> {
        assert!(!self.overwrite, "write_run comes first");
        append(&mut self.metrics, &self.path.join(METRICS), std::slice::from_ref(row))
    }

    /// Appends rows with a "step" to `pairs.jsonl`.
    pub fn append_pairs(&mut self, rows: &[Value]) -> Result<()> {
        assert!(!self.overwrite, "write_run comes first");
        append(&mut self.pairs, &self.path.join(PAIRS), rows)
    }

    /// Forgets what was done after `step`: rows of both logs (a line torn by a crash as well) and checkpoints.
    pub fn truncate_to_step(&mut self, step: usize) -> Result<()> {
        // The new files replace those that are open.
        (self.metrics, self.pairs) = (None, None);
        for checkpoint in self.checkpoints()?.into_iter().filter(|c| c.step > step) {
            self.remove_checkpoint(&checkpoint)?;
        }
        truncate(&self.path.join(METRICS), step)?;
        truncate(&self.path.join(PAIRS), step)
    }

    /// The last complete checkpoint.
    pub fn latest_checkpoint(&self) -> Result<Option<Checkpoint>> {
        Ok(self.checkpoints()?.pop())
    }

    /// A folder to write the checkpoint after `step` steps into. It counts once it is
    /// [committed](Self::commit); dropped before that, it is removed.
    pub fn begin_checkpoint(&self, step: usize) -> Result<PendingCheckpoint> {
        assert!(!self.overwrite, "write_run comes first");
        let path = self.checkpoints_dir().join(format!(".step-{step:06}.tmp"));
        remove(&path)?;
        files::create_dir_all(&path)?;
        Ok(PendingCheckpoint { step, path })
    }

    /// Makes `pending`, which holds a `state.json`, a checkpoint that survives a power cut, then removes the
    /// oldest beyond the limit. The step's rows are appended before. A step that has a checkpoint keeps it.
    pub fn commit(&mut self, pending: PendingCheckpoint) -> Result<Checkpoint> {
        let path = self.checkpoints_dir().join(format!("step-{:06}", pending.step));
        assert_eq!(Checkpoint::open(&pending.path)?.step, pending.step, "state.json is of another step");
        if !path.exists() {
            // First the rows that a resumed run will not write again.
            for log in [&self.metrics, &self.pairs].into_iter().flatten() {
                log.sync_all().map_err(Error::io("sync", &self.path))?;
            }
            sync_tree(&pending.path)?;
            fs::rename(&pending.path, &path).map_err(Error::io("write", &path))?;
            files::sync_dir(&self.checkpoints_dir())?;
            files::sync_dir(&self.path)?;
        }
        let kept = self.save_total_limit.map_or(usize::MAX, NonZeroUsize::get);
        let all = self.checkpoints()?;
        for oldest in &all[..all.len().saturating_sub(kept)] {
            self.remove_checkpoint(oldest)?;
        }
        Ok(Checkpoint { step: pending.step, path })
    }

    fn checkpoints_dir(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        checkpoints(&self.path)
    }

    /// Under another name first: half a checkpoint must not look like one.
    fn remove_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let doomed = self.checkpoints_dir().join(format!(".step-{:06}.old.tmp", checkpoint.step));
        remove(&doomed)?;
        fs::rename(&checkpoint.path, &doomed).map_err(Error::io("remove", &checkpoint.path))?;
        remove(&doomed)
    }

    fn refuse_a_run_in_the_way(&self) -> Result<()> {
        // A configuration alone is what a run leaves that has done nothing.
        let mut done = CONTENTS.into_iter().filter(|name| *name != RUN);
        let Some(name) = done.find(|name| self.path.join(name).exists()) else {
            return Ok(());
        };
        let why = format!(
            "already holds a run ({name}): give another --output-dir, go on with it by --resume-from-checkpoint last, or replace it by --overwrite"
        );
        Err(Error::file(&self.path, why))
    }

    fn resolve(&self, resume: &Resume) -> Result<Checkpoint> {
        let path = match resume {
            Resume::Path(path) => path,
            Resume::Last => {
                return self.latest_checkpoint()?.ok_or_else(|| {
                    let why = "holds no checkpoint to go on from: check --output-dir, or leave out --resume-from-checkpoint";
                    Error::file(self.checkpoints_dir(), why)
                });
            }
        };
        let checkpoint = Checkpoint::open(path)?;
        let canonical = |path: &Path| path.canonicalize().ok();
        let inside = path.parent().and_then(canonical) == canonical(&self.checkpoints_dir());
        // The logs of another run would be cut in the wrong place.
        if !inside {
            self.refuse_a_run_in_the_way()?
        }
        Ok(checkpoint)
    }

    fn remove_unfinished(&self) -> Result<()> {
        for path in [list(&self.path)?, list(&self.checkpoints_dir())?].concat() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = CONTENTS.iter().chain(&["step-"]).any(|ours| name.starts_with(&format!(".{ours}")));
            if ours && name.ends_with(".tmp") {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The complete checkpoints of the run in the folder `run`, oldest first.
pub fn checkpoints(run: &Path) -> Result<Vec<Checkpoint>> {
    let mut found: Vec<Checkpoint> = list(&run.join(CHECKPOINTS))?
        .into_iter()
        .filter_map(|path| {
            let step = path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
            path.join(STATE).is_file().then_some(Checkpoint { step, path })
        })
        .collect();
    found.sort_by_key(|checkpoint| checkpoint.step);
    Ok(found)
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub struct PendingCheckpoint {
    step: usize,
    path: PathBuf,
}

impl PendingCheckpoint {
    /// The folder to write into.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PendingCheckpoint {
    fn drop(&mut self) {
        // Gone if committed; otherwise the next start removes it if we cannot.
        let _ = remove(&self.path);
    }
}

fn step_of(row: &Value) -> Option<usize> {
    row["step"].as_u64()?.try_into().ok()
}

/// The entries of a folder; none if there is no such folder.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .map_err(Error::io("read", dir)),
    }
}

/// Removes a file or a folder with all in it, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", path)),
    }
}

/// Writes `rows` in one piece to the end of `path`, which `file` keeps open.
fn append(file: &mut Option<File>, path: &Path, rows: &[Value]) -> Result<()> {
    assert!(rows.iter().all(|row| step_of(row).is_some()), "a row without a step");
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    if file.is_none() {
        *file =
            Some(OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?);
    }
    let file = file.as_mut().expect("opened above");
    file.write_all(lines.as_bytes()).map_err(Error::io("write", path))
}

/// Keeps the rows of a log up to `step`.
fn truncate(path: &Path, step: usize) -> Result<()> {
    let mut log = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        opened => BufReader::new(opened.map_err(Error::io("read", path))?),
    };
    files::write_atomic_with(path, |kept| {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            log.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            // The end, or a line that a crash has cut off.
            if line.last() != Some(&b'\n') {
                break;
            }
            let row: Option<Value> = serde_json::from_slice(&line).ok();
            let found = row.as_ref().and_then(step_of).ok_or_else(|| {
                let why = "is no row of a run (an object with a \"step\"): repair or remove it";
                Error::Row { path: path.to_owned(), line: number, why: why.into() }
            })?;
            if found <= step {
                kept.write_all(&line).map_err(Error::io("write", path))?;
            }
        }
        Ok(())
    })
}

/// Makes all below `dir` survive a power cut.
fn sync_tree(dir: &Path) -> Result<()> {
    for path in list(dir)? {
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            // For writing, as Windows syncs nothing else.
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.sync_all()).map_err(Error::io("sync", &path))?;
        }
    }
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(path: &Path, start: Start) -> RunDir {
        RunDir::create(path, &start, None).unwrap()
    }

    fn refused(path: &Path, start: Start) -> String {
        RunDir::create(path, &start, None).unwrap_err().to_string()
    }

    fn save(run: &mut RunDir, step: usize) -> Checkpoint {
        let pending = run.begin_checkpoint(step).unwrap();
        write(&pending.path().join(STATE), &json!({"step": step}).to_string());
        write(&pending.path().join("model/weights"), &format!("weights {step}"));
        run.commit(pending).unwrap()
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = list(dir)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// A run of three steps with checkpoints after 1 and 2.
    fn three_steps(path: &Path) -> RunDir {
        let mut run = open(path, Start::New);
        run.write_run(&json!({"seed": 1})).unwrap();
        for step in 1..=3 {
            run.append_pairs(&[json!({"step": step, "pair": 0}), json!({"step": step, "pair": 1})]).unwrap();
            run.append_metrics(&json!({"step": step, "loss": 0.5})).unwrap();
            if step < 3 {
                save(&mut run, step);
            }
        }
        run
    }

    #[test]
    fn a_run_writes_its_configuration_rows_and_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/run");
        let run = three_steps(&path);
        assert_eq!(names(&path), [CHECKPOINTS, METRICS, PAIRS, RUN]);
        assert_eq!(text(&path.join(RUN)), "{\n  \"seed\": 1\n}\n");
        assert_eq!(text(&path.join(METRICS)).lines().nth(2).unwrap(), r#"{"step":3,"loss":0.5}"#);
        assert_eq!(text(&path.join(PAIRS)).lines().count(), 6);
        let latest = run.latest_checkpoint().unwrap().unwrap();
        assert_eq!((latest.step, &latest.path), (2, &path.join("checkpoints/step-000002")));
        assert_eq!(text(&latest.path.join("model/weights")), "weights 2");
        assert_eq!(run.resumed(), None);
    }

    #[test]
    fn a_folder_that_holds_a_run_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        three_steps(dir.path());
        let before = text(&dir.path().join(METRICS));
        let error = refused(dir.path(), Start::New);
        for way_out in
            ["already holds a run (metrics.jsonl)", "--output-dir", "--resume-from-checkpoint", "--overwrite"]
        {
            assert!(error.contains(way_out), "{error}");
        }
        assert_eq!(text(&dir.path().join(METRICS)), before);
        // A stray log would be appended to.
        fs::remove_file(dir.path().join(RUN)).unwrap();
        assert!(refused(dir.path(), Start::New).contains("(metrics.jsonl)"));
        // A run that failed before its first step is in nobody's way.
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), Start::New).write_run(&json!({})).unwrap();
        open(dir.path(), Start::New);
    }

    #[test]
    fn overwriting_removes_the_old_run_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        three_steps(dir.path());
        write(&dir.path().join("notes.txt"), "mine");
        write(&dir.path().join("model/config.json"), "{}");
        let mut run = open(dir.path(), Start::Overwrite);
        assert_eq!(names(dir.path()).len(), 6);
        run.write_run(&json!({})).unwrap();
        assert_eq!(names(dir.path()), ["notes.txt", RUN]);
        run.write_run(&json!({})).unwrap();
        assert_eq!(run.latest_checkpoint().unwrap(), None);
    }

    #[test]
    fn nothing_is_left_by_a_run_that_has_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        open(&path, Start::New);
        assert!(names(&path).is_empty());
        open(&path, Start::New);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_found_out_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write(&file, "");
        assert!(refused(&file, Start::New).contains("file"));
        assert!(refused(&file.join("run"), Start::New).contains("cannot"));
        #[cfg(target_os = "linux")]
        assert!(refused(Path::new("/proc/self"), Start::New).contains("/proc/self: cannot be written to"));
    }

    #[test]
    fn a_checkpoint_is_seen_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let run = three_steps(dir.path());
        let checkpoints = dir.path().join(CHECKPOINTS);
        let pending = run.begin_checkpoint(3).unwrap();
        write(&pending.path().join(STATE), "{}");
        assert_eq!(run.latest_checkpoint().unwrap().unwrap().step, 2);
        // Given up.
        drop(pending);
        assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
        // Killed.
        let killed = run.begin_checkpoint(3).unwrap();
        write(&killed.path().join(STATE), "{}");
        std::mem::forget(killed);
        write(&dir.path().join(".run.json.77.tmp"), "{");
        write(&dir.path().join(".mine.tmp"), "");
        let mut run = open(dir.path(), Start::Resume(Resume::Last));
        assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
        assert_eq!(names(dir.path()), [".mine.tmp", CHECKPOINTS, METRICS, PAIRS, RUN]);
        // Without its state it is none.
        let empty = run.begin_checkpoint(4).unwrap();
        assert!(run.commit(empty).unwrap_err().to_string().contains("state.json"));
        assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
    }

    #[test]
    fn the_oldest_checkpoints_beyond_the_limit_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(dir.path(), &Start::New, NonZeroUsize::new(2)).unwrap();
        for step in [5, 90, 1_000_000, 1_000_001] {
            save(&mut run, step);
        }
        assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-1000000", "step-1000001"]);
        assert_eq!(run.latest_checkpoint().unwrap().unwrap().step, 1_000_001);
    }

    #[test]
    fn saving_a_step_twice_keeps_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = RunDir::create(dir.path(), &Start::New, NonZeroUsize::new(1)).unwrap();
        let first = save(&mut run, 7);
        assert_eq!(save(&mut run, 7), first);
        assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-000007"]);
    }

    #[test]
    fn a_resumed_run_forgets_what_came_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        three_steps(dir.path());
        let whole = [METRICS, PAIRS].map(|name| text(&dir.path().join(name)));
        let torn = |name: &str, end: &str| {
            let log = OpenOptions::new().append(true).open(dir.path().join(name));
            log.unwrap().write_all(end.as_bytes()).unwrap();
        };
        torn(METRICS, "{\"step\":4,\"lo");
        torn(PAIRS, "{\"step\":1}");
        let mut run = open(dir.path(), Start::Resume(Resume::Last));
        let step = run.resumed().unwrap().step;
        assert_eq!(step, 2);
        run.truncate_to_step(step).unwrap();
        assert_eq!(text(&dir.path().join(METRICS)).lines().count(), 2);
        run.append_pairs(&[json!({"step": 3, "pair": 0}), json!({"step": 3, "pair": 1})]).unwrap();
        run.append_metrics(&json!({"step": 3, "loss": 0.5})).unwrap();
        assert_eq!([METRICS, PAIRS].map(|name| text(&dir.path().join(name))), whole);
        // From the first: the second must not be the last any more.
        let first = dir.path().join("checkpoints/step-000001");
        let mut run = open(dir.path(), Start::Resume(Resume::Path(first.clone())));
        assert_eq!(run.resumed(), Some(&Checkpoint { step: 1, path: first }));
        run.truncate_to_step(1).unwrap();
        assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-000001"]);
        assert_eq!(text(&dir.path().join(METRICS)).lines().count(), 1);
    }

    #[test]
    fn a_broken_log_is_an_error_with_its_line_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = open(dir.path(), Start::New);
        run.truncate_to_step(0).unwrap();
        let log = dir.path().join(METRICS);
        for broken in ["{\"step\":1}\nnothing\n{\"step\":2}\n", "{\"step\":1}\n{}\n"] {
            write(&log, broken);
            let error = run.truncate_to_step(1).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl:2: is no row"), "{error}");
            assert_eq!(text(&log), broken);
        }
    }

    #[test]
    fn what_cannot_be_resumed_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let (run, other) = (dir.path().join("run"), dir.path().join("other"));
        let error = refused(&run, Start::Resume(Resume::Last));
        assert!(error.contains("run/checkpoints: holds no checkpoint"), "{error}");
        assert!(error.contains("--resume-from-checkpoint"), "{error}");
        assert!(!run.exists());
        three_steps(&run);
        let error = refused(&run, Start::Resume(Resume::Path(run.clone())));
        assert!(error.contains("is not a checkpoint (it has no state.json)"), "{error}");
        // Another run's checkpoint begins a new run, it does not cut this one's logs.
        let from = Start::Resume(Resume::Path(run.join("checkpoints/step-000002")));
        assert_eq!(open(&other, from.clone()).resumed().unwrap().step, 2);
        three_steps(&other);
        assert!(refused(&other, from).contains("already holds a run"));
    }

    #[test]
    fn last_is_a_word_and_all_else_a_path() {
        let parse = |text: &str| text.parse::<Resume>().unwrap();
        assert_eq!(parse("last"), Resume::Last);
        assert_eq!(parse("runs/last"), Resume::Path("runs/last".into()));
    }
}
