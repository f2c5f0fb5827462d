//! OpenVINO's library is missing or is something else: one message, no crash.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

use framebus_engine::LoadOptions;
use std::path::Path;
use std::process::Command;

/// Not a test of its own: run in a child process, where the library was not
/// opened before.
#[test]
#[ignore = "run by the other tests in a child process"]
fn child() {
    match framebus_engine::backend("openvino").unwrap().probe(&LoadOptions::new(|| 0)) {
        Ok(found) => println!("FOUND {found}"),
        Err(error) => println!("ERROR {error}"),
    }
}

fn probe(library: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("FRAMEBUS_OPENVINO_LIB", library)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|l| l.contains("ERROR") || l.contains("FOUND"));
    line.unwrap_or_else(|| panic!("no answer in {text}")).to_owned()
}

#[test]
fn a_missing_file_is_named_with_the_next_step() {
    let line = probe(Path::new("/none/libopenvino_c.so"));
    assert!(
        line.ends_with(
            "ERROR openvino is not available: /none/libopenvino_c.so does not exist; correct or \
             unset FRAMEBUS_OPENVINO_LIB"
        ),
        "{line}"
    );
}

#[test]
fn a_folder_without_the_library_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let line = probe(folder.path());
    let expected = format!("no libopenvino_c.so found; searched {}", folder.path().display());
    assert!(line.contains(&expected), "{line}");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not a library").unwrap();
    let line = probe(file.path());
    assert!(line.contains("is not a usable library"), "{line}");
}
