//! `oaif align`.

use std::any::Any;

use super::page::Page;
use super::summary::Start;
use super::training::Prepared;
use super::{open_judge, training};
use crate::Wait;
use crate::cli::args::{AlignPlan, HeldOut};
use crate::data::rows::prompts;
use crate::error::Result;
use crate::gpu::{Arena, Gpu};
use crate::judge::config::JudgeConfig;
use crate::judge::judge_model::JudgeModel;
use crate::model::{FrozenFormat, Model};
use crate::train::{AlignRun, DryRun, Observer, Policy};

pub fn run(plan: AlignPlan) -> Result<()> {
    let AlignPlan { train, align, judge, held_out } = plan;
    let (options, dtype) = (&train.options, train.options.base_dtype);
    if train.dataset.is_empty() {
        let gpu = training::open(&train)?;
        let run = DryRun::align(&gpu, &train.model, options, &align).wait()?;
        let _judge = measured(&gpu, judge, dtype)?;
        return training::report_assumed(&gpu, &train, &run);
    }
    let prepared = training::prepare(
        &train,
        prompts,
        |gpu, dir, options| Policy::load(gpu, dir, options).wait(),
        |policy, rows| {
            let run = AlignRun::of_rows(policy, rows, options, &align).wait()?;
            match held_out.filter(|_| !train.dry_run) {
                Some(HeldOut { file, most, every }) => {
                    let rows = prompts(&[file], &train.columns).take(most).collect::<Result<Vec<_>>>()?;
                    run.with_held_out(&rows, every).wait()
                }
                None => Ok(run),
            }
        },
    )?;
    let Prepared { mut console, gpu, parameters, run } = prepared;
    if train.dry_run {
        let _judge = measured(&gpu, judge, dtype)?;
        console.clear();
        return training::report(&gpu, &train, run.rows(), run.total_steps());
    }
    let desk = judge.desk();
    console.phase("loading the judge");
    let judge = open_judge(&gpu, judge, dtype, true)?;
    let start = Start::of(&gpu, &train, &parameters, run.rows(), run.total_steps(), Some(judge.name()))
        .with_held_out("prompts", run.held_out_rows());
    console.begins(start.facts());
    let page = Page::of("align", &train, desk);
    training::train("align", &train, &gpu, console, page, |sources, control| {
        run.run(judge, sources, control).wait()
    })
}

/// Allocates the judge's memory on a measuring `gpu`. Its model needs only config.json.
fn measured(gpu: &Gpu, plan: JudgeConfig, dtype: Option<FrozenFormat>) -> Result<Box<dyn Any>> {
    if let JudgeConfig::Ensemble { members, .. } = plan {
        let held = members.into_iter().map(|member| measured(gpu, member, dtype));
        return Ok(Box::new(held.collect::<Result<Vec<_>>>()?));
    }
    match plan.models().first() {
        Some(local) if !local.path.join("tokenizer.json").exists() => {
            let model = Model::load_frozen(gpu, &local.path, dtype).wait()?;
            Ok(Box::new(JudgeModel::scorer(&model, Some(local.max_length), &Arena::new()).wait()?))
        }
        _ => Ok(Box::new(open_judge(gpu, plan, dtype, true)?)),
    }
}
