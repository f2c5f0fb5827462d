//! From the configuration to how a model is loaded, the same for every command.

use crate::api::{ClockNs, InputShape, LoadOptions, Mode, Precision, Shape};
use crate::building::Build;
use crate::triton::Server;
use framebus_config::{Backends, Config, Pace};

impl LoadOptions {
    /// What `config` says, with the folder for prepared models.
    #[must_use]
    pub fn of(config: &Config, clock: ClockNs) -> Self {
        let settings = &config.model;
        let stem = || settings.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            precision: match settings.precision {
                framebus_config::Precision::Auto => Precision::Auto,
                framebus_config::Precision::F32 => Precision::F32,
                framebus_config::Precision::Bf16 => Precision::Bf16,
                framebus_config::Precision::F16 => Precision::F16,
            },
            input: match settings.input {
                framebus_config::InputShape::Auto => InputShape::Auto,
                framebus_config::InputShape::Fixed { height, width } => {
                    InputShape::Fixed(Shape { height, width })
                }
            },
            mode: match settings.mode {
                framebus_config::Mode::Latency => Mode::Latency,
                framebus_config::Mode::Throughput => Mode::Throughput,
                framebus_config::Mode::Auto => auto_mode(config),
            },
            contexts: settings.contexts,
            threads: match settings.threads {
                // As many as the cores it was given; 0 again where it may use all.
                0 => settings.cores.len(),
                threads => threads,
            },
            cache: framebus_model::cache_folder(),
            as_is: false,
            triton: Some(Server {
                settings: config.triton.clone(),
                model: config.triton.model.clone().unwrap_or_else(stem),
            }),
            tensorrt: config.tensorrt.clone(),
            cameras: config.enabled_cameras().count(),
            build: Build::default(),
            report: None,
            clock,
        }
    }
}

/// Latency for one live camera, whose next frame comes when this one is done;
/// throughput where frames wait for an engine: of several cameras, or of a file
/// that is read as fast as it goes.
fn auto_mode(config: &Config) -> Mode {
    let mut cameras = config.enabled_cameras();
    match (cameras.next(), cameras.next()) {
        (Some(camera), None) if camera.pace != Pace::Fast => Mode::Latency,
        _ => Mode::Throughput,
    }
}

/// The configured backends, best first, `auto` replaced by what it stands for.
#[must_use]
pub fn backends_of(config: &Config) -> Vec<String> {
    crate::expand(&match &config.model.backend {
        Backends::Auto => Vec::new(),
        Backends::Ordered(names) => names.iter().map(|name| name.as_str().to_owned()).collect(),
    })
}
