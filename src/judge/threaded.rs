//! A judge that waits for something else, such as an external program, as a queue.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::queue::{Answer, JudgeQueue, Polled, Question, answers};
use super::{Judge, Position};
use crate::Wait;
use crate::error::{Error, Result};
use crate::panics;
use crate::task::Task;

/// The delays before a judge that has failed is called again.
const RETRY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// A judge that waits for something else, on its own thread. Questions that are submitted together form one batch. If
/// the judge has answered before, a failed batch is tried again after 1 and 5 seconds.
pub struct Threaded {
    name: String,
    identity: BTreeMap<String, String>,
    rates: bool,
    position: Position,
    questions: Sender<Vec<Question>>,
    outcomes: Receiver<Outcome>,
    /// A failure to return from the next poll, because the last one returned answers.
    failed: Option<Error>,
}

/// A message of the thread.
enum Outcome {
    Answers(Vec<Answer>),
    Note(String),
    Failed(Error),
}

impl Threaded {
    /// Starts the thread; it ends once the queue is dropped and the current batch is done.
    ///
    /// # Errors
    /// As [`Judge::identity`].
    pub fn new(mut judge: impl Judge + 'static) -> Result<Threaded> {
        let (name, identity, rates) = (judge.name(), judge.identity()?, judge.rates());
        let position = judge.position();
        let (questions, batches) = channel::<Vec<Question>>();
        let (send, outcomes) = channel();
        thread::spawn(move || {
            let mut answered = false;
            for batch in batches {
                // Sending fails if the queue is gone.
                let say = |outcome| send.send(outcome).is_ok();
                match with_retries(&mut judge, &batch, answered, &say) {
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
        Error::Judge { name: self.name.clone(), why: "its thread has ended: this is a bug".into() }
    }
}

/// Judges the batch, and tries again after failures if the judge has answered before.
fn with_retries(
    judge: &mut dyn Judge,
    batch: &[Question],
    answered: bool,
    say: &dyn Fn(Outcome) -> bool,
) -> Result<Vec<Answer>> {
    let mut waits = RETRY_AFTER.iter().filter(|_| answered);
    loop {
        let answered = panics::caught_payload(|| answers(judge, batch).wait()).unwrap_or_else(|panic| {
            Err(Error::Judge {
                name: judge.name(),
                why: format!("has panicked: {}", panics::message(&*panic)),
            })
        });
        match (answered, waits.next()) {
            (Err(error @ Error::Judge { .. }), Some(wait)) => {
                if !say(Outcome::Note(format!("retried after a failure: {error}"))) {
                    return Err(error);
                }
                thread::sleep(*wait);
            }
            (result, _) => return result,
        }
    }
}

impl JudgeQueue for Threaded {
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

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
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
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::queue::tests::{First, question};
    use super::*;

    fn wait(queue: &mut impl JudgeQueue) -> Result<Polled> {
        for _ in 0..200 {
            let polled = queue.poll(Duration::from_millis(50)).wait()?;
            if !polled.answers.is_empty() {
                return Ok(polled);
            }
        }
        panic!("no answer within 10 s")
    }

    #[test]
    fn a_thread_answers_every_batch_and_retries_once_it_has_answered() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[2] }).unwrap();
        queue.submit(vec![question("1"), question("2")]).unwrap();
        assert_eq!(wait(&mut queue).unwrap().answers.len(), 2);
        queue.submit(vec![question("3")]).unwrap();
        let started = Instant::now();
        let (mut answers, mut notes) = (0, Vec::new());
        while answers == 0 {
            let polled = queue.poll(Duration::from_millis(50)).wait().unwrap();
            answers += polled.answers.len();
            notes.extend(polled.notes);
        }
        assert_eq!(answers, 1);
        assert!(started.elapsed() >= RETRY_AFTER[0], "{:?}", started.elapsed());
        assert!(notes.len() == 1 && notes[0].contains("no power"), "{notes:?}");
    }

    #[test]
    fn a_judge_that_has_never_answered_is_not_asked_again() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[1] }).unwrap();
        queue.submit(vec![question("1")]).unwrap();
        let error = wait(&mut queue).unwrap_err().to_string();
        assert!(error.contains("no power"), "{error}");
    }

    #[test]
    fn answers_before_a_failure_are_returned_before_the_error() {
        let mut queue = Threaded::new(First { batches: 0, failing: &[] }).unwrap();
        let (send, outcomes) = channel();
        queue.outcomes = outcomes;
        let answered = answers(&mut First { batches: 0, failing: &[] }, &[question("1")]).wait().unwrap();
        send.send(Outcome::Answers(answered.clone())).unwrap();
        send.send(Outcome::Failed(Error::Judge { name: "first".into(), why: "no power".into() })).unwrap();
        assert_eq!(queue.poll(Duration::ZERO).wait().unwrap().answers, answered);
        assert!(queue.poll(Duration::ZERO).wait().unwrap_err().to_string().contains("no power"));
    }
}
