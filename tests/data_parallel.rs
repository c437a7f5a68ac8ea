//! Several processes that train one model over TCP learn what a single process learns from the same number of rows.

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder with rows of every kind.
fn place() -> Option<tempfile::TempDir> {
    common::gpu()?;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, row: &dyn Fn(usize) -> String| {
        let rows: String = (0..16).map(|i| row(i) + "\n").collect();
        std::fs::write(dir.path().join(name), rows).unwrap();
    };
    let word = |i: usize| ["ab", "cd", "ef", "gh"][i % 4].repeat(1 + i % 3);
    write("prompts.jsonl", &|i| format!(r#"{{"prompt":"{} {i}"}}"#, word(i)));
    write("texts.jsonl", &|i| format!(r#"{{"prompt":"{i}","completion":"{}"}}"#, word(i)));
    write("pairs.jsonl", &|i| {
        format!(r#"{{"prompt":"{i}","chosen":"{} x","rejected":"{}"}}"#, word(i), word(i + 1))
    });
    Some(dir)
}

/// The remaining arguments of each training command.
const KINDS: [(&str, &str); 4] = [
    ("align", "--dataset prompts.jsonl --judge rule --judge-rule longer --max-new-tokens 8 --judge-probes 0"),
    ("sft", "--dataset texts.jsonl"),
    ("dpo", "--dataset pairs.jsonl"),
    ("reward", "--dataset pairs.jsonl"),
];

/// The command `oaif` in `dir`, with a subcommand and its flags.
fn oaif(dir: &Path, kind: &str, out: &str, more: &str) -> Command {
    let (_, flags) = KINDS.iter().find(|(name, _)| *name == kind).unwrap();
    let model = common::fixture("tiny");
    let usual =
        format!("--model {} {flags} --learning-rate 1e-3 --no-autotune --output-dir {out}", model.display());
    let usual: Vec<&str> = usual.split(' ').collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oaif"));
    command.current_dir(dir).arg(kind).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A flag in `more` replaces the usual one.
    let given: Vec<&str> = more.split_whitespace().collect();
    let mut flags = usual.chunk_by(|_, next| !next.starts_with("--")).collect::<Vec<_>>();
    flags.retain(|flag| !given.contains(&flag[0]));
    command.args(flags.concat()).args(given);
    command
}

/// Starts the ranks of a run, each with the flags that `more` returns for it.
fn start(dir: &Path, ranks: usize, kind: &str, out: &str, more: &dyn Fn(usize) -> String) -> Vec<Child> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        oaif(dir, kind, out, &more(rank))
            .envs([("RANK", rank.to_string()), ("WORLD_SIZE", ranks.to_string())])
            .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
            .spawn()
            .unwrap()
    };
    (0..ranks).map(start).collect()
}

fn wait(children: Vec<Child>) -> Vec<Output> {
    // In parallel: a full pipe would block a rank.
    std::thread::scope(|threads| {
        let waiting: Vec<_> =
            children.into_iter().map(|child| threads.spawn(|| child.wait_with_output().unwrap())).collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command to its end. A single rank is started without the variables of a distributed run.
fn run(dir: &Path, ranks: usize, kind: &str, out: &str, more: &str) {
    let outputs = match ranks {
        1 => vec![oaif(dir, kind, out, more).output().unwrap()],
        _ => wait(start(dir, ranks, kind, out, &|_| more.to_owned())),
    };
    outputs.iter().for_each(|output| assert!(output.status.success(), "{out}: {}", text(output)));
    // Only rank 0 prints.
    outputs[1..].iter().for_each(|output| assert!(output.stdout.is_empty(), "{}", text(output)));
}

fn rows(dir: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The largest relative difference of a metric between two runs.
fn difference(dir: &Path, runs: [&str; 2], metric: &str) -> f64 {
    let [one, other] = runs.map(|run| rows(dir, &format!("{run}/metrics.jsonl")));
    assert_eq!(one.len(), other.len());
    let pair = |(a, b): (&Value, &Value)| {
        let [a, b] = [a, b].map(|row| row[metric].as_f64().unwrap());
        (a - b).abs() / a.abs().max(1e-3)
    };
    one.iter().zip(&other).map(pair).fold(0.0, f64::max)
}

fn same(dir: &Path, runs: [&str; 2], file: &str) -> bool {
    let [one, other] = runs.map(|run| std::fs::read(dir.join(run).join(file)).unwrap());
    one == other
}

#[test]
fn several_ranks_learn_what_one_rank_learns_from_the_same_rows() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    for (kind, _) in KINDS {
        for (weights, lora) in [("all", ""), ("lora", "--lora-r 4")] {
            let name = |ranks: usize| format!("{kind}-{weights}-{ranks}");
            for ranks in [1, 2, 4] {
                let batch = format!("--max-steps 5 --per-device-train-batch-size {} {lora}", 4 / ranks);
                run(dir, ranks, kind, &name(ranks), &batch);
            }
            for ranks in [2, 4] {
                let (one, many) = (name(1), name(ranks));
                let of = |metric| difference(dir, [&one, &many], metric);
                let (loss, norm) = (of("loss"), of("grad_norm"));
                println!("{many}: loss {loss:.1e}, gradient {norm:.1e}");
                // Differences come only from rounding: sums of a few dozen f32 numbers in ten layers.
                assert!(loss < 1e-5 && norm < 1e-4, "{many}: loss {loss:e}, gradient {norm:e}");
                if kind == "align" {
                    assert!(same(dir, [&one, &many], "pairs.jsonl"), "{many}: different responses");
                }
            }
        }
    }
}

#[test]
fn evaluation_on_three_ranks_equals_evaluation_on_one() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    let flags = "--max-steps 4 --eval-dataset prompts.jsonl --eval-steps 2";
    run(dir, 1, "align", "one", &format!("{flags} --per-device-train-batch-size 3"));
    run(dir, 3, "align", "three", &format!("{flags} --per-device-train-batch-size 1"));
    let [one, three] = ["one", "three"].map(|run| rows(dir, &format!("{run}/metrics.jsonl")));
    for (one, three) in one.iter().zip(&three) {
        for metric in ["eval/win_rate", "eval/prompts", "eval/ties"] {
            assert_eq!(one[metric], three[metric], "{metric}");
        }
    }
    assert!(three[3]["eval/win_rate"].is_number());
    // A dry run on three ranks reports what a run on three ranks does, and calls no judge.
    let dry = |rank: usize| format!("{flags} --dry-run --seed {rank}");
    let outputs = wait(start(dir, 3, "align", "dry", &dry));
    let report: Value = serde_json::from_slice(&outputs[0].stdout).unwrap();
    assert_eq!(report["total_steps"], 4);
}

#[test]
fn runs_on_the_same_number_of_ranks_are_bitwise_equal_with_and_without_sharding() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    let flags = "--max-steps 5 --per-device-train-batch-size 2";
    run(dir, 3, "align", "one", flags);
    run(dir, 3, "align", "two", flags);
    run(dir, 3, "align", "shards", &format!("{flags} --shard-optim"));
    for other in ["two", "shards"] {
        assert!(same(dir, ["one", other], "model/model.safetensors"), "{other}");
        assert!(same(dir, ["one", other], "checkpoints/step-000005/optimiser.safetensors"), "{other}");
    }
    // The moving reference model follows weights that all ranks have.
    let follows = format!("{flags} --sync-ref-model --ref-model-sync-steps 2");
    run(dir, 2, "align", "followed", &follows);
    run(dir, 2, "align", "followed-by-shards", &format!("{follows} --shard-optim"));
    assert!(same(dir, ["followed", "followed-by-shards"], "model/model.safetensors"));
    run(dir, 3, "align", "bf16", &format!("{flags} --reduce-dtype bf16"));
    let of = difference(dir, ["one", "bf16"], "grad_norm");
    assert!(of > 0.0 && of < 0.02, "bf16: {of:e}");
}

#[test]
fn a_run_can_be_resumed_with_another_number_of_ranks() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    let flags = "--max-steps 6 --per-device-train-batch-size 1 --save-steps 3 --shard-optim";
    run(dir, 4, "align", "whole", flags);
    for ranks in [1, 2, 3] {
        let out = format!("on-{ranks}");
        let from = dir.join("whole/checkpoints/step-000003");
        run(dir, ranks, "align", &out, &format!("{flags} --resume-from-checkpoint {}", from.display()));
        let [whole, resumed] = ["whole", &out].map(|run| {
            rows(dir, &format!("{run}/metrics.jsonl")).split_off(if run == "whole" { 3 } else { 0 })
        });
        assert_eq!(resumed.len(), 3);
        for (a, b) in whole.iter().zip(&resumed) {
            let [a, b] = [a, b].map(|row| row["loss"].as_f64().unwrap());
            assert!((a - b).abs() < 1e-5, "{out}: {a} {b}");
        }
    }
    // Resumes in the run folder itself.
    let more = "--max-steps 8 --per-device-train-batch-size 1 --resume-from-checkpoint last --allow-changes max-steps";
    run(dir, 2, "align", "whole", more);
    assert_eq!(rows(dir, "whole/metrics.jsonl").len(), 8);
}

#[test]
fn settings_that_differ_between_ranks_give_one_error() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    std::fs::write(dir.join("other.jsonl"), "{\"prompt\":\"other\"}\n".repeat(4)).unwrap();
    let of = |second: &'static str| {
        move |rank: usize| {
            let flags = "--max-steps 2 --per-device-train-batch-size 2 ".to_owned();
            if rank == 1 { flags + second } else { flags }
        }
    };
    for (second, says, code) in [
        ("--seed 7", "--seed: is 7 on rank 1 and 42 on rank 0", 2),
        ("--lora-r 4", "on rank 1", 2),
        ("--beta 0.3", "--beta: is 0.3", 2),
        ("--dataset other.jsonl", "--dataset: is", 2),
        ("--gpu nothing-like-this", "rank 1: no GPU has the index or name", 1),
        ("--model nowhere", "rank 1: ", 1),
        ("--dataset missing.jsonl", "rank 1: ", 1),
        ("--no-such-flag", "rank 1: ", 1),
    ] {
        let outputs = wait(start(dir, 2, "align", "run", &of(second)));
        let texts: Vec<String> = outputs.iter().map(text).collect();
        let sentences: Vec<&str> = texts
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| line.starts_with("oaif: ") && !line.contains("warning"))
            .collect();
        assert!(matches!(&sentences[..], [one] if one.contains(says)), "{second}: {texts:?}");
        assert_eq!(outputs[0].status.code(), Some(code), "{second}: {texts:?}");
        assert!(!dir.join("run/metrics.jsonl").exists());
        let _ = std::fs::remove_dir_all(dir.join("run"));
    }
    // More ranks than prompts: some have no work.
    std::fs::write(dir.join("prompts.jsonl"), "{\"prompt\":\"one\"}\n").unwrap();
    run(dir, 3, "align", "few", "--max-steps 2 --per-device-train-batch-size 1");
}

#[test]
fn a_killed_rank_ends_all_and_the_checkpoint_can_be_resumed() {
    let Some(dir) = place() else { return };
    let dir = dir.path();
    let flags = "--max-steps 3000 --per-device-train-batch-size 1 --save-steps 1 --save-total-limit 2";
    let mut ranks = start(dir, 3, "align", "run", &|_| flags.to_owned());
    let begun = Instant::now();
    while !dir.join("run/checkpoints/step-000002").exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no checkpoint appeared");
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Instant::now();
    ranks[1].kill().unwrap();
    let outputs = wait(ranks);
    // A rank that is noticed by its silence takes 30 seconds.
    assert!(killed.elapsed() < Duration::from_secs(25), "{:?}", killed.elapsed());
    assert!(text(&outputs[0]).contains("rank 1"), "{}", text(&outputs[0]));
    assert_eq!(outputs[0].status.code(), Some(1));
    let done = rows(dir, "run/metrics.jsonl").len();
    let more = format!("--max-steps {} --per-device-train-batch-size 1", done + 2);
    run(dir, 2, "align", "run", &format!("{more} --resume-from-checkpoint last --allow-changes max-steps"));
    assert_eq!(rows(dir, "run/metrics.jsonl").len(), done + 2);
}
