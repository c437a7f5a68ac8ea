//! Server-sent events: "change" with counters of what has changed, and "end" with the last state of the run. A page
//! then reads the data that it shows, so several changes can be merged into one event, and a page that reconnects
//! misses nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;

use super::api::RunView;
use super::connections::SILENCE;
use super::server::{News, Shared};

/// The maximum number of pages open at once.
const READERS: usize = 64;
/// Changes within this time are merged into one event.
const TOGETHER: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct Change {
    desk: u64,
    run: u64,
}

/// A page that reads events; counted while it exists.
struct Reader {
    shared: Arc<Shared>,
    news: watch::Receiver<News>,
    begun: bool,
    ended: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        if std::mem::replace(&mut self.begun, true) {
            self.news.changed().await.ok()?;
            if !self.news.borrow().ending {
                tokio::time::sleep(TOGETHER).await;
            }
        }
        let News { desk, run, ending } = *self.news.borrow_and_update();
        self.ended = ending;
        match ending {
            true => Event::default().event("end").json_data(RunView::of(&self.shared)).ok(),
            false => Event::default().event("change").json_data(Change { desk, run }).ok(),
        }
    }
}

/// The event stream of one page; the first event is sent at once.
pub(super) async fn events(State(shared): State<Arc<Shared>>) -> Response {
    if shared.readers.fetch_add(1, Ordering::Relaxed) >= READERS {
        shared.readers.fetch_sub(1, Ordering::Relaxed);
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open: close some.\n").into_response();
    }
    let news = shared.news.subscribe();
    let reader = Reader { shared, news, begun: false, ended: false };
    let events = stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(SILENCE / 2)).into_response()
}
