//! Selection of a split's files in a repository: by the configurations of the card, or else by name, as in `datasets`.
//! An ambiguous selection is an error that lists the choices.

use std::collections::BTreeSet;

use super::card::Config;
use super::glob::{is_pattern, matches};
use super::wanted::listed;

/// The file name of a dataset's card.
pub(super) const CARD: &str = "README.md";

/// Suffixes of supported dataset files, and of unsupported ones.
const ROWS: [&str; 6] = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"];
const OTHER_ROWS: [&str; 7] = [".txt", ".arrow", ".zst", ".bz2", ".xz", ".zip", ".tar"];
/// JSON files in dataset repositories that are not rows.
const NO_ROWS: [&str; 4] = ["dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json"];
/// The default split.
const TRAIN: &str = "train";

/// Whether `wanted` is a file name or a pattern.
pub(super) fn is_of_files(wanted: Option<&str>, names: &[&str]) -> bool {
    wanted.is_some_and(|wanted| is_pattern(wanted) || names.contains(&wanted))
}

/// Chooses the dataset files, in the order in which they are read.
pub(super) fn choose(
    wanted: Option<&str>,
    names: &[&str],
    configs: &[Config],
) -> Result<Vec<String>, String> {
    if let Some(file) = names.iter().find(|name| Some(**name) == wanted) {
        return match is_rows(file) {
            true => Ok(vec![(*file).to_owned()]),
            false => Err(format!("{file} is not supported: {FORMATS}")),
        };
    }
    let readable: Vec<&str> = names.iter().copied().filter(|name| is_rows(name)).collect();
    if readable.is_empty() {
        let other = |name: &&&str| is_table(name) || OTHER_ROWS.iter().any(|end| name.ends_with(end));
        return Err(match listed(names.iter().filter(other)) {
            None => format!("has no file of rows: {FORMATS}"),
            Some(others) => format!("has no supported files of rows, only {others}: {FORMATS}"),
        });
    }
    let chosen = match wanted.filter(|wanted| is_pattern(wanted)) {
        Some(pattern) => of_patterns(&[pattern.to_owned()], None, &readable),
        None if configs.is_empty() => by_names(wanted, &readable)?,
        None => by_configs(wanted, &readable, configs)?,
    };
    if chosen.is_empty() {
        let all = listed(readable.iter()).unwrap_or_default();
        return Err(format!("has no file of rows that matches {}, only {all}", wanted.unwrap_or(TRAIN)));
    }
    complete(&chosen)?;
    Ok(chosen.into_iter().map(str::to_owned).collect())
}

#[cfg(feature = "parquet")]
const FORMATS: &str =
    "rows are read from .parquet, .jsonl, .json, .csv and .tsv, the latter four also with .gz";
#[cfg(not(feature = "parquet"))]
const FORMATS: &str = "rows are read from .jsonl, .json, .csv, .tsv and these with .gz; .parquet requires a build with the feature parquet";

/// Chooses files by the configurations of the card.
fn by_configs<'a>(
    wanted: Option<&str>,
    readable: &[&'a str],
    configs: &[Config],
) -> Result<Vec<&'a str>, String> {
    let usual = || match configs {
        [only] => Some(only),
        several => several.iter().find(|config| config.default),
    };
    let named = |name: &str| configs.iter().find(|config| config.name == name);
    let has = |config: &Config, split: &str| config.splits.iter().any(|(name, _)| name == split);
    let pair = |wanted: &str| {
        let (config, split) = wanted.rsplit_once('/')?;
        Some((named(config)?, split.to_owned()))
    };
    let (config, split) = match wanted {
        None => (usual().ok_or_else(|| choices(configs))?, None),
        Some(wanted) => match (usual().filter(|config| has(config, wanted)), named(wanted), pair(wanted)) {
            (Some(config), ..) => (config, Some(wanted.to_owned())),
            (_, Some(config), _) => (config, None),
            (_, _, Some((config, split))) => (config, Some(split)),
            // Files that belong to no configuration.
            _ if configs.iter().all(|config| config.folder.is_none()) => {
                return by_names(Some(wanted), readable).map_err(|_| unknown(wanted, configs));
            }
            _ => return by_names(Some(wanted), readable),
        },
    };
    let folder = config.folder.as_deref();
    if config.splits.is_empty() {
        let prefix = folder.map_or_else(String::new, |folder| format!("{folder}/"));
        let inside: Vec<&str> = readable.iter().copied().filter(|name| name.starts_with(&prefix)).collect();
        return by_names(split.as_deref(), &inside);
    }
    let patterns = match (&split, &config.splits[..]) {
        (Some(split), splits) => splits.iter().find(|(name, _)| name == split),
        (None, [only]) => Some(only),
        (None, splits) => splits.iter().find(|(name, _)| name == TRAIN),
    };
    match patterns {
        Some((_, patterns)) => Ok(of_patterns(patterns, folder, readable)),
        None => Err(match split {
            Some(split) => unknown(&split, std::slice::from_ref(config)),
            None => choices(std::slice::from_ref(config)),
        }),
    }
}

/// The error for an ambiguous selection.
fn choices(configs: &[Config]) -> String {
    format!("has several sets of rows, {}: give one after :", all(configs))
}

fn unknown(wanted: &str, configs: &[Config]) -> String {
    format!("has no rows called {wanted:?}, only {}: give one of them after :", all(configs))
}

/// The names of all splits, with those of their configurations if there are several.
fn all(configs: &[Config]) -> String {
    let of = |config: &Config| match (configs.len(), &config.splits[..]) {
        (_, []) => vec![config.name.clone()],
        (1, splits) => splits.iter().map(|(split, _)| split.clone()).collect(),
        (_, splits) => splits.iter().map(|(split, _)| format!("{}/{split}", config.name)).collect(),
    };
    let names: Vec<String> = configs.iter().flat_map(of).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    listed(names.iter()).unwrap_or_default()
}

/// The files that match the patterns: pattern by pattern, sorted by name within each.
fn of_patterns<'a>(patterns: &[String], folder: Option<&str>, readable: &[&'a str]) -> Vec<&'a str> {
    let mut chosen: Vec<&str> = Vec::new();
    for pattern in patterns {
        let pattern = pattern.trim_start_matches("./");
        let pattern = folder.map_or_else(|| pattern.to_owned(), |folder| format!("{folder}/{pattern}"));
        let inside = format!("{}/**", pattern.trim_end_matches('/'));
        let matched = |name: &&&str| matches(&pattern, name) || matches(&inside, name);
        let mut files: Vec<&str> = readable.iter().filter(matched).copied().collect();
        files.sort_unstable();
        files.retain(|file| !chosen.contains(file));
        chosen.extend(files);
    }
    chosen
}

/// Chooses files by name: those of a split or of a folder. They must be a single file, or the parts of one.
fn by_names<'a>(wanted: Option<&str>, readable: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let split = wanted.unwrap_or(TRAIN);
    let below = |folder: &str| {
        let prefix = format!("{folder}/");
        readable.iter().copied().filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>()
    };
    let of = |split: &str, names: &[&'a str]| {
        let is = |name: &&str| stem(name) == split || is_of_split(name, split);
        names.iter().copied().filter(is).collect::<Vec<_>>()
    };
    let mut found = of(split, readable);
    if found.is_empty()
        && let Some((folder, split)) = split.rsplit_once('/')
    {
        found = of(split, &below(folder));
    }
    if found.is_empty() && wanted.is_some() {
        let inside = below(split);
        found = of(TRAIN, &inside);
        if found.is_empty() {
            found = inside;
        }
    }
    if found.is_empty() && wanted.is_none() {
        // All files, except those of test and validation splits.
        let other = |name: &str| ["validation", "test"].iter().any(|split| is_of_split(name, split));
        found = readable.iter().copied().filter(|name| !other(name)).collect();
    }
    found.sort_unstable();
    let series: BTreeSet<String> = found.iter().map(|name| series(name)).collect();
    match (found.len(), series.len(), wanted) {
        (0, ..) => Err(format!(
            "has no file of the split {split:?}, only {}: give one of them after :",
            listed(readable.iter()).unwrap_or_default()
        )),
        (_, 1, _) => Ok(found),
        (several, ..) => {
            let mut stems: Vec<&str> = found.iter().map(|name| stem(name)).collect();
            stems.dedup();
            Err(format!(
                "has {several} files of the split {split:?} that are not parts of one: {}; give one after :, or several by \
                 a pattern such as *.jsonl",
                listed(stems.iter()).unwrap_or_default()
            ))
        }
    }
}

/// Returns an error if some parts of a series are missing.
fn complete(chosen: &[&str]) -> Result<(), String> {
    let all = chosen.iter().filter_map(|name| Some((series(name), numbered(name)?)));
    for (whole, (_, count)) in all {
        let parts = chosen.iter().filter(|name| series(name) == whole).count();
        if parts != count {
            return Err(format!("has {parts} of the {count} files {whole}: the others are missing"));
        }
    }
    Ok(())
}

/// The index of a part and the number of parts, from a name such as train-00000-of-00002.parquet.
fn numbered(name: &str) -> Option<(usize, usize)> {
    let (before, after) = stem(name).rsplit_once("-of-")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some((before.rsplit('-').next()?.parse().ok()?, digits.parse().ok()?))
}

/// The name that all parts of a series share: without the number.
fn series(name: &str) -> String {
    let (whole, end) = (stem(name), &name[stem(name).len()..]);
    let start = match numbered(name) {
        Some(_) => {
            whole.rsplit_once("-of-").and_then(|(before, _)| before.rsplit_once('-')).map(|(start, _)| start)
        }
        None => Some(whole.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '_', '.'])),
    };
    format!("{}{end}", start.unwrap_or(whole))
}

fn is_rows(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    is_table(name) && !NO_ROWS.contains(&file) && (cfg!(feature = "parquet") || !file.ends_with(".parquet"))
}

fn is_table(name: &str) -> bool {
    ROWS.iter().any(|end| plain(name).ends_with(end)) && !name.split('/').any(|part| part.starts_with('.'))
}

/// Removes the suffix of compression from a name.
fn plain(name: &str) -> &str {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    if plain.ends_with(".parquet") { name } else { plain }
}

/// Removes the suffixes of the format from a name.
fn stem(name: &str) -> &str {
    let plain = plain(name);
    ROWS.iter().find_map(|end| plain.strip_suffix(end)).unwrap_or(plain)
}

/// Whether the path belongs to the split, by the rules of `datasets`: one of its words is the split's name.
fn is_of_split(name: &str, split: &str) -> bool {
    let also: &[&str] = match split {
        "train" => &["training"],
        "validation" => &["valid", "dev", "val"],
        "test" => &["testing", "eval", "evaluation"],
        _ => &[],
    };
    // The split's name may itself have several words, such as test_sft.
    let whole = stem(name).rsplit('/').next().unwrap_or_default();
    let numbered = whole.strip_prefix(split).is_some_and(|rest| rest.starts_with(|c: char| "-.".contains(c)));
    let word = |word: &str| word == split || also.contains(&word);
    numbered || whole == split || stem(name).split(['/', '-', '_', '.', ' ']).any(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::card;

    fn rows(wanted: Option<&str>, names: &[&str]) -> Result<Vec<String>, String> {
        choose(wanted, names, &[])
    }

    fn one(name: &str) -> Result<Vec<String>, String> {
        Ok(vec![name.to_owned()])
    }

    #[test]
    fn the_file_of_a_split_or_a_given_file_is_chosen() {
        assert_eq!(rows(None, &["README.md", "rows.jsonl"]), one("rows.jsonl"));
        assert_eq!(rows(None, &["train.json", "test.json", "dataset_infos.json"]), one("train.json"));
        assert_eq!(rows(Some("test"), &["train.json", "test.json"]), one("test.json"));
        assert_eq!(rows(Some("validation"), &["train.json", "dev.json"]), one("dev.json"));
        assert_eq!(
            rows(None, &["data/train-00000-of-00001.jsonl.gz", "x.json"]),
            one("data/train-00000-of-00001.jsonl.gz")
        );
        assert_eq!(
            rows(Some("test_sft"), &["a/test_sft-0.jsonl", "a/train_sft-0.jsonl"]),
            one("a/test_sft-0.jsonl")
        );
        assert!(rows(None, &["validation.json", "test.json"]).unwrap_err().contains("split \"train\""));
    }

    #[test]
    fn the_error_for_files_in_several_folders_lists_the_choices() {
        let hh = [
            "harmless-base/test.jsonl.gz",
            "harmless-base/train.jsonl.gz",
            "helpful-base/train.jsonl.gz",
            "red-team-attempts/red_team_attempts.jsonl.gz",
        ];
        assert_eq!(rows(Some("harmless-base/train"), &hh), one(hh[1]));
        assert_eq!(rows(Some("harmless-base"), &hh), one(hh[1]));
        assert_eq!(rows(Some("red-team-attempts"), &hh), one(hh[3]));
        assert_eq!(rows(Some(hh[1]), &hh), one(hh[1]));
        assert_eq!(rows(Some("*/train.jsonl.gz"), &hh).unwrap(), [hh[1], hh[2]]);
        let why = rows(None, &hh).unwrap_err();
        assert!(
            why.contains("has 2 files of the split \"train\"")
                && why.contains("harmless-base/train, helpful-base/train"),
            "{why}"
        );
        assert!(rows(Some("dev"), &hh).unwrap_err().contains("no file of the split \"dev\""));
        assert!(rows(Some("*.csv"), &hh).unwrap_err().contains("matches *.csv"));
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn the_parts_of_a_split_are_chosen_in_order_and_must_be_complete() {
        let names = [
            "data/train-00001-of-00003.parquet",
            "data/train-00000-of-00003.parquet",
            "data/test-00000-of-00001.parquet",
            "data/train-00002-of-00003.parquet",
        ];
        let parts = [names[1], names[0], names[3]];
        assert_eq!(rows(None, &names).unwrap(), parts);
        assert_eq!(rows(Some("data/train-*"), &names).unwrap(), parts);
        assert_eq!(rows(Some("test"), &names), one(names[2]));
        assert!(rows(None, &names[..3]).unwrap_err().contains("2 of the 3 files data/train.parquet"));
        let hashed = [
            "data/train-00000-of-00002-a09b74b3ef9c3b56.parquet",
            "data/train-00001-of-00002-bb51ad2.parquet",
        ];
        assert_eq!(rows(Some("train"), &hashed).unwrap(), hashed);
        assert_eq!(rows(None, &["b_1.csv", "b_0.csv"]).unwrap(), ["b_0.csv", "b_1.csv"]);
        let both = ["train.jsonl", "train.parquet"];
        assert!(rows(None, &both).unwrap_err().contains("not parts of one"));
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn the_card_lists_the_files_of_each_split() {
        // HuggingFaceH4/ultrafeedback_binarized.
        let splits = ["train_prefs", "train_sft", "test_prefs", "test_sft", "train_gen", "test_gen"];
        let entry = |split: &&str| format!("  - split: {split}\n    path: data/{split}-*\n");
        let entries: String = splits.iter().map(entry).collect();
        let card =
            format!("---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n{entries}---\n");
        let configs = card::configs(card.as_bytes()).unwrap();
        let files = splits.map(|split| format!("data/{split}-00000-of-00001.parquet"));
        let names: Vec<&str> = files.iter().map(String::as_str).chain(["README.md"]).collect();
        for (split, file) in splits.iter().zip(&files) {
            for wanted in [(*split).to_owned(), format!("default/{split}")] {
                assert_eq!(choose(Some(&wanted), &names, &configs), one(file));
            }
        }
        let why = choose(None, &names, &configs).unwrap_err();
        assert!(why.contains("train_prefs, train_sft, test_prefs, test_sft, train_gen and 1 more"), "{why}");
        let why = choose(Some("train"), &names, &configs).unwrap_err();
        assert!(why.contains("no rows called \"train\"") && why.contains("train_prefs"), "{why}");
    }

    #[test]
    fn configurations_are_selected_by_default_name_or_folder() {
        let card = "---\nconfigs:\n- config_name: all\n  default: true\n  data_files:\n  - split: train\n    path: [\"a/train*\", \"b/*/train*\"]\n- config_name: a\n  data_dir: a\n- config_name: b\n  data_dir: b\n  data_files: x\n---\n";
        let configs = card::configs(card.as_bytes()).unwrap();
        let names = ["b/x/train.jsonl", "a/train.jsonl", "a/test.jsonl", "c/train.jsonl"];
        let rows = |wanted| choose(wanted, &names, &configs);
        assert_eq!(rows(None).unwrap(), ["a/train.jsonl", "b/x/train.jsonl"]);
        assert_eq!(rows(Some("all/train")).unwrap(), ["a/train.jsonl", "b/x/train.jsonl"]);
        assert_eq!(rows(Some("a")), one("a/train.jsonl"));
        assert_eq!(rows(Some("a/test")), one("a/test.jsonl"));
        assert_eq!(rows(Some("b")), one("b/x/train.jsonl"));
        let several = "---\nconfigs:\n- config_name: en\n  data_files: en.csv\n- config_name: de\n  data_files: de.csv\n---\n";
        let configs = card::configs(several.as_bytes()).unwrap();
        let names = ["en.csv", "de.csv"];
        assert_eq!(choose(Some("de"), &names, &configs), one("de.csv"));
        let why = choose(None, &names, &configs).unwrap_err();
        assert!(why.contains("several sets of rows, en/train, de/train"), "{why}");
    }

    #[test]
    fn errors_list_unsupported_files_of_rows() {
        let why = rows(None, &["README.md", "data/train-0.arrow", "data/test-0.arrow"]).unwrap_err();
        assert!(why.contains("only data/train-0.arrow, data/test-0.arrow"), "{why}");
        let why = rows(Some("data/train-0.arrow"), &["data/train-0.arrow"]).unwrap_err();
        assert!(why.contains("data/train-0.arrow is not supported"), "{why}");
        assert!(rows(None, &["README.md"]).unwrap_err().contains("has no file of rows"));
        let many: Vec<String> = (0..9).map(|i| format!("{i}.arrow")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(rows(None, &many).unwrap_err().contains("4.arrow and 4 more"));
    }
}
