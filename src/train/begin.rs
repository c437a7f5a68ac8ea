//! How an application begins a training that it drives step by step.

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
    /// Training on completions: the policy learns to write them.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for an option out of its range, and where no row is left; what is wrong with a
    /// row; memory errors.
    pub async fn supervised(
        policy: Policy,
        rows: &[Completion],
        train: &TrainOptions,
    ) -> Result<Trainer<'static>> {
        SftRun::new(policy, rows, train, true).await?.trainer()
    }

    /// Training on preferences that are there already.
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

    /// Training of a reward model, for which [`Policy::load_for_reward`] loads a model.
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
    /// Training on online feedback: in every step the policy answers prompts, and the judge says which answers are
    /// better.
    ///
    /// # Errors
    /// As [`Trainer::supervised`]; [`Error::Config`](crate::Error::Config) where the lengths leave no room for an answer.
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
