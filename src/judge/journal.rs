//! What judges said, written down as it comes: a run that ends, however it ends, asks nothing twice.

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

/// The file in the folder of a run or an evaluation.
pub const JOURNAL: &str = "judgements.jsonl";

/// An answer, as the journal has it and as one rank tells others of it.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerRow {
    id: String,
    /// A digest of who said it: another judge's word is not taken for this one's.
    judge: String,
    #[serde(flatten)]
    said: SaidRow,
    ms: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    usage: Usage,
}

/// A row that was read: what was said, checked.
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
    /// What a judge of this digest has said.
    pub fn new(answer: &Answer, judge: String) -> AnswerRow {
        let Answer { id, said, usage, ms } = answer;
        AnswerRow { id: id.clone(), judge, said: said.into(), ms: *ms, usage: *usage }
    }

    /// The answer, or why nobody gives such a one.
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
    /// What was said, or why nobody says so.
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
                    return Err(format!("verdict {label:?} beside what makes {:?}", verdict.label()));
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

/// A queue before which stands what it has said already.
pub struct Journalled<'a> {
    queue: Box<dyn JudgeQueue + 'a>,
    /// Questions that were asked and are not answered, by their ids.
    open: HashMap<String, Ask>,
    /// What was answered, by the ids of the questions.
    known: HashMap<String, Answer>,
    /// Answers that are known and were asked for.
    ready: Vec<Answer>,
    journal: Option<Journal>,
    used: Usage,
    /// Once it is known: a judge's model is digested for it.
    identity: OnceLock<BTreeMap<String, String>>,
}

/// The file, and who is heard.
struct Journal {
    lines: JsonLines,
    judge: String,
}

impl<'a> Journalled<'a> {
    /// Before `queue`, without a file.
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

    /// Reads what the file `path` holds of this judge's answers, and writes to its end what comes from now on. A last
    /// line that a crash has torn is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Row`] for a line that is no answer.
    pub fn open(&mut self, path: &Path) -> Result<()> {
        let judge = self.digest()?.to_string();
        let (lines, rows) = JsonLines::open::<CheckedRow>(path, |error| {
            format!("is no answer of a judge ({error}): remove the line, and it is asked again")
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
    /// As there.
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

    /// What was used for all answers so far, by earlier processes as well.
    pub fn used(&self) -> Usage {
        self.used
    }

    /// Asks what was never answered, and is not open yet.
    ///
    /// # Errors
    /// As [`JudgeQueue::submit`].
    pub fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        let mut asked = Vec::new();
        for question in questions {
            match self.known.get(&question.id) {
                Some(answer) => self.ready.push(answer.clone()),
                None if self.open.contains_key(&question.id) => {}
                None => {
                    self.open.insert(question.id.clone(), question.ask.clone());
                    asked.push(question);
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        self.queue.submit(asked)
    }

    /// What has come back, each answer to a question that is open; waits up to `patience`.
    ///
    /// # Errors
    /// As [`JudgeQueue::poll`]: no question is open any more; [`Error::Io`] where the journal cannot be written.
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

    /// Looks so many times for answers that are on their way, each time for as long as `patience`: of [`drain`](Self::drain) what
    /// several ranks can do together, whose clocks differ.
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

    /// Waits up to `patience` for answers that are on their way, so that they are in the journal before the process ends; they
    /// are given by the next [`poll`](Self::poll).
    ///
    /// # Errors
    /// As there.
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

    /// What was submitted, and what comes back at the next polls.
    #[derive(Clone, Default)]
    struct Post {
        asked: Arc<Mutex<Vec<String>>>,
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
            self.asked.lock().unwrap().extend(questions.into_iter().map(|q| q.id));
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
    fn what_was_answered_is_never_asked_again_not_even_after_a_torn_line() {
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
        let asked = post.asked.lock().unwrap().clone();
        assert_eq!(asked, [&one, &two, &two].map(|question| question.id.clone()));
        drop(second);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);

        // Another judge's word is not this one's.
        let other = Post { name: "other", ..Post::default() };
        let mut third = open(&other);
        third.submit(vec![one.clone()]).unwrap();
        assert_eq!(other.asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_nobody_says_is_no_answer() {
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
    fn what_was_answered_is_not_asked_again_nor_counted_twice() {
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
        assert_eq!((post.asked.lock().unwrap().len(), journalled.used().requests), (1, 2));
    }

    #[test]
    fn an_answer_to_what_was_not_asked_is_dropped_and_told() {
        let post = Post::default();
        let mut journalled = Journalled::new(Box::new(post.clone()));
        let (one, two) = (question("1"), question("2"));
        journalled.submit(vec![one.clone()]).unwrap();
        let score = Answer { said: Said::Score(Score::Value(1.0)), ..answer(&one, 0.5) };
        post.back.lock().unwrap().extend([answer(&two, 0.75), score, answer(&one, 0.75)]);
        let Polled { answers, notes } = journalled.poll(Duration::ZERO).wait().unwrap();
        // The second answer to the same question is not open any more either.
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
    fn a_line_that_is_no_answer_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("judgements.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let error = Journalled::new(Box::new(Post::default())).open(&path).unwrap_err().to_string();
        assert!(error.contains("judgements.jsonl:1: is no answer of a judge"), "{error}");
    }
}
