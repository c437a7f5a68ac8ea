//! `oaif demo`: its output files, and how it is resumed.

use serde_json::json;

use super::{Place, number};

const QUICK: &str = "demo --per-device-train-batch-size 4 --held-out 6 --output-dir run";

#[test]
fn a_demo_ends_with_a_report_and_a_summary() {
    let Some(place) = Place::with(&[]) else { return };
    let out = place.oaif(&format!("{QUICK} --steps 2 --instruction short --judge small")).done().out;
    assert!(out.contains("wins by the oracle") && out.trim_end().ends_with("summary.json"), "{out}");
    let expected = [
        "checkpoints",
        "eval_samples.jsonl",
        "metrics.jsonl",
        "model",
        "pairs.jsonl",
        "report.html",
        "run.json",
        "summary.json",
    ];
    assert_eq!(place.names("run"), expected);

    let summary = place.json("run/summary.json");
    for key in "oracle_win_rate oracle_win_rate_low oracle_win_rate_high judge_win_rate".split_whitespace() {
        assert!(summary[key].is_null() || (0.0..=1.0).contains(&number(&summary, key)), "{key} in {summary}");
    }
    for key in ["mean_length_before", "mean_length_after", "wall_s"] {
        assert!(number(&summary, key) > 0.0, "{key} in {summary}");
    }
    assert_eq!(summary["steps"], json!(2));
    for who in ["oracle", "judge"] {
        let games: f64 = ["wins", "ties", "losses"].map(|key| number(&summary[who], key)).iter().sum();
        assert_eq!(games, 6.0, "{summary}");
    }
    let steps: Vec<u64> =
        summary["stages"].as_array().unwrap().iter().map(|s| s["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 1, 2]);

    let report = String::from_utf8(place.read("run/report.html")).unwrap();
    for part in
        ["Against the starting model", "Before and after", "KL to the reference model", "<dt>oracle</dt>"]
    {
        assert!(report.contains(part), "{part}");
    }
    assert!(
        !report.contains("http://") && !report.contains("https://") && !report.contains("<script"),
        "the page is self-contained"
    );
    assert_eq!(place.json("run/run.json")["instruction"], json!("short"));
    std::fs::remove_file(place.path("run/report.html")).unwrap();
    place.oaif("report run").done();
    assert_eq!(
        String::from_utf8(place.read("run/report.html")).unwrap(),
        report,
        "the page is made of the folder"
    );
    place.refuses(&format!("{QUICK} --steps 2"), 1, &["already has a run", "--overwrite"]);
}

#[test]
fn a_resumed_demo_has_the_same_result() {
    let Some(place) = Place::with(&[]) else { return };
    place.oaif(&format!("{QUICK} --steps 3")).done();
    let (summary, pairs) = (place.json("run/summary.json"), place.read("run/pairs.jsonl"));
    // Simulates a kill after the first checkpoint.
    for gone in ["checkpoints/step-000002", "checkpoints/step-000003", "model"] {
        std::fs::remove_dir_all(place.path("run").join(gone)).unwrap();
    }
    for gone in ["summary.json", "report.html"] {
        std::fs::remove_file(place.path("run").join(gone)).unwrap();
    }
    let other = format!("{QUICK} --steps 3 --instruction cheerful --resume-from-checkpoint");
    place.oaif(&other).refused(2, &["--instruction: is \"cheerful\"", "was started with \"accurate\""]);
    place.oaif(&format!("{QUICK} --steps 3 --resume-from-checkpoint last")).done();
    assert_eq!(place.read("run/pairs.jsonl"), pairs);
    for key in ["oracle_win_rate", "judge_win_rate", "mean_length_after", "stages"] {
        assert_eq!(place.json("run/summary.json")[key], summary[key], "{key}");
    }
}

#[test]
fn a_demo_that_cannot_start_prints_the_reason_in_a_sentence() {
    let Some(place) = Place::with(&[]) else { return };
    place.write("file", "mine");
    let into = |dir: &str| QUICK.replace("--output-dir run", &format!("--output-dir {dir}"));
    place.refuses(&into("file"), 1, &["file: is a file, but --output-dir needs a folder"]);
    if cfg!(target_os = "linux") {
        place.refuses(&into("/proc/run"), 1, &["/proc/run", "cannot be written to", "give another folder"]);
    }
    place.refuses(
        &format!("{QUICK} --gpu nonesuch"),
        1,
        &["no GPU has the index or name \"nonesuch\"", "choose"],
    );
    place.refuses(&format!("{QUICK} --instruction kind"), 2, &["accurate, short, very-short, cheerful"]);
    place.refuses(&format!("{QUICK} --steps 0"), 2, &["--steps", "1 or more"]);
}
