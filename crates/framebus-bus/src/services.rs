//! The one table of services: names, depths, limits, overflow.
//!
//! iceoryx2 fixes these numbers when a service is created; every process that
//! may create one must ask for the same. Therefore they are computed here, from
//! [`Limits`] alone, and nowhere else.
//!
//! | service | payload | header | publishers | subscribers | buffer | borrowed | overflow |
//! |---|---|---|---|---|---|---|---|
//! | `frames/<camera>` latest | `[u8]` | `FrameHeader` | 2 | `frame_subscribers` | 1 | 2 + `in_flight` | oldest goes |
//! | `frames/<camera>` every-frame | `[u8]` | `FrameHeader` | 2 | `frame_subscribers` | 2 | 2 + `in_flight` | publisher waits |
//! | `packets/<camera>` | `[u8]` | `PacketHeader` | 2 | `frame_subscribers` | 256 | 2 | oldest goes |
//! | `results` | `[u8]` | `ResultHeader` | 2 | `result_subscribers` | `result_buffer` | 2 | oldest goes; publisher waits in an offline instance |
//! | `events` | `[Event]` | – | 2 | `result_subscribers` | `result_buffer` | 2 | oldest goes |
//! | `health` | `[Health]` | – | 96 | `result_subscribers` | 2 | 2 | oldest goes |
//!
//! `frames/<camera>/observers` is an event service that nobody waits at: each observer takes
//! one of its listeners, of which there is one fewer than subscribers of the frames.
//!
//! Two publishers where one is meant: a restarted process may come back before
//! its dead predecessor's slot has been cleaned.

/// How a camera's frames reach their readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// A slow reader loses its own oldest frames; the source never waits.
    #[default]
    Latest,
    /// Nothing is lost; the source waits for its readers. For files and tests.
    EveryFrame,
}

/// Numbers from the configuration that size the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Readers of one camera's frames, the inference process included.
    pub frame_subscribers: usize,
    /// Readers of results, and of health.
    pub result_subscribers: usize,
    /// Results a slow reader can be behind before it loses the oldest.
    pub result_buffer: usize,
    /// Detections in one result at most.
    pub max_detections: usize,
    /// Frames of one camera that may be in inference at once.
    pub in_flight: usize,
    /// Every camera is every-frame: results wait for their readers too. Never
    /// set beside a live camera, which a hung sink would then hold up.
    pub offline: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_subscribers: 2,
            result_subscribers: 8,
            result_buffer: 128,
            max_detections: 300,
            in_flight: 2,
            offline: false,
        }
    }
}

/// Settings of one publish/subscribe service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Name inside the domain.
    pub name: String,
    /// Publishers at most.
    pub max_publishers: usize,
    /// Subscribers at most.
    pub max_subscribers: usize,
    /// Samples waiting per subscriber.
    pub buffer: usize,
    /// Samples a subscriber may hold.
    pub borrowed: usize,
    /// Samples a publisher may have on loan.
    pub loans: usize,
    /// Whether a full buffer gives up its oldest sample; otherwise the publisher waits.
    pub overflow: bool,
}

/// Processes that can take part in a service.
pub const MAX_NODES: usize = 160;
/// Event ids in use: see [`EVENT_SENT`] and following.
pub const EVENT_ID_MAX: usize = 3;
/// A sample was sent.
pub const EVENT_SENT: usize = 1;
/// A publisher's process died.
pub const EVENT_DEAD: usize = 2;

/// Frames of one camera.
#[must_use]
pub fn frames(limits: &Limits, camera: &str, delivery: Delivery) -> ServiceSpec {
    ServiceSpec {
        name: format!("frames/{camera}"),
        max_publishers: 2,
        max_subscribers: limits.frame_subscribers,
        // Readers of the newest frame have room for one; a source that waits
        // for its readers goes on while they work.
        buffer: if delivery == Delivery::Latest { 1 } else { 2 },
        // What the inference process may hold: those in inference, one waiting,
        // one being taken.
        borrowed: limits.in_flight + 2,
        // One being filled, one on its way through the pipeline, one for the
        // copy when GStreamer keeps the original, one spare.
        loans: 4,
        overflow: delivery == Delivery::Latest,
    }
}

/// What the name of the service ends with that counts observers.
pub(crate) const OBSERVERS: &str = "/observers";

/// Places of observers at one camera's frames: all but the one of the inference process,
/// so that whoever comes while it restarts does not sit in its place. iceoryx2 knows no
/// service for nobody: where frames have a single reader, observers are refused before.
#[must_use]
pub fn observers(frames: &ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        name: format!("{}{OBSERVERS}", frames.name),
        max_subscribers: frames.max_subscribers.saturating_sub(1).max(1),
        ..frames.clone()
    }
}

/// Bytes that one part of a packet has at most. Small, because every sample takes as much:
/// a delta frame of an ordinary camera is one part or two, a key frame some ten.
pub const PACKET_PART: usize = 16 * 1024;
/// Bytes that a packet has at most; an uncompressed 4K frame has less.
pub const PACKET_MAX: usize = 16 * 1024 * 1024;

/// Compressed frames of one camera. Nobody waits for a reader; 4 MiB may wait for each,
/// which is two seconds of 16 Mbit/s.
#[must_use]
pub fn packets(limits: &Limits, camera: &str) -> ServiceSpec {
    ServiceSpec {
        name: format!("packets/{camera}"),
        max_publishers: 2,
        max_subscribers: limits.frame_subscribers,
        buffer: 256,
        borrowed: 2,
        loans: 2,
        overflow: true,
    }
}

/// Results of the instance.
#[must_use]
pub fn results(limits: &Limits) -> ServiceSpec {
    ServiceSpec {
        name: "results".to_owned(),
        max_publishers: 2,
        max_subscribers: limits.result_subscribers,
        buffer: limits.result_buffer,
        borrowed: 2,
        loans: 2,
        overflow: !limits.offline,
    }
}

/// Events that one sample holds at most; a frame with more takes several samples.
pub const EVENTS_OF_SAMPLE: usize = 8;

/// Events of the instance. Nobody waits for a reader: a sink that must lose nothing takes
/// them from here to its own disk.
#[must_use]
pub fn events(limits: &Limits) -> ServiceSpec {
    ServiceSpec { name: "events".to_owned(), overflow: true, ..results(limits) }
}

/// Health of all processes.
#[must_use]
pub fn health(limits: &Limits) -> ServiceSpec {
    ServiceSpec {
        name: "health".to_owned(),
        max_publishers: 96,
        max_subscribers: limits.result_subscribers,
        buffer: 2,
        borrowed: 2,
        loans: 1,
        overflow: true,
    }
}
