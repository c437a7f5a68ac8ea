//! The server's thread, and the processing of every request.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::runtime;
use tokio::sync::watch;

use super::connections::{Bounded, SILENCE};
use super::guard::{Guard, Refused};
use super::{Served, api, events, pages};
use crate::error::{Error, Result};

/// The maximum size of a request body: a comment of maximum length in which every character is escaped.
pub(super) const MAX_BODY: usize = 64 << 10;
/// How long the last answers may take when the server stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The state shared by all requests.
pub(super) struct Shared {
    pub served: Served,
    pub guard: Guard,
    pub news: watch::Sender<News>,
    /// The number of open event streams.
    pub readers: AtomicUsize,
}

/// Counters of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub desk: u64,
    pub run: u64,
    pub ending: bool,
}

/// Stops the server.
pub(super) struct Ending(watch::Sender<News>);

impl Ending {
    pub fn end(&self) {
        self.0.send_modify(|news| news.ending = true);
    }
}

/// Serves `listener` on a separate thread.
pub(super) fn start(
    listener: TcpListener,
    address: SocketAddr,
    token: String,
    served: Served,
) -> Result<(Ending, JoinHandle<()>)> {
    let unstarted = |e: std::io::Error| Error::config("ui", format!("the server cannot be started ({e})"));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(unstarted)?;
    listener.set_nonblocking(true).map_err(unstarted)?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener).map_err(unstarted)?
    };
    let news = watch::Sender::new(News::default());
    let guard = Guard::new(address, token)?;
    let shared = Arc::new(Shared { served, guard, news: news.clone(), readers: AtomicUsize::new(0) });
    listen_for_changes(&shared);
    let mut ending = news.subscribe();
    let ends = async move {
        // This also ends if the sender is gone.
        let _ = ending.wait_for(|news| news.ending).await;
    };
    let serve = async move {
        let mut last = shared.news.subscribe();
        let server =
            axum::serve(Bounded::new(listener, SILENCE), router(shared)).with_graceful_shutdown(ends);
        let too_long = async move {
            let _ = last.wait_for(|news| news.ending).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        // A client that reads nothing must not delay the end of the run.
        let (server, too_long) = (std::pin::pin!(server.into_future()), std::pin::pin!(too_long));
        futures_util::future::select(server, too_long).await;
    };
    let thread = thread::Builder::new().name("oaif-ui".into()).spawn(move || runtime.block_on(serve));
    Ok((Ending(news), thread.map_err(unstarted)?))
}

/// Counts changes of the desk and of the run while the server exists.
fn listen_for_changes(shared: &Arc<Shared>) {
    let tell = |change: fn(&mut News)| {
        let shared = Arc::downgrade(shared);
        move || shared.upgrade().map(|shared| shared.news.send_modify(change)).is_some()
    };
    if let Some(desk) = &shared.served.desk {
        desk.on_change(tell(|news| news.desk += 1));
    }
    shared.served.live.on_change(tell(|news| news.run += 1));
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(pages::front))
        .route("/label", get(pages::label))
        .route("/run", get(pages::run))
        .route("/files/{name}", get(pages::file))
        .route("/api/desk", get(api::desk))
        .route("/api/run", get(api::run))
        .route("/api/events", get(events::events))
        .route("/api/label", post(api::label))
        .route("/api/undo", post(api::undo))
        .route("/api/comment", post(api::comment))
        .route("/api/request", post(api::request))
        .fallback(|| async { (StatusCode::NOT_FOUND, "No such page.\n") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(shared.clone(), guarded))
        .with_state(shared)
}

/// Refuses requests that are not allowed, and adds the security headers.
async fn guarded(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match shared.guard.check(&parts) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(Refused(why)) => (Refused::STATUS, format!("{why}\n")).into_response(),
    };
    protect(response.headers_mut());
    response
}

fn protect(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
    let fixed: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
