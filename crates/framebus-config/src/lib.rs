//! `framebus.toml`: parsed, validated, explained.
//!
//! ```
//! let text = r#"
//!     [model]
//!     path = "yolov8n.onnx"
//!
//!     [[camera]]
//!     name = "front"
//!     source = "rtsp://admin:${CAMERA_PASSWORD}@192.168.1.20/stream1"
//! "#;
//! let env = |name: &str| (name == "CAMERA_PASSWORD").then(|| "hunter2".to_owned());
//! let config = framebus_config::parse(text, "framebus.toml".as_ref(), &env)?;
//! assert_eq!(config.cameras[0].source.to_string(), "rtsp://192.168.1.20/stream1");
//! assert_eq!(config.cameras[0].password.as_ref().map(|p| p.expose()), Some("hunter2"));
//! assert!(!format!("{config:?}").contains("hunter2"));
//! # Ok::<(), framebus_config::ConfigErrors>(())
//! ```
//!
//! One table (`spec`) declares every key once: its type, range, default, unit and reason. The
//! walk over the parsed TOML (`parse`), the JSON Schema (`schema`) and the test that holds
//! `configs/framebus.toml` equal to the code all read that table. serde's
//! `deny_unknown_fields` is not used because it stops at the first error and knows no ranges;
//! somebody who edits a file on a box without a desk wants to see all that is wrong at once.
//!
//! Every error carries file, line, column, key path, the value as written and what is allowed.
//! Credentials are replaced by `***` wherever something is printed.

mod build;
mod check;
mod diff;
mod endpoint;
mod error;
mod expand;
mod files;
mod model;
mod name;
mod parse;
mod schema;
mod secret;
mod source;
mod source_parse;
mod spec;
mod suggest;
mod syntax;
mod url;
mod value;

pub use diff::Diff;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ConfigError, ConfigErrors};
pub use files::{check_files, load, load_applied, whereabouts};
pub use model::{
    Anchor, Area, BackendName, Backends, Bus, Camera, Checks, ClassFilter, Clips, Config, Decoder,
    Deliver, Delivery, EVENT_KINDS, History, InputShape, Jsonl, JsonlPath, Line, Log, LogFormat,
    LogLevel, Mode, Model, Mqtt, MqttProtocol, Otlp, Pace, PictureChecks, Precision, Prometheus,
    RtspTransport, Sink, SinkKind, SnapshotStyle, Snapshots, Spool, TensorRt, Tracking, Triton,
    TritonTransport, Up, Web, Webhook, Zenoh, Zone,
};
pub use name::{CameraName, InstanceName, NameError, SinkName};
pub use parse::parse;
pub use schema::{default_toml, json_schema};
pub use secret::Secret;
pub use source::{GstPipeline, RtspUrl, Source, TestPattern, UrlError};
pub use url::{Listen, Url};
