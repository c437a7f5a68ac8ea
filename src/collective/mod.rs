//! Processes that train one model together: what they send to each other.
//!
//! Bytes only. Whoever adds numbers up does so itself, in the ranks' order, so that every rank has the same sum.
//! [`Alone`] is one process, `MpiRanks` (feature `mpi`) are those that an MPI launcher started, [`TcpRanks`] need no MPI.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(not(target_arch = "wasm32"))]
mod queue;
mod ranks;
mod sum;
#[cfg(not(target_arch = "wasm32"))]
mod tcp;

use std::time::Duration;

use crate::error::Result;
use crate::task::Task;

#[cfg(feature = "mpi")]
pub use mpi::MpiRanks;
pub use ranks::{Exchanged, Ranks};
pub(crate) use ranks::{Exchanging, part_of};
pub use sum::SumDtype;
#[cfg(not(target_arch = "wasm32"))]
pub use tcp::{TcpPlace, TcpRanks};

/// Moves bytes between the processes, called ranks, that train one model together.
///
/// Every rank makes the same calls in the same order. An operation begins with the call, not with the first poll of its
/// future, and goes on while the caller does something else, or drops the future. Where a rank is lost, pending and later
/// operations give [`Error::Ranks`](crate::Error::Ranks); the process can then only end.
///
/// Dropped, it waits until every rank has dropped its own: a rank that ends early makes the others' next operation fail.
pub trait Collective: Send + Sync {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// This rank's number among those on the same machine, and how many these are.
    fn local(&self) -> (usize, usize);

    /// Everyone's bytes, in the ranks' order.
    fn all_gather(&self, mine: Vec<u8>) -> Task<'_, Result<Vec<Vec<u8>>>>;

    /// Sends part i to rank i; what each rank sent to this one, in the ranks' order.
    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Task<'_, Result<Vec<Vec<u8>>>>;

    /// Rank 0's bytes. What other ranks give is ignored.
    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>>;

    /// Waits until every rank is here.
    fn barrier(&self) -> Task<'_, Result<()>> {
        let everyone = self.all_gather(Vec::new());
        Box::pin(async { everyone.await.map(|_| ()) })
    }

    /// Ends this process with exit code 1, and every other rank's soon, after this one failed.
    fn abort(&self) -> !;
}

/// How long nothing may be heard of a rank before it is given up.
pub const SILENCE: Duration = Duration::from_secs(30);

/// How many processes an MPI launcher started, this one among them; `None` where none started it.
pub fn launched_by_mpi() -> Option<usize> {
    let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];
    sizes.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// By which a program knows that it is a rank.
#[cfg(not(target_arch = "wasm32"))]
const TOLD_BY: [&str; 8] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
];

/// Makes a program that a rank starts none itself.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn is_no_rank(program: &mut std::process::Command) {
    for name in TOLD_BY {
        program.env_remove(name);
    }
}

/// One process that trains alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> (usize, usize) {
        (0, 1)
    }

    fn all_gather(&self, mine: Vec<u8>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        Box::pin(std::future::ready(Ok(vec![mine])))
    }

    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        assert_eq!(parts.len(), 1, "one part a rank");
        Box::pin(std::future::ready(Ok(parts)))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        Box::pin(std::future::ready(Ok(bytes)))
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}
