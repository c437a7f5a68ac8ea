//! A simulated judge with a known opinion of each text, and questions for it.

use std::path::Path;
use std::time::{Duration, Instant};

use oaif::Wait;
use oaif::unstable::judge::journal::Journalled;
use oaif::unstable::judge::openai::{Key, OpenAi, OpenAiOptions};
use oaif::unstable::judge::queue::{Answer, Ask, JudgeQueue, Question, Said};
use oaif::unstable::judge::template::JudgeTemplate;
use oaif::unstable::judge::{Judgement, Pair};
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server};

/// A number from 0 to 1 that depends on the whole text (FNV-1a, mixed).
pub fn chance(seed: u64, text: &str) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash >> 40) as f64 / (1u64 << 24) as f64
}

/// The judge's opinion of a text: the probability of "1".
pub fn opinion(text: &str) -> f64 {
    0.02 + 0.96 * chance(0, text)
}

pub const TEMPLATE: &str = "Q {{ prompt }}\n1 {{ response_1 }}\n2 {{ response_2 }}\nBetter=";

pub fn template() -> JudgeTemplate {
    JudgeTemplate::from_text(TEMPLATE).unwrap()
}

/// The text that the judge reads.
pub fn text(pair: &Pair<'_>) -> String {
    template().render(pair).unwrap()
}

/// A good answer in the format of the requested endpoint.
pub fn good(request: &Request) -> Value {
    verdict_reply(request, opinion(request.text()))
}

/// The answer of a judge that says "1" with probability p, and otherwise "2".
pub fn verdict_reply(request: &Request, p: f64) -> Value {
    let (said, logp) = if p > 0.5 { (" 1", p.ln()) } else { ("2", (1.0 - p).ln()) };
    let with_logprobs = request.body["logprobs"] != Value::Null;
    let usage = json!({ "prompt_tokens": request.text().len(), "completion_tokens": 1 });
    let (id, model) = (format!("x-{}", request.headers["x-request-id"]), &request.body["model"]);
    if request.path.ends_with("/chat/completions") {
        let top = [(" 1", p.ln()), ("2", (1.0 - p).ln())]
            .map(|(token, logp)| json!({ "token": token, "logprob": logp }));
        let content = json!([{ "token": said, "logprob": logp, "top_logprobs": top }]);
        let logprobs = if with_logprobs { json!({ "content": content }) } else { Value::Null };
        let choice =
            json!({ "index": 0, "message": { "role": "assistant", "content": said }, "logprobs": logprobs });
        return json!({ "id": id, "object": "chat.completion", "model": model, "choices": [choice], "usage": usage });
    }
    let top = json!([{ " 1": p.ln(), "2": (1.0 - p).ln() }]);
    let logprobs = json!({ "tokens": [said], "token_logprobs": [logp], "top_logprobs": top });
    let logprobs = if with_logprobs { logprobs } else { Value::Null };
    let choice = json!({ "index": 0, "text": said, "logprobs": logprobs });
    json!({ "id": id, "object": "text_completion", "model": model, "choices": [choice], "usage": usage })
}

/// A server that always gives good answers.
pub fn good_server() -> Server {
    Server::start(|request| Reply::json(200, &good(request)))
}

/// Options for fast tests.
pub fn options(servers: &[&Server]) -> OpenAiOptions {
    OpenAiOptions::default()
        .model("judge")
        .urls(servers.iter().map(|server| server.url()).collect::<Vec<_>>())
        .backoff(Duration::from_millis(4))
        .break_for(Duration::from_millis(20))
        .timeout(Duration::from_secs(30))
        .patience(Duration::from_secs(10))
}

/// A key read from a file, as in real options.
pub fn key(dir: &Path, text: &str) -> Option<Key> {
    let path = dir.join("key");
    std::fs::write(&path, text).unwrap();
    let key = Key::from_file(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    Some(key)
}

/// `count` questions, each about a different pair.
pub fn questions(count: usize) -> Vec<Question> {
    (0..count)
        .map(|at| {
            let (prompt, response_1, response_2) =
                (format!("prompt {at}"), format!("first {at}"), format!("second {at}"));
            Question::compare(
                "t",
                &Pair { prompt: &prompt, response_1: &response_1, response_2: &response_2 },
            )
        })
        .collect()
}

/// The judge's opinion on a question.
pub fn expected(question: &Question) -> Judgement {
    let pair = question.pair().unwrap();
    Judgement::from_orders(
        Some(opinion(&text(&pair)) as f32),
        Some(1.0 - opinion(&text(&pair.swapped())) as f32),
    )
}

#[track_caller]
pub fn assert_is_opinion(question: &Question, said: &Said, context: &str) {
    let Said::Judgement(judgement) = said else { panic!("{context}: {said:?}") };
    let expected = expected(question);
    let found = judgement.verdict.p_first().unwrap_or_else(|| panic!("{context}: {judgement:?}"));
    assert!(
        (found - expected.verdict.p_first().unwrap()).abs() < 1e-5,
        "{context}: {judgement:?}, expected {expected:?}"
    );
    assert!((judgement.p_12.unwrap() - expected.p_12.unwrap()).abs() < 1e-5, "{context}: {judgement:?}");
}

pub fn judge(options: OpenAiOptions) -> OpenAi {
    OpenAi::new(options, template()).unwrap()
}

/// All answers until all `questions` were answered, or the error.
pub struct Outcome {
    pub answers: Vec<Answer>,
    pub notes: Vec<String>,
    pub error: Option<String>,
}

impl Outcome {
    /// The answer to a question.
    #[track_caller]
    pub fn of(&self, question: &Question) -> &Answer {
        let mut found = self.answers.iter().filter(|answer| answer.id == question.id);
        let answer = found
            .next()
            .unwrap_or_else(|| panic!("no answer to {}, {:?} {:?}", question.id, self.error, self.notes));
        assert!(found.next().is_none(), "two answers to {}", question.id);
        answer
    }
}

/// Submits the questions and waits for the answers.
pub fn ask(queue: &mut OpenAi, questions: &[Question]) -> Outcome {
    queue.submit(questions.to_vec()).unwrap();
    collect(questions.len(), |patience| queue.poll(patience).wait())
}

/// The same through a journal.
pub fn ask_journalled(queue: &mut Journalled<'_>, questions: &[Question]) -> Outcome {
    queue.submit(questions.to_vec()).unwrap();
    collect(questions.len(), |patience| queue.poll(patience).wait())
}

fn collect(
    count: usize,
    mut poll: impl FnMut(Duration) -> oaif::unstable::error::Result<oaif::unstable::judge::queue::Polled>,
) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome { answers: Vec::new(), notes: Vec::new(), error: None };
    while outcome.answers.len() < count {
        assert!(started.elapsed() < Duration::from_secs(120), "timed out: {:?}", outcome.notes);
        match poll(Duration::from_secs(1)) {
            Ok(polled) => {
                outcome.answers.extend(polled.answers);
                outcome.notes.extend(polled.notes);
            }
            Err(error) => {
                outcome.error = Some(error.to_string());
                break;
            }
        }
    }
    outcome
}

/// The rating of a response.
pub fn rate(at: usize) -> Question {
    Question::new("r", &format!("prompt {at}"), Ask::Rate { response: format!("response {at}") })
}
