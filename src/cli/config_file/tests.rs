use std::fs;

use super::*;

/// The merged `arguments`, in which FILE stands for a file `name` with the content `text`.
fn merged(name: &str, text: &str, arguments: &[&str]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let arguments =
        ["oaif"].iter().chain(arguments).map(|a| if *a == "FILE" { path } else { a }.into()).collect();
    let out = merge(&add_flags(args::command()), arguments)?;
    let out = out.into_iter().map(|a| a.into_string().unwrap());
    Ok(out.map(|a| if a == path { "FILE".into() } else { a }).collect())
}

/// The flags that a YAML text adds to `oaif align --config FILE`.
fn added(text: &str) -> Vec<String> {
    let all = merged("a.yaml", text, &["align", "--config", "FILE"]).unwrap();
    assert_eq!(
        (&all[..2], &all[all.len() - 2..]),
        (&["oaif".into(), "align".into()][..], &["--config".into(), "FILE".into()][..])
    );
    all[2..all.len() - 2].to_vec()
}

#[track_caller]
fn mistake(name: &str, text: &str, command: &str, parts: &[&str]) {
    let error = merged(name, text, &[command, "--config", "FILE"]).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains(name) && !error.contains('\n'), "{error}");
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn yaml_toml_and_json_give_the_same_flags() {
    let expected = [
        "--beta=0.1",
        "--learning-rate=5e-7",
        "--loss=ipo",
        "--max-steps=-1",
        "--no-shuffle",
        "--switched-off=soft-labels",
    ];
    let yaml =
        "beta: 0.1\nlearning_rate: 5e-7\nloss: ipo\nno-shuffle: true\nsoft-labels: false\nmax-steps: -1\n";
    let toml = "beta = 0.1\nlearning_rate = 5e-7\nloss = 'ipo'\nno-shuffle = true\nsoft-labels = false\nmax-steps = -1\n";
    let json = r#"{"beta": 0.1, "learning_rate": 5e-7, "loss": "ipo", "no-shuffle": true, "soft-labels": false, "max-steps": -1}"#;
    for (name, text) in [("a.yaml", yaml), ("a.yml", yaml), ("a.toml", toml), ("a.json", json)] {
        let mut all = merged(name, text, &["align", "--config", "FILE"]).unwrap();
        let mut found: Vec<String> = all.drain(2..8).collect();
        // TOML tables are sorted.
        found.sort();
        let mut expected = expected.map(String::from).to_vec();
        expected.sort();
        assert_eq!(found, expected, "{name}");
        assert_eq!(all, ["oaif", "align", "--config", "FILE"], "{name}");
    }
}

#[test]
fn a_flag_takes_precedence_over_the_file() {
    let text = "beta: 0.1\nstop: [a, b]\nseed: 1\nno-shuffle: true\n";
    let arguments = ["align", "--beta", "0.5", "--config", "FILE", "--stop=c", "--no-shuffle"];
    let all = merged("a.yaml", text, &arguments).unwrap();
    assert_eq!(all[..3], ["oaif", "align", "--seed=1"]);
    assert_eq!(all[3..], arguments[1..]);
    // Also with underscores.
    let all = merged("a.yaml", "learning_rate: 1\n", &["align", "--learning_rate=2", "--config", "FILE"]);
    assert!(all.is_ok_and(|all| all.iter().filter(|a| a.starts_with("--learning")).count() == 1));
}

#[test]
fn required_flags_may_be_in_the_file() {
    let text = "model: m\ndataset: d\noutput-dir: o\njudge: rule\njudge-rule: 'contains:a, b'\n";
    let all = merged("a.yaml", text, &["align", "--config", "FILE"]).unwrap();
    assert!(add_flags(args::command()).try_get_matches_from(&all).is_ok(), "{all:?}");
    assert!(all.contains(&"--judge-rule=contains:a, b".into()));
}

#[test]
fn true_sets_a_switch_and_false_keeps_presets_from_setting_it() {
    let added_flags = added("no-shuffle: true\nuse_rslora: false\nbeta:\nslots: null\n");
    assert_eq!(added_flags, ["--no-shuffle", "--switched-off=use-rslora"]);
    // Flags whose value is optional.
    let on = added("profile: true\nresume-from-checkpoint: true\n");
    assert_eq!(on, ["--profile", "--resume-from-checkpoint"]);
    assert!(added("profile: false\nresume-from-checkpoint: false\n").is_empty());
    assert_eq!(added("profile: p.json"), ["--profile=p.json"]);
}

#[test]
fn a_list_is_repeated_or_joined_as_the_flag_takes_it() {
    assert_eq!(added("stop: ['a,b', \"\\n\", --]"), ["--stop=a,b", "--stop=\n", "--stop=--"]);
    assert_eq!(added("lora-target-modules: [q_proj, v_proj]"), ["--lora-target-modules=q_proj,v_proj"]);
    assert_eq!(added("lora-target-modules: all-linear"), ["--lora-target-modules=all-linear"]);
    assert!(added("stop: []\nlora-target-modules: []").is_empty());
    mistake("a.yaml", "beta: [1, 2]", "align", &["\"beta\"", "not a list"]);
}

#[test]
fn an_unknown_key_names_the_file_the_key_and_the_nearest_known_one() {
    mistake("a.yaml", "learning-rat: 1", "align", &["learning-rat", "did you mean \"learning-rate\"?"]);
    mistake("a.yaml", "learning_rte: 1", "align", &["learning_rte", "did you mean \"learning-rate\"?"]);
    mistake("a.toml", "xyzzy = 1", "sft", &["xyzzy", "oaif sft --help"]);
    mistake("a.json", "{\"config\": \"b.json\"}", "sft", &["\"config\""]);
    mistake("a.json", "{\"help\": true}", "sft", &["\"help\""]);
}

#[test]
fn resume_belongs_on_the_command_line() {
    mistake("a.yaml", "resume: run", "align", &["\"resume\"", "type --resume RUN"]);
    assert!(added("resume:\n").is_empty());
}

#[test]
fn keys_of_another_command_are_unknown() {
    mistake("a.yaml", "judge: rule", "dpo", &["\"judge\" is not a flag of oaif dpo"]);
    mistake("a.yaml", "beta: 1", "sft", &["\"beta\" is not a flag of oaif sft"]);
    mistake("a.yaml", "text-column: t", "align", &["\"text-column\" is not a flag of oaif align"]);
}

#[test]
fn other_trainers_names_are_known_here_too() {
    assert_eq!(added("model_name_or_path: m\nloss_type: ipo"), ["--model=m", "--loss=ipo"]);
}

#[test]
fn other_trainers_keys_are_ignored_or_refused_like_their_flags() {
    let text = "logging_steps: 10\nreport_to: none\nbf16: false\nlora_dropout: 0.0\nwarmup_ratio: 0.1\neval_strategy: 'no'\n";
    assert_eq!(added(text), ["--report-to=none", "--warmup-ratio=0.1"]);
    mistake("a.yaml", "bf16: true", "sft", &["\"bf16\"", "--base-dtype"]);
    // A flag of oaif, but of another command.
    mistake("a.yaml", "judge: rule", "dpo", &["\"judge\" is not a flag of oaif dpo"]);
}

#[test]
fn a_key_given_twice_is_a_mistake() {
    mistake("a.json", "{\"lora-r\": 1, \"lora_r\": 2}", "align", &["\"lora_r\"", "--lora-r a second time"]);
    mistake("a.yaml", "seed: 1\nseed: 2\n", "align", &["line 2", "duplicate", "`seed`"]);
    mistake("a.toml", "seed = 1\nseed = 2\n", "align", &["line 2", "duplicate"]);
}

#[test]
fn values_of_the_wrong_kind_are_a_mistake() {
    mistake("a.yaml", "no-shuffle: 3", "align", &["\"no-shuffle\" takes true or false, not 3"]);
    mistake("a.yaml", "seed: true", "align", &["\"seed\" takes a number or a text, not true"]);
    mistake("a.yaml", "lora:\n  r: 3\n", "align", &["\"lora\""]);
    mistake("a.yaml", "loss:\n  name: ipo\n", "align", &["\"loss\"", "without sections"]);
    mistake("a.toml", "[loss]\nname = 'ipo'\n", "align", &["\"loss\"", "without sections"]);
    mistake("a.yaml", "stop: [[a]]", "align", &["\"stop\""]);
}

#[test]
fn a_file_that_cannot_be_parsed_is_an_error_of_one_sentence() {
    mistake("a.yaml", "beta: [1", "align", &["line"]);
    mistake("a.toml", "seed = 1\nbeta 0.1\n", "align", &["line 2"]);
    mistake("a.json", "{\"beta\": }", "align", &["line 1"]);
    mistake("a.yaml", "- beta\n", "align", &["holds no keys"]);
    mistake("a.json", "3", "align", &["holds no keys"]);
    // Words of the file are not taken for the parser's advice, which is left out.
    let twice = "\"a, set b\": 1\n\"a, set b\": 2\n";
    mistake("a.yaml", twice, "align", &["line 2", "`a, set b`"]);
    let error = merged("a.yaml", twice, &["align", "--config", "FILE"]).unwrap_err().to_string();
    assert!(!error.contains("DuplicateKeyPolicy"), "{error}");
    mistake("a.ini", "beta = 1", "align", &[".yaml", ".toml", ".json"]);
    assert!(added("").is_empty() && added("# nothing\n").is_empty());
    let missing = merged("a.yaml", "", &["align", "--config", "missing.yaml"]).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing:?}");
}

#[test]
fn without_a_config_or_with_a_mistake_the_arguments_stay_as_they_are() {
    for arguments in [&["align", "--beta", "1"][..], &["--version"], &["align", "--no-such-flag"], &[]] {
        assert_eq!(merged("a.yaml", "", arguments).unwrap()[1..], *arguments);
    }
}
