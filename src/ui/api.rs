//! The JSON API of the pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::live::Snapshot;
use super::server::Shared;
use crate::judge::human::{Desk, GivenLabel, Refusal, View};

/// An error response: a status and a sentence.
pub(super) struct Problem(StatusCode, String);

#[derive(Serialize)]
struct ProblemText<'a> {
    error: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(ProblemText { error: &self.1 })).into_response()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = match &refusal {
            Refusal::Unwritten(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::LongComment => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::CONFLICT,
        };
        Problem(status, refusal.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem(rejection.status(), format!("The request is invalid: {}.", rejection.body_text()))
    }
}

type Answer<T> = Result<Json<T>, Problem>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// The desk, if a person is the judge.
fn at_desk(shared: &Shared) -> Result<&Desk, Problem> {
    let none = || Problem(StatusCode::NOT_FOUND, "No person judges in this run.".into());
    shared.served.desk.as_deref().ok_or_else(none)
}

/// The pair to label and the progress; `?form=N` names the pair that the page currently shows.
pub(super) async fn desk(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Answer<View> {
    let form = query.as_deref().and_then(|query| query.strip_prefix("form=")?.parse().ok());
    Ok(Json(at_desk(&shared)?.view(form)))
}

/// Accepts a label and returns the next pair. The label is written to disk first, so a slow disk delays other requests.
pub(super) async fn label(State(shared): State<Arc<Shared>>, body: Body<GivenLabel>) -> Answer<View> {
    let Json(given) = body?;
    let desk = at_desk(&shared)?;
    desk.label(given)?;
    Ok(Json(desk.view(None)))
}

/// Names the label to undo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoBody {
    id: String,
}

/// Undoes a label and returns its pair.
pub(super) async fn undo(State(shared): State<Arc<Shared>>, body: Body<UndoBody>) -> Answer<View> {
    let Json(UndoBody { id }) = body?;
    let desk = at_desk(&shared)?;
    desk.undo(&id)?;
    Ok(Json(desk.view(None)))
}

/// A comment on the pair that the page shows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommentBody {
    id: String,
    form: u64,
    comment: String,
}

/// Stores a comment.
pub(super) async fn comment(State(shared): State<Arc<Shared>>, body: Body<CommentBody>) -> Answer<View> {
    let Json(CommentBody { id, form, comment }) = body?;
    let desk = at_desk(&shared)?;
    desk.comment(&id, form, &comment)?;
    Ok(Json(desk.view(Some(form))))
}

/// A request to the run.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wish {
    Pause,
    Resume,
    Save,
    Stop,
}

/// A click on a button.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestBody {
    wish: Wish,
}

/// The state of the run and the pending requests.
#[derive(Serialize)]
pub(super) struct RunView {
    #[serde(flatten)]
    pub run: Snapshot,
    pause: bool,
    save: bool,
    stop: bool,
}

impl RunView {
    pub fn of(shared: &Shared) -> RunView {
        let requests = &shared.served.requests;
        let (pause, save, stop) = (requests.pauses(), requests.saves(), requests.stops());
        RunView { run: shared.served.live.snapshot(), pause, save, stop }
    }
}

/// Returns the state of the run.
pub(super) async fn run(State(shared): State<Arc<Shared>>) -> Json<RunView> {
    Json(RunView::of(&shared))
}

/// Passes a request to the run.
pub(super) async fn request(State(shared): State<Arc<Shared>>, body: Body<RequestBody>) -> Answer<RunView> {
    let Json(RequestBody { wish }) = body?;
    let requests = &shared.served.requests;
    match wish {
        Wish::Pause => requests.ask_to_pause(true),
        Wish::Resume => requests.ask_to_pause(false),
        Wish::Save => requests.ask_to_save(),
        Wish::Stop => requests.ask_to_stop(),
    }
    shared.news.send_modify(|news| news.run += 1);
    Ok(Json(RunView::of(&shared)))
}
