//! A whole evaluation: it reads the prompts, samples the responses of A and B, has a judge compare them, and computes the
//! results.
//!
//! | file | contents |
//! |---|---|
//! | `prompts` | the prompts, of a dataset or a benchmark |
//! | `sides` | the responses of A and B: sampled, of a file, or the references of the dataset |
//! | `judges` | the verdicts of the judges, and how the judges are related to the policies |
//! | `judgements` | another judge's verdicts, read from a file |
//! | `evaluated` | the results and their files |
//!
//! ```no_run
//! # use oaif::unstable::eval::evaluation::{EvalOptions, Evaluation, Event, Inputs};
//! # fn evaluate(options: EvalOptions) -> oaif::Result<()> {
//! use oaif::Wait;
//! use oaif::gpu::{Gpu, GpuOptions};
//!
//! let inputs = Inputs::read(&options)?;
//! let gpu = Gpu::open(&GpuOptions::default()).wait()?;
//! let evaluation = Evaluation::open(&gpu, options, inputs).wait()?;
//! let evaluated = evaluation.run(&mut |event| {
//!     if let Event::Progress { phase, done, total } = event {
//!         println!("{phase}: {done} of {total}");
//!     }
//!     Ok(())
//! }).wait()?;
//! println!("{}", evaluated.result.sentence());
//! # Ok(())
//! # }
//! ```

mod evaluated;
mod judgements;
mod judges;
mod prompts;
mod sides;

use std::path::PathBuf;
use std::sync::Arc;

pub use evaluated::Evaluated;
pub use prompts::PromptSource;
pub use sides::Side;

use self::judges::{Comparing, Judged, PendingJudge, warning_of_shared_judge};
use self::prompts::EvalTask;
use self::sides::{Sampling, SideResponses};
use super::responses::ResponseOptions;
use super::result::{Contest, EvalResult, EvaluatedPair, EvaluatedResponse};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::Gpu;
use crate::judge::Pair;
use crate::judge::config::JudgeConfig;
use crate::judge::ensemble::is_same;
use crate::judge::human::Desk;
use crate::judge::queue::Usage;
use crate::lock::Lock;
use crate::model::FrozenFormat;

/// What is evaluated, and how.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The responses of A.
    pub a: Side,
    /// The responses of B.
    pub b: Side,
    /// Whether B is the starting model of A.
    pub b_is_start: bool,
    /// The run that trained A.
    pub run: Option<PathBuf>,
    /// The prompts.
    pub prompts: PromptSource,
    /// Whether each prompt is a user message, to which the chat template is applied. Those of benchmarks always are.
    pub chat: bool,
    /// The maximum number of prompts; the first ones are used.
    pub max_prompts: usize,
    /// How responses are sampled. The seed also decides which response of a pair is shown first.
    pub sampling: ResponseOptions,
    /// The judge.
    pub judge: JudgeConfig,
    /// Another judge, to measure the agreement.
    pub other_judge: Option<OtherJudge>,
    /// The format of frozen weights; `None`: that of their files.
    pub base_dtype: Option<FrozenFormat>,
    /// The folder of the results, and of the responses and verdicts with which an interrupted evaluation continues.
    pub output: PathBuf,
}

/// Another judge of the same pairs.
#[derive(Clone, Debug)]
pub enum OtherJudge {
    /// A judge that judges them in this evaluation.
    Config(JudgeConfig),
    /// A file of its verdicts: `responses.jsonl` of another evaluation, or the output of `oaif judge`.
    Judgements(PathBuf),
}

impl EvalOptions {
    /// The desk where people label, if one of the judges is a person.
    pub fn desk(&self) -> Option<Arc<Desk>> {
        self.judge.desk().or_else(|| self.other_config()?.desk())
    }

    fn other_config(&self) -> Option<&JudgeConfig> {
        match &self.other_judge {
            Some(OtherJudge::Config(judge)) => Some(judge),
            _ => None,
        }
    }
}

/// What happens in an evaluation.
pub enum Event<'t> {
    /// A phase begins.
    Phase(&'t str),
    /// In this phase, so many of all prompts or pairs are done.
    Progress {
        /// The phase: "sampling responses of A".
        phase: &'t str,
        /// The number done.
        done: usize,
        /// The number of all.
        total: usize,
    },
    /// A warning about a model or a judge. Warnings about the result are in [`EvalResult::warnings`].
    Warning(&'t str),
}

/// Receives the events of an evaluation and may stop it with an error.
pub type Watch<'w> = dyn FnMut(Event<'_>) -> Result<()> + Send + 'w;

/// The prompts, and the responses that need no sampling. They are read first, so that errors in files are reported before
/// anything is created or loaded.
pub struct Inputs {
    tasks: Vec<EvalTask>,
    given: [Option<Vec<String>>; 2],
    warnings: Vec<String>,
}

impl Inputs {
    /// Reads the files.
    ///
    /// # Errors
    /// Errors in the files; [`Error::File`] without a prompt, and if a response is missing.
    pub fn read(options: &EvalOptions) -> Result<Inputs> {
        let mut warnings = Vec::new();
        let tasks = prompts::read(options, &mut warnings)?;
        let given = [options.a.given(&tasks)?, options.b.given(&tasks)?];
        Ok(Inputs { tasks, given, warnings })
    }
}

/// An evaluation that is ready to run. Its folder is locked.
pub struct Evaluation {
    gpu: Gpu,
    options: EvalOptions,
    inputs: Inputs,
    judge: PendingJudge,
    other: Option<PendingJudge>,
    lock: Lock,
}

impl Evaluation {
    /// Creates and locks the folder, and opens the judges without a local model.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] if another process uses the folder; errors of the judges.
    pub async fn open(gpu: &Gpu, options: EvalOptions, inputs: Inputs) -> Result<Evaluation> {
        files::create_dir_all(&options.output)?;
        let lock = Lock::take(&options.output)?;
        let judge = PendingJudge::new(gpu, &options.judge).await?;
        let other = match options.other_config() {
            Some(config) => Some(PendingJudge::new(gpu, config).await?),
            None => None,
        };
        Ok(Evaluation { gpu: gpu.clone(), options, inputs, judge, other, lock })
    }

    /// Samples, judges and computes the results. Responses and verdicts are saved as they come: the same evaluation
    /// continues with those of an earlier, interrupted one.
    ///
    /// # Errors
    /// Errors of the models and the judges; [`Error::File`] if no prompt leaves room for a response; those of `watch`.
    pub async fn run(self, watch: &mut Watch<'_>) -> Result<Evaluated> {
        let Evaluation { gpu, options, inputs, judge, other, lock } = self;
        let Inputs { tasks, given, mut warnings } = inputs;
        let sampling = Sampling { gpu: &gpu, options: &options, tasks: &tasks };
        let [mut a, mut b] = sampling.responses(given, watch).await?;
        if a.source.is_some() && a.source == b.source {
            warnings
                .push("A and B are the same policy: their responses differ only by random sampling".into());
        }
        let models = [a.model.take(), b.model.take()];
        let both = answered_by_both(&options.prompts, &tasks, a, b, &mut warnings)?;

        let pairs: Vec<Pair> = both
            .iter()
            .map(|(prompt, a, b)| Pair { prompt, response_1: &a.text, response_2: &b.text })
            .collect();
        let comparing = Comparing { gpu: &gpu, options: &options, pairs: &pairs };
        let mut judged = comparing.run(judge, watch).await?;
        warnings
            .extend(options.run.as_deref().and_then(|run| warning_of_shared_judge(run, &judged.identity)));
        let other = match other {
            Some(other) => Some(comparing.run(other, watch).await?),
            None => None,
        };
        if other.as_ref().is_some_and(|other| is_same(&other.identity, &judged.identity)) {
            warnings
                .push("the second judge is the same as the first, so their agreement has no meaning".into());
        }
        let verdicts = std::mem::take(&mut judged.verdicts);
        let pairs: Vec<EvaluatedPair> = both
            .into_iter()
            .zip(verdicts)
            .map(|((prompt, a, b), verdict)| EvaluatedPair { prompt, a, b, verdict })
            .collect();

        watch(Event::Phase("computing the figures"))?;
        let mut result = figures(&options, &pairs, &judged, other, &models, &mut warnings)?;
        result.warnings.splice(0..0, warnings);
        Ok(Evaluated { result, pairs, output: options.output, _lock: lock })
    }
}

/// The prompts with both responses, as shown to the judge.
fn answered_by_both(
    source: &PromptSource,
    tasks: &[EvalTask],
    a: SideResponses,
    b: SideResponses,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, EvaluatedResponse, EvaluatedResponse)>> {
    let both: Vec<_> = tasks
        .iter()
        .zip(a.of.into_iter().zip(b.of))
        .filter_map(|(task, (a, b))| Some((task.prompt.transcript(), a?, b?)))
        .collect();
    let skipped = tasks.len() - both.len();
    if both.is_empty() {
        let why = format!(
            "all {skipped} prompts are too long: they leave no room for a response in the models' context"
        );
        return Err(Error::file(source.path(), why));
    }
    if skipped > 0 {
        warnings.push(format!(
            "{skipped} of {} prompts are skipped: they leave no room for a response in the models' context",
            tasks.len()
        ));
    }
    Ok(both)
}

/// The results, with the agreement of another judge and the preference of the judge for its own model. `models` are those of
/// A and B.
fn figures(
    options: &EvalOptions,
    pairs: &[EvaluatedPair],
    judged: &Judged,
    other: Option<Judged>,
    models: &[Option<String>; 2],
    warnings: &mut Vec<String>,
) -> Result<EvalResult> {
    let mut result = EvalResult::of(contest(options, judged), pairs, judged.used)?;
    // The decisions of a judge whose model wrote the responses of neither side.
    let mut neutral = None;
    if let Some(other) = other {
        warnings.extend(other.warnings_of_mute_members("the second judge"));
        let decisions = other.decisions();
        let is_neutral = models.iter().all(|model| other.has(model).is_none());
        result.compare_with(other.name.clone(), pairs, &decisions, other.first_reason(), other.used)?;
        neutral = is_neutral.then_some(decisions);
    }
    if let Some(OtherJudge::Judgements(path)) = &options.other_judge {
        let decisions = judgements::read(path, pairs)?;
        result.compare_with(path.display().to_string(), pairs, &decisions, None, Usage::default())?;
        neutral = Some(decisions);
    }
    // If the judge's model wrote both sides, neither side has an advantage.
    match models.each_ref().map(|model| judged.has(model)) {
        [Some(own), None] => result.judged_by_its_own_model(true, own, pairs, neutral.as_deref()),
        [None, Some(own)] => result.judged_by_its_own_model(false, own, pairs, neutral.as_deref()),
        _ => {}
    }
    Ok(result)
}

/// The names of the sides and the judge.
fn contest(options: &EvalOptions, judged: &Judged) -> Contest {
    let (a, b) = (options.a.name(), options.b.name());
    let against = if options.b_is_start { "the starting model".to_owned() } else { b.clone() };
    Contest { a, b, against, judge: judged.name.clone(), members: judged.names() }
}
