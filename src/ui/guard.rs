//! Access control. Every request has to pass [`Guard::check`]:
//!
//! - `Host` is a name of this server: a foreign name that resolves to this machine (DNS rebinding) is refused.
//! - `Origin`, if the browser sends it, is this server: requests made by other sites are refused.
//! - The session cookie is present, or, for the first page, the token in the URL.
//! - A request that changes something is a POST from a page of this server and carries the value that this page was
//!   given.

use std::net::SocketAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::secrets::{PageValues, random, same};
use crate::error::Result;

/// The header in which a page sends its value.
pub(super) const PAGE_VALUE: &str = "x-oaif-page";

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub &'static str);

impl Refused {
    /// The status of all refusals.
    pub const STATUS: StatusCode = StatusCode::FORBIDDEN;
}

/// The accepted values.
pub(super) struct Guard {
    hosts: Vec<String>,
    token: String,
    /// The cookie's name contains the port, because browsers send a host's cookies to all of its ports.
    cookie: String,
    session: String,
    pub pages: PageValues,
}

impl Guard {
    pub fn new(address: SocketAddr, token: String) -> Result<Guard> {
        let port = address.port();
        let mut names = vec![SocketAddr::new(address.ip(), port).to_string()];
        if address.ip().is_loopback() {
            names.extend(["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        if port == 80 {
            let short: Vec<String> =
                names.iter().map(|name| name.trim_end_matches(":80").to_owned()).collect();
            names.extend(short);
        }
        let cookie = format!("oaif-{port}");
        Ok(Guard { hosts: names, token, cookie, session: random()?, pages: PageValues::default() })
    }

    /// Whether a request is allowed.
    pub fn check(&self, request: &Parts) -> std::result::Result<(), Refused> {
        let headers = &request.headers;
        let host = only(headers, header::HOST.as_str()).unwrap_or_default();
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return Err(Refused(
                "This is not an address of this server. Open the address that oaif printed.",
            ));
        }
        let origin = headers.contains_key(header::ORIGIN).then(|| only(headers, header::ORIGIN.as_str()));
        let same_origin = |origin: Option<&str>| {
            let origin = origin.and_then(|origin| origin.strip_prefix("http://"));
            origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
        };
        if origin.is_some_and(|origin| !same_origin(origin)) {
            return Err(Refused("Requests from pages of other sites are refused."));
        }
        let site = only(headers, "sec-fetch-site");
        let navigates = only(headers, "sec-fetch-mode") == Some("navigate");
        if matches!(site, Some("cross-site" | "same-site")) && !navigates {
            return Err(Refused("Requests from pages of other sites are refused."));
        }
        if !self.has_cookie(headers) && !self.brings_token(request) {
            return Err(Refused(
                "This page needs the address that oaif printed when it started. It changes with every start: \
                 open the latest one.",
            ));
        }
        if matches!(request.method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        if origin.is_none() && site != Some("same-origin") {
            return Err(Refused("Changes are only accepted from pages of this server."));
        }
        match only(headers, PAGE_VALUE) {
            Some(value) if self.pages.knows(value) => Ok(()),
            _ => Err(Refused("This page is out of date: reload it.")),
        }
    }

    /// Whether the request's URL contains the token that was printed.
    pub fn brings_token(&self, request: &Parts) -> bool {
        let token = request.uri.query().and_then(|query| query.strip_prefix("token="));
        request.method == Method::GET
            && request.uri.path() == "/"
            && token.is_some_and(|token| same(token, &self.token))
    }

    /// The cookie that replaces the token.
    pub fn set_cookie(&self) -> String {
        format!("{}={}; HttpOnly; SameSite=Strict; Path=/", self.cookie, self.session)
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|value| value.split(';')).any(|cookie| {
            let (name, value) = cookie.trim().split_once('=').unwrap_or_default();
            name == self.cookie && same(value, &self.session)
        })
    }
}

/// The value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const TOKEN: &str = "0123";

    fn guard(address: &str) -> Guard {
        Guard { session: "5e55".into(), ..Guard::new(address.parse().unwrap(), TOKEN.into()).unwrap() }
    }

    /// Whether a request with these headers is allowed.
    fn passes(guard: &Guard, line: &str, headers: &[(&str, &str)]) -> bool {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        guard.check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    const COOKIE: (&str, &str) = ("cookie", "other=1; oaif-8000=5e55");
    const HOST: (&str, &str) = ("host", "127.0.0.1:8000");

    #[test]
    fn a_request_without_the_cookie_or_the_token_is_refused() {
        let guard = guard("127.0.0.1:8000");
        let get = |line, headers: &[(&str, &str)]| passes(&guard, line, &[&[HOST], headers].concat());
        assert!(get("GET /run", &[COOKIE]) && get("GET /?token=0123", &[]));
        assert!(!get("GET /run", &[]) && !get("GET /", &[]) && !get("GET /run?token=0123", &[]));
        assert!(!get("GET /?token=0124", &[]) && !get("GET /?token=", &[]) && !get("GET /?token=01234", &[]));
        assert!(!get("POST /?token=0123", &[]));
        for cookie in ["oaif-8000=5e56", "oaif-8000=", "oaif-8001=5e55", "oaif-8000", "", "=5e55"] {
            assert!(!get("GET /run", &[("cookie", cookie)]), "{cookie}");
        }
    }

    #[test]
    fn a_foreign_host_is_refused() {
        let guard = guard("127.0.0.1:8000");
        let from = |host| passes(&guard, "GET /run", &[("host", host), COOKIE]);
        assert!(["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"].into_iter().all(from));
        for host in [
            "evil.example:8000",
            "127.0.0.1",
            "127.0.0.1:8001",
            "localhost",
            "localhost.evil.example:8000",
            "",
        ] {
            assert!(!from(host), "{host}");
        }
        assert!(!passes(&guard, "GET /run", &[COOKIE]), "no host");
        assert!(!passes(&guard, "GET /run", &[HOST, HOST, COOKIE]), "two hosts");
    }

    #[test]
    fn with_an_explicit_address_the_host_must_be_that_address() {
        let guard = guard("192.0.2.7:8000");
        let from = |host| passes(&guard, "GET /run", &[("host", host), COOKIE]);
        assert!(from("192.0.2.7:8000"));
        assert!(!from("127.0.0.1:8000") && !from("localhost:8000") && !from("192.0.2.8:8000"));
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let guard = guard("127.0.0.1:8000");
        let from = |origin| passes(&guard, "GET /run", &[HOST, COOKIE, ("origin", origin)]);
        assert!(from("http://127.0.0.1:8000"));
        for origin in [
            "null",
            "http://localhost:8000",
            "http://127.0.0.1:8001",
            "https://127.0.0.1:8000",
            "http://evil.example",
            "",
        ] {
            assert!(!from(origin), "{origin}");
        }
        let site = |site, mode| {
            passes(
                &guard,
                "GET /api/run",
                &[HOST, COOKIE, ("sec-fetch-site", site), ("sec-fetch-mode", mode)],
            )
        };
        assert!(site("same-origin", "cors") && site("none", "navigate") && site("cross-site", "navigate"));
        assert!(!site("cross-site", "no-cors") && !site("same-site", "cors"));
    }

    #[test]
    fn a_change_must_come_from_a_page_of_this_server() {
        let guard = guard("127.0.0.1:8000");
        let value = guard.pages.issue().unwrap();
        let post = |headers: &[(&str, &str)]| {
            passes(&guard, "POST /api/label", &[&[HOST, COOKIE], headers].concat())
        };
        let (origin, site) = (("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin"));
        let page = (PAGE_VALUE, value.as_str());
        assert!(post(&[origin, page]) && post(&[site, page]) && post(&[origin, site, page]));
        assert!(!post(&[page]) && !post(&[origin]) && !post(&[site]));
        assert!(!post(&[("sec-fetch-site", "none"), page]) && !post(&[origin, (PAGE_VALUE, "00")]));
        assert!(!passes(&guard, "DELETE /api/label", &[HOST, COOKIE]), "with any method");
    }
}
