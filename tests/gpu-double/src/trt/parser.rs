//! A TEST's double of TensorRT: the ONNX parser. It refuses bytes that are no ONNX, and
//! the operator `NoSuchOperator`.
#![allow(unsafe_code)] // A function exported under TensorRT's name; nothing unsafe in it.

use super::logger::{INFO, Logger};
use super::network::{Content, NetworkDefinition, ParserError};
use super::object::{Class, Method, bytes, delete_plain, free_plain, make_plain, public, this};
use super::onnx;
use crate::table::lock;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Arc, Mutex};

/// What the parser does not know.
const UNKNOWN: &str = "NoSuchOperator";
/// `ErrorCode::kMODEL_DESERIALIZE_FAILED` and `kUNSUPPORTED_NODE`.
const DESERIALIZE_FAILED: i32 = 3;
const UNSUPPORTED_NODE: i32 = 8;

struct Parser {
    logger: Logger,
    network: usize,
    errors: Mutex<Vec<usize>>,
    _network: Arc<()>,
}

#[unsafe(no_mangle)]
extern "C" fn createNvOnnxParser_INTERNAL(
    network: *const c_void,
    logger: *const c_void,
    _version: i32,
) -> *mut c_void {
    let Some(logger) = Logger::new(logger) else {
        return std::ptr::null_mut();
    };
    let life = public::<NetworkDefinition>(network).life.clone();
    let errors = Mutex::default();
    make_plain(Parser { logger, network: network as usize, errors, _network: life })
}

#[unsafe(no_mangle)]
extern "C" fn getNvOnnxParserVersion() -> i32 {
    crate::device::get().tensorrt
}

impl Class for Parser {
    const NAME: &'static str = "IParser";

    fn methods() -> Vec<Method> {
        vec![
            (0, parse as *const () as usize),
            (5, errors as *const () as usize),
            (6, error as *const () as usize),
            (7, clear as *const () as usize),
            (9, delete_plain::<Self> as *const () as usize),
        ]
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Parser {
    fn clear(&self) {
        for error in lock(&self.errors).drain(..) {
            free_plain::<ParserError>(error as *mut c_void);
        }
    }

    fn fail(&self, code: i32, function: &'static CStr, node: (i32, &str, &str), text: &str) {
        let c = |text: &str| CString::new(text).unwrap_or_default();
        self.logger.error(&match node {
            (-1, ..) => text.to_owned(),
            (i, name, operator) => format!(
                "In node {i} with name: {name} and operator: {operator} ({}): UNSUPPORTED_NODE: {text}",
                function.to_string_lossy()
            ),
        });
        let (node, name, operator) = (node.0, c(node.1), c(node.2));
        let error = ParserError { code, text: c(text), function, node, name, operator };
        lock(&self.errors).push(error.object());
    }
}

extern "C" fn parse(
    parser: *const c_void,
    model: *const c_void,
    len: usize,
    _path: *const c_char,
) -> bool {
    let parser = this::<Parser>(parser);
    let model = bytes(model, len);
    let Some(graph) = onnx::read(&model) else {
        parser.fail(
            DESERIALIZE_FAILED,
            c"deserializeOnnxModel",
            (-1, "", ""),
            "Failed to parse the ONNX model.",
        );
        return false;
    };
    for (i, (name, operator)) in graph.nodes.iter().enumerate() {
        if operator == UNKNOWN {
            parser.fail(
                UNSUPPORTED_NODE,
                c"importFallbackPluginImporter",
                (i32::try_from(i).unwrap_or(0), name, operator),
                "Assertion failed: creator: Plugin not found, are the plugin name, version, and \
                 namespace correct?",
            );
        }
    }
    if !lock(&parser.errors).is_empty() {
        return false;
    }
    parser.logger.log(INFO, &format!("Parsed {} nodes.", graph.nodes.len()));
    let network = public::<NetworkDefinition>(parser.network as *const c_void);
    network.fill(Content { onnx: Arc::new(model), graph });
    true
}

extern "C" fn errors(parser: *const c_void) -> i32 {
    i32::try_from(lock(&this::<Parser>(parser).errors).len()).unwrap_or(0)
}

extern "C" fn error(parser: *const c_void, i: i32) -> *const c_void {
    let errors = lock(&this::<Parser>(parser).errors);
    let found = usize::try_from(i).ok().and_then(|i| errors.get(i).copied());
    found.unwrap_or(0) as *const c_void
}

extern "C" fn clear(parser: *const c_void) {
    this::<Parser>(parser).clear();
}
