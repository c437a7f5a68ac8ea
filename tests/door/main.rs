//! Calls public functions with random arguments: the result must be right or an `Error`, never a panic and never data
//! from beyond a buffer. The rules of each call are implemented here a second time.

mod building;
#[path = "../common/mod.rs"]
mod common;
mod draws;
mod running;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use common::{fixture, gpu};
use draws::{CAPACITY, Draws};
use oaif::Wait;
use oaif::unstable::data::packing::Tree;
use oaif::unstable::data::tokenizer::Tokenizer;
use oaif::unstable::generate::{GenerateOptions, Generator, SamplingParams};
use oaif::unstable::gpu::{Arena, Dim, Gpu, Limits, Plan, PlanOptions, Recorder};
use oaif::unstable::judge::Judge;
use oaif::unstable::judge::judge_model::JudgeModel;
use oaif::unstable::judge::likelihood::{DEFAULT_TEMPLATE, LikelihoodJudge, Normalise};
use oaif::unstable::judge::llm::{LlmJudge, Orders};
use oaif::unstable::judge::template::JudgeTemplate;
use oaif::unstable::model::{Model, Scorer};
use oaif::unstable::ops;
use oaif::unstable::optim::{Optimiser, OptimiserKind};
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::train::pair_step::PairStep;
use oaif::unstable::train::sft_step::SftStep;
use oaif::{Error, Result};

/// A call: a description, whether its arguments are valid, and the result.
struct Call {
    what: String,
    valid: bool,
    result: Result<()>,
}

fn call<T>(what: impl std::fmt::Debug, valid: bool, result: Result<T>) -> Call {
    Call { what: format!("{what:?}"), valid, result: result.map(drop) }
}

struct Doors {
    gpu: Gpu,
    /// A second device, on which nothing runs.
    dry: Gpu,
    dir: PathBuf,
    frozen: Model,
    trained: Model,
    dry_frozen: Model,
    dry_trained: Model,
    scorer: Scorer,
    preamble: Vec<u32>,
    after: Scorer,
    pairs: PairStep,
    sft: SftStep,
    optimiser: Optimiser,
    generator: Generator,
    tokenizer: Tokenizer,
    judges: Vec<Box<dyn Judge>>,
    plan: Plan,
    temp: tempfile::TempDir,
}

fn generate() -> GenerateOptions {
    GenerateOptions::default()
        .sampling(SamplingParams::default().temperature(0.9))
        .max_new_tokens(4)
        .max_prompt_tokens(12)
        .slots(4)
        .samples_per_prompt(2)
        .eos(Vec::new())
}
const LOSS: PreferenceLoss = PreferenceLoss::Dpo { beta: 0.1 };

impl Doors {
    fn new(gpu: Gpu) -> Doors {
        let (dir, dry) = (fixture("tiny"), Gpu::without_device(Limits::default()));
        let load = |gpu: &Gpu, train| Model::load(gpu, &dir, train).wait().unwrap();
        let (frozen, trained) = (load(&gpu, false), load(&gpu, true));
        let arena = Arena::new();
        let preamble: Vec<u32> = (1..9).collect();
        let judge = || JudgeModel::load(&gpu, &dir, Some(64), &arena).wait().unwrap();
        let template = JudgeTemplate::from_text("{{ prompt }}{{ response_1 }}{{ response_2 }}").unwrap();
        let llm = |orders| LlmJudge::new(judge(), template.clone(), orders, "tiny").wait().unwrap();
        let likelihood =
            LikelihoodJudge::new(judge(), DEFAULT_TEMPLATE, "", Normalise::Token, "tiny").wait().unwrap();
        Doors {
            scorer: Scorer::new(&gpu, &frozen, CAPACITY, &arena).wait().unwrap(),
            after: Scorer::after(&gpu, &frozen, &preamble, CAPACITY, &arena).wait().unwrap(),
            pairs: PairStep::new(&gpu, &trained, LOSS, CAPACITY, false, &arena).wait().unwrap(),
            sft: SftStep::new(&gpu, &trained, CAPACITY, false, &arena).wait().unwrap(),
            optimiser: Optimiser::new(&gpu, trained.trained(), OptimiserKind::adamw(), 1.0, &arena)
                .wait()
                .unwrap(),
            generator: Generator::new(&gpu, &frozen, generate(), &arena).wait().unwrap(),
            tokenizer: Tokenizer::load(&dir).unwrap(),
            judges: vec![Box::new(likelihood), Box::new(llm(Orders::Both)), Box::new(llm(Orders::One))],
            plan: plan_of_100_rows(&dry),
            temp: tempfile::tempdir().unwrap(),
            dry_frozen: load(&dry, false),
            dry_trained: load(&dry, true),
            dry,
            gpu,
            dir,
            frozen,
            trained,
            preamble,
        }
    }

    fn any(&mut self, draws: &mut Draws) -> Call {
        match draws.below(40) {
            0..8 => self.score(draws),
            8..12 => self.score_after_a_preamble(draws),
            12..16 => self.score_choices(draws),
            16..20 => self.learn_pairs(draws),
            20..23 => self.learn_completions(draws),
            23 => self.update(draws),
            24..28 => self.generate(draws),
            28 => self.new_generator(draws),
            29 => self.new_plans(draws),
            30 => self.new_optimiser(draws),
            31..33 => self.upload_weights(draws),
            33 => self.move_bytes(draws),
            34 => self.replay(draws),
            35 => self.new_model(draws),
            36 => self.new_adapter(draws),
            37 => self.new_run(draws),
            38 => self.judge(draws),
            _ => self.small_things(draws),
        }
    }
}

fn plan_of_100_rows(gpu: &Gpu) -> Plan {
    let mut r = Recorder::new(gpu);
    let rows = Dim::Live { index: 0, max: 100 };
    let (x, y) = (r.tensor("x", rows, 4), r.tensor("y", rows, 4));
    ops::residual_add(&mut r, x, y).unwrap();
    Plan::new(gpu, r, &Arena::new(), PlanOptions::default()).wait().unwrap()
}

/// Makes `OAIF_DOOR_CALLS` calls (10,000 by default) from the seed `OAIF_DOOR_SEED`.
#[test]
fn no_call_panics_and_invalid_calls_are_refused() {
    let Some(gpu) = gpu() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (calls, seed) = (number("OAIF_DOOR_CALLS").unwrap_or(10_000), number("OAIF_DOOR_SEED").unwrap_or(1));
    let mut doors = Doors::new(gpu);
    let (mut refused, mut answered) = (0, 0);
    for i in 0..calls {
        let call_seed = seed.wrapping_mul(1_000_000_007).wrapping_add(i);
        let made = catch_unwind(AssertUnwindSafe(|| doors.any(&mut Draws(call_seed))));
        let again = format!("call {i} of OAIF_DOOR_SEED={seed}");
        let Ok(Call { what, valid, result }) = made else { panic!("{again} panicked, see above") };
        match (valid, result) {
            (true, Ok(())) => answered += 1,
            (false, Err(error)) => {
                refused += 1;
                assert!(!matches!(error, Error::Gpu { .. }), "{again} reached the GPU: {what}: {error}");
            }
            (true, Err(error)) => panic!("{again} should succeed: {what}: {error}"),
            (false, Ok(())) => panic!("{again} should be refused: {what}"),
        }
    }
    println!("{calls} calls from seed {seed}: {answered} answered, {refused} refused");
    assert!(answered > calls / 10 && refused > calls / 4, "{answered} answered, {refused} refused");
}

#[test]
fn a_refusal_names_the_tree_and_the_reason() {
    let Some(gpu) = gpu() else { return };
    let model = Model::load(&gpu, &fixture("tiny"), false).wait().unwrap();
    let scorer = Scorer::new(&gpu, &model, CAPACITY, &Arena::new()).wait().unwrap();
    let good = Tree { prompt: vec![1, 2], responses: vec![vec![3], vec![4, 5]] };
    let why = |prompt: Vec<u32>, response: Vec<u32>| {
        let tree = Tree { prompt, responses: vec![vec![3], response] };
        scorer.score(&[good.clone(), tree]).wait().unwrap_err().to_string()
    };
    assert_eq!(
        why(vec![1], vec![2, 96]),
        "response 1 of tree 1: has the token id 96 at 1, but the model's vocabulary ends at 96"
    );
    assert_eq!(why(vec![], vec![2]), "prompt of tree 1: has no tokens, but at least one is required");
    assert_eq!(why(vec![1], vec![]), "response 1 of tree 1: has no tokens, but at least one is required");
    assert_eq!(why(vec![1; 3000], vec![2]), "tree 1 has 3000 tokens, the model takes 128: shorten it");
    let wide = Tree { prompt: vec![1; 100], responses: vec![vec![2; 20]; 5] };
    let error = scorer.score(&[wide]).wait().unwrap_err().to_string();
    assert_eq!(
        error,
        "capacity: a tree takes 195 tokens, 100 targets and 5 sequences, but the capacity is 150 tokens, 140 targets and \
         4 sequences: use a larger capacity"
    );
}
