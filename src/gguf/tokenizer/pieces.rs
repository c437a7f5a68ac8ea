//! SentencePiece's tokenizers, whose tokens have scores: the merges that make the same of a text.

use std::collections::HashMap;

/// Tokens longer than this are not made by merges; the longest of Gemma's has 93 bytes.
const LONGEST: usize = 256;

/// The merges of tokens by their scores: `tokens` are those that a text can be divided into, by id, each with its score.
/// Every way to divide a token into two others is a merge, the highest score first; of one score, long parts first.
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
    // Stable: what is alike stays in the order of ids.
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    found.into_iter().map(|(_, _, parts)| parts.map(str::to_owned)).collect()
}

/// A score for each token of `vocabulary` such that the best merge has the highest: minus its place among the merges.
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
