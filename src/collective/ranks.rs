//! The group of processes that train one model together.
//!
//! Every rank runs the same program on the same rows and holds the same weights, optimiser state and reports. Only the
//! work is divided: each rank takes its part ([`Ranks::part`]) of a list, such as the prompts or pairs of a step, and
//! the results of all parts are concatenated on every rank in the order of the list ([`Ranks::join`]). Everything after
//! that is computed from the whole list on every rank, so that one rank computes what n ranks compute. Gradients are
//! the exception: they are summed over the ranks, see `sum.rs`.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use web_time::Instant;

use super::{Alone, Collective};
use crate::error::{Error, Result};
use crate::task::{Task, unless};

/// How long a rank tries to report its error to the others, which may be computing or writing files.
const REPORT_TIME: Duration = Duration::from_secs(600);
/// How long the other ranks wait so that rank 0 is the first to report a lost rank.
const LEAD: Duration = Duration::from_secs(3);

/// The group of ranks; a single one by default.
#[derive(Clone)]
pub struct Ranks {
    collective: Arc<dyn Collective>,
    /// Whether all ranks know that one of them failed.
    failed: Arc<AtomicBool>,
    exchanged: Arc<Mutex<Exchanged>>,
    /// Whether a transfer in several parts is under way.
    exchanging: Arc<AtomicBool>,
}

/// Marks a transfer in several parts. Until it is done, an error cannot be reported to the other ranks, because they
/// wait for the next part.
#[must_use]
pub(crate) struct Exchanging(Arc<AtomicBool>);

impl Exchanging {
    /// All parts have been transferred.
    pub fn done(self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The amount of communication with the other ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// Wall-clock time spent in it, in milliseconds; most of it is waiting for other ranks.
    pub milliseconds: f64,
    /// Bytes sent to the other ranks.
    pub bytes: u64,
}

impl Default for Ranks {
    fn default() -> Ranks {
        Ranks::new(Arc::new(Alone))
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

/// The first byte of a message: a result follows, or the text of an error.
const MADE: u8 = 0;
const FAILED: u8 = 1;

impl Ranks {
    /// The ranks connected by `collective`.
    pub fn new(collective: Arc<dyn Collective>) -> Ranks {
        Ranks { collective, failed: Arc::default(), exchanged: Arc::default(), exchanging: Arc::default() }
    }

    /// This process's rank, from 0.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// This rank's index among the ranks on the same machine.
    pub fn local(&self) -> usize {
        self.collective.local().0
    }

    /// Whether there is only one rank.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is rank 0, which writes files and prints messages.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Starts a transfer in several parts.
    pub(crate) fn exchanging(&self) -> Exchanging {
        self.exchanging.store(true, Ordering::Relaxed);
        Exchanging(self.exchanging.clone())
    }

    /// Returns the amount of communication since the last call, and resets it.
    pub fn take_exchanged(&self) -> Exchanged {
        std::mem::take(&mut *self.exchanged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the bytes of every rank, in the order of the ranks.
    pub(super) async fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let bytes = mine.len() * (self.size() - 1);
        self.counted(bytes, self.collective.all_gather(mine)).await
    }

    /// Sends part i to rank i. Returns what each rank sent to this one.
    pub(super) async fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let bytes = parts.iter().map(Vec::len).sum::<usize>() - parts[self.rank()].len();
        self.counted(bytes, self.collective.all_to_all(parts)).await
    }

    /// Returns the bytes of rank 0.
    pub(crate) async fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let sent = if self.leads() { bytes.len() * (self.size() - 1) } else { 0 };
        self.counted(sent, self.collective.broadcast(bytes)).await
    }

    async fn counted<T>(&self, bytes: usize, exchange: Task<'_, Result<T>>) -> Result<T> {
        let started = Instant::now();
        let came = exchange.await;
        let mut exchanged = self.exchanged.lock().unwrap_or_else(PoisonError::into_inner);
        exchanged.milliseconds += started.elapsed().as_secs_f64() * 1e3;
        exchanged.bytes += bytes as u64;
        came
    }

    /// The range of a list of `len` items that belongs to this rank. The sizes of the ranges differ by at most one.
    pub fn part(&self, len: usize) -> Range<usize> {
        part_of(len, self.rank(), self.size())
    }

    /// The part of `all` that belongs to this rank.
    pub fn mine<'t, T>(&self, all: &'t [T]) -> &'t [T] {
        &all[self.part(all.len())]
    }

    /// Returns the results of every rank, in the order of the ranks. If one rank failed, the call fails on all of them:
    /// on that rank with its own error, on the others with [`Error::OtherRank`].
    ///
    /// # Errors
    /// The error of the first failed rank; [`Error::Ranks`] if a rank cannot be reached.
    pub async fn gather<T: Serialize + DeserializeOwned>(&self, mine: Result<T>) -> Result<Vec<T>> {
        if self.is_alone() {
            return mine.map(|made| vec![made]);
        }
        let (message, error) = match mine {
            Ok(made) => {
                ([&[MADE], &rmp_serde::to_vec_named(&made).expect("plain values")[..]].concat(), None)
            }
            Err(error) => ([&[FAILED], error.to_string().as_bytes()].concat(), Some(error)),
        };
        let all = self.all_gather(message).await?;
        // Checked first, because a rank that failed may have sent its error in place of a value of another type.
        if let Some(rank) = all.iter().position(|message| message.first() == Some(&FAILED)) {
            self.failed.store(true, Ordering::Relaxed);
            let why = String::from_utf8_lossy(&all[rank][1..]).into_owned();
            return Err(match error {
                Some(error) if rank == self.rank() => error,
                _ => Error::OtherRank { rank, why },
            });
        }
        let mut made = Vec::with_capacity(all.len());
        for (rank, message) in all.iter().enumerate() {
            made.push(rmp_serde::from_slice(message.get(1..).unwrap_or_default()).map_err(|why| {
                Error::Ranks(format!("rank {} cannot decode the message of rank {rank} ({why})", self.rank()))
            })?);
        }
        Ok(made)
    }

    /// Concatenates the parts of a list that the ranks computed.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn join<T: Serialize + DeserializeOwned>(&self, mine: Result<Vec<T>>) -> Result<Vec<T>> {
        if self.is_alone() {
            return mine;
        }
        Ok(self.gather(mine).await?.into_iter().flatten().collect())
    }

    /// Returns the value that rank 0 computed.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn lead<T: Serialize + DeserializeOwned>(&self, made: Result<T>) -> Result<T> {
        if self.is_alone() {
            return made;
        }
        let mine = made.map(|made| if self.leads() { vec![made] } else { Vec::new() });
        Ok(self.join(mine).await?.pop().expect("rank 0 has a value"))
    }

    /// Whether `here` is true on at least one rank.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn any(&self, here: bool) -> Result<bool> {
        Ok(self.gather(Ok(here)).await?.contains(&true))
    }

    /// An error that occurs on all ranks: rank 0 reports it.
    pub fn found_by_all(&self, error: Error) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        match self.leads() {
            true => error,
            false => Error::OtherRank { rank: 0, why: error.to_string() },
        }
    }

    /// Returns the error that this process exits with after `error`. Reports the error to the other ranks, if they do
    /// not know it yet, so that they exit too. If they are inside another transfer or cannot be reached, calls `say`
    /// with the message and aborts all ranks.
    pub async fn settle(&self, error: Error, say: impl FnOnce(&str)) -> Error {
        if self.is_alone() || self.failed.load(Ordering::Relaxed) {
            return error;
        }
        let why = error.to_string();
        let lost = matches!(error, Error::Ranks(_));
        if lost && !self.leads() {
            futures_timer::Delay::new(LEAD).await;
        }
        // During a transfer in several parts, the other ranks cannot receive an error.
        if lost || self.exchanging.load(Ordering::Relaxed) {
            say(&why);
            self.collective.abort();
        }
        let late = futures_timer::Delay::new(REPORT_TIME);
        match unless(late, self.gather::<()>(Err(error))).await {
            Some(Err(reported)) if self.failed.load(Ordering::Relaxed) => reported,
            _ => {
                say(&why);
                self.collective.abort()
            }
        }
    }
}

/// The range of a list of `len` items that belongs to rank `rank` of `size`.
pub(crate) fn part_of(len: usize, rank: usize, size: usize) -> Range<usize> {
    rank * len / size..(rank + 1) * len / size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Wait;

    #[test]
    fn parts_cover_a_list_in_its_order_and_differ_by_one_at_most() {
        for size in 1..9 {
            for len in 0..40 {
                let parts: Vec<Range<usize>> = (0..size).map(|rank| part_of(len, rank, size)).collect();
                assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
                let lengths = parts.iter().map(Range::len);
                assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn a_single_rank_has_the_whole_list() {
        let ranks = Ranks::default();
        assert_eq!(ranks.part(7), 0..7);
        assert_eq!(ranks.join(Ok(vec![1, 2])).wait().unwrap(), [1, 2]);
        assert!(ranks.leads() && ranks.any(true).wait().unwrap());
        let error = ranks.gather::<()>(Err(Error::Interrupted)).wait().unwrap_err();
        assert!(matches!(error, Error::Interrupted));
    }
}
