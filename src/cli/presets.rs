//! Built-in configurations (`--preset`): the files of `examples/configs`.

use clap::builder::PossibleValue;
use serde_json::Value;

/// A configuration file for a common task.
struct Preset {
    name: &'static str,
    /// Commands that have all of its flags.
    commands: &'static [&'static str],
    help: &'static str,
    yaml: &'static str,
}

static PRESETS: [Preset; 5] = [
    Preset {
        name: "instruction",
        commands: &["align"],
        help: "A LoRA adapter, by a language model that judges by an instruction",
        yaml: include_str!("../../examples/configs/instruction.yaml"),
    },
    Preset {
        name: "clicks",
        commands: &["align"],
        help: "A LoRA adapter, by a person who clicks on a page",
        yaml: include_str!("../../examples/configs/clicks.yaml"),
    },
    Preset {
        name: "chat",
        commands: &["sft"],
        help: "A LoRA adapter, on conversations",
        yaml: include_str!("../../examples/configs/chat.yaml"),
    },
    Preset {
        name: "preferences",
        commands: &["dpo"],
        help: "A LoRA adapter, on given preference pairs",
        yaml: include_str!("../../examples/configs/preferences.yaml"),
    },
    Preset {
        name: "low-memory",
        commands: &["align", "sft", "dpo", "reward"],
        help: "A LoRA adapter on 8-bit weights, one row at a time",
        yaml: include_str!("../../examples/configs/low-memory.yaml"),
    },
];

/// The presets of a command, as values of its flag.
pub(super) fn of(command: &str) -> Vec<PossibleValue> {
    let own = PRESETS.iter().filter(|preset| preset.commands.contains(&command));
    own.map(|preset| PossibleValue::new(preset.name).help(preset.help)).collect()
}

/// The name, the commands and the text of each preset.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static [&'static str], &'static str)> {
    PRESETS.iter().map(|preset| (preset.name, preset.commands, preset.yaml))
}

/// The flags of the preset `name`, which must be one of [`of`].
pub(super) fn read(name: &str) -> Value {
    let preset = PRESETS.iter().find(|preset| preset.name == name).expect("a value of the flag");
    serde_saphyr::from_str(preset.yaml).expect("a test parses this file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::understood;

    #[test]
    fn every_preset_has_only_flags_of_its_commands() {
        for preset in &PRESETS {
            assert!(read(preset.name).as_object().is_some_and(|flags| !flags.is_empty()));
            for command in preset.commands {
                let line = format!("oaif {command} -m m -d d -o o --preset {}", preset.name);
                understood(line.split(' ').map(str::to_owned).collect())
                    .unwrap_or_else(|e| panic!("{line}: {e}"));
                let file = format!("oaif {command} -m m -d d -o o -c examples/configs/{}.yaml", preset.name);
                understood(file.split(' ').map(str::to_owned).collect())
                    .unwrap_or_else(|e| panic!("{file}: {e}"));
            }
        }
    }
}
