//! Who may come in: whoever shows the token, once in the address or the form, or with each
//! request as `Authorization: Bearer`.
//!
//! A browser gets a cookie in return. It is made of the token, so that it lasts while the
//! token does, by so many rounds of SHA-256 that guessing tokens by way of cookies takes
//! longer than by way of the form, which is slow on purpose.

use crate::http::Token;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use framebus_config::Web;
use framebus_service::clock;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use subtle::ConstantTimeEq;

/// Rounds from token to cookie: some milliseconds, once.
const ROUNDS: usize = 50_000;
/// So many wrong tokens are heard within [`WINDOW_NS`]; after that none is, right or wrong.
const WRONG_MAX: u32 = 10;
const WINDOW_NS: u64 = 10_000_000_000;
/// A browser forgets the token after 30 days, in seconds.
const REMEMBERED_S: u32 = 30 * 24 * 3600;

/// What somebody showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The token itself.
    Token,
    /// The cookie that a browser got for it.
    Cookie,
    Nothing,
    /// Something else.
    Wrong,
    /// Something, after too many wrong ones.
    TooOften,
}

#[derive(Debug)]
pub(crate) struct Door {
    token: Token,
    cookie_name: String,
    cookie: String,
    /// Begin of the window, ns, and wrong tokens in it.
    wrong: Mutex<(u64, u32)>,
}

impl Door {
    pub(crate) fn new(web: &Web) -> Self {
        let mut hash = Sha256::digest(b"framebus page cookie 1");
        for _ in 0..ROUNDS {
            let mut round = Sha256::new();
            round.update(hash);
            round.update(web.token.expose());
            hash = round.finalize();
        }
        let mut cookie = String::new();
        for byte in hash {
            let _ = write!(cookie, "{byte:02x}");
        }
        Self {
            token: Token::new(web.token.clone()),
            // Cookies know no ports: two instances on one machine must not take each other's.
            cookie_name: format!("framebus_{}", web.listen.0.port()),
            cookie,
            wrong: Mutex::default(),
        }
    }

    /// What a request shows.
    pub(crate) fn shown(&self, headers: &HeaderMap) -> Shown {
        if headers.contains_key(AUTHORIZATION) {
            return self.judge(|| self.token.is_in(headers));
        }
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut own = cookies.flat_map(|all| all.split(';')).filter_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == self.cookie_name).then_some(value)
        });
        match own.any(|value| self.cookie.as_bytes().ct_eq(value.as_bytes()).into()) {
            true => Shown::Cookie,
            false => Shown::Nothing,
        }
    }

    /// Whether this is the token: [`Shown::Token`] or one of the reasons why not.
    pub(crate) fn offered(&self, token: &[u8]) -> Shown {
        self.judge(|| self.token.is(token))
    }

    fn judge(&self, is_right: impl FnOnce() -> bool) -> Shown {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(wrong.0) >= WINDOW_NS {
            *wrong = (now_ns, 0);
        }
        if wrong.1 >= WRONG_MAX {
            return Shown::TooOften;
        }
        if is_right() {
            return Shown::Token;
        }
        wrong.1 += 1;
        Shown::Wrong
    }

    /// The header that makes a browser remember.
    pub(crate) fn set_cookie(&self) -> Option<HeaderValue> {
        let (name, value) = (&self.cookie_name, &self.cookie);
        let cookie =
            format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={REMEMBERED_S}");
        HeaderValue::from_str(&cookie).ok()
    }
}

/// Whether a request that changes something, or opens a socket, comes from the page itself:
/// a browser says where from. `None` when it does not say.
pub(crate) fn is_own(headers: &HeaderMap) -> Option<bool> {
    let origin = headers.get(ORIGIN)?;
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    Some(matches!((origin, host), (Some((_, origin)), Some(host)) if origin == host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_config::{Listen, Secret};

    fn door() -> Door {
        Door::new(&Web {
            listen: Listen("127.0.0.1:8088".parse().expect("an address")),
            token: Secret::new("0123456789abcdef"),
            fps: 10,
            width: 640,
            quality: 75,
        })
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (name.parse().expect("a name"), value.parse().expect("a value"))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn the_token_or_its_cookie_opens() {
        let door = door();
        let set = door.set_cookie().expect("a header");
        let set = set.to_str().expect("ASCII");
        assert!(!set.contains("0123456789abcdef"), "{set}");
        let cookie = set.split(';').next().expect("a pair");
        let shown = |name, value: &str| door.shown(&headers(&[(name, value)]));
        assert_eq!(shown("cookie", cookie), Shown::Cookie);
        assert_eq!(shown("cookie", &format!("a=b; {cookie}")), Shown::Cookie);
        let port = cookie.replace("8088", "8089");
        for other in ["a=b", "framebus_8088=", &cookie[..cookie.len() - 1], &port] {
            assert_eq!(shown("cookie", other), Shown::Nothing, "{other}");
        }
        assert_eq!(shown("authorization", "Bearer 0123456789abcdef"), Shown::Token);
        assert_eq!(shown("authorization", "Bearer 0123456789abcdeg"), Shown::Wrong);
        assert_eq!(shown("accept", "*/*"), Shown::Nothing);
        assert_eq!(door.offered(b"0123456789abcdef"), Shown::Token);
    }

    #[test]
    fn after_many_wrong_tokens_none_is_heard_but_cookies_are() {
        let door = door();
        for _ in 0..WRONG_MAX {
            assert_eq!(door.offered(b"wrong"), Shown::Wrong);
        }
        assert_eq!(door.offered(b"0123456789abcdef"), Shown::TooOften);
        let set = door.set_cookie().expect("a header");
        let cookie = set.to_str().expect("ASCII");
        assert_eq!(door.shown(&headers(&[("cookie", cookie)])), Shown::Cookie);
    }

    #[test]
    fn another_page_is_not_the_page() {
        let own = |origin, host| is_own(&headers(&[("origin", origin), ("host", host)]));
        assert_eq!(own("http://127.0.0.1:8088", "127.0.0.1:8088"), Some(true));
        assert_eq!(own("https://cameras.example", "cameras.example"), Some(true));
        for other in ["http://127.0.0.1:9", "http://evil.example", "null", ""] {
            assert_eq!(own(other, "127.0.0.1:8088"), Some(false), "{other}");
        }
        assert_eq!(is_own(&headers(&[("host", "127.0.0.1:8088")])), None);
    }
}
