//! Downloads from a simulated hub in this process: correct behaviour, and handling of a hub that misbehaves.

mod cache;
mod downloads;
mod hostile;
mod refusals;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use oaif::unstable::error::{Error, Result};
use oaif::unstable::hub::{Hub, Kind, Repo, Settings, Snapshot, Token, Wanted, Watch};
use server::Server;

/// A hub with a model, and an empty cache.
struct Place {
    hub: Server,
    dir: tempfile::TempDir,
    settings: Settings,
}

/// The calls that a [`Watch`] received.
#[derive(Default)]
struct Calls {
    begun: Vec<(usize, u64, u64)>,
    received: u64,
    warnings: Vec<String>,
}

impl Watch for Calls {
    fn begins(&mut self, _: &Repo, files: usize, bytes: u64, present: u64) {
        self.begun.push((files, bytes, present));
    }

    fn received(&mut self, bytes: u64) {
        self.received += bytes;
    }

    fn warning(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }
}

/// Pseudo-random bytes without repetitions.
fn weights(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(bytes).collect()
}

const WEIGHTS: &str = "model.safetensors";

impl Place {
    fn new() -> Place {
        let hub = Server::start();
        let weights = weights(1_000_000);
        hub.add(
            "models/org/name",
            &[
                ("config.json", b"{}"),
                ("tokenizer.json", b"[1]"),
                ("README.md", b"read"),
                ("pytorch_model.bin", b"pickle"),
                ("additional_chat_templates/rag.jinja", b"x"),
                (WEIGHTS, &weights),
            ],
        );
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            endpoint: hub.url.clone(),
            cache: dir.path().join("hub"),
            token: None,
            offline: false,
            timeout: Duration::from_secs(20),
            backoff: Duration::from_millis(1),
        };
        Place { hub, dir, settings }
    }

    fn hub(&self) -> Hub {
        Hub::new(self.settings.clone())
    }

    fn with_token(&mut self) {
        self.settings.token = Token::new(server::TOKEN, "test").unwrap();
    }

    fn fetch(&self, name: &str) -> Result<Snapshot> {
        self.fetch_as(name, &Wanted::Model, &mut ())
    }

    fn fetch_as(&self, name: &str, wanted: &Wanted, watch: &mut dyn Watch) -> Result<Snapshot> {
        let kind = if matches!(wanted, Wanted::Rows(_)) { Kind::Dataset } else { Kind::Model };
        self.hub().fetch(&Repo::parse(kind, name).unwrap(), wanted, watch)
    }

    /// The files of the cache that belong to a repository: content, complete or not, links and refs.
    fn kept(&self) -> Vec<String> {
        let mut kept = Vec::new();
        walk(&self.settings.cache, &mut kept);
        let name = |path: PathBuf| path.strip_prefix(&self.settings.cache).unwrap().display().to_string();
        let mut kept: Vec<String> = kept.into_iter().map(name).collect();
        kept.retain(|name| !name.starts_with(".locks") && name != "CACHEDIR.TAG");
        kept.sort();
        kept
    }

    /// Checks that the download is refused with a sentence that has these parts. Nothing of the large file is in the
    /// cache.
    #[track_caller]
    fn refuses(&self, name: &str, parts: &[&str]) -> Error {
        let error = self.fetch(name).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("{name}: ")) && !text.contains('\n'), "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text:?}"));
        assert!(!format!("{text} {error:?}").contains(server::TOKEN), "{text}");
        error
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}
