//! How good a reward model finds given texts: a judge's scores, those of `oaif eval`.

use super::Model;
use super::stream::{Capacity, Stream};
use crate::data::packing::{ChoiceTree, Packed, Tree};
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu, Plan, PlanOptions, Recorder, Tensor};

/// A forward pass of a reward model over packed trees, recorded once.
pub struct Rater {
    gpu: Gpu,
    plan: Plan,
    stream: Stream,
    scores: Tensor,
    padding: Option<u32>,
}

impl Rater {
    /// Records the pass for streams up to `capacity`, of which a response takes one target.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that rates nothing, a capacity without room or beyond counting, and for a `gpu` or an
    /// arena that is not the model's; memory errors.
    pub async fn new(gpu: &Gpu, model: &Model, capacity: Capacity, arena: &Arena) -> Result<Rater> {
        check_rates(model)?;
        let stream = Stream::new(gpu, model, capacity, false)?;
        let mut r = Recorder::new(gpu);
        let (tokens, targets) = stream.bind(&mut r);
        let scores = model.rate(&mut r, &tokens, &targets, false)?;
        r.output(scores);
        let plan = Plan::new(gpu, r, arena, PlanOptions::default()).await?;
        Ok(Rater { gpu: gpu.clone(), plan, stream, scores, padding: model.config().padding() })
    }

    /// Rates every response of every tree, in order.
    ///
    /// # Errors
    /// For a tree that the model cannot read or that is above the capacity, before anything runs: [`Error::Config`] for an
    /// empty prompt or response or a token id beyond the vocabulary, [`Error::TooLong`] for a sequence beyond the context.
    pub async fn rate(&self, trees: &[Tree]) -> Result<Vec<f32>> {
        let trees: Vec<ChoiceTree> = trees.iter().map(|tree| rated(tree, self.padding)).collect();
        self.stream.check_choices(&trees)?;
        let mut scores = Vec::new();
        for batch in self.stream.capacity().batches(&trees, usize::MAX, Capacity::of_choices)? {
            let turn = self.gpu.turn().await?;
            let running = self.plan.submit(&self.stream.upload(&Packed::of_choices(batch))?, 1)?;
            drop(turn);
            scores.extend_from_slice(running.outputs().await?.f32(self.scores));
        }
        Ok(scores)
    }
}

/// Refuses a model that predicts tokens.
pub(crate) fn check_rates(model: &Model) -> Result<()> {
    match model.architecture().rates {
        true => Ok(()),
        false => Err(Error::config("model", format!("is a {}, which rates no text", model.config().name))),
    }
}

/// Refuses a model that rates texts where one that writes them is trained.
pub(crate) fn check_writes(model: &Model) -> Result<()> {
    match model.architecture().rates {
        false => Ok(()),
        true => Err(Error::config(
            "model",
            format!("is a {}, which rates texts and writes none", model.config().name),
        )),
    }
}

/// A tree whose responses are rated where `transformers` does it: at their last token that is no padding. A response of
/// nothing else keeps its first token.
pub(crate) fn rated(tree: &Tree, padding: Option<u32>) -> ChoiceTree {
    let ends = |response: &Vec<u32>| {
        let last = response.iter().rposition(|id| Some(*id) != padding).unwrap_or(0);
        response[..(last + 1).min(response.len())].to_vec()
    };
    // What follows is not asked for: the choice is a place to rate at.
    ChoiceTree {
        prompt: tree.prompt.clone(),
        branches: tree.responses.iter().map(ends).collect(),
        choices: vec![0],
    }
}

/// What trees of responses take where each is rated at its end.
pub(crate) fn capacity_of(tree: &Tree) -> Capacity {
    Capacity::of_choices(&rated(tree, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_rated_at_its_last_token_that_is_no_padding() {
        let tree = Tree { prompt: vec![1, 5], responses: vec![vec![7, 2, 2], vec![9], vec![2, 2]] };
        assert_eq!(rated(&tree, None).branches, tree.responses);
        assert_eq!(rated(&tree, Some(2)).branches, [vec![7], vec![9], vec![2]]);
        assert_eq!(capacity_of(&tree), Capacity { tokens: 8, targets: 3, sequences: 3 });
    }
}
