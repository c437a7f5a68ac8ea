//! Whether a run teaches anything: when to end it, and what to tell its user.

use super::identity::Command;

/// Steps in a row that taught nothing, and rows that they took, from which on a run ends: fewer may be chance.
const IDLE_STEPS: usize = 10;
const IDLE_ROWS: usize = 40;
/// Answers from which on it says something that none of them has ended.
const MIN_ANSWERS: usize = 32;
/// Nats of KL divergence below which a policy is as good as its start, and the steps from which on this is no surprise.
const MIN_KL: f64 = 0.01;
const MIN_STEPS: usize = 10;

/// Why a run ends whose last `steps` steps in a row taught nothing from `rows` rows; `all` says whether these are more
/// than half of a run that is over.
pub(super) fn idle(command: Command, steps: usize, rows: usize, all: bool) -> Option<String> {
    let over = all && steps > 2;
    let why = match command {
        Command::Align => {
            "their answers were alike, tied or unusable, or had no gradient (see pairs.jsonl and metrics.jsonl); the \
             policy may be ruined, then lower the learning rate, or the judge may see no difference"
        }
        Command::Dpo => {
            "their pairs had no gradient (see metrics.jsonl); the policy may be ruined, then lower the learning rate, \
             or the chosen responses may be the rejected ones"
        }
        Command::Reward => {
            "their pairs had no gradient (see metrics.jsonl); the model may be ruined, then lower the learning rate"
        }
        Command::Sft => {
            "their rows had no gradient (see metrics.jsonl); the policy may be ruined, then lower the learning rate"
        }
    };
    ((steps >= IDLE_STEPS && rows >= IDLE_ROWS) || over).then(|| {
        format!(
            "nothing was learnt in the last {steps} steps: {why}; the checkpoints stay, no model is saved"
        )
    })
}

/// Answers that never end.
pub(crate) fn endless(answers: usize, ended: usize, max_new_tokens: usize) -> Option<String> {
    (answers >= MIN_ANSWERS && ended == 0).then(|| {
        format!(
            "none of {answers} answers ended within {max_new_tokens} tokens: the judge saw beginnings alone; raise \
             max-new-tokens, or give a stop text"
        )
    })
}

/// A policy that is where it was, from the KL divergence of the run's steps.
pub(crate) fn unmoved(kl: &[f64]) -> Option<String> {
    if kl.len() < MIN_STEPS {
        return None;
    }
    let last = &kl[kl.len() - kl.len().div_ceil(10)..];
    let mean = last.iter().sum::<f64>() / last.len() as f64;
    (mean.abs() < MIN_KL).then(|| {
        format!(
            "the policy hardly moved: its KL divergence from the start is {mean:.4} nats at the end; raise the learning \
             rate, or train for longer"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_when_many_steps_in_a_row_taught_nothing() {
        let idle = |steps, rows, all| idle(Command::Align, steps, rows, all);
        assert_eq!(idle(9, 360, false), None);
        assert_eq!(idle(10, 10, false), None, "single rows may well tie ten times");
        assert!(idle(10, 40, false).is_some() && idle(40, 40, false).is_some());
        assert!(idle(3, 3, true).is_some() && idle(2, 64, true).is_none());
    }

    #[test]
    fn each_kind_of_training_is_told_why_of_its_own_rows() {
        for (command, has, lacks) in [
            (Command::Align, "answers", "chosen"),
            (Command::Dpo, "chosen responses", "judge"),
            (Command::Sft, "their rows", "pairs"),
        ] {
            let why = idle(command, 10, 40, false).unwrap();
            assert!(why.contains(has) && !why.contains(lacks), "{why}");
            assert_eq!(why.contains("pairs.jsonl"), command == Command::Align, "{why}");
        }
    }

    #[test]
    fn a_policy_that_stays_and_answers_that_go_on_are_told() {
        assert!(unmoved(&[0.001; 10]).is_some() && unmoved(&[0.001; 9]).is_none());
        let grows: Vec<f64> = (0..20).map(|i| 0.1 * i as f64).collect();
        assert_eq!(unmoved(&grows), None);
        assert!(endless(32, 0, 8).unwrap().contains("within 8 tokens"));
        assert!(endless(32, 1, 8).is_none() && endless(31, 0, 8).is_none());
    }
}
