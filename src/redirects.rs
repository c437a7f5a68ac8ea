//! Shared parts of the HTTP clients for hubs and judge servers: validation of addresses, comparison of servers, and
//! redirects.

use ureq::http::{HeaderValue, Uri};

/// Parses an HTTP address. The error is the rest of a sentence about it; `example` is a valid address for the message.
/// An invalid port is an error: a client would use the scheme's default port, which may be another server.
pub(crate) fn address(text: &str, example: &str) -> Result<Uri, String> {
    let usable = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    };
    let uri =
        text.parse().ok().filter(usable).ok_or_else(|| format!("is not an address such as {example}"))?;
    // The colons of an IPv6 address are in brackets.
    let server = place(&uri);
    let behind_host = server.rsplit([']', '/']).next().unwrap_or_default();
    match behind_host.split_once(':') {
        Some((_, port)) if port.parse::<u16>().unwrap_or(0) == 0 => {
            Err(format!("has the invalid port {port:?}: give one from 1 to 65535, or no port"))
        }
        _ => Ok(uri),
    }
}

/// The scheme, host and port. The other parts of an address, such as its query or user, may be secret and must not be
/// shown.
pub(crate) fn place(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{authority}", uri.scheme_str().unwrap_or("http"))
}

/// Whether both addresses are on the same server, so that credentials for one may be sent to the other.
pub(crate) fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// Resolves the `Location` header of an answer from `uri`. The error is the rest of a sentence about the server.
pub(crate) fn redirected(uri: &Uri, location: Option<&HeaderValue>) -> Result<Uri, String> {
    let location = location.and_then(|location| location.to_str().ok());
    let next = location
        .and_then(|location| resolved(uri, location))
        .ok_or_else(|| "redirects to an invalid address".to_owned())?;
    match uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
        true => Err(format!("redirects to {}, which is not encrypted", place(&next))),
        false => Ok(next),
    }
}

fn resolved(uri: &Uri, location: &str) -> Option<Uri> {
    let scheme = uri.scheme_str()?;
    let whole = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{}{location}", uri.authority()?),
        _ => location.to_owned(),
    };
    address(&whole, "").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn an_invalid_port_is_an_error_and_never_replaced_by_the_default_port() {
        for port in ["0", "65536", "99999", "74447", "-1", "x", ""] {
            for place in ["http://h", "https://127.0.0.1", "http://[::1]", "http://me:secret@h"] {
                let text = format!("{place}:{port}/v1");
                // Text that is not an address at all is an error, too.
                let why = address(&text, "http://x").unwrap_err();
                let names_port = why.contains(&format!("the invalid port {port:?}"));
                assert!(names_port || why == "is not an address such as http://x", "{text}: {why}");
                assert!(!why.contains("secret"), "{why}");
                let from = uri("https://hub.example/a");
                assert_eq!(resolved(&from, &text), None, "{text}");
            }
        }
        assert!(address("http://h:99999", "").unwrap_err().contains("from 1 to 65535"));
        for text in ["http://h:1", "http://h:65535/v1", "https://h", "http://[::1]/v1", "http://[::1]:8000"] {
            assert_eq!(address(text, "").unwrap(), uri(text));
        }
    }

    #[test]
    fn another_scheme_host_or_port_is_another_origin() {
        let home = uri("https://hub.example/x");
        for (other, same) in [
            ("https://hub.example:443/y", true),
            ("https://HUB.example/y", true),
            ("http://hub.example/y", false),
            ("https://hub.example:8443/y", false),
            ("https://cdn.hub.example/y", false),
            ("https://hub.example.evil/y", false),
        ] {
            assert_eq!(same_origin(&home, &uri(other)), same, "{other}");
        }
    }

    #[test]
    fn a_redirect_is_relative_or_absolute_and_never_to_a_file() {
        let from = uri("https://hub.example/a/b?c");
        let next = |location| resolved(&from, location).map(|uri| uri.to_string());
        assert_eq!(next("/api/x?y"), Some("https://hub.example/api/x?y".into()));
        assert_eq!(next("https://cdn.example/z"), Some("https://cdn.example/z".into()));
        assert_eq!(next("//cdn.example/z"), Some("https://cdn.example/z".into()));
        for location in ["file:///etc/passwd", "", "ftp://x/y", "x y"] {
            assert_eq!(next(location), None, "{location}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        assert_eq!(
            place(&uri("https://me:secret@cdn.example:8/x?Signature=secret")),
            "https://cdn.example:8"
        );
    }

    #[test]
    fn a_redirect_to_another_scheme_host_or_port_leaves_the_server() {
        let home = uri("http://h:8000/v1");
        assert!(same_origin(&home, &resolved(&home, "/v2").unwrap()));
        for other in ["https://h:8000/v1", "http://h:8001/v1", "http://h.evil:8000/v1", "http://h/v1"] {
            assert!(!same_origin(&home, &uri(other)), "{other}");
        }
        assert!(["", "file:///etc/passwd", "x y"].iter().all(|location| resolved(&home, location).is_none()));
    }

    #[test]
    fn an_encrypted_request_is_never_redirected_to_an_unencrypted_address() {
        let next = |from, to| redirected(&uri(from), Some(&HeaderValue::from_static(to)));
        assert_eq!(
            next("https://h/a", "http://h/b").unwrap_err(),
            "redirects to http://h, which is not encrypted"
        );
        assert_eq!(next("http://h/a", "http://h/b").unwrap(), uri("http://h/b"));
        assert_eq!(redirected(&uri("http://h"), None).unwrap_err(), "redirects to an invalid address");
    }
}
