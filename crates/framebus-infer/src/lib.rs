//! Inference process: frames of all cameras become results.
//!
//! The main thread (the *taker*) sleeps on the bus and moves the newest frame
//! of each camera into the [`scheduler`]; one worker thread per execution
//! context takes batches out of it, runs them and publishes their results. A
//! frame that has reached this process leaves it as exactly one result,
//! whatever happens.

pub mod engine;
pub mod pool;
pub mod publish;
pub mod scheduler;
mod serve;

pub use serve::serve;
