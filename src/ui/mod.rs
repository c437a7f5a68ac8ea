//! A web page for a run: live progress, buttons to pause, save and stop, and, if a person is the judge, the pairs to
//! label. It is served on a separate thread, for browsers on this machine.
//!
//! ```text
//! Observer --StepReport--> UiObserver --> LiveRun --.             .--> /run    curves, pairs, warnings, buttons
//!                                                    >-- Ui ------<
//! Human <--labels-- Desk <--------------------------'             '--> /label  the next pair
//! trainer <--flags-- Requests <-----------------------------------'
//! ```
//!
//! ```
//! use std::sync::Arc;
//!
//! use oaif::judge::{Desk, Human};
//! use oaif::train::Requests;
//! use oaif::unstable::ui::{LiveRun, Served, Ui, UiObserver, UiOptions};
//!
//! let desk = Arc::new(Desk::new());
//! let live = Arc::new(LiveRun::new("A story teller", vec![("Loss".into(), "DPO".into())]));
//! let requests = Arc::new(Requests::default());
//! let served = Served { desk: Some(desk.clone()), live: live.clone(), requests: requests.clone() };
//! let ui = Ui::start(&UiOptions::default(), served)?;
//! assert!(ui.url().starts_with("http://127.0.0.1:"));
//! // A run uses `queue` as its judge, reports to `observer`, and checks `requests` between steps.
//! let mut ignored = ();
//! let (queue, observer) = (Human::new(desk), UiObserver::new(live.clone(), &mut ignored));
//! # drop((queue, observer));
//! live.end("The model is in run/model.");
//! # Ok::<(), oaif::Error>(())
//! ```
//!
//! Only a browser that knows the URL from [`Ui::url`] can use the page; other users of the machine cannot, nor can
//! pages of other sites in the same browser (see `guard.rs` for the checks). The pages load nothing from elsewhere and
//! work without a network.
//!
//! The server is `axum` on a current-thread runtime of `tokio`. Both are maintained by the tokio project and, together
//! with `hyper`, are the most widely used and tested Rust server stack. They add 23 crates to the program's 198.
//! `hyper` alone would add 10 but need our own router, extractors and events; `tiny_http` would add 4, but its last
//! release is 0.12 of 2022, it takes a thread per reader of events, and it has no limits; `warp` adds 40, `poem` 47,
//! `actix-web` 67.

mod api;
mod connections;
mod curve;
mod events;
mod guard;
mod live;
mod observer;
mod pages;
mod secrets;
mod server;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

pub use live::LiveRun;
pub use observer::UiObserver;

use crate::error::{Error, Result};
use crate::judge::human::Desk;
use crate::train::Requests;

/// Where the page is served.
#[derive(Clone, Debug, Default)]
pub struct UiOptions {
    /// The port; `None` for any free one.
    pub port: Option<u16>,
    /// The address of a network interface of this machine, to make the page available to other machines; `None` for
    /// this machine only. The connection is not encrypted: anyone who can read the network traffic can read and use the
    /// page.
    pub address: Option<IpAddr>,
}

/// What the page shows and controls.
#[derive(Clone)]
pub struct Served {
    /// The pairs to label, if a person is the judge.
    pub desk: Option<Arc<Desk>>,
    /// The state of the run.
    pub live: Arc<LiveRun>,
    /// The flags set by the buttons.
    pub requests: Arc<Requests>,
}

/// A running server. Dropping it stops the server within a second.
pub struct Ui {
    url: String,
    address: SocketAddr,
    ending: server::Ending,
    thread: Option<JoinHandle<()>>,
}

impl Ui {
    /// Starts the server.
    ///
    /// # Errors
    /// [`Error::Config`] for a port that is in use, for an address that does not belong to this machine or to a single
    /// interface (such as 0.0.0.0: the `Host` check would not know its own name), and if the system provides no random
    /// numbers or no thread.
    pub fn start(options: &UiOptions, served: Served) -> Result<Ui> {
        let ip = options.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if ip.is_unspecified() || ip.is_multicast() {
            let why =
                format!("{ip} is not the address of one interface: use the address that browsers will open");
            return Err(Error::config("address", why));
        }
        let wanted = SocketAddr::new(ip, options.port.unwrap_or(0));
        let unbound = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AddrNotAvailable => {
                Error::config("address", format!("{ip} is not an address of this machine ({e})"))
            }
            _ => Error::config(
                "port",
                format!("cannot listen on {wanted} ({e}): choose another port, or leave it out"),
            ),
        };
        let listener = TcpListener::bind(wanted).map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let token = secrets::random()?;
        let url = format!("http://{address}/?token={token}");
        let (ending, thread) = server::start(listener, address, token, served)?;
        Ok(Ui { url, address, ending, thread: Some(thread) })
    }

    /// The URL for a browser; it contains the secret token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.ending.end();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the server, too.
            let _ = thread.join();
        }
    }
}
