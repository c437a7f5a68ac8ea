//! Dataset rows as token ids, and how much of a device they will take.

use serde_json::{Value, json};

use crate::data::encoder::{Encoded, Encoder, at};
use crate::data::packing::Tree;
use crate::data::rows::{Completion, Pair, Place, Prompt};
use crate::error::{Error, Result};
use crate::model::stream::Capacity;

/// Longest rows that are kept, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthLimits {
    /// Of the prompt.
    pub prompt: usize,
    /// Of prompt and longest completion together.
    pub whole: usize,
}

/// A row, unless one of its answers has nothing to learn from.
fn answered(row: Encoded) -> Result<Encoded> {
    match row.tree.responses.iter().any(Vec::is_empty) {
        false => Ok(row),
        true => {
            Err(Error::config("answer", "has no token: drop the row, or append the end-of-sequence token"))
        }
    }
}

/// Rows ready for training, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct EncodedRows {
    /// One tree a row. For prompts, a tree without responses.
    pub trees: Vec<Tree>,
    /// Which row of the dataset each tree is.
    pub sources: Vec<usize>,
    /// Rows whose prompt is longer than its limit.
    pub long_prompts: usize,
    /// Other rows that are longer than the limit.
    pub too_long: usize,
    /// Texts of fewer than two tokens.
    pub empty: usize,
    /// Pairs whose answers are the same.
    pub alike: usize,
    /// Rows that are kept, and whose prompt has other last tokens once a completion follows.
    pub cut: usize,
    limits: Option<LengthLimits>,
}

impl EncodedRows {
    /// One row that stands for all: a prompt of so many tokens, and so many responses of so many tokens.
    pub(super) fn of_lengths((prompt, response): (usize, usize), responses: usize) -> EncodedRows {
        let tree = Tree { prompt: vec![0; prompt], responses: vec![vec![0; response]; responses] };
        EncodedRows { trees: vec![tree], sources: vec![0], ..EncodedRows::default() }
    }

    /// Encodes rows one by one and keeps those within the limits.
    fn collect<R>(
        rows: &[R],
        limits: LengthLimits,
        place: impl Fn(&R) -> &Place,
        encode: impl Fn(&R) -> Result<Encoded>,
    ) -> Result<EncodedRows> {
        let mut out = EncodedRows { limits: Some(limits), ..EncodedRows::default() };
        for (source, row) in rows.iter().enumerate() {
            let Encoded { tree, cut } = encode(row).map_err(at(place(row)))?;
            if tree.prompt.is_empty() || tree.responses.iter().any(Vec::is_empty) {
                out.empty += 1;
            } else if tree.responses.len() == 2 && tree.responses[0] == tree.responses[1] {
                out.alike += 1;
            } else if tree.prompt.len() > limits.prompt {
                out.long_prompts += 1;
            } else if tree.length() > limits.whole {
                out.too_long += 1;
            } else {
                out.trees.push(tree);
                out.sources.push(source);
                out.cut += usize::from(cut > 0);
            }
        }
        if out.trees.is_empty() {
            let why = format!(
                "no row is left to train on ({}): mend the rows, or raise the limit",
                out.skipped().unwrap_or_default()
            );
            return Err(Error::config("dataset", why));
        }
        Ok(out)
    }

    /// Prompts alone.
    pub fn prompts(encoder: &Encoder, rows: &[Prompt], max_prompt: usize) -> Result<EncodedRows> {
        let limits = LengthLimits { prompt: max_prompt, whole: usize::MAX };
        let encode = |row: &Prompt| {
            let tree = Tree { prompt: encoder.prompt(&row.prompt)?, responses: vec![] };
            Ok(Encoded { tree, cut: 0 })
        };
        EncodedRows::collect(rows, limits, |row| &row.place, encode)
    }

    /// Prompt, chosen, rejected. A pair of equal answers says nothing, and is skipped.
    pub fn pairs(
        encoder: &Encoder,
        rows: &[Pair],
        append_eos: bool,
        limits: LengthLimits,
    ) -> Result<EncodedRows> {
        let encode =
            |row: &Pair| answered(encoder.encode(&row.prompt, &[&row.chosen, &row.rejected], append_eos)?);
        EncodedRows::collect(rows, limits, |row| &row.place, encode)
    }

    /// Prompt and completion, or a text whose first token is its prompt.
    pub fn completions(
        encoder: &Encoder,
        rows: &[Completion],
        append_eos: bool,
        limits: LengthLimits,
    ) -> Result<EncodedRows> {
        let encode = |row: &Completion| match &row.prompt {
            Some(prompt) => answered(encoder.encode(prompt, &[&row.completion], append_eos)?),
            None => Ok(Encoded { tree: encoder.text(&row.completion, append_eos)?, cut: 0 }),
        };
        EncodedRows::collect(rows, limits, |row| &row.place, encode)
    }

    /// How many of the dataset's rows were skipped.
    pub fn skipped_rows(&self) -> usize {
        self.long_prompts + self.too_long + self.empty + self.alike
    }

    /// How many of the dataset's rows were skipped and by which limit; `None` where all were kept.
    pub fn skipped(&self) -> Option<String> {
        let limits = self.limits?;
        let counts = [
            (self.long_prompts, format!("with a prompt above {} tokens", limits.prompt)),
            (self.too_long, format!("above {} tokens in all", limits.whole)),
            (self.empty, "without a token to learn".to_owned()),
            (self.alike, "of two equal answers".to_owned()),
        ];
        let skipped = self.skipped_rows();
        let all = skipped + self.trees.len();
        let parts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, why)| format!("{count} {why}"))
            .collect();
        (skipped > 0).then(|| format!("{skipped} of {all} rows are skipped: {}", parts.join(", ")))
    }

    /// What a user should know of the rows, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let cut = (self.cut > 0).then(|| {
            format!(
                "in {} of {} rows the prompt's last tokens change once the completion follows, so the completion begins \
                 where they differ: end prompts where a token ends, or check that the chat template renders a prompt alike \
                 with and without its answer",
                self.cut,
                self.trees.len()
            )
        });
        self.skipped().into_iter().chain(cut).collect()
    }

    /// The largest micro-batch of `rows` rows, each taken as often as the others.
    pub(crate) fn largest_batch(&self, rows: usize) -> Capacity {
        let mut sizes: Vec<&Tree> = self.trees.iter().collect();
        sizes.sort_by_key(|t| std::cmp::Reverse(t.rows()));
        let tokens = (0..rows).map(|i| sizes[i % sizes.len()].rows()).sum();
        sizes.sort_by_key(|t| std::cmp::Reverse(t.targets()));
        let targets = (0..rows).map(|i| sizes[i % sizes.len()].targets()).sum();
        let responses = self.trees.iter().map(|t| t.responses.len()).max().unwrap_or(0);
        Capacity { tokens, targets, sequences: rows * responses }
    }

    /// The share of these rows' completions that end with a token of `eos`.
    pub fn ending_with<'t>(trees: impl IntoIterator<Item = &'t Tree>, eos: &[u32]) -> f64 {
        let ends = |r: &Vec<u32>| r.last().is_some_and(|id| eos.contains(id));
        let (mut all, mut ending) = (0, 0);
        for response in trees.into_iter().flat_map(|t| &t.responses) {
            all += 1;
            ending += ends(response) as usize;
        }
        ending as f64 / (all as f64).max(1.0)
    }

    /// Token statistics, for `--dry-run` and `run.json`.
    pub fn statistics(&self) -> Value {
        let of = |length: &dyn Fn(&Tree) -> Option<usize>| {
            let mut lengths: Vec<usize> = self.trees.iter().filter_map(length).collect();
            lengths.sort_unstable();
            let Some(last) = lengths.last() else { return Value::Null };
            let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
            let at = |q: f64| lengths[((lengths.len() - 1) as f64 * q).round() as usize];
            json!({"mean": (mean * 10.0).round() / 10.0, "median": at(0.5), "p95": at(0.95), "max": last})
        };
        json!({
            "rows": self.trees.len(),
            "skipped_long_prompt": self.long_prompts,
            "skipped_too_long": self.too_long,
            "skipped_empty": self.empty,
            "skipped_alike": self.alike,
            "prompt_tokens": of(&|t| Some(t.prompt.len())),
            "completion_tokens": of(&|t| t.responses.iter().map(Vec::len).max()),
        })
    }
}
