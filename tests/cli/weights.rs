//! Files of models and adapters in the commands: warnings, files that are copied along, hostile sizes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PAIRS, Place, completions};

#[test]
fn every_command_prints_the_warnings_about_a_models_files() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    place.write("pairs.jsonl", PAIRS);
    place.set("tiny/config.json", "sliding_window", json!(4));
    let rest = "--max-steps 1 --per-device-train-batch-size 2";
    for line in [
        "score --model tiny --input rows.jsonl".to_owned(),
        "generate --model tiny --prompt once --max-new-tokens 2".to_owned(),
        "export --model tiny --output out".to_owned(),
        format!("sft --model tiny --dataset rows.jsonl --output-dir sft {rest}"),
        format!("dpo --model tiny --dataset pairs.jsonl --output-dir dpo {rest}"),
        format!(
            "align --model tiny --dataset pairs.jsonl --output-dir align {rest} --max-new-tokens 2 --judge rule \
             --judge-rule longer"
        ),
    ] {
        let done = place.oaif(&line).done();
        let warning = "oaif: warning: config.json has sliding_window, which LlamaForCausalLM does not use";
        assert_eq!(done.err.matches(warning).count(), 1, "{line}: {}", done.err);
    }
    // A judge's model has files as well; here it is not the policy's.
    let pairs: String = PAIRS.replace("chosen", "response_1").replace("rejected", "response_2");
    place.write("responses.jsonl", pairs);
    let judged = place.oaif("judge --input responses.jsonl --judge likelihood --judge-model tiny").done();
    assert!(judged.err.contains("warning: config.json has sliding_window"), "{}", judged.err);
}

#[test]
fn the_files_next_to_the_weights_are_copied_to_saved_models() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    place.write("rows.jsonl", completions());
    place.write("tiny/tokenizer.model", "pieces");
    place.write("tiny/LICENSE", "free");
    std::fs::create_dir(place.path("tiny/additional_chat_templates")).unwrap();
    place.write("tiny/additional_chat_templates/tool_use.jinja", "{{ messages }}");
    place.oaif("export --model tiny --output out").done();
    let sft = "sft --model tiny --dataset rows.jsonl --max-steps 1";
    place.oaif(&format!("{sft} --output-dir full")).done();
    place.oaif(&format!("{sft} --output-dir lora --lora-r 2")).done();
    for dir in
        ["out", "full/model", "full/checkpoints/step-000001", "lora/adapter", "lora/checkpoints/step-000001"]
    {
        let names = place.names(dir);
        for name in
            ["tokenizer.model", "tokenizer.json", "tokenizer_config.json", "additional_chat_templates"]
        {
            assert!(names.contains(&name.to_owned()), "{dir} has {names:?}");
        }
        assert_eq!(place.read(&format!("{dir}/tokenizer.model")), b"pieces");
        assert_eq!(place.names(&format!("{dir}/additional_chat_templates")), ["tool_use.jinja"]);
        let with_model = !dir.starts_with("lora");
        for name in ["LICENSE", "config.json", "generation_config.json"] {
            assert_eq!(names.contains(&name.to_owned()), with_model, "{dir} has {names:?}");
        }
        assert!(
            !names.iter().any(|name| name.ends_with(".index.json") || name.contains("-of-")),
            "{names:?}"
        );
    }
}

#[test]
fn export_writes_into_a_new_folder_or_not_at_all() {
    let Some(place) = Place::with(&["tiny"]) else { return };
    std::fs::create_dir(place.path("half")).unwrap();
    place.write("half/model.safetensors", "x");
    std::fs::create_dir(place.path("empty")).unwrap();
    place.write("file", "mine");
    let export = "export --model tiny --output";
    place.refuses(&format!("{export} half"), 2, &["--output", "half is not empty"]);
    place.refuses(&format!("{export} tiny"), 2, &["--output", "tiny is not empty"]);
    place.refuses(&format!("{export} file"), 2, &["--output", "file is a file"]);
    place.write("there.gguf", "mine");
    place.refuses(&format!("{export} there.gguf"), 2, &["--output", "there.gguf exists already"]);
    place.refuses(&format!("{export} folder --dtype q8_0"), 2, &["--dtype", "q8_0", "ends in .gguf"]);
    // llama.cpp has no word-level tokenizer.
    place.refuses(&format!("{export} model.GGUF"), 1, &["tokenizer.json", "does not support this tokenizer"]);
    assert!(!place.path("model.GGUF").exists());
    place.oaif(&format!("{export} empty")).done();
}

/// A model folder, the same model as a GGUF file, and as the only GGUF file of a folder give the same responses;
/// adapters on it work as well.
#[test]
fn a_gguf_file_can_be_used_wherever_a_model_can() {
    let Some(place) = Place::with(&["tiny_tied"]) else { return };
    let tokenizer = super::common::fixture("tokenizers/byte-level");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tokenizer.join(file), place.path("tiny_tied").join(file)).unwrap();
    }
    place.set("tiny_tied/config.json", "eos_token_id", json!(0));
    place.write("tiny_tied/chat_template.jinja", "{{ messages[0]['content'] }}");
    place.write("rows.jsonl", "{\"prompt\": \"ab\", \"completion\": \"cd\"}\n".repeat(4));
    place.oaif("export --model tiny_tied --output model.gguf --dtype float16").done();
    let generated = |model: &str| {
        let line = format!("generate --model {model} --prompt a --temperature 0 --max-new-tokens 8 --json");
        place.oaif(&line).done()
    };
    place.oaif("export --model tiny_tied --output half --dtype float16").done();
    let want = generated("half").out;
    assert_eq!(generated("model.gguf").out, want);
    std::fs::create_dir(place.path("folder")).unwrap();
    std::fs::copy(place.path("model.gguf"), place.path("folder/only.gguf")).unwrap();
    let only = generated("folder");
    assert!(only.out == want && only.err.contains("only.gguf, the only ones in its folder"), "{}", only.err);
    // The result has its tokenizer and template next to it.
    let sft = "sft --model model.gguf --dataset rows.jsonl --max-steps 1 --max-length 8";
    place.oaif(&format!("{sft} --output-dir lora --lora-r 2")).done();
    place.oaif(&format!("{sft} --output-dir full")).done();
    let names = place.names("full/model");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    place.oaif("export --model model.gguf --adapter lora/adapter --output merged.gguf --dtype q8_0").done();
    generated("merged.gguf");
    generated("full/model");
    std::fs::copy(place.path("model.gguf"), place.path("folder/other.gguf")).unwrap();
    let line = "generate --model folder --prompt a";
    place.refuses(line, 2, &["has 2 GGUF files", "only.gguf, other.gguf"]);
    place.write("broken.gguf", "GGUF\x03\0\0\0");
    place.refuses("generate --model broken.gguf --prompt a", 1, &["broken.gguf: is truncated"]);
}

#[test]
fn hostile_sizes_are_refused_in_one_sentence_at_once() {
    let Some(place) = Place::with(&["tiny_tied", "tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    let config = place.read("tiny_tied/config.json");
    let weights = place.read("tiny_tied/model.safetensors");
    let dry = "dpo --model tiny_tied --output-dir run --max-length 16 --max-prompt-length 4 --dry-run";
    let timed = |line: &str, code: i32, part: &str| {
        let started = Instant::now();
        place.refuses(line, code, &[part]);
        // A generous limit: a debug build on a busy machine. Before the checks, hostile sizes took minutes or all
        // memory.
        assert!(started.elapsed() < Duration::from_secs(60), "{line} took {:?}", started.elapsed());
    };
    let sizes: [(&str, Value); 9] = [
        ("num_hidden_layers", json!(2_000_000_000u32)),
        ("num_hidden_layers", json!(1000)),
        ("hidden_size", json!(2_147_483_640u32)),
        ("intermediate_size", json!(u64::MAX)),
        ("vocab_size", json!(2_000_000_000u32)),
        ("vocab_size", json!(16_000_000)),
        ("head_dim", json!(1u64 << 62)),
        ("num_attention_heads", json!(1u64 << 40)),
        ("max_position_embeddings", json!(1u64 << 31)),
    ];
    for (key, size) in sizes {
        place.set("tiny_tied/config.json", key, size.clone());
        let part = match key {
            "head_dim" => "head_dim",
            "num_hidden_layers" if size == 1000 => "model.layers.2.input_layernorm.weight",
            "vocab_size" if size == 16_000_000 => "model.embed_tokens.weight",
            key => key,
        };
        timed("score --model tiny_tied --input rows.jsonl", 1, part);
        if part == key {
            // Without weights the configuration alone is enough for a dry run.
            std::fs::remove_file(place.path("tiny_tied/model.safetensors")).unwrap();
            timed(dry, 1, part);
            place.write("tiny_tied/model.safetensors", &weights);
        }
        place.write("tiny_tied/config.json", &config);
    }
    for rank in ["18446744073709551615", "9223372036854775807", "65537"] {
        timed(&format!("{dry} --lora-r {rank}"), 2, rank);
    }
    for rank in [json!(i64::MAX), json!(u64::MAX), json!(-1), json!(1e300)] {
        place.set("tiny_lora/adapter_config.json", "r", rank);
        timed("score --model tiny_tied --adapter tiny_lora/ --input rows.jsonl", 1, "r is");
        timed(&format!("{dry} --adapter tiny_lora/"), 1, "r is");
    }
}

#[test]
fn a_chat_template_of_an_adapter_that_differs_from_the_models_gives_a_warning() {
    let Some(place) = Place::with(&["tiny", "tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    let line = "score --model tiny --adapter tiny_lora --input rows.jsonl";
    assert!(!place.oaif(line).done().err.contains("chat_template"));
    place.write("tiny_lora/chat_template.jinja", "{{ messages }}");
    assert!(
        place.oaif(line).done().err.contains("tiny_lora has a different chat_template.jinja than the model")
    );
}

#[test]
fn an_adapter_in_the_folder_of_its_model_is_not_ignored() {
    let Some(place) = Place::with(&["tiny", "tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    for file in place.names("tiny_lora") {
        place.write(&format!("tiny/{file}"), place.read(&format!("tiny_lora/{file}")));
    }
    let parts = ["tiny: holds a LoRA adapter beside the model", "move adapter_config.json and"];
    place.refuses("score --model tiny --input rows.jsonl", 1, &parts);
}

#[test]
fn an_adapter_given_as_the_model_is_recognised() {
    let Some(place) = Place::with(&["tiny_lora"]) else { return };
    place.write("rows.jsonl", completions());
    let parts = ["tiny_lora is a LoRA adapter, not a model", "--adapter tiny_lora"];
    place.refuses("score --model tiny_lora --input rows.jsonl", 2, &parts);
    std::fs::rename(
        place.path("tiny_lora/adapter_model.safetensors"),
        place.path("tiny_lora/adapter_model.bin"),
    )
    .unwrap();
    place.copy_model(&super::common::fixture("tiny"), "tiny");
    place.refuses(
        "score --model tiny --adapter tiny_lora/ --input rows.jsonl",
        1,
        &["adapter_model.bin", "adapter_model.safetensors"],
    );
}
