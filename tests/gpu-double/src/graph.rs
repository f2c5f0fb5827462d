//! A TEST's double of CUDA: graphs, which are lists of operations.
#![allow(unsafe_code)] // Functions exported under CUDA's names; nothing unsafe in them.

use crate::code::{self, Code};
use crate::context::{Out, call, put, release};
use crate::stream::{self, Fence, Item, Op};
use crate::table::{Table, lock};
use crate::{capture, count};
use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex};

pub(crate) static GRAPHS: Table<Vec<Op>> = Table::new("graph");
pub(crate) static EXECUTABLES: Table<Executable> = Table::new("executable graph");

pub(crate) struct Executable {
    ops: Vec<Op>,
    /// The end of its last launch: a graph never runs twice at once.
    last: Mutex<Option<Arc<Fence>>>,
}

impl Executable {
    pub(crate) fn new(ops: Vec<Op>) -> Self {
        Self { ops, last: Mutex::new(None) }
    }
}

pub(crate) fn launch(graph: &Executable, handle: usize) -> Result<(), Code> {
    let target = stream::get(handle)?;
    if target.capture().is_some() {
        for op in &graph.ops {
            capture::record(&target, op)?;
        }
        return Ok(());
    }
    let mut last = lock(&graph.last);
    let fence = Arc::new(Fence::default());
    let before = last.replace(fence.clone()).map(Item::Wait);
    let ops = graph.ops.iter().cloned().map(Item::Run);
    count::GRAPH_LAUNCHES.add(1);
    stream::submit(&target, before.into_iter().chain(ops).chain([Item::Signal(fence)]))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: u32) -> u32 {
    call(|| capture::begin(&*stream::get(stream as usize)?, mode))
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamEndCapture(stream: *mut c_void, out: Out<'_, usize>) -> u32 {
    call(|| {
        let ended = stream::get(stream as usize).and_then(|stream| capture::end(&stream));
        // A graph or null, whatever happens.
        match ended {
            Ok(ops) => put(out, GRAPHS.insert(ops)),
            Err(code) => put(out, 0).and(Err(code)),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamIsCapturing(stream: *mut c_void, out: Out<'_, i32>) -> u32 {
    call(|| {
        let capture = stream::get(stream as usize)?.capture();
        put(out, capture.map_or(0, |capture| capture.status()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(out: Out<'_, usize>, graph: usize, _flags: u64) -> u32 {
    call(|| {
        let ops = GRAPHS.get(graph)?;
        put(out, EXECUTABLES.insert(Executable::new(ops.to_vec())))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiate_v2(
    out: Out<'_, usize>,
    graph: usize,
    _node: *mut c_void,
    _log: *mut c_char,
    _len: usize,
) -> u32 {
    cuGraphInstantiateWithFlags(out, graph, 0)
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: usize, nodes: *mut c_void, len: Out<'_, usize>) -> u32 {
    call(|| {
        // Only how many there are.
        if !nodes.is_null() {
            return Err(code::NOT_SUPPORTED);
        }
        put(len, GRAPHS.get(graph)?.len())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(graph: usize, stream: *mut c_void) -> u32 {
    call(|| {
        EXECUTABLES.get(graph)?;
        stream::get(stream as usize).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(graph: usize, stream: *mut c_void) -> u32 {
    call(|| launch(&*EXECUTABLES.get(graph)?, stream as usize))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: usize) -> u32 {
    release(|| GRAPHS.remove(graph).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(graph: usize) -> u32 {
    release(|| EXECUTABLES.remove(graph).map(|_| ()))
}
