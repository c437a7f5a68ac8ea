//! Models, LoRA adapters and datasets by their names on the Hugging Face hub, in the cache that `huggingface_hub` keeps.
//!
//! ```text
//! listing    GET  /api/models/ORG/NAME/revision/main?blobs=true     the commit, the names of its files
//! wanted     which of them a model, an adapter or a set of rows needs
//! metadata   HEAD /ORG/NAME/resolve/COMMIT/FILE                     etag (a hash of the content) and size
//! download   GET  the same, wherever it leads                       blobs/ETAG.incomplete, continued by Range
//! verify     size and hash                                          blobs/ETAG
//! link       snapshots/COMMIT/FILE -> blobs/ETAG, then refs/main
//! ```
//!
//! What the hub says is input like any other: names, sizes and hashes are checked before they are used.

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

/// The largest index of weights that is read.
const LARGEST_INDEX: u64 = 64 << 20;

/// The files of rows that a dataset's card leads to: for a fuzz target.
#[doc(hidden)]
pub fn rows_of(card: &[u8], wanted: Option<&str>, names: &[&str]) -> Result<Vec<String>, String> {
    rows::choose(wanted, names, &card::configs(card)?)
}

/// A hub, and the cache of what was downloaded from it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
}

/// What was asked for, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder of the repository's files.
    pub dir: PathBuf,
    /// Which state of the repository it is.
    pub commit: Commit,
    /// The files that were asked for, by their names in `dir`.
    pub files: Vec<String>,
}

/// Is told how a download goes on.
pub trait Watch {
    /// So many files of `bytes` in all are missing and will be downloaded. `present`: bytes of them that an earlier
    /// download left.
    fn begins(&mut self, _repo: &Repo, _files: usize, _bytes: u64, _present: u64) {}
    /// So many more bytes have come.
    fn received(&mut self, _bytes: u64) {}
    /// So many bytes of what has come are of no use and will come again.
    fn dropped(&mut self, _bytes: u64) {}
    /// What is waited for, or is not as it should be.
    fn warning(&mut self, _text: &str) {}
    /// All is there, or it has failed.
    fn ends(&mut self) {}
}

impl Watch for () {}

impl Hub {
    /// A hub as `settings` describe it. Nothing is asked yet.
    pub fn new(settings: Settings) -> Hub {
        Hub { client: Client::new(&settings), settings }
    }

    /// Gets what is `wanted` of a repository, from the cache where it is there.
    ///
    /// # Errors
    /// [`Error::Config`] where the name, the revision or the permission is not right, or the repository does not hold
    /// what is wanted; [`Error::Hub`] where the hub cannot be reached or contradicts itself; [`Error::Io`].
    pub fn fetch(&self, repo: &Repo, wanted: &Wanted, watch: &mut dyn Watch) -> Result<Snapshot> {
        let cache = RepoCache::of(&self.settings.cache, repo);
        let cached = cached(&cache, repo, wanted);
        if self.settings.offline {
            return cached.map_err(|what| {
                let why = "HF_HUB_OFFLINE forbids to download it: unset that, or get it elsewhere";
                Error::config(repo.to_string(), format!("{what}, and {why}"))
            });
        }
        let listing = match (self.client.listing(repo, cached.is_err()), cached) {
            (Ok(listing), _) => listing,
            (Err(Failure::Refused(error)), _) => return Err(error),
            (Err(Failure::Unreachable(why, _)), Ok(snapshot)) => {
                watch.warning(&format!("{repo}: {why}; what the cache holds is used"));
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
            // Only the index tells which files the weights, or the rows, are in.
            let remotes = self.missing(repo, listing, std::slice::from_ref(&index), cache)?;
            for remote in &remotes {
                if remote.size > LARGEST_INDEX {
                    return Err(Error::hub(
                        repo,
                        format!("{index} claims to be {}, which no index is", remote.told_size()),
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

    /// Those of `names` that the cache does not hold, with their sizes and hashes.
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

/// What the cache holds of a repository, if that is all that is wanted; else what it lacks, as a sentence's end. A
/// snapshot may hold only what somebody else needed of it.
fn cached(cache: &RepoCache, repo: &Repo, wanted: &Wanted) -> Result<Snapshot, String> {
    let commit = cache.commit(&repo.revision);
    let commit = commit.ok_or_else(|| format!("is not in the cache {}", cache.home().display()))?;
    let dir = cache.snapshot(&commit);
    let without = |what: &str| format!("is in the cache without {what} (in {})", dir.display());
    let names = cache.names(&commit);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut choice = wanted.choose(repo, &names).map_err(|_| without(wanted.first_need(&names)))?;
    if let Some(index) = choice.index.clone() {
        let others = match wanted {
            Wanted::Rows(_) => "these rows",
            _ => "some of its weights",
        };
        choice.follow(wanted, repo, &dir.join(index), &names).map_err(|_| without(others))?;
    }
    Ok(Snapshot { dir, commit, files: choice.files })
}
