//! An annotator that is a program of the user's.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process_group::{self, Running};
use super::{Annotator, Judgement, Pair, Verdict};
use crate::error::{Error, Result};

/// Bytes of output that a program may print for a batch, and for each pair.
const OUTPUT_LIMIT: (usize, usize) = (1 << 20, 1 << 16);

/// Runs a command line through the shell (`sh -c`, `cmd /C`), once a batch. It reads a line
/// `{"prompt", "response_1", "response_2"}` for each pair on standard input, prints a line
/// `{"verdict": "1"|"2"|"tie"|"invalid"}` for each on standard output, in order, and exits with code 0.
/// Optional in its answer: `"p_first"`, the probability that response 1 is preferred, and `"why"`.
///
/// A line that is no such answer makes its pair [`Verdict::Invalid`]; too few or too many lines, another exit
/// code, or too long a time is [`Error::Annotator`].
#[derive(Clone, Debug)]
pub struct CommandAnnotator {
    command: String,
    timeout: Duration,
}

impl CommandAnnotator {
    /// `timeout` is for a batch; what runs longer is killed. An empty command is [`Error::Config`].
    pub fn new(command: &str, timeout: Duration) -> Result<CommandAnnotator> {
        if command.trim().is_empty() {
            return Err(Error::config("--judge-command", "is empty: give a command line that reads pairs"));
        }
        // A year is for ever, and small enough to be added to a time.
        let timeout = timeout.min(Duration::from_secs(365 * 86_400));
        Ok(CommandAnnotator { command: command.to_owned(), timeout })
    }

    /// What the command prints for `input`, at most `limit` bytes of it.
    fn run(&self, input: Vec<u8>, limit: usize) -> Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let spawned =
            shell(&self.command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| self.error("cannot be started", &e.to_string(), ""))?;
        let _running = Running::new(child.id());
        // A thread for each pipe, so that none fills up while we wait for another.
        let mut stdin = child.stdin.take().expect("piped");
        // A program that decides without reading everything breaks the pipe; what it prints is what counts.
        thread::spawn(move || drop(stdin.write_all(&input)));
        let mut stdout = child.stdout.take().expect("piped").take(limit as u64 + 1);
        let stdout = in_thread(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut stderr = child.stderr.take().expect("piped");
        let stderr = in_thread(move || last_line(&mut stderr));
        // A process that the command leaves in the background may hold on to standard error.
        let last_words = || stderr.recv_timeout(Duration::from_millis(500)).unwrap_or_default();

        let output = stdout.recv_timeout(self.timeout).ok();
        let too_long = output.as_ref().is_some_and(|o| o.as_ref().is_ok_and(|bytes| bytes.len() > limit));
        let status = if output.is_none() || too_long { None } else { exit_before(&mut child, deadline) };
        if status.is_none() {
            kill(&mut child);
        }
        match (output, status) {
            (Some(_), _) if too_long => {
                let way_out = "it must print one short line of JSON for each pair";
                Err(self.error(&format!("printed more than {limit} bytes"), way_out, &last_words()))
            }
            (Some(Ok(bytes)), Some(status)) if status.success() => Ok(bytes),
            (Some(Err(e)), Some(_)) => Err(self.error("cannot be read from", &e.to_string(), &last_words())),
            (_, Some(status)) => {
                let way_out = "it must end with exit code 0; try it by hand on a line of \
                               {\"prompt\", \"response_1\", \"response_2\"}";
                Err(self.error(&format!("ended with {status}"), way_out, &last_words()))
            }
            (_, None) => {
                let what = format!("took longer than {} s for a batch", self.timeout.as_secs_f64());
                Err(self.error(&what, "raise --judge-timeout or make it faster", &last_words()))
            }
        }
    }

    fn error(&self, what: &str, way_out: &str, last_words: &str) -> Error {
        let said =
            if last_words.is_empty() { String::new() } else { format!(", last saying {last_words:?}") };
        let why = format!("{:?} {what}{said}: {way_out}", self.command);
        Error::Annotator { name: self.name(), why }
    }
}

impl Annotator for CommandAnnotator {
    fn name(&self) -> String {
        "command".into()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let command = ("judge-command".into(), self.command.clone());
        Ok(BTreeMap::from([("judge".into(), self.name()), command]))
    }

    fn remote(&mut self) -> Option<&mut (dyn Annotator + Send)> {
        Some(self)
    }

    fn annotate(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Judgement>> {
        let mut input = Vec::new();
        for &Pair { prompt, response_1, response_2 } in pairs {
            let line = json!({"prompt": prompt, "response_1": response_1, "response_2": response_2});
            input.extend(format!("{line}\n").bytes());
        }
        let output = self.run(input, OUTPUT_LIMIT.0 + OUTPUT_LIMIT.1 * pairs.len())?;
        let lines = output.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let verdicts: Vec<Verdict> = lines.filter(|line| !line.is_empty()).map(verdict).collect();
        if verdicts.len() != pairs.len() {
            let what = format!("printed {} lines for {} pairs", verdicts.len(), pairs.len());
            return Err(self.error(&what, "it must print one line of JSON for each pair, in order", ""));
        }
        Ok(verdicts.into_iter().map(Judgement::from).collect())
    }
}

/// What one line of output says.
fn verdict(line: &[u8]) -> Verdict {
    let invalid = |why: String| Verdict::Invalid { why };
    let answer: Value = match serde_json::from_slice(line) {
        Ok(answer @ Value::Object(_)) => answer,
        _ => return invalid(format!("printed no JSON object but {}", excerpt(line))),
    };
    // Strings alone: a program that counts from 0 must not be misread.
    let certain = match answer["verdict"].as_str() {
        Some("1") => 1.0,
        Some("2") => 0.0,
        Some("tie") => return Verdict::Tie,
        Some("invalid") => return invalid(answer["why"].as_str().unwrap_or("no reason given").to_owned()),
        _ => {
            let found = excerpt(answer["verdict"].to_string().as_bytes());
            return invalid(format!("\"verdict\" must be \"1\", \"2\", \"tie\" or \"invalid\", not {found}"));
        }
    };
    let p = match &answer["p_first"] {
        Value::Null => certain,
        value => value.as_f64().unwrap_or(f64::NAN),
    };
    match Verdict::from_probability(p as f32) {
        Verdict::First { .. } if certain == 0.0 => invalid(format!("verdict 2, but p_first is {p}")),
        Verdict::Second { .. } if certain == 1.0 => invalid(format!("verdict 1, but p_first is {p}")),
        Verdict::Invalid { .. } => {
            invalid(format!("p_first must be a number of 0 to 1, not {}", answer["p_first"]))
        }
        agreed => agreed,
    }
}

/// The beginning of `text`, quoted.
fn excerpt(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(80).collect();
    format!("{text:?}")
}

fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (send, receive) = channel();
    // Nobody listens any more after a time-out.
    thread::spawn(move || drop(send.send(work())));
    receive
}

/// The last line that is not blank, or its end if it is long.
fn last_line(pipe: &mut impl Read) -> String {
    const KEPT: usize = 2048;
    let (mut tail, mut chunk) = (Vec::new(), [0; KEPT]);
    while let Ok(n @ 1..) = pipe.read(&mut chunk) {
        tail.extend(&chunk[..n]);
        tail.drain(..tail.len().saturating_sub(KEPT));
    }
    let text = String::from_utf8_lossy(&tail);
    text.trim_end().lines().next_back().unwrap_or_default().trim().to_owned()
}

/// Waits for the end of `child`, `None` if it is still running at `deadline`.
fn exit_before(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().ok()? {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A group of its own lets us kill what the shell has started, too, and keeps Ctrl-C, which is to finish the
/// step, away from it.
#[cfg(unix)]
fn shell(command: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).process_group(0);
    shell
}

#[cfg(windows)]
fn shell(command: &str) -> Command {
    use std::os::windows::process::CommandExt;
    let mut shell = Command::new("cmd");
    shell.raw_arg(format!("/S /C \"{command}\""));
    shell
}

#[cfg(not(any(unix, windows)))]
fn shell(command: &str) -> Command {
    Command::new(command)
}

/// Kills `child` and what it has started.
fn kill(child: &mut Child) {
    process_group::kill(child.id());
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn run(command: &str, timeout_ms: u64, pairs: &[Pair<'_>]) -> Result<Vec<Verdict>> {
        let mut annotator = CommandAnnotator::new(command, Duration::from_millis(timeout_ms)).unwrap();
        Ok(annotator.annotate(pairs)?.into_iter().map(|judgement| judgement.verdict).collect())
    }

    fn pairs(count: usize) -> Vec<Pair<'static>> {
        vec![Pair { prompt: "x", response_1: "one\n\"1\"", response_2: "two" }; count]
    }

    /// The verdict of a program that prints `line`.
    fn of_line(line: &str) -> Verdict {
        verdict(line.as_bytes())
    }

    #[test]
    fn a_program_gets_a_line_a_pair_and_its_lines_are_the_verdicts() {
        let script = r#"while read -r line; do
            case "$line" in
                *'"response_2":"b"}') echo '{"verdict": "1", "p_first": 0.75}' ;;
                '{"prompt":"p\n","response_1":"a"'*) echo '{"verdict": "2"}' ;;
                *) printf '\r\n{"verdict": "tie"}\r\n' ;;
            esac; done"#;
        let pair = |response_1, response_2| Pair { prompt: "p\n", response_1, response_2 };
        let verdicts = run(script, 10_000, &[pair("a", "b"), pair("a", "c"), pair("b", "c")]).unwrap();
        assert_eq!(verdicts, [Verdict::First { p: 0.75 }, Verdict::Second { p: 0.0 }, Verdict::Tie]);
    }

    #[test]
    fn an_answer_is_valid_only_if_it_says_one_thing() {
        assert_eq!(of_line(r#"{"verdict": "1"}"#), Verdict::First { p: 1.0 });
        assert_eq!(of_line(r#"{"verdict": "2", "p_first": 0.25, "more": []}"#), Verdict::Second { p: 0.25 });
        assert_eq!(of_line(r#"{"verdict": "1", "p_first": 0.5}"#), Verdict::Tie);
        assert_eq!(
            of_line(r#"{"verdict": "invalid", "why": "mute"}"#),
            Verdict::Invalid { why: "mute".into() }
        );
        for line in [
            "",
            "1",
            "[]",
            "{",
            "{}",
            r#"{"verdict": 1}"#,
            r#"{"verdict": "0"}"#,
            r#"{"verdict": "first"}"#,
            r#"{"verdict": "1", "p_first": 0.2}"#,
            r#"{"verdict": "2", "p_first": 0.8}"#,
            r#"{"verdict": "1", "p_first": 1.5}"#,
            r#"{"verdict": "1", "p_first": "0.9"}"#,
        ] {
            assert!(matches!(of_line(line), Verdict::Invalid { .. }), "{line}");
        }
    }

    #[test]
    fn a_malformed_line_is_one_invalid_pair_with_the_reason() {
        let verdicts = run(r#"echo '{"verdict": "1"}'; echo 'the first'"#, 10_000, &pairs(2)).unwrap();
        assert_eq!(verdicts[0], Verdict::First { p: 1.0 });
        assert!(
            matches!(&verdicts[1], Verdict::Invalid { why } if why.contains("the first")),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_wrong_number_of_lines_is_an_error() {
        for (command, count) in
            [("true", 0), (r#"echo '{"verdict": "1"}'"#, 1), ("echo; echo 1; echo 2; echo 3", 3)]
        {
            let error = run(command, 10_000, &pairs(2)).unwrap_err().to_string();
            assert!(error.contains(&format!("printed {count} lines for 2 pairs")), "{error}");
        }
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_last_words() {
        let script = r#"cat > /dev/null; echo '{"verdict": "1"}'; echo first >&2; echo 'no such model' >&2; echo >&2; exit 3"#;
        let error = run(script, 10_000, &pairs(1)).unwrap_err();
        assert!(matches!(error, Error::Annotator { .. }));
        let error = error.to_string();
        assert!(error.contains(r#"exit status: 3, last saying "no such model": it must end"#), "{error}");
        let error = run("no-such-program-anywhere", 10_000, &pairs(1)).unwrap_err().to_string();
        assert!(error.contains("127") && error.contains("not found"), "{error}");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("alive");
        // The first keeps standard output open past its shell; the second closes it and stays.
        for script in [
            format!("echo thinking >&2; (sleep 3; touch {0}) & sleep 60", mark.display()),
            format!("echo thinking >&2; exec >&-; sleep 3; touch {0}", mark.display()),
        ] {
            let start = Instant::now();
            let error = run(&script, 200, &pairs(1)).unwrap_err().to_string();
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
            assert!(error.contains("longer than 0.2 s") && error.contains("\"thinking\""), "{error}");
            assert!(error.contains("--judge-timeout"), "{error}");
        }
        thread::sleep(Duration::from_millis(3200));
        assert!(!mark.exists(), "a process outlived its judge");
    }

    #[test]
    fn large_batches_through_small_pipes_do_not_deadlock() {
        let long = "x".repeat(50_000);
        let pair = Pair { prompt: &long, response_1: "a", response_2: "b" };
        // Answers, and chatters on standard error, before and while it reads.
        let script = r#"yes noise | head -c 300000 >&2
            yes '{"verdict": "2"}' | head -n 40
            while read -r line; do echo "$line" >&2; done"#;
        assert_eq!(run(script, 60_000, &vec![pair; 40]).unwrap(), vec![Verdict::Second { p: 0.0 }; 40]);
        // Never reads at all.
        assert_eq!(
            run(r#"yes '{"verdict": "tie"}' | head -n 40"#, 60_000, &vec![pair; 40]).unwrap()[39],
            Verdict::Tie
        );
    }

    #[test]
    fn a_program_that_prints_without_end_is_stopped() {
        let error = run("yes", 60_000, &pairs(1)).unwrap_err().to_string();
        assert!(error.contains("printed more than"), "{error}");
    }

    #[test]
    fn a_time_out_beyond_all_clocks_is_none() {
        let mut forever = CommandAnnotator::new("echo 1", Duration::MAX).unwrap();
        assert!(forever.annotate(&pairs(1)).is_ok());
    }

    #[test]
    fn an_empty_command_is_refused() {
        let error = CommandAnnotator::new(" ", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().starts_with("--judge-command: is empty"), "{error}");
    }
}
