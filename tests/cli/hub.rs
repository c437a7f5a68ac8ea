//! Hub names in place of a folder or file, starting with an empty cache.

#[path = "../hub/server.rs"]
mod server;

use std::process::Command;

use serde_json::json;

use super::{Outcome, PAIRS, Place, common};
use server::{COMMIT, Server, TOKEN};

/// A folder, and a hub that has a model, a LoRA adapter and a dataset.
fn place() -> Option<(Place, Server)> {
    let place = Place::with(&["tiny_tied"])?;
    let hub = Server::start();
    let mut files: Vec<(String, Vec<u8>)> = place
        .names("tiny_tied")
        .into_iter()
        .map(|name| (name.clone(), place.read(&format!("tiny_tied/{name}"))))
        .collect();
    files.push(("pytorch_model.bin".into(), b"pickle".into()));
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    hub.add("models/org/tiny", &files);
    hub.add("datasets/org/pairs", &[("data/train.jsonl", PAIRS.as_bytes()), ("README.md", b"")]);
    Some((place, hub))
}

impl Place {
    fn online(&self, hub: &Server, line: &str) -> Command {
        let mut command = self.command(line);
        command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", &hub.url);
        command
    }
}

const DPO: &str =
    "dpo --model org/tiny --dataset org/pairs --max-steps 2 --save-steps 1 --output-dir run --lora-r 2";

#[test]
fn a_run_from_an_empty_cache_records_the_commits_and_can_be_resumed_offline() {
    let Some((place, hub)) = place() else { return };
    let done = Outcome::of(place.online(&hub, DPO)).done();
    // One line per download if standard error is not a terminal.
    assert_eq!(done.err.matches("oaif: downloading ").count(), 2, "{}", done.err);
    assert!(done.err.contains("oaif: downloading org/tiny: "), "{}", done.err);
    let run = place.json("run/run.json");
    assert_eq!(run["model"], format!("org/tiny@{COMMIT}"));
    assert_eq!(run["dataset"], format!("org/pairs@{COMMIT}:data/train.jsonl"));
    // The adapter names its base model by its Hub name.
    let adapter = place.json("run/adapter/adapter_config.json");
    assert_eq!(
        (&adapter["base_model_name_or_path"], &adapter["revision"]),
        (&json!("org/tiny"), &json!(COMMIT))
    );
    // From here on without a hub and with an invalid branch reference.
    std::fs::write(place.path("hf/hub/models--org--tiny/refs/main"), "f".repeat(40)).unwrap();
    place.oaif("dpo --resume run --max-steps 3 --allow-changes max-steps").done();
    place
        .oaif(&format!(
            "generate --model org/tiny@{COMMIT} --adapter run/adapter --prompt fox --max-new-tokens 2"
        ))
        .done();
}

#[test]
fn all_parts_of_a_split_are_used_and_the_run_can_be_resumed_offline() {
    let Some((place, hub)) = place() else { return };
    let lines: Vec<&str> = PAIRS.lines().collect();
    let parts = [lines[..1].join("\n"), lines[1..].join("\n")];
    let card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n  - split: \
                test\n    path: data/test-*\n---\n";
    let names = [
        "data/train-00000-of-00002.jsonl",
        "data/train-00001-of-00002.jsonl",
        "data/test-00000-of-00001.jsonl",
    ];
    hub.add(
        "datasets/org/parts",
        &[
            (names[1], parts[1].as_bytes()),
            (names[0], parts[0].as_bytes()),
            (names[2], PAIRS.as_bytes()),
            ("README.md", card.as_bytes()),
        ],
    );
    let whole = DPO.replace("--output-dir run", "--output-dir whole");
    Outcome::of(place.online(&hub, &whole)).done();
    let line = DPO.replace("org/pairs", "org/parts");
    let done = Outcome::of(place.online(&hub, &line)).done();
    assert!(done.err.contains("downloading org/parts: 2 files"), "{}", done.err);
    let run = place.json("run/run.json");
    assert_eq!((&run["dataset"], &run["rows"]["read"]), (&json!(format!("org/parts@{COMMIT}")), &json!(4)));
    // The same rows in the same order, regardless of the files.
    let losses = |run: &str| {
        place.rows(&format!("{run}/metrics.jsonl")).iter().map(|row| row["loss"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(losses("run"), losses("whole"));
    std::fs::write(place.path("hf/hub/datasets--org--parts/refs/main"), "f".repeat(40)).unwrap();
    place.oaif("dpo --resume run --max-steps 3 --allow-changes max-steps").done();
    // A missing part is detected.
    std::fs::remove_file(place.path(&format!("hf/hub/datasets--org--parts/snapshots/{COMMIT}/{}", names[1])))
        .unwrap();
    place
        .oaif("dpo --resume run --max-steps 4 --allow-changes max-steps")
        .refused(2, &["without these rows"]);
    let dev = line.replace("org/parts", "org/parts:dev").replace("--output-dir run", "--output-dir dev");
    Outcome::of(place.online(&hub, &dev)).refused(2, &["no rows called \"dev\", only train, test"]);
}

#[cfg(feature = "parquet")]
#[test]
fn datasets_of_the_hub_can_be_used_by_name() {
    let Some((place, hub)) = place() else { return };
    let rows = |name: &str| std::fs::read(common::fixture("rows").join(name)).unwrap();
    let part = |split: &str| format!("data/{split}-00000-of-00001.parquet");
    let [prefs, train] = [part("train_prefs"), part("train")];
    let ultrafeedback = rows("ultrafeedback_binarized.parquet");
    let (prompts, tldr) = (rows("ultrafeedback-prompt.zstd.parquet"), rows("tldr.gzip.parquet"));
    let (helpful, csv) = (rows("hh-rlhf-helpful-base.parquet"), rows("pairs.csv.gz"));
    hub.add("datasets/org/ultrafeedback_binarized", &[(&prefs, &ultrafeedback)]);
    hub.add("datasets/org/ultrafeedback-prompt", &[(&train, &prompts)]);
    hub.add("datasets/org/tldr", &[(&train, &tldr)]);
    hub.add("datasets/org/hh-rlhf-helpful-base", &[(&train, &helpful)]);
    hub.add("datasets/org/csv", &[("pairs.csv.gz", &csv)]);
    let run = |line: &str| {
        let line = format!("{line} --model tiny --max-steps 1 --output-dir run --overwrite");
        place.copy_model(&common::fixture("tiny"), "tiny");
        Outcome::of(place.online(&hub, &line)).done().err
    };
    // This tokenizer knows none of the words, so responses with the same number of words are identical to it.
    let err = run("dpo --dataset org/ultrafeedback_binarized:train_prefs");
    let skipped =
        "2 of 4 rows are skipped: 1 with two equal responses (line 4), 1 with an empty response (line 3)";
    assert!(err.contains(skipped), "{err}");
    run("sft --dataset org/ultrafeedback_binarized:train_prefs");
    run("align --judge rule --judge-rule longer --max-new-tokens 4 --dataset org/ultrafeedback-prompt");
    run("sft --dataset org/tldr");
    run("dpo --dataset org/hh-rlhf-helpful-base");
    let err = run("dpo --dataset org/csv");
    assert!(err.contains("1 with an empty response (line 2)"), "{err}");
}

#[test]
fn policy_judge_adapter_and_prompts_can_be_given_by_name() {
    let Some((place, hub)) = place() else { return };
    Outcome::of(place.online(&hub, DPO)).done();
    let lora =
        ["adapter_config.json", "adapter_model.safetensors"].map(|f| place.read(&format!("run/adapter/{f}")));
    hub.add("models/org/lora", &[("adapter_config.json", &lora[0]), ("adapter_model.safetensors", &lora[1])]);
    let align = "align --model org/tiny@v1 --adapter org/lora --dataset org/pairs:train --max-steps 1 --output-dir aligned \
                 --max-new-tokens 4 --judge likelihood --judge-model org/tiny";
    Outcome::of(place.online(&hub, align)).done();
    let run = place.json("aligned/run.json");
    let expected = [("model", "org/tiny"), ("adapter", "org/lora"), ("judge-model", "org/tiny")];
    for (key, name) in expected {
        assert_eq!(run[key], format!("{name}@{COMMIT}"));
    }
    // The results of an evaluation name the policies as they were given.
    place.write("second.toml", "judge = 'likelihood'\njudge-model = 'org/tiny'\n");
    let eval = "eval --model org/tiny@v1 --adapter org/lora --dataset org/pairs:train --max-new-tokens 4 --output eval \
                --judge rule --judge-rule longer --second-judge second.toml";
    Outcome::of(place.online(&hub, eval)).done();
    let result = place.json("eval/eval.json");
    assert_eq!((&result["a"], &result["b"]), (&json!("org/tiny@v1 with org/lora"), &json!("org/tiny@v1")));
    let configuration = &result["configuration"];
    assert_eq!(configuration["model"], format!("org/tiny@{COMMIT}"));
    assert_eq!(configuration["second-judge"]["judge-model"], "org/tiny");
}

#[test]
fn a_local_folder_of_that_name_takes_precedence() {
    let Some((place, hub)) = place() else { return };
    std::fs::create_dir(place.path("org")).unwrap();
    std::fs::rename(place.path("tiny_tied"), place.path("org/tiny")).unwrap();
    for name in ["org/tiny", "./org/tiny"] {
        let line = format!("generate --model {name} --prompt fox --max-new-tokens 2");
        Outcome::of(place.online(&hub, &line)).done();
    }
    // A file that is missing in a local folder is not fetched from the hub.
    let line = "generate --model org/other --prompt fox";
    Outcome::of(place.online(&hub, line))
        .refused(2, &["--model: org/other is not a folder", "or hf://org/other"]);
    assert_eq!(hub.seen().len(), 0);
    let line = "generate --model hf://org/tiny --prompt fox --max-new-tokens 2";
    Outcome::of(place.online(&hub, line)).done();
    assert!(!hub.seen().is_empty());
}

#[test]
fn a_dry_run_downloads_no_weights() {
    let Some((place, hub)) = place() else { return };
    let done = Outcome::of(place.online(&hub, &format!("{DPO} --dry-run"))).done();
    assert!(done.out.contains("\"memory\""));
    let align = "align --model org/tiny --dataset org/pairs --output-dir run --judge likelihood --judge-model org/tiny --dry-run";
    Outcome::of(place.online(&hub, align)).done();
    assert!(hub.seen().iter().all(|seen| !seen.path.contains("safetensors")));
}

#[test]
fn a_command_with_a_mistake_in_it_downloads_nothing() {
    let Some((place, hub)) = place() else { return };
    for mistake in ["--beta -1", "--learning-rate 0", "--adapter no/such/folder", "--loss odd"] {
        Outcome::of(place.online(&hub, &format!("{DPO} {mistake}"))).refused(2, &["--"]);
    }
    assert_eq!(hub.seen().len(), 0);
}

#[test]
fn a_failed_download_is_one_sentence_about_the_flag() {
    let Some((place, hub)) = place() else { return };
    let generate = |model: &str| place.online(&hub, &format!("generate --model {model} --prompt fox"));
    Outcome::of(generate("org/none"))
        .refused(2, &["--model: org/none is not a local folder, and does not exist", "404"]);
    Outcome::of(generate("org/tiny@none")).refused(2, &["has no revision none"]);
    place.refuses(
        "generate --model org/tiny --prompt fox",
        2,
        &["--model", "is not a local folder", "HF_HUB_OFFLINE"],
    );
    hub.state().gated = true;
    let mut gated = generate("org/tiny");
    gated.env("HF_TOKEN", TOKEN);
    Outcome::of(gated).refused(2, &["--model", "is gated", "licence", "HF_TOKEN"]);
    hub.state().token = Some(TOKEN.into());
    Outcome::of(generate("org/tiny")).refused(2, &["private or does not exist", "HF_TOKEN"]);
    let mut endpoint = generate("org/tiny");
    endpoint.env("HF_ENDPOINT", "hub");
    Outcome::of(endpoint).refused(2, &["HF_ENDPOINT"]);
    let mut token = generate("org/tiny");
    token.env("HF_TOKEN", "hf_a b");
    Outcome::of(token).refused(2, &["HF_TOKEN: is not a token"]);
    let rows = "sft --model tiny_tied --dataset org/none --output-dir run";
    Outcome::of(place.online(&hub, rows)).refused(2, &["--dataset: org/none is not a local file"]);
}

#[test]
fn the_token_is_in_no_output_and_corrupt_content_is_not_kept() {
    let Some((place, hub)) = place() else { return };
    hub.state().token = Some(TOKEN.into());
    hub.state().damages = true;
    let mut command = place.online(&hub, "generate --model org/tiny --prompt fox --max-new-tokens 2");
    command.env("HF_TOKEN", TOKEN);
    let outcome = Outcome::of(command);
    assert!(!outcome.err.contains(TOKEN) && !outcome.out.contains(TOKEN));
    outcome.ended(1, &["org/tiny: model.safetensors: ", "does not have the hash", "nothing was saved"]);
    let blobs = place.names("hf/hub/models--org--tiny/blobs");
    assert!(!blobs.iter().any(|name| name.len() >= 64), "{blobs:?}");
    hub.state().damages = false;
    let mut command = place.online(&hub, "generate --model org/tiny --prompt fox --max-new-tokens 2");
    command.env("HF_TOKEN", TOKEN);
    Outcome::of(command).done();
}

#[cfg(unix)]
#[test]
fn a_killed_download_is_resumed() {
    use std::time::{Duration, Instant};
    let Some((place, hub)) = place() else { return };
    let size = place.read("tiny_tied/model.safetensors").len();
    hub.state().silences.push_back(size / 2);
    let mut child =
        place.online(&hub, "generate --model org/tiny --prompt fox --max-new-tokens 2").spawn().unwrap();
    let half = || {
        let blobs =
            std::fs::read_dir(place.path("hf/hub/models--org--tiny/blobs")).into_iter().flatten().flatten();
        blobs
            .filter(|blob| blob.file_name().to_string_lossy().ends_with(".incomplete"))
            .any(|blob| blob.metadata().is_ok_and(|found| found.len() as usize == size / 2))
    };
    let begun = Instant::now();
    while !half() {
        assert!(begun.elapsed() < Duration::from_secs(60), "half of the file never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(half());
    hub.seen();
    let done =
        Outcome::of(place.online(&hub, "generate --model org/tiny --prompt fox --max-new-tokens 2")).done();
    assert!(done.err.contains("of it already downloaded"), "{}", done.err);
    let ranges: Vec<_> = hub.seen().into_iter().filter(|seen| seen.cdn).map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some(format!("bytes={}-", size / 2))]);
}

#[test]
fn models_in_the_cache_are_listed_with_their_architecture() {
    let Some((place, hub)) = place() else { return };
    let empty = place.oaif("models").done();
    assert!(
        empty.out.contains("Qwen3ForCausalLM") && empty.out.contains("No models are in the cache"),
        "{}",
        empty.out
    );
    let line = "generate --prompt fox --max-new-tokens 2 --model org/tiny";
    Outcome::of(place.online(&hub, line)).done();
    Outcome::of(place.online(&hub, &format!("{DPO} --dry-run"))).done();
    // Another model, which is not supported.
    let config = json!({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}).to_string();
    hub.add("models/org/experts", &[("config.json", config.as_bytes()), ("model.safetensors", b"none")]);
    let refused = Outcome::of(place.online(&hub, "generate --prompt fox --model org/experts"));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    // Weights in a single GGUF file, without a tokenizer.
    let gguf = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gguf/llama.gguf")).unwrap();
    hub.add("models/org/one-file", &[("one.gguf", &gguf)]);
    let refused = Outcome::of(place.online(&hub, "generate --prompt fox --model org/one-file"));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    let listed = place.oaif("models").done().out;
    assert!(!listed.contains("without weights"), "{listed}");
    let line =
        |name: &str| listed.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{listed}"));
    for name in ["org/tiny", "org/one-file"] {
        assert!(line(name).contains("LlamaForCausalLM"), "{listed}");
    }
    assert!(
        line("org/experts").contains("not supported: ") && line("org/experts").contains("experts"),
        "{listed}"
    );
    // An unreadable entry does not prevent the listing.
    std::fs::create_dir_all(place.path("hf/hub/models--org--odd/snapshots/nothing")).unwrap();
    std::fs::write(place.path("hf/hub/models--odd"), "odd").unwrap();
    let rows = place.oaif("models --json").done().out;
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().filter(|row| row.get("family").is_some()).count(), 12);
    let tiny = rows.iter().find(|row| row["model"] == "org/tiny").unwrap();
    assert_eq!((&tiny["commit"], &tiny["runs"]), (&json!(COMMIT), &json!(true)));
    assert!(tiny["bytes"].as_u64().unwrap() > 1000);
}
