//! What is said to a file or a folder that is not what it should be.

use super::*;

#[test]
fn adapter_is_the_folder_of_a_lora_adapter_and_gpu_a_gpu() {
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
fn a_run_given_as_an_adapter_or_a_model_says_what_was_meant() {
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

#[test]
fn what_is_on_the_hub_alone_is_told_with_the_command_that_gets_it() {
    let command = ["--model", "HuggingFaceTB/SmolLM2-135M", "--prompt", "x"];
    let Command::Generate(args) = cli("generate", &command) else { panic!() };
    let expected = "hf download HuggingFaceTB/SmolLM2-135M --local-dir SmolLM2-135M";
    mistake(args.plan(), &["is not a folder", expected, "--model SmolLM2-135M"]);
    let flags = ["--model", DIR, "--dataset", "trl-lib/tldr", "--output-dir", "run"];
    let Command::Sft(args) = cli("sft", &flags) else { panic!() };
    mistake(args.plan(), &["is not a file", "hf download trl-lib/tldr --repo-type dataset --local-dir tldr"]);
    // A file that was mistyped is not looked for elsewhere.
    for path in ["data/rows.jsonl", "src/rows", "/a/b", "./a/b", "a/b/c"] {
        let Command::Sft(args) = cli("sft", &["--model", DIR, "--dataset", path, "--output-dir", "run"])
        else {
            panic!()
        };
        let error = args.plan().unwrap_err().to_string();
        assert!(error.contains("is not a file") && !error.contains("hf download"), "{error}");
    }
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
