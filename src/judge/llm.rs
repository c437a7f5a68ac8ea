//! The judge of the paper: a language model reads both responses and answers "1" or "2". The verdict is the softmax
//! over the logits of these two tokens alone; both orders are judged.

use std::collections::BTreeMap;

use super::judge_model::{JudgeModel, shared_prefix};
use super::template::JudgeTemplate;
use super::{Judge, Judgement, Pair, Position, Verdict};
use crate::data::packing::ChoiceTree;
use crate::error::{Error, Result};
use crate::task::Task;

/// Which orders of the two responses are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Orders {
    /// Both; the probabilities are averaged, which cancels most of the judge's position bias.
    #[default]
    Both,
    /// Only the given one.
    One,
}

/// The token ids of a rendered template, and those of the answers "1" and "2" after it.
type Question = (Vec<u32>, [u32; 2]);

/// A prompted language model as judge.
pub struct LlmJudge {
    judge: JudgeModel,
    template: JudgeTemplate,
    orders: Orders,
    name: String,
}

impl LlmJudge {
    /// A judge that uses `template`. The text before the first placeholder is cached.
    ///
    /// # Errors
    /// Errors of the template, the tokenizer and the GPU.
    pub async fn new(
        mut judge: JudgeModel,
        template: JudgeTemplate,
        orders: Orders,
        name: &str,
    ) -> Result<LlmJudge> {
        judge.read_preamble(|pair| template.render(pair)).await?;
        Ok(LlmJudge { judge, template, orders, name: format!("llm ({name})") })
    }

    /// The token ids of a rendered template and of the answers "1" and "2" after it, encoded together with it.
    fn encode(&self, pair: &Pair<'_>) -> Result<Question> {
        let text = self.template.render(pair)?;
        let tokenizer = &self.judge.tokenizer;
        let ids = tokenizer.encode_beginning(&text)?;
        let single = |answer: String| -> Result<Option<u32>> {
            let whole = tokenizer.encode_beginning(&format!("{text}{answer}"))?;
            match whole.strip_prefix(ids.as_slice()) {
                Some([id]) if tokenizer.decode(&[*id], false)?.trim() == answer.trim() => Ok(Some(*id)),
                _ => Ok(None),
            }
        };
        // Some tokenizers have single tokens for digits only after a space.
        for space in ["", " "] {
            if let (Some(one), Some(two)) = (single(format!("{space}1"))?, single(format!("{space}2"))?) {
                return Ok((ids, [one, two]));
            }
        }
        let why = "the judge's tokenizer has no single token for the answers 1 and 2 after the template: choose \
                   another --judge-model, or end --judge-template differently";
        Err(Error::Judge { name: self.name.clone(), why: why.into() })
    }

    /// The tree of a pair: the common prefix of the orders, then each order; or why the pair cannot be judged.
    fn tree(&self, pair: &Pair<'_>) -> Result<Result<ChoiceTree, String>> {
        let (first, choices) = match JudgeModel::usable(self.encode(pair))? {
            Ok(encoded) => encoded,
            Err(why) => return Ok(Err(why)),
        };
        let texts = match self.orders {
            Orders::One => vec![first],
            Orders::Both => {
                let (second, same) = match JudgeModel::usable(self.encode(&pair.swapped()))? {
                    Ok(encoded) => encoded,
                    Err(why) => return Ok(Err(why)),
                };
                if same != choices {
                    let why = "the answer tokens differ between the orders: end the judge template with a fixed text";
                    return Err(Error::Judge { name: self.name.clone(), why: why.into() });
                }
                vec![first, second]
            }
        };
        if let Some(why) = self.judge.refuse(texts.iter().map(Vec::len)) {
            return Ok(Err(why));
        }
        let shared = match texts.as_slice() {
            [a, b] => shared_prefix(a, b),
            _ => texts[0].len().saturating_sub(1),
        };
        if shared == 0 {
            return Ok(Err(
                "the template begins with a response, and the tokenizer adds no beginning-of-sequence token"
                    .into(),
            ));
        }
        let prompt = texts[0][..shared].to_vec();
        let branches = texts.into_iter().map(|mut t| t.split_off(shared)).collect();
        Ok(Ok(ChoiceTree { prompt, branches, choices: choices.to_vec() }))
    }
}

/// P("1") given that the answer is "1" or "2", from the log-probabilities of the two.
fn softmax_of_two(logps: &[f32]) -> f32 {
    1.0 / (1.0 + (logps[1] - logps[0]).exp())
}

impl Judge for LlmJudge {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let orders = if self.orders == Orders::Both { "both" } else { "one" };
        let [template, instruction] = self.template.identity();
        let options = [
            ("judge-template", template),
            ("judge-instruction", instruction),
            ("judge-orders", orders.to_owned()),
        ];
        self.judge.identity("llm", options)
    }

    fn position(&self) -> Position {
        if self.orders == Orders::One { Position::Given } else { Position::Settled }
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            let trees = pairs.iter().map(|p| self.tree(p)).collect::<Result<Vec<_>>>()?;
            let usable: Vec<ChoiceTree> = trees.iter().filter_map(|t| t.as_ref().ok().cloned()).collect();
            let mut scores = self.judge.scorer.score_choices(&usable).await?.into_iter();
            let judgement = |tree: Result<ChoiceTree, String>| match tree {
                Err(why) => Verdict::Invalid { why }.into(),
                Ok(tree) => {
                    let mut next = || softmax_of_two(&scores.next().expect("one score a branch").logps);
                    let p_12 = next();
                    // With response 2 shown first, "1" means response 2.
                    let p_21 = (tree.branches.len() == 2).then(|| 1.0 - next());
                    Judgement::from_orders(Some(p_12), p_21)
                }
            };
            Ok(trees.into_iter().map(judgement).collect())
        })
    }
}
