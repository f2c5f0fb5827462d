//! Figures of the whole instance for Prometheus: every process reports on the bus, and this
//! one answers `GET /metrics` for all of them.

mod figures;
mod metrics;
mod text;
mod usage;

use crate::feed::{Feed, Message};
use crate::http::{self, Bounds, Guest, Server, Token};
use bytes::Bytes;
use figures::Figures;
use framebus_config::{Prometheus, Sink};
use framebus_service::{Failure, Service, Vitals, clock};
use framebus_types::{Counter, State};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use text::Format;

/// One or two servers that scrape, and some people with `curl`.
const BOUNDS: Bounds =
    Bounds { connections: 32, keep_alive: false, longest: Some(Duration::from_secs(20)) };
/// Refused clients are spoken of once in so long, ns.
const REFUSED_EVERY_NS: u64 = 60_000_000_000;

/// Runs until asked to stop.
pub(crate) fn serve(
    service: &Service,
    sink: &Sink,
    settings: &Prometheus,
    vitals: &Arc<Vitals>,
) -> Result<(), Failure> {
    let listener = http::bind(settings.listen, sink.name.as_str())?;
    let health = service.bus().health_subscriber()?;
    let figures = Figures::new(service.config(), &sink.cameras, clock::monotonic_ns());
    let endpoint = Arc::new(Endpoint {
        figures: Mutex::new(figures),
        token: Token::new(settings.token.clone()),
        vitals: vitals.clone(),
        refused_ns: Mutex::new(0),
    });
    let mut feed = Feed::open(service, sink, vitals, (false, true))?;
    let shown = endpoint.clone();
    let answering = hyper::service::service_fn(move |request| {
        let answer = shown.answer(&request);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let _server = Server::start(listener, BOUNDS, answering)?;
    vitals.set_detail(&format!("prometheus at http://{}/metrics", settings.listen));
    vitals.set_state(State::Live, "");
    service.ready();
    let mut records = Vec::new();
    loop {
        let goes_on = feed.turn(|message| {
            if let Message::Event(event) = message {
                endpoint.figures().count(event);
            }
        })?;
        if !goes_on {
            return Ok(());
        }
        // It wakes nobody here: a report that is a tenth of a second late is none the worse.
        let _ = health.waker().wait(Duration::ZERO)?;
        let bad = health.receive_into(&mut records)?;
        vitals.add(Counter::BadHeaders, bad as u64);
        let mut figures = endpoint.figures();
        if let Some(config) = feed.changed() {
            figures.configure(&config);
        }
        records.drain(..).for_each(|record| figures.collector.add(&record));
        figures.collector.forget_stopped(clock::monotonic_ns());
    }
}

/// What is asked.
struct Endpoint {
    figures: Mutex<Figures>,
    token: Token,
    vitals: Arc<Vitals>,
    /// When a refused client was spoken of.
    refused_ns: Mutex<u64>,
}

impl Endpoint {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let response = self.response(request);
        let status = response.status().as_u16();
        *self.figures().requests.by_status.entry(status).or_default() += 1;
        response
    }

    fn response(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // Before anything else: who does not know the token learns nothing, not even
        // which paths there are.
        if !self.token.is_in(request.headers()) {
            self.refuse();
            let help = "401: the token is missing or wrong; send `Authorization: Bearer TOKEN`\n";
            return http::answer(StatusCode::UNAUTHORIZED, help);
        }
        if let Some(guest) = request.extensions().get::<Guest>() {
            guest.admit();
        }
        match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET | &Method::HEAD) => self.metrics(request),
            ("/metrics", _) => {
                let mut response =
                    http::answer(StatusCode::METHOD_NOT_ALLOWED, "405: only GET is answered\n");
                let allowed = HeaderValue::from_static("GET, HEAD");
                response.headers_mut().insert(header::ALLOW, allowed);
                response
            }
            _ => http::answer(StatusCode::NOT_FOUND, "404: the figures are at /metrics\n"),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(header::ACCEPT);
        let format = Format::accepted(accept.and_then(|value| value.to_str().ok()).unwrap_or(""));
        let page = metrics::page(&self.figures(), format, clock::monotonic_ns());
        self.vitals.add(Counter::Written, 1);
        self.vitals.add(Counter::WrittenBytes, page.len() as u64);
        let mut response = Response::new(Full::new(Bytes::from(page)));
        let kind = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    fn refuse(&self) {
        let mut refused_ns = self.refused_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = clock::monotonic_ns();
        if *refused_ns == 0 || now_ns.saturating_sub(*refused_ns) >= REFUSED_EVERY_NS {
            *refused_ns = now_ns;
            tracing::warn!("a request without the right token was refused");
        }
    }
}
