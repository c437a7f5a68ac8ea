//! The names and aliases of flags.

use super::*;

#[test]
fn a_flag_may_be_written_with_underscores() {
    let plan = dpo(&["--learning_rate", "0.5", "--no_shuffle", "--lora_r=2"]).unwrap();
    let options = plan.train.options;
    assert_eq!((options.learning_rate, options.shuffle, options.lora.unwrap().rank), (0.5, false, 2));
}

#[test]
fn trls_names_are_known_with_dashes_and_with_underscores() {
    for [model, data, loss, rate] in [
        ["--model-name-or-path", "--dataset-name", "--loss-type", "--learning-rate"],
        ["--model_name_or_path", "--dataset_name", "--loss_type", "--learning_rate"],
        ["--model", "--dataset", "--loss", "--lr"],
    ] {
        let flags = [
            model,
            DIR,
            data,
            FILE,
            "--output_dir",
            "run",
            loss,
            "hinge",
            rate,
            "0.5",
            "--torch_dtype",
            "auto",
        ];
        let Command::Dpo(args) = cli("dpo", &flags) else { panic!() };
        let plan = args.plan().unwrap();
        assert_eq!(plan.dpo.loss, PreferenceLoss::Slic { beta: 0.002 }.into());
        assert_eq!((plan.train.options.learning_rate, plan.train.model), (0.5, DIR.into()));
    }
    let options = |flags: &[&str]| dpo(flags).unwrap().train.options;
    assert_eq!(options(&["--epochs", "3", "--batch-size", "2"]).epochs, 3.0);
    assert_eq!(options(&["--epochs", "3", "--batch_size", "2"]).batch_size, 2);
    assert_eq!(options(&["--use_peft"]).lora.unwrap().rank, 16);
    assert_eq!(options(&["--use_peft", "--lora_rank", "4"]).lora.unwrap().rank, 4);
    assert!(options(&["--use_peft", "false"]).lora.is_none());
    let warm = options(&["--warmup_ratio", "0.1"]);
    assert_eq!([0, 1, 15, 20].map(|total| warm.warmup_of(total)), [0, 1, 2, 2]);
    assert_eq!(options(&["--warmup-steps", "7", "--warmup-ratio", "0.1"]).warmup_of(20), 7);
    mistake(dpo(&["--warmup-ratio", "5"]), &["--warmup-ratio", "between 0 and 1"]);
}

#[test]
fn every_alias_may_be_written_with_underscores() {
    for sub in command().get_subcommands() {
        for arg in sub.get_arguments() {
            let names = arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default());
            for name in names.filter(|name| name.contains('-')) {
                assert!(foreign::is_called(arg, &name.replace('-', "_")), "{name} of {}", sub.get_name());
            }
        }
    }
}

#[test]
fn a_suggested_flag_is_spelt_as_in_help() {
    for (flag, suggested) in [
        ("--learningrate", "'--learning-rate'"),
        ("--model_name_or_pat", "'--model'"),
        ("--lora_rnk", "'--lora-r'"),
    ] {
        let error = usage_error("dpo", &run_flags(&[flag, "1"]));
        assert!(error.contains(suggested), "{error}");
    }
}
