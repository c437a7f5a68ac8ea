//! What a run takes of the device, told from the model's `config.json` alone: no weights, no tokenizer, no rows.

use std::any::Any;
use std::path::Path;

use super::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
use super::policy::{load_model, reference};
use super::rows::EncodedRows;
use super::{align, dpo, reward, sft};
use crate::data::tokenizer::configured_ids;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// A run on a measuring [`Gpu`], whose ledger shows what it holds until this is dropped. Rows are not read: each is
/// taken to be as long as the options allow.
pub struct DryRun {
    rows: EncodedRows,
    _held: Box<dyn Any>,
}

impl DryRun {
    /// Next-token training: [`TrainOptions::max_length`] tokens a row, of which
    /// [`TrainOptions::max_prompt_length`] (else one) are the prompt.
    ///
    /// # Errors
    /// [`Error::Config`] for lengths that are not given, or above the model's context; memory errors.
    pub async fn sft(gpu: &Gpu, dir: &Path, train: &TrainOptions) -> Result<DryRun> {
        train.check()?;
        let (model, _) = load_model(gpu, dir, train, false).await?;
        let lengths = lengths(train.max_prompt_length.or(Some(1)), train, model.architecture().context)?;
        let rows = EncodedRows::of_lengths(lengths, 1)?;
        let plans = sft::plans(&model, &rows, train).await?;
        Ok(DryRun { rows, _held: Box::new((model, plans)) })
    }

    /// Offline preferences: a prompt of [`TrainOptions::max_prompt_length`] tokens, and each of the two answers as long
    /// as [`TrainOptions::max_length`] then allows.
    ///
    /// # Errors
    /// As [`DryRun::sft`].
    pub async fn dpo(gpu: &Gpu, dir: &Path, train: &TrainOptions, options: &DpoOptions) -> Result<DryRun> {
        train.check()?;
        let (model, copies) = load_model(gpu, dir, train, false).await?;
        let lengths = lengths(train.max_prompt_length, train, model.architecture().context)?;
        let rows = EncodedRows::of_lengths(lengths, 2)?;
        let reference = reference(&model, train, copies).await?;
        let plans = dpo::plans(&model, &reference, &rows, train, options).await?;
        Ok(DryRun { rows, _held: Box::new((model, reference, plans)) })
    }

    /// A reward model: as [`DryRun::dpo`], without a reference.
    ///
    /// # Errors
    /// As [`DryRun::sft`].
    pub async fn reward(
        gpu: &Gpu,
        dir: &Path,
        train: &TrainOptions,
        options: &RewardOptions,
    ) -> Result<DryRun> {
        train.check()?;
        let (model, _) = load_model(gpu, dir, train, true).await?;
        let lengths = lengths(train.max_prompt_length, train, model.architecture().context)?;
        let rows = EncodedRows::of_lengths(lengths, 2)?;
        let plans = reward::plans(&model, &rows, train, options).await?;
        Ok(DryRun { rows, _held: Box::new((model, plans)) })
    }

    /// Online feedback, without the judge: prompts of [`TrainOptions::max_prompt_length`] tokens, and responses of
    /// [`AlignOptions::max_new_tokens`].
    ///
    /// # Errors
    /// As [`DryRun::sft`].
    pub async fn align(
        gpu: &Gpu,
        dir: &Path,
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<DryRun> {
        train.check()?;
        options.check(train)?;
        let (model, copies) = load_model(gpu, dir, train, false).await?;
        let limit = align::prompt_limit(model.architecture().context, train, options)?;
        let prompt = needed("max-prompt-length", train.max_prompt_length)?;
        if prompt > limit {
            let why = format!("{prompt} is above {limit}, which the model and max-new-tokens leave for it");
            return Err(Error::config("max-prompt-length", why));
        }
        let rows = EncodedRows::of_lengths((prompt, 0), 0)?;
        let reference = reference(&model, train, copies).await?;
        let eos = configured_ids(dir, "eos_token_id")?;
        let plans = align::plans(&model, &reference, &rows, &eos, train, options).await?;
        Ok(DryRun { rows, _held: Box::new((model, reference, plans)) })
    }

    /// One row of the lengths that all of them are taken to have.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }
}

fn needed(option: &str, length: Option<usize>) -> Result<usize> {
    let why = "says how long the rows of a dry run without a dataset are: give it (or the rows)";
    length.ok_or_else(|| Error::config(option, why))
}

/// Tokens of the prompt and of what follows it.
fn lengths(prompt: Option<usize>, train: &TrainOptions, context: usize) -> Result<(usize, usize)> {
    let (length, prompt) = (needed("max-length", train.max_length)?, needed("max-prompt-length", prompt)?);
    if length > context {
        return Err(Error::config(
            "max-length",
            format!("{length} is above {context}, which the model takes"),
        ));
    }
    if prompt >= length {
        let why = format!("{prompt} leaves nothing of the max-length of {length} for an answer");
        return Err(Error::config("max-prompt-length", why));
    }
    Ok((prompt, length - prompt))
}
