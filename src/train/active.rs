//! Active selection: of the sampled pairs, the judge compares those on which the policy is least sure.

use super::sampler::Sampled;
use crate::generate::Response;
use crate::judge::round_robin;

/// Two responses to a prompt.
struct Candidate {
    prompt: usize,
    pair: [usize; 2],
    /// |log π(yᵢ)/π₀(yᵢ) − log π(yⱼ)/π₀(yⱼ)|. Times β, it is the difference of the implicit rewards (Rafailov et al. 2023,
    /// arXiv 2305.18290), whose sigmoid is the probability that one response is preferred according to the policy.
    margin: f64,
}

/// Selects for each prompt the two different responses whose implicit rewards are closest, and of these pairs the
/// `count` closest ones, in the order of the prompts. `log_ratios` holds log π/π₀ for the responses of every prompt.
/// Ties are resolved in favour of the first pair; before the first update, all margins are equal.
pub(super) fn least_sure(sampled: &Sampled, log_ratios: &[Vec<f64>], count: usize) -> Sampled {
    let closest = |(prompt, (responses, ratios)): (usize, (&Vec<Response>, &Vec<f64>))| {
        let pairs = round_robin(responses.len()).into_iter();
        let different = pairs.filter(|(i, j)| responses[*i].text != responses[*j].text);
        let candidate = |(i, j)| Candidate { prompt, pair: [i, j], margin: (ratios[i] - ratios[j]).abs() };
        different.map(candidate).min_by(|a, b| a.margin.total_cmp(&b.margin))
    };
    let mut chosen: Vec<Candidate> =
        sampled.of.iter().zip(log_ratios).enumerate().filter_map(closest).collect();
    chosen.sort_by(|a, b| a.margin.total_cmp(&b.margin));
    chosen.truncate(count);
    chosen.sort_by_key(|candidate| candidate.prompt);
    let responses = |c: &Candidate| c.pair.map(|response| sampled.of[c.prompt][response].clone()).to_vec();
    Sampled {
        draws: chosen.iter().map(|c| sampled.draws[c.prompt]).collect(),
        policy_step: sampled.policy_step,
        of: chosen.iter().map(responses).collect(),
        logps: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::FinishReason;

    fn response(text: &str) -> Response {
        Response { text: text.into(), token_ids: vec![1], finish_reason: FinishReason::Eos }
    }

    fn sampled(of: &[&[&str]]) -> Sampled {
        let responses = |texts: &&[&str]| texts.iter().map(|text| response(text)).collect();
        Sampled {
            draws: (40..).take(of.len()).collect(),
            policy_step: 3,
            of: of.iter().map(responses).collect(),
            logps: Vec::new(),
        }
    }

    fn texts(sampled: &Sampled) -> Vec<(u64, String)> {
        let join = |of: &Vec<Response>| of.iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join(" ");
        sampled.draws.iter().copied().zip(sampled.of.iter().map(join)).collect()
    }

    #[test]
    fn pairs_with_the_closest_implicit_rewards_are_selected_in_the_order_of_the_prompts() {
        let all = sampled(&[&["a", "b", "c"], &["d", "e"], &["f", "g"], &["h", "i"]]);
        let ratios = [vec![0.0, 2.0, 1.5], vec![-3.0, 3.0], vec![1.0, 1.1], vec![0.0, -0.6]];
        let chosen = least_sure(&all, &ratios, 3);
        let expected = [(40, "b c".to_owned()), (42, "f g".to_owned()), (43, "h i".to_owned())];
        assert_eq!(texts(&chosen), expected);
        assert_eq!(chosen.policy_step, 3);
    }

    #[test]
    fn equal_responses_are_never_selected_and_ties_select_the_first_pair() {
        let all = sampled(&[&["a", "a"], &["b", "c"], &["d", "d", "e"], &["f", "g"]]);
        let ratios = [vec![0.0; 2], vec![0.0; 2], vec![0.0; 3], vec![0.0; 2]];
        assert_eq!(texts(&least_sure(&all, &ratios, 2)), [(41, "b c".to_owned()), (42, "d e".to_owned())]);
        assert_eq!(least_sure(&all, &ratios, 9).of.len(), 3);
    }
}
