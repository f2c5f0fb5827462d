//! Takes secrets out of text: known values in every form that they are written in, and
//! whatever looks like a secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use regex::{Captures, Regex};

/// What stands where a secret was.
const MASK: &str = "***";
/// A shorter value would take half of the text with it: where it stands must tell.
const SHORTEST: usize = 4;
/// What stays as it is in a URL (RFC 3986, unreserved).
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Logins in URLs, up to the last `@`: a password may contain one.
const LOGIN: &str = r#"([A-Za-z][A-Za-z0-9+.-]*://)([^\s"'<>]+)@"#;
/// Values of keys that hold secrets, in TOML, JSON, queries, pipelines and logs.
const KEY: &str = r#"(?ix)
    ( (?: password | passwd | passphrase | \bpass | pwd | user-pw | proxy-pw | secret | token
        | api[-_]?key | access[-_]?key | private[-_]?key )
      \\?["']? \s* [=:] \s* )
    ( """[\s\S]*?""" | '''[\s\S]*?''' | \\" (?: [^"\\] | \\[^"] )* \\" | "(?: [^"\\] | \\. )*"
      | '[^']*' | [^\s&"',;}\]]+ )"#;
/// Users in queries.
const USER: &str = r#"(?i)([?&](?:user|username|usr|login|account)=)([^&\s"'#]+)"#;
/// HTTP and RTSP headers.
const HEADER: &str =
    r#"(?i)(\b(?:basic|bearer|digest)\s+)([A-Za-z0-9+/=._~-]{8,}|username=[^\r\n]+)"#;
/// Private keys.
const PEM: &str =
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)([\s\S]*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)";

/// A value that must not be shown.
pub(crate) struct Known {
    /// Where it is from, for the reader: `camera front: password`.
    pub(crate) origin: String,
    pub(crate) value: String,
    /// The user that belongs to it: logins travel as base64 of both.
    pub(crate) user: Option<String>,
}

/// Takes secrets out of text.
pub(crate) struct Redactor {
    /// Longest first: one may be part of another.
    forms: Vec<String>,
    login: Regex,
    patterns: Vec<Regex>,
}

impl Redactor {
    pub(crate) fn new(known: &[Known]) -> Result<Self, regex::Error> {
        let mut forms: Vec<String> = known.iter().flat_map(forms).collect();
        forms.sort_by_key(|form| (std::cmp::Reverse(form.len()), form.clone()));
        forms.dedup();
        let patterns = [KEY, USER, HEADER, PEM].into_iter().map(Regex::new);
        Ok(Self { forms, login: Regex::new(LOGIN)?, patterns: patterns.collect::<Result<_, _>>()? })
    }

    /// The text without secrets, and how many were in it.
    pub(crate) fn redact(&self, text: &str) -> (String, usize) {
        let mut count = 0;
        let mut text = text.to_owned();
        for form in &self.forms {
            let found = text.matches(form.as_str()).count();
            if found > 0 {
                text = text.replace(form.as_str(), MASK);
                count += found;
            }
        }
        let mut mask = |captures: &Captures<'_>, end: &str| {
            let (head, value) = (&captures[1], &captures[2]);
            let secret = if end == "@" { password(value) } else { value };
            if is_reference(secret) || bare(value) == MASK {
                return captures[0].to_owned();
            }
            count += 1;
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'')).map(String::from);
            let quote = quote.unwrap_or_default();
            format!("{head}{quote}{MASK}{quote}{end}")
        };
        text = self.login.replace_all(&text, |found: &Captures<'_>| mask(found, "@")).into_owned();
        for pattern in &self.patterns {
            text = pattern.replace_all(&text, |found: &Captures<'_>| mask(found, "")).into_owned();
        }
        (text, count)
    }

    /// Secrets by the looks of a text, as values: they may stand elsewhere too.
    pub(crate) fn values_in(&self, text: &str, origin: &str) -> Vec<Known> {
        let known = |value: &str, user: Option<&str>| Known {
            origin: origin.to_owned(),
            value: bare(value).to_owned(),
            user: user.map(str::to_owned),
        };
        let logins = self.login.captures_iter(text).map(|found| {
            let login = found.get(2).map_or("", |login| login.as_str());
            match login.split_once(':') {
                Some((user, password)) => known(password, Some(user)),
                None => known(login, None),
            }
        });
        let others = self.patterns.iter().flat_map(|pattern| {
            pattern
                .captures_iter(text)
                .map(|found| known(found.get(2).map_or("", |m| m.as_str()), None))
        });
        logins.chain(others).filter(|known| !is_reference(&known.value)).collect()
    }
}

/// Without quotes.
fn bare(value: &str) -> &str {
    value.trim_matches(['"', '\'', '\\'])
}

/// Of a login: all of it where it has no user.
fn password(login: &str) -> &str {
    login.split_once(':').map_or(login, |(_, password)| password)
}

/// A reference to the environment is no secret and tells the reader where to look. One
/// with something before or behind it is part of a secret.
fn is_reference(value: &str) -> bool {
    let name = bare(value).strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

/// Whether a value is too short to be searched for.
pub(crate) fn is_short(value: &str) -> bool {
    value.len() < SHORTEST
}

/// How a secret may be written.
fn forms(known: &Known) -> Vec<String> {
    let mut forms = Vec::new();
    let decoded = percent_decode_str(&known.value).decode_utf8_lossy().into_owned();
    for value in [known.value.as_str(), decoded.as_str()] {
        if let Some(user) = &known.user {
            let login = format!("{user}:{value}");
            forms.extend([STANDARD_NO_PAD.encode(&login), URL_SAFE_NO_PAD.encode(&login)]);
        }
        if is_short(value) {
            continue;
        }
        let encoded =
            [utf8_percent_encode(value, URL), utf8_percent_encode(value, NON_ALPHANUMERIC)];
        for form in encoded.map(|form| form.to_string()) {
            forms.extend([form.clone(), lower_escapes(&form)]);
        }
        // As a JSON or Rust string, once and twice.
        let escaped = value.replace('\\', r"\\").replace('"', "\\\"");
        let twice = escaped.replace('\\', r"\\").replace('"', "\\\"");
        forms.extend([value.to_owned(), escaped, twice]);
        forms.extend([STANDARD_NO_PAD.encode(value), URL_SAFE_NO_PAD.encode(value)]);
    }
    forms
}

/// `%2F` → `%2f`: both are written.
fn lower_escapes(text: &str) -> String {
    let mut left = 0;
    let lower = |c: char| {
        left = if c == '%' { 2 } else { i32::max(left - 1, -1) };
        if c != '%' && left >= 0 { c.to_ascii_lowercase() } else { c }
    };
    text.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "hu/N t\"r@2";

    fn redactor() -> Redactor {
        let known = Known { origin: "a".into(), value: VALUE.into(), user: Some("admin".into()) };
        Redactor::new(&[known]).expect("patterns")
    }

    #[test]
    fn a_known_value_goes_in_every_form() {
        let redactor = redactor();
        let login = STANDARD_NO_PAD.encode(format!("admin:{VALUE}"));
        let json = serde_json::to_string(VALUE).expect("text");
        for text in [
            VALUE.to_owned(),
            "hu%2FN%20t%22r%402".to_owned(),
            "hu%2fN%20t%22r%402".to_owned(),
            json.clone(),
            serde_json::to_string(&json).expect("text"),
            format!("Authorization: Basic {login}=="),
            STANDARD_NO_PAD.encode(VALUE),
        ] {
            let (out, count) = redactor.redact(&format!("before {text} after"));
            assert!(count > 0 && out.contains(MASK), "{text}: {out}");
            assert!(
                !out.contains("N t") && !out.contains("t%22") && !out.contains(&login),
                "{out}"
            );
            assert!(out.starts_with("before ") && out.ends_with(" after"), "{out}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_goes_and_the_rest_stays() {
        let redactor = Redactor::new(&[]).expect("patterns");
        for (text, expected) in [
            ("rtsp://u:p@x@h/y z@q", "rtsp://***@h/y z@q"),
            ("password = \"x y\"", "password = \"***\""),
            (r#"{"password":"a\"b","c":1}"#, r#"{"password":"***","c":1}"#),
            (r#"{"message":"password=\"x y\" z"}"#, r#"{"message":"password=*** z"}"#),
            ("http://h/x?token=abc&user=me&w=1", "http://h/x?token=***&user=***&w=1"),
            ("h/user=a_password=b_channel", "h/user=a_password=***"),
            ("rtspsrc user-pw=x ! y", "rtspsrc user-pw=*** ! y"),
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
            ("password = \"${CAMERA}\"", "password = \"${CAMERA}\""),
            ("password = \"half:${CAMERA}\"", "password = \"***\""),
            ("password = \"${CAMERA}half}\"", "password = \"***\""),
            ("rtsp://u:${CAMERA}@h", "rtsp://u:${CAMERA}@h"),
            ("rtsp://u:half:${CAMERA}@h", "rtsp://***@h"),
            ("401: check user and password", "401: check user and password"),
            ("Nov 22 framebus-capture@front[3]: live", "Nov 22 framebus-capture@front[3]: live"),
            ("pass: 3, bypass=1", "pass: ***, bypass=1"),
        ] {
            let (out, count) = redactor.redact(text);
            assert_eq!(out, expected);
            assert_eq!(count, expected.matches(MASK).count(), "{text}");
            assert_eq!(redactor.redact(&out), (expected.to_owned(), 0), "twice");
        }
        let key = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nz";
        assert!(!redactor.redact(key).0.contains("abc"));
    }

    #[test]
    fn values_are_learned_from_a_text() {
        let redactor = Redactor::new(&[]).expect("patterns");
        let found = redactor.values_in("rtsp://u:pw%40x@h/?token=tok1 password='q wert' ${A}", "a");
        let mut values: Vec<&str> = found.iter().map(|known| known.value.as_str()).collect();
        values.sort_unstable();
        assert_eq!(values, ["pw%40x", "q wert", "tok1"]);
        let redactor = Redactor::new(&found).expect("patterns");
        assert_eq!(redactor.redact("the pw@x, tok1, q wert").0, "the ***, ***, ***");
    }
}
