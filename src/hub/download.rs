//! The download of one file into the cache. The file appears complete or not at all.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::discriminant;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::Method;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING};

use super::Watch;
use super::cache::RepoCache;
use super::client::{Answer, Client, Failure, Retry, TRIES, broken};
use super::hash::{Expected, Hasher};
use super::listing::Listing;
use super::names::{Commit, Etag, Repo};
use crate::error::{Error, Result, size};

/// The largest plausible file size; a larger one is an error.
const LARGEST: u64 = 1 << 40;
/// The number of bytes that are read at a time.
const CHUNK: usize = 1 << 18;

/// A file on the hub.
#[derive(Debug)]
pub(super) struct Remote {
    pub name: String,
    pub etag: Etag,
    pub size: u64,
    hash: Expected,
}

impl Remote {
    pub fn size_text(&self) -> String {
        size(self.size)
    }
}

impl Client {
    /// Requests the size and hash of a file.
    pub fn metadata(&self, repo: &Repo, listing: &Listing, name: &str) -> Result<Remote> {
        let invalid = |why: String| Error::hub(repo, format!("{name}: {why}"));
        let url = self.url(repo, &listing.commit.0, name);
        let answer = self.retry(TRIES, || self.ask(repo, Some(name), Method::HEAD, &url, 0));
        let Answer { facts, .. } = answer.map_err(|failure| failure.into_error(repo))?;
        if facts.commit.as_ref().is_some_and(|commit| *commit != listing.commit.0) {
            return Err(invalid("the hub answers with another commit's file: try again".into()));
        }
        let listed = listing.file(name);
        let (listed_size, listed_hash) = (listed.and_then(|f| f.size()), listed.and_then(|f| f.hash()));
        let reported = facts
            .size()
            .transpose()
            .map_err(|text| invalid(format!("the hub reports the invalid size {text:?}")))?;
        let size = match (reported, listed_size) {
            (Some(reported), Some(listed)) if reported != listed => {
                return Err(invalid(format!(
                    "the hub reports two sizes, {reported} and {listed} bytes: nothing was saved"
                )));
            }
            (reported, listed) => reported.or(listed),
        };
        let size = size.ok_or_else(|| invalid("the hub does not report its size".into()))?;
        if size > LARGEST {
            let largest = crate::error::size(LARGEST);
            let claimed = crate::error::size(size);
            return Err(invalid(format!(
                "the hub reports a size of {claimed}, more than the limit of {largest}"
            )));
        }
        let etag = facts
            .etag()
            .ok_or_else(|| invalid("the hub reports no etag that can be its name in the cache".into()))?;
        let hash = match (Expected::of(&etag.0), listed_hash.map(Expected::of)) {
            (Expected::Nothing, Some(listed)) => listed,
            // Only hashes of the same type are compared: a mirror may list the git hash of the pointer to a large file.
            (reported, Some(listed))
                if listed != reported && discriminant(&listed) == discriminant(&reported) =>
            {
                return Err(invalid("the hub reports two different hashes: nothing was saved".into()));
            }
            (reported, _) => reported,
        };
        Ok(Remote { name: name.to_owned(), etag, size, hash })
    }

    /// Downloads a file into the snapshot of a commit.
    pub fn download(
        &self,
        repo: &Repo,
        commit: &Commit,
        remote: &Remote,
        cache: &RepoCache,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let lock = cache.lock(&remote.etag, watch)?;
        let blob = cache.blob(&remote.etag);
        // Another repository or another process may have downloaded the same content.
        if !fs::metadata(&blob).is_ok_and(|found| found.len() == remote.size) {
            let mut part = Part::open(cache.incomplete(&remote.etag, &lock), remote)?;
            let done = self.complete(repo, commit, remote, &mut part, watch);
            if done.is_err() && part.len == 0 {
                // Only the first error is reported.
                let _ = part.remove();
            }
            done?;
            part.keep_as(&blob)?;
        }
        cache.link(commit, &remote.name, &remote.etag)
    }

    /// Downloads the rest of `part`, and verifies its hash.
    fn complete(
        &self,
        repo: &Repo,
        commit: &Commit,
        remote: &Remote,
        part: &mut Part,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        loop {
            let resumed = part.len > 0;
            self.fill(repo, commit, remote, part, watch)?;
            let hasher = std::mem::replace(&mut part.hasher, Expected::Nothing.begin(0));
            if remote.hash.is(hasher) {
                return Ok(());
            }
            watch.dropped(part.len);
            if !resumed {
                part.remove()?;
                let why = format!(
                    "{}: the download does not have the hash that the hub reports: nothing was saved, try again",
                    remote.name
                );
                return Err(Error::hub(repo, why));
            }
            // The part left by an earlier download may have been damaged.
            part.restart(remote)?;
        }
    }

    /// Requests the rest of `part`, again after each broken connection as long as there is progress.
    fn fill(
        &self,
        repo: &Repo,
        commit: &Commit,
        remote: &Remote,
        part: &mut Part,
        watch: &mut dyn Watch,
    ) -> Result<()> {
        let url = self.url(repo, &commit.0, &remote.name);
        let mut failures = 0;
        while part.len < remote.size {
            let before = part.len;
            let failed = match self.piece(repo, remote, &url, part, watch) {
                Ok(()) if part.len == remote.size => return Ok(()),
                Ok(()) => Failure::Unreachable("the connection broke".into(), Retry::After(Duration::ZERO)),
                Err(failure) => failure,
            };
            let (why, retry) = match failed {
                Failure::Refused(error) => return Err(error),
                Failure::Unreachable(why, retry) => (why, retry),
            };
            failures = if part.len > before { 1 } else { failures + 1 };
            match retry {
                Retry::After(time) if failures < TRIES => self.wait(failures, time),
                _ => {
                    let why = format!(
                        "{}: {why} after {} of {}: try again, the download continues from there",
                        remote.name,
                        size(part.len),
                        remote.size_text()
                    );
                    return Err(Error::hub(repo, why));
                }
            }
        }
        Ok(())
    }

    /// Sends one request, and reads its answer to the end.
    fn piece(
        &self,
        repo: &Repo,
        remote: &Remote,
        url: &str,
        part: &mut Part,
        watch: &mut dyn Watch,
    ) -> Result<(), Failure> {
        let response = self.ask(repo, Some(&remote.name), Method::GET, url, part.len)?.response;
        let invalid = |why: String| {
            Failure::Refused(Error::hub(repo, format!("{}: {why}: nothing was saved", remote.name)))
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match (response.status().as_u16(), part.len) {
            (416, from) => {
                watch.dropped(from);
                part.restart(remote).map_err(Failure::Refused)?;
                let why = "the hub rejects the range of the missing bytes".to_owned();
                return Err(Failure::Unreachable(why, Retry::After(Duration::ZERO)));
            }
            (206, from) => {
                let expected = format!("bytes {from}-{}/{}", remote.size - 1, remote.size);
                if header(CONTENT_RANGE).map(str::trim) != Some(&expected) {
                    let got = header(CONTENT_RANGE).unwrap_or("nothing").to_owned();
                    part.remove().map_err(Failure::Refused)?;
                    return Err(invalid(format!("requested {expected:?}, but the hub sends {got:?}")));
                }
            }
            (_, 0) => {}
            // The hub ignored the range and sends the whole file.
            (_, from) => {
                watch.dropped(from);
                part.restart(remote).map_err(Failure::Refused)?;
            }
        }
        let length = header(CONTENT_LENGTH).and_then(|text| text.trim().parse::<u64>().ok());
        if length.is_some_and(|length| length != remote.size - part.len) {
            let (length, expected) = (length.unwrap_or_default(), remote.size - part.len);
            part.remove().map_err(Failure::Refused)?;
            return Err(invalid(format!("the hub sends {length} bytes, but reports a size of {expected}")));
        }
        // A chunked body has an explicit end.
        let chunked = header(TRANSFER_ENCODING).is_some();
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match body.read(&mut chunk) {
                Ok(0) if chunked && part.len < remote.size => {
                    let sent = part.len;
                    part.remove().map_err(Failure::Refused)?;
                    return Err(invalid(format!(
                        "the hub sends {sent} bytes, but reports a size of {}",
                        remote.size
                    )));
                }
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(&error)),
            };
            if count as u64 > remote.size - part.len {
                part.remove().map_err(Failure::Refused)?;
                return Err(invalid(format!(
                    "the hub sends more than the {} bytes that it reports as the size",
                    remote.size
                )));
            }
            part.write(&chunk[..count]).map_err(|error| Failure::Refused(full(repo, part, error)))?;
            watch.received(count as u64);
        }
    }
}

impl Failure {
    pub fn into_error(self, repo: &Repo) -> Error {
        match self {
            Failure::Refused(error) => error,
            Failure::Unreachable(why, _) => Error::hub(repo, format!("{why}: try again")),
        }
    }
}

/// The error for a failed write.
fn full(repo: &Repo, part: &Part, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::hub(
            repo,
            format!(
                "the disk of {} is full: make room, or set HF_HOME to a folder on another disk; the download continues from \
                 there",
                part.path.display()
            ),
        ),
        _ => Error::io("write", &part.path)(error),
    }
}

/// The beginning of a file, which is hashed while it grows.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Hasher,
}

impl Part {
    /// Continues with the part that an earlier download left, if any.
    fn open(path: PathBuf, remote: &Remote) -> Result<Part> {
        let file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let len = file.metadata().map_err(Error::io("read", &path))?.len();
        let mut part = Part { path, file, len, hasher: remote.hash.begin(remote.size) };
        if len > remote.size {
            part.restart(remote)?;
        }
        let Part { path, file, hasher, .. } = &mut part;
        hasher.read(&*file).map_err(Error::io("read", path))?;
        Ok(part)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self, remote: &Remote) -> Result<()> {
        self.file.set_len(0).map_err(Error::io("write", &self.path))?;
        (self.len, self.hasher) = (0, remote.hash.begin(remote.size));
        Ok(())
    }

    fn remove(&mut self) -> Result<()> {
        crate::files::remove(&self.path)
    }

    /// Moves the file to its final name, after all of it has been written to the disk.
    fn keep_as(self, blob: &std::path::Path) -> Result<()> {
        let failed = Error::io("write", blob);
        self.file.sync_all().and_then(|()| fs::rename(&self.path, blob)).map_err(failed)
    }
}
