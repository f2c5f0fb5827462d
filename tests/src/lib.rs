//! What the whole-system tests share: a world of its own for each test, the real
//! programs in it, and readers of what they publish.
//!
//! ```no_run
//! use framebus_tests::{Collector, World, binary};
//! let world = World::new();
//! let model = world.tiny_model(2, Some((96, 160)));
//! let config = world.config(&format!(
//!     "[model]\npath = {model:?}\n[[camera]]\nname = \"a\"\nsource = \"test:red?frames=9\"\ndelivery = \"every-frame\"\n"
//! ));
//! let results = Collector::start(&world.domain());
//! let mut up = world.up(&config);
//! assert_eq!(up.wait(30).code, Some(0));
//! assert_eq!(results.finish().len(), 9);
//! ```
//!
//! Every wait has a deadline; a process that a test started ends with the test,
//! however the test ends.

mod assets;
mod compare;
pub mod crash;
mod faults;
pub mod fuzz;
mod gpu;
mod metrics;
mod mosquitto;
mod netns;
mod pictures;
mod process;
mod readers;
mod rtsp;
mod stand_in;
mod triton;
mod world;

pub use assets::{asset, openvino, repository, skip};
pub use compare::{Expected, iou, matches, reference};
pub use faults::{
    Bystander, StatusRow, Usage, print_fault, shm_files, show_fault, status, wait_row, wait_status,
};
pub use gpu::{GpuDouble, Loaded};
pub use metrics::Metrics;
pub use mosquitto::{Mosquitto, certificates};
pub use netns::Boxes;
pub use pictures::{Picture, expected, found};
pub use process::{Exit, Process, binary, example, wait_until, with_shm, with_tmpfs};
pub use readers::{Collector, EventLog, Found, HealthWatch, Row};
pub use rtsp::{Line, Road, RtspCamera};
pub use stand_in::{Script, StandIn};
pub use triton::{TritonServer, free_port, regions, triton};
pub use world::{Environment, World};
