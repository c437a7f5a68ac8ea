//! `align`, `sft`, `dpo`: the files that a run writes, and that it trains as its flags say.

use serde_json::{Value, json};

use super::{FIRST, MUTE, PAIRS, Place, RULE, assert_close, number, place};

/// A command line for each kind of training, short.
fn trainings() -> [(&'static str, String); 3] {
    let common = "--model tiny --output-dir run --max-steps 3 --per-device-train-batch-size 2 --save-steps 2";
    [
        ("align", format!("align {common} --dataset pairs.jsonl {RULE}")),
        ("dpo", format!("dpo {common} --dataset pairs.jsonl")),
        ("sft", format!("sft {common} --dataset rows.jsonl")),
    ]
}

#[test]
fn run_json_of_a_run_reproduces_the_run() {
    let Some(place) = place() else { return };
    let (kind, line) = trainings().into_iter().next().unwrap();
    place.oaif(&line).done();
    let first = place.rows("run/metrics.jsonl");
    place.oaif(&format!("{kind} --config run/run.json --overwrite-output-dir")).done();
    let loss = |rows: &[serde_json::Value]| rows.iter().map(|r| r["loss"].to_string()).collect::<Vec<_>>();
    assert_eq!(loss(&place.rows("run/metrics.jsonl")), loss(&first), "{kind}");
}

#[test]
fn a_run_writes_the_documented_files() {
    for (kind, line) in trainings() {
        let Some(place) = place() else { return };
        let out = place.oaif(&line).done().out;
        assert_eq!(out.trim(), std::path::Path::new("run").join("model").display().to_string());
        let mut expected = vec!["checkpoints", "metrics.jsonl", "model", "pairs.jsonl", "run.json"];
        expected.retain(|name| *name != "pairs.jsonl" || kind == "align");
        assert_eq!(place.names("run"), expected, "{kind}");
        assert_eq!(place.names("run/checkpoints"), ["step-000002", "step-000003"], "{kind}");

        let run = place.json("run/run.json");
        for (key, value) in [("model", json!("tiny")), ("max-steps", json!(3)), ("optim", json!("adamw"))] {
            assert_eq!(run[key], value, "{kind}: {key}");
        }
        assert!(run["oaif_version"].is_string() && run["gpu_device"]["name"].is_string(), "{run}");
        assert!(number(&run, "learning-rate") > 0.0, "defaults are resolved");

        let metrics = place.rows("run/metrics.jsonl");
        assert_eq!(metrics.iter().map(|row| row["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        let of_all = "loss grad_norm learning_rate objective/entropy time/step_ms time/tokens_per_second";
        let of_pairs = "rewards/chosen rewards/rejected rewards/accuracies rewards/margins logps/chosen \
                        logps/rejected objective/kl";
        let online = "val/contain_eos_token completions/mean_length judge/tie judge/invalid judge/identical \
                      judge/latency_ms";
        let names = match kind {
            "align" => [of_all, of_pairs, online].join(" "),
            "dpo" => [of_all, of_pairs].join(" "),
            _ => of_all.to_owned(),
        };
        for row in &metrics {
            names
                .split_whitespace()
                .for_each(|name| assert!(row[name].is_number(), "{kind}: {name} in {row}"));
        }

        let pairs = if kind == "align" { place.rows("run/pairs.jsonl") } else { Vec::new() };
        assert_eq!(pairs.len(), if kind == "align" { 3 * 2 } else { 0 }, "outcome pairs of {kind}");
        for pair in &pairs {
            for key in ["prompt", "response_1", "response_2"] {
                assert!(pair[key].is_string(), "{key} in {pair}");
            }
            if pair.get("skipped").is_none() {
                assert!(pair.get("p_12").is_some() && pair.get("p_21").is_some(), "{pair}");
                assert!(["1", "2", "tie", "invalid"].contains(&pair["verdict"].as_str().unwrap()), "{pair}");
            }
        }

        // The saved model is in the same format as the original.
        for saved in ["run/model", "run/checkpoints/step-000002"] {
            let line = format!("score --model {saved} --input rows.jsonl");
            assert_eq!(place.oaif(&line).rows().len(), 4, "{kind}");
        }
        let [first, last] = ["run/checkpoints/step-000002", "run/model"]
            .map(|saved| place.read(&format!("{saved}/model.safetensors")));
        assert!(first != last, "{kind}: the third step changed nothing");
    }
}

#[test]
fn an_adapter_is_saved_instead_of_the_model_and_can_be_trained_further() {
    for (kind, line) in trainings() {
        let Some(place) = place() else { return };
        let out = place.oaif(&format!("{line} --lora-r 2 --learning-rate 0.01")).done().out;
        assert_eq!(out.trim(), std::path::Path::new("run").join("adapter").display().to_string(), "{kind}");
        assert_eq!(
            place.names("run/adapter"),
            ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"],
            "{kind}"
        );
        let score = "score --model tiny --input rows.jsonl";
        let base = place.oaif(score).rows();
        let adapted = place.oaif(&format!("{score} --adapter run/adapter")).rows();
        assert_ne!(base[0]["logp"], adapted[0]["logp"], "{kind}");
        // Continues training from it.
        let line = line.replace("--output-dir run", "--output-dir more --adapter run/adapter");
        place.oaif(&line).done();
        assert!(place.names("more").contains(&"adapter".to_owned()), "{kind}");
    }
}

/// log p of each of these {"prompt","completion"} rows.
fn logps(place: &Place, model: &str, rows: &[Value]) -> Vec<f64> {
    place.write("scored.jsonl", rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let out = place.oaif(&format!("score --model {model} --input scored.jsonl")).rows();
    out.iter().map(|row| number(row, "logp")).collect()
}

/// The column of the pairs as {"prompt","completion"} rows, with `end` appended to the completion.
fn column(name: &str, end: &str) -> Vec<Value> {
    let row = |row: Value| {
        let text = row[name].as_str().unwrap();
        json!({"prompt": row["prompt"], "completion": format!("{text}{end}")})
    };
    super::rows(PAIRS).into_iter().map(row).collect()
}

const EOS: &str = " </s>";

#[test]
fn completions_end_with_eos_by_default() {
    let Some(place) = place() else { return };
    let line = "dpo --model tiny --dataset pairs.jsonl --max-steps 1 --per-device-train-batch-size 4 \
                --output-dir";
    place.oaif(&format!("{line} with")).done();
    place.oaif(&format!("{line} without --no-append-eos")).done();
    for (run, end) in [("with", EOS), ("without", "")] {
        let row = place.rows(&format!("{run}/metrics.jsonl")).remove(0);
        for name in ["chosen", "rejected"] {
            let expected = logps(&place, "tiny", &column(name, end)).iter().sum::<f64>() / 4.0;
            assert_close(number(&row, &format!("logps/{name}")), expected, 1e-3);
        }
    }
    // Supervised: the mean over tokens, EOS among them.
    place.oaif("sft --model tiny --dataset rows.jsonl --max-steps 1 --output-dir sft").done();
    let expected = -2.0 * logps(&place, "tiny", &column("chosen", EOS)).iter().sum::<f64>();
    let tokens = 2 * (4 + 3 + 4 + 6 + 4);
    assert_close(number(&place.rows("sft/metrics.jsonl")[0], "loss"), expected / tokens as f64, 1e-4);
}

#[test]
fn rows_are_used_in_file_order_and_repeat_after_the_last() {
    let Some(place) = place() else { return };
    // The learning rate is so small that weights hardly change: the log-probabilities of each step show which rows it
    // used.
    let line = "dpo --model tiny --dataset pairs.jsonl --max-steps 4 --per-device-train-batch-size 3 \
                --no-shuffle --learning-rate 1e-7 --output-dir run";
    place.oaif(line).done();
    let [chosen, rejected] = ["chosen", "rejected"].map(|name| logps(&place, "tiny", &column(name, EOS)));
    for (step, row) in place.rows("run/metrics.jsonl").iter().enumerate() {
        let mean = |all: &[f64]| (0..3).map(|i| all[(3 * step + i) % 4]).sum::<f64>() / 3.0;
        assert_close(number(row, "logps/chosen"), mean(&chosen), 1e-3);
        assert_close(number(row, "logps/rejected"), mean(&rejected), 1e-3);
    }
}

#[test]
fn shuffled_rows_are_each_used_once_per_epoch() {
    let Some(place) = place() else { return };
    let line = "dpo --model tiny --dataset pairs.jsonl --num-train-epochs 2 --per-device-train-batch-size 1 \
                --learning-rate 1e-7 --output-dir run";
    place.oaif(line).done();
    let mut expected = logps(&place, "tiny", &column("chosen", EOS));
    expected.sort_by(f64::total_cmp);
    let metrics = place.rows("run/metrics.jsonl");
    assert_eq!(metrics.len(), 8);
    for epoch in metrics.chunks(4) {
        let mut seen: Vec<f64> = epoch.iter().map(|row| number(row, "logps/chosen")).collect();
        seen.sort_by(f64::total_cmp);
        seen.iter().zip(&expected).for_each(|(seen, expected)| assert_close(*seen, *expected, 1e-3));
    }
    let order = |run: &str| -> Vec<f64> {
        place.rows(&format!("{run}/metrics.jsonl")).iter().map(|r| number(r, "logps/chosen")).collect()
    };
    let again = line.replace("--output-dir run", "--output-dir other --seed 1");
    place.oaif(&again).done();
    assert_ne!(order("run"), order("other"));
}

#[test]
fn the_loss_of_a_batch_is_the_mean_over_its_pairs() {
    let Some(place) = place() else { return };
    // Recomputes the second step's loss: scores with the weights after the first step against those before it.
    let line = "dpo --model tiny --dataset pairs.jsonl --max-steps 2 --save-steps 1 --learning-rate 0.01 \
                --lr-scheduler-type constant --beta 0.5 --per-device-train-batch-size 2 \
                --gradient-accumulation-steps 2 --output-dir run";
    place.oaif(line).done();
    let [chosen, rejected] = ["chosen", "rejected"].map(|name| {
        let rows = column(name, EOS);
        let (now, before) =
            (logps(&place, "run/checkpoints/step-000001", &rows), logps(&place, "tiny", &rows));
        now.iter().zip(before).map(|(now, before)| 0.5 * (now - before)).collect::<Vec<f64>>()
    });
    let margins: Vec<f64> = chosen.iter().zip(&rejected).map(|(c, r)| c - r).collect();
    let loss = margins.iter().map(|m| (1.0 + (-m).exp()).ln()).sum::<f64>() / 4.0;
    let row = &place.rows("run/metrics.jsonl")[1];
    assert!((loss - 2f64.ln()).abs() > 0.01, "the first step changed something");
    assert_close(number(row, "loss"), loss, 1e-4);
    assert_close(number(row, "rewards/margins"), margins.iter().sum::<f64>() / 4.0, 1e-3);

    // The result does not depend on the micro-batch size.
    let whole = line.replace("--per-device-train-batch-size 2", "--per-device-train-batch-size 4");
    let whole =
        whole.replace("--gradient-accumulation-steps 2", "").replace("--output-dir run", "--output-dir a");
    place.oaif(&whole).done();
    for (a, b) in place.rows("run/metrics.jsonl").iter().zip(place.rows("a/metrics.jsonl")) {
        assert_close(number(a, "loss"), number(&b, "loss"), 1e-5);
        assert_close(number(a, "grad_norm"), number(&b, "grad_norm"), 1e-3 * number(a, "grad_norm"));
    }
}

#[test]
fn the_command_line_overrides_the_configuration_file() {
    let Some(place) = place() else { return };
    place.write(
        "run.yaml",
        "model: tiny\ndataset: pairs.jsonl\nmax_steps: 1\nbeta: 0.3\nlearning-rate: 1e-3\n",
    );
    place.write("run.toml", "model = \"tiny\"\ndataset = \"pairs.jsonl\"\nmax-steps = 1\nbeta = 0.3\n");
    place.write("run.json", r#"{"model": "tiny", "dataset": "pairs.jsonl", "max-steps": 1, "beta": 0.3}"#);
    for file in ["run.yaml", "run.toml", "run.json"] {
        place.oaif(&format!("dpo --config {file} --output-dir {file}-run --seed 5")).done();
        let run = place.json(&format!("{file}-run/run.json"));
        assert_eq!((&run["beta"], &run["max-steps"], &run["seed"]), (&json!(0.3), &json!(1), &json!(5)));
        place.oaif(&format!("dpo --config {file} --output-dir {file}-beaten --beta 0.2")).done();
        assert_eq!(place.json(&format!("{file}-beaten/run.json"))["beta"], 0.2, "{file}");
    }
}

#[test]
fn a_dry_run_prints_the_settings_and_memory_of_a_run_and_writes_nothing() {
    let Some(place) = place() else { return };
    place.copy_model(&super::common::fixture("tiny_tied"), "judge");
    let judge = "--judge likelihood --judge-model judge --max-new-tokens 9 --num-samples 3";
    let [_, (_, dpo), (_, sft)] = trainings();
    let align = format!("align --model tiny --dataset pairs.jsonl --output-dir run --max-steps 1 {judge}");
    for line in [
        &align,
        &format!("{align} --lora-r 2"),
        &dpo,
        &format!("{dpo} --optim adafactor"),
        &format!("{sft} --gradient-checkpointing"),
    ] {
        let before = place.names(".");
        let report = place.oaif(&format!("{line} --dry-run")).done();
        assert_eq!(place.names("."), before, "{line}");
        let report: Value = serde_json::from_str(&report.out).unwrap();
        assert_eq!(report["configuration"]["model"], "tiny");
        assert_eq!((&report["data"]["rows"], &report["data"]["skipped_too_long"]), (&json!(4), &json!(0)));
        assert!(report["data"]["prompt_tokens"]["max"].is_number(), "{report}");
        assert!(number(&report["limits"], "binding") > 0.0, "{report}");

        place.oaif(line).done();
        let memory = place.json("run/run.json")["memory"].take();
        assert_eq!(memory["total"], report["memory"]["total"], "{line}");
        assert_eq!(memory["bytes"], report["memory"]["bytes"], "{line}");
        let total: f64 = memory["bytes"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        assert_eq!(number(&memory, "total"), total);
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

/// Rows of equal lengths; `bare` and `bare_judge` are the models of `place` with nothing but config.json.
fn place_of_equal_rows() -> Option<Place> {
    let place = place()?;
    place.copy_model(&super::common::fixture("tiny_tied"), "judge");
    for (model, bare) in [("tiny", "bare"), ("judge", "bare_judge")] {
        std::fs::create_dir(place.path(bare)).unwrap();
        place.write(&format!("{bare}/config.json"), place.read(&format!("{model}/config.json")));
    }
    let row = json!({"prompt": "the fox was", "chosen": " happy and old", "rejected": " sad and cold", "completion": " old ."});
    place.write("equal.jsonl", format!("{row}\n").repeat(4));
    Some(place)
}

#[test]
fn a_dry_run_of_config_json_alone_reports_the_memory_of_a_run_with_such_rows() {
    let Some(place) = place_of_equal_rows() else { return };
    let judge = "--judge likelihood --judge-model judge --max-new-tokens 9 --num-samples 3";
    for (kind, more) in [
        ("sft", ""),
        ("dpo", ""),
        ("dpo", "--lora-r 2"),
        ("dpo", "--lora-r 2 --dtype float32"),
        ("dpo", "--dtype float16 --optim adafactor --gradient-checkpointing"),
        ("align", judge),
        ("align", &format!("{judge} --lora-r 2")),
    ] {
        let line = format!("{kind} {more} --per-device-train-batch-size 3 --max-steps 1");
        let real = format!("{line} --model tiny --dataset equal.jsonl --output-dir run");
        let seen: Value = serde_json::from_str(&place.oaif(&format!("{real} --dry-run")).done().out).unwrap();
        let longest = |what: &str| seen["data"][what]["max"].as_u64().unwrap_or(0);
        let (prompt, answer) = (longest("prompt_tokens"), longest("completion_tokens"));
        let lengths = match kind {
            "align" => format!("--max-prompt-length {prompt}"),
            _ => format!("--max-prompt-length {prompt} --max-length {}", prompt + answer),
        };
        let bare =
            format!("{line} --model bare {lengths} --dry-run").replace("-model judge", "-model bare_judge");
        let before = place.names(".");
        let bare: Value = serde_json::from_str(&place.oaif(&bare).done().out).unwrap();
        assert_eq!(place.names("."), before);
        assert_eq!(bare["data"]["rows"], Value::Null);
        assert_eq!(bare["data"]["prompt_tokens"]["max"].as_u64(), Some(prompt), "{line}");

        place.oaif(&real).done();
        let memory = place.json("run/run.json")["memory"].take();
        assert_eq!(memory["bytes"], bare["memory"]["bytes"], "{line}");
        assert_eq!(memory["bytes"], seen["memory"]["bytes"], "{line}");
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn a_dry_run_respects_the_limits_of_the_gpu() {
    let Some(place) = place_of_equal_rows() else { return };
    let line = "dpo --dry-run --model bare --max-prompt-length 3 --max-length 6";
    let report = |more: &str| -> Value {
        let outcome = place.oaif(&format!("{line} {more}")).done();
        assert!(outcome.err.starts_with("oaif: needs ") && outcome.err.lines().count() == 1, "{more}");
        serde_json::from_str(&outcome.out).unwrap()
    };
    let limits = |more: &str| {
        let limits = report(more)["limits"].take();
        (limits["binding"].as_u64().unwrap(), limits["buffer"].as_u64().unwrap())
    };
    assert_eq!(limits("--max-storage-buffer-binding-size 2GiB"), (2 << 30, 2 << 30));
    assert_eq!(limits("--max-buffer-size 1048576"), (1 << 20, 1 << 20));
    assert_eq!(limits("--max-buffer-size 512MiB"), (128 << 20, 512 << 20));
    assert_eq!(limits("--max-buffer-size 1GiB --max_storage_buffer_binding_size 60KiB"), (60 << 10, 1 << 30));
    assert_eq!(report("--max-buffer-size 1GiB")["gpu"]["name"], "no device");
    place.refuses(&format!("{line} --max-buffer-size 1KiB"), 1, &["the GPU allows 1.0 KiB"]);
}

#[test]
fn frozen_weights_of_16_bits_take_half_the_memory() {
    let Some(place) = place() else { return };
    let weights = |more: &str| {
        let line = format!("dpo --model tiny --dataset pairs.jsonl --lora-r 2 --dry-run {more}");
        let report: Value = serde_json::from_str(&place.oaif(&line).done().out).unwrap();
        report["memory"]["bytes"]["weights"].as_u64().unwrap()
    };
    let (full, auto) = (weights("--dtype float32"), weights(""));
    let config = place.json("tiny/config.json");
    let [c, f, d, v] = ["hidden_size", "intermediate_size", "head_dim", "vocab_size"]
        .map(|key| config[key].as_u64().unwrap());
    let [h, k, l] = ["num_attention_heads", "num_key_value_heads", "num_hidden_layers"]
        .map(|key| config[key].as_u64().unwrap());
    let matrices = 2 * v * c + l * (2 * h * d * c + 2 * k * d * c + 3 * f * c);
    assert_eq!(full - auto, matrices * 2, "auto: its file holds bfloat16");
    assert_eq!((weights("--dtype bfloat16"), weights("--torch_dtype f16")), (auto, auto));

    for dtype in ["auto", "float32", "float16"] {
        place.oaif(&format!("dpo --model tiny --dataset pairs.jsonl --max-steps 2 --lora-r 2 --output-dir {dtype} --dtype {dtype}")).done();
    }
    let losses = |run: &str| {
        place.rows(&format!("{run}/metrics.jsonl")).iter().map(|row| number(row, "loss")).collect::<Vec<_>>()
    };
    for ((auto, float32), float16) in losses("auto").iter().zip(losses("float32")).zip(losses("float16")) {
        assert_close(*auto, float32, 1e-5);
        assert_close(*auto, float16, 1e-3);
    }
}

#[test]
fn a_profile_is_a_table_and_a_trace() {
    let Some(place) = place() else { return };
    let [_, (_, dpo), _] = trainings();
    for (more, trace) in [("--profile", "run/trace.json"), ("--profile=trace.json", "trace.json")] {
        let err = place.oaif(&format!("{dpo} --overwrite-output-dir {more}")).done().err;
        if err.contains("this GPU has no timestamp") {
            assert!(!place.path(trace).exists());
            continue;
        }
        let table: Vec<&str> = err.lines().skip_while(|line| !line.starts_with("kernel ")).collect();
        assert!(table.iter().any(|line| line.starts_with("linear_forward ")), "{err}");
        let trace = place.json(trace);
        let events = trace["traceEvents"].as_array().unwrap();
        let names: Vec<&str> = events.iter().filter_map(|event| event["name"].as_str()).collect();
        assert!(names.contains(&"adamw") && names.contains(&"attention_forward"), "{names:?}");
        assert!(events.iter().filter(|e| e["ph"] == "X").all(|e| number(e, "dur") >= 0.0));
    }
}

#[test]
fn prompts_that_are_too_long_are_skipped_and_counted() {
    let Some(place) = place() else { return };
    let long =
        format!("{{\"prompt\": \"{}\", \"chosen\": \"a\", \"rejected\": \"the\"}}\n", "fox ".repeat(200));
    place.write("long.jsonl", format!("{long}{PAIRS}{long}"));
    for command in [format!("align {RULE}"), "dpo".into()] {
        let line =
            format!("{command} --model tiny --dataset long.jsonl --max-steps 1 --output-dir run --overwrite");
        let err = place.oaif(&line).done().err;
        assert!(err.contains("oaif: warning: 2 of 6 rows are skipped: 2 with a prompt above "), "{err}");
        let report: Value =
            serde_json::from_str(&place.oaif(&format!("{line} --dry-run")).done().out).unwrap();
        assert_eq!((&report["data"]["rows"], &report["data"]["skipped_long_prompt"]), (&json!(4), &json!(2)));
        assert!(!place.json("run/run.json")["warnings"].to_string().contains("skipped"));
    }
    // If most rows are skipped, the warning is also printed only once, and the report contains it.
    place.write("most.jsonl", format!("{PAIRS}{}", long.repeat(5)));
    let line = "dpo --model tiny --dataset most.jsonl --max-steps 1 --output-dir run --overwrite --report";
    let err = place.oaif(line).done().err;
    assert_eq!(err.matches("are skipped").count(), 1, "{err}");
    assert!(!err.contains("were skipped"), "{err}");
    let kept = place.json("run/run.json")["warnings"].to_string();
    assert!(kept.contains("5 of 9 rows are skipped: 5 with a prompt above "), "{kept}");
    assert!(String::from_utf8(place.read("run/report.html")).unwrap().contains("5 of 9 rows are skipped"));
}

#[test]
fn max_length_in_align_is_that_of_prompt_and_response_together() {
    let Some(place) = place() else { return };
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 1 --output-dir run --overwrite --judge rule \
                --judge-rule longer --max-new-tokens 6";
    let data = |more: &str| {
        let report: Value =
            serde_json::from_str(&place.oaif(&format!("{line} {more} --dry-run")).done().out).unwrap();
        (
            report["data"]["skipped_long_prompt"].as_u64().unwrap(),
            report["data"]["prompt_tokens"]["max"].as_u64().unwrap(),
        )
    };
    let (none, longest) = data("");
    assert_eq!((none, data(&format!("--max-length {}", longest + 6))), (0, (0, longest)));
    let (skipped, shorter) = data(&format!("--max-length {}", longest + 5));
    assert!(skipped > 0 && shorter < longest);
    place.oaif(&format!("{line} --max-length {}", longest + 5)).done();
    place.refuses(
        &format!("{line} --max-length 6"),
        2,
        &["max-new-tokens", "6 leaves no room", "max-length is 6"],
    );
}

#[test]
fn the_error_that_ended_a_run_is_recorded_until_it_is_resumed() {
    let Some(place) = place() else { return };
    place.write("judge.sh", "echo broken >&2; exit 3");
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 2 --output-dir run --max-new-tokens 6 --judge-probes 0 --judge command \
                --judge-command";
    let outcome = place.oaif_with(line, &["sh judge.sh"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    let error = place.json("run/run.json")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("broken") && outcome.err.contains(&error), "{error}");
    place.oaif("report run").done();
    let html = String::from_utf8(place.read("run/report.html")).unwrap().replace('\u{a0}', " ");
    assert!(html.contains("The run ended with an error: ") && html.contains("broken"), "{html}");
    place.write("judge.sh", FIRST);
    place.oaif("align --resume run").done();
    assert!(place.json("run/run.json")["error"].is_null());
}

#[test]
fn a_run_warns_of_useless_training_and_the_report_contains_the_warnings() {
    let Some(place) = place() else { return };
    let judge = FIRST;
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 12 --output-dir run --report --max-new-tokens 6 \
                --per-device-train-batch-size 8 --learning-rate 1e-9 --judge-probes 0 --judge command --judge-command";
    let err = place.oaif_with(line, &[judge]).done().err;
    let html = String::from_utf8(place.read("run/report.html")).unwrap().replace('\u{a0}', " ");
    let kept = place.json("run/run.json")["warnings"].to_string();
    for expected in ["he judge preferred the first response in 100 %", "he policy hardly changed"] {
        assert_eq!(err.matches(expected).count(), 1, "{err}");
        assert!(html.contains(expected) && kept.contains(expected), "{expected} in {kept}");
    }
    // A resumed run keeps the warnings of its earlier steps, each once.
    place.oaif("align --resume run").done();
    let again = place.json("run/run.json")["warnings"].to_string();
    for expected in ["he judge preferred the first response in 100 %", "he policy hardly changed"] {
        assert_eq!(again.matches(expected).count(), 1, "{again}");
    }
    // A run that starts from its checkpoint, and a judge that follows, are judged anew.
    let two_more = "--max-steps 14 --allow-changes max-steps,judge";
    let fork = line.replace("--output-dir run", "--output-dir fork").replace("--max-steps 12", two_more);
    let fork = fork.replace("align", "align --resume-from-checkpoint run/checkpoints/step-000012");
    assert!(place.oaif_with(&fork, &[judge]).done().err.contains("preferred the first response in 100 %"));
    assert!(place.json("fork/run.json")["warnings"].to_string().contains("preferred the first response"));
    let line = format!("align --resume run {two_more} --judge command --judge-command");
    let err = place.oaif_with(&line, &[&judge.replace(r#""1""#, r#""2""#)]).done().err;
    assert!(err.contains("preferred the second response in 100 %"), "{err}");
    // A member of an ensemble without any valid verdict.
    place.write("mute.sh", MUTE);
    place.write("mute.toml", "judge = 'command'\njudge-command = 'sh mute.sh'\n");
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 4 --output-dir alone --max-new-tokens 6 \
                --per-device-train-batch-size 8 --judge ensemble --judge-member mute.toml --judge-member long.toml";
    let err = place.oaif(line).done().err;
    assert_eq!(err.matches("member 1 of the ensemble (command) has no usable verdict").count(), 1, "{err}");
    assert!(place.json("alone/run.json")["warnings"].to_string().contains("first reason: I am out"));

    let still = "--max-steps 12 --output-dir still --per-device-train-batch-size 8 --learning-rate 1e-9";
    let err = place.oaif(&format!("dpo --model tiny --dataset pairs.jsonl {still}")).done().err;
    assert_eq!(err.matches("he policy hardly changed").count(), 1, "{err}");
    assert!(place.json("still/run.json")["warnings"].to_string().contains("hardly changed"));
    // A healthy run has no such warning.
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 12 --output-dir well --max-new-tokens 6 \
                --per-device-train-batch-size 8 --learning-rate 1e-2 --judge rule --judge-rule longer";
    let err = place.oaif(line).done().err;
    assert!(!err.contains("judge preferred") && !err.contains("hardly changed"), "{err}");
}

#[test]
fn a_run_is_not_overwritten_by_one_that_reads_from_it() {
    let Some(place) = place() else { return };
    let line = "dpo --dataset pairs.jsonl --max-steps 1 --output-dir run";
    place.oaif(&format!("{line} --model tiny")).done();
    std::fs::write(place.path("run/pairs.jsonl"), PAIRS).unwrap();
    let again = "--overwrite-output-dir";
    let align = "align --model tiny --dataset pairs.jsonl --output-dir run --judge likelihood --judge-model run/model";
    for (line, flag) in [
        (format!("{line} --model run/model {again}"), "--model"),
        (format!("{line} --model run/checkpoints/step-000001 {again}"), "--model"),
        (format!("{line} --model tiny {again}").replace("pairs.jsonl", "run/pairs.jsonl"), "--dataset"),
        (format!("{align} {again}"), "--judge-model"),
    ] {
        place.refuses(&line, 2, &["--overwrite-output-dir: would delete run/", flag, "another --output-dir"]);
    }
    assert!(place.path("run/model/model.safetensors").exists());
}

#[test]
fn unusual_batch_sizes_work() {
    let Some(place) = place() else { return };
    let line = "align --model tiny --dataset pairs.jsonl --max-steps 1 --output-dir run --overwrite \
                --judge rule --judge-rule longer";
    for more in [
        "--slots 1 --max-new-tokens 3",
        "--max-new-tokens 1",
        "--per-device-train-batch-size 7 --max-new-tokens 2",
        "--num-samples 5 --max-new-tokens 2 --per-device-train-batch-size 1",
        "--max-new-tokens 100 --per-device-train-batch-size 1",
        "--stop . --stop fox",
    ] {
        place.oaif(&format!("{line} {more}")).done();
    }
}

#[test]
fn names_with_spaces_and_any_letters_work() {
    let Some(place) = place() else { return };
    let dir = "ein Ordner für «все»";
    place.copy_model(&super::common::fixture("tiny"), dir);
    place.write("данные 1.jsonl", PAIRS);
    let paths = ["--model", dir, "--dataset", "данные 1.jsonl", "--output-dir", "run 1 ü/x"];
    place.oaif_with("dpo --max-steps 1", &paths).done();
    place.oaif_with("score --input rows.jsonl --output", &["öut.jsonl", "--model", "run 1 ü/x/model"]).done();
    assert_eq!(place.rows("öut.jsonl").len(), 4);
}

#[test]
fn a_run_in_the_folder_is_kept_unless_overwrite_is_given() {
    let Some(place) = place() else { return };
    let [_, (_, dpo), _] = trainings();
    place.oaif(&dpo).done();
    let before = place.read("run/metrics.jsonl");
    place.refuses(&dpo, 1, &["already has a run", "--resume run", "--overwrite"]);
    assert_eq!(place.read("run/metrics.jsonl"), before);
    place.oaif(&format!("{dpo} --overwrite")).done();
}

/// Checks that a page is self-contained and runs no scripts.
#[track_caller]
fn assert_self_contained(html: &str) {
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"), "{html}");
    let elsewhere = ["http://", "https://", "src=", "href=", "url(", "@import", "<script", "<link", "<img"];
    for mark in elsewhere {
        assert!(!html.contains(mark), "{mark} in {html}");
    }
    assert!(!html.contains("NaN"), "{html}");
}

#[test]
fn a_report_is_a_self_contained_page_about_the_run() {
    for (kind, line) in trainings() {
        let Some(place) = place() else { return };
        let outcome = place.oaif(&format!("{line} --report --seed 7")).done();
        assert!(outcome.err.contains("oaif: the report is run"), "{}", outcome.err);
        assert_eq!(outcome.out.lines().count(), 1, "standard output is for the result: {}", outcome.out);
        let html = String::from_utf8(place.read("run/report.html")).unwrap();
        assert_self_contained(&html);
        for expected in
            ["tiny, ", "<dd>7</dd>", ">Loss</text>", ">Gradient norm</text>", ">Learning rate</text>"]
        {
            assert!(html.contains(expected), "{kind}: {expected}");
        }
        let pairs = (html.contains("Judged pairs"), html.contains(">Reward margin</text>"));
        assert_eq!(pairs, (kind == "align", kind != "sft"), "{kind}");
        assert!(!html.contains("Not finished"), "{kind}");

        // Without the flag the old report is removed and none is written; a configuration file can request one, too.
        place.oaif(&format!("{line} --overwrite")).done();
        assert!(!place.path("run/report.html").exists(), "{kind}");
        place.write("config.yaml", "report: true\n");
        place.oaif(&format!("{line} --overwrite --config config.yaml")).done();
        assert!(place.path("run/report.html").exists(), "{kind}");
    }
}

#[test]
fn a_report_shows_markup_in_the_data_as_text() {
    let Some(place) = place() else { return };
    let attack = "<script src=//x>alert(1)</script><img src=x onerror=alert(1)>";
    place.write("pairs.jsonl", format!("{}\n", json!({"prompt": format!("the fox {attack}")})));
    place
        .oaif(&format!(
            "align {RULE} --model tiny --dataset pairs.jsonl --max-steps 1 --output-dir run --report"
        ))
        .done();
    let html = String::from_utf8(place.read("run/report.html")).unwrap();
    assert!(html.contains("the fox &lt;script src=//x&gt;"), "{html}");
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
}

#[test]
fn a_run_that_is_refused_reports_nothing() {
    let Some(place) = place() else { return };
    let [_, (_, dpo), _] = trainings();
    place.oaif(&dpo).done();
    place.refuses(&format!("{dpo} --report"), 1, &["already has a run"]);
    assert!(!place.path("run/report.html").exists());
}
