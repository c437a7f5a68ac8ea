//! The key is sent only to its server and appears nowhere else.

use std::time::Duration;

use oaif::Wait;
use oaif::unstable::judge::journal::Journalled;
use oaif::unstable::judge::openai::{OpenAi, OpenAiOptions};
use oaif::unstable::judge::queue::JudgeQueue;
use serde_json::json;

use crate::judge::*;
use crate::server::{Reply, Server};

const SECRET: &str = "sk-very-secret-0123456789";

#[test]
fn the_key_is_in_no_file_and_no_message_whatever_a_server_answers() {
    let escaped: String = SECRET.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let ways = 14;
    let server = Server::start(move |request| {
        let secret = request.secret();
        assert_eq!(secret, SECRET);
        let padded = |length: usize| format!("{}{secret}", "x".repeat(length));
        let way = (chance(6, request.text()) * f64::from(ways)) as u32;
        match (way, request.before) {
            // Invalid verdicts quote the first 80 characters; the key must not appear even if the cut splits it.
            (0, _) => Reply::json(
                200,
                &json!({ "choices": [{ "message": { "content": format!("key {secret}") } }] }),
            ),
            (1, _) => Reply::json(200, &json!({ "choices": [{ "message": { "content": padded(70) } }] })),
            (2, _) => Reply::Answer(
                200,
                vec![],
                format!(r#"{{"choices":[{{"message":{{"content":"{escaped}"}}}}]}}"#).into(),
            ),
            (3, _) => Reply::error(400, &format!("bad request with Authorization: Bearer {secret}")),
            (4, _) => Reply::Answer(422, vec![], format!(r#"{{"error":{{"message":"{escaped}"}}}}"#).into()),
            (5, _) => Reply::error(400, &padded(290)),
            (6, 0) => Reply::error(500, &format!("trace: {secret}")),
            (7, 0) => Reply::Answer(200, vec![], format!("<html>{}", padded(65)).into()),
            (8, 0) => Reply::Answer(200, vec![], format!("{{\"{secret}").into()),
            (9, 0) => Reply::Answer(429, vec![("X-Key", secret.clone())], secret.into()),
            (10, 0) => Reply::json(200, &json!({ "object": secret, "choices": [] })),
            (11, 0) => Reply::json(200, &json!({ "error": { secret.clone(): secret } })),
            (12, 0) => Reply::Raw(format!("HTTP/1.1 {secret}\r\n\r\n").into()),
            (13, 0) => {
                let mut answer = good(request);
                answer["model"] = json!(secret);
                Reply::json(200, &answer)
            }
            _ => Reply::json(200, &good(request)),
        }
    });
    let refusing = |status: u16| {
        Server::start(move |request| {
            Reply::error(status, &format!("Incorrect API key: {}", request.secret()))
        })
    };
    let redirecting = Server::start(|request| {
        Reply::Answer(307, vec![("Location", format!("http://{}.localhost:1/v1", request.secret()))], vec![])
    });
    let servers = [&server, &refusing(401), &refusing(403), &redirecting];
    let dir = tempfile::tempdir().unwrap();
    let options = options(&servers)
        .key(key(dir.path(), SECRET))
        .cache(dir.path().join("cache"))
        .retries(2)
        .log_probabilities(false);
    let mut searched = format!("{options:?}");
    for urls in [options.urls.clone(), options.urls[1..3].to_vec()] {
        let queue = judge(options.clone().urls(urls).patience(Duration::from_secs(2)));
        searched += &format!("{queue:?} {:?} {}", queue.identity().unwrap(), queue.name());
        let mut queue = Journalled::new(Box::new(queue));
        queue.open(&dir.path().join("journal.jsonl")).unwrap();
        let questions = questions(60);
        let outcome = ask_journalled(&mut queue, &questions);
        searched += &format!("{:?} {:?} {:?}", outcome.answers, outcome.notes, outcome.error);
    }
    for file in ["journal.jsonl", "cache/judgements.jsonl"] {
        searched += &std::fs::read_to_string(dir.path().join(file)).unwrap();
    }
    assert!(searched.contains("(key)") && searched.contains("Incorrect API key"), "{searched}");
    assert!(searched.contains("trace: (key)") || searched.contains("Bearer (key)"), "{searched}");
    // Not even a part of it.
    for part in [SECRET, &SECRET[..8], &SECRET[12..], "7365637265"] {
        assert!(!searched.contains(part), "{part} is in {searched}");
    }
    println!("{} characters were searched", searched.len());
}

#[test]
fn a_redirect_does_not_send_the_key_to_another_server() {
    let other = good_server();
    let away = format!("{}/chat/completions", other.url());
    let server = Server::start(move |request| match request.path.as_str() {
        "/v1/chat/completions" => {
            Reply::Answer(307, vec![("Location", "/moved/chat/completions".into())], vec![])
        }
        _ if request.text().contains("prompt 0\n") => {
            Reply::Answer(308, vec![("Location", away.clone())], vec![])
        }
        _ => Reply::json(200, &good(request)),
    });
    let dir = tempfile::tempdir().unwrap();
    let mut queue = judge(options(&[&server]).key(key(dir.path(), SECRET)));
    let questions = questions(5);
    let outcome = ask(&mut queue, &questions);
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    assert!(server.log.lock().unwrap().requests.iter().all(|(request, ..)| request.secret() == SECRET));
    let log = other.log.lock().unwrap();
    assert_eq!(log.requests.len(), 2);
    assert!(log.requests.iter().all(|(request, ..)| !request.headers.contains_key("authorization")));
}

/// The redirecting server works; the target of the redirect does not.
#[test]
fn an_error_after_a_redirect_names_the_target() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refusing = Server::start(|_| Reply::error(403, "go away"));
    for (away, why) in [
        (format!("http://{gone}/v1/chat/completions"), "which cannot be reached"),
        (format!("{}/chat/completions", refusing.url()), "which answers 403 (go away)"),
    ] {
        let place = away.split("/v1").next().unwrap().to_owned();
        let server = Server::start(move |_| Reply::Answer(307, vec![("Location", away.clone())], vec![]));
        let impatient = options(&[&server]).patience(Duration::from_millis(300));
        let error = ask(&mut judge(impatient), &questions(1)).error.unwrap();
        assert!(error.contains(&format!("redirects to {place}, {why}")), "{error}");
    }
}

#[test]
fn an_endless_redirect_is_not_followed() {
    let server =
        Server::start(|_| Reply::Answer(307, vec![("Location", "/v1/chat/completions".into())], vec![]));
    let error = ask(&mut judge(options(&[&server])), &questions(1)).error.unwrap();
    assert!(error.contains("redirects more than 3 times"), "{error}");
}

#[test]
fn an_unencrypted_key_gives_a_warning_and_an_address_with_a_password_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let with = |url: &str, key| {
        OpenAi::new(OpenAiOptions::default().model("m").urls(vec![url.into()]).key(key), template())
    };
    let mut queue = with("http://judge.example:8000/v1", key(dir.path(), SECRET)).unwrap();
    let notes = queue.poll(Duration::ZERO).wait().unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("http://judge.example:8000 unencrypted"), "{notes:?}");
    for (url, key) in [
        ("http://judge.example/v1", None),
        ("https://judge.example/v1", key(dir.path(), SECRET)),
        ("http://[::1]/v1", key(dir.path(), SECRET)),
    ] {
        assert!(with(url, key).unwrap().poll(Duration::ZERO).wait().unwrap().notes.is_empty(), "{url}");
    }
    let error = with("https://me:hunter2@judge.example/v1", None).unwrap_err();
    assert!(
        error.to_string().starts_with("judge-url: contains a user name or password")
            && !format!("{error:?}").contains("hunter2"),
        "{error}"
    );
}
