//! Several judges combined into one: every member judges every question, and their answers are merged once all have
//! arrived.
//!
//! ```text
//! Journalled  --submit-->  Ensemble  --submit-->  Journalled  --submit-->  member 1
//!             <--poll----            <--poll----               <--poll----
//!                                    --submit-->  Journalled  --submit-->  member 2, ...
//! ```
//!
//! The outer journal stores the merged answers. The journal of each member stores that member's answers, so that a run
//! that ended before all members had answered does not repeat the questions that were answered.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use web_time::Duration;

use serde::Serialize;

use super::journal::{JOURNAL, Journalled};
use super::queue::{Answer, Ask, JudgeQueue, Polled, Question, Said, Usage};
use super::{Judgement, Position, Score, Verdict, side_of_tie};
use crate::digest::{Digest, Digester};
use crate::error::{Error, Result};
use crate::files;
use crate::task::Task;

/// The folder of the members' journals: one subfolder per member, named by its number.
pub const JUDGES: &str = "judges";

/// The identity keys that determine the judge; the other keys are its settings.
const IDENTITY_KEYS: [&str; 5] = ["judge", "judge-model", "judge-adapter", "judge-rule", "judge-command"];
/// The key of an ensemble's identity that lists its members.
const MEMBERS: &str = "judge-member";

/// A digest of the judge that this identity describes, without its settings; for an ensemble, one digest per member.
pub fn judges_of(identity: &BTreeMap<String, String>) -> BTreeSet<String> {
    match identity.get(MEMBERS) {
        Some(members) => {
            let who = |member: &str| member.rsplit(' ').nth(1).map(str::to_owned);
            members.split(", ").filter_map(who).collect()
        }
        None => BTreeSet::from([who(identity).to_string()]),
    }
}

fn who(identity: &BTreeMap<String, String>) -> Digest {
    let mut digester = Digester::default();
    IDENTITY_KEYS
        .iter()
        .for_each(|key| digester.bytes(identity.get(*key).map_or(&[], |value| value.as_bytes())));
    digester.finish()
}

/// Whether two identities describe the same judge; the order of ensemble members does not matter.
pub fn is_same(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    let sorted = |identity: &BTreeMap<String, String>| {
        let mut identity = identity.clone();
        if let Some(members) = identity.get_mut(MEMBERS) {
            let mut each: Vec<&str> = members.split(", ").collect();
            each.sort_unstable();
            *members = each.join(", ");
        }
        identity
    };
    sorted(one) == sorted(other)
}

/// How the members' verdicts are combined. Invalid verdicts are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vote {
    /// The mean of the probabilities; for ratings, the mean score.
    #[default]
    Mean,
    /// The share of the members that prefer a response; a tie counts as half a vote.
    Majority,
}

impl Vote {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Vote::Mean => "mean",
            Vote::Majority => "majority",
        }
    }

    /// Combines the members' probabilities, of which there is at least one.
    fn merge(self, probabilities: &[f32]) -> f32 {
        let counts = |p: f32| match (self, p) {
            (Vote::Mean, p) => f64::from(p),
            (Vote::Majority, p) => match side_of_tie(p) {
                Ordering::Greater => 1.0,
                Ordering::Equal => 0.5,
                Ordering::Less => 0.0,
            },
        };
        mean(probabilities.iter().map(|p| counts(*p)))
    }

    /// Merges the members' judgements into one. `position` is the [`Position`] of the ensemble. The probability for one
    /// order is merged from the members that were asked in that order and, for the others, from their verdicts. It is
    /// `None` if a member may prefer a position without recording the order.
    fn judgement(self, said: &[&Judgement], position: Position) -> Judgement {
        let votes = said.iter().map(|judgement| judgement.verdict.clone()).collect();
        let usable: Vec<(&Judgement, f32)> =
            said.iter().filter_map(|judgement| Some((*judgement, judgement.verdict.p_first()?))).collect();
        if usable.is_empty() {
            let why = said.iter().find_map(|judgement| match &judgement.verdict {
                Verdict::Invalid { why } => Some(why.as_str()),
                _ => None,
            });
            let why = format!("no member has a usable verdict: {}", why.unwrap_or_default());
            return Judgement { votes, ..Verdict::Invalid { why }.into() };
        }
        let merged = |of: fn(&Judgement) -> Option<f32>| {
            let all: Vec<f32> = usable.iter().map(|(judgement, p)| of(judgement).unwrap_or(*p)).collect();
            self.merge(&all)
        };
        let order = |of: fn(&Judgement) -> Option<f32>| {
            let has_order =
                position < Position::Untold && usable.iter().any(|(judgement, _)| of(judgement).is_some());
            has_order.then(|| merged(of))
        };
        let (p_12, p_21) = (order(|judgement| judgement.p_12), order(|judgement| judgement.p_21));
        Judgement { verdict: Verdict::from_probability(merged(|_| None)), p_12, p_21, votes }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f32 {
    let count = values.len() as f64;
    (values.sum::<f64>() / count) as f32
}

/// The mean of scores; invalid if one score is invalid, because the members' scores have different means.
fn score(said: &[&Score]) -> Score {
    let mut values = Vec::new();
    for score in said {
        match score {
            Score::Value(value) => values.push(f64::from(*value)),
            Score::Invalid { why } => return Score::Invalid { why: why.clone() },
        }
    }
    Score::Value(mean(values.into_iter()))
}

/// Identifies the scale of a judge's scores; scores are comparable only where it is equal. A rule and a reward model
/// each have their own unit, while all servers rate from 1 to 10. `None` if it cannot be determined.
fn scale(member: &Journalled<'_>) -> Option<BTreeMap<String, String>> {
    let mut identity = member.identity().ok()?;
    if identity.get("judge").is_some_and(|judge| judge == "openai") {
        identity.retain(|key, _| key == "judge");
    }
    Some(identity)
}

/// A question and the members' answers to it so far.
struct Open {
    question: Question,
    said: Vec<Option<Answer>>,
    /// Whether the answer is still wanted: false after an error, until the question is submitted again.
    wanted: bool,
}

impl Open {
    fn is_answered(&self) -> bool {
        self.wanted && self.said.iter().all(Option::is_some)
    }

    fn merged(self, vote: Vote, position: Position) -> Answer {
        let answers: Vec<Answer> = self.said.into_iter().flatten().collect();
        let judgements: Vec<&Judgement> = answers
            .iter()
            .filter_map(|answer| match &answer.said {
                Said::Judgement(judgement) => Some(judgement),
                Said::Score(_) => None,
            })
            .collect();
        let scores: Vec<&Score> = answers
            .iter()
            .filter_map(|answer| match &answer.said {
                Said::Score(score) => Some(score),
                Said::Judgement(_) => None,
            })
            .collect();
        let said = match self.question.ask {
            Ask::Compare { .. } => Said::Judgement(vote.judgement(&judgements, position)),
            Ask::Rate { .. } => Said::Score(score(&scores)),
        };
        let mut usage = Usage::default();
        answers.iter().for_each(|answer| usage += answer.usage);
        Answer { id: self.question.id, said, usage, ms: answers.iter().map(|answer| answer.ms).sum() }
    }
}

/// The same answer for the swapped pair. Its usage is zero: nothing was asked for it.
fn turned(answer: &Answer) -> Answer {
    let said = match &answer.said {
        Said::Judgement(judgement) => Said::Judgement(judgement.turned()),
        Said::Score(score) => Said::Score(score.clone()),
    };
    Answer { id: answer.id.clone(), said, usage: Usage::default(), ms: 0.0 }
}

/// Several judges that all judge every question.
pub struct Ensemble<'a> {
    vote: Vote,
    members: Vec<Journalled<'a>>,
    open: HashMap<String, Open>,
    /// For open questions about a swapped pair: the id of the original question -> the id of this one.
    turned: HashMap<String, String>,
}

impl<'a> Ensemble<'a> {
    /// An ensemble of these members.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two.
    pub fn new(vote: Vote, members: Vec<Box<dyn JudgeQueue + 'a>>) -> Result<Ensemble<'a>> {
        if members.len() < 2 {
            return Err(Error::config(
                "judge-member",
                format!("an ensemble needs at least two members, found {}: give more", members.len()),
            ));
        }
        let members = members.into_iter().map(Journalled::new).collect();
        Ok(Ensemble { vote, members, open: HashMap::new(), turned: HashMap::new() })
    }

    /// Submits to each member the questions that it has not answered. A member that needs no question about the swapped
    /// pair gets the original question instead, which its journal has answered or will answer.
    fn ask(&mut self, questions: &[Question]) -> Result<()> {
        for (number, member) in self.members.iter_mut().enumerate() {
            let unanswered = |question: &&Question| self.open[&question.id].said[number].is_none();
            let position = member.position();
            let submitted = questions.iter().filter(unanswered).map(|question| question.asked_of(position));
            member.submit(submitted.collect())?;
        }
        Ok(())
    }

    /// Collects the new answers of every member, even if an earlier member fails. Returns their notes.
    async fn hear(&mut self, patience: Duration) -> Result<Vec<String>> {
        let each = patience / self.members.len() as u32;
        let (mut all_notes, mut failed) = (Vec::new(), Ok(()));
        for (number, member) in self.members.iter_mut().enumerate() {
            match member.poll(each).await {
                Err(error) => failed = failed.and(Err(error)),
                Ok(Polled { answers, notes }) => {
                    all_notes.extend(notes);
                    let position = member.position();
                    for answer in answers {
                        if let Some(id) = self.turned.get(&answer.id)
                            && let Some(open) = self.open.get_mut(id)
                            && open.question.asked_of(position).id == answer.id
                        {
                            open.said[number] = Some(turned(&answer));
                        }
                        if let Some(open) = self.open.get_mut(&answer.id) {
                            open.said[number] = Some(answer);
                        }
                    }
                }
            }
        }
        failed.map(|()| all_notes)
    }

    /// After an error no answer is wanted any more; the answers received so far are kept.
    fn forget(&mut self) {
        self.open.values_mut().for_each(|open| open.wanted = false);
    }
}

impl JudgeQueue for Ensemble<'_> {
    fn name(&self) -> String {
        let names: Vec<String> = self.members.iter().map(Journalled::name).collect();
        format!("ensemble ({}: {})", self.vote.name(), names.join(", "))
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let member = |member: &Journalled<'_>| {
            let (identity, digest) = (member.identity()?, member.digest()?);
            let kind = identity.get("judge").map_or("", String::as_str);
            Ok(format!("{kind} {} {digest}", who(&identity)))
        };
        let members = self.members.iter().map(member).collect::<Result<Vec<String>>>()?;
        Ok(BTreeMap::from([
            ("judge".into(), "ensemble".into()),
            ("judge-vote".into(), self.vote.name().into()),
            (MEMBERS.into(), members.join(", ")),
        ]))
    }

    fn is_remote(&self) -> bool {
        self.members.iter().any(Journalled::is_remote)
    }

    fn rates(&self) -> bool {
        let first = scale(&self.members[0]);
        self.vote == Vote::Mean
            && first.is_some()
            && self.members.iter().all(|member| member.rates() && scale(member) == first)
    }

    fn position(&self) -> Position {
        self.members.iter().map(Journalled::position).max().unwrap_or(Position::Settled)
    }

    fn members(&self) -> Vec<&Journalled<'_>> {
        self.members.iter().collect()
    }

    fn submit(&mut self, questions: Vec<Question>) -> Result<()> {
        for question in &questions {
            let said = vec![None; self.members.len()];
            let new = Open { question: question.clone(), said, wanted: true };
            self.open.entry(question.id.clone()).or_insert(new).wanted = true;
            if let Some(turned) = &question.turned {
                self.turned.insert(turned.of.clone(), question.id.clone());
            }
        }
        self.ask(&questions).inspect_err(|_| self.forget())
    }

    fn poll<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<Polled>> {
        Box::pin(async move {
            let notes = self.hear(patience).await.inspect_err(|_| self.forget())?;
            let position = self.position();
            let answered = self.open.extract_if(|_, open| open.is_answered());
            let mut answers: Vec<Answer> =
                answered.map(|(_, open)| open.merged(self.vote, position)).collect();
            self.turned.retain(|_, id| self.open.contains_key(id));
            answers.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(Polled { answers, notes })
        })
    }

    fn settle<'t>(&'t mut self, patience: Duration) -> Task<'t, Result<()>> {
        Box::pin(async move {
            let each = patience / self.members.len() as u32;
            let mut settled = Ok(());
            for member in &mut self.members {
                settled = settled.and(member.drain(each).await);
            }
            settled
        })
    }

    fn keep_in(&mut self, dir: &Path) -> Result<()> {
        for (number, member) in (1..).zip(&mut self.members) {
            let own = dir.join(JUDGES).join(number.to_string());
            files::create_dir_all(&own)?;
            member.open(&own.join(JOURNAL))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::Pair;
    use super::super::queue::InPlace;
    use super::super::rule::Rule;
    use super::*;
    use crate::Wait;

    /// A member for tests, with the submitted questions and the result of the next poll.
    #[derive(Clone, Default)]
    struct Member {
        name: &'static str,
        rates: bool,
        position: Position,
        submitted: Arc<Mutex<Vec<String>>>,
        back: Arc<Mutex<Vec<Answer>>>,
        fails: Arc<Mutex<bool>>,
    }

    impl Member {
        fn named(name: &'static str) -> Member {
            Member { name, ..Member::default() }
        }

        fn answers(&self, question: &Question, judgement: impl Into<Judgement>) {
            let (id, said) = (question.id.clone(), Said::Judgement(judgement.into()));
            let usage = Usage { requests: 1, cost: 0.5, ..Usage::default() };
            self.back.lock().unwrap().push(Answer { id, said, usage, ms: 2.0 });
        }

        fn submitted(&self) -> usize {
            self.submitted.lock().unwrap().len()
        }
    }

    impl JudgeQueue for Member {
        fn name(&self) -> String {
            self.name.into()
        }
        fn identity(&self) -> Result<BTreeMap<String, String>> {
            Ok([("judge".to_owned(), self.name.to_owned())].into())
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
            self.submitted.lock().unwrap().extend(questions.into_iter().map(|question| question.id));
            Ok(())
        }
        fn poll<'t>(&'t mut self, _: Duration) -> Task<'t, Result<Polled>> {
            Box::pin(async move {
                if std::mem::take(&mut *self.fails.lock().unwrap()) {
                    return Err(Error::Judge { name: self.name.into(), why: "no power".into() });
                }
                Ok(Polled { answers: std::mem::take(&mut *self.back.lock().unwrap()), notes: Vec::new() })
            })
        }
    }

    fn ensemble(vote: Vote, members: &[Member]) -> Ensemble<'static> {
        let queue = |member: &Member| -> Box<dyn JudgeQueue> { Box::new(member.clone()) };
        Ensemble::new(vote, members.iter().map(queue).collect()).unwrap()
    }

    fn three() -> [Member; 3] {
        ["a", "b", "c"].map(Member::named)
    }

    fn question(place: &str) -> Question {
        Question::compare(place, &Pair { prompt: "x", response_1: "a", response_2: "b" })
    }

    fn both(p_12: f32, p_21: f32) -> Judgement {
        Judgement::from_orders(Some(p_12), Some(p_21))
    }

    fn invalid(why: &str) -> Judgement {
        Verdict::Invalid { why: why.into() }.into()
    }

    fn merged(vote: Vote, said: [Judgement; 3]) -> Judgement {
        vote.judgement(&said.iter().collect::<Vec<_>>(), Position::Settled)
    }

    fn votes(probabilities: impl IntoIterator<Item = f32>) -> Vec<Verdict> {
        probabilities.into_iter().map(Verdict::from_probability).collect()
    }

    #[test]
    fn probabilities_or_votes_are_merged_for_the_pair_and_for_each_order() {
        let said = || [both(1.0, 0.75), both(0.25, 0.5), both(0.25, 0.25)];
        let mean = merged(Vote::Mean, said());
        assert_eq!((mean.p_12, mean.p_21), (Some(0.5), Some(0.5)));
        assert_eq!(mean.verdict, Verdict::Tie);
        assert_eq!(mean.votes, votes([0.875, 0.375, 0.25]));
        let majority = merged(Vote::Majority, said());
        assert_eq!(majority.verdict, Verdict::from_probability(1.0 / 3.0));
        // In the second order one member is for, one undecided, one against.
        assert_eq!((majority.p_12, majority.p_21), (Some(1.0 / 3.0), Some(0.5)));
    }

    #[test]
    fn a_member_that_was_not_asked_in_an_order_contributes_its_verdict_to_it() {
        let rule = || Judgement::from(Verdict::from_probability(0.25));
        let mixed = merged(Vote::Mean, [both(1.0, 0.5), rule(), both(0.5, 0.5)]);
        assert_eq!((mixed.p_12, mixed.p_21), (Some(1.75 / 3.0), Some(1.25 / 3.0)));
        assert_eq!(mixed.verdict, Verdict::Tie);
        // An order in which no member was asked has no probability.
        let one = merged(Vote::Mean, [Judgement::from_orders(None, Some(1.0)), rule(), rule()]);
        assert_eq!((one.p_12, one.p_21, one.verdict.p_first()), (None, Some(0.5), Some(0.5)));
        assert_eq!((merged(Vote::Mean, [rule(), rule(), rule()]).p_12), None);
        // A verdict that may depend on an unrecorded order must not count for both orders.
        let untold = Vote::Mean.judgement(&[&both(1.0, 0.5), &rule()], Position::Untold);
        assert_eq!((untold.p_12, untold.p_21, untold.verdict), (None, None, Verdict::Tie));
    }

    #[test]
    fn invalid_verdicts_are_left_out_and_if_all_are_invalid_so_is_the_result() {
        let one = merged(Vote::Mean, [both(1.0, 0.5), invalid("mute"), both(0.5, 0.5)]);
        assert_eq!((one.verdict, one.p_12), (Verdict::First { p: 0.625 }, Some(0.75)));
        let mute = Verdict::Invalid { why: "mute".into() };
        assert_eq!(one.votes, [votes([0.75]), vec![mute], votes([0.5])].concat());
        let none = merged(Vote::Majority, [invalid("mute"), invalid("deaf"), invalid("blind")]);
        let Verdict::Invalid { why } = none.verdict else { panic!("{none:?}") };
        assert!(why.ends_with("mute"), "{why}");
    }

    #[test]
    fn a_question_is_answered_once_all_members_have_answered_in_any_order() {
        let members = three();
        let mut queue = ensemble(Vote::Mean, &members);
        let (one, two) = (question("1"), question("2"));
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        let mut answered = Vec::new();
        for (member, question) in [(2, &two), (0, &one), (1, &two), (0, &two), (2, &one), (1, &one)] {
            members[member].answers(question, both(0.75, 0.75));
            let polled = queue.poll(Duration::ZERO).wait().unwrap();
            answered.push(polled.answers.iter().map(|answer| answer.id.clone()).collect::<Vec<_>>());
            for answer in polled.answers {
                assert_eq!((answer.usage.requests, answer.usage.cost, answer.ms), (3, 1.5, 6.0));
            }
        }
        let none = Vec::new();
        assert_eq!(answered, [none.clone(), none.clone(), none.clone(), vec![two.id], none, vec![one.id]]);
        assert!(queue.open.is_empty());
    }

    #[test]
    fn after_a_failure_members_that_have_answered_are_not_asked_again() {
        let members = three();
        let mut queue = ensemble(Vote::Mean, &members);
        let one = question("1");
        queue.submit(vec![one.clone()]).unwrap();
        members[0].answers(&one, both(1.0, 1.0));
        *members[1].fails.lock().unwrap() = true;
        assert!(queue.poll(Duration::ZERO).wait().unwrap_err().to_string().contains("no power"));
        members[1].answers(&one, both(1.0, 1.0));
        members[2].answers(&one, both(1.0, 1.0));
        queue.submit(vec![one]).unwrap();
        assert_eq!(queue.poll(Duration::ZERO).wait().unwrap().answers.len(), 1);
        // The second member was asked again, because a judge drops its open questions when it fails; the third has not
        // failed.
        assert_eq!(members.each_ref().map(Member::submitted), [1, 2, 1]);
    }

    #[test]
    fn if_one_member_fails_the_answers_of_the_others_are_kept_and_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let members = three();
        let mut queue = Journalled::new(Box::new(ensemble(Vote::Mean, &members)));
        queue.open(&dir.path().join(JOURNAL)).unwrap();
        let (one, two) = (question("1"), question("2"));
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        *members[0].fails.lock().unwrap() = true;
        members[1].answers(&one, both(1.0, 1.0));
        assert!(queue.poll(Duration::ZERO).wait().is_err());
        // This answer is still pending when the run ends.
        members[2].answers(&two, both(1.0, 1.0));
        queue.drain(Duration::from_millis(50)).wait().unwrap();
        drop(queue);
        let said = |member: usize| {
            std::fs::read_to_string(dir.path().join(JUDGES).join(member.to_string()).join(JOURNAL)).unwrap()
        };
        assert!(said(2).contains(&one.id) && said(3).contains(&two.id), "{} {}", said(2), said(3));
    }

    #[test]
    fn a_resumed_run_asks_no_member_twice() {
        let dir = tempfile::tempdir().unwrap();
        let open = |members: &[Member]| {
            let mut queue = Journalled::new(Box::new(ensemble(Vote::Mean, members)));
            queue.open(&dir.path().join(JOURNAL)).unwrap();
            queue
        };
        let (one, two) = (question("1"), question("2"));
        let first = three();
        let mut queue = open(&first);
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        first.iter().for_each(|member| member.answers(&one, both(1.0, 0.5)));
        first[0].answers(&two, both(1.0, 0.5));
        let answers = queue.poll(Duration::ZERO).wait().unwrap().answers;
        assert_eq!(answers.len(), 1);
        drop(queue);

        let second = three();
        let mut queue = open(&second);
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        assert_eq!(queue.poll(Duration::ZERO).wait().unwrap().answers, answers, "with its votes");
        assert_eq!(second.each_ref().map(Member::submitted), [0, 1, 1], "about the second question");
        second[1..].iter().for_each(|member| member.answers(&two, both(0.25, 0.25)));
        let answers = queue.poll(Duration::ZERO).wait().unwrap().answers;
        let Said::Judgement(judgement) = &answers[0].said else { panic!() };
        assert_eq!(judgement.votes, votes([0.75, 0.25, 0.25]));
        assert_eq!(queue.used().requests, 6, "each answer is counted once");
    }

    /// One member that asks both orders itself, one that asks only the given order, and one that records no order.
    fn of_all_positions() -> [Member; 3] {
        let of = |name, position| Member { position, ..Member::named(name) };
        [of("a", Position::Settled), of("b", Position::Given), of("c", Position::Untold)]
    }

    fn judgements(polled: Polled) -> Vec<(String, Judgement)> {
        let judgement = |answer: Answer| match answer.said {
            Said::Judgement(judgement) => (answer.id, judgement),
            Said::Score(_) => panic!("a pair has no score"),
        };
        polled.answers.into_iter().map(judgement).collect()
    }

    #[test]
    fn a_swapped_pair_is_asked_only_of_members_that_need_it() {
        let p = |p| Judgement::from(Verdict::from_probability(p));
        // A run submits both questions at once, an evaluation submits the second once the first is answered.
        for (least, at_once, submitted) in
            [(Position::Given, true, [1, 2, 2]), (Position::Untold, false, [1, 1, 2])]
        {
            let members = of_all_positions();
            let mut queue = Journalled::new(Box::new(ensemble(Vote::Mean, &members)));
            let one = question("1");
            let two = one.turned("1", least);
            let first = |queue: &mut Journalled<'_>| {
                members[0].answers(&one, both(1.0, 0.5));
                members[1].answers(&one, Judgement::from_orders(Some(0.75), None));
                members[2].answers(&one, p(1.0));
                queue.poll(Duration::ZERO).wait().unwrap()
            };
            let mut received = Vec::new();
            if at_once {
                queue.submit(vec![one.clone(), two.clone()]).unwrap();
                received.extend(judgements(first(&mut queue)));
            } else {
                queue.submit(vec![one.clone()]).unwrap();
                received.extend(judgements(first(&mut queue)));
                queue.submit(vec![two.clone()]).unwrap();
            }
            if least == Position::Given {
                members[1].answers(&two, Judgement::from_orders(Some(0.5), None));
            }
            members[2].answers(&two, p(0.75));
            received.extend(judgements(queue.poll(Duration::ZERO).wait().unwrap()));
            assert_eq!(members.each_ref().map(Member::submitted), submitted, "{least:?}");
            let votes_of = |question: &Question| {
                received.iter().find(|(id, _)| *id == question.id).unwrap().1.votes.clone()
            };
            assert_eq!(votes_of(&one), votes([0.75, 0.75, 1.0]));
            // The votes are about the swapped pair, so p is 1 - p of the original.
            let given = if least == Position::Given { 0.5 } else { 0.25 };
            assert_eq!(votes_of(&two), votes([0.25, given, 0.75]));
            assert_eq!(
                queue.used().requests as usize,
                submitted.iter().sum::<usize>(),
                "each request is counted once"
            );
        }
    }

    #[test]
    fn a_known_answer_about_the_original_pair_is_reused_after_a_resume_or_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let open = |members: &[Member]| {
            let mut queue = Journalled::new(Box::new(ensemble(Vote::Mean, members)));
            queue.open(&dir.path().join(JOURNAL)).unwrap();
            queue
        };
        let one = question("1");
        let two = one.turned("1", Position::Given);
        let first = of_all_positions();
        let mut queue = open(&first);
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        first.iter().for_each(|member| member.answers(&one, both(0.75, 0.75)));
        assert_eq!(queue.poll(Duration::ZERO).wait().unwrap().answers.len(), 1);
        *first[2].fails.lock().unwrap() = true;
        first[1].answers(&two, both(0.25, 0.25));
        assert!(queue.poll(Duration::ZERO).wait().is_err());
        queue.submit(vec![two.clone()]).unwrap();
        assert_eq!(first.each_ref().map(Member::submitted), [1, 2, 3], "the one that failed is asked again");
        drop(queue);

        let second = of_all_positions();
        let mut queue = open(&second);
        queue.submit(vec![one.clone(), two.clone()]).unwrap();
        assert_eq!(second.each_ref().map(Member::submitted), [0, 0, 1]);
        second[2].answers(&two, both(0.25, 0.25));
        let mut received = judgements(queue.poll(Duration::ZERO).wait().unwrap());
        received.extend(judgements(queue.poll(Duration::ZERO).wait().unwrap()));
        assert_eq!(received.len(), 2);
        assert!(
            received
                .iter()
                .all(|(id, said)| said.votes == votes(if *id == one.id { [0.75; 3] } else { [0.25; 3] }))
        );
    }

    #[test]
    fn ratings_are_averaged_if_all_members_use_the_same_scale() {
        let rating = |name| Member { rates: true, ..Member::named(name) };
        let both = [rating("a"), rating("a")];
        assert!(ensemble(Vote::Mean, &both).rates() && !ensemble(Vote::Majority, &both).rates());
        assert!(!ensemble(Vote::Mean, &[rating("a"), Member::named("a")]).rates());
        assert!(!ensemble(Vote::Mean, &[rating("a"), rating("b")]).rates(), "scores on different scales");
        let rules = |rules: [&str; 2]| {
            let rule =
                |rule: &str| -> Box<dyn JudgeQueue> { Box::new(InPlace::new(Rule::parse(rule).unwrap())) };
            Ensemble::new(Vote::Mean, rules.map(rule).into()).unwrap().rates()
        };
        assert!(rules(["longer", "longer"]) && !rules(["longer", "contains:the"]), "characters, and 0 or 1");
        assert_eq!(score(&[&Score::Value(1.0), &Score::Value(-0.5)]), Score::Value(0.25));
        let mute = Score::Invalid { why: "mute".into() };
        assert_eq!(score(&[&Score::Value(1.0), &mute]), mute);
    }

    #[test]
    fn other_members_or_another_vote_make_another_judge() {
        let identity =
            |vote, names: [&'static str; 2]| ensemble(vote, &names.map(Member::named)).identity().unwrap();
        let known = identity(Vote::Mean, ["a", "b"]);
        assert_eq!(known, identity(Vote::Mean, ["a", "b"]));
        assert_ne!(known, identity(Vote::Majority, ["a", "b"]));
        assert_ne!(known, identity(Vote::Mean, ["a", "c"]));
        let turned = identity(Vote::Mean, ["b", "a"]);
        assert!(known != turned && is_same(&known, &turned) && judges_of(&known) == judges_of(&turned));
        let majority = identity(Vote::Majority, ["a", "b"]);
        assert!(!is_same(&known, &majority) && judges_of(&known) == judges_of(&majority));
        let alone = judges_of(&Member::named("a").identity().unwrap());
        assert!(
            alone.is_subset(&judges_of(&known))
                && alone.is_disjoint(&judges_of(&identity(Vote::Mean, ["b", "c"])))
        );
        let alone: Vec<Box<dyn JudgeQueue>> = vec![Box::new(Member::named("a"))];
        assert!(Ensemble::new(Vote::Mean, alone).is_err());
    }
}
