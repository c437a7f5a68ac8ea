//! Errors of files and folders of the wrong kind.

use super::*;

#[test]
fn adapter_takes_the_folder_of_a_lora_adapter_and_gpu_a_gpu() {
    let lora = folder(&[("adapter_config.json", "")]);
    let lora = lora.path().to_str().unwrap();
    let plan = |flags: &[&str]| dpo(flags).map(|p| (p.train.options.adapter, p.train.gpu.options.gpu));
    assert_eq!(plan(&["--adapter", lora]).unwrap(), (Some(lora.into()), None));
    assert_eq!(plan(&["--gpu", "1"]).unwrap(), (None, Some("1".into())));
    assert_eq!(
        plan(&["--adapter", lora, "--gpu", "llvm"]).unwrap(),
        (Some(lora.into()), Some("llvm".into()))
    );
    for name in ["llvm", "1", "no/such/folder"] {
        mistake(plan(&["--adapter", name]), &["--adapter", &format!("{name} is not a folder"), "--gpu"]);
    }
    assert!(dpo(&["--checked"]).unwrap().train.gpu.options.checked);
    let Command::Doctor(doctor) = cli("doctor", &["--json", "--kernels", "--gpu", "1"]) else { panic!() };
    let plan = doctor.plan().unwrap();
    assert!(plan.json && plan.kernels && plan.gpu.options.gpu.as_deref() == Some("1"));
}

#[test]
fn a_run_folder_given_as_an_adapter_or_a_model_is_an_error_with_a_suggestion() {
    let lora = folder(&[("run.json", r#"{"model": "base"}"#), ("adapter/adapter_config.json", "")]);
    let full = folder(&[("model/config.json", "")]);
    let saved = folder(&[
        ("checkpoints/step-000002/adapter_config.json", ""),
        ("checkpoints/step-000002/config.json", ""),
        ("checkpoints/step-000002/state.json", ""),
    ]);
    let [lora, full, saved] = [&lora, &full, &saved].map(|dir| dir.path().to_str().unwrap());
    let adapter = |dir: &str| generate(&["--prompt", "x", "--adapter", dir]);
    mistake(adapter(lora), &["--adapter: ", &format!("did you mean {lora}/adapter?")]);
    mistake(adapter(full), &["all weights", &format!("--model {full}/model")]);
    mistake(adapter(saved), &[&format!("did you mean {saved}/checkpoints/step-000002?")]);
    mistake(adapter(&format!("{full}/model")), &["is a model, not a LoRA adapter", "--model"]);
    mistake(adapter(DIR), &["holds no LoRA adapter", "adapter_config.json"]);

    let model = |dir: &str| match cli("generate", &["--model", dir, "--prompt", "x"]) {
        Command::Generate(args) => args.plan(),
        other => panic!("{other:?}"),
    };
    mistake(model(full), &["--model: ", &format!("did you mean {full}/model?")]);
    mistake(model(lora), &["trained a LoRA adapter", &format!("--model base --adapter {lora}/adapter")]);
    mistake(model(&format!("{lora}/adapter")), &["is a LoRA adapter", "--model DIR --adapter"]);
    mistake(model(saved), &[&format!("did you mean {saved}/checkpoints/step-000002?")]);
    mistake(model(FILE), &["is a file, not a folder", "config.json"]);
    let judged = judge(&["--judge", "likelihood", "--judge-model", &format!("{lora}/adapter")]);
    mistake(judged, &["--judge-model: ", "is a LoRA adapter", "oaif export"]);
}

#[cfg(feature = "http")]
#[test]
fn a_name_on_the_hub_is_accepted_by_the_plan_unresolved() {
    let sft = |model: &str, dataset: &str| match cli(
        "sft",
        &["--model", model, "--dataset", dataset, "--output-dir", "run"],
    ) {
        Command::Sft(args) => args.plan(),
        other => panic!("{other:?}"),
    };
    let plan = sft("HuggingFaceTB/SmolLM2-135M@main", "trl-lib/tldr:validation").unwrap();
    assert_eq!(plan.train.model, PathBuf::from("HuggingFaceTB/SmolLM2-135M@main"));
    assert_eq!(plan.train.dataset, [std::path::PathBuf::from("trl-lib/tldr:validation")]);
    let plan = dpo(&["--adapter", "someone/lora"]).unwrap();
    assert_eq!(plan.train.options.adapter, Some("someone/lora".into()));
    // A mistyped file name is not looked up on the Hub, nor is a path below an existing folder.
    for path in ["data/rows.jsonl", "src/rows", "/a/b", "./a/b", "a/b/c", "rows", "a/b:"] {
        let error = sft(DIR, path).unwrap_err().to_string();
        assert!(error.contains("does not exist: give a file of rows"), "{error}");
    }
    for path in ["src/none", "/a/b", "./a/b", "../a/b", "a/b/c", "gpt2", "a/b@", "a/b:train"] {
        let error = sft(path, FILE).unwrap_err().to_string();
        assert!(error.contains("is not a folder"), "{error}");
        // The hint where a name on the Hub may have been meant.
        assert_eq!(error.contains("or hf://src/none"), path == "src/none", "{error}");
    }
    assert_eq!(sft("hf://src/none", FILE).unwrap().train.model, PathBuf::from("hf://src/none"));
}

#[test]
fn a_dash_is_standard_input_except_for_the_rows_of_a_run() {
    if cfg!(unix) {
        let Prompts::File(path, _) = generate(&["--prompts", "-"]).unwrap().prompts else { panic!() };
        assert_eq!(path, PathBuf::from("/dev/stdin"));
        assert_eq!(generate(&["--prompt", "-"]).unwrap().prompts, Prompts::StandardInput);
    }
    let flags = ["--model", DIR, "--dataset", "-", "--output-dir", "run"];
    let Command::Sft(args) = cli("sft", &flags) else { panic!() };
    mistake(args.plan(), &["--dataset", "resumed", "give a file"]);
}

#[test]
fn a_run_that_holds_an_input_of_the_new_run_is_not_overwritten() {
    let old = folder(&[("pairs.jsonl", ""), ("checkpoints/template.txt", "{{ prompt }}")]);
    let [run, pairs, template] = [".", "pairs.jsonl", "checkpoints/template.txt"]
        .map(|name| old.path().join(name).display().to_string());
    let overwriting = |command: &str, more: &[&str]| {
        let flags = ["--model", DIR, "--dataset", FILE, "--output-dir", &run, "--overwrite-output-dir"];
        match cli(command, &[&flags, more].concat()) {
            Command::Align(args) => args.plan().map(drop),
            Command::Dpo(args) => args.plan().map(drop),
            Command::Reward(args) => args.plan().map(drop),
            other => panic!("{other:?}"),
        }
    };
    let refusal = |path: &str, flag: &str| {
        format!("would delete {path}, which {flag} reads: give another --output-dir")
    };
    let rule = ["--judge", "rule", "--judge-rule", "longer"];
    for (command, judge) in [("align", &rule[..]), ("dpo", &[]), ("reward", &[])] {
        assert!(overwriting(command, judge).is_ok());
        let held_out = [judge, &["--eval-dataset", &pairs]].concat();
        mistake(overwriting(command, &held_out), &[&refusal(&pairs, "--eval-dataset")]);
    }
    let likelihood = ["--judge", "likelihood", "--judge-model", DIR, "--judge-template", &template];
    mistake(overwriting("align", &likelihood), &[&refusal(&template, "--judge-template")]);
    // Also of a member of an ensemble.
    let member = format!("judge: likelihood\njudge-model: '{DIR}'\njudge-template: '{template}'\n");
    let members = folder(&[("likelihood.yaml", &member), ("rule.yaml", "judge: rule\njudge-rule: longer\n")]);
    let [first, second] =
        ["likelihood.yaml", "rule.yaml"].map(|name| members.path().join(name).display().to_string());
    let ensemble = ["--judge", "ensemble", "--judge-member", &first, "--judge-member", &second];
    mistake(overwriting("align", &ensemble), &[&refusal(&template, "--judge-template")]);
}

#[cfg(feature = "http")]
#[test]
fn a_run_that_holds_a_file_of_a_judge_over_http_is_not_overwritten() {
    let old = folder(&[
        ("adapter/rating.jinja", "Rate {{ prompt }} {{ response }} from 1 to 10."),
        ("adapter/key", "sk-1"),
        ("adapter/cache/verdicts", ""),
    ]);
    let run = old.path().display().to_string();
    for (flag, name) in [
        ("--judge-rating-template", "adapter/rating.jinja"),
        ("--judge-key-file", "adapter/key"),
        ("--judge-cache", "adapter/cache"),
    ] {
        let path = old.path().join(name).display().to_string();
        let server = ["--judge", "openai", "--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m"];
        let flags = [&["--overwrite-output-dir", flag, &path], &server[..]].concat();
        let run_flags = ["--model", DIR, "--dataset", FILE, "--output-dir", &run];
        let Command::Align(args) = cli("align", &[&run_flags[..], &flags].concat()) else { panic!() };
        mistake(args.plan(), &[&format!("would delete {path}, which {flag} reads")]);
    }
}
