//! `[[zone]]` and `[[line]]`: cameras that exist, names that are unique for a camera.

use super::{cameras, no_such_camera};
use crate::parse::{Document, Entry, Walk};
use crate::spec::{MAX_LINES, MAX_ZONES, MAX_ZONES_OF_CAMERA};
use crate::value::Value;
use std::collections::BTreeMap;

pub(super) fn all(walk: &mut Walk<'_>, document: &Document) {
    let cameras = cameras(document);
    let mut names: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    for (section, most) in [("zone", MAX_ZONES), ("line", MAX_LINES)] {
        for (index, entry) in document.entries(section).enumerate() {
            if index == most {
                let message = format!("at most {most} [[{section}]] in one file");
                walk.error(entry.span.clone(), entry.path.clone(), None, message, None);
            }
            let (Some(camera), Some(name)) = (text(entry, "camera"), text(entry, "name")) else {
                continue;
            };
            if let Some(found) = entry.found("camera").filter(|_| !cameras.contains(&camera)) {
                let path = entry.key_path("camera");
                no_such_camera(walk, found.span.clone(), path, &camera, &cameras);
            }
            let line = walk.position(entry.span.start).0;
            if let Some(first) = names.insert((camera.clone(), name), line)
                && let Some(found) = entry.found("name")
            {
                let message =
                    format!("camera {camera} has a zone or line of this name in line {first}");
                let path = entry.key_path("name");
                walk.value_error(found.span.clone(), path, false, message, None);
            }
            if section == "zone" {
                let count = zones.entry(camera).or_default();
                *count += 1;
                if *count == MAX_ZONES_OF_CAMERA + 1 {
                    let message = format!("at most {MAX_ZONES_OF_CAMERA} zones for one camera");
                    walk.error(entry.span.clone(), entry.path.clone(), None, message, None);
                }
            }
            let ends = (entry.found("from"), entry.found("to"));
            if let (Some(from), Some(to)) = ends
                && let (Value::Point(a), Value::Point(b)) = (&from.value, &to.value)
                && a == b
            {
                let message = "is the same point as from; a line has two ends";
                walk.value_error(to.span.clone(), entry.key_path("to"), false, message, None);
            }
        }
    }
}

fn text(entry: &Entry, key: &str) -> Option<String> {
    match &entry.found(key)?.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}
