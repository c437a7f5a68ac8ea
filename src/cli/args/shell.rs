//! `oaif completions` and `oaif man`.

use std::path::PathBuf;

use clap::Args;

/// `oaif completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `oaif man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Output folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
