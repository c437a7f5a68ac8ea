//! The pages and their files, all embedded in the program.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::server::Shared;

/// Name, type and content of each file.
const FILES: [(&str, &str, &str); 9] = [
    ("report.css", "text/css; charset=utf-8", include_str!("../report/page.css")),
    ("plot.css", "text/css; charset=utf-8", include_str!("../report/plot.css")),
    ("ui.css", "text/css; charset=utf-8", include_str!("web/ui.css")),
    ("label.js", "text/javascript; charset=utf-8", include_str!("web/label.js")),
    ("run.js", "text/javascript; charset=utf-8", include_str!("web/run.js")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("web/page.js")),
    ("plot.js", "text/javascript; charset=utf-8", include_str!("web/plot.js")),
    ("format.js", "text/javascript; charset=utf-8", include_str!("web/format.js")),
    ("icon.svg", "image/svg+xml", include_str!("web/icon.svg")),
];

/// Serves one of the files.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => ([(header::CONTENT_TYPE, *kind)], *content).into_response(),
        None => (StatusCode::NOT_FOUND, "No such file.\n").into_response(),
    }
}

/// The entry page: if the URL contains the token, sets the cookie and redirects, so that the token leaves the address
/// bar.
pub(super) async fn front(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let page = Redirect::to(if shared.served.desk.is_some() { "/label" } else { "/run" });
    match shared.guard.brings_token(&request.into_parts().0) {
        true => ([(header::SET_COOKIE, shared.guard.set_cookie())], page).into_response(),
        false => page.into_response(),
    }
}

/// The page for labelling.
pub(super) async fn label(State(shared): State<Arc<Shared>>) -> Response {
    match shared.served.desk {
        Some(_) => page(&shared, include_str!("web/label.html")),
        None => Redirect::to("/run").into_response(),
    }
}

/// The page of the run.
pub(super) async fn run(State(shared): State<Arc<Shared>>) -> Response {
    page(&shared, include_str!("web/run.html"))
}

/// A page with the value that its requests must carry.
fn page(shared: &Shared, html: &str) -> Response {
    match shared.guard.pages.issue() {
        Ok(value) => {
            let labels = if shared.served.desk.is_some() { "yes" } else { "no" };
            Html(html.replace("{page}", &value).replace("{labels}", labels)).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
