//! Tests of the dispatch with a simulated clock.

use std::time::Duration;

use super::super::address::Address;
use super::super::client::Blame;
use super::super::protocol::Position;
use super::*;
use crate::judge::queue::{Question, Said};
use crate::judge::template::JudgeTemplate;
use crate::judge::{Pair, Verdict};

/// Simulated servers and a simulated clock.
struct World {
    dispatch: Dispatch,
    options: Arc<OpenAiOptions>,
    start: Instant,
    now: Instant,
}

impl World {
    fn new(servers: usize, change: impl FnOnce(&mut OpenAiOptions)) -> World {
        let mut options = OpenAiOptions { model: "m".into(), ..OpenAiOptions::default() };
        options.urls = (0..servers).map(|at| format!("http://server{at}/v1")).collect();
        change(&mut options);
        let (options, start) = (Arc::new(options), Instant::now());
        let server = |url: &String| Server::new(Address::new(url).unwrap(), &options, start);
        let servers = options.urls.iter().map(server).collect();
        World { dispatch: Dispatch::new(options.clone(), servers, None), options, start, now: start }
    }

    fn submit(&mut self, count: usize) {
        let template = JudgeTemplate::from_text("{{ prompt }} {{ response_1 }} {{ response_2 }}").unwrap();
        for at in 0..count {
            let pair = Pair { prompt: &at.to_string(), response_1: "a", response_2: "b" };
            let (open, texts) = Open::new(Question::compare("t", &pair), &template, &self.options);
            self.dispatch.submit(open, texts, self.now);
        }
    }

    /// All requests that may be sent now.
    fn send(&mut self) -> Vec<Ticket> {
        let mut sent = Vec::new();
        while let Next::Send(ticket) = self.dispatch.next(self.now) {
            sent.push(*ticket);
        }
        sent
    }

    /// The next request; advances the clock as far as needed. `None` if no passing of time leads to another request.
    fn next(&mut self) -> Option<Ticket> {
        loop {
            match self.dispatch.next(self.now) {
                Next::Send(ticket) => return Some(*ticket),
                Next::Wait(Some(until)) => self.now = until.max(self.now + Duration::from_micros(1)),
                Next::Wait(None) => return None,
            }
        }
    }

    fn end(&mut self, ticket: Ticket, outcome: Result<Reply, Fault>) {
        self.dispatch.done(ticket, outcome, self.now);
    }

    fn fail(&mut self, ticket: Ticket, blame: Blame) {
        self.end(ticket, Err(Fault::new(blame, "fails")));
    }

    fn seconds(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }
}

fn reply() -> Reply {
    let top = vec![("1".to_owned(), -0.5), ("2".to_owned(), -1.5)];
    let positions = vec![Position { token: "1".into(), own: None, top, floor: -1.5 }];
    Reply { text: "1".into(), positions, tokens: Some((10, 1)), ..Reply::default() }
}

#[test]
fn retries_wait_longer_each_time_and_end_in_an_invalid_verdict() {
    let mut longest = [0f64; 5];
    for _ in 0..200 {
        let mut world = World::new(1, |o| (o.break_after, o.orders) = (1000, crate::judge::llm::Orders::One));
        world.submit(1);
        for wait in &mut longest {
            let ticket = world.next().unwrap();
            let failed_at = world.now;
            world.fail(ticket, Blame::Either);
            // It must not be sent again at once.
            let Next::Wait(Some(until)) = world.dispatch.next(failed_at) else { panic!() };
            *wait = wait.max((until - failed_at).as_secs_f64());
        }
        let ticket = world.next().unwrap();
        world.fail(ticket, Blame::Either);
        let (answers, ..) = world.dispatch.take(world.now);
        assert!(
            matches!(&answers[0].said, Said::Judgement(judgement) if judgement.verdict.label() == "invalid")
        );
        assert_eq!((answers[0].usage.requests, answers[0].usage.failed), (6, 5));
    }
    for (wait, most) in longest.into_iter().zip([0.5, 1.0, 2.0, 4.0, 8.0]) {
        assert!(wait <= most && wait > 0.8 * most, "{longest:?}");
    }
}

#[test]
fn failures_of_the_server_do_not_count_as_tries() {
    for blame in [Blame::Server, Blame::Pace] {
        let mut world = World::new(1, |o| (o.retries, o.break_after) = (0, 1000));
        world.submit(1);
        for _ in 0..40 {
            let ticket = world.next().unwrap();
            world.fail(ticket, blame);
        }
        for _ in 0..2 {
            let ticket = world.next().unwrap();
            world.end(ticket, Ok(reply()));
        }
        let (answers, ..) = world.dispatch.take(world.now);
        assert!(
            matches!(&answers[0].said, Said::Judgement(judgement) if judgement.verdict == Verdict::Tie),
            "{answers:?}"
        );
        assert_eq!(answers[0].usage.failed, 40);
    }
}

#[test]
fn a_request_that_always_fails_while_others_succeed_is_given_up() {
    let mut world = World::new(1, |o| o.retries = 5);
    world.submit(400);
    let mut answers = Vec::new();
    while let Some(ticket) = world.next() {
        match ticket.text().starts_with("0 ") {
            true => world.fail(ticket, Blame::Pace),
            false => world.end(ticket, Ok(reply())),
        }
        answers.extend(world.dispatch.take(world.now).0);
    }
    let invalid = |answer: &&Answer| matches!(&answer.said, Said::Judgement(judgement) if judgement.verdict.label() == "invalid");
    assert_eq!((answers.len(), answers.iter().filter(invalid).count()), (400, 1));
}

#[test]
fn a_broken_server_gets_single_probes_at_increasing_intervals() {
    let mut world = World::new(1, |o| o.retries = 1000);
    world.submit(50);
    let sent = world.send();
    assert_eq!(sent.len(), 8);
    sent.into_iter().for_each(|ticket| world.fail(ticket, Blame::Either));
    let mut times = vec![world.seconds()];
    for _ in 0..8 {
        let ticket = world.next().unwrap();
        assert!(world.send().is_empty());
        times.push(world.seconds());
        world.fail(ticket, Blame::Either);
    }
    let waits: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).round()).collect();
    assert_eq!(waits, [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 120.0, 120.0]);
    let ticket = world.next().unwrap();
    world.end(ticket, Ok(reply()));
    assert_eq!(world.send().len(), 8);
    let notes = std::mem::take(&mut world.dispatch.notes);
    assert_eq!(notes.len(), 3, "{notes:?}");
}

#[test]
fn retry_after_pauses_one_server_while_others_are_used() {
    let mut world = World::new(2, |o| o.concurrency = 1);
    world.submit(50);
    let mut sent = world.send();
    assert_eq!(sent.len(), 2);
    let wait = Some(Duration::from_secs(30));
    let ticket = sent.remove(0);
    let busy = ticket.server;
    world.end(ticket, Err(Fault { wait, ..Fault::new(Blame::Pace, "answers 429") }));
    let ticket = sent.remove(0);
    world.end(ticket, Ok(reply()));
    while world.seconds() < 29.9 {
        let ticket = world.next().unwrap();
        assert_ne!(ticket.server, busy);
        world.now += Duration::from_secs(1);
        if world.seconds() < 29.9 {
            world.end(ticket, Ok(reply()));
        }
    }
    world.now = world.start + Duration::from_secs(30);
    assert!(world.send().iter().any(|ticket| ticket.server == busy));
}

#[test]
fn an_overloaded_server_is_paused_for_its_retry_after() {
    let mut world = World::new(1, |_| {});
    world.submit(1);
    let ticket = world.next().unwrap();
    let wait = Some(Duration::from_secs(40));
    world.end(ticket, Err(Fault { wait, ..Fault::new(Blame::Server, "answers 503") }));
    assert!(world.next().is_some() && world.seconds() >= 40.0, "{}", world.seconds());
}

#[test]
fn time_without_questions_does_not_count_as_silence_of_the_servers() {
    let mut world = World::new(1, |o| (o.retries, o.orders) = (0, crate::judge::llm::Orders::One));
    world.submit(1);
    let ticket = world.next().unwrap();
    world.fail(ticket, Blame::Either);
    world.now += Duration::from_secs(3600);
    world.submit(1);
    let ticket = world.next().unwrap();
    world.fail(ticket, Blame::Server);
    world.dispatch.take(world.now);
    let (answers, notes, failed) = world.dispatch.take(world.now);
    assert!(answers.is_empty() && notes.is_empty() && failed.is_none(), "{failed:?}");
}

#[test]
fn a_server_that_refuses_all_requests_makes_no_question_invalid() {
    let refusal = || Fault { status: Some(400), ..Fault::new(Blame::Question, "answers 400") };
    // With a second, working server, and alone.
    for servers in [2, 1] {
        let mut world = World::new(servers, |_| {});
        world.submit(50);
        while let Some(ticket) = world.next() {
            let outcome = if ticket.server == 0 { Err(refusal()) } else { Ok(reply()) };
            world.end(ticket, outcome);
            world.dispatch.check(world.now);
        }
        let notes = std::mem::take(&mut world.dispatch.notes);
        assert_eq!(notes, ["http://server0 answers 400: no more requests are sent to it"]);
        let (answers, _, failed) = world.dispatch.take(world.now);
        let valid = |answer: &&Answer| matches!(&answer.said, Said::Judgement(judgement) if judgement.verdict == Verdict::Tie);
        assert_eq!(answers.iter().filter(valid).count(), if servers == 2 { 50 } else { 0 });
        assert_eq!(answers.len(), if servers == 2 { 50 } else { 0 });
        assert_eq!(
            failed
                .is_some_and(|why| why.starts_with("no server accepts requests: http://server0 answers 400;")),
            servers == 1
        );
    }
}

#[test]
fn the_rate_limit_holds_for_each_server_of_a_fleet() {
    let mut world = World::new(2, |o| o.requests_per_minute = Some(60));
    world.submit(200);
    let mut times = [Vec::new(), Vec::new()];
    while let Some(ticket) = world.next() {
        times[ticket.server].push(world.seconds());
        world.end(ticket, Ok(reply()));
    }
    for times in times {
        assert!(times.len() > 150);
        let most = times
            .iter()
            .map(|start| times.iter().filter(|time| (*start..*start + 59.999).contains(*time)).count())
            .max();
        assert!(most <= Some(60), "{most:?}");
    }
}

#[test]
fn patience_ends_when_all_servers_are_silent_and_restarts_with_every_answer() {
    let mut world = World::new(2, |o| o.retries = 1_000_000);
    world.submit(20);
    let check = |world: &mut World| {
        world.dispatch.notes.clear();
        world.dispatch.take(world.now).2
    };
    // Server 1 answers once in 200 s, which is within the patience of 10 minutes.
    let mut answered_at = world.now;
    while world.seconds() < 36_000.0 {
        let ticket = world.next().unwrap();
        let due = ticket.server == 1 && world.now - answered_at > Duration::from_secs(200);
        if due && world.dispatch.unfinished() > 10 {
            answered_at = world.now;
            world.end(ticket, Ok(reply()));
        } else {
            world.fail(ticket, Blame::Server);
        }
        if let Some(why) = check(&mut world) {
            let silence = (world.now - answered_at).as_secs_f64();
            assert!(
                why.starts_with(
                    "no server has answered for 10 minutes: http://server0 fails, http://server1 fails;"
                ),
                "{why}"
            );
            assert!((600.0..=725.0).contains(&silence), "{silence}");
            assert!(world.dispatch.is_idle() && world.dispatch.unfinished() == 0);
            return;
        }
    }
    panic!("it never ended");
}

#[test]
fn results_for_a_dropped_question_are_counted_but_change_nothing() {
    let mut world = World::new(1, |o| o.patience = Duration::from_secs(1));
    world.submit(2);
    let mut sent = world.send();
    let ticket = sent.remove(0);
    world.fail(ticket, Blame::Server);
    world.now += Duration::from_secs(2);
    world.dispatch.notes.clear();
    assert!(world.dispatch.take(world.now).2.is_some());
    world.submit(1);
    let again = world.send();
    assert_eq!(again.len(), 2);
    sent.into_iter().for_each(|ticket| world.end(ticket, Ok(reply())));
    assert_eq!((world.dispatch.unfinished(), world.dispatch.sources.log_probabilities), (2, 3));
    again.into_iter().for_each(|ticket| world.end(ticket, Ok(reply())));
    assert_eq!((world.dispatch.take(world.now).0.len(), world.dispatch.unfinished()), (1, 0));
    assert_eq!(world.dispatch.servers[0].in_flight, 0);
}

#[test]
fn an_answer_that_unexpectedly_lacks_log_probabilities_is_requested_again() {
    let mut world = World::new(1, |o| (o.concurrency, o.retries) = (1, 1));
    world.submit(2);
    let ticket = world.next().unwrap();
    world.end(ticket, Ok(reply()));
    let ticket = world.next().unwrap();
    world.end(ticket, Ok(Reply { positions: Vec::new(), ..reply() }));
    while let Some(ticket) = world.next() {
        assert_eq!(ticket.dialect.top, Some(20));
        world.end(ticket, Ok(reply()));
    }
    assert_eq!((world.dispatch.sources.log_probabilities, world.dispatch.sources.texts), (4, 0));
    assert_eq!(world.dispatch.take(world.now).0.iter().map(|answer| answer.usage.failed).sum::<u64>(), 1);
}

#[test]
fn a_blank_answer_is_requested_once_more_with_more_tokens() {
    let mut world = World::new(1, |o| o.concurrency = 1);
    world.submit(2);
    let blank = Position { token: "▁".into(), own: None, top: vec![("▁".into(), -0.1)], floor: -0.1 };
    let blank = Reply { text: " ".into(), positions: vec![blank], cut: true, ..Reply::default() };
    let ticket = world.next().unwrap();
    assert_eq!(ticket.dialect.max_tokens(&world.options, Kind::Compare), 1);
    world.end(ticket, Ok(blank.clone()));
    let ticket = world.next().unwrap();
    assert_eq!(ticket.dialect.max_tokens(&world.options, Kind::Compare), 4);
    world.end(ticket, Ok(blank));
    while let Some(ticket) = world.next() {
        world.end(ticket, Ok(reply()));
    }
    let mut labels: Vec<&str> = world
        .dispatch
        .take(world.now)
        .0
        .iter()
        .map(|answer| match &answer.said {
            Said::Judgement(judgement) => judgement.verdict.label(),
            Said::Score(_) => "score",
        })
        .collect();
    labels.sort_unstable();
    assert_eq!(labels, ["invalid", "tie"]);
}
