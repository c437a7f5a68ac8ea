//! Ranks that an MPI launcher started: the suite shared with TCP, and whole runs.

mod common;
#[path = "collective/suite.rs"]
mod suite;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use oaif::unstable::collective::{Collective, MpiRanks};

/// `mpirun` with this number of ranks, which may exceed the number of cores.
fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()]);
    command
}

fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn every_rank_gets_what_was_sent_to_it() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    for ranks in [1, 2, 3, 5] {
        let output = mpirun(ranks)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "one_of_the_ranks", "--ignored", "--nocapture"])
            .env("SEED", seed.to_string())
            .output()
            .unwrap();
        succeeded(&output);
    }
}

#[test]
#[ignore = "started by another test"]
fn one_of_the_ranks() {
    let ranks = MpiRanks::begin(Duration::from_secs(30)).unwrap().expect("started by mpirun");
    suite::run(&ranks, std::env::var("SEED").unwrap().parse().unwrap());
    assert_eq!(ranks.local(), (ranks.rank(), ranks.size()));
}

/// `oaif align` in `dir` with a rule as judge and more arguments.
fn align(mut launcher: Command, dir: &Path, out: &str, more: &[&str]) -> Command {
    let model = common::fixture("tiny");
    let rows: String = (0..24).map(|i| format!("{{\"prompt\": \"ab {i}\"}}\n")).collect();
    std::fs::write(dir.join("prompts.jsonl"), rows).unwrap();
    launcher
        .arg(env!("CARGO_BIN_EXE_oaif"))
        .args(["align", "--dataset", "prompts.jsonl", "--judge", "rule", "--judge-rule", "longer"])
        .args(["--max-new-tokens", "8", "--learning-rate", "1e-3", "--no-autotune"])
        .args(["--output-dir", out])
        .arg("--model")
        .arg(model)
        .args(more)
        .current_dir(dir);
    launcher
}

#[test]
fn a_run_over_mpi_equals_a_run_over_tcp() {
    if common::gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let more = ["--max-steps", "4", "--per-device-train-batch-size", "3"];
    succeeded(&align(mpirun(2), dir.path(), "mpi", &more).output().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let started = [0, 1].map(|rank| {
        let mut command = Command::new("env");
        command.args([&format!("RANK={rank}"), "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1"]);
        command.arg(format!("MASTER_PORT={port}"));
        align(command, dir.path(), "tcp", &more).spawn().unwrap()
    });
    started.into_iter().for_each(|child| succeeded(&child.wait_with_output().unwrap()));
    for file in ["model/model.safetensors", "pairs.jsonl"] {
        let [mpi, tcp] = ["mpi", "tcp"].map(|run| std::fs::read(dir.path().join(run).join(file)).unwrap());
        assert!(mpi == tcp, "{file}");
    }
}

/// The processes that this one started.
fn children(parent: u32) -> Vec<u32> {
    let of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain anything; after it come the state and the parent.
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<u32> = all.filter(|pid| of(*pid) == Some(parent)).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_killed_rank_ends_all_and_the_run_resumes_with_fewer() {
    if common::gpu().is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let many = ["--max-steps", "4000", "--save-steps", "1", "--save-total-limit", "2"];
    let mut running =
        align(mpirun(3), dir.path(), "run", &[&many[..], &["--per-device-train-batch-size", "2"]].concat())
            .spawn()
            .unwrap();
    let checkpoints = dir.path().join("run/checkpoints");
    let begun = Instant::now();
    while !checkpoints.join("step-000002").exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Instant::now();
    let ranks = children(running.id());
    assert_eq!(ranks.len(), 3, "{ranks:?}");
    let kill = format!("kill -KILL {}", ranks[2]);
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(!running.wait().unwrap().success());
    // A rank that is noticed by its silence takes 30 seconds.
    assert!(killed.elapsed() < Duration::from_secs(25), "{:?}", killed.elapsed());
    let last = std::fs::read_dir(&checkpoints)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let last: usize = last.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).max().unwrap();
    let steps = (last + 2).to_string();
    let fewer = ["--max-steps", &steps, "--allow-changes", "max-steps", "--resume-from-checkpoint", "last"];
    let resumed = [&fewer[..], &["--per-device-train-batch-size", "2"]].concat();
    succeeded(&align(mpirun(2), dir.path(), "run", &resumed).output().unwrap());
    let metrics = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), last + 2);
    // A step still takes the rows of three ranks, two prompts each. Two equal responses are not judged.
    let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let pairs = |row: serde_json::Value| {
        row["judge/judged"].as_u64().unwrap() + row["judge/identical"].as_u64().unwrap()
    };
    assert!(metrics.lines().map(row).map(pairs).all(|pairs| pairs == 6));
}
