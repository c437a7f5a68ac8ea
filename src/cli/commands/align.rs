//! `oaif align`.

use std::any::Any;

use super::{annotator, training, warn_of};
use crate::annotate::judge_model::JudgeModel;
use crate::cli::args::{AlignPlan, AnnotatorPlan};
use crate::data::rows::read_prompts;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::model::{FloatFormat, Model};
use crate::train::{AlignRun, DryRun, Policy};

pub fn run(plan: AlignPlan) -> Result<()> {
    let AlignPlan { train, align, annotator: judge } = plan;
    let (options, dtype) = (&train.options, train.options.dtype);
    training::check_output(&options.output_dir)?;
    let Some(dataset) = &train.dataset else {
        let gpu = training::open(&train)?;
        let run = DryRun::align(&gpu, &train.model, options, &align)?;
        let _judge = measured(&gpu, judge, dtype)?;
        return training::report_assumed(&gpu, &train, &run);
    };
    let prompts = read_prompts(dataset, &train.columns)?;
    let gpu = training::open(&train)?;
    let policy = Policy::load(&gpu, &train.model, options)?;
    warn_of(&policy.model);
    let run = AlignRun::new(policy, &prompts, options, &align)?;
    if train.dry_run {
        let _judge = measured(&gpu, judge, dtype)?;
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    let mut judge = annotator(&gpu, judge, dtype, true)?;
    training::train("align", &train, &gpu, |sources, control| run.run(judge.as_mut(), sources, control))
}

/// What the annotator holds of a measuring `gpu`. Of its model, config.json is enough.
fn measured(gpu: &Gpu, plan: AnnotatorPlan, dtype: Option<FloatFormat>) -> Result<Box<dyn Any>> {
    match plan.model() {
        Some(dir) if !dir.join("tokenizer.json").exists() => {
            let model = Model::load_frozen(gpu, dir, dtype)?;
            Ok(Box::new(JudgeModel::scorer(&model, None, &Arena::new())?))
        }
        _ => Ok(Box::new(annotator(gpu, plan, dtype, true)?)),
    }
}
