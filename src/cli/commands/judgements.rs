//! `oaif eval --judgements` without a policy: the results in a benchmark's file.

use serde_json::json;

use crate::cli::args::JudgementsPlan;
use crate::error::Result;
use crate::eval::files::{read_alpaca_anchors, read_judgements};
use crate::eval::judged::judged_models;

pub fn run(plan: JudgementsPlan) -> Result<()> {
    let judgements = read_judgements(&plan.judgements)?;
    let anchors = plan.anchors.as_deref().map(read_alpaca_anchors).transpose()?;
    let models = judged_models(&judgements, anchors.as_ref())?;
    if plan.json {
        let object = json!({"benchmark": judgements.benchmark, "models": models});
        return crate::cli::print(format!("{object:#}"));
    }
    models.iter().try_for_each(|model| crate::cli::print(model.sentence()))
}
