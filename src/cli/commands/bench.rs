//! `oaif bench`.

mod about;
mod output;

use super::open_judge;
use crate::bench::{
    Batch, Bench, Case, Earlier, Held, Recipe, Subject, decode, kernels, passes, prefill, steps,
};
use crate::cli::args::{BenchPlan, Suite};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::judge::config::JudgeConfig;
use crate::judge::likelihood::{DEFAULT_TEMPLATE, Normalise};
use crate::judge::rule::Rule;
use about::About;
use output::Output;

/// The default batch of the `passes` suite: 1 × 128, as in published benchmarks.
const PASS: Batch = Batch { sequences: 1, length: 128 };

/// The cases of a suite after the filter.
enum Work {
    Kernels(Vec<Recipe<Gpu>>),
    Model(Held, Vec<Recipe>),
    Align(Held),
}

pub fn run(plan: BenchPlan) -> Result<()> {
    let earlier = plan.compare.as_deref().map(Earlier::load).transpose()?;
    let gpu = plan.gpu.open()?;
    let mut suites = Vec::new();
    for suite in &plan.suites {
        suites.extend(work(*suite, &plan, &gpu)?.map(|work| (name(*suite), work)));
    }
    if suites.is_empty() {
        return Err(Error::config("--filter", format!("no case has {:?} in its name", plan.filter)));
    }
    let mut bench = Bench::new(gpu.clone(), plan.runs)?;
    let names = suites.iter().map(|(name, _)| *name).collect();
    let mut out = Output::new(plan.form, plan.compare.as_deref().zip(earlier), names);
    out.begin(&About::new(&bench))?;
    // A suite reuses the model of the one before, if its weights have the same format.
    let mut last: Option<Subject> = None;
    for (suite, work) in suites {
        let (Work::Model(held, _) | Work::Align(held)) = &work else {
            let Work::Kernels(recipes) = work else { unreachable!("the other two are matched above") };
            out.heading(suite, None)?;
            for recipe in recipes {
                measure(&bench, &mut out, recipe, &gpu)?;
            }
            out.end_suite(suite, bench.ceilings, bench.measure_ceilings()?)?;
            continue;
        };
        last = last.filter(|subject| subject.held() == *held);
        let subject = match last.take() {
            Some(subject) => subject,
            None => Subject::new(&gpu, &plan.model, *held)?,
        };
        out.heading(suite, Some(&subject.about()))?;
        match work {
            Work::Model(_, recipes) => match plan.sweep {
                // The cases of a series are measured alternately.
                Some(sweep) => {
                    let cases: Result<Vec<Case>> = recipes.into_iter().map(|r| r.make(&subject)).collect();
                    let measured = bench.measure(&mut cases?)?;
                    measured.iter().try_for_each(|m| out.measurement(m, &bench.ceilings))?;
                    if plan.filter.is_empty() {
                        let (what, ratio) = sweep.summary(&measured);
                        out.summary(what, ratio)?;
                    }
                }
                None => {
                    for recipe in recipes {
                        measure(&bench, &mut out, recipe, &subject)?;
                    }
                }
            },
            _ => {
                let judge = open_judge(&gpu, judge_config(&plan)?, None, true)?;
                out.measurement(&bench.align(&subject, judge)?, &bench.ceilings)?;
            }
        }
        last = Some(subject);
        out.end_suite(suite, bench.ceilings, bench.measure_ceilings()?)?;
    }
    out.end()
}

/// Measures and prints one case. A case that does not fit on the GPU is printed as skipped.
fn measure<On>(bench: &Bench, out: &mut Output, recipe: Recipe<On>, on: &On) -> Result<()> {
    let (suite, name) = (recipe.suite, recipe.name.clone());
    match recipe.make(on).and_then(|case| bench.measure(&mut [case])) {
        Ok(measured) => measured.iter().try_for_each(|m| out.measurement(m, &bench.ceilings)),
        Err(error @ (Error::Limit { .. } | Error::OutOfMemory { .. })) => out.skipped(suite, &name, &error),
        Err(error) => Err(error),
    }
}

fn name(suite: Suite) -> &'static str {
    match suite {
        Suite::Kernels => "kernels",
        Suite::Passes => "passes",
        Suite::Step => "step",
        Suite::Prefill => "prefill",
        Suite::Decode => "decode",
        Suite::Align => "align",
    }
}

/// The cases of a suite; `None` if the filter leaves none.
fn work(suite: Suite, plan: &BenchPlan, gpu: &Gpu) -> Result<Option<Work>> {
    let matches = |case: &str| format!("{} {case}", name(suite)).to_lowercase().contains(&plan.filter);
    let of_model = |held, mut recipes: Vec<Recipe>| {
        recipes.retain(|recipe| matches(&recipe.name));
        (!recipes.is_empty()).then_some(Work::Model(held, recipes))
    };
    let batches = |usual: Batch| if plan.batches.is_empty() { vec![usual] } else { plan.batches.clone() };
    Ok(match suite {
        Suite::Kernels => {
            let mut recipes = kernels(gpu)?;
            recipes.retain(|recipe| matches(&recipe.name));
            (!recipes.is_empty()).then_some(Work::Kernels(recipes))
        }
        Suite::Passes => {
            let length = PASS.length.min(plan.model.config()?.architecture.context);
            of_model(plan.trained, passes(&batches(Batch { length, ..PASS })))
        }
        Suite::Step => {
            let usual = plan.model.batch()?;
            let recipes = plan.sweep.map(|sweep| sweep.recipes(usual));
            of_model(plan.trained, recipes.unwrap_or_else(|| steps(&batches(usual))))
        }
        Suite::Prefill => of_model(plan.sampled, prefill(&plan.prefill)),
        Suite::Decode => of_model(plan.sampled, decode(&plan.sequences, plan.decode.as_deref())),
        Suite::Align => matches("online step").then_some(Work::Align(plan.trained)),
    })
}

fn judge_config(plan: &BenchPlan) -> Result<JudgeConfig> {
    Ok(match &plan.judge_model {
        None => JudgeConfig::Rule(Rule::parse("longer")?),
        Some(dir) => JudgeConfig::Likelihood {
            model: dir.clone().into(),
            template: DEFAULT_TEMPLATE.into(),
            instruction: String::new(),
            normalise: Normalise::default(),
        },
    })
}
