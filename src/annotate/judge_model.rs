//! A language model that judges: its weights, its tokenizer, its scoring pass.

use std::path::Path;

use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::model::stream::Capacity;
use crate::model::{Model, Scorer};

/// Longest text that a judge reads by default, in tokens.
pub const DEFAULT_MAX_LENGTH: usize = 1024;

/// A judge's model, ready to score.
pub struct JudgeModel {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its scoring pass.
    pub scorer: Scorer,
    /// Longest text in tokens.
    pub max_length: usize,
}

impl JudgeModel {
    /// Loads the model in `dir`, held in the format of its files. `max_length` is cut to its context.
    pub fn load(gpu: &Gpu, dir: &Path, max_length: Option<usize>, arena: &Arena) -> Result<JudgeModel> {
        JudgeModel::of_model(&Model::load(gpu, dir, false)?, dir, max_length, arena)
    }

    /// A judge of this model, with the tokenizer in `dir`.
    pub fn of_model(
        model: &Model,
        dir: &Path,
        max_length: Option<usize>,
        arena: &Arena,
    ) -> Result<JudgeModel> {
        let tokenizer = Tokenizer::load(dir)?;
        tokenizer.check_vocabulary(model.architecture().vocab)?;
        let (scorer, max_length) = JudgeModel::scorer(model, max_length, arena)?;
        Ok(JudgeModel { tokenizer, scorer, max_length })
    }

    /// The scoring pass of a judge, all that it holds of the device, and the longest text that it reads.
    pub fn scorer(model: &Model, max_length: Option<usize>, arena: &Arena) -> Result<(Scorer, usize)> {
        let max_length = max_length.unwrap_or(DEFAULT_MAX_LENGTH).min(model.architecture().context);
        // One tree holds both orders, or both responses.
        let tokens = 2 * max_length;
        let capacity = Capacity { tokens: tokens.max(2048), targets: tokens.max(2048), sequences: 128 };
        Ok((Scorer::new(model.gpu(), model, capacity, arena)?, max_length))
    }

    /// Why texts of these lengths cannot be judged, if they cannot.
    pub(super) fn refuse(&self, lengths: impl IntoIterator<Item = usize>) -> Option<String> {
        let longest = lengths.into_iter().max().unwrap_or(0);
        let limit = self.max_length;
        (longest > limit).then(|| format!("the judge would read {longest} tokens, its limit is {limit}"))
    }
}

/// How many tokens two texts begin with in common, leaving each at least one of its own.
pub(super) fn shared_prefix(a: &[u32], b: &[u32]) -> usize {
    let limit = a.len().min(b.len()).saturating_sub(1);
    a.iter().zip(b).take(limit).take_while(|(a, b)| a == b).count()
}
