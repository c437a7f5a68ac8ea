//! Detects runs that do not learn: when to stop, and what to report.

use super::identity::Command;
use crate::numbers::decimals;

/// A run stops after this many steps in a row without a gradient, which took at least this many rows. Fewer may be
/// chance.
const IDLE_STEPS: usize = 10;
const IDLE_ROWS: usize = 40;
/// The smallest number of responses for a warning that none of them ended.
const MIN_RESPONSES: usize = 32;
/// The distance from the reference model in nats below which a policy counts as unchanged, and the smallest number of
/// steps for that warning.
const MIN_DISTANCE: f64 = 0.01;
const MIN_STEPS: usize = 10;

/// The error that stops a run after `steps` steps in a row, with `rows` rows, taught nothing. `all`: these are more
/// than half of a finished run.
pub(super) fn idle(command: Command, steps: usize, rows: usize, all: bool) -> Option<String> {
    let over = all && steps > 2;
    let why = match command {
        Command::Align => {
            "their pairs were ties, identical or unusable, or had no gradient (see pairs.jsonl and metrics.jsonl); use another \
             judge, raise the temperature, or lower the learning rate"
        }
        Command::Dpo => {
            "their pairs had no gradient (see metrics.jsonl); lower the learning rate, or check that the chosen responses \
             differ from the rejected ones"
        }
        Command::Reward => "their pairs had no gradient (see metrics.jsonl); lower the learning rate",
        Command::Sft => "their rows had no gradient (see metrics.jsonl); lower the learning rate",
    };
    ((steps >= IDLE_STEPS && rows >= IDLE_ROWS) || over).then(|| {
        format!(
            "nothing was learnt in the last {steps} steps: {why}; the checkpoints are kept, no model is saved"
        )
    })
}

/// The warning for responses that never end.
pub(crate) fn unending_responses(responses: usize, ended: usize, max_new_tokens: usize) -> Option<String> {
    (responses >= MIN_RESPONSES && ended == 0).then(|| {
        format!(
            "none of {responses} responses ended within {max_new_tokens} tokens, so the judge saw only truncated ones: raise \
             max-new-tokens, or set a stop string"
        )
    })
}

/// The warning for a policy that did not change, from the KL divergence of each step. The policy wrote the responses.
pub(crate) fn unchanged_policy(kl: &[f64]) -> Option<String> {
    let kl = at_end(kl).filter(|kl| kl.abs() < MIN_DISTANCE)?;
    Some(hardly_changed(&format!("its KL to the reference model is {} nats", decimals(kl, 4))))
}

/// The same for given pairs, from the mean log-ratio log π − log π₀ and the reward margin of each step. The log-ratio alone
/// is 0 as well where the policy raises chosen responses as much as it lowers rejected ones.
pub(crate) fn unchanged_on_pairs(log_ratios: &[f64], margins: &[f64], beta: f64) -> Option<String> {
    at_end(log_ratios).filter(|ratio| ratio.abs() < MIN_DISTANCE)?;
    let margin = at_end(margins).filter(|margin| margin.abs() < beta * MIN_DISTANCE)?;
    Some(hardly_changed(&format!("its mean reward margin is {}", decimals(margin, 4))))
}

/// The mean over the last tenth of the steps; `None` for few steps.
fn at_end(values: &[f64]) -> Option<f64> {
    let last = &values[values.len() - values.len().div_ceil(10)..];
    (values.len() >= MIN_STEPS).then(|| last.iter().sum::<f64>() / last.len() as f64)
}

fn hardly_changed(why: &str) -> String {
    format!("the policy hardly changed: {why} at the end; raise the learning rate, or train longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stops_after_many_steps_in_a_row_without_learning() {
        let idle = |steps, rows, all| idle(Command::Align, steps, rows, all);
        assert_eq!(idle(9, 360, false), None);
        assert_eq!(idle(10, 10, false), None, "ten single rows may all be ties");
        assert!(idle(10, 40, false).is_some() && idle(40, 40, false).is_some());
        assert!(idle(3, 3, true).is_some() && idle(2, 64, true).is_none());
    }

    #[test]
    fn each_kind_of_training_has_its_own_reason() {
        for (command, has, lacks) in [
            (Command::Align, "raise the temperature", "chosen"),
            (Command::Dpo, "chosen responses", "judge"),
            (Command::Sft, "their rows", "pairs"),
        ] {
            let why = idle(command, 10, 40, false).unwrap();
            assert!(why.contains(has) && !why.contains(lacks), "{why}");
            assert_eq!(why.contains("pairs.jsonl"), command == Command::Align, "{why}");
        }
    }

    #[test]
    fn a_policy_that_separates_given_pairs_has_changed() {
        let (still, beta) = ([0.0; 10], 0.1);
        assert!(
            unchanged_on_pairs(&still, &[0.0002; 10], beta).unwrap().contains("reward margin is 0.0002 at")
        );
        // Log-ratios of 5 and −5 nats.
        assert_eq!(unchanged_on_pairs(&still, &[1.0; 10], beta), None);
        // Both responses became less probable.
        assert_eq!(unchanged_on_pairs(&[-5.0; 10], &still, beta), None);
        assert_eq!(unchanged_on_pairs(&still, &[], beta), None);
        assert_eq!(unchanged_on_pairs(&still, &still, f64::NAN), None);
    }

    #[test]
    fn an_unchanged_policy_and_endless_responses_are_reported() {
        assert!(unchanged_policy(&[0.001; 10]).is_some() && unchanged_policy(&[0.001; 9]).is_none());
        let grows: Vec<f64> = (0..20).map(|i| 0.1 * i as f64).collect();
        assert_eq!(unchanged_policy(&grows), None);
        assert!(unchanged_policy(&[-0.00001; 10]).unwrap().contains("is 0.0000 nats"));
        assert!(unending_responses(32, 0, 8).unwrap().contains("within 8 tokens"));
        assert!(unending_responses(32, 1, 8).is_none() && unending_responses(31, 0, 8).is_none());
    }
}
