//! A run's page: how it goes, live, with buttons to pause it, to save and to end it; and where a person is the judge, the
//! pairs to label. A server on a thread of its own, for browsers on this machine.
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
//! // A run asks `queue`, tells `observer`, and looks at `requests` between steps.
//! let mut nobody = ();
//! let (queue, observer) = (Human::new(desk), UiObserver::new(live.clone(), &mut nobody));
//! # drop((queue, observer));
//! live.end("The model is in run/model.");
//! # Ok::<(), oaif::Error>(())
//! ```
//!
//! Who knows the address that [`Ui::url`] gives may use the page, nobody else: not another user of the machine, and no page of
//! another site that the same browser has open (`guard.rs` tells what is checked). Pages come with all they need, and work
//! without a network.
//!
//! The server is `axum` on a current-thread runtime of `tokio`: the tokio project maintains both, and with `hyper` they have
//! the tests and the reports of most Rust servers behind them. They add 23 crates to the program's 198. `hyper` alone would add
//! 10, and want a router, extractors and events of our own; `tiny_http` 4, but it has had no release since 0.12 of 2022, takes a thread
//! for each reader of events and bounds nothing; `warp` adds 40, `poem` 47, `actix-web` 67.

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

/// Where the page is to be had.
#[derive(Clone, Debug, Default)]
pub struct UiOptions {
    /// The port; `None` for a free one.
    pub port: Option<u16>,
    /// The address of an interface of this machine, to reach the page from others; `None` for this machine alone. What is sent is
    /// not encrypted: whoever can read the network between can read the page and use it.
    pub address: Option<IpAddr>,
}

/// What a page shows and changes.
#[derive(Clone)]
pub struct Served {
    /// Pairs to label, where a person is the judge.
    pub desk: Option<Arc<Desk>>,
    /// How the run goes.
    pub live: Arc<LiveRun>,
    /// What the buttons set.
    pub requests: Arc<Requests>,
}

/// A server that runs. Dropping it ends it, within a second.
pub struct Ui {
    url: String,
    address: SocketAddr,
    ending: server::Ending,
    thread: Option<JoinHandle<()>>,
}

impl Ui {
    /// Begins to serve.
    ///
    /// # Errors
    /// [`Error::Config`] for a port that is taken, and for an address that is not of this machine or that is none of one interface
    /// (such as 0.0.0.0: a request could not be told from one for another machine); where the system gives no random numbers
    /// or no thread.
    pub fn start(options: &UiOptions, served: Served) -> Result<Ui> {
        let ip = options.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        if ip.is_unspecified() || ip.is_multicast() {
            let why =
                format!("{ip} is not the address of one interface: give the one that browsers will use");
            return Err(Error::config("address", why));
        }
        let wanted = SocketAddr::new(ip, options.port.unwrap_or(0));
        let unbound = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AddrNotAvailable => {
                Error::config("address", format!("{ip} is not an address of this machine ({e})"))
            }
            _ => Error::config(
                "port",
                format!("cannot listen on {wanted} ({e}): choose another port, or none"),
            ),
        };
        let listener = TcpListener::bind(wanted).map_err(unbound)?;
        let address = listener.local_addr().map_err(unbound)?;
        let token = secrets::random()?;
        let url = format!("http://{address}/?token={token}");
        let (ending, thread) = server::start(listener, address, token, served)?;
        Ok(Ui { url, address, ending, thread: Some(thread) })
    }

    /// The address for a browser, with the secret that opens the page.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.ending.end();
        if let Some(thread) = self.thread.take() {
            // A panic there has ended what this was to end.
            let _ = thread.join();
        }
    }
}
