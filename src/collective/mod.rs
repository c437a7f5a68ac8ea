//! Communication between the processes that train one model together.
//!
//! Only bytes are exchanged. Sums are computed by the callers, in the order of the ranks, so that every rank gets the
//! same bits. [`Alone`] is a single process, `MpiRanks` (feature `mpi`) are processes that an MPI launcher started, and
//! [`TcpRanks`] work without MPI.

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
/// Every rank makes the same calls in the same order. An operation starts at the call, not at the first poll of its
/// future, and continues if the caller does something else or drops the future. After a rank is lost, pending and later
/// operations return [`Error::Ranks`](crate::Error::Ranks), and the process can only exit.
///
/// Dropping it blocks until every rank has dropped its own. A rank that exits early makes the next operation of the
/// others fail.
pub trait Collective: Send + Sync {
    /// This process's rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// This rank's index among the ranks on the same machine, and their number.
    fn local(&self) -> (usize, usize);

    /// Returns the bytes of every rank, in the order of the ranks.
    fn all_gather(&self, mine: Vec<u8>) -> Task<'_, Result<Vec<Vec<u8>>>>;

    /// Sends part i to rank i. Returns what each rank sent to this one, in the order of the ranks.
    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Task<'_, Result<Vec<Vec<u8>>>>;

    /// Returns the bytes of rank 0. The bytes passed by other ranks are ignored.
    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>>;

    /// Waits until every rank has made this call.
    fn barrier(&self) -> Task<'_, Result<()>> {
        let everyone = self.all_gather(Vec::new());
        Box::pin(async { everyone.await.map(|_| ()) })
    }

    /// Exits this process with code 1 after a failure, and makes every other rank exit soon after.
    fn abort(&self) -> !;
}

/// A rank is considered lost after no message arrived from it for this long.
pub const SILENCE: Duration = Duration::from_secs(30);

/// The number of processes that the MPI launcher started, this one included; `None` without an MPI launcher.
pub fn launched_by_mpi() -> Option<usize> {
    let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];
    sizes.iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Environment variables from which a program concludes that it is a rank.
#[cfg(not(target_arch = "wasm32"))]
const RANK_VARIABLES: [&str; 8] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMIX_RANK",
    "PMI_RANK",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
];

/// Removes these variables from the environment of a program that a rank starts, so that the program is not a rank
/// itself.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn remove_rank_variables(program: &mut std::process::Command) {
    for name in RANK_VARIABLES {
        program.env_remove(name);
    }
}

/// A single process that trains alone.
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
        assert_eq!(parts.len(), 1, "one part per rank");
        Box::pin(std::future::ready(Ok(parts)))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        Box::pin(std::future::ready(Ok(bytes)))
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}
