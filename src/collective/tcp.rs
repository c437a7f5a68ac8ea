//! Ranks connected over TCP, for machines without MPI. Every rank is connected to every other.
//!
//! Rank 0 listens at the address that all ranks know, receives the address at which each of them listens, and sends the
//! list to all; then every pair connects. Each link has a reader thread and a writer thread, which also sends a
//! heartbeat about once a second. A frame consists of its kind (one byte), its length (8 bytes, little-endian) and its
//! bytes.

mod link;
mod meet;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::queue::{Job, Outcome, Queue, Work};
use super::{Collective, SILENCE};
use crate::error::{Error, Result};
use crate::task::Task;
use link::{Failure, Frame, Link};

/// The rank of this process, and the address of the others.
#[derive(Clone, Debug)]
pub struct TcpPlace {
    /// This process's rank, from 0.
    pub rank: usize,
    /// The number of ranks.
    pub size: usize,
    /// This rank's index among the ranks on the same machine, and their number; `None` to derive both from the
    /// addresses.
    pub local: Option<(usize, usize)>,
    /// The host name or address at which rank 0 listens.
    pub host: String,
    /// The port at which rank 0 listens.
    pub port: u16,
    /// How long the ranks wait for each other at the start.
    pub patience: Duration,
    /// A rank is considered lost after no message arrived from it for this long.
    pub silence: Duration,
}

impl TcpPlace {
    /// Reads torchrun's variables RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and LOCAL_RANK and LOCAL_WORLD_SIZE if
    /// present. Returns `None` unless WORLD_SIZE is above 1: a single process needs no address.
    pub fn from_env() -> Result<Option<TcpPlace>> {
        let Some(size) = number("WORLD_SIZE")?.filter(|size| *size > 1) else { return Ok(None) };
        let missing = |name| {
            move || {
                Error::config(name, "is not set: set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT together")
            }
        };
        let port = number("MASTER_PORT")?.ok_or_else(missing("MASTER_PORT"))?;
        Ok(Some(TcpPlace {
            rank: number("RANK")?.ok_or_else(missing("RANK"))?,
            size,
            local: number("LOCAL_RANK")?.zip(number("LOCAL_WORLD_SIZE")?),
            host: std::env::var("MASTER_ADDR").map_err(|_| missing("MASTER_ADDR")())?,
            port: port
                .try_into()
                .map_err(|_| Error::config("MASTER_PORT", format!("{port} is not a port")))?,
            patience: Duration::from_secs(300),
            silence: SILENCE,
        }))
    }
}

/// Reads a number from the environment.
fn number(name: &str) -> Result<Option<usize>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| Error::config(name, format!("{text:?} is not a number")))
}

/// Ranks connected over TCP.
pub struct TcpRanks {
    rank: usize,
    size: usize,
    local: (usize, usize),
    queue: Option<Queue>,
    failure: Arc<Failure>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TcpRanks {
    /// Waits for all ranks and connects to each of them.
    pub fn connect(place: &TcpPlace) -> Result<TcpRanks> {
        let TcpPlace { rank, size, silence, .. } = *place;
        if rank >= size {
            return Err(Error::config("rank", format!("{rank} is not below {size}, the number of ranks")));
        }
        let (peers, hosts) = if size == 1 { (Vec::new(), Vec::new()) } else { meet::meet(place)? };
        let same = |ranks: &[IpAddr]| ranks.iter().filter(|&&host| host == hosts[rank]).count();
        let local = match place.local {
            Some(local) => local,
            None if size == 1 => (0, 1),
            None => (same(&hosts[..rank]), same(&hosts)),
        };
        let failure = Arc::new(Failure::default());
        let links = peers
            .into_iter()
            .map(|peer| Ok((peer.rank, Link::new(peer.rank, peer.stream, silence, &failure)?)))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| Error::Ranks(format!("cannot use the links to the other ranks: {error}")))?;
        let (queue, jobs) = Queue::new();
        let ranks = Ranks { rank, links, failure: failure.clone() };
        let thread = thread::spawn(move || ranks.serve(jobs));
        Ok(TcpRanks { rank, size, local, queue: Some(queue), failure, thread: Some(thread) })
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("the queue exists until drop")
    }
}

impl Collective for TcpRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> (usize, usize) {
        self.local
    }

    fn all_gather(&self, mine: Vec<u8>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        self.queue().post(Work::AllGather(mine))
    }

    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        assert_eq!(parts.len(), self.size, "one part per rank");
        self.queue().post(Work::AllToAll(parts))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        self.queue().broadcast(bytes)
    }

    /// The operations of the other ranks fail at once. Their processes exit where they handle this error.
    fn abort(&self) -> ! {
        self.failure.set(format!("rank {} aborted the run: see its output", self.rank));
        // Gives the writer threads time to send the message.
        thread::sleep(Duration::from_millis(300));
        std::process::exit(1)
    }
}

/// Waits for every rank to leave, or only briefly if a rank is lost.
impl Drop for TcpRanks {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.thread.take().expect("dropped once").join();
    }
}

/// The state of the thread that performs the operations.
struct Ranks {
    rank: usize,
    links: Vec<(usize, Link)>,
    failure: Arc<Failure>,
}

impl Ranks {
    fn serve(self, jobs: Receiver<Job>) {
        for job in jobs {
            let outcome = self.perform(job.work).or_else(|error| {
                self.failure.set(error.to_string());
                self.check().map(|()| Vec::new())
            });
            job.done.set(outcome);
        }
        self.leave();
    }

    fn perform(&self, work: Work) -> Outcome {
        match work {
            Work::AllGather(mine) => {
                let mine = Arc::new(mine);
                self.links.iter().for_each(|(_, link)| link.send(Frame::Data(mine.clone())));
                self.receive(|_| Arc::unwrap_or_clone(mine))
            }
            Work::AllToAll(mut parts) => {
                for (peer, link) in &self.links {
                    link.send(Frame::Data(Arc::new(std::mem::take(&mut parts[*peer]))));
                }
                self.receive(|rank| std::mem::take(&mut parts[rank]))
            }
            Work::Broadcast(bytes) if self.rank == 0 => {
                let bytes = Arc::new(bytes);
                self.links.iter().for_each(|(_, link)| link.send(Frame::Data(bytes.clone())));
                self.check().map(|()| vec![Arc::unwrap_or_clone(bytes)])
            }
            Work::Broadcast(_) => Ok(vec![self.receive_from(&self.links[0])?]),
        }
    }

    /// Receives one part from each rank and inserts this rank's own.
    fn receive(&self, own: impl FnOnce(usize) -> Vec<u8>) -> Outcome {
        let mut parts = self.links.iter().map(|link| self.receive_from(link)).collect::<Result<Vec<_>>>()?;
        parts.insert(self.rank, own(self.rank));
        Ok(parts)
    }

    fn receive_from(&self, (peer, link): &(usize, Link)) -> Result<Vec<u8>> {
        loop {
            self.check()?;
            match link.received.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => return Ok(bytes),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.check()?;
                    return Err(Error::Ranks(format!(
                        "rank {peer} ended before the other ranks: see its output"
                    )));
                }
            }
        }
    }

    fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |why| Err(Error::Ranks(why)))
    }

    /// Waits until every rank leaves: a process that exits while others still send would reset their connections.
    fn leave(self) {
        self.links.iter().for_each(|(_, link)| link.send(Frame::Goodbye));
        for link in &self.links {
            // Data received here belongs to operations in which this rank did not take part.
            while self.receive_from(link).is_ok() {}
        }
        let until = Instant::now() + Duration::from_secs(1);
        for (_, link) in &self.links {
            while self.failure.get().is_none_or(|_| Instant::now() < until) && !link.is_flushed() {
                thread::sleep(Duration::from_millis(1));
            }
            link.shut_down();
        }
    }
}
