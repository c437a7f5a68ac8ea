use super::*;
use crate::files::{self, shared, write_atomic};

/// A word-level tokenizer with ids up to 600 with gaps, which adds BOS to each text. Its truncation must be ignored.
const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": null, "normalizer": null,
    "added_tokens": [
        {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        {"id": 600, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
    "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
    "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "▁one": 3, "▁two": 4, "▁stop": 5, "▁now": 6, "<|end|>": 600},
        "unk_token": "<unk>"}}"#;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        write_atomic(&dir.path().join(name), content.as_bytes()).unwrap();
    }
    dir
}

fn small(files: &[(&str, &str)]) -> Tokenizer {
    let dir = folder(&[&[("tokenizer.json", TOKENIZER)], files].concat());
    Tokenizer::load(dir.path()).unwrap()
}

const SPECIAL: &str = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}"#;

#[test]
fn a_prompt_has_the_ids_that_transformers_gives_it() {
    let known: [(&str, usize, &[u32]); 2] = [
        ("models/stories260K", 512, &[1, 403, 407, 261, 378]),
        ("models/TinyStories-656K", 2048, &[1, 80, 147, 201, 282, 57]),
    ];
    for (model, vocab_size, ids) in known {
        let Some(dir) = shared(model) else { return };
        let tokenizer = Tokenizer::load_for(&dir, vocab_size).unwrap();
        assert_eq!(tokenizer.encode("Once upon a time").unwrap(), ids, "{model}");
        assert_eq!(tokenizer.encode_plain("Once upon a time").unwrap(), ids[1..], "{model}");
        assert_eq!(tokenizer.decode(ids, true).unwrap(), "Once upon a time", "{model}");
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()),
            (Some(1), Some(2), &[2][..]),
            "{model}"
        );
        let rendered = format!("{}Once upon", tokenizer.decode(&ids[..1], false).unwrap().trim_start());
        let ids_of_rendered = tokenizer.encode_plain(&rendered).unwrap();
        assert_eq!(ids_of_rendered.iter().filter(|&&id| id == 1).count(), 1, "{model}");
        let next = tokenizer.encode_plain("there was").unwrap();
        assert_eq!(tokenizer.decode_after(ids, &next, true).unwrap(), " there was", "{model}");
    }
}

#[test]
fn special_tokens_are_added_once() {
    let tokenizer = small(&[("tokenizer_config.json", SPECIAL)]);
    assert_eq!(tokenizer.encode("one two one").unwrap(), [1, 3, 4, 3]);
    assert_eq!(tokenizer.encode_plain("one two").unwrap(), [3, 4]);
    assert_eq!(tokenizer.encode_plain("<s>one two").unwrap(), [1, 3, 4]);
    assert_eq!(tokenizer.token_to_id("<|end|>"), Some(600));
    assert_eq!(tokenizer.decode(&[1, 3, 4, 2], true).unwrap(), "one two");
    assert_eq!(tokenizer.decode(&[9999], true).unwrap(), "");
}

#[test]
fn the_eos_ids_are_those_that_generation_stops_at() {
    let config = ("config.json", r#"{"eos_token_id": 2}"#);
    let tokenizer = small(&[config, ("tokenizer_config.json", SPECIAL)]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()), (Some(1), Some(2), &[2][..]));
    let generation = ("generation_config.json", r#"{"eos_token_id": [600, 2], "bos_token_id": null}"#);
    let tokenizer = small(&[config, generation, ("tokenizer_config.json", SPECIAL)]);
    assert_eq!((tokenizer.eos(), tokenizer.eos_ids()), (Some(2), &[600, 2][..]));
    let tokenizer = small(&[config, generation]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, Some(600)));
    let tokenizer = small(&[("tokenizer_config.json", SPECIAL)]);
    assert_eq!((tokenizer.eos(), tokenizer.eos_ids()), (Some(2), &[2][..]));
    let tokenizer = small(&[]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.eos_ids()), (None, None, &[][..]));
}

#[test]
fn a_null_bos_token_overrides_the_models_configuration() {
    let config = ("config.json", r#"{"bos_token_id": 1}"#);
    assert_eq!(small(&[config]).bos(), Some(1));
    assert_eq!(small(&[config, ("tokenizer_config.json", r#"{"bos_token": null}"#)]).bos(), None);
}

#[test]
fn a_token_outside_the_models_vocabulary_is_an_error_when_a_text_has_it() {
    let files = folder(&[("tokenizer.json", TOKENIZER)]);
    let tokenizer = Tokenizer::load_for(files.path(), 512).unwrap();
    assert_eq!(tokenizer.encode("one two").unwrap(), [1, 3, 4]);
    let error = tokenizer.encode("one<|end|>").unwrap_err().to_string();
    assert!(error.contains("the token \"<|end|>\" with id 600, but the model's ids end at 511"), "{error}");
    let eos = folder(&[("tokenizer.json", TOKENIZER), ("config.json", r#"{"eos_token_id": 700}"#)]);
    let error = Tokenizer::load_for(eos.path(), 601).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: the token with id 700"), "{error}");
}

#[test]
fn a_stop_string_across_tokens_cuts_the_text_before_it() {
    let tokenizer = small(&[]);
    let stops = ["two stop", "stop now", ""].map(str::to_owned);
    let matcher = StopMatcher::new(stops);
    let before = tokenizer.encode("one").unwrap();
    assert_eq!(matcher.cut(&tokenizer, &before, &[3]).unwrap(), None);
    assert_eq!(matcher.cut(&tokenizer, &before, &[3, 5]).unwrap(), None);
    assert_eq!(matcher.cut(&tokenizer, &before, &[3, 5, 6, 4]).unwrap().unwrap(), " one ");
    assert_eq!(matcher.cut(&tokenizer, &before, &[4, 5, 6]).unwrap().unwrap(), " ");
    assert_eq!(matcher.cut(&tokenizer, &[], &[3, 4, 5]).unwrap().unwrap(), "one ");
    assert_eq!(StopMatcher::default().cut(&tokenizer, &[], &[5, 6]).unwrap(), None);
    let special = StopMatcher::new(["<|end|>".to_owned()]);
    assert_eq!(special.cut(&tokenizer, &[], &[3, 600, 4]).unwrap().unwrap().trim_end(), "one");
}

#[test]
fn broken_files_are_clear_errors() {
    let load = |files: &[(&str, &str)]| Tokenizer::load(folder(files).path()).unwrap_err().to_string();
    assert!(load(&[]).contains("has no tokenizer.json"));
    assert!(load(&[("tokenizer.json", "{")]).contains("is not a tokenizer"));
    assert!(load(&[("tokenizer.json", "{}")]).contains("is not a tokenizer"));
    let eos = load(&[("tokenizer.json", TOKENIZER), ("config.json", r#"{"eos_token_id": "two"}"#)]);
    assert!(eos.contains("config.json: eos_token_id must be a token id"), "{eos}");
    let eos = load(&[("tokenizer.json", TOKENIZER), ("generation_config.json", r#"{"eos_token_id": [-1]}"#)]);
    assert!(eos.contains("generation_config.json: eos_token_id must be"), "{eos}");
    assert!(load(&[("tokenizer.json", TOKENIZER), ("config.json", "no")]).contains("is not valid JSON"));
}

fn fixture(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(kind)
}

const ALL: [&str; 8] =
    ["byte-level", "byte-fallback", "metaspace", "word-piece", "unigram", "word-level", "both-ends", "flags"];

#[test]
fn text_decoded_after_a_prompt_is_encoded_to_the_same_ids() {
    for kind in ALL {
        let tokenizer = Tokenizer::load(&fixture(kind)).unwrap();
        let whole = tokenizer.encode_beginning("upon a time there said : one two").unwrap();
        let text = tokenizer.decode(&whole, true).unwrap();
        assert_eq!(tokenizer.encode_beginning(&text).unwrap(), whole, "{kind}");
        for at in 0..whole.len() {
            let (before, ids) = whole.split_at(at);
            let prompt = tokenizer.decode(before, true).unwrap();
            let answer = tokenizer.decode_after(before, ids, true).unwrap();
            assert_eq!(prompt + &answer, text, "{kind}, {at} tokens before");
        }
    }
    let bytes = Tokenizer::load(&fixture("byte-level")).unwrap();
    let (before, letter) = (bytes.encode("a ").unwrap(), bytes.encode("\u{1f44d}").unwrap());
    let cut = [&before[..], &letter[..2]].concat();
    assert_eq!(bytes.decode_after(&cut, &letter[2..], true).unwrap(), "\u{1f44d}");
}

#[test]
fn dropout_of_merges_is_off() {
    let mut file: Value = files::read_json(&fixture("byte-level").join("tokenizer.json")).unwrap();
    file["model"]["dropout"] = 0.5.into();
    let dir = folder(&[("tokenizer.json", &file.to_string())]);
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let text = "Once upon a time there was a little fox";
    let ids = Tokenizer::load(&fixture("byte-level")).unwrap().encode(text).unwrap();
    assert!((0..20).all(|_| tokenizer.encode(text).unwrap() == ids));
}

#[test]
fn an_added_token_that_cannot_have_its_id_is_named_in_the_error() {
    let refused = |tokens: &str| {
        let config = format!("{{\"added_tokens_decoder\": {tokens}}}");
        let dir = folder(&[("tokenizer_config.json", &config)]);
        std::fs::copy(fixture("byte-level").join("tokenizer.json"), dir.path().join("tokenizer.json"))
            .unwrap();
        Tokenizer::load(dir.path()).unwrap_err().to_string()
    };
    let gap = refused(r#"{"400": {"content": "<|im_end|>", "special": true}}"#);
    assert!(gap.contains("token \"<|im_end|>\" must have id 400, but tokenizer.json lacks it"), "{gap}");
    let taken = refused(r#"{"7": {"content": "<|im_end|>", "special": true}}"#);
    assert!(taken.contains("must have id 7, which tokenizer.json gives to \"'\""), "{taken}");
    for (tokens, why) in [
        ("[]", "added_tokens_decoder must be an object"),
        (r#"{"x": {"content": "<|im_end|>"}}"#, "must have a token id"),
        (r#"{"4294967295": {"content": "<|im_end|>"}}"#, "must have a token id"),
        (r#"{"320": "<|im_end|>"}"#, "token \"320\" must be an object with \"content\""),
    ] {
        let error = refused(tokens);
        assert!(error.contains(why) && error.contains("tokenizer_config.json"), "{tokens}: {error}");
    }
}

#[test]
fn generation_stops_at_the_tokenizers_end_and_at_the_configured_ones() {
    let generation = ("generation_config.json", r#"{"eos_token_id": [600]}"#);
    let tokenizer = small(&[generation, ("tokenizer_config.json", SPECIAL)]);
    assert_eq!(
        (tokenizer.eos(), tokenizer.eos_text(), tokenizer.eos_ids()),
        (Some(2), Some("</s>"), &[600, 2][..])
    );
}

/// Expected: the result of transformers 5.24 for files that it wrote itself.
#[test]
fn model_specific_special_tokens_are_added_under_their_names() {
    let config = r#"{"model_specific_special_tokens": {"image_token": "<img>"}}"#;
    let dir = folder(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", config)]);
    assert!(Tokenizer::load(dir.path()).unwrap().token_to_id("<img>").is_some());
    assert_eq!(super::special_tokens(dir.path()).unwrap()["image_token"], "<img>");
}

#[test]
fn special_tokens_of_a_wrong_type_are_clear_errors() {
    for (config, why) in [
        (r#"{"eos_token": 2}"#, "eos_token must be a string, or an object with \"content\""),
        (r#"{"bos_token": {"id": 1}}"#, "bos_token must be a string"),
        (r#"{"extra_special_tokens": "x"}"#, "extra_special_tokens must be a list"),
        (r#"{"model_specific_special_tokens": []}"#, "model_specific_special_tokens must be an object"),
        (r#"{"additional_special_tokens": [1]}"#, "additional_special_tokens must be a string"),
        ("[]", "must be a JSON object"),
    ] {
        let dir = folder(&[("tokenizer.json", TOKENIZER), ("tokenizer_config.json", config)]);
        let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("tokenizer_config.json"), "{config}: {error}");
    }
}

#[test]
fn the_error_for_a_slow_tokenizer_says_how_to_convert_it() {
    let dir = folder(&[("tokenizer.model", "x")]);
    let error = Tokenizer::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("no tokenizer.json, only tokenizer.model") && error.contains("save_pretrained"),
        "{error}"
    );
}
