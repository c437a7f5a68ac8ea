//! Limits the number of open connections: further ones wait, so that the run does not lose its file descriptors. An
//! inactive connection is closed and makes room for the next one.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// The maximum number of open connections.
pub(super) const CONNECTIONS: usize = 128;

/// The maximum time without sending on a connection: within it, a request must be complete and an answer must be taken.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Accepts a connection when there is room for it.
pub(super) struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
    silence: Duration,
}

impl Bounded {
    /// Closes connections on which nothing was sent for `silence`.
    pub fn new(listener: TcpListener, silence: Duration) -> Bounded {
        Bounded { listener, room: Arc::new(Semaphore::new(CONNECTIONS)), silence }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so this returns a permit eventually.
        let place = self.room.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(sleep(self.silence));
        (Connection { stream, silence: self.silence, end, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection and its permit.
pub(super) struct Connection {
    stream: TcpStream,
    silence: Duration,
    /// When the connection times out.
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// The result of a poll, or an error after the timeout. Reading does not extend it, because a request may come byte
    /// by byte.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled.is_pending() && self.end.as_mut().poll(cx).is_ready() {
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => polled,
        }
    }

    /// The same for a write, which restarts the timeout.
    fn sent(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = polled {
            self.end.as_mut().reset(Instant::now() + self.silence);
        }
        self.in_time(cx, polled)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.in_time(cx, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use axum::Router;
    use axum::response::sse::{Event, KeepAlive, Sse};
    use axum::routing::get;
    use futures_util::stream;
    use tokio::runtime;

    use super::*;

    /// Longer than a thread is delayed on a busy machine.
    const SILENCE: Duration = Duration::from_secs(2);

    /// More than is sent to a client that reads nothing.
    const LONG: usize = 64 << 20;

    /// A server with an event stream and a long text.
    fn served(clients: impl FnOnce(SocketAddr)) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let events = || async {
            let alive = KeepAlive::new().interval(SILENCE / 20);
            Sse::new(stream::pending::<Result<Event, Infallible>>()).keep_alive(alive)
        };
        let long = || async { "x".repeat(LONG) };
        let router =
            Router::new().route("/events", get(events).post(|_: String| async {})).route("/long", get(long));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let serve = async move {
            let server = axum::serve(Bounded::new(listener, SILENCE), router);
            let (server, ended) = (std::pin::pin!(server.into_future()), std::pin::pin!(ended));
            futures_util::future::select(server, ended).await;
        };
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        clients(address);
        drop(end);
        thread.join().unwrap();
    }

    fn connect(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    #[test]
    fn a_client_that_does_not_finish_its_request_or_read_the_answer_is_disconnected() {
        served(|address| {
            let begun = Instant::now();
            let half = "POST /events HTTP/1.1\r\nHost: x\r\n";
            let without_body = format!("{half}Content-Length: 9\r\n\r\n");
            let silent = ["", half, &without_body].into_iter().cycle().take(CONNECTIONS - 2);
            let crowd: Vec<TcpStream> = silent.map(|text| connect(address, text)).collect();
            let deaf = connect(address, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut slow = connect(address, "GET /events HTTP/1.1\r\nX: ");
            let mut person = connect(address, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut answer = [0; 12];
            person.read_exact(&mut answer).unwrap();
            assert!(&answer == b"HTTP/1.1 200" && begun.elapsed() >= SILENCE, "{:?}", begun.elapsed());
            // Sending byte by byte does not extend the timeout.
            let ended = (0..400).any(|_| {
                std::thread::sleep(SILENCE / 20);
                slow.write_all(b"x").is_err()
            });
            assert!(ended);
            // All of them are closed; the last one still receives the rest of the answer that it had not read.
            for mut stream in crowd {
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
            std::thread::sleep(2 * SILENCE);
            let mut taken = Vec::new();
            let _ = { deaf }.read_to_end(&mut taken);
            assert!(taken.len() < LONG, "{} bytes", taken.len());
        });
    }

    #[test]
    fn keep_alives_keep_an_event_stream_open() {
        served(|address| {
            let begun = Instant::now();
            let mut stream = connect(address, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
            while begun.elapsed() < 2 * SILENCE {
                let read = stream.read(&mut [0; 512]);
                assert!(read.as_ref().is_ok_and(|n| *n > 0), "{read:?} after {:?}", begun.elapsed());
            }
        });
    }
}
