//! Handling of the external programs that oaif runs, and of untrusted text.
#![cfg(unix)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::gpu;

fn oaif(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oaif"));
    command.current_dir(dir).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_judge_ends_with_the_program_even_if_that_is_killed() {
    let Some(_) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let row = r#"{"prompt": "the fox", "response_1": "ran", "response_2": "slept"}"#;
    std::fs::write(dir.path().join("pairs.jsonl"), format!("{row}\n")).unwrap();
    // The judge and a child process of it.
    let judge = "(sleep 4; touch child) & touch begun; sleep 4; touch alive";
    let judge = ["judge", "--input", "pairs.jsonl", "--judge", "command", "--judge-command", judge];
    let mut program = oaif(dir.path(), &judge).spawn().unwrap();
    let started = Instant::now();
    while !dir.path().join("begun").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the judge was never started");
        std::thread::sleep(Duration::from_millis(10));
    }
    // After SIGKILL the program cannot clean up.
    program.kill().unwrap();
    program.wait().unwrap();
    std::thread::sleep(Duration::from_millis(4500));
    assert!(!dir.path().join("alive").exists(), "the judge outlived the program");
    assert!(!dir.path().join("child").exists(), "a child process of the judge outlived the program");
}

#[test]
fn no_escape_sequence_reaches_the_terminal() {
    let Some(_) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("model")).unwrap();
    let config = "{\"architectures\": [\"\\u001b[2JLlama\\u009b31m\\u202e\"], \"model_type\": \"llama\", \"hidden_size\": 8,\
                  \"intermediate_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"vocab_size\": 8}";
    std::fs::write(dir.path().join("model/config.json"), config).unwrap();
    std::fs::write(dir.path().join("pairs.jsonl"), "{\"a\\u001b[31m\": 1}\n").unwrap();
    for arguments in [
        &["generate", "--model", "model", "--prompt", "x"][..],
        &["judge", "--input", "pairs.jsonl", "--judge", "rule", "--judge-rule", "longer"],
        &["generate", "--model", "\u{1b}[2Jnone", "--prompt", "x"],
        &["generate", "--no\u{1b}[2Jflag"],
        &["judge", "--input", "pairs.jsonl", "--judge", "rule", "--judge-rule", "lon\u{1b}[2Jger"],
    ] {
        let output = oaif(dir.path(), arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.starts_with("oaif: "), "{arguments:?}: {text:?}");
        // clap's parser of arguments removes them itself.
        let shown = text.contains("\\u{1b}[") || text.contains("'--noflag'");
        assert!(shown, "{arguments:?}: {text:?}");
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(obeyed) && text.lines().count() == 1, "{arguments:?}: {text:?}");
    }
}
