//! `oaif models`.

use clap::Args;

/// `oaif models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print the results as JSON lines
    #[arg(long)]
    json: bool,
}

/// `oaif models`, checked.
#[derive(Debug)]
pub(crate) struct ModelsPlan {
    pub json: bool,
}

impl ModelsArgs {
    pub fn plan(self) -> ModelsPlan {
        ModelsPlan { json: self.json }
    }
}
