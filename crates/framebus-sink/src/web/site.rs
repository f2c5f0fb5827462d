//! What is answered to whom.

use super::door::{self, Door, Shown};
use super::hub::Hub;
use super::shelf::Shelf;
use super::{check, shelf, socket};
use crate::http::Guest;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Utf8Bytes, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, extract::Extension};
use percent_encoding::percent_decode_str;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A request's body at most.
const BODY_BYTES: usize = 64 * 1024;
/// A body must be there within this time.
const BODY: Duration = Duration::from_secs(5);
/// A wrong token is answered after this time.
const WRONG: Duration = Duration::from_millis(500);

/// Everything comes from here, and nothing is run that is not a file of ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob:; media-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// What lies in the program: path, type, bytes.
const FILES: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/link.js", "text/javascript; charset=utf-8", include_str!("page/link.js")),
    ("/tile.js", "text/javascript; charset=utf-8", include_str!("page/tile.js")),
    ("/chart.js", "text/javascript; charset=utf-8", include_str!("page/chart.js")),
    ("/events.js", "text/javascript; charset=utf-8", include_str!("page/events.js")),
    ("/editor.js", "text/javascript; charset=utf-8", include_str!("page/editor.js")),
];
/// What the form to log in needs.
const OPEN: [&str; 2] = ["/style.css", "/icon.svg"];
const LOGIN: &str = include_str!("page/login.html");

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) door: Door,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shelf: Shelf,
    /// The first message to each viewer.
    pub(crate) hello: Utf8Bytes,
    /// The configuration file.
    pub(crate) file: PathBuf,
}

pub(crate) fn router(site: Arc<Site>) -> Router {
    let mut router = Router::new()
        .route("/login", post(login))
        .route("/ws", get(join))
        .route("/api/state", get(state))
        .route("/api/check", post(checked))
        .route("/event/{camera}/{wall_ms}/{name}", get(of_event));
    for (path, kind, text) in FILES {
        let answer = move || async move { ([(CONTENT_TYPE, kind)], text) };
        router = router.route(path, get(answer));
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state(site.clone(), guard))
        .layer(middleware::map_response(sealed))
        .with_state(site)
}

/// Lets through who may come in.
async fn guard(
    State(site): State<Arc<Site>>,
    Extension(guest): Extension<Guest>,
    RawQuery(query): RawQuery,
    request: Request,
    next: Next,
) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    if OPEN.contains(&path) || (path == "/login" && *method == Method::POST) {
        return next.run(request).await;
    }
    if let Some(token) = query.as_deref().and_then(|query| field(query, "token")) {
        return enter(&site, &token).await;
    }
    let shown = site.door.shown(request.headers());
    match shown {
        Shown::Token | Shown::Cookie => guest.admit(),
        Shown::Nothing | Shown::Wrong | Shown::TooOften => {
            return refusal(shown, path == "/").await;
        }
    }
    // A cookie comes along from wherever the request was made; a token does not.
    let may_change = *method == Method::GET && path != "/ws";
    let own = door::is_own(request.headers()).unwrap_or(shown == Shown::Token);
    if !may_change && !own {
        return (StatusCode::FORBIDDEN, "this does not come from the page\n").into_response();
    }
    next.run(request).await
}

/// Headers of every answer.
async fn sealed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let all: [(HeaderName, &'static str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // `no-referrer` would hide from us that a form is our own.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pictures of events stay; the page is that of the program that runs now.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The value of a field in a query or a form.
fn field(text: &str, name: &str) -> Option<Vec<u8>> {
    text.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| percent_decode_str(&value.replace('+', " ")).collect())
    })
}

async fn login(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    if door::is_own(&headers) == Some(false) {
        return (StatusCode::FORBIDDEN, "this does not come from the page\n").into_response();
    }
    let Some(body) = read(body).await else {
        return (StatusCode::BAD_REQUEST, "no form came\n").into_response();
    };
    let token = std::str::from_utf8(&body).ok().and_then(|form| field(form, "token"));
    enter(&site, token.unwrap_or_default().trim_ascii()).await
}

/// On to the page with a cookie instead of a token in the address, or back to the form.
async fn enter(site: &Site, token: &[u8]) -> Response {
    match (site.door.offered(token), site.door.set_cookie()) {
        (Shown::Token, Some(cookie)) => {
            let headers = [(SET_COOKIE, cookie), (LOCATION, HeaderValue::from_static("/"))];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        (shown, _) => refusal(shown, true).await,
    }
}

async fn refusal(shown: Shown, form: bool) -> Response {
    let (status, said) = match shown {
        Shown::TooOften => {
            (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens. Try again in ten seconds.")
        }
        Shown::Wrong => {
            tokio::time::sleep(WRONG).await;
            (StatusCode::UNAUTHORIZED, "That is not the token.")
        }
        _ => (StatusCode::UNAUTHORIZED, ""),
    };
    let mut response = if form {
        let page = LOGIN.replace("<!-- said -->", said);
        (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
    } else {
        let said = if said.is_empty() {
            "the token is needed: `Authorization: Bearer TOKEN`"
        } else {
            said
        };
        (status, format!("{said}\n")).into_response()
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    }
    response
}

async fn read(body: Body) -> Option<Bytes> {
    let body = axum::body::to_bytes(body, BODY_BYTES);
    tokio::time::timeout(BODY, body).await.ok()?.ok()
}

async fn join(State(site): State<Arc<Site>>, upgrade: WebSocketUpgrade) -> Response {
    let Some(viewer) = site.hub.join(std::slice::from_ref(&site.hello)) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "enough viewers already\n").into_response();
    };
    let seat = socket::Seat::new(site.hub.clone(), viewer);
    upgrade
        .max_message_size(socket::MESSAGE_BYTES)
        .max_frame_size(socket::MESSAGE_BYTES)
        // Each message is flushed; there is never more than one.
        .write_buffer_size(0)
        .on_upgrade(|socket| socket::serve(socket, seat))
}

async fn state(State(site): State<Arc<Site>>) -> Response {
    json(site.hub.last_state().to_string())
}

async fn checked(State(site): State<Arc<Site>>, body: Body) -> Response {
    let Some(body) = read(body).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "64 KiB at most, within 5 s\n").into_response();
    };
    json(check::check(&site.file, &String::from_utf8_lossy(&body)).to_string())
}

/// A snapshot or a clip.
async fn of_event(
    State(site): State<Arc<Site>>,
    Path((camera, wall_ms, name)): Path<(String, u64, String)>,
    headers: HeaderMap,
) -> Response {
    let read = tokio::task::spawn_blocking(move || {
        shelf::read(&site.shelf.find(&camera, wall_ms, &name)?, &headers)
    });
    read.await.ok().flatten().unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
