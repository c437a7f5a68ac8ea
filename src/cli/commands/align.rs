//! `oaif align`.

use std::any::Any;

use super::summary::{Parameters, Start};
use super::{annotator, training, warn_of};
use crate::annotate::config::AnnotatorConfig;
use crate::annotate::judge_model::JudgeModel;
use crate::cli::args::AlignPlan;
use crate::cli::console::Console;
use crate::data::rows::prompts;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::model::{FrozenFormat, Model};
use crate::train::{AlignRun, DryRun, Observer, Policy};

pub fn run(plan: AlignPlan) -> Result<()> {
    let AlignPlan { train, align, annotator: judge } = plan;
    let (options, dtype) = (&train.options, train.options.base_dtype);
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::align(&gpu, &train.model, options, &align)?;
        let _judge = measured(&gpu, judge, dtype)?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let mut console = Console::new();
    console.phase("opening the rows");
    let prompts = training::begun(prompts(&train.dataset, &train.columns))?;
    console.phase("opening the GPU");
    let gpu = training::open(&train)?;
    console.phase("loading the model");
    let policy = Policy::load(&gpu, &train.model, options)?;
    warn_of(&policy.model);
    let parameters = Parameters::of(&policy.model);
    console.phase("reading and encoding the rows, recording the plans");
    let run = AlignRun::of_rows(policy, prompts, options, &align)?;
    if train.dry_run {
        let _judge = measured(&gpu, judge, dtype)?;
        console.clear();
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    console.phase("loading the judge");
    let judge = annotator(&gpu, judge, dtype, true)?;
    let start = Start::of(&gpu, &train, &parameters, run.rows(), run.total_steps(), Some(judge.name()));
    console.begins(start.text());
    training::train("align", &train, &gpu, console, |sources, control| run.run(judge, sources, control))
}

/// What the annotator holds of a measuring `gpu`. Of its model, config.json is enough.
fn measured(gpu: &Gpu, plan: AnnotatorConfig, dtype: Option<FrozenFormat>) -> Result<Box<dyn Any>> {
    match plan.model() {
        Some(dir) if !dir.join("tokenizer.json").exists() => {
            let model = Model::load_frozen(gpu, dir, dtype)?;
            Ok(Box::new(JudgeModel::scorer(&model, None, &Arena::new())?))
        }
        _ => Ok(Box::new(annotator(gpu, plan, dtype, true)?)),
    }
}
