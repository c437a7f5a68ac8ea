//! Examples at the end of each command's `--help`.

use clap::Command;

/// The end of `oaif --help`.
pub(super) const FIRST: &str = "\
A first run:
  oaif demo
  oaif align -m HuggingFaceTB/SmolLM2-135M-Instruct -d prompts.jsonl -o run --preset instruction --judge-model JUDGE
  oaif chat -m HuggingFaceTB/SmolLM2-135M-Instruct --adapter run/adapter

`oaif COMMAND --help` describes the flags of a command.";

/// Example command lines of each command.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("demo", &["oaif demo", "oaif demo --instruction short --loss ipo -o short-run"]),
    (
        "align",
        &[
            "oaif align -m MODEL -d prompts.jsonl -o run --preset instruction --judge-model JUDGE",
            "oaif align -m MODEL -d prompts.jsonl -o run --preset clicks",
            "oaif align -m MODEL -d prompts.jsonl -o run --lora-r 16 -j rule --judge-rule shorter --max-steps 50",
            "oaif align --resume run",
        ],
    ),
    (
        "sft",
        &[
            "oaif sft -m MODEL -d chats.jsonl -o run-sft --preset chat",
            "oaif sft -m MODEL -d texts.jsonl -o run-sft --learning-rate 2e-5 --num-train-epochs 3",
            "oaif sft -m MODEL -d texts.jsonl --dry-run",
        ],
    ),
    (
        "dpo",
        &[
            "oaif dpo -m MODEL -d pairs.jsonl -o run-dpo --preset preferences",
            "oaif dpo -m MODEL -d trl-lib/ultrafeedback_binarized:train -o run-dpo --lora-r 16 --loss ipo",
        ],
    ),
    (
        "reward",
        &[
            "oaif reward -m MODEL -d pairs.jsonl -o run-reward --lora-r 16",
            "oaif reward -m MODEL -d pairs.jsonl -o run-reward --eval-dataset held-out.jsonl",
        ],
    ),
    (
        "generate",
        &[
            "oaif generate -m MODEL -p 'Once upon a time' -n 100",
            "oaif generate -m MODEL --adapter run/adapter --chat -p 'Name three colours.'",
            "oaif generate -m MODEL --prompts prompts.jsonl --output responses.jsonl",
        ],
    ),
    ("chat", &["oaif chat -m MODEL", "oaif chat -m MODEL --adapter run/adapter --system 'You are brief.'"]),
    ("score", &["oaif score -m MODEL -i rows.jsonl -o scores.jsonl"]),
    (
        "judge",
        &[
            "oaif judge -i pairs.jsonl -j rule --judge-rule shorter",
            "oaif judge -i pairs.jsonl -j llm --judge-model JUDGE --judge-template helpfulness -o verdicts.jsonl",
        ],
    ),
    (
        "eval",
        &[
            "oaif eval --run run -d held-out.jsonl -j llm --judge-model JUDGE",
            "oaif eval -m MODEL --against OTHER -d held-out.jsonl -j openai --judge-url http://localhost:8000/v1 --judge-model NAME",
        ],
    ),
    ("report", &["oaif report run", "oaif report run-dpo run-ipo run-slic -o losses.html"]),
    (
        "export",
        &[
            "oaif export -m MODEL --adapter run/adapter -o merged",
            "oaif export -m MODEL --adapter run/adapter -o merged.gguf --dtype q8_0",
        ],
    ),
    ("models", &["oaif models"]),
    ("doctor", &["oaif doctor", "oaif doctor --kernels --gpu 0"]),
    ("bench", &["oaif bench step", "oaif bench kernels --filter attention --json"]),
    (
        "completions",
        &[
            "oaif completions bash > ~/.local/share/bash-completion/completions/oaif",
            "oaif completions zsh > ~/.zfunc/_oaif",
            "oaif completions fish > ~/.config/fish/completions/oaif.fish",
        ],
    ),
    ("man", &["oaif man ~/.local/share/man/man1"]),
];

/// Adds the examples to the end of the command's help, before the text that is already there.
pub(super) fn add(command: Command) -> Command {
    let Some((_, lines)) = EXAMPLES.iter().find(|(name, _)| *name == command.get_name()) else {
        return command;
    };
    let mut text = format!("Examples:\n  {}", lines.join("\n  "));
    if let Some(rest) = command.get_after_help() {
        text += &format!("\n\n{rest}");
    }
    command.after_help(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a command line into words as a shell does, without a redirection.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap();
        line.split('\'')
            .enumerate()
            .flat_map(|(i, part)| match i % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        for command in crate::cli::command().get_subcommands() {
            let known = EXAMPLES.iter().find(|(name, _)| *name == command.get_name());
            let (name, lines) = known.unwrap_or_else(|| panic!("{} has no example", command.get_name()));
            for line in *lines {
                assert!(line.starts_with(&format!("oaif {name}")), "{line}");
                // `--resume` needs an existing run.
                if !line.contains("--resume") {
                    crate::cli::understood(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
                }
            }
        }
        for line in FIRST.lines().filter(|line| line.starts_with("  oaif")) {
            crate::cli::understood(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }
}
