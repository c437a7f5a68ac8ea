//! A judge that is an external program.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{Call, End};
use super::{Judge, Judgement, Pair, Position, Verdict};
use crate::error::{Error, Result};
use crate::task::Task;

/// Limit on the output of a program: bytes per batch, and bytes per pair.
const OUTPUT_LIMIT: (usize, usize) = (1 << 20, 1 << 16);

/// The protocol that a program must follow, for error messages.
const PROTOCOL: &str = "for each line {\"id\", \"prompt\", \"response_1\", \"response_2\"} it must print one line with the same \
                        id: {\"id\", \"verdict\": \"1\", \"2\", \"tie\" or \"invalid\"}";

/// Runs a command line through the shell (`sh -c`, `cmd /C`), once per batch. The program reads one line `{"id",
/// "prompt", "response_1", "response_2"}` per pair on standard input, prints one line `{"id", "verdict":
/// "1"|"2"|"tie"|"invalid"}` per pair on standard output, in any order, and exits with code 0. The id is a string that
/// belongs to the pair, so that an answer is never assigned to another pair. An answer may also contain `"p_first"`,
/// the probability that response 1 is preferred, and `"why"`.
///
/// An answer without a usable verdict makes its pair [`Verdict::Invalid`]. These are [`Error::Judge`]: a line without
/// an id or with an unknown or repeated one, a pair without an answer, an exit code other than 0, and a timeout. Blank
/// lines are skipped. All processes that the program started are killed when the batch ends; a server that must outlive
/// the batch needs its own session (`setsid`).
#[derive(Clone, Debug)]
pub struct CommandJudge {
    command: String,
    timeout: Duration,
}

impl CommandJudge {
    /// `timeout` is the time limit of a batch; a program that takes longer is killed. An empty command is
    /// [`Error::Config`].
    pub fn new(command: &str, timeout: Duration) -> Result<CommandJudge> {
        if command.trim().is_empty() {
            return Err(Error::config("judge-command", "is empty: give a command line that reads pairs"));
        }
        // Cap at one year: adding a longer duration to an `Instant` can overflow.
        let timeout = timeout.min(Duration::from_secs(365 * 86_400));
        Ok(CommandJudge { command: command.to_owned(), timeout })
    }

    /// Runs the command on the pairs with these ids and returns their verdicts.
    fn run(&self, ids: &[String], input: Vec<u8>) -> Result<Vec<Verdict>> {
        let limit = OUTPUT_LIMIT.0 + OUTPUT_LIMIT.1 * ids.len();
        let call = Call { command: &self.command, input, limit, timeout: self.timeout };
        let mut answers = Answers::to(ids);
        let (end, last_words) = call.run(|line| answers.take(line));
        let fail = |what: String, way_out: &str| Err(self.error(&what, way_out, &last_words));
        match end {
            End::Broken(e) => {
                fail(format!("cannot be run ({e})"), "check that the shell exists and that memory is free")
            }
            End::TooMuch => {
                fail(format!("printed more than {limit} bytes"), "it must print one short line for each pair")
            }
            End::Exited(status) if !status.success() => {
                let way_out = format!("it must end with exit code 0; try it by hand: {PROTOCOL}");
                fail(format!("ended with {status}"), &way_out)
            }
            End::Killed { complete: false } => {
                let what = format!("took longer than {} s for a batch", self.timeout.as_secs_f64());
                fail(what, "raise the timeout (judge-timeout) or make the program faster")
            }
            End::Exited(_) | End::Killed { complete: true } => {
                answers.verdicts().or_else(|what| fail(what, PROTOCOL))
            }
        }
    }

    fn error(&self, what: &str, way_out: &str, last_words: &str) -> Error {
        let said = if last_words.is_empty() {
            String::new()
        } else {
            format!(" (last line on stderr: {last_words:?})")
        };
        let why = format!("{:?} {what}{said}: {way_out}", self.command);
        Error::Judge { name: self.name(), why }
    }
}

impl Judge for CommandJudge {
    fn name(&self) -> String {
        "command".into()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let command = ("judge-command".into(), self.command.clone());
        Ok(BTreeMap::from([("judge".into(), self.name()), command]))
    }

    fn position(&self) -> Position {
        Position::Untold
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            let ids: Vec<String> = pairs.iter().enumerate().map(|(i, pair)| id(i, pair)).collect();
            let mut input = Vec::new();
            for (id, &Pair { prompt, response_1, response_2 }) in ids.iter().zip(pairs) {
                let line =
                    json!({"id": id, "prompt": prompt, "response_1": response_1, "response_2": response_2});
                input.extend(format!("{line}\n").bytes());
            }
            Ok(self.run(&ids, input)?.into_iter().map(Judgement::from).collect())
        })
    }
}

/// The id of a pair within its batch. It includes a hash of the texts, so that a program that numbers its lines itself
/// does not produce valid ids by chance.
fn id(index: usize, pair: &Pair<'_>) -> String {
    let mut hasher = DefaultHasher::new();
    (pair.prompt, pair.response_1, pair.response_2).hash(&mut hasher);
    format!("{index}-{:08x}", hasher.finish() as u32)
}

/// The answers to a batch, collected line by line.
struct Answers<'a> {
    ids: &'a [String],
    index: HashMap<&'a str, usize>,
    verdicts: Vec<Option<Verdict>>,
    /// Lines read.
    lines: usize,
    /// The first unusable line and why it is unusable.
    fault: Option<String>,
}

impl<'a> Answers<'a> {
    fn to(ids: &'a [String]) -> Answers<'a> {
        let index = ids.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
        Answers { ids, index, verdicts: vec![None; ids.len()], lines: 0, fault: None }
    }

    /// Reads one line. Returns true once no further line can improve the outcome: all pairs are answered, or a line was
    /// unusable.
    fn take(&mut self, line: &[u8]) -> bool {
        self.lines += 1;
        if !line.is_empty()
            && self.fault.is_none()
            && let Err(why) = self.answer(line)
        {
            self.fault = Some(format!("printed an unusable line {} ({why})", self.lines));
        }
        self.fault.is_some() || self.verdicts.iter().all(Option::is_some)
    }

    fn answer(&mut self, line: &[u8]) -> Result<(), String> {
        let Ok(answer @ Value::Object(_)) = serde_json::from_slice(line) else {
            return Err(format!("not a JSON object: {}", excerpt(line)));
        };
        let shown = || answer["id"].to_string().chars().take(80).collect::<String>();
        let id = match &answer["id"] {
            Value::Null => return Err(format!("an answer without \"id\": {}", excerpt(line))),
            id => id.as_str().and_then(|id| self.index.get(id)),
        };
        let index = *id.ok_or_else(|| format!("an \"id\" that no pair of this batch has: {}", shown()))?;
        match self.verdicts[index].replace(verdict(&answer)) {
            None => Ok(()),
            Some(_) => Err(format!("a second answer with the \"id\" {}", shown())),
        }
    }

    /// One verdict per pair, or a description of the fault.
    fn verdicts(self) -> Result<Vec<Verdict>, String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let answered = self.verdicts.iter().flatten().count();
        let all: Option<Vec<Verdict>> = self.verdicts.into_iter().collect();
        all.ok_or_else(|| format!("answered {answered} of {} pairs", self.ids.len()))
    }
}

/// The verdict in an answer.
fn verdict(answer: &Value) -> Verdict {
    let invalid = |why: String| Verdict::Invalid { why };
    // Only strings are accepted: a program that numbers responses from 0 must not be misread.
    let certain = match answer["verdict"].as_str() {
        Some("1") => 1.0,
        Some("2") => 0.0,
        Some("tie") => return Verdict::Tie,
        Some("invalid") => return invalid(answer["why"].as_str().unwrap_or("no reason given").to_owned()),
        _ => {
            let found = match &answer["verdict"] {
                Value::String(text) => excerpt(text.as_bytes()),
                Value::Number(number) => format!("the number {number}"),
                other => other.to_string().chars().take(80).collect(),
            };
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

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::Wait;

    fn run(command: &str, timeout_ms: u64, pairs: &[Pair<'_>]) -> Result<Vec<Verdict>> {
        let mut judge = CommandJudge::new(command, Duration::from_millis(timeout_ms)).unwrap();
        Ok(judge.judge(pairs).wait()?.into_iter().map(|judgement| judgement.verdict).collect())
    }

    fn pairs(count: usize) -> Vec<Pair<'static>> {
        vec![Pair { prompt: "x", response_1: "one\n\"1\"", response_2: "two" }; count]
    }

    /// The verdict of an answer with these fields.
    fn of_answer(answer: &str) -> Verdict {
        verdict(&serde_json::from_str(answer).unwrap())
    }

    #[test]
    fn a_verdict_of_another_type_is_invalid_and_shown_as_it_is() {
        for (answer, shown) in
            [(r#"{"verdict": 1}"#, "not the number 1"), (r#"{"verdict": "A"}"#, "not \"A\"")]
        {
            let Verdict::Invalid { why } = of_answer(answer) else { panic!("{answer}") };
            assert!(why.ends_with(shown), "{why}");
        }
    }

    /// A program that answers every pair with the fields `rest` and reorders its lines with the command `order`.
    fn answering(rest: &str, order: &str) -> String {
        format!(r#"sed 's/^{{\("id":"[^"]*"\),.*/{{\1, {rest}}}/' | {order}"#)
    }

    /// Pairs, and their correct verdicts: response 1 is better where the number is even.
    fn numbered() -> (Vec<String>, Vec<&'static str>) {
        let texts = (0..96).map(|i| format!("{} {i}", ["even", "odd"][i % 2])).collect();
        (texts, (0..96).map(|i| ["1", "2"][i % 2]).collect())
    }

    /// A program that judges the [`numbered`] pairs correctly and reorders its lines with the command `order`.
    fn correctly(order: &str) -> String {
        let answer = |word: &str, verdict: &str| {
            format!(r#"s/^{{\("id":"[^"]*"\),.*"{word} [0-9]*"}}$/{{\1,"verdict":"{verdict}"}}/"#)
        };
        format!("sed '{};{}' | {order}", answer("even", "1"), answer("odd", "2"))
    }

    fn judge_numbered(command: &str) -> Result<Vec<&'static str>> {
        let (texts, _) = numbered();
        let pair = |text| Pair { prompt: "x", response_1: "y", response_2: text };
        let pairs: Vec<Pair> = texts.iter().map(|text| pair(text.as_str())).collect();
        Ok(run(command, 10_000, &pairs)?.iter().map(Verdict::label).collect())
    }

    #[test]
    fn answers_in_any_order_are_matched_to_pairs_by_id() {
        for order in ["cat", "tac", "sort", "sed 's/^/\\n\\n/'"] {
            assert_eq!(judge_numbered(&correctly(order)).unwrap(), numbered().1, "{order}");
        }
    }

    #[test]
    fn missing_extra_or_unmatched_answers_are_errors() {
        for (order, part) in [
            ("sed '7d'", "answered 95 of 96 pairs"),
            ("sed '7d;9p'", "printed an unusable line 9 (a second answer with the \"id\" \"8-"),
            ("sed '$p'", "printed an unusable line 97 (a second answer"),
            ("sed '3s/^/{\"verdict\":\"1\"}\\n/'", "printed an unusable line 3 (an answer without \"id\""),
            ("sed 's/\"id\":\"[^\"]*\",//'", "printed an unusable line 1 (an answer without \"id\""),
            ("sed 's/-[^\"]*//'", "printed an unusable line 1 (an \"id\" that no pair of this batch has"),
            (
                "sed 's/\"id\":\"\\([0-9]*\\)-[^\"]*\"/\"id\":\\1/'",
                "an \"id\" that no pair of this batch has",
            ),
            (
                "sed '5s/^/loading the model/'",
                "printed an unusable line 5 (not a JSON object: \"loading the model",
            ),
            ("true", "answered 0 of 96 pairs"),
        ] {
            let error = judge_numbered(&correctly(order)).unwrap_err().to_string();
            assert!(error.contains(part), "{order}: {error}");
            assert!(error.contains("one line with the same id"), "{order}: {error}");
        }
    }

    #[test]
    fn a_program_that_has_answered_is_not_waited_for() {
        // Three cases: a child keeps stdout open; the program itself keeps running; both.
        for rest in ["sleep 60 &", "sleep 60", "sleep 60 & sleep 60"] {
            let start = Instant::now();
            let command = format!("{}; {rest}", answering(r#""verdict":"2""#, "cat"));
            assert_eq!(run(&command, 30_000, &pairs(3)).unwrap(), vec![Verdict::Second { p: 0.0 }; 3]);
            assert!(start.elapsed() < Duration::from_secs(25), "{rest}: {:?}", start.elapsed());
        }
    }

    #[test]
    fn child_processes_are_killed_when_the_batch_ends() {
        let dir = tempfile::tempdir().unwrap();
        let answers = answering(r#""verdict":"1""#, "cat");
        run(&format!("({}) & {answers}", told_to_leave_a_mark(dir.path())), 30_000, &pairs(2)).unwrap();
        assert_no_process_is_left(dir.path());
    }

    /// Shell commands that leave a mark in `dir` when they are told to.
    fn told_to_leave_a_mark(dir: &Path) -> String {
        format!("while [ ! -e {0}/go ]; do sleep 0.1; done; touch {0}/alive", dir.display())
    }

    /// Checks that no process leaves its mark when it is told to.
    fn assert_no_process_is_left(dir: &Path) {
        std::fs::write(dir.join("go"), "").unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert!(!dir.join("alive").exists(), "a process outlived its batch");
    }

    #[test]
    fn a_program_reads_one_line_per_pair_and_its_lines_are_the_verdicts() {
        let script = r#"while read -r line; do
            id=${line#*:}; id=${id%%,*}
            case "$line" in
                *'"response_2":"b"}') echo "{\"id\": $id, \"verdict\": \"1\", \"p_first\": 0.75}" ;;
                *',"prompt":"p\n","response_1":"a"'*) echo "{\"verdict\": \"2\", \"id\": $id}" ;;
                *) printf '\r\n{"id": %s, "verdict": "tie"}\r\n' "$id" ;;
            esac; done"#;
        let pair = |response_1, response_2| Pair { prompt: "p\n", response_1, response_2 };
        let verdicts = run(script, 10_000, &[pair("a", "b"), pair("a", "c"), pair("b", "c")]).unwrap();
        assert_eq!(verdicts, [Verdict::First { p: 0.75 }, Verdict::Second { p: 0.0 }, Verdict::Tie]);
    }

    #[test]
    fn an_answer_is_valid_only_if_its_fields_agree() {
        assert_eq!(of_answer(r#"{"verdict": "1"}"#), Verdict::First { p: 1.0 });
        assert_eq!(
            of_answer(r#"{"verdict": "2", "p_first": 0.25, "more": []}"#),
            Verdict::Second { p: 0.25 }
        );
        assert_eq!(of_answer(r#"{"verdict": "1", "p_first": 0.5}"#), Verdict::Tie);
        assert_eq!(
            of_answer(r#"{"verdict": "invalid", "why": "mute"}"#),
            Verdict::Invalid { why: "mute".into() }
        );
        for line in [
            "{}",
            r#"{"verdict": 1}"#,
            r#"{"verdict": "0"}"#,
            r#"{"verdict": "first"}"#,
            r#"{"verdict": "1", "p_first": 0.2}"#,
            r#"{"verdict": "2", "p_first": 0.8}"#,
            r#"{"verdict": "1", "p_first": 1.5}"#,
            r#"{"verdict": "1", "p_first": "0.9"}"#,
        ] {
            assert!(matches!(of_answer(line), Verdict::Invalid { .. }), "{line}");
        }
    }

    #[test]
    fn an_unusable_answer_makes_one_pair_invalid_with_the_reason() {
        let script = answering(r#""verdict":"1""#, r#"sed '2s/"1"}/"the first"}/'"#);
        let verdicts = run(&script, 10_000, &pairs(2)).unwrap();
        assert_eq!(verdicts[0], Verdict::First { p: 1.0 });
        assert!(
            matches!(&verdicts[1], Verdict::Invalid { why } if why.contains("the first")),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_last_stderr_line() {
        let script = r#"echo '{"verdict": "1"}'; echo first >&2; echo 'no such model' >&2; echo >&2; exit 3"#;
        let error = run(script, 10_000, &pairs(1)).unwrap_err();
        assert!(matches!(error, Error::Judge { .. }));
        let error = error.to_string();
        assert!(
            error.contains(r#"exit status: 3 (last line on stderr: "no such model"): it must end"#),
            "{error}"
        );
        let error = run("no-such-program-anywhere", 10_000, &pairs(1)).unwrap_err().to_string();
        assert!(error.contains("127") && error.contains("not found"), "{error}");
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let waits = told_to_leave_a_mark(dir.path());
        // The first script keeps stdout open after its shell has exited; the second closes stdout and keeps running.
        for script in [
            format!("echo thinking >&2; ({waits}) & sleep 60"),
            format!("echo thinking >&2; exec >&-; {waits}"),
        ] {
            // Long enough for the script to begin on a busy machine.
            let error = run(&script, 2_500, &pairs(1)).unwrap_err().to_string();
            assert!(error.contains("longer than 2.5 s") && error.contains("\"thinking\""), "{error}");
            assert!(error.contains("judge-timeout"), "{error}");
        }
        assert_no_process_is_left(dir.path());
    }

    #[test]
    fn large_batches_through_small_pipes_do_not_deadlock() {
        let long = "x".repeat(50_000);
        let pair = Pair { prompt: &long, response_1: "a", response_2: "b" };
        // Writes to stderr before and while it answers.
        let script = format!(
            "yes noise | head -c 300000 >&2; tee /dev/stderr | {}",
            answering(r#""verdict":"2""#, "cat")
        );
        assert_eq!(run(&script, 60_000, &vec![pair; 40]).unwrap(), vec![Verdict::Second { p: 0.0 }; 40]);
        // Never reads its input.
        let error = run("true", 60_000, &vec![pair; 40]).unwrap_err().to_string();
        assert!(error.contains("answered 0 of 40"), "{error}");
    }

    #[test]
    fn a_program_that_prints_without_end_is_stopped() {
        for command in ["yes", "yes ''", "tr '\\0' x < /dev/zero"] {
            let error = run(command, 60_000, &pairs(1)).unwrap_err().to_string();
            assert!(error.contains("printed more than"), "{command}: {error}");
        }
    }

    #[test]
    fn a_timeout_too_long_for_the_clock_is_no_timeout() {
        let command = answering(r#""verdict":"tie""#, "cat");
        let mut forever = CommandJudge::new(&command, Duration::MAX).unwrap();
        assert!(forever.judge(&pairs(1)).wait().is_ok());
    }

    #[test]
    fn an_empty_command_is_refused() {
        let error = CommandJudge::new(" ", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().starts_with("judge-command: is empty"), "{error}");
    }
}
