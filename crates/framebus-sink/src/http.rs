//! The HTTP server under sinks that are asked: bounded in connections, in bytes and in time.
//!
//! Whoever shows the token is *admitted*. When all places are taken, the oldest connection
//! that is not admitted goes: whoever connects and says nothing, or says it slowly, cannot
//! keep out who has the token.

use bytes::Bytes;
use framebus_config::{Listen, Secret};
use framebus_service::{Failure, Kind, OrFail};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// A request's head must be there within this time.
const HEAD: Duration = Duration::from_secs(5);
/// Bytes of a request's head at most; hyper takes no smaller bound.
const HEAD_BYTES: usize = 8192;
/// Lines of a request's head at most.
const HEAD_LINES: usize = 64;
/// After a connection could not be accepted (no file descriptors): time for some to end.
const PAUSE: Duration = Duration::from_millis(100);

/// What a server takes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Whether a connection may ask more than once.
    pub(crate) keep_alive: bool,
    /// How long a connection may last; `None` = as long as it likes.
    pub(crate) longest: Option<Duration>,
}

/// What a client must know.
#[derive(Debug, Clone)]
pub(crate) struct Token(Secret);

impl Token {
    pub(crate) fn new(token: Secret) -> Self {
        Self(token)
    }

    /// Whether this is the token; takes as long for a wrong one as for the right one, so
    /// that it cannot be found letter by letter.
    pub(crate) fn is(&self, offered: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(offered).into()
    }

    /// Whether a request shows it: `Authorization: Bearer TOKEN`.
    pub(crate) fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, offered)) = value.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && self.is(offered.trim_ascii())
    }
}

/// The connection that a request came by; lies in the request's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guest(Arc<AtomicBool>);

impl Guest {
    /// Says that it has shown the token, and is not to make room for others.
    pub(crate) fn admit(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A short answer in plain text.
pub(crate) fn answer(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer realm=\"framebus\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

/// Listens for a sink, and warns when other machines can connect.
///
/// # Errors
/// [`Kind::Unavailable`] while the port is taken, [`Kind::Config`] for an address that this
/// machine does not have or may not use; both say what to do.
pub(crate) fn bind(listen: Listen, sink: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(listen.0).map_err(|error| {
        let (kind, help) = match error.kind() {
            ErrorKind::AddrInUse => (
                Kind::Unavailable,
                format!(
                    "the port is in use; `ss -ltnp sport = :{}` says by whom; end that program, \
                     or set another `listen` for the sink {sink}",
                    listen.0.port()
                ),
            ),
            // An interface may still come up.
            ErrorKind::AddrNotAvailable => (
                Kind::Unavailable,
                format!(
                    "this machine has no such address; `ip address` shows those it has; set \
                     `listen` of the sink {sink} to one of them"
                ),
            ),
            ErrorKind::PermissionDenied => (
                Kind::Config,
                format!(
                    "this user may not use the port; set `listen` of the sink {sink} to a port \
                     above 1023"
                ),
            ),
            _ => (Kind::Unavailable, format!("is `listen` of the sink {sink} right?")),
        };
        Failure::new(
            kind,
            anyhow::Error::new(error).context(format!("cannot listen on {listen}: {help}")),
        )
    })?;
    if !listen.is_loopback() {
        tracing::warn!(
            %listen,
            sink,
            "other machines can connect, and the token travels unencrypted; a proxy with TLS, or \
             SSH, keeps it secret"
        );
    }
    Ok(listener)
}

/// A server on a thread of its own; ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts answering what `listener` accepts.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when the system gives no thread or no file descriptors.
    pub(crate) fn start<S, B>(
        listener: TcpListener,
        bounds: Bounds,
        service: S,
    ) -> Result<Self, Failure>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .or_fail(Kind::Unavailable)?;
        listener.set_nonblocking(true).or_fail(Kind::Unavailable)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).or_fail(Kind::Unavailable)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                let _accepting = runtime.spawn(accept(listener, bounds, service));
                // Also when the sender is gone. What is still connected ends with the runtime.
                let _ = runtime.block_on(stopped);
            })
            .or_fail(Kind::Unavailable)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already when the thread has ended.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept<S, B>(listener: tokio::net::TcpListener, bounds: Bounds, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut places: VecDeque<(AbortHandle, Guest)> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        places.retain(|(task, _)| !task.is_finished());
        if places.len() >= bounds.connections {
            let idle = places.iter().position(|(_, guest)| !guest.is_admitted());
            match idle.and_then(|index| places.remove(index)) {
                Some((task, _)) => task.abort(),
                // All places are taken by those who may: the next one has to come again.
                None => continue,
            }
        }
        let guest = Guest::default();
        let task = tokio::spawn(serve(stream, bounds, guest.clone(), service.clone()));
        places.push_back((task.abort_handle(), guest));
    }
}

async fn serve<S, B>(stream: TcpStream, bounds: Bounds, guest: Guest, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(guest.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .keep_alive(bounds.keep_alive)
        .serve_connection(TokioIo::new(stream), service)
        // A connection may become a WebSocket.
        .with_upgrades();
    let ended = match bounds.longest {
        Some(longest) => tokio::time::timeout(longest, connection).await.unwrap_or(Ok(())),
        None => connection.await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new(Secret::new("0123456789abcdef"));
        for right in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            assert!(token.is_in(&offered(right)), "{right}");
        }
        for wrong in [
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeF",
            "Bearer ",
            "Bear",
        ] {
            assert!(!token.is_in(&offered(wrong)), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
    }

    #[test]
    fn a_port_in_use_says_what_to_do() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listen = Listen(first.local_addr().expect("bound"));
        let failure = bind(listen, "figures").expect_err("in use");
        assert_eq!(failure.kind, Kind::Unavailable);
        let said = failure.to_string();
        for words in [&*format!("cannot listen on {listen}"), "ss -ltnp", "`listen`", "figures"] {
            assert!(said.contains(words), "{said}");
        }
        let elsewhere = Listen("192.0.2.1:9464".parse().expect("an address"));
        let said = bind(elsewhere, "figures").expect_err("not ours").to_string();
        assert!(said.contains("no such address"), "{said}");
    }
}
