//! The table of keys as JSON Schema and as the commented example file.

use crate::model::BackendName;
use crate::spec::{
    Default, Key, Kind, MAX_AREAS, MAX_CORES, MAX_CORNERS, SECTIONS, Section, Variant,
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
    let table = if section.variants.is_empty() {
        table_schema(section.doc, section.keys.iter())
    } else {
        let table = |variant: &Variant| {
            let doc = format!("{:?} {}.", variant.word, variant.doc);
            let mut table = table_schema(&doc, section.keys.iter().chain(variant.keys));
            table["properties"]["kind"] = json!({ "description": doc, "enum": [variant.word] });
            table
        };
        json!({ "oneOf": section.variants.iter().map(table).collect::<Vec<_>>() })
    };
    if !section.array {
        return table;
    }
    json!({
        "type": "array",
        "description": section.doc,
        "minItems": usize::from(section.required),
        "maxItems": section.max,
        "items": table,
    })
}

fn table_schema<'a>(doc: &str, keys: impl Iterator<Item = &'a Key> + Clone) -> Value {
    let properties: Map<String, Value> =
        keys.clone().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let required: Vec<&str> = keys
        .filter(|key| matches!(key.default, Default::Required(_)))
        .map(|key| key.name)
        .collect();
    json!({
        "type": "object",
        "description": doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn point_schema() -> Value {
    json!({
        "type": "array",
        "items": { "type": "number", "minimum": 0, "maximum": 1 },
        "minItems": 2,
        "maxItems": 2,
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
        Kind::Url(schemes) => json!({
            "type": "string",
            "pattern": format!(r"^(({})://|\$\{{)", schemes.join("|")),
        }),
        Kind::Listen => json!({ "type": "string", "pattern": r":[0-9]{1,5}$|\$\{" }),
        Kind::Point => point_schema(),
        Kind::Points => json!({
            "type": "array",
            "items": point_schema(),
            "minItems": 3,
            "maxItems": MAX_CORNERS,
        }),
        Kind::Words(words) => json!({
            "type": "array",
            "items": { "enum": words },
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
            let _ = writeln!(out, "{}{}", off(section), section.header());
        }
        let (first, others) = match section.variants.split_first() {
            Some((first, others)) => (first.keys, others),
            None => (&[][..], &[][..]),
        };
        documented(&mut out, section.keys.iter().chain(first), off(section));
        for variant in others {
            out.push('\n');
            comment(&mut out, &format!("The kind {:?} {}.", variant.word, variant.doc));
            let _ = writeln!(out, "# {}", section.header());
            let _ = writeln!(out, "# name = \"{0}\"\n# kind = \"{0}\"", variant.word);
            documented(&mut out, variant.keys.iter(), "# ");
        }
    }
    out
}

/// What stands before the header and the required keys of a section that is an example only.
fn off(section: &Section) -> &'static str {
    if section.array && !section.required && section.variants.is_empty() { "# " } else { "" }
}

fn documented<'a>(out: &mut String, keys: impl Iterator<Item = &'a Key>, off: &str) {
    for (index, key) in keys.enumerate() {
        if index > 0 {
            out.push('\n');
        }
        comment(out, &described(key));
        if let Some(range) = range(key) {
            comment(out, &format!("Allowed: {range}."));
        }
        if let Default::Absent(_, meaning) = key.default {
            comment(out, &format!("Not set: {meaning}."));
        }
        let off = if matches!(key.default, Default::Required(_)) { off } else { "" };
        let _ = writeln!(out, "{off}{}", assignment(key));
    }
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
