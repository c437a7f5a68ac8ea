//! GGUF files written by PyPI's gguf (`fixtures/make_gguf.py`), against transformers; and our own files, read back.

mod common;

use std::path::{Path, PathBuf};

use common::{fixture, gpu, ids, logp_differences, logps};
use oaif::Wait;
use oaif::unstable::data::chat::ChatTemplate;
use oaif::unstable::data::tokenizer::{StopMatcher, Tokenizer};
use oaif::unstable::generate::{GenerateOptions, Generator, Request, SamplingParams};
use oaif::unstable::gguf::GgufFormat;
use oaif::unstable::gpu::{Arena, Gpu};
use oaif::unstable::model::{FloatFormat, Model, ModelConfig};
use serde_json::Value;

fn file(name: &str) -> PathBuf {
    fixture("gguf").join(format!("{name}.gguf"))
}

fn greedy(gpu: &Gpu, model: &Model, prompt: Vec<u32>, tokens: usize) -> Vec<u32> {
    let options = GenerateOptions::default()
        .sampling(SamplingParams::default().temperature(0.0))
        .max_new_tokens(tokens)
        .max_prompt_tokens(prompt.len())
        .slots(1)
        .samples_per_prompt(1)
        .eos(vec![]);
    let generator = Generator::new(gpu, model, options, &Arena::new()).wait().unwrap();
    // The tokenizer of another model: the text is not compared.
    let tokenizer = Tokenizer::load(&fixture("tiny")).unwrap();
    let request = Request { prompt, samples: 1, first_sequence: 0 };
    let mut answers = generator.run(&tokenizer, &[request], &StopMatcher::new([]), 1).wait().unwrap();
    answers.remove(0).remove(0).token_ids
}

#[test]
fn every_architecture_gives_the_results_of_transformers() {
    let Some(gpu) = gpu() else { return };
    let expected = common::json("gguf/expected.json");
    println!("{}", expected["versions"]);
    for (name, want) in expected["models"].as_object().unwrap() {
        let model = Model::load_frozen(&gpu, &file(name), Some(FloatFormat::F32.into())).wait().unwrap();
        let sequences = want["sequences"].as_array().unwrap();
        let rows: Vec<Vec<u32>> = sequences.iter().map(|s| ids(&s["ids"])).collect();
        let numbers = |s: &Value| -> Vec<f32> {
            s["logps"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let logps: Vec<f32> = sequences.iter().flat_map(numbers).collect();
        let (largest, mean) = logp_differences(&gpu, &model, &rows, &logps);
        let want = &want["greedy"];
        let got = greedy(&gpu, &model, ids(&want["prompt"]), want["ids"].as_array().unwrap().len());
        println!(
            "{name:<20} {} log-probabilities: largest difference {largest:.1e}, mean {mean:.1e}; {} greedy ids equal: {}",
            logps.len(),
            got.len(),
            got == ids(&want["ids"])
        );
        assert!(largest <= 2e-5, "{name}: {largest:.1e}");
        assert_eq!(got, ids(&want["ids"]), "{name}");
    }
}

/// Writing and reading a file in any format keeps weights, configuration and rotary factors.
#[test]
fn a_written_file_contains_the_same_model() {
    let Some(gpu) = gpu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<Vec<u32>> =
        [5, 19, 31].map(|n| (0..n).map(|i| 3 + (i * i * 7 + n) % 12).collect()).to_vec();
    // A GGUF file must contain a tokenizer; any will do here.
    let tokenizer = fixture("tokenizers/byte-level");
    for name in common::json("gguf/expected.json")["models"].as_object().unwrap().keys() {
        let model = Model::load_frozen(&gpu, &file(name), Some(FloatFormat::F32.into())).wait().unwrap();
        let want = logps(&gpu, &model, &rows);
        for (format, most) in [
            (GgufFormat::F32, 1e-5),
            (GgufFormat::F16, 2e-2),
            (GgufFormat::Bf16, 1e-1),
            (GgufFormat::Q8_0, 2e-1),
        ] {
            let path = dir.path().join(format!("{name}-{format:?}.gguf"));
            model.save_gguf(&path, &tokenizer, format).wait().unwrap();
            let again = Model::load_frozen(&gpu, &path, Some(FloatFormat::F32.into())).wait().unwrap();
            assert_eq!(again.architecture(), model.architecture(), "{name}");
            let (largest, _) = logp_differences(&gpu, &again, &rows, &want);
            assert!(largest <= most, "{name} {format:?}: {largest:.1e}");
        }
    }
}

/// A tokenizer has the ids of the one from which the file was made.
#[test]
fn tokenizers_match_transformers() {
    let expected = common::json("tokens.json");
    for kind in ["byte-level", "byte-fallback"] {
        let tokenizer = Tokenizer::load(&file(&format!("tokenizer-{kind}"))).unwrap();
        compare(&tokenizer, &expected["kinds"][kind], kind);
    }
}

fn compare(tokenizer: &Tokenizer, want: &Value, kind: &str) {
    let id = |value: &Value| value.as_u64().map(|id| id as u32);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (id(&want["bos"]), id(&want["eos"])), "{kind}");
    for row in want["rows"].as_array().unwrap() {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let prompt = tokenizer.encode(&text("prompt")).unwrap();
        assert_eq!(prompt, ids(&row["prompt_ids"]), "{kind}: {:?}", text("prompt"));
        let whole = text("prompt") + &text("completion");
        let plain = tokenizer.encode_plain(&whole).unwrap();
        assert_eq!(plain, ids(&row["plain"]), "{kind}: {whole:?}");
        assert_eq!(tokenizer.decode(&plain, false).unwrap(), text("text"), "{kind}: {whole:?}");
        assert_eq!(tokenizer.decode(&plain, true).unwrap(), text("visible"), "{kind}: {whole:?}");
    }
}

/// A written tokenizer and chat template are read back unchanged.
#[test]
fn a_written_tokenizer_is_the_same() {
    let Some(gpu) = gpu() else { return };
    let expected = common::json("tokens.json");
    let dir = tempfile::tempdir().unwrap();
    let model = Model::load_frozen(&gpu, &file("llama"), None).wait().unwrap();
    for kind in ["byte-level", "byte-fallback", "both-ends"] {
        let source = dir.path().join(kind);
        copy(&fixture("tokenizers").join(kind), &source);
        std::fs::write(source.join("chat_template.jinja"), "{{ messages[0]['content'] }}{{ eos_token }}")
            .unwrap();
        let path = dir.path().join(format!("{kind}.gguf"));
        // The model has fewer tokens than the tokenizer: the others are left out of the file and not compared here.
        let wide = widened(&gpu, &model);
        wide.save_gguf(&path, &source, GgufFormat::F16).wait().unwrap();
        compare(&Tokenizer::load(&path).unwrap(), &expected["kinds"][kind], kind);
        assert!(ChatTemplate::load(&path).unwrap().is_some());
    }
    for (kind, part) in [
        ("word-piece", "does not support this tokenizer"),
        ("metaspace", "no equivalent of its pre_tokenizer"),
    ] {
        let path = dir.path().join("no.gguf");
        let why =
            model.save_gguf(&path, &fixture("tokenizers").join(kind), GgufFormat::F16).wait().unwrap_err();
        assert!(why.to_string().contains(part), "{why}");
        assert!(!path.exists());
    }
}

/// The same architecture with random weights and 600 tokens.
fn widened(gpu: &Gpu, model: &Model) -> Model {
    let mut json = model.config().raw.clone();
    json["vocab_size"] = 600.into();
    Model::random(gpu, ModelConfig::from_json(json).unwrap(), false, 7).wait().unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
