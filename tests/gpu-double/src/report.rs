//! A TEST's double of CUDA: what tests ask and tell it.
//!
//! `gpu_double_report(out, len)` writes JSON and a 0 into `len` bytes and answers how
//! many bytes there would be without the 0: call it with 0 first. Counters that say
//! what lives now: `allocations`, `bytes`, `pinned`, `registered`, `streams`, `events`,
//! `graphs` (executable ones too), `modules`, `engines`, `contexts` (TensorRT's),
//! `objects` (of TensorRT, all kinds). The others count since the start.
//!
//! For processes that a test cannot ask: `GPU_DOUBLE_REPORT` names a file that the
//! report is written to at every violation and at the end; `%p` in it becomes the
//! process's number.
#![allow(unsafe_code)]

use crate::memory::{self, Kind};
use crate::{count, event, fault, graph, module, stream};
use std::ffi::{CStr, c_char};
use std::fmt::Write;
use std::sync::OnceLock;

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if (letter as u32) < 0x20 => {
                let _ = write!(quoted, "\\u{:04x}", letter as u32);
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn report() -> String {
    let (allocations, bytes) = memory::live(|kind| kind == Kind::Device);
    let (pinned, pinned_bytes) = memory::live(|kind| kind == Kind::Pinned);
    let (registered, registered_bytes) = memory::live(|kind| matches!(kind, Kind::Registered(_)));
    let numbers = [
        ("allocations", allocations as u64),
        ("bytes", bytes as u64),
        ("pinned", pinned as u64),
        ("pinned_bytes", pinned_bytes as u64),
        ("registered", registered as u64),
        ("registered_bytes", registered_bytes as u64),
        ("streams", stream::STREAMS.len() as u64),
        ("events", event::EVENTS.len() as u64),
        ("graphs", (graph::GRAPHS.len() + graph::EXECUTABLES.len()) as u64),
        ("modules", module::MODULES.len() as u64),
        ("engines", count::ENGINES.get()),
        ("contexts", count::CONTEXTS.get()),
        ("objects", count::OBJECTS.get()),
        ("builds", count::BUILDS.get()),
        ("launches", count::LAUNCHES.get()),
        ("enqueues", count::ENQUEUES.get()),
        ("graph_launches", count::GRAPH_LAUNCHES.get()),
        ("copies_h2d", count::H2D_COPIES.get()),
        ("copies_h2d_bytes", count::H2D_BYTES.get()),
        ("copies_d2h", count::D2H_COPIES.get()),
        ("copies_d2h_bytes", count::D2H_BYTES.get()),
        ("copies_pageable", count::PAGEABLE.get()),
        ("copies_registered_bytes", count::REGISTERED_BYTES.get()),
        ("registrations", count::REGISTRATIONS.get()),
        ("mapped_bytes", count::MAPPED_BYTES.get()),
        ("waits", count::WAITS.get()),
        ("peak_streams", count::PEAK.get()),
        ("error", fault::alive().err().unwrap_or(0).into()),
    ];
    let (violations, all) = count::violations();
    let mut json = String::from("{");
    for (name, number) in numbers {
        let _ = write!(json, "\"{name}\":{number},");
    }
    let violations: Vec<String> = violations.iter().map(|text| quoted(text)).collect();
    let _ = write!(json, "\"violations_count\":{all},\"violations\":[{}]}}", violations.join(","));
    json
}

/// Writes the report to the file that was asked for.
pub(crate) fn save() {
    static PATH: OnceLock<Option<String>> = OnceLock::new();
    let path = || {
        let path = std::env::var("GPU_DOUBLE_REPORT").ok()?;
        Some(path.replace("%p", &std::process::id().to_string()))
    };
    if let Some(path) = PATH.get_or_init(path) {
        // There is nobody to tell that it cannot be written.
        let _ = std::fs::write(path, report());
    }
}

extern "C" fn at_end() {
    save();
}

/// What the loader calls when the process ends.
#[used]
// SAFETY: the section takes pointers to functions without parameters.
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;

/// Writes the report; see at the top.
#[unsafe(no_mangle)]
extern "C" fn gpu_double_report(out: *mut c_char, len: usize) -> usize {
    let json = report();
    if !out.is_null() && len > 0 {
        let fits = json.len().min(len - 1);
        memory::copy(out as usize, json.as_ptr() as usize, fits);
        memory::copy(out as usize + fits, c"".as_ptr() as usize, 1);
    }
    json.len()
}

/// Takes the words of [`crate::fault`] in the place of those given before.
#[unsafe(no_mangle)]
extern "C" fn gpu_double_fault(words: *const c_char) {
    if words.is_null() {
        fault::give("");
        return;
    }
    // SAFETY: the test gives a C string.
    fault::give(&unsafe { CStr::from_ptr(words) }.to_string_lossy());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_cut_to_its_room() {
        let len = gpu_double_report(std::ptr::null_mut(), 0);
        let mut room = vec![0_u8; len + 100];
        let again = gpu_double_report(room.as_mut_ptr().cast(), room.len());
        let text = std::str::from_utf8(&room[..again]).unwrap();
        assert!(text.starts_with("{\"allocations\":") && text.ends_with("]}"), "{text}");
        gpu_double_report(room.as_mut_ptr().cast(), 5);
        assert_eq!(room[..5], *b"{\"al\0");
        assert_eq!(quoted("a\"b\n"), "\"a\\\"b\\u000a\"");
    }
}
