//! The slots of `framebus_tensorrt::abi` against NVIDIA's headers.
//!
//! The headers are not ours to distribute. Those of TensorRT 11.4 and TensorRT-RTX are
//! in a package of the Rust registry, which cargo fetches (`tests/headers/`); nothing of
//! it is built. Where it cannot be fetched this says SKIPPED.
//!
//! For TensorRT 10, or any other at hand, give the folder that holds `NvInferImpl.h`:
//! `TENSORRT_INCLUDE_DIR=/usr/include/x86_64-linux-gnu cargo test -p framebus-tensorrt
//! --test headers -- --nocapture`. The folder's version decides which table is checked.
#![allow(clippy::print_stderr, reason = "SKIPPED and what was checked must be seen")]

use framebus_tensorrt::abi::{Abi, Table, Version, implemented};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Time for `cargo fetch`; it gets some 20 small packages.
const FETCH: Duration = Duration::from_secs(180);

/// A folder of headers.
struct Headers {
    folder: PathBuf,
}

impl Headers {
    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(name)).ok().map(|text| without_comments(&text))
    }

    /// Version from `NvInferVersion.h`.
    fn version(&self) -> Version {
        let text = self.file("NvInferVersion.h").expect("NvInferVersion.h is there");
        let defined = |name: &str| -> Option<&str> {
            text.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some("#define") && words.next() == Some(name))
                    .then(|| words.next())
                    .flatten()
            })
        };
        // Since 10.x `NV_TENSORRT_MAJOR` may stand for another name.
        let number = |name: &str| -> u32 {
            let value = defined(name).unwrap_or_else(|| panic!("no {name}"));
            let value = defined(value).unwrap_or(value);
            value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
        };
        let [major, minor, patch] =
            ["MAJOR", "MINOR", "PATCH"].map(|part| number(&format!("NV_TENSORRT_{part}")));
        Version { major, minor, patch }
    }

    /// The virtual table of a class: methods by slot, `~` for a destructor's two.
    fn table(&self, class: &str) -> Option<Vec<String>> {
        let names = [
            "NvInferImpl.h",
            "NvInferRuntimeBase.h",
            "NvInferRuntime.h",
            "NvInfer.h",
            "NvOnnxParser.h",
        ];
        let body = names.iter().find_map(|name| body(&self.file(name)?, class))?;
        // The classes behind `mImpl` only inherit a destructor.
        let mut table: Vec<String> = match &body.base {
            Some(base) if base.contains("VRoot") => vec!["~".into(), "~".into()],
            Some(base) if base.contains("IVersionedInterface") => {
                self.table("IVersionedInterface")?
            }
            _ => Vec::new(),
        };
        for method in virtual_functions(&body.text) {
            // An override takes the slot that it overrides.
            if table.contains(&method) {
                continue;
            }
            if method == "~" {
                table.push(method.clone());
            }
            table.push(method);
        }
        Some(table)
    }
}

struct Body {
    base: Option<String>,
    text: String,
}

/// Header without comments; line ends are kept.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('/') {
        let (before, comment) = rest.split_at(start);
        out.push_str(before);
        let end = if comment.starts_with("//") {
            comment.find('\n').unwrap_or(comment.len())
        } else if comment.starts_with("/*") {
            comment.find("*/").map_or(comment.len(), |end| end + 2)
        } else {
            out.push('/');
            1
        };
        rest = &comment[end..];
    }
    out.push_str(rest);
    out
}

/// The definition of `class NAME`, not one of its declarations.
fn body(text: &str, class: &str) -> Option<Body> {
    let marker = format!("class {class}");
    text.match_indices(&marker).find_map(|(at, _)| {
        let after = &text[at + marker.len()..];
        let open = after.find(['{', ';'])?;
        let head = after[..open].trim();
        if !after[open..].starts_with('{') || !(head.is_empty() || head.starts_with(':')) {
            return None;
        }
        let mut depth = 0;
        let close = after[open..].char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0).then_some(open + at)
        })?;
        let base = head.strip_prefix(':').map(str::to_owned);
        Some(Body { base, text: after[open + 1..close].to_owned() })
    })
}

/// Names of the virtual functions in order, `~` for the destructor.
fn virtual_functions(body: &str) -> Vec<String> {
    let mut names = Vec::new();
    for declaration in body.split([';', '{', '}']) {
        // In front of it stand `public:` and macros of the compiler's.
        let Some((_, signature)) = declaration.split_once("virtual ") else { continue };
        let name = signature.split('(').next().unwrap_or_default().trim();
        let name = name.rsplit([' ', '*', '&']).next().unwrap_or_default();
        names.push(if name.starts_with('~') { "~".to_owned() } else { name.to_owned() });
    }
    names
}

/// Differences between a table of ours and the headers, and how many slots agree.
fn compare(headers: &Headers, ours: &Table, version: Version) -> (usize, Vec<String>) {
    let mut tables: BTreeMap<&str, Option<Vec<String>>> = BTreeMap::new();
    let (mut agree, mut differ) = (0, Vec::new());
    for entry in ours.entries() {
        let Some(slot) = entry.slot else { continue };
        let table = tables.entry(entry.class).or_insert_with(|| headers.table(entry.class));
        let Some(table) = table else {
            // TensorRT up to 10.12 has the parser's header in another package.
            if entry.class.starts_with("IParser") && !headers.folder.join("NvOnnxParser.h").exists()
            {
                continue;
            }
            differ.push(format!("no class {}", entry.class));
            continue;
        };
        let (wanted, at) = match entry.method.strip_prefix('~') {
            // The deleting destructor is the second of two.
            Some(_) => ("~", table.iter().rposition(|name| name == "~")),
            None => (entry.method, table.iter().position(|name| name == entry.method)),
        };
        let late = entry.method == "getDeviceMemorySizeV2"
            && version < Version { major: 10, minor: 3, patch: 0 }
            && version.major == 10;
        if at == Some(slot) || (late && at.is_none()) {
            agree += 1;
        } else {
            differ.push(format!("{}::{wanted} is at {at:?}, not {slot}", entry.class));
        }
    }
    (agree, differ)
}

/// Checks everything that is in one folder of headers; `None` for a version that the
/// binding refuses to call.
fn check(folder: &Path) -> Option<Abi> {
    let headers = Headers { folder: folder.to_owned() };
    let version = headers.version();
    let Some(abi) = Abi::of(version) else {
        eprintln!("{version}: refused by the binding");
        return None;
    };
    let (agree, differ) = compare(&headers, abi.table(), version);
    assert!(differ.is_empty(), "{}: {differ:#?}", folder.display());
    assert!(agree >= 30, "only {agree} slots were found in {}", folder.display());

    // The progress monitor's table must be exactly ours; a logger's may not grow either.
    assert_eq!(headers.table("IProgressMonitor").expect("a class"), implemented::MONITOR);
    let logger: &[&str] = match abi {
        Abi::V10 => &implemented::LOGGER_10,
        Abi::V11 | Abi::Rtx1 => &implemented::LOGGER_11,
    };
    assert_eq!(headers.table("ILogger").expect("a class"), logger);
    eprintln!("{version} ({abi:?}): {agree} slots and 2 interfaces agree");
    Some(abi)
}

/// The folder of the fetched package, or why there is none.
fn fetched() -> Result<PathBuf, String> {
    // A copy, so that no lock file appears in the checkout.
    let work = tempfile::tempdir().map_err(|error| error.to_string())?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/headers");
    for name in ["Cargo.toml", "lib.rs"] {
        std::fs::copy(source.join(name), work.path().join(name))
            .map_err(|error| error.to_string())?;
    }
    // What an earlier run has fetched needs no network.
    metadata(work.path(), &["--offline"]).or_else(|_| metadata(work.path(), &[]))
}

/// `cargo metadata` fetches like `cargo fetch`, and says where things are.
fn metadata(folder: &Path, options: &[&str]) -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut child = Command::new(&cargo)
        .args(["metadata", "--format-version", "1"])
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{cargo}: {error}"))?;
    let stdout = read(child.stdout.take().expect("piped"));
    let stderr = read(child.stderr.take().expect("piped"));
    let answer = stdout.recv_timeout(FETCH);
    if answer.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let answer = answer.map_err(|_| format!("cargo metadata took longer than {FETCH:?}"))?;
    if !status.success() {
        let errors = stderr.recv_timeout(FETCH).unwrap_or_default();
        let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or(&errors);
        return Err(format!("cargo metadata: {}", first.trim()));
    }
    let metadata: serde_json::Value =
        serde_json::from_str(&answer).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let package = packages.iter().find(|package| package["name"] == "trtx-sys");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.ok_or("cargo metadata names no trtx-sys")?;
    let headers = Path::new(manifest).with_file_name("TensorRT-Headers");
    if headers.is_dir() { Ok(headers) } else { Err(format!("no {}", headers.display())) }
}

/// Everything that a pipe gives, read on a thread of its own.
fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

#[test]
fn slots_are_as_in_the_registrys_headers() {
    let folder = match fetched() {
        Ok(folder) => folder,
        Err(reason) => {
            assert!(
                std::env::var_os("FRAMEBUS_REQUIRE_ASSETS").is_none_or(|v| v != "1"),
                "FRAMEBUS_REQUIRE_ASSETS=1, but NVIDIA's headers cannot be fetched: {reason}"
            );
            eprintln!("SKIPPED: NVIDIA's headers cannot be fetched: {reason}");
            return;
        }
    };
    let entries = std::fs::read_dir(&folder).expect("the package has headers");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("NvInferImpl.h").is_file())
        .collect();
    folders.sort();
    let checked: Vec<Abi> = folders.iter().filter_map(|folder| check(folder)).collect();
    for abi in [Abi::V11, Abi::Rtx1] {
        assert!(checked.contains(&abi), "no headers for {abi:?} in {}", folder.display());
    }
}

#[test]
fn slots_are_as_in_the_headers_at_hand() {
    match std::env::var_os("TENSORRT_INCLUDE_DIR") {
        Some(folder) => assert!(check(Path::new(&folder)).is_some(), "a version without table"),
        None => eprintln!("no TENSORRT_INCLUDE_DIR: no headers at hand are checked"),
    }
}

#[test]
fn a_header_is_read_as_a_compiler_lays_it_out() {
    let text = without_comments(
        "class VThing; // class VThing : public VRoot { virtual void no() = 0; };\n\
         class VThing : public VRoot\n{\npublic:\n/* virtual void no() = 0; */\n\
         TRT_NODISCARD virtual bool first(\n  int a, char const* b = nullptr) noexcept\n = 0;\n\
         virtual nvinfer1::Thing const* second() const noexcept = 0;\n\
         void plain() { int x; }\n\
         virtual ~VThing() {}\n\
         virtual char const* const* third(int64_t& n) = 0;\n};\nclass VThingOther {};",
    );
    let body = body(&text, "VThing").unwrap();
    assert!(body.base.unwrap().contains("VRoot"));
    assert_eq!(virtual_functions(&body.text), ["first", "second", "~", "third"]);
}

#[test]
fn a_wrong_slot_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let header = "class VRuntime : public VRoot { virtual void deserializeCudaEngine() = 0; };";
    std::fs::write(folder.path().join("NvInferImpl.h"), header).unwrap();
    let headers = Headers { folder: folder.path().to_owned() };
    let version = Version { major: 10, minor: 0, patch: 0 };
    let (_, differ) = compare(&headers, Abi::V10.table(), version);
    let wanted = "VRuntime::deserializeCudaEngine is at Some(2), not 3";
    assert!(differ.iter().any(|line| line == wanted), "{differ:?}");
}
