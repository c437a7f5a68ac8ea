//! The link to one rank: outgoing frames, incoming frames, and heartbeats.

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The interval of the heartbeats.
const BEAT: Duration = Duration::from_secs(1);

/// The longest frame accepted, in bytes.
const LONGEST: u64 = 1 << 36;

/// The kinds of frames.
const ALIVE: u8 = 0;
const DATA: u8 = 1;
const GOODBYE: u8 = 2;
const FAILED: u8 = 3;

/// A message to another rank.
#[derive(Clone)]
pub enum Frame {
    /// Data of an operation.
    Data(Arc<Vec<u8>>),
    /// The last frame of a rank that has finished.
    Goodbye,
    /// The sender failed, with this message.
    Failed(String),
}

/// The first error of this rank. Setting it sends it to all other ranks.
#[derive(Default)]
pub struct Failure {
    why: Mutex<Option<String>>,
    links: Mutex<Vec<Sender<Frame>>>,
}

impl Failure {
    pub fn get(&self) -> Option<String> {
        self.why.lock().unwrap().clone()
    }

    pub fn set(&self, why: String) {
        let mut first = self.why.lock().unwrap();
        if first.is_none() {
            for link in self.links.lock().unwrap().drain(..) {
                _ = link.send(Frame::Failed(why.clone()));
            }
            *first = Some(why);
        }
    }
}

/// The link to one rank.
pub struct Link {
    stream: TcpStream,
    frames: Sender<Frame>,
    writer: JoinHandle<()>,
    /// The data received. Disconnected when the rank has left or is lost.
    pub received: Receiver<Vec<u8>>,
}

impl Link {
    pub fn new(
        peer: usize,
        stream: TcpStream,
        silence: Duration,
        failure: &Arc<Failure>,
    ) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        // Counts many short timeouts rather than waiting for a long one, so that no rank appears lost after the whole
        // job was suspended for a while.
        stream.set_read_timeout(Some(BEAT.min(silence / 4)))?;
        let (frames, to_write) = channel();
        let (receiving, received) = channel();
        let (output, input, failure) = (stream.try_clone()?, stream.try_clone()?, failure.clone());
        failure.links.lock().unwrap().push(frames.clone());
        // Write errors are ignored: the reader thread detects a broken connection.
        let writer = thread::spawn(move || _ = write(output, to_write));
        thread::spawn(move || {
            // The channel closes after the failure is set, so that a thread that waits for data finds the cause.
            if let Err(why) = read(&input, silence, &receiving) {
                failure.set(format!("rank {peer}{why}"));
            }
        });
        Ok(Link { stream, frames, writer, received })
    }

    pub fn send(&self, frame: Frame) {
        _ = self.frames.send(frame);
    }

    /// Whether everything was written or writing failed.
    pub fn is_flushed(&self) -> bool {
        self.writer.is_finished()
    }

    pub fn shut_down(&self) {
        _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Writes frames until the last one.
fn write(stream: TcpStream, frames: Receiver<Frame>) -> io::Result<()> {
    // Sends a short frame in one write; long frames bypass the buffer.
    let mut output = BufWriter::new(stream);
    loop {
        let (kind, bytes, last) = match frames.recv_timeout(BEAT) {
            Ok(Frame::Data(bytes)) => (DATA, bytes, false),
            Ok(Frame::Goodbye) => (GOODBYE, Arc::default(), true),
            Ok(Frame::Failed(why)) => (FAILED, Arc::new(why.into_bytes()), true),
            Err(RecvTimeoutError::Timeout) => (ALIVE, Arc::default(), false),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        output.write_all(&[kind])?;
        output.write_all(&(bytes.len() as u64).to_le_bytes())?;
        output.write_all(&bytes)?;
        output.flush()?;
        if last {
            return Ok(());
        }
    }
}

/// Reads frames until the last one. Data is queued as it arrives: if it stayed in the socket, the heartbeats behind it
/// would not be read.
fn read(stream: &TcpStream, silence: Duration, received: &Sender<Vec<u8>>) -> Result<(), String> {
    loop {
        let header = read_exactly(stream, 9, silence)?;
        let length = u64::from_le_bytes(header[1..].try_into().expect("eight bytes"));
        let is_empty = matches!(header[0], ALIVE | GOODBYE);
        if header[0] > FAILED || length > LONGEST || is_empty && length > 0 {
            return Err(format!(
                " sent an invalid frame (kind {}, {length} bytes): check that no other program uses this port",
                header[0]
            ));
        }
        let bytes = read_exactly(stream, length as usize, silence)?;
        match header[0] {
            ALIVE => {}
            // The receiver is gone if this rank has left.
            DATA => _ = received.send(bytes),
            GOODBYE => return Ok(()),
            _ => return Err(format!(" failed: {}", String::from_utf8_lossy(&bytes))),
        }
    }
}

fn read_exactly(stream: &TcpStream, length: usize, silence: Duration) -> Result<Vec<u8>, String> {
    let lost = |error: &dyn std::fmt::Display| format!(" is lost ({error}): see its output");
    let turn = stream.read_timeout().ok().flatten().unwrap_or(BEAT);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(length)
        .map_err(|_| format!(" sent {length} bytes, which do not fit into the memory of this machine"))?;
    let mut quiet = Duration::ZERO;
    while bytes.len() < length {
        let before = bytes.len();
        // Keeps the bytes read before an error.
        match stream.take((length - before) as u64).read_to_end(&mut bytes) {
            Ok(_) if bytes.len() < length => return Err(lost(&"connection closed")),
            Ok(_) => {}
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(lost(&error));
            }
            Err(_) if bytes.len() > before => quiet = Duration::ZERO,
            Err(_) => quiet += turn,
        }
        if quiet >= silence {
            return Err(format!(
                " sent nothing for {} s: its process or the connection to it is lost",
                silence.as_secs_f32()
            ));
        }
    }
    Ok(bytes)
}
