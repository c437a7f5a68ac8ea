//! The policy and the judges that are embedded in the program.

use std::fmt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::dataset::{LIKELIHOOD_TEMPLATE, PROMPTED_TEMPLATE};
use super::oracle::Instruction;
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Arena, Gpu};
use crate::judge::Judge;
use crate::judge::judge_model::JudgeModel;
use crate::judge::likelihood::{LikelihoodJudge, Normalise};
use crate::judge::llm::{LlmJudge, Orders};
use crate::judge::template::JudgeTemplate;

/// Name, configuration and weights of each model in `models/`.
macro_rules! embedded {
    ($($name:literal)*) => {
        [$((
            $name,
            include_bytes!(concat!("../../models/", $name, "/config.json")),
            include_bytes!(concat!("../../models/", $name, "/model.safetensors")),
        )),*]
    };
}

/// A model's name, `config.json` and `model.safetensors`.
type Embedded = (&'static str, &'static [u8], &'static [u8]);

const MODELS: &[Embedded] = &embedded!(
    "policy" "judge-small" "judge-medium" "judge-large" "judge-evaluation"
    "prompted-small" "prompted-medium" "prompted-large"
);

/// All models share one tokenizer.
const TOKENIZER: [(&str, &[u8]); 2] = [
    ("tokenizer.json", include_bytes!("../../models/policy/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../models/policy/tokenizer_config.json")),
];

/// The size of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgeSize {
    /// 47 thousand parameters.
    Small,
    /// 263 thousand, the same as the policy.
    Medium,
    /// 872 thousand.
    Large,
}

/// The kind of a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgeKind {
    /// Prefers the summary with the higher likelihood.
    Likelihood,
    /// Reads the instruction, the post and both summaries, and answers "1" or "2".
    Prompted,
}

impl fmt::Display for JudgeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JudgeSize::Small => "small",
            JudgeSize::Medium => "medium",
            JudgeSize::Large => "large",
        })
    }
}

impl fmt::Display for JudgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JudgeKind::Likelihood => "likelihood",
            JudgeKind::Prompted => "prompted",
        })
    }
}

/// The models, unpacked into a temporary folder that is deleted when this value is dropped.
pub struct Models {
    dir: TempDir,
}

impl Models {
    /// Unpacks the models.
    ///
    /// # Errors
    /// [`Error::Io`] if the system's temporary folder cannot be written.
    pub fn unpack() -> Result<Models> {
        let dir =
            tempfile::tempdir().map_err(Error::io("create a temporary folder in", std::env::temp_dir()))?;
        for (name, config, weights) in MODELS {
            let folder = dir.path().join(name);
            files::create_dir_all(&folder)?;
            for (file, bytes) in
                [("config.json", *config), ("model.safetensors", *weights)].into_iter().chain(TOKENIZER)
            {
                files::write_atomic(&folder.join(file), bytes)?;
            }
        }
        Ok(Models { dir })
    }

    /// The folder of π₀.
    pub fn policy(&self) -> PathBuf {
        self.dir.path().join("policy")
    }

    /// A judge that follows `instruction`.
    pub async fn judge(
        &self,
        gpu: &Gpu,
        kind: JudgeKind,
        size: JudgeSize,
        orders: Orders,
        instruction: Instruction,
    ) -> Result<Box<dyn Judge>> {
        let name = judge_name(kind, size);
        Ok(match kind {
            JudgeKind::Likelihood => Box::new(self.likelihood(gpu, &name, instruction).await?),
            JudgeKind::Prompted => {
                let template = JudgeTemplate::from_text(PROMPTED_TEMPLATE)?;
                let template = template.with_instruction(instruction.text())?;
                Box::new(LlmJudge::new(self.load(gpu, &name).await?, template, orders, &name).await?)
            }
        })
    }

    /// The judge that is only used for evaluation; it was trained with another seed on other rows.
    pub async fn evaluation_judge(&self, gpu: &Gpu, instruction: Instruction) -> Result<Box<dyn Judge>> {
        Ok(Box::new(self.likelihood(gpu, "judge-evaluation", instruction).await?))
    }

    async fn likelihood(&self, gpu: &Gpu, name: &str, instruction: Instruction) -> Result<LikelihoodJudge> {
        let judge = self.load(gpu, name).await?;
        LikelihoodJudge::new(judge, LIKELIHOOD_TEMPLATE, instruction.text(), Normalise::Sum, name)
            .await
            .map(LikelihoodJudge::of_whole_responses)
    }

    async fn load(&self, gpu: &Gpu, name: &str) -> Result<JudgeModel> {
        JudgeModel::load(gpu, &self.dir.path().join(name), None, &Arena::new()).await
    }

    /// The folder that contains the folders of all models.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn judge_name(kind: JudgeKind, size: JudgeSize) -> String {
    let kind = match kind {
        JudgeKind::Likelihood => "judge",
        JudgeKind::Prompted => "prompted",
    };
    format!("{kind}-{size}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::Tokenizer;
    use crate::demo::language::{tokenizer_json, vocabulary};
    use crate::model::ModelConfig;

    #[test]
    fn every_model_has_the_vocabulary_of_the_small_world() {
        let models = Models::unpack().unwrap();
        assert!(models.policy().is_dir());
        for (name, ..) in MODELS {
            let dir = models.path().join(name);
            assert_eq!(ModelConfig::load(&dir).unwrap().architecture.vocab, vocabulary().len(), "{name}");
            let post = crate::demo::dataset::prompt(false, 1).to_string();
            assert_eq!(Tokenizer::load(&dir).unwrap().encode(&post).unwrap().len(), 15, "{name}");
        }
        let shipped: serde_json::Value = serde_json::from_slice(TOKENIZER[0].1).unwrap();
        assert_eq!(shipped, tokenizer_json());
    }

    #[test]
    fn the_models_take_less_than_8_mib() {
        let bytes: usize = MODELS.iter().map(|(_, config, weights)| config.len() + weights.len()).sum();
        assert!(bytes < 8 << 20, "{bytes}");
    }

    #[test]
    fn there_is_a_judge_of_every_kind_and_size() {
        for kind in [JudgeKind::Likelihood, JudgeKind::Prompted] {
            for size in [JudgeSize::Small, JudgeSize::Medium, JudgeSize::Large] {
                let name = judge_name(kind, size);
                assert!(MODELS.iter().any(|(there, ..)| *there == name), "{name}");
            }
        }
    }
}
