//! `oaif eval`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use serde_json::Value;

use super::training::quoted;
use super::{open_judge, warn_of};
use crate::Wait;
use crate::cli::args::{EvalPlan, EvalPrompts, PolicyFiles, Side};
use crate::cli::console::{Console, say};
use crate::cli::labelling::Labelling;
use crate::cli::signals;
use crate::data::packing::Tree;
use crate::data::rows::{Conversation, Message, Text, prompts, read_answers};
use crate::error::{Error, Result};
use crate::eval::answers::{
    AnswerFile, AnswerOptions, EncodedPrompt, draw_answers, encode_prompts, log_probabilities,
};
use crate::eval::comparison::Decision;
use crate::eval::ensemble::Votes;
use crate::eval::files::{
    EvalPrompt, read_alpaca_outputs, read_arena_hard_questions, read_mt_bench_questions,
};
use crate::eval::judging::{Heard, PairVerdict, judge_pairs};
use crate::eval::result::{Contest, EvalResult, EvaluatedAnswer, EvaluatedPair, OwnModel};
use crate::files;
use crate::generate::FinishReason;
use crate::gpu::Gpu;
use crate::judge::Pair;
use crate::judge::config::JudgeConfig;
use crate::judge::ensemble::{is_same, judges_of};
use crate::judge::journal::{JOURNAL, Journalled};
use crate::judge::queue::{JudgeQueue, Usage};
use crate::lock::Lock;
use crate::model::fingerprint;
use crate::report::Report;
use crate::train::run_dir::REPORT;
use crate::train::{Observer, Policy, judge_of_run};

/// File of the results.
const RESULT: &str = "eval.json";
/// File of both responses to each prompt, with the verdict.
const ANSWERS: &str = "answers.jsonl";
/// Files of sampled responses, written during sampling.
const DRAWN: [&str; 2] = ["answers_a.jsonl", "answers_b.jsonl"];

/// A prompt of the evaluation.
struct Task {
    /// The prompt in the dataset.
    prompt: Text,
    /// Whether the prompt is a user message, to which the chat template is applied.
    chat: bool,
    /// The reference response of the dataset.
    reference: Option<String>,
}

impl Task {
    /// The prompt for a policy, with the chat template if it applies.
    fn read_by(&self, policy: &Policy) -> Text {
        match (&self.prompt, self.chat && policy.template.is_some()) {
            (Text::Plain(text), true) => {
                let messages = vec![Message::new("user", text)];
                Text::Chat(Conversation { messages, ..Conversation::default() })
            }
            (prompt, _) => prompt.clone(),
        }
    }
}

/// The responses of one side, one per prompt; `None` where the prompt leaves no room for a response in the context.
struct Answers {
    of: Vec<Option<EvaluatedAnswer>>,
    /// Responses sampled in this process: the number of the prompt, and the tokens of prompt and response.
    drawn: Vec<(usize, Tree)>,
    /// Digest of the policy.
    source: Option<String>,
}

pub fn run(plan: EvalPlan) -> Result<()> {
    signals::catch_with_message("stopping; responses and verdicts so far are saved");
    let json = plan.json;
    let output = plan.output.clone();
    let mut console = Console::new();
    let done = evaluate(plan, &mut console);
    console.clear();
    let (result, config) = done.inspect_err(|error| {
        if matches!(error, Error::Interrupted | Error::Judge { .. }) {
            say(format_args!(
                "oaif: responses and verdicts so far are saved in {}; the same command continues from there",
                quoted(&output)
            ));
        }
    })?;
    if json {
        return crate::cli::print(format!("{:#}", with_configuration(&result, &config)));
    }
    crate::cli::print(result.sentence())?;
    let table = result.table();
    let width = table.iter().map(|(name, _)| name.len() + 2).max().unwrap_or_default();
    for (name, text) in table {
        crate::cli::print(format!("{name:<width$}{text}"))?;
    }
    say(format_args!("oaif: the report is {}", output.join(REPORT).display()));
    Ok(())
}

fn evaluate(plan: EvalPlan, console: &mut Console) -> Result<(EvalResult, Value)> {
    let mut warnings = plan.warnings.clone();
    console.phase("reading the prompts");
    let tasks = tasks(&plan, &mut warnings)?;
    // Errors in files are reported before anything is created or loaded.
    let known_a = known(&plan.a, &tasks)?;
    let known_b = known(&plan.b, &tasks)?;
    let gpu = plan.gpu.open()?;
    files::create_dir_all(&plan.output)?;
    let _lock = Lock::take(&plan.output)?;
    let judges = [Some(&plan.judge), plan.second_judge.as_ref()];
    let desk = judges.iter().flatten().find_map(|judge| judge.desk());
    let _terminal = desk.map(|desk| Labelling::start(desk, signals::requests()));
    let [judge, second] = judges.map(|judge| judge.map(|judge| Judge::new(&gpu, &plan, judge)).transpose());
    let (judge, second) = (judge?.expect("one is given"), second?);

    let (mut a, policy) = answers(&plan, &gpu, 0, known_a, &tasks, console)?;
    let model_a = unadapted(&plan, &plan.a, policy.as_ref())?;
    // The starting model of a run may have an adapter too.
    let on_its_start = plan.run.is_none() && policy.as_ref().is_some_and(|p| p.model.adapter().is_some());
    let trees: Vec<Tree> = a.drawn.iter().map(|(_, tree)| tree.clone()).collect();
    let (mut own, mut start) = (None, None);
    if let Some(policy) = policy.as_ref().filter(|_| on_its_start || plan.b_is_start) {
        console.phase("scoring A's answers");
        own = Some(log_probabilities(&policy.model, &trees).wait()?);
        if on_its_start {
            start = Some(log_probabilities(&policy.model.without_adapter(), &trees).wait()?);
        }
    }
    drop(policy);
    let (b, policy) = answers(&plan, &gpu, 1, known_b, &tasks, console)?;
    let model_b = unadapted(&plan, &plan.b, policy.as_ref())?;
    if let Some(policy) = policy.as_ref().filter(|_| plan.b_is_start && start.is_none()) {
        console.phase("scoring A's answers");
        start = Some(log_probabilities(&policy.model, &trees).wait()?);
    }
    drop(policy);
    for (((number, _), own), start) in
        a.drawn.iter().zip(own.into_iter().flatten()).zip(start.into_iter().flatten())
    {
        a.of[*number].iter_mut().for_each(|answer| answer.kl = Some(own - start));
    }
    if a.source.is_some() && a.source == b.source {
        warnings.push("A and B are the same policy: their responses differ only by random sampling".into());
    }
    let both: Vec<(String, EvaluatedAnswer, EvaluatedAnswer)> = tasks
        .iter()
        .zip(a.of.into_iter().zip(b.of))
        .filter_map(|(task, (a, b))| Some((task.prompt.transcript(), a?, b?)))
        .collect();
    let left_out = tasks.len() - both.len();
    if both.is_empty() {
        let why = format!(
            "all {left_out} prompts are too long: they leave no room for a response in the models' context"
        );
        return Err(Error::config("--dataset", why));
    }
    if left_out > 0 {
        warnings.push(format!(
            "{left_out} of {} prompts are skipped: they leave no room for a response in the models' context",
            tasks.len()
        ));
    }

    let pairs: Vec<Pair> =
        both.iter().map(|(prompt, a, b)| Pair { prompt, response_1: &a.text, response_2: &b.text }).collect();
    let judged = judge.judge(&gpu, &plan, &pairs, console)?;
    warnings.extend(plan.run.as_deref().and_then(|run| trained_with(run, &judged.identity)));
    let second = second.map(|second| second.judge(&gpu, &plan, &pairs, console)).transpose()?;
    if second.as_ref().is_some_and(|second| is_same(&second.identity, &judged.identity)) {
        warnings.push("the second judge is the same as --judge, so their agreement has no meaning".into());
    }
    let members = judged.names();
    let [own_a, own_b] = [&model_a, &model_b].map(|model| judged.has(model));
    let evaluated: Vec<EvaluatedPair> = both
        .into_iter()
        .zip(judged.verdicts)
        .map(|((prompt, a, b), verdict)| EvaluatedPair { prompt, a, b, verdict })
        .collect();

    console.phase("computing the figures");
    let mut result = EvalResult::of(contest(&plan, judged.name, members), &evaluated, judged.used)?;
    // The decisions of a judge whose model wrote the responses of neither side.
    let mut other = None;
    if let Some(second) = second {
        let mut votes = Votes::default();
        second.verdicts.iter().for_each(|verdict| votes.add(&verdict.votes));
        warnings
            .extend(votes.mute("the second judge", &second.names(), false).into_iter().map(|(_, text)| text));
        let decisions: Vec<Option<Decision>> = second.verdicts.iter().map(PairVerdict::decision).collect();
        let why = second.verdicts.iter().find_map(|verdict| verdict.why.as_deref());
        let neutral = [&model_a, &model_b].iter().all(|model| second.has(model).is_none());
        result.compare_with(second.name, &evaluated, &decisions, why, second.used)?;
        other = neutral.then_some(decisions);
    }
    if let Some(path) = &plan.judgements {
        let decisions = judgements(path, &evaluated)?;
        result.compare_with(path.display().to_string(), &evaluated, &decisions, None, Usage::default())?;
        other = Some(decisions);
    }
    // If the judge's model wrote both sides, neither side has an advantage.
    if own_a.is_none() != own_b.is_none() {
        let (is_a, own) = (own_a.is_some(), own_a.or(own_b).expect("of one side"));
        result.judged_by_its_own_model(is_a, own, &evaluated, other.as_deref());
    }
    warnings.iter().for_each(|text| console.warning(text));
    result.warnings.iter().for_each(|text| console.warning(text));
    result.warnings.splice(0..0, warnings);
    write(&plan.output, &result, &evaluated, &plan.config)?;
    Ok((result, plan.config))
}

/// A judge. One without a local model takes no GPU memory and is opened before the policies, so that its errors are reported
/// first.
enum Judge {
    Opened(Box<dyn JudgeQueue>),
    ToLoad(JudgeConfig),
}

/// The verdicts of a judge.
struct Judged {
    name: String,
    identity: BTreeMap<String, String>,
    /// The members of an ensemble.
    members: Vec<Member>,
    verdicts: Vec<PairVerdict>,
    used: Usage,
}

/// A member of an ensemble of judges.
struct Member {
    name: String,
    identity: BTreeMap<String, String>,
}

impl Judged {
    /// The names of the members of an ensemble.
    fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Whether this model is that of the judge or of a member.
    fn has(&self, model: &Option<String>) -> Option<OwnModel> {
        let is_it = |identity: &BTreeMap<String, String>| {
            model.is_some() && identity.get("judge-model") == model.as_ref()
        };
        let member = self.members.iter().find(|member| is_it(&member.identity));
        match member {
            Some(member) => Some(OwnModel::OfMember(member.name.clone())),
            None => is_it(&self.identity).then_some(OwnModel::OfJudge),
        }
    }
}

impl Judge {
    fn new(gpu: &Gpu, plan: &EvalPlan, config: &JudgeConfig) -> Result<Judge> {
        match config.models().is_empty() {
            true => open_judge(gpu, config.clone(), plan.base_dtype, false).map(Judge::Opened),
            false => Ok(Judge::ToLoad(config.clone())),
        }
    }

    /// Judges the pairs. Verdicts are kept in the journal, in which each judge finds its own rows.
    fn judge(self, gpu: &Gpu, plan: &EvalPlan, pairs: &[Pair<'_>], console: &mut Console) -> Result<Judged> {
        let queue = match self {
            Judge::Opened(queue) => queue,
            Judge::ToLoad(config) => {
                console.phase("loading the judge");
                open_judge(gpu, config, plan.base_dtype, false)?
            }
        };
        let mut journalled = Journalled::new(queue);
        journalled.open(&plan.output.join(JOURNAL))?;
        let name = journalled.name();
        let verdicts = judge_pairs(&mut journalled, pairs, plan.seed, &mut |event| match event {
            Heard::Judged(done) => {
                console.phase(&format!("judging by {name}: {done} of {}", pairs.len()));
                check_interrupted()
            }
            Heard::Note(text) => {
                console.warning(text);
                Ok(())
            }
            Heard::Other(_) => Ok(()),
        })
        .wait()?;
        let member =
            |member: &&Journalled<'_>| Ok(Member { name: member.name(), identity: member.identity()? });
        let members = journalled.members().iter().map(member).collect::<Result<_>>()?;
        Ok(Judged { identity: journalled.identity()?, used: journalled.used(), name, members, verdicts })
    }
}

/// Returns [`Error::Interrupted`] after a signal.
fn check_interrupted() -> Result<()> {
    if signals::requests().stops() { Err(Error::Interrupted) } else { Ok(()) }
}

/// The prompts, at most `max_prompts`.
fn tasks(plan: &EvalPlan, warnings: &mut Vec<String>) -> Result<Vec<Task>> {
    let limit = plan.max_prompts;
    let mut tasks: Vec<Task> = match &plan.prompts {
        EvalPrompts::Rows(files, columns) => {
            let task = |row: Result<crate::data::rows::Prompt>| {
                let row = row?;
                Ok(Task { prompt: row.prompt, chat: plan.chat, reference: row.reference })
            };
            prompts(files, columns).take(limit.saturating_add(1)).map(task).collect::<Result<_>>()?
        }
        EvalPrompts::OfAnswers => {
            let Side::Answers(path) = &plan.a else { unreachable!("chosen for it") };
            let rows = read_answers(path)?.into_iter();
            rows.map(|row| Task { prompt: row.prompt, chat: plan.chat, reference: None }).collect()
        }
        EvalPrompts::AlpacaEval(path) => of_benchmark(read_alpaca_outputs(path)?),
        EvalPrompts::ArenaHard(path) => of_benchmark(read_arena_hard_questions(path)?),
        EvalPrompts::MtBench(path) => {
            warnings.push("only the first of MT-Bench's two turns is evaluated".into());
            of_benchmark(read_mt_bench_questions(path)?)
        }
    };
    if tasks.len() > limit {
        tasks.truncate(limit);
        warnings.push(format!("only the first {limit} prompts are used: raise --max-prompts for more"));
    }
    let before = tasks.len();
    tasks.retain(|task| !task.prompt.is_empty());
    if tasks.is_empty() {
        let why = match before {
            0 => "holds no prompt".to_owned(),
            _ => format!("holds {before} prompts, all of them empty"),
        };
        return Err(Error::config("--dataset", format!("{why}: give a file with prompts")));
    }
    Ok(tasks)
}

/// The tasks of a benchmark: user messages, with the reference responses of the file.
fn of_benchmark(prompts: Vec<EvalPrompt>) -> Vec<Task> {
    let task = |EvalPrompt { text, reference }| Task { prompt: Text::Plain(text), chat: true, reference };
    prompts.into_iter().map(task).collect()
}

/// The responses of A (`number` 0) or B (1), with the policy that sampled them.
fn answers(
    plan: &EvalPlan,
    gpu: &Gpu,
    number: usize,
    known: Option<Answers>,
    tasks: &[Task],
    console: &mut Console,
) -> Result<(Answers, Option<Policy>)> {
    let (side, name) = [(&plan.a, "A"), (&plan.b, "B")][number];
    let (Side::Policy(files), None) = (side, &known) else {
        return Ok((known.expect("what no policy draws is known"), None));
    };
    console.phase(&format!("loading {name}"));
    let policy = Policy::frozen(gpu, &files.model, files.adapter.as_deref(), plan.base_dtype).wait()?;
    warn_of(&policy.model);
    let answers = draw(plan, &policy, files, number, tasks, console)?;
    Ok((answers, Some(policy)))
}

/// The fingerprint of a policy without an adapter, in the form of a judge's identity, if the judge has a local model.
fn unadapted(plan: &EvalPlan, side: &Side, policy: Option<&Policy>) -> Result<Option<String>> {
    match (side, policy) {
        (Side::Policy(PolicyFiles { model, adapter: None }), Some(policy))
            if !plan.judge.models().is_empty() =>
        {
            Ok(Some(fingerprint::judge_model(model, policy.tokenizer.eos_ids())?.to_string()))
        }
        _ => Ok(None),
    }
}

/// The responses of a side that needs no sampling.
fn known(side: &Side, tasks: &[Task]) -> Result<Option<Answers>> {
    match side {
        Side::Policy(_) => Ok(None),
        Side::Answers(path) => of_file(path, tasks).map(Some),
        Side::Reference => of_dataset(tasks).map(Some),
    }
}

/// Samples the responses of a policy, except those sampled by an earlier, interrupted command.
fn draw(
    plan: &EvalPlan,
    policy: &Policy,
    files: &PolicyFiles,
    number: usize,
    tasks: &[Task],
    console: &mut Console,
) -> Result<Answers> {
    if plan.chat && policy.template.is_none() {
        let why = "has no chat template: leave out --chat to continue the prompts as plain text";
        return Err(Error::file(&files.model, why));
    }
    let read: Vec<Text> = tasks.iter().map(|task| task.read_by(policy)).collect();
    let encoded = encode_prompts(policy, &read)?;
    let (numbers, prompts): (Vec<usize>, Vec<EncodedPrompt>) = encoded
        .into_iter()
        .enumerate()
        .filter_map(|(i, ids)| Some((i, EncodedPrompt { text: &tasks[i].prompt, ids: ids? })))
        .unzip();
    let options = AnswerOptions {
        sampling: plan.sampling.params,
        max_new_tokens: plan.sampling.max_new_tokens,
        stop: plan.sampling.stop.clone(),
        slots: plan.sampling.slots,
        // Different seeds, so that two sides with the same policy get different responses.
        seed: plan.seed.wrapping_add(number as u32),
        first: 0,
    };
    let path = plan.output.join(DRAWN[number]);
    let mut file = AnswerFile::open(&path, &files.model, files.adapter.as_deref())?;
    let name = ["A", "B"][number];
    let drawn = draw_answers(policy, &prompts, &options, Some(&mut file), &mut |done| {
        console.phase(&format!("sampling responses of {name}: {done} of {}", prompts.len()));
        check_interrupted()
    })
    .wait()?;
    let mut of: Vec<Option<EvaluatedAnswer>> = tasks.iter().map(|_| None).collect();
    let mut trees = Vec::new();
    for ((number, prompt), response) in numbers.into_iter().zip(prompts).zip(drawn) {
        of[number] = Some(EvaluatedAnswer {
            text: response.text,
            tokens: Some(response.token_ids.len()),
            ended: Some(response.finish_reason != FinishReason::Length),
            kl: None,
        });
        trees.push((number, Tree { prompt: prompt.ids, responses: vec![response.token_ids] }));
    }
    Ok(Answers { of, drawn: trees, source: Some(file.source().to_owned()) })
}

/// The responses of a file, matched by their prompts. Responses to equal prompts are used in order.
fn of_file(path: &Path, tasks: &[Task]) -> Result<Answers> {
    let mut known: HashMap<String, VecDeque<String>> = HashMap::new();
    for row in read_answers(path)? {
        known.entry(row.prompt.transcript().trim().to_owned()).or_default().push_back(row.answer);
    }
    let mut answer = |task: &Task| known.get_mut(task.prompt.transcript().trim())?.pop_front();
    let answers: Vec<Option<String>> = tasks.iter().map(&mut answer).collect();
    if let Some(first) = answers.iter().position(Option::is_none) {
        let missing = answers.iter().filter(|answer| answer.is_none()).count();
        let prompt: String = tasks[first].prompt.transcript().chars().take(60).collect();
        let why = format!(
            "has no response to {missing} of {} prompts, the first of them {prompt:?}: give responses to these prompts, or give \
             the prompts of the file as --dataset",
            tasks.len()
        );
        return Err(Error::file(path, why));
    }
    Ok(known_before(answers))
}

/// The reference responses of the dataset.
fn of_dataset(tasks: &[Task]) -> Result<Answers> {
    let missing = tasks.iter().filter(|task| task.reference.is_none()).count();
    if missing > 0 {
        let why = format!(
            "reference: {missing} of {} prompts have no reference response: give --reference-column NAME, or another --against",
            tasks.len()
        );
        return Err(Error::config("--against", why));
    }
    Ok(known_before(tasks.iter().map(|task| task.reference.clone()).collect()))
}

fn known_before(answers: Vec<Option<String>>) -> Answers {
    let answer = |text: Option<String>| Some(EvaluatedAnswer { text: text?, ..EvaluatedAnswer::default() });
    Answers { of: answers.into_iter().map(answer).collect(), drawn: Vec::new(), source: None }
}

/// The names of the sides and the judge.
fn contest(plan: &EvalPlan, judge: String, members: Vec<String>) -> Contest {
    let name = |side: &Side| match side {
        Side::Policy(PolicyFiles { model, adapter: None }) => model.display().to_string(),
        Side::Policy(PolicyFiles { model, adapter: Some(adapter) }) => {
            format!("{} with {}", model.display(), adapter.display())
        }
        Side::Answers(path) => format!("the responses of {}", path.display()),
        Side::Reference => "the reference responses".to_owned(),
    };
    let (a, b) = (name(&plan.a), name(&plan.b));
    let against = match (&plan.b, plan.b_is_start) {
        (_, true) => "the starting model".to_owned(),
        _ => b.clone(),
    };
    Contest { a, b, against, judge, members }
}

/// A warning if the judge also trained the run: if they are the same, one is a member of the other, or they share members.
fn trained_with(run: &Path, judge: &BTreeMap<String, String>) -> Option<String> {
    let (trained, judges) = (judges_of(&judge_of_run(run)?), judges_of(judge));
    let shared = trained.intersection(&judges).count();
    let who = match (shared, trained.len(), judges.len()) {
        (0, ..) => return None,
        (_, trained, judges) if shared == trained && shared == judges => {
            "the judge also trained the run".to_owned()
        }
        (_, _, 1) => "the judge is a member of the ensemble that trained the run".to_owned(),
        (_, 1, _) => "a member of the judge also trained the run".to_owned(),
        (_, _, judges) => format!("{shared} of the judge's {judges} members also trained the run"),
    };
    Some(format!(
        "{who}: this win rate measures how well the run fits that judge, not whether others would prefer its responses; use \
         another --judge"
    ))
}

/// Another judge's decisions on the pairs, in their order.
fn judgements(path: &Path, pairs: &[EvaluatedPair]) -> Result<Vec<Option<Decision>>> {
    let text = files::read_text(path)?;
    let rows: Vec<(usize, &str)> =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    if rows.len() != pairs.len() {
        let why = format!(
            "holds {} verdicts for {} pairs: give one line per pair, in the same order",
            rows.len(),
            pairs.len()
        );
        return Err(Error::file(path, why));
    }
    let decision = |((line, text), pair): ((usize, &str), &EvaluatedPair)| {
        let bad = |why: &str| Error::Row { path: path.to_owned(), line, why: why.to_owned() };
        let row: Value = serde_json::from_str(text).map_err(|e| bad(&format!("is not JSON ({e})")))?;
        for (key, known) in [("prompt", &pair.prompt), ("answer_a", &pair.a.text), ("answer_b", &pair.b.text)]
        {
            if row[key].as_str().is_some_and(|text| text != known) {
                return Err(bad(&format!(
                    "belongs to another pair: its {key} differs from that of the compared pair"
                )));
            }
        }
        match row["verdict"].as_str() {
            Some("win" | "1") => Ok(Some(Decision::Win)),
            Some("loss" | "2") => Ok(Some(Decision::Loss)),
            Some("tie") => Ok(Some(Decision::Tie)),
            Some("invalid") => Ok(None),
            _ => Err(bad("has no \"verdict\": give win or 1 for A, loss or 2 for B, tie or invalid")),
        }
    };
    rows.into_iter().zip(pairs).map(decision).collect()
}

fn write(dir: &Path, result: &EvalResult, pairs: &[EvaluatedPair], config: &Value) -> Result<()> {
    let row = |pair: &EvaluatedPair| serde_json::to_string(&pair.row()).expect("JSON of plain values") + "\n";
    let rows: String = pairs.iter().map(row).collect();
    files::write_atomic(&dir.join(ANSWERS), rows.as_bytes())?;
    let json = with_configuration(result, config);
    files::write_atomic(&dir.join(RESULT), format!("{json:#}\n").as_bytes())?;
    Report::of_eval(result, pairs, config.clone()).write(&dir.join(REPORT))
}

/// The content of eval.json.
fn with_configuration(result: &EvalResult, config: &Value) -> Value {
    let mut value = serde_json::to_value(result).expect("JSON of plain values");
    value["configuration"] = config.clone();
    value
}
