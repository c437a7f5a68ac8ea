//! Judges as queues: questions with ids are submitted, and answers with the same ids come back, in any order and at any
//! time.
//!
//! ```text
//! trainer, eval  --submit-->  Journalled  --submit-->  InPlace      a model on this GPU, a rule      (this file)
//!                <--poll----  journal.rs  <--poll----  Threaded     an external program              threaded.rs
//!                                                      OpenAi, ...  servers, people: their own queues
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::path::Path;
use web_time::{Duration, Instant};

use futures_timer::Delay;
use serde::{Deserialize, Serialize};

use super::journal::Journalled;
use super::{Judge, Judgement, Pair, PairOutcome, Position, Rated, Score, Verdict, one_each};
use crate::digest::Digester;
use crate::error::{Error, Result};
use crate::task::{Task, blocking};

/// A question for a judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The id by which its answer is matched, see [`Question::new`].
    pub id: String,
    /// The prompt.
    pub prompt: String,
    /// The question about the responses to the prompt.
    pub ask: Ask,
    /// Set if another question asks about the same pair in the other order and only some judges need this one.
    pub turned: Option<Turned>,
}

/// Refers from a swapped question to its original, with the judges that need the swapped one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The id of the original question.
    pub of: String,
    /// Judges of this [`Position`] or above need the swapped question. For the others the swapped answer to the
    /// original holds.
    pub least: Position,
}

/// The kinds of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which response is better; answered by [`Said::Judgement`].
    Compare {
        /// The first response.
        response_1: String,
        /// The second response.
        response_2: String,
    },
    /// How good a response is; answered by [`Said::Score`].
    Rate {
        /// The response.
        response: String,
    },
}

impl Question {
    /// A question whose id consists of `place`, which distinguishes questions about the same texts, and a digest of the
    /// texts. A resumed run thus uses the same ids, and an answer is never used for other texts.
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

    /// Asks which response of a pair is better.
    pub fn compare(place: &str, pair: &Pair<'_>) -> Question {
        let [response_1, response_2] = [pair.response_1, pair.response_2].map(str::to_owned);
        Question::new(place, pair.prompt, Ask::Compare { response_1, response_2 })
    }

    /// The question about the same pair in the other order, for judges of at least this position.
    pub fn turned(&self, place: &str, least: Position) -> Question {
        let pair = self.pair().expect("only a pair can be swapped");
        let turned = Some(Turned { of: self.id.clone(), least });
        Question { turned, ..Question::compare(place, &pair.swapped()) }
    }

    /// The question that a judge of this position gets: this one or, if this one is swapped, its original.
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

/// The content of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Which of two responses is better.
    Judgement(Judgement),
    /// How good a response is.
    Score(Score),
}

impl Said {
    /// Why the content contradicts itself: a score must be finite, probabilities must be in 0..=1, and p must agree
    /// with the verdict.
    fn contradiction(&self) -> Option<String> {
        match self {
            Said::Score(Score::Value(score)) => (!score.is_finite()).then(|| format!("{score} is no score")),
            Said::Score(Score::Invalid { .. }) => None,
            Said::Judgement(Judgement { verdict, p_12, p_21, votes }) => {
                let votes = votes.iter().filter_map(Verdict::p_first);
                let all = [*p_12, *p_21, verdict.p_first()].into_iter().flatten().chain(votes);
                let wrong = all.into_iter().find(|p| !(0.0..=1.0).contains(p));
                let agrees = verdict.p_first().is_none_or(|p| Verdict::from_probability(p) == *verdict);
                match (wrong, agrees) {
                    (Some(p), _) => Some(format!("{p} is not a probability")),
                    (None, true) => None,
                    (None, false) => Some(format!(
                        "the verdict is {}, and the probability that the first response is better {}",
                        verdict.label(),
                        verdict.p_first().unwrap_or_default()
                    )),
                }
            }
        }
    }

    /// Replaces contradictory content by an invalid verdict or score.
    fn check(&mut self) {
        let Some(why) = self.contradiction() else { return };
        *self = match self {
            Said::Judgement(_) => Said::Judgement(Verdict::Invalid { why }.into()),
            Said::Score(_) => Said::Score(Score::Invalid { why }),
        };
    }

    /// An invalid verdict or score, for a question of this kind.
    pub fn invalid(ask: &Ask, why: String) -> Said {
        match ask {
            Ask::Compare { .. } => Said::Judgement(Verdict::Invalid { why }.into()),
            Ask::Rate { .. } => Said::Score(Score::Invalid { why }),
        }
    }
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The id of the question.
    pub id: String,
    /// The content.
    pub said: Said,
    /// The resources used.
    pub usage: Usage,
    /// The wall time of the judge in milliseconds; of a batch, the share of this question.
    pub ms: f64,
}

/// Resources that a judge has used, for statistics and budgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed and were sent again.
    pub failed: u64,
    /// Answers from a cache instead of a request.
    pub cached: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Completion tokens.
    pub completion_tokens: u64,
    /// Cost, in the currency of the given prices.
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

/// What has arrived since the last poll.
#[derive(Debug, Default)]
pub struct Polled {
    /// Answers, each to a question that was submitted.
    pub answers: Vec<Answer>,
    /// Messages for the user, one sentence each, for instance that a server failed and the request was sent again.
    pub notes: Vec<String>,
}

/// A queue that takes questions and returns answers once it has them.
pub trait JudgeQueue: Send {
    /// The name in messages and in `run.json`.
    fn name(&self) -> String;

    /// Everything that determines the verdicts, by option name, see [`Judge::identity`].
    ///
    /// # Errors
    /// [`Error::Io`] for a model that cannot be read.
    fn identity(&self) -> Result<BTreeMap<String, String>>;

    /// Whether the judge spends most of its time waiting for something outside this program, such as a server or a
    /// person, so that it is useful to ask several steps ahead.
    fn is_remote(&self) -> bool;

    /// Whether it accepts [`Ask::Rate`]; all judges accept [`Ask::Compare`].
    fn rates(&self) -> bool;

    /// See [`Judge::position`].
    fn position(&self) -> Position {
        Position::Settled
    }

    /// The members of an ensemble; empty for other judges.
    fn members(&self) -> Vec<&Journalled<'_>> {
        Vec::new()
    }

    /// Accepts questions, without waiting for their answers. No id may be open twice.
    ///
    /// # Errors
    /// As [`JudgeQueue::poll`].
    fn submit(&mut self, questions: Vec<Question>) -> Result<()>;

    /// Returns what has arrived since the last call; waits up to `patience`, blocking this thread, for something to
    /// arrive. A question that cannot be judged gets an invalid verdict or score; every question is answered once.
    ///
    /// # Errors
    /// [`Error::Judge`] if nothing more will arrive: the open questions are dropped and may be submitted again.
    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>>;

    /// Counts what earlier processes of the same run have used against the budget, if there is one.
    fn used_before(&mut self, _usage: Usage) {}

    /// Waits up to `patience` for pending answers that must not be asked for twice, if the queue stores them itself
    /// ([`keep_in`](Self::keep_in)) and no caller waits for them any more.
    ///
    /// # Errors
    /// As [`JudgeQueue::poll`].
    fn settle<'t>(&'t mut self, _patience: Duration) -> Task<'t, Result<()>> {
        Box::pin(async move { Ok(()) })
    }

    /// Stores its persistent state in the folder `dir` of a run.
    ///
    /// # Errors
    /// Unreadable or unwritable files there.
    fn keep_in(&mut self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// A queue that is chosen at run time.
impl JudgeQueue for Box<dyn JudgeQueue + '_> {
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

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        (**self).poll(patience)
    }

    fn used_before(&mut self, usage: Usage) {
        (**self).used_before(usage)
    }

    fn settle<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<()>> {
        (**self).settle(patience)
    }

    fn keep_in(&mut self, dir: &Path) -> Result<()> {
        (**self).keep_in(dir)
    }
}

/// The number of questions that a judge in this process answers per poll: between polls the run can be interrupted.
pub const CHUNK: usize = 64;
/// The interval between polls where the thread must not block.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The interval between checks whether to continue.
pub const LOOK: Duration = Duration::from_millis(100);

/// Returns what arrives within `patience`, without blocking a thread that must not block.
///
/// # Errors
/// As [`JudgeQueue::poll`].
pub(super) async fn look(queue: &mut dyn JudgeQueue, patience: Duration) -> Result<Polled> {
    let waits = blocking::is_allowed();
    let mut polled = queue.poll(if waits { patience } else { Duration::ZERO }).await?;
    polled.answers.iter_mut().for_each(|answer| answer.said.check());
    if waits {
        return Ok(polled);
    }
    if polled.answers.is_empty() && polled.notes.is_empty() {
        Delay::new(patience.min(POLL_INTERVAL)).await;
    }
    Ok(polled)
}

/// Judges those of `pairs` whose responses differ. Returns one outcome per pair, in order, and the error that ended it
/// early, in which case the remaining pairs are invalid. `watch` is called regularly, with the number of pairs that are
/// done and a message for the user or `None`, and can stop the judging by returning an error.
///
/// # Errors
/// As [`JudgeQueue::poll`]; those of `watch`.
pub async fn compare_all(
    queue: &mut dyn JudgeQueue,
    pairs: &[Pair<'_>],
    watch: &mut (dyn FnMut(usize, Option<&str>) -> Result<()> + Send),
) -> (Vec<PairOutcome>, Result<()>) {
    let not_judged = || PairOutcome::Judged(Verdict::Invalid { why: "not judged".into() }.into());
    let mut results: Vec<PairOutcome> = pairs
        .iter()
        .map(|pair| if pair.response_1 == pair.response_2 { PairOutcome::Identical } else { not_judged() })
        .collect();
    let different: Vec<usize> = (0..pairs.len()).filter(|i| results[*i] != PairOutcome::Identical).collect();
    let mut ask = async || {
        let questions: Vec<Question> =
            different.iter().map(|i| Question::compare(&i.to_string(), &pairs[*i])).collect();
        let mut open: HashMap<String, usize> =
            questions.iter().map(|question| question.id.clone()).zip(different.iter().copied()).collect();
        watch(pairs.len() - open.len(), None)?;
        queue.submit(questions)?;
        while !open.is_empty() {
            let Polled { answers, notes } = look(queue, LOOK).await?;
            for answer in answers {
                if let (Some(at), Said::Judgement(judgement)) = (open.remove(&answer.id), answer.said) {
                    results[at] = PairOutcome::Judged(judgement);
                }
            }
            let done = pairs.len() - open.len();
            notes.iter().try_for_each(|text| watch(done, Some(text)))?;
            watch(done, None)?;
        }
        Ok(())
    };
    let ended = ask().await;
    (results, ended)
}

/// What a training run accepts as its judge: a [`Judge`], which answers in this process, or a queue such as a
/// [`Human`](super::human::Human).
pub trait IntoJudgeQueue<'a> {
    /// The judge as a queue.
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a>;
}

impl<'a, A: Judge + 'a> IntoJudgeQueue<'a> for A {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(InPlace::new(self))
    }
}

impl<'a> IntoJudgeQueue<'a> for Box<dyn JudgeQueue + 'a> {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        self
    }
}

impl<'a> IntoJudgeQueue<'a> for InPlace<'a> {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(self)
    }
}

impl<'a> IntoJudgeQueue<'a> for super::ensemble::Ensemble<'a> {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(self)
    }
}

impl<'a> IntoJudgeQueue<'a> for super::human::Human {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(self)
    }
}

#[cfg(feature = "http")]
impl<'a> IntoJudgeQueue<'a> for super::openai::OpenAi {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(self)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<'a> IntoJudgeQueue<'a> for super::threaded::Threaded {
    fn into_queue(self) -> Box<dyn JudgeQueue + 'a> {
        Box::new(self)
    }
}

/// A judge that answers in this process, during the poll.
pub struct InPlace<'a> {
    judge: Box<dyn Judge + 'a>,
    waiting: Vec<Question>,
}

impl<'a> InPlace<'a> {
    /// A queue for `judge`.
    pub fn new(judge: impl Judge + 'a) -> InPlace<'a> {
        InPlace { judge: Box::new(judge), waiting: Vec::new() }
    }
}

impl JudgeQueue for InPlace<'_> {
    fn name(&self) -> String {
        self.judge.name()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        self.judge.identity()
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn rates(&self) -> bool {
        self.judge.rates()
    }

    fn position(&self) -> Position {
        self.judge.position()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        self.waiting.extend(questions);
        Ok(())
    }

    /// Answers one chunk of the waiting questions, so that the caller can interrupt it between chunks.
    fn poll<'t>(&'t mut self, _: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
            // The questions stay in `waiting` until they are answered, in case the future is dropped.
            let chunk = self.waiting.len().min(CHUNK);
            match answers(&mut *self.judge, &self.waiting[..chunk]).await {
                Ok(answers) => {
                    self.waiting.drain(..chunk);
                    Ok(Polled { answers, notes: Vec::new() })
                }
                Err(error) => {
                    self.waiting.clear();
                    Err(error)
                }
            }
        })
    }
}

/// Asks about all `questions`.
pub(super) async fn answers(judge: &mut dyn Judge, questions: &[Question]) -> Result<Vec<Answer>> {
    let started = Instant::now();
    let pairs: Vec<Pair> = questions.iter().filter_map(Question::pair).collect();
    let rated: Vec<Rated> = questions.iter().filter_map(Question::rated).collect();
    let mut judgements =
        if pairs.is_empty() { Vec::new() } else { one_each(judge, &pairs).await? }.into_iter();
    let mut scores = if rated.is_empty() { Vec::new() } else { judge.rate(&rated).await? }.into_iter();
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
            let why = format!(
                "returned {} scores for {} responses: it must return one per response",
                answers.len(),
                rated.len()
            );
            Err(Error::Judge { name: judge.name(), why })
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Wait;

    /// Prefers the first response; fails in the batches `failing`, counted from 1.
    pub(in crate::unstable::judge) struct First {
        pub batches: usize,
        pub failing: &'static [usize],
    }

    impl Judge for First {
        fn name(&self) -> String {
            "first".into()
        }

        fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
            Box::pin(async move {
                self.batches += 1;
                match self.failing.contains(&self.batches) {
                    true => Err(Error::Judge { name: self.name(), why: "no power".into() }),
                    false => Ok(pairs.iter().map(|_| Verdict::from_probability(1.0).into()).collect()),
                }
            })
        }
    }

    pub(in crate::unstable::judge) fn question(place: &str) -> Question {
        Question::compare(place, &Pair { prompt: "x", response_1: "a", response_2: "b" })
    }

    #[test]
    fn an_id_depends_on_the_place_and_the_texts() {
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
    fn a_judge_in_this_process_answers_in_chunks() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[] });
        queue.submit((0..CHUNK + 1).map(|i| question(&i.to_string())).collect()).unwrap();
        let polls = [0; 3].map(|_| queue.poll(Duration::ZERO).wait().unwrap().answers.len());
        assert_eq!(polls, [CHUNK, 1, 0]);
    }

    #[test]
    fn identical_responses_are_never_judged_and_results_keep_their_order() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[] });
        let pair = |response_1, response_2| Pair { prompt: "x", response_1, response_2 };
        let pairs = [pair("a", "a"), pair("a", "b"), pair("b", "a")];
        let (results, ended) = compare_all(&mut queue, &pairs, &mut |_, _| Ok(())).wait();
        ended.unwrap();
        let first = PairOutcome::Judged(Verdict::First { p: 1.0 }.into());
        assert_eq!(results, [PairOutcome::Identical, first.clone(), first]);
    }

    #[test]
    fn verdicts_before_a_failure_are_kept() {
        let mut queue = InPlace::new(First { batches: 0, failing: &[2] });
        let pairs = [Pair { prompt: "x", response_1: "a", response_2: "b" }; CHUNK + 1];
        let (results, ended) = compare_all(&mut queue, &pairs, &mut |_, _| Ok(())).wait();
        assert!(ended.is_err(), "the second batch fails");
        let (judged, other) = results.split_at(CHUNK);
        assert!(judged.iter().all(|result| result.verdict() == Verdict::First { p: 1.0 }));
        assert!(matches!(other[0].verdict(), Verdict::Invalid { .. }));
    }
}
