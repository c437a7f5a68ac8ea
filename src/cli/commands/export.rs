//! `oaif export`.

use super::warn_of;
use crate::Wait;
use crate::cli::args::{ExportFormat, ExportPlan};
use crate::cli::console::warn;
use crate::error::Result;
use crate::gguf;
use crate::model::{FloatFormat, Model};
use crate::train::Policy;

pub fn run(plan: ExportPlan) -> Result<()> {
    let gpu = plan.gpu.open()?;
    // Weights of a GGUF file are loaded as f32: in their own format, quantised weights that are not kept in the same blocks
    // would be rounded again.
    let dtype = gguf::file_of(&plan.policy.model)?.map(|_| FloatFormat::F32.into());
    let adapter = plan.policy.adapter.as_deref();
    let model = match Model::rates(&plan.policy.model, adapter)? {
        true => Model::load_reward(&gpu, &plan.policy.model, adapter, dtype).wait()?,
        false => Policy::frozen(&gpu, &plan.policy.model, adapter, dtype).wait()?.model,
    };
    warn_of(&model);
    let model = model.merge_adapter().wait()?;
    match plan.format {
        ExportFormat::Folder(format) => model.save(&plan.output, Some(&plan.policy.model), format).wait()?,
        ExportFormat::Gguf(format) => {
            let warnings = model.save_gguf(&plan.output, &plan.policy.model, format).wait()?;
            warnings.iter().for_each(warn);
        }
    }
    crate::cli::print(plan.output.display())
}
