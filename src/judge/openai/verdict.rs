//! Reads a verdict or a rating from an answer.
//!
//! With log-probabilities: at the first token of the answer that is not blank (with reasons, at the token of the
//! verdict), the probabilities of "1" and "2" are summed over their spellings, and the verdict is the softmax over
//! these two alone. If one of them is not among the listed tokens, it is at most as probable as the last of these, and
//! this bound is used: the verdict has the right sign but is less certain than the judge. If neither is listed or the
//! server returns no log-probabilities, the text is the verdict: the probability of the written token is also known,
//! but a server with constrained decoding (llama.cpp with a grammar) lists the unconstrained alternatives, which say
//! nothing about the other answer.
//!
//! A rating is the mean over 1 to 10 under these probabilities. "10" may be two tokens, so the probability of "1"
//! includes that of 10. If the answer begins with "1", the probabilities of the second token split it between the two.
//! If it begins with another digit, the split is unknown and "1" is left out (it has at most half of the probability,
//! as another digit is more probable).

use super::protocol::{Position, Reply, start};

/// The expected form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Reasons come first, the verdict is in the last line.
    pub reasons: bool,
    /// "tie" is a valid verdict.
    pub ties: bool,
    /// Only the first line is the answer, because a completion model continues after it.
    pub first_line: bool,
}

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The log-probabilities of both answers.
    LogProbabilities,
    /// The log-probability of one answer and an upper bound for the other, which is not listed.
    Bounded,
    /// The text.
    Text,
}

/// The result of reading an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    /// The probability of "1", or a rating.
    Value(f32, Source),
    /// Nothing usable, and the reason.
    Unusable(String),
    /// The answer consists of white space and was cut off at the length limit.
    Blank,
}

/// The probability of the answer "1".
pub(super) fn compare(reply: &Reply, form: Form) -> Reading {
    let text = Text::of(reply, form);
    let said = match text.verdict {
        Some("1") => Some(1.0),
        Some("2") => Some(0.0),
        Some(word) if form.ties && word.eq_ignore_ascii_case("tie") => {
            return Reading::Value(0.5, Source::Text);
        }
        _ => None,
    };
    // Without a verdict after the reasons there is no token to look at.
    let place = if form.reasons && said.is_none() { None } else { text.place(reply, form) };
    if let Some(position) = place {
        let masses = ["1", "2"].map(|answer| position.mass(answer));
        let own = position.own.map(|logp| (answer(&position.token), logp.exp()));
        match (masses, own) {
            ([Some(one), None], Some(("2", own))) => {
                return Reading::Value(one / (one + own), Source::LogProbabilities);
            }
            ([None, Some(two)], Some(("1", own))) => {
                return Reading::Value(own / (own + two), Source::LogProbabilities);
            }
            ([Some(one), Some(two)], _) => {
                return Reading::Value(one / (one + two), Source::LogProbabilities);
            }
            ([None, None], _) => {}
            ([one, two], _) => {
                let bound = position.floor.exp();
                let (one, two) = (one.unwrap_or(bound), two.unwrap_or(bound));
                return Reading::Value(one / (one + two), Source::Bounded);
            }
        }
    }
    match said {
        Some(p) => Reading::Value(p, Source::Text),
        None => text.unusable(reply, form, if form.ties { "1, 2 or tie" } else { "1 or 2" }),
    }
}

/// The rating.
pub(super) fn rate(reply: &Reply, form: Form) -> Reading {
    let text = Text::of(reply, form);
    let said =
        text.verdict.and_then(|word| word.parse::<u8>().ok()).filter(|rating| (1..=10).contains(rating));
    let place = if form.reasons && said.is_none() { None } else { text.place(reply, form) };
    if let Some(position) = place
        && let Some(mean) = position.mean_rating(reply)
    {
        return Reading::Value(mean, Source::LogProbabilities);
    }
    match said {
        Some(rating) => Reading::Value(f32::from(rating), Source::Text),
        None => text.unusable(reply, form, "a whole number from 1 to 10"),
    }
}

/// The text of an answer.
struct Text<'a> {
    /// The verdict in it, without surrounding characters.
    verdict: Option<&'a str>,
}

impl<'a> Text<'a> {
    fn of(reply: &'a Reply, form: Form) -> Text<'a> {
        let verdict = match form {
            Form { reasons: true, .. } => last_line(&reply.text),
            Form { first_line: true, .. } => reply.text.trim_start().lines().next().map(bare),
            _ => Some(bare(&reply.text)),
        };
        Text { verdict }
    }

    /// The token of the verdict, if the server lists its alternatives.
    fn place<'r>(&self, reply: &'r Reply, form: Form) -> Option<&'r Position> {
        let place = match form.reasons {
            false => reply.positions.iter().find(|position| !answer(&position.token).is_empty()),
            true => {
                let verdict = self.verdict.unwrap_or_default();
                // "10" may be two tokens; the first one is used.
                let begins = |token: &str| !token.is_empty() && verdict.starts_with(token);
                reply.positions.iter().rfind(|position| begins(answer(&position.token)))
            }
        };
        place.filter(|position| !position.top.is_empty())
    }

    fn unusable(&self, reply: &Reply, form: Form, expected: &str) -> Reading {
        let blank = reply.positions.iter().all(|position| answer(&position.token).is_empty());
        if reply.cut && !form.reasons && blank && answer(bare(&reply.text)).is_empty() {
            return Reading::Blank;
        }
        let found = start(&reply.text);
        let listed = self.place(reply, form).map_or(0, |position| position.top.len());
        Reading::Unusable(match form.reasons {
            false if listed > 0 => {
                format!(
                    "the judge did not answer {expected}, nor is that among its {listed} most probable tokens: {found:?}"
                )
            }
            true if reply.cut => format!("the judge's reasons were cut before a verdict: {found:?}"),
            true => format!("the judge did not end with a line \"Verdict: …\" of {expected}: {found:?}"),
            false => format!("the judge did not answer {expected}: {found:?}"),
        })
    }
}

/// The text after `Verdict:` in the last non-empty line.
fn last_line(text: &str) -> Option<&str> {
    let line = text.lines().map(bare).rfind(|line| !line.is_empty())?;
    let (word, rest) = line.split_once(':')?;
    bare(word).eq_ignore_ascii_case("verdict").then(|| bare(rest))
}

/// A text without surrounding white space, quotation marks and emphasis and without a final full stop.
fn bare(text: &str) -> &str {
    let around = |c: char| c.is_whitespace() || "\"'`“”‘’«»*_".contains(c);
    let text = text.trim_matches(around);
    text.strip_suffix('.').map_or(text, |text| text.trim_matches(around))
}

/// A token without leading or trailing spaces: byte-level BPE writes a space as "Ġ" and a newline as "Ċ", SentencePiece
/// writes a space as "▁".
fn answer(token: &str) -> &str {
    token.trim_matches(|c: char| c.is_whitespace() || "ĠĊ▁".contains(c))
}

impl Position {
    /// The probability of an answer, summed over its spellings; `None` if none is listed.
    fn mass(&self, wanted: &str) -> Option<f32> {
        let spellings = self.top.iter().filter(|(token, _)| answer(token) == wanted);
        let mass = spellings.map(|(_, logp)| logp.exp()).reduce(|a, b| a + b)?;
        // f32 underflows to 0 below about e^-103.
        (mass > 0.0).then_some(mass)
    }

    /// The mean over 1 to 10; `None` if none of them is listed. `self` is a position in `reply`.
    fn mean_rating(&self, reply: &Reply) -> Option<f32> {
        let mut masses: [f32; 10] = std::array::from_fn(|at| self.mass(&(at + 1).to_string()).unwrap_or(0.0));
        let ten_is_two_tokens = masses[9] == 0.0;
        if ten_is_two_tokens && masses[0] > 0.0 {
            let at = reply.positions.iter().position(|position| std::ptr::eq(position, self));
            let second = at.and_then(|at| reply.positions.get(at + 1)).filter(|next| !next.top.is_empty());
            if answer(&self.token) == "1" {
                // A "0" after a space is another word.
                let zeros = second.into_iter().flat_map(|next| &next.top).filter(|(token, _)| token == "0");
                masses[9] = masses[0] * zeros.map(|(_, logp)| logp.exp()).sum::<f32>().min(1.0);
                masses[0] -= masses[9];
            } else {
                masses[0] = 0.0;
            }
        }
        let total: f32 = masses.iter().sum();
        let mean =
            masses.iter().zip(1u8..).map(|(mass, rating)| mass * f32::from(rating)).sum::<f32>() / total;
        mean.is_finite().then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Form = Form { reasons: false, ties: false, first_line: false };
    const REASONS: Form = Form { reasons: true, ties: true, first_line: false };

    fn text(text: &str) -> Reply {
        Reply { text: text.into(), ..Reply::default() }
    }

    fn position(token: &str, top: &[(&str, f32)]) -> Position {
        let top: Vec<(String, f32)> = top.iter().map(|(token, p)| ((*token).to_owned(), p.ln())).collect();
        let floor = top.iter().map(|(_, logp)| *logp).fold(f32::INFINITY, f32::min);
        Position { token: token.into(), own: None, top, floor }
    }

    fn tokens(positions: Vec<Position>) -> Reply {
        Reply { text: positions.iter().map(|p| p.token.as_str()).collect(), positions, ..Reply::default() }
    }

    #[track_caller]
    fn near(reading: Reading, value: f32, source: Source) {
        match reading {
            Reading::Value(found, from) => {
                assert!((found - value).abs() < 1e-5 && from == source, "{found} {from:?}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_verdict_is_the_softmax_over_the_two_answers_summed_over_their_spellings() {
        let top = [
            ("1", 0.2),
            (" 1", 0.1),
            ("Ġ1", 0.05),
            ("▁1", 0.05),
            ("2", 0.05),
            ("\n2", 0.05),
            ("12", 0.3),
            ("I", 0.2),
        ];
        near(compare(&tokens(vec![position("12", &top)]), PLAIN), 0.8, Source::LogProbabilities);
        // The most probable token is neither answer, and the text is not a valid verdict.
        near(compare(&tokens(vec![position("I", &top)]), PLAIN), 0.8, Source::LogProbabilities);
        // The first token is blank.
        let blank = position("▁", &[("▁", 0.9), ("1", 0.1)]);
        near(
            compare(&tokens(vec![blank, position("2", &[("1", 0.25), ("2", 0.75)])]), PLAIN),
            0.25,
            Source::LogProbabilities,
        );
    }

    #[test]
    fn an_unlisted_answer_is_bounded_by_the_least_probable_listed_token() {
        let bounded = |top| compare(&tokens(vec![position("x", top)]), PLAIN);
        near(bounded(&[("1", 0.6), ("x", 0.3), ("y", 0.1)]), 6.0 / 7.0, Source::Bounded);
        near(bounded(&[("2", 0.6), ("x", 0.3), ("y", 0.1)]), 1.0 / 7.0, Source::Bounded);
        assert!(matches!(bounded(&[("x", 0.6), ("y", 0.4)]), Reading::Unusable(_)));
        // The written token has a probability although it is not listed; the other answer may or may not be listed.
        let mut written = position("2", &[("x", 0.9), ("y", 0.1)]);
        written.own = Some(0.001f32.ln());
        near(compare(&tokens(vec![written.clone()]), PLAIN), 0.0, Source::Text);
        written.top.push(("1".into(), 0.009f32.ln()));
        near(compare(&tokens(vec![written]), PLAIN), 0.9, Source::LogProbabilities);
        // Neither answer is listed, but the text is a valid verdict.
        let reply = Reply { text: "\"1\"".into(), ..tokens(vec![position("\"", &[("\"", 1.0)])]) };
        near(compare(&reply, PLAIN), 1.0, Source::Text);
    }

    #[test]
    fn a_text_is_a_verdict_only_if_it_contains_nothing_else() {
        for (said, p) in [
            ("1", 1.0),
            (" 2\n", 0.0),
            ("\"1\".", 1.0),
            ("**2**", 0.0),
            ("_1._", 1.0),
            ("`2`", 0.0),
            ("“1”", 1.0),
        ] {
            near(compare(&text(said), PLAIN), p, Source::Text);
        }
        for said in [
            "",
            "3",
            "12",
            "1 2",
            "1..",
            "1!",
            "Response 1",
            "tie",
            "one",
            "1 because",
            "#1",
            "I cannot",
            "１",
        ] {
            assert!(matches!(compare(&text(said), PLAIN), Reading::Unusable(_)), "{said}");
        }
        near(compare(&text("**Tie**."), Form { ties: true, ..PLAIN }), 0.5, Source::Text);
        let continued = Form { first_line: true, ..PLAIN };
        near(compare(&text("\n 2\n\nContext - more"), continued), 0.0, Source::Text);
        assert!(matches!(compare(&text("Well\n2"), continued), Reading::Unusable(_)));
        let long = format!("I prefer the first one because {}", "x".repeat(100));
        let Reading::Unusable(why) = compare(&text(&long), PLAIN) else { panic!() };
        assert!(why.contains(&format!("{:?}", start(&long))) && why.len() < 150, "{why}");
    }

    #[test]
    fn with_reasons_the_last_line_is_the_verdict() {
        for (said, p) in [
            ("2 is wrong.\nVerdict: 1", 1.0),
            ("Verdict: 1\nNo.\n\n**Verdict:** 2.\n", 0.0),
            ("*verdict: \"1\"*", 1.0),
            ("Both.\nVERDICT: tie", 0.5),
        ] {
            near(compare(&text(said), REASONS), p, Source::Text);
        }
        for said in [
            "1",
            "Verdict: 1\nI hope that this helps",
            "Verdict: 3",
            "Verdict 1",
            "The verdict: 1",
            "Verdict: 1 or 2",
            "",
        ] {
            assert!(matches!(compare(&text(said), REASONS), Reading::Unusable(_)), "{said}");
        }
        let cut = Reply { cut: true, ..text("Well, 1") };
        assert!(matches!(compare(&cut, REASONS), Reading::Unusable(why) if why.contains("cut")));
        let words = ["1", " is", " bad", "\n", "Verdict", ":", " 2", "."]
            .map(|token| position(token, &[(token, 1.0)]));
        let mut reply = tokens(words.to_vec());
        reply.positions[6] = position(" 2", &[(" 2", 0.75), (" 1", 0.25)]);
        near(compare(&reply, REASONS), 0.25, Source::LogProbabilities);
    }

    #[test]
    fn a_cut_off_blank_answer_is_recognised() {
        let blank = Reply { cut: true, ..tokens(vec![position("▁", &[("▁", 1.0)])]) };
        assert_eq!(compare(&blank, PLAIN), Reading::Blank);
        assert_eq!(rate(&Reply { cut: true, ..text(" \n") }, PLAIN), Reading::Blank);
        assert!(matches!(compare(&text(""), PLAIN), Reading::Unusable(_)));
    }

    #[test]
    fn a_rating_is_the_mean_of_one_to_ten() {
        near(
            rate(&tokens(vec![position("7", &[("7", 0.3), (" 7", 0.3), ("10", 0.2), ("x", 0.2)])]), PLAIN),
            7.75,
            Source::LogProbabilities,
        );
        // "10" is two tokens and the answer begins with "1": the second token splits the probability.
        let zero = position("0", &[("0", 0.75), ("", 0.25)]);
        near(
            rate(&tokens(vec![position("1", &[("1", 0.8), ("8", 0.2)]), zero]), PLAIN),
            0.2 + 6.0 + 1.6,
            Source::LogProbabilities,
        );
        near(rate(&tokens(vec![position("1", &[("1", 1.0)])]), PLAIN), 1.0, Source::LogProbabilities);
        // The answer begins with another digit, so the split of "1" is unknown.
        near(
            rate(&tokens(vec![position("9", &[("9", 0.6), ("1", 0.4)])]), PLAIN),
            9.0,
            Source::LogProbabilities,
        );
        for (said, rating) in [("10", 10.0), ("**1**", 1.0), ("7.", 7.0)] {
            near(rate(&text(said), PLAIN), rating, Source::Text);
        }
        for said in ["0", "11", "7/10", "7.5", "-1", "seven", "", "256"] {
            assert!(matches!(rate(&text(said), PLAIN), Reading::Unusable(_)), "{said}");
        }
        near(rate(&text("Good.\nVerdict: 8"), REASONS), 8.0, Source::Text);
        let mut reply =
            tokens(["Verdict", ":", " ", "1", "0"].map(|token| position(token, &[(token, 1.0)])).to_vec());
        reply.positions[3] = position("1", &[("1", 0.5), ("9", 0.5)]);
        near(rate(&reply, REASONS), 9.5, Source::LogProbabilities);
    }
}
