//! The API key of a server: a secret that is sent to the server and never shown.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;

/// The default environment variable.
const VARIABLE: &str = "OPENAI_API_KEY";
/// The replacement for the key in texts.
const HIDDEN: &str = "(key)";

/// A secret. It is read from the environment or from a file, so that it appears in no command line and no
/// configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Reads the key from `file`, else from the environment variable `env`, else from OPENAI_API_KEY; `None` if there
    /// is none.
    ///
    /// # Errors
    /// As [`from_env`](Key::from_env) and [`from_file`](Key::from_file); [`Error::Config`] if the variable `env` is
    /// unset or empty.
    pub fn find(env: Option<&str>, file: Option<&Path>) -> Result<Option<Key>> {
        match (file, env) {
            (Some(file), _) => Key::from_file(file).map(Some),
            (None, None) => Key::from_env(VARIABLE),
            (None, Some(name)) => {
                let unset =
                    || Error::config("judge-key-env", format!("names {name}, which is unset or empty"));
                Key::from_env(name)?.map(Some).ok_or_else(unset)
            }
        }
    }

    /// Reads the key from an environment variable, without surrounding white space; `None` if the variable is unset or
    /// empty.
    ///
    /// # Errors
    /// [`Error::Config`] about the variable if its value cannot be put into a header.
    pub fn from_env(name: &str) -> Result<Option<Key>> {
        match std::env::var_os(name) {
            Some(value) => Key::new(&value.to_string_lossy(), name),
            None => Ok(None),
        }
    }

    /// Reads the key from a file, without surrounding white space.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Config`] about the file if it is empty or its content cannot be put into a header.
    pub fn from_file(path: &Path) -> Result<Key> {
        let source = path.display().to_string();
        let text = String::from_utf8(files::read(path)?).unwrap_or_else(|_| "\0".into());
        Key::new(&text, &source)?
            .ok_or_else(|| Error::config(source, "is empty: it must contain the key and nothing else"))
    }

    fn new(text: &str, source: &str) -> Result<Option<Key>> {
        let text = text.trim();
        // JSON escapes quotation marks and backslashes, so a key that contains them would not be found in an answer.
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        match text {
            "" => Ok(None),
            _ if text.bytes().all(plain) => Ok(Some(Key(text.to_owned()))),
            _ => Err(Error::config(
                source,
                "holds no valid key: a key consists of letters, digits and signs, such as sk-…",
            )),
        }
    }

    /// The value of the authorization header. Only the client needs it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// `text` with the key removed: a server may repeat it in an error.
    pub(super) fn hidden_in(&self, text: String) -> String {
        if text.contains(&self.0) { text.replace(&self.0, HIDDEN) } else { text }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_and_never_shown() {
        let key = Key::new(" sk-secret\n", "X").unwrap().unwrap();
        assert_eq!((key.bearer(), format!("{key:?}")), ("Bearer sk-secret".into(), "Key(…)".into()));
        assert_eq!(key.hidden_in("no key sk-secret!".into()), "no key (key)!");
        assert_eq!(Key::new(" \n", "X").unwrap(), None);
        for text in ["sk-secret\r\nX-Evil: 1", "sk secret", "sk-secrét", "sk-\"secret"] {
            let error = Key::new(text, "X").unwrap_err();
            assert!(error.to_string().starts_with("X: holds no valid key"), "{error}");
            assert!(!format!("{error} {error:?}").contains(text), "{error}");
        }
    }

    #[test]
    fn a_key_file_contains_only_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sk-file\n").unwrap();
        assert_eq!(Key::from_file(&path).unwrap().bearer(), "Bearer sk-file");
        for content in [&b""[..], b"\n", b"two words", b"\xff"] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(Key::from_file(&path), Err(Error::Config { .. })));
        }
        assert!(matches!(Key::from_file(&dir.path().join("none")), Err(Error::Io { .. })));
        let error = Key::find(Some("OAIF_NO_SUCH_VARIABLE"), None).unwrap_err().to_string();
        assert!(error.starts_with("judge-key-env: names OAIF_NO_SUCH_VARIABLE"), "{error}");
    }
}
