//! Tests with files written by PyPI's gguf, and with hostile files.

use std::path::{Path, PathBuf};

use super::container::Container;
use super::*;
use crate::model::{FloatFormat, FrozenFormat, ModelConfig};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

/// Expected: the result of gguf.dequantize, bit for bit.
#[test]
fn every_tensor_type_is_dequantized_as_by_gguf() {
    let container = Container::open(&fixture("types.gguf")).unwrap();
    let mut checked = 0;
    for (name, tensor) in container.tensors() {
        let Some(expected) = container.tensors().get(&format!("{name}.expected")) else { continue };
        let all = |tensor: &container::Tensor| {
            let elements: usize = tensor.shape.iter().product();
            container.elements(tensor, 0..elements).unwrap()
        };
        assert_eq!(tensor.kind.name, name);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(all(tensor)), bits(all(expected)), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 7);
}

/// Expected: the `config.json` of the same models.
#[test]
fn metadata_are_read_as_the_configuration_of_transformers() {
    let config = |name: &str| ModelConfig::load(&fixture(name)).unwrap();
    let llama = config("llama.gguf");
    let scaling = &llama.raw["rope_scaling"];
    assert_eq!((scaling["rope_type"].as_str(), scaling["factor"].as_f64()), (Some("llama3"), Some(8.0)));
    let a = llama.architecture;
    assert_eq!(
        (a.hidden, a.feed_forward_size, a.layers, a.heads, a.kv_heads, a.head_dim),
        (16, 16, 2, 2, 2, 8)
    );
    assert_eq!((a.vocab, a.context, a.norm.epsilon, a.tied), (48, 16384, 1e-6, false));
    assert_eq!(config("llama-factors.gguf").raw["rope_scaling"]["rope_type"], "longrope");
    let gemma = config("gemma3.gguf").architecture;
    assert_eq!(
        gemma.attention.layers.iter().map(|layer| layer.window).collect::<Vec<_>>(),
        [Some(8), Some(8), Some(8), Some(8), Some(8), None]
    );
    assert_eq!(frozen_format(&fixture("llama.gguf")).unwrap(), FloatFormat::F16.into());
    assert_eq!(frozen_format(&fixture("gpt2.gguf")).unwrap(), FloatFormat::F32.into(), "of two formats");
    assert_eq!(frozen_format(&fixture("every-type.gguf")).unwrap(), FrozenFormat::Q8);
    assert_eq!(config("qwen3.gguf").warnings, [""; 0]);
}

/// The bytes of a hand-made file.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn header(tensors: u64, entries: u64) -> Bytes {
        Bytes::default().raw(b"GGUF").u32(3).u64(tensors).u64(entries)
    }

    fn raw(mut self, bytes: &[u8]) -> Bytes {
        self.0.extend(bytes);
        self
    }

    fn u32(self, value: u32) -> Bytes {
        self.raw(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Bytes {
        self.raw(&value.to_le_bytes())
    }

    fn text(self, text: &str) -> Bytes {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// Adds the description of an f32 tensor with these dimensions.
    fn tensor(self, name: &str, dimensions: &[u64], offset: u64) -> Bytes {
        let bytes = self.text(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(bytes, |bytes, size| bytes.u64(*size)).u32(0).u64(offset)
    }

    /// Pads to the start of the tensor data, and adds this number of bytes.
    fn data(mut self, bytes: usize) -> Bytes {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self
    }

    fn open(&self) -> Result<Container> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, &self.0).unwrap();
        Container::open(&path)
    }

    #[track_caller]
    fn refused(&self, part: &str) {
        let why = self.open().unwrap_err().to_string();
        assert!(why.contains(part) && why.contains("x.gguf"), "{part:?} is not in {why:?}");
    }
}

const FAR: u64 = 1 << 60;

#[test]
fn a_header_with_counts_beyond_the_file_is_an_error_before_memory_is_allocated() {
    Bytes::header(FAR, 0).refused("1152921504606846976 tensors");
    Bytes::header(0, FAR).refused("1152921504606846976 metadata entries");
    Bytes::header(0, u64::MAX).raw(&[0; 64]).refused("metadata entries");
    let entry = || Bytes::header(0, 1);
    entry().u64(FAR).raw(&[0; 64]).refused("a metadata key has 1152921504606846976 bytes");
    entry().text("a").u32(8).u64(FAR).raw(&[0; 64]).refused("a needs 1152921504606846976 more bytes");
    for kind in [0, 4, 6, 7, 8, 10] {
        entry().text("a").u32(9).u32(kind).u64(FAR).raw(&[0; 64]).refused("a needs");
        entry().text("a").u32(9).u32(kind).u64(u64::MAX).raw(&[0; 64]).refused("a needs");
    }
    entry().text("a").u32(9).u32(8).u64(2).text("b").u64(FAR).refused("a needs");
}

#[test]
fn an_invalid_header_is_an_error() {
    let refuse = |bytes: Bytes, part: &str| bytes.refused(part);
    refuse(Bytes::default().raw(b"PK\x03\x04").raw(&[0; 64]), "is not a GGUF file");
    refuse(Bytes::default().raw(b"GGUF").u32(3u32.swap_bytes()).raw(&[0; 64]), "big-endian");
    refuse(Bytes::default().raw(b"GGUF").u32(1).raw(&[0; 64]), "version 1");
    let entry = || Bytes::header(0, 1);
    refuse(entry().text("a").u32(13).raw(&[0; 64]), "a has the unknown type 13");
    refuse(entry().text("a").u32(9).u32(9).u64(1).raw(&[0; 64]), "a is a list of lists");
    refuse(entry().u64(2).raw(&[0xff, 0xfe]).raw(&[0; 64]), "a metadata key is not UTF-8");
    refuse(
        Bytes::header(0, 2).text("a").u32(0).raw(&[1]).text("a").u32(0).raw(&[2]),
        "two metadata entries \"a\"",
    );
    for alignment in [0, 3, 1 << 30] {
        refuse(entry().text("general.alignment").u32(4).u32(alignment), "expected a power of two");
    }
    refuse(entry().text("general.alignment").u32(8).text("x"), "general.alignment is not a number");
}

#[test]
fn tensors_at_invalid_places_are_errors() {
    let one = |dimensions: &[u64], offset| Bytes::header(1, 0).tensor("a", dimensions, offset).data(64);
    one(&[4, 2], 0).open().unwrap();
    one(&[17], 0).refused("is truncated");
    one(&[4], 64).refused("is truncated");
    one(&[4], FAR).refused("is truncated");
    one(&[4], u64::MAX - 31).refused("tensor a starts beyond any file");
    one(&[4], 4).refused("tensor a starts at 4, which is not a multiple of 32");
    one(&[], 0).refused("tensor a has 0 dimensions");
    one(&[1; 5], 0).refused("tensor a has 5 dimensions");
    one(&[0, 4], 0).refused("tensor a has a dimension of 0");
    one(&[FAR, FAR], 0).refused("tensor a has a dimension of");
    one(&[1 << 40, 1 << 40], 0).refused("tensor a has a dimension of");
    let two = |b: &str, offset| Bytes::header(2, 0).tensor("a", &[16], 0).tensor(b, &[4], offset).data(96);
    two("b", 64).open().unwrap();
    two("b", 32).refused("tensors a and b overlap");
    two("a", 64).refused("two tensors \"a\"");
    let kind = |kind| Bytes::header(1, 0).text("a").u32(1).u64(40).u32(kind).u64(0).data(64);
    kind(99).refused("tensor a has type 99");
    kind(8).refused("rows of 40 are not whole blocks of 32");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = std::fs::read(fixture("qwen2.gguf")).unwrap();
    for length in (0..4000).chain([whole.len() - 1]) {
        Bytes(whole[..length].to_vec()).refused("");
    }
    Bytes(whole).open().unwrap();
}

#[test]
fn unsupported_models_are_errors_that_name_the_reason() {
    let refused = |bytes: Bytes, part: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, &bytes.0).unwrap();
        let why = ModelConfig::load(&path).unwrap_err().to_string();
        assert!(why.contains(part), "{part:?} is not in {why:?}");
    };
    refused(Bytes::header(0, 0).data(0), "has no general.architecture");
    refused(
        Bytes::header(0, 1).text("general.architecture").u32(8).text("bloom"),
        "the architecture is \"bloom\"",
    );
    refused(Bytes::header(0, 1).text("split.count").u32(2).raw(&[3, 0]), "is one of 3 parts");
    let llama = || Bytes::header(1, 2).text("general.architecture").u32(8).text("llama");
    let experts =
        llama().text("llama.expert_count").u32(4).u32(8).tensor("token_embd.weight", &[4, 4], 0).data(64);
    refused(experts, "has experts");
    let missing =
        llama().text("llama.block_count").u32(4).u32(1).tensor("token_embd.weight", &[4, 4], 0).data(64);
    refused(missing, "has no llama.embedding_length");
    let list = llama().text("llama.embedding_length").u32(9).u32(4).u64(1).u32(4);
    refused(list.tensor("token_embd.weight", &[4, 4], 0).data(64), "llama.embedding_length is a list");
}

#[test]
fn a_folder_stands_for_its_only_gguf_file() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str| std::fs::copy(fixture("qwen2.gguf"), dir.path().join(name)).unwrap();
    assert_eq!(file_of(dir.path()).unwrap(), None);
    write("a.gguf");
    assert_eq!(file_of(dir.path()).unwrap(), Some(dir.path().join("a.gguf")));
    let warnings = ModelConfig::load(dir.path()).unwrap().warnings;
    assert!(warnings[0].contains("a.gguf, the only ones in its folder"), "{warnings:?}");
    write("b.GGUF");
    let why = file_of(dir.path()).unwrap_err().to_string();
    assert!(why.contains("2 GGUF files") && why.contains("a.gguf, b.GGUF"), "{why}");
    std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
    assert_eq!(file_of(dir.path()).unwrap(), None);
}
