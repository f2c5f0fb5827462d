//! Broken configurations, each pinned to the exact message that a person gets.
//! `UPDATE_GOLDEN=1` rewrites the messages; read each of them as a stranger would.

use std::path::{Path, PathBuf};

fn env(name: &str) -> Option<String> {
    (name == "CAMERA_PASSWORD").then(|| "hunter2".to_owned())
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("tests/broken exists")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    cases
}

/// The message with the file named relative to its folder.
fn message(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a readable case");
    let name = Path::new(path.file_name().expect("a file"));
    match framebus_config::parse(&text, name, &env) {
        Ok(_) => panic!("{} is no broken configuration", path.display()),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn every_message_is_as_pinned() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for path in &cases {
        let message = message(path);
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &message).expect("a writable golden");
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != message {
            wrong.push(format!("{}:\n{message}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "changed messages:\n{}", wrong.join("\n"));
}

#[test]
fn no_message_shows_a_password() {
    for path in cases() {
        let text = std::fs::read_to_string(&path).expect("a readable case");
        let name = Path::new("x.toml");
        let Err(errors) = framebus_config::parse(&text, name, &env) else {
            continue;
        };
        for shown in [format!("{errors}"), format!("{errors:?}")] {
            for secret in ["hunter2", "hunter3", "hun/ter2", "12345678"] {
                assert!(!shown.contains(secret), "{}: {shown}", path.display());
            }
        }
    }
}

#[test]
fn errors_are_the_same_each_time_and_in_the_order_of_the_file() {
    for path in cases() {
        assert_eq!(message(&path), message(&path));
        let text = std::fs::read_to_string(&path).expect("a readable case");
        let errors = framebus_config::parse(&text, Path::new("x.toml"), &env)
            .expect_err("a broken configuration");
        let positions: Vec<_> = errors.iter().map(|error| error.position).collect();
        assert!(positions.is_sorted(), "{}: {positions:?}", path.display());
        assert!(positions.iter().all(Option::is_some), "{}", path.display());
    }
}
