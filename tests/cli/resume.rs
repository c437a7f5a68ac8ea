//! Which settings a resumed run uses: those of the run, or explicitly changed ones.

use serde_json::{Value, json};

use super::{FIRST, Outcome, PAIRS, Place, RULE, place};

const COMMON: &str = "--max-steps 4 --save-steps 2 --per-device-train-batch-size 2 --learning-rate 1e-3";

fn align() -> String {
    format!("align --model tiny --dataset pairs.jsonl --output-dir run {COMMON} {RULE}")
}

/// Restores the run folder to its state after the second step.
fn forget_the_end(place: &Place, run: &str) {
    std::fs::remove_dir_all(place.path(&format!("{run}/checkpoints/step-000004"))).unwrap();
}

#[test]
fn a_run_is_resumed_by_its_folder_alone_from_any_working_directory() {
    let Some(place) = place() else { return };
    place.copy_model(&super::common::fixture("tiny_lora"), "lora");
    let dpo = format!("dpo --model tiny --dataset pairs.jsonl --output-dir run {COMMON}");
    let sft = format!("sft --model tiny --dataset rows.jsonl --output-dir run {COMMON}");
    for (command, line, weights) in [
        ("align", align(), "model/model.safetensors"),
        ("dpo", format!("{dpo} --adapter ./lora"), "adapter/adapter_model.safetensors"),
        ("sft", format!("{sft} --lora-r 2 --no-shuffle"), "adapter/adapter_model.safetensors"),
    ] {
        place.oaif(&line).done();
        let whole = place.read(&format!("run/{weights}"));
        let metrics = place.rows("run/metrics.jsonl");
        forget_the_end(&place, "run");
        // From another working directory, after the run folder was moved.
        std::fs::create_dir_all(place.path("else/where")).unwrap();
        std::fs::rename(place.path("run"), place.path("else/moved")).unwrap();
        let mut resume = place.command(&format!("{command} --resume ../moved"));
        resume.current_dir(place.path("else/where"));
        let out = Outcome::of(resume).done().out;
        assert!(out.trim().ends_with(weights.split('/').next().unwrap()), "{out}");
        assert!(place.read(&format!("else/moved/{weights}")) == whole, "{command}: other weights");
        let loss = |rows: &[Value]| rows.iter().map(|row| row["loss"].to_string()).collect::<Vec<_>>();
        assert_eq!(loss(&place.rows("else/moved/metrics.jsonl")), loss(&metrics));
        assert!(!place.path("run").exists());
        // The run is complete; nothing is left to do, and a message says so.
        let again = place.oaif(&format!("{command} --resume else/moved")).done();
        assert!(again.err.contains("all 4 steps of this run are done"), "{}", again.err);
        assert!(place.read(&format!("else/moved/{weights}")) == whole);
        std::fs::remove_dir_all(place.path("else")).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_resumed_ensemble_keeps_its_agreement_and_asks_no_member_twice() {
    let Some(place) = place() else { return };
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("program.toml", "judge = 'command'\njudge-command = 'sh judge.sh'\n");
    place.write("judge.sh", format!("{FIRST} | tee -a asked.jsonl"));
    let judges =
        "--judge ensemble --judge-member long.toml --judge-member program.toml --judge-vote majority";
    let line = format!("align --model tiny --dataset pairs.jsonl --output-dir run {COMMON} {judges}");
    place.oaif(&line).done();
    let (metrics, pairs) = (place.rows("run/metrics.jsonl"), place.rows("run/pairs.jsonl"));
    let (weights, asked) = (place.read("run/model/model.safetensors"), place.rows("asked.jsonl").len());
    let agreement = |rows: &[Value]| -> Vec<Value> {
        rows.iter().map(|row| json!([row["judge/agreement"], row["judge/kappa"], row["loss"]])).collect()
    };
    assert!((0.0..=1.0).contains(&metrics[3]["judge/agreement"].as_f64().unwrap()), "{}", metrics[3]);
    let judged = pairs.iter().filter(|pair| pair["skipped"].is_null());
    // The program prefers the first response; for a pair that was judged in both orders the preferences cancel.
    let vote = |pair: &Value| if pair["p_21"].is_null() { json!(1.0) } else { json!(0.5) };
    assert!(judged.clone().count() > 0 && judged.clone().all(|pair| pair["votes"][1] == vote(pair)));

    forget_the_end(&place, "run");
    place.oaif("align --resume run").done();
    assert_eq!(agreement(&place.rows("run/metrics.jsonl")), agreement(&metrics));
    assert_eq!(place.rows("run/pairs.jsonl"), pairs);
    assert!(place.read("run/model/model.safetensors") == weights);
    // Even if the answers of the ensemble are lost, the answers of each member are kept.
    forget_the_end(&place, "run");
    std::fs::remove_file(place.path("run/judgements.jsonl")).unwrap();
    place.oaif("align --resume run").done();
    assert!(place.read("run/model/model.safetensors") == weights);
    assert_eq!(place.rows("asked.jsonl").len(), asked);
    // One member has changed.
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'shorter'\n");
    forget_the_end(&place, "run");
    place.oaif("align --resume run").refused(2, &["judge-member", "--allow-changes"]);
}

#[test]
fn a_resumed_run_uses_the_kernels_of_its_checkpoint_despite_a_new_measurement() {
    let Some(place) = place() else { return };
    let line = format!("sft --model tiny --dataset rows.jsonl {COMMON}");
    let with_cache = |line: &str| {
        let mut command = place.command(line);
        command.env("OAIF_CACHE", place.path("cache"));
        Outcome::of(command).done()
    };
    let weights = |run: &str| place.read(&format!("{run}/model/model.safetensors"));
    with_cache(&format!("{line} --output-dir run"));
    let (whole, kernels) = (weights("run"), place.json("run/run.json")["kernels"].clone());
    // A new measurement selects other kernels.
    let [cache] = &place.names("cache")[..] else { panic!("one choice is kept") };
    let products = json!({"staged": {"chosen": [], "otherwise": null}});
    let staged = json!({"products": products, "tiled_attention": true, "fused_blocks": false});
    place.set(&format!("cache/{cache}"), "tuning", staged);
    with_cache(&format!("{line} --output-dir other"));
    let (other, others_kernels) = (weights("other"), place.json("other/run.json")["kernels"].clone());
    let tiles = others_kernels["products"]["staged"]["chosen"].as_array().unwrap();
    assert!(!tiles.is_empty() && others_kernels["fused_blocks"] == json!(false), "{others_kernels}");
    assert!(other != whole, "other kernels sum in another order");
    for wiped in [false, true] {
        forget_the_end(&place, "run");
        if wiped {
            std::fs::remove_dir_all(place.path("cache")).unwrap();
        }
        with_cache("sft --resume run");
        assert!(weights("run") == whole, "wiped {wiped}: other weights");
        assert_eq!(place.json("run/run.json")["kernels"], kernels);
    }
    // The tiles that a run measured are stored with the run.
    forget_the_end(&place, "other");
    with_cache("sft --resume other");
    assert!(weights("other") == other, "other weights");
    assert_eq!(place.json("other/run.json")["kernels"], others_kernels);
}

#[test]
fn a_changed_setting_that_affects_the_numbers_is_refused_by_its_name() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    forget_the_end(&place, "run");
    // Another base model of the same shape, another tokenizer, another template, other rows of the same number.
    place.copy_model(&place.path("run/model"), "trained");
    place.copy_model(&super::common::fixture("tiny"), "retold");
    let template = "{% for m in messages %}{{ m.content }}!{% endfor %}";
    place.write("retold/chat_template.jinja", template);
    place.copy_model(&super::common::fixture("tiny"), "respelt");
    place.set(
        "respelt/tokenizer.json",
        "truncation",
        json!({"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}),
    );
    place.write("other.jsonl", PAIRS.replace("fox", "owl"));
    let mut rows: Vec<&str> = PAIRS.lines().collect();
    rows.reverse();
    place.write("order.jsonl", format!("{}\n", rows.join("\n")));
    for (more, name) in [
        ("--model trained", "model "),
        ("--model respelt", "tokenizer "),
        ("--model retold", "chat-template "),
        ("--dataset other.jsonl", "dataset of 4 rows"),
        ("--dataset order.jsonl", "dataset of 4 rows"),
        ("--loss ipo --beta 0.1", "loss dpo"),
        ("--beta 0.2", "beta 0.1, but this run has beta 0.2"),
        ("--num-samples 3", "num-samples 2"),
        ("--temperature 0.8", "temperature 0.9"),
        ("--top-p 0.5", "top-p 1.0"),
        ("--max-new-tokens 5", "max-new-tokens 6"),
        ("--stop .", "stop []"),
        ("--judge-rule shorter", "judge-rule longer"),
        ("--soft-labels", "soft-labels false"),
        ("--learning-rate 2e-3", "learning-rate 0.001, but this run has learning-rate 0.002"),
        ("--lr-scheduler-type cosine", "lr-scheduler-type linear"),
        ("--warmup-steps 1", "warmup-steps 0"),
        ("--warmup-ratio 0.3", "warmup-steps 0, but this run has warmup-steps 2"),
        ("--max-steps 6", "max-steps 4"),
        ("--optim adafactor", "optim adamw"),
        ("--weight-decay 0.1", "weight-decay 0.0"),
        ("--max-grad-norm 2", "max-grad-norm 1.0"),
        ("--seed 1", "seed 42"),
        ("--no-shuffle", "shuffle true"),
        ("--per-device-train-batch-size 1", "per-device-train-batch-size 2"),
        ("--gradient-accumulation-steps 2", "gradient-accumulation-steps 1"),
        ("--max-length 30", "max-length none"),
        ("--max-prompt-length 9", "max-prompt-length none"),
        ("--lora-r 2", "lora-r none"),
        ("--tier 0", "tier "),
    ] {
        if more == "--tier 0" && place.json("run/run.json")["gpu_tier"].as_str().unwrap().starts_with("T0") {
            continue;
        }
        let line = format!("align --resume run {more}");
        place.refuses(&line, 2, &["the checkpoint was written with", name, "start a new run"]);
    }
    // Settings that change no number may be changed.
    for more in
        ["--save-steps 1", "--report", "--slots 3", "--save-total-limit 3", "--gradient-checkpointing"]
    {
        place.oaif(&format!("align --resume run {more}")).done();
        forget_the_end(&place, "run");
    }
}

/// The number of warm-up steps counts, not whether it was given as a ratio.
#[test]
fn a_different_warm_up_is_refused_and_an_equal_one_is_accepted() {
    let Some(place) = place() else { return };
    let run = |more: &str| format!("dpo --model tiny --dataset pairs.jsonl --output-dir run {COMMON} {more}");
    place.oaif(&run("--lr-scheduler-type constant_with_warmup --warmup-ratio 0.5")).done();
    forget_the_end(&place, "run");
    for (more, names) in [
        ("--warmup-ratio 0.75", ["warmup-steps 2, but this run has warmup-steps 3"; 2]),
        ("--max-steps 6", ["max-steps 4, warmup-steps 2", "max-steps 6, warmup-steps 3"]),
    ] {
        place.refuses(&format!("dpo --resume run {more}"), 2, &names);
    }
    place.oaif("dpo --resume run --warmup-ratio 0 --warmup-steps 2 --allow-changes max-steps").done();
    // A constant learning rate has no warm-up.
    let constant = run("--lr-scheduler-type constant --warmup-ratio 0.5 --overwrite-output-dir");
    place.oaif(&constant).done();
    forget_the_end(&place, "run");
    place.oaif("dpo --resume run --max-steps 8").done();
}

/// A checkpoint is also a model; the files of its own run are not copied.
#[test]
fn a_run_that_starts_from_a_checkpoints_weights_resumes_from_its_own() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    let line = align().replace("--model tiny", "--model run/checkpoints/step-000004");
    place.oaif(&line.replace("--output-dir run", "--output-dir next")).done();
    let whole = place.read("next/model/model.safetensors");
    forget_the_end(&place, "next");
    place.oaif("align --resume next").done();
    assert!(place.read("next/model/model.safetensors") == whole, "other weights");
    for file in ["state.json", "checksums.json", "optimiser.safetensors"] {
        assert!(!place.path(&format!("next/model/{file}")).exists(), "{file} is of another run");
    }
    place.oaif("export --model next/checkpoints/step-000004 --output exported").done();
    assert!(!place.path("exported/checksums.json").exists());
}

#[test]
fn a_different_adapter_shape_is_always_refused() {
    let Some(place) = place() else { return };
    let line = format!("dpo --model tiny --dataset pairs.jsonl --output-dir run {COMMON} --lora-r 2");
    place.oaif(&line).done();
    forget_the_end(&place, "run");
    for (more, name) in [
        ("--lora-alpha 8", "lora-alpha 4.0"),
        ("--use-rslora", "use-rslora false"),
        ("--lora-target-modules q_proj", "lora-target-modules"),
    ] {
        let parts = ["the checkpoint was written with", name, "cannot change within a run"];
        place.refuses(&format!("dpo --resume run {more}"), 2, &parts);
    }
    place.refuses("dpo --resume run --allow-changes lora-r", 2, &["lora-r cannot change within a run"]);
    place.refuses("dpo --resume run --allow-changes rate", 2, &["\"rate\"", "learning-rate"]);
}

#[test]
fn allowed_changes_are_applied_and_recorded() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    forget_the_end(&place, "run");
    let more = "--learning-rate 2e-3 --max-steps 5 --judge-rule shorter --beta 0.2";
    place.refuses(
        &format!("align --resume run {more} --allow-changes learning-rate,judge"),
        2,
        &["beta", "max-steps"],
    );
    place
        .oaif(&format!("align --resume run {more} --allow-changes learning-rate,judge,beta,max-steps"))
        .done();
    let changes = place.json("run/run.json")["changes"].take();
    let names: Vec<&str> = changes.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["beta", "judge-rule", "learning-rate", "max-steps"]);
    assert_eq!(changes[2], json!({"after_step": 2, "name": "learning-rate", "from": 0.001, "to": 0.002}));
    assert_eq!(place.rows("run/metrics.jsonl").len(), 5);
    // From then on these are the settings of the run.
    place.oaif("align --resume run").done();
    assert_eq!(place.json("run/run.json")["changes"], changes);
}

#[test]
fn a_flag_that_needs_another_finds_it_in_the_run() {
    let Some(place) = place() else { return };
    place.oaif(&format!("{} --eval-dataset pairs.jsonl --eval-steps 2", align())).done();
    for more in ["--eval-steps 2", "--max-eval-samples 4", "--eval-steps 1 --max-eval-samples 9"] {
        forget_the_end(&place, "run");
        place.oaif(&format!("align --resume run {more}")).done();
    }
    assert_eq!(place.json("run/run.json")["eval-steps"], 1);
    // A missing companion flag is requested, and nothing else.
    let lacks = place.oaif("align --resume run --ref-model-sync-steps 3");
    assert!(!lacks.err.contains("--model") && !lacks.err.contains("--dataset"), "{}", lacks.err);
    lacks.refused(2, &["not provided: --sync-ref-model;"]);
    place.write("config.yaml", "sync-ref-model: true\nref-model-sync-steps: 9\n");
    let moving = "dpo --model tiny --dataset pairs.jsonl --output-dir moving --ref-model-sync-steps 2";
    place.oaif(&format!("{moving} {COMMON} --config config.yaml")).done();
    forget_the_end(&place, "moving");
    place.oaif("dpo --resume moving --ref-model-sync-steps 2").done();
    let other =
        ["ref-model-sync-steps 2, but this run has ref-model-sync-steps 3", "cannot change within a run"];
    place.refuses("dpo --resume moving --ref-model-sync-steps 3", 2, &other);
}

#[test]
fn a_judge_of_another_kind_replaces_the_runs_judge_with_all_its_flags() {
    let Some(place) = place() else { return };
    place.write("long.toml", "judge = 'rule'\njudge-rule = 'longer'\n");
    place.write("short.toml", "judge = 'rule'\njudge-rule = 'shorter'\n");
    place.oaif(&align()).done();
    for (judge, flag, gone) in [
        ("likelihood --judge-model tiny --judge-normalise token", "judge-normalise", "judge-rule"),
        ("ensemble --judge-member long.toml --judge-member short.toml", "judge-vote", "judge-normalise"),
        ("rule --judge-rule shorter", "judge-rule", "judge-member"),
    ] {
        forget_the_end(&place, "run");
        let line = format!("align --resume run --judge {judge}");
        place.refuses(&line, 2, &["the checkpoint was written with judge", "--allow-changes judge"]);
        place.oaif(&format!("{line} --allow-changes judge")).done();
        let run = place.json("run/run.json");
        let unset = run[gone].is_null() || run[gone] == json!([]);
        assert!(run[flag].is_string() && unset, "{judge}: {run}");
        place.oaif("align --resume run").done();
    }
    // With a judge of the same kind the flags of the run still apply.
    place.oaif("align --resume run --judge rule").done();
}

#[test]
fn another_loss_replaces_the_runs_loss_with_all_its_flags() {
    let Some(place) = place() else { return };
    place.oaif(&format!("{} --loss simpo,sft --simpo-gamma 1", align())).done();
    // The same loss can replace one without options.
    forget_the_end(&place, "run");
    place.oaif("align --resume run --loss simpo,sft").done();
    let allowed =
        "loss,loss-weights,beta,label-smoothing,simpo-gamma,advantage,epsilon,epsilon-high,token-weights";
    for (loss, gone) in [("ipo", "simpo-gamma"), ("grpo", "simpo-gamma"), ("dpo", "epsilon")] {
        forget_the_end(&place, "run");
        let line = format!("align --resume run --loss {loss}");
        place.refuses(&line, 2, &["the checkpoint was written with", "loss", "--allow-changes"]);
        place.oaif(&format!("{line} --allow-changes {allowed}")).done();
        let run = place.json("run/run.json");
        assert!(run["loss"] == loss && run[gone].is_null(), "{run}");
    }
}

#[test]
fn a_folder_that_cannot_be_resumed_is_refused_with_the_reason() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    place.refuses("dpo --resume run", 1, &["is a run of oaif align", "oaif align --resume"]);
    place.refuses("align --resume nowhere", 1, &["nowhere", "holds no run to resume"]);
    place.refuses("align --resume run --output-dir other", 2, &["--output-dir", "leave it out"]);
    place.write("config.yaml", "seed: 1\n");
    place.refuses("align --resume run --config config.yaml", 2, &["--config", "leave it out"]);
    place.refuses(
        "align --resume run --max-steps 3 --allow-changes max-steps",
        2,
        &["max-steps", "after 4 steps"],
    );
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_previous_one_can_be_resumed() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    let whole = place.read("run/model/model.safetensors");
    for file in ["model.safetensors", "optimiser.safetensors", "state.json", "config.json"] {
        let path = format!("run/checkpoints/step-000004/{file}");
        let good = place.read(&path);
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        let mut zeroed = good.clone();
        let from = zeroed.len() / 3;
        zeroed[from..from + 8].fill(0);
        for damage in [Some(flipped), Some(zeroed), Some(good[..good.len() - 1].to_vec()), None] {
            match damage {
                Some(bytes) => place.write(&path, bytes),
                None => std::fs::remove_file(place.path(&path)).unwrap(),
            }
            place.refuses("align --resume run", 1, &[file, "--resume-from-checkpoint", "step-000002"]);
        }
        place.write(&path, good);
    }
    place.write("run/checkpoints/step-000004/model.safetensors", "");
    let way_out = "align --resume run --resume-from-checkpoint run/checkpoints/step-000002";
    place.oaif(way_out).done();
    assert!(place.read("run/model/model.safetensors") == whole, "other weights");
}

#[test]
fn logs_with_missing_rows_are_refused() {
    let Some(place) = place() else { return };
    for log in ["metrics.jsonl", "pairs.jsonl"] {
        place.oaif(&format!("{} --overwrite-output-dir", align())).done();
        forget_the_end(&place, "run");
        let path = format!("run/{log}");
        let text = String::from_utf8(place.read(&path)).unwrap();
        place.write(&path, text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
        place.refuses("align --resume run", 1, &[log, "but the checkpoint was written after"]);
        std::fs::remove_file(place.path(&path)).unwrap();
        place.refuses("align --resume run", 1, &[log, "has 0 rows"]);
    }
}

#[test]
fn a_new_run_can_start_from_the_checkpoint_of_another_one() {
    let Some(place) = place() else { return };
    place.oaif(&align()).done();
    let line = align().replace("--output-dir run", "--output-dir other");
    place
        .oaif(
            &format!("{line} --save-steps=1 --resume-from-checkpoint run/checkpoints/step-000002")
                .replace("--save-steps 2 ", ""),
        )
        .done();
    let steps: Vec<u64> =
        place.rows("other/metrics.jsonl").iter().map(|r| r["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [3, 4]);
    forget_the_end(&place, "other");
    place.oaif("align --resume other").done();
    assert!(place.read("run/model/model.safetensors") == place.read("other/model/model.safetensors"));
    // All steps are done, so a run from the last checkpoint does and logs nothing.
    let line = align().replace("--output-dir run", "--output-dir last");
    let last = place.oaif(&format!("{line} --resume-from-checkpoint run/checkpoints/step-000004")).done();
    assert!(last.err.contains("all 4 steps of this run are done"), "{}", last.err);
    assert!(place.read("run/model/model.safetensors") == place.read("last/model/model.safetensors"));
}

#[test]
fn another_base_or_judge_of_the_same_shape_is_refused_by_its_name() {
    let Some(place) = place() else { return };
    for model in ["judge", "base"] {
        place.copy_model(&super::common::fixture("tiny"), model);
    }
    let line = align().replace(RULE, "--judge likelihood --judge-model judge --max-new-tokens 6");
    place.oaif(&line.replace("--model tiny", "--model base")).done();
    forget_the_end(&place, "run");
    // What counts is the current content, not the path.
    for (folder, name) in [("judge", "judge-model "), ("base", "model ")] {
        let weights = place.names(folder).into_iter().find(|name| name.ends_with(".safetensors")).unwrap();
        let path = format!("{folder}/{weights}");
        let before = place.read(&path);
        let mut other = before.clone();
        let middle = other.len() / 2;
        other[middle] ^= 1;
        place.write(&path, other);
        place.refuses("align --resume run", 2, &["the checkpoint was written with", name]);
        place.write(&path, before);
    }
    place.oaif("align --resume run").done();
}
