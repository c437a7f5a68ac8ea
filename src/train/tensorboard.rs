//! Metrics as a TensorBoard event file: records of `Event` messages with lengths and checksums
//! (tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::error::{Error, Result};

/// An event file that stays open.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A name that TensorBoard recognizes, the same for every process of a run.
    const NAME: &'static str = "events.out.tfevents.0.oaif";

    /// Creates the event file in the folder `dir`, replacing an existing one. A resumed run writes the earlier steps
    /// into it again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Path) -> Result<EventFile> {
        crate::files::create_dir_all(dir)?;
        let path = dir.join(EventFile::NAME);
        let opened = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
        let file = opened.map_err(Error::io("write", &path))?;
        let mut events = EventFile { path, file };
        let mut version = Message::default();
        version.double(1, now());
        version.bytes(3, b"brain.Event:2");
        events.write(&record(&version.0))?;
        Ok(events)
    }

    /// Writes the numbers of a row of metrics under its "step".
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, row: &Value) -> Result<()> {
        let step = row["step"].as_u64().unwrap_or_default();
        let mut summary = Message::default();
        let numbers = row.as_object().into_iter().flatten().filter(|(name, _)| *name != "step");
        for (name, value) in numbers {
            let Some(number) = value.as_f64() else { continue };
            let mut scalar = Message::default();
            scalar.bytes(1, name.as_bytes());
            scalar.float(2, number as f32);
            summary.bytes(1, &scalar.0);
        }
        let mut event = Message::default();
        event.double(1, now());
        event.varint(2, step);
        event.bytes(5, &summary.0);
        self.write(&record(&event.0))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A protocol buffer message, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.number(field << 3 | wire);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// A record: the length and its checksum, the data and its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// CRC-32C, rotated and offset. The masking is part of the format, because the CRC of data that contains CRCs is weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit. A step writes about a kilobyte, so speed does not matter.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of RFC 3720's CRC, and 32 zeros from its appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_file_has_its_version_and_an_event_for_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(dir.path()).unwrap();
        file.append(&json!({"step": 1, "loss": 0.5})).unwrap();
        file.append(&json!({"step": 300, "loss": null, "rewards/margins": -2})).unwrap();
        let bytes = std::fs::read(dir.path().join(EventFile::NAME)).unwrap();
        let (mut at, mut records) = (0, Vec::new());
        while at < bytes.len() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().unwrap());
            let length = u64::from_le_bytes(bytes[at..][..8].try_into().unwrap()) as usize;
            assert_eq!(word(at + 8), masked_crc(&bytes[at..][..8]));
            let data = &bytes[at + 12..][..length];
            assert_eq!(word(at + 12 + length), masked_crc(data));
            // The wall-clock time differs between runs.
            records.push(data[9..].to_vec());
            at += 16 + length;
        }
        assert_eq!(records[0], b"\x1a\x0dbrain.Event:2");
        assert_eq!(records[1], b"\x10\x01\x2a\x0d\x0a\x0b\x0a\x04loss\x15\0\0\0\x3f");
        assert_eq!(records[2], b"\x10\xac\x02\x2a\x18\x0a\x16\x0a\x0frewards/margins\x15\0\0\0\xc0");
        assert_eq!(records.len(), 3);
    }
}
