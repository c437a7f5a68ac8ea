//! An open question: its requests, and how their values are combined into an answer.

use std::sync::Arc;
use std::time::Instant;

use super::cache::Cache;
use super::dialect::Kind;
use super::options::OpenAiOptions;
use crate::error::{Error, Result};
use crate::judge::llm::Orders;
use crate::judge::queue::{Answer, Ask, Question, Said, Usage};
use crate::judge::template::JudgeTemplate;
use crate::judge::{Judgement, Rated, Score, Verdict};

/// A question that is not answered yet.
#[derive(Debug)]
pub(super) struct Open {
    id: String,
    ask: Ask,
    pub kind: Kind,
    /// The result of each request.
    parts: Vec<Option<Result<f32, String>>>,
    pub usage: Usage,
    /// When its first request was sent.
    pub began: Option<Instant>,
}

/// The text of a request and its key in the cache.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub text: Arc<str>,
    pub cache_key: Arc<str>,
}

impl Open {
    /// The question and the texts of its requests. A text that the template cannot render makes the question invalid.
    pub fn new(
        question: Question,
        template: &JudgeTemplate,
        options: &OpenAiOptions,
    ) -> (Open, Vec<Result<Text, String>>) {
        let rate = |response: &str| match &options.rating {
            Some(rating) => rating.render(&Rated { prompt: &question.prompt, response }),
            None => Err(Error::config(
                "judge-rating-template",
                "is missing: without it the judge can only compare",
            )),
        };
        let (kind, texts) = match &question.ask {
            Ask::Rate { response } => (Kind::Rate, vec![rate(response)]),
            Ask::Compare { response_1, response_2 } if options.pointwise => {
                (Kind::Rate, vec![rate(response_1), rate(response_2)])
            }
            Ask::Compare { .. } => {
                let pair = question.pair().expect("two responses are a pair");
                let swapped = (options.orders == Orders::Both).then(|| template.render(&pair.swapped()));
                (Kind::Compare, [template.render(&pair)].into_iter().chain(swapped).collect())
            }
        };
        let keyed =
            |text: String| Text { cache_key: Cache::key(options, &text, kind).into(), text: text.into() };
        let texts: Vec<Result<Text, String>> = texts
            .into_iter()
            .map(|text| text.map(keyed).map_err(|error| format!("the judge cannot read it: {error}")))
            .collect();
        let parts = vec![None; texts.len()];
        let Question { id, ask, .. } = question;
        (Open { id, ask, kind, parts, usage: Usage::default(), began: None }, texts)
    }

    /// Stores the result of the request `part`.
    pub fn set(&mut self, part: usize, value: Result<f32, String>) {
        self.parts[part] = Some(value);
    }

    /// The number of requests without a result.
    pub fn missing(&self) -> usize {
        self.parts.iter().filter(|part| part.is_none()).count()
    }

    /// Combines the results into the answer, once none is missing.
    pub fn answer(self, now: Instant) -> Answer {
        let ms = self.began.map_or(0.0, |began| now.saturating_duration_since(began).as_secs_f64() * 1e3);
        Answer { said: said(&self.ask, self.kind, &self.parts), id: self.id, usage: self.usage, ms }
    }
}

fn said(ask: &Ask, kind: Kind, parts: &[Option<Result<f32, String>>]) -> Said {
    let value = |part: usize| parts.get(part).and_then(|value| value.as_ref()?.as_ref().ok()).copied();
    let fault = parts.iter().enumerate().find_map(|(at, part)| Some((at, part.as_ref()?.as_ref().err()?)));
    match (ask, kind, fault) {
        (Ask::Rate { .. }, _, None) => {
            let missing = || Score::Invalid { why: "nothing was asked".into() };
            Said::Score(value(0).map_or_else(missing, Score::Value))
        }
        (Ask::Compare { .. }, Kind::Compare, None) => {
            // With response 2 shown first, "1" means response 2.
            Said::Judgement(Judgement::from_orders(value(0), value(1).map(|p| 1.0 - p)))
        }
        (Ask::Compare { .. }, Kind::Rate, None) => {
            let margin = value(0).unwrap_or(f32::NAN) - value(1).unwrap_or(f32::NAN);
            Said::Judgement(Verdict::from_probability(1.0 / (1.0 + (-margin).exp())).into())
        }
        (Ask::Compare { .. }, Kind::Compare, Some((1, why))) => {
            Said::invalid(ask, format!("in the other order, {why}"))
        }
        (_, _, Some((_, why))) => Said::invalid(ask, why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_or_both_ratings_are_combined_into_an_answer() {
        let compare = Ask::Compare { response_1: "a".into(), response_2: "b".into() };
        let of = |kind, parts: &[Result<f32, &str>]| {
            let parts: Vec<_> = parts.iter().map(|part| Some(part.map_err(str::to_owned))).collect();
            match said(&compare, kind, &parts) {
                Said::Judgement(judgement) => judgement,
                Said::Score(_) => panic!("a pair has no score"),
            }
        };
        assert_eq!(of(Kind::Compare, &[Ok(0.75), Ok(0.0)]), Judgement::from_orders(Some(0.75), Some(1.0)));
        assert_eq!(of(Kind::Compare, &[Ok(0.75)]), Judgement::from_orders(Some(0.75), None));
        assert_eq!(of(Kind::Rate, &[Ok(3.0), Ok(3.0)]).verdict, Verdict::Tie);
        assert!((of(Kind::Rate, &[Ok(8.0), Ok(7.0)]).verdict.p_first().unwrap() - 0.731_058_6).abs() < 1e-6);
        assert_eq!(of(Kind::Rate, &[Ok(1.0), Ok(10.0)]).verdict.label(), "2");
        assert_eq!(
            of(Kind::Compare, &[Ok(0.75), Err("no")]).verdict,
            Verdict::Invalid { why: "in the other order, no".into() }
        );
        assert_eq!(
            of(Kind::Compare, &[Err("no"), Err("never")]).verdict,
            Verdict::Invalid { why: "no".into() }
        );
        let rate = Ask::Rate { response: "a".into() };
        assert_eq!(said(&rate, Kind::Rate, &[Some(Ok(7.5))]), Said::Score(Score::Value(7.5)));
    }
}
