//! The address of a server: its URLs, the part that may be shown, and whether it is local.

use std::net::IpAddr;

use ureq::http::Uri;

use super::options::Api;
use crate::error::{Error, Result};
use crate::redirects::{address, place};

/// The address of a server.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// The URL prefixes before `/chat/completions`: the first is tried first, the next if the server answers 404.
    pub bases: Vec<String>,
    /// Scheme, host and port, for messages.
    pub place: String,
    uri: Uri,
}

impl Address {
    /// Parses `http://HOST/v1`. A trailing slash or the path of an endpoint is dropped. Without a path, `/v1` is tried
    /// first, then the root; with a path that does not end in a version, that path first, then `/v1` below it.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn new(text: &str) -> Result<Address> {
        let wrong = |why: String| Err(Error::config("judge-url", why));
        let mut text = text.trim().trim_end_matches('/');
        for path in ["/chat/completions", "/completions"] {
            text = text.strip_suffix(path).unwrap_or(text).trim_end_matches('/');
        }
        if text.contains('@') {
            return wrong(
                "contains a user name or password (before an @): give only the address, and put the key into a file"
                    .into(),
            );
        }
        // A query may contain credentials.
        let shown = text.split('?').next().unwrap_or_default();
        let uri = match address(text, "http://localhost:8000/v1") {
            Ok(uri) => uri,
            Err(why) => return wrong(format!("{shown:?} {why}")),
        };
        if uri.query().is_some() {
            return wrong(format!("{} has a query (after a ?): leave it out", place(&uri)));
        }
        let versioned = uri.path().rsplit('/').next().is_some_and(|last| {
            last.strip_prefix('v').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        });
        let bases = match (uri.path(), versioned) {
            (_, true) => vec![text.to_owned()],
            ("" | "/", _) => vec![format!("{text}/v1"), text.to_owned()],
            _ => vec![text.to_owned(), format!("{text}/v1")],
        };
        Ok(Address { bases, place: place(&uri), uri })
    }

    /// The URLs that were tried up to the base number `last`, for messages.
    pub fn tried(&self, last: usize, api: Api) -> String {
        let tried = self.bases.iter().take(last + 1).map(|base| format!("{base}/{}", api.path()));
        tried.collect::<Vec<String>>().join(" and ")
    }

    /// Whether the server is on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// Whether requests leave this machine unencrypted.
    pub fn is_open(&self) -> bool {
        self.uri.scheme_str() != Some("https") && !self.is_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_accepted_in_all_common_forms() {
        let bases = |text: &str| Address::new(text).unwrap().bases;
        for text in [
            "http://h:8000/v1",
            " http://h:8000/v1/ ",
            "http://h:8000/v1/chat/completions",
            "http://h:8000/v1/completions/",
        ] {
            assert_eq!(bases(text), ["http://h:8000/v1"], "{text}");
        }
        assert_eq!(bases("http://h:8000/"), ["http://h:8000/v1", "http://h:8000"]);
        assert_eq!(bases("https://h/judge"), ["https://h/judge", "https://h/judge/v1"]);
        assert_eq!(bases("https://h/api/v1beta"), ["https://h/api/v1beta"]);
        for text in [
            "",
            "h:8000",
            "ftp://h",
            "http://",
            "http:///v1",
            "http://a b/",
            "http://h/v1?key=x",
            "http://h:99999/v1",
            "http://h:99999/v1?key=x",
            "http://me:secret@h/v1",
        ] {
            let error = Address::new(text).unwrap_err().to_string();
            assert!(
                error.starts_with("judge-url: ") && !error.contains("secret") && !error.contains("key="),
                "{error}"
            );
        }
    }

    #[test]
    fn unencrypted_remote_addresses_are_recognised() {
        for (text, open) in [
            ("http://localhost:1/v1", false),
            ("http://127.0.0.2/v1", false),
            ("http://[::1]:8000/v1", false),
            ("https://example.com/v1", false),
            ("http://example.com/v1", true),
            ("http://10.0.0.1/v1", true),
            ("http://localhost.example.com/v1", true),
        ] {
            assert_eq!(Address::new(text).unwrap().is_open(), open, "{text}");
        }
    }
}
