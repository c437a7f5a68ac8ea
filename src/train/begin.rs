//! Constructors of trainers that an application drives step by step.

use super::align::AlignRun;
use super::dpo::DpoRun;
use super::options::{AlignOptions, DpoOptions, RewardOptions, TrainOptions};
use super::policy::Policy;
use super::reward::RewardRun;
use super::sft::SftRun;
use super::trainer::Trainer;
use crate::data::rows::{Completion, Pair, Prompt};
use crate::error::Result;
use crate::judge::queue::IntoJudgeQueue;

impl Trainer<'static> {
    /// Supervised fine-tuning on completions.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an option out of range or an empty dataset; errors in a row; memory
    /// errors.
    pub async fn supervised(
        policy: Policy,
        rows: &[Completion],
        train: &TrainOptions,
    ) -> Result<Trainer<'static>> {
        SftRun::new(policy, rows, train, true).await?.trainer()
    }

    /// Offline training on given preference pairs.
    ///
    /// # Errors
    /// As [`Trainer::supervised`].
    pub async fn offline(
        policy: Policy,
        pairs: &[Pair],
        train: &TrainOptions,
        options: &DpoOptions,
    ) -> Result<Trainer<'static>> {
        DpoRun::new(policy, pairs, train, options).await?.trainer()
    }

    /// Trains a reward model. Load the model with [`Policy::load_for_reward`].
    ///
    /// # Errors
    /// As [`Trainer::supervised`].
    pub async fn reward(
        policy: Policy,
        pairs: &[Pair],
        train: &TrainOptions,
        options: &RewardOptions,
    ) -> Result<Trainer<'static>> {
        RewardRun::new(policy, pairs, train, options).await?.trainer()
    }
}

impl<'a> Trainer<'a> {
    /// Online training: in every step, the policy samples responses and the judge compares them.
    ///
    /// # Errors
    /// As [`Trainer::supervised`]; [`Error::Config`](crate::Error::Config) if the lengths leave no room for a response.
    pub async fn online(
        policy: Policy,
        prompts: &[Prompt],
        judge: impl IntoJudgeQueue<'a>,
        train: &TrainOptions,
        options: &AlignOptions,
    ) -> Result<Trainer<'a>> {
        AlignRun::new(policy, prompts, train, options).await?.trainer(judge)
    }
}
