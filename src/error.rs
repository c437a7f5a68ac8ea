//! The error type of the crate: a variant for each kind of failure, with what was expected, what was found and the way
//! out.

use std::path::{Path, PathBuf};

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The errors of the crate. Each message is one sentence that names the subject, what is wrong with it, and the way
/// out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The reason that the system reports.
        source: std::io::Error,
    },
    /// A file exists, but its content is invalid.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        why: String,
    },
    /// A row of a dataset is invalid.
    #[error("{}:{line}: {why}", path.display())]
    Row {
        /// The dataset.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it, and the way out.
        why: String,
    },
    /// A tensor of a model file has another shape than the model's configuration requires.
    #[error("{}: tensor {name} has shape {found:?}, but config.json requires {expected:?}: check that the files belong together", path.display())]
    TensorShape {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration requires.
        expected: Vec<usize>,
    },
    /// An option, a configuration key or an argument has an invalid value.
    #[error("{what}: {why}")]
    Config {
        /// The option or key.
        what: String,
        /// What is wrong with its value, and the way out.
        why: String,
    },
    /// A text has more tokens than the model, or an option, allows.
    #[error("{what} has {tokens} tokens, the model takes {limit}: shorten it")]
    TooLong {
        /// The text.
        what: String,
        /// Its length in tokens.
        tokens: usize,
        /// The model's (or the option's) limit in tokens.
        limit: usize,
    },
    /// A hub of models and datasets cannot be reached, or its answer is invalid.
    #[error("{repo}: {why}")]
    Hub {
        /// The repository.
        repo: String,
        /// What happened, and the way out.
        why: String,
    },
    /// There is no GPU that fits the request.
    #[error("{0}")]
    NoGpu(String),
    /// A single binding or buffer would exceed the GPU's limit.
    #[error("{what} needs {} in one buffer, the GPU allows {}: {remedy}", size(*needed), size(*limit))]
    Limit {
        /// The tensor.
        what: String,
        /// The requested size in bytes.
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
        /// The size in bytes.
        bytes: u64,
        /// The number of bytes that were allocated before.
        held: u64,
        /// The limit of all allocations in bytes, if the device was opened with one.
        limit: Option<u64>,
        /// The way out.
        remedy: Remedy,
    },
    /// The device was lost.
    #[error(
        "the GPU was lost ({0}): open it again, and resume from the last checkpoint; if it happens again, update the driver"
    )]
    DeviceLost(String),
    /// Another process of the same training cannot be reached any more, or sent something invalid.
    #[error("{0}")]
    Ranks(String),
    /// Another process of the same training has failed, and reports its own error.
    #[error("rank {rank}: {why}")]
    OtherRank {
        /// The rank of that process.
        rank: usize,
        /// The error of that process.
        why: String,
    },
    /// wgpu rejected a call, which is a fault of this crate.
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
    /// Too many consecutive steps had a loss or gradient that is not finite.
    #[error(
        "{count} steps in a row had a loss or gradient that is not finite: lower the learning rate or the loss's beta, or \
         check the data of these steps"
    )]
    NonFinite {
        /// The number of consecutive steps.
        count: usize,
    },
    /// A check of the run's own results failed.
    #[error("{0}")]
    SelfCheck(String),
    /// A judge failed.
    #[error("judge {name}: {why}")]
    Judge {
        /// The judge.
        name: String,
        /// What happened, and the way out.
        why: String,
    },
    /// The run or the step was cancelled on request. A run has saved its progress before; a step can be repeated.
    #[error("interrupted")]
    Interrupted,
}

/// Ways to reduce the use of GPU memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Fewer or shorter texts at a time.
    SmallerBatch,
    /// A LoRA adapter of a lower rank.
    LowerRank,
    /// Training a LoRA adapter rather than all weights.
    FewerTrained,
    /// A model with smaller weights.
    SmallerModel,
    /// Anything that reduces the total memory.
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

/// The part of the message about the memory limit, up to the ways out.
fn up_to(limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!(", memory_limit allows {}): raise memory_limit, or ", size(limit)),
        None => "): ".into(),
    }
}

/// Formats bytes for a reader: "159 MiB", "2.4 GiB".
pub fn size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // Values that would round to 1000 or more are shown in the next unit.
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

impl Error {
    /// Creates an [`Error::Io`] about `path`, for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// Creates an [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, why: impl Into<String>) -> Error {
        Error::File { path: path.as_ref().to_owned(), why: why.into() }
    }

    /// Creates an [`Error::Hub`] about the repository `repo`.
    #[cfg(feature = "http")]
    pub(crate) fn hub(repo: impl std::fmt::Display, why: impl Into<String>) -> Error {
        Error::Hub { repo: repo.to_string(), why: why.into() }
    }

    /// Creates an [`Error::Config`] about the option or key `what`.
    pub fn config(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Config { what: what.into(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_readable_units() {
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
