//! `[[sink]]`: cameras that exist, files and addresses of their own, logins that are whole.

use super::{cameras, no_such_camera};
use crate::JsonlPath;
use crate::parse::{Document, Entry, Walk};
use crate::value::Value;
use std::path::{Component, PathBuf};

pub(super) fn all(walk: &mut Walk<'_>, document: &Document) {
    let cameras = cameras(document);
    let mut targets: Vec<(JsonlPath, String)> = Vec::new();
    let mut folders: Vec<Folder> = Vec::new();
    for entry in document.entries("sink") {
        if let Some(Value::Names(names)) = entry.found("cameras").map(|found| &found.value) {
            for (index, (name, span)) in names.iter().enumerate() {
                if !cameras.contains(name) {
                    let path = format!("{}[#{}]", entry.key_path("cameras"), index + 1);
                    no_such_camera(walk, span.clone(), path, name, &cameras);
                }
            }
        }
        needs(walk, entry, "key", "cert");
        needs(walk, entry, "cert", "key");
        needs(walk, entry, "password", "user");
        token(walk, entry);
        topic(walk, entry, "topic");
        topic(walk, entry, "discovery_prefix");
        folder(walk, entry, &mut folders);
        collector(walk, entry);
        zenoh(walk, entry);
        if !is_kind(entry, "jsonl") && !is_kind(entry, "history") {
            continue;
        }
        if matches!(&*entry.value("enabled"), Value::Bool(false)) {
            continue;
        }
        let target = match entry.value("path").into_owned() {
            Value::Jsonl(target) => target,
            Value::Path(path) => JsonlPath::File(path),
            _ => continue,
        };
        let target = match target {
            // "./out" and "out" are one file.
            JsonlPath::File(path) => JsonlPath::File(
                path.components().filter(|part| *part != Component::CurDir).collect(),
            ),
            JsonlPath::Stdout => target,
        };
        match targets.iter().find(|(other, _)| *other == target) {
            Some((_, first)) => {
                let message = format!(
                    "{first} writes there too, and both would mix; give each sink its own file"
                );
                match entry.found("path") {
                    Some(found) => walk.value_error(
                        found.span.clone(),
                        entry.key_path("path"),
                        false,
                        message,
                        None,
                    ),
                    None => walk.error(
                        entry.span.clone(),
                        entry.key_path("path"),
                        Some("\"-\" (default)".to_owned()),
                        message,
                        None,
                    ),
                }
            }
            None => targets.push((target, entry.path.clone())),
        }
    }
}

/// Kind of a sink that keeps files, its folder, and which sink it is.
type Folder = (&'static str, PathBuf, String);

/// Each counts what lies in its folder as its own, and removes the oldest.
fn folder(walk: &mut Walk<'_>, entry: &Entry, folders: &mut Vec<Folder>) {
    let (Some(found), Some(variant)) = (entry.found("folder"), entry.variant) else { return };
    let (Value::Path(path), Value::Bool(true)) = (&found.value, &*entry.value("enabled")) else {
        return;
    };
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    match folders.iter().find(|(kind, other, _)| (*kind, other) == (variant.word, &path)) {
        Some((.., first)) => {
            let message = format!(
                "{first} keeps its files there, and they would remove each other's; give each \
                 sink its own folder"
            );
            walk.value_error(found.span.clone(), entry.key_path("folder"), false, message, None);
        }
        None => folders.push((variant.word, path, entry.path.clone())),
    }
}

fn is_kind(entry: &Entry, word: &str) -> bool {
    entry.variant.is_some_and(|variant| variant.word == word)
}

/// A path is appended to this URL.
fn collector(walk: &mut Walk<'_>, entry: &Entry) {
    let Some(found) = entry.found("url").filter(|_| is_kind(entry, "otlp")) else { return };
    let Value::Url(url) = &found.value else { return };
    let wrong = if url.as_str().contains('?') {
        "must end before the \"?\", since /v1/traces is appended"
    } else if url.as_str().trim_end_matches('/').ends_with("/v1/traces") {
        "must end before /v1/traces, which is appended"
    } else {
        return;
    };
    // A path may hold a key.
    walk.value_error(found.span.clone(), entry.key_path("url"), true, wrong.to_owned(), None);
}

/// A key that means nothing without another one.
fn needs(walk: &mut Walk<'_>, entry: &Entry, key: &str, other: &str) {
    if let Some(found) = entry.found(key)
        && entry.is_absent(other)
    {
        let secret = matches!(found.value, Value::Secret(_));
        let message = format!("needs the key {other} too");
        walk.value_error(found.span.clone(), entry.key_path(key), secret, message, None);
    }
}

/// Letters that a token must have: what can be guessed protects nothing.
const TOKEN_MIN: usize = 16;

fn token(walk: &mut Walk<'_>, entry: &Entry) {
    // The collector's is for somebody else to choose.
    if is_kind(entry, "otlp") {
        return;
    }
    let Some(found) = entry.found("token") else { return };
    let Value::Secret(token) = &found.value else { return };
    if token.expose().len() < TOKEN_MIN {
        let message = format!(
            "must have {TOKEN_MIN} characters or more; `openssl rand -hex 16` makes a good one"
        );
        walk.value_error(found.span.clone(), entry.key_path("token"), true, message, None);
    }
}

/// TLS without authorities would trust those of the web, and keys hold no wildcards.
fn zenoh(walk: &mut Walk<'_>, entry: &Entry) {
    if entry.variant.is_none_or(|variant| variant.word != "zenoh") {
        return;
    }
    if let Some(found) = entry.found("url")
        && let Value::Url(url) = &found.value
    {
        let tls = url.scheme() == "tls";
        let has_files = !entry.is_absent("ca") || !entry.is_absent("cert");
        let message = if url.as_str() != url.origin() {
            Some("must end after the port")
        } else if tls && entry.is_absent("ca") {
            Some("needs the key ca too: nobody else says whose certificate is right")
        } else if !tls && has_files {
            Some("must begin with tls:// where there is a ca or a cert")
        } else {
            None
        };
        if let Some(message) = message {
            let path = entry.key_path("url");
            walk.value_error(found.span.clone(), path, false, message.to_owned(), None);
        }
    }
    let Some(found) = entry.found("prefix") else { return };
    let Value::Text(prefix) = &found.value else { return };
    let is_odd = |c: char| matches!(c, '*' | '$' | '?' | '#' | ' ') || c.is_control();
    if prefix.split('/').any(|part| part.is_empty() || part.starts_with('@'))
        || prefix.contains(is_odd)
    {
        let message = "must be words with \"/\" between them, without spaces, \"*\", \"$\", \"?\" \
                       and \"#\", and with no \"@\" at the begin of one";
        let path = entry.key_path("prefix");
        walk.value_error(found.span.clone(), path, false, message.to_owned(), None);
    }
}

/// Names of topics hold no wildcards, and "$" begins the broker's own.
fn topic(walk: &mut Walk<'_>, entry: &Entry, key: &str) {
    let Some(found) = entry.found(key) else { return };
    let Value::Text(topic) = &found.value else { return };
    let is_odd = |c: char| matches!(c, '+' | '#') || c.is_control();
    if topic.is_empty()
        || topic.starts_with(['$', '/'])
        || topic.ends_with('/')
        || topic.contains(is_odd)
    {
        let message =
            "must be a topic without \"+\" and \"#\", without \"$\" or \"/\" at its begin and \
                       \"/\" at its end"
                .to_owned();
        walk.value_error(found.span.clone(), entry.key_path(key), false, message, None);
    }
}
