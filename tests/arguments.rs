//! The messages and exit codes for command-line arguments. None of these tests needs a GPU.

use std::process::{Command, Output, Stdio};

fn oaif(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oaif")).args(arguments).output().unwrap()
}

/// The standard error of a command that ends with `code` and prints no results.
#[track_caller]
fn complaint(arguments: &[&str], code: i32) -> String {
    let output = oaif(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = oaif(&["--version"]);
    let version = String::from_utf8(version.stdout).unwrap();
    assert_eq!(version.lines().next(), Some(concat!("oaif ", env!("CARGO_PKG_VERSION"))));
    for arguments in [&["--help"][..], &["align", "--help"], &["help", "score"]] {
        let help = oaif(arguments);
        assert!(help.status.success() && help.stderr.is_empty() && !help.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_usage_error_exits_with_2() {
    assert!(complaint(&[], 2).contains("Usage"));
    assert!(complaint(&["algin"], 2).contains("align"));
    assert!(complaint(&["align", "--learning-rat", "1"], 2).contains("--learning-rate"));
    assert!(complaint(&["generate"], 2).contains("--model"));
}

#[test]
fn an_invalid_value_is_one_sentence_and_exits_with_2() {
    let here = env!("CARGO_MANIFEST_DIR");
    let text = complaint(&["generate", "--model", here, "--prompt", "x", "--top-p", "2"], 2);
    assert_eq!(text, "oaif: --top-p: 2 is not above 0 and at most 1\n");
    let text = complaint(&["generate", "--model", "no-such-folder", "--prompt", "x"], 2);
    assert!(
        text.starts_with("oaif: --model: no-such-folder is not a folder") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn an_unknown_key_of_a_config_file_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.yaml");
    std::fs::write(&path, "modl: somewhere\n").unwrap();
    let text = complaint(&["generate", "--config", path.to_str().unwrap()], 2);
    assert!(text.contains("run.yaml: key \"modl\"") && text.contains("\"model\""), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oaif"))
        .args(["align", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
