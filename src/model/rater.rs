//! Scores of given texts by a reward model, for a judge and for `oaif eval`.

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
    /// Records the pass for streams up to `capacity`, in which a response takes one target.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that is not a reward model, a capacity that is empty or too large, and for a `gpu`
    /// or an arena that is not the model's; memory errors.
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

    /// Returns the score of every response of every tree, in order.
    ///
    /// # Errors
    /// Checked before anything runs, for a tree that the model cannot read or that exceeds the capacity:
    /// [`Error::Config`] for an empty prompt or response or a token id outside the vocabulary, [`Error::TooLong`] for a
    /// sequence longer than the context.
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

/// Returns an error for a model that predicts tokens.
pub(crate) fn check_rates(model: &Model) -> Result<()> {
    match model.architecture().rates {
        true => Ok(()),
        false => {
            Err(Error::config("model", format!("is a {}, which is not a reward model", model.config().name)))
        }
    }
}

/// Returns an error for a reward model where a language model is trained.
pub(crate) fn check_writes(model: &Model) -> Result<()> {
    match model.architecture().rates {
        false => Ok(()),
        true => Err(Error::config(
            "model",
            format!("is a {}, which scores text and cannot generate it", model.config().name),
        )),
    }
}

/// Converts a tree to one whose responses are rated at the position that `transformers` uses: their last token that is
/// not padding. A response of padding alone keeps its first token.
pub(crate) fn rated(tree: &Tree, padding: Option<u32>) -> ChoiceTree {
    let ends = |response: &Vec<u32>| {
        let last = response.iter().rposition(|id| Some(*id) != padding).unwrap_or(0);
        response[..(last + 1).min(response.len())].to_vec()
    };
    // The choice only marks the position that is rated; its probability is not used.
    ChoiceTree {
        prompt: tree.prompt.clone(),
        branches: tree.responses.iter().map(ends).collect(),
        choices: vec![0],
    }
}

/// The capacity that a tree takes if each response is rated at its end.
pub(crate) fn capacity_of(tree: &Tree) -> Capacity {
    Capacity::of_choices(&rated(tree, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_rated_at_its_last_token_that_is_not_padding() {
        let tree = Tree { prompt: vec![1, 5], responses: vec![vec![7, 2, 2], vec![9], vec![2, 2]] };
        assert_eq!(rated(&tree, None).branches, tree.responses);
        assert_eq!(rated(&tree, Some(2)).branches, [vec![7], vec![9], vec![2]]);
        assert_eq!(capacity_of(&tree), Capacity { tokens: 8, targets: 3, sequences: 3 });
    }
}
