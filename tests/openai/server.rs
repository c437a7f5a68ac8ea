//! A test server on `std::net` alone: it does what a test requests, including misbehaviour.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Value,
    /// The number of earlier requests with the same text.
    pub before: u32,
}

impl Request {
    /// The prompt for the judge.
    pub fn text(&self) -> &str {
        let chat = self.body["messages"].as_array().and_then(|messages| messages.last());
        chat.map_or(&self.body["prompt"], |message| &message["content"]).as_str().unwrap_or_default()
    }

    /// The secret that the server received.
    pub fn secret(&self) -> String {
        self.headers
            .get("authorization")
            .map(|value| value.trim_start_matches("Bearer ").to_owned())
            .unwrap_or_default()
    }
}

/// The reaction to a request.
pub enum Reply {
    /// Status, headers and body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes; then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing for this duration, then the other reply.
    After(Duration, Box<Reply>),
}

impl Reply {
    pub fn json(status: u16, body: &Value) -> Reply {
        Reply::Answer(status, Vec::new(), body.to_string().into_bytes())
    }

    pub fn error(status: u16, message: &str) -> Reply {
        Reply::json(status, &json!({ "error": { "message": message } }))
    }
}

/// A log of the requests.
#[derive(Default)]
pub struct Log {
    /// Requests, their times, and the status of their answers (0: none).
    pub requests: Vec<(Request, Instant, u16)>,
    asked: HashMap<String, u32>,
}

impl Log {
    /// The number of answers by status.
    pub fn statuses(&self) -> HashMap<u16, usize> {
        let mut counts = HashMap::new();
        self.requests.iter().for_each(|(.., status)| *counts.entry(*status).or_default() += 1);
        counts
    }
}

/// A running server; it stops when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub log: Arc<Mutex<Log>>,
    /// The maximum number of concurrent requests.
    pub busiest: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    listening: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Server {
    pub fn start(behave: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_at("127.0.0.1:0".parse().unwrap(), behave)
    }

    pub fn start_at(
        address: SocketAddr,
        behave: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, stop, busiest) = (
            Arc::new(Mutex::new(Log::default())),
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let shared = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&busiest));
        let (behave, busy) = (Arc::new(behave), Arc::new(AtomicUsize::new(0)));
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.1.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), behave, busy, (log, stop, busiest)) =
                    (stream, behave.clone(), busy.clone(), shared.clone())
                else {
                    continue;
                };
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(mut request) = read(&mut reader, &stop) {
                        busiest.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let came = Instant::now();
                        {
                            let mut log = log.lock().unwrap();
                            let count = log.asked.entry(request.text().to_owned()).or_default();
                            request.before = *count;
                            *count += 1;
                        }
                        let reply = behave(&request);
                        busy.fetch_sub(1, Ordering::SeqCst);
                        if stop.load(Ordering::SeqCst) {
                            return;
                        }
                        // Log the request before the answer, so that a client with the answer finds it in the log.
                        log.lock().unwrap().requests.push((request, came, status(&reply)));
                        if !answer(&stream, reply) {
                            return;
                        }
                    }
                });
            }
        });
        Server { address, log, busiest, stop, listening: Mutex::new(Some(listening)) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn requests(&self) -> usize {
        self.log.lock().unwrap().requests.len()
    }

    /// Stops the server: new connections are refused and existing ones are cut.
    pub fn kill(&self) {
        if !self.stop.swap(true, Ordering::SeqCst) && TcpStream::connect(self.address).is_ok() {
            // The port is free once the thread has ended.
            let listening = self.listening.lock().unwrap().take();
            let _ = listening.map(thread::JoinHandle::join);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn status(reply: &Reply) -> u16 {
    match reply {
        Reply::Answer(status, ..) => *status,
        Reply::Raw(_) => 0,
        Reply::After(_, reply) => status(reply),
    }
}

/// The next request; `None` at the end of the connection or of the server.
fn read(reader: &mut BufReader<TcpStream>, stop: &AtomicBool) -> Option<Request> {
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    loop {
        match reader.fill_buf() {
            Ok([]) => return None,
            Ok(_) => break,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
        if stop.load(Ordering::SeqCst) {
            return None;
        }
    }
    reader.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut line = String::new();
    let mut next = || {
        line.clear();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let path = next()?.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    while let Some(header) = next().filter(|line| !line.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: serde_json::from_slice(&body).ok()?, before: 0 })
}

/// Sends the reply; returns whether the connection stays open.
fn answer(mut stream: &TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::After(time, reply) => {
            thread::sleep(time);
            answer(stream, *reply)
        }
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Reply::Answer(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
            stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).is_ok()
        }
    }
}

/// Waits until `is_met`; after half a minute it fails with `otherwise`.
pub fn wait_until(otherwise: &str, is_met: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < Duration::from_secs(30), "{otherwise}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
