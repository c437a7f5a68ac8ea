//! Rate limits, budgets, and the cache.

use std::time::{Duration, Instant};

use oaif::Wait;
use oaif::unstable::judge::journal::Journalled;
use oaif::unstable::judge::queue::{JudgeQueue, Usage};

use crate::judge::*;
use crate::server::{Reply, Server};

#[test]
fn the_limit_of_requests_per_minute_is_kept() {
    let server = good_server();
    let started = Instant::now();
    // A burst of 12, then 109 per minute.
    let mut queue = judge(options(&[&server]).requests_per_minute(120));
    queue.submit(questions(100)).unwrap();
    while started.elapsed() < Duration::from_millis(1200) || server.requests() <= 12 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", server.requests());
        queue.poll(Duration::from_millis(100)).wait().unwrap();
    }
    let (requests, elapsed) = (server.requests(), started.elapsed());
    assert!(requests as f64 <= 12.0 + elapsed.as_secs_f64() * 109.0 / 60.0, "{requests} in {elapsed:?}");
}

#[test]
fn the_limit_of_tokens_per_minute_is_kept() {
    let server = good_server();
    let started = Instant::now();
    // About 14 tokens each by estimate, and 50 by the server's count, with a burst of 600, then 5401 per minute.
    let mut queue = judge(options(&[&server]).tokens_per_minute(6000).concurrency(1));
    queue.submit(questions(100)).unwrap();
    let read = || -> usize {
        server.log.lock().unwrap().requests.iter().map(|(request, ..)| request.text().len() + 1).sum()
    };
    while started.elapsed() < Duration::from_millis(500) || read() < 500 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", read());
        queue.poll(Duration::from_millis(100)).wait().unwrap();
    }
    let (read, elapsed) = (read(), started.elapsed());
    // The last request may exceed its estimate.
    let most = 600.0 + 50.0 + elapsed.as_secs_f64() * 5401.0 / 60.0;
    assert!(read as f64 <= most, "{read} in {elapsed:?}");
}

#[test]
fn retry_after_holds_for_all_requests_to_that_server() {
    let server =
        Server::start(|request| match request.text().contains("prompt 0\n1 first") && request.before == 0 {
            true => Reply::Answer(429, vec![("Retry-After", "1".into())], b"slow down".to_vec()),
            false => Reply::After(Duration::from_millis(20), Box::new(Reply::json(200, &good(request)))),
        });
    // One at a time, so that no request is on its way when the limit becomes known.
    let mut queue = judge(options(&[&server]).concurrency(1).retries(0));
    let questions = questions(10);
    let outcome = ask(&mut queue, &questions);
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    assert_eq!(outcome.notes.len(), 1, "{:?}", outcome.notes);
    assert!(
        outcome.notes[0].ends_with("answers 429 (slow down): requests to it are slowed down"),
        "{:?}",
        outcome.notes
    );
    let log = server.log.lock().unwrap();
    let limited_at =
        log.requests.iter().filter(|(.., status)| *status == 429).map(|(_, at, _)| *at).max().unwrap();
    let next = log.requests.iter().map(|(_, at, _)| *at).filter(|at| *at > limited_at).min().unwrap();
    assert!(next - limited_at >= Duration::from_millis(990), "{:?}", next - limited_at);
}

#[test]
fn a_request_budget_is_spent_on_whole_questions_and_ends_the_run() {
    let server = good_server();
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal.jsonl");
    let questions = questions(30);
    let budget = |max_requests| options(&[&server]).max_requests(max_requests);
    let start = |max_requests| {
        let mut queue = Journalled::new(Box::new(judge(budget(max_requests))));
        queue.open(&journal).unwrap();
        queue
    };
    // 21 requests are enough for 10 questions and half of another.
    let mut queue = start(21);
    let outcome = ask_journalled(&mut queue, &questions);
    assert_eq!((outcome.answers.len(), server.requests()), (10, 20));
    let error = outcome.error.unwrap();
    assert!(error.contains("the budget is spent (20 of 21 requests"), "{error}");
    assert!(error.ends_with("raise judge-max-requests and resume"), "{error}");
    // The budget stays spent, and a new process knows the earlier usage.
    assert!(ask_journalled(&mut queue, &questions[25..]).error.is_some());
    let mut queue = start(30);
    let outcome = ask_journalled(&mut queue, &questions);
    assert_eq!((outcome.answers.len(), server.requests()), (15, 30));
    assert!(outcome.error.unwrap().contains("30 of 30 requests"));
    let outcome = ask_journalled(&mut start(1000), &questions);
    assert_eq!((outcome.answers.len(), outcome.error, server.requests()), (30, None, 60));
}

#[test]
fn a_cost_budget_is_not_exceeded() {
    let server = good_server();
    // The server counts a token per byte, the estimate a quarter of that: each request costs about 42 and is estimated
    // at 12.
    let prices = options(&[&server]).price_prompt(1e6).price_completion(2e6);
    let mut queue = judge(prices.clone().max_cost(1000.0).concurrency(1));
    let outcome = ask(&mut queue, &questions(30));
    let cost: f64 = outcome.answers.iter().map(|answer| answer.usage.cost).sum();
    let error = outcome.error.unwrap();
    assert!(cost > 900.0 && cost <= 1042.0, "{cost}");
    assert!(error.contains("judge-max-cost") && error.contains("resume"), "{error}");
    println!("{cost}: {error}");
    let mut queue = judge(prices.max_cost(1000.0));
    queue.used_before(Usage { cost: 999.0, ..Usage::default() });
    let before = server.requests();
    assert!(ask(&mut queue, &questions(3)).error.is_some());
    assert_eq!(server.requests(), before);
}

#[test]
fn a_cached_verdict_is_never_paid_for_again_with_any_server() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Some(dir.path().join("cache"));
    let questions = questions(20);
    let first = good_server();
    let mut queue = judge(options(&[&first]).cache(cache.clone()));
    ask(&mut queue, &questions[..10]);
    drop(queue);
    std::fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join("cache/judgements.jsonl"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"asked\":\"to"))
        .unwrap();
    let second = good_server();
    let mut queue = judge(options(&[&second]).cache(cache.clone()));
    let outcome = ask(&mut queue, &questions);
    for (at, question) in questions.iter().enumerate() {
        let answer = outcome.of(question);
        assert_is_opinion(question, &answer.said, "");
        let expected = if at < 10 { (0, 2) } else { (2, 0) };
        assert_eq!((answer.usage.requests, answer.usage.cached), expected);
    }
    assert_eq!((second.requests(), outcome.notes.len()), (20, 1), "{:?}", outcome.notes);
    assert!(outcome.notes[0].starts_with("skipped 1 unreadable lines of the cache"), "{:?}", outcome.notes);
    // Another model is asked again.
    let mut queue = judge(options(&[&second]).cache(cache).model("another"));
    ask(&mut queue, &questions[..1]);
    assert_eq!(second.requests(), 22);
}
