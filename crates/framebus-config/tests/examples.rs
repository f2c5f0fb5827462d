//! The files in `configs/`: each loads, and `framebus.toml` says exactly what the code does.

use framebus_config::{
    Bus, Camera, CameraName, Config, Log, Model, Source, TensorRt, TestPattern, Triton, Up,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn env(name: &str) -> Option<String> {
    let secret = ["_PASSWORD", "_TOKEN", "_SECRET"].iter().any(|end| name.ends_with(end));
    secret.then(|| "hunter2-hunter2-hunter2".to_owned())
}

fn examples() -> Vec<(PathBuf, String)> {
    let mut examples: Vec<(PathBuf, String)> = std::fs::read_dir(configs())
        .expect("configs exists")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a readable example");
            (path, text)
        })
        .collect();
    examples.sort();
    examples
}

fn parse(text: &str, file: &Path) -> Config {
    match framebus_config::parse(text, file, &env) {
        Ok(config) => config,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn every_example_loads() {
    let examples = examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for (path, text) in &examples {
        let config = parse(text, path);
        assert_eq!(&config.file, path);
        assert!(config.enabled_cameras().count() >= 1, "{}", path.display());
        assert!(!format!("{config:?}").contains("hunter2"), "{}", path.display());
    }
}

/// The commented keys of a file, uncommented: lines `# key = …` and `# [[section]]`.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        let is_header = line.starts_with("[[") && line.ends_with("]]");
        is_header
            || line.split_once(" = ").is_some_and(|(key, _)| {
                !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            })
    };
    text.lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn framebus_toml_is_what_the_table_says() {
    let path = configs().join("framebus.toml");
    let expected = framebus_config::default_toml();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).expect("a writable configs/framebus.toml");
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "rewrite configs/framebus.toml with UPDATE_GOLDEN=1");
}

#[test]
fn framebus_toml_documents_every_key_with_the_default_of_the_code() {
    let path = configs().join("framebus.toml");
    let text = std::fs::read_to_string(&path).expect("configs/framebus.toml");
    let defaults = parse(&text, &path);

    // Read as plain TOML, independent of the loader: every key of the schema is there.
    let all = uncommented(&text);
    let table: toml::Table = toml::from_str(&all).expect("valid TOML when uncommented");
    let schema = framebus_config::json_schema();
    let mut keys = 0;
    each_key(&schema, |section, kind, key, schema| {
        let found = if section.is_empty() {
            table.get(key)
        } else {
            let section = &table[section];
            // Keys that all kinds have are described once, in the first entry.
            let of_kind = |entry: &&toml::Value| {
                entry.get("kind").is_none_or(|word| word.as_str() == Some(kind))
            };
            match section.as_array() {
                Some(entries) => {
                    let own = entries.iter().find(of_kind).and_then(|entry| entry.get(key));
                    own.or_else(|| entries[0].get(key))
                }
                None => section.get(key),
            }
        };
        let found = found.unwrap_or_else(|| panic!("{section}.{key} is not documented"));
        if let Some(default) = schema.get("default") {
            assert!(
                same(default, found),
                "{section}.{key}: {default} in the code, {found:?} there"
            );
        }
        keys += 1;
    });
    assert_eq!(keys, 200, "a new key: is it in the table, the model and the tests?");

    // Uncommented defaults change nothing; only keys without a default appear.
    // These hold for other values of source and url only.
    let elsewhere = [
        "user = \"admin\"\n",
        "password = \"${CAMERA_PASSWORD}\"\n",
        "ca = \"ca.pem\"\n",
        "cert = \"client.pem\"\n",
        "key = \"client.key\"\n",
    ];
    let all = elsewhere.iter().fold(all, |all, line| {
        assert!(all.contains(line), "{line}");
        all.replace(line, "")
    });
    let all = all.replace("<uid>", &rustix::process::getuid().as_raw().to_string());
    let mut explicit = parse(&all, &path);
    assert_eq!(explicit.cameras[0].fps.take(), Some(15.0));
    assert_eq!(explicit.cameras[0].max_width.take(), Some(1920));
    assert_eq!(explicit.triton.model.take().as_deref(), Some("yolov8n"));
    assert_eq!(explicit.triton.version.take().as_deref(), Some("1"));
    assert!(explicit.triton.token.take().is_some());
    assert!(explicit.tensorrt.library.take().is_some());
    assert_eq!(explicit.tensorrt.workspace_mib.take(), Some(1024));
    // The examples.
    assert_eq!((explicit.sinks.split_off(1).len(), explicit.zones.len()), (9, 1));
    (explicit.zones, explicit.lines) = Default::default();
    assert_eq!(explicit, defaults);
}

fn same(default: &Value, found: &toml::Value) -> bool {
    match found {
        // The placeholder of bus.root has no default in the schema.
        toml::Value::String(text) => default.as_str() == Some(text),
        toml::Value::Integer(number) => default.as_i64() == Some(*number),
        toml::Value::Float(number) => default.as_f64() == Some(*number),
        toml::Value::Boolean(value) => default.as_bool() == Some(*value),
        toml::Value::Array(items) => items.is_empty() && default == &serde_json::json!([]),
        _ => false,
    }
}

/// Calls `visit` with section, kind (where the section has kinds), key and schema of each key.
fn each_key(schema: &Value, mut visit: impl FnMut(&str, &str, &str, &Value)) {
    let properties = |schema: &Value| schema["properties"].as_object().cloned().unwrap_or_default();
    for (name, top) in properties(schema) {
        let table = if top["type"] == "array" { &top["items"] } else { &top };
        let kinds = table["oneOf"].as_array().cloned().unwrap_or_default();
        if table["type"] != "object" && kinds.is_empty() {
            visit("", "", &name, table);
            continue;
        }
        for table in if kinds.is_empty() { vec![table.clone()] } else { kinds } {
            assert_eq!(table["additionalProperties"], false, "{name}");
            let kind = table["properties"]["kind"]["enum"][0].as_str().unwrap_or_default();
            for (key, schema) in properties(&table) {
                visit(&name, kind, &key, &schema);
            }
        }
    }
}

#[test]
fn the_schema_describes_every_key_and_knows_every_key_of_the_examples() {
    let schema = framebus_config::json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut known = Vec::new();
    each_key(&schema, |section, _, key, schema| {
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(description.len() > 10, "{section}.{key} has no description");
        let typed = ["type", "enum", "oneOf"].iter().any(|word| schema.get(word).is_some());
        assert!(typed, "{section}.{key} has no type");
        if let (Some(minimum), Some(maximum)) = (schema.get("minimum"), schema.get("maximum")) {
            assert!(minimum.as_f64() < maximum.as_f64(), "{section}.{key}");
        }
        known.push(format!("{section}.{key}"));
    });
    for (path, text) in examples() {
        let table: toml::Table = toml::from_str(&text).expect("valid TOML");
        for (name, value) in &table {
            let entries: Vec<&toml::Table> = match value {
                toml::Value::Table(table) => vec![table],
                toml::Value::Array(items) => items.iter().filter_map(|i| i.as_table()).collect(),
                _ => {
                    assert!(known.contains(&format!(".{name}")), "{name}");
                    continue;
                }
            };
            for key in entries.iter().flat_map(|entry| entry.keys()) {
                let key = format!("{name}.{key}");
                assert!(known.contains(&key), "{}: {key}", path.display());
            }
        }
    }
    assert_eq!(schema["properties"]["camera"]["items"]["properties"]["fps"]["maximum"], 240.0);
    assert_eq!(schema["required"], serde_json::json!(["model", "camera"]));
}

#[test]
fn the_constructors_have_the_defaults_of_the_file() {
    let text = "[model]\npath = \"a.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:ball\"";
    let config = parse(text, Path::new("x.toml"));
    assert_eq!(config.model, Model::new("a.onnx"));
    assert_eq!(config.triton, Triton::default());
    assert_eq!(config.tensorrt, TensorRt::default());
    assert_eq!(config.bus, Bus::default());
    assert_eq!(config.log, Log::default());
    assert_eq!(config.up, Up::default());
    let pattern = "ball".to_owned();
    let test = TestPattern { pattern, width: 640, height: 480, fps: 30.0, frames: None };
    let name = CameraName::try_from("a").expect("a valid name");
    assert_eq!(config.cameras, [Camera::new(name, Source::Test(test))]);
    assert!(config.sinks.is_empty());
}
