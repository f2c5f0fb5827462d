//! Inference process: frames of all cameras become results.
//!
//! The main thread (the *taker*) sleeps on the bus and moves the newest frame
//! of each camera into the [`scheduler`]; one worker thread per execution
//! context takes batches out of it, runs them and publishes their results in the
//! [`order`] of each camera's frames. The *loader* compiles the network for input
//! [`shapes`] that turn up. A frame that has reached this process leaves it as
//! exactly one result, whatever happens: also when the engine hangs ([`watch`]), and when
//! the process is killed ([`ledger`]). What is found is followed from frame to frame, and
//! what happens with it is published as events ([`analytics`]). [`backends`] keeps what backends did wrong, and
//! engines that take minutes are built while another backend serves ([`build`]).

pub mod analytics;
pub mod backends;
mod build;
pub mod camera;
pub mod engine;
pub mod ledger;
pub mod order;
mod pixels;
mod pool;
pub mod publish;
mod run;
pub mod scheduler;
mod serve;
pub mod service_time;
pub mod shapes;
mod watch;
mod worker;

pub use analytics::Scenery;
pub use run::{End, Loads, Parts, Source, run};
pub use serve::serve;
