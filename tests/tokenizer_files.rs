//! `tokenizer.json` files that are damaged or malicious: each is an error; none panics, hangs or exhausts memory.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use oaif::unstable::data::tokenizer::{Tokenizer, panics_are_caught};
use serde_json::{Value, json};

thread_local! {
    /// The locations of this thread's caught panics in the `tokenizers` library.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Records panics inside the library instead of printing them; all others are printed as usual.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            if !panics_are_caught() {
                return print(info);
            }
            PANICS.with_borrow_mut(|places| places.push(place));
        }));
    });
}

const TEXTS: [&str; 6] = [
    "",
    "Once upon a time",
    " a <s>  fox</s>\n",
    "caf\u{e9} e\u{301} \u{1f468}\u{200d}\u{1f469} \u{fdfa}",
    "\0\t\u{2581}",
    "aaaaaaaa",
];

fn source(kind: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(kind);
    std::fs::read(path.join("tokenizer.json")).unwrap()
}

/// Encodes and decodes all texts with this file: the first error, if any.
fn tried(file: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file).unwrap();
    used(dir.path())
}

fn used(dir: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::load(dir).map_err(|e| e.to_string())?;
    for text in TEXTS {
        let ids = tokenizer.encode(text).map_err(|e| e.to_string())?;
        tokenizer.encode_plain(text).map_err(|e| e.to_string())?;
        tokenizer.decode(&ids, false).map_err(|e| e.to_string())?;
        tokenizer.decode_after(&ids, &[0, 1, 5, 300], true).map_err(|e| e.to_string())?;
    }
    tokenizer.decode(&[], false).map_err(|e| e.to_string())?;
    Ok(())
}

/// The byte-level file with parts replaced.
fn with(changes: Value) -> Vec<u8> {
    let mut file: Value = serde_json::from_slice(&source("byte-level")).unwrap();
    for (part, value) in changes.as_object().unwrap() {
        match file[part].as_object_mut().filter(|_| value.is_object() && part == "model") {
            Some(known) => known.extend(value.as_object().unwrap().clone()),
            None => file[part] = value.clone(),
        }
    }
    file.to_string().into_bytes()
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
}

fn sequence(kind: &str, step: &Value, times: usize) -> Value {
    json!({"type": "Sequence", kind: vec![step; times]})
}

#[test]
fn a_file_that_makes_the_library_panic_or_grow_is_refused_by_name() {
    note_panics();
    let template = |piece: Value| {
        json!({"type": "TemplateProcessing", "single": [piece, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}})
    };
    let added = |id: u64| {
        json!([{"id": id, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true}])
    };
    let whole = source("byte-level");
    let at = |word: &str| {
        let found = whole.windows(word.len()).position(|w| w == word.as_bytes());
        whole[..found.unwrap() + word.len() + 10].to_vec()
    };
    let nested = format!("{{\"decoder\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let unigram = json!({"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]], "merges": null}});
    let files: Vec<(&str, Vec<u8>, &str)> = vec![
        ("cut inside decoder", at("\"decoder\":"), "EOF while parsing"),
        ("cut inside model", at("\"vocab\":"), "EOF while parsing"),
        ("empty", vec![], "EOF while parsing"),
        ("a list", b"[]".to_vec(), "not an object"),
        ("nested", nested.into_bytes(), "recursion limit"),
        ("no model", b"{}".to_vec(), "has no model"),
        ("model null", with(json!({"model": null})), "has no model"),
        (
            "an undeclared special token",
            with(json!({"post_processor": template(json!({"SpecialToken": {"id": "<y>", "type_id": 0}}))})),
            "adds \"<y>\", which is missing from its special_tokens",
        ),
        (
            "a second text",
            with(json!({"post_processor": template(json!({"Sequence": {"id": "B", "type_id": 0}}))})),
            "uses a second text",
        ),
        (
            "a long prefix",
            with(json!({"model": {"continuing_subword_prefix": "#########"}})),
            "continuing_subword_prefix",
        ),
        (
            "a prefix cut inside a letter",
            with(json!({"model": {"continuing_subword_prefix": "\u{e9}"}})),
            "continuing_subword_prefix",
        ),
        (
            "40 doubling normalizers",
            with(json!({"normalizer": sequence("normalizers", &replace("a", "aa"), 40)})),
            "16 times as long",
        ),
        (
            "40 doubling normalizers of any letter",
            with(json!({"normalizer": sequence("normalizers", &replace(".", "xx"), 40)})),
            "16 times as long",
        ),
        (
            "a normalizer that writes where nothing is",
            with(json!({"normalizer": sequence("normalizers", &replace("", "ab"), 40)})),
            "16 times as long",
        ),
        (
            "a long replacement",
            with(json!({"normalizer": replace("a", &"b".repeat(1000))})),
            "inserts 1000 bytes",
        ),
        (
            "a long prepend",
            with(json!({"normalizer": {"type": "Prepend", "prepend": "b".repeat(1000)}})),
            "inserts 1000 bytes",
        ),
        (
            "40 doubling decoders",
            with(json!({"decoder": sequence("decoders", &replace(".", "xx"), 40)})),
            "16 times as long",
        ),
        (
            "40 decoders of an empty suffix",
            with(json!({"decoder": sequence("decoders", &json!({"type": "BPEDecoder", "suffix": ""}), 40)})),
            "16 times as long",
        ),
        (
            "40 pre-tokenizers to bytes",
            with(json!({"pre_tokenizer": sequence("pretokenizers", &byte_level, 40)})),
            "pre-tokenizers make a text longer",
        ),
        (
            "pieces of length 0",
            with(json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}})),
            "pieces of length 0",
        ),
        (
            "1000 steps",
            with(json!({"normalizer": sequence("normalizers", &json!({"type": "NFC"}), 1000)})),
            "limit of 512",
        ),
        ("the highest id added", with(json!({"added_tokens": added(4294967295)})), "has id 4294967295"),
        ("an id beyond", with(json!({"added_tokens": added(1 << 40)})), "has id 1099511627776"),
        (
            "the highest id in the model",
            with(json!({"model": {"vocab": {"a": 4294967295u64}, "merges": []}})),
            "has id 4294967295",
        ),
        (
            "a merge of unknown tokens",
            with(json!({"model": {"merges": [["qq", "zz"]]}})),
            "out of vocabulary",
        ),
        ("an unknown token out of range", with(unigram), "UnkIdNotInVocabulary"),
        ("an unknown version", with(json!({"version": "9"})), "version"),
    ];
    for (name, file, why) in files {
        let started = Instant::now();
        let error = tried(&file).expect_err(name);
        assert!(error.contains(why) && error.contains("tokenizer.json"), "{name}: {error}");
        assert!(started.elapsed() < Duration::from_secs(60), "{name} took {:?}", started.elapsed());
        assert_eq!(PANICS.take(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn an_unusual_but_valid_file_is_accepted() {
    note_panics();
    let strip = |content: &str, start: usize, stop: usize| json!({"decoder": {"type": "Strip", "content": content, "start": start, "stop": stop}});
    let mut twice = String::from_utf8(source("word-level")).unwrap();
    twice = twice.replacen("\"vocab\":{", "\"vocab\":{\"fox\":3,\"fox\":3,", 1);
    for (name, file) in [
        ("strip more than there is", with(strip("a", 3, 300))),
        ("strip at both ends", with(strip(" ", 1, 1))),
        ("an empty prepend", with(json!({"normalizer": {"type": "Prepend", "prepend": ""}}))),
        ("a decoder of suffixes", with(json!({"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}))),
        ("dropout", with(json!({"model": {"dropout": 0.5}}))),
        ("a token twice", twice.into_bytes()),
    ] {
        tried(&file).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(PANICS.take(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_file_above_the_size_limit_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("tokenizer.json")).unwrap();
    file.set_len(200 << 20).unwrap();
    let error = used(dir.path()).unwrap_err();
    assert!(error.contains("has 200 MiB, more than the limit of 128"), "{error}");
}
