//! Reads the configurations ("subsets") of a dataset from its card, README.md:
//!
//! ```yaml
//! ---
//! configs:
//! - config_name: default
//!   data_files:
//!   - split: train
//!     path: data/train-*
//! ---
//! ```

use serde::Deserialize;
use serde_json::Value;

/// The size of the longest description that is accepted.
const LONGEST: usize = 4 << 20;

/// A configuration of a dataset.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub name: String,
    /// Whether it is used if none is named.
    pub default: bool,
    /// Splits with the patterns of their files, in the order of the card.
    pub splits: Vec<(String, Vec<String>)>,
    /// The folder of its files, a prefix of the patterns.
    pub folder: Option<String>,
}

#[derive(Deserialize)]
struct Card {
    #[serde(default)]
    configs: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    config_name: Option<Value>,
    #[serde(default)]
    default: bool,
    data_files: Option<Value>,
    data_dir: Option<String>,
}

/// Parses the configurations in the card `bytes`; there are none if it has no such description.
pub(super) fn configs(bytes: &[u8]) -> Result<Vec<Config>, String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let description =
        text.strip_prefix("---\n").and_then(|text| text.split_once("\n---").map(|(text, _)| text));
    let Some(description) = description.filter(|text| text.contains("configs:")) else {
        return Ok(Vec::new());
    };
    if description.len() > LONGEST {
        return Err(format!(
            "has a description of more than {} MiB: give a file name after :",
            LONGEST >> 20
        ));
    }
    let card: Card = serde_saphyr::from_str(description).map_err(|e| {
        let why = e.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("its description cannot be read ({why}): give a file name after :")
    })?;
    let entries = card.configs.unwrap_or_default().into_iter();
    entries.map(|entry| entry.config().ok_or_else(|| UNKNOWN.to_owned())).collect()
}

const UNKNOWN: &str = "the data_files of its configs have an unknown form: give a file name after :";

impl Entry {
    fn config(self) -> Option<Config> {
        let name = match self.config_name {
            None | Some(Value::Null) => "default".to_owned(),
            Some(Value::String(name)) => name,
            Some(other) => other.to_string(),
        };
        let splits = match self.data_files {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) if list.iter().any(Value::is_object) => {
                list.iter().map(split).collect::<Option<_>>()?
            }
            Some(Value::Object(map)) => {
                map.iter().map(|(name, path)| Some((name.clone(), patterns(path)?))).collect::<Option<_>>()?
            }
            Some(other) => vec![("train".to_owned(), patterns(&other)?)],
        };
        let folder = self.data_dir.map(|dir| dir.trim_matches('/').trim_start_matches("./").to_owned());
        let folder = folder.filter(|dir| !dir.is_empty() && dir != ".");
        Some(Config { default: self.default || name == "default", name, splits, folder })
    }
}

fn split(value: &Value) -> Option<(String, Vec<String>)> {
    Some((value["split"].as_str()?.to_owned(), patterns(&value["path"])?))
}

fn patterns(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(pattern) => Some(vec![pattern.clone()]),
        Value::Array(list) => list.iter().map(|pattern| pattern.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_in_all_their_forms() {
        let card = "---\nlicense: mit\nconfigs:\n- config_name: all\n  default: true\n  data_files:\n  - split: train\n    path:\n    - \"a/train*\"\n    - b/train*\n  - split: test\n    path: a/test*\n- config_name: a\n  data_dir: ./a/\n- config_name: c\n  data_files: c.csv\n---\n# Title\n---\n";
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let configs = configs(card.as_bytes()).unwrap();
        let [all, a, c] = &configs[..] else { panic!("{configs:?}") };
        assert!(all.default && !a.default && all.name == "all");
        let expected =
            [("train".to_owned(), list(&["a/train*", "b/train*"])), ("test".to_owned(), list(&["a/test*"]))];
        assert_eq!(all.splits, expected);
        assert_eq!((a.folder.as_deref(), a.splits.len()), (Some("a"), 0));
        assert_eq!(c.splits, [("train".to_owned(), list(&["c.csv"]))]);
    }

    #[test]
    fn a_card_without_configurations_has_none_and_a_broken_one_is_refused() {
        for card in [
            "",
            "# Title",
            "---\nlicense: mit\n---\n",
            "---\nconfigs:\n---\n",
            "---\nconfigs: [",
            "\u{0}\u{ff}",
        ] {
            assert_eq!(configs(card.as_bytes()), Ok(Vec::new()), "{card:?}");
        }
        for card in [
            "---\nconfigs: [\n---\n",
            "---\nconfigs: 3\n---\n",
            "---\nconfigs:\n- config_name: a\n  data_files:\n  - path: x\n---\n",
        ] {
            assert!(configs(card.as_bytes()).is_err(), "{card:?}");
        }
    }
}
