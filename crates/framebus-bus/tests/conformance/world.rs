//! An instance of its own, and small frames to send in it.

use framebus_bus::{Bus, Domain, FramePublisher, FrameSubscriber, Limits};
use framebus_types::{Fourcc, FrameHeader, text};
use iceoryx2::service::Service;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) const WIDTH: u32 = 64;
pub(crate) const HEIGHT: u32 = 32;
pub(crate) const BYTES: usize = (WIDTH * HEIGHT * 3 / 2) as usize;

/// A domain of its own that leaves nothing behind, also when the test fails.
pub(crate) struct World {
    pub(crate) domain: Domain,
    pub(crate) root: tempfile::TempDir,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let root = tempfile::Builder::new().prefix("fb").tempdir_in("/tmp").expect("temp dir");
        let name = root.path().file_name().expect("name").to_string_lossy().to_lowercase();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let domain = Domain::new(&name, root.path(), limits).expect("valid");
        Self { domain, root }
    }

    pub(crate) fn bus<S: Service>(&self, name: &str) -> Bus<S> {
        Bus::open(&self.domain, name).expect("bus opens")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let left = self.domain.remove_leftovers();
        if !std::thread::panicking() {
            // Orderly drops leave nothing else.
            let mut left = left.expect("removable");
            left.retain(|name| !name.to_string_lossy().ends_with("_node.0_10_0.global_mgmt"));
            assert!(left.is_empty(), "left in /dev/shm: {left:?}");
        }
    }
}

pub(crate) fn header(sequence: u64, width: u32, height: u32) -> FrameHeader {
    FrameHeader {
        camera: text::pack("a"),
        sequence,
        width,
        height,
        fourcc: Fourcc::Nv12.into(),
        strides: [width, width, 0, 0],
        offsets: [0, width * height, 0, 0],
        ..FrameHeader::default()
    }
}

pub(crate) fn send<S: Service>(publisher: &FramePublisher<S>, sequence: u64) -> usize {
    let mut loan = publisher.loan(BYTES).expect("a loan");
    loan.payload_mut().fill(sequence as u8);
    publisher.publish(loan, &header(sequence, WIDTH, HEIGHT)).expect("sent")
}

pub(crate) fn sequences<S: Service>(subscriber: &FrameSubscriber<S>) -> Vec<u64> {
    std::iter::from_fn(|| subscriber.receive().expect("receives"))
        .map(|frame| frame.header().sequence)
        .collect()
}

pub(crate) fn never() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}
