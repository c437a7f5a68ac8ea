//! Summaries to train on: good ones that follow an instruction, and noisy ones.

use super::draw::Draw;
use super::language::{CHEERFUL, Fact, GLOOMY, Post, SLOTS};
use super::oracle::{Instruction, Quality};

/// How strongly [`good`] prefers better summaries: one fact more makes a summary e^3 times as probable.
pub const SHARPNESS: f64 = 3.0;

/// How much more probable this utility makes a summary, compared with a utility of 0.
fn factor(utility: f64) -> f64 {
    (SHARPNESS * utility).exp()
}

/// Binomial coefficient.
fn choose(n: usize, k: usize) -> f64 {
    (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
}

/// Another value of the same slot.
fn another(fact: Fact, draw: &mut Draw) -> Fact {
    let n = SLOTS[fact.slot].1.len();
    Fact { value: (fact.value + 1 + draw.below(n - 1)) % n, ..fact }
}

/// The slots for which the post has no fact.
fn silent(post: &Post) -> Vec<usize> {
    (0..SLOTS.len()).filter(|&slot| post.fact(slot).is_none()).collect()
}

/// A random fact of this slot.
fn any(slot: usize, draw: &mut Draw) -> Fact {
    Fact { slot, value: draw.below(SLOTS[slot].1.len()) }
}

/// The text of a summary.
fn words(tone: &str, name: &str, facts: &[Fact]) -> String {
    let facts = facts.iter().map(Fact::to_string);
    let words = [tone.to_owned(), name.to_owned()].into_iter().chain(facts).chain([".".to_owned()]);
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A summary drawn from p ∝ exp(`SHARPNESS` · utility) over the well-formed summaries: usually one of the best,
/// sometimes with a flaw, and rarely with a serious one. A model that has learnt this distribution assigns the better
/// of two summaries a higher probability, by [`SHARPNESS`] nats per fact.
pub fn good(post: &Post, instruction: Instruction, draw: &mut Draw) -> String {
    let spare = silent(post);
    let (n, m) = (post.facts.len(), spare.len());
    let values = SLOTS[0].1.len() as f64;
    // The possible numbers of facts that are right, wrong, and of slots that are not in the post; each is weighted by
    // the number of ways to choose them.
    let mut kinds = Vec::new();
    for right in 0..=n {
        for wrong in 0..=n - right {
            kinds.extend((0..=m).map(|padded| (right, wrong, padded)));
        }
    }
    let weight = |&(right, wrong, padded): &(usize, usize, usize)| {
        let ways = choose(n, right + wrong) * choose(right + wrong, wrong) * choose(m, padded);
        let ways = ways * (values - 1.0).powi(wrong as i32) * values.powi(padded as i32);
        let quality = Quality { right, invented: wrong + padded, ..Quality::default() };
        ways * factor(instruction.utility(&quality))
    };
    let (right, wrong, padded) = kinds[draw.weighted(&kinds.iter().map(weight).collect::<Vec<_>>())];

    let included = draw.subset(n, right + wrong);
    let mut facts: Vec<Fact> = included.into_iter().map(|i| post.facts[i]).collect();
    for i in draw.subset(facts.len(), wrong) {
        facts[i] = another(facts[i], draw);
    }
    facts.extend(draw.subset(m, padded).into_iter().map(|i| any(spare[i], draw)));
    facts.sort();

    let tones = [&[""], &CHEERFUL[..], &GLOOMY].concat();
    let worth = |tone: i32| factor(instruction.utility(&Quality { tone, ..Quality::default() }));
    let weights: Vec<f64> =
        [&[worth(0)][..], &[worth(1); CHEERFUL.len()], &[worth(-1); GLOOMY.len()]].concat();
    words(tones[draw.weighted(&weights)], post.name, &facts)
}

/// Error rates of a noisy writer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Probability that a fact is included.
    pub told: f64,
    /// Probability that an included fact has a wrong value.
    pub wrong: f64,
    /// Probability of an invented fact, for each slot that is not in the post.
    pub padded: f64,
    /// Probability, for each fact, that it is repeated, and that its value is missing.
    pub slips: f64,
}

impl Noise {
    /// The noise of π₀'s training data; its quality is mediocre on purpose.
    pub const POLICY: Noise = Noise { told: 0.6, wrong: 0.15, padded: 0.08, slips: 0.02 };

    /// Random error rates and lengths, for pairs of many kinds.
    pub fn draw(draw: &mut Draw) -> Noise {
        let mut up_to = |most: f64| most * draw.unit();
        let told = 0.05 + up_to(0.95);
        Noise { told, wrong: up_to(0.5), padded: up_to(0.15), slips: up_to(0.04) }
    }
}

/// A summary by a writer with the error rates `noise`.
pub fn noisy(post: &Post, noise: Noise, draw: &mut Draw) -> String {
    let tone = match draw.below(4) {
        0 => draw.pick(&CHEERFUL),
        1 => draw.pick(&GLOOMY),
        _ => "",
    };
    let mut parts = vec![tone.to_owned(), post.name.to_owned()];
    for (slot, (verb, _)) in SLOTS.iter().enumerate() {
        let fact = match post.fact(slot) {
            Some(fact) if draw.chance(noise.told) => match draw.chance(noise.wrong) {
                true => another(fact, draw),
                false => fact,
            },
            None if draw.chance(noise.padded) => any(slot, draw),
            _ => continue,
        };
        match draw.chance(noise.slips) {
            true => parts.push((*verb).to_owned()),
            false => parts.push(fact.to_string()),
        }
        if draw.chance(noise.slips) {
            parts.push(fact.to_string());
        }
    }
    parts.push(".".to_owned());
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(item: u32) -> Post {
        Post::draw(&mut Draw::new(3, item))
    }

    /// Means of right, invented and included facts and of tone over 1,000 summaries.
    fn means(write: impl Fn(&Post, &mut Draw) -> String) -> [f64; 4] {
        let mut sums = [0.0; 4];
        for item in 0..1000 {
            let post = post(item);
            let q = Quality::of(&post, &write(&post, &mut Draw::new(4, item)));
            let qualities = [q.right as f64, q.invented as f64, q.facts() as f64, f64::from(q.tone)];
            sums.iter_mut().zip(qualities).for_each(|(sum, quality)| *sum += quality / 1000.0);
        }
        sums
    }

    #[test]
    fn good_summaries_follow_the_instruction() {
        let of = |instruction| means(|post, draw| good(post, instruction, draw));
        let [right, invented, _, tone] = of(Instruction::Accurate);
        assert!(right > 5.5 && invented < 0.3 && tone.abs() < 0.1, "{right} {invented} {tone}");
        let [.., facts, _] = of(Instruction::Short);
        assert!((2.8..3.3).contains(&facts), "{facts}");
        let [.., facts, _] = of(Instruction::VeryShort);
        assert!((0.9..1.3).contains(&facts), "{facts}");
        let [right, .., tone] = of(Instruction::Cheerful);
        assert!(right > 5.5 && tone > 0.95, "{right} {tone}");
    }

    #[test]
    fn one_fact_more_raises_the_log_probability_by_the_sharpness() {
        // Right or left out, all else equal: odds of e^3 each, so that 6 right facts are about e^3 / 6 times as
        // frequent as 5.
        let count = |right: usize| {
            let summaries = (0..20_000).map(|item| {
                let post = post(item);
                Quality::of(&post, &good(&post, Instruction::Accurate, &mut Draw::new(5, item)))
            });
            summaries.filter(|q| (q.right, q.facts()) == (right, right)).count() as f64
        };
        let ratio = count(6) / count(5);
        assert!((ratio / (3f64.exp() / 6.0) - 1.0).abs() < 0.1, "{ratio}");
    }

    #[test]
    fn noise_is_mediocre() {
        let [right, invented, ..] = means(|post, draw| noisy(post, Noise::POLICY, draw));
        assert!((2.5..3.5).contains(&right) && (0.6..1.4).contains(&invented), "{right} {invented}");
    }
}
