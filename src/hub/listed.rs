//! The list of models in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::RepoCache;
use super::names::{Commit, Kind, Repo};
use super::settings::Settings;
use crate::error::Result;
use crate::files;

/// A model or a LoRA adapter in the cache, at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// The repository; its revision is the branch or tag of the commit, or else the commit.
    pub repo: Repo,
    /// The commit.
    pub commit: Commit,
    /// The folder of its files, which can be given as a model.
    pub dir: PathBuf,
    /// The size of its files in bytes.
    pub bytes: u64,
}

/// Returns every model in the cache, by name. A cache that does not exist is empty.
///
/// # Errors
/// [`crate::Error::Io`] for a folder that cannot be read.
pub fn cached_models(settings: &Settings) -> Result<Vec<CachedModel>> {
    let mut found = Vec::new();
    for folder in files::list(&settings.cache)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let id = name.strip_prefix("models--").map(|name| name.replacen("--", "/", 1));
        let Some(repo) = id.and_then(|id| Repo::parse(Kind::Model, &id)) else { continue };
        let cache = RepoCache::of(&settings.cache, &repo);
        let refs = refs(&folder.join("refs"));
        for dir in files::list(&folder.join("snapshots"))? {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(commit) = Commit::parse(name) else { continue };
            let size = |name: &String| fs::metadata(dir.join(name)).map_or(0, |file| file.len());
            let bytes = cache.names(&commit).iter().map(size).sum();
            let by_name = refs.iter().find(|(_, at)| *at == commit).map(|(name, _)| name.clone());
            let revision = by_name.unwrap_or_else(|| commit.to_string());
            found.push(CachedModel { repo: Repo { revision, ..repo.clone() }, commit, dir, bytes });
        }
    }
    found.sort_by_key(|model| {
        (model.repo.id.clone(), model.repo.revision != "main", model.commit.to_string())
    });
    Ok(found)
}

/// Branches and tags with their commits; `main` is the first.
fn refs(folder: &Path) -> Vec<(String, Commit)> {
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some((name, Commit::parse(fs::read_to_string(&path).ok()?.trim())?))
    };
    let mut refs: Vec<_> = files::list(folder).unwrap_or_default().into_iter().filter_map(read).collect();
    refs.sort_by_key(|(name, _)| (name != "main", name.clone()));
    refs
}
