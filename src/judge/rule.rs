//! A judge that follows a simple rule: for tests, demonstrations, and preferences that need no model.

use std::collections::BTreeMap;

use regex::Regex;

use super::{Judge, Judgement, Pair, Rated, Score, Verdict, names};
use crate::error::{Error, Result};
use crate::task::Task;

/// The forms of a rule, for error messages.
const FORMS: [&str; 6] =
    ["shorter", "longer", "contains:REGEX", "not-contains:REGEX", "starts-with:TEXT", "more:REGEX"];

/// Prefers, with probability 1, the response that the rule ranks higher; equal ranks tie.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    rank: Rank,
}

#[derive(Clone, Debug)]
enum Rank {
    Shorter,
    Longer,
    Contains(Regex),
    NotContains(Regex),
    StartsWith(String),
    More(Regex),
}

impl Rule {
    /// Parses one of
    /// - `shorter`, `longer`: by characters;
    /// - `contains:REGEX`, `not-contains:REGEX`: whether there is a match;
    /// - `more:REGEX`: by the number of matches;
    /// - `starts-with:TEXT`: whether it starts with the text, ignoring leading white space.
    ///
    /// Anything else is [`Error::Config`].
    pub fn parse(text: &str) -> Result<Rule> {
        let (name, argument) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let Some(form) = FORMS.into_iter().find(|form| names::bare(form) == name) else {
            return Err(names::unknown("judge-rule", name, &FORMS));
        };
        let bad = |why: String| Error::config("judge-rule", format!("{text:?} {why}"));
        let argument = match (form.split_once(':'), argument) {
            (None, None) => "",
            (None, Some(_)) => return Err(bad(format!("takes nothing after its name: write {form}"))),
            (Some(_), None | Some("")) => return Err(bad(format!("needs more: write {form}"))),
            (Some(_), Some(argument)) => argument,
        };
        let regex = || Regex::new(argument).map_err(|e| bad(format!("is not a regular expression ({e})")));
        let rank = match name {
            "shorter" => Rank::Shorter,
            "longer" => Rank::Longer,
            "contains" => Rank::Contains(regex()?),
            "not-contains" => Rank::NotContains(regex()?),
            "more" => Rank::More(regex()?),
            "starts-with" => Rank::StartsWith(argument.trim_start().to_owned()),
            _ => unreachable!("{name} is in FORMS"),
        };
        Ok(Rule { text: text.to_owned(), rank })
    }

    /// The rank of a response; higher is better.
    fn rank(&self, response: &str) -> i64 {
        match &self.rank {
            Rank::Shorter => -(response.chars().count() as i64),
            Rank::Longer => response.chars().count() as i64,
            Rank::Contains(regex) => i64::from(regex.is_match(response)),
            Rank::NotContains(regex) => i64::from(!regex.is_match(response)),
            Rank::StartsWith(text) => i64::from(response.trim_start().starts_with(text)),
            Rank::More(regex) => regex.find_iter(response).count() as i64,
        }
    }
}

impl Judge for Rule {
    fn name(&self) -> String {
        format!("rule {}", self.text)
    }

    fn identity(&self) -> Result<BTreeMap<String, String>> {
        let options = [("judge", "rule"), ("judge-rule", &self.text)];
        Ok(options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn judge<'t>(&'t mut self, pairs: &'t [Pair<'t>]) -> Task<'t, Result<Vec<Judgement>>> {
        Box::pin(async move {
            let judge = |pair: &Pair| {
                let order = self.rank(pair.response_1).cmp(&self.rank(pair.response_2));
                Verdict::from_probability(0.5 + 0.5 * f32::from(order as i8)).into()
            };
            Ok(pairs.iter().map(judge).collect())
        })
    }

    fn rates(&self) -> bool {
        true
    }

    fn rate<'t>(&'t mut self, responses: &'t [Rated<'t>]) -> Task<'t, Result<Vec<Score>>> {
        Box::pin(async move {
            Ok(responses.iter().map(|rated| Score::Value(self.rank(rated.response) as f32)).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;

    fn judge(rule: &str, response_1: &str, response_2: &str) -> &'static str {
        let pair = Pair { prompt: "x", response_1, response_2 };
        let mut rule = Rule::parse(rule).unwrap();
        let labels = [pair, pair.swapped()].map(|p| rule.judge(&[p]).wait().unwrap()[0].verdict.label());
        let mirrored = [("1", "2"), ("2", "1"), ("tie", "tie")];
        assert!(mirrored.contains(&(labels[0], labels[1])), "the order matters: {labels:?}");
        labels[0]
    }

    #[test]
    fn each_rule_prefers_what_its_name_says() {
        let cases = [
            ("shorter", "ab", "abc", "1"),
            ("longer", "ab", "abc", "2"),
            ("contains:\\bdog\\b", "a dog", "a dogma", "1"),
            ("not-contains:dog", "a dog", "a cat", "2"),
            ("more:[!?]", "what?!", "no!", "1"),
            ("starts-with:Yes", "\n Yes, it is", "It is. Yes", "1"),
            ("starts-with: a:b", "a:b", "a", "1"),
        ];
        for (rule, one, two, expected) in cases {
            assert_eq!(judge(rule, one, two), expected, "{rule}");
        }
    }

    #[test]
    fn equal_responses_by_the_rule_tie() {
        for (rule, one, two) in
            [("shorter", "ab", "cd"), ("contains:x", "ab", "cd"), ("more:a", "ab", "ac"), ("longer", "", "")]
        {
            assert_eq!(judge(rule, one, two), "tie", "{rule}");
        }
    }

    #[test]
    fn length_is_in_characters_not_bytes() {
        assert_eq!(judge("shorter", "ééé", "abcd"), "1");
        assert_eq!(judge("longer", "ééé", "abc"), "tie");
    }

    #[test]
    fn an_invalid_rule_is_an_error_that_shows_the_valid_forms() {
        let error = |text| Rule::parse(text).unwrap_err().to_string();
        let unknown = error("contain:x");
        assert!(unknown.contains("did you mean \"contains:REGEX\"?"), "{unknown}");
        assert!(FORMS.iter().all(|form| unknown.contains(form)), "{unknown}");
        assert!(!error("politest").contains("did you mean"));
        assert!(error("contains:(").contains("is not a regular expression"));
        assert!(error("contains").contains("write contains:REGEX"));
        assert!(error("starts-with:").contains("write starts-with:TEXT"));
        assert!(error("shorter:5").contains("write shorter"));
        assert!(error("").contains("is unknown"));
    }
}
