//! A frozen reward model as judge: the RLHF baseline of the paper, and any single-label classifier saved by
//! `transformers`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

#[cfg(doc)]
use super::judge_model::DEFAULT_MAX_LENGTH;
use super::judge_model::{JudgeModel, capacity, text_limit, too_long};
use super::{Judge, Judgement, Pair, Rated, Score, Verdict};
use crate::data::encoder::Encoder;
use crate::data::packing::Tree;
use crate::data::rows::Text;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::gpu::Arena;
use crate::model::stream::Capacity;
use crate::model::{Model, Rater, fingerprint};
use crate::task::Task;

/// A reward model that rates responses.
pub struct RewardJudge {
    tokenizer: Tokenizer,
    rater: Rater,
    max_length: usize,
    append_eos: bool,
    dir: PathBuf,
    adapter: Option<PathBuf>,
    name: String,
}

impl RewardJudge {
    /// A judge that uses this model and the tokenizer in `dir`. `adapter`: the folder of the LoRA adapter on it, for
    /// [`Judge::identity`]. `append_eos`: whether an end-of-sequence token is appended to each response, as `oaif
    /// reward` does in training. Texts longer than `max_length` tokens (`None`: [`DEFAULT_MAX_LENGTH`]) or than the
    /// model's context are not rated.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a model without a reward head; invalid model files; out of memory.
    pub async fn new(
        model: &Model,
        dir: &Path,
        adapter: Option<&Path>,
        append_eos: bool,
        max_length: Option<usize>,
        name: &str,
    ) -> Result<RewardJudge> {
        let max_length = text_limit(model, max_length)?;
        let capacity = Capacity { targets: 128, ..capacity(max_length) };
        Ok(RewardJudge {
            tokenizer: Tokenizer::load_for(dir, model.architecture().vocab)?,
            rater: Rater::new(model.gpu(), model, capacity, &Arena::new()).await?,
            max_length,
            append_eos,
            dir: dir.to_owned(),
            adapter: adapter.map(Path::to_owned),
            name: format!("reward ({name})"),
        })
    }

    /// The tree of a prompt and its response, or why the response cannot be rated.
    fn tree(&self, prompt: &str, response: &str) -> Result<Result<Tree, String>> {
        let encoder = Encoder { tokenizer: &self.tokenizer, template: None };
        let [prompt, response] = [prompt, response].map(|text| Text::Plain(text.to_owned()));
        let append_eos = self.append_eos && self.tokenizer.eos().is_some();
        let encoded = encoder.encode(&prompt, &[&response], append_eos);
        let tree = match JudgeModel::usable(encoded)? {
            Ok(encoded) => encoded.tree,
            Err(why) => return Ok(Err(why)),
        };
        if tree.responses.iter().any(Vec::is_empty) {
            return Ok(Err("the response has no tokens, so it cannot be rated".into()));
        }
        match too_long(tree.length(), self.max_length) {
            Some(why) => Ok(Err(why)),
            None => Ok(Ok(tree)),
        }
    }
}

impl Judge for RewardJudge {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let model = fingerprint::judge_model(&self.dir, self.tokenizer.eos_ids())?.to_string();
        let adapter = self.adapter.as_deref().map(fingerprint::adapter).transpose()?;
        let own = [
            ("judge", "reward".to_owned()),
            ("judge-model", model),
            ("judge-adapter", adapter.map_or_else(String::new, |digest| digest.to_string())),
            ("judge-append-eos", self.append_eos.to_string()),
            ("judge-max-length", self.max_length.to_string()),
        ];
        Ok(own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// p = σ(r₁ − r₂) (Bradley and Terry).
    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            // In a round robin every response appears in several pairs; each is rated once.
            let mut places: HashMap<(&str, &str), usize> = HashMap::new();
            let mut all: Vec<Rated<'_>> = Vec::new();
            let mut place = |prompt, response| {
                *places.entry((prompt, response)).or_insert_with(|| {
                    all.push(Rated { prompt, response });
                    all.len() - 1
                })
            };
            let of: Vec<[usize; 2]> = pairs
                .iter()
                .map(|pair| [pair.response_1, pair.response_2].map(|response| place(pair.prompt, response)))
                .collect();
            let scores = self.rate(&all).await?;
            let judge = |[one, two]: [usize; 2]| match (&scores[one], &scores[two]) {
                (Score::Value(one), Score::Value(two)) => {
                    let difference = f64::from(*one) - f64::from(*two);
                    Verdict::from_probability((1.0 / (1.0 + (-difference).exp())) as f32)
                }
                (Score::Invalid { why }, _) | (_, Score::Invalid { why }) => {
                    Verdict::Invalid { why: why.clone() }
                }
            };
            Ok(of.into_iter().map(|pair| judge(pair).into()).collect())
        })
    }

    fn rates(&self) -> bool {
        true
    }

    fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, Result<Vec<Score>>> {
        Box::pin(async move {
            let trees = responses
                .iter()
                .map(|rated| self.tree(rated.prompt, rated.response))
                .collect::<Result<Vec<_>>>()?;
            let usable: Vec<Tree> = trees.iter().filter_map(|tree| tree.as_ref().ok().cloned()).collect();
            let mut scores = self.rater.rate(&usable).await?.into_iter();
            let score = |tree: Result<Tree, String>| match tree {
                Err(why) => Score::Invalid { why },
                Ok(_) => match scores.next().expect("one a response") {
                    score if score.is_finite() => Score::Value(score),
                    score => Score::Invalid { why: format!("the reward model returned {score}") },
                },
            };
            Ok(trees.into_iter().map(score).collect())
        })
    }
}
