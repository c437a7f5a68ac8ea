//! Reading of small files, and atomic writing: after a crash a file has either the old or the new content.

mod memory;

use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};

pub use memory::MemoryFolder;

/// An open file, on disk or in memory.
#[derive(Debug)]
pub(crate) enum Opened {
    Disk(File),
    Memory(Cursor<Arc<[u8]>>),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Opened::Disk(file) => file.read(buffer),
            Opened::Memory(content) => content.read(buffer),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Opened::Disk(file) => file.seek(to),
            Opened::Memory(content) => content.seek(to),
        }
    }
}

/// Opens `path` for reading; also returns its length in bytes.
pub(crate) fn open(path: &Path) -> Result<(Opened, u64)> {
    let opened = || {
        if memory::holds(path) {
            let content = memory::get(path).ok_or(ErrorKind::NotFound)?;
            let length = content.len() as u64;
            return Ok((Opened::Memory(Cursor::new(content)), length));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((Opened::Disk(file), length))
    };
    opened().map_err(Error::io("read", path))
}

/// Returns the content of `path`.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    if memory::holds(path) {
        return match memory::get(path) {
            Some(content) => Ok(content.to_vec()),
            None => Err(Error::io("read", path)(ErrorKind::NotFound.into())),
        };
    }
    fs::read(path).map_err(Error::io("read", path))
}

/// Whether the file or folder exists.
pub(crate) fn exists(path: &Path) -> bool {
    match memory::holds(path) {
        true => memory::get(path).is_some() || memory::is_dir(path),
        false => path.exists(),
    }
}

/// Whether the path is an existing file.
pub(crate) fn is_file(path: &Path) -> bool {
    if memory::holds(path) { memory::get(path).is_some() } else { path.is_file() }
}

/// Whether the path is an existing folder.
pub(crate) fn is_dir(path: &Path) -> bool {
    if memory::holds(path) { memory::is_dir(path) } else { path.is_dir() }
}

/// The length of a file in bytes.
pub(crate) fn length(path: &Path) -> Result<u64> {
    if memory::holds(path) {
        return open(path).map(|(_, length)| length);
    }
    fs::metadata(path).map(|found| found.len()).map_err(Error::io("read", path))
}

/// Resolves the links of a path; there are none in memory.
pub(crate) fn real(path: &Path) -> Result<PathBuf> {
    match memory::holds(path) {
        true => Ok(path.to_owned()),
        false => fs::canonicalize(path).map_err(Error::io("read", path)),
    }
}

/// Returns the text in `path`. A file that is not UTF-8 is [`Error::File`].
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::file(path, "is not UTF-8 text"))
}

/// Returns the JSON value in `path`. A file that is not JSON is [`Error::File`].
pub fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_slice(&read(path)?).map_err(|e| Error::file(path, format!("is not valid JSON ({e})")))
}

/// [`read_json`], but `None` if the file does not exist.
pub fn read_json_if_present(path: &Path) -> Result<Option<Value>> {
    match read_json(path) {
        Err(Error::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Converts a path to one that does not depend on the current directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    if memory::holds(path) {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns an error for an empty path, which would mean the current directory.
pub(crate) fn check_named(path: &Path) -> Result<()> {
    match path.as_os_str().is_empty() {
        true => Err(Error::config("folder", "has an empty path: give the path of a folder")),
        false => Ok(()),
    }
}

/// Renames a file. An existing file of the new name is replaced.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    if memory::holds(from) {
        memory::rename(from, to);
        return Ok(());
    }
    fs::rename(from, to).map_err(Error::io("write", to))
}

/// Creates `dir` and its missing parents.
pub fn create_dir_all(dir: &Path) -> Result<()> {
    check_named(dir)?;
    if memory::holds(dir) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(Error::io("create", dir))
}

/// Returns the entries of a folder; none if it does not exist.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    if memory::holds(dir) {
        return Ok(memory::list(dir));
    }
    match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .map_err(Error::io("read", dir)),
    }
}

/// Removes a file or a folder with its content, if it exists.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if memory::holds(path) {
        memory::remove(path);
        return Ok(());
    }
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", path)),
    }
}

/// Makes changes of the names in `dir` (files created, renamed, removed) durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    // Windows cannot open folders; its file systems journal names themselves.
    if cfg!(unix) {
        File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Replaces the content of `path` by `bytes`, atomically.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// A file that is being written: a temporary file in the same folder until it is [committed](Self::commit). If it is
/// dropped before, the temporary file is removed, and the old content stays.
pub struct AtomicFile {
    path: PathBuf,
    /// `None` after the commit.
    content: Option<Content>,
}

enum Content {
    Disk { temporary: PathBuf, file: BufWriter<File> },
    Memory(Vec<u8>),
}

impl AtomicFile {
    /// Starts to write the content of `path`.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let content = if memory::holds(path) {
            Content::Memory(Vec::new())
        } else {
            let temporary = temporary_beside(path)?;
            let file = create_new(&temporary).map_err(Error::io("create", path))?;
            Content::Disk { temporary, file: BufWriter::new(file) }
        };
        Ok(AtomicFile { path: path.to_owned(), content: Some(content) })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.content.as_mut().expect("not committed yet") {
            Content::Disk { file, .. } => file.write_all(bytes).map_err(Error::io("write", &self.path)),
            Content::Memory(content) => {
                content.extend(bytes);
                Ok(())
            }
        }
    }

    /// Moves the content to its path: sync, rename, sync of the folder.
    pub fn commit(mut self) -> Result<()> {
        if let Some(Content::Memory(content)) = &mut self.content {
            memory::put(&self.path, std::mem::take(content));
            return Ok(());
        }
        let Some(Content::Disk { temporary, file }) = &mut self.content else { return Ok(()) };
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .and_then(|()| fs::rename(temporary, &self.path))
            .map_err(Error::io("write", &self.path))?;
        self.content = None;
        sync_dir(folder_of(&self.path))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(Content::Disk { temporary, file }) = self.content.take() {
            drop(file);
            // An earlier error is the one that is reported.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Creates the temporary file `path`. An existing file of this name is replaced, not opened, since it may be a link to
/// another place.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            File::create_new(path)
        }
        created => created,
    }
}

/// `.NAME.PROCESS.tmp` in the folder of `path`.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::file(path, "is not the name of a file"))?;
    let name = format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id());
    Ok(folder_of(path).join(name))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// For tests: returns the real input `name` below ../shared, or `None` if it does not exist. The notice about the
/// skipped test goes to stderr directly, since the harness captures `println!`.
#[cfg(test)]
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    let _ = writeln!(io::stderr(), "skipped: ../shared absent");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_atomic_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"{}").unwrap();
        assert_eq!(read(&path).unwrap(), b"{}");
        assert!(read_json(&path).unwrap().is_object());
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomic(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_not_written_through() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.json"), dir.path().join("other"));
        write_atomic(&other, b"mine").unwrap();
        symlink(&other, &path).unwrap();
        symlink(&other, temporary_beside(&path).unwrap()).unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!((read(&path).unwrap(), read(&other).unwrap()), (b"new".to_vec(), b"mine".to_vec()));
    }

    #[test]
    fn an_unwritable_folder_is_an_io_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        write_atomic(&file, b"").unwrap();
        assert!(write_atomic(&file.join("below"), b"").unwrap_err().to_string().contains("file"));
        assert!(create_dir_all(&file.join("below")).unwrap_err().to_string().starts_with("cannot create"));
        assert!(matches!(write_atomic(Path::new("/"), b""), Err(Error::File { .. })));
    }

    #[test]
    fn invalid_json_is_a_file_error_and_an_absent_optional_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(read_json_if_present(&path).unwrap().is_none());
        assert!(matches!(read_json(&path), Err(Error::Io { .. })));
        write_atomic(&path, b"{\"a\": }").unwrap();
        assert!(matches!(read_json_if_present(&path), Err(Error::File { .. })));
    }
}
