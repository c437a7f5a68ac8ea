//! Tests of the server from the side of a browser and of an attacker.

use crate::Wait;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::connections::{CONNECTIONS, SILENCE};
use super::server::MAX_BODY;
use super::*;
use crate::judge::Pair;
use crate::judge::human::{Desk, Human, Order};
use crate::judge::queue::{Answer, JudgeQueue, Question, Said};
use crate::train::StepReport;

const HOSTILE: [&str; 3] =
    ["<script>alert(1)</script>", "</textarea><img src=x onerror=alert(1)>", "a & b &lt; \"c\" 'd'"];

/// A longer wait is a hang.
const HANG: Duration = Duration::from_secs(60);

/// A server with pairs on its desk.
struct Fixture {
    ui: Ui,
    desk: Arc<Desk>,
    human: Human,
    live: Arc<LiveRun>,
    requests: Arc<Requests>,
}

fn question(place: usize) -> Question {
    let (one, two) = (format!("one {place}"), format!("two {place}"));
    Question::compare(
        &format!("{place}-0-1"),
        &Pair { prompt: HOSTILE[place % 3], response_1: &one, response_2: &two },
    )
}

fn fixture_of(desk: Desk, pairs: usize) -> Fixture {
    let desk = Arc::new(desk);
    let mut human = Human::new(desk.clone());
    human.submit((0..pairs).map(question).collect()).unwrap();
    let live = Arc::new(LiveRun::new("A <run>", vec![("model".into(), HOSTILE[0].into())]));
    let requests = Arc::new(Requests::default());
    let served = Served { desk: Some(desk.clone()), live: live.clone(), requests: requests.clone() };
    let ui = Ui::start(&UiOptions::default(), served).unwrap();
    Fixture { ui, desk, human, live, requests }
}

fn fixture(pairs: usize) -> Fixture {
    fixture_of(Desk::new().holding(Duration::ZERO), pairs)
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// Sends a request as written, with line ends converted to CRLF.
fn raw(address: SocketAddr, request: &str, body: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    let request = format!("{}\r\nConnection: close\r\n\r\n", request.trim().replace('\n', "\r\n"));
    // A server that refuses a request may not read all of it.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Response { status, head: head.to_owned(), body: body.to_owned() }
}

/// A browser that has opened the URL and a page.
struct Browser {
    address: SocketAddr,
    cookie: String,
    page: String,
}

impl Browser {
    fn open(ui: &Ui) -> Browser {
        let address = ui.address();
        let path = ui.url().split_once(&address.to_string()).unwrap().1;
        let front = raw(address, &format!("GET {path} HTTP/1.1\nHost: {address}"), "");
        assert_eq!((front.status, front.header("location")), (303, Some("/label")), "{}", front.head);
        let cookie = front.header("set-cookie").unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let mut browser = Browser { address, cookie, page: String::new() };
        let html = browser.get("/label").body;
        let value = html.split_once("name=\"oaif-page\" content=\"").unwrap().1;
        browser.page = value.split('"').next().unwrap().to_owned();
        browser
    }

    fn get(&self, path: &str) -> Response {
        let Browser { address, cookie, .. } = self;
        raw(*address, &format!("GET {path} HTTP/1.1\nHost: {address}\nCookie: {cookie}"), "")
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.post_with(path, &body.to_string(), "")
    }

    fn post_with(&self, path: &str, body: &str, more: &str) -> Response {
        let Browser { address, cookie, page } = self;
        let head = format!(
            "POST {path} HTTP/1.1\nHost: {address}\nOrigin: http://{address}\nCookie: {cookie}\nX-Oaif-Page: {page}\n\
             Content-Type: application/json\nContent-Length: {}\n{more}",
            body.len()
        );
        raw(*address, &head, body)
    }

    fn label(&self, pair: &Value, choice: &str) -> Response {
        let Value::Object(pair) = pair else { panic!("no pair: {pair}") };
        let [id, form, shown_first] = ["id", "form", "shown_first"].map(|name| pair[name].clone());
        let body = json!({"id": id, "form": form, "shown_first": shown_first, "choice": choice, "comment": null, "seconds": 1.5});
        self.post("/api/label", &body)
    }

    fn pair(&self) -> Value {
        self.get("/api/desk").json()["pair"].clone()
    }

    /// Reads events until one has the given name.
    fn events(&self) -> impl FnMut(&str) -> String + use<> {
        let Browser { address, cookie, .. } = self;
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        move |name| {
            let wanted = format!("event: {name}");
            lines.by_ref().map(Result::unwrap).find(|line| *line == wanted).expect("an event");
            lines.next().unwrap().unwrap().strip_prefix("data: ").unwrap().to_owned()
        }
    }
}

fn verdict(answer: &Answer) -> String {
    let Said::Judgement(judgement) = &answer.said else { panic!("{answer:?}") };
    judgement.verdict.label().to_owned()
}

#[test]
fn without_the_token_or_with_a_wrong_one_everything_is_refused() {
    let Fixture { ui, .. } = &fixture(1);
    let address = ui.address();
    let wrong = "0".repeat(32);
    for path in ["/", "/label", "/run", "/files/page.js", "/api/desk", "/api/run", "/api/events", "/none"] {
        for request in [path.to_owned(), format!("{path}?token={wrong}")] {
            let response = raw(address, &format!("GET {request} HTTP/1.1\nHost: {address}"), "");
            assert_eq!(response.status, 403, "{request}");
            assert!(response.body.contains("needs the address that oaif printed"), "{}", response.body);
        }
        let forged = format!("GET {path} HTTP/1.1\nHost: {address}\nCookie: oaif-{}={wrong}", address.port());
        assert_eq!(raw(address, &forged, "").status, 403);
    }
    // The token is not accepted as the cookie, either.
    let token = ui.url().split_once('=').unwrap().1;
    let stolen = format!("GET /run HTTP/1.1\nHost: {address}\nCookie: oaif-{}={token}", address.port());
    assert_eq!((raw(address, &stolen, "").status, token.len()), (403, 32));
    assert_eq!(Browser::open(ui).get("/run").status, 200);
}

#[test]
fn a_foreign_host_is_refused_even_with_the_cookie() {
    let Fixture { ui, .. } = &fixture(1);
    let Browser { address, cookie, .. } = Browser::open(ui);
    let port = address.port();
    let from =
        |host: String| raw(address, &format!("GET /run HTTP/1.1\nHost: {host}\nCookie: {cookie}"), "").status;
    assert_eq!(
        [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")].map(from),
        [200; 3]
    );
    assert_eq!(
        [format!("evil.example:{port}"), "localhost".into(), format!("127.0.0.1:{}", port ^ 1)].map(from),
        [403; 3]
    );
    let path = ui.url().split_once(&address.to_string()).unwrap().1;
    assert_eq!(
        raw(address, &format!("GET {path} HTTP/1.1\nHost: evil.example"), "").status,
        403,
        "with the token, too"
    );
}

#[test]
fn a_change_from_another_site_or_without_the_pages_value_is_refused() {
    let Fixture { ui, desk, requests, .. } = &fixture(1);
    let Browser { address, cookie, page } = Browser::open(ui);
    let body = r#"{"wish":"stop"}"#;
    let post = |headers: &str| {
        let head = format!(
            "POST /api/request HTTP/1.1\nHost: {address}\nCookie: {cookie}\nContent-Type: application/json\nContent-Length: {}\n{headers}",
            body.len()
        );
        raw(address, &head, body)
    };
    let value = format!("X-Oaif-Page: {page}");
    for headers in [
        format!("Origin: http://evil.example\n{value}"),
        format!("Origin: null\n{value}"),
        format!("Origin: https://{address}\n{value}"),
        format!("Origin: http://{address}\nSec-Fetch-Site: cross-site\n{value}"),
        format!("Sec-Fetch-Site: same-site\n{value}"),
        value.clone(),
        format!("Origin: http://{address}"),
        format!("Origin: http://{address}\nX-Oaif-Page: {}", "0".repeat(32)),
    ] {
        let response = post(&headers);
        assert_eq!((response.status, response.header("content-length").is_some()), (403, true), "{headers}");
    }
    assert!(!requests.stops());
    assert_eq!(desk.view(None).counts.given, 0);
    assert_eq!(post(&format!("Sec-Fetch-Site: same-origin\n{value}")).status, 200);
    assert!(requests.stops());
}

#[test]
fn reading_a_route_that_changes_something_is_refused() {
    let Fixture { ui, .. } = &fixture(1);
    let browser = Browser::open(ui);
    for path in ["/api/label", "/api/undo", "/api/comment", "/api/request"] {
        let response = browser.get(path);
        assert_eq!((response.status, response.header("allow")), (405, Some("POST")), "{path}");
    }
    assert_eq!(browser.post("/api/run", &json!({})).status, 405);
}

#[test]
fn an_oversized_or_unusable_body_is_refused() {
    let Fixture { ui, desk, .. } = &fixture(1);
    let browser = Browser::open(ui);
    let pair = browser.pair();
    let long = json!({"id": pair["id"], "form": pair["form"], "comment": "x".repeat(MAX_BODY)}).to_string();
    assert_eq!(browser.post_with("/api/comment", &long, "").status, 413);
    let comment = |text: String| {
        browser.post("/api/comment", &json!({"id": pair["id"], "form": pair["form"], "comment": text}))
    };
    assert_eq!(comment("é".repeat(4_000)).status, 200);
    assert_eq!(comment("é".repeat(4_001)).status, 422);
    for body in ["", "{", "[]", "{}", r#"{"wish":"burn"}"#, r#"{"wish":"stop","more":1}"#] {
        let response = browser.post_with("/api/request", body, "");
        assert!([400, 422].contains(&response.status), "{body}: {}", response.status);
        assert!(
            response.json()["error"].as_str().unwrap().starts_with("The request is invalid"),
            "{}",
            response.body
        );
    }
    assert_eq!(desk.view(None).counts.given, 0);
    assert_eq!(browser.get(&format!("/{}", "x".repeat(1 << 20))).status, 431, "a URL that is too long");
}

#[test]
fn every_answer_has_the_security_headers() {
    let Fixture { ui, .. } = &fixture(1);
    let browser = Browser::open(ui);
    let refused = raw(ui.address(), &format!("GET / HTTP/1.1\nHost: {}", ui.address()), "");
    let pages = ["/label", "/run", "/files/ui.css", "/files/label.js", "/api/run", "/none", "/files/none"]
        .map(|path| browser.get(path));
    for response in pages.iter().chain([&refused]) {
        let policy = response.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        let header = |name| response.header(name).unwrap();
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
}

#[test]
fn pages_load_nothing_from_elsewhere_and_have_no_inline_script_or_style() {
    let Fixture { ui, .. } = &fixture(1);
    let browser = Browser::open(ui);
    for page in ["/label", "/run"] {
        let html = browser.get(page).body;
        assert!(!html.contains("<style") && !html.contains(" style="), "{page}");
        let handlers = html
            .match_indices(" on")
            .filter(|(at, _)| html[at + 3..].trim_start_matches(char::is_alphabetic).starts_with('='));
        assert_eq!(handlers.count(), 0, "{page}");
        for part in html.split("<script").skip(1) {
            assert!(part.starts_with(" type=\"module\" src=\"/files/"), "{part}");
        }
        let links =
            html.split("href=\"").chain(html.split("src=\"")).skip(1).filter(|link| link.starts_with('/'));
        for link in
            links.map(|link| link.split('"').next().unwrap()).filter(|link| link.starts_with("/files/"))
        {
            let file = browser.get(link);
            assert_eq!(file.status, 200, "{link}");
            let elsewhere = file.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{link}");
            assert!(!file.body.contains("innerHTML") && !file.body.contains("insertAdjacentHTML"), "{link}");
        }
    }
}

#[test]
fn untrusted_texts_are_never_part_of_the_html() {
    let Fixture { ui, live, .. } = &fixture(3);
    live.warning(HOSTILE[1]);
    let browser = Browser::open(ui);
    for page in ["/label", "/run"] {
        assert!(HOSTILE.iter().all(|text| !browser.get(page).body.contains(text)));
    }
    let desk = browser.get("/api/desk");
    assert_eq!(desk.header("content-type"), Some("application/json"));
    assert_eq!(desk.json()["pair"]["prompt"], HOSTILE[0], "they are sent unchanged as JSON");
    let run = browser.get("/api/run").json();
    assert_eq!((&run["warnings"][0]["text"], &run["facts"][0][1]), (&json!(HOSTILE[1]), &json!(HOSTILE[0])));
}

#[test]
fn a_label_from_a_page_reaches_its_pair() {
    let Fixture { ui, human, .. } = &mut fixture(12);
    let browser = Browser::open(ui);
    let mut expected = Vec::new();
    for i in 0..12 {
        let pair = browser.pair();
        let one_first = pair["first"].as_str().unwrap().starts_with("one");
        let choice = ["first", "second", "tie", "skip"][i % 4];
        assert_eq!(browser.label(&pair, choice).status, 200);
        let verdict = match (choice, one_first) {
            ("first", true) | ("second", false) => "1",
            ("first", false) | ("second", true) => "2",
            ("tie", _) => "tie",
            _ => "invalid",
        };
        expected.push((pair["id"].as_str().unwrap().to_owned(), verdict.to_owned()));
    }
    let answers = human.poll(Duration::ZERO).wait().unwrap().answers;
    let found: Vec<(String, String)> =
        answers.iter().map(|answer| (answer.id.clone(), verdict(answer))).collect();
    assert_eq!(found, expected);
    assert_eq!(answers[0].ms, 1_500.0);
    let counts = browser.get("/api/desk").json()["counts"].clone();
    assert_eq!((&counts["given"], &counts["ties"], &counts["skipped"]), (&json!(12), &json!(3), &json!(3)));
}

#[test]
fn two_pages_stay_in_sync_and_a_label_given_in_one_is_stale_in_the_other() {
    let Fixture { ui, .. } = &fixture(2);
    let (one, two) = (Browser::open(ui), Browser::open(ui));
    let pair = one.pair();
    assert_eq!(pair, two.pair());
    let mut next_event = two.events();
    let first: Value = serde_json::from_str(&next_event("change")).unwrap();
    assert_eq!(one.label(&pair, "first").status, 200);
    let next: Value = serde_json::from_str(&next_event("change")).unwrap();
    assert!(next["desk"].as_u64() > first["desk"].as_u64(), "{first} {next}");
    let refused = two.label(&pair, "second");
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (409, Some("This pair already has a label, so this one was not saved."))
    );
    let path = format!("/api/desk?form={}", pair["form"]);
    assert_ne!(two.get(&path).json()["pair"]["id"], pair["id"], "it is gone from the other page");
    assert_eq!(two.pair(), one.pair());
}

#[test]
fn an_undone_pair_gets_a_new_form_and_the_old_one_is_refused() {
    let Fixture { ui, desk, .. } = &fixture_of(Desk::new(), 2);
    let browser = Browser::open(ui);
    let pair = browser.pair();
    let after = browser.label(&pair, "first").json();
    assert_eq!(after["last"], json!({"id": pair["id"], "choice": "first", "undoable": true}));
    let undone = browser.post("/api/undo", &json!({"id": pair["id"]}));
    let again = undone.json()["pair"].clone();
    assert_eq!((undone.status, &again["id"]), (200, &pair["id"]));
    assert_eq!(browser.label(&pair, "second").status, 409);
    assert_eq!(browser.label(&again, "second").status, 200);
    assert_eq!(desk.view(None).counts.given, 1);
    let stale = browser.post("/api/undo", &json!({"id": "7-0-1-00"}));
    assert_eq!(
        (stale.status, stale.json()["error"].as_str()),
        (409, Some("Another label was given since, so nothing was undone."))
    );
}

#[test]
fn after_a_kill_the_labels_are_restored_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.jsonl");
    let before = fixture_of(Desk::open(&path).unwrap(), 3);
    let browser = Browser::open(&before.ui);
    let pair = browser.pair();
    browser.label(&pair, "tie");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"id\":").unwrap();
    // Simulates a kill: no destructors run.
    std::mem::forget(before);

    let mut after = fixture_of(Desk::open(&path).unwrap(), 3);
    let answers = after.human.poll(Duration::ZERO).wait().unwrap().answers;
    assert_eq!(
        (answers.len(), answers[0].id.as_str(), verdict(&answers[0]).as_str()),
        (1, pair["id"].as_str().unwrap(), "tie")
    );
    let old = Browser { address: after.ui.address(), ..browser };
    let refused = old.label(&pair, "first");
    assert_eq!(refused.status, 403, "the old cookie is not accepted");
    assert!(refused.body.contains("It changes with every start"), "{}", refused.body);
    let counts = Browser::open(&after.ui).get("/api/desk").json()["counts"].clone();
    assert_eq!((&counts["open"], &counts["given"]), (&json!(2), &json!(1)));
}

#[test]
fn steps_and_the_end_of_the_run_are_sent_as_events() {
    let Fixture { ui, live, requests, human, .. } = fixture(1);
    let browser = Browser::open(&ui);
    let mut next_event = browser.events();
    next_event("change");
    live.step(&StepReport { step: 7, total_steps: 9, loss: Some(0.25), ..StepReport::default() });
    next_event("change");
    let run = browser.get("/api/run").json();
    assert_eq!(
        (&run["step"], &run["loss"], &run["curves"]["loss"]),
        (&json!(7), &json!(0.25), &json!([[7.0, 0.25]]))
    );
    for (wish, flag) in [("pause", &requests.pause), ("save", &requests.save), ("stop", &requests.stop)] {
        assert_eq!(browser.post("/api/request", &json!({ "wish": wish })).json()[wish], true);
        assert!(flag.load(std::sync::atomic::Ordering::Relaxed), "{wish}");
    }
    next_event("change");
    browser.post("/api/request", &json!({"wish": "resume"}));
    assert!(!requests.pauses());
    live.end("The model is in run/model.");
    drop((ui, human));
    let end: Value = serde_json::from_str(&next_event("end")).unwrap();
    assert_eq!((&end["outcome"], &end["step"]), (&json!("The model is in run/model."), &json!(7)));
}

#[test]
fn the_thread_ends_soon_after_the_drop_despite_open_connections() {
    let Fixture { ui, human, .. } = fixture(1);
    let browser = Browser::open(&ui);
    let mut next_event = browser.events();
    next_event("change");
    // A client that sends many requests and reads nothing.
    let mut deaf = TcpStream::connect(ui.address()).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let Browser { address, cookie, .. } = &browser;
    let request = format!("GET /files/report.css HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
    while deaf.write_all(request.as_bytes()).is_ok() {}
    // A client that has sent half a request.
    let mut idle = TcpStream::connect(ui.address()).unwrap();
    idle.write_all(b"POST /api/label HTTP/1.1\r\n").unwrap();
    let address = ui.address();
    let started = Instant::now();
    drop(ui);
    // Otherwise the connections are closed only after their time of silence.
    assert!(started.elapsed() < SILENCE * 3 / 4, "{:?}", started.elapsed());
    assert!(TcpStream::connect_timeout(&address, HANG).is_err());
    drop(human);
}

#[test]
fn connections_above_the_limit_wait_for_room() {
    let Fixture { ui, human, .. } = fixture(1);
    let browser = Browser::open(&ui);
    let crowd: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(ui.address()).unwrap()).collect();
    let Browser { address, cookie, .. } = &browser;
    let mut last = TcpStream::connect(address).unwrap();
    let request =
        format!("GET /run HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    last.write_all(request.as_bytes()).unwrap();
    last.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(last.read(&mut [0; 1]).is_err(), "there is no room");
    drop(crowd);
    last.set_read_timeout(Some(HANG)).unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop((ui, human));
}

#[test]
fn a_port_in_use_and_an_address_of_no_interface_are_refused() {
    let Fixture { ui, live, requests, .. } = &fixture(0);
    let served = || Served { desk: None, live: live.clone(), requests: requests.clone() };
    let refused = |options: UiOptions| Ui::start(&options, served()).err().expect("an error").to_string();
    let taken = refused(UiOptions { port: Some(ui.address().port()), address: None });
    assert!(
        taken.starts_with("port: cannot listen on 127.0.0.1:") && taken.contains("choose another"),
        "{taken}"
    );
    let any = refused(UiOptions { port: None, address: Some("0.0.0.0".parse().unwrap()) });
    assert!(any.contains("not the address of one interface"), "{any}");
    let foreign = refused(UiOptions { port: None, address: Some("192.0.2.1".parse().unwrap()) });
    assert!(foreign.starts_with("address: 192.0.2.1 is not an address of this machine"), "{foreign}");
}

#[test]
fn without_a_person_as_judge_there_is_no_label_page() {
    let Fixture { live, requests, .. } = fixture(0);
    let ui = Ui::start(&UiOptions::default(), Served { desk: None, live, requests }).unwrap();
    let address = ui.address();
    let path = ui.url().split_once(&address.to_string()).unwrap().1;
    let front = raw(address, &format!("GET {path} HTTP/1.1\nHost: {address}"), "");
    assert_eq!(front.header("location"), Some("/run"));
    let cookie = front.header("set-cookie").unwrap().split(';').next().unwrap();
    let get =
        |path: &str| raw(address, &format!("GET {path} HTTP/1.1\nHost: {address}\nCookie: {cookie}"), "");
    assert_eq!(get("/label").header("location"), Some("/run"));
    assert_eq!(get("/api/desk").status, 404);
}

#[test]
fn a_page_shows_the_order_that_the_id_determines() {
    let Fixture { ui, .. } = &fixture(1);
    let pair = Browser::open(ui).pair();
    let order = Order::of(pair["id"].as_str().unwrap());
    assert_eq!(pair["shown_first"], order.shown_first());
    assert_eq!(pair["first"], if order.swapped { "two 0" } else { "one 0" });
}
