//! `bench`: its measurements, in both output formats, and the input that it refuses. The speed itself is not checked.

use serde_json::Value;

use super::{Place, number};

/// A model that runs quickly.
const SMALL: &str = "--shape c=32,f=64,l=2,h=4,k=2,v=64";

/// The rows that are measurements.
fn measurements(rows: &[Value]) -> Vec<&Value> {
    rows.iter().filter(|row| row["ms"].is_number()).collect()
}

fn cases(rows: &[Value]) -> Vec<&str> {
    measurements(rows).into_iter().map(|row| row["case"].as_str().unwrap()).collect()
}

#[track_caller]
fn check(row: &Value, suite: &str) {
    assert_eq!((&row["suite"], &row["runs"]), (&suite.into(), &1.into()), "{row}");
    assert!(row["case"].is_string() && row["shape"].is_string(), "{row}");
    let positive = ["ms", "min_ms", "gigabytes_per_second", "percent_of_ceiling", "launches", "submits"];
    positive.iter().for_each(|key| assert!(number(row, key) > 0.0, "{key} in {row}"));
    assert!(
        number(row, "min_ms") <= number(row, "ms") && number(row, "ms") <= number(row, "max_ms"),
        "{row}"
    );
    assert!(number(row, "gflops") >= 0.0 && number(row, "host_ms") >= 0.0, "{row}");
    assert!(row["bound"] == "multiply-add" || row["bound"] == "bandwidth", "{row}");
    assert_eq!(row["made_after_first"], 0, "{row}");
    assert_eq!(row["model"].is_string(), suite != "kernels", "{row}");
}

#[test]
fn machine_and_ceilings_come_first_and_then_an_object_for_each_kernel() {
    let Some(place) = Place::with(&[]) else { return };
    let rows = place.oaif("bench kernels --runs 1 --json").rows();
    for ceilings in [&rows[0]["ceilings"], &rows.last().unwrap()["ceilings_after"]] {
        for key in ["gflops", "gigabytes_per_second", "submit_us"] {
            assert!(number(ceilings, key) > 0.0, "{ceilings}");
        }
    }
    for key in ["name", "driver", "backend"] {
        assert!(rows[0]["gpu"][key].is_string(), "{}", rows[0]);
    }
    assert_eq!((&rows[0]["version"], &rows[0]["runs"]), (&env!("CARGO_PKG_VERSION").into(), &1.into()));
    let date = rows[0]["date"].as_str().unwrap();
    assert!(date.len() == "2025-01-01T00:00:00Z".len() && date.ends_with('Z'), "{date}");
    let measured = measurements(&rows);
    assert_eq!(measured.len(), rows.len() - 2);
    measured.iter().for_each(|row| check(row, "kernels"));
    let shapes = |kernel: &str| -> Vec<String> {
        let found = measured.iter().filter(|row| row["case"] == kernel);
        found.map(|row| row["shape"].as_str().unwrap().to_owned()).collect()
    };
    for kernel in oaif::unstable::ops::all_cases().iter().map(|case| case.kernel) {
        assert_eq!(shapes(kernel).len(), 1, "{kernel}");
    }
    let products = ["N 1024 I 1024 O 1024", "N 2048 I 64 O 512", "N 2048 I 192 O 512", "N 1 I 192 O 4096"];
    assert_eq!(shapes("product"), products);
}

#[test]
fn a_step_only_submits_and_reports_its_cost() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let rows = place.oaif("bench step --model tiny --runs 1 --json").rows();
    let measured = measurements(&rows);
    measured.iter().for_each(|row| check(row, "step"));
    let of_batch = ["sft", "dpo", "dpo, checkpointing", "score"].map(|name| format!("{name}, 8 x 128"));
    assert_eq!(cases(&rows)[..4], of_batch);
    assert_eq!(cases(&rows)[4..], ["adamw", "adafactor"]);
    for row in &measured[..3] {
        assert_eq!(row["tokens"], 1024);
        assert!(number(row, "launches_per_layer") > 0.0 && number(row, "memory_bytes") > 0.0, "{row}");
    }
    assert!(number(measured[2], "launches_per_layer") > number(measured[1], "launches_per_layer"));
}

#[test]
fn the_parts_of_a_pass_are_measured_at_every_batch() {
    let Some(place) = Place::with(&[]) else { return };
    let line = format!("bench passes {SMALL} --batch 1x16,2x8 --runs 1 --json");
    let rows = place.oaif(&line).rows();
    let measured = measurements(&rows);
    measured.iter().for_each(|row| check(row, "passes"));
    let parts = ["forward", "forward + loss", "forward + loss + backward"];
    let expected: Vec<String> =
        ["1 x 16", "2 x 8"].iter().flat_map(|b| parts.map(|part| format!("{part}, {b}"))).collect();
    assert_eq!(cases(&rows), expected);
    let flops = |row: &Value| number(row, "gflops") * number(row, "ms");
    super::assert_close(flops(measured[2]) / flops(measured[0]), 3.0, 1e-6);
    assert_eq!(measured[0]["shape"], "C 32 F 64 L 2 H 4 K 2 D 8 V 64");
}

#[test]
fn decoding_is_measured_for_1_16_and_64_sequences() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let rows = place.oaif("bench decode --model tiny --runs 1 --json").rows();
    measurements(&rows).iter().for_each(|row| check(row, "decode"));
    let tokens: Vec<f64> = measurements(&rows).iter().map(|row| number(row, "tokens")).collect();
    assert_eq!(tokens, [1.0, 16.0, 64.0]);
}

#[test]
fn the_flags_set_prompt_and_context_lengths_and_the_format_of_weights() {
    let Some(place) = Place::with(&[]) else { return };
    let lengths = "--prefill 8,32 --decode 1,16 --sequences 1,3";
    let line = format!("bench prefill decode {SMALL} {lengths} --dtype f16 --layers 1 --runs 1 --json");
    let rows = place.oaif(&line).rows();
    let expected = [
        "one prompt of 8",
        "one prompt of 32",
        "S 1, after 1",
        "S 1, after 16",
        "S 3, after 1",
        "S 3, after 16",
    ];
    assert_eq!(cases(&rows), expected);
    for row in measurements(&rows) {
        check(row, row["suite"].as_str().unwrap());
        assert_eq!(row["weights"], "float16, frozen");
        assert_eq!(row["shape"], "C 32 F 64 L 1 H 4 K 2 D 8 V 64");
        assert!(row["model"].as_str().unwrap().ends_with(", 1 of its layers"), "{row}");
    }
    // Ceilings are measured before all suites, between them, and after all.
    let suites: Vec<&Value> = rows.iter().filter(|row| row["drift_percent"].is_object()).collect();
    assert_eq!(suites.len(), 2);
    assert_eq!(suites[0]["ceilings_after"], suites[1]["ceilings_before"]);
}

#[test]
fn a_lora_step_has_frozen_weights_and_less_work() {
    let Some(place) = Place::with(&[]) else { return };
    let flops = |flags: &str| {
        let line = format!("bench passes {SMALL} --batch 1x32 --filter backward --runs 1 --json {flags}");
        let rows = place.oaif(&line).rows();
        let [row] = measurements(&rows)[..] else { panic!("{rows:?}") };
        check(row, "passes");
        (number(row, "gflops") * number(row, "ms"), row["weights"].as_str().unwrap().to_owned())
    };
    let ((all, trained), (adapter, frozen)) = (flops(""), flops("--lora-r 2 --dtype bf16"));
    assert_eq!((&*trained, &*frozen), ("float32, all trained", "bfloat16, LoRA of rank 2"));
    assert!(adapter < 0.9 * all, "{adapter} {all}");
}

#[test]
fn an_online_step_is_reported_by_phase_and_leaves_no_file() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    std::fs::create_dir(place.path("temporary")).unwrap();
    for judge in ["", "--judge-model tiny"] {
        let mut command = place.command(&format!("bench align --model tiny --runs 1 --json {judge}"));
        command.env("TMPDIR", place.path("temporary"));
        let rows = super::Outcome::of(command).rows();
        let row = measurements(&rows)[0];
        check(row, "align");
        let phases = row["phases"].as_array().unwrap();
        let names: Vec<&str> = phases.iter().map(|p| p["phase"].as_str().unwrap()).collect();
        assert_eq!(names, ["sampling", "judging", "reference", "learning", "update"]);
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
    let [_, shared, repeated, summary, _] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((&shared["tokens"], &repeated["tokens"]), (&(4 * 498).into(), &(4 * 898).into()));
    super::assert_close(number(summary, "ratio"), number(shared, "ms") / number(repeated, "ms"), 1e-9);
}

#[test]
fn the_table_has_a_heading_and_a_line_for_each_case() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let out = place.oaif("bench decode --model tiny --runs 1").done().out;
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains(concat!("oaif ", env!("CARGO_PKG_VERSION"))), "{out}");
    assert!(lines[1].starts_with("ceilings: ") && lines[1].contains("GFLOP/s"), "{out}");
    assert!(lines[2].starts_with("tier "), "{out}");
    assert!(lines[4].starts_with("tiny (C ") && lines[4].ends_with("bfloat16, frozen"), "{out}");
    assert!(lines[5].starts_with("decode ") && lines[5].ends_with("launches"), "{out}");
    for (i, sequences) in [1, 16, 64].iter().enumerate() {
        assert!(lines[6 + 2 * i].starts_with(&format!("S {sequences}, ")), "{out}");
        assert!(lines[7 + 2 * i].contains(" tokens/s"), "{out}");
    }
    assert!(lines[12].starts_with("ceilings after decode: "), "{out}");
}

#[test]
fn csv_and_markdown_contain_the_same_as_json() {
    let Some(place) = Place::with(&[]) else { return };
    let line = format!("bench prefill {SMALL} --prefill 8,16 --runs 1 --format");
    let csv = place.oaif(&format!("{line} csv")).done();
    let lines: Vec<&str> = csv.out.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("suite,case,model,"), "{}", csv.out);
    assert!(lines[1].starts_with("prefill,one prompt of 8,"), "{}", csv.out);
    assert!(csv.err.contains("ceilings after prefill"), "{}", csv.err);
    let out = place.oaif(&format!("{line} markdown")).done().out;
    let table: Vec<&str> = out.lines().filter(|line| line.starts_with('|')).collect();
    let bars = |line: &str| line.matches('|').count();
    assert!(table.len() == 4 && table.iter().all(|row| bars(row) == bars(table[0])), "{out}");
    assert!(table[2].starts_with("| one prompt of 8 |"), "{out}");
}

#[test]
fn a_filter_selects_by_name_and_unselected_cases_load_no_model() {
    let Some(place) = Place::with(&[]) else { return };
    // The model would exceed any memory limit; the kernels do not need it.
    let huge = "--shape c=8192,f=8192,l=1000,h=64,v=1000000";
    let rows = place.oaif(&format!("bench {huge} --filter Norm_ --runs 1 --json")).rows();
    assert!(
        measurements(&rows).len() > 1 && cases(&rows).iter().all(|case| case.contains("norm_")),
        "{rows:?}"
    );
    place.refuses("bench --filter nothing-has-this", 2, &["--filter", "nothing-has-this"]);
}

#[test]
fn a_comparison_prints_ratios_and_names_cases_of_only_one_run() {
    let Some(place) = Place::with(&[]) else { return };
    let line = |prefill: &str| format!("bench prefill {SMALL} --prefill {prefill} --runs 1");
    place.write("then.jsonl", place.oaif(&(line("8,16") + " --json")).done().out);
    let then = place.rows("then.jsonl");
    let rows = place.oaif(&(line("16,24") + " --json --compare then.jsonl")).rows();
    assert_eq!((&rows[1]["compare"], &rows[1]["then"]), (&"then.jsonl".into(), &then[0]));
    let measured = measurements(&rows);
    assert_eq!(measured[0]["earlier_ms"], measurements(&then)[1]["ms"]);
    let expected = number(measured[0], "ms") / number(measured[0], "earlier_ms");
    super::assert_close(number(measured[0], "ratio"), expected, 1e-9);
    assert!(measured[1]["ratio"].is_null(), "{}", measured[1]);
    let last = rows.last().unwrap();
    let only = |key: &str, case: &str| {
        let names = last[key].as_array().unwrap();
        assert!(names.len() == 1 && names[0].as_str().unwrap().contains(case), "{last}");
    };
    only("only_earlier", "one prompt of 8 ");
    only("only_now", "one prompt of 24 ");

    let out = place.oaif(&(line("16,24") + " --compare then.jsonl")).done().out;
    assert!(
        out.contains("launches  ratio")
            && out.contains("only in the earlier benchmark: prefill one prompt of 8 "),
        "{out}"
    );
    place.write("odd.jsonl", "{}");
    place.oaif(&(line("8") + " --compare odd.jsonl")).refused(1, &["odd.jsonl", "no measurement"]);
}

#[test]
fn invalid_options_are_refused() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    for (line, parts) in [
        ("step --shape smolm2-135m", &["--shape", "did you mean \"smollm2-135m\"", "stories260k"][..]),
        ("step --sweep token", &["--sweep", "a similar value exists: 'tokens'", "sharing"]),
        ("kernel", &["'kernel'", "kernels"]),
        ("step --runs 0", &["--runs", "1 or more"]),
        ("step --runs many", &["--runs", "many"]),
        ("kernels --shape c192", &["--shape", "belongs to oaif bench passes, step"]),
        ("kernels --model tiny", &["--model", "belongs to oaif bench passes, step"]),
        ("step --shape c=64,f=172", &["--shape", "lacks a size"]),
        ("step --shape c=60,f=172,l=1,h=7,k=3,v=64", &["--shape", "not a multiple of num_key_value_heads"]),
        ("decode --sweep tokens", &["--sweep", "belongs to oaif bench step"]),
        ("--sweep tokens", &["--sweep", "belongs to oaif bench step"]),
        ("decode --judge-model tiny", &["--judge-model", "belongs to oaif bench align"]),
        ("step --model tiny --shape c192", &["--model", "--shape"]),
        ("step --model none", &["--model", "folder"]),
        ("align --judge-model none", &["--judge-model", "folder"]),
    ] {
        place.refuses(&format!("bench {line}"), 2, parts);
    }
    // Only known once the model is read.
    let long = place.oaif("bench step --sweep context --runs 1 --model tiny");
    assert_eq!(long.code, Some(1), "{}", long.err);
    assert!(long.err.contains("256 tokens, the model takes 128"), "{}", long.err);
}
