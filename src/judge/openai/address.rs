//! A server's address: what is asked below it, what of it may be told, and where a redirect leads.

use std::net::IpAddr;

use ureq::http::Uri;

use super::options::Api;
use crate::error::{Error, Result};
use crate::redirects::{address, place};

/// Where a server is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// What stands before `/chat/completions`: the first is tried first, the next where it answers 404.
    pub bases: Vec<String>,
    /// Scheme, host and port.
    pub place: String,
    uri: Uri,
}

impl Address {
    /// `http://HOST/v1`. A slash at the end, or the path of a request, is dropped. Without a path `/v1` is tried, then none;
    /// with a path that does not end in a version, the path, then `/v1` below it.
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
                "holds a name or a password (before an @): give the address alone, and the key in a file"
                    .into(),
            );
        }
        // A query may be a permission.
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

    /// The addresses that were asked when the base number `last` was.
    pub fn tried(&self, last: usize, api: Api) -> String {
        let tried = self.bases.iter().take(last + 1).map(|base| format!("{base}/{}", api.path()));
        tried.collect::<Vec<String>>().join(" and ")
    }

    /// Whether what is sent stays on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// Whether others on the way can read what is sent.
    pub fn is_open(&self) -> bool {
        self.uri.scheme_str() != Some("https") && !self.is_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_as_people_write_it() {
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
    fn what_leaves_the_machine_unencrypted_is_known() {
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
