//! What must fit together: required keys, unique names, keys that depend on each other.

mod scene;
mod sinks;
mod triton;

use crate::parse::{Document, Entry, Walk};
use crate::source_parse::ParsedSource;
use crate::spec::{Default, MAX_CAMERAS, MAX_SINKS, SECTIONS};
use crate::value::Value;
use crate::{Source, suggest};
use std::collections::BTreeMap;

pub(crate) fn all(walk: &mut Walk<'_>, document: &Document) {
    missing(walk, document);
    for entry in document.entries("up") {
        ordered(walk, entry, "restart_min_ms", "restart_max_ms");
    }
    triton::all(walk, document);
    unique_names(walk, document, "camera", MAX_CAMERAS);
    unique_names(walk, document, "sink", MAX_SINKS);
    for entry in document.entries("camera") {
        ordered(walk, entry, "reconnect_min_ms", "reconnect_max_ms");
        camera(walk, entry);
    }
    scene::all(walk, document);
    sinks::all(walk, document);
}

fn missing(walk: &mut Walk<'_>, document: &Document) {
    for section in SECTIONS.iter().filter(|section| section.required && !section.name.is_empty()) {
        let examples: Vec<&str> = section
            .keys
            .iter()
            .filter_map(|key| match key.default {
                Default::Required(example) => Some(example),
                _ => None,
            })
            .collect();
        let add = format!("add {} with {}", section.header(), examples.join(" and "));
        let name = section.name.to_owned();
        if let Some(span) = document.empty_list(section.name) {
            walk.error(span, name, None, format!("the list is empty; {add}"), None);
        } else if document.is_absent(section.name) {
            walk.error(0..0, name, None, format!("missing; {add}"), None);
        }
    }
    for entry in document.all() {
        // While its kind is not known, neither are the keys that it needs.
        let keys = entry.variant.map_or(&[][..], |variant| variant.keys);
        for key in entry.section.keys.iter().chain(keys) {
            if matches!(key.default, Default::Required(_)) && entry.is_absent(key.name) {
                walk.missing(entry.span.clone(), entry.key_path(key.name), key);
            }
        }
    }
}

/// `min` must not exceed `max`; said at the key that was written.
fn ordered(walk: &mut Walk<'_>, entry: &Entry, min: &str, max: &str) {
    let (Value::Int(low), Value::Int(high)) = (&*entry.value(min), &*entry.value(max)) else {
        return;
    };
    // An invalid value of the other key has its own error.
    let invalid = |key: &str| !entry.is_absent(key) && entry.found(key).is_none();
    if low <= high || invalid(min) || invalid(max) {
        return;
    }
    match (entry.found(max), entry.found(min)) {
        (Some(found), min_found) => {
            let by_default = if min_found.is_none() { " by default" } else { "" };
            walk.value_error(
                found.span.clone(),
                entry.key_path(max),
                false,
                format!("must not be below {min}, which is {low}{by_default}"),
                None,
            );
        }
        (None, Some(found)) => walk.value_error(
            found.span.clone(),
            entry.key_path(min),
            false,
            format!("must not be above {max}, which is {high} by default; set that too"),
            None,
        ),
        (None, None) => {}
    }
}

/// Names of the cameras.
fn cameras(document: &Document) -> Vec<String> {
    let names = document.entries("camera").filter_map(|entry| entry.found("name"));
    let names = names.filter_map(|found| match &found.value {
        Value::Text(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// Says that a camera is not there.
fn no_such_camera(
    walk: &mut Walk<'_>,
    span: std::ops::Range<usize>,
    path: String,
    name: &str,
    cameras: &[String],
) {
    let cameras: Vec<&str> = cameras.iter().map(String::as_str).collect();
    let near = suggest::nearest(name, &cameras);
    let message = if near.is_some() || cameras.is_empty() {
        "there is no such camera".to_owned()
    } else {
        format!("there is no such camera; the cameras are {}", cameras.join(", "))
    };
    walk.value_error(span, path, false, message, near);
}

fn unique_names(walk: &mut Walk<'_>, document: &Document, section: &str, most: usize) {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for (index, entry) in document.entries(section).enumerate() {
        if index == most {
            walk.error(
                entry.span.clone(),
                entry.path.clone(),
                None,
                format!(
                    "at most {most} [[{section}]] in one file; start a second instance for more"
                ),
                None,
            );
        }
        let Some(found) = entry.found("name") else {
            continue;
        };
        let Value::Text(name) = &found.value else {
            continue;
        };
        let line = walk.position(found.span.start).0;
        match lines.get(name) {
            Some(first) => walk.value_error(
                found.span.clone(),
                entry.key_path("name"),
                false,
                format!("the {section} in line {first} has this name already; names are unique"),
                None,
            ),
            None => {
                lines.insert(name.clone(), line);
            }
        }
    }
}

fn camera(walk: &mut Walk<'_>, entry: &Entry) {
    let Some(Value::Source(ParsedSource { source, user, password })) =
        entry.found("source").map(|found| &found.value)
    else {
        return;
    };
    let is_file = matches!(source, Source::File(_));
    let is_rtsp = matches!(source, Source::Rtsp(_));
    let mut refuse = |key: &str, secret: bool, message: &str| {
        if let Some(found) = entry.found(key) {
            walk.value_error(found.span.clone(), entry.key_path(key), secret, message, None);
        }
    };
    if matches!(&*entry.value("pace"), Value::Text(pace) if pace == "fast") && !is_file {
        refuse(
            "pace",
            false,
            "is for file: sources only; this source sets its own pace; remove the key",
        );
    }
    if matches!(&*entry.value("loop"), Value::Bool(true)) && !is_file {
        refuse("loop", false, "is for file: sources only; this source has no end; remove the key");
    }
    if matches!(&*entry.value("delivery"), Value::Text(word) if word == "every-frame")
        && source.is_live()
    {
        refuse(
            "delivery",
            false,
            "is for file:, test: and gst: sources only; a live camera never waits for a reader; \
             write \"latest\" or remove the key",
        );
    }
    if !is_rtsp {
        refuse("user", false, "is for rtsp:// sources only; this source has no login");
        refuse("password", true, "is for rtsp:// sources only; this source has no login");
        return;
    }
    if user.is_some() {
        refuse("user", false, "the URL in source has a user already; keep one of the two");
    }
    if password.is_some() {
        refuse("password", true, "the URL in source has a password already; keep one of the two");
    }
    if user.is_none() && entry.is_absent("user") {
        refuse("password", true, "a password needs a user; add the key user");
    }
}
