//! `bench`: what it measures, in both forms, and what it refuses. How fast anything is, is no matter here.

use serde_json::Value;

use super::{Place, number};

/// Checks what every measurement tells.
#[track_caller]
fn check(row: &Value, suite: &str) {
    assert_eq!((&row["suite"], &row["runs"]), (&suite.into(), &1.into()), "{row}");
    assert!(row["case"].is_string() && row["shape"].is_string(), "{row}");
    let positive = ["ms", "min_ms", "gigabytes_per_second", "percent_of_ceiling", "launches", "submits"];
    positive.iter().for_each(|key| assert!(number(row, key) > 0.0, "{key} in {row}"));
    assert!(number(row, "min_ms") <= number(row, "ms"), "{row}");
    assert!(number(row, "gflops") >= 0.0 && number(row, "host_ms") >= 0.0, "{row}");
    assert!(row["bound"] == "multiply-add" || row["bound"] == "bandwidth", "{row}");
    assert_eq!(row["made_after_first"], 0, "{row}");
}

#[test]
fn ceilings_come_first_and_then_an_object_for_each_kernel() {
    let Some(place) = Place::with(&[]) else { return };
    let rows = place.oaif("bench kernels --runs 1 --json").rows();
    let ceilings = &rows[0]["ceilings"];
    for key in ["gflops", "gigabytes_per_second", "submit_us"] {
        assert!(number(ceilings, key) > 0.0, "{ceilings}");
    }
    assert!(rows[0]["gpu"]["name"].is_string(), "{}", rows[0]);
    rows[1..].iter().for_each(|row| check(row, "kernels"));
    let shapes = |kernel: &str| -> Vec<String> {
        let found = rows[1..].iter().filter(|row| row["case"] == kernel);
        found.map(|row| row["shape"].as_str().unwrap().to_owned()).collect()
    };
    for kernel in oaif::ops::all_cases().iter().map(|case| case.kernel) {
        assert_eq!(shapes(kernel).len(), 1, "{kernel}");
    }
    let products = ["N 1024 I 1024 O 1024", "N 2048 I 64 O 512", "N 2048 I 192 O 512", "N 1 I 192 O 4096"];
    assert_eq!(shapes("product"), products);
}

#[test]
fn a_step_makes_nothing_but_submits_and_tells_what_it_costs() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let rows = place.oaif("bench step --model tiny --runs 1 --json").rows();
    rows[1..].iter().for_each(|row| check(row, "step"));
    let cases: Vec<&str> = rows[1..].iter().map(|row| row["case"].as_str().unwrap()).collect();
    let rows_of_tokens = ["sft", "dpo", "dpo, checkpointing", "score"].map(|name| format!("{name}, N 1024"));
    assert_eq!(cases[..4], rows_of_tokens);
    assert_eq!(cases[4..], ["adamw", "adafactor"]);
    for row in &rows[1..4] {
        assert_eq!(row["tokens"], 1024);
        assert!(number(row, "launches_per_layer") > 0.0 && number(row, "memory_bytes") > 0.0, "{row}");
    }
    assert!(number(&rows[3], "launches_per_layer") > number(&rows[2], "launches_per_layer"));
}

#[test]
fn decoding_is_measured_for_1_16_and_64_sequences() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let rows = place.oaif("bench decode --model tiny --runs 1 --json").rows();
    rows[1..].iter().for_each(|row| check(row, "decode"));
    let tokens: Vec<f64> = rows[1..].iter().map(|row| number(row, "tokens")).collect();
    assert_eq!(tokens, [1.0, 16.0, 64.0]);
}

#[test]
fn an_online_step_is_told_phase_by_phase_and_leaves_no_file() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    std::fs::create_dir(place.path("temporary")).unwrap();
    for judge in ["", "--judge-model tiny"] {
        let mut command = place.command(&format!("bench align --model tiny --runs 1 --json {judge}"));
        command.env("TMPDIR", place.path("temporary"));
        let rows = super::Outcome::of(command).rows();
        check(&rows[1], "align");
        let phases = rows[1]["phases"].as_array().unwrap();
        let names: Vec<&str> = phases.iter().map(|p| p["phase"].as_str().unwrap()).collect();
        assert_eq!(names, ["sampling", "annotation", "reference", "learning", "update"]);
        let percent: f64 = phases.iter().map(|p| number(p, "percent")).sum();
        super::assert_close(percent, 100.0, 0.5);
    }
    #[cfg(unix)]
    assert!(place.names("temporary").is_empty());
}

#[test]
fn a_sweep_ends_with_its_ratio() {
    let Some(place) = Place::with(&[]) else { return };
    let rows = place.oaif("bench step --sweep sharing --runs 1 --json").rows();
    let [_, shared, repeated, summary] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((&shared["tokens"], &repeated["tokens"]), (&(4 * 498).into(), &(4 * 898).into()));
    super::assert_close(number(summary, "ratio"), number(shared, "ms") / number(repeated, "ms"), 1e-9);
}

#[test]
fn the_table_has_a_heading_and_a_line_for_each_case() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let out = place.oaif("bench decode --model tiny --runs 1").done().out;
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[1].starts_with("ceilings: ") && lines[1].contains("GFLOP/s"), "{out}");
    assert!(lines[3].starts_with("decode ") && lines[3].ends_with("launches"), "{out}");
    for (i, sequences) in [1, 16, 64].iter().enumerate() {
        assert!(lines[4 + 2 * i].starts_with(&format!("S {sequences}, ")), "{out}");
        assert!(lines[5 + 2 * i].contains(" tokens/s"), "{out}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    for (line, parts) in [
        ("step --shape smolm2-135m", &["--shape", "did you mean \"smollm2-135m\"", "stories260k"][..]),
        ("step --sweep token", &["--sweep", "did you mean \"tokens\"", "sharing"]),
        ("kernel", &["'kernel'", "kernels"]),
        ("step --runs 0", &["--runs", "1 or more"]),
        ("step --runs many", &["--runs", "many"]),
        ("kernels --shape c192", &["--shape", "belongs to oaif bench step"]),
        ("kernels --model tiny", &["--model", "belongs to oaif bench step"]),
        ("decode --sweep tokens", &["--sweep", "belongs to oaif bench step"]),
        ("--sweep tokens", &["--sweep", "belongs to oaif bench step"]),
        ("decode --judge-model tiny", &["--judge-model", "belongs to oaif bench align"]),
        ("step --model tiny --shape c192", &["--model", "--shape"]),
        ("step --model none", &["--model", "folder"]),
        ("align --judge-model none", &["--judge-model", "folder"]),
    ] {
        place.refuses(&format!("bench {line}"), 2, parts);
    }
    // Known only once the model is read.
    let long = place.oaif("bench step --sweep context --runs 1 --model tiny");
    assert_eq!(long.code, Some(1), "{}", long.err);
    assert!(long.err.contains("256 tokens, the model takes 128"), "{}", long.err);
}
