//! Whether what the zone editor wrote loads.

use serde_json::{Value, json};
use std::path::Path;

/// Tries the configuration file with `text` at its end; nothing is written.
/// `{"ok": true}`, or `{"ok": false, "errors": ["line 3: …", …]}` with lines of `text`.
pub(crate) fn check(file: &Path, text: &str) -> Value {
    let before = match std::fs::read_to_string(file) {
        Ok(before) => before,
        Err(error) => {
            let said = format!("{} cannot be read: {error}", file.display());
            return json!({"ok": false, "errors": [said]});
        }
    };
    let whole = format!("{before}\n{text}");
    let lines = before.lines().count().max(before.matches('\n').count()) + 1;
    let environment = |name: &str| std::env::var(name).ok();
    let Err(errors) = framebus_config::parse(&whole, file, &environment) else {
        return json!({"ok": true});
    };
    // An error's line is that of the whole; what is shown is the text.
    let first = before.matches('\n').count() + 1;
    let errors: Vec<String> = errors
        .iter()
        .map(|error| {
            let mut said = error.clone();
            let of_text = said.position.filter(|(line, _)| *line > first);
            said.position = None;
            let said = said.to_string();
            let said = said.strip_prefix(&format!("{}: ", file.display())).unwrap_or(&said);
            match (of_text, error.position) {
                (Some((line, column)), _) => {
                    format!("line {}, column {column}: {said}", line - first)
                }
                (None, Some((line, _))) if line < lines => {
                    format!("{} line {line}: {said}", file.display())
                }
                _ => said.to_owned(),
            }
        })
        .collect();
    json!({"ok": false, "errors": errors})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_read_with_the_file() {
        let folder = tempfile::tempdir().expect("temp dir");
        let file = folder.path().join("framebus.toml");
        let before = "[model]\npath = \"x.onnx\"\n[[camera]]\nname = \"a\"\nsource = \"test:ball\"";
        let zone = "[[zone]]\ncamera = \"a\"\nname = \"door\"\npoints = [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]\n";
        for before in [before.to_owned(), format!("{before}\n")] {
            std::fs::write(&file, before).expect("written");
            assert_eq!(check(&file, zone), json!({"ok": true}));
            let said = check(&file, &zone.replace("\"a\"", "\"b\""));
            let said = said["errors"][0].as_str().expect("an error");
            assert!(said.starts_with("line 2, column 10: zone"), "{said}");
            let said = check(&file, &zone.replace("zone", "zones"));
            assert_eq!(said["ok"], false, "{said}");
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(check(&file, zone)["errors"][0].as_str().expect("one").contains("cannot be read"));
    }
}
