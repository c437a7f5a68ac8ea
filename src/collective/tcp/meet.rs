//! How ranks find each other. Each says one line when it connects:
//!
//! ```text
//! oaif-ranks-1 <rank> <ranks> <the port at which it listens>
//! oaif-ranks-1 <rank 0's address> <rank 1's> …                 (rank 0's answer, when all are there)
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::TcpPlace;
use crate::error::{Error, Result};

/// What a line begins with: changed together with anything that goes over a link.
const HELLO: &str = "oaif-ranks-1";

/// How long somebody who connects may take to say it.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// A rank that is connected to this one.
pub struct Peer {
    pub rank: usize,
    pub stream: TcpStream,
    /// Where it listens.
    address: SocketAddr,
}

/// All other ranks in their order, and every rank's machine. With one rank, there is nobody to meet.
pub fn meet(place: &TcpPlace) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let until = Instant::now() + place.patience;
    match place.rank {
        0 => welcome(place, until),
        _ => join(place, until),
    }
}

/// Rank 0: waits for the others, and tells each where all of them listen.
fn welcome(place: &TcpPlace, until: Instant) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let here = format!("{}:{}", place.host, place.port);
    let listener = TcpListener::bind(&here).map_err(lost(format!("rank 0 cannot listen at {here}")))?;
    let peers = accept(&listener, place, until)?;
    let listening: Vec<String> = peers.iter().map(|peer| peer.address.to_string()).collect();
    for Peer { stream, .. } in &peers {
        // The address at which a rank reached this one tells whether it is on the same machine.
        let line = |address| format!("{HELLO} {address} {}\n", listening.join(" "));
        let told = stream.local_addr().and_then(|own| { stream }.write_all(line(own).as_bytes()));
        told.map_err(lost("a rank was lost at the beginning".into()))?;
    }
    let own = peers[0].stream.local_addr().map_err(lost("a rank was lost at the beginning".into()))?;
    let hosts = std::iter::once(own.ip()).chain(peers.iter().map(|peer| peer.address.ip())).collect();
    Ok((peers, hosts))
}

/// Any other rank: asks rank 0 where the others listen, connects to those below it, and waits for those above.
fn join(place: &TcpPlace, until: Instant) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let there = format!("{}:{}", place.host, place.port);
    let ask = || {
        let stream = connect(&there, until)?;
        let listener = TcpListener::bind((stream.local_addr()?.ip(), 0))?;
        say_hello(&stream, place, listener.local_addr()?.port())?;
        stream.set_read_timeout(Some(place.patience))?;
        let table = read_line(&stream, 64 * place.size + 64)?;
        let table: Vec<SocketAddr> = table.split(' ').map(parse).collect::<io::Result<_>>()?;
        Ok((stream, listener, table))
    };
    let why = format!("rank {} was not let in by rank 0 at {there}, whose output may tell why", place.rank);
    let (stream, listener, table) = ask().map_err(lost(why))?;
    if table.len() != place.size {
        return Err(Error::Ranks(format!(
            "rank 0 knows of {} ranks, rank {} of {}",
            table.len(),
            place.rank,
            place.size
        )));
    }
    let mut peers = vec![Peer { rank: 0, stream, address: table[0] }];
    for (rank, &address) in table.iter().enumerate().take(place.rank).skip(1) {
        let stream = connect(address, until)
            .and_then(|stream| say_hello(&stream, place, 0).map(|()| stream))
            .map_err(lost(format!("rank {} cannot reach rank {rank} at {address}", place.rank)))?;
        peers.push(Peer { rank, stream, address });
    }
    peers.extend(accept(&listener, place, until)?);
    Ok((peers, table.iter().map(SocketAddr::ip).collect()))
}

/// Waits for the ranks above this one. Whoever does not say hello is dropped.
fn accept(listener: &TcpListener, place: &TcpPlace, until: Instant) -> Result<Vec<Peer>> {
    let &TcpPlace { rank: own, size, .. } = place;
    listener.set_nonblocking(true).map_err(lost(format!("rank {own} cannot listen")))?;
    let (telling, told) = channel();
    let mut peers: Vec<Peer> = Vec::new();
    while own + 1 + peers.len() < size {
        if Instant::now() > until {
            return Err(Error::Ranks(format!(
                "only {} of {size} ranks came to {}:{} within {} s: are all started, of the same version, and can they \
                 reach this address?",
                own + 1 + peers.len(),
                place.host,
                place.port,
                place.patience.as_secs(),
            )));
        }
        match listener.accept() {
            Ok((stream, address)) => {
                let telling = telling.clone();
                // Somebody who says nothing keeps nobody else waiting.
                thread::spawn(move || _ = telling.send(hear_hello(stream, address)));
            }
            // Nobody, or one who went away before.
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
        for (peer, ranks) in told.try_iter().flatten() {
            let rank = peer.rank;
            if ranks != size || rank <= own || rank >= size || peers.iter().any(|peer| peer.rank == rank) {
                return Err(Error::Ranks(format!(
                    "a process at {} says that it is rank {rank} of {ranks}, rank {own} of {size} has no place for it: give \
                     each rank its own number from 0 to {}",
                    peer.address.ip(),
                    size - 1,
                )));
            }
            peers.push(peer);
        }
    }
    peers.sort_by_key(|peer| peer.rank);
    Ok(peers)
}

/// Connects, to somebody who may not be there yet.
fn connect(address: impl ToSocketAddrs, until: Instant) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(&address) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}

fn say_hello(mut stream: &TcpStream, place: &TcpPlace, port: u16) -> io::Result<()> {
    writeln!(stream, "{HELLO} {} {} {port}", place.rank, place.size)
}

/// Who it is, and how many ranks it knows of.
fn hear_hello(stream: TcpStream, mut address: SocketAddr) -> io::Result<(Peer, usize)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HELLO_TIME))?;
    let line = read_line(&stream, 64)?;
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (rank, ranks) = (parse(word())?, parse(word())?);
    address.set_port(parse(word())?);
    Ok((Peer { rank, stream, address }, ranks))
}

/// A line after its hello. Byte by byte: what follows it belongs to others.
fn read_line(mut stream: &TcpStream, longest: usize) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < longest && byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_end();
    let rest = line.strip_prefix(HELLO).and_then(|rest| rest.strip_prefix(' '));
    rest.map(String::from).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no hello of this version"))
}

fn parse<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("{word:?} has no place in a hello")))
}

fn lost(what: String) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Ranks(format!("{what}: {error}"))
}
