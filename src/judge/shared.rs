//! One judge per rank: the questions are divided among the ranks, and all ranks get all answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use web_time::Duration;

use super::Position;
use super::journal::{AnswerRow, Journalled};
use super::queue::{JudgeQueue, Polled, Question, Usage, look};
use crate::collective::Ranks;
use crate::error::{Error, Result};
use crate::task::Task;

/// The judge of this rank, connected with those of the other ranks. All ranks submit the same questions and poll
/// equally often.
pub(crate) struct Shared<'a> {
    queue: Box<dyn JudgeQueue + 'a>,
    ranks: Ranks,
    /// The number of questions that this rank's judge has not answered yet.
    open: usize,
}

impl<'a> Shared<'a> {
    /// `queue` as one of the judges of `ranks`.
    pub fn new(queue: Box<dyn JudgeQueue + 'a>, ranks: Ranks) -> Shared<'a> {
        Shared { queue, ranks, open: 0 }
    }

    /// Polls this rank's judge; returns at once if it has no open questions.
    async fn look(&mut self, patience: Duration) -> Result<Polled> {
        match self.open {
            0 => Ok(Polled::default()),
            _ => look(&mut *self.queue, patience).await,
        }
    }
}

impl JudgeQueue for Shared<'_> {
    fn name(&self) -> String {
        self.queue.name()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        self.queue.identity()
    }

    fn is_remote(&self) -> bool {
        self.queue.is_remote()
    }

    fn rates(&self) -> bool {
        self.queue.rates()
    }

    fn position(&self) -> Position {
        self.queue.position()
    }

    fn members(&self) -> Vec<&Journalled<'_>> {
        self.queue.members()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        let part = self.ranks.part(questions.len());
        // A swapped pair goes to the rank that got the original, because that rank's judge may know the answer.
        let places: HashMap<String, usize> = questions.iter().map(|q| q.id.clone()).zip(0..).collect();
        let place = |question: &Question, place: usize| match &question.turned {
            Some(turned) => places.get(&turned.of).copied().unwrap_or(place),
            None => place,
        };
        let mine =
            questions.into_iter().enumerate().filter(|(i, question)| part.contains(&place(question, *i)));
        let mine: Vec<Question> = mine.map(|(_, question)| question).collect();
        self.open += mine.len();
        if mine.is_empty() { Ok(()) } else { self.queue.submit(mine) }
    }

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
            let mine = self.look(patience).await.inspect_err(|_| self.open = 0);
            self.open -= mine.as_ref().map_or(0, |polled| polled.answers.len().min(self.open));
            let mine = mine.map(|Polled { answers, notes }| {
                (answers.iter().map(|answer| AnswerRow::new(answer, String::new())).collect(), notes)
            });
            let gathered: Vec<(Vec<AnswerRow>, Vec<String>)> =
                self.ranks.gather(mine).await.inspect_err(|_| self.open = 0)?;
            let (mut all, mut elsewhere) = (Polled::default(), Usage::default());
            for (rank, (answers, notes)) in gathered.into_iter().enumerate() {
                for answer in answers {
                    let answer = answer.checked().map_err(|why| Error::Judge { name: self.name(), why })?;
                    if rank != self.ranks.rank() {
                        elsewhere += answer.usage;
                    }
                    all.answers.push(answer);
                }
                all.notes.extend(notes.into_iter().map(|note| format!("rank {rank}: {note}")));
            }
            // All ranks share one budget.
            self.queue.used_before(elsewhere);
            Ok(all)
        })
    }

    fn used_before(&mut self, usage: Usage) {
        self.queue.used_before(usage);
    }

    fn settle<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<()>> {
        self.queue.settle(patience)
    }

    fn keep_in(&mut self, dir: &Path) -> Result<()> {
        self.queue.keep_in(dir)
    }
}
