//! The language: who does what, in twelve kinds of facts, each of a verb and one of six values.
//!
//! A post is a name, six facts and a full stop: `mia wears red keeps owls … .` Verbs come in one fixed order, and no
//! word has two meanings, so that a reader of a few ten thousand parameters can follow.

use std::fmt;

use serde_json::{Map, Value, json};

use super::draw::Draw;

/// Who posts are about.
pub const NAMES: [&str; 40] = [
    "ada", "alma", "ben", "bruno", "carl", "cleo", "dan", "dora", "emil", "eva", "finn", "flora", "greta",
    "gwen", "hugo", "ida", "iris", "jack", "june", "kim", "klaus", "leo", "lotte", "mia", "milo", "ned",
    "nora", "olga", "otto", "paul", "pia", "rita", "rosa", "sam", "tess", "theo", "ugo", "vera", "walt",
    "yan",
];

/// Each kind of fact: its verb and its values, in the order in which facts are told.
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

/// Words that open a cheerful summary.
pub const CHEERFUL: [&str; 2] = ["hooray", "lovely"];
/// Words that open a gloomy one.
pub const GLOOMY: [&str; 2] = ["alas", "sadly"];

/// Facts in a post.
pub const FACTS: usize = 6;

/// The special tokens: unknown, beginning of text, end of text, with ids 0, 1, 2.
pub const SPECIALS: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// What the judges' templates, instructions and training texts use besides.
const OTHERS: [&str; 15] = [
    ".", ":", "=", "1", "2", "text", "summary", "most", "accurate", "and", "short", "very", "cheerful",
    "yes", "no",
];

/// A fact: a value of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// Which of [`SLOTS`].
    pub slot: usize,
    /// Which of its values.
    pub value: usize,
}

impl Fact {
    /// The kind of facts that `word` is the verb of.
    pub fn slot_of(word: &str) -> Option<usize> {
        SLOTS.iter().position(|(verb, _)| *verb == word)
    }

    /// The fact of this slot that ends with `word`.
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

/// A post, which is what a summary answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Whom it is about.
    pub name: &'static str,
    /// What it tells, in the order of [`SLOTS`], one a slot.
    pub facts: Vec<Fact>,
}

impl Post {
    /// A post of [`FACTS`] facts.
    pub fn draw(draw: &mut Draw) -> Post {
        let name = draw.pick(&NAMES);
        let slots = draw.subset(SLOTS.len(), FACTS);
        let facts = slots.into_iter().map(|slot| Fact { slot, value: draw.below(SLOTS[slot].1.len()) });
        Post { name, facts: facts.collect() }
    }

    /// Reads a post that [`Display`](fmt::Display) wrote; `None` for any other text.
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

    /// What it says in `slot`.
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

/// Every token, its id being its place.
pub fn vocabulary() -> Vec<&'static str> {
    let slots = SLOTS.iter().flat_map(|(verb, values)| std::iter::once(*verb).chain(*values));
    let plain = [&NAMES[..], &CHEERFUL, &GLOOMY, &OTHERS].concat();
    SPECIALS.into_iter().chain(plain).chain(slots).collect()
}

/// `tokenizer.json`: words apart at white space and at punctuation, BOS before a text.
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
    fn a_post_is_read_back_as_it_was_written() {
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
