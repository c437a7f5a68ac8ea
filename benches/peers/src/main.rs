//! Times the forward and backward pass of the same models in oaif and in its peers, alternating on the same GPU. See
//! README.md.

mod burn_engine;
mod case;
mod engine;
mod meganeura_engine;
mod ours;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde_json::json;

use burn_engine::Burn;
use case::Case;
use engine::{Engine, Result};
use meganeura_engine::Meganeura;
use ours::Ours;

#[derive(Parser)]
#[command(about = "Times forward and backward in oaif and in its peers, by turns on the same GPU")]
struct Args {
    /// Print one JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
    /// Timed runs of each engine; the medians are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Compare with this peer only.
    #[arg(long)]
    peer: Option<Peer>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Peer {
    Burn,
    Meganeura,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Burn => "burn",
            Peer::Meganeura => "meganeura",
        }
    }

    fn cases(self) -> [Case; 2] {
        match self {
            Peer::Burn => case::BATCHES,
            Peer::Meganeura => case::SINGLE,
        }
    }

    fn open(self, case: &Case) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Peer::Burn => Box::new(Burn::new(case)?),
            Peer::Meganeura => Box::new(Meganeura::new(case)?),
        })
    }
}

/// The largest relative difference of the losses.
const LOSS_TOLERANCE: f64 = 1e-3;
/// The largest relative difference of the norms of gradients.
const GRADIENT_TOLERANCE: f64 = 1e-2;
/// Untimed steps before the first run, for compiling and tuning.
const WARM_UP: usize = 3;
/// A run repeats its step for at least this long.
const RUN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<()> {
    if !args.json {
        println!("forward + backward, tokens/ms, medians of {} alternating runs", args.runs);
        println!("{:<32} {:<10} {:>8} {:>8} {:>7}", "shape", "peer", "ours", "peer's", "ratio");
    }
    for peer in [Peer::Burn, Peer::Meganeura] {
        if args.peer.is_none_or(|wanted| wanted == peer) {
            for case in peer.cases() {
                measure(args, peer, &case).map_err(|e| format!("{} at {}: {e}", peer.name(), case.name()))?;
            }
        }
    }
    Ok(())
}

/// Compares one shape and prints its line.
fn measure(args: &Args, peer: Peer, case: &Case) -> Result<()> {
    let (mut ours, mut theirs) = (Ours::new(case)?, peer.open(case)?);
    let gpu = same_gpu(&ours, &*theirs)?;
    let agreement = Agreement::of(&mut ours, &mut *theirs)?;
    for _ in 1..WARM_UP {
        ours.step()?;
        theirs.step()?;
    }
    let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
    for _ in 0..args.runs {
        our_runs.push(run(case, &mut ours)?);
        their_runs.push(run(case, &mut *theirs)?);
    }
    let (x, y) = (median(&our_runs), median(&their_runs));
    let (shape, name) = (case.name(), peer.name());
    if args.json {
        let line = json!({
            "shape": shape, "peer_name": name, "ours": x, "peer": y, "ratio": x / y, "unit": "tokens/ms",
            "runs": args.runs, "ours_runs": our_runs, "peer_runs": their_runs, "gpu": gpu,
            "loss_ours": agreement.losses[0], "loss_peer": agreement.losses[1],
            "gradient_norms_differ_by": agreement.gradients,
        });
        println!("{line}");
    } else {
        println!("{shape:<32} {name:<10} {x:>8.3} {y:>8.3} {:>7.2}", x / y);
    }
    Ok(())
}

/// Returns the GPU's name, which must be the same for both.
fn same_gpu(ours: &Ours, theirs: &dyn Engine) -> Result<String> {
    match (ours.gpu(), theirs.gpu()) {
        (a, b) if a == b => Ok(a),
        (a, b) => Err(format!("it runs on {b:?}, oaif on {a:?}: choose with OAIF_GPU").into()),
    }
}

/// The results of both engines for the first step.
struct Agreement {
    losses: [f64; 2],
    /// The largest relative difference of the norms of gradients.
    gradients: f64,
}

impl Agreement {
    /// Compares the first step of both: returns an error if losses or norms of gradients differ, or if a gradient is
    /// missing.
    fn of(ours: &mut Ours, theirs: &mut dyn Engine) -> Result<Agreement> {
        let losses = [ours.step()?, theirs.step()?];
        if differ(losses, LOSS_TOLERANCE) {
            let [a, b] = losses;
            return Err(format!("its loss is {b}, oaif's {a}: they do not compute the same").into());
        }
        let mut agreement = Agreement { losses, gradients: 0.0 };
        let norms = ours.gradient_norms()?.into_iter();
        let mut norms: HashMap<String, f64> = norms.map(|(names, norm)| (names.concat(), norm)).collect();
        for (names, b) in theirs.gradient_norms()? {
            let squares: Option<f64> = names.iter().map(|n| norms.remove(n).map(|a| a * a)).sum();
            let (name, a) =
                (names.join(" and "), squares.ok_or("it has a gradient of an unknown weight")?.sqrt());
            if differ([a, b], GRADIENT_TOLERANCE) {
                return Err(format!("the norm of its gradient of {name} is {b}, oaif's {a}").into());
            }
            agreement.gradients = agreement.gradients.max((a - b).abs() / a);
        }
        match norms.keys().next() {
            Some(name) => Err(format!("it has no gradient of {name}: the work is not the same").into()),
            None => Ok(agreement),
        }
    }
}

/// Whether two values differ by more than `tolerance` relative to the first, or are not numbers.
fn differ([a, b]: [f64; 2], tolerance: f64) -> bool {
    let close = (a - b).abs() <= tolerance * a.abs();
    !close
}

/// Tokens per millisecond.
fn run(case: &Case, engine: &mut dyn Engine) -> Result<f64> {
    let (start, mut steps) = (Instant::now(), 0);
    while steps == 0 || start.elapsed() < RUN {
        engine.step()?;
        steps += 1;
    }
    Ok((steps * case.tokens()) as f64 / start.elapsed().as_secs_f64() / 1e3)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
