//! The model that is trained, with its tokenizer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::TrainOptions;
use crate::data::chat::ChatTemplate;
use crate::data::encoder::Encoder;
use crate::data::rows::Text;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::files;
use crate::generate::{Chat, GenerateOptions, Generator, Request};
use crate::gpu::{Arena, Gpu};
use crate::model::{FloatFormat, FrozenFormat, Model, Scored, score_all};

/// The files of a policy: a model with its LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyFiles {
    /// The folder of the model, or its GGUF file.
    pub model: PathBuf,
    /// The folder of the LoRA adapter.
    pub adapter: Option<PathBuf>,
}

/// A loaded model folder. Clones share the model: training one trains all.
#[derive(Clone)]
pub struct Policy {
    /// The weights.
    pub model: Model,
    /// The tokenizer of the model.
    pub tokenizer: Arc<Tokenizer>,
    /// The chat template of the model, if it has one.
    pub template: Option<Arc<ChatTemplate>>,
    /// The folder.
    pub dir: PathBuf,
    /// The format of a frozen copy.
    copies: FrozenFormat,
}

/// Loads the model in `dir` for training as the options say, as a reward model if `rates`. Also returns the format of a
/// frozen copy.
pub(super) async fn load_model(
    gpu: &Gpu,
    dir: &Path,
    options: &TrainOptions,
    rates: bool,
) -> Result<(Model, FrozenFormat)> {
    let format = options.base_dtype.map_or_else(|| FrozenFormat::of_model(dir), Ok)?;
    let full = options.lora.is_none() && options.adapter.is_none();
    let base = match (rates, full) {
        (true, _) => {
            let held = (!full).then_some(format);
            Model::load_into_reward(gpu, dir, held, Tokenizer::padding_of(dir)?, options.seed).await?
        }
        (false, true) => Model::load(gpu, dir, true).await?,
        (false, false) => Model::load_frozen(gpu, dir, Some(format)).await?,
    };
    let model = match (&options.adapter, &options.lora) {
        (Some(adapter), _) => base.load_adapter(adapter, true)?,
        (None, Some(lora)) => base.add_adapter(lora.clone(), options.seed)?,
        (None, None) => base,
    };
    Ok((model, format))
}

/// See [`Policy::reference`].
pub(super) async fn reference(model: &Model, options: &TrainOptions, copies: FrozenFormat) -> Result<Model> {
    match options.lora.is_some() && options.adapter.is_none() {
        true => Ok(model.without_adapter()),
        // Lower precision would lose small updates.
        false if options.reference_sync.is_some() => model.snapshot().await,
        false => model.snapshot_as(copies).await,
    }
}

impl Policy {
    /// Loads a model folder for training as the options say: full fine-tuning, a new LoRA adapter, or an existing one.
    pub async fn load(gpu: &Gpu, dir: &Path, options: &TrainOptions) -> Result<Policy> {
        Policy::load_as(gpu, dir, options, false).await
    }

    pub(super) async fn load_as(
        gpu: &Gpu,
        dir: &Path,
        options: &TrainOptions,
        rates: bool,
    ) -> Result<Policy> {
        files::check_named(dir)?;
        let (model, copies) = load_model(gpu, dir, options, rates).await?;
        Ok(Policy { copies, ..Policy::with_model(model, dir)? })
    }

    /// Loads a model folder for inference, with a LoRA adapter if one is given. `base_dtype` as in [`TrainOptions`].
    pub async fn frozen(
        gpu: &Gpu,
        dir: &Path,
        adapter: Option<&Path>,
        base_dtype: Option<FrozenFormat>,
    ) -> Result<Policy> {
        files::check_named(dir)?;
        let base = Model::load_frozen(gpu, dir, base_dtype).await?;
        let model = match adapter {
            Some(adapter) => base.load_adapter(adapter, false)?,
            None => base,
        };
        Policy::with_model(model, dir)
    }

    /// A model with the tokenizer in `dir`.
    pub fn with_model(model: Model, dir: &Path) -> Result<Policy> {
        let tokenizer = Arc::new(Tokenizer::load_for(dir, model.architecture().vocab)?);
        let template = ChatTemplate::load(dir)?.map(Arc::new);
        Ok(Policy { model, tokenizer, template, dir: dir.to_owned(), copies: FloatFormat::F32.into() })
    }

    /// A frozen copy of the current model, in the format of [`TrainOptions::base_dtype`].
    pub(super) async fn snapshot(&self) -> Result<Model> {
        self.model.snapshot_as(self.copies).await
    }

    /// The default generation options: one sequence at a time, prompts of up to half of the context, and up to 256 new
    /// tokens until the end-of-sequence token.
    pub fn generate_options(&self) -> GenerateOptions {
        let half = (self.model.context() / 2).max(1);
        let options = GenerateOptions::default().eos(self.tokenizer.eos_ids());
        options.max_prompt_tokens(half).max_new_tokens(half.min(256))
    }

    /// Creates a generator that samples from this policy.
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub async fn generator(&self, options: GenerateOptions) -> Result<Generator> {
        Generator::new(self.model.gpu(), &self.model, options, &Arena::new()).await
    }

    /// Encodes a prompt as a request for one response of a [`Generator`].
    ///
    /// # Errors
    /// [`Error::Config`] for a prompt without a token, and for one that the chat template rejects.
    pub fn request(&self, prompt: impl Into<Text>) -> Result<Request> {
        Ok(self.encoder().prompt(&prompt.into())?.into())
    }

    /// Starts a conversation with the policy, see [`Chat::new`].
    ///
    /// # Errors
    /// [`Error::File`] if the model has no chat template.
    pub fn chat(&self, options: GenerateOptions) -> Result<Chat> {
        let Some(template) = self.template.clone() else {
            return Err(Error::file(&self.dir, "has no chat template, which a conversation needs"));
        };
        Ok(Chat::new(self.model.clone(), self.tokenizer.clone(), template, options))
    }

    /// Computes the log-probabilities of responses to a prompt.
    ///
    /// # Errors
    /// As [`Policy::request`]; [`Error::Config`] for a response without a token; [`Error::TooLong`] beyond the context;
    /// memory errors.
    pub async fn score(&self, prompt: impl Into<Text>, responses: &[&str]) -> Result<Vec<Scored>> {
        let responses: Vec<Text> = responses.iter().map(|text| Text::from(*text)).collect();
        let responses: Vec<&Text> = responses.iter().collect();
        let encoded = self.encoder().encode(&prompt.into(), &responses, false)?;
        score_all(&self.model, &[encoded.tree], &mut |_| ()).await
    }

    /// Writes the trained weights into the folder `dir`, which may be in memory: the LoRA adapter in the layout of
    /// PEFT, or else the whole model with its tokenizer, in f32.
    ///
    /// # Errors
    /// [`Error::SelfCheck`] for weights that are not finite; [`Error::Io`].
    pub async fn save(&self, dir: &Path) -> Result<()> {
        match self.model.adapter() {
            Some(_) => {
                // An adapter stores an absolute path to its base, so that it can be loaded from any directory.
                let base = files::absolute(&self.dir);
                self.model.save_adapter(dir, &base).await
            }
            None => self.model.save(dir, Some(&self.dir), FloatFormat::F32).await,
        }
    }

    /// The encoder of texts to token ids.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder { tokenizer: &self.tokenizer, template: self.template.as_deref() }
    }

    /// The reference model π₀: the base model without the new LoRA adapter, which takes no memory, or a frozen copy of
    /// the starting model in the format of [`TrainOptions::base_dtype`] (f32 if the policy was made from a model). An
    /// existing adapter that is trained further is part of the reference.
    pub async fn reference(&self, options: &TrainOptions) -> Result<Model> {
        reference(&self.model, options, self.copies).await
    }
}
