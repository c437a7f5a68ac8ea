//! The policy that a command loads: a model with its LoRA adapter.

use std::path::PathBuf;

use clap::Args;

use super::paths::{AdapterArgs, model_dir};
use crate::cli::fetch::{Input, What};
use crate::error::Result;
pub(crate) use crate::train::PolicyFiles;

/// The help of `--adapter` in commands that do not train.
const ADAPTER: &str = "LoRA adapter of the model: a folder, such as RUN/adapter, or ORG/NAME[@REVISION] on the Hugging Face \
                       Hub";

/// Flags of commands that load one policy.
#[derive(Debug, Args)]
#[command(mut_arg("adapter", |arg| arg.help(ADAPTER)))]
pub(crate) struct PolicyArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: PathBuf,
    #[command(flatten)]
    adapter: AdapterArgs,
}

impl PolicyArgs {
    pub fn plan(&self) -> Result<PolicyFiles> {
        Ok(PolicyFiles { model: model_dir("--model", &self.model)?, adapter: self.adapter.plan()? })
    }
}

impl PolicyFiles {
    /// The inputs, given with the flags `model` and `adapter`.
    pub(super) fn inputs(&mut self, model: &'static str, adapter: &'static str) -> Vec<Input<'_>> {
        let of_model = Input::new(model, What::Model, &mut self.model);
        let of_adapter = self.adapter.as_mut().map(|path| Input::new(adapter, What::Adapter, path));
        std::iter::once(of_model).chain(of_adapter).collect()
    }
}
