mod names;
mod paths;

use crate::train::run_dir::Resume;
use crate::train::{Advantage, OnlineLoss, PairChoice, PolicyFiles, ReferenceSync, TokenWeights};
use std::path::PathBuf;

use super::*;
use crate::bench::{Batch, Held, Shape, Source, Sweep};
use crate::gguf::GgufFormat;
use crate::judge::config::JudgeConfig;
use crate::judge::ensemble::Vote;
use crate::judge::likelihood::Normalise;
use crate::judge::llm::Orders;
#[cfg(feature = "http")]
use crate::judge::openai::OpenAi;
#[cfg(feature = "http")]
use crate::judge::queue::JudgeQueue;
use crate::model::FloatFormat;
use crate::model::LoraTargets;
use crate::optim::OptimiserKind;
use crate::preference::{LossOptions, Objective, PreferenceLoss};

/// A folder and a file that exist; their contents do not matter.
const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

fn cli(command: &str, flags: &[&str]) -> Command {
    let arguments = ["oaif", command].iter().chain(flags).map(Into::into).collect();
    super::super::parse(arguments).unwrap().unwrap().command
}

fn run_flags<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["--model", DIR, "--dataset", FILE, "--output-dir", "run"], flags].concat()
}

fn align(flags: &[&str]) -> Result<AlignPlan> {
    // A test can give its own judge.
    let own_judge = flags.contains(&"--judge");
    let judge: &[&str] = if own_judge { &[] } else { &["--judge", "rule", "--judge-rule", "shorter"] };
    match cli("align", &run_flags(&[flags, judge].concat())) {
        Command::Align(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

fn dpo(flags: &[&str]) -> Result<DpoPlan> {
    match cli("dpo", &run_flags(flags)) {
        Command::Dpo(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

fn sft(flags: &[&str]) -> Result<SftPlan> {
    match cli("sft", &run_flags(flags)) {
        Command::Sft(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

fn generate(flags: &[&str]) -> Result<GeneratePlan> {
    match cli("generate", &[&["--model", DIR], flags].concat()) {
        Command::Generate(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

fn judge(flags: &[&str]) -> Result<JudgePlan> {
    match cli("judge", &[&["--input", FILE], flags].concat()) {
        Command::Judge(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

/// A folder of these files; an empty text stands for `{}`.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, if text.is_empty() { "{}" } else { text }).unwrap();
    }
    dir
}

/// The text of clap's usage error for the flags.
fn usage_error(command: &str, flags: &[&str]) -> String {
    let arguments = ["oaif", command].iter().chain(flags).map(Into::into).collect();
    let error = super::super::parse(arguments).unwrap().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

/// Checks that planning fails with a configuration error, one line that contains all `parts`.
#[track_caller]
fn mistake<T: std::fmt::Debug>(plan: Result<T>, parts: &[&str]) {
    let error = plan.unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
}

#[test]
fn the_definitions_of_all_flags_are_consistent() {
    super::super::config_file::add_flags(command()).debug_assert();
}

#[test]
fn each_training_command_has_its_own_defaults() {
    let plan = align(&[]).unwrap();
    let options = &plan.train.options;
    assert_eq!((options.learning_rate, options.batch_size, options.epochs), (1e-5, 16, 1.0));
    assert_eq!((options.accumulation, options.max_steps, options.warmup_steps), (1, None, 0));
    assert_eq!((options.save_steps, options.save_total_limit, options.seed), (Some(500), None, 42));
    assert_eq!((options.max_grad_norm, options.shuffle), (1.0, true));
    assert!(options.lora.is_none() && options.adapter.is_none() && options.resume.is_none());
    let adamw = OptimiserKind::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    assert_eq!(options.optimiser, adamw);
    let online = &plan.align;
    assert_eq!((online.sampling.temperature, online.max_new_tokens, online.num_samples), (0.9, 64, 2));
    assert_eq!((online.sampling.top_k, online.sampling.top_p, online.sampling.min_p), (0, 1.0, 0.0));
    assert_eq!(online.loss, PreferenceLoss::Dpo { beta: 0.1 }.into());
    assert_eq!(online.max_invalid_ratio, 0.5);
    assert!(!online.soft_labels && online.stop.is_empty() && online.slots.is_none());

    let plan = dpo(&[]).unwrap();
    assert_eq!((plan.train.options.learning_rate, plan.train.options.batch_size), (1e-5, 8));
    assert!(plan.dpo.append_eos);
    let plan = sft(&[]).unwrap();
    assert_eq!((plan.train.options.learning_rate, plan.train.options.batch_size), (2e-5, 8));
    assert!(plan.append_eos);
}

#[test]
fn lora_has_a_higher_learning_rate_and_alpha_twice_the_rank() {
    let plan = dpo(&["--lora-r", "8"]).unwrap();
    let lora = plan.train.options.lora.unwrap();
    assert_eq!((lora.rank, lora.alpha, lora.rank_stabilised), (8, 16.0, false));
    assert_eq!(lora.targets, LoraTargets::AllLinear);
    assert_eq!(plan.train.options.learning_rate, 5e-5);
    assert_eq!(sft(&["--lora-r", "8"]).unwrap().train.options.learning_rate, 2e-4);
    // An existing LoRA adapter that is trained further has the same default.
    let given = folder(&[("adapter_config.json", "")]);
    let given = given.path().to_str().unwrap();
    assert_eq!(sft(&["--adapter", given]).unwrap().train.options.learning_rate, 2e-4);
    assert_eq!(sft(&["--lora-r", "8", "--learning-rate", "1"]).unwrap().train.options.learning_rate, 1.0);
}

#[test]
fn target_modules_are_a_list_with_commas_or_spaces() {
    for list in [&["q_proj,v_proj"][..], &["q_proj", "v_proj"]] {
        let flags = [&["--lora-r", "4", "--lora-target-modules"], list, &["--use-rslora"]].concat();
        let lora = dpo(&flags).unwrap().train.options.lora.unwrap();
        assert_eq!((lora.targets.to_string().as_str(), lora.rank_stabilised), ("q_proj,v_proj", true));
    }
    mistake(dpo(&["--lora-r", "4", "--lora-target-modules", "query"]), &["query", "q_proj", "all-linear"]);
}

#[test]
fn flags_of_an_adapter_that_is_not_trained_are_a_mistake() {
    let given = folder(&[("adapter_config.json", "")]);
    let given = given.path().to_str().unwrap();
    for flags in [&["--lora-alpha", "16"][..], &["--lora-target-modules", "q_proj"], &["--use-rslora"]] {
        mistake(dpo(flags), &[flags[0], "needs --lora-r"]);
        mistake(dpo(&[flags, &["--adapter", given]].concat()), &[flags[0], "--adapter"]);
        // An explicit --lora-r 0: all weights.
        assert!(dpo(&[flags, &["--lora-r", "0"]].concat()).unwrap().train.options.lora.is_none());
    }
    mistake(dpo(&["--lora-r", "8", "--adapter", given]), &["--lora-r", "--adapter"]);
    mistake(dpo(&["--lora-r", "8", "--lora-alpha", "0"]), &["--lora-alpha", "0 is not a positive number"]);
}

#[test]
fn numbers_out_of_range_name_the_flag_and_the_range() {
    for (flag, value, expected) in [
        ("--learning-rate", "-0.1", "a positive number"),
        ("--learning-rate", "0", "a positive number"),
        ("--learning-rate", "NaN", "a positive number"),
        ("--learning-rate", "inf", "a positive number"),
        ("--num-train-epochs", "0", "a positive number"),
        ("--max-steps", "0", "1 or more"),
        ("--max-steps", "-2", "1 or more"),
        ("--per-device-train-batch-size", "0", "1 or more"),
        ("--gradient-accumulation-steps", "0", "1 or more"),
        ("--save-total-limit", "0", "1 or more"),
        ("--max-prompt-length", "0", "1 or more"),
        ("--max-length", "0", "1 or more"),
        ("--max-grad-norm", "-1", "0 (no clipping)"),
        ("--max-grad-norm", "nan", "0 (no clipping)"),
        ("--adam-beta1", "1", "below 1"),
        ("--adam-beta2", "-0.1", "at least 0"),
        ("--adam-epsilon", "0", "a positive number"),
        ("--weight-decay", "-0.1", "0 or a positive number"),
        ("--max-new-tokens", "0", "1 or more"),
        ("--num-samples", "1", "2 or more"),
        ("--slots", "0", "1 or more"),
        ("--top-p", "0", "above 0 and at most 1"),
        ("--top-p", "1.5", "above 0 and at most 1"),
        ("--top-p", "nan", "above 0 and at most 1"),
        ("--min-p", "-0.5", "between 0 and 1"),
        ("--max-invalid-ratio", "1.5", "between 0 and 1"),
        ("--async-level", "65", "at most 64"),
        // With a judge inside this process.
        ("--async-level", "1", "a judge outside the program"),
    ] {
        mistake(align(&[flag, value]), &[flag, expected]);
    }
    mistake(align(&["--temperature", "-1"]), &["temperature", "-1"]);
    mistake(align(&["--temperature", "nan"]), &["temperature", "NaN"]);
    mistake(align(&["--beta", "-0.1"]), &["beta", "-0.1"]);
    mistake(generate(&["--prompt", "x", "--num-samples", "0"]), &["--num-samples", "1 or more"]);
}

#[test]
fn a_text_instead_of_a_number_is_a_usage_error() {
    for (flag, value) in
        [("--learning-rate", "fast"), ("--seed", "-1"), ("--seed", "4294967296"), ("--save-steps", "1.5")]
    {
        let text = usage_error("align", &run_flags(&[flag, value]));
        assert!(text.contains(flag) && text.contains(value), "{text}");
    }
}

#[test]
fn zero_switches_clipping_and_periodic_checkpoints_off() {
    let options = dpo(&["--max-grad-norm", "0", "--save-steps", "0"]).unwrap().train.options;
    assert_eq!((options.max_grad_norm, options.save_steps), (0.0, None));
}

#[test]
fn max_steps_of_minus_one_means_the_epochs() {
    let steps = |value| dpo(&["--max-steps", value]).unwrap().train.options.max_steps;
    assert_eq!((steps("-1"), steps("7")), (None, Some(7)));
}

#[test]
fn losses_are_known_by_our_names_and_by_trls() {
    let loss = |flags: &[&str]| dpo(flags).unwrap().dpo.loss;
    assert_eq!(loss(&["--loss", "sigmoid", "--beta", "0.5"]), PreferenceLoss::Dpo { beta: 0.5 }.into());
    assert_eq!(loss(&["--loss-type", "hinge"]), PreferenceLoss::Slic { beta: 0.002 }.into());
    let ipo = PreferenceLoss::Ipo { beta: 1.0, average_tokens: true };
    assert_eq!(loss(&["--loss", "ipo", "--ipo-average-tokens"]), ipo.into());
    mistake(dpo(&["--loss", "dop"]), &["loss", "dop", "slic"]);
    mistake(dpo(&["--ipo-average-tokens"]), &["ipo-average-tokens"]);
}

#[test]
fn losses_are_added_up_with_weights() {
    let dpo_sft = Objective {
        losses: vec![(PreferenceLoss::Dpo { beta: 0.1 }, 1.0), (PreferenceLoss::Sft, 0.2)],
        ..PreferenceLoss::Sft.into()
    };
    for names in [&["--loss", "dpo,sft"][..], &["--loss_type", "sigmoid", "sft"]] {
        let plan = dpo(&[names, &["--loss_weights", "1.0,0.2"]].concat()).unwrap();
        assert_eq!(plan.dpo.loss, dpo_sft);
        assert_eq!(plan.train.config["loss-weights"], serde_json::json!([1.0, 0.2]));
    }
    let names = dpo(&["--loss", "dpo,sft"]).unwrap().train.config["loss"].clone();
    assert_eq!(names, "dpo,sft");
    mistake(dpo(&["--loss", "dpo,sft", "--loss-weights", "1"]), &["loss-weights", "for each"]);
}

#[test]
fn options_of_losses_are_refused_by_losses_that_do_not_use_them() {
    let plan = dpo(&["--loss", "simpo", "--beta", "2", "--simpo-gamma", "1.6"]).unwrap();
    assert_eq!(plan.dpo.loss, PreferenceLoss::Simpo { beta: 2.0, gamma: 1.6 }.into());
    let plan = dpo(&["--loss", "exo_pair"]).unwrap();
    assert_eq!(plan.train.config["label-smoothing"], 0.001);
    let plan = dpo(&["--ld_alpha", "0.3", "--rpo_alpha", "1", "--use_weighting", "--label_smoothing", "0.1"]);
    let loss = plan.unwrap().dpo.loss;
    assert_eq!((loss.ld_alpha, loss.rpo_alpha), (Some(0.3), Some(1.0)));
    assert_eq!((loss.use_weighting, loss.label_smoothing), (true, 0.1));
    mistake(dpo(&["--simpo-gamma", "1"]), &["simpo-gamma", "the loss simpo"]);
    mistake(dpo(&["--loss", "aot", "--use-weighting"]), &["use-weighting", "aot"]);
    mistake(align(&["--loss", "aot", "--soft-labels"]), &["soft-labels", "aot"]);
    mistake(dpo(&["--loss", "xpo"]), &["--loss", "xpo", "oaif align"]);
    assert_eq!(align(&["--loss", "xpo", "--xpo-alpha", "0.5"]).unwrap().train.config["xpo-alpha"], 0.5);
    mistake(align(&["--loss", "dpo", "--xpo-alpha", "0.5"]), &["xpo-alpha", "the loss xpo"]);
    assert!(align(&["--loss", "ipo", "--soft-labels"]).is_ok());
}

#[test]
fn a_policy_gradient_refuses_flags_of_pairs() {
    for loss in ["rloo", "grpo"] {
        for flags in [&["--soft-labels"][..], &["--pairs", "all"], &["--min-confidence", "0.9"]] {
            let of_pairs = [&["--loss", loss], flags].concat();
            mistake(align(&of_pairs), &[flags[0], "is for losses on pairs", loss, "leave it out"]);
            assert!(align(flags).is_ok());
        }
        assert!(align(&["--loss", loss, "--pairs", "best-worst", "--min-confidence", "0.5"]).is_ok());
    }
}

#[test]
fn help_of_judges_names_flags_that_all_their_commands_have() {
    let judges = flags_of_judges();
    for command in command().get_subcommands().filter(|c| ["align", "judge", "eval"].contains(&c.get_name()))
    {
        let longs: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        for arg in
            command.get_arguments().filter(|arg| judges.iter().any(|flag| arg.get_long() == Some(flag)))
        {
            let values = arg.get_possible_values();
            let helps = values.iter().filter_map(|value| value.get_help()).chain(arg.get_help());
            let text = helps.map(|help| help.to_string()).collect::<Vec<_>>().join(" ");
            for flag in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
                let name = flag.strip_prefix("--").unwrap_or_default();
                assert!(name.is_empty() || longs.contains(&name), "{}: {flag}", command.get_name());
            }
        }
    }
}

#[test]
fn every_option_of_a_loss_is_a_flag_of_both_commands() {
    for command in command().get_subcommands().filter(|c| ["align", "dpo"].contains(&c.get_name())) {
        for (name, _) in &LossOptions::NAMES {
            assert!(command.get_arguments().any(|arg| arg.get_long() == Some(name)), "{name}");
        }
    }
}

#[test]
fn optimisers_and_schedules_are_chosen_by_name() {
    let flags = ["--optim", "adafactor", "--weight-decay", "0.1", "--adam-beta1", "0.5"];
    let plan = dpo(&flags).unwrap();
    assert_eq!(plan.train.options.optimiser, OptimiserKind::Adafactor { weight_decay: 0.1 });
    for name in ["linear", "cosine", "constant", "constant_with_warmup", "constant-with-warmup"] {
        let plan = dpo(&["--lr-scheduler-type", name]).unwrap().train;
        assert_eq!(plan.options.schedule.name(), name.replace('-', "_"));
        assert_eq!(plan.config["lr-scheduler-type"], name);
    }
    assert!(usage_error("dpo", &run_flags(&["--optim", "sgd"])).contains("adafactor"));
}

#[test]
fn a_value_that_is_none_of_a_flags_values_is_a_usage_error_that_lists_them() {
    for (command, flag, value, listed) in [
        ("align", "--pairs", "worst", "best-worst, all"),
        ("align", "--scale-rewards", "batch", "group, none"),
        ("align", "--token-weights", "tokens", "token, response, sum"),
        ("sft", "--report-to", "wandb", "tensorboard, none"),
        ("dpo", "--lr-scheduler-type", "linaer", "linear, cosine, constant, constant_with_warmup"),
        ("dpo", "--base-dtype", "float8", "auto, f32, bf16, f16, q8, q4"),
        ("export", "--dtype", "f8", "float32, bfloat16, float16, q8_0"),
        ("bench", "--sweep", "token", "tokens, context, sharing"),
    ] {
        let error = usage_error(command, &[flag, value]);
        assert!(error.contains(flag) && error.contains(&format!("[possible values: {listed}]")), "{error}");
    }
}

#[test]
fn chosen_values_are_written_to_the_configuration_by_their_names() {
    let pairs = align(&["--pairs", "all", "--report-to", "tensorboard", "--dtype", "float16"]).unwrap();
    let config = &pairs.train.config;
    assert_eq!(
        (&config["pairs"], &config["report-to"], &config["base-dtype"]),
        (&"all".into(), &"tensorboard".into(), &"float16".into())
    );
    assert!(pairs.train.options.tensorboard && pairs.align.pairs == PairChoice::All);
    assert_eq!(pairs.train.options.base_dtype, Some(FloatFormat::F16.into()));
    assert_eq!((&config["scale-rewards"], &config["token-weights"]), (&Value::Null, &Value::Null));
    let usual = align(&["--loss", "grpo"]).unwrap().train.config;
    assert_eq!(
        (&usual["scale-rewards"], &usual["token-weights"], &usual["report-to"], &usual["base-dtype"]),
        (&"group".into(), &"token".into(), &"none".into(), &"auto".into())
    );
    let plain = align(&["--loss", "grpo", "--scale-rewards", "none", "--token-weights", "response"]).unwrap();
    assert_eq!(plain.train.config["scale-rewards"], "none");
    let OnlineLoss::Policy(loss) = plain.align.loss else { panic!() };
    assert_eq!((loss.advantage, loss.tokens), (Advantage::Centred, TokenWeights::Response));
}

#[test]
fn an_export_takes_the_names_of_formats_that_models_and_llama_cpp_use() {
    let export = |flags: &[&str]| match cli("export", &[&["--model", DIR], flags].concat()) {
        Command::Export(args) => args.plan(),
        other => panic!("{other:?}"),
    };
    let format = |flags: &[&str]| export(flags).unwrap().format;
    assert_eq!(format(&["--output", "merged"]), ExportFormat::Folder(FloatFormat::F32));
    for name in ["bfloat16", "bf16", "torch.bfloat16"] {
        let expected = ExportFormat::Folder(FloatFormat::Bf16);
        assert_eq!(format(&["--output", "merged", "--dtype", name]), expected);
        let expected = ExportFormat::Gguf(GgufFormat::Bf16);
        assert_eq!(format(&["--output", "merged.gguf", "--dtype", name]), expected);
    }
    for name in ["q8_0", "Q8_0"] {
        let expected = ExportFormat::Gguf(GgufFormat::Q8_0);
        assert_eq!(format(&["--output", "merged.gguf", "--dtype", name]), expected);
        mistake(export(&["--output", "merged", "--dtype", name]), &["--dtype", "q8_0", "ends in .gguf"]);
    }
    for name in ["model.safetensors", "pytorch_model.BIN"] {
        mistake(export(&["--output", name]), &["--output", name, "is named like a file: give a folder"]);
    }
    assert!(export(&["--output", "step-1.pt/"]).is_ok());
}

#[test]
fn resuming_takes_the_last_checkpoint_unless_one_is_given() {
    let resume = |flags: &[&str]| dpo(flags).unwrap().train.options.resume;
    assert_eq!(resume(&["--resume-from-checkpoint", "--no-shuffle"]), Some(Resume::Last));
    assert_eq!(resume(&["--resume-from-checkpoint", "last"]), Some(Resume::Last));
    let path = Resume::Path("a/step-000003".into());
    assert_eq!(resume(&["--resume-from-checkpoint", "a/step-000003"]), Some(path));
    let both = dpo(&["--resume-from-checkpoint", "--overwrite-output-dir"]);
    mistake(both, &["--overwrite-output-dir", "--resume-from-checkpoint"]);
    assert!(dpo(&["--overwrite-output-dir"]).unwrap().train.options.overwrite);
}

#[test]
fn a_profile_is_written_to_the_run_folder_unless_a_file_is_given() {
    let plan = |flags: &[&str]| dpo(flags).unwrap().train;
    let off = plan(&[]);
    assert_eq!((off.trace, off.gpu.options.profile), (None, false));
    let on = plan(&["--profile", "--dry-run"]);
    assert_eq!((on.trace, on.gpu.options.profile, on.dry_run), (Some("run/trace.json".into()), true, true));
    assert_eq!(plan(&["--profile", "t.json"]).trace, Some("t.json".into()));
}

fn bench(flags: &[&str]) -> Result<BenchPlan> {
    match cli("bench", flags) {
        Command::Bench(args) => args.plan(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bench_runs_all_suites_or_those_given() {
    let all = bench(&[]).unwrap();
    assert_eq!((all.suites.len(), all.runs, all.form), (6, 5, Form::Table));
    assert!(matches!(all.model, Source::Random(shape) if shape.name == Shape::names()[0]));
    let step = bench(&["step", "--sweep", "context", "--shape", "c192", "--runs", "7", "--json"]).unwrap();
    assert_eq!((step.suites, step.runs, step.form), (vec![Suite::Step], 7, Form::Json));
    assert_eq!(step.sweep, Some(Sweep::Context));
    let two = bench(&["decode", "passes", "--filter", "Sft", "--format", "csv"]).unwrap();
    assert_eq!((two.suites, two.form), (vec![Suite::Passes, Suite::Decode], Form::Csv));
    assert_eq!(two.filter, "sft");
    mistake(bench(&["decode", "--sweep", "context"]), &["--sweep", "oaif bench step"]);
    mistake(bench(&["--shape", "c182"]), &["shape: ", "did you mean \"c192\""]);
    assert!(usage_error("bench", &["--json", "--format", "csv"]).contains("--format"));
}

#[test]
fn bench_takes_sizes_lengths_and_formats() {
    let plan =
        bench(&["--batch", "1x128,8 x 512", "--prefill", "64,256", "--decode", "1024", "--sequences", "2,4"]);
    let plan = plan.unwrap();
    assert_eq!(plan.batches.iter().map(Batch::to_string).collect::<Vec<_>>(), ["1 x 128", "8 x 512"]);
    assert_eq!((plan.prefill, plan.decode, plan.sequences), (vec![64, 256], Some(vec![1024]), vec![2, 4]));
    assert_eq!((plan.trained, plan.sampled), (Held::Trained, Held::Frozen(None)));
    let half = Some(FloatFormat::F16.into());
    let plan = bench(&["decode", "--dtype", "f16"]).unwrap();
    assert_eq!((plan.trained, plan.sampled), (Held::Trained, Held::Frozen(half)));
    let plan = bench(&["step", "--lora-r", "16", "--dtype", "float16"]).unwrap();
    assert_eq!(plan.trained, Held::Lora { rank: 16, format: half });
    let plan = bench(&["--shape", "llama-3.2-1b", "--layers", "2"]).unwrap();
    assert!(matches!(plan.model, Source::Random(shape) if shape.name.contains("2 of its layers")));
    mistake(bench(&["step", "--batch", "8"]), &["--batch", "8 is not sequences by tokens, such as 8x512"]);
    mistake(bench(&["step", "--batch", "1x8", "--sweep", "tokens"]), &["--sweep", "--batch"]);
    mistake(bench(&["prefill", "--prefill", "0"]), &["--prefill", "1 or more"]);
    mistake(bench(&["step", "--prefill", "8"]), &["--prefill", "belongs to oaif bench prefill"]);
    mistake(bench(&["step", "--decode", "8"]), &["--decode", "belongs to oaif bench decode"]);
    mistake(bench(&["step", "--sequences", "8"]), &["--sequences", "belongs to oaif bench decode"]);
    mistake(bench(&["decode", "--batch", "8x8"]), &["--batch", "belongs to oaif bench passes and step"]);
    mistake(bench(&["step", "--dtype", "f16"]), &["--base-dtype", "to all with --lora-r"]);
    mistake(bench(&["kernels", "--lora-r", "8"]), &["--lora-r", "belongs to oaif bench passes"]);
    mistake(bench(&["--layers", "0"]), &["--layers", "1 or more"]);
    mistake(bench(&["--compare", "missing.jsonl"]), &["--compare", "missing.jsonl does not exist"]);
}

#[test]
fn a_model_is_a_folder_and_data_a_file() {
    let flags = |model, data| ["--model", model, "--dataset", data, "--output-dir", "run"];
    let plan = |model, data| match cli("sft", &flags(model, data)) {
        Command::Sft(args) => args.plan(),
        other => panic!("{other:?}"),
    };
    mistake(plan("someone", FILE), &["--model", "someone is not a folder"]);
    mistake(plan(FILE, FILE), &["--model", FILE]);
    mistake(plan(DIR, "missing.jsonl"), &["--dataset", "missing.jsonl does not exist: give a file of rows"]);
    mistake(plan(DIR, DIR), &["--dataset", "is a folder: give a file"]);
    assert!(usage_error("sft", &[]).contains("--model <DIR|NAME>"));
}

#[test]
fn columns_can_be_renamed() {
    let columns = dpo(&["--prompt-column", "a", "--chosen-column", "b", "--rejected-column", "c"]);
    let columns = columns.unwrap().train.columns;
    assert_eq!((&*columns.prompt, &*columns.chosen, &*columns.rejected), ("a", "b", "c"));
    let columns = sft(&["--completion-column", "d", "--text-column", "e"]).unwrap().train.columns;
    assert_eq!((&*columns.prompt, &*columns.completion, &*columns.text), ("prompt", "d", "e"));
}

#[test]
fn switches_that_begin_with_no_turn_things_off() {
    let plan = dpo(&["--no-shuffle", "--no-append-eos"]).unwrap();
    assert!(!plan.train.options.shuffle && !plan.dpo.append_eos);
    assert!(!sft(&["--no-append-eos"]).unwrap().append_eos);
}

#[test]
fn reference_sync_has_the_flags_and_defaults_of_trl() {
    assert_eq!(dpo(&[]).unwrap().train.options.reference_sync, None);
    let usual = dpo(&["--sync_ref_model", "true"]).unwrap().train;
    assert_eq!(usual.options.reference_sync, Some(ReferenceSync { alpha: 0.6, steps: 512 }));
    assert_eq!(
        (&usual.config["ref-model-mixup-alpha"], &usual.config["ref-model-sync-steps"]),
        (&0.6.into(), &512.into())
    );
    let given = ["--sync-ref-model", "--ref-model-mixup-alpha", "1", "--ref-model-sync-steps", "8"];
    let sync = align(&given).unwrap().train.options.reference_sync;
    assert_eq!(sync, Some(ReferenceSync { alpha: 1.0, steps: 8 }));
    let wrong = ["--sync-ref-model", "--ref-model-mixup-alpha", "0"];
    mistake(align(&wrong), &["--ref-model-mixup-alpha", "above 0"]);
}

#[test]
fn aligning_without_a_judge_lists_the_judges() {
    let Command::Align(args) = cli("align", &run_flags(&[])) else { panic!() };
    mistake(
        args.plan(),
        &["--judge", "llm", "likelihood", "--judge-model", "--judge-rule", "--judge-command"],
    );
    assert!(usage_error("align", &run_flags(&["--judge", "oracle"])).contains("likelihood"));
}

#[test]
fn a_judge_without_its_required_flag_is_an_error_that_names_the_flag() {
    for (kind, needed) in [
        ("llm", "--judge-model"),
        ("likelihood", "--judge-model"),
        ("rule", "--judge-rule"),
        ("command", "--judge-command"),
    ] {
        mistake(judge(&["--judge", kind]), &[&format!("--judge {kind}: needs {needed}")]);
    }
}

#[test]
fn the_judges_of_an_ensemble_are_read_from_files_of_flags() {
    let dir = folder(&[
        ("rule.toml", "judge = 'rule'\njudge-rule = 'longer'"),
        ("command.json", r#"{"judge": "command", "judge-command": "cat", "judge_timeout": 5}"#),
        ("person.yaml", "judge: human"),
        ("none.yaml", "judge-rule: longer"),
    ]);
    let ensemble = |members: &[&str], flags: &[&str]| {
        let members: Vec<String> = members
            .iter()
            .map(|name| format!("--judge-member={}", dir.path().join(name).display()))
            .collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        judge(&[&["--judge", "ensemble"], members.as_slice(), flags].concat())
    };
    let JudgeConfig::Ensemble { vote, members } =
        ensemble(&["rule.toml", "command.json"], &[]).unwrap().judge
    else {
        panic!()
    };
    assert_eq!(vote, Vote::Mean);
    assert!(matches!(members[..], [JudgeConfig::Rule(_), JudgeConfig::Command(_)]));
    let majority = ensemble(&["rule.toml", "person.yaml"], &["--judge-vote", "majority"]).unwrap().judge;
    assert!(majority.is_remote() && majority.desk().is_some());
    assert!(matches!(majority, JudgeConfig::Ensemble { vote: Vote::Majority, .. }));
    mistake(ensemble(&["rule.toml"], &[]), &["--judge ensemble", "twice or more"]);
    mistake(ensemble(&["rule.toml", "none.yaml"], &[]), &["none.yaml", "--judge"]);
    mistake(ensemble(&["person.yaml", "person.yaml"], &[]), &["--judge-member", "one terminal"]);
    mistake(
        ensemble(&["rule.toml", "person.yaml"], &["--judge-rule", "longer"]),
        &["--judge-rule", "is not used by --judge ensemble"],
    );
}

#[test]
fn a_flag_of_another_judge_is_a_mistake() {
    for (flag, value) in [
        ("--judge-model", DIR),
        ("--judge-template", "helpfulness"),
        ("--judge-instruction", "be kind"),
        ("--judge-normalise", "token"),
        ("--judge-command", "cat"),
        ("--judge-timeout", "5"),
        ("--judge-orders", "one"),
    ] {
        let flags = ["--judge", "rule", "--judge-rule", "shorter", flag, value];
        mistake(judge(&flags), &[flag, "is not used by --judge rule: leave it out, or use --judge "]);
    }
    let flags = ["--judge", "likelihood", "--judge-model", DIR, "--judge-orders", "one"];
    mistake(judge(&flags), &["--judge-orders", "not used by --judge likelihood", "use --judge llm"]);
}

#[test]
fn an_llm_judge_takes_a_template_by_name_or_file() {
    let llm = |flags: &[&str]| judge(&[&["--judge", "llm", "--judge-model", DIR], flags].concat());
    let JudgeConfig::Llm { model, orders, .. } = llm(&[]).unwrap().judge else { panic!() };
    assert_eq!((model, orders), (PathBuf::from(DIR).into(), Orders::Both));
    let one = llm(&["--judge-template", "harmlessness", "--judge-orders", "one"]).unwrap().judge;
    assert!(matches!(one, JudgeConfig::Llm { orders: Orders::One, .. }));
    let JudgeConfig::Llm { model, .. } = llm(&["--judge-max-length", "4096"]).unwrap().judge else {
        panic!()
    };
    assert_eq!(model.max_length, 4096);
    mistake(llm(&["--judge-max-length", "0"]), &["--judge-max-length", "1 or more"]);
    mistake(llm(&["--judge-template", "helpfullness"]), &["helpfullness", "\"helpfulness\""]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine");
    std::fs::write(&path, "{{ instruction }} {{ prompt }} {{ response_1 }} {{ response_2 }}").unwrap();
    let path = path.to_str().unwrap();
    assert!(llm(&["--judge-template", path, "--judge-instruction", "- be kind"]).is_ok());
    assert!(matches!(llm(&["--judge-template", "missing.txt"]), Err(Error::Io { .. })));
    mistake(judge(&["--judge", "llm", "--judge-model", "no-folder"]), &["--judge-model", "no-folder"]);
}

#[test]
fn a_likelihood_template_is_a_text_or_a_file() {
    let likelihood = |flags: &[&str]| {
        let plan = judge(&[&["--judge", "likelihood", "--judge-model", DIR], flags].concat())?;
        match plan.judge {
            JudgeConfig::Likelihood { template, instruction, normalise, .. } => {
                Ok((template, instruction, normalise))
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(likelihood(&[]).unwrap(), ("{{ prompt }}".into(), String::new(), Normalise::Sum));
    let text = "{{ instruction }}: {{ prompt }}";
    let flags = ["--judge-template", text, "--judge-instruction", "Kindly", "--judge-normalise", "character"];
    assert_eq!(likelihood(&flags).unwrap(), (text.into(), "Kindly".into(), Normalise::Character));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("template.txt");
    std::fs::write(&path, text).unwrap();
    assert_eq!(likelihood(&["--judge-template", path.to_str().unwrap()]).unwrap().0, text);
    mistake(
        likelihood(&["--judge-template", "missing.txt"]),
        &["missing.txt", "neither a file", "{{ prompt }}"],
    );
}

#[test]
fn rules_and_commands_are_checked_before_anything_runs() {
    mistake(judge(&["--judge", "rule", "--judge-rule", "contians:x"]), &["contians", "contains:REGEX"]);
    assert!(matches!(judge(&["--judge", "rule", "--judge-rule", "contains:("]), Err(Error::Config { .. })));
    assert!(judge(&["--judge", "command", "--judge-command", "cat", "--judge-timeout", "0.5"]).is_ok());
    for seconds in ["0", "-1", "nan", "1e300"] {
        let flags = ["--judge", "command", "--judge-command", "cat", "--judge-timeout", seconds];
        mistake(judge(&flags), &["--judge-timeout", "above 0"]);
    }
    mistake(judge(&["--judge", "command", "--judge-command", " "]), &["judge-command: ", "empty"]);
}

#[test]
fn greedy_sampling_is_refused_by_align_and_accepted_by_generate() {
    mistake(align(&["--temperature", "0"]), &["--temperature", "compare"]);
    let plan =
        generate(&["--prompt", "Once", "--temperature", "0", "--json", "--max-new-tokens", "3"]).unwrap();
    assert_eq!((plan.sampling.params.temperature, plan.sampling.max_new_tokens, plan.json), (0.0, 3, true));
}

#[test]
fn generate_samples_one_response_at_temperature_1_by_default() {
    let plan = generate(&["--prompt", "- Once", "--stop", "--", "--stop", "\n"]).unwrap();
    assert_eq!(plan.prompts, Prompts::Text("- Once".into()));
    assert_eq!((plan.sampling.params.temperature, plan.num_samples, plan.seed), (1.0, 1, 42));
    assert_eq!(plan.sampling.stop, ["--", "\n"]);
    assert!(!plan.json && plan.output.is_none());
    assert!(generate(&["--prompt", "x", "--output", "o.jsonl"]).unwrap().json);
    mistake(generate(&["--prompt", "x", "--stop", ""]), &["--stop", "empty"]);
}

#[test]
fn generate_takes_either_a_prompt_or_a_file_of_prompts() {
    mistake(generate(&[]), &["--prompt TEXT", "--prompts FILE"]);
    let both = usage_error("generate", &["--model", DIR, "--prompt", "x", "--prompts", FILE]);
    assert!(both.contains("cannot be used with"), "{both}");
    let Prompts::File(path, columns) =
        generate(&["--prompts", FILE, "--prompt-column", "q"]).unwrap().prompts
    else {
        panic!()
    };
    assert_eq!((path, &*columns.prompt), (PathBuf::from(FILE), "q"));
}

#[test]
fn scoring_takes_a_model_with_an_adapter_and_files() {
    let given = folder(&[("adapter_config.json", "")]);
    let given = given.path().to_str().unwrap();
    let flags = ["--model", DIR, "--adapter", given, "--input", FILE, "--output", "out.jsonl"];
    let Command::Score(args) = cli("score", &flags) else { panic!() };
    let plan = args.plan().unwrap();
    assert_eq!(plan.policy, PolicyFiles { model: DIR.into(), adapter: Some(given.into()) });
    assert_eq!((plan.input, plan.output), (PathBuf::from(FILE), Some("out.jsonl".into())));
}

#[test]
fn unknown_flags_and_commands_name_the_nearest_known_one() {
    assert!(usage_error("align", &["--learning-rat", "1"]).contains("--learning-rate"));
    assert!(usage_error("algin", &[]).contains("align"));
    assert!(usage_error("sft", &run_flags(&["--beta", "1"])).contains("--beta"));
}

#[test]
fn the_resolved_configuration_is_a_config_file_that_repeats_the_run() {
    let flags = [
        "--lora-r",
        "4",
        "--loss",
        "slic",
        "--stop",
        "\n",
        "--stop",
        "- a,b",
        "--adam-epsilon",
        "1e-9",
        "--no-shuffle",
        "--gpu",
        "1",
        "--max-steps",
        "3",
    ];
    let first = align(&flags).unwrap().train.config;
    assert_eq!(
        (&first["beta"], &first["learning-rate"], &first["lora-alpha"]),
        (&serde_json::json!(0.002), &serde_json::json!(5e-5), &serde_json::json!(8.0))
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.json");
    std::fs::write(&path, first.to_string()).unwrap();
    let Command::Align(args) = cli("align", &["--config", path.to_str().unwrap()]) else { panic!() };
    assert_eq!(args.plan().unwrap().train.config, first);
}

#[cfg(feature = "http")]
#[test]
fn a_judge_that_gives_reasons_compares_without_a_template_to_rate_by() {
    let text = "{{ prompt }} {{ response_1 }} {{ response_2 }} End with \"Verdict: 1\" or \"Verdict: 2\".";
    let dir = folder(&[("reasons.jinja", text)]);
    let template = dir.path().join("reasons.jinja");
    let server = ["--judge", "openai", "--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m"];
    let flags = ["--judge-reasons", "--judge-template", template.to_str().unwrap()];
    let open = |more: &[&str]| match judge(&[&server[..], &flags, more].concat()).unwrap().judge {
        JudgeConfig::OpenAi { options, template } => OpenAi::new(*options, *template),
        other => panic!("{other:?}"),
    };
    assert!(!open(&[]).unwrap().rates());
    mistake(open(&["--judge-pointwise"]), &["judge-rating-template", "Verdict: 1"]);
}
