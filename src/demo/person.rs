//! Somebody with a taste, for experiments on what feedback does.

use super::draw::Draw;
use super::language::Post;
use super::oracle::{Instruction, Quality};
use crate::error::{Error, Result};
use crate::judge::{Judge, Judgement, Pair, Verdict};
use crate::task::Task;

/// How often a person errs.
const ERRORS: f64 = 0.1;

/// A person who prefers what the oracle does, and errs in one pair of ten. Where the oracle sees no difference, neither
/// does the person.
pub struct Person {
    /// What they look for.
    pub taste: Instruction,
    /// In which pairs they err.
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
                    let why = format!("{:?} is no post of the small world", pair.prompt);
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
