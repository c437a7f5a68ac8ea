//! Dataset rows as token ids, and how much of a device they will take.

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

/// Longest rows that are kept, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthLimits {
    /// Of the prompt.
    pub prompt: usize,
    /// Of prompt and longest completion together.
    pub whole: usize,
}

/// A row that is trained on.
pub(super) trait Source {
    fn place(&self) -> &Place;

    fn place_mut(&mut self) -> &mut Place;

    /// Why its texts are not worth encoding, if they are not.
    fn fault(&self) -> Option<Skip> {
        None
    }

    fn encode(&self, encoder: &Encoder, append_eos: bool) -> Result<Encoded>;

    /// What the prompt and the responses of its tree are called; one name for all of it where it has no prompt.
    fn parts(&self) -> &'static [&'static str];

    /// What is shown of it besides its tokens.
    fn text(&self) -> Option<String> {
        None
    }

    /// By how much its better answer is to win.
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

/// Rows that an application has made: those that are of no file are known by their number, from 1.
pub(super) fn numbered<R: Source + Clone>(rows: &[R]) -> impl Iterator<Item = Result<R>> {
    rows.iter().cloned().zip(1..).map(|(mut row, number)| {
        let place = row.place_mut();
        if place.file.is_none() && place.line == 0 {
            place.line = number;
        }
        Ok(row)
    })
}

/// Rows ready for training, and what was left out.
#[derive(Debug)]
pub struct EncodedRows {
    store: RowStore,
    table: DataTable,
    /// Rows of the device and targets that each tree takes.
    rows: Lengths,
    targets: Lengths,
    /// The most responses of a tree.
    responses: usize,
    /// Whether rows have a text besides their tokens.
    texts: bool,
    /// By how much each row's better answer is to win; empty where no row says so.
    margins: Vec<f32>,
    /// Rows that are kept, and whose prompt has other last tokens once a completion follows.
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

    /// One row that stands for all: a prompt of so many tokens, and so many responses of so many tokens.
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

    /// Rows that hold what is learnt, for a run on `policy`.
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

    /// Encodes rows one by one and keeps those within the limits: many of them in a temporary file in `folder`, so that
    /// they may be more than memory holds.
    ///
    /// # Errors
    /// What is wrong with the rows, [`Error::Config`] where none is left, [`Error::Io`].
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
                return Err(row.place().error("\"margin\" is no finite number".to_owned()));
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
                Some(skipped) => format!("no row is left ({skipped}): mend the rows, or raise the limit"),
                None => "holds no row: give some".into(),
            };
            return Err(Error::config("dataset", why));
        }
        Ok(out)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A row's tokens: for a prompt, a tree without responses.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read again.
    pub fn tree(&self, row: usize) -> Result<Tree> {
        self.store.get(row).map(|(tree, _)| tree)
    }

    /// What is shown of a row besides its tokens: a prompt's transcript.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read again.
    pub fn text(&self, row: usize) -> Result<String> {
        self.store.get(row).map(|(_, text)| text)
    }

    /// By how much a row's better answer is to win; 0 where it does not say.
    pub(super) fn margin(&self, row: usize) -> f32 {
        self.margins.get(row).copied().unwrap_or_default()
    }

    /// Where rows say so, by how much their better answers are to win.
    pub(super) fn margins(&self) -> Option<&[f32]> {
        (!self.margins.is_empty()).then_some(self.margins.as_slice())
    }

    /// Whether rows have such a text.
    pub(super) fn have_texts(&self) -> bool {
        self.texts
    }

    /// What was read, used and skipped.
    pub fn table(&self) -> &DataTable {
        &self.table
    }

    /// What a user should know of the rows, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let cut = (self.cut > 0).then(|| {
            format!(
                "in {} of {} rows the prompt's last tokens change once the completion follows, so the completion begins \
                 where they differ: end prompts where a token ends, or check that the chat template renders a prompt alike \
                 with and without its answer",
                self.cut,
                self.len()
            )
        });
        self.table.skipped().into_iter().chain(cut).collect()
    }

    /// The largest micro-batch of `rows` rows, each taken as often as the others.
    pub(crate) fn largest_batch(&self, rows: usize) -> Capacity {
        Capacity {
            tokens: self.rows.sum_of_longest(rows),
            targets: self.targets.sum_of_longest(rows),
            sequences: rows * self.responses,
        }
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
        let mut statistics = self.table.statistics();
        statistics["prompts_cut"] = json!(self.cut);
        statistics
    }
}
