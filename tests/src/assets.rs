//! Files that the set-up fetches, and what happens without them.

use std::path::{Path, PathBuf};

/// The repository's root folder.
#[must_use]
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().unwrap_or(root)
}

/// A file below `.framebus`, or `None` after saying SKIPPED.
///
/// # Panics
/// When it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
#[must_use]
pub fn asset(path: &str) -> Option<PathBuf> {
    let file = repository().join(".framebus").join(path);
    if file.exists() {
        return Some(file);
    }
    skip(&format!("{} is missing; `make setup` fetches it", file.display()));
    None
}

/// Whether OpenVINO is here; says SKIPPED when it is not.
///
/// # Panics
/// When it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`.
#[must_use]
pub fn openvino() -> bool {
    let probed = framebus_engine::backend("openvino")
        .and_then(|backend| backend.probe(&framebus_engine::LoadOptions::new(|| 0)));
    if let Err(error) = &probed {
        skip(&error.to_string());
    }
    probed.is_ok()
}

/// Says loudly that a test, or a part of one, does not run here.
///
/// # Panics
/// When `FRAMEBUS_REQUIRE_ASSETS=1`: where everything is meant to be present, a
/// skipped test is a failed one.
#[allow(clippy::print_stderr, reason = "the test's own output")]
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_none_or(|value| value != "1"),
        "FRAMEBUS_REQUIRE_ASSETS=1, but {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}
