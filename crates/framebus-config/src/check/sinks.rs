//! `[[sink]]`: cameras that exist, files and addresses of their own, logins that are whole.

use super::{cameras, no_such_camera};
use crate::JsonlPath;
use crate::parse::{Document, Entry, Walk};
use crate::value::Value;
use std::path::Component;

pub(super) fn all(walk: &mut Walk<'_>, document: &Document) {
    let cameras = cameras(document);
    let mut targets: Vec<(JsonlPath, String)> = Vec::new();
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
        if entry.variant.is_none_or(|variant| variant.word != "jsonl") {
            continue;
        }
        if matches!(&*entry.value("enabled"), Value::Bool(false)) {
            continue;
        }
        let Value::Jsonl(target) = entry.value("path").into_owned() else {
            continue;
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
                    "{first} writes there too, and lines would mix; give each sink its own file"
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
    let Some(found) = entry.found("token") else { return };
    let Value::Secret(token) = &found.value else { return };
    if token.expose().len() < TOKEN_MIN {
        let message = format!(
            "must have {TOKEN_MIN} characters or more; `openssl rand -hex 16` makes a good one"
        );
        walk.value_error(found.span.clone(), entry.key_path("token"), true, message, None);
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
