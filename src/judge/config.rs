//! Judges from their configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::CommandJudge;
use super::ensemble::{Ensemble, Vote};
use super::human::{Desk, Human};
use super::judge_model::JudgeModel;
use super::likelihood::{LikelihoodJudge, Normalise};
use super::llm::{LlmJudge, Orders};
#[cfg(feature = "http")]
use super::openai::{OpenAi, OpenAiOptions};
use super::queue::{InPlace, JudgeQueue};
use super::reward::RewardJudge;
use super::rule::Rule;
use super::template::JudgeTemplate;
use super::threaded::Threaded;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::model::{FrozenFormat, Model};
use crate::task::Task;

/// Who judges, and how. Models are still to be loaded.
#[derive(Clone, Debug)]
pub enum JudgeConfig {
    /// A language model that reads both responses and answers "1" or "2".
    Llm {
        /// The folder, or GGUF file, of the model.
        model: PathBuf,
        /// What it reads.
        template: Box<JudgeTemplate>,
        /// Which orders of the responses it is shown.
        orders: Orders,
    },
    /// The response that a language model finds more probable.
    Likelihood {
        /// The folder, or GGUF file, of the model.
        model: PathBuf,
        /// What it reads before a response: Jinja with `prompt` and `instruction`.
        template: String,
        /// What `instruction` says.
        instruction: String,
        /// What a log-probability is divided by.
        normalise: Normalise,
    },
    /// A reward model.
    Reward {
        /// The folder of the model.
        model: PathBuf,
        /// The folder of a LoRA adapter on it.
        adapter: Option<PathBuf>,
        /// Whether the end-of-sequence token stands after each response.
        append_eos: bool,
    },
    /// A rule.
    Rule(Rule),
    /// A program.
    Command(CommandJudge),
    /// A person, or several, at this desk.
    Human(Arc<Desk>),
    /// Several judges, none of them an ensemble, that are asked together.
    Ensemble {
        /// How their verdicts become one.
        vote: Vote,
        /// Two or more.
        members: Vec<JudgeConfig>,
    },
    /// Servers that are reached over HTTP.
    #[cfg(feature = "http")]
    OpenAi {
        /// Which, and how.
        options: Box<OpenAiOptions>,
        /// What the model there reads.
        template: Box<JudgeTemplate>,
    },
}

impl JudgeConfig {
    /// Its models here: one at most, save of an ensemble.
    pub fn models(&self) -> Vec<&Path> {
        match self {
            JudgeConfig::Llm { model, .. }
            | JudgeConfig::Likelihood { model, .. }
            | JudgeConfig::Reward { model, .. } => vec![model],
            JudgeConfig::Ensemble { members, .. } => members.iter().flat_map(JudgeConfig::models).collect(),
            _ => Vec::new(),
        }
    }

    /// Likewise, to be replaced by where they were downloaded to.
    pub fn models_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            JudgeConfig::Llm { model, .. }
            | JudgeConfig::Likelihood { model, .. }
            | JudgeConfig::Reward { model, .. } => vec![model],
            JudgeConfig::Ensemble { members, .. } => {
                members.iter_mut().flat_map(JudgeConfig::models_mut).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Where people label, if they do.
    pub fn desk(&self) -> Option<Arc<Desk>> {
        match self {
            JudgeConfig::Human(desk) => Some(desk.clone()),
            JudgeConfig::Ensemble { members, .. } => members.iter().find_map(JudgeConfig::desk),
            _ => None,
        }
    }

    /// Whether most of its time is spent waiting for something outside this program.
    pub fn is_remote(&self) -> bool {
        match self {
            JudgeConfig::Command(_) | JudgeConfig::Human(_) => true,
            JudgeConfig::Ensemble { members, .. } => members.iter().any(JudgeConfig::is_remote),
            #[cfg(feature = "http")]
            JudgeConfig::OpenAi { .. } => true,
            _ => false,
        }
    }

    /// The judge, with its model on `gpu` if it has one, held as `base_dtype` says (`None`: as its files have it).
    /// `training`: whether it gives feedback, or evaluates, see [`JudgeTemplate`]. `warn` hears of oddities of its files.
    ///
    /// # Errors
    /// What is wrong with the configuration or the model; memory errors.
    pub fn open<'t>(
        self,
        gpu: &'t Gpu,
        base_dtype: Option<FrozenFormat>,
        training: bool,
        warn: &'t mut (dyn FnMut(&str) + Send),
    ) -> Task<'t, Result<Box<dyn JudgeQueue>>> {
        Box::pin(self.opened(gpu, base_dtype, training, warn))
    }

    async fn opened(
        self,
        gpu: &Gpu,
        base_dtype: Option<FrozenFormat>,
        training: bool,
        warn: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Box<dyn JudgeQueue>> {
        if let JudgeConfig::Ensemble { vote, members } = self {
            let mut opened = Vec::new();
            for member in members {
                opened.push(member.open(gpu, base_dtype, training, &mut *warn).await?);
            }
            return Ok(Box::new(Ensemble::new(vote, opened)?));
        }
        if let JudgeConfig::Reward { model: dir, adapter, append_eos } = &self {
            let model = Model::load_reward(gpu, dir, adapter.as_deref(), base_dtype).await?;
            model.warnings().for_each(&mut *warn);
            let reward = RewardJudge::new(&model, dir, adapter.as_deref(), *append_eos, &name(dir)).await?;
            return Ok(Box::new(InPlace::new(reward)));
        }
        Ok(match self {
            JudgeConfig::Ensemble { .. } | JudgeConfig::Reward { .. } => unreachable!("opened above"),
            JudgeConfig::Rule(rule) => Box::new(InPlace::new(rule)),
            JudgeConfig::Command(command) => Box::new(Threaded::new(command)?),
            JudgeConfig::Human(desk) => Box::new(Human::new(desk)),
            #[cfg(feature = "http")]
            JudgeConfig::OpenAi { options, template } => {
                Box::new(OpenAi::new(*options, template.with_training(training))?)
            }
            JudgeConfig::Llm { model, template, orders } => {
                let template = template.with_training(training);
                Box::new(InPlace::new(
                    LlmJudge::new(
                        load_judge(gpu, &model, base_dtype, warn).await?,
                        template,
                        orders,
                        &name(&model),
                    )
                    .await?,
                ))
            }
            JudgeConfig::Likelihood { model, template, instruction, normalise } => {
                let judge = load_judge(gpu, &model, base_dtype, warn).await?;
                let name = name(&model);
                Box::new(InPlace::new(
                    LikelihoodJudge::new(judge, &template, &instruction, normalise, &name).await?,
                ))
            }
        })
    }
}

/// The model of a judge.
async fn load_judge(
    gpu: &Gpu,
    dir: &Path,
    base_dtype: Option<FrozenFormat>,
    warn: &mut (dyn FnMut(&str) + Send),
) -> Result<JudgeModel> {
    let model = Model::load_frozen(gpu, dir, base_dtype).await?;
    model.warnings().for_each(&mut *warn);
    JudgeModel::of_model(&model, dir, None, &Arena::new()).await
}

/// What a model's folder is called.
fn name(dir: &Path) -> String {
    dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
