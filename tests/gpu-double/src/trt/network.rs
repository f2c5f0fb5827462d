//! A TEST's double of TensorRT: `INetworkDefinition`, its `ITensor`s, and `IHostMemory`.

use super::object::{Class, Dims, Method, make, make_plain, this};
use super::onnx::{Graph, Tensor};
use crate::table::lock;
use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, Mutex};

/// What a parser has put into a network.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) onnx: Arc<Vec<u8>>,
    pub(super) graph: Graph,
}

#[derive(Default)]
pub(super) struct NetworkDefinition {
    pub(super) content: Mutex<Option<Content>>,
    /// Of the inputs and of the outputs, as the caller has them.
    tensors: Mutex<(Vec<usize>, Vec<usize>)>,
    /// Held by its parsers.
    pub(super) life: Arc<()>,
}

impl NetworkDefinition {
    pub(super) fn fill(&self, content: Content) {
        let tensors = |input| {
            let wanted = content.graph.tensors.iter().filter(|tensor| tensor.input == input);
            wanted.map(|tensor| make(TensorObject::new(tensor)) as usize).collect()
        };
        *lock(&self.tensors) = (tensors(true), tensors(false));
        *lock(&self.content) = Some(content);
    }
}

impl Class for NetworkDefinition {
    const NAME: &'static str = "INetworkDefinition";

    fn methods() -> Vec<Method> {
        vec![
            (14, inputs as *const () as usize),
            (15, input as *const () as usize),
            (16, outputs as *const () as usize),
            (17, output as *const () as usize),
        ]
    }

    fn deleting(&self) -> Option<String> {
        (Arc::strong_count(&self.life) > 1).then(|| "a parser of it lives".to_owned())
    }
}

fn at(list: &[usize], i: i32) -> *mut c_void {
    let found = usize::try_from(i).ok().and_then(|i| list.get(i));
    found.map_or(std::ptr::null_mut(), |object| *object as *mut c_void)
}

extern "C" fn inputs(network: *const c_void) -> i32 {
    i32::try_from(lock(&this::<NetworkDefinition>(network).tensors).0.len()).unwrap_or(0)
}

extern "C" fn input(network: *const c_void, i: i32) -> *mut c_void {
    at(&lock(&this::<NetworkDefinition>(network).tensors).0, i)
}

extern "C" fn outputs(network: *const c_void) -> i32 {
    i32::try_from(lock(&this::<NetworkDefinition>(network).tensors).1.len()).unwrap_or(0)
}

extern "C" fn output(network: *const c_void, i: i32) -> *mut c_void {
    at(&lock(&this::<NetworkDefinition>(network).tensors).1, i)
}

/// `ITensor`: the network's own; they stay as long as the process, being few.
struct TensorObject {
    name: CString,
    tensor: Tensor,
}

impl TensorObject {
    fn new(tensor: &Tensor) -> Self {
        let name = CString::new(tensor.name.as_str()).unwrap_or_default();
        Self { name, tensor: tensor.clone() }
    }
}

impl Class for TensorObject {
    const NAME: &'static str = "ITensor";
    const DELETED_BY_CALLER: bool = false;

    fn methods() -> Vec<Method> {
        vec![
            (3, tensor_name as *const () as usize),
            (5, tensor_shape as *const () as usize),
            (7, tensor_type as *const () as usize),
        ]
    }
}

extern "C" fn tensor_name(tensor: *const c_void) -> *const c_char {
    this::<TensorObject>(tensor).name.as_ptr()
}

extern "C" fn tensor_shape(tensor: *const c_void) -> Dims {
    Dims::new(&this::<TensorObject>(tensor).tensor.shape)
}

extern "C" fn tensor_type(tensor: *const c_void) -> i32 {
    this::<TensorObject>(tensor).tensor.data_type
}

/// `IHostMemory`.
pub(super) struct HostMemory(pub(super) Vec<u8>);

impl Class for HostMemory {
    const NAME: &'static str = "IHostMemory";

    fn methods() -> Vec<Method> {
        vec![
            (2, data as *const () as usize),
            (3, size as *const () as usize),
            (4, kind as *const () as usize),
        ]
    }
}

extern "C" fn data(memory: *const c_void) -> *const u8 {
    this::<HostMemory>(memory).0.as_ptr()
}

extern "C" fn size(memory: *const c_void) -> usize {
    this::<HostMemory>(memory).0.len()
}

extern "C" fn kind(memory: *const c_void) -> i32 {
    this::<HostMemory>(memory);
    2
}

/// `IParserError`, the parser's own.
pub(super) struct ParserError {
    pub(super) code: i32,
    pub(super) text: CString,
    pub(super) function: &'static std::ffi::CStr,
    /// Number of the node, -1 where it is no node's.
    pub(super) node: i32,
    pub(super) name: CString,
    pub(super) operator: CString,
}

impl ParserError {
    pub(super) fn object(self) -> usize {
        make_plain(self) as usize
    }
}

impl Class for ParserError {
    const NAME: &'static str = "IParserError";
    const DELETED_BY_CALLER: bool = false;

    fn methods() -> Vec<Method> {
        vec![
            (0, error_code as *const () as usize),
            (1, error_text as *const () as usize),
            (2, error_file as *const () as usize),
            (3, error_line as *const () as usize),
            (4, error_function as *const () as usize),
            (5, error_node as *const () as usize),
            (6, error_node_name as *const () as usize),
            (7, error_operator as *const () as usize),
        ]
    }
}

extern "C" fn error_code(error: *const c_void) -> i32 {
    this::<ParserError>(error).code
}

extern "C" fn error_text(error: *const c_void) -> *const c_char {
    this::<ParserError>(error).text.as_ptr()
}

extern "C" fn error_file(error: *const c_void) -> *const c_char {
    this::<ParserError>(error);
    c"ModelImporter.cpp".as_ptr()
}

extern "C" fn error_line(error: *const c_void) -> i32 {
    this::<ParserError>(error);
    1
}

extern "C" fn error_function(error: *const c_void) -> *const c_char {
    this::<ParserError>(error).function.as_ptr()
}

extern "C" fn error_node(error: *const c_void) -> i32 {
    this::<ParserError>(error).node
}

extern "C" fn error_node_name(error: *const c_void) -> *const c_char {
    this::<ParserError>(error).name.as_ptr()
}

extern "C" fn error_operator(error: *const c_void) -> *const c_char {
    this::<ParserError>(error).operator.as_ptr()
}
