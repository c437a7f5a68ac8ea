//! `oaif export`.

use crate::cli::args::ExportPlan;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::FloatFormat;
use crate::train::Policy;

pub fn run(plan: ExportPlan) -> Result<()> {
    let gpu = Gpu::open(&plan.gpu)?;
    // The sum of base and adapter is rounded once, when it is written.
    let policy = Policy::frozen(&gpu, &plan.model, plan.adapter.as_deref(), Some(FloatFormat::F32))?;
    policy.model.merge_adapter()?.save(&plan.output, Some(&plan.model), plan.format)?;
    crate::cli::print(plan.output.display())
}
