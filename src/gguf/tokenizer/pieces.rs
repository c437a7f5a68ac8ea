//! The merges that are equivalent to the scores of a SentencePiece tokenizer.

use std::collections::HashMap;

/// The length in bytes of the longest token for which merges are computed; the longest of Gemma has 93.
const LONGEST: usize = 256;

/// Returns the merges that follow from scores. `tokens` are the tokens that a text can be divided into, by id, with
/// their scores. Every division of a token into two others is a merge. The highest score comes first; of equal scores,
/// long parts come first.
pub(super) fn merges(tokens: &[(&str, f64)]) -> Vec<[String; 2]> {
    let known: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, (text, _))| (*text, id)).collect();
    let mut found: Vec<(f64, [usize; 2], [&str; 2])> = Vec::new();
    for (text, score) in tokens.iter().filter(|(text, _)| text.len() <= LONGEST) {
        let mut of_token: Vec<(usize, usize, usize)> = Vec::new();
        for (at, _) in text.char_indices().skip(1) {
            if let (Some(left), Some(right)) = (known.get(&text[..at]), known.get(&text[at..])) {
                of_token.push((*left, *right, at));
            }
        }
        of_token.sort();
        found.extend(of_token.into_iter().map(|(_, _, at)| {
            let parts = [&text[..at], &text[at..]];
            (*score, parts.map(|part| part.chars().count()), parts)
        }));
    }
    // The sort is stable: equal entries stay in the order of ids.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    found.into_iter().map(|(_, _, parts)| parts.map(str::to_owned)).collect()
}

/// Returns a score for each token of `vocabulary`: minus the index of the first merge that makes it, so that the first
/// merge has the highest score.
pub(super) fn scores<'a>(merges: impl Iterator<Item = [&'a str; 2]>) -> HashMap<String, f32> {
    let mut scores = HashMap::new();
    for [left, right] in merges {
        let next = scores.len();
        scores.entry(format!("{left}{right}")).or_insert(-(next as f32));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_follow_from_scores_and_scores_from_merges() {
        let tokens = [("a", -9.0), ("b", -9.0), ("ab", -1.0), ("aab", -2.0), ("aa", -3.0), ("x", 0.0)];
        let found = merges(&tokens);
        let expected = [["a", "b"], ["aa", "b"], ["a", "ab"], ["a", "a"]];
        assert_eq!(found, expected.map(|pair| pair.map(str::to_owned)));
        let scores = scores(expected.into_iter());
        assert_eq!((scores["ab"], scores["aab"], scores["aa"]), (0.0, -1.0, -2.0));
        assert!(merges(&[("aé", 0.0), ("a", 0.0), ("é", 0.0)]) == [["a".to_owned(), "é".to_owned()]]);
    }
}
