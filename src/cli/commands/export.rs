//! `oaif export`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::warn_of;
use crate::cli::args::ExportPlan;
use crate::error::{Error, Result};
use crate::train::Policy;

pub fn run(plan: ExportPlan) -> Result<()> {
    check_output(&plan.output)?;
    let gpu = plan.gpu.open()?;
    let policy = Policy::frozen(&gpu, &plan.model, plan.adapter.as_deref(), None)?;
    warn_of(&policy.model);
    policy.model.merge_adapter()?.save(&plan.output, Some(&plan.model), plan.format)?;
    crate::cli::print(plan.output.display())
}

/// Refuses an output that is no new folder, or an empty one.
fn check_output(output: &Path) -> Result<()> {
    let refused = |why: String| Err(Error::config("--output", why));
    let shown = output.display();
    if output.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
        return refused(format!(
            "{shown} looks like a GGUF file, which is not written: give a folder, and convert it by llama.cpp's \
             convert_hf_to_gguf.py"
        ));
    }
    match fs::read_dir(output) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => refused(format!("{shown} is not empty: choose another folder")),
        },
        Err(e) if e.kind() == ErrorKind::NotADirectory && output.exists() => {
            refused(format!("{shown} is a file: choose a folder"))
        }
        // What else is wrong with it shows when it is created.
        Err(_) => Ok(()),
    }
}
