//! A simulated hub: the part of the protocol that downloads need, on two ports like the real one (large files come from
//! another host), with the faults that tests request.
#![allow(dead_code)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const TOKEN: &str = "hf_averysecrettoken";

/// A file of a repository. Large files are redirected to the second port.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub content: Vec<u8>,
    pub large: bool,
}

impl Entry {
    /// The hash that is used as its etag.
    pub fn etag(&self) -> String {
        if self.large {
            return hex(&SHA256, &self.content);
        }
        let mut blob = format!("blob {}\0", self.content.len()).into_bytes();
        blob.extend(&self.content);
        hex(&SHA1_FOR_LEGACY_USE_ONLY, &blob)
    }
}

fn hex(algorithm: &'static Algorithm, bytes: &[u8]) -> String {
    digest(algorithm, bytes).as_ref().iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

/// The hub's content, its faults, and the requests that it received.
#[derive(Default)]
pub struct State {
    /// `models/org/name` or `datasets/org/name`.
    pub repos: Vec<(String, Vec<Entry>)>,
    /// If set, only this token is accepted.
    pub token: Option<String>,
    /// Files are refused because a licence was not accepted.
    pub gated: bool,
    /// Statuses of the next answers, before normal answers.
    pub statuses: VecDeque<u16>,
    /// The same for the second port.
    pub cdn_statuses: VecDeque<u16>,
    /// Numbers of bytes after which the next answers of the second port are cut off.
    pub cuts: VecDeque<usize>,
    /// The same, but the connection stays open and silent.
    pub silences: VecDeque<usize>,
    /// Delay before each 64 KiB.
    pub slow: Option<Duration>,
    /// A wrong size to report for large files.
    pub size: Option<u64>,
    /// A wrong hash to report for them.
    pub hash: Option<String>,
    /// Sends corrupted bytes.
    pub damages: bool,
    /// Sends bodies in chunks, without a length.
    pub chunked: bool,
    /// Ignores Range, or answers with another range.
    pub ignores_range: bool,
    pub shifts_range: bool,
    /// A wrong listing to send.
    pub listing: Option<String>,
    pub seen: Vec<Seen>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether the second port received it.
    pub cdn: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Server {
        let [hub, cdn] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let cdn_url = format!("http://{}", cdn.local_addr().unwrap());
        let url = format!("http://{}", hub.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (state, cdn_url) = (state.clone(), cdn_url.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, cdn_url) = (state.clone(), cdn_url.clone());
                    std::thread::spawn(move || drop(answer(stream, &state, is_cdn, &cdn_url)));
                }
            });
        }
        Server { url, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a repository such as `models/org/name`. Weight files are large files.
    pub fn add(&self, repo: &str, files: &[(&str, &[u8])]) {
        let entry = |(name, content): &(&str, &[u8])| Entry {
            name: (*name).to_owned(),
            content: content.to_vec(),
            large: name.ends_with(".safetensors"),
        };
        self.state().repos.push((repo.to_owned(), files.iter().map(entry).collect()));
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Reply { status, headers, body: body.into() }
}

fn answer(stream: TcpStream, state: &Mutex<State>, cdn: bool, cdn_url: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut seen = Seen { cdn, method: method.into(), path: path.into(), range: None, token: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.into()),
            "authorization" => seen.token = Some(value.into()),
            _ => {}
        }
    }
    let (reply, cut, silent, slow) = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let statuses = if cdn { &mut state.cdn_statuses } else { &mut state.statuses };
        let reply = match statuses.pop_front() {
            Some(status) => reply(status, &[("Retry-After", "0")], ""),
            None if cdn => from_cdn(&state, &seen),
            None => from_hub(&state, &seen, cdn_url),
        };
        let body = cdn && method == "GET";
        let cut = if body { state.cuts.pop_front() } else { None };
        let silent = if body { state.silences.pop_front() } else { None };
        (reply, cut, silent, state.slow.filter(|_| body))
    };
    let mut stream = stream;
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name)) {
        write!(head, "Content-Length: {}\r\n", reply.body.len()).unwrap();
    }
    reply.headers.iter().for_each(|(name, value)| write!(head, "{name}: {value}\r\n").unwrap());
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method != "HEAD" {
        let end = cut.or(silent).unwrap_or(usize::MAX).min(reply.body.len());
        for chunk in reply.body[..end].chunks(1 << 16) {
            slow.into_iter().for_each(std::thread::sleep);
            stream.write_all(chunk)?;
        }
        if silent.is_some() {
            std::thread::sleep(Duration::from_secs(120));
        }
    }
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Waits until the client closes, so that no sent data is lost.
    drop(stream.read(&mut [0; 64]));
    Ok(())
}

fn from_hub(state: &State, seen: &Seen, cdn_url: &str) -> Reply {
    let error = |status, code: &str| reply(status, &[("X-Error-Code", code)], "no");
    if state.token.is_some() && seen.token != state.token.as_ref().map(|token| format!("Bearer {token}")) {
        return error(401, "RepoNotFound");
    }
    let path = seen.path.trim_start_matches('/');
    // Repositories of `old` were renamed to `org`.
    if path.contains("old/") {
        return reply(307, &[("Location", &seen.path.replace("old/", "org/"))], "");
    }
    if let Some(rest) = path.strip_prefix("api/") {
        let Some((repo, revision)) = rest.split_once("/revision/") else { return error(404, "") };
        let Some((_, files)) = state.repos.iter().find(|(name, _)| name == repo) else {
            return error(404, "RepoNotFound");
        };
        let revision = revision.split('?').next().unwrap();
        if !["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            return error(404, "RevisionNotFound");
        }
        let listing = state.listing.clone().unwrap_or_else(|| listing(state, files).to_string());
        return reply(200, &[("Content-Type", "application/json")], listing);
    }
    let Some((repo, rest)) = path.split_once("/resolve/") else { return error(404, "") };
    let repo = if repo.starts_with("datasets/") { repo.to_owned() } else { format!("models/{repo}") };
    let file = rest.split_once('/').map(|(_, file)| file.replace("%20", " ")).unwrap_or_default();
    let Some((_, files)) = state.repos.iter().find(|(name, _)| *name == repo) else {
        return error(404, "RepoNotFound");
    };
    if state.gated {
        return error(403, "GatedRepo");
    }
    let Some(entry) = files.iter().find(|entry| entry.name == file) else {
        return error(404, "EntryNotFound");
    };
    let etag = format!("\"{}\"", state.hash.clone().filter(|_| entry.large).unwrap_or(entry.etag()));
    match entry.large {
        true => {
            let size = state.size.unwrap_or(entry.content.len() as u64).to_string();
            let location = format!("{cdn_url}/{repo}/{file}?Signature=sealed");
            let headers = [
                ("X-Repo-Commit", COMMIT),
                ("X-Linked-Etag", &*etag),
                ("X-Linked-Size", &*size),
                ("Location", &*location),
            ];
            reply(302, &headers, "")
        }
        false => {
            let length = entry.content.len().to_string();
            let headers = [("X-Repo-Commit", COMMIT), ("ETag", &*etag), ("Content-Length", &*length)];
            reply(200, &headers, entry.content.clone())
        }
    }
}

fn listing(state: &State, files: &[Entry]) -> Value {
    let sibling = |entry: &Entry| {
        let mut sibling =
            json!({"rfilename": entry.name, "size": entry.content.len(), "blobId": entry.etag()});
        if entry.large {
            let size = state.size.unwrap_or(entry.content.len() as u64);
            let hash = state.hash.clone().unwrap_or(entry.etag());
            sibling["size"] = json!(size);
            sibling["lfs"] = json!({"sha256": hash, "size": size});
        }
        sibling
    };
    json!({"sha": COMMIT, "siblings": files.iter().map(sibling).collect::<Vec<_>>()})
}

fn from_cdn(state: &State, seen: &Seen) -> Reply {
    let path = seen.path.trim_start_matches('/').split('?').next().unwrap();
    let found = state.repos.iter().find_map(|(repo, files)| {
        let file = path.strip_prefix(repo.as_str())?.strip_prefix('/')?;
        files.iter().find(|entry| entry.name == file)
    });
    let Some(entry) = found else { return reply(404, &[], "") };
    let mut content = entry.content.clone();
    if state.damages {
        content[0] ^= 1;
    }
    let from = seen.range.as_ref().filter(|_| !state.ignores_range);
    let from = from.map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
    let total = content.len();
    let mut reply = match from {
        Some(from) if from >= total => reply(416, &[], ""),
        Some(from) => {
            let shown = if state.shifts_range { from - 1 } else { from };
            let range = format!("bytes {shown}-{}/{total}", total - 1);
            reply(206, &[("Content-Range", &*range)], &content[from..])
        }
        None => reply(200, &[], content),
    };
    if state.chunked && reply.status == 200 {
        let body = std::mem::take(&mut reply.body);
        reply.headers.push(("Transfer-Encoding", "chunked".into()));
        reply.body = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    }
    reply
}
