//! Dataset rows as token ids, and the size of the micro-batches they need.

use std::path::Path;

use serde_json::{Value, json};

use super::data_table::{DataTable, Skip};
use super::lengths::Lengths;
use super::options::TrainOptions;
use super::policy::Policy;
use super::row_store::RowStore;
use crate::data::encoder::{Encoded, Encoder, at};
use crate::data::packing::Tree;
use crate::data::rows::{Completion, Pair, Place, Prompt};
use crate::error::{Error, Result};
use crate::model::stream::Capacity;

/// Limits of the lengths of rows, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthLimits {
    /// The longest prompt.
    pub prompt: usize,
    /// The longest prompt and completion together.
    pub whole: usize,
}

/// A row of a training dataset.
pub(super) trait Source {
    fn place(&self) -> &Place;

    fn place_mut(&mut self) -> &mut Place;

    /// The reason to skip the row before it is encoded, if there is one.
    fn fault(&self) -> Option<Skip> {
        None
    }

    fn encode(&self, encoder: &Encoder, append_eos: bool) -> Result<Encoded>;

    /// The names of the prompt and the responses; a single name if there is no prompt.
    fn parts(&self) -> &'static [&'static str];

    /// The text shown to the judge, in addition to the tokens.
    fn text(&self) -> Option<String> {
        None
    }

    /// The margin by which the chosen response should win.
    fn margin(&self) -> Option<f32> {
        None
    }
}

impl Source for Prompt {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn encode(&self, encoder: &Encoder, _: bool) -> Result<Encoded> {
        Ok(Encoded { tree: Tree { prompt: encoder.prompt(&self.prompt)?, responses: vec![] }, cut: 0 })
    }

    fn parts(&self) -> &'static [&'static str] {
        &["prompt"]
    }

    fn text(&self) -> Option<String> {
        Some(self.prompt.transcript())
    }
}

impl Source for Pair {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn fault(&self) -> Option<Skip> {
        (self.chosen.is_empty() || self.rejected.is_empty()).then_some(Skip::EmptyAnswer)
    }

    fn encode(&self, encoder: &Encoder, append_eos: bool) -> Result<Encoded> {
        encoder.encode(&self.prompt, &[&self.chosen, &self.rejected], append_eos)
    }

    fn parts(&self) -> &'static [&'static str] {
        &["prompt", "chosen", "rejected"]
    }

    fn margin(&self) -> Option<f32> {
        self.margin
    }
}

impl Source for Completion {
    fn place(&self) -> &Place {
        &self.place
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.place
    }

    fn fault(&self) -> Option<Skip> {
        match (self.label, self.completion.is_empty()) {
            (Some(false), _) => Some(Skip::BadLabel),
            (_, true) => Some(Skip::EmptyAnswer),
            _ => None,
        }
    }

    fn encode(&self, encoder: &Encoder, append_eos: bool) -> Result<Encoded> {
        match &self.prompt {
            Some(prompt) => encoder.encode(prompt, &[&self.completion], append_eos),
            None => Ok(Encoded { tree: encoder.text(&self.completion, append_eos)?, cut: 0 }),
        }
    }

    fn parts(&self) -> &'static [&'static str] {
        if self.prompt.is_some() { &["prompt", "completion"] } else { &["text"] }
    }
}

/// Rows made by an application. Rows without a file are numbered from 1 for error messages.
pub(super) fn numbered<R: Source + Clone>(rows: &[R]) -> impl Iterator<Item = Result<R>> {
    rows.iter().cloned().zip(1..).map(|(mut row, number)| {
        let place = row.place_mut();
        if place.file.is_none() && place.line == 0 {
            place.line = number;
        }
        Ok(row)
    })
}

/// Rows ready for training, and statistics of the skipped ones.
#[derive(Debug)]
pub struct EncodedRows {
    store: RowStore,
    table: DataTable,
    /// The lengths of the trees in tokens, and their numbers of targets.
    rows: Lengths,
    targets: Lengths,
    /// The largest number of responses in a tree.
    responses: usize,
    /// Whether rows have a text in addition to their tokens.
    texts: bool,
    /// The margin of each row; empty if no row has one.
    margins: Vec<f32>,
    /// The number of kept rows whose prompt's last tokens change when the completion follows.
    cut: usize,
}

impl EncodedRows {
    fn new(folder: &Path) -> EncodedRows {
        EncodedRows {
            store: RowStore::new(folder),
            table: DataTable::default(),
            rows: Lengths::default(),
            targets: Lengths::default(),
            responses: 0,
            texts: false,
            margins: Vec::new(),
            cut: 0,
        }
    }

    /// A single row that represents all: a prompt of this length and this number of responses of this length, in
    /// tokens.
    pub(super) fn of_lengths((prompt, response): (usize, usize), responses: usize) -> Result<EncodedRows> {
        let tree = Tree { prompt: vec![0; prompt], responses: vec![vec![0; response]; responses] };
        let mut rows = EncodedRows::new(Path::new(""));
        rows.push(&tree, &["prompt"], "")?;
        Ok(rows)
    }

    fn push(&mut self, tree: &Tree, parts: &[&'static str], text: &str) -> Result<()> {
        self.table.r#use(tree, parts);
        self.rows.push(tree.rows());
        self.targets.push(tree.targets());
        self.responses = self.responses.max(tree.responses.len());
        self.store.push(tree, text)
    }

    /// Encodes rows with completions for a run of `policy`.
    ///
    /// # Errors
    /// As [`EncodedRows::encode`].
    pub(super) fn given<R: Source>(
        policy: &Policy,
        rows: impl IntoIterator<Item = Result<R>>,
        append_eos: bool,
        train: &TrainOptions,
    ) -> Result<EncodedRows> {
        let limits = train.length_limits(policy.model.architecture().context);
        EncodedRows::encode(&policy.encoder(), rows, append_eos, limits, train.folder())
    }

    /// Encodes rows one by one and keeps those within the limits. Most of them are stored in a temporary file in
    /// `folder`, so that they may be more than fit into memory.
    ///
    /// # Errors
    /// Errors in the rows; [`Error::Config`] if no row is left; [`Error::Io`].
    pub(super) fn encode<R: Source>(
        encoder: &Encoder,
        rows: impl IntoIterator<Item = Result<R>>,
        append_eos: bool,
        limits: LengthLimits,
        folder: &Path,
    ) -> Result<EncodedRows> {
        let mut out = EncodedRows::new(folder);
        out.table.limits = Some(limits);
        for row in rows {
            let row = row?;
            if let Some(why) = row.fault() {
                out.table.skip(why, row.place());
                continue;
            }
            let Encoded { tree, cut } = row.encode(encoder, append_eos).map_err(at(row.place()))?;
            let fault = if tree.prompt.is_empty() || tree.responses.iter().any(Vec::is_empty) {
                Some(Skip::Empty)
            } else if tree.responses.len() == 2 && tree.responses[0] == tree.responses[1] {
                Some(Skip::Alike)
            } else if tree.prompt.len() > limits.prompt {
                Some(Skip::LongPrompt)
            } else if tree.length() > limits.whole {
                Some(Skip::TooLong)
            } else {
                None
            };
            if let Some(why) = fault {
                out.table.skip(why, row.place());
                continue;
            }
            if row.margin().is_some_and(|margin| !margin.is_finite()) {
                return Err(row.place().error("\"margin\" is not a finite number".to_owned()));
            }
            let text = row.text();
            out.texts |= text.is_some();
            if let Some(margin) = row.margin() {
                out.margins.resize(out.len(), 0.0);
                out.margins.push(margin);
            }
            out.push(&tree, row.parts(), &text.unwrap_or_default())?;
            out.cut += usize::from(cut > 0);
        }
        if out.is_empty() {
            let why = match out.table.skipped() {
                Some(skipped) => format!("no row is left ({skipped}): correct the rows, or raise the limits"),
                None => "has no rows".into(),
            };
            return Err(Error::config("dataset", why));
        }
        Ok(out)
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a row. For a prompt, a tree without responses.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file cannot be read.
    pub fn tree(&self, row: usize) -> Result<Tree> {
        self.store.get(row).map(|(tree, _)| tree)
    }

    /// The text of a row shown to the judge: the transcript of a prompt.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file cannot be read.
    pub fn text(&self, row: usize) -> Result<String> {
        self.store.get(row).map(|(_, text)| text)
    }

    /// The margin of a row; 0 if it has none.
    pub(super) fn margin(&self, row: usize) -> f32 {
        self.margins.get(row).copied().unwrap_or_default()
    }

    /// The margins of all rows, if there are any.
    pub(super) fn margins(&self) -> Option<&[f32]> {
        (!self.margins.is_empty()).then_some(self.margins.as_slice())
    }

    /// Whether rows have a text in addition to their tokens.
    pub(super) fn have_texts(&self) -> bool {
        self.texts
    }

    /// Statistics of the rows read, used and skipped.
    pub fn table(&self) -> &DataTable {
        &self.table
    }

    /// Warnings about the rows.
    pub fn warnings(&self) -> Vec<String> {
        let cut = (self.cut > 0).then(|| {
            format!(
                "in {} of {} rows the prompt's last tokens change when the completion follows, so the completion starts \
                 where they differ: end prompts at a token boundary, or check that the chat template renders a prompt the \
                 same with and without its response",
                self.cut,
                self.len()
            )
        });
        self.table.skipped().into_iter().chain(cut).collect()
    }

    /// The largest micro-batch of `rows` rows. If there are fewer rows, all are repeated equally.
    pub(crate) fn largest_batch(&self, rows: usize) -> Capacity {
        Capacity {
            tokens: self.rows.sum_of_longest(rows),
            targets: self.targets.sum_of_longest(rows),
            sequences: rows * self.responses,
        }
    }

    /// The share of the responses of these trees that end with a token in `eos`.
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
        let mut statistics = self.table.statistics();
        statistics["prompts_cut"] = json!(self.cut);
        statistics
    }
}
