//! Several servers used as one judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oaif::Wait;
use oaif::unstable::judge::openai::Sources;
use oaif::unstable::judge::queue::JudgeQueue;

use crate::judge::*;
use crate::server::{Reply, Server};

#[test]
fn three_servers_share_the_work_and_one_may_fail() {
    let slow = || {
        Server::start(|request| {
            Reply::After(Duration::from_millis(2), Box::new(Reply::json(200, &good(request))))
        })
    };
    let servers = [slow(), slow(), slow()];
    let mut queue = judge(options(&servers.each_ref()).concurrency(4));
    let questions = questions(400);
    queue.submit(questions.clone()).unwrap();
    let (mut answers, mut notes) = (Vec::new(), Vec::new());
    let mut at_death = None;
    while answers.len() < questions.len() {
        let polled = queue.poll(Duration::from_secs(5)).wait().unwrap();
        answers.extend(polled.answers);
        notes.extend(polled.notes);
        if answers.len() > 100 && at_death.is_none() {
            servers[1].kill();
            at_death = Some(servers.each_ref().map(Server::requests));
        }
    }
    let outcome = Outcome { answers, notes, error: None };
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    let (before, after) = (at_death.unwrap(), servers.each_ref().map(Server::requests));
    assert!(before.iter().all(|count| *count > 40), "{before:?}");
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
    let silent = Server::start(|request| {
        let mut request = request.clone();
        request.body["logprobs"] = serde_json::Value::Null;
        Reply::json(200, &good(&request))
    });
    let open = good_server();
    let mut queue = judge(options(&[&silent, &open]));
    let outcome = ask(&mut queue, &questions(50));
    let Sources { log_probabilities, bounded, texts } = queue.sources();
    assert_eq!((log_probabilities + texts, bounded, outcome.notes.len()), (100, 0, 1), "{:?}", outcome.notes);
    assert!(log_probabilities > 10 && texts > 10, "{log_probabilities} {texts}");
}

#[test]
fn the_concurrency_limit_of_each_server_is_kept_and_reached() {
    let now = Arc::new(AtomicUsize::new(0));
    let slow = || {
        let now = now.clone();
        Server::start(move |request| {
            now.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
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
