//! A simulated person as judge, for experiments on the effect of feedback.

use super::draw::Draw;
use super::language::Post;
use super::oracle::{Instruction, Quality};
use crate::error::{Error, Result};
use crate::judge::{Judge, Judgement, Pair, Verdict};
use crate::task::Task;

/// The person's error rate.
const ERRORS: f64 = 0.1;

/// A person with the preferences of the oracle, except for an error in one pair of ten. If the oracle measures no
/// difference, the verdict is a tie.
pub struct Person {
    /// The instruction by which the person judges.
    pub taste: Instruction,
    /// Decides in which pairs the person errs.
    pub draw: Draw,
}

impl Judge for Person {
    fn name(&self) -> String {
        "person".into()
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            let verdict = |pair: &Pair<'_>| {
                let post = Post::parse(pair.prompt).ok_or_else(|| {
                    let why = format!("{:?} is not a post of the small world", pair.prompt);
                    Error::Judge { name: "person".into(), why }
                })?;
                let [one, two] = [pair.response_1, pair.response_2]
                    .map(|summary| self.taste.utility(&Quality::of(&post, summary)));
                if one == two {
                    return Ok(Verdict::Tie.into());
                }
                let first = (one > two) != self.draw.chance(ERRORS);
                Ok(Verdict::from_probability(if first { 1.0 } else { 0.0 }).into())
            };
            pairs.iter().map(verdict).collect()
        })
    }
}
