//! The committed header is the one that the sources say.

use std::path::Path;

/// Where what C sees is declared; the stage times are the layouts' own.
const SOURCES: [&str; 4] =
    ["src/status.rs", "src/records.rs", "src/exports.rs", "../framebus-types/src/result.rs"];

#[test]
fn the_header_is_generated_from_the_sources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(folder.join(source));
    }
    let mut generated = Vec::new();
    builder.generate().expect("cbindgen reads the sources").write(&mut generated);
    let generated = String::from_utf8(generated).expect("UTF-8");
    let header = folder.join("include/framebus.h");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&header, generated).expect("the header can be written");
        return;
    }
    let committed = std::fs::read_to_string(&header).unwrap_or_default();
    assert!(
        committed == generated,
        "include/framebus.h is not of these sources; UPDATE_GOLDEN=1 cargo test -p framebus-capi"
    );
}
