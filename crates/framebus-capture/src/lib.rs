//! The capture process: one camera, file or pipeline becomes frames on the bus.
//!
//! Order of reading: [`run`] → `supervise` (connect, watch, reconnect, end; `host`: and
//! reload; `watch`: what is noted of one connection; `inflow`: before anything is decoded) →
//! `pipeline` (what stands behind every source) → `source` (what stands in front;
//! `decoder`: which element decodes, `device`: hardware's frames into our memory) → `tap` (a frame's way through the pipeline and onto the bus) → `convert`
//! (the decoder's I420 becomes NV12) → `publish` (header, counters, send). Frames that
//! GStreamer has to convert: `pool`. Pictures take no pipeline: `picture`.
//! Video as the camera compressed it, for clips: `packets` (from the parser onto the bus),
//! `reframe` (where the decoder wants it in another form than files do).
//! Cheaper frames: `motion` (does anything move?), `idle`, `gate` and `sizes` (what need
//! not be decoded), `threads`. Pictures that are none: `faults` and `timing`. A look for
//! `framebus doctor`, without a bus: [`probe`].
//!
//! Pixels: the decoder's I420 is interleaved into NV12 in a loaned sample, and the
//! sample is sent. Where size, colours or bits change, `videoconvertscale` writes the
//! NV12 straight into a loaned sample, and so does a hardware decoder, or the element that
//! brings its frames out of the device, when it fills a fresh buffer for each frame. Nothing
//! is copied as long as nobody but the probe holds that buffer; where somebody does, and
//! where NV12 comes in memory of the decoder's own, the frame is copied once into a loan, and
//! counted as such.
//!
//! Threads: the main thread supervises and alone says the state; one GStreamer
//! streaming thread carries a frame from the decoder through the converter to
//! the bus; one thread reports health. Locks (`Output::publisher`, `Output::faults`,
//! `Tap::state`, `Tap::motion`, `PacketTap::state`, the fault of `picture`) are leaves: none is taken while another is
//! held, and none while a frame is sent. `IdleTap::state` is given back before anything
//! enters the decoder.

mod convert;
mod decoder;
mod device;
#[cfg(test)]
mod doubles;
mod drought;
mod error;
mod explain;
mod faults;
mod gate;
#[cfg(test)]
mod hardware_tests;
mod host;
mod idle;
mod inflow;
mod layout;
mod limit;
mod motion;
mod packets;
mod picture;
mod pipeline;
mod pool;
pub mod probe;
mod publish;
mod reframe;
mod sizes;
mod source;
mod supervise;
mod tap;
mod threads;
mod timing;
mod watch;

pub use error::CaptureError;

use framebus_service::{Failure, Kind, Reporter, Service, Vitals};
use framebus_types::{Role, State};
use host::Host;
use publish::Output;
use std::sync::Arc;

/// Runs the camera of that name until it ends or the process is asked to stop.
///
/// The presentation time (`pts_ns`) of a frame is its stream's, `u64::MAX` where
/// that has none. Of a picture it says which file it is: the file's index, from 0,
/// among all picture files of the folder in the order of their names, times
/// 1,000,000,000 ns. Files that cannot be decoded keep their index; a single
/// picture has 0.
///
/// # Errors
/// A camera that the configuration does not have, a file or picture that cannot
/// be used, a pipeline that cannot be built, a bus that cannot be joined. A
/// camera that is away is none of these: it is tried again.
pub fn run(camera: &str, service: &Service) -> Result<(), Failure> {
    let config = service.config();
    let Some(camera) = config.camera(camera) else {
        let names: Vec<_> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
        return Err(Failure::message(
            Kind::Usage,
            format_args!(
                "{} has no camera {camera:?}; it has {}",
                config.file.display(),
                names.join(", ")
            ),
        ));
    };
    // Before the threads that inherit it.
    framebus_service::priority::apply(camera.nice, &camera.cores)?;
    let vitals = Vitals::new(Role::Capture, camera.name.as_str());
    let reporter =
        Reporter::start(service.bus(), vec![vitals.clone()], service.progress_flag(), false)?;
    let output = Arc::new(Output::new(service, camera, vitals.clone()));
    let host = Host::new(camera, service);
    let ended = if picture::is_picture(&camera.source) {
        picture::run(&host, &output)
    } else {
        supervise::run(&host, &output)
    };
    output.summarise();
    match &ended {
        Ok(supervise::Ended::Source) => {
            vitals.set_state(State::Ended, "");
            reporter.publish();
            output.linger(service);
        }
        Ok(supervise::Ended::Stopped) => vitals.set_state(State::Stopping, ""),
        Err(error) => {
            vitals.set_state(State::Offline, &error.sentence());
            // Frames that were published before the fault are still delivered.
            reporter.publish();
            output.linger(service);
        }
    }
    if host.changed() {
        let name = camera.name.as_str();
        return Err(Failure::message(
            Kind::Changed,
            format_args!("the configuration of camera {name} changed"),
        ));
    }
    ended.map(drop).map_err(|error| {
        let name = camera.name.as_str();
        Failure {
            kind: error.kind(),
            error: anyhow::Error::new(error).context(format!("camera {name}")),
        }
    })
}
