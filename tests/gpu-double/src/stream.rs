//! A TEST's double of CUDA: streams. Each is a thread that takes its operations in
//! order; the legacy stream (handle 0) waits for the blocking ones and they for it.

use crate::capture::{self, Capture};
use crate::code::Code;
use crate::table::{Table, lock};
use crate::{code, count, fault, time};
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// Something that the device does: a copy, a kernel, a network. It may run more than
/// once, when a graph has captured it. `Err` is the error that stays.
pub(crate) type Op = Arc<dyn Fn() -> Result<(), Code> + Send + Sync>;

/// `CU_STREAM_NON_BLOCKING`.
pub(crate) const NON_BLOCKING: u32 = 1;

/// A place in a stream that others can wait for.
#[derive(Default)]
pub(crate) struct Fence {
    /// When it was reached, in ns.
    reached: Mutex<Option<u64>>,
    changed: Condvar,
}

impl Fence {
    pub(crate) fn signal(&self) {
        *lock(&self.reached) = Some(time::now());
        self.changed.notify_all();
    }

    pub(crate) fn wait(&self) {
        let reached = lock(&self.reached);
        drop(
            self.changed
                .wait_while(reached, |reached| reached.is_none())
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    pub(crate) fn reached(&self) -> Option<u64> {
        *lock(&self.reached)
    }
}

pub(crate) enum Item {
    Run(Op),
    Signal(Arc<Fence>),
    Wait(Arc<Fence>),
    End,
}

pub(crate) struct Stream {
    pub(crate) handle: usize,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    /// Items not yet done, the one that runs included: it is taken out afterwards.
    queue: Mutex<VecDeque<Item>>,
    changed: Condvar,
    pub(crate) capturing: Mutex<Option<Arc<Capture>>>,
}

pub(crate) static STREAMS: Table<Stream> = Table::new("stream");
static LEGACY: OnceLock<Arc<Stream>> = OnceLock::new();
/// Held while items that belong together are put into several streams.
static ORDER: Mutex<()> = Mutex::new(());

fn start(handle: usize, flags: u32, priority: i32) -> Result<Arc<Stream>, Code> {
    let stream = Arc::new(Stream {
        handle,
        flags,
        priority,
        queue: Mutex::default(),
        changed: Condvar::new(),
        capturing: Mutex::new(None),
    });
    let worker = stream.clone();
    std::thread::Builder::new()
        .name("gpu-double".to_owned())
        .spawn(move || worker.work())
        .map_err(|_| code::OUT_OF_MEMORY)?;
    Ok(stream)
}

pub(crate) fn create(flags: u32, priority: i32) -> Result<usize, Code> {
    let handle = crate::table::handle();
    STREAMS.put(handle, start(handle, flags, priority)?);
    Ok(handle)
}

/// What is enqueued is still done, as in CUDA.
pub(crate) fn destroy(handle: usize) -> Result<(), Code> {
    let stream = STREAMS.remove(handle)?;
    stream.push(Item::End);
    Ok(())
}

/// The stream of a handle; 0, 1 and 2 are the default ones, all the legacy stream.
pub(crate) fn get(handle: usize) -> Result<Arc<Stream>, Code> {
    if handle > 2 {
        return STREAMS.get(handle);
    }
    if let Some(stream) = LEGACY.get() {
        return Ok(stream.clone());
    }
    let new = start(0, 0, 0)?;
    Ok(LEGACY.get_or_init(|| new).clone())
}

/// For kernels, copies and networks: `op` runs in the stream, or becomes part of the
/// graph that the stream is captured into.
pub(crate) fn try_enqueue(handle: usize, op: Op) -> Result<(), Code> {
    fault::alive()?;
    let stream = get(handle)?;
    if capture::record(&stream, &op)? {
        return Ok(());
    }
    submit(&stream, [Item::Run(op)])
}

/// As [`try_enqueue`], with CUDA's result code.
pub(crate) fn enqueue(stream: *mut c_void, op: Op) -> Code {
    try_enqueue(stream as usize, op).err().unwrap_or(0)
}

/// Puts items into a stream that is not captured.
pub(crate) fn submit(
    stream: &Arc<Stream>,
    items: impl IntoIterator<Item = Item>,
) -> Result<(), Code> {
    let _order = lock(&ORDER);
    if stream.flags & NON_BLOCKING == 0 {
        capture::implicit(stream)?;
        let others: Vec<_> = if stream.handle == 0 {
            STREAMS.all().into_iter().filter(|other| other.flags & NON_BLOCKING == 0).collect()
        } else {
            LEGACY.get().cloned().into_iter().collect()
        };
        for other in others.iter().filter(|other| !other.idle()) {
            let fence = Arc::new(Fence::default());
            other.push(Item::Signal(fence.clone()));
            stream.push(Item::Wait(fence));
        }
    }
    for item in items {
        stream.push(item);
    }
    Ok(())
}

/// Waits for everything in the stream so far.
pub(crate) fn synchronize(stream: &Arc<Stream>) -> Result<(), Code> {
    let fence = Arc::new(Fence::default());
    submit(stream, [Item::Signal(fence.clone())])?;
    count::WAITS.add(1);
    fence.wait();
    fault::alive()
}

/// Waits for everything in all streams so far.
pub(crate) fn synchronize_all() {
    let streams = STREAMS.all().into_iter().chain(LEGACY.get().cloned());
    let fences: Vec<_> = streams
        .map(|stream| {
            let fence = Arc::new(Fence::default());
            stream.push(Item::Signal(fence.clone()));
            fence
        })
        .collect();
    for fence in fences {
        fence.wait();
    }
}

impl Stream {
    fn push(&self, item: Item) {
        lock(&self.queue).push_back(item);
        self.changed.notify_all();
    }

    pub(crate) fn idle(&self) -> bool {
        lock(&self.queue).is_empty()
    }

    pub(crate) fn capture(&self) -> Option<Arc<Capture>> {
        lock(&self.capturing).clone()
    }

    fn work(&self) {
        loop {
            let queue = lock(&self.queue);
            let queue = self
                .changed
                .wait_while(queue, |queue| queue.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            // What is taken out only when it is done keeps the stream busy till then.
            let (op, fence, wait) = match queue.front() {
                Some(Item::Run(op)) => (Some(op.clone()), None, false),
                Some(Item::Signal(fence)) => (None, Some(fence.clone()), false),
                Some(Item::Wait(fence)) => (None, Some(fence.clone()), true),
                Some(Item::End) | None => return,
            };
            drop(queue);
            fault::wait_while_hanging();
            if let Some(op) = op {
                run(&op);
            }
            if let (Some(fence), true) = (&fence, wait) {
                fence.wait();
            }
            let done = lock(&self.queue).pop_front();
            // Whoever waits for the fence sees the stream without it.
            if let (Some(fence), false) = (fence, wait) {
                fence.signal();
            }
            drop(done);
        }
    }
}

/// Runs an operation, unless one before it has failed.
pub(crate) fn run(op: &Op) {
    if fault::alive().is_err() {
        return;
    }
    count::PEAK.at_least(count::RUNNING.add(1));
    if let Err(code) = op() {
        fault::fail(code);
    }
    count::RUNNING.sub(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn note(list: &Arc<Mutex<Vec<u32>>>, number: u32, millis: u64) -> Op {
        let list = list.clone();
        Arc::new(move || {
            time::pause(Duration::from_millis(millis));
            lock(&list).push(number);
            Ok(())
        })
    }

    #[test]
    fn operations_of_a_stream_are_in_order_and_not_in_the_caller() {
        let list = Arc::default();
        let stream = create(NON_BLOCKING, 0).unwrap();
        for number in 0..5 {
            try_enqueue(stream, note(&list, number, 5)).unwrap();
        }
        assert!(lock(&list).len() < 5);
        assert!(!get(stream).unwrap().idle());
        synchronize(&get(stream).unwrap()).unwrap();
        assert_eq!(*lock(&list), [0, 1, 2, 3, 4]);
        assert!(get(stream).unwrap().idle());
        destroy(stream).unwrap();
        assert_eq!(get(stream).err(), Some(code::INVALID_HANDLE));
    }

    #[test]
    fn the_legacy_stream_and_the_blocking_ones_wait_for_each_other() {
        let list = Arc::default();
        let (blocking, free) = (create(0, 0).unwrap(), create(NON_BLOCKING, 0).unwrap());
        try_enqueue(blocking, note(&list, 1, 30)).unwrap();
        try_enqueue(0, note(&list, 2, 10)).unwrap();
        try_enqueue(blocking, note(&list, 3, 0)).unwrap();
        try_enqueue(free, note(&list, 0, 0)).unwrap();
        synchronize(&get(blocking).unwrap()).unwrap();
        synchronize(&get(free).unwrap()).unwrap();
        let order: Vec<u32> = lock(&list).iter().copied().filter(|n| *n != 0).collect();
        assert_eq!(order, [1, 2, 3]);
        destroy(blocking).unwrap();
        destroy(free).unwrap();
    }

    #[test]
    fn streams_overlap() {
        let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let streams: Vec<usize> = (0..3).map(|_| create(NON_BLOCKING, 0).unwrap()).collect();
        for stream in &streams {
            let seen = at_once.clone();
            let op = move || {
                let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
                seen.1.fetch_max(now, Ordering::SeqCst);
                time::pause(Duration::from_millis(50));
                seen.0.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            try_enqueue(*stream, Arc::new(op)).unwrap();
        }
        synchronize_all();
        assert!(at_once.1.load(Ordering::SeqCst) > 1 && count::PEAK.get() > 1);
        streams.into_iter().for_each(|stream| destroy(stream).unwrap());
    }
}
