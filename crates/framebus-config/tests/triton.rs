//! `[triton]`: what is valid, and whether its files are there.

use framebus_config::{Config, check_files, load, parse};
use std::path::Path;

fn text(backend: &str, triton: &str) -> String {
    format!(
        "[model]\npath = \"m.onnx\"\nbackend = {backend}\n[triton]\n{triton}\n\
         [[camera]]\nname = \"a\"\nsource = \"test:ball\"\n"
    )
}

fn valid(backend: &str, triton: &str) -> Config {
    match parse(&text(backend, triton), Path::new("x.toml"), &|_| None) {
        Ok(config) => config,
        Err(errors) => panic!("{triton}: {errors}"),
    }
}

#[test]
fn a_token_may_stay_on_the_machine_unencrypted() {
    for url in ["localhost", "127.0.0.2:8000", "[::1]:8001", "grpcs://inference.example"] {
        let config = valid("[\"triton\"]", &format!("url = \"{url}\"\ntoken = \"hunter2\""));
        let token = config.triton.token.as_ref().map(|token| token.expose());
        assert_eq!(token, Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

#[test]
fn a_section_that_nobody_uses_may_stay() {
    for backend in ["\"auto\"", "[\"openvino\"]"] {
        assert_eq!(valid(backend, "timeout_ms = 600000").triton.timeout_ms, 600_000);
    }
    assert_eq!(valid("[\"openvino\", \"triton\"]", "timeout_ms = 1999").triton.timeout_ms, 1999);
}

#[test]
fn certificates_of_a_server_that_is_used_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.toml");
    std::fs::write(folder.path().join("m.onnx"), "x").expect("a writable folder");
    std::fs::write(folder.path().join("c.pem"), "x").expect("a writable folder");
    let triton = "url = \"grpcs://h\"\nca = \"ca.pem\"\ncert = \"c.pem\"\nkey = \"k.pem\"";
    let problems = |backend: &str| -> Vec<String> {
        std::fs::write(&path, text(backend, triton)).expect("a writable folder");
        let config = load(&path).expect("a valid configuration");
        check_files(&config).iter().map(ToString::to_string).collect()
    };
    assert!(problems("[\"openvino\"]").is_empty());
    let at = |rest: &str| format!("{}:{rest}", path.display());
    let shown = folder.path().display();
    assert_eq!(
        problems("[\"triton\"]"),
        [
            at(&format!("6:6: triton.ca = \"{shown}/ca.pem\": there is no such file")),
            at(&format!("8:7: triton.key = \"{shown}/k.pem\": there is no such file")),
        ]
    );
}
