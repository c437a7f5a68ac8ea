//! A journal of the judge's answers, written as they arrive, so that a resumed run repeats no question however the last
//! one ended.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::OnceLock;
use web_time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::queue::{Answer, Ask, JudgeQueue, Polled, Question, Said, Usage, look};
use super::{Judgement, Position, Score, Verdict};
use crate::digest::{Digest, Digester};
use crate::error::Result;
use crate::json_lines::JsonLines;
use crate::task::Task;

/// The file name in the folder of a run or an evaluation.
pub const JOURNAL: &str = "judgements.jsonl";

/// An answer as stored in the journal and as exchanged between ranks.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerRow {
    id: String,
    /// A digest of the judge's identity: an answer of another judge is not used.
    judge: String,
    #[serde(flatten)]
    said: SaidRow,
    ms: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    usage: Usage,
}

/// A row that was read, with its answer validated.
#[derive(Deserialize)]
#[serde(try_from = "AnswerRow")]
struct CheckedRow {
    judge: String,
    answer: Answer,
}

impl TryFrom<AnswerRow> for CheckedRow {
    type Error = String;

    fn try_from(row: AnswerRow) -> Result<CheckedRow, String> {
        Ok(CheckedRow { judge: row.judge.clone(), answer: row.checked()? })
    }
}

impl AnswerRow {
    /// A row for the answer of the judge with this digest.
    pub fn new(answer: &Answer, judge: String) -> AnswerRow {
        let Answer { id, said, usage, ms } = answer;
        AnswerRow { id: id.clone(), judge, said: said.into(), ms: *ms, usage: *usage }
    }

    /// The answer, or why it is invalid.
    pub fn checked(self) -> Result<Answer, String> {
        let AnswerRow { id, said, ms, usage, .. } = self;
        Ok(Answer { id, said: said.said()?, usage, ms })
    }
}

fn is_default(usage: &Usage) -> bool {
    *usage == Usage::default()
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SaidRow {
    Judgement {
        verdict: String,
        p_first: Option<f32>,
        p_12: Option<f32>,
        p_21: Option<f32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        votes: Vec<Verdict>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    Score {
        score: Option<f32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

impl From<&Said> for SaidRow {
    fn from(said: &Said) -> Self {
        match said {
            Said::Judgement(judgement) => SaidRow::Judgement {
                verdict: judgement.verdict.label().into(),
                p_first: judgement.verdict.p_first(),
                p_12: judgement.p_12,
                p_21: judgement.p_21,
                votes: judgement.votes.clone(),
                why: match &judgement.verdict {
                    Verdict::Invalid { why } => Some(why.clone()),
                    _ => None,
                },
            },
            Said::Score(Score::Value(score)) => SaidRow::Score { score: Some(*score), why: None },
            Said::Score(Score::Invalid { why }) => SaidRow::Score { score: None, why: Some(why.clone()) },
        }
    }
}

impl SaidRow {
    /// What was said, or why it is invalid.
    fn said(self) -> Result<Said, String> {
        match self {
            SaidRow::Judgement { verdict: label, p_first, p_12, p_21, votes, why } => {
                let all = [p_first, p_12, p_21]
                    .into_iter()
                    .flatten()
                    .chain(votes.iter().filter_map(Verdict::p_first));
                if let Some(p) = all.into_iter().find(|p| !(0.0..=1.0).contains(p)) {
                    return Err(format!("{p} is not a probability"));
                }
                let verdict = match (p_first, why) {
                    (Some(p), None) => Verdict::from_probability(p),
                    (None, Some(why)) => Verdict::Invalid { why },
                    _ => return Err("neither p_first nor why, or both".into()),
                };
                if verdict.label() != label {
                    return Err(format!(
                        "verdict {label:?}, but its probability means {:?}",
                        verdict.label()
                    ));
                }
                Ok(Said::Judgement(Judgement { verdict, p_12, p_21, votes }))
            }
            SaidRow::Score { score: Some(score), why: None } if score.is_finite() => {
                Ok(Said::Score(Score::Value(score)))
            }
            SaidRow::Score { score: None, why: Some(why) } => Ok(Said::Score(Score::Invalid { why })),
            SaidRow::Score { .. } => Err("neither a finite score nor why, or both".into()),
        }
    }
}

/// A judge queue with a journal: questions that were answered before are answered from the journal.
pub struct Journalled<'a> {
    queue: Box<dyn JudgeQueue + 'a>,
    /// Questions that were submitted and not answered yet, by id.
    open: HashMap<String, Ask>,
    /// Known answers, by the id of the question.
    known: HashMap<String, Answer>,
    /// Known answers that were submitted again, for the next poll.
    ready: Vec<Answer>,
    journal: Option<Journal>,
    used: Usage,
    /// Computed once: it digests the judge's model.
    identity: OnceLock<BTreeMap<String, String>>,
}

/// The file, and the digest of the judge whose answers it stores.
struct Journal {
    lines: JsonLines,
    judge: String,
}

impl<'a> Journalled<'a> {
    /// Wraps `queue`, without a file.
    pub fn new(queue: Box<dyn JudgeQueue + 'a>) -> Journalled<'a> {
        let used = Usage::default();
        Journalled {
            queue,
            open: HashMap::new(),
            known: HashMap::new(),
            ready: Vec::new(),
            journal: None,
            used,
            identity: OnceLock::new(),
        }
    }

    /// Loads this judge's answers from the file `path` and appends new answers to it. A last line that a crash has cut
    /// off is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] for a line that is not an answer.
    pub fn open(&mut self, path: &Path) -> Result<()> {
        let judge = self.digest()?.to_string();
        let (lines, rows) = JsonLines::open::<CheckedRow>(path, |error| {
            format!(
                "is not a valid answer of a judge ({error}): remove the line, and the question is asked again"
            )
        })?;
        let mut used = Usage::default();
        for CheckedRow { answer, .. } in rows.into_iter().filter(|row| row.judge == judge) {
            used += answer.usage;
            self.known.insert(answer.id.clone(), answer);
        }
        self.used += used;
        self.queue.used_before(used);
        if let Some(dir) = path.parent() {
            self.queue.keep_in(dir)?;
        }
        self.journal = Some(Journal { lines, judge });
        Ok(())
    }

    /// The judge's name.
    pub fn name(&self) -> String {
        self.queue.name()
    }

    /// See [`JudgeQueue::identity`].
    ///
    /// # Errors
    /// As [`JudgeQueue::identity`].
    pub fn identity(&self) -> Result<BTreeMap<String, String>> {
        if let Some(known) = self.identity.get() {
            return Ok(known.clone());
        }
        let identity = self.queue.identity()?;
        Ok(self.identity.get_or_init(|| identity).clone())
    }

    /// A digest of its identity.
    ///
    /// # Errors
    /// As [`Journalled::identity`].
    pub fn digest(&self) -> Result<Digest> {
        let mut digester = Digester::default();
        for (name, value) in self.identity()? {
            digester.bytes(name.as_bytes());
            digester.bytes(value.as_bytes());
        }
        Ok(digester.finish())
    }

    /// See [`JudgeQueue::is_remote`].
    pub fn is_remote(&self) -> bool {
        self.queue.is_remote()
    }

    /// See [`JudgeQueue::rates`].
    pub fn rates(&self) -> bool {
        self.queue.rates()
    }

    /// See [`JudgeQueue::position`].
    pub fn position(&self) -> Position {
        self.queue.position()
    }

    /// See [`JudgeQueue::members`].
    pub fn members(&self) -> Vec<&Journalled<'_>> {
        self.queue.members()
    }

    /// The usage of all answers so far, including those of earlier processes.
    pub fn used(&self) -> Usage {
        self.used
    }

    /// Submits the questions that are neither answered nor open.
    ///
    /// # Errors
    /// As [`JudgeQueue::submit`].
    pub fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        let mut unanswered = Vec::new();
        for question in questions {
            match self.known.get(&question.id) {
                Some(answer) => self.ready.push(answer.clone()),
                None if self.open.contains_key(&question.id) => {}
                None => {
                    self.open.insert(question.id.clone(), question.ask.clone());
                    unanswered.push(question);
                }
            }
        }
        if unanswered.is_empty() {
            return Ok(());
        }
        self.queue.submit(unanswered)
    }

    /// Returns the answers that have arrived, each to an open question; waits up to `patience`.
    ///
    /// # Errors
    /// As [`JudgeQueue::poll`], after which no question is open; [`Error::Io`] if the journal cannot be written.
    pub fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
            if !self.ready.is_empty() {
                return Ok(Polled { answers: std::mem::take(&mut self.ready), notes: Vec::new() });
            }
            if self.open.is_empty() {
                return Ok(Polled::default());
            }
            let polled = look(&mut *self.queue, patience).await.inspect_err(|_| self.open.clear())?;
            let mut notes = polled.notes;
            let mut answers = Vec::new();
            for answer in polled.answers {
                match self.open.remove(&answer.id) {
                    None => notes.push(format!(
                        "{} answered a question that is not open, {}",
                        self.name(),
                        answer.id
                    )),
                    Some(ask) => match (&ask, &answer.said) {
                        (Ask::Compare { .. }, Said::Judgement(_)) | (Ask::Rate { .. }, Said::Score(_)) => {
                            answers.push(answer)
                        }
                        _ => answers.push(Answer {
                            said: Said::invalid(&ask, "the answer is to another kind of question".into()),
                            ..answer
                        }),
                    },
                }
            }
            answers.iter().for_each(|answer| self.used += answer.usage);
            self.write(&answers)?;
            self.known.extend(answers.iter().map(|answer| (answer.id.clone(), answer.clone())));
            Ok(Polled { answers, notes })
        })
    }

    /// Polls at most `looks` times for pending answers, up to `patience` each time. This is [`drain`](Self::drain) for
    /// several ranks: their clocks differ, so they count polls instead of time.
    ///
    /// # Errors
    /// As [`Journalled::poll`].
    pub async fn drain_together(&mut self, looks: usize, patience: Duration) -> Result<()> {
        for _ in 0..looks {
            if self.open.is_empty() {
                break;
            }
            self.poll(patience).await?;
        }
        Ok(())
    }

    /// Waits up to `patience` for pending answers, so that they are in the journal before the process ends. The next
    /// [`poll`](Self::poll) returns them.
    ///
    /// # Errors
    /// As [`Journalled::poll`].
    pub async fn drain(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        let left = || until.saturating_duration_since(Instant::now());
        while !self.open.is_empty() && !left().is_zero() {
            let mut ready = std::mem::take(&mut self.ready);
            let polled = self.poll(left()).await;
            ready.extend(polled.as_ref().into_iter().flat_map(|polled| polled.answers.iter().cloned()));
            self.ready = ready;
            polled?;
        }
        self.queue.settle(left()).await
    }

    fn write(&mut self, answers: &[Answer]) -> Result<()> {
        let Some(Journal { lines, judge }) = &mut self.journal else { return Ok(()) };
        if answers.is_empty() {
            return Ok(());
        }
        let row = |answer: &Answer| AnswerRow::new(answer, judge.clone());
        lines.append(&answers.iter().map(row).collect::<Vec<AnswerRow>>())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::Pair;
    use super::*;
    use crate::Wait;

    /// A queue for tests, with the submitted questions and the result of the next poll.
    #[derive(Clone, Default)]
    struct Post {
        submitted: Arc<Mutex<Vec<String>>>,
        back: Arc<Mutex<Vec<Answer>>>,
        name: &'static str,
    }

    impl JudgeQueue for Post {
        fn name(&self) -> String {
            self.name.into()
        }
        fn identity(&self) -> Result<std::collections::BTreeMap<String, String>> {
            Ok([("judge".to_owned(), self.name.to_owned())].into())
        }
        fn is_remote(&self) -> bool {
            true
        }
        fn rates(&self) -> bool {
            false
        }
        fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
            self.submitted.lock().unwrap().extend(questions.into_iter().map(|q| q.id));
            Ok(())
        }
        fn poll<'t>(&'t mut self, _: Duration) -> Task<'t, Result<Polled>> {
            Box::pin(async move {
                Ok(Polled { answers: std::mem::take(&mut *self.back.lock().unwrap()), notes: Vec::new() })
            })
        }
    }

    fn question(place: &str) -> Question {
        Question::compare(place, &Pair { prompt: "x", response_1: "a", response_2: "b" })
    }

    fn answer(question: &Question, p: f32) -> Answer {
        let judgement = Judgement::from_orders(Some(p), Some(p));
        let usage = Usage { requests: 2, cost: 0.5, ..Usage::default() };
        Answer { id: question.id.clone(), said: Said::Judgement(judgement), usage, ms: 3.0 }
    }

    #[test]
    fn an_answered_question_is_never_asked_again_even_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judgements.jsonl");
        let post = Post::default();
        let open = |post: &Post| {
            let mut journalled = Journalled::new(Box::new(post.clone()));
            journalled.open(&path).unwrap();
            journalled
        };
        let (one, two) = (question("1"), question("2"));
        let mut first = open(&post);
        first.submit(vec![one.clone(), two.clone()]).unwrap();
        post.back.lock().unwrap().push(answer(&one, 0.75));
        assert_eq!(first.poll(Duration::ZERO).wait().unwrap().answers, [answer(&one, 0.75)]);
        drop(first);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"id\":\"2-").unwrap();

        let mut second = open(&post);
        assert_eq!(second.used(), answer(&one, 0.0).usage);
        second.submit(vec![one.clone(), two.clone()]).unwrap();
        assert_eq!(second.poll(Duration::ZERO).wait().unwrap().answers, [answer(&one, 0.75)]);
        post.back.lock().unwrap().push(answer(&two, 0.25));
        assert_eq!(second.poll(Duration::ZERO).wait().unwrap().answers, [answer(&two, 0.25)]);
        let submitted = post.submitted.lock().unwrap().clone();
        assert_eq!(submitted, [&one, &two, &two].map(|question| question.id.clone()));
        drop(second);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);

        // Answers of another judge are not used.
        let other = Post { name: "other", ..Post::default() };
        let mut third = open(&other);
        third.submit(vec![one.clone()]).unwrap();
        assert_eq!(other.submitted.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_contradictory_row_is_rejected() {
        let good =
            r#"{"id":"1-a","judge":"x","verdict":"1","p_first":0.75,"p_12":0.75,"p_21":null,"ms":3.0}"#;
        let rated = r#"{"id":"1-a","judge":"x","score":7.5,"ms":3.0}"#;
        for row in [
            good,
            rated,
            r#"{"id":"1-a","judge":"x","verdict":"invalid","p_first":null,"p_12":null,"p_21":null,"why":"?","ms":3.0}"#,
        ] {
            serde_json::from_str::<CheckedRow>(row).unwrap();
        }
        for (from, to, why) in [
            ("0.75,\"p_12\"", "7.5,\"p_12\"", "7.5 is not a probability"),
            ("\"p_12\":0.75", "\"p_12\":-1", "-1 is not a probability"),
            ("0.75,\"p_12\"", "1e39,\"p_12\"", "is not a probability"),
            ("0.75,\"p_12\"", "null,\"p_12\"", "neither p_first nor why"),
            ("\"1\"", "\"2\"", "verdict \"2\""),
            ("\"1\"", "\"banana\"", "verdict \"banana\""),
        ] {
            let wrong = good.replacen(from, to, 1);
            assert_ne!(wrong, good);
            let error = serde_json::from_str::<CheckedRow>(&wrong).err().unwrap().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
        assert!(serde_json::from_str::<CheckedRow>(&rated.replace("7.5", "null")).is_err());
    }

    #[test]
    fn an_answered_question_is_neither_asked_nor_counted_twice() {
        let post = Post::default();
        let mut journalled = Journalled::new(Box::new(post.clone()));
        let one = question("1");
        for time in 0..3 {
            journalled.submit(vec![one.clone()]).unwrap();
            if time == 0 {
                post.back.lock().unwrap().push(answer(&one, 0.75));
            }
            let said = journalled.poll(Duration::ZERO).wait().unwrap().answers;
            assert_eq!(said, [answer(&one, 0.75)]);
        }
        assert_eq!((post.submitted.lock().unwrap().len(), journalled.used().requests), (1, 2));
    }

    #[test]
    fn an_answer_to_an_unknown_question_is_dropped_with_a_note() {
        let post = Post::default();
        let mut journalled = Journalled::new(Box::new(post.clone()));
        let (one, two) = (question("1"), question("2"));
        journalled.submit(vec![one.clone()]).unwrap();
        let score = Answer { said: Said::Score(Score::Value(1.0)), ..answer(&one, 0.5) };
        post.back.lock().unwrap().extend([answer(&two, 0.75), score, answer(&one, 0.75)]);
        let Polled { answers, notes } = journalled.poll(Duration::ZERO).wait().unwrap();
        // The second answer to a question is dropped, too: the question is not open any more.
        assert_eq!((answers.len(), notes.len()), (1, 2), "{notes:?}");
        let Said::Judgement(judgement) = &answers[0].said else { panic!() };
        assert_eq!(judgement.verdict.label(), "invalid");
    }

    #[test]
    fn invalid_verdicts_and_scores_survive_the_journal() {
        let invalid = Said::Judgement(Verdict::Invalid { why: "mute".into() }.into());
        let tie = Said::Judgement(Judgement::from_orders(Some(0.75), Some(0.25)));
        let scores = [Score::Value(-1.5), Score::Invalid { why: "no number".into() }].map(Said::Score);
        for said in [vec![invalid, tie], scores.to_vec()].concat() {
            let text = serde_json::to_string(&SaidRow::from(&said)).unwrap();
            assert_eq!(serde_json::from_str::<SaidRow>(&text).unwrap().said(), Ok(said), "{text}");
        }
    }

    #[test]
    fn a_line_that_is_not_an_answer_is_an_error_with_its_line_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judgements.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let error = Journalled::new(Box::new(Post::default())).open(&path).unwrap_err().to_string();
        assert!(error.contains("judgements.jsonl:1: is not a valid answer of a judge"), "{error}");
    }
}
