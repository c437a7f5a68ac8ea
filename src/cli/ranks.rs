//! Distributed training with several processes: over MPI if an MPI launcher started this process, or over TCP with the
//! environment variables of torchrun. Only rank 0 prints.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Wait;
use crate::cli::args::{AlignPlan, DpoPlan, RewardPlan, SftPlan, TrainPlan};
use crate::cli::console;
use crate::collective::{Ranks, TcpPlace, TcpRanks};
use crate::error::{Error, Result};
use crate::gpu::list_gpus;
use crate::judge::config::JudgeConfig;

/// The ranks of this program, once they are connected.
static RANKS: Mutex<Option<Ranks>> = Mutex::new(None);

fn connected() -> MutexGuard<'static, Option<Ranks>> {
    RANKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ranks of this run; a single one without a launcher.
pub fn ranks() -> Ranks {
    connected().clone().unwrap_or_default()
}

/// Whether this process prints nothing, because it is not rank 0.
pub fn is_silent() -> bool {
    connected().as_ref().is_some_and(|ranks| !ranks.leads())
}

/// Commands that can run in several processes.
const SHARED: [&str; 5] = ["align", "sft", "dpo", "reward", "doctor"];

/// Connects to the other ranks, if any, for a command of this name.
pub fn meet(command: &str) -> Result<()> {
    let found = found(SHARED.contains(&command))?;
    *connected() = found;
    Ok(())
}

#[cfg(feature = "mpi")]
fn found(shared: bool) -> Result<Option<Ranks>> {
    match crate::collective::MpiRanks::begin(crate::collective::SILENCE)? {
        Some(mpi) => Ok(Some(Ranks::new(std::sync::Arc::new(mpi)))),
        None => by_tcp(shared),
    }
}

#[cfg(not(feature = "mpi"))]
fn found(shared: bool) -> Result<Option<Ranks>> {
    match crate::collective::launched_by_mpi() {
        Some(size) if size > 1 => {
            let why = format!(
                "started {size} processes, but this oaif was built without MPI: build it with `cargo build --release --features mpi`"
            );
            Err(Error::config("mpirun", why))
        }
        _ => by_tcp(shared),
    }
}

/// The ranks of the environment variables. They are ignored for commands of one process, as they may be meant for another
/// program.
fn by_tcp(shared: bool) -> Result<Option<Ranks>> {
    if !shared {
        return Ok(None);
    }
    match TcpPlace::from_env()? {
        Some(place) => Ok(Some(Ranks::new(std::sync::Arc::new(TcpRanks::connect(&place)?)))),
        None => Ok(None),
    }
}

/// The error to exit with, agreed on by all ranks, see [`Ranks::settle`].
pub fn settle(error: Error) -> Error {
    let ranks = ranks();
    let say = |why: &str| console::fail_of_rank(ranks.rank(), why);
    ranks.settle(error, say).wait()
}

/// Waits until every rank is done: a launcher kills the other ranks when one exits with an error.
pub fn part() {
    let ranks = connected().take();
    drop(ranks);
}

/// A command that trains.
pub trait Trains: Sized {
    fn train(&mut self) -> &mut TrainPlan;

    /// The judge, if the command has one.
    fn judge(&self) -> Option<&JudgeConfig> {
        None
    }

    /// Joins the other ranks: sets this rank's GPU and options.
    fn join(mut self) -> Result<Self> {
        let ranks = ranks();
        if !ranks.is_alone() && self.judge().is_some_and(|judge| judge.desk().is_some()) {
            let why =
                "works only with a single process: start oaif without a launcher, or use another --judge";
            return Err(Error::config("--judge human", why));
        }
        let plan = self.train();
        if plan.dry_run {
            plan.options.ranks = ranks;
            return Ok(self);
        }
        if !ranks.is_alone() {
            plan.gpu.choose_for(&ranks, &list_gpus().wait());
        }
        if !ranks.leads() {
            (plan.report, plan.trace) = (false, None);
            #[cfg(feature = "ui")]
            {
                plan.ui = None;
            }
        }
        let joined = plan.options.clone().join(ranks).wait()?;
        plan.options = joined.options;
        plan.rank_folder = joined.folder;
        Ok(self)
    }
}

impl Trains for AlignPlan {
    fn train(&mut self) -> &mut TrainPlan {
        &mut self.train
    }

    fn judge(&self) -> Option<&JudgeConfig> {
        Some(&self.judge)
    }
}

impl Trains for SftPlan {
    fn train(&mut self) -> &mut TrainPlan {
        &mut self.train
    }
}

impl Trains for DpoPlan {
    fn train(&mut self) -> &mut TrainPlan {
        &mut self.train
    }
}

impl Trains for RewardPlan {
    fn train(&mut self) -> &mut TrainPlan {
        &mut self.train
    }
}

/// Refuses several processes for a command that runs in one process.
pub fn check(command: &str) -> Result<()> {
    let ranks = ranks();
    if SHARED.contains(&command) || ranks.is_alone() {
        return Ok(());
    }
    let why = format!("are {}: only {} can run in several processes", ranks.size(), SHARED.join(", "));
    Err(ranks.found_by_all(Error::config("processes", why)))
}
