//! Runs that are interrupted or killed, and resumed.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::{FIRST, PAIRS, Place, completions};

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
    // The shell's built-in `kill`: a minimal machine has no other.
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
    assert!(!ends_before_step(place, run, step, child), "the run ended before step {step}");
}

/// The metrics without times, as they would be written.
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

/// More steps than a run can reach between five kills.
const STEPS: usize = 30;

fn align(run: &str, more: &str) -> String {
    format!(
        "align --model tiny --dataset pairs.jsonl --output-dir {run} --max-steps {STEPS} --save-steps 2 \
         --learning-rate 1e-3 --per-device-train-batch-size 2 --max-new-tokens 8 --judge rule \
         --judge-rule longer {more}"
    )
}

/// [`align`] with the script `judge` as its judge.
fn align_by_script(run: &str, more: &str) -> String {
    let rule = "--judge rule --judge-rule longer";
    align(run, more).replace(rule, "--judge command --judge-command ./judge --judge-probes 0")
}

/// Waits until this happens while the program is running.
#[track_caller]
fn wait_until(child: &mut Child, what: &str, happens: impl Fn() -> bool) {
    let start = Instant::now();
    while !happens() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(start.elapsed() < Duration::from_secs(120), "not in two minutes: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_run_finishes_its_step_saves_and_can_be_resumed() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // While the file `hold` exists, it answers no question after the third step.
    let waits =
        "while [ -e hold ] && [ $(wc -l < parts/metrics.jsonl) -ge 3 ]; do sleep 0.05; done 2> /dev/null";
    place.script("judge", &format!("{waits}\n{FIRST}"));
    let lora = "--lora-r 2 --save-steps=0 --report";
    let line = |run: &str| align_by_script(run, lora).replace("--save-steps 2 ", "");
    place.oaif(&line("whole")).done();

    place.write("hold", "");
    let mut command = place.command(&line("parts"));
    let mut child = command.stderr(std::fs::File::create(place.path("err")).unwrap()).spawn().unwrap();
    let err = || String::from_utf8_lossy(&place.read("err")).into_owned();
    wait_for_step(&place, "parts", 3, &mut child);
    signal(&child, "INT");
    wait_until(&mut child, "its message", || err().contains("finishing this step"));
    std::fs::remove_file(place.path("hold")).unwrap();
    let code = child.wait().unwrap().code();
    let err = err();
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("resume with oaif align --resume parts"), "{err}");
    let steps = logged_steps(&place, "parts");
    assert!((3..STEPS).contains(&steps));
    assert_eq!(place.names("parts/checkpoints"), [format!("step-{steps:06}")], "{err}");
    assert!(!place.path("parts/adapter").exists(), "an unfinished run has no result");
    let report = String::from_utf8(place.read("parts/report.html")).unwrap();
    assert!(report.contains(&format!("Not finished: {steps} of {STEPS} steps are done.")), "{report}");

    place.oaif("align --resume parts").done();
    let report = String::from_utf8(place.read("parts/report.html")).unwrap();
    assert!(!report.contains("Not finished"), "{report}");
    std::fs::remove_dir_all(place.path(&format!("parts/checkpoints/step-{steps:06}"))).unwrap();
    assert_same_run(&place, "whole", "parts", "adapter/adapter_model.safetensors");
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_before_its_first_step_prints_how_to_resume_it() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    place.script("judge.sh", "touch begun; while [ ! -e go ]; do sleep 0.1; done; cat > /dev/null; exit 3");
    let rule = "--judge rule --judge-rule longer";
    let program = "--judge command --judge-command ./judge.sh --judge-probes 0";
    let line = |run: &str| align(run, "").replace(rule, program);
    let mut child = place.command(&line("run")).spawn().unwrap();
    while !place.path("begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(
        err.contains("no step was done") && err.contains("resume with oaif align --resume run\n"),
        "{err}"
    );
    // A failing judge is handled the same way.
    place.write("go", "");
    let failed = place.oaif("align --resume run");
    assert!(failed.err.contains("resume with oaif align --resume"), "{}", failed.err);
    failed.ended(1, &["judge.sh"]);
    place.script("judge.sh", r#"sed 's/^{"id":"\([^"]*\)".*/{"id": "\1", "verdict": "1"}/'"#);
    place.oaif("align --resume run").done();
    // A run that was refused because of the folder's contents suggests nothing.
    let met = place.oaif(&line("run"));
    assert!(!met.err.contains("resume with oaif align"), "{}", met.err);
    met.ended(1, &["already has a run"]);
}

/// Every kind of run, with the weights that it writes. The first one is always tested.
fn kinds() -> Vec<(&'static str, String, &'static str)> {
    let common = format!("--model tiny --max-steps {STEPS} --save-steps 2 --learning-rate 1e-3");
    let small = "--per-device-train-batch-size 2";
    let online = format!("align {common} {small} --dataset pairs.jsonl --max-new-tokens 8");
    let rule = "--judge rule --judge-rule longer";
    let (full, adapter) = ("model/model.safetensors", "adapter/adapter_model.safetensors");
    vec![
        ("align", format!("{online} {rule}"), full),
        ("async", format!("{online} --async-level 1 --judge command --judge-command ./judge"), full),
        (
            "async-lora",
            format!("{online} --async-level 1 --lora-r 2 --judge command --judge-command ./judge"),
            adapter,
        ),
        ("accumulation", format!("{online} {rule} --gradient-accumulation-steps 2 --num-samples 3"), full),
        ("align-adafactor", format!("{online} {rule} --optim adafactor --lora-r 2"), adapter),
        ("dpo", format!("dpo {common} {small} --dataset pairs.jsonl"), full),
        ("dpo-lora", format!("dpo {common} --dataset pairs.jsonl --lora-r 2 --optim adafactor"), adapter),
        ("sft", format!("sft {common} {small} --dataset rows.jsonl --optim adafactor"), full),
        (
            "sft-lora",
            format!("sft {common} --dataset rows.jsonl --lora-r 2 --gradient-accumulation-steps 2"),
            adapter,
        ),
    ]
}

/// `OAIF_KILLS=100` kills runs of all kinds a hundred times in total; by default one kind is killed five times.
#[test]
fn a_run_killed_at_random_moments_equals_an_uninterrupted_one() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    let kills = std::env::var("OAIF_KILLS").ok().map(|kills| kills.parse::<usize>().unwrap());
    let mut kinds = kinds();
    if kills.is_none() {
        kinds.truncate(1);
    }
    let all = kills.unwrap_or(5);
    for (i, (kind, line, weights)) in kinds.iter().enumerate() {
        let kills = all / kinds.len() + usize::from(i < all % kinds.len());
        let Some(place) = Place::with(&["tiny"]) else { return };
        place.write("pairs.jsonl", PAIRS);
        place.write("rows.jsonl", completions());
        place.script("judge", "while read -r pair; do echo '{\"verdict\":\"1\"}'; done");
        place.oaif(&format!("{line} --output-dir whole")).done();
        let go_on = || match has_checkpoint(&place, "parts") {
            true => format!("{} --resume parts", line.split_whitespace().next().unwrap()),
            false => format!("{line} --output-dir parts --overwrite-output-dir"),
        };
        for _ in 0..kills {
            let mut command = place.command(&go_on());
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Some are killed while they start, the others during or after a step shortly after the resume.
            let target = (logged_steps(&place, "parts") + random.below(4) as usize).min(STEPS);
            let delay = random.below(if target == 0 { 400 } else { 40 });
            if !ends_before_step(&place, "parts", target, &mut child) {
                std::thread::sleep(Duration::from_millis(delay));
                let _ = child.kill();
            }
            child.wait().unwrap();
            println!(
                "{kind}: killed {delay} ms after step {target}, {} logged",
                logged_steps(&place, "parts")
            );
        }
        place.oaif(&go_on()).done();
        assert_same_run(&place, "whole", "parts", weights);
        for checkpoint in place.names("whole/checkpoints") {
            for file in place.names(&format!("whole/checkpoints/{checkpoint}")) {
                // These files contain times if answers are kept for the next step.
                if !["state.json", "checksums.json"].contains(&&*file) {
                    let of = |run: &str| place.read(&format!("{run}/checkpoints/{checkpoint}/{file}"));
                    assert!(of("whole") == of("parts"), "{kind}: {checkpoint}/{file} differs");
                }
            }
        }
        let left: Vec<String> =
            place.names("parts").into_iter().filter(|name| name.contains("tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Whether the run has ended before this step was logged.
fn ends_before_step(place: &Place, run: &str, step: usize, child: &mut Child) -> bool {
    let start = Instant::now();
    while logged_steps(place, run) < step {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "no step {step} in two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

fn has_checkpoint(place: &Place, run: &str) -> bool {
    let dir = place.path(&format!("{run}/checkpoints"));
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_string_lossy().starts_with("step-"))
}

#[test]
fn a_failed_judge_is_retried_and_completed_steps_are_kept() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    place.script("good", FIRST);
    // Answers the first call, fails the second, answers the third, and fails from then on until the file `mended`
    // exists.
    let count = "echo >> calls; n=$(wc -l < calls); ";
    place.script(
        "judge",
        &format!("{count}test -e mended || test $n -eq 1 || test $n -eq 3 || exit 3; {FIRST}"),
    );
    let line = |run: &str, judge: &str| {
        format!(
            "align --model tiny --dataset pairs.jsonl --output-dir {run} --max-steps 4 --max-new-tokens 6 \
             --learning-rate 1e-3 --report --judge command --judge-command ./{judge} --async-level 1 \
             --judge-probes 0"
        )
    };
    let outcome = place.oaif(&line("run", "judge"));
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.contains("retried after a failure") && outcome.err.contains("exit status: 3"));
    assert!(outcome.err.contains("after step 2; resume with oaif align --resume run"), "{}", outcome.err);
    assert_eq!(place.names("run/checkpoints"), ["step-000002"]);
    let report = String::from_utf8(place.read("run/report.html")).unwrap();
    assert!(report.contains("Not finished: 2 of 4 steps are done."), "{report}");
    place.write("mended", "");
    place.oaif("align --resume run").done();
    place.oaif(&line("whole", "good")).done();
    std::fs::remove_dir_all(place.path("run/checkpoints/step-000002")).unwrap();
    assert_same_run(&place, "whole", "run", "model/model.safetensors");
}

#[test]
fn every_termination_signal_saves_a_checkpoint_first() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let line = align(name, "--save-steps=0 --max-steps=5000");
        let line = line.replace("--save-steps 2 ", "").replace(&format!("--max-steps {STEPS} "), "");
        let mut child = place.command(&line).spawn().unwrap();
        wait_for_step(&place, name, 2, &mut child);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert_eq!(place.names(&format!("{name}/checkpoints")).len(), 1, "{err}");
    }
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    let oaif = env!("CARGO_BIN_EXE_oaif");
    let line = format!("trap '' HUP; exec {oaif} {}", align("run", ""));
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(place.path(".")).args(["-c", &line]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    wait_for_step(&place, "run", 2, &mut child);
    signal(&child, "HUP");
    assert!(child.wait().unwrap().success());
    assert_eq!(logged_steps(&place, "run"), STEPS);
}

/// Whether a judge that wrote its process id into `judging` is still running after some time to exit.
fn judge_is_alive(place: &Place) -> bool {
    let judge = String::from_utf8(place.read("judging")).unwrap();
    let start = Instant::now();
    loop {
        let check = format!("kill -s 0 {} 2> /dev/null", judge.trim());
        let alive = std::process::Command::new("sh").args(["-c", &check]).status().unwrap().success();
        // It may be a zombie that was not waited for yet.
        let state = std::fs::read_to_string(format!("/proc/{}/stat", judge.trim())).unwrap_or_default();
        let alive = alive && !state.contains(") Z ");
        if !alive || start.elapsed() > Duration::from_secs(10) {
            return alive;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_judge_never_outlives_the_program() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    place.script("judge", "echo $$ > judging; sleep 60");
    let line = "align --model tiny --dataset pairs.jsonl --output-dir run --max-steps 4 --max-new-tokens 6 \
                --judge command --judge-command ./judge";
    // Two signals, and a kill.
    for (signals, code) in [(["TERM", "TERM"].as_slice(), Some(143)), (&["KILL"], None)] {
        let _ = std::fs::remove_file(place.path("judging"));
        let mut child = place.command(line).spawn().unwrap();
        let start = Instant::now();
        while std::fs::read(place.path("judging")).unwrap_or_default().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        // The guard of the judge starts just after it.
        for name in signals {
            std::thread::sleep(Duration::from_millis(300));
            signal(&child, name);
        }
        assert_eq!(child.wait().unwrap().code(), code);
        assert!(!judge_is_alive(&place), "the judge outlived the program");
    }
}

#[test]
fn closed_output_streams_do_not_end_a_run() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    let oaif = env!("CARGO_BIN_EXE_oaif");
    let shell = |line: &str| {
        let mut shell = std::process::Command::new("sh");
        let status = shell.current_dir(place.path(".")).args(["-c", line]).status().unwrap();
        assert!(status.success(), "{line}");
    };
    for (run, output) in
        [("closed", ">&- 2>&-"), ("full", "> out 2> /dev/full"), ("head", "2>&1 | head -n 1 > /dev/null")]
    {
        if run == "full" && !std::path::Path::new("/dev/full").exists() {
            continue;
        }
        shell(&format!("{oaif} {} {output}", align(run, "--warmup-steps 3")));
        assert_eq!(logged_steps(&place, run), STEPS, "{run}");
        assert!(place.path(&format!("{run}/model/model.safetensors")).exists(), "{run}");
    }
}

#[test]
fn two_runs_cannot_use_one_folder_at_once() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // While the file `hold` exists, it answers no question.
    place.script("judge", &format!("touch judging; while [ -e hold ]; do sleep 0.05; done\n{FIRST}"));
    for more in ["", "--overwrite-output-dir", "--resume-from-checkpoint last"] {
        if more.contains("last") {
            // Simulates a kill after its second step.
            for checkpoint in &place.names("run/checkpoints")[1..] {
                std::fs::remove_dir_all(place.path(&format!("run/checkpoints/{checkpoint}"))).unwrap();
            }
        }
        let line = align_by_script("run", more);
        // Without the answers that an earlier run kept, the judge is asked.
        for file in ["judging", "run/judgements.jsonl"] {
            let _ = std::fs::remove_file(place.path(file));
        }
        place.write("hold", "");
        let mut first = place.command(&line).spawn().unwrap();
        // It holds the lock while the second run starts.
        wait_until(&mut first, &format!("the first question, {more}"), || place.path("judging").exists());
        let second = place.oaif(&line);
        std::fs::remove_file(place.path("hold")).unwrap();
        assert_eq!(second.code, Some(1), "{more}: {}", second.err);
        assert!(second.err.contains("is in use by"), "{more}: {}", second.err);
        let first = first.wait_with_output().unwrap();
        assert!(first.status.success(), "{more}: {}", String::from_utf8_lossy(&first.stderr));
        assert_eq!(logged_steps(&place, "run"), STEPS);
    }
}

/// Whichever is faster: only one of them trains, or one after the other.
#[test]
fn two_runs_that_start_together_do_not_mix() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    for more in ["", "--overwrite-output-dir", "--resume-from-checkpoint last"] {
        let children = [(); 2].map(|()| place.command(&align("run", more)).spawn().unwrap());
        let ends = children.map(|child| child.wait_with_output().unwrap());
        for end in &ends {
            let err = String::from_utf8_lossy(&end.stderr);
            let refused =
                err.contains("is in use by") || more.is_empty() && err.contains("already has a run");
            assert!(end.status.success() || end.status.code() == Some(1) && refused, "{more}: {err}");
        }
        let done = ends.iter().filter(|end| end.status.success()).count();
        assert!(done == 1 || done == 2 && !more.is_empty(), "{more}: {done} of 2 runs were done");
        assert_eq!(logged_steps(&place, "run"), STEPS);
    }
}

#[test]
fn a_folder_that_is_removed_during_the_run_is_an_error() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    let line = align("run", "").replace(&format!("--max-steps {STEPS}"), "--max-steps 5000");
    let mut child = place.command(&line).spawn().unwrap();
    wait_for_step(&place, "run", 2, &mut child);
    std::fs::rename(place.path("run"), place.path("gone")).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("was removed, moved or replaced"), "{err}");
    assert!(!place.path("run").exists());
    // A run folder that was moved can be resumed.
    place.oaif("align --resume gone --max-steps 5000 --dry-run").done();
}

#[test]
fn a_run_that_no_longer_learns_ends_with_the_reason() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // Every comparison is a tie.
    let line = align("run", "--max-steps=100").replace(&format!("--max-steps {STEPS} "), "");
    let outcome = place.oaif(&line.replace("longer", "contains:zzzz"));
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.contains("nothing was learnt in the last 20 steps"), "{}", outcome.err);
    assert!(outcome.err.contains("no pairs") && !outcome.err.contains("NaN"), "{}", outcome.err);
    assert_eq!(logged_steps(&place, "run"), 20);
    assert!(!place.path("run/model").exists() && place.names("run/checkpoints").len() == 10);
}

#[cfg(unix)]
#[test]
fn a_run_that_no_longer_learns_saves_no_model_when_it_is_resumed() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // Prefers the first response in two steps of six, and none in the others.
    let tie = FIRST.replace(r#""1""#, r#""tie""#);
    place.script(
        "judge",
        &format!("echo >> calls; if test $(wc -l < calls) -le 2; then {FIRST}; else {tie}; fi"),
    );
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 6 --output-dir run --max-new-tokens 6 \
                --judge-probes 0 --judge command --judge-command";
    for outcome in [place.oaif_with(line, &["./judge"]), place.oaif("align --resume run")] {
        assert_eq!(outcome.code, Some(1), "{}", outcome.err);
        assert!(outcome.err.contains("nothing was learnt in the last 4 steps"), "{}", outcome.err);
        assert!(!place.path("run/model").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_step_that_could_not_be_logged_is_in_no_checkpoint() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("pairs.jsonl", PAIRS);
    // While the file `broken` exists, the samples of the second step's evaluation cannot be written.
    let breaks = "test -e broken && test -s run/metrics.jsonl && rm -rf run/eval_samples.jsonl && mkdir -p run/eval_samples.jsonl/x";
    place.script("judge", &format!("{breaks}\n{FIRST}"));
    let line = |dir: &str| {
        format!(
            "align --model tiny --dataset pairs.jsonl --eval-dataset pairs.jsonl --eval-steps 1 --max-steps 3 \
             --output-dir {dir} --max-new-tokens 6 --judge-probes 0 --judge command --judge-command"
        )
    };
    place.oaif_with(&line("whole"), &["./judge"]).done();
    place.write("broken", "");
    let outcome = place.oaif_with(&line("run"), &["./judge"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.contains("eval_samples.jsonl"), "{}", outcome.err);
    assert_eq!(place.rows("run/metrics.jsonl").len(), 1);
    std::fs::remove_file(place.path("broken")).unwrap();
    std::fs::remove_dir_all(place.path("run/eval_samples.jsonl")).unwrap();
    place.oaif("align --resume run").done();
    let weights = |dir: &str| place.read(&format!("{dir}/model/model.safetensors"));
    assert!(weights("run") == weights("whole"), "the resumed run differs from one without an error");
}
