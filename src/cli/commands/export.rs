//! `oaif export`.

use super::warn_of;
use crate::cli::args::ExportPlan;
use crate::error::Result;
use crate::train::Policy;

pub fn run(plan: ExportPlan) -> Result<()> {
    let gpu = plan.gpu.open()?;
    let policy = Policy::frozen(&gpu, &plan.model, plan.adapter.as_deref(), None)?;
    warn_of(&policy.model);
    policy.model.merge_adapter()?.save(&plan.output, Some(&plan.model), plan.format)?;
    crate::cli::print(plan.output.display())
}
