//! Selection of the files of a repository that are needed.

use std::collections::BTreeSet;
use std::path::Path;

use super::names::{Repo, unsafe_name};
use super::{card, rows};
use crate::error::{Error, Result};
use crate::files;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// The files of a model folder, other than weights, that are downloaded; most belong to the tokenizer.
const MODEL: [&str; 15] = [
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
];
/// The folder of a tokenizer's additional chat templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// The suffix of GGUF files.
const GGUF: &str = ".gguf";
/// Suffixes of weights in formats that are not supported.
const OTHER_WEIGHTS: [&str; 7] = [".bin", ".onnx", ".h5", ".msgpack", ".pt", ".pth", ".safetensors"];
/// The number of names that an error lists.
const LISTED: usize = 5;

/// What is requested from a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A model with its tokenizer.
    Model,
    /// A model's configuration and tokenizer, which are enough for a dry run.
    ModelWithoutWeights,
    /// A LoRA adapter.
    Adapter,
    /// Dataset files: those of a split such as "train", of a subset ("en") or of a split of one ("en/train"), or by
    /// their names or a pattern ("data/train-*"). `None` means "train", or all files if there is no such split.
    Rows(Option<String>),
}

/// The files that are downloaded.
#[derive(Debug)]
pub(super) struct Choice {
    pub files: Vec<String>,
    /// A file that has to be read first, since it lists others.
    pub index: Option<String>,
}

impl Wanted {
    /// Chooses the files among `names` that are needed, small ones first.
    pub(super) fn choose(&self, repo: &Repo, names: &[&str]) -> Result<Choice> {
        let refused = |why: String| Err(Error::config(repo.to_string(), why));
        let has = |name: &str| names.contains(&name);
        let small = || {
            let named = MODEL.iter().filter(|name| has(name)).map(|name| (*name).to_owned());
            let template =
                |name: &&&str| name.strip_prefix(TEMPLATES).is_some_and(|rest| rest.ends_with(".jinja"));
            let tiktoken = |name: &&&str| name.ends_with(".tiktoken") && !name.contains('/');
            let others = names.iter().filter(|name| template(name) || tiktoken(name));
            named.chain(others.map(|name| (*name).to_owned())).collect::<Vec<_>>()
        };
        let safetensors = has(WEIGHTS) || has(INDEX);
        let ggufs: Vec<&&str> = names.iter().filter(|name| name.ends_with(GGUF)).collect();
        match self {
            // A single file has the whole model.
            Wanted::Model | Wanted::ModelWithoutWeights if !safetensors && !ggufs.is_empty() => match &ggufs[..] {
                [one] if !one.contains('/') => Ok(Choice { files: vec![(**one).to_owned()], index: None }),
                _ => refused(format!(
                    "has no {WEIGHTS}, only the GGUF files {}: download one with `hf download {} FILE --local-dir DIR`, then \
                     give DIR/FILE",
                    listed(ggufs.iter().copied()).unwrap_or_default(),
                    repo.to_string().split('@').next().unwrap_or_default()
                )),
            },
            Wanted::Model | Wanted::ModelWithoutWeights if !has(CONFIG) => refused(match has(ADAPTER_CONFIG) {
                true => "is a LoRA adapter, not a model: give its base model as the model and this as the adapter".into(),
                false => format!("is not a model that can be loaded (it has no {CONFIG})"),
            }),
            Wanted::ModelWithoutWeights => Ok(Choice { files: small(), index: None }),
            Wanted::Model => {
                let mut files = small();
                let index = match (has(WEIGHTS), has(INDEX)) {
                    (true, _) => None,
                    (false, true) => Some(INDEX.to_owned()),
                    (false, false) => return refused(without_weights(names, WEIGHTS)),
                };
                files.push(index.clone().unwrap_or(WEIGHTS.into()));
                Ok(Choice { files, index })
            }
            Wanted::Adapter if !has(ADAPTER_CONFIG) => refused(match has(CONFIG) {
                true => "is a model, not a LoRA adapter: give it as the model".into(),
                false => format!("is not a LoRA adapter: it has no {ADAPTER_CONFIG}"),
            }),
            Wanted::Adapter if !has(ADAPTER_WEIGHTS) => refused(without_weights(names, ADAPTER_WEIGHTS)),
            Wanted::Adapter => {
                // The adapter's tokenizer is compared with the model's.
                let own = ["tokenizer.json", "chat_template.jinja"].into_iter().filter(|name| has(name));
                let files = [ADAPTER_CONFIG].into_iter().chain(own).chain([ADAPTER_WEIGHTS]);
                Ok(Choice { files: files.map(str::to_owned).collect(), index: None })
            }
            // The card lists the files of each split, unless files are given by name.
            Wanted::Rows(split) if has(rows::CARD) && !rows::is_of_files(split.as_deref(), names) => {
                Ok(Choice { files: Vec::new(), index: Some(rows::CARD.into()) })
            }
            Wanted::Rows(split) => match rows::choose(split.as_deref(), names, &[]) {
                Ok(files) => Ok(Choice { files, index: None }),
                Err(why) => refused(why),
            },
        }
    }

    /// The first required file that is not among `names`.
    pub(super) fn first_missing(&self, names: &[&str]) -> &'static str {
        let needed: &[&str] = match self {
            Wanted::Adapter => &[ADAPTER_CONFIG, ADAPTER_WEIGHTS],
            Wanted::Rows(_) => &["these rows"],
            Wanted::Model | Wanted::ModelWithoutWeights => &[CONFIG, WEIGHTS],
        };
        needed.iter().find(|name| !names.contains(name)).unwrap_or(&CONFIG)
    }
}

impl Choice {
    /// Adds the files that the index at `path` refers to.
    pub fn follow(&mut self, wanted: &Wanted, repo: &Repo, path: &Path, names: &[&str]) -> Result<()> {
        let Wanted::Rows(split) = wanted else { return self.add_shards(repo, path, names) };
        let configs = card::configs(&files::read(path)?);
        let configs =
            configs.map_err(|why| Error::config(repo.to_string(), format!("{}: {why}", rows::CARD)))?;
        let chosen = rows::choose(split.as_deref(), names, &configs);
        self.files = chosen.map_err(|why| Error::config(repo.to_string(), why))?;
        Ok(())
    }

    /// Adds the files that the index of weights at `path` lists.
    fn add_shards(&mut self, repo: &Repo, path: &Path, names: &[&str]) -> Result<()> {
        let refused = |why: String| Err(Error::hub(repo, format!("{INDEX} {why}")));
        let index = files::read_json(path)?;
        let Some(map) = index["weight_map"].as_object() else {
            return refused("has no \"weight_map\" from tensors to files".into());
        };
        let mut shards = BTreeSet::new();
        for (tensor, shard) in map {
            match shard.as_str() {
                Some(name)
                    if unsafe_name(name).is_none()
                        && !name.contains('/')
                        && name.ends_with(".safetensors") =>
                {
                    shards.insert(name);
                }
                _ => {
                    return refused(format!(
                        "places tensor {tensor:?} in {shard}, which is not a weights file"
                    ));
                }
            }
        }
        if let Some(absent) = shards.iter().find(|shard| !names.contains(*shard)) {
            return refused(format!("lists {absent}, which the repository does not have"));
        }
        self.files.extend(shards.into_iter().map(str::to_owned));
        Ok(())
    }
}

fn without_weights(names: &[&str], expected: &str) -> String {
    let others = names.iter().filter(|name| OTHER_WEIGHTS.iter().any(|end| name.ends_with(end)));
    match listed(others) {
        None => format!("has no weights: expected {expected}"),
        Some(others) => format!(
            "has no {expected}, only {others}, which is not supported: use a repository with safetensors, or save \
             the model as safetensors with transformers"
        ),
    }
}

/// Formats names as "a, b and 3 more"; `None` if there are none.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a &'a str>) -> Option<String> {
    let names: Vec<&str> = names.copied().collect();
    let more = names.len().saturating_sub(LISTED);
    let first = names[..names.len() - more].join(", ");
    match (names.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(first),
        _ => Some(format!("{first} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Kind;

    fn choose(wanted: Wanted, names: &[&str]) -> Result<Vec<String>, String> {
        let repo = Repo::parse(Kind::Model, "a/b").unwrap();
        wanted.choose(&repo, names).map(|choice| choice.files).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_consists_of_configuration_tokenizer_templates_and_safetensors() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "model-q4.gguf",
            "original/consolidated.safetensors",
            "consolidated.safetensors",
            "additional_chat_templates/rag.jinja",
            "chat_template.jinja",
            "x.tiktoken",
        ];
        let expected = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "chat_template.jinja",
            "additional_chat_templates/rag.jinja",
            "x.tiktoken",
            "model.safetensors",
        ];
        assert_eq!(choose(Wanted::Model, &names).unwrap(), expected);
        assert_eq!(choose(Wanted::ModelWithoutWeights, &names).unwrap(), expected[..6]);
    }

    #[test]
    fn the_error_for_a_repository_without_safetensors_lists_its_files() {
        let why = choose(Wanted::Model, &["config.json", "pytorch_model.bin", "x.onnx"]).unwrap_err();
        assert!(why.contains("has no model.safetensors, only pytorch_model.bin, x.onnx"), "{why}");
        let why = choose(Wanted::Model, &["config.json"]).unwrap_err();
        assert!(why.contains("has no weights: expected model.safetensors"), "{why}");
        let why = choose(Wanted::Model, &["adapter_config.json", "adapter_model.safetensors"]).unwrap_err();
        assert!(why.contains("is a LoRA adapter"), "{why}");
        let why = choose(Wanted::Adapter, &["config.json", "model.safetensors"]).unwrap_err();
        assert!(why.contains("is a model"), "{why}");
        let why = choose(Wanted::Adapter, &["adapter_config.json", "adapter_model.bin"]).unwrap_err();
        assert!(why.contains("only adapter_model.bin"), "{why}");
    }

    #[test]
    fn the_only_gguf_file_of_a_repository_is_chosen() {
        for wanted in [Wanted::Model, Wanted::ModelWithoutWeights] {
            let files = choose(wanted, &["README.md", "config.json", "x-q8_0.gguf"]).unwrap();
            assert_eq!(files, ["x-q8_0.gguf"]);
        }
        let why = choose(Wanted::Model, &["x-q4_0.gguf", "x-q8_0.gguf"]).unwrap_err();
        assert!(why.contains("x-q4_0.gguf, x-q8_0.gguf: download one with `hf download a/b FILE"), "{why}");
        let both = choose(Wanted::Model, &["config.json", "model.safetensors", "x.gguf"]).unwrap();
        assert_eq!(both, ["config.json", "model.safetensors"]);
    }

    #[test]
    fn an_index_may_list_only_existing_weights_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        let repo = Repo::parse(Kind::Model, "a/b").unwrap();
        let names = ["config.json", INDEX, "m-1.safetensors", "m-2.safetensors", "x/y.safetensors"];
        let with = |map: serde_json::Value| {
            std::fs::write(&path, serde_json::json!({"weight_map": map}).to_string()).unwrap();
            let mut choice = Wanted::Model.choose(&repo, &names).unwrap();
            choice.add_shards(&repo, &path, &names).map(|()| choice.files).map_err(|error| error.to_string())
        };
        let good =
            with(serde_json::json!({"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}));
        assert_eq!(good.unwrap(), ["config.json", INDEX, "m-1.safetensors", "m-2.safetensors"]);
        for name in
            ["../x.safetensors", "/x.safetensors", "x/y.safetensors", "config.json", "m-3.safetensors", ""]
        {
            assert!(with(serde_json::json!({"a": name})).is_err(), "{name}");
        }
        assert!(with(serde_json::json!({"a": 1})).is_err() && with(serde_json::json!(1)).is_err());
    }
}
