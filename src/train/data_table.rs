//! Statistics of a dataset: rows read, used and skipped with the reasons, and the lengths of the used rows.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::lengths::Lengths;
use super::rows::LengthLimits;
use crate::data::packing::Tree;
use crate::data::rows::Place;

/// The reason why a row is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// The prompt is longer than the limit.
    LongPrompt,
    /// The row is longer than the limit.
    TooLong,
    /// The row has no tokens to learn.
    Empty,
    /// The two responses are equal.
    Alike,
    /// A response is empty.
    EmptyAnswer,
    /// The label marks the response as undesirable.
    BadLabel,
}

impl Skip {
    const ALL: [Skip; 6] =
        [Skip::LongPrompt, Skip::TooLong, Skip::Empty, Skip::Alike, Skip::EmptyAnswer, Skip::BadLabel];

    /// The key in the statistics.
    fn name(self) -> &'static str {
        match self {
            Skip::LongPrompt => "skipped_long_prompt",
            Skip::TooLong => "skipped_too_long",
            Skip::Empty => "skipped_empty",
            Skip::Alike => "skipped_alike",
            Skip::EmptyAnswer => "skipped_empty_answer",
            Skip::BadLabel => "skipped_bad_label",
        }
    }

    /// Describes such rows in a message.
    fn words(self, limits: LengthLimits) -> String {
        match self {
            Skip::LongPrompt => format!("with a prompt above {} tokens", limits.prompt),
            Skip::TooLong => format!("above {} tokens in total", limits.whole),
            Skip::Empty => "without tokens to learn".to_owned(),
            Skip::Alike => "with two equal responses".to_owned(),
            Skip::EmptyAnswer => "with an empty response".to_owned(),
            Skip::BadLabel => "labelled as undesirable".to_owned(),
        }
    }
}

/// The rows skipped for one reason.
#[derive(Clone, Debug, PartialEq)]
struct Skipped {
    rows: usize,
    first: Place,
}

/// The parts of rows, in the order of display.
const PARTS: [&str; 5] = ["prompt", "chosen", "rejected", "completion", "text"];

/// Statistics of a dataset, see the module.
#[derive(Clone, Debug, Default)]
pub struct DataTable {
    used: usize,
    skipped: BTreeMap<Skip, Skipped>,
    /// Lengths in tokens of the parts of the used rows.
    parts: BTreeMap<&'static str, Lengths>,
    /// Lengths in tokens of all prompts, and of the longest response of each row.
    prompts: Lengths,
    answers: Lengths,
    pub(super) limits: Option<LengthLimits>,
}

impl DataTable {
    /// Records a skipped row.
    pub(super) fn skip(&mut self, why: Skip, place: &Place) {
        self.skipped.entry(why).or_insert_with(|| Skipped { rows: 0, first: place.clone() }).rows += 1;
    }

    /// Records a used row. `parts` names its prompt and responses, or has a single name for the whole row.
    pub(super) fn r#use(&mut self, tree: &Tree, parts: &[&'static str]) {
        self.used += 1;
        self.prompts.push(tree.prompt.len());
        if let Some(longest) = tree.responses.iter().map(Vec::len).max() {
            self.answers.push(longest);
        }
        let mut part = |name, length| self.parts.entry(name).or_default().push(length);
        match parts {
            [whole] if !tree.responses.is_empty() => part(*whole, tree.length()),
            parts => {
                let lengths = std::iter::once(&tree.prompt).chain(&tree.responses).map(Vec::len);
                parts.iter().zip(lengths).for_each(|(name, length)| part(*name, length));
            }
        }
    }

    /// The number of rows read.
    pub fn read(&self) -> usize {
        self.used + self.skipped_rows()
    }

    /// The number of rows used.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The number of rows skipped.
    pub fn skipped_rows(&self) -> usize {
        self.skipped.values().map(|skipped| skipped.rows).sum()
    }

    /// The length of the longest prompt in tokens.
    pub(super) fn longest_prompt(&self) -> usize {
        self.prompts.max().unwrap_or(0)
    }

    /// A message with the number of skipped rows, the reasons, and the line of the first one for each; `None` if no row
    /// was skipped.
    pub fn skipped(&self) -> Option<String> {
        let limits = self.limits?;
        let part = |(why, skipped): (&Skip, &Skipped)| {
            let first = match skipped.rows {
                1 => format!("line {}", skipped.first.line),
                _ => format!("the first in line {}", skipped.first.line),
            };
            format!("{} {} ({first})", skipped.rows, why.words(limits))
        };
        let parts: Vec<String> = self.skipped.iter().map(part).collect();
        let (skipped, all) = (self.skipped_rows(), self.read());
        (skipped > 0).then(|| format!("{skipped} of {all} rows are skipped: {}", parts.join(", ")))
    }

    /// A table of the lengths of the parts in tokens: one line per part below a line of headings. Empty if no row was
    /// used.
    pub fn lines(&self) -> Vec<(String, String)> {
        let line =
            |name: &str, [a, b, c, d]: [String; 4]| (name.to_owned(), format!("{a:>7}{b:>9}{c:>9}{d:>9}"));
        let part = |name: &&str| {
            let s = self.parts.get(*name)?.summary()?;
            Some(line(&format!("  {name}"), [s.min, s.median, s.p95, s.max].map(|length| length.to_string())))
        };
        let parts: Vec<(String, String)> = PARTS.iter().filter_map(part).collect();
        let headings = line("tokens", ["min", "median", "95 %", "max"].map(str::to_owned));
        let headings = if parts.is_empty() { None } else { Some(headings) };
        headings.into_iter().chain(parts).collect()
    }

    /// All statistics, for `--dry-run` and `run.json`.
    pub fn statistics(&self) -> Value {
        let mut map = Map::new();
        map.insert("read".into(), json!(self.read()));
        map.insert("rows".into(), json!(self.used));
        for why in Skip::ALL {
            map.insert(why.name().into(), json!(self.skipped.get(&why).map_or(0, |skipped| skipped.rows)));
        }
        let first = |(why, skipped): (&Skip, &Skipped)| {
            let file = skipped.first.file.as_deref().map(|file| file.display().to_string());
            (why.name().to_owned(), json!({"file": file, "line": skipped.first.line}))
        };
        map.insert("first_skipped".into(), Value::Object(self.skipped.iter().map(first).collect()));
        map.insert("prompt_tokens".into(), json!(self.prompts.summary()));
        map.insert("completion_tokens".into(), json!(self.answers.summary()));
        for name in ["chosen", "rejected", "text"] {
            if let Some(lengths) = self.parts.get(name) {
                map.insert(format!("{name}_tokens"), json!(lengths.summary()));
            }
        }
        Value::Object(map)
    }
}
