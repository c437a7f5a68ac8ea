//! Runs that are interrupted or killed, and resumed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{Outcome, PAIRS, Place};

/// Random numbers for delays; the seed is printed when a test fails.
struct Random(u64);

impl Random {
    /// 0 to `limit` - 1, by a linear congruential generator.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn signal(child: &Child, name: &str) {
    // The shell's own `kill`: a bare machine has no other.
    let command = format!("kill -s {name} {}", child.id());
    let done = std::process::Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(done.success(), "the program had ended before {name}");
}

fn logged_steps(place: &Place, run: &str) -> usize {
    let log = std::fs::read(place.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default();
    log.iter().filter(|byte| **byte == b'\n').count()
}

/// Waits until this many steps are in the log.
fn wait_for_step(place: &Place, run: &str, step: usize, child: &mut Child) {
    let start = Instant::now();
    while logged_steps(place, run) < step {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before step {step}");
        assert!(start.elapsed() < Duration::from_secs(120), "no step {step} in two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The metrics without the clock's, as they would be written.
fn untimed(place: &Place, run: &str) -> Vec<String> {
    let strip = |mut row: serde_json::Value| {
        row.as_object_mut().unwrap().retain(|key, _| !key.starts_with("time/") && key != "judge/latency_ms");
        row.to_string()
    };
    place.rows(&format!("{run}/metrics.jsonl")).into_iter().map(strip).collect()
}

#[track_caller]
fn assert_same_run(place: &Place, a: &str, b: &str, weights: &str) {
    assert_eq!(untimed(place, a), untimed(place, b));
    for file in ["pairs.jsonl", weights] {
        let same = place.read(&format!("{a}/{file}")) == place.read(&format!("{b}/{file}"));
        assert!(same, "{file} differs");
    }
    assert_eq!(place.names(&format!("{a}/checkpoints")), place.names(&format!("{b}/checkpoints")));
}

/// Far more than five kills let a run get to.
const STEPS: usize = 30;

fn align(run: &str, more: &str) -> String {
    format!(
        "align --model tiny --dataset pairs.jsonl --output-dir {run} --max-steps {STEPS} --save-steps 2 \
         --learning-rate 1e-3 --per-device-train-batch-size 2 --max-new-tokens 8 --judge rule \
         --judge-rule longer {more}"
    )
}

#[test]
fn an_interrupted_run_finishes_its_step_saves_and_goes_on_where_it_was() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    let lora = "--lora-r 2 --save-steps=0 --report";
    let line = |run: &str| align(run, lora).replace("--save-steps 2 ", "");
    place.oaif(&line("whole")).done();

    let mut child = place.command(&line("parts")).spawn().unwrap();
    wait_for_step(&place, "parts", 3, &mut child);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("finishing this step"), "{err}");
    assert!(err.contains("go on with --resume-from-checkpoint last"), "{err}");
    let steps = logged_steps(&place, "parts");
    assert!((3..STEPS).contains(&steps));
    assert_eq!(place.names("parts/checkpoints"), [format!("step-{steps:06}")], "{err}");
    assert!(!place.path("parts/adapter").exists(), "an unfinished run has no result");
    let report = String::from_utf8(place.read("parts/report.html")).unwrap();
    assert!(report.contains(&format!("Not finished: {steps} of {STEPS} steps are done.")), "{report}");

    place.oaif(&format!("{} --resume-from-checkpoint last", line("parts"))).done();
    let report = String::from_utf8(place.read("parts/report.html")).unwrap();
    assert!(!report.contains("Not finished"), "{report}");
    std::fs::remove_dir_all(place.path(&format!("parts/checkpoints/step-{steps:06}"))).unwrap();
    assert_same_run(&place, "whole", "parts", "adapter/adapter_model.safetensors");
}

#[test]
fn a_run_killed_five_times_at_random_moments_equals_an_uninterrupted_one() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    place.oaif(&align("whole", "")).done();
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    for _ in 0..5 {
        let resume = has_checkpoint(&place, "parts");
        let more = if resume { "--resume-from-checkpoint last" } else { "--overwrite-output-dir" };
        let mut command = place.command(&align("parts", more));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Some are killed while they start, the others in or after a step not far from where they were.
        let target = logged_steps(&place, "parts") + random.below(4) as usize;
        let delay = random.below(if target == 0 { 400 } else { 40 });
        wait_for_step(&place, "parts", target, &mut child);
        std::thread::sleep(Duration::from_millis(delay));
        signal(&child, "KILL");
        child.wait().unwrap();
        println!("killed {delay} ms after step {target}, {} logged", logged_steps(&place, "parts"));
    }
    let more = if has_checkpoint(&place, "parts") { "--resume-from-checkpoint last" } else { "--overwrite" };
    Outcome::of(place.command(&align("parts", more))).done();
    assert_same_run(&place, "whole", "parts", "model/model.safetensors");
    let left: Vec<String> = place.names("parts").into_iter().filter(|name| name.contains("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn has_checkpoint(place: &Place, run: &str) -> bool {
    let dir = place.path(&format!("{run}/checkpoints"));
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("step-"))
}

#[test]
fn a_run_that_fails_on_its_way_reports_what_it_did() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // Judges one step, then nothing more.
    let judge =
        r#"test -e judged && exit 3; touch judged; sed 's/^{\("id":"[^"]*"\),.*/{\1,"verdict":"1"}/'"#;
    let line = "align --model tiny --dataset pairs.jsonl --output-dir run --max-steps 3 --max-new-tokens 6 \
                --report --judge command --judge-command";
    let outcome = place.oaif_with(line, &[judge]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    let report = String::from_utf8(place.read("run/report.html")).unwrap();
    assert!(report.contains("Not finished: 1 of 3 steps are done."), "{report}");
}
