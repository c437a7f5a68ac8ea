//! A kernel as a WGSL file, starting with comments for its name, its constants and the steps that launch it.

use std::fs;
use std::path::Path;

use crate::Result;

#[derive(Clone, Debug, PartialEq)]
pub struct KernelFile {
    /// The kernel's name.
    pub kernel: String,
    /// Name and value.
    pub constants: Vec<(String, String)>,
    /// The steps that launch it, each with its shape.
    pub steps: Vec<String>,
    /// The WGSL.
    pub source: String,
}

const PREFIXES: [&str; 3] = ["// kernel: ", "// constants: ", "// steps: "];

impl KernelFile {
    pub fn to_text(&self) -> String {
        let constants = self.constants.iter().map(|(name, value)| format!("{name}={value}"));
        let [kernel, with, of] = PREFIXES;
        let (constants, steps) = (constants.collect::<Vec<_>>().join(" "), self.steps.join("; "));
        format!("{kernel}{}\n{with}{constants}\n{of}{steps}\n{}", self.kernel, self.source)
    }

    /// Returns `None` if the text does not start as written by [`KernelFile::to_text`].
    pub fn from_text(text: &str) -> Option<KernelFile> {
        let mut rest = text;
        let mut line = |prefix: &str| {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            line.strip_prefix(prefix)
        };
        let [kernel, constants, steps] = [line(PREFIXES[0])?, line(PREFIXES[1])?, line(PREFIXES[2])?];
        let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.into(), value.into()));
        Some(KernelFile {
            kernel: kernel.into(),
            constants: constants.split(' ').filter_map(pair).collect(),
            steps: steps.split("; ").map(str::to_owned).collect(),
            source: rest.into(),
        })
    }

    /// Reads every kernel of a folder, with its file's name, sorted by name.
    pub fn read_all(dir: &Path) -> Result<Vec<(String, KernelFile)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let kernel = KernelFile::from_text(&fs::read_to_string(&path)?);
                let kernel =
                    kernel.ok_or_else(|| format!("{} was not written by `write`", path.display()))?;
                files.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), kernel));
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_kernel_is_read_back() {
        let kernel = KernelFile {
            kernel: "linear_forward".into(),
            constants: [("DOWN", "4"), ("COLS", "16")].map(|(n, v)| (n.into(), v.into())).into(),
            steps: vec!["smollm2-135m f32 training".into(), "qwen3-0.6b f32 training".into()],
            source: "enable f16;\nfn main() {}\n".into(),
        };
        assert_eq!(KernelFile::from_text(&kernel.to_text()), Some(kernel));
        assert_eq!(KernelFile::from_text("fn main() {}\n"), None);
    }
}
