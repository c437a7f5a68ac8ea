//! Token ids against those of transformers, for small tokenizers of every kind (`fixtures/make_tokens.py`), and for
//! real ones if `OAIF_TOKENIZERS` is set to a folder of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use oaif::unstable::data::encoder::Encoder;
use oaif::unstable::data::rows::Text;
use oaif::unstable::data::tokenizer::Tokenizer;
use oaif::unstable::error::Result;
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().map(|id| id as u32)
}

/// The ids of the prompt and of the completion, if both can be encoded.
fn joined(encoder: &Encoder, row: &Value, append_eos: bool) -> Result<[Vec<u32>; 2]> {
    let text = |name: &str| Text::Plain(row[name].as_str().unwrap().to_owned());
    let mut encoded = encoder.encode(&text("prompt"), &[&text("completion")], append_eos)?;
    Ok([encoded.tree.prompt, encoded.tree.responses.remove(0)])
}

/// The differences from transformers in a row of `make_tokens.py`.
fn differences(tokenizer: &Tokenizer, row: &Value) -> Vec<String> {
    let encoder = Encoder { tokenizer, template: None };
    let text = |name: &str| row[name].as_str().unwrap();
    let mut found = Vec::new();
    let mut compare = |what: &str, got: String, want: String| {
        if got != want {
            found.push(format!(
                "{:?} + {:?}, {what}: {got}, expected {want}",
                text("prompt"),
                text("completion")
            ));
        }
    };
    let got = tokenizer.encode(text("prompt")).unwrap();
    compare("prompt", format!("{got:?}"), format!("{:?}", ids(&row["prompt_ids"])));
    for (name, append_eos) in [("split", false), ("ended", true)] {
        let [prompt, mut completion] = [0, 1].map(|part| ids(&row[name][part]));
        // A tokenizer that appends EOS itself does not get a second one here.
        let eos = tokenizer.eos();
        if append_eos && eos.is_some_and(|eos| completion.ends_with(&[eos, eos])) {
            completion.pop();
        }
        let got = joined(&encoder, row, append_eos);
        let (got, want) = match prompt.is_empty() {
            true => (format!("{:?}", got.map_err(|_| ())), "Err(())".to_owned()),
            false => (format!("{:?}", got.unwrap()), format!("{:?}", [prompt, completion])),
        };
        compare(name, got, want);
    }
    let plain = tokenizer.encode_plain(&(text("prompt").to_owned() + text("completion"))).unwrap();
    compare("plain", format!("{plain:?}"), format!("{:?}", ids(&row["plain"])));
    for (name, skip_special) in [("text", false), ("visible", true)] {
        let got = tokenizer.decode(&ids(&row["plain"]), skip_special).unwrap();
        compare(name, got, text(name).to_owned());
    }
    found
}

/// Prints a table by kind and fails if one differs.
fn compare_kinds(kinds: &Map<String, Value>, folder: &Path) {
    let mut all = Vec::new();
    for (kind, want) in kinds {
        let tokenizer = Tokenizer::load(&folder.join(kind)).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos()), (id(&want["bos"]), id(&want["eos"])), "{kind}");
        let rows = want["rows"].as_array().unwrap();
        let different: Vec<Vec<String>> =
            rows.iter().map(|row| differences(&tokenizer, row)).filter(|found| !found.is_empty()).collect();
        println!("{kind:>16}: {} rows equal, {} different", rows.len() - different.len(), different.len());
        all.extend(different.into_iter().flatten().map(|found| format!("{kind}: {found}")));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn prompt_and_completion_have_transformers_ids_with_every_kind_of_tokenizer() {
    let fixture = read(&fixtures().join("tokens.json"));
    let kinds = fixture["kinds"].as_object().unwrap();
    assert!(kinds.len() >= 8 && kinds.values().all(|kind| kind["rows"].as_array().unwrap().len() >= 20));
    compare_kinds(kinds, &fixtures().join("tokenizers"));
}

#[test]
fn prompt_and_completion_have_transformers_ids_with_real_tokenizers() {
    let Some(folder) = std::env::var_os("OAIF_TOKENIZERS").map(PathBuf::from) else {
        let _ =
            writeln!(std::io::stderr(), "skipped: OAIF_TOKENIZERS is not set to a folder of real tokenizers");
        return;
    };
    compare_kinds(read(&folder.join("tokens.json"))["kinds"].as_object().unwrap(), &folder);
}

/// The folder of `kind` with the changes of a setting.
fn changed(kind: &str, changes: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["tokenizer", "tokenizer_config", "config"] {
        let name = format!("{file}.json");
        std::fs::copy(fixtures().join("tokenizers").join(kind).join(&name), dir.path().join(&name)).unwrap();
    }
    for (file, change) in changes.as_object().unwrap() {
        let path = dir.path().join(format!("{file}.json"));
        let mut content = if path.exists() { read(&path) } else { json!({}) };
        for (key, value) in change.as_object().unwrap() {
            match value == "DELETE" {
                true => _ = content.as_object_mut().unwrap().shift_remove(key),
                false => content[key] = value.clone(),
            }
        }
        std::fs::write(&path, content.to_string()).unwrap();
    }
    dir
}

#[test]
fn configuration_files_change_ids_as_in_transformers() {
    let fixture = read(&fixtures().join("tokens.json"));
    let mut found = Vec::new();
    for setting in fixture["settings"].as_array().unwrap() {
        let name = setting["name"].as_str().unwrap();
        let dir = changed(setting["kind"].as_str().unwrap(), &setting["changes"]);
        let tokenizer = Tokenizer::load(dir.path()).unwrap();
        let mut compare = |what: &str, got: String, want: String| {
            if got != want {
                found.push(format!("{name}, {what}: {got}, expected {want}"));
            }
        };
        let own = [tokenizer.bos(), tokenizer.eos()];
        compare(
            "bos and eos",
            format!("{own:?}"),
            format!("{:?}", [id(&setting["bos"]), id(&setting["eos"])]),
        );
        for row in setting["rows"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let want = ids(&row["ids"]);
            compare(text, format!("{:?}", tokenizer.encode(text).unwrap()), format!("{want:?}"));
            let plain = tokenizer.encode_plain(text).unwrap();
            compare(text, format!("{plain:?}"), format!("{:?}", ids(&row["plain"])));
            for (name, skip_special) in [("decoded", false), ("visible", true)] {
                let got = tokenizer.decode(&want, skip_special).unwrap();
                compare(
                    &format!("{text} {name}"),
                    format!("{got:?}"),
                    format!("{:?}", row[name].as_str().unwrap()),
                );
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
