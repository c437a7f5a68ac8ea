//! How answers become verdicts, and how requests are adapted to servers.

use oaif::Task;
use oaif::Wait;
use oaif::unstable::eval::judging::judge_pairs;
use oaif::unstable::judge::ensemble::{Ensemble, Vote};
use oaif::unstable::judge::journal::Journalled;
use oaif::unstable::judge::llm::Orders;
use oaif::unstable::judge::openai::{Api, OpenAi, OpenAiOptions, RatingTemplate, Sources};
use oaif::unstable::judge::queue::{InPlace, JudgeQueue, Said};
use oaif::unstable::judge::rule::Rule;
use oaif::unstable::judge::template::JudgeTemplate;
use oaif::unstable::judge::{Judge, Judgement, Pair, Position, Score, Verdict};
use serde_json::{Value, json};

use crate::judge::*;
use crate::server::{Reply, Server};

fn chat(text: &str) -> Value {
    json!({ "choices": [{ "message": { "content": text } }], "usage": { "prompt_tokens": 9, "completion_tokens": 3 } })
}

#[test]
fn both_orders_are_judged_and_averaged_with_either_api() {
    let questions = questions(20);
    for api in [Api::Chat, Api::Completions] {
        let server = good_server();
        let mut queue = judge(options(&[&server]).api(api));
        let outcome = ask(&mut queue, &questions);
        for question in &questions {
            let answer = outcome.of(question);
            assert_is_opinion(question, &answer.said, api.name());
            assert_eq!(
                (answer.usage.requests, answer.usage.failed, answer.usage.completion_tokens),
                (2, 0, 2)
            );
        }
        assert_eq!(queue.sources(), Sources { log_probabilities: 40, ..Sources::default() });
        assert_eq!((outcome.notes, server.requests()), (Vec::new(), 40));
        let log = server.log.lock().unwrap();
        let (request, ..) = &log.requests[0];
        let (path, body) = (&request.path, &request.body);
        assert_eq!(
            (&body["model"], &body["max_tokens"], &body["temperature"]),
            (&json!("judge"), &json!(1), &json!(0.0))
        );
        match api {
            Api::Chat => {
                assert_eq!((path.as_str(), &body["top_logprobs"]), ("/v1/chat/completions", &json!(20)))
            }
            Api::Completions => {
                assert_eq!((path.as_str(), &body["logprobs"]), ("/v1/completions", &json!(20)))
            }
        }
        assert!(!request.headers.contains_key("authorization"));
    }
}

#[test]
fn one_order_is_one_request() {
    let server = good_server();
    let mut queue = judge(options(&[&server]).orders(Orders::One).system("You judge.".to_owned()));
    let question = &questions(1)[0];
    let outcome = ask(&mut queue, std::slice::from_ref(question));
    let Said::Judgement(judgement) = &outcome.of(question).said else { panic!() };
    assert_eq!((judgement.p_21, server.requests()), (None, 1));
    let log = server.log.lock().unwrap();
    assert_eq!(log.requests[0].0.body["messages"][0], json!({ "role": "system", "content": "You judge." }));
}

#[test]
fn without_log_probabilities_the_text_is_used_with_one_note() {
    // The first answer is cut off after one token.
    let server = Server::start(|request| {
        let said = if opinion(request.text()) > 0.5 { "**1**." } else { "\"2\"" };
        let longest = request.body["max_tokens"].as_u64().unwrap() as usize;
        Reply::json(200, &chat(said.get(..longest.min(said.len())).unwrap()))
    });
    let mut queue = judge(options(&[&server]));
    let questions = questions(30);
    let outcome = ask(&mut queue, &questions);
    for question in &questions {
        let Said::Judgement(judgement) = &outcome.of(question).said else { panic!() };
        assert_eq!(judgement.p_12, Some(expected(question).p_12.unwrap().round()));
    }
    assert_eq!(outcome.notes.len(), 1, "{:?}", outcome.notes);
    assert!(outcome.notes[0].contains("returns no log-probabilities"), "{:?}", outcome.notes);
    assert_eq!(queue.sources(), Sources { texts: 60, ..Sources::default() });
    // At most the first eight requests were sent twice.
    assert!(server.requests() <= 68, "{}", server.requests());
}

#[test]
fn a_parameter_that_a_server_refuses_is_left_out() {
    let server = Server::start(|request| {
        let body = &request.body;
        let refusal = match () {
            () if !request.path.starts_with("/api/v1/") => return Reply::error(404, "Not Found"),
            () if !body["max_tokens"].is_null() => "Use 'max_completion_tokens' instead of 'max_tokens'.",
            () if body["top_logprobs"].as_u64() > Some(5) => {
                "top_logprobs: 20 is greater than max allowed: 5"
            }
            () if !body["temperature"].is_null() => "'temperature' does not support 0.0 with this model.",
            () => return Reply::json(200, &good(request)),
        };
        Reply::error(400, refusal)
    });
    let urls = vec![format!("http://{}/api/", server.address)];
    let mut queue = judge(options(&[&server]).urls(urls));
    let questions = questions(20);
    let outcome = ask(&mut queue, &questions);
    questions.iter().for_each(|question| assert_is_opinion(question, &outcome.of(question).said, ""));
    assert_eq!(queue.sources().log_probabilities, 40);
    assert_eq!(outcome.notes.len(), 1, "{:?}", outcome.notes);
    assert!(outcome.notes[0].contains("does not accept a temperature"), "{:?}", outcome.notes);
}

#[test]
fn an_answer_without_a_verdict_is_invalid_quoted_and_not_requested_again() {
    let server = Server::start(|_| Reply::json(200, &chat(&format!("Both are good\n{}", "é".repeat(200)))));
    let mut queue = judge(options(&[&server]).log_probabilities(false));
    let question = &questions(1)[0];
    let outcome = ask(&mut queue, std::slice::from_ref(question));
    let Said::Judgement(judgement) = &outcome.of(question).said else { panic!() };
    let Verdict::Invalid { why } = &judgement.verdict else { panic!("{judgement:?}") };
    let quoted = format!("Both are good {}…", "é".repeat(66));
    assert!(why.contains(&quoted), "{why}");
    assert_eq!((server.requests(), outcome.of(question).usage.completion_tokens), (2, 6));
}

#[test]
fn reasons_precede_the_verdict_if_the_template_asks_for_them() {
    let server = Server::start(|request| {
        let verdict = if opinion(request.text()) > 0.5 { 1 } else { 2 };
        Reply::json(200, &chat(&format!("Not 1, nor 2.\n\n**Verdict:** {verdict}.")))
    });
    let options = options(&[&server]).reasons(true).max_tokens(77);
    let error = OpenAi::new(options.clone(), template()).unwrap_err().to_string();
    assert!(error.starts_with("judge-template: does not ask for"), "{error}");
    let asking = format!("End with a line \"Verdict: 1\" or \"Verdict: 2\".\n{TEMPLATE}");
    let mut queue = OpenAi::new(options, JudgeTemplate::from_text(&asking).unwrap()).unwrap();
    let questions = questions(5);
    let outcome = ask(&mut queue, &questions);
    for question in &questions {
        let Said::Judgement(judgement) = &outcome.of(question).said else { panic!() };
        assert!(judgement.p_12.is_some() && judgement.verdict.p_first().is_some(), "{judgement:?}");
    }
    assert_eq!(server.log.lock().unwrap().requests[0].0.body["max_tokens"], json!(77));
}

/// Prefers the first of two responses, and records no order.
struct First;

impl Judge for First {
    fn name(&self) -> String {
        "first".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, oaif::Result<Vec<Judgement>>> {
        Box::pin(async move { Ok(pairs.iter().map(|_| Verdict::from_probability(1.0).into()).collect()) })
    }

    fn position(&self) -> Position {
        Position::Untold
    }
}

#[test]
fn an_ensemble_sends_no_request_twice_to_a_server() {
    let questions = questions(20);
    let pairs: Vec<Pair> = questions.iter().filter_map(|question| question.pair()).collect();
    let server = good_server();
    let members: Vec<Box<dyn JudgeQueue>> =
        vec![Box::new(judge(options(&[&server]))), Box::new(InPlace::new(First))];
    let mut queue = Journalled::new(Box::new(Ensemble::new(Vote::Mean, members).unwrap()));
    let verdicts = judge_pairs(&mut queue, &pairs, 7, &mut |_| Ok(())).wait().unwrap();
    assert_eq!((server.requests(), queue.used().requests), (40, 40), "two orders of 20 pairs");
    for (question, verdict) in questions.iter().zip(&verdicts) {
        let [of_server, of_first] = &verdict.votes[..] else { panic!("{verdict:?}") };
        let near = of_server.p_first().unwrap() - expected(question).verdict.p_first().unwrap();
        assert!(near.abs() < 1e-5, "{verdict:?}");
        assert_eq!(*of_first, Verdict::Tie, "the first in both orders");
        assert!(verdict.p_12.unwrap() > verdict.p_21.unwrap(), "{verdict:?}");
    }
}

#[test]
fn a_response_is_rated_by_the_mean_of_one_to_ten_and_two_ratings_compare_a_pair() {
    let server = Server::start(|request| {
        let rating = 1.0 + 8.0 * opinion(request.text());
        let (low, share) = (rating.floor(), rating.fract());
        let top = [(low, 1.0 - share), (low + 1.0, share)]
            .map(|(rating, p)| json!({ "token": format!(" {rating}"), "logprob": p.ln() }));
        let content =
            json!([{ "token": format!(" {low}"), "logprob": (1.0 - share).ln(), "top_logprobs": top }]);
        Reply::json(
            200,
            &json!({ "choices": [{ "message": { "content": "?" }, "logprobs": { "content": content } }] }),
        )
    });
    let rating = RatingTemplate::from_text("{{ prompt }}\n{{ response }}\nRating=").unwrap();
    assert!(!judge(options(&[&server])).rates());
    let options = options(&[&server]).rating(rating).pointwise(true);
    let mut queue = judge(options.clone());
    assert!(queue.rates());
    // All servers rate on the same scale, whatever their models; a rule does not.
    let together = |other: Box<dyn JudgeQueue>| {
        Ensemble::new(Vote::Mean, vec![Box::new(judge(options.clone())), other]).unwrap().rates()
    };
    assert!(together(Box::new(judge(options.clone().model("another")))));
    assert!(!together(Box::new(InPlace::new(Rule::parse("longer").unwrap()))));
    let of = |prompt: &str, response: &str| 1.0 + 8.0 * opinion(&format!("{prompt}\n{response}\nRating="));
    let mut submitted = questions(10);
    submitted.extend((0..10).map(rate));
    let outcome = ask(&mut queue, &submitted);
    for (at, question) in submitted.iter().enumerate() {
        match (&outcome.of(question).said, question.pair()) {
            (Said::Judgement(judgement), Some(pair)) => {
                let margin = of(pair.prompt, pair.response_1) - of(pair.prompt, pair.response_2);
                let p = 1.0 / (1.0 + (-margin).exp());
                assert!(
                    (f64::from(judgement.verdict.p_first().unwrap()) - p).abs() < 1e-4,
                    "{judgement:?} {p}"
                );
                assert_eq!((judgement.p_12, judgement.p_21), (None, None));
            }
            (Said::Score(Score::Value(score)), None) => {
                let expected = of(&format!("prompt {}", at - 10), &format!("response {}", at - 10));
                assert!((f64::from(*score) - expected).abs() < 1e-4, "{score} {expected}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_rating_by_a_judge_that_only_compares_is_invalid() {
    let server = good_server();
    let mut queue = judge(options(&[&server]));
    let outcome = ask(&mut queue, &[rate(0)]);
    assert!(matches!(outcome.of(&rate(0)).said, Said::Score(Score::Invalid { .. })));
}

#[test]
fn the_identity_contains_all_options_that_affect_verdicts_and_no_server() {
    let server = good_server();
    let identity = |change: &dyn Fn(&mut OpenAiOptions)| {
        let mut options = options(&[&server]);
        change(&mut options);
        judge(options).identity().unwrap()
    };
    let base = identity(&|_| {});
    assert_eq!(
        (base["judge"].as_str(), base["judge-model"].as_str(), base["judge-api"].as_str()),
        ("openai", "judge", "chat")
    );
    assert_eq!(
        base,
        identity(&|o| (o.urls, o.retries, o.concurrency) = (vec!["https://example.com".into()], 1, 1))
    );
    type Change<'a> = &'a dyn Fn(&mut OpenAiOptions);
    let changes: [(&str, Change<'_>); 9] = [
        ("judge-model", &|o| o.model = "other".into()),
        ("judge-api", &|o| o.api = Api::Completions),
        ("judge-system", &|o| o.system = Some("s".into())),
        ("judge-orders", &|o| o.orders = Orders::One),
        ("judge-log-probabilities", &|o| o.log_probabilities = false),
        ("judge-ties", &|o| o.ties = true),
        ("judge-temperature", &|o| o.temperature = 1.0),
        ("judge-rating-template", &|o| o.rating = Some(RatingTemplate::builtin())),
        ("judge-pointwise", &|o| (o.pointwise, o.rating) = (true, Some(RatingTemplate::builtin()))),
    ];
    for (name, change) in changes {
        let other = identity(change);
        assert!(base[name] != other[name], "{name}");
    }
}
