//! A TEST's double of CUDA: what goes wrong, and the error that stays.
//!
//! Words, separated by spaces, commas or lines, in the file that `GPU_DOUBLE_FAULTS`
//! names (read again whenever its time, size or inode changed: write a new file and
//! rename it) or given to `gpu_double_fault`:
//!
//! | word | what happens while it stands there |
//! |---|---|
//! | `oom` | no device and no pinned memory |
//! | `register` | `cuMemHostRegister` refuses |
//! | `launch` | the next kernel or network fails with 719, which stays |
//! | `lost`, `lost=<code>` | every call fails, with 46 or the code; this stays |
//! | `hang` | streams stop where they are |
//! | `enqueue` | TensorRT's `enqueueV3` answers false |
//! | `capture-enqueue` | the same, in a stream that is captured |
//! | `build-slow=<ms>` | building an engine takes so long |
//! | `build-fail` | building an engine fails |
//! | `slow-copy=<us>`, `slow-kernel=<us>`, `slow-network=<us>` | each takes so much longer |
//! | `reset` | given to `gpu_double_fault`: the error that stays is forgotten |

use crate::code::{self, Code};
use crate::table::lock;
use crate::time;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) oom: bool,
    pub(crate) register: bool,
    pub(crate) launch: bool,
    pub(crate) lost: Option<Code>,
    pub(crate) hang: bool,
    pub(crate) enqueue: bool,
    pub(crate) capture_enqueue: bool,
    pub(crate) build_fail: bool,
    pub(crate) build_slow: Duration,
    pub(crate) slow_copy: Duration,
    pub(crate) slow_kernel: Duration,
    pub(crate) slow_network: Duration,
}

/// The words of the file with the time, size and inode it had.
#[derive(Default)]
struct Source {
    seen: Option<(SystemTime, u64, u64)>,
    file: String,
    given: String,
}

static SOURCE: Mutex<Option<Source>> = Mutex::new(None);
/// 0: none.
static STICKY: AtomicU32 = AtomicU32::new(0);

/// What goes wrong now.
pub(crate) fn now() -> Faults {
    static PATH: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let mut source = lock(&SOURCE);
    let source = source.get_or_insert_with(Source::default);
    if let Some(path) = PATH.get_or_init(|| std::env::var_os("GPU_DOUBLE_FAULTS")) {
        let metadata = std::fs::metadata(path).ok();
        let seen = metadata.and_then(|m| Some((m.modified().ok()?, m.len(), m.ino())));
        if seen != source.seen {
            source.seen = seen;
            source.file = std::fs::read_to_string(path).unwrap_or_default();
        }
    }
    parse(&format!("{} {}", source.file, source.given))
}

/// Takes the place of the words given before.
pub(crate) fn give(words: &str) {
    if words.split(separator).any(|word| word == "reset") {
        STICKY.store(0, Ordering::SeqCst);
    }
    lock(&SOURCE).get_or_insert_with(Source::default).given = words.to_owned();
}

fn separator(letter: char) -> bool {
    letter.is_whitespace() || letter == ',' || letter == ';'
}

fn parse(words: &str) -> Faults {
    let mut faults = Faults::default();
    for word in words.split(separator) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number: u64 = value.parse().unwrap_or_default();
        match key {
            "oom" => faults.oom = true,
            "register" => faults.register = true,
            "launch" => faults.launch = true,
            "lost" => faults.lost = Some(value.parse().unwrap_or(code::DEVICE_UNAVAILABLE)),
            "hang" => faults.hang = true,
            "enqueue" => faults.enqueue = true,
            "capture-enqueue" => faults.capture_enqueue = true,
            "build-fail" => faults.build_fail = true,
            "build-slow" => faults.build_slow = Duration::from_millis(number),
            "slow-copy" => faults.slow_copy = Duration::from_micros(number),
            "slow-kernel" => faults.slow_kernel = Duration::from_micros(number),
            "slow-network" => faults.slow_network = Duration::from_micros(number),
            _ => {}
        }
    }
    faults
}

/// From now on every call answers `code`, as CUDA does after an error on the device.
/// The first one counts.
pub(crate) fn fail(code: Code) {
    let _ = STICKY.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
}

/// `Err` once something on the device has failed, or the device is lost.
pub(crate) fn alive() -> Result<(), Code> {
    if let Some(code) = now().lost {
        fail(code);
    }
    match STICKY.load(Ordering::SeqCst) {
        0 => Ok(()),
        code => Err(code),
    }
}

/// Returns when no fault stops the streams.
pub(crate) fn wait_while_hanging() {
    while now().hang {
        time::pause(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let faults = parse("oom, lost slow-copy=250\nbuild-slow=3");
        assert!(faults.oom && !faults.hang);
        assert_eq!(faults.lost, Some(46));
        assert_eq!(parse("lost=700").lost, Some(700));
        assert_eq!((faults.slow_copy.as_micros(), faults.build_slow.as_millis()), (250, 3));
    }
}
