//! The state in a checkpoint besides weights and optimiser: everything on which the rest of the run depends.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::STATE;
use super::habits::Habit;
use super::identity::{Change, RunIdentity};
use super::judging::VerdictTotals;
use super::sampler::Sampled;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Tuning;

/// The `state.json` of a checkpoint, after its last step.
// A missing option must be an error rather than `None`, hence `Option::deserialize` here and in the types below.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Steps done.
    pub step: usize,
    pub logs: Logs,
    pub counters: Counters,
    pub identity: RunIdentity,
    /// The kernels that computed it.
    pub kernels: Tuning,
    /// Options that changed when the run was resumed.
    pub changes: Vec<Change>,
    /// Warnings of its steps, for `run.json`.
    pub warnings: Vec<String>,
    /// Whether the evaluation of the last step is still missing, because it was interrupted or its judge failed.
    pub owes_evaluation: bool,
    /// Only in online training.
    #[serde(deserialize_with = "Option::deserialize")]
    pub online: Option<OnlineState>,
}

/// The rows that the logs in the run folder must have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Logs {
    /// Steps done before the first row, in the run of another folder from which this one started.
    pub after_step: usize,
    /// The number of rows of `pairs.jsonl`.
    pub pairs: usize,
}

/// Totals over the steps done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counters {
    pub num_tokens: u64,
    /// Updates with a gradient that is not zero and a learning rate above 0.
    pub updates: usize,
    pub non_finite: usize,
    pub non_finite_in_row: usize,
    /// Steps in a row without learning.
    pub idle_in_row: usize,
    /// The rows of these steps.
    pub idle_rows_in_row: usize,
}

/// The state of online training.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlineState {
    pub verdicts: VerdictTotals,
    /// The biases of the judge that were reported.
    pub reported_habits: BTreeSet<Habit>,
    /// The responses of the next steps that were sampled before the last update, in the order of the steps.
    pub sampled: Vec<Sampled>,
}

impl State {
    /// The state of a run before its first step.
    pub fn new(identity: RunIdentity, kernels: Tuning) -> State {
        State {
            step: 0,
            logs: Logs::default(),
            counters: Counters::default(),
            identity,
            kernels,
            changes: Vec::new(),
            warnings: Vec::new(),
            owes_evaluation: false,
            online: None,
        }
    }

    /// Reads the state of the checkpoint in `dir`.
    ///
    /// # Errors
    /// [`Error::File`] with the file and the key that is missing or has a wrong type.
    pub fn read(dir: &Path) -> Result<State> {
        let path = dir.join(STATE);
        let bytes = files::read(&path)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let (key, why) = (e.path().to_string(), e.inner().to_string());
            // The key is more useful than the position in the file.
            let why = why.split(" at line ").next().unwrap_or_default();
            let place = if key == "." { String::new() } else { format!("{key}: ") };
            let why = format!("is not the state of a run ({place}{why}): resume from another checkpoint");
            Error::file(&path, why)
        })
    }

    /// The state for the run that resumes from it, with the changes that `allowed` names.
    ///
    /// # Errors
    /// [`Error::Config`] for other changes, and if more steps are done than the run has.
    pub fn into_resumed(
        mut self,
        identity: RunIdentity,
        allowed: &[String],
        total_steps: usize,
    ) -> Result<State> {
        let changes = identity.resume(&self.identity, self.step, allowed)?;
        if self.step > total_steps {
            let why = format!(
                "is {total_steps}, but the checkpoint was written after {} steps: raise it, or resume from an earlier \
                 checkpoint",
                self.step
            );
            return Err(Error::config("max-steps", why));
        }
        if changes.iter().any(|change| change.name != "eval-dataset") {
            // They were sampled with other options.
            self.online.iter_mut().for_each(|online| online.sampled.clear());
        }
        if changes.iter().any(|change| change.name.starts_with("judge")) {
            self.online.iter_mut().for_each(|online| {
                online.verdicts.forget_judge();
                online.reported_habits.clear();
            });
        }
        self.identity = identity;
        self.changes.extend(changes);
        Ok(self)
    }

    /// Writes the state into the folder of a checkpoint.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("JSON of plain values");
        files::write_atomic(&dir.join(STATE), format!("{text}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::preference::{Objective, PreferenceLoss};

    fn state() -> Value {
        json!({
            "step": 2,
            "logs": {"after_step": 0, "pairs": 4},
            "counters": {"num_tokens": 189, "updates": 2, "non_finite": 0, "non_finite_in_row": 0,
                "idle_in_row": 0, "idle_rows_in_row": 0},
            "identity": {"command": "align", "model": "94dc", "adapter": null, "tokenizer": "45ab",
                "chat-template": null, "dataset": "of 3 rows", "eval-dataset": null,
                "training": {"learning-rate": 0.0001, "lr-scheduler-type": "linear", "warmup-steps": 0,
                    "max-steps": 6, "optim": "adamw", "adam-beta1": 0.9, "adam-beta2": 0.999, "adam-epsilon": 1e-8,
                    "weight-decay": 0.0, "max-grad-norm": 1.0, "per-device-train-batch-size": 2,
                    "gradient-accumulation-steps": 1, "seed": 42, "shuffle": true, "max-prompt-length": null,
                    "max-length": null, "ref-model-mixup-alpha": 0.6, "ref-model-sync-steps": 512, "dtype": "auto", "tier": "T0"},
                "lora": null, "append-eos": null, "policy-gradient": null, "center-rewards-coefficient": null,
                "loss": Objective::from(PreferenceLoss::Dpo { beta: 0.1 }).options(),
                "online": {"num-samples": 2, "temperature": 0.9, "top-k": 0, "top-p": 1.0, "min-p": 0.0,
                    "max-new-tokens": 8, "stop": [], "soft-labels": false, "pairs": "best-worst",
                    "min-confidence": 0.5, "active": 1, "judge-probes": 32, "async-level": 1},
                "judge": {"judge": "rule"}},
            "kernels": {"products": {"staged": {"chosen": [{"tile": {"staged": {"rows": 64, "cols": 64, "depth": 16,
                    "lane_rows": 8, "lane_cols": 8}}, "class": {"form": "along_both", "rows": 128, "cols": 64,
                    "inner": 64, "format": "f32"}}], "otherwise": null}},
                "tiled_attention": true, "fused_blocks": true},
            "changes": [],
            "warnings": ["the judge guesses"],
            "owes_evaluation": false,
            "online": {
                "verdicts": {"counts": {"judged": 4, "first": 1, "tie": 0, "invalid": 0, "identical": 0,
                    "both_orders": 0, "order_flip": 0}, "recent": [{"judged": 4, "invalid": 0}], "answers": 8, "ended": 1,
                    "habits": {"both_orders": 0, "flips": 0, "one_order": 4, "first": 1, "unequal": 3, "longer": 2},
                    "votes": {"pairs": 4, "unanimous": 2, "tables": [[[1, 0, 0], [0, 1, 0], [0, 0, 2]]],
                        "members": [{"asked": 4, "unusable": 1, "why": "mute"}]}},
                "reported_habits": ["flips", "length"],
                "sampled": [{"draws": [4], "policy_step": 1, "logps": [],
                    "of": [[{"token_ids": [1], "text": "a", "finish_reason": "length"}]]}]}
        })
    }

    fn read(value: &Value) -> Result<State> {
        let dir = tempfile::tempdir().unwrap();
        files::write_atomic(&dir.path().join(STATE), value.to_string().as_bytes()).unwrap();
        State::read(dir.path())
    }

    /// All paths to values in it.
    fn paths(value: &Value, at: &str) -> Vec<String> {
        let below: Vec<(String, &Value)> = match value {
            Value::Object(keys) => keys.iter().map(|(key, v)| (format!("{at}/{key}"), v)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(i, v)| (format!("{at}/{i}"), v)).collect(),
            _ => vec![],
        };
        below.into_iter().flat_map(|(path, v)| [vec![path.clone()], paths(v, &path)].concat()).collect()
    }

    #[test]
    fn a_state_survives_writing_and_reading() {
        let dir = tempfile::tempdir().unwrap();
        read(&state()).unwrap().write(dir.path()).unwrap();
        let again = State::read(dir.path()).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap()["counters"], state()["counters"]);
        assert_eq!(again.identity, read(&state()).unwrap().identity);
    }

    #[test]
    fn a_missing_key_is_an_error_with_its_name() {
        let whole = state();
        let mut tried = 0;
        for path in paths(&whole, "") {
            let (parent, key) = path.rsplit_once('/').unwrap();
            let mut broken = whole.clone();
            let Some(Value::Object(keys)) = broken.pointer_mut(parent) else { continue };
            keys.shift_remove(key);
            // The judge's description may have any keys, and the variant of an enum is not a key.
            let variants = ["/kernels/products", "/kernels/products/staged/chosen/0/tile"];
            if parent == "/identity/judge" || variants.contains(&parent) {
                continue;
            }
            let error = read(&broken).expect_err(&path).to_string();
            assert!(error.contains("state.json") && error.contains(&format!("`{key}`")), "{path}: {error}");
            tried += 1;
        }
        assert!(tried > 60, "{tried}");
    }

    #[test]
    fn a_value_of_a_wrong_type_is_an_error_with_its_key() {
        let whole = state();
        for path in paths(&whole, "") {
            let mut broken = whole.clone();
            *broken.pointer_mut(&path).unwrap() = json!({"odd": [true]});
            let error = read(&broken).expect_err(&path).to_string();
            let key = path.rsplit('/').find(|part| part.parse::<usize>().is_err()).unwrap();
            assert!(error.contains("state.json") && error.contains(key), "{path}: {error}");
        }
        for (path, odd) in [
            ("/step", json!(-1)),
            ("/step", json!(1.5)),
            ("/online/sampled/0/of/0/0/token_ids/0", json!(4294967296u64)),
            ("/counters/updates", json!("2")),
        ] {
            let mut broken = whole.clone();
            *broken.pointer_mut(path).unwrap() = odd;
            assert!(read(&broken).is_err(), "{path}");
        }
    }
}
