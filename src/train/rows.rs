//! Dataset rows as token ids, and how much of a device they will take.

use serde_json::{Value, json};

use crate::data::chat::{ChatTemplate, render_answer, render_prompt};
use crate::data::packing::Tree;
use crate::data::rows::{Completion, Pair, Prompt, Text};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::model::stream::Capacity;

/// Texts to token ids, as one model reads them.
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The model's chat template, if it has one.
    pub template: Option<&'a ChatTemplate>,
}

impl Encoder<'_> {
    /// A prompt: a string with the tokenizer's special tokens, a conversation as its template renders it.
    pub fn prompt(&self, prompt: &Text) -> Result<Vec<u32>> {
        let text = render_prompt(prompt, self.template)?;
        let ids = match prompt {
            Text::Plain(_) => self.tokenizer.encode(&text)?,
            Text::Chat(_) => self.tokenizer.encode_plain(&text)?,
        };
        match ids.is_empty() {
            true => {
                Err(Error::config("prompt", "is empty, and the tokenizer has no token to begin a text with"))
            }
            false => Ok(ids),
        }
    }

    /// A completion, without special tokens but for the end-of-sequence token where `append_eos`.
    pub fn completion(&self, prompt: Option<&Text>, completion: &Text, append_eos: bool) -> Result<Vec<u32>> {
        let text = render_answer(prompt, completion, self.template)?;
        let mut ids = self.tokenizer.encode_plain(&text)?;
        if append_eos {
            let eos = self.tokenizer.eos().ok_or_else(|| {
                Error::config("no-append-eos", "the tokenizer has no end-of-sequence token: give this flag")
            })?;
            if ids.last() != Some(&eos) {
                ids.push(eos);
            }
        }
        Ok(ids)
    }

    /// A completion of the row in this line, which has something to learn from.
    fn answer(&self, prompt: &Text, answer: &Text, append_eos: bool, line: usize) -> Result<Vec<u32>> {
        let ids = self.completion(Some(prompt), answer, append_eos)?;
        match ids.is_empty() {
            true => Err(Error::config(
                "--dataset",
                format!(
                    "line {line} has an answer without a token: drop the row, or leave out --no-append-eos"
                ),
            )),
            false => Ok(ids),
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
    /// Rows above a length limit.
    pub too_long: usize,
    /// Rows with a completion that has no token.
    pub empty: usize,
}

impl EncodedRows {
    /// One row that stands for all: a prompt of so many tokens, and so many responses of so many tokens.
    pub(super) fn of_lengths((prompt, response): (usize, usize), responses: usize) -> EncodedRows {
        let tree = Tree { prompt: vec![0; prompt], responses: vec![vec![0; response]; responses] };
        EncodedRows { trees: vec![tree], sources: vec![0], ..EncodedRows::default() }
    }

    fn keep(&mut self, source: usize, tree: Tree, max_prompt: usize, max_length: usize) {
        if tree.prompt.is_empty() || tree.responses.iter().any(Vec::is_empty) {
            self.empty += 1;
        } else if tree.prompt.len() > max_prompt || tree.length() > max_length {
            self.too_long += 1;
        } else {
            self.trees.push(tree);
            self.sources.push(source);
        }
    }

    fn checked(self, limit: usize) -> Result<EncodedRows> {
        if self.trees.is_empty() {
            let why = format!(
                "every row is longer than {limit} tokens, which is what the model, --max-length, --max-prompt-length \
                 and --max-new-tokens leave: change these or shorten the rows"
            );
            return Err(Error::config("--dataset", why));
        }
        Ok(self)
    }

    /// Prompts alone.
    pub fn prompts(encoder: &Encoder, rows: &[Prompt], max_prompt: usize) -> Result<EncodedRows> {
        let mut out = EncodedRows::default();
        for (source, row) in rows.iter().enumerate() {
            let tree = Tree { prompt: encoder.prompt(&row.prompt)?, responses: vec![] };
            out.keep(source, tree, max_prompt, usize::MAX);
        }
        out.checked(max_prompt)
    }

    /// Prompt, chosen, rejected.
    pub fn pairs(
        encoder: &Encoder,
        rows: &[Pair],
        append_eos: bool,
        max_prompt: usize,
        max_length: usize,
    ) -> Result<EncodedRows> {
        let mut out = EncodedRows::default();
        for (source, row) in rows.iter().enumerate() {
            let answer = |text| encoder.answer(&row.prompt, text, append_eos, row.line);
            let responses = vec![answer(&row.chosen)?, answer(&row.rejected)?];
            let tree = Tree { prompt: encoder.prompt(&row.prompt)?, responses };
            out.keep(source, tree, max_prompt, max_length);
        }
        out.checked(max_length)
    }

    /// Prompt and completion, or a text whose first token is its prompt.
    pub fn completions(
        encoder: &Encoder,
        rows: &[Completion],
        append_eos: bool,
        max_prompt: usize,
        max_length: usize,
    ) -> Result<EncodedRows> {
        let mut out = EncodedRows::default();
        for (source, row) in rows.iter().enumerate() {
            let tree = match &row.prompt {
                Some(prompt) => Tree {
                    prompt: encoder.prompt(prompt)?,
                    responses: vec![encoder.answer(prompt, &row.completion, append_eos, row.line)?],
                },
                None => {
                    let mut ids = match &row.completion {
                        Text::Plain(text) => encoder.tokenizer.encode(text)?,
                        chat => encoder.completion(None, chat, false)?,
                    };
                    ids.extend(encoder.tokenizer.eos().filter(|eos| append_eos && ids.last() != Some(eos)));
                    let rest = ids.split_off(1.min(ids.len()));
                    Tree { prompt: ids, responses: vec![rest] }
                }
            };
            out.keep(source, tree, max_prompt, max_length);
        }
        out.checked(max_length)
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
            "skipped_too_long": self.too_long,
            "skipped_empty": self.empty,
            "prompt_tokens": of(&|t| Some(t.prompt.len())),
            "completion_tokens": of(&|t| t.responses.iter().map(Vec::len).max()),
        })
    }
}
