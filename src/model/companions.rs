//! The other files of a model's folder, such as the tokenizer's, which are copied to models and adapters derived from
//! it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{files, gguf};

/// Suffixes of the file names of weights, their indexes and training states, in the formats of all common libraries.
const WEIGHTS: [&str; 17] = [
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".tflite",
    ".gguf",
    ".ggml",
    ".npz",
    ".pkl",
    ".index.json",
    ".tmp",
    ".lock",
];

/// Files that are written anew, or that describe a run.
const NOT_COPIED: [&str; 11] = [
    "config.json",
    "adapter_config.json",
    "run.json",
    "state.json",
    "checksums.json",
    "summary.json",
    "metrics.jsonl",
    "pairs.jsonl",
    "eval_samples.jsonl",
    "report.html",
    "trainer_state.json",
];

/// The folder of a tokenizer's additional chat templates, as transformers saves them.
const TEMPLATES: &str = "additional_chat_templates";

/// Files that loading a model reads. They are copied even if they are links that lead out of the folder.
const READ: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
];

/// Prefixes of the file names of a tokenizer: the files that PEFT and TRL save together with an adapter.
const TOKENIZER: [&str; 8] = [
    "tokenizer",
    "special_tokens_map",
    "added_tokens",
    "chat_template",
    "vocab",
    "merges",
    "spiece",
    "sentencepiece",
];

/// The size of the largest file that is copied.
const MAX_BYTES: u64 = 128 << 20;

/// Which files are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Companions {
    /// All of them: for a model.
    All,
    /// The tokenizer's: for an adapter.
    Tokenizer,
}

impl Companions {
    /// Copies the files from the folder `source` to `dir`, or writes the equivalent metadata of a GGUF file there.
    pub fn copy(self, source: &Path, dir: &Path) -> Result<()> {
        if let Some(file) = gguf::file_of(source)? {
            return gguf::write_companions(&file, dir, self == Companions::All);
        }
        let home = files::real(source)?;
        if home == files::real(dir)? {
            return Ok(());
        }
        for (name, from) in self.files(&home, source)? {
            files::write_atomic(&dir.join(name), &files::read(&from)?)?;
        }
        let (templates, to) = (source.join(TEMPLATES), dir.join(TEMPLATES));
        if files::real(&templates).is_ok_and(|path| files::is_dir(&path) && belongs(&path, &home)) {
            if fs::symlink_metadata(&to).is_ok_and(|found| !found.is_dir()) {
                return Err(Error::file(
                    to,
                    "is not a folder: remove it, since the chat templates are saved there",
                ));
            }
            files::create_dir_all(&to)?;
            for (name, from) in Companions::All.files(&home, &templates)? {
                files::write_atomic(&to.join(name), &files::read(&from)?)?;
            }
        }
        Ok(())
    }

    /// The names and paths of the files, sorted. Hidden files are skipped, and so are links that lead out of the
    /// model's folder.
    fn files(self, home: &Path, dir: &Path) -> Result<Vec<(String, PathBuf)>> {
        let mut out = Vec::new();
        for path in files::list(dir)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(target) = files::real(&path) else { continue };
            let small =
                files::is_file(&target) && files::length(&target).is_ok_and(|bytes| bytes <= MAX_BYTES);
            if small && self.include(name) && (READ.contains(&name) || belongs(&target, home)) {
                out.push((name.to_owned(), path));
            }
        }
        out.sort();
        Ok(out)
    }

    fn include(self, name: &str) -> bool {
        let lower = name.to_lowercase();
        let stays = lower.starts_with('.')
            || NOT_COPIED.contains(&lower.as_str())
            || WEIGHTS.iter().any(|end| lower.ends_with(end));
        let tokenizer =
            || TOKENIZER.iter().any(|start| lower.starts_with(start)) || lower.ends_with(".tiktoken");
        !stays && (self == Companions::All || tokenizer())
    }
}

/// Whether a file belongs to a model's folder: it is inside, or among the contents of the download cache that holds the
/// folder (`blobs` next to `snapshots`).
fn belongs(target: &Path, home: &Path) -> bool {
    let cache = || {
        let snapshots = home.parent()?;
        let blobs = snapshots.parent()?.join("blobs");
        (snapshots.file_name()? == "snapshots").then_some(blobs)
    };
    target.starts_with(home) || cache().is_some_and(|blobs| target.starts_with(blobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        files::create_dir_all(path.parent().unwrap()).unwrap();
        files::write_atomic(path, text.as_bytes()).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A model's folder with all kinds of files, and an empty folder.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (source, dir) = (root.path().join("model"), root.path().join("out"));
        for name in [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "model.safetensors.index.json",
            "model-q4.GGUF",
            "run.json",
            "metrics.jsonl",
            "state.json",
            "checksums.json",
            "optimiser.safetensors",
            ".gitattributes",
            "original/consolidated.00.pth",
            "original/params.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.json",
            "qwen.tiktoken",
            "spiece.model",
            "preprocessor_config.json",
            "LICENSE",
            "README.md",
            "additional_chat_templates/tool_use.jinja",
        ] {
            write(&source.join(name), name);
        }
        files::create_dir_all(&dir).unwrap();
        (root, source, dir)
    }

    #[test]
    fn a_model_is_saved_with_all_files_except_weights_and_run_files() {
        let (_root, source, dir) = folders();
        Companions::All.copy(&source, &dir).unwrap();
        let expected = [
            "LICENSE",
            "README.md",
            "additional_chat_templates",
            "chat_template.json",
            "preprocessor_config.json",
            "qwen.tiktoken",
            "spiece.model",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(names(&dir), expected);
        assert_eq!(names(&dir.join(TEMPLATES)), ["tool_use.jinja"]);
        assert_eq!(files::read(&dir.join("tokenizer.model")).unwrap(), b"tokenizer.model");
        // Copying a folder onto itself does nothing.
        Companions::All.copy(&source, &source.join("../model")).unwrap();
    }

    #[test]
    fn an_adapter_is_saved_with_the_tokenizer() {
        let (_root, source, dir) = folders();
        Companions::Tokenizer.copy(&source, &dir).unwrap();
        let expected = [
            "additional_chat_templates",
            "chat_template.json",
            "qwen.tiktoken",
            "spiece.model",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(names(&dir), expected);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_only_within_the_model() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let (source, dir) = (root.path().join("snapshots/1a2b"), root.path().join("out"));
        write(&root.path().join("blobs/77"), "merges");
        write(&root.path().join("secret"), "secret");
        write(&source.join("a.txt"), "a");
        files::create_dir_all(&dir).unwrap();
        symlink(root.path().join("blobs/77"), source.join("merges.txt")).unwrap();
        symlink("a.txt", source.join("b.txt")).unwrap();
        symlink(root.path().join("secret"), source.join("vocab.txt")).unwrap();
        symlink(root.path().join("secret"), source.join("tokenizer.json")).unwrap();
        symlink(root.path().join("nowhere"), source.join("c.txt")).unwrap();
        // A link at the destination is replaced, not written through.
        symlink(root.path().join("secret"), dir.join("a.txt")).unwrap();
        Companions::All.copy(&source, &dir).unwrap();
        assert_eq!(names(&dir), ["a.txt", "b.txt", "merges.txt", "tokenizer.json"]);
        assert_eq!(files::read(&dir.join("merges.txt")).unwrap(), b"merges");
        assert_eq!(files::read(&root.path().join("secret")).unwrap(), b"secret");
        assert!(fs::symlink_metadata(dir.join("a.txt")).unwrap().is_file());
        // A linked folder at the destination is not written through either.
        write(&source.join("additional_chat_templates/x.jinja"), "x");
        symlink(root.path(), dir.join(TEMPLATES)).unwrap();
        let why = Companions::All.copy(&source, &dir).unwrap_err().to_string();
        assert!(why.contains("additional_chat_templates: is not a folder"), "{why}");
        assert!(!root.path().join("x.jinja").exists());
    }
}
