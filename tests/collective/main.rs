//! Ranks over TCP: the suite shared with MPI, and failures.

mod suite;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use oaif::unstable::collective::{Alone, Collective, TcpPlace, TcpRanks};
use oaif::{Error, Result, block_on};

/// A longer wait is a hang.
const HANG: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn place(rank: usize, size: usize, port: u16) -> TcpPlace {
    TcpPlace {
        rank,
        size,
        local: None,
        host: "127.0.0.1".into(),
        port,
        patience: HANG,
        silence: Duration::from_secs(30),
    }
}

fn connect(rank: usize, size: usize, port: u16) -> Result<TcpRanks> {
    TcpRanks::connect(&place(rank, size, port))
}

/// Runs the closure once per rank, each on its own thread.
fn each_rank(size: usize, run: impl Fn(TcpRanks) + Sync) {
    let port = free_port();
    thread::scope(|scope| {
        for rank in 0..size {
            let run = &run;
            scope.spawn(move || run(connect(rank, size, port).unwrap()));
        }
    });
}

fn error<T>(result: Result<T>) -> String {
    match result {
        Err(Error::Ranks(why)) => why,
        Err(error) => panic!("another kind of error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn every_rank_gets_what_was_sent_to_it() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    suite::run(&Alone, seed);
    for size in [1, 2, 3, 5] {
        each_rank(size, |ranks| {
            assert_eq!(ranks.local(), (ranks.rank(), size));
            suite::run(&ranks, seed);
        });
    }
}

#[test]
fn a_waiting_rank_leaves_its_thread_to_others() {
    let (posted, is_posted) = channel();
    let is_posted = Mutex::new(is_posted);
    each_rank(2, |ranks| {
        // Rank 1 takes part only once the call of rank 0 has returned.
        if ranks.rank() == 1 {
            is_posted.lock().unwrap().recv_timeout(HANG).expect("posting waits");
        }
        let task = ranks.all_gather(vec![0; 1000]);
        posted.send(()).unwrap();
        block_on(task).unwrap();
    });
}

#[test]
fn a_rank_that_ends_early_makes_the_others_fail() {
    each_rank(3, |ranks| {
        block_on(ranks.barrier()).unwrap();
        if ranks.rank() != 1 {
            let why = error(block_on(ranks.barrier()));
            // The rank that notices the failure first reports it to the other.
            assert!(why.contains("rank 1 ended before the other ranks"), "{why}");
            assert_eq!(
                error(block_on(ranks.broadcast(vec![]))),
                why,
                "later operations fail for the same reason"
            );
        }
    });
}

/// A bare TCP connection to rank 0, as soon as that listens.
fn visit(port: u16) -> TcpStream {
    let begin = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(begin.elapsed() < HANG, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn connections_of_other_programs_are_dropped() {
    let port = free_port();
    thread::scope(|scope| {
        let first = scope.spawn(move || connect(0, 2, port).unwrap());
        let _silent = visit(port);
        let mut stranger = visit(port);
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty());
        let second = connect(1, 2, port).unwrap();
        scope.spawn(move || block_on(second.barrier()).unwrap());
        block_on(first.join().unwrap().barrier()).unwrap();
    });
}

/// Returns the error of rank 0 of 3 after connections that send these lines.
fn error_after_lines(line: &str) -> String {
    let port = free_port();
    thread::scope(|scope| {
        let first = scope.spawn(move || connect(0, 3, port));
        let mut others = Vec::new();
        for line in line.lines() {
            let mut other = visit(port);
            other.write_all(format!("{line}\n").as_bytes()).unwrap();
            others.push(other);
        }
        error(first.join().unwrap())
    })
}

#[test]
fn wrong_rank_numbers_are_refused() {
    for (line, says) in [
        ("oaif-ranks-1 1 3 9\noaif-ranks-1 1 3 9", "rank 0 of 3 cannot accept rank 1 of 3"),
        ("oaif-ranks-1 3 3 9", "rank 3 of 3"),
        ("oaif-ranks-1 0 3 9", "rank 0 of 3"),
        ("oaif-ranks-1 1 4 9", "rank 1 of 4"),
    ] {
        let why = error_after_lines(line);
        assert!(why.contains(says), "{why}");
    }
    assert!(matches!(connect(2, 2, 1), Err(Error::Config { .. })));
}

#[test]
fn waiting_for_missing_ranks_times_out() {
    let port = free_port();
    let why =
        error(TcpRanks::connect(&TcpPlace { patience: Duration::from_millis(300), ..place(0, 2, port) }));
    assert!(why.contains("only 1 of 2 ranks connected"), "{why}");
    let why =
        error(TcpRanks::connect(&TcpPlace { patience: Duration::from_millis(300), ..place(1, 2, port) }));
    assert!(why.contains("cannot connect to rank 0"), "{why}");
}

/// A bare TCP connection that poses as rank 1 of 2.
fn by_hand(port: u16) -> TcpStream {
    let mut stream = visit(port);
    stream.write_all(b"oaif-ranks-1 1 2 9\n").unwrap();
    stream
}

#[test]
fn an_excessive_length_is_rejected() {
    for length in [u64::MAX, 1 << 37] {
        let port = free_port();
        thread::scope(|scope| {
            scope.spawn(move || {
                let ranks = connect(0, 2, port).unwrap();
                let why = error(block_on(ranks.barrier()));
                assert!(why.contains("an invalid frame"), "{why}");
            });
            let mut stream = by_hand(port);
            stream.write_all(&[1]).unwrap();
            stream.write_all(&length.to_le_bytes()).unwrap();
            _ = stream.read_to_end(&mut Vec::new());
        });
    }
}

#[test]
fn a_silent_link_is_considered_lost() {
    let port = free_port();
    thread::scope(|scope| {
        scope.spawn(move || {
            let silence = Duration::from_secs(2);
            let begin = Instant::now();
            let ranks = TcpRanks::connect(&TcpPlace { silence, ..place(0, 2, port) }).unwrap();
            let why = error(block_on(ranks.barrier()));
            assert!(why.contains("rank 1 sent nothing for 2 s"), "{why}");
            let took = begin.elapsed();
            assert!(took > Duration::from_millis(1500) && took < HANG, "{took:?}");
        });
        let mut stream = by_hand(port);
        _ = stream.read_to_end(&mut Vec::new());
    });
}

/// Starts a rank in a process of its own. It repeats barriers, or does what `what` says.
fn process(rank: usize, size: usize, port: u16, what: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rank_in_a_process", "--ignored", "--nocapture"])
        .envs([("RANK", rank.to_string()), ("WORLD_SIZE", size.to_string())])
        .envs([("MASTER_ADDR", "127.0.0.1".to_string()), ("MASTER_PORT", port.to_string())])
        .env("WHAT", what)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "started by other tests"]
fn rank_in_a_process() {
    let Some(place) = TcpPlace::from_env().unwrap() else { return };
    let ranks = TcpRanks::connect(&place).unwrap();
    block_on(ranks.barrier()).unwrap();
    if std::env::var("WHAT").unwrap() == "abort" {
        ranks.abort();
    }
    while block_on(ranks.barrier()).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// The errors of ranks 0 and 2 when `happens` is applied to rank 1, and the times until they appear.
fn when_rank_1(
    what: &str,
    silence: Duration,
    happens: impl FnOnce(&mut Child),
) -> ([String; 2], [Duration; 2]) {
    let port = free_port();
    let mut child = process(1, 3, port, what);
    let (met, have_met) = channel();
    let ends = thread::scope(|scope| {
        let others = [0, 2].map(|rank| {
            let met = met.clone();
            scope.spawn(move || {
                let ranks = TcpRanks::connect(&TcpPlace { silence, ..place(rank, 3, port) }).unwrap();
                let mut outcome = block_on(ranks.barrier());
                met.send(()).unwrap();
                while outcome.is_ok() {
                    outcome = block_on(ranks.barrier());
                }
                (error(outcome), Instant::now())
            })
        });
        for _ in 0..2 {
            have_met.recv_timeout(HANG).expect("the ranks meet");
        }
        let begin = Instant::now();
        happens(&mut child);
        others.map(|other| {
            let (why, end) = other.join().unwrap();
            (why, end.saturating_duration_since(begin))
        })
    });
    _ = child.kill();
    child.wait().unwrap();
    println!("{what}: {ends:?}");
    let (whys, times) = (ends.each_ref().map(|end| end.0.clone()), ends.each_ref().map(|end| end.1));
    assert!(whys.iter().all(|why| why.contains("rank 1")), "{whys:?}");
    (whys, times)
}

/// So long that a rank which is noticed by its silence is not noticed at once.
const LONG_SILENCE: Duration = Duration::from_secs(30);

#[test]
fn a_killed_rank_is_noticed_at_once() {
    let (whys, times) = when_rank_1("killed", LONG_SILENCE, |child| child.kill().unwrap());
    assert!(!whys.iter().any(|why| why.contains("sent nothing")), "{whys:?}");
    assert!(times.iter().all(|time| *time < LONG_SILENCE / 2), "{times:?}");
}

#[test]
#[cfg(unix)]
fn a_stopped_rank_is_considered_lost() {
    let stop = |child: &mut Child| {
        assert!(
            Command::new("sh")
                .args(["-c", &format!("kill -STOP {}", child.id())])
                .status()
                .unwrap()
                .success()
        );
    };
    let (whys, times) = when_rank_1("stopped", Duration::from_secs(3), stop);
    assert!(whys.iter().any(|why| why.contains("rank 1 sent nothing for 3 s")), "{whys:?}");
    assert!(times.iter().all(|time| *time > Duration::from_secs(1) && *time < HANG), "{times:?}");
}

#[test]
fn a_rank_that_aborts_makes_the_others_fail() {
    let aborts = |child: &mut Child| assert_eq!(child.wait().unwrap().code(), Some(1));
    let (whys, times) = when_rank_1("abort", LONG_SILENCE, aborts);
    assert!(!whys.iter().any(|why| why.contains("sent nothing")), "{whys:?}");
    assert!(times.iter().all(|time| *time < LONG_SILENCE / 2), "{times:?}");
}
