//! The handshake of the ranks. Each sends one line when it connects:
//!
//! ```text
//! oaif-ranks-1 <rank> <number of ranks> <the port at which it listens>
//! oaif-ranks-1 <rank 0's address> <rank 1's> …                 (sent by rank 0 when all have connected)
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::TcpPlace;
use crate::error::{Error, Result};

/// The prefix of a line. Change it with any change of the protocol.
const HELLO: &str = "oaif-ranks-1";

/// The time limit for the first line of a new connection.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// A rank that is connected to this one.
pub struct Peer {
    pub rank: usize,
    pub stream: TcpStream,
    /// The address at which it listens.
    address: SocketAddr,
}

/// Connects to all other ranks. Returns them in the order of the ranks, and the address of every rank's machine. Must
/// not be called for a single rank.
pub fn meet(place: &TcpPlace) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let until = Instant::now() + place.patience;
    match place.rank {
        0 => welcome(place, until),
        _ => join(place, until),
    }
}

/// Rank 0: waits for the others and sends each of them the addresses of all.
fn welcome(place: &TcpPlace, until: Instant) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let here = format!("{}:{}", place.host, place.port);
    let listener = TcpListener::bind(&here).map_err(lost(format!("rank 0 cannot listen at {here}")))?;
    let peers = accept(&listener, place, until)?;
    let listening: Vec<String> = peers.iter().map(|peer| peer.address.to_string()).collect();
    for Peer { stream, .. } in &peers {
        // A rank compares this address with its own to detect that it runs on the same machine.
        let line = |address| format!("{HELLO} {address} {}\n", listening.join(" "));
        let sent = stream.local_addr().and_then(|own| { stream }.write_all(line(own).as_bytes()));
        sent.map_err(lost("lost a rank while connecting".into()))?;
    }
    let own = peers[0].stream.local_addr().map_err(lost("lost a rank while connecting".into()))?;
    let hosts = std::iter::once(own.ip()).chain(peers.iter().map(|peer| peer.address.ip())).collect();
    Ok((peers, hosts))
}

/// The other ranks: gets the addresses from rank 0, connects to the ranks below it, and waits for those above.
fn join(place: &TcpPlace, until: Instant) -> Result<(Vec<Peer>, Vec<IpAddr>)> {
    let there = format!("{}:{}", place.host, place.port);
    let ask = || {
        let stream = connect(&there, until)?;
        let listener = TcpListener::bind((stream.local_addr()?.ip(), 0))?;
        send_hello(&stream, place, listener.local_addr()?.port())?;
        stream.set_read_timeout(Some(place.patience))?;
        let table = read_line(&stream, 64 * place.size + 64)?;
        let table: Vec<SocketAddr> = table.split(' ').map(parse).collect::<io::Result<_>>()?;
        Ok((stream, listener, table))
    };
    let why = format!("rank {} cannot connect to rank 0 at {there}: see the output of rank 0", place.rank);
    let (stream, listener, table) = ask().map_err(lost(why))?;
    if table.len() != place.size {
        return Err(Error::Ranks(format!(
            "rank 0 was started for {} ranks, rank {} for {}: use the same WORLD_SIZE everywhere",
            table.len(),
            place.rank,
            place.size
        )));
    }
    let mut peers = vec![Peer { rank: 0, stream, address: table[0] }];
    for (rank, &address) in table.iter().enumerate().take(place.rank).skip(1) {
        let stream = connect(address, until)
            .and_then(|stream| send_hello(&stream, place, 0).map(|()| stream))
            .map_err(lost(format!("rank {} cannot reach rank {rank} at {address}", place.rank)))?;
        peers.push(Peer { rank, stream, address });
    }
    peers.extend(accept(&listener, place, until)?);
    Ok((peers, table.iter().map(SocketAddr::ip).collect()))
}

/// Waits for the ranks above this one. Connections without a valid first line are dropped.
fn accept(listener: &TcpListener, place: &TcpPlace, until: Instant) -> Result<Vec<Peer>> {
    let &TcpPlace { rank: own, size, .. } = place;
    listener.set_nonblocking(true).map_err(lost(format!("rank {own} cannot listen")))?;
    let (sender, receiver) = channel();
    let mut peers: Vec<Peer> = Vec::new();
    while own + 1 + peers.len() < size {
        if Instant::now() > until {
            return Err(Error::Ranks(format!(
                "only {} of {size} ranks connected to {}:{} within {} s: check that all are started, have the same \
                 version and can reach this address",
                own + 1 + peers.len(),
                place.host,
                place.port,
                place.patience.as_secs(),
            )));
        }
        match listener.accept() {
            Ok((stream, address)) => {
                let sender = sender.clone();
                // A connection that sends nothing does not delay the others.
                thread::spawn(move || _ = sender.send(read_hello(stream, address)));
            }
            // No connection, or one that was closed already.
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
        for (peer, ranks) in receiver.try_iter().flatten() {
            let rank = peer.rank;
            if ranks != size || rank <= own || rank >= size || peers.iter().any(|peer| peer.rank == rank) {
                return Err(Error::Ranks(format!(
                    "rank {own} of {size} cannot accept rank {rank} of {ranks} at {}: give \
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

/// Connects to an address, and retries until `until` if nothing listens there yet.
fn connect(address: impl ToSocketAddrs, until: Instant) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(&address) {
            Err(_) if Instant::now() < until => thread::sleep(Duration::from_millis(50)),
            done => return done,
        }
    }
}

fn send_hello(mut stream: &TcpStream, place: &TcpPlace, port: u16) -> io::Result<()> {
    writeln!(stream, "{HELLO} {} {} {port}", place.rank, place.size)
}

/// Reads the first line of a connection. Returns the peer and its number of ranks.
fn read_hello(stream: TcpStream, mut address: SocketAddr) -> io::Result<(Peer, usize)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(HELLO_TIME))?;
    let line = read_line(&stream, 64)?;
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (rank, ranks) = (parse(word())?, parse(word())?);
    address.set_port(parse(word())?);
    Ok((Peer { rank, stream, address }, ranks))
}

/// Reads a line and strips the prefix. Reads byte by byte, because the data after it belongs to other readers.
fn read_line(mut stream: &TcpStream, longest: usize) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < longest && byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&line);
    let line = line.trim_end();
    let rest = line.strip_prefix(HELLO).and_then(|rest| rest.strip_prefix(' '));
    rest.map(String::from)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not an oaif rank of this version"))
}

fn parse<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse()
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("unexpected {word:?} in the first line")))
}

fn lost(what: String) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Ranks(format!("{what}: {error}"))
}
