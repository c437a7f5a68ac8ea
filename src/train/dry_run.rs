//! Memory requirements of a run, computed from the model's `config.json` alone: without weights, tokenizer or rows.

use std::any::Any;
use std::path::Path;

use super::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
use super::policy::{load_model, reference};
use super::rows::EncodedRows;
use super::{align, dpo, reward, sft};
use crate::data::tokenizer::configured_ids;
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// A run on a measuring [`Gpu`], whose ledger shows the memory that it holds until it is dropped. Every row is assumed
/// to be as long as the options allow.
pub struct DryRun {
    rows: EncodedRows,
    _held: Box<dyn Any>,
}

impl DryRun {
    /// Supervised fine-tuning: [`TrainOptions::max_length`] tokens per row, of which
    /// [`TrainOptions::max_prompt_length`] (default 1) belong to the prompt.
    ///
    /// # Errors
    /// [`Error::Config`] for lengths that are not set or exceed the model's context; memory errors.
    pub async fn sft(gpu: &Gpu, dir: &Path, train: &TrainOptions) -> Result<DryRun> {
        train.check()?;
        let (model, _) = load_model(gpu, dir, train, false).await?;
        let lengths = lengths(train.max_prompt_length.or(Some(1)), train, model.architecture().context)?;
        let rows = EncodedRows::of_lengths(lengths, 1)?;
        let plans = sft::plans(&model, &rows, train).await?;
        Ok(DryRun { rows, _held: Box::new((model, plans)) })
    }

    /// Offline preference training: a prompt of [`TrainOptions::max_prompt_length`] tokens, and two responses, each of
    /// which fills the row up to [`TrainOptions::max_length`].
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

    /// Reward model training: as [`DryRun::dpo`], without a reference model.
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

    /// Online training, without the judge: prompts of [`TrainOptions::max_prompt_length`] tokens and responses of
    /// [`AlignOptions::max_new_tokens`] tokens.
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
            let why = format!(
                "{prompt} is above {limit}, the room that the model's context and max-new-tokens leave for a prompt"
            );
            return Err(Error::config("max-prompt-length", why));
        }
        let rows = EncodedRows::of_lengths((prompt, 0), 0)?;
        let reference = reference(&model, train, copies).await?;
        let eos = configured_ids(dir, "eos_token_id")?;
        let plans = align::plans(&model, &reference, &rows, &eos, train, options).await?;
        Ok(DryRun { rows, _held: Box::new((model, reference, plans)) })
    }

    /// A single row of the assumed lengths.
    pub fn rows(&self) -> &EncodedRows {
        &self.rows
    }
}

fn needed(option: &str, length: Option<usize>) -> Result<usize> {
    let why = "must be set for a dry run without a dataset";
    length.ok_or_else(|| Error::config(option, why))
}

/// The lengths of the prompt and of the rest of the row in tokens.
fn lengths(prompt: Option<usize>, train: &TrainOptions, context: usize) -> Result<(usize, usize)> {
    let (length, prompt) = (needed("max-length", train.max_length)?, needed("max-prompt-length", prompt)?);
    if length > context {
        return Err(Error::config(
            "max-length",
            format!("{length} is above the model's context of {context}"),
        ));
    }
    if prompt >= length {
        let why = format!("{prompt} leaves no room for a response: max-length is {length}");
        return Err(Error::config("max-prompt-length", why));
    }
    Ok((prompt, length - prompt))
}
