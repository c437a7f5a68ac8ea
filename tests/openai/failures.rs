//! Servers that fail in every known way, sometimes or always.

use std::time::{Duration, Instant};

use oaif::Wait;
use oaif::unstable::judge::Verdict;
use oaif::unstable::judge::journal::Journalled;
use oaif::unstable::judge::openai::OpenAiOptions;
use oaif::unstable::judge::queue::{JudgeQueue, Question, Said, Usage};
use serde_json::json;

use crate::judge::*;
use crate::server::{Reply, Request, Server, wait_until};

/// How long a flaky server is waited for: much longer than a good answer takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The number of ways to fail.
const WAYS: usize = 12;

/// The share of requests that fail.
const FAILED: f64 = 0.3;

/// The share of requests whose answer comes too late: small, because each takes the whole timeout.
const LATE: f64 = 0.003;

fn failing(way: usize, request: &Request) -> Reply {
    let whole = good(request).to_string();
    match way {
        0 => Reply::After(2 * TIMEOUT, Box::new(Reply::json(200, &good(request)))),
        1 => Reply::Answer(200, vec![], b"\x00\xffgarbage".to_vec()),
        2 => Reply::Answer(
            200,
            vec![("Content-Type", "text/html".into())],
            b"<html><body>Welcome</body></html>".to_vec(),
        ),
        3 => Reply::Answer(200, vec![], whole[..whole.len() / 2].into()),
        4 => Reply::error(500, "out of memory"),
        5 => Reply::Answer(429, vec![("Retry-After", "0.01".into())], vec![]),
        6 => Reply::Answer(429, vec![], vec![]),
        7 => Reply::Raw(Vec::new()),
        8 => Reply::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", whole.len(), &whole[..20]).into(),
        ),
        // The answer to another pair, in the format of a server that repeats ids.
        9 => {
            let mut other = verdict_reply(request, 1.0 - opinion(request.text()));
            let id = request.headers["x-request-id"].clone();
            let changed = if id.ends_with('0') { "1" } else { "0" };
            other["id"] = json!(format!("chatcmpl-{}{changed}", &id[..id.len() - 1]));
            Reply::json(200, &other)
        }
        10 => Reply::Answer(503, vec![], b"no healthy upstream".to_vec()),
        11 => Reply::json(200, &json!({ "error": { "message": "overloaded" } })),
        _ => unreachable!(),
    }
}

/// The judge's text instead of a verdict, for some of the texts.
fn wrong_token(seed: u64, text: &str) -> Option<String> {
    let number = chance(seed, &format!("wrong {text}"));
    (number < 0.03).then(|| format!("maybe {number:.9}"))
}

/// Fails for 30 % of the requests, in a way that depends on the seed, the text, and the number of earlier requests for
/// it.
fn flaky(seed: u64) -> Server {
    Server::start(move |request| {
        let draw = chance(seed, &format!("{}/{}", request.before, request.text()));
        let mut answer = good(request);
        if let Some(word) = wrong_token(seed, request.text()) {
            answer["choices"][0]["message"]["content"] = json!(word);
            answer["choices"][0]["logprobs"]["content"][0]["token"] = json!(word);
            answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"] =
                json!([{ "token": word, "logprob": -0.1 }]);
        }
        if draw < LATE {
            failing(0, request)
        } else if draw < FAILED {
            failing(1 + ((draw - LATE) / (FAILED - LATE) * (WAYS - 1) as f64) as usize, request)
        } else {
            Reply::json(200, &answer)
        }
    })
}

/// Options for tests with many failures.
fn patient(server: &Server) -> OpenAiOptions {
    options(&[server]).timeout(TIMEOUT).retries(15).break_after(8).break_for(Duration::from_millis(5))
}

/// How often each text got a good answer in time.
fn paid(server: &Server) -> std::collections::HashMap<String, usize> {
    let mut paid = std::collections::HashMap::new();
    for (request, ..) in &server.log.lock().unwrap().requests {
        *paid.entry(request.text().to_owned()).or_default() += 1;
    }
    paid
}

/// Checks that the verdict belongs to its pair: it is the judge's opinion, or quotes the judge's text for this pair.
fn assert_is_of_its_pair(seed: u64, question: &Question, said: &Said) {
    let context = format!("seed {seed}");
    let pair = question.pair().unwrap();
    let wrong = [pair, pair.swapped()].iter().find_map(|pair| wrong_token(seed, &text(pair)));
    let Some(word) = wrong else { return assert_is_opinion(question, said, &context) };
    let Said::Judgement(judgement) = said else { panic!("{context}: {said:?}") };
    let quoted = matches!(&judgement.verdict, Verdict::Invalid { why } if why.ends_with(&format!("did not answer 1 or 2, nor is that among its 1 most probable tokens: {word:?}")));
    assert!(quoted, "{context}: {judgement:?}");
}

#[test]
fn with_30_percent_failures_every_verdict_is_on_its_pair_and_paid_for_once() {
    for seed in [1, 2] {
        let context = format!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let server = flaky(seed);
        let queue = judge(patient(&server));
        let mut journalled = Journalled::new(Box::new(queue));
        journalled.open(&dir.path().join("journal.jsonl")).unwrap();
        let questions = questions(500);
        let outcome = ask_journalled(&mut journalled, &questions);
        assert_eq!((outcome.answers.len(), &outcome.error), (500, &None), "{context}");
        let mut used = Usage::default();
        for question in &questions {
            let answer = outcome.of(question);
            assert_is_of_its_pair(seed, question, &answer.said);
            used += answer.usage;
        }
        assert_eq!(used, journalled.used(), "{context}");
        // Each text is requested until it gets an answer, and not again: a request after a good answer would be in the
        // log.
        let log = server.log.lock().unwrap();
        let fails =
            |request: &Request| chance(seed, &format!("{}/{}", request.before, request.text())) < FAILED;
        let good = log.requests.iter().filter(|(request, ..)| !fails(request)).count();
        let failed = log.requests.iter().filter(|(request, ..)| fails(request)).count();
        assert_eq!(good, 1000, "{context}");
        assert_eq!((used.requests, used.failed), ((good + failed) as u64, failed as u64), "{context}");
        let read: u64 = questions
            .iter()
            .flat_map(|q| [q.pair().unwrap(), q.pair().unwrap().swapped()])
            .map(|p| text(&p).len() as u64)
            .sum();
        assert_eq!((used.prompt_tokens, used.completion_tokens), (read, 1000), "{context}");
        assert!(outcome.notes.len() < 20, "{context}: {:#?}", outcome.notes);
        let invalid = outcome
            .answers
            .iter()
            .filter(|a| matches!(&a.said, Said::Judgement(j) if j.verdict.label() == "invalid"))
            .count();
        assert!((10..60).contains(&invalid), "{context}: {invalid}");
        println!(
            "seed {seed}: {invalid} invalid, {good} good, {failed} failed, {:?}, {} notes: {:#?}",
            log.statuses(),
            outcome.notes.len(),
            outcome.notes
        );
    }
}

#[test]
fn a_resumed_run_does_not_repeat_questions_in_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal.jsonl");
    let questions = questions(200);
    let server = flaky(3);
    let mut queue = Journalled::new(Box::new(judge(patient(&server))));
    queue.open(&journal).unwrap();
    queue.submit(questions.clone()).unwrap();
    let mut known: Vec<String> = Vec::new();
    while known.len() < 80 {
        known.extend(
            queue.poll(Duration::from_secs(1)).wait().unwrap().answers.into_iter().map(|answer| answer.id),
        );
    }
    let used = queue.used();
    drop(queue);

    let other = flaky(4);
    let mut queue = Journalled::new(Box::new(judge(patient(&other))));
    queue.open(&journal).unwrap();
    assert_eq!(queue.used(), used);
    let outcome = ask_journalled(&mut queue, &questions);
    for question in &questions {
        // Questions answered earlier were answered by the other server.
        let seed = if known.contains(&question.id) { 3 } else { 4 };
        assert_is_of_its_pair(seed, question, &outcome.of(question).said);
    }
    let paid = paid(&other);
    for question in &questions {
        let (pair, is_known) = (question.pair().unwrap(), known.contains(&question.id));
        for text in [text(&pair), text(&pair.swapped())] {
            assert_eq!(paid.contains_key(&text), !is_known, "{}", question.id);
        }
    }
}

#[test]
fn a_temporary_outage_makes_no_question_invalid() {
    let server = good_server();
    let address = server.address;
    let mut queue = judge(options(&[&server]));
    assert!(ask(&mut queue, &questions(3)).error.is_none());
    server.kill();
    let questions: Vec<Question> = questions(50);
    queue.submit(questions.clone()).unwrap();
    let mut notes: Vec<String> = Vec::new();
    while !notes.iter().any(|note| note.contains("has failed several times in a row")) {
        let polled = queue.poll(Duration::from_secs(5)).wait().unwrap();
        assert!(polled.answers.is_empty());
        notes.extend(polled.notes);
    }
    let back = Server::start_at(address, |request| Reply::json(200, &good(request)));
    let mut answered = 0;
    while answered < 50 {
        let polled = queue.poll(Duration::from_secs(5)).wait().unwrap();
        polled.answers.iter().for_each(|answer| {
            let question = questions.iter().find(|question| question.id == answer.id).unwrap();
            assert_is_opinion(question, &answer.said, "");
        });
        answered += polled.answers.len();
        notes.extend(polled.notes);
    }
    assert!(notes.iter().any(|note| note.ends_with("answers again")), "{notes:?}");
    assert!(notes.len() <= 5 && back.requests() == 100, "{notes:?}");
}

#[test]
fn if_no_server_answers_the_run_ends_within_its_patience() {
    let servers = [good_server(), good_server()];
    let options = options(&servers.each_ref());
    drop(servers);
    // Longer than anything below takes unless it waits for an answer.
    let timeout = Duration::from_secs(60);
    let silent = Server::start(move |_| Reply::After(2 * timeout, Box::new(Reply::Raw(Vec::new()))));
    let patience = Duration::from_millis(500);
    let mut options = options.patience(patience).retries(1000).timeout(timeout);
    options.urls.push(silent.url());
    let mut queue = judge(options.clone());
    let started = Instant::now();
    // The third server accepts connections but never answers; requests to it wait until their timeout, while the others
    // are used.
    options.urls.pop();
    let mut dead = judge(options);
    let outcome = ask(&mut dead, &questions(10));
    let took = started.elapsed();
    let error = outcome.error.unwrap();
    assert!(error.starts_with("judge openai (judge): no server has answered for"), "{error}");
    assert!(error.contains("cannot be reached") && error.contains("resume"), "{error}");
    assert!(took >= patience && took < timeout / 2, "{took:?}");
    println!("after {took:?}: {error}");
    // After the error the questions are dropped and may be submitted again.
    assert!(dead.poll(Duration::from_secs(60)).wait().unwrap().answers.is_empty());
    assert!(ask(&mut dead, &questions(1)).error.unwrap().contains("no server has answered"));
    // Dropping the queue does not wait for the threads of the silent server.
    queue.submit(questions(10)).unwrap();
    wait_until("no request reaches the silent server", || silent.requests() > 0);
    let started = Instant::now();
    drop(queue);
    assert!(started.elapsed() < timeout / 2, "{:?}", started.elapsed());
}

#[test]
fn a_question_that_always_fails_is_invalid_after_its_retries_and_the_others_continue() {
    let server = Server::start(|request| match request.text().contains("prompt 7\n") {
        true => Reply::error(500, "cannot read it"),
        false => Reply::json(200, &good(request)),
    });
    let mut queue = judge(options(&[&server]).retries(3));
    let questions = questions(20);
    let outcome = ask(&mut queue, &questions);
    for (at, question) in questions.iter().enumerate() {
        match (&outcome.of(question).said, at) {
            (Said::Judgement(judgement), 7) => {
                let Verdict::Invalid { why } = &judgement.verdict else { panic!() };
                assert_eq!(why, "no answer in 4 tries; last error: the server answers 500 (cannot read it)");
                let usage = outcome.of(question).usage;
                assert_eq!((usage.requests, usage.failed), (8, 6));
            }
            (said, _) => assert_is_opinion(question, said, ""),
        }
    }
}

#[test]
fn a_refused_request_is_not_sent_again() {
    for status in [400, 413, 422] {
        let server = Server::start(move |request| match request.text().contains("prompt 3\n") {
            true => Reply::json(
                status,
                &json!({ "object": "error", "message": "maximum context length is 512 tokens" }),
            ),
            false => Reply::json(200, &good(request)),
        });
        let mut queue = judge(options(&[&server]));
        let questions = questions(6);
        // After its first answer the server is known to work.
        assert!(ask(&mut queue, &questions[..1]).error.is_none());
        let outcome = ask(&mut queue, &questions[1..]);
        let Said::Judgement(judgement) = &outcome.of(&questions[3]).said else { panic!() };
        let Verdict::Invalid { why } = &judgement.verdict else { panic!() };
        assert_eq!(
            *why,
            format!("the judge's server answers {status} (maximum context length is 512 tokens)")
        );
        assert_eq!((server.requests(), outcome.notes.len()), (12, 0), "{:?}", outcome.notes);
    }
}

#[test]
fn an_endless_answer_is_cut_off() {
    let server = Server::start(|request| match request.before {
        0 => Reply::Answer(200, vec![], vec![b' '; 5 << 20]),
        _ => Reply::json(200, &good(request)),
    });
    let mut queue = judge(options(&[&server]));
    let outcome = ask(&mut queue, &questions(1));
    assert_is_opinion(&questions(1)[0], &outcome.of(&questions(1)[0]).said, "");
    assert!(outcome.notes[0].contains("answers with more than 4.0 MiB"), "{:?}", outcome.notes);
}

#[test]
fn an_answer_with_another_model_name_is_rejected_after_the_right_name() {
    let server = Server::start(|request| {
        let mut answer = good(request);
        if request.before == 0 && chance(5, request.text()) < 0.3 {
            answer = verdict_reply(request, 0.5);
            answer["model"] = json!("another");
        }
        Reply::json(200, &answer)
    });
    // The first answer has the right model name.
    let mut queue = judge(options(&[&server]).concurrency(1));
    let questions = questions(40);
    let first = questions.iter().position(|q| chance(5, &text(&q.pair().unwrap())) >= 0.3).unwrap();
    let questions = &questions[first..];
    let outcome = ask(&mut queue, questions);
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, "seed 5"));
    assert!(server.requests() > 2 * questions.len());
    // A server that never gives the right name causes one note.
    let server = Server::start(|request| {
        let mut answer = good(request);
        answer["model"] = json!("weights.gguf");
        Reply::json(200, &answer)
    });
    let outcome = ask(&mut judge(options(&[&server])), questions);
    assert_eq!(outcome.notes.len(), 1, "{:?}", outcome.notes);
    assert!(
        outcome.notes[0].ends_with("answers as model \"weights.gguf\" when asked for \"judge\""),
        "{:?}",
        outcome.notes
    );
}
