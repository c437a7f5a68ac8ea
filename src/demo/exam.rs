//! The effect of training: compares a policy's summaries of held-out posts with those of π₀.

use super::dataset::prompt;
use super::language::Post;
use super::oracle::{Instruction, Quality};
use crate::data::tokenizer::StopMatcher;
use crate::error::Result;
use crate::generate::{GenerateOptions, Request, Response, SamplingParams, slots_for};
use crate::judge::{Judge, Pair, PairOutcome, Verdict, judge_pairs};
use crate::report::Estimate;
use crate::train::Policy;

/// Limit on the length of a summary in tokens. A summary with a tone and all facts of a post has 15, including the end
/// token.
pub const MAX_NEW_TOKENS: usize = 24;

/// The sampling temperature, in training as in an exam (paper: 0.9).
pub const TEMPERATURE: f32 = 0.9;

/// `samples` summaries of each post, drawn from `policy`.
pub async fn summarise(
    policy: &Policy,
    posts: &[String],
    samples: usize,
    seed: u32,
) -> Result<Vec<Vec<String>>> {
    let encoded = posts.iter().map(|text| policy.tokenizer.encode(text)).collect::<Result<Vec<_>>>()?;
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: TEMPERATURE, ..SamplingParams::default() },
        max_new_tokens: MAX_NEW_TOKENS,
        max_prompt_tokens: encoded.iter().map(Vec::len).max().unwrap_or(1),
        slots: slots_for(None, encoded.len() * samples),
        samples_per_prompt: samples,
        eos: policy.tokenizer.eos_ids().to_vec(),
    };
    let generator = policy.generator(options).await?;
    let first_sequences = (0..).step_by(samples);
    let request = |(first_sequence, prompt)| Request { prompt, samples, first_sequence };
    let requests: Vec<Request> = first_sequences.zip(encoded).map(request).collect();
    let answers = generator.run(&policy.tokenizer, &requests, &StopMatcher::default(), seed).await?;
    let texts = |answers: Vec<Response>| answers.into_iter().map(|a| a.text.trim().to_owned()).collect();
    Ok(answers.into_iter().map(texts).collect())
}

/// Held-out posts.
pub struct Exam {
    posts: Vec<Post>,
    texts: Vec<String>,
}

impl Exam {
    /// The first `posts` held-out posts; no policy or judge was trained on them.
    pub fn new(posts: usize) -> Exam {
        let posts: Vec<Post> = (0..posts).map(|row| prompt(true, row)).collect();
        let texts = posts.iter().map(Post::to_string).collect();
        Exam { posts, texts }
    }

    /// The posts.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Samples a summary of each post from `policy`.
    pub async fn summaries(&self, policy: &Policy, seed: u32) -> Result<Vec<String>> {
        Ok(summarise(policy, &self.texts, 1, seed).await?.into_iter().flatten().collect())
    }

    /// The oracle's measurement of a summary of each post.
    pub fn qualities(&self, summaries: &[String]) -> Vec<Quality> {
        self.posts.iter().zip(summaries).map(|(post, summary)| Quality::of(post, summary)).collect()
    }

    /// For each post, the utility of `after` minus that of `before`, as measured by the oracle.
    pub fn by_oracle(&self, instruction: Instruction, before: &[String], after: &[String]) -> Vec<f64> {
        let (before, after) = (self.qualities(before), self.qualities(after));
        let pairs = before.iter().zip(&after);
        pairs.map(|(before, after)| instruction.utility(after) - instruction.utility(before)).collect()
    }

    /// For each post, which summary the judge prefers: 1 for `after`, -1 for `before`, 0 for neither.
    pub async fn by_judge(
        &self,
        judge: &mut dyn Judge,
        before: &[String],
        after: &[String],
    ) -> Result<Vec<f64>> {
        let texts = self.texts.iter().zip(before.iter().zip(after));
        let pairs: Vec<Pair> = texts
            .map(|(prompt, (before, after))| Pair { prompt, response_1: after, response_2: before })
            .collect();
        let preference = |outcome: &PairOutcome| match outcome.verdict() {
            Verdict::First { .. } => 1.0,
            Verdict::Second { .. } => -1.0,
            Verdict::Tie | Verdict::Invalid { .. } => 0.0,
        };
        Ok(judge_pairs(judge, &pairs).await?.iter().map(preference).collect())
    }
}

/// Wins, ties and losses of one side against the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pairs in which it was better.
    pub wins: usize,
    /// Pairs in which neither was better.
    pub ties: usize,
    /// Pairs in which it was worse.
    pub losses: usize,
}

impl Tally {
    /// Counts differences: a positive one is a win, a negative one a loss.
    pub fn of(gaps: &[f64]) -> Tally {
        let count = |is: fn(&f64) -> bool| gaps.iter().filter(|gap| is(gap)).count();
        Tally { wins: count(|g| *g > 0.0), ties: count(|g| *g == 0.0), losses: count(|g| *g < 0.0) }
    }

    /// The share of wins among the pairs that are not ties, with its 95 % Wilson interval; NaN if all are ties.
    pub fn win_rate(&self) -> Estimate {
        Estimate::share(self.wins, self.wins + self.losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;
    use crate::task::Task;

    /// Prefers the longer response.
    struct Longer;

    impl Judge for Longer {
        fn name(&self) -> String {
            "longer".into()
        }
        fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<crate::judge::Judgement>>> {
            Box::pin(async move {
                let longer = |p: &Pair| {
                    Verdict::from_probability((p.response_1.len() > p.response_2.len()) as u8 as f32)
                };
                Ok(pairs.iter().map(|pair| longer(pair).into()).collect())
            })
        }
    }

    #[test]
    fn a_summary_with_more_facts_wins_and_the_same_one_ties() {
        let exam = Exam::new(3);
        let whole: Vec<String> = exam.texts().to_vec();
        let mut some = whole.clone();
        let name = whole[1].split(' ').next().unwrap();
        some[1] = format!("{name} .");
        let tally = Tally { wins: 1, ties: 2, losses: 0 };
        assert_eq!(exam.by_oracle(Instruction::Accurate, &some, &whole), [0.0, 6.0, 0.0]);
        assert_eq!(Tally::of(&exam.by_oracle(Instruction::Accurate, &some, &whole)), tally);
        assert_eq!(Tally::of(&exam.by_judge(&mut Longer, &some, &whole).wait().unwrap()), tally);
        assert_eq!(tally.win_rate().value, 1.0);
        let lost = Tally { wins: 0, ties: 2, losses: 1 };
        assert_eq!(Tally::of(&exam.by_oracle(Instruction::Accurate, &whole, &some)), lost);
        assert_eq!(Tally::of(&exam.by_oracle(Instruction::VeryShort, &whole, &some)).wins, 1);
        assert!(Tally::default().win_rate().value.is_nan());
    }
}
