//! The listing of a repository's files, as the hub sends it.

use std::io::Read;

use serde::Deserialize;
use ureq::Body;
use ureq::http::Response;

use super::client::{Failure, broken};
use super::names::{Commit, Repo, unsafe_name};
use crate::error::{Error, Result};

/// The limits of a listing that is accepted, in bytes and in files.
const LONGEST: u64 = 32 << 20;
const MOST_FILES: usize = 100_000;

/// The files of a repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: Commit,
    files: Vec<ListedFile>,
}

/// A file with the attributes in the listing. Mirrors send fewer than the hub.
#[derive(Debug, Deserialize)]
pub(super) struct ListedFile {
    #[serde(rename = "rfilename")]
    pub name: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<ListedFile>,
}

impl ListedFile {
    /// The size in bytes.
    pub fn size(&self) -> Option<u64> {
        self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size)
    }

    /// The hash that the etag should have.
    pub fn hash(&self) -> Option<&str> {
        self.lfs.as_ref().and_then(|lfs| lfs.sha256.as_deref()).or(self.blob.as_deref())
    }
}

impl Listing {
    /// Reads the listing from the hub's answer.
    pub fn read(repo: &Repo, response: Response<Body>) -> Result<Listing, Failure> {
        let refused = |why: String| Failure::Refused(Error::hub(repo, why));
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(LONGEST + 1);
        body.read_to_end(&mut bytes).map_err(|error| broken(&error))?;
        if bytes.len() as u64 > LONGEST {
            return Err(refused(format!("its listing is longer than the limit of {} MiB", LONGEST >> 20)));
        }
        Listing::parse(&bytes).map_err(refused)
    }

    fn parse(bytes: &[u8]) -> Result<Listing, String> {
        let info: Info = serde_json::from_slice(bytes).map_err(|error| {
            format!("the hub's listing is invalid ({error}): check that HF_ENDPOINT is a hub")
        })?;
        let commit = Commit::parse(&info.sha)
            .ok_or_else(|| format!("the hub reports the invalid commit {:?}", beginning(&info.sha)))?;
        if info.siblings.len() > MOST_FILES {
            return Err(format!("has {} files, more than the limit of {MOST_FILES}", info.siblings.len()));
        }
        for file in &info.siblings {
            if let Some(why) = unsafe_name(&file.name) {
                return Err(format!(
                    "the hub lists a file {:?}, whose name {why}: nothing is downloaded",
                    beginning(&file.name)
                ));
            }
        }
        Ok(Listing { commit, files: info.siblings })
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.name.as_str()).collect()
    }

    /// Returns the file of this name.
    pub fn file(&self, name: &str) -> Option<&ListedFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(name: &str) -> Result<Listing, String> {
        let sha = "0123456789012345678901234567890123456789";
        let info =
            serde_json::json!({"sha": sha, "siblings": [{"rfilename": "config.json"}, {"rfilename": name}]});
        Listing::parse(info.to_string().as_bytes())
    }

    #[test]
    fn a_listing_with_a_hostile_name_is_refused_as_a_whole() {
        assert_eq!(listing("a/b.json").unwrap().names(), ["config.json", "a/b.json"]);
        for name in ["../../.bashrc", "/etc/passwd", "a\\..\\b", "a\u{1b}[2J", "a/./b", ""] {
            let why = listing(name).unwrap_err();
            assert!(why.contains("nothing is downloaded") && !why.contains('\u{1b}'), "{why}");
        }
    }

    #[test]
    fn a_listing_of_another_form_is_refused() {
        for text in [
            "",
            "<html>",
            "[]",
            r#"{"sha": "main", "siblings": []}"#,
            r#"{"sha": "../../x", "siblings": []}"#,
            r#"{"sha": "0123456789012345678901234567890123456789"}"#,
            r#"{"sha": "0123456789012345678901234567890123456789", "siblings": [{"rfilename": 1}]}"#,
            r#"{"sha": "0123456789012345678901234567890123456789", "siblings": [{"rfilename": "a", "size": -1}]}"#,
        ] {
            assert!(Listing::parse(text.as_bytes()).is_err(), "{text}");
        }
        let many = format!(
            r#"{{"sha": "0123456789012345678901234567890123456789", "siblings": [{}{{"rfilename":"a"}}]}}"#,
            r#"{"rfilename":"a"},"#.repeat(MOST_FILES)
        );
        assert!(Listing::parse(many.as_bytes()).unwrap_err().contains("100001 files"));
    }
}
