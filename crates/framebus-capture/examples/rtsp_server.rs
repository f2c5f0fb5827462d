//! An RTSP camera for demonstrations and tests, on loopback only.
//!
//! ```text
//! rtsp_server [--port 8554] [--mount /cam] [--user U --password P] FILE.mp4
//! rtsp_server [--port 8554] … [--size 640x480] [--fps 30] [--codec h264] test
//! ```
//!
//! The file's H.264 is sent as it is, again and again, with time stamps that go
//! on; `test` is a moving ball, encoded here with `h264`, `h265` or `jpeg`. Port 0 lets
//! the system choose. When it is ready it prints `listening rtsp://127.0.0.1:PORT/MOUNT`.
//!
//! Lines on standard input make `test` a camera with faults, at once: `keys off` (its key
//! frames are lost) and `keys on`, `size 320x240`, `back 30` (time stamps go back by so
//! many seconds), `end` (the stream ends). Each is answered with `done`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a stand-alone program: paces itself and speaks on standard output"
)]

use anyhow::{Context, Result, anyhow, bail};
use gst::{glib, prelude::*};
use gst_rtsp::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const PAY: &str = "rtph264pay name=pay0 pt=96 config-interval=-1";
/// Name, encoder and payloader; faults are made between the two.
const CODECS: [(&str, &str, &str); 3] = [
    (
        "h264",
        "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h264parse ! \
         video/x-h264,stream-format=avc,alignment=au",
        PAY,
    ),
    (
        "h265",
        "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h265parse ! \
         video/x-h265,stream-format=hvc1,alignment=au",
        "rtph265pay name=pay0 pt=96 config-interval=-1",
    ),
    ("jpeg", "jpegenc", "rtpjpegpay name=pay0 pt=26"),
];

struct Options {
    port: String,
    mount: String,
    login: Option<(String, String)>,
    size: (u32, u32),
    fps: u32,
    codec: String,
    input: String,
}

fn options() -> Result<Options> {
    let mut options = Options {
        port: "8554".to_owned(),
        mount: "/cam".to_owned(),
        login: None,
        size: (640, 480),
        fps: 30,
        codec: "h264".to_owned(),
        input: String::new(),
    };
    let (mut user, mut password) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--port" => options.port = value()?,
            "--mount" => options.mount = value()?,
            "--user" => user = Some(value()?),
            "--password" => password = Some(value()?),
            "--size" => {
                options.size = size(&value()?)?;
            }
            "--fps" => options.fps = value()?.parse()?,
            "--codec" => options.codec = value()?,
            flag if flag.starts_with("--") => bail!("unknown option {flag}"),
            input => options.input = input.to_owned(),
        }
    }
    if options.input.is_empty() {
        bail!("what to send? an MP4 file, or \"test\"");
    }
    options.login = user.zip(password);
    Ok(options)
}

fn size(text: &str) -> Result<(u32, u32)> {
    let (width, height) = text.split_once('x').context("a size is WIDTHxHEIGHT")?;
    Ok((width.parse()?, height.parse()?))
}

/// Faults of the test camera.
#[derive(Default)]
struct Faults {
    keys_off: AtomicBool,
    /// How far time stamps have gone back, ns.
    back_ns: AtomicU64,
    /// The stream that is being sent.
    media: Mutex<Option<gst::Bin>>,
}

impl Faults {
    /// Takes part in a stream from now on.
    fn join(self: &Arc<Self>, bin: gst::Bin) {
        let payer = bin.by_name("pay0").and_then(|pay| pay.static_pad("sink"));
        let faults = self.clone();
        if let Some(pad) = payer {
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else {
                    return gst::PadProbeReturn::Ok;
                };
                let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                if key && faults.keys_off.load(Relaxed) {
                    // With `Drop`, GStreamer 1.22 frees it after these bindings have.
                    info.flow_res = Ok(gst::FlowSuccess::Ok);
                    return gst::PadProbeReturn::Handled;
                }
                let back = gst::ClockTime::from_nseconds(faults.back_ns.load(Relaxed));
                let moved = |time: Option<gst::ClockTime>| time.map(|t| t.saturating_sub(back));
                let (pts, dts) = (moved(buffer.pts()), moved(buffer.dts()));
                let buffer = buffer.make_mut();
                buffer.set_pts(pts);
                buffer.set_dts(dts);
                gst::PadProbeReturn::Ok
            });
        }
        *self.media.lock().unwrap_or_else(PoisonError::into_inner) = Some(bin);
    }

    fn obey(&self, line: &str, fps: u32) -> Result<()> {
        let media = self.media.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("keys", word) => self.keys_off.store(word == "off", Relaxed),
            ("back", seconds) => {
                self.back_ns.fetch_add(seconds.parse::<u64>()? * 1_000_000_000, Relaxed);
            }
            ("size", text) => {
                let filter = media.as_ref().and_then(|bin| bin.by_name("size"));
                let filter = filter.context("nobody watches")?;
                filter.set_property("caps", raw_caps(size(text)?, fps).parse::<gst::Caps>()?);
            }
            ("end", _) => {
                media.context("nobody watches")?.send_event(gst::event::Eos::new());
            }
            _ => bail!("what is {line:?}?"),
        }
        Ok(())
    }
}

fn raw_caps((width, height): (u32, u32), fps: u32) -> String {
    format!("video/x-raw,format=I420,width={width},height={height},framerate={fps}/1")
}

/// Obeys standard input until it ends.
fn listen(faults: Arc<Faults>, fps: u32) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match faults.obey(&line, fps) {
                Ok(()) => println!("done {line}"),
                Err(error) => println!("failed {line}: {error}"),
            }
        }
    });
}

/// The access units of a clip and how long it lasts.
struct Clip {
    units: Vec<gst::Buffer>,
    duration: gst::ClockTime,
}

/// Reads a clip into memory. Nothing is decoded.
fn read_clip(path: &str) -> Result<Clip> {
    let path = std::fs::canonicalize(path).with_context(|| path.to_owned())?;
    let pipeline = gst::parse::launch(
        "filesrc name=file ! qtdemux ! h264parse config-interval=-1 ! \
         video/x-h264,stream-format=byte-stream,alignment=au ! fakesink name=out sync=false",
    )?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow!("no pipeline"))?;
    pipeline.by_name("file").context("no source")?.set_property("location", &path);
    let units = Arc::new(Mutex::new(Vec::new()));
    let collected = units.clone();
    let sink = pipeline.by_name("out").and_then(|out| out.static_pad("sink")).context("no sink")?;
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            collected.lock().unwrap_or_else(PoisonError::into_inner).push(buffer.copy());
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().context("no bus")?;
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null)?;
    if let Some(gst::MessageView::Error(error)) = end.as_ref().map(|message| message.view()) {
        bail!("{}: {}", path.display(), error.error());
    }
    let units = std::mem::take(&mut *units.lock().unwrap_or_else(PoisonError::into_inner));
    let time = |buffer: &gst::Buffer| buffer.dts_or_pts().unwrap_or_default();
    let (first, last) = units.first().zip(units.last()).context("the clip has no H.264 video")?;
    let frame = (time(last) - time(first)) / (units.len() as u64 - 1).max(1);
    let duration = time(last) - time(first) + frame;
    Ok(Clip { units, duration })
}

/// Sends the clip in real time until the stream is closed.
fn feed(clip: &Clip, source: &gst::Element) {
    let begin = Instant::now();
    let shift = source.current_running_time().unwrap_or_default();
    let Some(first) = clip.units.first().and_then(|unit| unit.dts_or_pts()) else { return };
    for round in 0_u64.. {
        for unit in &clip.units {
            let offset = shift + clip.duration * round;
            let due =
                unit.dts_or_pts().unwrap_or(first).saturating_sub(first) + clip.duration * round;
            let wait = Duration::from_nanos(due.nseconds()).saturating_sub(begin.elapsed());
            std::thread::sleep(wait);
            let mut unit = unit.clone();
            {
                let unit = unit.make_mut();
                let moved = |time: Option<gst::ClockTime>| {
                    time.map(|time| time.saturating_sub(first) + offset)
                };
                let (pts, dts) = (moved(unit.pts()), moved(unit.dts()));
                unit.set_pts(pts);
                unit.set_dts(dts);
            }
            let result = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&unit]);
            if result != gst::FlowReturn::Ok {
                return;
            }
        }
    }
}

fn main() -> Result<()> {
    gst::init()?;
    let options = options()?;
    let server = gst_rtsp::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&options.port);
    let factory = gst_rtsp::RTSPMediaFactory::new();
    factory.set_shared(true);
    if options.input == "test" {
        let known = CODECS.iter().find(|(name, _, _)| *name == options.codec);
        let (_, encoder, payer) = known.context("--codec is h264, h265 or jpeg")?;
        factory.set_launch(&format!(
            "( videotestsrc is-live=true pattern=ball ! capsfilter name=size caps={} ! \
             {encoder} ! {payer} )",
            raw_caps(options.size, options.fps)
        ));
        let faults = Arc::new(Faults::default());
        let joined = faults.clone();
        factory.connect_media_configure(move |_, media| {
            if let Ok(bin) = media.element().downcast::<gst::Bin>() {
                joined.join(bin);
            }
        });
        listen(faults, options.fps);
    } else {
        let clip = Arc::new(read_clip(&options.input)?);
        factory.set_launch(&format!(
            "( appsrc name=feed is-live=true format=time \
             caps=video/x-h264,stream-format=byte-stream,alignment=au ! h264parse ! {PAY} )"
        ));
        factory.connect_media_configure(move |_, media| {
            let Some(source) =
                media.element().downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("feed"))
            else {
                return;
            };
            let clip = clip.clone();
            // Ends by itself when the media is closed and refuses more.
            std::thread::spawn(move || feed(&clip, &source));
        });
    }
    if let Some((user, password)) = &options.login {
        let auth = gst_rtsp::RTSPAuth::new();
        let role = gst_rtsp::RTSP_TOKEN_MEDIA_FACTORY_ROLE;
        let token = gst_rtsp::RTSPToken::builder().field(role, "viewer").build();
        auth.add_basic(&gst_rtsp::RTSPAuth::make_basic(user, password), &token);
        server.set_auth(Some(&auth));
        let viewer = gst::Structure::builder("viewer")
            .field(gst_rtsp::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
            .field(gst_rtsp::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
            .build();
        factory.add_role_from_structure(&viewer);
    }
    let mounts = server.mount_points().context("no mount points")?;
    mounts.add_factory(&options.mount, factory);
    let main_loop = glib::MainLoop::new(None, false);
    let _source = server.attach(None).map_err(|error| anyhow!("port {}: {error}", options.port))?;
    println!("listening rtsp://127.0.0.1:{}{}", server.bound_port(), options.mount);
    main_loop.run();
    Ok(())
}
