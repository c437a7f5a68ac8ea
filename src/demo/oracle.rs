//! The exact measurement of a summary's quality.

use super::language::{CHEERFUL, Fact, GLOOMY, Post};

/// The qualities of a summary of a post.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quality {
    /// Facts of the post that it contains, each counted once.
    pub right: usize,
    /// Facts that are not in the post.
    pub invented: usize,
    /// Repetitions of facts of the post.
    pub repeated: usize,
    /// Form errors: words that belong to no fact, a wrong or missing name, a missing full stop.
    pub flaws: usize,
    /// 1 cheerful, -1 gloomy, 0 neutral.
    pub tone: i32,
    /// Number of words, without the full stop.
    pub words: usize,
}

impl Quality {
    /// Measures `summary`; a well-formed one consists of an optional tone word, the post's name, facts and a full stop.
    pub fn of(post: &Post, summary: &str) -> Quality {
        let mut words: Vec<&str> = summary.split_whitespace().collect();
        let mut quality = Quality::default();
        match words.last() {
            Some(&".") => drop(words.pop()),
            _ => quality.flaws += 1,
        }
        quality.words = words.len();
        let mut rest = words.into_iter().peekable();
        let tone = |word: &str| match word {
            word if CHEERFUL.contains(&word) => Some(1),
            word if GLOOMY.contains(&word) => Some(-1),
            _ => None,
        };
        if let Some(tone) = rest.peek().and_then(|word| tone(word)) {
            quality.tone = tone;
            rest.next();
        }
        if rest.next_if_eq(&post.name).is_none() {
            quality.flaws += 1;
        }
        let mut seen: Vec<Fact> = Vec::new();
        while let Some(word) = rest.next() {
            let fact = Fact::slot_of(word).and_then(|slot| Fact::with_value(slot, rest.peek()?));
            match fact {
                None => {
                    quality.flaws += 1;
                    continue;
                }
                Some(fact) if !post.facts.contains(&fact) => quality.invented += 1,
                Some(fact) if seen.contains(&fact) => quality.repeated += 1,
                Some(fact) => {
                    quality.right += 1;
                    seen.push(fact);
                }
            }
            rest.next();
        }
        quality
    }

    /// The number of facts, right or wrong, including repetitions.
    pub fn facts(&self) -> usize {
        self.right + self.invented + self.repeated
    }
}

/// An instruction to a judge: what makes a summary good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// All facts of the post, and no others.
    Accurate,
    /// The same, with about three facts.
    Short,
    /// The same, with one fact.
    VeryShort,
    /// All facts of the post, in a cheerful tone.
    Cheerful,
}

impl Instruction {
    /// All instructions.
    pub const ALL: [Instruction; 4] =
        [Instruction::Accurate, Instruction::Short, Instruction::VeryShort, Instruction::Cheerful];

    /// The text of the instruction, as judges read it.
    pub fn text(self) -> &'static str {
        match self {
            Instruction::Accurate => "accurate",
            Instruction::Short => "accurate and short",
            Instruction::VeryShort => "accurate and very short",
            Instruction::Cheerful => "accurate and cheerful",
        }
    }

    /// The utility of a summary of this quality, in units of one right fact. An invented fact costs 2, any other error
    /// 1; a fact beyond the requested number costs 1 and adds nothing; the requested tone adds 2.
    pub fn utility(self, quality: &Quality) -> f64 {
        let [right, invented, repeated, flaws, facts] =
            [quality.right, quality.invented, quality.repeated, quality.flaws, quality.facts()]
                .map(|n| n as f64);
        let within = |limit: f64| right.min(limit) - (facts - limit).max(0.0);
        let gain = match self {
            Instruction::Accurate => right,
            Instruction::Short => within(3.0),
            Instruction::VeryShort => within(1.0),
            Instruction::Cheerful => right + 2.0 * f64::from(quality.tone),
        };
        gain - 2.0 * invented - repeated - flaws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &str = "mia wears red keeps owls eats soup visits rome sells books fears mice .";
    const WHOLE: &str = "mia wears red keeps owls eats soup visits rome sells books fears mice .";

    fn post() -> Post {
        Post::parse(POST).unwrap()
    }

    fn quality(summary: &str) -> Quality {
        Quality::of(&post(), summary)
    }

    #[test]
    fn qualities_are_counted() {
        let none = Quality::default();
        assert_eq!(quality(WHOLE), Quality { right: 6, words: 13, ..none });
        assert_eq!(quality(" hooray mia keeps owls . "), Quality { right: 1, tone: 1, words: 4, ..none });
        assert_eq!(quality("alas mia keeps cats ."), Quality { invented: 1, tone: -1, words: 4, ..none });
        assert_eq!(quality("mia drinks tea ."), Quality { invented: 1, words: 3, ..none });
        let twice = Quality { right: 1, repeated: 1, words: 5, ..none };
        assert_eq!(quality("mia keeps owls keeps owls ."), twice);
        assert_eq!(quality("ben keeps owls ."), Quality { flaws: 2, right: 1, words: 3, ..none });
        assert_eq!(quality("mia keeps owls"), Quality { flaws: 1, right: 1, words: 3, ..none });
        assert_eq!(quality("mia keeps wears red ."), Quality { flaws: 1, right: 1, words: 4, ..none });
        assert_eq!(quality("mia keeps soup ."), Quality { flaws: 2, words: 3, ..none });
        assert_eq!(quality("mia keeps"), Quality { flaws: 2, words: 2, ..none });
        assert_eq!(quality(""), Quality { flaws: 2, ..none });
    }

    #[track_caller]
    fn ranked(instruction: Instruction, best_first: &[&str]) {
        let utilities: Vec<f64> = best_first.iter().map(|s| instruction.utility(&quality(s))).collect();
        assert!(utilities.is_sorted_by(|a, b| a > b), "{instruction:?}: {utilities:?}");
    }

    #[test]
    fn summaries_rank_by_the_instruction() {
        let (one, three) = ("mia wears red .", "mia wears red keeps owls fears mice .");
        let lie = "mia wears red keeps cats fears mice .";
        ranked(Instruction::Accurate, &[WHOLE, three, one, lie, "", "mia wears blue keeps cats ."]);
        ranked(Instruction::Short, &[three, one, WHOLE, "mia wears blue ."]);
        ranked(Instruction::VeryShort, &[one, "mia .", three, lie, WHOLE]);
        let [cheerful, gloomy] = ["hooray", "sadly"].map(|tone| format!("{tone} {WHOLE}"));
        ranked(Instruction::Cheerful, &[&cheerful, WHOLE, &gloomy, "lovely mia wears red .", one]);
    }

    #[test]
    fn tone_matters_only_if_the_instruction_asks_for_it() {
        for instruction in [Instruction::Accurate, Instruction::Short, Instruction::VeryShort] {
            let of = |summary| instruction.utility(&quality(summary));
            assert_eq!(of("hooray mia wears red ."), of("alas mia wears red ."));
        }
    }
}
