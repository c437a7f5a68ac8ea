//! `oaif eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::gpu::{BaseDtypeArgs, GpuArgs, GpuPlan};
use super::judge::{JudgeArgs, PROTOCOL};
use super::paths::{adapter_dir, dataset_file, input_file, last_checkpoint, model_dir, run_dir};
use super::policy::PolicyFiles;
use super::sampling::SamplingArgs;
use super::{first_given, positive};
use crate::cli::fetch::{Fetch, Input, What};
use crate::data::rows::Columns;
use crate::error::{Error, Result};
use crate::eval::evaluation::{EvalOptions, OtherJudge, PromptSource, Side};
use crate::eval::responses::ResponseOptions;
use crate::files;
use crate::gguf;
use crate::judge::config::JudgeConfig;
use crate::model::adapter_storage::ADAPTER_CONFIG;
use crate::report::without_commit;
use crate::train::run_dir::RUN;

/// Names of the benchmarks' prompt files, used where a folder is given.
const QUESTIONS: &str = "question.jsonl";
const OUTPUTS: &str = "model_outputs.json";

// Model and dataset are optional: with --run they are read from the run folder.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Policies", after_help = PROTOCOL)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EvalArgs {
    /// Model A: a folder, a GGUF file, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", alias = "model-name-or-path")]
    model: Option<PathBuf>,
    /// LoRA adapter of A: a folder, such as RUN/adapter, or ORG/NAME[@REVISION] on the Hugging Face Hub
    #[arg(long, value_name = "DIR|NAME", aliases = ["adapter-path", "adapter-name-or-path"])]
    adapter: Option<PathBuf>,
    /// Run folder: A is the trained policy, B its starting model
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "adapter", "responses"])]
    run: Option<PathBuf>,
    /// File of A's responses: {"prompt","text"} rows, as written by oaif generate, or an AlpacaEval output file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "adapter"])]
    responses: Option<PathBuf>,
    /// B: a model (folder or name); start for A's model without its adapter or the starting model of --run; reference for the
    /// reference responses of the dataset; or a file of responses [default: start]
    #[arg(long, value_name = "DIR|NAME|FILE|WORD")]
    against: Option<PathBuf>,
    /// LoRA adapter of B (without --against: on A's model)
    #[arg(long, value_name = "DIR|NAME")]
    against_adapter: Option<PathBuf>,

    /// Held-out prompts, in the formats of oaif align: a file, or ORG/NAME[:SPLIT] on the Hugging Face Hub [default: the
    /// prompts of --responses; with --run, its evaluation or training rows]
    #[arg(long, value_name = "FILE|NAME", help_heading = "Prompts", aliases = ["eval-dataset", "prompts"])]
    dataset: Option<PathBuf>,
    /// Column of the prompt in --dataset
    #[arg(long, value_name = "NAME", help_heading = "Prompts", default_value = "prompt")]
    prompt_column: String,
    /// Column of the reference response in --dataset, for --against reference
    #[arg(long, value_name = "NAME", help_heading = "Prompts", default_value = "reference")]
    reference_column: String,
    /// Use the prompts of an AlpacaEval output file (model_outputs.json); its outputs are the reference responses
    #[arg(long, value_name = "FILE|DIR", help_heading = "Prompts", conflicts_with = "dataset")]
    alpaca_eval: Option<PathBuf>,
    /// Use the first turns of the MT-Bench questions (question.jsonl)
    #[arg(long, value_name = "FILE|DIR", help_heading = "Prompts", conflicts_with_all = ["dataset", "alpaca_eval"])]
    mt_bench: Option<PathBuf>,
    /// Use the prompts of Arena-Hard (question.jsonl)
    #[arg(long, value_name = "FILE|DIR", help_heading = "Prompts", conflicts_with_all = ["dataset", "alpaca_eval", "mt_bench"])]
    arena_hard: Option<PathBuf>,
    /// Apply the model's chat template: each prompt of --dataset is a user message (always so for the benchmarks)
    #[arg(long, help_heading = "Prompts")]
    chat: bool,
    /// Maximum number of prompts; the first ones are used
    #[arg(long, value_name = "N", help_heading = "Prompts", default_value_t = 1000)]
    max_prompts: usize,

    /// Output folder for eval.json, report.html, responses and verdicts; the same command continues an interrupted evaluation
    /// [default: RUN/eval]
    #[arg(long, value_name = "DIR", help_heading = "Output", alias = "output-dir")]
    output: Option<PathBuf>,
    /// Print eval.json instead of the summary
    #[arg(long, help_heading = "Output")]
    #[serde(skip)]
    json: bool,
    /// Second judge, to measure the agreement of the judges (Cohen's κ): a .yaml, .toml or .json file of --judge flags (judge,
    /// judge-model, …); relative paths start at the working folder
    #[arg(long, value_name = "FILE", help_heading = "Other judgements")]
    #[serde(skip)]
    second_judge: Option<PathBuf>,
    /// File of another judge's verdicts on the same pairs, to measure the agreement: responses.jsonl of another oaif eval, or
    /// the output of oaif judge, one line per pair in the same order. Without a policy: print the results in a judgement file
    /// of AlpacaEval (annotations.json), MT-Bench (…_pair.jsonl, …_single.jsonl) or Arena-Hard
    #[arg(long, value_name = "FILE", help_heading = "Other judgements", conflicts_with = "second_judge")]
    judgements: Option<PathBuf>,
    /// AlpacaEval's df_gamed.csv (from the dataset tatsu-lab/alpaca_eval), to compute its length-controlled win rate from
    /// --judgements
    #[arg(long, value_name = "FILE", help_heading = "Other judgements", requires = "judgements")]
    alpaca_anchors: Option<PathBuf>,
    /// Random seed of sampling
    #[arg(long, value_name = "N", help_heading = "Sampling", default_value_t = 42)]
    seed: u32,
    #[command(flatten)]
    #[serde(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    #[serde(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    base_dtype: BaseDtypeArgs,
    #[command(flatten)]
    #[serde(flatten)]
    gpu: GpuArgs,
}

/// `oaif eval --judgements` alone, checked.
#[derive(Debug)]
pub(crate) struct JudgementsPlan {
    pub judgements: PathBuf,
    /// AlpacaEval's `df_gamed.csv`.
    pub anchors: Option<PathBuf>,
    pub json: bool,
}

/// `oaif eval`, checked.
#[derive(Debug)]
pub(crate) struct EvalPlan {
    pub options: EvalOptions,
    pub json: bool,
    pub gpu: GpuPlan,
    /// The flags with their values.
    pub config: Value,
    /// Warnings to print before the evaluation.
    pub warnings: Vec<String>,
}

/// The run to evaluate.
struct EvaluatedRun {
    dir: PathBuf,
    trained: PolicyFiles,
    start: PolicyFiles,
    config: Value,
    /// The folder that its relative paths start at.
    working_dir: PathBuf,
    warning: Option<String>,
}

impl EvaluatedRun {
    fn read(dir: &Path) -> Result<EvaluatedRun> {
        let Some(config) = files::read_json_if_present(&dir.join(RUN))? else {
            let why = format!("holds no run (it has no {RUN}): give a run folder to --run");
            return Err(Error::file(dir, why));
        };
        let command = config["command"].as_str().unwrap_or("align");
        if !["align", "sft", "dpo"].contains(&command) {
            let why = format!("is a run of oaif {command}: oaif eval supports runs of align, sft and dpo");
            return Err(Error::file(dir, why));
        }
        let working_dir = config["working_dir"].as_str().map(PathBuf::from).filter(|dir| dir.is_dir());
        let working_dir = working_dir.unwrap_or_default();
        let path = |key: &str| config[key].as_str().map(|text| resolve_path(&working_dir, text));
        let Some(model) = path("model") else {
            return Err(Error::file(
                dir,
                format!("has a {RUN} without \"model\": give --model and --adapter"),
            ));
        };
        let start = PolicyFiles { model: model_dir("--run", &model)?, adapter: path("adapter") };
        let [adapter, whole] = ["adapter", "model"].map(|name| dir.join(name));
        let unfinished = |file| last_checkpoint(dir, file);
        let (trained, warning) = if adapter.join(ADAPTER_CONFIG).exists() {
            (PolicyFiles { adapter: Some(adapter), ..start.clone() }, None)
        } else if whole.join("config.json").exists() {
            (PolicyFiles { model: whole, adapter: None }, None)
        } else {
            let (last, trained) = match (unfinished(ADAPTER_CONFIG), unfinished("config.json")) {
                (Some(last), _) => (last.clone(), PolicyFiles { adapter: Some(last), ..start.clone() }),
                (None, Some(last)) => (last.clone(), PolicyFiles { model: last, adapter: None }),
                (None, None) => {
                    let why =
                        "holds no trained model, adapter or checkpoint: wait until the run has saved one";
                    return Err(Error::file(dir, why));
                }
            };
            let warning = format!("the run has not finished: A is its last checkpoint, {}", last.display());
            (trained, Some(warning))
        };
        Ok(EvaluatedRun { dir: dir.to_owned(), trained, start, config, working_dir, warning })
    }
}

/// Resolves a path of a run that was started in another folder. Names on the Hub are returned unchanged.
fn resolve_path(working_dir: &Path, text: &str) -> PathBuf {
    let joined = working_dir.join(text);
    let is_here = std::env::current_dir().is_ok_and(|here| here == working_dir);
    if !is_here && joined.exists() { joined } else { text.into() }
}

impl EvalArgs {
    /// The plan of `--judgements` without a policy; `None` if a policy is given.
    pub fn judgements_alone(&self) -> Result<Option<JudgementsPlan>> {
        let Some(file) = self.judgements.as_deref() else { return Ok(None) };
        if self.run.is_some() || self.model.is_some() || self.responses.is_some() {
            return Ok(None);
        }
        // Flags of this mode, and flags that have a default.
        let known = [
            "judgements",
            "alpaca-anchors",
            "prompt-column",
            "reference-column",
            "max-prompts",
            "seed",
            "base-dtype",
        ];
        if let Some(flag) = first_given(self, &known) {
            let why = "has no effect with --judgements without a policy: leave it out, or give --run, --model or --responses";
            return Err(Error::config(flag, why));
        }
        let anchors = self.alpaca_anchors.as_deref();
        Ok(Some(JudgementsPlan {
            judgements: input_file("--judgements", file)?,
            anchors: anchors.map(|path| input_file("--alpaca-anchors", path)).transpose()?,
            json: self.json,
        }))
    }

    pub fn plan(mut self) -> Result<EvalPlan> {
        let run = self.run.as_deref().map(EvaluatedRun::read).transpose()?;
        let mut warnings: Vec<String> = run.iter().filter_map(|run| run.warning.clone()).collect();
        let a = self.side_a(run.as_ref())?;
        let (b, b_is_start) = self.side_b(&a, run.as_ref())?;
        let prompts = self.prompts(&a, run.as_ref(), &mut warnings)?;
        if let Some(run) = &run {
            // The run's own sampling settings.
            self.sampling.prefer(&run.config);
        }
        let sampling = self.sampling.plan(0.9, 256)?;
        let output = match (&self.output, &run) {
            (Some(output), _) => run_dir(output)?,
            (None, Some(run)) => run.dir.join("eval"),
            (None, None) => {
                return Err(Error::config(
                    "--output",
                    "is required without --run: give a folder for the results",
                ));
            }
        };
        if self.alpaca_anchors.is_some() {
            let why = "is for --judgements without a policy: leave it out, or leave out the policy";
            return Err(Error::config("--alpaca-anchors", why));
        }
        let judge = self.judge.plan()?;
        let mut config = serde_json::to_value(&self).unwrap_or_else(|_| json!({}));
        let other_judge = match (&self.second_judge, &self.judgements) {
            (Some(path), _) => {
                let (second, flags) = second_judge(path)?;
                config["second-judge"] = flags;
                if judge.desk().is_some() && second.desk().is_some() {
                    let why = "is a person, like --judge: give another kind of judge";
                    return Err(Error::config("--second-judge", why));
                }
                Some(OtherJudge::Config(second))
            }
            (None, Some(path)) => Some(OtherJudge::Judgements(input_file("--judgements", path)?)),
            (None, None) => None,
        };
        let options = EvalOptions {
            a,
            b,
            b_is_start,
            run: run.map(|run| run.dir),
            prompts,
            chat: self.chat,
            max_prompts: positive("--max-prompts", self.max_prompts)?,
            sampling: ResponseOptions {
                sampling: sampling.params,
                max_new_tokens: sampling.max_new_tokens,
                stop: sampling.stop,
                slots: sampling.slots,
                seed: self.seed,
                first: 0,
            },
            judge,
            other_judge,
            base_dtype: self.base_dtype.plan(),
            output,
        };
        Ok(EvalPlan { options, json: self.json, gpu: self.gpu.plan(false), config, warnings })
    }

    fn side_a(&self, run: Option<&EvaluatedRun>) -> Result<Side> {
        match (run, &self.model, &self.responses) {
            (Some(run), ..) => Ok(sampled(run.trained.clone())),
            (_, Some(model), _) => Ok(sampled(PolicyFiles {
                model: model_dir("--model", model)?,
                adapter: self.adapter.as_deref().map(|dir| adapter_dir("--adapter", dir)).transpose()?,
            })),
            (_, _, Some(responses)) => Ok(Side::Responses(input_file("--responses", responses)?)),
            _ => {
                let why = "there is nothing to evaluate: give --run RUN, --model DIR (with --adapter DIR) or --responses FILE";
                Err(Error::config("--model", why))
            }
        }
    }

    /// B, and whether it is the starting model of A.
    fn side_b(&self, a: &Side, run: Option<&EvaluatedRun>) -> Result<(Side, bool)> {
        let adapter = self.against_adapter.as_deref();
        let adapter = adapter.map(|dir| adapter_dir("--against-adapter", dir)).transpose()?;
        let against = self.against.as_deref().filter(|path| path.as_os_str() != "start");
        let Some(against) = against else {
            return match (adapter, run, a) {
                (Some(adapter), _, Side::Policy { files, .. }) => {
                    Ok((sampled(PolicyFiles { adapter: Some(adapter), ..files.clone() }), false))
                }
                (None, Some(run), _) => Ok((sampled(run.start.clone()), true)),
                (None, None, Side::Policy { files, .. }) if files.adapter.is_some() => {
                    Ok((sampled(PolicyFiles { adapter: None, ..files.clone() }), true))
                }
                _ => {
                    let why = "is required: A has no starting model to compare with, since neither an adapter nor a run is \
                               given; give a model, reference, or a file of responses";
                    Err(Error::config("--against", why))
                }
            };
        };
        let side = if against.as_os_str() == "reference" {
            Side::Reference
        } else if against.is_file() && !gguf::has_gguf_extension(against) {
            Side::Responses(against.to_owned())
        } else {
            let model = model_dir("--against", against)?;
            return Ok((sampled(PolicyFiles { model, adapter }), false));
        };
        match adapter {
            Some(_) => Err(Error::config("--against-adapter", "needs a model as --against: leave it out")),
            None => Ok((side, false)),
        }
    }

    fn prompts(
        &self,
        a: &Side,
        run: Option<&EvaluatedRun>,
        warnings: &mut Vec<String>,
    ) -> Result<PromptSource> {
        let columns = Columns {
            prompt: self.prompt_column.clone(),
            reference: self.reference_column.clone(),
            ..Columns::default()
        };
        let in_folder = |flag, path: &Path, name| {
            let inside = path.join(name);
            input_file(flag, if path.is_dir() { &inside } else { path })
        };
        if let Some(file) = &self.alpaca_eval {
            return Ok(PromptSource::AlpacaEval(in_folder("--alpaca-eval", file, OUTPUTS)?));
        }
        if let Some(file) = &self.mt_bench {
            return Ok(PromptSource::MtBench(in_folder("--mt-bench", file, QUESTIONS)?));
        }
        if let Some(file) = &self.arena_hard {
            return Ok(PromptSource::ArenaHard(in_folder("--arena-hard", file, QUESTIONS)?));
        }
        if let Some(file) = &self.dataset {
            return Ok(PromptSource::Rows(vec![dataset_file(file)?], columns));
        }
        let Some(run) = run else {
            return match a {
                Side::Responses(path) => Ok(PromptSource::Responses(path.clone())),
                _ => {
                    let why =
                        "is required: give held-out prompts, or --alpaca-eval, --mt-bench or --arena-hard";
                    Err(Error::config("--dataset", why))
                }
            };
        };
        let of_run = |key: &str| run.config[key].as_str().map(|text| resolve_path(&run.working_dir, text));
        let prompt = run.config["prompt-column"].as_str().unwrap_or("prompt").to_owned();
        let columns = Columns { prompt, ..columns };
        if let Some(held_out) = of_run("eval-dataset") {
            return Ok(PromptSource::Rows(vec![dataset_file(&held_out)?], columns));
        }
        let Some(rows) = of_run("dataset") else {
            return Err(Error::config("--dataset", "is required: run.json of the run names no dataset"));
        };
        warnings.push(
            "the prompts are those that the run was trained on: use --dataset with held-out prompts to measure how the policy \
             generalises"
                .into(),
        );
        Ok(PromptSource::Rows(vec![dataset_file(&rows)?], columns))
    }
}

/// The side whose responses this policy writes. It is named by the names that the user gave, not by the folders of downloads.
fn sampled(files: PolicyFiles) -> Side {
    let given = |path: &Path| without_commit(&path.display().to_string());
    let name = match &files.adapter {
        None => given(&files.model),
        Some(adapter) => format!("{} with {}", given(&files.model), given(adapter)),
    };
    Side::Policy { name, files }
}

/// The judge of the flags in the file `path`, and these flags with their values.
fn second_judge(path: &Path) -> Result<(JudgeConfig, Value)> {
    let flag = "--second-judge";
    let mut args = JudgeArgs::of_file(flag, path)?;
    let planned = args
        .plan()
        .map_err(|error| Error::config(format!("{flag} {}", path.display()), error.to_string()))?;
    Ok((planned, serde_json::to_value(&args).unwrap_or_default()))
}

impl Fetch for EvalPlan {
    fn inputs(&mut self) -> Vec<Input<'_>> {
        let mut inputs = Vec::new();
        let EvalOptions { a, b, prompts, judge, other_judge, .. } = &mut self.options;
        for (side, model, adapter) in [(a, "--model", "--adapter"), (b, "--against", "--against-adapter")] {
            if let Side::Policy { files, .. } = side {
                inputs.extend(files.inputs(model, adapter));
            }
        }
        if let PromptSource::Rows(files, _) = prompts {
            inputs.extend(Input::rows("--dataset", files));
        }
        let of_judge = judge.model_paths_mut().into_iter();
        inputs.extend(of_judge.map(|path| Input::new("--judge-model", What::Model, path)));
        if let Some(OtherJudge::Config(judge)) = other_judge {
            let of_judge = judge.model_paths_mut().into_iter();
            inputs.extend(of_judge.map(|path| Input::new("--second-judge", What::Model, path)));
        }
        inputs
    }

    fn config(&mut self) -> Option<&mut Value> {
        Some(&mut self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_named_as_the_user_gave_it_without_the_commit_that_a_run_records() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let named = |model: &str, adapter: Option<&str>| {
            let files = PolicyFiles { model: model.into(), adapter: adapter.map(PathBuf::from) };
            let Side::Policy { name, .. } = sampled(files) else { panic!() };
            name
        };
        assert_eq!(named("org/model", None), "org/model");
        assert_eq!(named("org/model@v1", Some("run/adapter")), "org/model@v1 with run/adapter");
        let [model, adapter] = ["org/model", "hf://org/lora"].map(|name| format!("{name}@{commit}"));
        assert_eq!(named(&model, Some(&adapter)), "org/model with hf://org/lora");
    }
}
