//! The logs of a run: files of JSON lines with a "step". Rows are appended, and removed when a run is resumed from an
//! earlier step.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::AtomicFile;

/// A log that stays open after its first row.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
}

fn step_of(row: &Value) -> Option<usize> {
    row["step"].as_u64()?.try_into().ok()
}

impl Log {
    /// A log in the file `path`, which is created with the first row.
    pub fn new(path: PathBuf) -> Log {
        Log { path, file: None }
    }

    /// Appends `rows`, each with a "step", in a single write.
    pub fn append(&mut self, rows: &[impl Serialize]) -> Result<()> {
        self.check_exists()?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row).expect("JSON of plain values");
            lines.push(b'\n');
        }
        let path = &self.path;
        if self.file.is_none() {
            let opened = OpenOptions::new().create(true).append(true).open(path);
            self.file = Some(opened.map_err(Error::io("write", path))?);
        }
        let file = self.file.as_mut().expect("opened above");
        file.write_all(&lines).map_err(Error::io("write", path))
    }

    /// Syncs the file to disk.
    pub fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_all()).map_err(Error::io("sync", &self.path))
    }

    /// Fails if the open file is no longer the one at this path.
    pub fn check_exists(&self) -> Result<()> {
        match self.file.as_ref().is_none_or(|file| is_at(file, &self.path)) {
            true => Ok(()),
            false => {
                let why = "was removed, moved or replaced while the run was writing to it: restore the folder and \
                           resume from its last checkpoint, or start a new run";
                Err(Error::file(&self.path, why))
            }
        }
    }

    /// Fails if `complete` is false for the steps of the rows up to `step`. `expected` describes them in the message.
    pub fn check(&self, step: usize, complete: impl Fn(&[usize]) -> bool, expected: &str) -> Result<()> {
        let mut steps = Vec::new();
        self.for_each_row(|_, _, found| {
            steps.extend(Some(found).filter(|found| *found <= step));
            Ok(())
        })?;
        match complete(&steps) {
            true => Ok(()),
            false => {
                let why = format!(
                    "has {} rows up to step {step}, but the checkpoint was written after {expected}: restore the lost \
                     rows, or start a new run in another `output-dir` from the path of the checkpoint",
                    steps.len()
                );
                Err(Error::file(&self.path, why))
            }
        }
    }

    /// The values of the key `name`, from the rows that have it.
    pub fn values(&self, name: &str) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        self.for_each_row(|_, row, _| {
            values.extend(row[name].as_f64());
            Ok(())
        })?;
        Ok(values)
    }

    /// Calls `each` for every row.
    pub fn for_each(&self, mut each: impl FnMut(&Value) -> Result<()>) -> Result<()> {
        self.for_each_row(|_, row, _| each(row))
    }

    /// Keeps the rows up to `step`.
    pub fn truncate(&mut self, step: usize) -> Result<()> {
        self.rewrite(|line, _, found| (found <= step).then_some(Cow::Borrowed(line)))
    }

    /// Adds the keys of `objects` to the rows of `step`.
    pub fn add_to(&mut self, step: usize, objects: &[Value]) -> Result<()> {
        self.rewrite(|line, row, found| {
            if found != step {
                return Some(Cow::Borrowed(line));
            }
            let parts = std::iter::once(row).chain(objects);
            let keys: Map<String, Value> =
                parts.filter_map(Value::as_object).flat_map(|part| part.clone()).collect();
            Some(Cow::Owned(format!("{}\n", Value::Object(keys)).into_bytes()))
        })
    }

    /// Rewrites the log. `kept` returns the new line for each line, its row and its step.
    fn rewrite(
        &mut self,
        kept: impl for<'l> Fn(&'l [u8], &Value, usize) -> Option<Cow<'l, [u8]>>,
    ) -> Result<()> {
        // The new file replaces the open one.
        self.file = None;
        let path = &self.path;
        if !path.exists() {
            return Ok(());
        }
        let mut file = AtomicFile::create(path)?;
        self.for_each_row(|line, row, found| match kept(line, row, found) {
            Some(line) => file.write(&line),
            None => Ok(()),
        })?;
        file.commit()
    }

    /// Calls `each` with every line, its row and its step, until the end or an incomplete last line.
    fn for_each_row(&self, mut each: impl FnMut(&[u8], &Value, usize) -> Result<()>) -> Result<()> {
        let path = &self.path;
        let mut log = match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => BufReader::new(opened.map_err(Error::io("read", path))?),
        };
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            log.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let row: Value = serde_json::from_slice(&line).unwrap_or_default();
            let found = step_of(&row).ok_or_else(|| {
                let why = "is not a row of a log (an object with a \"step\"): repair or remove it";
                Error::Row { path: path.to_owned(), line: number, why: why.into() }
            })?;
            each(&line, &row, found)?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |found: std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => place(open) == place(named),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}
