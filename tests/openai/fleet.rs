//! Several servers used as one judge.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use oaif::Wait;
use oaif::unstable::judge::openai::Sources;
use oaif::unstable::judge::queue::JudgeQueue;

use crate::judge::*;
use crate::server::{Reply, Server, wait_until};

/// The number of requests that each of several servers got.
type Counts = Arc<Vec<AtomicUsize>>;

/// Counts a request to a server. Once it has had as many as `share`, it waits until all the others have, too, so that each
/// server gets its share on a busy machine.
fn take_turns(counts: &Counts, server: usize, share: usize) {
    let count = counts[server].fetch_add(1, Ordering::SeqCst) + 1;
    wait_until("the other servers get no requests", || {
        count <= share || counts.iter().all(|count| count.load(Ordering::SeqCst) >= share)
    });
}

#[test]
fn three_servers_share_the_work_and_one_may_fail() {
    // Each server answers 60 requests; then all wait until the second one has failed.
    let has_failed = Arc::new(AtomicBool::new(false));
    let slow = || {
        let (has_failed, count) = (has_failed.clone(), AtomicUsize::new(0));
        Server::start(move |request| {
            let count = count.fetch_add(1, Ordering::SeqCst) + 1;
            wait_until("the other servers get no requests", || {
                count <= 60 || has_failed.load(Ordering::SeqCst)
            });
            Reply::After(Duration::from_millis(2), Box::new(Reply::json(200, &good(request))))
        })
    };
    let servers = [slow(), slow(), slow()];
    let mut queue = judge(options(&servers.each_ref()).concurrency(4));
    let questions = questions(400);
    queue.submit(questions.clone()).unwrap();
    let (mut answers, mut notes) = (Vec::new(), Vec::new());
    let (mut at_death, started) = (None, Instant::now());
    while answers.len() < questions.len() {
        assert!(started.elapsed() < Duration::from_secs(120), "only {} answers", answers.len());
        let polled = queue.poll(Duration::from_millis(50)).wait().unwrap();
        answers.extend(polled.answers);
        notes.extend(polled.notes);
        if at_death.is_none() && servers.iter().all(|server| server.requests() == 60) {
            servers[1].kill();
            at_death = Some(servers.each_ref().map(Server::requests));
            has_failed.store(true, Ordering::SeqCst);
        }
    }
    let outcome = Outcome { answers, notes, error: None };
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    let (before, after) = (at_death.unwrap(), servers.each_ref().map(Server::requests));
    assert_eq!(before, [60; 3]);
    assert!(after[0] - before[0] > 150 && after[2] - before[2] > 150, "{before:?} {after:?}");
    assert!(after[1] <= before[1] + 4, "{before:?} {after:?}");
    // 800 good answers, and the requests in flight to the dead server.
    assert!(after.iter().sum::<usize>() <= 808, "{after:?}");
    // One note per change of state: a late answer may close the breaker once more.
    assert!((1..=8).contains(&outcome.notes.len()), "{:?}", outcome.notes);
    println!("{before:?} {after:?} {:?}", outcome.notes);
}

#[test]
fn a_server_that_refuses_requests_is_excluded_and_the_others_do_its_work() {
    for (status, said) in [(401, "bad key"), (403, "not for you"), (404, "model judge does not exist")] {
        let strict = Server::start(move |_| Reply::error(status, said));
        let kind = good_server();
        let mut queue = judge(options(&[&strict, &kind]).retries(0).concurrency(2));
        let questions = questions(30);
        let outcome = ask(&mut queue, &questions);
        questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, said));
        assert_eq!((outcome.notes.len(), kind.requests()), (1, 60), "{:?}", outcome.notes);
        let place = format!("http://{}", strict.address);
        let at = if status == 404 { format!(" at {place}/v1/chat/completions") } else { String::new() };
        assert_eq!(
            outcome.notes[0],
            format!("{place} answers {status} ({said}){at}: no more requests are sent to it")
        );
        assert!(strict.requests() <= 2);
        // The only server was excluded, so an error is returned at once.
        let mut queue = judge(options(&[&strict]));
        let outcome = ask(&mut queue, &questions);
        let error = outcome.error.unwrap();
        let expected = format!(
            "judge openai (judge): no server accepts requests: {place} answers {status} ({said}){at}; check"
        );
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_failed_request_goes_to_another_server() {
    let broken = Server::start(|_| Reply::error(500, "broken"));
    let well = good_server();
    // With one try each, a second request to the broken server would make a question invalid.
    let options = options(&[&broken, &well]).retries(1).break_after(1000).concurrency(2);
    let mut queue = judge(options);
    let questions = questions(50);
    let outcome = ask(&mut queue, &questions);
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    assert_eq!((well.requests(), outcome.notes.len()), (100, 1), "{:?}", outcome.notes);
    assert!(broken.requests() > 0);
}

#[test]
fn servers_with_and_without_log_probabilities_may_be_mixed_and_are_counted() {
    let counts: Counts = Arc::new((0..2).map(|_| AtomicUsize::new(0)).collect());
    let (of_silent, of_open) = (counts.clone(), counts);
    let silent = Server::start(move |request| {
        take_turns(&of_silent, 0, 30);
        let mut request = request.clone();
        request.body["logprobs"] = serde_json::Value::Null;
        Reply::json(200, &good(&request))
    });
    let open = Server::start(move |request| {
        take_turns(&of_open, 1, 30);
        Reply::json(200, &good(request))
    });
    let mut queue = judge(options(&[&silent, &open]));
    let outcome = ask(&mut queue, &questions(50));
    let Sources { log_probabilities, bounded, texts } = queue.sources();
    assert_eq!((log_probabilities + texts, bounded, outcome.notes.len()), (100, 0, 1), "{:?}", outcome.notes);
    assert!(log_probabilities > 10 && texts > 10, "{log_probabilities} {texts}");
}

#[test]
fn the_concurrency_limit_of_each_server_is_kept_and_reached() {
    let slow = || {
        let (together, count) = (Barrier::new(3), AtomicUsize::new(0));
        Server::start(move |request| {
            // The first three wait for each other, so that the limit is reached on a busy machine, too.
            if count.fetch_add(1, Ordering::SeqCst) < 3 {
                together.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
            Reply::json(200, &good(request))
        })
    };
    let servers = [slow(), slow()];
    let mut queue = judge(options(&servers.each_ref()).concurrency(3));
    assert!(ask(&mut queue, &questions(60)).error.is_none());
    for server in &servers {
        assert_eq!(server.busiest.load(Ordering::SeqCst), 3);
    }
}
