//! The program from the view of its users and their scripts: arguments, files, standard streams and exit codes.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod bench;
mod commands;
mod console;
#[cfg(unix)]
mod crashes;
#[cfg(feature = "demo")]
mod demo;
mod eval;
#[cfg(feature = "http")]
mod hub;
mod readme;
mod report;
mod resume;
mod runs;
mod shell;
mod weights;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A judge program that prefers the first response.
const FIRST: &str = r#"sed 's/^{\("id":"[^"]*"\),.*/{\1,"verdict":"1"}/'"#;
/// A judge program that gives no usable verdict.
const MUTE: &str = r#"sed 's/^{\("id":"[^"]*"\),.*/{\1,"verdict":"invalid","why":"I am out"}/'"#;

/// A test's own folder, which is the working directory of the program.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder with copies of these fixture models, so that a test can damage them. Without a GPU: `None`, after a
    /// message.
    fn with(models: &[&str]) -> Option<Place> {
        common::gpu()?;
        let place = Place { dir: tempfile::tempdir().unwrap() };
        models.iter().for_each(|model| place.copy_model(&common::fixture(model), model));
        Some(place)
    }

    fn copy_model(&self, from: &Path, to: &str) {
        std::fs::create_dir_all(self.path(to)).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::write(self.path(to).join(file.file_name()), std::fs::read(file.path()).unwrap())
                .unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// An executable shell script.
    #[cfg(unix)]
    fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(name, format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn rows(&self, name: &str) -> Vec<Value> {
        rows(std::str::from_utf8(&self.read(name)).unwrap())
    }

    /// The names in a folder, sorted.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Changes one key of a JSON file; `Null` removes it.
    fn set(&self, name: &str, key: &str, value: Value) {
        let mut json = self.json(name);
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value,
        }
        self.write(name, json.to_string());
    }

    /// The command `oaif` with the words of `line` as arguments.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oaif"));
        command.current_dir(self.dir.path()).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Tests must not contact any hub but their own.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hf"));
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"] {
            command.env_remove(name);
        }
        // Mesa's drivers print a warning if it is unset.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
        command
    }

    fn oaif(&self, line: &str) -> Outcome {
        Outcome::of(self.command(line))
    }

    /// [`oaif`](Self::oaif) with additional arguments that may contain spaces.
    fn oaif_with(&self, line: &str, more: &[&str]) -> Outcome {
        let mut command = self.command(line);
        command.args(more);
        Outcome::of(command)
    }

    /// Checks that the program refuses the command: exit code, one sentence with these parts, no new files.
    #[track_caller]
    fn refuses(&self, line: &str, code: i32, parts: &[&str]) {
        let before = self.names(".");
        self.oaif(line).refused(code, parts);
        assert_eq!(self.names("."), before, "{line} left files behind");
    }
}

/// The result of running the program.
struct Outcome {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Outcome {
    fn of(mut command: Command) -> Outcome {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    fn done(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self
    }

    /// Standard output as JSON lines.
    #[track_caller]
    fn rows(self) -> Vec<Value> {
        rows(&self.done().out)
    }

    /// Checks that a run that had begun ends with this code; the last line is a sentence with the reason.
    #[track_caller]
    fn ended(self, code: i32, parts: &[&str]) {
        let last = self.err.lines().last().unwrap_or_default().to_owned();
        Outcome { err: last, ..self }.refused(code, parts);
    }

    #[track_caller]
    fn refused(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert_eq!(self.out, "", "an error belongs on standard error");
        let lines: Vec<&str> = self.err.lines().collect();
        let [sentence] = lines.as_slice() else { panic!("not one line: {}", self.err) };
        assert!(sentence.starts_with("oaif: "), "{sentence}");
        assert!(!sentence.contains("panicked"), "{sentence}");
        parts.iter().for_each(|part| assert!(sentence.contains(part), "{part:?} is not in {sentence:?}"));
    }
}

#[track_caller]
fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

#[track_caller]
fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} and {b} differ by more than {tolerance}");
}

/// Rows in the vocabulary of the tiny models, with responses of different lengths.
const PAIRS: &str = r#"{"prompt": "the fox was", "chosen": " happy and old .", "rejected": " sad"}
{"prompt": "once there was a bear", "chosen": " and it slept", "rejected": " under the red moon ."}
{"prompt": "she said", "chosen": " you are my friend", "rejected": " the river is cold"}
{"prompt": "the old owl", "chosen": " found a kite in the tree", "rejected": " went home with his blue hat"}
"#;

/// The flags of a judge that needs no setup.
const RULE: &str = "--judge rule --judge-rule longer --max-new-tokens 6";

/// A folder with a model, [`PAIRS`] and [`completions`].
fn place() -> Option<Place> {
    let place = Place::with(&["tiny"])?;
    place.write("pairs.jsonl", PAIRS);
    place.write("rows.jsonl", completions());
    Some(place)
}

/// [`PAIRS`] with `chosen` as the completion.
fn completions() -> String {
    let row = |row: Value| serde_json::json!({"prompt": row["prompt"], "completion": row["chosen"]});
    rows(PAIRS).into_iter().map(|r| format!("{}\n", row(r))).collect()
}
