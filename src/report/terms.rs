//! The list at the end of a page that explains the terms that occur on it.

use super::svg::prose;

/// Terms, each with the words in lower case by which it is found, and its meaning.
const TERMS: [(&str, &[&str], &str); 13] = [
    ("policy", &["policy"], "the model that is trained"),
    ("starting model", &["starting model"], "the policy before training"),
    (
        "reference model",
        &["reference model", "the reference", "π₀"],
        "a copy of the starting model with frozen weights, from which the loss measures the policy's distance",
    ),
    (
        "judge",
        &["judge"],
        "whatever compares two responses to a prompt: a model, a rule, a program, a server or a person",
    ),
    (
        "win rate",
        &["win rate"],
        "the share of prompts on which the judge prefers the policy's response; a tie is half a win, and 50 % is no \
         difference",
    ),
    (
        "95 % interval",
        &["95\u{a0}% interval"],
        "the range that contains the value that unlimited prompts would give, in 95 of 100 such measurements",
    ),
    (
        "KL",
        &["kl"],
        "how far the policy is from the reference model (or the starting model): the mean of log π − log π₀ of a response that \
         the policy wrote, in nats, where π₀ is that model. 0 is no change",
    ),
    (
        "nat",
        &["nats"],
        "the unit of natural logarithms; a probability that changes by 1 nat changes by a factor of 2.72",
    ),
    (
        "reward",
        &["reward"],
        "β (log π − log π₀) of a response: how much more probable the policy makes it than the reference model does. Of a \
         reward model: its score",
    ),
    ("reward margin", &["reward margin"], "the reward of the chosen response minus that of the rejected one"),
    (
        "reward accuracy",
        &["reward accuracy"],
        "the share of preference pairs in which the chosen response has the higher reward",
    ),
    (
        "order flip",
        &["order flip"],
        "the judge preferred the same position in both orders of a pair, so its preference depends on the order",
    ),
    (
        "entropy",
        &["entropy"],
        "the uncertainty about the next token, in nats: 0 if the policy always writes the same one",
    ),
];

/// The section that explains the terms that occur in `page` outside of samples, and the page's `own` terms.
pub(super) fn section(page: &str, own: &[(String, String)]) -> String {
    // Prompts and responses are not searched.
    let outside = |part: &str| part.split_once("</article>").map_or(part, |(_, rest)| rest).to_lowercase();
    let start = page.find("<body>").unwrap_or_default();
    let text: String = page[start..].split("<article>").map(outside).collect();
    let occurs = |words: &&[&str]| words.iter().any(|word| has_word(&text, word));
    let known =
        TERMS.iter().filter(|(_, words, _)| occurs(words)).map(|(name, _, meaning)| (*name, *meaning));
    let own = own.iter().map(|(name, meaning)| (name.as_str(), meaning.as_str()));
    let rows: String = known
        .chain(own)
        .map(|(name, meaning)| format!("<div><dt>{}</dt><dd>{}.</dd></div>\n", prose(name), prose(meaning)))
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!("<section class=\"terms\">\n<h2>Terms</h2>\n<dl>\n{rows}</dl>\n</section>\n"),
    }
}

/// Whether `text` has `word` as a whole word, in the singular or with an "s" added.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        let mut after = text[at + word.len()..].chars().skip_while(|c| *c == 's');
        before && after.next().is_none_or(|c| !c.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_terms_that_occur_are_explained() {
        let page =
            "<body><p>The win rates and 3\u{a0}nats</p><article>a reward margin of KL</article><p>end</p>";
        let html = section(page, &[]);
        assert!(html.contains("<dt>win rate</dt>") && html.contains("<dt>nat</dt>"), "{html}");
        assert!(!html.contains("<dt>KL") && !html.contains("margin</dt>"), "{html}");
        assert_eq!(section("<head>KL</head><body>sparkling</body>", &[]), "");
        let own = section("<body>", &[("oracle".into(), "a <program>".into())]);
        assert!(own.contains("<dt>oracle</dt><dd>a &lt;program&gt;.</dd>"), "{own}");
    }
}
