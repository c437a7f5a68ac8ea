//! Builds judges from their configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::CommandJudge;
use super::ensemble::{Ensemble, Vote};
use super::human::{Desk, Human};
use super::judge_model::{DEFAULT_MAX_LENGTH, JudgeModel};
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

/// A model that this program loads to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// The model folder or GGUF file.
    pub path: PathBuf,
    /// Limit on the length of a text, in tokens. The model's context limits it too.
    pub max_length: usize,
}

impl From<PathBuf> for LocalModel {
    /// A model with [`DEFAULT_MAX_LENGTH`].
    fn from(path: PathBuf) -> LocalModel {
        LocalModel { path, max_length: DEFAULT_MAX_LENGTH }
    }
}

/// Which judge to use, and its settings. Models are not loaded yet.
#[derive(Clone, Debug)]
pub enum JudgeConfig {
    /// A language model that reads both responses and answers "1" or "2".
    Llm {
        /// The model.
        model: LocalModel,
        /// The prompt template.
        template: Box<JudgeTemplate>,
        /// Which orders of the two responses are judged.
        orders: Orders,
    },
    /// Prefers the response to which a language model assigns the higher likelihood.
    Likelihood {
        /// The model.
        model: LocalModel,
        /// The text before a response: a Jinja template with `prompt` and `instruction`.
        template: String,
        /// The value of `instruction`.
        instruction: String,
        /// How the log-probability is normalised.
        normalise: Normalise,
    },
    /// A reward model.
    Reward {
        /// The model, a folder.
        model: LocalModel,
        /// The folder of a LoRA adapter on it.
        adapter: Option<PathBuf>,
        /// Whether an end-of-sequence token is appended to each response.
        append_eos: bool,
    },
    /// A rule.
    Rule(Rule),
    /// An external program.
    Command(CommandJudge),
    /// One or more people who label at this desk.
    Human(Arc<Desk>),
    /// Several judges, none of them an ensemble, that all judge every pair.
    Ensemble {
        /// How their verdicts are combined.
        vote: Vote,
        /// Two or more.
        members: Vec<JudgeConfig>,
    },
    /// A model behind an OpenAI-compatible HTTP API.
    #[cfg(feature = "http")]
    OpenAi {
        /// The servers and the request settings.
        options: Box<OpenAiOptions>,
        /// The prompt template.
        template: Box<JudgeTemplate>,
    },
}

impl JudgeConfig {
    /// The local models that the judge loads: at most one, except for an ensemble.
    pub fn models(&self) -> Vec<&LocalModel> {
        match self {
            JudgeConfig::Llm { model, .. }
            | JudgeConfig::Likelihood { model, .. }
            | JudgeConfig::Reward { model, .. } => vec![model],
            JudgeConfig::Ensemble { members, .. } => members.iter().flat_map(JudgeConfig::models).collect(),
            _ => Vec::new(),
        }
    }

    /// The paths of these models: callers replace a Hub name by the path of the download.
    pub fn model_paths_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            JudgeConfig::Llm { model, .. }
            | JudgeConfig::Likelihood { model, .. }
            | JudgeConfig::Reward { model, .. } => vec![&mut model.path],
            JudgeConfig::Ensemble { members, .. } => {
                members.iter_mut().flat_map(JudgeConfig::model_paths_mut).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The desk where people label, if there is one.
    pub fn desk(&self) -> Option<Arc<Desk>> {
        match self {
            JudgeConfig::Human(desk) => Some(desk.clone()),
            JudgeConfig::Ensemble { members, .. } => members.iter().find_map(JudgeConfig::desk),
            _ => None,
        }
    }

    /// Whether the judge spends most of its time waiting for something outside this program.
    pub fn is_remote(&self) -> bool {
        match self {
            JudgeConfig::Command(_) | JudgeConfig::Human(_) => true,
            JudgeConfig::Ensemble { members, .. } => members.iter().any(JudgeConfig::is_remote),
            #[cfg(feature = "http")]
            JudgeConfig::OpenAi { .. } => true,
            _ => false,
        }
    }

    /// Opens the judge. A local model is loaded on `gpu` in the format `base_dtype` (`None`: the format of its files).
    /// `training`: whether the judge gives feedback in training or evaluates, see [`JudgeTemplate`]. `warn` receives
    /// warnings about the model files.
    ///
    /// # Errors
    /// Invalid configuration or model files; out of memory.
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
        if let JudgeConfig::Reward { model: LocalModel { path, max_length }, adapter, append_eos } = &self {
            let (name, adapter) = (name(path), adapter.as_deref());
            let model = Model::load_reward(gpu, path, adapter, base_dtype).await?;
            model.warnings().for_each(&mut *warn);
            let reward =
                RewardJudge::new(&model, path, adapter, *append_eos, Some(*max_length), &name).await?;
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
                        &name(&model.path),
                    )
                    .await?,
                ))
            }
            JudgeConfig::Likelihood { model, template, instruction, normalise } => {
                let judge = load_judge(gpu, &model, base_dtype, warn).await?;
                let name = name(&model.path);
                Box::new(InPlace::new(
                    LikelihoodJudge::new(judge, &template, &instruction, normalise, &name).await?,
                ))
            }
        })
    }
}

/// Loads the model of a judge.
async fn load_judge(
    gpu: &Gpu,
    local: &LocalModel,
    base_dtype: Option<FrozenFormat>,
    warn: &mut (dyn FnMut(&str) + Send),
) -> Result<JudgeModel> {
    let model = Model::load_frozen(gpu, &local.path, base_dtype).await?;
    model.warnings().for_each(&mut *warn);
    JudgeModel::of_model(&model, &local.path, Some(local.max_length), &Arena::new()).await
}

/// The name of a model's folder; for a folder in the cache of the Hugging Face Hub, that of the model instead of its commit.
fn name(dir: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // models--ORG--NAME/snapshots/COMMIT
    let cached =
        dir.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent).and_then(last);
    let model =
        cached.and_then(|folder| Some(folder.strip_prefix("models--")?.rsplit("--").next()?.to_owned()));
    model.or_else(|| last(dir)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_has_the_name_of_its_model() {
        for (dir, expected) in [
            ("models/Qwen2.5-1.5B-Instruct", "Qwen2.5-1.5B-Instruct"),
            ("hub/models--Qwen--Qwen2.5-1.5B-Instruct/snapshots/0123abcd", "Qwen2.5-1.5B-Instruct"),
            ("mine/snapshots/best", "best"),
            ("judge.gguf", "judge.gguf"),
            ("/", ""),
        ] {
            assert_eq!(name(Path::new(dir)), expected, "{dir}");
        }
    }
}
