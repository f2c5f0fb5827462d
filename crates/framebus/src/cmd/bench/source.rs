//! A capture process without a camera: publishes frames whose pixels are there already.
//!
//! The pixels of every sample of the segment are written once; afterwards a frame costs
//! its header and the hand-over, so that the benchmark measures what comes behind. Told
//! `run` and `pause` on standard input, it ends with it.

use super::picture;
use framebus_bus::{Bus, BusError, FramePublisher};
use framebus_config::Camera;
use framebus_service::{
    Failure, INFER_READER, Kind, OrFail, Reporter, Shutdown, Vitals, clock, delivery,
};
use framebus_types::{
    ColourMatrix, ColourRange, Counter, Fourcc, FrameHeader, Role, Stage, State, text,
};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often a waiting source looks up.
const LOOK: Duration = Duration::from_millis(20);
/// A source that is later than this does not make up for it, ns.
const LATE_NS: u64 = 1_000_000_000;

/// Publish frames for a benchmark
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration of the instance.
    #[arg(long)]
    config: PathBuf,
    /// Camera that it stands for.
    #[arg(long)]
    camera: String,
    /// Size of the frames.
    #[arg(long, value_parser = super::size)]
    size: (usize, usize),
    /// Frames a second; 0 = as many as are taken.
    #[arg(long)]
    fps: f64,
    /// Shift against the other cameras, as a part of the time between two frames.
    #[arg(long)]
    phase: f64,
    /// Picture or folder of pictures; noise otherwise.
    #[arg(long)]
    pictures: Option<PathBuf>,
}

/// Whether to publish, as told on standard input.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        self.changed.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is open, [`LOOK`] at most.
    fn wait(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(open, LOOK, |open| !*open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Follows standard input; the end of it is the wish to stop.
fn obey(gate: Arc<Gate>, shutdown: Shutdown) -> std::io::Result<()> {
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("run") => gate.set(true),
                Ok("pause") => gate.set(false),
                _ => break,
            }
        }
        shutdown.request();
    })?;
    Ok(())
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let config = framebus_config::load(&args.config).or_fail(Kind::Config)?;
    let camera = config.camera(&args.camera).ok_or_else(|| {
        Failure::message(Kind::Usage, format_args!("there is no camera {}", args.camera))
    })?;
    let (width, height) = args.size;
    let pictures = picture::load(args.pictures.as_deref(), width, height)?;
    let gate = Arc::new(Gate::default());
    obey(gate.clone(), shutdown.clone()).or_fail(Kind::Unavailable)?;
    let bus = Arc::new(Bus::open(&framebus_service::domain(&config)?, &args.camera)?);
    let vitals = Vitals::new(Role::Capture, &args.camera);
    vitals.set_size(width as u32, height as u32);
    let alive = Arc::new(AtomicBool::new(true));
    let reporter = Reporter::start(&bus, vec![vitals.clone()], alive, false)?;
    let publisher = bus.frame_publisher(
        &args.camera,
        picture::bytes(width, height),
        delivery(camera.delivery),
        shutdown.flag(),
    )?;
    while !publisher.has_reader(INFER_READER) {
        if shutdown.wait(LOOK) {
            return Ok(());
        }
    }
    vitals.set_state(State::Live, "");
    reporter.publish();
    let mut source = Source {
        publisher,
        camera,
        size: args.size,
        pictures,
        filled: Vec::new(),
        sequence: 0,
        epoch_ns: clock::wall_ns(),
    };
    let period_ns = if args.fps > 0.0 { (1e9 / args.fps) as u64 } else { 0 };
    while !shutdown.requested() {
        if !gate.wait() {
            continue;
        }
        let mut next_ns = clock::monotonic_ns() + (args.phase * period_ns as f64) as u64;
        while gate.is_open() && !shutdown.requested() {
            let now_ns = clock::monotonic_ns();
            if period_ns > 0 && now_ns < next_ns {
                let _ = shutdown.wait(Duration::from_nanos(next_ns - now_ns).min(LOOK));
                continue;
            }
            if now_ns > next_ns + LATE_NS {
                next_ns = now_ns;
            }
            next_ns += period_ns;
            source.publish(&vitals)?;
        }
        reporter.publish();
    }
    vitals.set_state(State::Stopping, "");
    Ok(())
}

struct Source<'a> {
    publisher: FramePublisher,
    camera: &'a Camera,
    size: (usize, usize),
    pictures: Vec<Vec<u8>>,
    /// Addresses of the samples whose pixels are there.
    filled: Vec<usize>,
    sequence: u64,
    epoch_ns: u64,
}

impl Source<'_> {
    fn publish(&mut self, vitals: &Vitals) -> Result<(), Failure> {
        let (width, height) = self.size;
        let mut loan = match self.publisher.loan(picture::bytes(width, height)) {
            Ok(loan) => loan,
            Err(BusError::NoLoan { .. }) => {
                vitals.add(Counter::Captured, 1);
                vitals.add(Counter::LostMemory, 1);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let payload = loan.payload_mut();
        let address = payload.as_ptr() as usize;
        if !self.filled.contains(&address) {
            payload.copy_from_slice(&self.pictures[self.filled.len() % self.pictures.len()]);
            self.filled.push(address);
        }
        let now_ns = clock::monotonic_ns();
        let header = FrameHeader {
            camera: text::pack(self.camera.name.as_str()),
            epoch_ns: self.epoch_ns,
            sequence: self.sequence,
            capture_ns: now_ns,
            wall_ns: clock::wall_ns(),
            publish_ns: now_ns,
            width: width as u32,
            height: height as u32,
            fourcc: Fourcc::Nv12.into(),
            matrix: ColourMatrix::Bt709.into(),
            range: ColourRange::Limited.into(),
            strides: [width as u32, width as u32, 0, 0],
            offsets: [0, (width * height) as u32, 0, 0],
            ..FrameHeader::default()
        };
        self.publisher.publish(loan, &header)?;
        self.sequence += 1;
        vitals.add(Counter::Captured, 1);
        vitals.add(Counter::Published, 1);
        vitals.add(Counter::ZeroCopy, 1);
        vitals.record(Stage::Capture, clock::monotonic_ns() - now_ns);
        Ok(())
    }
}
