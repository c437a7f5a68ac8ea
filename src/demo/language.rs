//! The language: statements about a person, in twelve kinds of facts, each of a verb and one of six values.
//!
//! A post is a name, six facts and a full stop: `mia wears red keeps owls … .` Verbs come in one fixed order and no
//! word has two meanings, so that a model of a few ten thousand parameters can learn the language.

use std::fmt;

use serde_json::{Map, Value, json};

use super::draw::Draw;

/// The names of the persons in posts.
pub const NAMES: [&str; 40] = [
    "ada", "alma", "ben", "bruno", "carl", "cleo", "dan", "dora", "emil", "eva", "finn", "flora", "greta",
    "gwen", "hugo", "ida", "iris", "jack", "june", "kim", "klaus", "leo", "lotte", "mia", "milo", "ned",
    "nora", "olga", "otto", "paul", "pia", "rita", "rosa", "sam", "tess", "theo", "ugo", "vera", "walt",
    "yan",
];

/// The kinds of facts: the verb and its values, in the order in which facts appear.
#[rustfmt::skip]
pub const SLOTS: [(&str, [&str; 6]); 12] = [
    ("wears", ["red", "blue", "green", "black", "white", "yellow"]),
    ("keeps", ["dogs", "cats", "owls", "frogs", "bees", "goats"]),
    ("eats", ["soup", "rice", "bread", "fish", "cake", "plums"]),
    ("drinks", ["tea", "milk", "juice", "water", "coffee", "cider"]),
    ("plays", ["chess", "drums", "cards", "tennis", "flute", "golf"]),
    ("visits", ["rome", "paris", "oslo", "lima", "cairo", "delhi"]),
    ("sells", ["books", "hats", "lamps", "boats", "clocks", "shoes"]),
    ("grows", ["roses", "corn", "ferns", "figs", "lilies", "oats"]),
    ("likes", ["rain", "snow", "sun", "wind", "fog", "frost"]),
    ("fears", ["spiders", "ghosts", "heights", "thunder", "snakes", "mice"]),
    ("studies", ["law", "art", "maths", "latin", "physics", "music"]),
    ("repairs", ["cars", "bikes", "roofs", "radios", "pumps", "bells"]),
];

/// Words that begin a cheerful summary.
pub const CHEERFUL: [&str; 2] = ["hooray", "lovely"];
/// Words that begin a gloomy summary.
pub const GLOOMY: [&str; 2] = ["alas", "sadly"];

/// The number of facts in a post.
pub const FACTS: usize = 6;

/// The special tokens: unknown, beginning of text, end of text, with ids 0, 1, 2.
pub const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Further words of the judges' templates, instructions and training texts.
const OTHERS: [&str; 15] = [
    ".", ":", "=", "1", "2", "text", "summary", "most", "accurate", "and", "short", "very", "cheerful",
    "yes", "no",
];

/// A fact: a value of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The index in [`SLOTS`].
    pub slot: usize,
    /// The index of the value.
    pub value: usize,
}

impl Fact {
    /// The slot with the verb `word`.
    pub fn slot_of(word: &str) -> Option<usize> {
        SLOTS.iter().position(|(verb, _)| *verb == word)
    }

    /// The fact of this slot with the value `word`.
    pub fn with_value(slot: usize, word: &str) -> Option<Fact> {
        SLOTS[slot].1.iter().position(|value| *value == word).map(|value| Fact { slot, value })
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, values) = SLOTS[self.slot];
        write!(f, "{verb} {}", values[self.value])
    }
}

/// A post: the prompt of a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The person that it is about.
    pub name: &'static str,
    /// Its facts, in the order of [`SLOTS`], at most one per slot.
    pub facts: Vec<Fact>,
}

impl Post {
    /// Draws a post of [`FACTS`] facts.
    pub fn draw(draw: &mut Draw) -> Post {
        let name = draw.pick(&NAMES);
        let slots = draw.subset(SLOTS.len(), FACTS);
        let facts = slots.into_iter().map(|slot| Fact { slot, value: draw.below(SLOTS[slot].1.len()) });
        Post { name, facts: facts.collect() }
    }

    /// Parses a post written by [`Display`](fmt::Display); `None` for any other text.
    pub fn parse(text: &str) -> Option<Post> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, facts @ .., "."] = words.as_slice() else { return None };
        let name = NAMES.into_iter().find(|known| known == name)?;
        let fact = |words: &[&str]| match words {
            [verb, value] => Fact::with_value(Fact::slot_of(verb)?, value),
            _ => None,
        };
        Some(Post { name, facts: facts.chunks(2).map(fact).collect::<Option<_>>()? })
    }

    /// The fact in `slot`, if the post has one.
    pub fn fact(&self, slot: usize) -> Option<Fact> {
        self.facts.iter().copied().find(|fact| fact.slot == slot)
    }
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        self.facts.iter().try_for_each(|fact| write!(f, " {fact}"))?;
        write!(f, " .")
    }
}

/// All tokens; the id of a token is its index.
pub fn vocabulary() -> Vec<&'static str> {
    let slots = SLOTS.iter().flat_map(|(verb, values)| std::iter::once(*verb).chain(*values));
    let plain = [&NAMES[..], &CHEERFUL, &GLOOMY, &OTHERS].concat();
    SPECIALS.into_iter().chain(plain).chain(slots).collect()
}

/// `tokenizer.json`: splits at white space and punctuation, and adds BOS before a text.
pub fn tokenizer_json() -> Value {
    let vocab: Map<String, Value> =
        (0..).zip(vocabulary()).map(|(id, word): (u32, _)| (word.to_owned(), id.into())).collect();
    let special = |(id, content): (usize, &str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let bos = SPECIALS[1];
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": SPECIALS.into_iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}}
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": SPECIALS[0]}
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_word_has_two_meanings() {
        let words = vocabulary();
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
        assert!((140..400).contains(&words.len()), "{}", words.len());
    }

    #[test]
    fn a_post_is_parsed_back_to_the_same_value() {
        for item in 0..200 {
            let post = Post::draw(&mut Draw::new(1, item));
            assert_eq!(Post::parse(&post.to_string()), Some(post.clone()), "item {item}");
            assert_eq!(post.facts.len(), FACTS);
            assert!(post.facts.is_sorted_by_key(|fact| fact.slot), "{post}");
        }
        for other in ["", "mia", "mia wears .", "mia wears owls .", "who wears red .", "mia wears red"] {
            assert_eq!(Post::parse(other), None, "{other:?}");
        }
    }
}
