//! Ranks that talk over TCP, for machines without MPI: each is connected to each.
//!
//! Rank 0 listens where all others look for it, hears where each of them listens, and tells everyone; then each pair
//! connects. A link has a thread that writes, which also says about once a second that this process lives, and one that
//! reads. What goes over a link is the kind of a frame (one byte), its length (8 bytes, little-endian), and its bytes.

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

/// Which rank this process is, and where it finds the others.
#[derive(Clone, Debug)]
pub struct TcpPlace {
    /// This process's number, from 0.
    pub rank: usize,
    /// How many ranks there are.
    pub size: usize,
    /// Its number among those on the same machine, and how many these are; none where addresses are to tell.
    pub local: Option<(usize, usize)>,
    /// The name or address of rank 0's machine, which rank 0 listens at.
    pub host: String,
    /// The port at which rank 0 listens.
    pub port: u16,
    /// For how long ranks wait for each other at the beginning.
    pub patience: Duration,
    /// A rank that has not been heard for so long is given up.
    pub silence: Duration,
}

impl TcpPlace {
    /// What torchrun's variables say: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and perhaps LOCAL_RANK and
    /// LOCAL_WORLD_SIZE. None without a WORLD_SIZE above 1: one process needs no address.
    pub fn from_env() -> Result<Option<TcpPlace>> {
        let Some(size) = number("WORLD_SIZE")?.filter(|size| *size > 1) else { return Ok(None) };
        let missing = |name| {
            move || {
                Error::config(name, "is not set: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT go together")
            }
        };
        let port = number("MASTER_PORT")?.ok_or_else(missing("MASTER_PORT"))?;
        Ok(Some(TcpPlace {
            rank: number("RANK")?.ok_or_else(missing("RANK"))?,
            size,
            local: number("LOCAL_RANK")?.zip(number("LOCAL_WORLD_SIZE")?),
            host: std::env::var("MASTER_ADDR").map_err(|_| missing("MASTER_ADDR")())?,
            port: port.try_into().map_err(|_| Error::config("MASTER_PORT", format!("{port} is no port")))?,
            patience: Duration::from_secs(300),
            silence: SILENCE,
        }))
    }
}

/// A number in the environment.
fn number(name: &str) -> Result<Option<usize>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| Error::config(name, format!("{text:?} is no number")))
}

/// Ranks that talk over TCP.
pub struct TcpRanks {
    rank: usize,
    size: usize,
    local: (usize, usize),
    queue: Option<Queue>,
    failure: Arc<Failure>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TcpRanks {
    /// Waits for all ranks, and connects to each.
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
        self.queue.as_ref().expect("the queue is there until the end")
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
        assert_eq!(parts.len(), self.size, "one part a rank");
        self.queue().post(Work::AllToAll(parts))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        self.queue().broadcast(bytes)
    }

    /// Other ranks' operations fail at once; their processes end where they handle this.
    fn abort(&self) -> ! {
        self.failure.set(format!("rank {} has ended the run: its output tells why", self.rank));
        // For the links to say so.
        thread::sleep(Duration::from_millis(300));
        std::process::exit(1)
    }
}

/// Waits for every rank to leave; not for long, where one is lost.
impl Drop for TcpRanks {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.thread.take().expect("dropped once").join();
    }
}

/// What the thread holds that does the operations.
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

    /// What each rank sent, with this one's own part among them.
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
                        "rank {peer} ended before the others: its output tells why"
                    )));
                }
            }
        }
    }

    fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |why| Err(Error::Ranks(why)))
    }

    /// Waits until every rank leaves: a process that ended while others still send would reset their links.
    fn leave(self) {
        self.links.iter().for_each(|(_, link)| link.send(Frame::Goodbye));
        for link in &self.links {
            // What comes here belongs to operations that this rank did not take part in.
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
