//! URLs of brokers and web servers, and addresses to listen on.

use std::fmt;
use std::net::SocketAddr;

/// A URL without credentials: `SCHEME://HOST[:PORT][/PATH][?QUERY]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Length of the scheme.
    scheme: usize,
    host: String,
    port: Option<u16>,
}

impl Url {
    /// Reads one. `schemes` are those that fit; the error says what is wrong and holds no
    /// credentials.
    pub(crate) fn parse(text: &str, schemes: &[&str]) -> Result<Self, String> {
        let forms = || {
            let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
            let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
            format!("must begin with {}", crate::spec::one_of(&forms))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(forms)?;
        if !schemes.contains(&scheme) {
            return Err(forms());
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(
                "must not contain user and password; they have keys of their own".to_owned()
            );
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) || path.contains('#') {
            return Err("must not contain spaces or a \"#\"".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or("an IPv6 address stands in brackets")?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            port => match port.and_then(|port| port.parse().ok()) {
                Some(port @ 1..) => Some(port),
                _ => {
                    return Err(
                        "the port after the host must be a number between 1 and 65535".to_owned()
                    );
                }
            },
        };
        if !crate::endpoint::is_host(host) {
            return Err("the host must be an IP address or a name of letters, digits, \"-\" and \
                        \".\""
                .to_owned());
        }
        let (scheme, host) = (scheme.len(), host.to_owned());
        Ok(Self { text: text.to_owned(), scheme, host, port })
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before `://`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.text[..self.scheme]
    }

    /// A name or an address, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one is said.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Scheme, host and port: what may stand in a log, since a path may hold a key.
    #[must_use]
    pub fn origin(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}", self.scheme())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin())
    }
}

/// Address and port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl Listen {
    pub(crate) fn parse(text: &str) -> Result<Self, Option<String>> {
        let meant = || {
            let port = text.trim_start_matches("localhost").trim_start_matches(':');
            port.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"))
        };
        text.parse().map(Self).map_err(|_| meant())
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("mqtts://[::1]:8883", &["mqtt", "mqtts"]).expect("a URL");
        assert_eq!((url.scheme(), url.host(), url.port()), ("mqtts", "::1", Some(8883)));
        assert_eq!(url.origin(), "mqtts://[::1]:8883");
        let url = Url::parse("https://a.example/hook?key=k", &["https"]).expect("a URL");
        assert_eq!((url.host(), url.port(), url.as_str().len()), ("a.example", None, 28));
        assert!(!format!("{url:?}").contains("key=k"));
        for wrong in [
            "a.example",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:x",
            "https://u:p@a",
            "https://a b",
            "https://a/#x",
            "https://[::1",
        ] {
            let error = Url::parse(wrong, &["https"]).expect_err(wrong);
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert!(Listen::parse("127.0.0.1:80").expect("an address").is_loopback());
        assert!(Listen::parse("[::ffff:127.0.0.1]:80").expect("an address").is_loopback());
        assert!(!Listen::parse("0.0.0.0:80").expect("an address").is_loopback());
        assert_eq!(Listen::parse("8080"), Err(Some("127.0.0.1:8080".to_owned())));
        assert_eq!(Listen::parse("localhost:8080"), Err(Some("127.0.0.1:8080".to_owned())));
        assert_eq!(Listen::parse("x"), Err(None));
    }
}
