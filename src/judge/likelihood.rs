//! A language model as a judge by likelihood: it prefers the response to which it assigns the higher probability.

use std::collections::BTreeMap;

use minijinja::context;

use super::judge_model::JudgeModel;
use super::placeholders::{TextTemplate, unrendered};
use super::{Judge, Judgement, Pair, Verdict};
use crate::data::encoder::Encoder;
use crate::data::packing::Tree;
use crate::data::rows::Text;
use crate::error::{Error, Result};
use crate::task::Task;

/// How a response's log-probability is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// No normalisation: the more probable response wins.
    #[default]
    Sum,
    /// Divided by its number of tokens.
    Token,
    /// Divided by its number of characters: comparable between tokenizers.
    Character,
}

/// The default template of the text before a response.
pub const DEFAULT_TEMPLATE: &str = "{{ prompt }}";

/// A language model that compares likelihoods.
pub struct LikelihoodJudge {
    judge: JudgeModel,
    template: TextTemplate,
    normalise: Normalise,
    name: String,
    whole: bool,
}

impl LikelihoodJudge {
    /// A judge that puts the rendered `template`, with `{{ instruction }}` and `{{ prompt }}`, before each response.
    ///
    /// # Errors
    /// [`Error::Config`] for a template that does not parse, lacks a placeholder or uses an unknown one.
    pub async fn new(
        judge: JudgeModel,
        template: &str,
        instruction: &str,
        normalise: Normalise,
        name: &str,
    ) -> Result<LikelihoodJudge> {
        let (template, name) = (before(template, instruction)?, format!("likelihood ({name})"));
        let mut judge = LikelihoodJudge { judge, template, normalise, name, whole: false };
        judge.judge.read_preamble(|pair| rendered(&judge.template, pair.prompt)).await?;
        Ok(judge)
    }

    /// Treats responses as complete: the judge's end-of-sequence token, if it has one, is appended to each. Without it,
    /// a prefix of a response is always more probable than the response. Do not use it for responses that were cut off.
    pub fn of_whole_responses(self) -> LikelihoodJudge {
        LikelihoodJudge { whole: true, ..self }
    }

    /// The two responses as a tree after the text before them, encoded together with it; or why the pair cannot be
    /// judged.
    fn tree(&self, pair: &Pair<'_>) -> Result<Result<Tree, String>> {
        let tree = match JudgeModel::usable(self.encode(pair))? {
            Ok(tree) => tree,
            Err(why) => return Ok(Err(why)),
        };
        if tree.responses.iter().any(Vec::is_empty) {
            return Ok(Err("a response has no tokens, so it has no likelihood".into()));
        }
        let lengths = tree.responses.iter().map(|response| tree.prompt.len() + response.len());
        match self.judge.refuse(lengths) {
            Some(why) => Ok(Err(why)),
            None => Ok(Ok(tree)),
        }
    }

    fn encode(&self, pair: &Pair<'_>) -> Result<Tree> {
        let before = Text::Plain(rendered(&self.template, pair.prompt)?);
        let encoder = Encoder { tokenizer: &self.judge.tokenizer, template: None };
        let responses = [pair.response_1, pair.response_2].map(|text| Text::Plain(text.to_owned()));
        let append_eos = self.whole && encoder.tokenizer.eos().is_some();
        Ok(encoder.encode(&before, &responses.each_ref(), append_eos)?.tree)
    }
}

/// Parses the template of the text before a response.
fn before(template: &str, instruction: &str) -> Result<TextTemplate> {
    let template = TextTemplate::new(template, &["prompt"], &["instruction"]);
    let with = |t: TextTemplate| if instruction.is_empty() { Ok(t) } else { t.with_instruction(instruction) };
    template.and_then(with).map_err(|why| Error::config("judge-template", why))
}

fn rendered(template: &TextTemplate, prompt: &str) -> Result<String> {
    template.render(context! { prompt }).map_err(unrendered)
}

/// The text that a judge with this template puts before a response; for tests of templates without a model.
#[doc(hidden)]
pub fn text_before(template: &str, instruction: &str, prompt: &str) -> Result<String> {
    rendered(&before(template, instruction)?, prompt)
}

impl Judge for LikelihoodJudge {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let normalise = match self.normalise {
            Normalise::Sum => "sum",
            Normalise::Token => "token",
            Normalise::Character => "character",
        };
        let options = [
            ("judge-template", self.template.source()),
            ("judge-instruction", self.template.instruction().to_owned()),
            ("judge-normalise", normalise.to_owned()),
            ("judge-whole-responses", self.whole.to_string()),
        ];
        self.judge.identity("likelihood", options)
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            let trees = pairs.iter().map(|p| self.tree(p)).collect::<Result<Vec<_>>>()?;
            let usable: Vec<Tree> = trees.iter().filter_map(|t| t.as_ref().ok().cloned()).collect();
            let mut scores = self.judge.scorer.score(&usable).await?.into_iter();
            let mut judgement = |(tree, pair): (Result<Tree, String>, &Pair<'_>)| {
                let Err(why) = tree.map(|_| ()) else {
                    let mut mean = |response: &str| {
                        let scored = scores.next().expect("one score a response");
                        let by = match self.normalise {
                            Normalise::Sum => 1,
                            Normalise::Token => scored.logps.len(),
                            Normalise::Character => response.chars().count().max(1),
                        };
                        scored.logp() / by as f64
                    };
                    let difference = mean(pair.response_1) - mean(pair.response_2);
                    // The score does not depend on which response is shown first, so there are no orders.
                    return Verdict::from_probability((1.0 / (1.0 + (-difference).exp())) as f32).into();
                };
                Verdict::Invalid { why }.into()
            };
            Ok(trees.into_iter().zip(pairs).map(&mut judgement).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_before_a_response_is_the_rendered_template() {
        let template = "{% if instruction %}\n- {{ instruction }}\n{% endif %}\n{{ prompt }} ";
        assert_eq!(text_before(template, "be {{ kind }}", "<b> \n").unwrap(), "- be {{ kind }}\n<b> \n ");
        assert_eq!(text_before(template, "", "x").unwrap(), "x ");
        assert_eq!(text_before(DEFAULT_TEMPLATE, "", " x\n").unwrap(), " x\n");
    }

    #[test]
    fn a_template_that_cannot_be_used_is_refused_before_a_run() {
        for (template, instruction, why) in [
            ("{{ instruction }}", "", "has no {{ prompt }}"),
            ("{{ prompt }}", "be kind", "has no {{ instruction }}, but one is given"),
            ("{{ prompt }}{{ promt }}", "", "did you mean \"prompt\"?"),
            ("{{ prompt }}{% if %}", "", "is not a valid template"),
            ("{{ prompt | nosuch }}", "", "is not a valid template"),
        ] {
            let error = text_before(template, instruction, "x").unwrap_err();
            assert!(matches!(error, Error::Config { .. }) && error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_template_that_loops_for_ever_or_grows_without_end_is_stopped() {
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
            "{{ 'x' * 10**9 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        ] {
            let error = text_before(&format!("{{{{ prompt }}}}{source}"), "", "x").unwrap_err().to_string();
            assert!(error.contains("is not a valid template"), "{error}");
        }
        let minuses = format!("{{{{ prompt }}}}{{{{ {}1 }}}}", "-".repeat(24_000));
        let error = text_before(&minuses, "", "x").unwrap_err().to_string();
        assert!(error.contains("more than 1000 tokens"), "{error}");
    }
}
