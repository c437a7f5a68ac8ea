//! The fuzz targets: a name, and a constructor of a function that takes an input and returns whether it was accepted.

use std::path::Path;

use oaif::Wait;
use oaif::unstable::data::chat::ChatTemplate;
use oaif::unstable::data::encoder::Encoder;
use oaif::unstable::data::rows::{
    Columns, Conversation, Message, Text, read_completions, read_pairs, read_prompts, read_responses,
};
use oaif::unstable::data::tokenizer::Tokenizer;
use oaif::unstable::gguf::GgufTensors;
use oaif::unstable::gpu::{Gpu, Limits};
use oaif::unstable::judge::Pair;
use oaif::unstable::judge::likelihood::text_before;
use oaif::unstable::judge::template::JudgeTemplate;
use oaif::unstable::model::architecture::WeightSpec;
use oaif::unstable::model::safetensors_io::{MODEL_FILE, TensorFiles};
use oaif::unstable::model::{Model, ModelConfig};

/// Takes an input and returns whether it was accepted.
pub type Run = Box<dyn FnMut(&[u8]) -> bool>;

/// A kind of file.
pub struct Target {
    pub name: &'static str,
    /// Makes the function; the folder belongs to the target.
    pub prepare: fn(&Path) -> Run,
}

pub const TARGETS: [Target; 13] = [
    Target { name: "safetensors", prepare: safetensors },
    Target { name: "config", prepare: config },
    Target { name: "tokenizer", prepare: tokenizer },
    Target { name: "tokenizer_config", prepare: tokenizer_config },
    Target { name: "template", prepare: template },
    Target { name: "judge_template", prepare: judge_template },
    Target { name: "rows", prepare: rows },
    Target { name: "csv", prepare: csv },
    Target { name: "parquet", prepare: parquet },
    Target { name: "card", prepare: card },
    Target { name: "adapter", prepare: adapter },
    Target { name: "state", prepare: state },
    Target { name: "gguf", prepare: gguf },
];

fn safetensors(dir: &Path) -> Run {
    let path = dir.join(MODEL_FILE);
    Box::new(move |input| {
        std::fs::write(&path, input).unwrap();
        let Ok(files) = TensorFiles::open_file(&path) else { return false };
        let names: Vec<String> = files.names().map(str::to_owned).collect();
        let read = |name: &String| {
            let shape = files.info(name).expect("it is listed").shape.clone();
            files.read_f32(name, &shape).is_ok()
        };
        names.iter().all(read)
    })
}

fn config(_: &Path) -> Run {
    Box::new(|input| {
        let Ok(json) = serde_json::from_slice(input) else { return false };
        let Ok(config) = ModelConfig::from_json(json) else { return false };
        let ropes = config.architecture.attention.ropes.iter();
        ropes.flat_map(|rope| rope.inverse_frequencies()).all(|f| f.is_finite())
    })
}

/// Texts that exercise every part of a tokenizer.
const TEXTS: [&str; 5] = [
    "",
    "the fox said",
    " é\u{301}\u{200d}👩‍🔬 \n\t ▁▁",
    "<s>a</s> <unk>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn encodes(tokenizer: &Tokenizer) -> bool {
    TEXTS.iter().all(|text| {
        let Ok(ids) = tokenizer.encode(text) else { return false };
        tokenizer.decode(&ids, true).is_ok() && tokenizer.decode_after(&ids, &ids, false).is_ok()
    })
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tokenizer(dir: &Path) -> Run {
    let dir = dir.to_owned();
    Box::new(move |input| {
        std::fs::write(dir.join("tokenizer.json"), input).unwrap();
        Tokenizer::load_for(&dir, 512).is_ok_and(|tokenizer| encodes(&tokenizer))
    })
}

fn tokenizer_config(dir: &Path) -> Run {
    std::fs::copy(fixture("tiny/tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let dir = dir.to_owned();
    Box::new(move |input| {
        std::fs::write(dir.join("tokenizer_config.json"), input).unwrap();
        let renders = |template: ChatTemplate| template.render(&conversation(), true).is_ok();
        let template = ChatTemplate::load(&dir);
        let encoded = Tokenizer::load_for(&dir, 512).is_ok_and(|tokenizer| encodes(&tokenizer));
        encoded && template.is_ok_and(|template| template.is_none_or(renders))
    })
}

fn conversation() -> Conversation {
    let messages = vec![
        Message::new("system", "Be brief."),
        Message::new("user", "hi"),
        Message::new("assistant", "<think>so</think> yo"),
        Message::new("user", "and now?"),
    ];
    Conversation { messages, ..Conversation::default() }
}

fn template(dir: &Path) -> Run {
    std::fs::copy(fixture("tiny/tokenizer_config.json"), dir.join("tokenizer_config.json")).unwrap();
    let dir = dir.to_owned();
    Box::new(move |input| {
        std::fs::write(dir.join("chat_template.jinja"), input).unwrap();
        let Ok(Some(template)) = ChatTemplate::load(&dir) else { return false };
        [true, false].map(|prompt| template.render(&conversation(), prompt).is_ok()) == [true, true]
    })
}

fn judge_template(_: &Path) -> Run {
    Box::new(|input| {
        let source = String::from_utf8_lossy(input);
        let pair = Pair { prompt: "a {{ b }}", response_1: "c", response_2: "" };
        let prompted = JudgeTemplate::from_text(&source).and_then(|template| template.render(&pair));
        let likelihood = text_before(&source, "be kind", pair.prompt);
        prompted.is_ok() | likelihood.is_ok()
    })
}

fn rows(dir: &Path) -> Run {
    rows_in(dir.join("rows.jsonl"))
}

fn csv(dir: &Path) -> Run {
    rows_in(dir.join("rows.csv"))
}

fn parquet(dir: &Path) -> Run {
    rows_in(dir.join("rows.parquet"))
}

/// The rows of a dataset's card, among files of all kinds.
fn card(_: &Path) -> Run {
    let names = [
        "README.md",
        "data/train-00000-of-00002.jsonl",
        "data/train-00001-of-00002.jsonl",
        "en/test.csv",
        "dev.json",
    ];
    Box::new(move |input| {
        let wanted = [None, Some("train"), Some("en/test"), Some("default")];
        wanted.iter().any(|wanted| oaif::unstable::hub::rows_of(input, *wanted, &names).is_ok())
    })
}

fn rows_in(path: std::path::PathBuf) -> Run {
    let tokenizer = Tokenizer::load_for(&fixture("tiny"), 96).unwrap();
    Box::new(move |input| {
        std::fs::write(&path, input).unwrap();
        let columns = Columns::default();
        let encoder = Encoder { tokenizer: &tokenizer, template: None };
        let mut accepted = false;
        if let Ok(rows) = read_pairs(&path, &columns) {
            for row in rows {
                let answers: [&Text; 2] = [&row.chosen, &row.rejected];
                accepted |= encoder.encode(&row.prompt, &answers, true).is_ok();
            }
        }
        if let Ok(rows) = read_prompts(&path, &columns) {
            accepted |= rows.iter().any(|row| encoder.prompt(&row.prompt).is_ok());
        }
        if let Ok(rows) = read_completions(&path, &columns) {
            accepted |= rows.iter().any(|row| encoder.text(&row.completion, true).is_ok());
        }
        accepted | read_responses(&path, &columns).is_ok()
    })
}

fn adapter(dir: &Path) -> Run {
    // A device that only measures needs no weights.
    let model = Model::load(&Gpu::without_device(Limits::default()), &fixture("tiny"), false).wait().unwrap();
    let dir = dir.to_owned();
    Box::new(move |input| {
        std::fs::write(dir.join("adapter_config.json"), input).unwrap();
        model.load_adapter(&dir, true).is_ok()
    })
}

fn state(dir: &Path) -> Run {
    let dir = dir.to_owned();
    Box::new(move |input| {
        std::fs::write(dir.join("state.json"), input).unwrap();
        oaif::unstable::train::read_state(&dir).is_ok()
    })
}

/// A whole model: its configuration, every tensor, its tokenizer and its template.
fn gguf(dir: &Path) -> Run {
    let path = dir.join("model.gguf");
    Box::new(move |input| {
        std::fs::write(&path, input).unwrap();
        let template = ChatTemplate::load(&path);
        let tokenizer = Tokenizer::load_for(&path, 512);
        let encoded = tokenizer.is_ok_and(|tokenizer| encodes(&tokenizer)) && template.is_ok();
        let Ok(config) = ModelConfig::load(&path) else { return encoded };
        let Ok(tensors) = GgufTensors::open(&path, &config.architecture) else { return encoded };
        let read = |spec: &WeightSpec| tensors.read_f32(&spec.name, &spec.shape).is_ok();
        // A file may claim a huge number of layers.
        let specs = || config.architecture.weights().into_iter().take(64);
        encoded & specs().filter(|spec| tensors.has(&spec.name)).all(|spec| read(&spec))
    })
}
