//! The messages on standard error during a run, and the input from standard input.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Outcome, PAIRS, Place};

const ALIGN: &str = "align --model tiny --dataset pairs.jsonl --output-dir run --max-new-tokens 4 --judge rule \
                     --per-device-train-batch-size 4 --max-steps 3";

fn place() -> Option<Place> {
    let place = Place::with(&["tiny"])?;
    place.write("pairs.jsonl", PAIRS);
    Some(place)
}

/// The outcome of a command that reads `input`.
fn fed(mut command: Command, input: &str) -> Outcome {
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn a_run_prints_its_settings_its_steps_its_result_and_the_next_commands() {
    let Some(place) = place() else { return };
    let outcome = place.oaif(&format!("{ALIGN} --judge-rule longer --lora-r 2")).done();
    let lines: Vec<&str> = outcome.err.lines().collect();
    for (i, name) in
        ["GPU", "memory", "model", "training", "rows", "tokens", "  prompt", "judge", "learning rate"]
            .iter()
            .enumerate()
    {
        assert!(lines[i].starts_with(name), "{}", outcome.err);
    }
    for part in ["LoRA adapter of rank 2", "4, 3 steps of 4", "1.1e-3, linear", "iB of GPU memory"] {
        assert!(outcome.err.contains(part), "{part} is not in {}", outcome.err);
    }
    let steps: Vec<&&str> = lines.iter().filter(|line| line.starts_with("step ")).collect();
    assert!(
        steps.len() == 3 && steps[0].starts_with("step 1/3  ") && !steps[0].contains("left"),
        "{steps:?}"
    );
    assert!(!outcome.err.contains("-0.000") && !outcome.err.contains("NaN"), "{}", outcome.err);
    assert!(
        outcome.err.contains("KL to the reference model") && !outcome.err.contains('\u{1b}'),
        "{}",
        outcome.err
    );
    assert_eq!(outcome.out, "run/adapter\n");
    // The suggested commands can be run.
    for line in
        lines.iter().filter_map(|line| line.split_once("oaif ")).filter(|(head, _)| head.contains("it:"))
    {
        // The user has to fill in another judge and other prompts.
        let line = line.1.replace("\"Once upon a time\"", "fox").replace("HELD-OUT.jsonl", "pairs.jsonl");
        let line =
            line.replace("--judge llm --judge-model ANOTHER-JUDGE", "--judge rule --judge-rule shorter");
        place.oaif(&line).done();
    }
    assert!(place.path("merged/config.json").exists());
    let full =
        place.oaif(&format!("{ALIGN} --judge-rule longer --output-dir full").replace("--output-dir run", ""));
    assert!(full.done().err.contains("try it:      oaif chat --model full/model"));
}

#[test]
fn a_reward_run_prints_how_to_judge_with_the_trained_model() {
    let Some(place) = place() else { return };
    place.write(
        "responses.jsonl",
        json!({"prompt": "fox", "response_1": " a", "response_2": " the"}).to_string(),
    );
    for (run, flags) in [("full", ""), ("adapted", "--lora-r 2")] {
        let line =
            format!("reward --model tiny --dataset pairs.jsonl --max-steps 2 --output-dir {run} {flags}");
        let err = place.oaif(line.trim()).done().err;
        let suggested =
            err.lines().find_map(|line| line.strip_prefix("try it:      oaif ")).unwrap_or_default();
        assert!(suggested.starts_with("judge --judge reward"), "{err}");
        let judged = place.oaif(suggested).done();
        assert!(judged.out.contains("\"verdict\""), "{}", judged.out);
    }
}

#[test]
fn the_number_of_used_rows_is_printed() {
    let Some(place) = place() else { return };
    let long = json!({"prompt": "fox ".repeat(200), "chosen": "a", "rejected": "b"});
    place.write("pairs.jsonl", format!("{PAIRS}{long}\n"));
    let err = place.oaif(&format!("{ALIGN} --judge-rule longer")).done().err;
    assert!(err.contains("rows          4 of 5, 3 steps of 4"), "{err}");
}

#[test]
fn a_step_without_a_preference_says_no_pairs() {
    let Some(place) = place() else { return };
    let outcome = place.oaif(&format!("{ALIGN} --judge-rule contains:zzzz"));
    assert!(outcome.err.contains("step 1/3  no pairs  ") && !outcome.err.contains("NaN"), "{}", outcome.err);
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_standard_error_does_not_end_a_run() {
    let Some(place) = place() else { return };
    let mut command = place.command(&format!("{ALIGN} --judge-rule longer --report"));
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(place.path("run/model").exists() && place.path("run/report.html").exists());
    // A warning of a command that is not a run.
    place.write("cut.jsonl", "{\"prompt\": \"the fo\", \"completion\": \"x slept\"}\n");
    let score = "score --model tiny --input cut.jsonl";
    assert!(
        place.oaif(score).done().err.starts_with("oaif: warning: in 1 of 1 rows the prompt's last tokens")
    );
    let mut command = place.command(score);
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(
        (output.status.code(), super::rows(&String::from_utf8(output.stdout).unwrap()).len()),
        (Some(0), 1)
    );
    // An error must give an exit code, not a panic.
    let mut command = place.command("generate --model none --prompt x");
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn a_dry_run_prints_in_a_sentence_what_it_needs() {
    let Some(place) = place() else { return };
    let outcome = place.oaif(&format!("{ALIGN} --judge-rule longer --dry-run")).done();
    assert!(
        outcome.err.contains("oaif: needs ") && outcome.err.contains("iB of GPU memory: "),
        "{}",
        outcome.err
    );
    assert!(serde_json::from_str::<serde_json::Value>(&outcome.out).is_ok());
}

#[test]
fn several_samples_are_separated_and_a_single_one_is_printed_alone() {
    let Some(place) = place() else { return };
    let line = "generate --model tiny --max-new-tokens 3 --prompt fox";
    let one = place.oaif(line).done().out;
    assert!(!one.contains("---"), "{one}");
    let two = place.oaif(&format!("{line} --num-samples 2")).done().out;
    assert!(two.starts_with("--- fox (1 of 2)\n") && two.contains("\n\n--- fox (2 of 2)\n"), "{two}");
    place.write("prompts.jsonl", "{\"prompt\": \"the fox\"}\n{\"prompt\": \"she said\"}\n");
    let rows = place.oaif("generate --model tiny --max-new-tokens 3 --prompts prompts.jsonl").done().out;
    assert!(rows.starts_with("--- the fox\n") && rows.contains("\n\n--- she said\n"), "{rows}");
}

#[cfg(unix)]
#[test]
fn a_dash_reads_standard_input() {
    let Some(place) = place() else { return };
    let generate = "generate --model tiny --temperature 0 --max-new-tokens 4";
    let expected = place.oaif(&format!("{generate} --prompt fox")).done().out;
    assert_eq!(fed(place.command(&format!("{generate} --prompt -")), "fox\n").done().out, expected);
    let row =
        "{\"prompt\": \"fox\", \"completion\": \"slept\", \"response_1\": \"a b\", \"response_2\": \"a\"}\n";
    assert_eq!(fed(place.command(&format!("{generate} --prompts -")), row).done().out, expected);
    let score = fed(place.command("score --model tiny --input -"), row).rows();
    assert_eq!(score.len(), 1);
    let judged = fed(place.command("judge --input - --judge rule --judge-rule longer"), row).rows();
    assert_eq!(judged[0]["verdict"], "1");
    let bad = fed(place.command("score --model tiny --input -"), "{}\n");
    bad.refused(1, &["/dev/stdin:1: "]);
}

#[test]
fn a_backend_that_hides_the_gpu_is_named() {
    let Some(place) = place() else { return };
    let mut command = place.command("generate --model tiny --prompt fox");
    command.env("WGPU_BACKEND", "gl");
    let outcome = Outcome::of(command);
    // If this backend finds a GPU, there is nothing to check.
    if outcome.code != Some(0) {
        outcome.refused(1, &["no GPU was found", "WGPU_BACKEND=gl", "unset it"]);
    }
}

#[test]
fn generate_with_chat_answers_as_a_conversation_would() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    let generate = "generate --model tiny --temperature 0 --max-new-tokens 5 --json";
    let said = place.oaif(&format!("{generate} --chat --system sad --prompt fox")).done();
    let messages = json!([{"role": "system", "content": "sad"}, {"role": "user", "content": "fox"}]);
    place.write("prompts.jsonl", json!({"prompt": messages}).to_string());
    assert_eq!(said.out, place.oaif(&format!("{generate} --prompts prompts.jsonl")).done().out);
    // A prompt that is a conversation stays one; a plain text is a different prompt.
    assert_eq!(said.out, place.oaif(&format!("{generate} --chat --prompts prompts.jsonl")).done().out);
    assert_ne!(said.out, place.oaif(&format!("{generate} --prompt fox")).done().out);
    place.oaif("generate --model tiny --prompt fox --system sad").refused(2, &["--chat"]);
    place.set("tiny/tokenizer_config.json", "chat_template", json!(null));
    place
        .oaif("generate --model tiny --chat --prompt fox")
        .refused(1, &["tiny: has no chat template", "--chat"]);
}

#[test]
fn a_chat_keeps_the_conversation_until_a_new_one_begins() {
    let Some(place) = place() else { return };
    let chat = |input: &str, flags: &str| {
        let line = format!("chat --model tiny --temperature 0 --max-new-tokens 5 {flags}");
        fed(place.command(&line), input)
    };
    let said =
        chat("the fox had a hat\n/new\nthe fox had a hat\nthe owl was sad\n/old\n/exit\nthe bear ran\n", "")
            .done();
    let answers: Vec<&str> = said.out.lines().collect();
    assert_eq!(answers.len(), 3, "{}", said.out);
    assert_eq!(answers[0], answers[1]);
    assert!(
        said.err.contains("/old is not a command") && said.err.contains("/new starts a new conversation"),
        "{}",
        said.err
    );
    // The second response of a conversation is that to all its messages, as `generate` gives for the same messages.
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let turns = json!({"prompt": [message("user", "the fox had a hat"), message("assistant", answers[1].trim_start()),
        message("user", "the owl was sad")]});
    place.write("turns.jsonl", format!("{turns}\n"));
    let generated =
        place.oaif("generate --model tiny --prompts turns.jsonl --temperature 0 --max-new-tokens 5").done();
    assert_eq!(generated.out.trim_end_matches('\n'), answers[2]);
    // A message that is too long is reported, and the conversation continues.
    let long = format!("{}\nthe fox had a hat\n", "the fox had a hat and ".repeat(40));
    let done = chat(&long, "").done();
    assert_eq!(done.out.lines().collect::<Vec<_>>(), [answers[0]]);
    assert!(done.err.contains("the model takes at most 127: /new starts a new one"), "{}", done.err);
    place.set("tiny/tokenizer_config.json", "chat_template", json!(null));
    chat("a\n", "").refused(1, &["tiny: has no chat template", "oaif generate --prompt"]);
}

#[test]
fn a_streamed_response_is_the_whole_response() {
    let Some(place) = place() else { return };
    for flags in ["", "--stop and", "--stop had --stop hat", "--seed 7 --max-new-tokens 1"] {
        let line = format!("generate --model tiny --max-new-tokens 40 {flags}");
        let line = if flags.contains("--max-new-tokens") {
            line.replacen(" --max-new-tokens 40", "", 1)
        } else {
            line
        };
        let shown = place.oaif_with(&line, &["--prompt", "the fox"]).done().out;
        let whole = place.oaif_with(&format!("{line} --json"), &["--prompt", "the fox"]).done().out;
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(shown, format!("{}\n", whole["text"].as_str().unwrap()), "{flags}");
    }
}

#[test]
fn quiet_leaves_results_warnings_and_errors() {
    let Some(place) = place() else { return };
    let quiet = place.oaif(&format!("{ALIGN} --judge-rule longer -q")).done();
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("run/model\n", ""));
    place.refuses(&format!("-q {ALIGN} --judge-rule longer"), 1, &["run", "already has a run"]);
}

#[test]
fn the_json_log_has_one_object_per_line_and_each_step_as_in_metrics() {
    let Some(place) = place() else { return };
    let outcome = place.oaif(&format!("{ALIGN} --judge-rule longer --lora-r 2 --log json")).done();
    let events = super::rows(&outcome.err);
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert!(events.iter().all(|event| event["seconds"].as_f64().is_some()), "{}", outcome.err);
    let start = of("start")[0];
    assert_eq!((&start["judge"], &start["total_steps"]), (&json!("rule longer"), &json!(3)), "{start}");
    assert!(start["data"]["prompt_tokens"]["max"].is_u64() && start["learning_rate"].is_f64(), "{start}");
    assert!(of("phase").iter().any(|event| event["name"] == "judging"), "{}", outcome.err);
    let metrics = place.rows("run/metrics.jsonl");
    assert_eq!(of("step").len(), metrics.len());
    for (event, row) in of("step").into_iter().zip(&metrics) {
        assert!(row.as_object().unwrap().iter().all(|(key, value)| event[key] == *value), "{event} {row}");
        assert_eq!(event["total_steps"], 3);
    }
    let end = of("end")[0];
    assert_eq!(end["output"], "run/adapter");
    assert!(end["means"]["loss"]["first"].is_f64(), "{end}");
    let error = place.oaif("align --model nowhere/at-all --dataset pairs.jsonl --output-dir x --judge rule --judge-rule shorter --log json");
    let last = super::rows(&error.err).pop().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("error"), &json!(error.code)), "{last}");
}

#[test]
fn commands_without_steps_show_their_progress() {
    let Some(place) = place() else { return };
    place.write("rows.jsonl", super::completions());
    for (line, phase) in [
        ("score --model tiny --input rows.jsonl", "scoring"),
        ("generate --model tiny --prompts rows.jsonl --max-new-tokens 40 --json", "generating"),
    ] {
        let outcome = place.oaif(&format!("{line} --log json")).done();
        let mut progress = super::rows(&outcome.err).into_iter().filter(|event| event["event"] == "progress");
        let last = progress.next_back().unwrap_or_else(|| panic!("{line}: {}", outcome.err));
        assert_eq!(
            (&last["phase"], &last["done"], &last["total"]),
            (&json!(phase), &json!(4), &json!(4)),
            "{line}"
        );
    }
}

#[test]
fn wrong_usage_is_an_event_of_the_json_log_too() {
    let Some(place) = place() else { return };
    place.write("odd.yaml", "lerning-rate: 1\n");
    for line in [
        "align --log json --lerning-rate 1",
        "--log json alin",
        "--log=json align --config odd.yaml --model tiny --dataset pairs.jsonl --output-dir x",
        "align --resume nowhere --log json",
        "--log json",
    ] {
        let outcome = place.oaif(line);
        let events = super::rows(&outcome.err);
        assert_eq!(events.len(), 1, "{line}: {}", outcome.err);
        assert_eq!(events[0]["event"], "error", "{line}: {}", outcome.err);
        assert_eq!(events[0]["exit_code"], json!(outcome.code), "{line}: {}", outcome.err);
    }
}

#[test]
fn quiet_json_logs_have_no_start_phase_step_or_end() {
    let Some(place) = place() else { return };
    let outcome = place.oaif(&format!("{ALIGN} --judge-rule longer --lora-r 2 --log json --quiet")).done();
    let events = super::rows(&outcome.err);
    assert!(events.iter().all(|event| event["event"] == "warning"), "{}", outcome.err);
}
