//! Reading and writing tensors on the host: safetensors files, one or sharded, of F32, F16 and BF16.
//!
//! Opening a file reads only its header. A tensor's bytes are read on request, optionally a range of rows at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};

use super::format::FloatFormat;
use crate::error::{Error, Result};
use crate::files::{self, AtomicFile};

/// The file name of a model in a single file.
pub const MODEL_FILE: &str = "model.safetensors";
/// The file name of the index of a sharded model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// The limit of the format, as in the safetensors crate.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The number of bytes that are read and converted at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The location of a tensor in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The file that contains it.
    pub path: PathBuf,
    /// The offset of its first byte in the file.
    start: u64,
}

/// The tensors of the files of a model or adapter, by name.
#[derive(Clone, Debug, Default)]
pub struct TensorFiles {
    tensors: BTreeMap<String, TensorInfo>,
    metadata: HashMap<String, String>,
}

impl TensorFiles {
    /// Whether `dir` has files that [`TensorFiles::open`] can open.
    pub fn are_in(dir: &Path) -> bool {
        files::exists(&dir.join(MODEL_FILE)) || files::exists(&dir.join(INDEX_FILE))
    }

    /// Opens the model in `dir`: [`MODEL_FILE`], or the files that [`INDEX_FILE`] lists.
    pub fn open(dir: &Path) -> Result<TensorFiles> {
        let single = dir.join(MODEL_FILE);
        if files::exists(&single) {
            return TensorFiles::open_file(&single);
        }
        let index = dir.join(INDEX_FILE);
        let Some(json) = files::read_json_if_present(&index)? else {
            let pickle = files::exists(&dir.join("pytorch_model.bin"));
            let other = if pickle {
                " (pytorch_model.bin is not supported: save the model as safetensors)"
            } else {
                ""
            };
            let why = format!("has no weights: expected {MODEL_FILE} or {INDEX_FILE}{other}");
            return Err(Error::file(dir, why));
        };
        let Some(map) = json["weight_map"].as_object() else {
            return Err(Error::file(&index, "has no \"weight_map\" from tensors to files"));
        };
        let mut shards = BTreeSet::new();
        for (name, shard) in map {
            let shard = shard.as_str().filter(|s| Path::new(s).file_name().is_some_and(|name| name == *s));
            let shard = shard.ok_or_else(|| {
                Error::file(
                    &index,
                    format!("tensor {name} must be in a file of the same folder, not in {}", map[name]),
                )
            })?;
            shards.insert(shard);
        }
        let mut all = TensorFiles::default();
        for shard in shards {
            all.add(&dir.join(shard))?;
        }
        for (name, shard) in map {
            let found = all.tensors.get(name).and_then(|t| t.path.file_name()).and_then(|f| f.to_str());
            if found != shard.as_str() {
                let why = format!(
                    "places tensor {name} in {shard}, which does not have it: download both files again"
                );
                return Err(Error::file(&index, why));
            }
        }
        Ok(all)
    }

    /// Opens one file, such as `adapter_model.safetensors`.
    pub fn open_file(path: &Path) -> Result<TensorFiles> {
        let mut one = TensorFiles::default();
        one.add(path)?;
        Ok(one)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let (metadata, data_start) = read_header(path)?;
        for (name, info) in metadata.tensors() {
            let start = data_start + info.data_offsets.0 as u64;
            let info =
                TensorInfo { shape: info.shape.clone(), dtype: info.dtype, path: path.to_owned(), start };
            if let Some(other) = self.tensors.insert(name.clone(), info) {
                let why =
                    format!("tensor {name} is also in {}: remove one of the files", other.path.display());
                return Err(Error::file(path, why));
            }
        }
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns the shape, type and file of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The files' `__metadata__`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Checks by the header that a tensor can be read with the shape `expected`.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<()> {
        stored_format(name, self.find_shaped(name, expected)?).map(|_| ())
    }

    /// Reads all elements of a tensor of the shape `expected`, outermost dimension first.
    pub fn read_f32(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let info = self.find_shaped(name, expected)?;
        self.read_elements(name, info, 0..expected.iter().product())
    }

    /// Reads the rows `rows` of a tensor of the shape `expected`. A row is everything at one index of the outermost
    /// dimension.
    pub fn read_rows_f32(&self, name: &str, expected: &[usize], rows: Range<usize>) -> Result<Vec<f32>> {
        assert!(rows.start <= rows.end && rows.end <= expected[0], "rows {rows:?} of {name} {expected:?}");
        let info = self.find_shaped(name, expected)?;
        let row: usize = expected[1..].iter().product();
        self.read_elements(name, info, rows.start * row..rows.end * row)
    }

    fn find_shaped(&self, name: &str, expected: &[usize]) -> Result<&TensorInfo> {
        let info = self.find(name)?;
        if info.shape == expected {
            return Ok(info);
        }
        Err(Error::TensorShape {
            path: info.path.clone(),
            name: name.to_owned(),
            found: info.shape.clone(),
            expected: expected.to_owned(),
        })
    }

    fn find(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| {
            let path = self.tensors.values().next().map_or(Path::new(MODEL_FILE), |t| &t.path);
            Error::file(
                path,
                format!(
                    "has no tensor {name}, which config.json requires: check that the files belong together"
                ),
            )
        })
    }

    fn read_elements(&self, name: &str, info: &TensorInfo, elements: Range<usize>) -> Result<Vec<f32>> {
        let TensorInfo { path, start, .. } = info;
        let format = stored_format(name, info)?;
        let size = format.bytes();
        let (mut file, _) = files::open(path)?;
        let start = start + (elements.start * size) as u64;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", path))?;
        let mut values = Vec::with_capacity(elements.len());
        let mut chunk = vec![0; CHUNK_BYTES.min(elements.len() * size)];
        while values.len() < elements.len() {
            let bytes = ((elements.len() - values.len()) * size).min(chunk.len());
            let chunk = &mut chunk[..bytes];
            file.read_exact(chunk).map_err(Error::io("read", path))?;
            format.decode(chunk, &mut values);
        }
        Ok(values)
    }
}

/// Returns the format of a tensor, or an error if it cannot be read.
fn stored_format(name: &str, info: &TensorInfo) -> Result<FloatFormat> {
    FloatFormat::of(info.dtype).ok_or_else(|| {
        let dtype = info.dtype;
        let why = format!("tensor {name} has type {dtype:?}, expected F32, F16 or BF16: convert the model");
        Error::file(&info.path, why)
    })
}

/// Reads the header of a file and returns it with the offset of the data. The file consists of the header's length n (8
/// bytes, little endian), n bytes of JSON, and the data. The safetensors crate checks that the tensors cover the data
/// without gaps or overlaps.
fn read_header(path: &Path) -> Result<(Metadata, u64)> {
    let (mut file, length) = files::open(path)?;
    let truncated = |needed: u64| {
        let why = format!("is truncated: it has {length} of at least {needed} bytes, download it again");
        Error::file(path, why)
    };
    if length < 8 {
        return Err(truncated(8));
    }
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
    let header_bytes = u64::from_le_bytes(bytes);
    if header_bytes > MAX_HEADER_BYTES {
        let why = format!(
            "is not a safetensors file: its header would have {header_bytes} bytes, but the format allows {MAX_HEADER_BYTES}"
        );
        return Err(Error::file(path, why));
    }
    let data_start = 8 + header_bytes;
    if length < data_start {
        return Err(truncated(data_start));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(Error::io("read", path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| {
        Error::file(path, format!("has a broken safetensors header ({e}): download the file again"))
    })?;
    let expected = data_start + metadata.data_len() as u64;
    if length < expected {
        return Err(truncated(expected));
    }
    if length > expected {
        let why = format!("has {length} bytes, but its header describes {expected}: download the file again");
        return Err(Error::file(path, why));
    }
    Ok((metadata, data_start))
}

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub format: FloatFormat,
}

/// Writes a safetensors file one tensor at a time, so that the tensors need not all be in memory at once. The file
/// appears complete or not at all, see [`AtomicFile`].
pub struct TensorWriter {
    file: AtomicFile,
    /// The remaining tensors, in reverse order.
    tensors: Vec<TensorSpec>,
}

impl TensorWriter {
    /// Starts the file. F32 tensors come first, which keeps them aligned; within a type the order is by name.
    pub fn create(
        path: &Path,
        mut tensors: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<TensorWriter> {
        let size = |spec: &TensorSpec| spec.format.bytes();
        tensors.sort_by(|a, b| size(b).cmp(&size(a)).then_with(|| a.name.cmp(&b.name)));
        let mut header = Map::new();
        if !metadata.is_empty() {
            header.insert("__metadata__".into(), json!(metadata));
        }
        let mut end = 0;
        for spec in &tensors {
            let start = end;
            end += spec.shape.iter().product::<usize>() * size(spec);
            let entry =
                json!({"dtype": spec.format.dtype(), "shape": spec.shape, "data_offsets": [start, end]});
            assert!(header.insert(spec.name.clone(), entry).is_none(), "two tensors are named {}", spec.name);
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');

        let mut file = AtomicFile::create(path)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(&header)?;
        tensors.reverse();
        Ok(TensorWriter { file, tensors })
    }

    /// The tensor that must be written next.
    pub fn wants(&self) -> Option<&TensorSpec> {
        self.tensors.last()
    }

    /// Writes the elements of the next tensor.
    ///
    /// # Errors
    /// [`Error::Config`] for a number outside the range of the tensor's format.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        let spec = self.tensors.pop().expect("it wants one");
        assert_eq!(values.len(), spec.shape.iter().product::<usize>(), "elements of {}", spec.name);
        for values in values.chunks(CHUNK_BYTES / 4) {
            self.file.write(&spec.format.encode(&spec.name, values)?)?;
        }
        Ok(())
    }

    /// Moves the file to its path once every tensor is written.
    pub fn finish(self) -> Result<()> {
        assert!(self.tensors.is_empty(), "{:?} is missing", self.wants());
        self.file.commit()
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::FloatFormat::{Bf16, F16, F32};
    use super::*;

    const EMBEDDING: &str = "model.embed_tokens.weight";
    use crate::files::shared;

    fn spec(name: &str, shape: &[usize], format: FloatFormat) -> TensorSpec {
        TensorSpec { name: name.into(), shape: shape.into(), format }
    }

    /// Opens a file with this header and this number of zero bytes of data.
    fn open(header: &str, data_bytes: usize) -> Result<TensorFiles> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        open_bytes(&bytes)
    }

    fn open_bytes(bytes: &[u8]) -> Result<TensorFiles> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        files::write_atomic(&path, bytes).unwrap();
        TensorFiles::open(dir.path())
    }

    #[track_caller]
    fn assert_refused<T>(result: Result<T>, parts: &[&str]) {
        let Err(error) = result else { panic!("accepted") };
        let message = error.to_string();
        parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message:?}"));
    }

    fn write_all(
        path: &Path,
        specs: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
        mut values: impl FnMut(&TensorSpec) -> Vec<f32>,
    ) -> Result<()> {
        let mut file = TensorWriter::create(path, specs, metadata)?;
        while let Some(spec) = file.wants() {
            let values = values(spec);
            file.push(&values)?;
        }
        file.finish()
    }

    const TWO_FLOATS: &str = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;

    #[test]
    fn tensors_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter_model.safetensors");
        let values = [1.0, -2.5, f32::MIN_POSITIVE, 65504.0, 0.1, -0.0];
        let specs = vec![
            spec("half", &[3, 2], F16),
            spec("brain", &[3, 2], Bf16),
            spec("full", &[3, 2], F32),
            spec("none", &[0, 2], F32),
            spec("scalar", &[], F32),
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let mut order = Vec::new();
        write_all(&path, specs, &metadata, |spec| {
            order.push(spec.name.clone());
            values[..spec.shape.iter().product()].to_vec()
        })
        .unwrap();
        assert_eq!(order, ["full", "none", "scalar", "brain", "half"]);
        let files = TensorFiles::open_file(&path).unwrap();
        assert_eq!(files.names().collect::<Vec<_>>(), ["brain", "full", "half", "none", "scalar"]);
        assert_eq!(files.metadata()["format"], "pt");
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&files.read_f32("full", &[3, 2]).unwrap()), bits(&values));
        let half = files.read_f32("half", &[3, 2]).unwrap();
        assert_eq!(bits(&half), bits(&values.map(|v| f16::from_f32(v).to_f32())));
        let brain = files.read_f32("brain", &[3, 2]).unwrap();
        assert_eq!(bits(&brain), bits(&values.map(|v| bf16::from_f32(v).to_f32())));
        assert!(files.read_f32("none", &[0, 2]).unwrap().is_empty());
        assert_eq!(files.read_f32("scalar", &[]).unwrap(), [1.0]);
        assert_eq!(files.read_rows_f32("half", &[3, 2], 1..3).unwrap(), half[2..]);
        assert!(files.read_rows_f32("full", &[3, 2], 1..1).unwrap().is_empty());
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(safetensors::SafeTensors::deserialize(&whole).unwrap().len(), 5);
    }

    #[test]
    fn a_tensor_longer_than_a_chunk_is_read_and_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        let n = CHUNK_BYTES / 2 + 3;
        let values: Vec<f32> = (0..n).map(|i| (i % 251) as f32).collect();
        for format in [F32, Bf16] {
            let specs = vec![spec("a", &[n, 1], format)];
            write_all(&path, specs, &BTreeMap::new(), |_| values.clone()).unwrap();
            let files = TensorFiles::open_file(&path).unwrap();
            assert!(files.read_f32("a", &[n, 1]).unwrap() == values);
            assert_eq!(files.read_rows_f32("a", &[n, 1], n - 2..n).unwrap(), values[n - 2..]);
        }
    }

    #[test]
    fn a_failed_write_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        let specs = vec![spec("a", &[1], F32)];
        drop(TensorWriter::create(&path, specs, &BTreeMap::new()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_number_outside_the_range_of_the_format_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        for (format, value, limit) in [(F16, 7e4, "65504"), (Bf16, f32::MAX, "3.3895"), (F16, -1e30, "65504")]
        {
            let specs = vec![spec("a", &[1], F32), spec("b", &[2], format)];
            let written =
                write_all(&path, specs, &BTreeMap::new(), |spec| vec![value; spec.shape.iter().product()]);
            assert_refused(written, &["b holds", limit]);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn real_models_are_read() {
        let Some(dir) = shared("models/stories260K") else { return };
        let files = TensorFiles::open(&dir).unwrap();
        let elements: usize =
            files.names().map(|n| files.info(n).unwrap().shape.iter().product::<usize>()).sum();
        assert_eq!(elements, 260_032);
        let embedding = files.read_f32(EMBEDDING, &[512, 64]).unwrap();
        assert!(embedding.iter().all(|v| v.is_finite()) && embedding.iter().any(|&v| v != 0.0));
        assert_eq!(files.read_rows_f32(EMBEDDING, &[512, 64], 100..102).unwrap(), embedding[6400..6528]);
    }

    /// Opens a model of two shards with this index.
    fn open_shards(index: &str) -> Result<TensorFiles> {
        let dir = tempfile::tempdir().unwrap();
        for (file, tensor) in [("one.safetensors", "a"), ("two.safetensors", "b")] {
            let specs = vec![spec(tensor, &[2], F32)];
            write_all(&dir.path().join(file), specs, &BTreeMap::new(), |_| vec![1.0, 2.0]).unwrap();
        }
        files::write_atomic(&dir.path().join(INDEX_FILE), index.as_bytes()).unwrap();
        let files = TensorFiles::open(dir.path())?;
        assert_eq!(files.read_f32("b", &[2])?, [1.0, 2.0]);
        Ok(files)
    }

    #[test]
    fn a_sharded_model_is_read_through_its_index() {
        let files =
            open_shards(r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#).unwrap();
        assert_eq!(files.names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_missing_shard_is_named() {
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "three.safetensors"}}"#;
        assert_refused(open_shards(index), &["cannot read", "three.safetensors"]);
    }

    #[test]
    fn an_index_that_contradicts_its_shards_is_refused() {
        let index = r#"{"weight_map": {"a": "two.safetensors", "b": "two.safetensors"}}"#;
        assert_refused(open_shards(index), &["index.json: places tensor a in \"two.safetensors\""]);
        let index = r#"{"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}"#;
        assert_refused(open_shards(index), &["places tensor c"]);
        assert_refused(open_shards("{}"), &["no \"weight_map\""]);
        assert_refused(open_shards("oops"), &["not valid JSON"]);
    }

    #[test]
    fn an_index_cannot_refer_to_another_folder() {
        for shard in ["\"../two.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\"\"", "7"] {
            let index = format!(r#"{{"weight_map": {{"a": {shard}}}}}"#);
            assert_refused(open_shards(&index), &["tensor a must be in a file of the same folder"]);
        }
    }

    #[test]
    fn a_tensor_in_two_shards_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let specs = vec![spec("a", &[1], F32)];
        let mut files = TensorFiles::default();
        for file in ["one.safetensors", "two.safetensors"] {
            write_all(&dir.path().join(file), specs.clone(), &BTreeMap::new(), |_| vec![1.0]).unwrap();
        }
        files.add(&dir.path().join("one.safetensors")).unwrap();
        assert_refused(
            files.add(&dir.path().join("two.safetensors")),
            &["tensor a is also in", "one.safetensors"],
        );
    }

    #[test]
    fn a_folder_without_weights_says_what_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        assert_refused(TensorFiles::open(dir.path()), &[MODEL_FILE, INDEX_FILE]);
        assert_refused(
            TensorFiles::open_file(&dir.path().join("no.safetensors")),
            &["cannot read", "no.safetensors"],
        );
    }

    #[test]
    fn a_truncated_file_is_refused_wherever_it_ends() {
        let mut bytes = (TWO_FLOATS.len() as u64).to_le_bytes().to_vec();
        bytes.extend(TWO_FLOATS.as_bytes());
        bytes.extend([0; 8]);
        for length in 0..bytes.len() {
            assert_refused(open_bytes(&bytes[..length]), &["truncated"]);
        }
        open_bytes(&bytes).unwrap();
    }

    #[test]
    fn bytes_after_the_last_tensor_are_refused() {
        assert_refused(open(TWO_FLOATS, 9), &["but its header describes"]);
    }

    #[test]
    fn an_oversized_header_is_refused_before_memory_is_taken() {
        for length in [MAX_HEADER_BYTES + 1, 1 << 60, u64::MAX] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend(b"{}");
            assert_refused(open_bytes(&bytes), &["is not a safetensors file", &length.to_string()]);
        }
        let mut bytes = (MAX_HEADER_BYTES).to_le_bytes().to_vec();
        bytes.extend(b"{}");
        assert_refused(open_bytes(&bytes), &["truncated"]);
    }

    #[test]
    fn a_header_that_is_not_json_is_refused() {
        for header in [
            "",
            "oops",
            "[]",
            "{\"a\": 1}",
            "{\"a\": {\"dtype\": \"F99\", \"shape\": [], \"data_offsets\": [0, 0]}}",
        ] {
            assert_refused(open(header, 0), &["broken safetensors header"]);
        }
        assert_refused(open_bytes(b"\x02\0\0\0\0\0\0\0\xff\xfe"), &["broken safetensors header"]);
    }

    #[test]
    fn offsets_beyond_the_end_are_refused() {
        let header = r#"{"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}"#;
        assert_refused(open(header, 8), &["truncated"]);
    }

    #[test]
    fn offsets_that_overlap_leave_gaps_or_contradict_the_shape_are_refused() {
        let entry = |name: &str, shape: &str, start: u64, end: u64| {
            format!(r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{start}, {end}]}}"#)
        };
        let overlap = format!("{{{}, {}}}", entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12));
        let gap = format!("{{{}, {}}}", entry("a", "[1]", 0, 4), entry("b", "[1]", 8, 12));
        let backwards = format!("{{{}}}", entry("a", "[1]", 4, 0));
        let wrong_size = format!("{{{}}}", entry("a", "[3]", 0, 8));
        let overflow = format!("{{{}}}", entry("a", "[4294967296, 4294967296, 2]", 0, 8));
        let far = format!("{{{}}}", entry("a", "[4611686018427387903]", 0, u64::MAX - 3));
        for header in [overlap, gap, backwards, wrong_size, overflow] {
            assert_refused(open(&header, 12), &["broken safetensors header"]);
        }
        assert!(open(&far, 12).is_err());
    }

    #[test]
    fn a_tensor_of_another_type_is_refused_when_read() {
        for (dtype, bytes) in [("I64", 8), ("F64", 8), ("I8", 1), ("U8", 1), ("BOOL", 1), ("F8_E4M3", 1)] {
            let header =
                format!(r#"{{"a": {{"dtype": "{dtype}", "shape": [1], "data_offsets": [0, {bytes}]}}}}"#);
            let files = open(&header, bytes).unwrap();
            assert_refused(files.check("a", &[1]), &["tensor a", dtype, "F32, F16 or BF16"]);
            assert_refused(files.read_f32("a", &[1]), &["tensor a", dtype, "F32, F16 or BF16"]);
        }
    }

    #[test]
    fn a_tensor_of_another_shape_or_name_is_refused() {
        let files = open(TWO_FLOATS, 8).unwrap();
        let error = files.read_f32("a", &[2, 1]).unwrap_err();
        assert!(
            matches!(&error, Error::TensorShape { found, expected, .. } if *found == [2] && *expected == [2, 1])
        );
        assert_refused(files.read_f32("b", &[2]), &[MODEL_FILE, "no tensor b"]);
    }
}
