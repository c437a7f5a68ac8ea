//! The paper's findings in miniature, in the embedded small world: does online feedback beat offline feedback, is a
//! larger judge better, does a judge weaker than the policy help, does the instruction alone control the policy, and
//! how does a judge compare with a reward model fitted to the preferences of the judge or of a person?
//!
//!     cargo run --release --example paper_figures -- paper
//!
//! writes `paper/results.json`, a plot for each experiment and `paper/report.html`. Every finished training run is
//! stored in `paper/cells`, so a stopped program can be started again to continue. Flags: `--quick` (a few steps of one
//! seed, as a test), `--steps N`, `--seeds N`, `--posts N`, `--minutes M` (start no further training run after M
//! minutes).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use oaif::Result;
use oaif::Wait;
use oaif::unstable::data::rows::{self, Text};
use oaif::unstable::demo::dataset::{held_out_pair, prompts};
use oaif::unstable::demo::draw::Draw;
use oaif::unstable::demo::exam::{Exam, MAX_NEW_TOKENS, Tally, summarise};
use oaif::unstable::demo::models::{JudgeKind, JudgeSize, Models};
use oaif::unstable::demo::oracle::Instruction;
use oaif::unstable::demo::person::Person;
use oaif::unstable::files;
use oaif::unstable::gpu::{Gpu, GpuOptions};
use oaif::unstable::judge::llm::Orders;
use oaif::unstable::judge::queue::InPlace;
use oaif::unstable::judge::reward::RewardJudge;
use oaif::unstable::judge::{Judge, Pair, PairOutcome, Verdict, judge_pairs};
use oaif::unstable::model::Model;
use oaif::unstable::preference::PreferenceLoss;
use oaif::unstable::report::{Bars, Estimate, Plot, Report, Section, Series, Table, Unit};
use oaif::unstable::train::run_dir::checkpoints;
use oaif::unstable::train::{
    AlignOptions, AlignRun, Control, DpoOptions, DpoRun, OnlineLoss, Policy, PolicyLoss, Requests,
    RewardOptions, RewardRun, Sources, TrainOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The size of the experiments.
struct Size {
    steps: usize,
    batch: usize,
    seeds: u32,
    posts: usize,
    /// Number of pairs on which a judge's agreement with the oracle is measured.
    pairs: usize,
}

/// The source of the feedback.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feedback {
    /// The judge compares the policy's own summaries during training.
    Online,
    /// The judge compared summaries of π₀, once before training.
    Offline,
    /// A reward model, fitted to the judge's verdicts on summaries of π₀, rates the policy's own summaries: RLAIF.
    ModelOfJudge,
    /// The same, fitted to a person's verdicts: RLHF. The person is the oracle with errors in one pair of ten.
    ModelOfPerson,
}

/// A training configuration. Compared configurations differ from [`Way::ONLINE`] in one respect.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    loss: &'static str,
    feedback: Feedback,
    kind: JudgeKind,
    judge: JudgeSize,
    orders: Orders,
    instruction: Instruction,
    soft_labels: bool,
    num_samples: usize,
    /// Number of steps, as a multiple of that of the others.
    times: usize,
    /// Number of passes of an offline run over its pairs, of which there are accordingly fewer.
    passes: usize,
}

impl Way {
    /// As in the paper.
    const ONLINE: Way = Way {
        name: "dpo-online",
        loss: "dpo",
        feedback: Feedback::Online,
        kind: JudgeKind::Likelihood,
        judge: JudgeSize::Large,
        orders: Orders::Both,
        instruction: Instruction::Accurate,
        soft_labels: false,
        num_samples: 2,
        times: 1,
        passes: 1,
    };
}

/// All configurations, the most important first.
fn ways() -> Vec<Way> {
    let online = Way::ONLINE;
    let (offline, rloo) = (Feedback::Offline, Way { loss: "rloo", num_samples: 4, ..online });
    let prompted = Way { kind: JudgeKind::Prompted, judge: JudgeSize::Medium, ..online };
    vec![
        online,
        Way { name: "dpo-offline", feedback: offline, ..online },
        Way { name: "rlaif", feedback: Feedback::ModelOfJudge, ..rloo },
        Way { name: "rlhf", feedback: Feedback::ModelOfPerson, ..rloo },
        Way { name: "very-short", instruction: Instruction::VeryShort, ..online },
        Way { name: "short", instruction: Instruction::Short, ..online },
        Way { name: "dpo-long-online", times: 3, ..online },
        Way { name: "dpo-long-offline", feedback: offline, times: 3, ..online },
        Way { name: "dpo-passes-offline", feedback: offline, times: 3, passes: 9, ..online },
        Way { name: "judge-small", judge: JudgeSize::Small, ..online },
        Way { name: "judge-medium", judge: JudgeSize::Medium, ..online },
        Way { name: "ipo-online", loss: "ipo", ..online },
        Way { name: "ipo-offline", loss: "ipo", feedback: offline, ..online },
        Way { name: "slic-online", loss: "slic", ..online },
        Way { name: "slic-offline", loss: "slic", feedback: offline, ..online },
        Way { name: "prompted-both", ..prompted },
        Way { name: "prompted-one", orders: Orders::One, ..prompted },
        Way { name: "soft", soft_labels: true, ..online },
        Way { name: "best-of-4", num_samples: 4, ..online },
    ]
}

/// A checkpoint of a policy, compared with π₀ and measured by itself.
#[derive(Serialize, Deserialize)]
struct Stage {
    step: usize,
    /// For each held-out post, the utility of the policy's summary minus that of π₀'s, by the oracle.
    oracle: Vec<f64>,
    /// For each held-out post, the preference of the evaluation judge: 1 for the policy's summary, -1 for π₀'s, 0 for a
    /// tie.
    judge: Vec<f64>,
    /// For each summary, the number of words, right facts and invented facts.
    words: Vec<f64>,
    right: Vec<f64>,
    invented: Vec<f64>,
}

/// The result of one training run.
#[derive(Serialize, Deserialize)]
struct Trained {
    /// Checkpoints in ascending order; the first is π₀.
    stages: Vec<Stage>,
    /// The summaries of the last checkpoint.
    summaries: Vec<String>,
    seconds: f64,
}

impl Trained {
    fn last(&self) -> &Stage {
        self.stages.last().expect("there is always π₀")
    }
}

/// Finished training runs by configuration, one per seed.
type Cells = BTreeMap<&'static str, Vec<Trained>>;

struct World {
    gpu: Gpu,
    models: Models,
    exam: Exam,
    size: Size,
    folder: PathBuf,
}

/// Whether a difference in length belongs to a bucket.
type Bucket = fn(f64) -> bool;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let quick = arguments.iter().any(|a| a == "--quick");
    let folder = arguments.iter().find(|a| !a.starts_with("--") && a.parse::<usize>().is_err());
    let size = Size {
        steps: value("--steps").unwrap_or(if quick { 4 } else { 80 }),
        batch: if quick { 8 } else { 32 },
        seeds: value("--seeds").unwrap_or(if quick { 1 } else { 3 }) as u32,
        posts: value("--posts").unwrap_or(if quick { 16 } else { 200 }),
        pairs: if quick { 16 } else { 500 },
    };
    let world = World {
        gpu: Gpu::open(&GpuOptions::default()).wait()?,
        models: Models::unpack()?,
        exam: Exam::new(size.posts),
        size,
        folder: folder.map_or("paper", String::as_str).into(),
    };
    let limit = value("--minutes").map_or(f64::INFINITY, |minutes| 60.0 * minutes as f64);
    let cells = world.cells(limit)?;
    world.conclude(&cells)
}

impl World {
    /// Trains what is missing. A configuration is included once all its seeds are done.
    fn cells(&self, limit_s: f64) -> Result<Cells> {
        let began = Instant::now();
        let mut cells = Cells::new();
        for way in ways() {
            let mut trained = Vec::new();
            // No hyperparameter was tuned on these seeds.
            for seed in 101..101 + self.size.seeds {
                let path = self.cell(&format!("{}-{seed}", way.name));
                let found = files::read_json_if_present(&path)?.map(serde_json::from_value);
                trained.push(match found {
                    Some(Ok(trained)) => trained,
                    _ if began.elapsed().as_secs_f64() > limit_s => break,
                    _ => {
                        let trained = self.train(way, seed)?;
                        write(&path, &trained)?;
                        trained
                    }
                });
                let Trained { stages, seconds, .. } = &trained[trained.len() - 1];
                let rate = Tally::of(&stages[stages.len() - 1].oracle).win_rate().value;
                println!("{} seed {seed}: {:.1} % wins, {seconds:.0} s", way.name, 100.0 * rate);
            }
            if trained.len() == self.size.seeds as usize {
                cells.insert(way.name, trained);
            }
        }
        Ok(cells)
    }

    fn cell(&self, name: &str) -> PathBuf {
        self.folder.join("cells").join(format!("{name}.json"))
    }

    fn judge(&self, way: Way) -> Result<Box<dyn Judge>> {
        self.models.judge(&self.gpu, way.kind, way.judge, way.orders, way.instruction).wait()
    }

    fn train(&self, way: Way, seed: u32) -> Result<Trained> {
        let began = Instant::now();
        let (steps, batch) = (way.times * self.size.steps, self.size.batch);
        let run = tempfile::tempdir().map_err(oaif::Error::io("create", "a temporary folder"))?;
        let train = TrainOptions::default()
            .output_dir(run.path())
            .learning_rate(if way.loss == "rloo" { 1e-4 } else { 3e-4 })
            .warmup_steps(steps / 16)
            .batch_size(batch)
            .max_steps(steps)
            .save_steps(steps.div_ceil(5))
            .seed(seed);
        let prompts = prompts(10_000);
        let policy = Policy::load(&self.gpu, &self.models.policy(), &train).wait()?;
        let mut judge = self.judge(way)?;
        // As many pairs as an online run sees per pass, sampled once from π₀.
        let drawn = steps * batch / way.passes;
        let first = (seed as usize * steps * batch) % (prompts.len() - steps * batch);
        let posts: Vec<String> =
            prompts[first..first + drawn].iter().map(|row| row.prompt.transcript()).collect();
        let learn_online = |policy, judge: Box<dyn Judge>, loss: OnlineLoss| {
            let options = AlignOptions::new(loss)
                .max_new_tokens(MAX_NEW_TOKENS)
                .soft_labels(way.soft_labels)
                .num_samples(way.num_samples);
            let run = AlignRun::new(policy, &prompts, &train, &options).wait()?;
            let requests = Requests::new();
            let control = Control { observer: &mut (), requests: &requests };
            run.run(InPlace::new(judge), self.sources(), control).wait()
        };
        match way.feedback {
            Feedback::Online => learn_online(policy, judge, preference_loss(way.loss)?.into())?,
            Feedback::Offline => {
                let pairs = offline_pairs(&policy, &posts, judge.as_mut(), seed)?;
                let options = DpoOptions::new(preference_loss(way.loss)?);
                let control = Control { observer: &mut (), requests: &Requests::new() };
                DpoRun::new(policy, &pairs, &train, &options).wait()?.run(self.sources(), control).wait()?
            }
            Feedback::ModelOfJudge | Feedback::ModelOfPerson => {
                if way.feedback == Feedback::ModelOfPerson {
                    judge = Box::new(Person { taste: way.instruction, draw: Draw::new(seed, 0) });
                }
                let pairs = offline_pairs(&policy, &posts, judge.as_mut(), seed)?;
                let rewards = tempfile::tempdir().map_err(oaif::Error::io("create", "a temporary folder"))?;
                // Three passes over the pairs; chosen on seed 1, like the policy's learning rate.
                let fit = train
                    .clone()
                    .output_dir(rewards.path())
                    .learning_rate(1e-3)
                    .max_steps(3 * steps)
                    .save_steps(None);
                let model = self.reward_model(&pairs, fit)?;
                learn_online(policy, Box::new(model), PolicyLoss::rloo().into())?
            }
        };

        let mut evaluation = self.models.evaluation_judge(&self.gpu, way.instruction).wait()?;
        let (mut stages, mut first, mut last) = (Vec::new(), None, Vec::new());
        let folders = checkpoints(run.path())?.into_iter().map(|c| (c.step, c.path));
        for (step, folder) in [(0, self.models.policy())].into_iter().chain(folders) {
            last = self.exam.summaries(&Policy::frozen(&self.gpu, &folder, None, None).wait()?, 1).wait()?;
            let before = first.get_or_insert_with(|| last.clone());
            let qualities = self.exam.qualities(&last);
            let of = |count: fn(&oaif::unstable::demo::oracle::Quality) -> usize| {
                qualities.iter().map(|q| count(q) as f64).collect()
            };
            stages.push(Stage {
                step,
                oracle: self.exam.by_oracle(way.instruction, before, &last),
                judge: self.exam.by_judge(evaluation.as_mut(), before, &last).wait()?,
                words: of(|q| q.words),
                right: of(|q| q.right),
                invented: of(|q| q.invented),
            });
        }
        Ok(Trained { stages, summaries: last, seconds: began.elapsed().as_secs_f64() })
    }

    fn sources(&self) -> Sources {
        Sources { model: self.models.policy(), config: json!({}) }
    }

    /// A reward model fitted to the pairs, initialised with π₀'s weights.
    fn reward_model(&self, pairs: &[rows::Pair], train: TrainOptions) -> Result<RewardJudge> {
        let start = Policy::load_for_reward(&self.gpu, &self.models.policy(), &train).wait()?;
        let options = RewardOptions::default().center_rewards_coefficient(0.0).append_eos(true);
        let control = Control { observer: &mut (), requests: &Requests::new() };
        let folder =
            RewardRun::new(start, pairs, &train, &options).wait()?.run(self.sources(), control).wait()?;
        let model = Model::load_reward(&self.gpu, &folder, None, None).wait()?;
        RewardJudge::new(&model, &folder, None, true, None, "fitted").wait()
    }

    /// The judge's agreement with the oracle on held-out pairs whose utilities differ.
    fn agreement(&self, way: Way) -> Result<Estimate> {
        let path = self.cell(&format!("agreement-{}", way.name));
        if let Some([wins, trials]) = files::read_json_if_present(&path)?
            .and_then(|found| serde_json::from_value::<[usize; 2]>(found).ok())
        {
            return Ok(Estimate::share(wins, trials));
        }
        let rows: Vec<Value> = (0..self.size.pairs).map(held_out_pair).collect();
        let text =
            |row: &'static str| move |value: &Value| value[row].as_str().unwrap_or_default().to_owned();
        let texts: Vec<[String; 3]> =
            rows.iter().map(|row| ["prompt", "response_1", "response_2"].map(|key| text(key)(row))).collect();
        let pairs: Vec<Pair> = texts
            .iter()
            .map(|[prompt, response_1, response_2]| Pair { prompt, response_1, response_2 })
            .collect();
        let asked = Instruction::ALL.iter().position(|i| *i == way.instruction).expect("one of all");
        let verdicts = judge_pairs(self.judge(way)?.as_mut(), &pairs).wait()?;
        let gap = |row: &Value| {
            let utility = |i: usize| row["utilities"][i][asked].as_f64().unwrap_or(0.0);
            utility(0) - utility(1)
        };
        let agrees = rows.iter().map(gap).zip(&verdicts).filter(|(gap, _)| *gap != 0.0);
        let agrees: Vec<bool> = agrees
            .map(|(gap, verdict)| preference(verdict).is_some_and(|first| first == (gap > 0.0)))
            .collect();
        let counts = [agrees.iter().filter(|agrees| **agrees).count(), agrees.len()];
        write(&path, &counts)?;
        Ok(Estimate::share(counts[0], counts[1]))
    }

    /// Compares online with offline runs for each post, by the oracle and by the evaluation judge; one list per seed.
    fn versus(&self, loss: &str, online: &[Trained], offline: &[Trained]) -> Result<[Vec<Vec<f64>>; 2]> {
        let path = self.cell(&format!("versus-{loss}"));
        let found = files::read_json_if_present(&path)?;
        if let Some(Ok(found)) = found.map(serde_json::from_value::<[Vec<Vec<f64>>; 2]>)
            && found[0].len() == online.len()
        {
            return Ok(found);
        }
        let mut judge = self.models.evaluation_judge(&self.gpu, Instruction::Accurate).wait()?;
        let mut games = [Vec::new(), Vec::new()];
        for (online, offline) in online.iter().zip(offline) {
            let (before, after) = (&offline.summaries, &online.summaries);
            games[0].push(self.exam.by_oracle(Instruction::Accurate, before, after));
            games[1].push(self.exam.by_judge(judge.as_mut(), before, after).wait()?);
        }
        write(&path, &games)?;
        Ok(games)
    }

    /// Writes the figures for all finished runs.
    fn conclude(&self, cells: &Cells) -> Result<()> {
        let Size { steps, batch, seeds, posts, .. } = self.size;
        let mut page =
            Page { folder: &self.folder, results: json!({}), report: Report::new("The paper in miniature") };
        page.results["setting"] = json!({"steps": steps, "prompts_a_step": batch, "seeds": seeds, "held_out_posts": posts,
            "intervals": "95 %, bootstrap over seeds and posts; ties left out of win rates"});
        page.report.lead(format!(
            "{steps} steps of {batch} prompts, {seeds} seed(s), {posts} held-out posts. Win rates are against π₀, by the \
             oracle, without ties; intervals of 95 % by bootstrap over seeds and posts."
        ));
        self.online_and_offline(cells, &mut page)?;
        self.judges(cells, &mut page)?;
        self.instructions(cells, &mut page)?;
        self.lengths(cells, &mut page)?;
        self.variants(cells, &mut page)?;
        self.four_ways(cells, &mut page)?;
        page.report.write(&self.folder.join("report.html"))?;
        write(&self.folder.join("results.json"), &page.results)?;
        println!("{}", self.folder.join("results.json").display());
        Ok(())
    }

    /// Experiment 1.
    fn online_and_offline(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let plot =
            |title: &str| Plot::new(title).labels("step", "win rate against π₀").unit(Unit::Share).level(0.5);
        let mut long = plot(&format!("DPO, {} steps", 3 * self.size.steps));
        for (label, name) in [
            ("online", "dpo-long-online"),
            ("offline", "dpo-long-offline"),
            ("offline, a ninth of the pairs nine times", "dpo-passes-offline"),
        ] {
            let Some(trained) = cells.get(name) else { continue };
            let series = Series::band(label, curve(trained));
            long = long.series(if name.ends_with("online") { series } else { series.dashed() });
        }
        let mut losses = plot("By the loss");
        let mut bars = Bars::new("Online against its own offline version").unit(Unit::Share).level(0.5);
        bars = bars.kinds(["by the oracle", "by the evaluation judge"]);
        let mut table =
            Table::new(["loss", "online against π₀", "offline against π₀", "wins", "ties", "losses"]);
        let mut out = json!({});
        for loss in ["dpo", "dpo-long", "ipo", "slic"] {
            let names = [format!("{loss}-online"), format!("{loss}-offline")];
            for (i, name) in names.iter().enumerate() {
                let Some(trained) = cells.get(name.as_str()) else { continue };
                out[name] = against_the_start(trained);
                if loss != "dpo-long" {
                    let series = Series::band(name.replace('-', ", "), curve(trained));
                    losses = losses.series(if i == 0 { series } else { series.dashed() });
                }
            }
            let [Some(online), Some(offline)] = [&names[0], &names[1]].map(|name| cells.get(name.as_str()))
            else {
                continue;
            };
            let [oracle, judge] = self.versus(loss, online, offline)?;
            let all = Tally::of(&oracle.concat());
            let share = |n: usize| n as f64 / (all.wins + all.ties + all.losses) as f64;
            let rates = [&oracle, &judge].map(|games| estimate(games, rate));
            out[format!("{loss}-online-against-offline")] = json!({
                "wins": share(all.wins), "ties": share(all.ties), "losses": share(all.losses),
                "oracle_win_rate": number(rates[0]), "judge_win_rate": number(rates[1]),
            });
            bars = bars.group(loss, rates);
            let start = |trained| (win_rate(trained), Unit::Share).into();
            let shares =
                [all.wins, all.ties, all.losses].map(|n| (Estimate::from(share(n)), Unit::Share).into());
            table = table.row([loss.into(), start(online), start(offline)].into_iter().chain(shares));
        }
        if let Some(trained) = cells.get("dpo-passes-offline") {
            out["dpo-passes-offline"] = against_the_start(trained);
        }
        page.add("1-online-offline", "1. Online and offline", out, long.svg(), |section| {
            section.plot(long).plot(losses).bars(bars).table(table)
        })
    }

    /// Experiments 2 and 3.
    fn judges(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let mut bars = Bars::new("Judges by their size").unit(Unit::Share).level(0.5);
        bars = bars.kinds(["agreement with the oracle", "win rate of the policy"]);
        let mut out = json!({"policy_parameters": 263_000});
        for (label, name) in [
            ("small, 47 k", "judge-small"),
            ("medium, 263 k", "judge-medium"),
            ("large, 872 k", "dpo-online"),
        ] {
            let (Some(trained), Some(way)) =
                (cells.get(name), ways().into_iter().find(|way| way.name == name))
            else {
                continue;
            };
            let agreement = self.agreement(way)?;
            out[way.judge.to_string()] = against_the_start(trained);
            out[way.judge.to_string()]["agreement"] = number(agreement);
            bars = bars.group(label, [agreement, win_rate(trained)]);
        }
        page.add(
            "2-judges",
            "2 and 3. Larger judges, and one weaker than the policy",
            out,
            bars.svg(),
            |section| {
                section
                    .text("The policy has 263 thousand parameters: the small judge is weaker than it.")
                    .bars(bars)
            },
        )
    }

    /// Experiment 4.
    fn instructions(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let mut words = Bars::new("Length by the instruction").label("words, mean");
        let mut rates = Bars::new("Win rate under the instruction").unit(Unit::Share).level(0.5);
        let mut table = Table::new(["instruction", "words", "right facts", "invented facts", "win rate"]);
        let mut out = json!({});
        for name in ["dpo-online", "short", "very-short"] {
            let Some(trained) = cells.get(name) else { continue };
            let way = ways().into_iter().find(|way| way.name == name).expect("a way");
            let of = |value: fn(&Stage) -> Vec<f64>| estimate(&finals(trained, value), mean);
            let (length, right) = (of(|s| s.words.clone()), of(|s| s.right.clone()));
            let invented = of(|s| s.invented.clone());
            let label = way.instruction.text();
            out[label] = against_the_start(trained);
            out[label]["right"] = number(right);
            out[label]["invented"] = number(invented);
            words = words.group(label, [length]);
            rates = rates.group(label, [win_rate(trained)]);
            let plain = |e: Estimate| (e, Unit::Plain).into();
            let cells = [label.into(), plain(length), plain(right), plain(invented)];
            table = table.row(cells.into_iter().chain([(win_rate(trained), Unit::Share).into()]));
        }
        page.add("4-instructions", "4. Control by the instruction alone", out, words.svg(), |section| {
            section.bars(words).bars(rates).table(table)
        })
    }

    /// Experiment 5.
    fn lengths(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let mut bars = Bars::new("Win rate by the difference in length").unit(Unit::Share).level(0.5);
        let mut out = json!({});
        if let Some(trained) = cells.get("dpo-online") {
            // Comparisons as (words more than π₀'s summary, preference), paired so that the bootstrap resamples them
            // together.
            let longer = |t: &Trained| -> Vec<f64> {
                t.last().words.iter().zip(&t.stages[0].words).map(|(after, before)| after - before).collect()
            };
            let lengths: Vec<Vec<f64>> = trained.iter().map(longer).collect();
            let games = finals(trained, |s| s.oracle.clone());
            let paired: Vec<Vec<(f64, f64)>> = lengths
                .iter()
                .zip(&games)
                .map(|(lengths, games)| lengths.iter().copied().zip(games.iter().copied()).collect())
                .collect();
            let buckets: [(&str, Bucket); 3] = [
                ("shorter", |longer| longer < 0.0),
                ("as long", |longer| longer == 0.0),
                ("longer", |longer| longer > 0.0),
            ];
            for (name, within) in buckets {
                let inside = |games: &[(f64, f64)]| {
                    rate(
                        &games
                            .iter()
                            .filter(|(longer, _)| within(*longer))
                            .map(|(_, gap)| *gap)
                            .collect::<Vec<_>>(),
                    )
                };
                let games = paired.iter().flatten().filter(|(longer, _)| within(*longer)).count();
                let estimate = estimate(&paired, inside);
                out[name] = json!({"games": games, "oracle_win_rate": number(estimate)});
                bars = bars.group(format!("{name} ({games})"), [estimate]);
            }
            let controlled = estimate(&paired, at_equal_length);
            out["length_controlled"] = number(controlled);
            bars = bars.group("length-controlled", [controlled]);
        }
        page.add("5-length", "5. Not only length", out, bars.svg(), |section| {
            section
                .text("Length-controlled: a logistic regression of the oracle's preference on the difference in words, evaluated at 0.")
                .bars(bars)
        })
    }

    /// Experiment 7: the paper's four-way comparison; all four summaries of each post are compared.
    fn four_ways(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let ways = [
            ("online DPO (OAIF)", "dpo-online"),
            ("offline DPO", "dpo-offline"),
            ("RLAIF", "rlaif"),
            ("RLHF", "rlhf"),
        ];
        let trained: Option<Vec<&Vec<Trained>>> = ways.iter().map(|(_, name)| cells.get(name)).collect();
        let mut bars =
            Bars::new("Best of four summaries of a post, by the oracle").unit(Unit::Share).level(0.25);
        let mut table = Table::new(["", "best of four", "win rate against π₀", "utility gained", "words"]);
        let mut out = json!({});
        if let Some(trained) = trained {
            let gains = |t: &Vec<Trained>| finals(t, |stage| stage.oracle.clone());
            // For each seed and post, the four utilities, which the bootstrap resamples together.
            let games: Vec<Vec<[f64; 4]>> = (0..trained[0].len())
                .map(|seed| {
                    let of: Vec<Vec<f64>> = trained.iter().map(|t| gains(t)[seed].clone()).collect();
                    (0..of[0].len()).map(|post| [0, 1, 2, 3].map(|way| of[way][post])).collect()
                })
                .collect();
            for (i, ((label, name), trained)) in ways.iter().zip(&trained).enumerate() {
                let best = estimate(&games, |games| best_of(games)[i]);
                let gain = estimate(&gains(trained), mean);
                let words = estimate(&finals(trained, |stage| stage.words.clone()), mean);
                out[*name] = against_the_start(trained);
                out[*name]["best_of_four"] = number(best);
                bars = bars.group(*label, [best]);
                table = table.row([
                    (*label).into(),
                    (best, Unit::Share).into(),
                    (win_rate(trained), Unit::Share).into(),
                    (gain, Unit::Plain).into(),
                    (words, Unit::Plain).into(),
                ]);
            }
        }
        page.add("7-four-ways", "7. Online feedback, RLAIF and RLHF", out, bars.svg(), |section| {
            section
                .text("RLAIF and RLHF: RLOO with four samples per post on the scores of a frozen reward model, which was fitted to the same number of pairs of π₀'s summaries, labelled by the judge or by a person who errs in one pair of ten.")
                .bars(bars)
                .table(table)
        })
    }

    /// Experiment 6.
    fn variants(&self, cells: &Cells, page: &mut Page) -> Result<()> {
        let mut bars = Bars::new("Variants")
            .unit(Unit::Share)
            .level(0.5)
            .kinds(["by the oracle", "by the evaluation judge"]);
        let mut out = json!({});
        for (label, name) in [
            ("as in the paper", "dpo-online"),
            ("soft labels", "soft"),
            ("best of 4", "best-of-4"),
            ("prompted, both orders", "prompted-both"),
            ("prompted, one order", "prompted-one"),
        ] {
            let Some(trained) = cells.get(name) else { continue };
            out[label] = against_the_start(trained);
            if let Some(way) =
                ways().into_iter().find(|way| way.name == name && way.kind == JudgeKind::Prompted)
            {
                out[label]["agreement"] = number(self.agreement(way)?);
            }
            bars =
                bars.group(label, [win_rate(trained), estimate(&finals(trained, |s| s.judge.clone()), rate)]);
        }
        page.add("6-variants", "6. Soft labels, best of 4, one order", out, bars.svg(), |section| {
            section.bars(bars)
        })
    }
}

/// The loss of this name. IPO's usual β of 1 aims at a log-ratio gap of only half a nat, too small to see in short
/// runs.
fn preference_loss(name: &str) -> Result<PreferenceLoss> {
    PreferenceLoss::parse(name, (name == "ipo").then_some(0.1), false)
}

/// How often each of four has the highest utility; ties share the first place in equal parts.
fn best_of(games: &[[f64; 4]]) -> [f64; 4] {
    let mut firsts = [0.0; 4];
    for utilities in games {
        let most = utilities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = utilities.map(|utility| utility == most);
        let shared = best.iter().filter(|best| **best).count();
        firsts
            .iter_mut()
            .zip(best)
            .filter(|(_, best)| *best)
            .for_each(|(first, _)| *first += 1.0 / shared as f64);
    }
    firsts.map(|first| first / games.len() as f64)
}

/// The outputs of the experiments.
struct Page<'a> {
    folder: &'a Path,
    results: Value,
    report: Report,
}

impl Page<'_> {
    /// Adds an experiment; one without finished runs gets no plot.
    fn add(
        &mut self,
        name: &str,
        title: &str,
        results: Value,
        svg: String,
        fill: impl FnOnce(Section) -> Section,
    ) -> Result<()> {
        let section = fill(Section::new(title));
        self.picture(name, !section.is_empty(), svg)?;
        self.report.add(section);
        self.results[name] = results;
        Ok(())
    }

    fn picture(&self, name: &str, is_there: bool, svg: String) -> Result<()> {
        let path = self.folder.join(format!("{name}.svg"));
        if is_there { files::write_atomic(&path, svg.as_bytes()) } else { Ok(()) }
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    files::create_dir_all(path.parent().expect("a file in a folder"))?;
    let text = serde_json::to_string_pretty(value).expect("JSON of plain values");
    files::write_atomic(path, format!("{text}\n").as_bytes())
}

fn preference(outcome: &PairOutcome) -> Option<bool> {
    match outcome.verdict() {
        Verdict::First { .. } => Some(true),
        Verdict::Second { .. } => Some(false),
        Verdict::Tie | Verdict::Invalid { .. } => None,
    }
}

/// Two samples of π₀ for each post, with the judge's preference; pairs without a preference are left out.
fn offline_pairs(
    policy: &Policy,
    posts: &[String],
    judge: &mut dyn Judge,
    seed: u32,
) -> Result<Vec<rows::Pair>> {
    let samples = summarise(policy, posts, 2, seed).wait()?;
    let pairs: Vec<Pair> = posts
        .iter()
        .zip(&samples)
        .map(|(prompt, samples)| Pair { prompt, response_1: &samples[0], response_2: &samples[1] })
        .collect();
    let plain = |text: &str| Text::Plain(text.to_owned());
    let labelled = pairs.iter().zip(judge_pairs(judge, &pairs).wait()?).enumerate();
    let row = |(line, (pair, outcome)): (usize, (&Pair, PairOutcome))| {
        let (chosen, rejected) = match preference(&outcome)? {
            true => (pair.response_1, pair.response_2),
            false => (pair.response_2, pair.response_1),
        };
        let usable = !chosen.is_empty() && !rejected.is_empty();
        let [prompt, chosen, rejected] = [pair.prompt, chosen, rejected].map(plain);
        usable.then_some(rows::Pair { prompt, chosen, rejected, margin: None, place: (line + 1).into() })
    };
    Ok(labelled.filter_map(row).collect())
}

/// The win rate without ties; NaN if all are ties.
fn rate(games: &[f64]) -> f64 {
    Tally::of(games).win_rate().value
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A value of the last checkpoint, one list per seed.
fn finals(trained: &[Trained], of: fn(&Stage) -> Vec<f64>) -> Vec<Vec<f64>> {
    trained.iter().map(|t| of(t.last())).collect()
}

fn win_rate(trained: &[Trained]) -> Estimate {
    estimate(&finals(trained, |s| s.oracle.clone()), rate)
}

fn curve(trained: &[Trained]) -> Vec<(f64, Estimate)> {
    let stages = trained.iter().map(|t| t.stages.len()).min().unwrap_or(0);
    let at = |i: usize| {
        let games: Vec<Vec<f64>> = trained.iter().map(|t| t.stages[i].oracle.clone()).collect();
        (trained[0].stages[i].step as f64, estimate(&games, rate))
    };
    (1..stages).map(at).collect()
}

/// The results of trained policies against π₀.
fn against_the_start(trained: &[Trained]) -> Value {
    let all = Tally::of(&finals(trained, |s| s.oracle.clone()).concat());
    let curve: Vec<Value> = curve(trained).into_iter().map(|(step, e)| json!([step, number(e)])).collect();
    json!({
        "oracle_win_rate": number(win_rate(trained)),
        "judge_win_rate": number(estimate(&finals(trained, |s| s.judge.clone()), rate)),
        "wins": all.wins, "ties": all.ties, "losses": all.losses,
        "utility_gain": number(estimate(&finals(trained, |s| s.oracle.clone()), mean)),
        "words": number(estimate(&finals(trained, |s| s.words.clone()), mean)),
        "curve": curve,
    })
}

fn number(e: Estimate) -> Value {
    let round = |value: f64| json!(value.is_finite().then_some((value * 1e4).round() / 1e4));
    json!({"value": round(e.value), "low": round(e.low), "high": round(e.high)})
}

/// Number of bootstrap resamples.
const RESAMPLES: u32 = 1000;

/// A statistic over all seeds' posts with its 95 % interval: the bootstrap resamples seeds and posts.
fn estimate<T: Copy>(seeds: &[Vec<T>], statistic: impl Fn(&[T]) -> f64) -> Estimate {
    let value = statistic(&seeds.concat());
    let posts = seeds.first().map_or(0, Vec::len);
    let resample = |i: u32| {
        let mut draw = Draw::new(2402, i);
        let drawn: Vec<usize> = (0..posts).map(|_| draw.below(posts)).collect();
        let seeds: Vec<&Vec<T>> = seeds.iter().map(|_| &seeds[draw.below(seeds.len())]).collect();
        statistic(&seeds.iter().flat_map(|seed| drawn.iter().map(|post| seed[*post])).collect::<Vec<T>>())
    };
    let mut values: Vec<f64> = (0..RESAMPLES).map(resample).filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values.get((q * (values.len().saturating_sub(1)) as f64).round() as usize).copied();
    Estimate::new(value, at(0.025).unwrap_or(f64::NAN), at(0.975).unwrap_or(f64::NAN))
}

/// The probability of a win at equal length: a logistic regression on the difference in words, solved by Newton's
/// method with a small ridge penalty, which keeps the solution finite for separable data.
fn at_equal_length(games: &[(f64, f64)]) -> f64 {
    let (mut constant, mut slope) = (0.0, 0.0);
    for _ in 0..12 {
        let (mut gradient, mut hessian) = ([-1e-3 * constant, -1e-3 * slope], [1e-3, 0.0, 1e-3]);
        for (longer, gap) in games.iter().filter(|(_, gap)| *gap != 0.0) {
            let p = 1.0 / (1.0 + (-(constant + slope * longer)).exp());
            let error = f64::from(*gap > 0.0) - p;
            gradient[0] += error;
            gradient[1] += error * longer;
            let weight = p * (1.0 - p);
            hessian[0] += weight;
            hessian[1] += weight * longer;
            hessian[2] += weight * longer * longer;
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        constant += (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant;
        slope += (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant;
    }
    1.0 / (1.0 + (-constant).exp())
}
