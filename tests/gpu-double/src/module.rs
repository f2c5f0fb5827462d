//! A TEST's double of CUDA: modules and their functions. A module is PTX text, which
//! is looked at as the driver would: its version, its target, its entries with the
//! sizes of their parameters. Nothing is compiled: [`crate::kernel`] has the code.
#![allow(unsafe_code)]

use crate::code::{self, Code};
use crate::context::{Out, call, put, release};
use crate::kernel::{self, Launch};
use crate::table::{Table, lock};
use crate::{capture, count, device, memory, stream};
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex};

/// `.entry` of a PTX text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    /// Bytes of each parameter.
    parameters: Vec<usize>,
    /// `.maxntid`: threads that a block may have.
    threads: u32,
}

pub(crate) struct Module {
    entries: Vec<Entry>,
    functions: Mutex<Vec<usize>>,
}

pub(crate) static MODULES: Table<Module> = Table::new("module");
static FUNCTIONS: Table<Entry> = Table::new("function");

/// The highest PTX version that a driver of this CUDA version takes.
fn newest_ptx(cuda: i32) -> (u32, u32) {
    let (major, minor) = (cuda.unsigned_abs() / 1000, cuda.unsigned_abs() % 1000 / 10);
    match (major, minor) {
        (..=11, minor) => (7, minor.min(8)),
        (12, 0..=5) => (8, minor),
        (12, _) => (8, minor - 1),
        (_, minor) => (9, minor),
    }
}

fn entry(text: &str) -> Option<Entry> {
    let (name, rest) = text.split_once('(')?;
    let (parameters, rest) = rest.split_once(')')?;
    let size = |parameter: &str| {
        let kind = parameter.split_whitespace().rfind(|word| word.starts_with('.'))?;
        let bits: usize = kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?;
        // `.b8 name[128]`.
        let times = parameter
            .split_once('[')
            .and_then(|(_, rest)| rest.trim_end().trim_end_matches(']').parse().ok())
            .unwrap_or(1);
        Some(bits / 8 * times)
    };
    let parameters = parameters.split(',').filter(|parameter| parameter.contains(".param"));
    let body = rest.find('{').unwrap_or(0);
    let threads = rest[..body].split_once(".maxntid").map_or(1024, |(_, sizes)| {
        sizes
            .lines()
            .next()
            .unwrap_or("")
            .split(',')
            .filter_map(|n| n.trim().parse::<u32>().ok())
            .product()
    });
    Some(Entry {
        name: name.trim().to_owned(),
        parameters: parameters.map(size).collect::<Option<_>>()?,
        threads,
    })
}

fn parse(text: &str) -> Result<Vec<Entry>, Code> {
    let after = |word: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(word));
        lines.next().map(|rest| rest.trim().to_owned())
    };
    let version = after(".version").ok_or(code::INVALID_PTX)?;
    let version = version
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or(code::INVALID_PTX)?;
    if version > newest_ptx(device::get().cuda) {
        return Err(code::UNSUPPORTED_PTX_VERSION);
    }
    let target = after(".target").ok_or(code::INVALID_PTX)?;
    let target: Option<i32> =
        target.split(',').next().and_then(|t| t.trim().strip_prefix("sm_")?.parse().ok());
    let (major, minor) = device::get().capability;
    if target.ok_or(code::INVALID_PTX)? > 10 * major + minor {
        return Err(code::NO_BINARY_FOR_GPU);
    }
    let entries: Option<Vec<Entry>> = text.split(".entry").skip(1).map(entry).collect();
    entries.filter(|entries| !entries.is_empty()).ok_or(code::INVALID_PTX)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(out: Out<'_, usize>, image: *const c_char) -> u32 {
    call(|| {
        capture::forbidden("cuModuleLoadData")?;
        if image.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: an image is a text that ends with 0, or a binary, which has a 0 in its
        // first bytes as well.
        let image = unsafe { CStr::from_ptr(image) };
        let text = image.to_str().map_err(|_| code::INVALID_IMAGE)?;
        let entries = parse(text)?;
        for entry in &entries {
            let known = kernel::parameters(&entry.name);
            if known.is_some_and(|known| known != entry.parameters) {
                count::violation(format!(
                    "the PTX's {} has parameters of {:?} bytes, the double's {known:?}",
                    entry.name, entry.parameters
                ));
                return Err(code::INVALID_PTX);
            }
        }
        put(out, MODULES.insert(Module { entries, functions: Mutex::default() }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadDataEx(
    out: Out<'_, usize>,
    image: *const c_char,
    _options: u32,
    _names: *mut c_void,
    _values: *mut c_void,
) -> u32 {
    cuModuleLoadData(out, image)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(out: Out<'_, usize>, module: usize, name: *const c_char) -> u32 {
    call(|| {
        let module = MODULES.get(module)?;
        if name.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // SAFETY: the name is a C string, as CUDA has it.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let entry = module.entries.iter().find(|entry| entry.name == name);
        let function = FUNCTIONS.insert(entry.ok_or(code::NOT_FOUND)?.clone());
        lock(&module.functions).push(function);
        put(out, function)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> u32 {
    release(|| {
        for function in lock(&MODULES.remove(module)?.functions).drain(..) {
            FUNCTIONS.remove(function)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(out: Out<'_, i32>, attribute: i32, function: usize) -> u32 {
    call(|| {
        let entry = FUNCTIONS.get(function)?;
        match attribute {
            // Threads per block.
            0 => put(out, i32::try_from(entry.threads).unwrap_or(1024)),
            // Registers.
            4 => put(out, 40),
            1..=15 => put(out, 0),
            _ => Err(code::INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, _attribute: i32, _value: i32) -> u32 {
    call(|| FUNCTIONS.get(function).map(|_| ()))
}

#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    _shared: u32,
    stream: *mut c_void,
    parameters: *const *const c_void,
    extra: *const c_void,
) -> u32 {
    call(|| {
        let entry = FUNCTIONS.get(function)?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let threads: u64 = block.iter().map(|n| u64::from(*n)).product();
        if grid.contains(&0) || grid_y > 65_535 || grid_z > 65_535 || !extra.is_null() {
            return Err(code::INVALID_VALUE);
        }
        if threads == 0 || threads > u64::from(entry.threads.min(1024)) {
            return Err(code::INVALID_VALUE);
        }
        if parameters.is_null() {
            return Err(code::INVALID_VALUE);
        }
        // CUDA takes the values when the kernel is launched, not when it runs.
        let mut values = Vec::new();
        for (i, size) in entry.parameters.iter().enumerate() {
            let at = memory::snapshot(parameters as usize + 8 * i, 8);
            let at = usize::from_ne_bytes(at.try_into().map_err(|_| code::INVALID_VALUE)?);
            if at == 0 {
                return Err(code::INVALID_VALUE);
            }
            values.push(memory::snapshot(at, *size));
        }
        let launch = Launch::new(&entry.name, grid, block, values).ok_or(code::NOT_FOUND)?;
        stream::try_enqueue(stream as usize, Arc::new(move || launch.run()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_ptx() {
        let text = ".version 7.8\n.target sm_70\n.visible .entry one(\n\t.param .u64 one_param_0,\n\
                    \t.param .align 8 .b8 one_param_1[24]\n)\n.maxntid 32, 8, 1\n{ }\n.visible .entry two()\n{}";
        let entries = parse(text).unwrap();
        assert_eq!(
            entries[0],
            Entry { name: "one".to_owned(), parameters: vec![8, 24], threads: 256 }
        );
        assert_eq!((entries[1].name.as_str(), entries[1].parameters.len()), ("two", 0));
        assert_eq!(parse(&text.replace("7.8", "9.0")), Err(code::UNSUPPORTED_PTX_VERSION));
        assert_eq!(parse(&text.replace("sm_70", "sm_90")), Err(code::NO_BINARY_FOR_GPU));
        assert_eq!(parse("hello"), Err(code::INVALID_PTX));
        assert_eq!(
            (newest_ptx(12_060), newest_ptx(12_040), newest_ptx(13_000)),
            ((8, 5), (8, 4), (9, 0))
        );
    }
}
