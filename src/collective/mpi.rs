//! Ranks that an MPI launcher started: `mpirun`, `mpiexec` or `srun`.
//!
//! A single thread calls MPI. It performs the posted operations one by one with MPI's nonblocking collectives and
//! sleeps between the tests for completion, so that a waiting rank leaves its core to other threads:
//!
//! ```text
//! sizes  = the sizes of all ranks               (sleeps grow to a millisecond: some rank may be late)
//! rounds = pieces of at most ROUND bytes        (no sleeps at first: every rank is present)
//! ```
//!
//! The ranks form a ring. About once a second, each rank sends a heartbeat to the next one and expects one from the
//! previous one.

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

/// Bytes that a rank receives in one round of an operation. MPI counts bytes in 32 bits. Rounds this small reuse one
/// buffer; allocating fresh memory can take longer than the transfer itself.
const ROUND: usize = 16 << 20;

/// The first sleep between two tests, the longest one while waiting for a late rank, and the longest one without work.
const SHORTEST: Duration = Duration::from_micros(20);
const LATE: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(5);

/// A transfer does not sleep for this long: small transfers finish within it. Sleeping did not slow down large
/// transfers, except by a third where MPI copies through shared memory in fragments (two ranks, no CMA: 85 ms became
/// 117 ms).
const BUSY: Duration = Duration::from_millis(1);

/// The interval of the heartbeats.
const BEAT: Duration = Duration::from_secs(1);

/// The messages to the next rank. Any other value is the number of operations that the sender started before it left.
static ALIVE: u64 = u64::MAX;
static FAILED: u64 = u64::MAX - 1;
static END: u64 = u64::MAX - 2;

/// Environment variables set by launchers: Open MPI, PMIx (Open MPI 5, Slurm), PMI (MPICH, Intel MPI, MS-MPI, Slurm),
/// MVAPICH2. Slurm's own variables are not used because batch scripts have them as well.
const LAUNCHERS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_SIZE"];

/// Ranks that an MPI launcher started.
pub struct MpiRanks {
    place: Place,
    queue: Option<Queue>,
    abort: Arc<AtomicBool>,
    /// Disconnected when the thread ends.
    ended: Mutex<Receiver<()>>,
}

/// The position of this process among the ranks.
#[derive(Clone, Copy)]
struct Place {
    rank: usize,
    size: usize,
    local: (usize, usize),
}

impl MpiRanks {
    /// Initializes MPI, which is possible once per process. Returns `None` if no MPI launcher started this program. A
    /// rank is considered lost after `silence` without a message from it (30 seconds is a good value).
    pub fn begin(silence: Duration) -> Result<Option<MpiRanks>> {
        if LAUNCHERS.iter().all(|name| std::env::var_os(name).is_none()) {
            return Ok(None);
        }
        let (queue, jobs) = Queue::new();
        let abort = Arc::new(AtomicBool::new(false));
        let (ending, ended) = channel();
        let (place_sender, place_receiver) = channel();
        let abort_requested = abort.clone();
        thread::Builder::new()
            .name("ranks".into())
            .spawn(move || serve(silence, jobs, abort_requested, place_sender, ending))
            .map_err(|error| Error::Ranks(format!("cannot start the thread for MPI: {error}")))?;
        let place = place_receiver.recv().map_err(|_| {
            let why = "it is already initialized in this process, or it does not support threads";
            Error::Ranks(format!("cannot initialize MPI: {why}"))
        })?;
        Ok(Some(MpiRanks { place, queue: Some(queue), abort, ended: Mutex::new(ended) }))
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().expect("the queue exists until drop")
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
        assert_eq!(parts.len(), self.place.size, "one part per rank");
        self.queue().post(Work::AllToAll(parts))
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Task<'_, Result<Vec<u8>>> {
        self.queue().broadcast(bytes)
    }

    fn abort(&self) -> ! {
        self.abort.store(true, Ordering::Relaxed);
        // The thread ends this process, unless it is blocked in MPI.
        thread::sleep(5 * BEAT);
        std::process::exit(1)
    }
}

/// Finalizes MPI. This waits for every rank, or returns at once if a rank is lost.
impl Drop for MpiRanks {
    fn drop(&mut self) {
        self.queue = None;
        _ = self.ended.lock().unwrap().recv();
    }
}

/// The body of the thread, from the initialization of MPI to its finalization.
fn serve(
    silence: Duration,
    jobs: Receiver<Job>,
    abort: Arc<AtomicBool>,
    place_sender: Sender<Place>,
    ending: Sender<()>,
) {
    let Some((universe, threading)) = initialize_with_threading(Threading::Funneled) else { return };
    if threading < Threading::Funneled {
        return;
    }
    let (mut ranks, place) = Ranks::new(&universe, silence, jobs, abort, ending);
    _ = place_sender.send(place);
    ranks.serve();
    let ending = ranks.ending.take();
    // Communicators must be freed before MPI is finalized.
    drop(ranks);
    drop(universe);
    drop(ending);
}

/// The state of the thread.
struct Ranks {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    pulse: Pulse,
    /// Buffers for the rounds, reused.
    sent: Vec<u8>,
    received: Vec<u8>,
    jobs: Receiver<Job>,
    /// Completes the current operation.
    pending: Option<Done>,
    /// The number of operations started.
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
                sent: empty_buffer(),
                received: empty_buffer(),
                jobs,
                pending: None,
                begun: 0,
                abort,
                ending: Some(ending),
            },
            place,
        )
    }

    /// Performs the posted operations until the queue is dropped, then leaves.
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
                // Also progresses operations that other ranks still wait for.
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
        let (nothing, mut received) = (empty_buffer(), std::mem::take(&mut self.received));
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
        // A rank's own part is not sent.
        let own = std::mem::take(&mut parts[self.rank]);
        let row: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let all = self.gather_sizes(&row);
        let sizes: Vec<usize> = all.iter().skip(self.rank).step_by(self.size).copied().collect();
        let mut gathered = self.room_for(&sizes);
        let (mut sent, mut received) = (std::mem::take(&mut self.sent), std::mem::take(&mut self.received));
        // Every rank takes part in as many rounds as the largest part needs.
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

    /// Allocates buffers of these sizes, except for this rank's own part.
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

    /// Gathers the sizes of every rank, concatenated.
    fn gather_sizes(&mut self, mine: &[u64]) -> Vec<usize> {
        let mut sizes = vec![0u64; mine.len() * self.size];
        scope(|scope| {
            let request = self.world.immediate_all_gather_into(scope, mine, &mut sizes[..]);
            self.wait(request);
        });
        sizes.into_iter().map(|size| size as usize).collect()
    }

    /// Waits for a request for which some rank may be late.
    fn wait<'a, D: ?Sized, S: Scope<'a>>(&mut self, request: Request<'a, D, S>) {
        let mut pause = Pause::up_to(LATE);
        self.test(request, || thread::sleep(pause.next()));
    }

    /// Waits for a request for which every rank is present.
    fn transfer<'a, D: ?Sized, S: Scope<'a>>(&mut self, request: Request<'a, D, S>) {
        let until = Instant::now() + BUSY;
        self.test(request, || match Instant::now() < until {
            true => thread::yield_now(),
            false => thread::sleep(SHORTEST),
        });
    }

    /// Tests a request until it is complete. Never returns if a rank is lost, because MPI may still use the request's
    /// buffers.
    fn test<'a, D: ?Sized, S: Scope<'a>>(&mut self, mut request: Request<'a, D, S>, mut pause: impl FnMut()) {
        while let Err(unfinished) = request.test() {
            request = unfinished;
            self.look();
            pause();
        }
    }

    /// Checks the other ranks and whether `abort` was called.
    fn look(&mut self) {
        if self.abort.load(Ordering::Relaxed) {
            self.world.abort(1);
        }
        if let Err(why) = self.pulse.look(self.begun) {
            self.fail(why);
        }
    }

    /// Notifies the next rank and fails all operations posted from now on. Never returns: see `test`.
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

    /// Waits until every rank leaves, so that no rank is reported as lost before.
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

/// An empty buffer with an address of its own. The address of `Vec::new()` is 1, which is MPI_IN_PLACE in Open MPI.
fn empty_buffer() -> Vec<u8> {
    Vec::with_capacity(1)
}

/// The pieces of all parts that are sent together.
struct Round {
    start: usize,
    piece: usize,
}

impl Round {
    /// The number of rounds is that of the largest part.
    fn all(sizes: &[usize], ranks: usize) -> impl Iterator<Item = Round> + use<> {
        let piece = (ROUND / ranks).max(1);
        let largest = sizes.iter().copied().max().unwrap_or(0);
        (0..largest).step_by(piece).map(move |start| Round { start, piece })
    }

    /// The range of the piece within a part of this size.
    fn of(&self, size: usize) -> std::ops::Range<usize> {
        self.start.min(size)..(self.start + self.piece).min(size)
    }
}

/// The position of each rank's piece in a buffer.
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

    /// Returns the start of a buffer, which grows if necessary.
    fn room_in<'a>(&self, buffer: &'a mut Vec<u8>) -> &'a mut [u8] {
        buffer.resize(buffer.len().max(self.total), 0);
        &mut buffer[..self.total]
    }

    /// Appends each piece to its part, except to this rank's own, which has no capacity.
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

/// Sleeps that grow with the time waited so far.
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

/// The state of the heartbeats around the ring of ranks.
struct Pulse {
    ring: SimpleCommunicator,
    silence: Duration,
    previous: usize,
    next: usize,
    /// The host name of each rank.
    hosts: Vec<String>,
    words: VecDeque<&'static u64>,
    /// The message being sent.
    sending: Option<Request<'static, u64>>,
    sent: Instant,
    last_heartbeat: Instant,
    looked: Instant,
    /// The number of operations after which the previous rank left.
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
            last_heartbeat: now,
            looked: now,
            left: None,
            over: false,
        }
    }

    /// Sends and receives pending heartbeats. Fails if a rank is lost or left before the operations that `begun` counts.
    fn look(&mut self, begun: u64) -> Result<(), String> {
        if self.hosts.len() == 1 {
            return Ok(());
        }
        let now = Instant::now();
        // If the whole job was suspended for a while, no rank was silent during that time.
        if now - self.looked > 3 * BEAT {
            self.last_heartbeat = now;
        }
        self.looked = now;
        if now - self.sent > BEAT && self.words.is_empty() {
            self.words.push_back(&ALIVE);
        }
        self.send();
        self.receive_heartbeats(now)?;
        let who = format!("rank {} on {}", self.previous, self.hosts[self.previous]);
        if self.left.is_some_and(|operations| operations < begun) {
            return Err(format!("{who} ended before the other ranks: see its output"));
        }
        if now - self.last_heartbeat > self.silence && !self.over {
            return Err(format!(
                "no message from {who} for {} s: its process or the connection to it is lost",
                self.silence.as_secs()
            ));
        }
        Ok(())
    }

    fn receive_heartbeats(&mut self, now: Instant) -> Result<(), String> {
        let previous = self.ring.process_at_rank(self.previous as i32);
        while !self.over && previous.immediate_probe().is_some() {
            let (word, _) = previous.receive::<u64>();
            self.last_heartbeat = now;
            match word {
                word if word == ALIVE => {}
                word if word == END => self.over = true,
                word if word == FAILED => {
                    let who = format!("rank {} on {}", self.previous, self.hosts[self.previous]);
                    return Err(format!("{who} lost another rank: see its output"));
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

    /// Sends the next message if the previous one was delivered.
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

/// Gathers the host name of every rank. Called during initialization, where a lost rank ends the whole job.
fn hosts(world: &SimpleCommunicator) -> Vec<String> {
    const LENGTH: usize = 64;
    let mut mine = processor_name().unwrap_or_default().into_bytes();
    mine.resize(LENGTH, 0);
    let mut all = vec![0; LENGTH * world.size() as usize];
    world.all_gather_into(&mine[..], &mut all[..]);
    all.chunks(LENGTH).map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()).collect()
}
