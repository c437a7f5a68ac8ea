//! Settings from the environment, read like `huggingface_hub` does.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::redirects::address;

const ENDPOINT: &str = "https://huggingface.co";

/// The hub, the cache and the access token.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// The cache's folder (`HF_HUB_CACHE`, or `hub` in `HF_HOME`).
    pub cache: PathBuf,
    /// The access token (`HF_TOKEN`, or the file that `hf auth login` writes).
    pub token: Option<Token>,
    /// Whether only the cache is used (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// The timeout for an answer of the hub (`HF_HUB_DOWNLOAD_TIMEOUT`, in seconds).
    pub timeout: Duration,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
}

/// A secret, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Creates a token from text without the surrounding white space; `None` if the text is empty.
    ///
    /// # Errors
    /// [`Error::Config`] about `source` for text that is not allowed in a header.
    pub fn new(text: &str, source: &str) -> Result<Option<Token>> {
        let text = text.trim();
        match text {
            "" => Ok(None),
            _ if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(Token(text.to_owned()))),
            _ => {
                Err(Error::config(source, "is not a token: it may only have letters and digits, as in hf_…"))
            }
        }
    }

    /// The value of the authorization header, for the client.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Settings {
    /// Reads the settings from the environment of this process.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid variable.
    pub fn from_env() -> Result<Settings> {
        Settings::from_vars(&|name| std::env::var_os(name), std::env::home_dir().as_deref())
    }

    /// Reads the settings from another environment.
    fn from_vars(var: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Result<Settings> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let path = |name: &str| var(name).map(|value| with_home(PathBuf::from(value), home));
        let is_true = |name: &str| {
            let value = var(name).unwrap_or_default().to_string_lossy().to_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let hf_home = path("HF_HOME").or_else(|| {
            let caches = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")))?;
            Some(caches.join("huggingface"))
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| Some(hf_home.as_ref()?.join("hub"))).ok_or_else(|| {
            Error::config(
                "HF_HOME",
                "is not set, and the home folder is unknown: set it to a folder for downloads",
            )
        })?;
        let seconds = match var("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 10,
            Some(text) => text.to_str().and_then(|t| t.parse().ok()).filter(|n| *n > 0).ok_or_else(|| {
                Error::config("HF_HUB_DOWNLOAD_TIMEOUT", "must be a number of seconds above 0")
            })?,
        };
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
        let given =
            ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| Some((name, var(name)?)));
        let token = match (given, token_file) {
            (Some((name, text)), _) => Token::new(&text.to_string_lossy(), name)?,
            // As in huggingface_hub, the token in a file is used unless this variable is set.
            (None, _) if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => Token::new(&text, &file.display().to_string())?,
                Err(_) => None,
            },
            (None, None) => None,
        };
        Ok(Settings {
            endpoint: endpoint(var("HF_ENDPOINT"))?,
            cache,
            token,
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            timeout: Duration::from_secs(seconds),
            backoff: Duration::from_secs(1),
        })
    }
}

fn endpoint(given: Option<OsString>) -> Result<String> {
    let text = given.map_or(ENDPOINT.into(), |value| value.to_string_lossy().into_owned());
    let text = text.trim_end_matches('/');
    // A user name, a password or a query could be a secret, and the address is shown in messages.
    let plain = match text.contains(['@', '?']) {
        true => Err(format!("must be an address such as {ENDPOINT}, without user name, password or query")),
        false => address(text, ENDPOINT),
    };
    plain.map(|_| text.to_owned()).map_err(|why| Error::config("HF_ENDPOINT", why))
}

fn with_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Settings> {
        let find =
            |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Settings::from_vars(&find, Some(Path::new("/home/me")))
    }

    #[test]
    fn the_cache_is_at_the_path_that_huggingface_hub_uses() {
        for (vars, expected) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/home/me/h/hub"),
            (&[("HF_HOME", ""), ("HF_HUB_CACHE", "")], "/home/me/.cache/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HUGGINGFACE_HUB_CACHE", "/d")], "/d"),
        ] {
            assert_eq!(of(vars).unwrap().cache, Path::new(expected), "{vars:?}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(dir.path().join("other"), "hf_other").unwrap();
        let other = format!("{home}/other");
        let token = |vars: &[(&str, &str)]| of(vars).unwrap().token.map(|token| token.bearer());
        let header = |text: &str| Some(format!("Bearer {text}"));
        assert_eq!(token(&[("HF_HOME", home)]), header("hf_file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", &other)]), header("hf_other"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " hf_variable\n")]), header("hf_variable"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/no/such")]), None);
        let settings = of(&[("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{settings:?}").contains("hf_secret"));
        let error = of(&[("HF_TOKEN", "hf_secret\r\nX-Evil: 1")]).unwrap_err();
        assert!(
            error.to_string().starts_with("HF_TOKEN: ")
                && !format!("{error} {error:?}").contains("hf_secret")
        );
    }

    #[test]
    fn an_endpoint_is_an_address_without_a_password() {
        let endpoint = |text| of(&[("HF_ENDPOINT", text)]).map(|settings| settings.endpoint);
        assert_eq!(endpoint("").unwrap(), ENDPOINT);
        assert_eq!(endpoint("http://localhost:8080/mirror/").unwrap(), "http://localhost:8080/mirror");
        for text in [
            "hub",
            "ftp://x",
            "https://me:secret@hub",
            "https://",
            "/x",
            "https://a b",
            "http://h:99999",
            "http://h:",
        ] {
            let error = endpoint(text).unwrap_err().to_string();
            assert!(error.starts_with("HF_ENDPOINT: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn offline_and_the_timeout_are_read_as_huggingface_hub_reads_them() {
        assert!(!of(&[]).unwrap().offline && !of(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert!(of(&[("HF_HUB_OFFLINE", "true")]).unwrap().offline);
        assert!(of(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        assert_eq!(of(&[("HF_HUB_DOWNLOAD_TIMEOUT", "3")]).unwrap().timeout, Duration::from_secs(3));
        assert!(of(&[("HF_HUB_DOWNLOAD_TIMEOUT", "x")]).is_err());
    }
}
