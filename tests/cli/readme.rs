//! Runs the commands in the README from top to bottom.

use serde_json::{Value, json};

use super::{Outcome, Place};

/// The commands in the README's `sh` blocks, in order, without comments and with continued lines joined.
fn commands() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut commands = Vec::new();
    for block in blocks {
        for line in block.replace("\\\n", " ").lines() {
            let line = line.split(" #").next().unwrap().trim();
            if !line.is_empty() && !line.starts_with('#') {
                commands.push(line.to_owned());
            }
        }
    }
    commands
}

/// Small files with the names used in the README.
fn prepare(place: &Place) {
    let rows = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    place.write("prompts.jsonl", rows(&[json!({"prompt": "the fox was"}), json!({"prompt": "she said"})]));
    place.write("held-out.jsonl", rows(&[json!({"prompt": "the bear slept"}), json!({"prompt": "he"})]));
}

#[test]
fn the_commands_in_the_readme_work_in_order() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.copy_model(&super::common::fixture("tiny"), "MODEL");
    place.copy_model(&super::common::fixture("tiny"), "JUDGE");
    prepare(&place);
    let all = commands();
    assert!(all.iter().any(|line| line.starts_with("oaif align")), "{all:?}");
    let mut ran = 0;
    for line in all.iter().filter_map(|line| line.strip_prefix("oaif ")) {
        // The demo and the full benchmarks have their own tests, and so does GGUF, which does not support a word-level
        // tokenizer.
        if line.starts_with("demo") || line.starts_with("bench") || line.contains(".gguf") {
            continue;
        }
        // The built-in template is text that a tokenizer of a hundred words cannot encode.
        let line = line.replace("--judge-template helpfulness", "--judge-template template.txt");
        // The judge's context has room for two short responses. The evaluation takes the length from the run.
        let line = if line.starts_with("align") { line + " --max-new-tokens 8" } else { line };
        let line = match line.contains("--judge llm") && !line.contains("--judge-template") {
            true => line + " --judge-template template.txt",
            false => line,
        };
        let line = line.replace("$MODEL", "MODEL").replace("$EVAL_JUDGE", "JUDGE").replace("$JUDGE", "JUDGE");
        place.write(
            "template.txt",
            "{{ prompt }} . one : {{ response_1 }} . two : {{ response_2 }} . the best :",
        );
        let mut command = place.command("");
        command.args(words(&line));
        let Outcome { code, err, .. } = Outcome::of(command);
        assert_eq!(code, Some(0), "oaif {line}: {err}");
        ran += 1;
    }
    assert!(ran >= 3, "only {ran} commands were tried");
}

/// Splits a line as a shell does: double quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (i, part) in line.split('"').enumerate() {
        if i % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for (j, word) in part.split(' ').enumerate() {
            if j > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(word);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Every flag in the README exists in the program.
#[test]
fn every_flag_in_the_readme_exists() {
    let readme = include_str!("../../README.md");
    let help: String = [
        "align", "sft", "dpo", "reward", "generate", "chat", "score", "judge", "eval", "export", "doctor",
        "bench", "demo",
    ]
    .iter()
    .map(|command| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_oaif")).args([command, "--help"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    })
    .collect();
    // Flags of cargo and of other programs.
    let foreign =
        ["--release", "--example", "--test", "--bench", "--path", "--nocapture", "--features", "--local-dir"];
    for flag in readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter(|word| {
        word.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    }) {
        let known = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == flag);
        assert!(known || foreign.contains(&flag), "README names {flag}, which no command has");
    }
}
