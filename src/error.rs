//! One error type: a variant a kind of failure, holding what was expected, what was found and the way out.

use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the world can do wrong. Each message is one sentence that names the thing and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// A row of a dataset is unusable.
    #[error("{}:{line}: {why}", path.display())]
    Row {
        /// The dataset.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// A tensor of a model file has another shape than the model's configuration asks for.
    #[error("{}: tensor {name} has shape {found:?}, config.json asks for {expected:?}: do the files belong together?", path.display())]
    TensorShape {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// An option, a configuration key or an argument has an unusable value.
    #[error("{what}: {why}")]
    Config {
        /// The option or key.
        what: String,
        /// What is wrong with its value and what would be right.
        why: String,
    },
    /// Text of more tokens than the model can take.
    #[error("{what} has {tokens} tokens, the model takes {limit}: shorten it")]
    TooLong {
        /// What is too long.
        what: String,
        /// Its length in tokens.
        tokens: usize,
        /// The model's (or the option's) limit in tokens.
        limit: usize,
    },
    /// A hub of models and datasets cannot be reached, or what it says cannot be true.
    #[error("{repo}: {why}")]
    Hub {
        /// The repository.
        repo: String,
        /// What happened and the way out.
        why: String,
    },
    /// No GPU that fits the request.
    #[error("{0}")]
    NoGpu(String),
    /// A single binding or buffer above what the GPU allows.
    #[error("{what} needs {} in one buffer, the GPU allows {}: {remedy}", size(*needed), size(*limit))]
    Limit {
        /// The tensor.
        what: String,
        /// Bytes asked for.
        needed: u64,
        /// The GPU's limit in bytes.
        limit: u64,
        /// The way out.
        remedy: Remedy,
    },
    /// The GPU's memory is exhausted.
    #[error(
        "out of GPU memory while allocating {what} ({}, {} already held{}{remedy}",
        size(*bytes), size(*held), up_to(*limit)
    )]
    OutOfMemory {
        /// The buffer that did not fit.
        what: String,
        /// Its size in bytes.
        bytes: u64,
        /// Bytes allocated before it.
        held: u64,
        /// Bytes that may be allocated in all, where the device was opened with such a limit.
        limit: Option<u64>,
        /// The way out.
        remedy: Remedy,
    },
    /// The driver took the device away.
    #[error(
        "the GPU was lost ({0}): open it again, and resume from the last checkpoint; if it happens again, update the driver"
    )]
    DeviceLost(String),
    /// A process that trains together with this one cannot be reached any more, or says what cannot be.
    #[error("{0}")]
    Ranks(String),
    /// A process that trains together with this one has failed, and tells its user.
    #[error("rank {rank}: {why}")]
    OtherRank {
        /// Its number.
        rank: usize,
        /// Its error.
        why: String,
    },
    /// wgpu refused something that it should not have been asked for.
    #[error("the GPU refused {what}: {why}")]
    Gpu {
        /// The call.
        what: String,
        /// wgpu's message.
        why: String,
    },
    /// A shader does not preprocess, parse or validate.
    #[error("shader {kernel}: {why}")]
    Shader {
        /// The kernel.
        kernel: String,
        /// The reason, with the source line.
        why: String,
    },
    /// An op without a gradient rule was recorded on a path that needs gradients.
    #[error("{op} has no gradient rule and cannot be recorded in a training plan")]
    NoGradient {
        /// The op.
        op: &'static str,
    },
    /// Too many steps in a row with a loss or gradient that is not finite.
    #[error(
        "{count} steps in a row had a loss or gradient that is not finite: lower the learning rate or the loss's beta, or \
         check the data of these steps"
    )]
    NonFinite {
        /// How many in a row.
        count: usize,
    },
    /// A check that the run makes on itself failed.
    #[error("{0}")]
    SelfCheck(String),
    /// A judge could not do its work at all.
    #[error("judge {name}: {why}")]
    Judge {
        /// Which judge.
        name: String,
        /// What happened and the way out.
        why: String,
    },
    /// Somebody asked for an end, or to cancel a step: a run has saved what it was asked to, and a step can be taken again.
    #[error("interrupted")]
    Interrupted,
}

/// What makes room on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Fewer texts at once, or shorter ones.
    SmallerBatch,
    /// A LoRA adapter of a lower rank.
    LowerRank,
    /// Training a LoRA adapter rather than all weights.
    FewerTrained,
    /// A model of smaller weights.
    SmallerModel,
    /// Anything that takes less memory in all.
    LessMemory,
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Remedy::SmallerBatch => "lower the batch size or the lengths of texts",
            Remedy::LowerRank => "use a LoRA adapter of a lower rank",
            Remedy::FewerTrained => "train a LoRA adapter, or use a smaller model",
            Remedy::SmallerModel => "use a smaller model",
            Remedy::LessMemory => "lower the batch size or the lengths of texts, or use a smaller model",
        })
    }
}

/// What a limit of memory allows, up to the ways out.
fn up_to(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(", memory_limit allows {}): raise memory_limit, or ", size(limit)),
        None => "): ".into(),
    }
}

/// Bytes for a reader: "159 MiB", "2.4 GiB".
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.96 MiB is a GiB to a reader.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// An [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, why: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_owned(), why: why.into() }
    }

    /// An [`Error::Hub`] about the repository `repo`.
    #[cfg(feature = "http")]
    pub(crate) fn hub(repo: impl std::fmt::Display, why: impl Into<String>) -> Error {
        Error::Hub { repo: repo.to_string(), why: why.into() }
    }

    /// An [`Error::Config`] about the option or key `what`.
    pub fn config(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Config { what: what.into(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_units_that_a_reader_knows() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1 << 10, "1.0 KiB"),
            (134_217_728, "128 MiB"),
            (159_227_904, "152 MiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (2_576_980_378, "2.4 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
