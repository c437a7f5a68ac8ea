//! The threads that send requests. They share one [`Dispatch`] and follow its decisions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Blame, Client, Fault, Target};
use super::dispatch::{Dispatch, Next, Ticket};
use super::options::OpenAiOptions;
use super::protocol::Reply;

/// A timeout that never expires in practice.
const LONG_WAIT: Duration = Duration::from_secs(86_400);

/// The state shared by the threads and the queue.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Signals that a request may be sent.
    work: Condvar,
    /// Signals that a result has arrived.
    news: Condvar,
    client: Client,
    options: Arc<OpenAiOptions>,
}

/// The dispatch, and whether the queue still exists.
pub(super) struct State {
    pub dispatch: Dispatch,
    threads: usize,
    closed: bool,
}

impl Shared {
    pub fn new(dispatch: Dispatch, client: Client, options: Arc<OpenAiOptions>) -> Arc<Shared> {
        let state = Mutex::new(State { dispatch, threads: 0, closed: false });
        Arc::new(Shared { state, work: Condvar::new(), news: Condvar::new(), client, options })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the threads and starts as many more as there is work for. Returns an error if no thread is running and
    /// none can be started.
    pub fn work(self: &Arc<Shared>) -> std::io::Result<()> {
        let most = self.options.concurrency * self.options.urls.len();
        let mut state = self.lock();
        while state.threads < most.min(state.dispatch.unfinished()) {
            let shared = self.clone();
            match thread::Builder::new().name("judge".into()).spawn(move || shared.serve()) {
                Ok(_) => state.threads += 1,
                // The requests can also be sent by fewer threads.
                Err(_) if state.threads > 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.work.notify_all();
        Ok(())
    }

    /// Waits for a result, at most until `until`.
    pub fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        let time = until.map_or(LONG_WAIT, |until| until.saturating_duration_since(Instant::now()));
        self.news
            .wait_timeout(state, time)
            .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    /// Ends the threads without waiting for them: idle threads end at once, the others when their requests have ended.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// The main loop of a thread.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.closed {
            match state.dispatch.next(Instant::now()) {
                Next::Send(ticket) => {
                    let base =
                        state.dispatch.servers[ticket.server].address.bases[ticket.dialect.base].clone();
                    let local = state.dispatch.servers[ticket.server].address.is_local();
                    drop(state);
                    let outcome = self.ask(&ticket, &Target { base: &base, local });
                    state = self.lock();
                    state.dispatch.done(*ticket, outcome, Instant::now());
                    self.news.notify_all();
                    self.work.notify_all();
                }
                Next::Wait(until) => {
                    let time =
                        until.map_or(LONG_WAIT, |until| until.saturating_duration_since(Instant::now()));
                    let woken = self.work.wait_timeout(state, time);
                    state = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
                }
            }
        }
    }

    fn ask(&self, ticket: &Ticket, target: &Target<'_>) -> Result<Reply, Fault> {
        let body = ticket.dialect.prompt(&self.options, ticket.text(), ticket.kind).body().to_string();
        let reply = catch_unwind(AssertUnwindSafe(|| self.client.ask(target, &body, ticket.number)));
        reply.unwrap_or_else(|_| {
            Err(Fault::new(Blame::Either, "got no answer because the sending thread panicked: this is a bug"))
        })
    }
}
