//! The processes that train one model together, as one of them sees them.
//!
//! Every rank runs the same program on the same rows and holds the same weights, state and reports. Work alone is divided:
//! of a list, such as a step's prompts or pairs, each rank takes a part of its own ([`Ranks::part`]), and what came of the
//! parts is put together on all of them, in the list's order ([`Ranks::join`]). What follows is computed from the whole
//! list by each, so that one rank computes what n do. Gradients alone are sums of the ranks' own, see `sum.rs`.

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

/// How long an error waits to be told: others may be at work, or rank 0 may be writing.
const TELLING: Duration = Duration::from_secs(600);
/// How long the others leave it to rank 0 to tell of a rank that is lost.
const LEAD: Duration = Duration::from_secs(3);

/// All ranks; one alone by default.
#[derive(Clone)]
pub struct Ranks {
    collective: Arc<dyn Collective>,
    /// Whether all have heard that one failed.
    failed: Arc<AtomicBool>,
    exchanged: Arc<Mutex<Exchanged>>,
    /// Whether something is being exchanged in parts.
    exchanging: Arc<AtomicBool>,
}

/// Something that is exchanged in parts: an error before its end cannot be told to the others, who wait for the next part.
#[must_use]
pub(crate) struct Exchanging(Arc<AtomicBool>);

impl Exchanging {
    /// All parts have been exchanged.
    pub fn done(self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What was exchanged with the other ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exchanged {
    /// Time that it took, most of it waiting for others.
    pub milliseconds: f64,
    /// Bytes that were sent to them.
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

/// What a message begins with: what was made follows, or why nothing was, as text.
const MADE: u8 = 0;
const FAILED: u8 = 1;

impl Ranks {
    /// Those that `collective` joins.
    pub fn new(collective: Arc<dyn Collective>) -> Ranks {
        Ranks { collective, failed: Arc::default(), exchanged: Arc::default(), exchanging: Arc::default() }
    }

    /// This one's number, from 0.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// This one's number among those on the same machine.
    pub fn local(&self) -> usize {
        self.collective.local().0
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this is rank 0, which writes files and talks to the user.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Begins to exchange something in parts.
    pub(crate) fn exchanging(&self) -> Exchanging {
        self.exchanging.store(true, Ordering::Relaxed);
        Exchanging(self.exchanging.clone())
    }

    /// What was exchanged since the last call.
    pub fn take_exchanged(&self) -> Exchanged {
        std::mem::take(&mut *self.exchanged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everyone's bytes, in the ranks' order.
    pub(super) async fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let bytes = mine.len() * (self.size() - 1);
        self.counted(bytes, self.collective.all_gather(mine)).await
    }

    /// Sends part i to rank i; what each sent here.
    pub(super) async fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let bytes = parts.iter().map(Vec::len).sum::<usize>() - parts[self.rank()].len();
        self.counted(bytes, self.collective.all_to_all(parts)).await
    }

    /// Rank 0's bytes.
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

    /// This rank's part of a list of `len` things: parts of different ranks differ by one at most.
    pub fn part(&self, len: usize) -> Range<usize> {
        part_of(len, self.rank(), self.size())
    }

    /// This rank's part of `all`.
    pub fn mine<'t, T>(&self, all: &'t [T]) -> &'t [T] {
        &all[self.part(all.len())]
    }

    /// What every rank has made, in the ranks' order. Where one failed, all fail: that one by its error, the others by
    /// [`Error::OtherRank`].
    ///
    /// # Errors
    /// The first failed rank's; [`Error::Ranks`] where one cannot be reached.
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
        // First these: of what else was made, a rank that failed elsewhere knows nothing.
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
                Error::Ranks(format!("rank {rank} said what rank {} cannot read ({why})", self.rank()))
            })?);
        }
        Ok(made)
    }

    /// The whole list, of which each rank has made a part.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn join<T: Serialize + DeserializeOwned>(&self, mine: Result<Vec<T>>) -> Result<Vec<T>> {
        if self.is_alone() {
            return mine;
        }
        Ok(self.gather(mine).await?.into_iter().flatten().collect())
    }

    /// What rank 0 has made.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn lead<T: Serialize + DeserializeOwned>(&self, made: Result<T>) -> Result<T> {
        if self.is_alone() {
            return made;
        }
        let mine = made.map(|made| if self.leads() { vec![made] } else { Vec::new() });
        Ok(self.join(mine).await?.pop().expect("rank 0 has made it"))
    }

    /// Whether it holds on some rank.
    ///
    /// # Errors
    /// As [`Ranks::gather`].
    pub async fn any(&self, here: bool) -> Result<bool> {
        Ok(self.gather(Ok(here)).await?.contains(&true))
    }

    /// An error that all ranks have found alike: rank 0 tells it.
    pub fn found_by_all(&self, error: Error) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        match self.leads() {
            true => error,
            false => Error::OtherRank { rank: 0, why: error.to_string() },
        }
    }

    /// What this process ends by, after an error: tells the others, where they have not heard of it, and they end, too. Where
    /// they are within another exchange and cannot hear it, `say` tells the user, and all are ended.
    pub async fn settle(&self, error: Error, say: impl FnOnce(&str)) -> Error {
        if self.is_alone() || self.failed.load(Ordering::Relaxed) {
            return error;
        }
        let why = error.to_string();
        let lost = matches!(error, Error::Ranks(_));
        if lost && !self.leads() {
            futures_timer::Delay::new(LEAD).await;
        }
        // What is exchanged in parts leaves nobody who could hear.
        if lost || self.exchanging.load(Ordering::Relaxed) {
            say(&why);
            self.collective.abort();
        }
        let late = futures_timer::Delay::new(TELLING);
        match unless(late, self.gather::<()>(Err(error))).await {
            Some(Err(told)) if self.failed.load(Ordering::Relaxed) => told,
            _ => {
                say(&why);
                self.collective.abort()
            }
        }
    }
}

/// The part of rank `rank` of `size` of a list of `len` things.
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
    fn one_rank_alone_makes_it_all() {
        let ranks = Ranks::default();
        assert_eq!(ranks.part(7), 0..7);
        assert_eq!(ranks.join(Ok(vec![1, 2])).wait().unwrap(), [1, 2]);
        assert!(ranks.leads() && ranks.any(true).wait().unwrap());
        let error = ranks.gather::<()>(Err(Error::Interrupted)).wait().unwrap_err();
        assert!(matches!(error, Error::Interrupted));
    }
}
