//! The table of keys as JSON Schema and as the commented example file.

use crate::model::BackendName;
use crate::spec::{
    Default, Key, Kind, MAX_AREAS, MAX_CAMERAS, MAX_CORES, MAX_SINKS, SECTIONS, Section,
};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// JSON Schema (draft 2020-12) of the configuration file, for editors that complete TOML.
///
/// It knows keys, types, ranges and defaults; what depends on other keys only [`crate::parse`]
/// knows.
pub fn json_schema() -> Value {
    let mut properties = Map::new();
    for key in SECTIONS[0].keys {
        properties.insert(key.name.to_owned(), key_schema(key));
    }
    for section in SECTIONS.iter().skip(1) {
        properties.insert(section.name.to_owned(), section_schema(section));
    }
    let required: Vec<&str> = SECTIONS
        .iter()
        .filter(|section| section.required && !section.name.is_empty())
        .map(|section| section.name)
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "framebus.toml",
        "description": "Configuration of framebus: cameras in, detections out.",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn section_schema(section: &Section) -> Value {
    let mut properties = Map::new();
    for key in section.keys {
        properties.insert(key.name.to_owned(), key_schema(key));
    }
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| matches!(key.default, Default::Required(_)))
        .map(|key| key.name)
        .collect();
    let table = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if !section.array {
        return table;
    }
    json!({
        "type": "array",
        "description": section.doc,
        "minItems": usize::from(section.required),
        "maxItems": if section.name == "camera" { MAX_CAMERAS } else { MAX_SINKS },
        "items": table,
    })
}

fn key_schema(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Name { max_bytes } => json!({
            "type": "string",
            "pattern": format!("^[a-z0-9][a-z0-9_-]{{0,{}}}$", max_bytes - 1),
        }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Int { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Float { min, max, .. } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Path | Kind::JsonlPath | Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Secret => json!({ "type": "string", "minLength": 1, "writeOnly": true }),
        // A source may also come whole out of one variable.
        Kind::Source => json!({
            "type": "string",
            "pattern": r"^(rtsps?://|file:|v4l2:/dev/|test:|gst:|\$\{)",
        }),
        Kind::Endpoint => json!({
            "type": "string",
            "pattern": r"^(grpcs?://)?(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?$|\$\{",
        }),
        Kind::Version => json!({ "type": "string", "pattern": "^[1-9][0-9]{0,17}$" }),
        Kind::Backends => json!({ "oneOf": [
            { "const": "auto" },
            {
                "type": "array",
                "items": { "enum": BackendName::NAMES },
                "minItems": 1,
                "uniqueItems": true,
            },
        ] }),
        Kind::Input => json!({ "type": "string", "pattern": "^(auto|[0-9]{2,4}x[0-9]{2,4})$" }),
        Kind::Classes => json!({
            "type": "array",
            "items": { "oneOf": [
                { "type": "string", "minLength": 1 },
                { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            ] },
        }),
        Kind::Cores => json!({
            "type": "array",
            "items": { "type": "integer", "minimum": 0, "maximum": MAX_CORES - 1 },
            "uniqueItems": true,
        }),
        Kind::CameraNames => json!({
            "type": "array",
            "items": { "type": "string" },
            "uniqueItems": true,
        }),
        Kind::Areas => json!({
            "type": "array",
            "maxItems": MAX_AREAS,
            "items": {
                "type": "array",
                "items": { "type": "number", "minimum": 0, "maximum": 1 },
                "minItems": 4,
                "maxItems": 4,
            },
        }),
    };
    schema["description"] = json!(described(key));
    match key.default {
        Default::Required(_) | Default::Absent(..) => {}
        Default::Bool(value) => schema["default"] = json!(value),
        Default::Int(value) => schema["default"] = json!(value),
        Default::Float(value) => schema["default"] = json!(value),
        Default::Word(value) => schema["default"] = json!(value),
        Default::EmptyList => schema["default"] = json!([]),
        // Depends on the user, so it is no constant of the schema.
        Default::BusRoot => schema["examples"] = json!([BUS_ROOT]),
    }
    schema
}

const BUS_ROOT: &str = "/tmp/framebus-<uid>";

fn described(key: &Key) -> String {
    format!("{} {}", key.doc, key.why).trim().to_owned()
}

/// Range and unit of a value, where its text does not say them.
fn range(key: &Key) -> Option<String> {
    let unit = |unit: &str| {
        if unit.is_empty() { String::new() } else { format!(" {unit}") }
    };
    match key.kind {
        Kind::Name { .. } => Some(key.kind.allowed().replacen("must be ", "", 1)),
        Kind::Word(words) if words.len() > 1 => Some(crate::spec::one_of(words)),
        Kind::Int { min, max, unit: name } => Some(format!("{min} to {max}{}", unit(name))),
        Kind::Float { min, max, unit: name } => Some(format!("{min} to {max}{}", unit(name))),
        _ => None,
    }
}

/// The text of `configs/framebus.toml`: every key with its default, range and reason.
pub fn default_toml() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "The configuration of framebus: every key, what it does and why. A key behind \"#\" shows \
         its default (or an example, where it has none): remove the \"#\" to change it. Check the \
         file with `framebus check`; no hardware is needed for that.",
    );
    for section in &SECTIONS {
        out.push('\n');
        if !section.name.is_empty() {
            comment(&mut out, section.doc);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}", section.header());
        }
        for (index, key) in section.keys.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            comment(&mut out, &described(key));
            if let Some(range) = range(key) {
                comment(&mut out, &format!("Allowed: {range}."));
            }
            if let Default::Absent(_, meaning) = key.default {
                comment(&mut out, &format!("Not set: {meaning}."));
            }
            let _ = writeln!(out, "{}", assignment(key));
        }
    }
    out
}

/// `# key = default`, or the example of a required key.
fn assignment(key: &Key) -> String {
    let name = key.name;
    match key.default {
        Default::Required(example) => example.to_owned(),
        Default::Absent(example, _) => format!("# {example}"),
        Default::Bool(value) => format!("# {name} = {value}"),
        Default::Int(value) => format!("# {name} = {value}"),
        // `{:?}` keeps the ".0" that makes it a float.
        Default::Float(value) => format!("# {name} = {value:?}"),
        Default::Word(value) => format!("# {name} = \"{value}\""),
        Default::EmptyList => format!("# {name} = []"),
        Default::BusRoot => format!("# {name} = \"{BUS_ROOT}\""),
    }
}

/// Width of a comment line, the "# " included.
const LINE_WIDTH: usize = 96;

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
