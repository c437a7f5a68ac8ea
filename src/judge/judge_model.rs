//! A language model that judges: its weights, its tokenizer and its scoring pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Pair;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::gpu::{Arena, Gpu};
use crate::model::fingerprint;
use crate::model::stream::Capacity;
use crate::model::{Model, Scorer};

/// Default limit on the length of a text, in tokens.
pub const DEFAULT_MAX_LENGTH: usize = 1024;

/// Minimum length, in tokens, of a common beginning of all texts that is worth caching.
const MIN_PREAMBLE: usize = 8;

/// A judge's model, ready to score.
pub struct JudgeModel {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its scoring pass.
    pub scorer: Scorer,
    /// Limit on the length of a text, in tokens.
    max_length: usize,
    dir: PathBuf,
    model: Model,
    arena: Arena,
}

impl JudgeModel {
    /// Loads the model in `dir`, in the format of its files. `max_length` is limited to the model's context.
    ///
    /// # Errors
    /// [`Error::Config`] for a `max_length` of 0; invalid model files; out of memory.
    pub async fn load(gpu: &Gpu, dir: &Path, max_length: Option<usize>, arena: &Arena) -> Result<JudgeModel> {
        JudgeModel::of_model(&Model::load(gpu, dir, false).await?, dir, max_length, arena).await
    }

    /// A judge that uses this model and the tokenizer in `dir`. The weights must not change: of a model that is being
    /// trained, pass a [`Model::snapshot`].
    pub async fn of_model(
        model: &Model,
        dir: &Path,
        max_length: Option<usize>,
        arena: &Arena,
    ) -> Result<JudgeModel> {
        let tokenizer = Tokenizer::load_for(dir, model.architecture().vocab)?;
        let (scorer, max_length) = JudgeModel::scorer(model, max_length, arena).await?;
        let (dir, model, arena) = (dir.to_owned(), model.clone(), arena.clone());
        Ok(JudgeModel { tokenizer, scorer, max_length, dir, model, arena })
    }

    /// The scoring pass of a judge, which accounts for all its GPU memory, and the limit on the text length. A judge
    /// that caches the beginning of its texts needs slightly more memory.
    pub async fn scorer(model: &Model, max_length: Option<usize>, arena: &Arena) -> Result<(Scorer, usize)> {
        let max_length = text_limit(model, max_length)?;
        Ok((Scorer::new(model.gpu(), model, capacity(max_length), arena).await?, max_length))
    }

    /// The identity of a judge of this kind with this model, see [`Judge::identity`](super::Judge).
    pub(super) fn identity<const N: usize>(
        &self,
        kind: &str,
        options: [(&str, String); N],
    ) -> Result<BTreeMap<String, String>> {
        let model = fingerprint::judge_model(&self.dir, self.tokenizer.eos_ids())?.to_string();
        let own = [
            ("judge", kind.to_owned()),
            ("judge-model", model),
            ("judge-max-length", self.max_length.to_string()),
        ];
        Ok(own.into_iter().chain(options).map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Caches the common beginning of the texts that `text` renders for a [`Pair`]. It is found by comparing the texts
    /// of very different pairs. A text that begins differently is still judged, only more slowly.
    pub(super) async fn read_preamble(&mut self, text: impl Fn(&Pair<'_>) -> Result<String>) -> Result<()> {
        // A tokenizer may merge the first letter of a value with the text before it.
        let words = ["a", "Z", "1", ".", " ", "\n", ""];
        let texts = words.map(|word| text(&Pair { prompt: word, response_1: word, response_2: word }));
        // A template may reject these test pairs; the real pairs are judged all the same.
        let Ok(texts) = texts.into_iter().collect::<Result<Vec<String>>>() else { return Ok(()) };
        let texts = texts.iter().map(|t| self.tokenizer.encode_beginning(t)).collect::<Result<Vec<_>>>();
        // The same holds for the tokenizer.
        let Ok(texts) = texts else { return Ok(()) };
        let agree = |at: usize| texts.iter().all(|ids| ids.get(at).is_some_and(|id| *id == texts[0][at]));
        let shared = (0..texts[0].len()).take_while(|at| agree(*at)).count();
        // Every text keeps at least one token after the preamble, even if the template inserts nothing.
        let shortest = texts.iter().map(Vec::len).min().unwrap_or(0);
        let preamble = texts[0][..shared.min(shortest.saturating_sub(1))].to_vec();
        if (MIN_PREAMBLE..self.max_length).contains(&preamble.len()) {
            let capacity = capacity(self.max_length);
            self.scorer =
                Scorer::after(self.model.gpu(), &self.model, &preamble, capacity, &self.arena).await?;
        }
        Ok(())
    }

    /// Turns an error about a single text into the reason why it cannot be judged: it must not end the run.
    pub(super) fn usable<T>(made: Result<T>) -> Result<Result<T, String>> {
        match made {
            Err(Error::Config { what, why }) => Ok(Err(format!("the judge cannot read it: {what} {why}"))),
            made => made.map(Ok),
        }
    }

    /// Why texts of these lengths cannot be judged; `None` if they can.
    pub(super) fn refuse(&self, lengths: impl IntoIterator<Item = usize>) -> Option<String> {
        too_long(lengths.into_iter().max().unwrap_or(0), self.max_length)
    }
}

/// The limit on the length of a text, in tokens: `given` or the default, and at most the model's context.
pub(super) fn text_limit(model: &Model, given: Option<usize>) -> Result<usize> {
    match given {
        Some(0) => Err(Error::config("judge-max-length", "is 0, at least 1 is needed")),
        given => Ok(given.unwrap_or(DEFAULT_MAX_LENGTH).min(model.architecture().context)),
    }
}

/// Why a text of `length` tokens cannot be judged; `None` if it can.
pub(super) fn too_long(length: usize, limit: usize) -> Option<String> {
    (length > limit).then(|| format!("the text has {length} tokens, the limit of the judge is {limit}"))
}

/// The capacity of one scoring pass of a judge.
pub(super) fn capacity(max_length: usize) -> Capacity {
    // One tree holds both orders, or both responses.
    let tokens = (2 * max_length).max(2048);
    Capacity { tokens, targets: tokens, sequences: 128 }
}

/// The length of the common prefix of two texts in tokens, leaving each text at least one token of its own.
pub(super) fn shared_prefix(a: &[u32], b: &[u32]) -> usize {
    let limit = a.len().min(b.len()).saturating_sub(1);
    a.iter().zip(b).take(limit).take_while(|(a, b)| a == b).count()
}
