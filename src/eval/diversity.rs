//! Diversity, repetition and length of a policy's responses. Words are separated by Unicode white space; case and
//! punctuation are kept.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::{Error, Result};

/// distinct-n: the number of different n-grams of words over all `texts` divided by the number of all n-grams. N-grams
/// do not cross from one text into the next. `None` if no text has n words, or for n = 0.
///
/// Li et al. 2016 (arXiv 1510.03055) divide by the number of words. Dividing by the number of n-grams, as most programs
/// do since, makes 1 the largest value. It falls with more text, so compare only sets with about the same number of
/// words.
pub fn distinct_n<T: AsRef<str>>(texts: &[T], n: usize) -> Option<f64> {
    if n == 0 {
        return None;
    }
    let words: Vec<Vec<&str>> = texts.iter().map(|text| text.as_ref().split_whitespace().collect()).collect();
    let grams = || words.iter().flat_map(|words| words.windows(n));
    let total = grams().count();
    (total > 0).then(|| grams().collect::<HashSet<_>>().len() as f64 / total as f64)
}

/// The share of a text's n-grams that occurred before in it, averaged over the texts with at least n words: 0 without
/// repetition, close to 1 when a policy loops (seq-rep-n of Welleck et al. 2020, arXiv 1908.04319). `None` without such
/// a text.
pub fn repetition<T: AsRef<str>>(texts: &[T], n: usize) -> Option<f64> {
    let shares: Vec<f64> =
        texts.iter().filter_map(|text| distinct_n(&[text.as_ref()], n).map(|d| 1.0 - d)).collect();
    mean(&shares)
}

/// A response of a policy.
#[derive(Clone, Copy, Debug)]
pub struct ResponseText<'a> {
    /// The text.
    pub text: &'a str,
    /// Its length in tokens, if known.
    pub tokens: Option<usize>,
    /// Whether it ended by itself rather than at the length limit, if known.
    pub ended: Option<bool>,
}

/// A summary of responses. Means and shares are over the responses for which the value is known, and `None` if there
/// are none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResponseStatistics {
    /// The number of responses.
    pub count: usize,
    /// Mean length in words.
    pub mean_words: Option<f64>,
    /// Mean length in characters (Unicode scalar values, as Python's `len`).
    pub mean_characters: Option<f64>,
    /// Mean length in tokens.
    pub mean_tokens: Option<f64>,
    /// Median length in characters.
    pub median_characters: Option<f64>,
    /// The share of responses that ended by themselves rather than at the length limit.
    pub ended: Option<f64>,
    /// The share of responses without a word.
    pub empty: Option<f64>,
    /// The share of responses that equal an earlier one.
    pub repeated_responses: Option<f64>,
    /// [`distinct_n`] for n = 1, 2, 3.
    pub distinct: [Option<f64>; 3],
    /// [`repetition`] of 3-grams.
    pub repetition: Option<f64>,
}

/// Summarises `responses`. Fails if there are none.
pub fn summarise(responses: &[ResponseText]) -> Result<ResponseStatistics> {
    if responses.is_empty() {
        return Err(Error::config("responses", "are empty: generate at least one"));
    }
    let texts: Vec<&str> = responses.iter().map(|a| a.text).collect();
    let numbers =
        |f: &dyn Fn(&ResponseText) -> Option<f64>| responses.iter().filter_map(f).collect::<Vec<f64>>();
    let mut characters = numbers(&|a| Some(a.text.chars().count() as f64));
    let mean_characters = mean(&characters);
    characters.sort_by(f64::total_cmp);
    let different: HashSet<&&str> = texts.iter().collect();
    Ok(ResponseStatistics {
        count: responses.len(),
        mean_words: mean(&numbers(&|a| Some(a.text.split_whitespace().count() as f64))),
        mean_characters,
        mean_tokens: mean(&numbers(&|a| a.tokens.map(|t| t as f64))),
        median_characters: Some(crate::eval::bootstrap::quantile(&characters, 0.5)),
        ended: mean(&numbers(&|a| a.ended.map(|e| f64::from(u8::from(e))))),
        empty: mean(&numbers(&|a| Some(f64::from(u8::from(a.text.trim().is_empty()))))),
        repeated_responses: Some(1.0 - different.len() as f64 / texts.len() as f64),
        distinct: [1, 2, 3].map(|n| distinct_n(&texts, n)),
        repetition: repetition(&texts, 3),
    })
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_n_counts_n_grams_inside_texts_only() {
        // 1-grams: a b a b c (3 of 5 distinct); 2-grams: ab ba | bc (3 of 3).
        let texts = ["a b  a", "b\nc"];
        assert_eq!(distinct_n(&texts, 1), Some(0.6));
        assert_eq!(distinct_n(&texts, 2), Some(1.0));
        assert_eq!(
            (distinct_n(&texts, 4), distinct_n(&texts, 0), distinct_n::<&str>(&[], 1)),
            (None, None, None)
        );
    }

    #[test]
    fn a_loop_shows_as_repetition() {
        assert!(repetition(&["go on and on and on and on and on"], 2).unwrap() > 0.5);
        assert_eq!(repetition(&["every word differs"], 2), Some(0.0));
        assert_eq!(repetition(&["short"], 2), None);
    }

    #[test]
    fn a_summary_uses_only_known_values() {
        let responses = [
            ResponseText { text: "né à", tokens: Some(4), ended: Some(true) },
            ResponseText { text: "né à", tokens: None, ended: Some(false) },
            ResponseText { text: " ", tokens: None, ended: None },
        ];
        let summary = summarise(&responses).unwrap();
        assert_eq!((summary.mean_words, summary.mean_characters), (Some(4.0 / 3.0), Some(3.0)));
        assert_eq!(
            (summary.mean_tokens, summary.ended, summary.median_characters),
            (Some(4.0), Some(0.5), Some(4.0))
        );
        assert_eq!((summary.empty, summary.repeated_responses), (Some(1.0 / 3.0), Some(1.0 - 2.0 / 3.0)));
        assert!(summarise(&[]).is_err());
    }
}
