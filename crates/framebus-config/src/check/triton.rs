//! What must fit together in `[triton]`.

use crate::model::BackendName;
use crate::parse::{Document, Entry, Found, Walk};
use crate::spec::section;
use crate::value::Value;

pub(super) fn all(walk: &mut Walk<'_>, document: &Document) {
    for entry in document.entries("triton") {
        certificates(walk, entry);
        token(walk, entry);
        token_header(walk, entry);
    }
    timeouts(walk, document);
}

/// Whether the connection is encrypted and leaves the machine; `None` where the key is invalid,
/// which has its own error.
fn connection(entry: &Entry) -> Option<(bool, bool)> {
    let known = entry.is_absent("url") || entry.found("url").is_some();
    match &*entry.value("url") {
        Value::Endpoint(url) if known => Some((url.tls, !url.is_loopback())),
        _ => None,
    }
}

fn refuse(walk: &mut Walk<'_>, entry: &Entry, key: &str, found: &Found, message: &str) {
    let secret = matches!(found.value, Value::Secret(_));
    walk.value_error(found.span.clone(), entry.key_path(key), secret, message, None);
}

fn certificates(walk: &mut Walk<'_>, entry: &Entry) {
    if let Some((false, _)) = connection(entry) {
        for key in ["ca", "cert", "key"] {
            if let Some(found) = entry.found(key) {
                let message = "is for TLS, and url does not begin with grpcs://; write url = \
                               \"grpcs://HOST:PORT\" or remove the key";
                refuse(walk, entry, key, found, message);
            }
        }
        return;
    }
    let lonely = |key: &str, other: &str| entry.found(key).filter(|_| entry.is_absent(other));
    if let Some(found) = lonely("cert", "key") {
        let message = "a certificate needs its private key; add key = \"FILE\"";
        refuse(walk, entry, "cert", found, message);
    }
    if let Some(found) = lonely("key", "cert") {
        let message = "a private key needs its certificate; add cert = \"FILE\"";
        refuse(walk, entry, "key", found, message);
    }
}

fn token(walk: &mut Walk<'_>, entry: &Entry) {
    let Some(found) = entry.found("token") else { return };
    let Value::Secret(token) = &found.value else { return };
    let token = token.expose();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let message = "must be the bare token: ASCII characters without spaces and line ends, \
                       without the word Bearer";
        refuse(walk, entry, "token", found, message);
    }
    if connection(entry) == Some((false, true)) {
        let message = "would travel to another machine in the clear; write url = \
                       \"grpcs://HOST:PORT\" or remove the key";
        refuse(walk, entry, "token", found, message);
    }
}

fn token_header(walk: &mut Walk<'_>, entry: &Entry) {
    let Some(found) = entry.found("token_header") else { return };
    let Value::Text(name) = &found.value else { return };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    // Values of headers that end in -bin are base64.
    if name.is_empty() || name.ends_with("-bin") || !name.bytes().all(fits) {
        let message = "must be the name of a header: lower-case letters, digits, - _ and ., not \
                       ending in -bin";
        refuse(walk, entry, "token_header", found, message);
    }
}

/// A request must fail before the watchdog takes the whole engine for hung.
fn timeouts(walk: &mut Walk<'_>, document: &Document) {
    const KEY: &str = "timeout_ms";
    let defaults = Entry::new(section("triton"));
    let triton = document.entries("triton").next().unwrap_or(&defaults);
    let Some(model) = document.entries("model").next() else { return };
    let asked = matches!(
        &*model.value("backend"),
        Value::Backends(backends) if backends.names(BackendName::Triton)
    );
    let (Value::Int(request), Value::Int(engine)) = (&*triton.value(KEY), &*model.value(KEY))
    else {
        return;
    };
    let invalid = |entry: &Entry| !entry.is_absent(KEY) && entry.found(KEY).is_none();
    if !asked || request < engine || invalid(triton) || invalid(model) {
        return;
    }
    let by_default = |entry: &Entry| if entry.is_absent(KEY) { " by default" } else { "" };
    if let Some(found) = triton.found(KEY) {
        let message = format!(
            "must be below model.timeout_ms, which is {engine}{}: after that inference starts \
             again before another backend can take over",
            by_default(model)
        );
        refuse(walk, triton, KEY, found, &message);
    } else if let Some(found) = model.found(KEY) {
        let message = format!(
            "must be above triton.timeout_ms, which is {request}{}, so that another backend can \
             take over before inference starts again; lower that too",
            by_default(triton)
        );
        refuse(walk, model, KEY, found, &message);
    }
}
