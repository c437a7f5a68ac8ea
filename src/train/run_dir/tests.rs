use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use super::super::checkpoint::STATE;
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
    let mut names: Vec<String> = files::list(dir)
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// The expected logs of [`three_steps`] after `step` steps.
fn logs(step: usize) -> Logs {
    Logs { after_step: 0, pairs: 2 * step }
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
fn a_folder_with_a_run_is_rejected_and_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    three_steps(dir.path());
    let before = text(&dir.path().join(METRICS));
    let error = refused(dir.path(), Start::New);
    for way_out in
        ["already has a run (metrics.jsonl)", "`output-dir`", "`resume` ", "`overwrite-output-dir`"]
    {
        assert!(error.contains(way_out), "{error}");
    }
    assert_eq!(text(&dir.path().join(METRICS)), before);
    // A stray log must not be appended to.
    fs::remove_file(dir.path().join(RUN)).unwrap();
    assert!(refused(dir.path(), Start::New).contains("(metrics.jsonl)"));
    // A run that failed before its first step does not count.
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
fn a_run_that_has_not_started_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    open(&path, Start::New);
    assert!(names(&path).is_empty());
    open(&path, Start::New);
}

#[test]
fn a_folder_that_is_not_writable_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    write(&file, "");
    assert!(refused(&file, Start::New).contains("file"));
    assert!(refused(&file.join("run"), Start::New).contains("cannot"));
    #[cfg(target_os = "linux")]
    assert!(refused(Path::new("/proc/self"), Start::New).contains("/proc/self: cannot be written to"));
}

#[test]
fn a_checkpoint_is_found_only_when_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let run = three_steps(dir.path());
    let checkpoints = dir.path().join(CHECKPOINTS);
    let pending = run.begin_checkpoint(3).unwrap();
    write(&pending.path().join(STATE), "{}");
    assert_eq!(run.latest_checkpoint().unwrap().unwrap().step, 2);
    // Dropped.
    drop(pending);
    assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
    // Killed.
    let killed = run.begin_checkpoint(3).unwrap();
    write(&killed.path().join(STATE), "{}");
    std::mem::forget(killed);
    drop(run);
    write(&dir.path().join(".run.json.77.tmp"), "{");
    write(&dir.path().join("model/.model.safetensors.77.tmp"), "half");
    write(&dir.path().join(".mine.tmp"), "");
    let mut run = open(dir.path(), Start::Resume(Resume::Last));
    assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
    assert_eq!(names(dir.path()), [".mine.tmp", CHECKPOINTS, METRICS, "model", PAIRS, RUN]);
    assert!(names(&dir.path().join("model")).is_empty());
    // Without its state, it is not a checkpoint.
    let empty = run.begin_checkpoint(4).unwrap();
    assert!(run.commit(empty).unwrap_err().to_string().contains("state.json"));
    assert_eq!(names(&checkpoints), ["step-000001", "step-000002"]);
}

#[test]
fn the_oldest_checkpoints_beyond_the_limit_are_removed() {
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
fn a_resumed_run_removes_everything_after_its_checkpoint() {
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
    run.truncate_to_step(step, logs(step)).unwrap();
    assert_eq!(text(&dir.path().join(METRICS)).lines().count(), 2);
    run.append_pairs(&[json!({"step": 3, "pair": 0}), json!({"step": 3, "pair": 1})]).unwrap();
    run.append_metrics(&json!({"step": 3, "loss": 0.5})).unwrap();
    assert_eq!([METRICS, PAIRS].map(|name| text(&dir.path().join(name))), whole);
    drop(run);
    // From the first checkpoint: the second one must be removed.
    let first = dir.path().join("checkpoints/step-000001");
    let mut run = open(dir.path(), Start::Resume(Resume::Path(first.clone())));
    assert_eq!(run.resumed(), Some(&Checkpoint { step: 1, path: first }));
    run.truncate_to_step(1, logs(1)).unwrap();
    assert_eq!(names(&dir.path().join(CHECKPOINTS)), ["step-000001"]);
    assert_eq!(text(&dir.path().join(METRICS)).lines().count(), 1);
}

#[test]
fn a_broken_log_is_an_error_with_its_line_and_is_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = open(dir.path(), Start::New);
    run.truncate_to_step(0, logs(0)).unwrap();
    let log = dir.path().join(METRICS);
    for broken in ["{\"step\":1}\nnothing\n{\"step\":2}\n", "{\"step\":1}\n{}\n"] {
        write(&log, broken);
        let error = run.truncate_to_step(1, logs(1)).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl:2: is not a row"), "{error}");
        assert_eq!(text(&log), broken);
    }
}

#[test]
fn resuming_without_a_checkpoint_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let (run, other) = (dir.path().join("run"), dir.path().join("other"));
    let error = refused(&run, Start::Resume(Resume::Last));
    assert!(error.contains("run/checkpoints: has no checkpoint"), "{error}");
    assert!(error.contains("start the run again with `overwrite-output-dir`"), "{error}");
    assert!(!run.exists());
    three_steps(&run);
    let error = refused(&run, Start::Resume(Resume::Path(run.clone())));
    assert!(error.contains("is not a checkpoint (it has no state.json)"), "{error}");
    // A new run may start from another run's checkpoint, but an existing run is not changed by it.
    let from = Start::Resume(Resume::Path(run.join("checkpoints/step-000002")));
    assert_eq!(open(&other, from.clone()).resumed().unwrap().step, 2);
    three_steps(&other);
    assert!(refused(&other, from).contains("already has a run"));
}

#[test]
fn a_folder_has_one_run_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let run = open(&path, Start::New);
    for start in [Start::New, Start::Overwrite, Start::Resume(Resume::Last)] {
        assert!(refused(&path, start).contains("is in use by"));
    }
    drop(run);
    open(&path, Start::New);
}

#[test]
fn logs_that_lack_rows_are_rejected_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    for (name, keep) in [(METRICS, 1), (METRICS, 0), (PAIRS, 3)] {
        let run = dir.path().join(format!("{name}{keep}"));
        three_steps(&run);
        let lines: String = text(&run.join(name)).lines().take(keep).map(|l| format!("{l}\n")).collect();
        write(&run.join(name), &lines);
        let error = open(&run, Start::Resume(Resume::Last)).truncate_to_step(2, logs(2)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(name) && error.contains(&format!("has {keep} rows")), "{error}");
        assert_eq!(names(&run.join(CHECKPOINTS)).len(), 2);
        assert_eq!(text(&run.join(name)), lines);
    }
}

#[test]
fn a_damaged_checkpoint_is_rejected_and_the_last_intact_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    three_steps(dir.path());
    let weights = dir.path().join("checkpoints/step-000002/model/weights");
    let state = dir.path().join("checkpoints/step-000002/state.json");
    let whole = [&weights, &state].map(|path| fs::read(path).unwrap());
    let resumed = || refused(dir.path(), Start::Resume(Resume::Last));
    for (path, damage, why) in [
        (&weights, Some("weightt 2"), "is damaged"),
        (&weights, Some("weights"), "has 7 bytes instead of 9"),
        (&weights, None, "is missing"),
        (&state, Some("{\"step\":3}"), "is damaged"),
        (&state, None, "is missing"),
        (&dir.path().join("checkpoints/step-000002/checksums.json"), Some("{"), "is damaged"),
    ] {
        match damage {
            Some(text) => write(path, text),
            None => fs::remove_file(path).unwrap(),
        }
        let error = resumed();
        assert!(error.contains(&path.display().to_string()) && error.contains(why), "{error}");
        assert!(error.contains("`resume-from-checkpoint`") && error.contains("step-000001"), "{error}");
        fs::write(&weights, &whole[0]).unwrap();
        fs::write(&state, &whole[1]).unwrap();
    }
    write(&dir.path().join("checkpoints/step-000001/model/weights"), "0");
    assert!(resumed().contains("start a new run"));
}

#[test]
fn a_folder_that_is_removed_during_a_run_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for moved in [false, true] {
        let path = dir.path().join("run");
        let mut run = three_steps(&path);
        match moved {
            true => fs::rename(&path, dir.path().join("elsewhere")).unwrap(),
            false => fs::remove_dir_all(&path).unwrap(),
        }
        let error = run.append_metrics(&json!({"step": 4})).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: was removed, moved or replaced"), "{error}");
        assert!(run.begin_checkpoint(4).is_err());
        assert!(!path.exists());
    }
}

#[cfg(unix)]
#[test]
fn temporary_files_are_never_written_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mine) = (dir.path().join("run"), dir.path().join("mine"));
    write(&mine, "mine");
    fs::create_dir(&path).unwrap();
    for name in [".writable.tmp".to_owned(), format!(".writable.{}.tmp", std::process::id())] {
        std::os::unix::fs::symlink(&mine, path.join(name)).unwrap();
    }
    open(&path, Start::New);
    assert_eq!(text(&mine), "mine");
    assert!(names(&path).is_empty());
}

#[test]
fn last_is_a_keyword_and_anything_else_a_path() {
    let parse = |text: &str| Resume::from(text);
    assert_eq!(parse("last"), Resume::Last);
    assert_eq!(parse("runs/last"), Resume::Path("runs/last".into()));
}
