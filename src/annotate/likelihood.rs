//! A language model as a judge of what is probable: it prefers the response that it would rather have written.

use std::collections::BTreeMap;

use minijinja::{Environment, context};

use super::judge_model::JudgeModel;
use super::{Annotator, Judgement, Pair, Verdict};
use crate::data::encoder::Encoder;
use crate::data::packing::Tree;
use crate::data::rows::Text;
use crate::error::{Error, Result};

/// What a response's log-probability is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Nothing: which response is more probable.
    #[default]
    Sum,
    /// Its tokens.
    Token,
    /// Its characters: comparable between tokenizers.
    Character,
}

/// What the judge reads before a response, by default.
pub const DEFAULT_TEMPLATE: &str = "{{ prompt }}";

/// A language model that compares likelihoods.
pub struct LikelihoodAnnotator {
    judge: JudgeModel,
    environment: Environment<'static>,
    instruction: String,
    normalise: Normalise,
    name: String,
    whole: bool,
}

impl LikelihoodAnnotator {
    /// A judge that reads `template`, with `{{ instruction }}` and `{{ prompt }}`, before each response.
    ///
    /// # Errors
    /// [`Error::Config`] for a template that does not parse or does not mention the prompt.
    pub fn new(
        judge: JudgeModel,
        template: &str,
        instruction: &str,
        normalise: Normalise,
        name: &str,
    ) -> Result<LikelihoodAnnotator> {
        let broken = |why: String| Error::config("judge-template", why);
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_template_owned("before", template.to_owned()).map_err(|e| broken(e.to_string()))?;
        let used = environment.get_template("before").expect("just added").undeclared_variables(false);
        if !used.contains("prompt") {
            return Err(broken("has no {{ prompt }}, which the responses answer".into()));
        }
        if !instruction.is_empty() && !used.contains("instruction") {
            return Err(broken("has no {{ instruction }}, but one is given".into()));
        }
        if let Some(unknown) = used.iter().find(|n| !["prompt", "instruction"].contains(&n.as_str())) {
            return Err(broken(format!(
                "has an unknown placeholder {unknown:?}: known are prompt, instruction"
            )));
        }
        let (name, instruction) = (format!("likelihood ({name})"), instruction.into());
        let mut annotator =
            LikelihoodAnnotator { judge, environment, instruction, normalise, name, whole: false };
        let before = |pair: &Pair<'_>| before(&annotator.environment, &annotator.instruction, pair);
        annotator.judge.read_preamble(before)?;
        Ok(annotator)
    }

    /// Takes responses for whole: each ends with the judge's end-of-sequence token, if it has one. Otherwise, of a
    /// response and its beginning the beginning is always the more probable. Not for responses that were cut.
    pub fn of_whole_responses(self) -> LikelihoodAnnotator {
        LikelihoodAnnotator { whole: true, ..self }
    }

    /// The two responses after what comes before them, encoded together with it.
    fn tree(&self, pair: &Pair<'_>) -> Result<Result<Tree, String>> {
        let before = before(&self.environment, &self.instruction, pair)?;
        let encoder = Encoder { tokenizer: &self.judge.tokenizer, template: None };
        let responses = [pair.response_1, pair.response_2].map(|text| Text::Plain(text.to_owned()));
        let append_eos = self.whole && encoder.tokenizer.eos().is_some();
        let encoded = encoder.encode(&Text::Plain(before), &responses.each_ref(), append_eos);
        let tree = match JudgeModel::usable(encoded)? {
            Ok(encoded) => encoded.tree,
            Err(why) => return Ok(Err(why)),
        };
        if tree.responses.iter().any(Vec::is_empty) {
            return Ok(Err("a response has no token: nothing of it is probable or improbable".into()));
        }
        let lengths = tree.responses.iter().map(|response| tree.prompt.len() + response.len());
        match self.judge.refuse(lengths) {
            Some(why) => Ok(Err(why)),
            None => Ok(Ok(tree)),
        }
    }
}

/// What the judge reads before a response to this prompt.
fn before(environment: &Environment<'_>, instruction: &str, pair: &Pair<'_>) -> Result<String> {
    let template = environment.get_template("before").expect("added in new");
    template
        .render(context! { prompt => pair.prompt, instruction })
        .map_err(|e| Error::config("judge-template", e.to_string()))
}

impl Annotator for LikelihoodAnnotator {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let template = self.environment.get_template("before").expect("added in new").source().to_owned();
        let normalise = match self.normalise {
            Normalise::Sum => "sum",
            Normalise::Token => "token",
            Normalise::Character => "character",
        };
        let options = [
            ("judge-template", template),
            ("judge-instruction", self.instruction.clone()),
            ("judge-normalise", normalise.to_owned()),
            ("judge-whole-responses", self.whole.to_string()),
        ];
        self.judge.identity("likelihood", options)
    }

    fn annotate(&mut self, pairs: &[Pair<'_>]) -> Result<Vec<Judgement>> {
        let trees = pairs.iter().map(|p| self.tree(p)).collect::<Result<Vec<_>>>()?;
        let usable: Vec<Tree> = trees.iter().filter_map(|t| t.as_ref().ok().cloned()).collect();
        let mut scores = self.judge.scorer.score(&usable)?.into_iter();
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
                // Which is shown first plays no part: there is no order to ask about.
                return Verdict::from_probability((1.0 / (1.0 + (-difference).exp())) as f32).into();
            };
            Verdict::Invalid { why }.into()
        };
        Ok(trees.into_iter().zip(pairs).map(&mut judgement).collect())
    }
}
