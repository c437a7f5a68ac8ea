//! Ranks that an MPI launcher started: `mpirun`, `mpiexec` or `srun`.
//!
//! One thread calls MPI, and nobody else. It does the posted operations one by one with MPI's nonblocking collectives,
//! and tests them with pauses, so that a rank that waits leaves its core to others:
//!
//! ```text
//! sizes  = everyone's sizes                     (pauses grow to a millisecond: some rank may be late)
//! rounds = pieces of at most ROUND bytes        (no pauses at first: every rank is here)
//! ```
//!
//! The ranks form a ring. About once a second, each tells the next that it lives, and hears this from the previous one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ::mpi::Threading;
use ::mpi::collective::{CommunicatorCollectives, Root};
use ::mpi::datatype::{Partition, PartitionMut};
use ::mpi::environment::{Universe, initialize_with_threading, processor_name};
use ::mpi::point_to_point::{Destination, Source};
use ::mpi::request::{Request, Scope, StaticScope, scope};
use ::mpi::topology::{Communicator, SimpleCommunicator};

use super::Collective;
use super::queue::{Done, Job, Queue, Work};
use crate::error::{Error, Result};
use crate::task::Task;

/// Bytes that a rank receives in one round of an operation. MPI counts them in 32 bits; that few stay in memory that is
/// used again, where the system takes longer to give memory than MPI to fill it.
const ROUND: usize = 16 << 20;

/// The first pause between two tests, and the longest ones: for a rank that is late, and for a thread without work.
const SHORTEST: Duration = Duration::from_micros(20);
const LATE: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(5);

/// For how long a transfer has no pauses: small ones are over then. Pauses did not make large ones slower, but by a third where
/// MPI copies through shared memory in fragments (two ranks, no CMA: 85 ms became 117).
const BUSY: Duration = Duration::from_millis(1);

/// How often a rank tells the next one that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// What a rank tells the next one. Any other word is the number of operations after which it left.
static ALIVE: u64 = u64::MAX;
static FAILED: u64 = u64::MAX - 1;
static END: u64 = u64::MAX - 2;

/// Set by launchers, of Open MPI, of PMIx (Open MPI 5, Slurm), of PMI (MPICH, Intel MPI, MS-MPI, Slurm), of MVAPICH2. Slurm's
/// own variables say nothing: a batch script has them as well.
const LAUNCHERS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_SIZE"];

/// The ranks that an MPI launcher started.
pub struct MpiRanks {
    place: Place,
    queue: Option<Queue>,
    abort: Arc<AtomicBool>,
    /// Closed by the thread at its end.
    ended: Mutex<Receiver<()>>,
}

/// Where this process is among the others.
#[derive(Clone, Copy)]
struct Place {
    rank: usize,
    size: usize,
    local: (usize, usize),
}

impl MpiRanks {
    /// Begins MPI, once in a process; none where no MPI launcher started this program. A rank that has not been heard for
    /// `silence` (30 seconds are good) is given up.
    pub fn begin(silence: Duration) -> Result<Option<MpiRanks>> {
        if LAUNCHERS.iter().all(|name| std::env::var_os(name).is_none()) {
            return Ok(None);
        }
        let (queue, jobs) = Queue::new();
        let abort = Arc::new(AtomicBool::new(false));
        let (ending, ended) = channel();
        let (telling, told) = channel();
        let asked = abort.clone();
        thread::Builder::new()
            .name("ranks".into())
            .spawn(move || serve(silence, jobs, asked, telling, ending))
            .map_err(|error| Error::Ranks(format!("cannot start the thread for MPI: {error}")))?;
        let place = told.recv().map_err(|_| {
            Error::Ranks("cannot begin MPI: it began before in this process, or has no threads".into())
        })?;
        Ok(Some(MpiRanks { place, queue: Some(queue), abort, ended: Mutex::new(ended) }))
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("the queue is there until the end")
    }
}

impl Collective for MpiRanks {
    fn rank(&self) -> usize {
        self.place.rank
    }

    fn size(&self) -> usize {
        self.place.size
    }

    fn local(&self) -> (usize, usize) {
        self.place.local
    }

    fn all_gather(&self, mine: Vec<u8>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        self.queue().post(Work::AllGather(mine))
    }

    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Task<'_, Result<Vec<Vec<u8>>>> {
        assert_eq!(parts.len(), self.place.size, "one part a rank");
        self.queue().post(Work::AllToAll(parts))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        self.queue().broadcast(bytes)
    }

    fn abort(&self) -> ! {
        self.abort.store(true, Ordering::Relaxed);
        // The thread ends this process, unless it is itself stuck in MPI.
        thread::sleep(5 * BEAT);
        std::process::exit(1)
    }
}

/// Ends MPI, which waits for every rank; at once, where one is lost.
impl Drop for MpiRanks {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.ended.lock().unwrap().recv();
    }
}

/// The thread, from the beginning of MPI to its end.
fn serve(
    silence: Duration,
    jobs: Receiver<Job>,
    abort: Arc<AtomicBool>,
    telling: Sender<Place>,
    ending: Sender<()>,
) {
    let Some((universe, threading)) = initialize_with_threading(Threading::Funneled) else { return };
    if threading < Threading::Funneled {
        return;
    }
    let (mut ranks, place) = Ranks::new(&universe, silence, jobs, abort, ending);
    _ = telling.send(place);
    ranks.serve();
    let ending = ranks.ending.take();
    // Communicators are freed before MPI ends.
    drop(ranks);
    drop(universe);
    drop(ending);
}

/// What the thread holds.
struct Ranks {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    pulse: Pulse,
    /// Memory of rounds.
    sent: Vec<u8>,
    received: Vec<u8>,
    jobs: Receiver<Job>,
    /// The operation that is under way.
    pending: Option<Done>,
    /// Operations that began.
    begun: u64,
    abort: Arc<AtomicBool>,
    ending: Option<Sender<()>>,
}

impl Ranks {
    fn new(
        universe: &Universe,
        silence: Duration,
        jobs: Receiver<Job>,
        abort: Arc<AtomicBool>,
        ending: Sender<()>,
    ) -> (Ranks, Place) {
        let world = universe.world().duplicate();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let machine = world.split_shared(world.rank());
        let place = Place { rank, size, local: (machine.rank() as usize, machine.size() as usize) };
        let pulse = Pulse::new(&world, silence);
        (
            Ranks {
                world,
                rank,
                size,
                pulse,
                sent: somewhere(),
                received: somewhere(),
                jobs,
                pending: None,
                begun: 0,
                abort,
                ending: Some(ending),
            },
            place,
        )
    }

    /// Does what is posted until the queue is dropped, then leaves.
    fn serve(&mut self) {
        let mut pause = Pause::up_to(IDLE);
        loop {
            match self.jobs.recv_timeout(pause.next()) {
                Ok(Job { work, done }) => {
                    self.pending = Some(done);
                    self.begun += 1;
                    let outcome = self.perform(work);
                    self.pending.take().expect("set above").set(Ok(outcome));
                    pause = Pause::up_to(IDLE);
                }
                // This also moves on what other ranks still wait for.
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return self.leave(),
            }
        }
    }

    fn perform(&mut self, work: Work) -> Vec<Vec<u8>> {
        match work {
            Work::AllToAll(parts) if self.size == 1 => parts,
            Work::AllGather(bytes) | Work::Broadcast(bytes) if self.size == 1 => vec![bytes],
            Work::AllGather(mine) => self.all_gather(mine),
            Work::AllToAll(parts) => self.all_to_all(parts),
            Work::Broadcast(bytes) => vec![self.broadcast(bytes)],
        }
    }

    fn all_gather(&mut self, mine: Vec<u8>) -> Vec<Vec<u8>> {
        let sizes = self.gather_sizes(&[mine.len() as u64]);
        let mut gathered = self.room_for(&sizes);
        let (nothing, mut received) = (somewhere(), std::mem::take(&mut self.received));
        for round in Round::all(&sizes, self.size) {
            let layout = Layout::new(sizes.iter().map(|&size| round.of(size).len()));
            let room = layout.room_in(&mut received);
            let mut receive = PartitionMut::new(room, &layout.counts[..], &layout.starts[..]);
            let send = if mine.is_empty() { &nothing[..] } else { &mine[round.of(mine.len())] };
            scope(|scope| {
                let request = self.world.immediate_all_gather_varcount_into(scope, send, &mut receive);
                self.transfer(request);
            });
            layout.split(&received, &mut gathered);
        }
        self.received = received;
        gathered[self.rank] = mine;
        gathered
    }

    fn all_to_all(&mut self, mut parts: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        // What stays here does not travel.
        let own = std::mem::take(&mut parts[self.rank]);
        let row: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let all = self.gather_sizes(&row);
        let sizes: Vec<usize> = all.iter().skip(self.rank).step_by(self.size).copied().collect();
        let mut gathered = self.room_for(&sizes);
        let (mut sent, mut received) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.received));
        // Every rank takes part in as many rounds as the largest of all parts needs.
        for round in Round::all(&all, self.size) {
            sent.clear();
            parts.iter().for_each(|part| sent.extend_from_slice(&part[round.of(part.len())]));
            let outgoing = Layout::new(parts.iter().map(|part| round.of(part.len()).len()));
            let incoming = Layout::new(sizes.iter().map(|&size| round.of(size).len()));
            let room = incoming.room_in(&mut received);
            let send = Partition::new(&sent[..], &outgoing.counts[..], &outgoing.starts[..]);
            let mut receive = PartitionMut::new(room, &incoming.counts[..], &incoming.starts[..]);
            scope(|scope| {
                let request = self.world.immediate_all_to_all_varcount_into(scope, &send, &mut receive);
                self.transfer(request);
            });
            incoming.split(&received, &mut gathered);
        }
        (self.sent, self.received) = (sent, received);
        gathered[self.rank] = own;
        gathered
    }

    /// Room for parts of these sizes, but not for this rank's own.
    fn room_for(&self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let room = |(rank, &size)| if rank == self.rank { Vec::new() } else { Vec::with_capacity(size) };
        sizes.iter().enumerate().map(room).collect()
    }

    fn broadcast(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut size = bytes.len() as u64;
        scope(|scope| {
            let request = self.world.process_at_rank(0).immediate_broadcast_into(scope, &mut size);
            self.wait(request);
        });
        bytes.resize(size as usize, 0);
        for piece in bytes.chunks_mut(ROUND) {
            scope(|scope| {
                let request = self.world.process_at_rank(0).immediate_broadcast_into(scope, piece);
                self.transfer(request);
            });
        }
        bytes
    }

    /// Every rank's sizes, one after another.
    fn gather_sizes(&mut self, mine: &[u64]) -> Vec<usize> {
        let mut sizes = vec![0u64; mine.len() * self.size];
        scope(|scope| {
            let request = self.world.immediate_all_gather_into(scope, mine, &mut sizes[..]);
            self.wait(request);
        });
        sizes.into_iter().map(|size| size as usize).collect()
    }

    /// Waits for a request that some rank may be late for.
    fn wait<'a, D: ?Sized, S: Scope<'a>>(&mut self, request: Request<'a, D, S>) {
        let mut pause = Pause::up_to(LATE);
        self.test(request, || thread::sleep(pause.next()));
    }

    /// Waits for a request that every rank is here for.
    fn transfer<'a, D: ?Sized, S: Scope<'a>>(&mut self, request: Request<'a, D, S>) {
        let until = Instant::now() + BUSY;
        self.test(request, || match Instant::now() < until {
            true => thread::yield_now(),
            false => thread::sleep(SHORTEST),
        });
    }

    /// Tests a request until it is done. Does not come back where a rank is lost, so that the request's buffers stay: MPI
    /// may still use them.
    fn test<'a, D: ?Sized, S: Scope<'a>>(&mut self, mut request: Request<'a, D, S>, mut pause: impl FnMut()) {
        while let Err(unfinished) = request.test() {
            request = unfinished;
            self.look();
            pause();
        }
    }

    /// Looks after the other ranks, and whether somebody called `abort`.
    fn look(&mut self) {
        if self.abort.load(Ordering::Relaxed) {
            self.world.abort(1);
        }
        if let Err(why) = self.pulse.look(self.begun) {
            self.fail(why);
        }
    }

    /// Tells the next rank, and answers whatever is posted from now on. Does not come back: see `test`.
    fn fail(&mut self, why: String) -> ! {
        let error = || Error::Ranks(why.clone());
        if let Some(done) = self.pending.take() {
            done.set(Err(error()));
        }
        self.pulse.say(&FAILED);
        loop {
            match self.jobs.recv_timeout(IDLE) {
                Ok(job) => job.done.set(Err(error())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.pulse.send();
            if self.abort.load(Ordering::Relaxed) {
                self.world.abort(1);
            }
        }
        self.ending = None;
        loop {
            thread::park();
        }
    }

    /// Waits until every rank leaves, so that none is missed before.
    fn leave(&mut self) {
        if self.size == 1 {
            return;
        }
        self.pulse.say(Box::leak(Box::new(self.begun)));
        let barrier = self.pulse.ring.immediate_barrier();
        self.wait(barrier);
        self.pulse.say(&END);
        while !self.pulse.is_over() {
            self.look();
            thread::sleep(SHORTEST);
        }
    }
}

/// An empty buffer at an address of its own. That of `Vec::new()` is 1, which in Open MPI is MPI_IN_PLACE.
fn somewhere() -> Vec<u8> {
    Vec::with_capacity(1)
}

/// The pieces of all parts that travel together.
struct Round {
    start: usize,
    piece: usize,
}

impl Round {
    /// The rounds that the largest of these parts needs.
    fn all(sizes: &[usize], ranks: usize) -> impl Iterator<Item = Round> + use<> {
        let piece = (ROUND / ranks).max(1);
        let largest = sizes.iter().copied().max().unwrap_or(0);
        (0..largest).step_by(piece).map(move |start| Round { start, piece })
    }

    /// The piece of a part of this size.
    fn of(&self, size: usize) -> std::ops::Range<usize> {
        self.start.min(size)..(self.start + self.piece).min(size)
    }
}

/// Where each rank's piece is in a buffer.
struct Layout {
    counts: Vec<i32>,
    starts: Vec<i32>,
    total: usize,
}

impl Layout {
    fn new(counts: impl Iterator<Item = usize>) -> Layout {
        let mut layout = Layout { counts: Vec::new(), starts: Vec::new(), total: 0 };
        for count in counts {
            layout.starts.push(i32::try_from(layout.total).expect("a round is small"));
            layout.counts.push(i32::try_from(count).expect("a piece is small"));
            layout.total += count;
        }
        layout
    }

    /// The beginning of a buffer, which grows where it has to.
    fn room_in<'a>(&self, buffer: &'a mut Vec<u8>) -> &'a mut [u8] {
        buffer.resize(buffer.len().max(self.total), 0);
        &mut buffer[..self.total]
    }

    /// Adds each piece to its part, where this has room: nowhere for a rank's own.
    fn split(&self, mut buffer: &[u8], parts: &mut [Vec<u8>]) {
        for (&count, part) in self.counts.iter().zip(parts) {
            let (piece, rest) = buffer.split_at(count as usize);
            if part.capacity() > 0 {
                part.extend_from_slice(piece);
            }
            buffer = rest;
        }
    }
}

/// Pauses that grow with the time for which one has waited.
struct Pause {
    since: Instant,
    longest: Duration,
}

impl Pause {
    fn up_to(longest: Duration) -> Pause {
        Pause { since: Instant::now(), longest }
    }

    fn next(&mut self) -> Duration {
        (self.since.elapsed() / 8).clamp(SHORTEST, self.longest)
    }
}

/// What the ranks' ring says of the others.
struct Pulse {
    ring: SimpleCommunicator,
    silence: Duration,
    previous: usize,
    next: usize,
    /// Each rank's machine.
    hosts: Vec<String>,
    words: VecDeque<&'static u64>,
    /// The word that is on its way.
    sending: Option<Request<'static, u64>>,
    sent: Instant,
    heard: Instant,
    looked: Instant,
    /// The operations after which the previous rank left.
    left: Option<u64>,
    over: bool,
}

impl Pulse {
    fn new(world: &SimpleCommunicator, silence: Duration) -> Pulse {
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let now = Instant::now();
        Pulse {
            ring: world.duplicate(),
            silence,
            previous: (rank + size - 1) % size,
            next: (rank + 1) % size,
            hosts: hosts(world),
            words: VecDeque::from([&ALIVE]),
            sending: None,
            sent: now,
            heard: now,
            looked: now,
            left: None,
            over: false,
        }
    }

    /// Sends and hears what there is; an error where a rank is lost, or ended before the operations that `begun` counts.
    fn look(&mut self, begun: u64) -> Result<(), String> {
        if self.hosts.len() == 1 {
            return Ok(());
        }
        let now = Instant::now();
        // The whole job may have been stopped for a while: nobody was silent then.
        if now - self.looked > 3 * BEAT {
            self.heard = now;
        }
        self.looked = now;
        if now - self.sent > BEAT && self.words.is_empty() {
            self.words.push_back(&ALIVE);
        }
        self.send();
        self.hear(now)?;
        let who = format!("rank {} on {}", self.previous, self.hosts[self.previous]);
        if self.left.is_some_and(|operations| operations < begun) {
            return Err(format!("{who} ended before the others: its output tells why"));
        }
        if now - self.heard > self.silence && !self.over {
            return Err(format!(
                "{who} has not been heard for {} s: its process or the link to it is gone",
                self.silence.as_secs()
            ));
        }
        Ok(())
    }

    fn hear(&mut self, now: Instant) -> Result<(), String> {
        let previous = self.ring.process_at_rank(self.previous as i32);
        while !self.over && previous.immediate_probe().is_some() {
            let (word, _) = previous.receive::<u64>();
            self.heard = now;
            match word {
                word if word == ALIVE => {}
                word if word == END => self.over = true,
                word if word == FAILED => {
                    let who = format!("rank {} on {}", self.previous, self.hosts[self.previous]);
                    return Err(format!("{who} has lost another rank: its output tells which"));
                }
                operations => self.left = Some(operations),
            }
        }
        Ok(())
    }

    fn say(&mut self, word: &'static u64) {
        self.words.push_back(word);
        self.send();
    }

    /// Sends the next word, where the last one is gone.
    fn send(&mut self) {
        self.sending = self.sending.take().and_then(|request| request.test().err());
        if self.sending.is_none()
            && let Some(word) = self.words.pop_front()
        {
            let next = self.ring.process_at_rank(self.next as i32);
            self.sending = Some(next.immediate_send(StaticScope, word));
            self.sent = Instant::now();
        }
    }

    /// Whether both neighbours know that every rank has left.
    fn is_over(&mut self) -> bool {
        self.send();
        self.over && self.words.is_empty() && self.sending.is_none()
    }
}

/// Every rank's machine. Called while MPI begins, where a lost rank ends the job.
fn hosts(world: &SimpleCommunicator) -> Vec<String> {
    const LENGTH: usize = 64;
    let mut mine = processor_name().unwrap_or_default().into_bytes();
    mine.resize(LENGTH, 0);
    let mut all = vec![0; LENGTH * world.size() as usize];
    world.all_gather_into(&mine[..], &mut all[..]);
    all.chunks(LENGTH).map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()).collect()
}
