//! Invalid input: one clear sentence with the way out, the right exit code, and nothing left behind.

use serde_json::{Value, json};

use super::{Outcome, PAIRS, Place, completions};

const SCORE: &str = "score --model tiny_tied --input rows.jsonl --output out.jsonl";
const DPO: &str = "dpo --model tiny_tied --dataset pairs.jsonl --max-steps 1 --output-dir run";
const ALIGN: &str = "align --model tiny_tied --dataset pairs.jsonl --max-steps 1 --output-dir run \
                     --max-new-tokens 4 --judge rule --judge-rule longer";
const MODEL: &str = "tiny_tied/model.safetensors";
const QUERY: &str = "model.layers.0.self_attn.q_proj.weight";

fn place() -> Option<Place> {
    let place = Place::with(&["tiny_tied"])?;
    place.write("pairs.jsonl", PAIRS);
    place.write("rows.jsonl", completions());
    Some(place)
}

/// Checks that no command accepts the files in the folder, nor does a dry run.
#[track_caller]
fn nothing_runs(place: &Place, code: i32, parts: &[&str]) {
    refused_by_all(place, code, parts);
    place.refuses(&format!("{DPO} --dry-run"), code, parts);
}

#[track_caller]
fn refused_by_all(place: &Place, code: i32, parts: &[&str]) {
    for line in [SCORE, DPO, ALIGN, "generate --model tiny_tied --prompt fox --output out.jsonl"] {
        place.refuses(line, code, parts);
    }
}

/// Rewrites the header and the data of a safetensors file.
fn edit(place: &Place, name: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let file = place.read(name);
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let mut data = file[8 + length..].to_vec();
    change(&mut header, &mut data);
    let header = header.to_string();
    place.write(name, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat());
}

#[test]
fn an_incomplete_model_folder_is_refused() {
    let Some(place) = place() else { return };
    for (file, parts) in [
        ("model.safetensors", ["has no weights", "model.safetensors.index.json"]),
        ("config.json", ["has no config.json", "Hugging Face"]),
        ("tokenizer.json", ["has no tokenizer.json", "transformers"]),
    ] {
        let file = format!("tiny_tied/{file}");
        let content = place.read(&file);
        std::fs::remove_file(place.path(&file)).unwrap();
        match file.ends_with("model.safetensors") {
            // A dry run needs no weights.
            true => {
                refused_by_all(&place, 1, &parts);
                place.oaif(&format!("{DPO} --dry-run")).done();
            }
            false => nothing_runs(&place, 1, &parts),
        }
        place.write(&file, content);
    }
    for path in ["none", "rows.jsonl", "meta-llama/Llama-3.2-1B"] {
        place.refuses(&SCORE.replace("tiny_tied", path), 2, &["--model", path, "folder"]);
    }
    place.oaif(SCORE).done();
}

#[test]
fn a_truncated_weight_file_is_refused() {
    let Some(place) = place() else { return };
    let whole = place.read(MODEL);
    for bytes in [0, 7, 8, 100, 5000, whole.len() - 1] {
        place.write(MODEL, &whole[..bytes]);
        nothing_runs(&place, 1, &["model.safetensors", "is truncated", "download it again"]);
    }
    place.write(MODEL, [&whole[..], b"more"].concat());
    nothing_runs(&place, 1, &["model.safetensors", "download the file again"]);
}

#[test]
fn a_header_of_impossible_length_is_refused() {
    let Some(place) = place() else { return };
    let mut file = place.read(MODEL);
    for length in [u64::MAX, u64::MAX / 2, 100_000_001] {
        file[..8].copy_from_slice(&length.to_le_bytes());
        place.write(MODEL, &file);
        nothing_runs(&place, 1, &["model.safetensors", "is not a safetensors file", "100000000"]);
    }
    file[..8].copy_from_slice(&200u64.to_le_bytes());
    place.write(MODEL, &file);
    nothing_runs(&place, 1, &["model.safetensors", "broken safetensors header"]);
}

#[test]
fn a_tensor_of_another_type_or_shape_is_refused() {
    let Some(place) = place() else { return };
    edit(&place, MODEL, |header, _| header[QUERY]["dtype"] = json!("I32"));
    nothing_runs(&place, 1, &["model.safetensors", QUERY, "I32", "F32, F16 or BF16", "convert"]);
    edit(&place, MODEL, |header, _| {
        header[QUERY]["dtype"] = json!("F32");
        header[QUERY]["shape"] = json!([32, 96]);
    });
    nothing_runs(
        &place,
        1,
        &["model.safetensors", QUERY, "[32, 96]", "[96, 32]", "check that the files belong together"],
    );
}

#[test]
fn missing_and_unexpected_tensors_are_refused() {
    let Some(place) = place() else { return };
    let whole = place.read(MODEL);
    edit(&place, MODEL, |header, data| {
        header["model.extra.weight"] =
            json!({"dtype": "F32", "shape": [1], "data_offsets": [data.len(), data.len() + 4]});
        data.extend([0; 4]);
    });
    nothing_runs(&place, 1, &["model.safetensors", "1 tensor(s)", "model.extra.weight", "config.json"]);
    place.write(MODEL, whole);
    place.set("tiny_tied/config.json", "num_hidden_layers", json!(3));
    nothing_runs(
        &place,
        1,
        &["model.safetensors", "has no tensor model.layers.2.", "check that the files belong together"],
    );
}

#[test]
fn a_missing_shard_is_named() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    std::fs::remove_file(place.path("tiny/model-00002-of-00002.safetensors")).unwrap();
    let line = SCORE.replace("tiny_tied", "tiny");
    place.refuses(&line, 1, &["cannot read", "model-00002-of-00002.safetensors"]);
}

#[test]
fn an_unknown_architecture_is_refused() {
    let Some(place) = place() else { return };
    place.set("tiny_tied/config.json", "architectures", json!(["MambaForCausalLM"]));
    nothing_runs(&place, 1, &["config.json", "MambaForCausalLM", "supported are LlamaForCausalLM"]);
}

#[test]
fn impossible_sizes_are_refused_before_memory_is_allocated() {
    let Some(place) = place() else { return };
    let config = place.read("tiny_tied/config.json");
    for (key, value, parts) in [
        ("hidden_size", json!(0), ["hidden_size is 0", "expected 1 to"]),
        ("num_hidden_layers", json!(0), ["num_hidden_layers is 0", "expected 1 to"]),
        ("vocab_size", json!(-1), ["config.json", "vocab_size is -1"]),
        ("num_attention_heads", json!("4"), ["config.json", "num_attention_heads is \"4\""]),
        ("max_position_embeddings", json!(0), ["max_position_embeddings is 0", "expected 1 to"]),
        ("hidden_size", json!(1 << 23), ["has shape [96, 32]", "8388608"]),
        ("num_key_value_heads", json!(3), ["num_attention_heads 4", "num_key_value_heads 3"]),
        ("rms_norm_eps", json!(-1.0), ["rms_norm_eps is -1", "≥ 0"]),
    ] {
        place.set("tiny_tied/config.json", key, value);
        nothing_runs(&place, 1, &parts);
        place.write("tiny_tied/config.json", &config);
    }
    place.write("tiny_tied/config.json", "{");
    nothing_runs(&place, 1, &["config.json", "is not valid JSON"]);
}

#[test]
fn a_text_with_a_token_beyond_the_vocabulary_is_refused() {
    let Some(place) = place() else { return };
    let tokenizer = String::from_utf8(place.read("tiny_tied/tokenizer.json")).unwrap();
    place.write("tiny_tied/tokenizer.json", tokenizer.replace("\"home\":95", "\"home\":960"));
    place.oaif(SCORE).done();
    place.refuses(DPO, 1, &["pairs.jsonl:4: ", "the token \"home\" with id 960", "ids end at 95"]);
    place.write("tiny_tied/tokenizer.json", "{}");
    nothing_runs(&place, 1, &["tokenizer.json", "is not a tokenizer"]);
}

#[test]
fn nan_weights_are_detected() {
    let Some(place) = place() else { return };
    let whole = place.read(MODEL);
    edit(&place, MODEL, |_, data| data.fill(0xff));
    refused_by_all(
        &place,
        1,
        &["model.safetensors", "tensor model.embed_tokens.weight holds NaN", "damaged"],
    );
    // The weights are numbers, but so large that the results overflow.
    place.write(MODEL, whole);
    edit(&place, MODEL, |header, data| {
        let range = &header["model.layers.0.input_layernorm.weight"]["data_offsets"];
        let [first, end] = [0, 1].map(|i| range[i].as_u64().unwrap() as usize);
        data[first..end].fill(0x7f);
    });
    place.refuses(SCORE, 1, &["tiny_tied", "line 1 of rows.jsonl", "damaged"]);
    let generate = "generate --model tiny_tied --prompt fox --output out.jsonl";
    place.refuses(generate, 1, &["not finite", "damaged", "learning rate"]);
    place.refuses("judge --judge likelihood --judge-model none --input pairs.jsonl", 2, &["--judge-model"]);
    let outcome = place.oaif(DPO);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.lines().last().unwrap().contains("not finite: lower --learning-rate"));
    assert!(!place.path("run/model").exists(), "an untrained model must not be saved");
}

#[test]
fn a_bad_line_of_a_dataset_is_named() {
    let Some(place) = place() else { return };
    let good =
        "{\"prompt\": \"a\", \"completion\": \" fox\", \"chosen\": \" fox\", \"rejected\": \" hen\"}\n";
    for (bad, parts) in [
        ("{\"prompt\": \"a\"", &["not valid JSON"][..]),
        ("prompt,completion", &["not valid JSON"]),
        ("[1]", &["is a list", "expected an object"]),
        ("{\"other\": 1}", &["no column", "(the row has \"other\")", "rename a column of the file to"]),
        (&good.replace("\"a\"", "7"), &["column \"prompt\" is a number", "expected a string"]),
    ] {
        for name in ["rows.jsonl", "pairs.jsonl"] {
            place.write(name, format!("{good}\n{good}{bad}\n"));
        }
        place.refuses(SCORE, 1, &[&["rows.jsonl:4: "], parts].concat());
        place.refuses(DPO, 1, &[&["pairs.jsonl:4: "], parts].concat());
        let sft = DPO.replace("dpo", "sft").replace("pairs", "rows");
        place.refuses(&sft, 1, &[&["rows.jsonl:4: "], parts].concat());
    }
}

#[test]
fn an_empty_or_binary_dataset_is_refused() {
    let Some(place) = place() else { return };
    let contents: [(&[u8], &[&str]); 6] = [
        (b"", &["the file has no rows", "JSON lines"]),
        (b"\n \n\n", &["the file has no rows"]),
        (b"[]", &["the file has no rows"]),
        (b"{\"prompt\": \"\xff\", \"completion\": \"a\"}", &["rows.jsonl:1: not valid JSON"]),
        (b"\x00\x01\x02\x03", &["rows.jsonl:1: not valid JSON"]),
        (b"PAR1....", &["Parquet", "it is truncated or damaged"]),
    ];
    for (content, parts) in contents {
        place.write("rows.jsonl", content);
        place.refuses(SCORE, 1, parts);
        place.refuses(&DPO.replace("pairs", "rows"), 1, parts);
    }
    place.refuses(
        &SCORE.replace("rows.jsonl", "tiny_tied"),
        2,
        &["--input: tiny_tied is a folder: give a file"],
    );
    place.refuses(&DPO.replace("pairs.jsonl", "none.jsonl"), 2, &["--dataset: none.jsonl does not exist"]);
}

#[test]
fn a_response_without_tokens_is_refused() {
    let Some(place) = place() else { return };
    // White space has no tokens in this tokenizer.
    let line = json!({"prompt": "a", "completion": " ", "chosen": " ", "rejected": " fox"});
    place.write("rows.jsonl", format!("{}{line}\n", completions()));
    place.write("pairs.jsonl", format!("{PAIRS}{line}\n"));
    place.refuses(SCORE, 1, &["rows.jsonl:5: ", "without tokens"]);
    // The end-of-sequence token counts as one.
    place.oaif(DPO).done();
    let sft = DPO.replace("dpo", "sft").replace("pairs", "rows");
    for line in [DPO, &sft] {
        let err = place.oaif(&format!("{line} --no-append-eos --overwrite")).done().err;
        assert!(err.contains("1 of 5 rows are skipped: 1 without tokens to learn (line 5)"), "{err}");
    }
}

#[test]
fn an_empty_response_is_skipped_in_training_and_refused_in_score() {
    let Some(place) = place() else { return };
    let line = json!({"prompt": "a", "completion": "", "chosen": "", "rejected": " fox"});
    place.write("rows.jsonl", format!("{line}\n{}{line}\n", completions()));
    place.write("pairs.jsonl", format!("{line}\n{PAIRS}{line}\n"));
    place.refuses(SCORE, 1, &["rows.jsonl:1: ", "without tokens"]);
    for line in [DPO, &DPO.replace("dpo", "sft").replace("pairs", "rows")] {
        let err = place.oaif(&format!("{line} --overwrite")).done().err;
        assert!(
            err.contains("2 of 6 rows are skipped: 2 with an empty response (the first in line 1)"),
            "{err}"
        );
    }
    let rows = place.json("run/run.json")["rows"].take();
    assert_eq!(
        (&rows["read"], &rows["rows"], &rows["skipped_empty_answer"]),
        (&json!(6), &json!(4), &json!(2))
    );
    assert_eq!(rows["first_skipped"]["skipped_empty_answer"]["line"], 1);
}

#[test]
fn a_run_prints_and_stores_the_lengths_of_its_rows() {
    let Some(place) = place() else { return };
    let err = place.oaif(DPO).done().err;
    let table: Vec<Vec<&str>> = err
        .lines()
        .skip_while(|line| !line.starts_with("tokens"))
        .take(4)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(table[0], ["tokens", "min", "median", "95", "%", "max"], "{err}");
    let rows = place.json("run/run.json")["rows"].take();
    for (line, part) in table[1..].iter().zip(["prompt", "chosen", "rejected"]) {
        let lengths = &rows[format!("{part}_tokens")];
        let expected = ["min", "median", "p95", "max"].map(|key| lengths[key].to_string());
        assert_eq!(line[..], [&[part], &expected.each_ref().map(String::as_str)[..]].concat(), "{err}");
    }
    let dry = place.oaif(&DPO.replace("--output-dir run", "--output-dir other --dry-run")).done();
    assert!(dry.err.contains("tokens"), "{}", dry.err);
}

#[test]
fn a_panic_in_the_tokenizer_library_is_an_error_of_one_sentence() {
    let Some(place) = place() else { return };
    let mut file = place.json("tiny_tied/tokenizer.json");
    // The library miscounts the characters between these.
    let empty = json!({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "bb"});
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [empty, {"type": "NFKD"}]});
    place.write("tiny_tied/tokenizer.json", file.to_string());
    place.write("rows.jsonl", completions());
    let parts = ["rows.jsonl:1: text: ", "tokenizer.json (index out of bounds"];
    place.refuses(SCORE, 1, &parts);
}

#[test]
fn pairs_of_identical_responses_are_skipped_and_an_error_if_no_row_is_left() {
    let Some(place) = place() else { return };
    let alike = json!({"prompt": "a", "chosen": " fox", "rejected": " fox"});
    place.write("pairs.jsonl", format!("{PAIRS}{alike}\n"));
    assert!(place.oaif(DPO).done().err.contains("1 of 5 rows are skipped: 1 with two equal responses"));
    place.write("pairs.jsonl", format!("{alike}\n"));
    let line = DPO.replace("--output-dir run", "--output-dir other");
    place.refuses(
        &line,
        2,
        &["no row is left (1 of 1 rows are skipped: 1 with two equal responses (line 1))"],
    );
}

#[test]
fn a_text_longer_than_the_context_is_an_error_in_score_and_generate() {
    let Some(place) = place() else { return };
    let long = "fox ".repeat(200);
    let row = json!({"prompt": long, "completion": " hen", "chosen": " hen", "rejected": " owl"});
    place.write("rows.jsonl", format!("{}{row}\n", completions()));
    place.refuses(SCORE, 1, &["rows.jsonl:5: has 202 tokens, the model takes 128", "shorten it"]);
    let line = "generate --model tiny_tied --output out.jsonl";
    let parts = ["the prompt in rows.jsonl:5 has 201 tokens, the model takes 127", "shorten it"];
    place.refuses(&format!("{line} --prompts rows.jsonl"), 1, &parts);
    let outcome = place.oaif_with(line, &["--prompt", &long]);
    outcome.refused(1, &["the prompt has 201 tokens, the model takes 127", "shorten it"]);
    // In training such a row is skipped; it is an error only if no row is left.
    place.write("pairs.jsonl", format!("{row}\n"));
    let parts =
        ["dataset: no row is left (1 of 1 rows are skipped: 1 with a prompt above 128 tokens (line 1))"];
    place.refuses(DPO, 2, &parts);
    place.refuses(&format!("{DPO} --dry-run"), 2, &parts);
    place.refuses(
        &ALIGN.replace("--max-new-tokens 4", "--max-new-tokens 128"),
        2,
        &["max-new-tokens", "128"],
    );
}

#[test]
fn an_unknown_flag_or_value_is_a_usage_error() {
    let Some(place) = place() else { return };
    for (more, parts) in [
        ("--lerning-rate 1", &["--lerning-rate", "--learning-rate", "--help"][..]),
        ("--learning-rate fast", &["fast", "--learning-rate"]),
        ("--learning-rate nan", &["--learning-rate", "NaN", "positive"]),
        ("--optim sgd", &["sgd", "adamw, adafactor"]),
        ("--loss dop", &["dop", "dpo"]),
        ("--lr-scheduler-type linaer", &["linaer", "linear"]),
        ("--per-device-train-batch-size 0", &["--per-device-train-batch-size", "1 or more"]),
        ("--per-device-train-batch-size 100000000000000", &["at most 1000000"]),
        ("--lora-r 2 --lora-target-modules query", &["query", "q_proj"]),
        ("--judge rule", &["--judge", "--help"]),
        ("--adapter none", &["--adapter: none is not a folder", "folder of a LoRA adapter"]),
    ] {
        place.refuses(&format!("{DPO} {more}"), 2, parts);
    }
    place.refuses("aling --model tiny_tied", 2, &["aling", "align"]);
    place.refuses("score --model tiny_tied", 2, &["--input <FILE>"]);
    place.refuses("generate --model tiny_tied", 2, &["--prompt TEXT", "--prompts FILE"]);
    let align = ALIGN.replace("--judge rule --judge-rule longer", "");
    place.refuses(&align, 2, &["--judge", "--judge llm"]);
    place.refuses(&format!("{align} --judge rule --judge-rule longr"), 2, &["longr", "longer"]);
    place.refuses(&format!("{ALIGN} --temperature 0"), 2, &["--temperature", "raise it"]);
    place.refuses(&format!("{ALIGN} --num-samples 1"), 2, &["--num-samples", "2 or more"]);
}

#[test]
fn an_unknown_key_of_a_configuration_names_the_nearest() {
    let Some(place) = place() else { return };
    for (file, content, parts) in [
        ("c.yaml", "lerning-rate: 1\n", &["lerning-rate", "did you mean \"learning-rate\"?"][..]),
        ("c.toml", "max_stpes = 3\n", &["max_stpes", "did you mean \"max-steps\"?"]),
        ("c.json", "{\"bta\": 1}", &["bta", "did you mean \"beta\"?"]),
        ("c.yaml", "beta: [1, 2]\n", &["beta", "takes one value"]),
        ("c.yaml", "beta: [\n", &["c.yaml", "line 1"]),
        ("c.toml", "beta = \n", &["c.toml", "line 1"]),
        ("c.json", "[1]", &["c.json", "holds no keys"]),
        ("c.txt", "beta: 1", &["c.txt", ".toml or .json"]),
        ("c.yaml", "beta: -1\n", &["beta", "-1"]),
    ] {
        place.write(file, content);
        place.refuses(&format!("{DPO} --config {file}"), 2, parts);
    }
    place.refuses(&format!("{DPO} --config none.yaml"), 1, &["cannot read none.yaml"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let Some(place) = place() else { return };
    place.write("file", "mine");
    for dir in ["file", "file/run"] {
        for line in [DPO, ALIGN] {
            let line = line.replace("--output-dir run", &format!("--output-dir {dir}"));
            place.refuses(&line, 1, &["file: is a file, but --output-dir needs a folder"]);
        }
    }
    for output in ["tiny_tied", "none/out.jsonl"] {
        let line = SCORE.replace("out.jsonl", output);
        place.refuses(&line, 2, &["--output", output, "give another file"]);
    }
    // Root may write anywhere but here.
    if cfg!(target_os = "linux") {
        let line = DPO.replace("--output-dir run", "--output-dir /proc/run");
        place.refuses(&line, 1, &["/proc/run", "cannot be written to", "give another folder"]);
        place.refuses(&SCORE.replace("out.jsonl", "/proc/out.jsonl"), 1, &["cannot create /proc/out.jsonl"]);
    }
    assert_eq!(place.read("file"), b"mine");
}

#[test]
fn no_gpu_and_an_unknown_gpu_are_refused() {
    let Some(place) = place() else { return };
    place.refuses(
        &format!("{SCORE} --gpu nonesuch"),
        1,
        &["no GPU has the index or name \"nonesuch\"", "choose"],
    );
    place.refuses(&format!("{DPO} --gpu 99"), 1, &["no GPU has the index or name \"99\"", "choose"]);
    if !cfg!(target_os = "linux") {
        return;
    }
    for line in [SCORE, DPO, ALIGN, "doctor", "bench", "generate --model tiny_tied --prompt fox"] {
        let mut command = place.command(line);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        let advice = if line == "doctor" { "apt-get" } else { "`oaif doctor` lists the GPUs" };
        let outcome = Outcome::of(command);
        assert!(line != "doctor" || !outcome.err.contains("oaif doctor"), "doctor must not recommend itself");
        outcome.refused(1, &["no GPU was found", "apt-get install", advice]);
        assert!(!place.path("run").exists() && !place.path("out.jsonl").exists());
    }
    // A dry run needs no GPU.
    let mut command = place.command(&format!("{DPO} --dry-run"));
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
    let report = Outcome::of(command).done();
    assert!(report.err.contains("warning: no GPU was found"), "{}", report.err);
    assert!(serde_json::from_str::<Value>(&report.out).unwrap()["memory"]["total"].is_number());
}

#[test]
fn a_dry_run_without_rows_needs_lengths_within_the_context() {
    let Some(place) = place() else { return };
    let dpo = "dpo --model tiny_tied --dry-run";
    let align = format!("align --model tiny_tied --dry-run {}", ALIGN.split_once("run ").unwrap().1);
    for (line, parts) in [
        (dpo.to_owned(), &["--max-length", "without a dataset", "must be set"][..]),
        (format!("{dpo} --max-length 60"), &["--max-prompt-length", "must be set"]),
        (dpo.replace("dpo", "sft"), &["--max-length", "must be set"]),
        (align.clone(), &["--max-prompt-length", "must be set"]),
        (
            format!("{dpo} --max-length 129 --max-prompt-length 8"),
            &["--max-length: 129 is above the model's context of 128"],
        ),
        (format!("{dpo} --max-length 8 --max-prompt-length 8"), &["--max-prompt-length: 8 leaves no room"]),
        (format!("{align} --max-prompt-length 125"), &["--max-prompt-length: 125 is above 124"]),
        (format!("{dpo} --max-buffer-size 2GB"), &["--max-buffer-size", "2GB is not a size such as 128MiB"]),
        (format!("{dpo} --max-buffer-size 0"), &["--max-buffer-size"]),
        (format!("{dpo} --max-buffer-size 99999999999GiB"), &["--max-buffer-size"]),
        (format!("{DPO} --max-buffer-size 2GiB"), &["--dry-run", "not provided"]),
        ("dpo --model tiny_tied --output-dir run".into(), &["not provided", "--dataset"]),
        ("dpo --model tiny_tied --dataset pairs.jsonl".into(), &["not provided", "--output-dir"]),
        (format!("{DPO} --dtype float8"), &["'float8'", "--base-dtype", "auto, f32, bf16, f16, q8, q4"]),
        (SCORE.replace("score", "score --dtype half"), &["'half'", "--base-dtype"]),
    ] {
        place.refuses(&line, 2, parts);
    }
    place.oaif(&format!("sft {} --max-length 60", dpo.split_once(' ').unwrap().1)).done();
}

#[test]
fn a_batch_above_the_gpus_limit_is_refused_with_a_flag_of_the_command_as_remedy() {
    let Some(place) = place() else { return };
    let parts = ["iB in one buffer, the GPU allows ", "lower --per-device-train-batch-size"];
    for line in [DPO, ALIGN, &DPO.replace("dpo", "sft").replace("pairs", "rows")] {
        let line = format!("{line} --per-device-train-batch-size 500000");
        place.refuses(&format!("{line} --dry-run"), 1, &parts);
        place.refuses(&line, 1, &parts);
    }
}

/// A software driver only respects the shell's `ulimit`.
#[cfg(target_os = "linux")]
#[test]
fn exhausted_memory_is_an_error_with_a_remedy() {
    let Some(place) = place() else { return };
    let line = format!("{DPO} --per-device-train-batch-size 20000");
    let limited = |kib: u64| {
        let mut shell = std::process::Command::new("sh");
        let program = place.command(&line);
        shell.arg("-c").arg(format!("ulimit -v {kib}; exec \"$0\" \"$@\"")).arg(program.get_program());
        shell.args(program.get_args()).current_dir(place.path("."));
        shell.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Outcome::of(shell)
    };
    // The driver's own memory use varies, and it may crash before it reports an error.
    for limit in 4..40 {
        let outcome = limited(limit * 100_000);
        assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
        if outcome.code == Some(0) {
            break;
        }
        if outcome.err.contains("out of memory") {
            outcome.refused(1, &["while allocating", "lower --per-device-train-batch-size"]);
            assert!(!place.path("run").exists());
            return;
        }
    }
    eprintln!("SKIPPED: this GPU's memory is not the process's");
}

#[test]
fn a_judge_that_does_not_work_ends_the_run_with_an_explanation() {
    let Some(place) = place() else { return };
    let align = ALIGN.replace("--judge rule --judge-rule longer", "--judge command --judge-command");
    let run_for = |timeout: &str, command: &str, parts: &[&str]| {
        place.oaif_with(&align, &[command, "--judge-timeout", timeout]).ended(1, parts);
        assert!(!place.path("run/model").exists() && !place.path("run/metrics.jsonl").exists());
    };
    let run = |command: &str, parts: &[&str]| run_for("60", command, parts);
    if cfg!(unix) {
        run("echo no paper >&2; exit 3", &["judge command", "no paper", "must end with exit code 0"]);
        run_for("0.5", "sleep 60", &["took longer than 0.5 s", "judge-timeout"]);
        run("cat", &["verdicts were unusable", "max-invalid-ratio", "\"verdict\" must be"]);
        run("true", &["answered 0 of 32 pairs", "one line with the same id"]);
        run("nonesuch-program", &["nonesuch-program", "must end with exit code 0"]);
    }
    // A run without any step does not block the next one.
    place.oaif(ALIGN).done();
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused_and_kept() {
    let Some(place) = place() else { return };
    place.oaif(&DPO.replace("--max-steps 1", "--max-steps 2")).done();
    let line = DPO.replace("--max-steps 1", "--max-steps 4");
    let resume = format!("{line} --allow-changes max-steps --resume-from-checkpoint");
    let kept = "run/checkpoints/step-000002";
    place.refuses(&format!("{resume} last --seed 3"), 2, &["seed 42", "seed 3", "--allow-changes"]);
    for (more, flag) in [("last --lora-r 2", "lora-r"), ("last --optim adafactor", "optim")] {
        place.refuses(
            &format!("{resume} {more}"),
            2,
            &[flag, "cannot change within a run", "start a new run"],
        );
    }
    place.refuses(&format!("{resume} tiny_tied"), 1, &["tiny_tied: is not a checkpoint", "or to last"]);
    place.refuses(&format!("{resume} rows.jsonl"), 1, &["rows.jsonl: is not a checkpoint", "or to last"]);
    let elsewhere = resume.replace("--output-dir run", "--output-dir other");
    place.refuses(&format!("{elsewhere} last"), 1, &["other", "no checkpoint to resume from"]);
    place.refuses(&format!("{resume} last --overwrite"), 2, &["--overwrite", "--resume-from-checkpoint"]);

    let weights = place.read(&format!("{kept}/model.safetensors"));
    place.write(&format!("{kept}/model.safetensors"), &weights[..3000]);
    place.refuses(&format!("{resume} last"), 1, &["model.safetensors", "3000 bytes", "damaged"]);
    place.write(&format!("{kept}/model.safetensors"), weights);
    place.oaif(&format!("{resume} last")).done();
    assert_eq!(place.rows("run/metrics.jsonl").len(), 4);
}
