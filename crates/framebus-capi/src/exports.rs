//! The border: every function that C calls.
//!
//! Each one checks its pointers for NULL, reads nothing through them that the caller has
//! not promised, and lets no panic out. The names and comments become
//! `include/framebus.h`.

#![allow(unsafe_code)]

use crate::records::{Counters, FrameRecord, OwnedFrame, OwnedResult, ResultRecord};
use crate::status::{FRAMEBUS_ERROR_INTERNAL, FRAMEBUS_NONE, FRAMEBUS_OK, Failure, keep, kept};
use framebus_client::BusError;
use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// Version of this header: records may get fields at their end, and functions may be
/// added, within one version. Compare it with framebus_abi_version().
pub const FRAMEBUS_ABI_VERSION: u32 = 1;

/// A connection to an instance.
pub struct Client(framebus_client::Client);
/// A stream of results.
pub struct Results(framebus_client::Results);
/// A stream of one camera's frames.
pub struct Frames(framebus_client::Frames);
/// One camera's frames together with their results.
pub struct Joined(framebus_client::Joined);

/// Runs what a function does; a panic is a status and not the end of C's stack.
fn guard(body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => {
            keep(failure.message);
            failure.status
        }
        Err(_) => {
            keep("a fault of libframebus; what it printed on standard error says where".to_owned());
            FRAMEBUS_ERROR_INTERNAL
        }
    }
}

/// A handle or a place for an answer.
///
/// # Safety
/// `pointer` is NULL, or valid, aligned and nobody else's during the call.
unsafe fn named<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise, which each function of this file asks of C.
    unsafe { pointer.as_mut() }.ok_or_else(|| Failure::argument(format!("{name} is NULL")))
}

/// A text.
///
/// # Safety
/// `pointer` is NULL or ends in a zero and does not change during the call.
unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise, which each function of this file asks of C.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Failure::argument(format!("{name} is not UTF-8")))
}

/// Gives back what [`Box::into_raw`] has given out; NULL is nothing.
///
/// # Safety
/// `pointer` is NULL or from `Box::into_raw` of the same type, and is not used again.
unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        guard(|| {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(pointer) });
            Ok(FRAMEBUS_OK)
        });
    }
}

/// Waits `timeout_ms`, for ever when it is negative, and not at all when it is 0: then
/// what woke the reader is forgotten before the last look, as loops over a descriptor
/// need it.
fn next<S, T>(
    stream: &mut S,
    timeout_ms: i32,
    poll: impl Fn(&mut S) -> Result<Option<T>, BusError>,
    drain: impl Fn(&S),
    wait_for: impl Fn(&mut S, Duration) -> Result<Option<T>, BusError>,
) -> Result<Option<T>, BusError> {
    match u64::try_from(timeout_ms) {
        Ok(0) => match poll(stream)? {
            None => {
                drain(stream);
                poll(stream)
            }
            some => Ok(some),
        },
        Ok(limit) => wait_for(stream, Duration::from_millis(limit)),
        Err(_) => loop {
            if let Some(item) = wait_for(stream, Duration::from_secs(1))? {
                return Ok(Some(item));
            }
        },
    }
}

fn counters(lost: u64, bad_headers: u64, lag: Duration, unmatched: u64) -> Counters {
    let lag_ns = u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX);
    Counters { lost, bad_headers, lag_ns, unmatched, ..Counters::default() }
}

/// FRAMEBUS_ABI_VERSION of the library. Another one than the header's: this program was
/// built for another library; do not call anything else.
#[unsafe(no_mangle)]
pub extern "C" fn framebus_abi_version() -> u32 {
    FRAMEBUS_ABI_VERSION
}

/// What the last call that failed in this thread says, and what to do. Valid until the
/// next call in this thread that fails; never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn framebus_last_error() -> *const c_char {
    kept(c"")
}

/// Connects to an instance of this user. `root` is the configuration's bus.root, or NULL
/// where it sets none. `*client` is to be freed with framebus_client_free.
///
/// # Safety
/// `instance` and `root` end in a zero; `client` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_connect(
    instance: *const c_char,
    root: *const c_char,
    client: *mut *mut Client,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(client, "client") }?;
        *place = std::ptr::null_mut();
        // SAFETY: C's promise, above.
        let instance = unsafe { text(instance, "instance") }?;
        let connected = if root.is_null() {
            framebus_client::Client::connect(instance)?
        } else {
            // SAFETY: C's promise, above.
            let root = unsafe { text(root, "root") }?;
            framebus_client::Client::connect_in(instance, Path::new(root))?
        };
        *place = Box::into_raw(Box::new(Client(connected)));
        Ok(FRAMEBUS_OK)
    })
}

/// Leaves the instance. Streams that were opened go on. NULL is allowed.
///
/// # Safety
/// `client` comes from framebus_connect and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_client_free(client: *mut Client) {
    // SAFETY: C's promise, above.
    unsafe { free(client) }
}

/// Subscribes to the results of all cameras, from now on. `*results` is to be freed with
/// framebus_results_free, and belongs to one thread at a time.
///
/// # Safety
/// `client` comes from framebus_connect; `results` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_results_open(
    client: *mut Client,
    results: *mut *mut Results,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(results, "results") }?;
        *place = std::ptr::null_mut();
        // SAFETY: C's promise, above.
        let client = unsafe { named(client, "client") }?;
        *place = Box::into_raw(Box::new(Results(client.0.results()?)));
        Ok(FRAMEBUS_OK)
    })
}

/// Gives up the reader's place. Results that it gave stay valid. NULL is allowed.
///
/// # Safety
/// `results` comes from framebus_results_open and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_results_free(results: *mut Results) {
    // SAFETY: C's promise, above.
    unsafe { free(results) }
}

/// The next result: FRAMEBUS_OK, or FRAMEBUS_NONE when none comes within `timeout_ms` (0:
/// does not wait; negative: waits for ever, signals do not end it). `*result` is a copy,
/// NULL unless the answer is FRAMEBUS_OK; keep it as long as you like, then call
/// framebus_result_free.
///
/// # Safety
/// `results` comes from framebus_results_open; `result` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_results_next(
    results: *mut Results,
    timeout_ms: i32,
    result: *mut *const ResultRecord,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(result, "result") }?;
        *place = std::ptr::null();
        // SAFETY: C's promise, above.
        let stream = &mut unsafe { named(results, "results") }?.0;
        use framebus_client::Results;
        let found = next(stream, timeout_ms, Results::poll, Results::drain, Results::wait_for)?;
        let Some(sample) = found else { return Ok(FRAMEBUS_NONE) };
        *place = Box::into_raw(OwnedResult::new(&sample)).cast::<ResultRecord>();
        Ok(FRAMEBUS_OK)
    })
}

/// Frees a result. NULL is allowed; twice is an error as with free().
///
/// # Safety
/// `result` comes from framebus_results_next or framebus_joined_next and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_result_free(result: *const ResultRecord) {
    // SAFETY: C's promise, above; the record is the first field of what was given out.
    unsafe { free(result.cast_mut().cast::<OwnedResult>()) }
}

/// A descriptor for poll() and epoll: readable when something was sent. Then call
/// framebus_results_next with timeout 0 until it says FRAMEBUS_NONE. Neither read nor
/// close it. Negative: an error.
///
/// # Safety
/// `results` comes from framebus_results_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_results_fd(results: *mut Results) -> i32 {
    // SAFETY: C's promise, above.
    guard(|| Ok(unsafe { named(results, "results") }?.0.as_fd().as_raw_fd()))
}

/// What the reader has counted so far.
///
/// # Safety
/// `results` comes from framebus_results_open; `counters` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_results_counters(
    results: *mut Results,
    counters: *mut Counters,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let stream = &unsafe { named(results, "results") }?.0;
        // SAFETY: C's promise, above.
        let place = unsafe { named(counters, "counters") }?;
        *place = self::counters(stream.lost(), stream.bad_headers(), stream.lag(), 0);
        Ok(FRAMEBUS_OK)
    })
}

/// Subscribes to the frames of one camera, from now on. `*frames` is to be freed with
/// framebus_frames_free, and belongs to one thread at a time.
///
/// # Safety
/// `client` comes from framebus_connect, `camera` ends in a zero, `frames` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frames_open(
    client: *mut Client,
    camera: *const c_char,
    frames: *mut *mut Frames,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(frames, "frames") }?;
        *place = std::ptr::null_mut();
        // SAFETY: C's promise, above.
        let client = unsafe { named(client, "client") }?;
        // SAFETY: C's promise, above.
        let camera = unsafe { text(camera, "camera") }?;
        *place = Box::into_raw(Box::new(Frames(client.0.frames(camera)?)));
        Ok(FRAMEBUS_OK)
    })
}

/// Gives up the reader's place. Frames that it gave stay valid. NULL is allowed.
///
/// # Safety
/// `frames` comes from framebus_frames_open and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frames_free(frames: *mut Frames) {
    // SAFETY: C's promise, above.
    unsafe { free(frames) }
}

/// The newest frame, as framebus_results_next. `*frame` holds its memory until
/// framebus_frame_free; four of a camera at a time, then FRAMEBUS_ERROR_HELD.
///
/// # Safety
/// `frames` comes from framebus_frames_open; `frame` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frames_next(
    frames: *mut Frames,
    timeout_ms: i32,
    frame: *mut *const FrameRecord,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(frame, "frame") }?;
        *place = std::ptr::null();
        // SAFETY: C's promise, above.
        let stream = &mut unsafe { named(frames, "frames") }?.0;
        use framebus_client::Frames;
        let found = next(stream, timeout_ms, Frames::poll, Frames::drain, Frames::wait_for)?;
        let Some(sample) = found else { return Ok(FRAMEBUS_NONE) };
        *place = Box::into_raw(OwnedFrame::new(sample)).cast::<FrameRecord>();
        Ok(FRAMEBUS_OK)
    })
}

/// Gives a frame back: its planes must not be read any more. NULL is allowed; twice is an
/// error as with free().
///
/// # Safety
/// `frame` comes from framebus_frames_next or framebus_joined_next and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frame_free(frame: *const FrameRecord) {
    // SAFETY: C's promise, above; the record is the first field of what was given out.
    unsafe { free(frame.cast_mut().cast::<OwnedFrame>()) }
}

/// As framebus_results_fd.
///
/// # Safety
/// `frames` comes from framebus_frames_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frames_fd(frames: *mut Frames) -> i32 {
    // SAFETY: C's promise, above.
    guard(|| Ok(unsafe { named(frames, "frames") }?.0.as_fd().as_raw_fd()))
}

/// As framebus_results_counters.
///
/// # Safety
/// `frames` comes from framebus_frames_open; `counters` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_frames_counters(
    frames: *mut Frames,
    counters: *mut Counters,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let stream = &unsafe { named(frames, "frames") }?.0;
        // SAFETY: C's promise, above.
        let place = unsafe { named(counters, "counters") }?;
        *place = self::counters(stream.lost(), stream.bad_headers(), stream.lag(), 0);
        Ok(FRAMEBUS_OK)
    })
}

/// Subscribes to one camera's frames together with their results. `*joined` is to be
/// freed with framebus_joined_free, and belongs to one thread at a time.
///
/// # Safety
/// `client` comes from framebus_connect, `camera` ends in a zero, `joined` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_joined_open(
    client: *mut Client,
    camera: *const c_char,
    joined: *mut *mut Joined,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let place = unsafe { named(joined, "joined") }?;
        *place = std::ptr::null_mut();
        // SAFETY: C's promise, above.
        let client = unsafe { named(client, "client") }?;
        // SAFETY: C's promise, above.
        let camera = unsafe { text(camera, "camera") }?;
        *place = Box::into_raw(Box::new(Joined(client.0.joined(camera)?)));
        Ok(FRAMEBUS_OK)
    })
}

/// Gives up both readers' places, and the frames that wait. NULL is allowed.
///
/// # Safety
/// `joined` comes from framebus_joined_open and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_joined_free(joined: *mut Joined) {
    // SAFETY: C's promise, above.
    unsafe { free(joined) }
}

/// The next frame with its result, as framebus_results_next; both are to be freed.
///
/// # Safety
/// `joined` comes from framebus_joined_open; `frame` and `result` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_joined_next(
    joined: *mut Joined,
    timeout_ms: i32,
    frame: *mut *const FrameRecord,
    result: *mut *const ResultRecord,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let frame_place = unsafe { named(frame, "frame") }?;
        *frame_place = std::ptr::null();
        // SAFETY: C's promise, above.
        let result_place = unsafe { named(result, "result") }?;
        *result_place = std::ptr::null();
        // SAFETY: C's promise, above.
        let stream = &mut unsafe { named(joined, "joined") }?.0;
        use framebus_client::Joined;
        let found = next(stream, timeout_ms, Joined::poll, Joined::drain, Joined::wait_for)?;
        let Some((frame, result)) = found else { return Ok(FRAMEBUS_NONE) };
        *result_place = Box::into_raw(OwnedResult::new(&result)).cast::<ResultRecord>();
        *frame_place = Box::into_raw(OwnedFrame::new(frame)).cast::<FrameRecord>();
        Ok(FRAMEBUS_OK)
    })
}

/// As framebus_results_fd: of the frames and of the results, to be waited for together.
///
/// # Safety
/// `joined` comes from framebus_joined_open; `frames_fd` and `results_fd` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_joined_fds(
    joined: *mut Joined,
    frames_fd: *mut i32,
    results_fd: *mut i32,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let stream = &unsafe { named(joined, "joined") }?.0;
        // SAFETY: C's promise, above.
        let frames_place = unsafe { named(frames_fd, "frames_fd") }?;
        // SAFETY: C's promise, above.
        let results_place = unsafe { named(results_fd, "results_fd") }?;
        *frames_place = stream.frames().as_fd().as_raw_fd();
        *results_place = stream.results().as_fd().as_raw_fd();
        Ok(FRAMEBUS_OK)
    })
}

/// What the readers have counted so far: `lost` frames, their lag, bad headers of both,
/// and results without their frame.
///
/// # Safety
/// `joined` comes from framebus_joined_open; `counters` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn framebus_joined_counters(
    joined: *mut Joined,
    counters: *mut Counters,
) -> i32 {
    guard(|| {
        // SAFETY: C's promise, above.
        let stream = &unsafe { named(joined, "joined") }?.0;
        // SAFETY: C's promise, above.
        let place = unsafe { named(counters, "counters") }?;
        let (frames, results) = (stream.frames(), stream.results());
        let bad = frames.bad_headers().saturating_add(results.bad_headers());
        *place = self::counters(frames.lost(), bad, frames.lag(), stream.unmatched());
        Ok(FRAMEBUS_OK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status() {
        let status = guard(|| panic!("on purpose"));
        assert_eq!(status, FRAMEBUS_ERROR_INTERNAL);
        // SAFETY: it is never NULL and ends in a zero.
        let message = unsafe { CStr::from_ptr(framebus_last_error()) };
        assert!(message.to_str().expect("UTF-8").starts_with("a fault of libframebus"));
    }
}
