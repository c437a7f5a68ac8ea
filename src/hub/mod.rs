//! Downloads of models, LoRA adapters and datasets from the Hugging Face Hub, by name, in the cache of
//! `huggingface_hub`.
//!
//! ```text
//! listing    GET  /api/models/ORG/NAME/revision/main?blobs=true     the commit, the names of its files
//! wanted     which of them a model, an adapter or a set of rows needs
//! metadata   HEAD /ORG/NAME/resolve/COMMIT/FILE                     etag (a hash of the content) and size
//! download   GET  the same, following redirects                     blobs/ETAG.incomplete, continued by Range
//! verify     size and hash                                          blobs/ETAG
//! link       snapshots/COMMIT/FILE -> blobs/ETAG, then refs/main
//! ```
//!
//! Answers of the hub are untrusted input: names, sizes and hashes are checked before they are used.

mod cache;
mod card;
mod client;
mod download;
mod glob;
mod hash;
mod listed;
mod listing;
mod names;
mod rows;
mod settings;
mod space;
mod wanted;

use std::path::PathBuf;

pub use listed::{CachedModel, cached_models};
pub use names::{Commit, Kind, Repo};
pub use settings::{Settings, Token};
pub use wanted::Wanted;

use crate::error::{Error, Result};
use cache::RepoCache;
use client::{Client, Failure};
use download::Remote;
use listing::Listing;

/// The largest index of weights that is accepted.
const LARGEST_INDEX: u64 = 64 << 20;

/// The dataset files that a card refers to. This is for a fuzz target.
#[doc(hidden)]
pub fn rows_of(card: &[u8], wanted: Option<&str>, names: &[&str]) -> Result<Vec<String>, String> {
    rows::choose(wanted, names, &card::configs(card)?)
}

/// A hub and the cache of downloads from it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

/// The requested files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder of the repository's files.
    pub dir: PathBuf,
    /// The commit of the repository.
    pub commit: Commit,
    /// The requested files, by their names in `dir`.
    pub files: Vec<String>,
}

/// Receives the progress of a download.
pub trait Watch {
    /// The download begins: `files` files with `bytes` bytes in total are missing. An earlier download has left `present`
    /// bytes of them.
    fn begins(&mut self, _repo: &Repo, _files: usize, _bytes: u64, _present: u64) {}
    /// The number of bytes that were received since the last call.
    fn received(&mut self, _bytes: u64) {}
    /// The number of received bytes that are discarded and will be downloaded again.
    fn dropped(&mut self, _bytes: u64) {}
    /// Something that is being waited for, or that is unusual.
    fn warning(&mut self, _text: &str) {}
    /// The download is complete, or it has failed.
    fn ends(&mut self) {}
}

impl Watch for () {}

impl Hub {
    /// Creates a client for the hub of `settings`. It sends no request yet.
    pub fn new(settings: Settings) -> Hub {
        Hub { client: Client::new(&settings), settings }
    }

    /// Fetches the files that are `wanted` from a repository, or takes them from the cache.
    ///
    /// # Errors
    /// [`Error::Config`] for a wrong name or revision, missing permission, or a repository without the wanted files;
    /// [`Error::Hub`] if the hub cannot be reached or contradicts itself; [`Error::Io`].
    pub fn fetch(&self, repo: &Repo, wanted: &Wanted, watch: &mut dyn Watch) -> Result<Snapshot> {
        let cache = RepoCache::of(&self.settings.cache, repo);
        let cached = cached(&cache, repo, wanted);
        if self.settings.offline {
            return cached.map_err(|what| {
                let why = "HF_HUB_OFFLINE is set: unset it to allow the download";
                Error::config(repo.to_string(), format!("{what}, and {why}"))
            });
        }
        let listing = match (self.client.listing(repo, cached.is_err()), cached) {
            (Ok(listing), _) => listing,
            (Err(Failure::Refused(error)), _) => return Err(error),
            (Err(Failure::Unreachable(why, _)), Ok(snapshot)) => {
                watch.warning(&format!("{repo}: {why}; the cached files are used"));
                return Ok(snapshot);
            }
            (Err(Failure::Unreachable(why, _)), Err(what)) => {
                let why = format!("{what}, and {why}: try again when the hub can be reached");
                return Err(Error::hub(repo, why));
            }
        };
        let done = self.get(repo, &listing, wanted, &cache, watch);
        watch.ends();
        done
    }

    fn get(
        &self,
        repo: &Repo,
        listing: &Listing,
        wanted: &Wanted,
        cache: &RepoCache,
        watch: &mut dyn Watch,
    ) -> Result<Snapshot> {
        let commit = &listing.commit;
        let mut choice = wanted.choose(repo, &listing.names())?;
        if let Some(index) = choice.index.clone() {
            // The files of weights or rows are known only from the index.
            let remotes = self.missing(repo, listing, std::slice::from_ref(&index), cache)?;
            for remote in &remotes {
                if remote.size > LARGEST_INDEX {
                    return Err(Error::hub(
                        repo,
                        format!("{index} has a size of {}, too large for an index", remote.size_text()),
                    ));
                }
                self.client.download(repo, commit, remote, cache, &mut ())?;
            }
            choice.follow(wanted, repo, &cache.pointer(commit, &index), &listing.names())?;
        }
        let remotes = self.missing(repo, listing, &choice.files, cache)?;
        if !remotes.is_empty() {
            let bytes = remotes.iter().map(|remote| remote.size).sum();
            let present = remotes.iter().map(|remote| cache.received(&remote.etag).min(remote.size)).sum();
            space::check(&self.settings.cache, repo, bytes - present)?;
            watch.begins(repo, remotes.len(), bytes, present);
            cache.mark()?;
        }
        for remote in &remotes {
            self.client.download(repo, commit, remote, cache, watch)?;
        }
        cache.write_ref(&repo.revision, commit)?;
        Ok(Snapshot { dir: cache.snapshot(commit), commit: commit.clone(), files: choice.files })
    }

    /// The files of `names` that the cache lacks, with their sizes and hashes.
    fn missing(
        &self,
        repo: &Repo,
        listing: &Listing,
        names: &[String],
        cache: &RepoCache,
    ) -> Result<Vec<Remote>> {
        let absent = names.iter().filter(|name| !cache.pointer(&listing.commit, name).is_file());
        absent.map(|name| self.client.metadata(repo, listing, name)).collect()
    }
}

/// Returns the cached snapshot if it has all wanted files, else a sentence about the missing ones. A snapshot may be
/// incomplete, since other programs download only what they need.
fn cached(cache: &RepoCache, repo: &Repo, wanted: &Wanted) -> Result<Snapshot, String> {
    let commit = cache.commit(&repo.revision);
    let commit = commit.ok_or_else(|| format!("is not in the cache {}", cache.home().display()))?;
    let dir = cache.snapshot(&commit);
    let without = |what: &str| format!("is in the cache without {what} (in {})", dir.display());
    let names = cache.names(&commit);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut choice = wanted.choose(repo, &names).map_err(|_| without(wanted.first_missing(&names)))?;
    if let Some(index) = choice.index.clone() {
        let others = match wanted {
            Wanted::Rows(_) => "these rows",
            _ => "some of its weights",
        };
        choice.follow(wanted, repo, &dir.join(index), &names).map_err(|_| without(others))?;
    }
    Ok(Snapshot { dir, commit, files: choice.files })
}
