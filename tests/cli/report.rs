//! `oaif report`: the page of a run, the page that compares runs.

use super::{RULE, place};

#[test]
fn a_report_is_written_for_one_run_and_for_several() {
    let Some(place) = place() else { return };
    let train =
        "align --model tiny --dataset pairs.jsonl --max-steps 3 --per-device-train-batch-size 2 --lora-r 2";
    let held_out = "--eval-dataset pairs.jsonl --eval-steps 2";
    place.oaif(&format!("{train} {RULE} {held_out} --learning-rate 0.01 --output-dir one")).done();
    place.oaif(&format!("{train} {RULE} --learning-rate 0.02 --output-dir two")).done();

    // The responses before and after training are stored, from the last evaluation only.
    let samples = place.rows("one/eval_samples.jsonl");
    assert_eq!(samples.len(), 4);
    for row in &samples {
        assert_eq!(row["step"], 3, "{row}");
        assert!(row["starting_response"].is_string() && row["policy_response"].is_string(), "{row}");
        assert!(["win", "tie", "loss"].contains(&row["verdict"].as_str().unwrap()), "{row}");
    }
    assert!(!place.path("two/eval_samples.jsonl").exists());

    assert_eq!(place.oaif("report one").done().out.trim(), "one/report.html");
    let html = String::from_utf8(place.read("one/report.html")).unwrap();
    for part in ["After 3 steps the policy wins", "<h2>Before and after</h2>", "<h2>Terms</h2>"] {
        assert!(html.contains(part), "{part}");
    }
    place.oaif("report two").done();
    let html = String::from_utf8(place.read("two/report.html")).unwrap();
    assert!(html.contains("use --eval-dataset FILE") && !html.contains("Before and after"));

    for again in ["the first time", "over its own page"] {
        assert_eq!(place.oaif("report one two").done().out.trim(), "comparison.html", "{again}");
    }
    let html = String::from_utf8(place.read("comparison.html")).unwrap();
    for part in
        ["2 runs compared", "one wins", "<td>learning-rate</td><td>0.01</td><td>0.02</td>", ">Loss</text>"]
    {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("<script") && !html.contains("://"), "it needs nothing but itself");
    assert_eq!(place.oaif("report two one -o page.html").done().out.trim(), "page.html");
}

#[test]
fn a_report_that_cannot_be_written_is_refused_in_a_sentence() {
    let Some(place) = place() else { return };
    place.refuses("report nowhere", 2, &["nowhere is not a folder", "give a run folder"]);
    place.refuses("report tiny", 1, &["tiny: holds no run", "give a run folder"]);
    place.refuses("report", 2, &["<RUN>"]);
    std::fs::create_dir(place.path("run")).unwrap();
    place.write("run/run.json", "{}");
    place.write("mine.html", "<p>mine</p>");
    place.refuses(
        "report run run --output mine.html",
        1,
        &["mine.html: is not a report of oaif", "--output"],
    );
    assert_eq!(place.read("mine.html"), b"<p>mine</p>");
}
