//! A TEST's double of the CUDA driver API and of TensorRT 10: one library that exports
//! both, for machines without a GPU. No product code; nothing here knows a GPU.
//!
//! It is opened as `libcuda.so.1`, `libnvinfer.so.10` and `libnvonnxparser.so.10`:
//! tests put links of these names to the one file into a folder and name that folder
//! in `LD_LIBRARY_PATH`, or open the file by its path before anything else does.
//!
//! - Device memory is host memory. Its first content is `0xCD`, a NaN in no format but
//!   a wrong value in all of them.
//! - A stream is a thread that takes one operation after the other; nothing enqueued
//!   happens in the caller, so what a test sees without waiting is what CUDA could show.
//! - A kernel is the CPU build of the product's own source.
//! - Every address that a copy, a memset or a kernel touches is looked up when it is
//!   touched. What lies in no live allocation is a *violation*: it is recorded, and the
//!   operation fails with 700 as it might on a GPU.
//! - An operation that fails makes every later call fail with its code.
//!
//! `GPU_DOUBLE_DEVICE` says what the device is ([`device`]), `GPU_DOUBLE_FAULTS` and
//! `gpu_double_fault` what goes wrong ([`fault`]), `gpu_double_report` answers what was
//! done, and `GPU_DOUBLE_REPORT` has it written to a file ([`report`]).

mod capture;
mod code;
mod context;
mod copy;
mod count;
mod device;
mod event;
mod fault;
mod graph;
mod kernel;
mod memory;
mod module;
mod pinned;
mod report;
mod stream;
mod stream_api;
mod table;
mod time;
mod trt;
