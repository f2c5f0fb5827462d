//! The C interface of framebus' client: `libframebus.so` with `include/framebus.h`, which
//! is generated from this crate's sources and says how each function is used.
//!
//! `exports.rs` is the border, and the only file with unsafe code: it checks pointers,
//! catches panics and calls `framebus-client`. `records.rs` has what C reads, `status.rs`
//! what it is told when something fails.

pub mod exports;
pub mod records;
pub mod status;
