//! Where a gRPC server listens: the key `triton.url`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// What an endpoint may look like.
pub(crate) const FORMS: &str =
    "must be \"HOST:PORT\", \"grpc://HOST:PORT\" or, with TLS, \"grpcs://HOST:PORT\"";

/// Triton's gRPC port.
const PORT: u16 = 8001;
/// Triton's HTTP port, which is never meant.
const HTTP_PORT: u16 = 8000;

/// A gRPC endpoint.
///
/// ```
/// use framebus_config::Endpoint;
///
/// let remote: Endpoint = "grpcs://inference.example".parse()?;
/// assert_eq!((remote.port, remote.tls, remote.is_loopback()), (8001, true, false));
/// let local: Endpoint = "[::1]:9001".parse()?;
/// assert_eq!((local.host.as_str(), local.is_loopback()), ("::1", true));
/// assert_eq!(local.to_string(), "grpc://[::1]:9001");
/// # Ok::<(), framebus_config::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// TCP port, from 1.
    pub port: u16,
    /// Whether the connection is encrypted and the server proves its name.
    pub tls: bool,
}

/// Why a text is no [`Endpoint`]. `Display` is one line and holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointError {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl Endpoint {
    /// Whether the host is plainly this machine: `localhost`, 127.0.0.0/8 or ::1. Goes by the
    /// text; no name is looked up.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: PORT, tls: false }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "grpcs" } else { "grpc" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let problem = |message: &str, suggestion: Option<String>| {
            Err(EndpointError { message: message.to_owned(), suggestion })
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("grpc", text));
        // Before anything is repeated in a suggestion.
        if rest.contains('@') {
            return problem(
                "must not contain user and password; a token goes into the key token",
                None,
            );
        }
        let (authority, more) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        match scheme {
            "grpc" | "grpcs" => {}
            "http" | "https" => {
                let message = "is the server's HTTP address, and framebus speaks gRPC; Triton \
                               has HTTP at port 8000 and gRPC at 8001";
                let meant = address(authority, scheme == "https").ok().map(|endpoint| {
                    let port = if endpoint.port == HTTP_PORT { PORT } else { endpoint.port };
                    Self { port, ..endpoint }.to_string()
                });
                return problem(message, meant);
            }
            other => {
                let near = crate::suggest::nearest(&other.to_ascii_lowercase(), &["grpc", "grpcs"]);
                let meant = near.and_then(|near| address(authority, near == "grpcs").ok());
                return problem(FORMS, meant.map(|endpoint| endpoint.to_string()));
            }
        }
        let endpoint = address(authority, scheme == "grpcs")?;
        if !more.is_empty() {
            return problem(
                "must end with the port: no path, no parameters; a token goes into the key token",
                Some(endpoint.to_string()),
            );
        }
        Ok(endpoint)
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn address(authority: &str, tls: bool) -> Result<Endpoint, EndpointError> {
    let wrong = |message: &str| EndpointError { message: message.to_owned(), suggestion: None };
    let meant = |message: &str, host: &str, port: u16| {
        let endpoint = Endpoint { host: host.to_owned(), port, tls };
        EndpointError { message: message.to_owned(), suggestion: Some(endpoint.to_string()) }
    };
    const BRACKETS: &str = "an IPv6 address stands in brackets: \"[::1]:8001\"";
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(|| wrong(BRACKETS))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(wrong("what stands in brackets is no IPv6 address"));
            }
            (host, after.strip_prefix(':').or((!after.is_empty()).then_some("")))
        }
        None if authority.parse::<Ipv6Addr>().is_ok() => {
            return Err(meant(BRACKETS, authority, PORT));
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(wrong(BRACKETS)),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port.map(str::parse) {
        None => PORT,
        Some(Ok(port @ 1..)) => port,
        Some(_) => {
            return Err(wrong("the port after the host must be a number between 1 and 65535"));
        }
    };
    if let Ok(port @ 1..) = host.parse::<u16>() {
        return Err(meant("the host is missing", "127.0.0.1", port));
    }
    match host {
        "" if authority.is_empty() => Err(wrong(FORMS)),
        "" => Err(meant("the host is missing", "127.0.0.1", port)),
        _ if !is_host(host) => Err(wrong(
            "the host must be an IP address or a name of letters, digits, \"-\" and \".\"",
        )),
        _ => Ok(Endpoint { host: host.to_owned(), port, tls }),
    }
}

pub(crate) fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    // An underscore is no part of a host name, but of names that container engines give.
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let only_numbers = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 253 && host.bytes().all(word) && !only_numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16, tls: bool) -> Endpoint {
        Endpoint { host: host.to_owned(), port, tls }
    }

    #[test]
    fn what_is_written_and_printed_reads_back() {
        for (text, expected, shown) in [
            ("127.0.0.1:8001", endpoint("127.0.0.1", 8001, false), "grpc://127.0.0.1:8001"),
            ("localhost", endpoint("localhost", 8001, false), "grpc://localhost:8001"),
            ("triton_1:8000", endpoint("triton_1", 8000, false), "grpc://triton_1:8000"),
            ("grpc://a.b-c:1", endpoint("a.b-c", 1, false), "grpc://a.b-c:1"),
            ("grpcs://a.example:443", endpoint("a.example", 443, true), "grpcs://a.example:443"),
            ("[::1]", endpoint("::1", 8001, false), "grpc://[::1]:8001"),
            (
                "grpcs://[fd00::1]:65535",
                endpoint("fd00::1", 65535, true),
                "grpcs://[fd00::1]:65535",
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), shown);
            assert_eq!(shown.parse(), Ok(expected));
        }
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        for (text, message, suggestion) in [
            ("", "must be \"HOST:PORT\"", None),
            ("grpc://", "must be \"HOST:PORT\"", None),
            ("http://h:8000", "speaks gRPC", Some("grpc://h:8001")),
            ("http://h/v2/models", "speaks gRPC", Some("grpc://h:8001")),
            ("https://[fd00::1]:9000", "speaks gRPC", Some("grpcs://[fd00::1]:9000")),
            ("http://", "speaks gRPC", None),
            ("GRPCS://h", "must be \"HOST:PORT\"", Some("grpcs://h:8001")),
            ("gprc://h:5", "must be \"HOST:PORT\"", Some("grpc://h:5")),
            ("unix:///run/triton", "must be \"HOST:PORT\"", None),
            ("user:hunter2@h:8001", "must not contain user", None),
            ("http://user:hunter2@h", "must not contain user", None),
            ("grpc://h:8001/", "no path, no parameters", Some("grpc://h:8001")),
            ("h?token=hunter2", "no path, no parameters", Some("grpc://h:8001")),
            ("h#x", "no path, no parameters", Some("grpc://h:8001")),
            (":9001", "the host is missing", Some("grpc://127.0.0.1:9001")),
            ("8001", "the host is missing", Some("grpc://127.0.0.1:8001")),
            ("h:", "the port", None),
            ("h:0", "the port", None),
            ("h:65536", "the port", None),
            ("h:hunter2", "the port", None),
            ("[::1]8001", "the port", None),
            ("::1", "stands in brackets", Some("grpc://[::1]:8001")),
            ("1::z:8001", "stands in brackets", None),
            ("[::1:8001", "stands in brackets", None),
            ("[fe80::1%eth0]:8001", "no IPv6 address", None),
            ("999.0.0.1:8001", "the host must be", None),
            ("a b:8001", "the host must be", None),
            ("ü:8001", "the host must be", None),
            ("a\nb:8001", "the host must be", None),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert!(error.message.contains(message), "{text:?}: {error}");
            assert_eq!(error.suggestion.as_deref(), suggestion, "{text:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            if let Some(suggestion) = suggestion {
                assert!(suggestion.parse::<Endpoint>().is_ok(), "{suggestion}");
            }
        }
        let error = "http://h".parse::<Endpoint>().expect_err("HTTP");
        assert!(error.to_string().ends_with("; did you mean \"grpc://h:8001\"?"), "{error}");
    }

    #[test]
    fn this_machine_is_known_by_its_text() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
        {
            assert!(endpoint(host, 1, false).is_loopback(), "{host}");
        }
        for host in ["0.0.0.0", "10.0.0.1", "::", "localhost.example", "127.example", "triton"] {
            assert!(!endpoint(host, 1, false).is_loopback(), "{host}");
        }
        assert_eq!("127.0.0.1:8001".parse(), Ok(Endpoint::default()));
    }
}
