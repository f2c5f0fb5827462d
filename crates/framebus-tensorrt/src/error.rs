//! What can go wrong, in one line each.

use crate::abi::Version;
use std::fmt;
use std::path::PathBuf;

/// Why TensorRT could not be opened or did not do what it was asked for. Every text is
/// one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library is where it was looked for.
    #[error(
        "TensorRT not found (looked for {}); install TensorRT 10 or 11 or give the path of its library",
        tried.join(", ")
    )]
    NotFound {
        /// What was tried: names handed to the loader, files and folders, each with
        /// the reason where it was there and of no use.
        tried: Vec<String>,
    },
    /// A file is no library that can be loaded here.
    #[error("{} cannot be loaded: {reason}; give the path of TensorRT's library", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// A library lacks a function: it is something else, or a part of TensorRT that
    /// cannot do what was asked for.
    #[error("{} has no function {symbol}: {hint}", path.display())]
    Symbol {
        /// The file.
        path: PathBuf,
        /// The function.
        symbol: &'static str,
        /// What that means and what to do.
        hint: &'static str,
    },
    /// A version whose interface is not known.
    #[error(
        "{} is TensorRT {version}; 10.x, 11.x or TensorRT-RTX 1.5 or newer is needed",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        version: Version,
    },
    /// The library neither runs on nor builds for a GPU of this kind.
    #[error(
        "{library} does not support GPUs of compute capability {}.{} (supported: {supported}); use another TensorRT",
        capability.0, capability.1
    )]
    Capability {
        /// Product and version.
        library: String,
        /// Major and minor.
        capability: (u32, u32),
        /// What it does support.
        supported: String,
    },
    /// The library that reads ONNX is neither beside TensorRT's nor known to the loader.
    #[error("the ONNX parser {name} of {} cannot be used ({reason}); install it in the same folder", library.display())]
    NoParser {
        /// File name of the parser.
        name: &'static str,
        /// The TensorRT it belongs to.
        library: PathBuf,
        /// What was tried.
        reason: String,
    },
    /// The ONNX parser refused the model.
    #[error("TensorRT's ONNX parser refused the model: {}", told(errors))]
    Parse {
        /// The parser's list, never empty.
        errors: Vec<ParseError>,
    },
    /// The caller's progress function said stop.
    #[error("building was cancelled")]
    Cancelled,
    /// What the caller passed makes no sense to TensorRT.
    #[error("{what}")]
    Argument {
        /// What is wrong with it.
        what: String,
    },
    /// TensorRT refused a call.
    #[error("{call} failed: {}", words(call, log))]
    Refused {
        /// Class and method.
        call: &'static str,
        /// TensorRT's last messages about it, on one line; may be empty.
        log: String,
    },
}

/// One error of the ONNX parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Name of the node; empty where the error belongs to none, or it has none.
    pub node: String,
    /// Operator of the node, such as `Conv`; may be empty.
    pub operator: String,
    /// The parser's words, on one line.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node.as_str(), self.operator.as_str()) {
            ("", "") => {}
            ("", operator) => write!(f, "a node of operator {operator}: ")?,
            (node, "") => write!(f, "node '{node}': ")?,
            (node, operator) => write!(f, "node '{node}' ({operator}): ")?,
        }
        f.write_str(&self.message)
    }
}

/// TensorRT begins most lines with the call, which is there already.
fn words<'a>(call: &str, log: &'a str) -> &'a str {
    let rest = log.strip_prefix(call).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(log);
    if rest.is_empty() { "TensorRT gave no reason" } else { rest }
}

fn told(errors: &[ParseError]) -> String {
    match errors {
        [] => "it gave no reason".to_owned(),
        [only] => only.to_string(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_error(node: &str, operator: &str) -> ParseError {
        ParseError { node: node.into(), operator: operator.into(), message: "no".into() }
    }

    #[test]
    fn texts() {
        let error = Error::NotFound { tried: vec!["libnvinfer.so.11".into(), "/a".into()] };
        assert_eq!(
            error.to_string(),
            "TensorRT not found (looked for libnvinfer.so.11, /a); install TensorRT 10 or 11 or \
             give the path of its library"
        );
        let version = Version::from_number(8601);
        let error = Error::Version { path: "/a/libnvinfer.so".into(), version };
        assert_eq!(
            error.to_string(),
            "/a/libnvinfer.so is TensorRT 8.6.1; 10.x, 11.x or TensorRT-RTX 1.5 or newer is needed"
        );
        let error = Error::Capability {
            library: "TensorRT-RTX 1.7.1".into(),
            capability: (8, 7),
            supported: "7.5".into(),
        };
        assert_eq!(
            error.to_string(),
            "TensorRT-RTX 1.7.1 does not support GPUs of compute capability 8.7 (supported: 7.5); \
             use another TensorRT"
        );
        let error = Error::Refused { call: "IBuilder::build", log: String::new() };
        assert_eq!(error.to_string(), "IBuilder::build failed: TensorRT gave no reason");
        let log = "IBuilder::build: Error Code 4".to_owned();
        let error = Error::Refused { call: "IBuilder::build", log };
        assert_eq!(error.to_string(), "IBuilder::build failed: Error Code 4");
    }

    #[test]
    fn parse_errors_name_what_they_can() {
        assert_eq!(parse_error("a", "Conv").to_string(), "node 'a' (Conv): no");
        assert_eq!(parse_error("", "Conv").to_string(), "a node of operator Conv: no");
        assert_eq!(parse_error("a", "").to_string(), "node 'a': no");
        assert_eq!(parse_error("", "").to_string(), "no");
        let errors = vec![parse_error("a", "Conv"), parse_error("b", "Add")];
        assert_eq!(
            Error::Parse { errors }.to_string(),
            "TensorRT's ONNX parser refused the model: node 'a' (Conv): no (and 1 more)"
        );
    }
}
