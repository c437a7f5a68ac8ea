//! Annotators as queues: owned questions with ids go out, answers with the same ids come back, in any order, at any time.
//!
//! ```text
//! trainer, eval  --submit-->  Journalled  --submit-->  InPlace      a model on this device, a rule   (this file)
//!                <--poll----  journal.rs  <--poll----  Threaded     a program of the user's          (this file)
//!                                                      OpenAi, ...  servers, people: queues of their own
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::journal::Journalled;
use super::{Annotated, Annotator, Judgement, Pair, Position, Rated, Score, Verdict, one_each};
use crate::digest::Digester;
use crate::error::{Error, Result};

/// Waits before an annotator that works elsewhere is asked again after it has failed.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// Something to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the answer is known by, see [`Question::new`].
    pub id: String,
    /// What was answered.
    pub prompt: String,
    /// What is asked of the responses to it.
    pub ask: Ask,
    /// Where another question is about the same pair the other way round, and this one is not for all.
    pub turned: Option<Turned>,
}

/// Of which question another one is the other way round, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The first question's id.
    pub of: String,
    /// It is for annotators of this [`Position`] or above. Of others the answer to the first question holds, turned.
    pub least: Position,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which response is better: answered by [`Said::Judgement`].
    Compare {
        /// One response.
        response_1: String,
        /// The other one.
        response_2: String,
    },
    /// How good a response is: answered by [`Said::Score`].
    Rate {
        /// The response.
        response: String,
    },
}

impl Question {
    /// A question whose id is made of `place`, which tells apart questions about the same texts, and of a digest of the
    /// texts: a run that is resumed asks with the same ids, and an answer is never taken for that of other texts.
    pub fn new(place: &str, prompt: &str, ask: Ask) -> Question {
        let mut digester = Digester::default();
        digester.bytes(prompt.as_bytes());
        match &ask {
            Ask::Compare { response_1, response_2 } => {
                digester.bytes(response_1.as_bytes());
                digester.bytes(response_2.as_bytes());
            }
            Ask::Rate { response } => digester.bytes(response.as_bytes()),
        }
        Question {
            id: format!("{place}-{}", digester.finish()),
            prompt: prompt.to_owned(),
            ask,
            turned: None,
        }
    }

    /// Which of a pair's responses is better.
    pub fn compare(place: &str, pair: &Pair<'_>) -> Question {
        let [response_1, response_2] = [pair.response_1, pair.response_2].map(str::to_owned);
        Question::new(place, pair.prompt, Ask::Compare { response_1, response_2 })
    }

    /// A question about two responses, about these the other way round, for annotators of at least this position.
    pub fn turned(&self, place: &str, least: Position) -> Question {
        let pair = self.pair().expect("only a pair has another way round");
        let turned = Some(Turned { of: self.id.clone(), least });
        Question { turned, ..Question::compare(place, &pair.swapped()) }
    }

    /// The question that an annotator of this position is asked for it: this one, or that which it is the other way round of.
    pub(super) fn asked_of(&self, position: Position) -> Question {
        match (&self.turned, self.pair()) {
            (Some(Turned { of, least }), Some(pair)) if position < *least => {
                Question { id: of.clone(), ..Question::compare("", &pair.swapped()) }
            }
            _ => self.clone(),
        }
    }

    fn rated(&self) -> Option<Rated<'_>> {
        match &self.ask {
            Ask::Compare { .. } => None,
            Ask::Rate { response } => Some(Rated { prompt: &self.prompt, response }),
        }
    }

    /// Its texts, if it is about two responses.
    pub fn pair(&self) -> Option<Pair<'_>> {
        match &self.ask {
            Ask::Compare { response_1, response_2 } => {
                Some(Pair { prompt: &self.prompt, response_1, response_2 })
            }
            Ask::Rate { .. } => None,
        }
    }
}

/// What was said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Which of two responses is better.
    Judgement(Judgement),
    /// How good a response is.
    Score(Score),
}

impl Said {
    /// That nothing usable was said about a question of this kind.
    pub fn invalid(ask: &Ask, why: String) -> Said {
        match ask {
            Ask::Compare { .. } => Said::Judgement(Verdict::Invalid { why }.into()),
            Ask::Rate { .. } => Said::Score(Score::Invalid { why }),
        }
    }
}

/// An answer that came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The question's.
    pub id: String,
    /// What was said.
    pub said: Said,
    /// What it took.
    pub usage: Usage,
    /// Wall time in milliseconds that the annotator took for it: of a batch, its share.
    pub ms: f64,
}

/// What an annotator has used, to be counted and paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Requests that were sent.
    pub requests: u64,
    /// Those of them that failed and were sent again.
    pub failed: u64,
    /// Answers that came from a cache instead of a request.
    pub cached: u64,
    /// Tokens that were read.
    pub prompt_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
    /// Money, in the unit of the prices that were given.
    pub cost: f64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.cached += other.cached;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.cost += other.cost;
    }
}

/// What came back since the last look.
#[derive(Debug, Default)]
pub struct Polled {
    /// Answers, each to a question that was submitted.
    pub answers: Vec<Answer>,
    /// What the user should know, a sentence each: a server that failed and was asked again, say.
    pub notes: Vec<String>,
}

/// Something that is given questions, and gives answers when it has them.
pub trait AnnotationQueue: Send {
    /// What to call it in messages and in `run.json`.
    fn name(&self) -> String;

    /// All that decides its verdicts, by the names of its options, see [`Annotator::identity`].
    ///
    /// # Errors
    /// [`Error::Io`] for a model that cannot be read.
    fn identity(&self) -> Result<BTreeMap<String, String>>;

    /// Whether most of its time is spent waiting for something outside this program, such as a server or a person, so that
    /// asking several steps ahead is of use.
    fn is_remote(&self) -> bool;

    /// Whether it takes [`Ask::Rate`]; all take [`Ask::Compare`].
    fn rates(&self) -> bool;

    /// See [`Annotator::position`].
    fn position(&self) -> Position {
        Position::Settled
    }

    /// Those that are asked together: of an ensemble its members, of others nobody.
    fn members(&self) -> Vec<&Journalled<'_>> {
        Vec::new()
    }

    /// Takes questions, without waiting for their answers. No id is open twice.
    ///
    /// # Errors
    /// As [`AnnotationQueue::poll`].
    fn submit(&mut self, questions: Vec<Question>) -> Result<()>;

    /// What has come back since the last call; waits up to `patience` for something to come. What is wrong with one
    /// question is an invalid verdict or score; every question is answered once.
    ///
    /// # Errors
    /// [`Error::Annotator`] where nothing more will come: the questions that are open are forgotten, and may be submitted
    /// again.
    fn poll(&mut self, patience: Duration) -> Result<Polled>;

    /// Counts what an earlier process of the same run has used against a budget, where there is one.
    fn used_before(&mut self, _usage: Usage) {}

    /// Waits up to `patience` for what it was asked and must not be asked twice, where it keeps that itself
    /// ([`keep_in`](Self::keep_in)), and nobody waits for it any more.
    ///
    /// # Errors
    /// As [`AnnotationQueue::poll`].
    fn settle(&mut self, _patience: Duration) -> Result<()> {
        Ok(())
    }

    /// Keeps in the folder `dir` of a run what it must not forget.
    ///
    /// # Errors
    /// What is wrong with the files there.
    fn keep_in(&mut self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// A queue that is chosen while the program runs.
impl AnnotationQueue for Box<dyn AnnotationQueue + '_> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        (**self).identity()
    }

    fn is_remote(&self) -> bool {
        (**self).is_remote()
    }

    fn rates(&self) -> bool {
        (**self).rates()
    }

    fn position(&self) -> Position {
        (**self).position()
    }

    fn members(&self) -> Vec<&Journalled<'_>> {
        (**self).members()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        (**self).submit(questions)
    }

    fn poll(&mut self, patience: Duration) -> Result<Polled> {
        (**self).poll(patience)
    }

    fn used_before(&mut self, usage: Usage) {
        (**self).used_before(usage)
    }

    fn settle(&mut self, patience: Duration) -> Result<()> {
        (**self).settle(patience)
    }

    fn keep_in(&mut self, dir: &Path) -> Result<()> {
        (**self).keep_in(dir)
    }
}

/// Questions that an annotator on this device answers at a time: in between one can be told to end.
pub const CHUNK: usize = 64;
/// Between two looks at whether to go on.
pub const LOOK: Duration = Duration::from_millis(100);

/// Asks `queue` about those of `pairs` whose responses differ. One result a pair, in order, and why it has ended before all
/// pairs had one: the others are invalid then. `watch` hears what the user should know, or nothing, and may end it by an
/// error.
///
/// # Errors
/// As [`AnnotationQueue::poll`]; those of `watch`.
pub fn compare_all(
    queue: &mut dyn AnnotationQueue,
    pairs: &[Pair<'_>],
    watch: &mut dyn FnMut(Option<&str>) -> Result<()>,
) -> (Vec<Annotated>, Result<()>) {
    let not_judged = || Annotated::Judged(Verdict::Invalid { why: "not judged".into() }.into());
    let mut results: Vec<Annotated> = pairs
        .iter()
        .map(|pair| if pair.response_1 == pair.response_2 { Annotated::Identical } else { not_judged() })
        .collect();
    let asked: Vec<usize> = (0..pairs.len()).filter(|i| results[*i] != Annotated::Identical).collect();
    let mut ask = || {
        let questions: Vec<Question> =
            asked.iter().map(|i| Question::compare(&i.to_string(), &pairs[*i])).collect();
        let mut open: HashMap<String, usize> =
            questions.iter().map(|question| question.id.clone()).zip(asked.iter().copied()).collect();
        watch(None)?;
        queue.submit(questions)?;
        while !open.is_empty() {
            let Polled { answers, notes } = queue.poll(LOOK)?;
            for answer in answers {
                if let (Some(at), Said::Judgement(judgement)) = (open.remove(&answer.id), answer.said) {
                    results[at] = Annotated::Judged(judgement);
                }
            }
            notes.iter().try_for_each(|text| watch(Some(text)))?;
            watch(None)?;
        }
        Ok(())
    };
    let ended = ask();
    (results, ended)
}

/// An annotator that answers at once, where it is asked: its time is this program's.
pub struct InPlace<'a> {
    annotator: Box<dyn Annotator + 'a>,
    waiting: Vec<Question>,
}

impl<'a> InPlace<'a> {
    /// A queue before `annotator`.
    pub fn new(annotator: impl Annotator + 'a) -> InPlace<'a> {
        InPlace { annotator: Box::new(annotator), waiting: Vec::new() }
    }
}

impl AnnotationQueue for InPlace<'_> {
    fn name(&self) -> String {
        self.annotator.name()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        self.annotator.identity()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn rates(&self) -> bool {
        self.annotator.rates()
    }

    fn position(&self) -> Position {
        self.annotator.position()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        self.waiting.extend(questions);
        Ok(())
    }

    /// Answers a chunk of what waits, so that its caller can tell it to end in between.
    fn poll(&mut self, _: Duration) -> Result<Polled> {
        let chunk: Vec<Question> = self.waiting.drain(..self.waiting.len().min(CHUNK)).collect();
        let answers = answers(&mut *self.annotator, &chunk).inspect_err(|_| self.waiting.clear())?;
        Ok(Polled { answers, notes: Vec::new() })
    }
}

/// Asks about all `questions`.
fn answers(annotator: &mut dyn Annotator, questions: &[Question]) -> Result<Vec<Answer>> {
    let started = Instant::now();
    let pairs: Vec<Pair> = questions.iter().filter_map(Question::pair).collect();
    let rated: Vec<Rated> = questions.iter().filter_map(Question::rated).collect();
    let mut judgements = if pairs.is_empty() { Vec::new() } else { one_each(annotator, &pairs)? }.into_iter();
    let mut scores = if rated.is_empty() { Vec::new() } else { annotator.rate(&rated)? }.into_iter();
    let ms = started.elapsed().as_secs_f64() * 1e3 / questions.len().max(1) as f64;
    let answer = |question: &Question| {
        let said = match question.ask {
            Ask::Compare { .. } => judgements.next().map(Said::Judgement),
            Ask::Rate { .. } => scores.next().map(Said::Score),
        };
        Some(Answer { id: question.id.clone(), said: said?, usage: Usage::default(), ms })
    };
    let answers: Vec<Answer> = questions.iter().filter_map(answer).collect();
    match answers.len() == questions.len() {
        true => Ok(answers),
        false => {
            let why =
                format!("gave {} scores for {} responses, it must give one each", answers.len(), rated.len());
            Err(Error::Annotator { name: annotator.name(), why })
        }
    }
}

/// An annotator that waits for something else, on a thread of its own. Questions that are submitted together are one
/// batch. A failure is tried again after 1 and 5 seconds if the annotator has answered before.
pub struct Threaded {
    name: String,
    identity: BTreeMap<String, String>,
    rates: bool,
    position: Position,
    questions: Sender<Vec<Question>>,
    outcomes: Receiver<Outcome>,
    /// For the next poll, where the last one had answers as well.
    failed: Option<Error>,
}

/// What the thread has to say.
enum Outcome {
    Answers(Vec<Answer>),
    Note(String),
    Failed(Error),
}

impl Threaded {
    /// Starts the thread, which ends once the queue is gone and its batch is done.
    ///
    /// # Errors
    /// As [`Annotator::identity`].
    pub fn new(mut annotator: impl Annotator + 'static) -> Result<Threaded> {
        let (name, identity, rates) = (annotator.name(), annotator.identity()?, annotator.rates());
        let position = annotator.position();
        let (questions, batches) = channel::<Vec<Question>>();
        let (send, outcomes) = channel();
        thread::spawn(move || {
            let mut answered = false;
            for batch in batches {
                // Nobody is left to hear of it where this fails.
                let say = |outcome| send.send(outcome).is_ok();
                match with_retries(&mut annotator, &batch, answered, &say) {
                    Ok(answers) => {
                        answered = true;
                        say(Outcome::Answers(answers));
                    }
                    Err(error) => drop(say(Outcome::Failed(error))),
                }
            }
        });
        Ok(Threaded { name, identity, rates, position, questions, outcomes, failed: None })
    }

    fn gone(&self) -> Error {
        Error::Annotator { name: self.name.clone(), why: "its thread has ended: this is a bug".into() }
    }
}

/// Asks again what failed, if that may be of the moment.
fn with_retries(
    annotator: &mut dyn Annotator,
    batch: &[Question],
    answered: bool,
    say: &dyn Fn(Outcome) -> bool,
) -> Result<Vec<Answer>> {
    let mut waits = RETRY_AFTER.iter().filter(|_| answered);
    loop {
        match (answers(annotator, batch), waits.next()) {
            (Err(error @ Error::Annotator { .. }), Some(wait)) => {
                if !say(Outcome::Note(format!("asked again after a failure: {error}"))) {
                    return Err(error);
                }
                thread::sleep(*wait);
            }
            (result, _) => return result,
        }
    }
}

impl AnnotationQueue for Threaded {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.identity.clone())
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn rates(&self) -> bool {
        self.rates
    }

    fn position(&self) -> Position {
        self.position
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        if questions.is_empty() {
            return Ok(());
        }
        self.questions.send(questions).map_err(|_| self.gone())
    }

    fn poll(&mut self, patience: Duration) -> Result<Polled> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut polled = Polled::default();
        let mut outcome = match self.outcomes.recv_timeout(patience) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
        };
        while let Some(next) = outcome {
            match next {
                Outcome::Answers(answers) => polled.answers.extend(answers),
                Outcome::Note(note) => polled.notes.push(note),
                Outcome::Failed(error) if polled.answers.is_empty() => return Err(error),
                Outcome::Failed(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
            outcome = self.outcomes.try_recv().ok();
        }
        Ok(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prefers the first response; fails in these batches, counted from 1.
    struct First {
        batches: usize,
        failing: &'static [usize],
    }

    impl Annotator for First {
        fn name(&self) -> String {
            "first".into()
        }

        fn annotate(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Judgement>> {
            self.batches += 1;
            match self.failing.contains(&self.batches) {
                true => Err(Error::Annotator { name: self.name(), why: "no power".into() }),
                false => Ok(pairs.iter().map(|_| Verdict::from_probability(1.0).into()).collect()),
            }
        }
    }

    fn question(place: &str) -> Question {
        Question::compare(place, &Pair { prompt: "x", response_1: "a", response_2: "b" })
    }

    fn wait(queue: &mut impl AnnotationQueue) -> Result<Polled> {
        for _ in 0..200 {
            let polled = queue.poll(Duration::from_millis(50))?;
            if !polled.answers.is_empty() {
                return Ok(polled);
            }
        }
        panic!("no answer within 10 s")
    }

    #[test]
    fn an_id_is_of_the_place_and_the_texts() {
        let id = |place, response_2| {
            Question::compare(place, &Pair { prompt: "x", response_1: "a", response_2 }).id
        };
        assert_eq!(id("1-0-1", "b"), id("1-0-1", "b"));
        assert_ne!(id("1-0-1", "b"), id("2-0-1", "b"));
        assert_ne!(id("1-0-1", "b"), id("1-0-1", "c"));
        assert_ne!(
            Question::compare("1", &Pair { prompt: "xa", response_1: "", response_2: "b" }).id,
            Question::compare("1", &Pair { prompt: "x", response_1: "a", response_2: "b" }).id
        );
    }

    #[test]
    fn a_thread_answers_every_batch_and_tries_again_once_it_has_answered() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[2] }).unwrap();
        queue.submit(vec![question("1"), question("2")]).unwrap();
        assert_eq!(wait(&mut queue).unwrap().answers.len(), 2);
        queue.submit(vec![question("3")]).unwrap();
        let started = Instant::now();
        let (mut answers, mut notes) = (0, Vec::new());
        while answers == 0 {
            let polled = queue.poll(Duration::from_millis(50)).unwrap();
            answers += polled.answers.len();
            notes.extend(polled.notes);
        }
        assert_eq!(answers, 1);
        assert!(started.elapsed() >= RETRY_AFTER[0], "{:?}", started.elapsed());
        assert!(notes.len() == 1 && notes[0].contains("no power"), "{notes:?}");
    }

    #[test]
    fn an_annotator_that_has_never_answered_is_not_asked_again() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[1] }).unwrap();
        queue.submit(vec![question("1")]).unwrap();
        let error = wait(&mut queue).unwrap_err().to_string();
        assert!(error.contains("no power"), "{error}");
    }

    #[test]
    fn what_a_thread_answered_before_it_failed_is_given_first() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[] }).unwrap();
        let (send, outcomes) = channel();
        queue.outcomes = outcomes;
        let answered = answers(&mut First { batches: 0, failing: &[] }, &[question("1")]).unwrap();
        send.send(Outcome::Answers(answered.clone())).unwrap();
        send.send(Outcome::Failed(Error::Annotator { name: "first".into(), why: "no power".into() }))
            .unwrap();
        assert_eq!(queue.poll(Duration::ZERO).unwrap().answers, answered);
        assert!(queue.poll(Duration::ZERO).unwrap_err().to_string().contains("no power"));
    }

    #[test]
    fn an_annotator_that_answers_where_it_is_asked_can_be_told_to_end_between_chunks() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[] });
        queue.submit((0..CHUNK + 1).map(|i| question(&i.to_string())).collect()).unwrap();
        let polls = [0; 3].map(|_| queue.poll(Duration::ZERO).unwrap().answers.len());
        assert_eq!(polls, [CHUNK, 1, 0]);
    }

    #[test]
    fn equal_responses_are_never_asked_about_and_results_keep_their_order() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[] });
        let pair = |response_1, response_2| Pair { prompt: "x", response_1, response_2 };
        let pairs = [pair("a", "a"), pair("a", "b"), pair("b", "a")];
        let (results, ended) = compare_all(&mut queue, &pairs, &mut |_| Ok(()));
        ended.unwrap();
        let first = Annotated::Judged(Verdict::First { p: 1.0 }.into());
        assert_eq!(results, [Annotated::Identical, first.clone(), first]);
    }

    #[test]
    fn what_was_judged_before_the_end_is_kept() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[2] });
        let pairs = [Pair { prompt: "x", response_1: "a", response_2: "b" }; CHUNK + 1];
        let (results, ended) = compare_all(&mut queue, &pairs, &mut |_| Ok(()));
        assert!(ended.is_err(), "the second batch fails");
        let (judged, other) = results.split_at(CHUNK);
        assert!(judged.iter().all(|result| result.verdict() == Verdict::First { p: 1.0 }));
        assert!(matches!(other[0].verdict(), Verdict::Invalid { .. }));
    }
}
