//! Several processes that train one model together: by MPI, where an MPI launcher started this one, or over TCP, where the
//! environment says what torchrun's would. Rank 0 alone talks to the user.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Wait;
use crate::cli::args::{AlignPlan, DpoPlan, RewardPlan, SftPlan, TrainPlan};
use crate::collective::{Ranks, TcpPlace, TcpRanks};
use crate::error::{Error, Result};
use crate::gpu::list_gpus;
use crate::judge::config::JudgeConfig;

/// All ranks of this program, once they have met.
static RANKS: Mutex<Option<Ranks>> = Mutex::new(None);

fn met() -> MutexGuard<'static, Option<Ranks>> {
    RANKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ranks that this process is one of; one alone where nothing else started it.
pub fn ranks() -> Ranks {
    met().clone().unwrap_or_default()
}

/// Whether it is another rank that talks to the user.
pub fn is_silent() -> bool {
    met().as_ref().is_some_and(|ranks| !ranks.leads())
}

/// Commands that several processes can run.
const SHARED: [&str; 5] = ["align", "sft", "dpo", "reward", "doctor"];

/// Meets the other ranks, where there are any, for a command of this name.
pub fn meet(command: &str) -> Result<()> {
    let found = found(SHARED.contains(&command))?;
    *met() = found;
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
                "started {size} processes, but this oaif is built without MPI: build it with `cargo build --release --features mpi`"
            );
            Err(Error::config("mpirun", why))
        }
        _ => by_tcp(shared),
    }
}

/// The environment may be meant for another program that this one is started beside: it is heeded where it makes sense.
fn by_tcp(shared: bool) -> Result<Option<Ranks>> {
    if !shared {
        return Ok(None);
    }
    match TcpPlace::from_env()? {
        Some(place) => Ok(Some(Ranks::new(std::sync::Arc::new(TcpRanks::connect(&place)?)))),
        None => Ok(None),
    }
}

/// What this process ends by, after an error, see [`Ranks::settle`].
pub fn settle(error: Error) -> Error {
    let ranks = ranks();
    let say = |why: &str| match ranks.leads() {
        true => eprintln!("oaif: {why}"),
        false => eprintln!("oaif: rank {}: {why}", ranks.rank()),
    };
    ranks.settle(error, say).wait()
}

/// Waits until every rank has come to its end: a launcher ends those that are not there yet when one fails.
pub fn part() {
    let ranks = met().take();
    drop(ranks);
}

/// A command that trains.
pub trait Trains: Sized {
    fn train(&mut self) -> &mut TrainPlan;

    /// Who says which answer is better, if somebody does.
    fn judge(&self) -> Option<&JudgeConfig> {
        None
    }

    /// With this rank's part in it.
    fn join(mut self) -> Result<Self> {
        let ranks = ranks();
        if !ranks.is_alone() && self.judge().is_some_and(|judge| judge.desk().is_some()) {
            let why = "asks one person, who sits at one machine: start one process";
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

/// Refuses several processes for a command that is the work of one.
pub fn check(command: &str) -> Result<()> {
    let ranks = ranks();
    if SHARED.contains(&command) || ranks.is_alone() {
        return Ok(());
    }
    let why = format!("are {}: only {} run as several", ranks.size(), SHARED.join(", "));
    Err(ranks.found_by_all(Error::config("processes", why)))
}
