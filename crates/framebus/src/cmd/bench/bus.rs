//! `framebus bench bus`: how long is a frame on its way, and what does that cost?

use super::numbers::{Summary, maybe, median};
use super::reader::{self, thread_cpu_ns};
use super::{BLOCK, Common, meters, picture, say};
use crate::children::Child;
use crate::private::Private;
use crate::table::{figure, table};
use framebus_bus::{Bus, BusError, Delivery, FramePublisher};
use framebus_service::{Failure, Kind, OrFail, Shutdown, clock};
use framebus_types::{Fourcc, FrameHeader, text};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// Readers follow an order within this.
const ORDER: Duration = Duration::from_millis(80);
/// Readers are there within this, ns.
const START_NS: u64 = 20_000_000_000;
/// Time that readers have to write their figures.
const STOP: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// Hand-over of frames between processes: latency and CPU
///
/// Frames of all sizes take turns one by one, so that the machine's mood is the same for
/// all. Readers are processes of their own; they sleep (blocking) and look again and again
/// (polling) in turns of a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus bench bus
  framebus bench bus --size 640x384,1920x1080,3840x2160 --readers 3 --json

JSON keys, beside those of every benchmark: readers, seconds, interval_us,
  size_ratio_p50          blocking, the last size over the first
  size_ratio_p50_polling  the same, polling
  sizes [{size,sent,received,blocking_us {min,p50,p90,p99,max},polling_us {…},
          send_cpu_us {…} of the sender,wake_cpu_us of a reader}]
Times are from just before the send to the reader that has the frame in its hands; of
several readers, the median of each figure. polling_us is null where the machine has no
core left for a reader that polls.")]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Sizes of the frames.
    #[arg(long, value_name = "WxH,…", value_delimiter = ',', default_value = "640x384,3840x2160", value_parser = super::size)]
    size: Vec<(usize, usize)>,
    /// Reading processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    readers: u8,
    /// Time between two frames, µs; 5000 leaves the readers asleep in between.
    #[arg(long, value_name = "US", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    interval_us: u32,
}

struct Size {
    size: (usize, usize),
    camera: String,
    publisher: FramePublisher,
    sequence: u64,
    send_cpu_us: Vec<f64>,
}

impl Size {
    fn send(&mut self) -> Result<(), Failure> {
        let (width, height) = self.size;
        let before_ns = thread_cpu_ns();
        let loan = match self.publisher.loan(picture::bytes(width, height)) {
            Ok(loan) => loan,
            // Every sample is with a reader that does not get to run.
            Err(BusError::NoLoan { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut header = FrameHeader {
            camera: text::pack(&self.camera),
            sequence: self.sequence,
            width: width as u32,
            height: height as u32,
            fourcc: Fourcc::Nv12.into(),
            strides: [width as u32, width as u32, 0, 0],
            offsets: [0, (width * height) as u32, 0, 0],
            ..FrameHeader::default()
        };
        header.publish_ns = clock::monotonic_ns();
        header.capture_ns = header.publish_ns;
        self.publisher.publish(loan, &header)?;
        if self.send_cpu_us.len() < reader::KEPT_MAX {
            self.send_cpu_us.push((thread_cpu_ns() - before_ns) as f64 / 1e3);
        }
        self.sequence += 1;
        Ok(())
    }
}

pub(super) fn run(args: &Args, shutdown: &Shutdown) -> Result<(), Failure> {
    let readers = usize::from(args.readers);
    let mut private = Private::new("bench")?;
    let domain = private.domain(reader::limits(readers))?;
    let bus: Bus = Bus::open(&domain, "bench")?;
    let mut sizes = Vec::with_capacity(args.size.len());
    for (number, &size) in args.size.iter().enumerate() {
        let camera = reader::service(number);
        let bytes = picture::bytes(size.0, size.1);
        let publisher = bus.frame_publisher(&camera, bytes, Delivery::Latest, shutdown.flag())?;
        sizes.push(Size { size, camera, publisher, sequence: 0, send_cpu_us: Vec::new() });
    }
    let mut children = Vec::with_capacity(readers);
    for number in 0..readers {
        let output = private.folder().join(format!("reader{number}.json"));
        children.push((start(&private, sizes.len(), readers, &output)?, output));
    }
    wait_ready(&mut children, &sizes, shutdown)?;

    // A reader that polls takes a core, and the sender needs one.
    let polls = meters::cpus() > readers;
    for _ in 0..args.common.blocks() {
        for order in if polls { &["block", "poll"][..] } else { &["block"] } {
            children.iter_mut().for_each(|(child, _)| child.say(order));
            let _ = shutdown.wait(ORDER);
            send(&mut sizes, args.interval_us, shutdown)?;
            children.iter_mut().for_each(|(child, _)| child.say("idle"));
            let _ = shutdown.wait(ORDER);
        }
        if shutdown.requested() {
            break;
        }
    }
    let mut notes = Vec::with_capacity(readers);
    for (child, output) in &mut children {
        child.say("end");
        let (exit, _) = child.finish(STOP, || {});
        if !exit.success() {
            return Err(Failure::message(exit.kind(), format_args!("reader: {}", exit.reason())));
        }
        let text = std::fs::read_to_string(output).or_fail(Kind::Unavailable)?;
        notes.push(serde_json::from_str::<Value>(&text).or_fail(Kind::Bug)?);
    }
    report(args, &mut sizes, &notes)
}

fn start(
    private: &Private,
    services: usize,
    readers: usize,
    output: &Path,
) -> Result<Child, Failure> {
    let own = std::env::current_exe().or_fail(Kind::Unavailable)?;
    let mut args: Vec<OsString> = ["bench", "reader", "--root"].map(OsString::from).into();
    args.push(private.folder().into());
    args.extend(["--instance".into(), private.instance().into()]);
    args.extend(["--services".into(), services.to_string().into()]);
    args.extend(["--readers".into(), readers.to_string().into()]);
    args.extend(["--output".into(), output.into()]);
    Child::start("reader", &own, &args, Stdio::null(), Arc::new(|_, _| {}))
}

/// Waits until every reader has subscribed, which it shows by its file.
fn wait_ready(
    children: &mut [(Child, PathBuf)],
    sizes: &[Size],
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let end_ns = clock::monotonic_ns() + START_NS;
    while !children.iter().all(|(_, output)| output.exists()) {
        for (child, _) in &mut *children {
            if let Some(exit) = child.exited() {
                let reason = exit.reason();
                return Err(Failure::message(exit.kind(), format_args!("reader: {reason}")));
            }
        }
        if shutdown.wait(LOOK) {
            return Err(super::interrupted());
        }
        if clock::monotonic_ns() >= end_ns {
            return Err(Failure::message(Kind::Unavailable, "the readers do not come up"));
        }
    }
    // The next send reaches readers that have just come.
    sizes.iter().for_each(|size| {
        let _ = size.publisher.has_reader("reader");
    });
    Ok(())
}

/// Sends frames of all sizes in turns, for one block.
fn send(sizes: &mut [Size], interval_us: u32, shutdown: &Shutdown) -> Result<(), Failure> {
    let start_ns = clock::monotonic_ns();
    let end_ns = start_ns + BLOCK.as_nanos() as u64;
    let mut number = 0_u32;
    while clock::monotonic_ns() < end_ns && !shutdown.requested() {
        let which = number as usize % sizes.len();
        sizes[which].send()?;
        // Not in step with the clock tick: plus or minus a quarter, evenly spread.
        let shift = (f64::from(number) * 0.618_034).fract() * 0.5 + 0.75;
        let _ = shutdown.wait(Duration::from_secs_f64(f64::from(interval_us) / 1e6 * shift));
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// The median over the readers of one figure of a size.
fn over_readers(notes: &[Value], size: usize, path: &str) -> Option<f64> {
    let values = notes.iter().filter_map(|reader| reader[size].pointer(path)?.as_f64());
    median(&values.collect::<Vec<_>>())
}

fn summary(notes: &[Value], size: usize, way: &str) -> Value {
    let of = |quantile: &str| over_readers(notes, size, &format!("/{way}/{quantile}"));
    if of("p50").is_none() {
        return Value::Null;
    }
    json!({
        "min": maybe(of("min")), "p50": maybe(of("p50")), "p90": maybe(of("p90")),
        "p99": maybe(of("p99")), "max": maybe(of("max")),
    })
}

fn report(args: &Args, sizes: &mut [Size], notes: &[Value]) -> Result<(), Failure> {
    let ratio = |way: &str| {
        let p50 = |size| over_readers(notes, size, &format!("/{way}/p50"));
        Some(p50(sizes.len() - 1)? / p50(0)?)
    };
    let (blocking, polling) = (ratio("blocking_us"), ratio("polling_us"));
    let rows: Vec<Value> = sizes
        .iter_mut()
        .enumerate()
        .map(|(number, size)| {
            json!({
                "size": format!("{}x{}", size.size.0, size.size.1),
                "sent": size.sequence,
                "received": maybe(over_readers(notes, number, "/received")),
                "blocking_us": summary(notes, number, "blocking_us"),
                "polling_us": summary(notes, number, "polling_us"),
                "send_cpu_us": Summary::of(&mut size.send_cpu_us).map(Summary::json),
                "wake_cpu_us": maybe(over_readers(notes, number, "/wake_cpu_us")),
            })
        })
        .collect();
    if args.common.json {
        return super::print_json(
            "bus",
            json!({
                "readers": args.readers, "seconds": args.common.seconds,
                "interval_us": args.interval_us, "size_ratio_p50": maybe(blocking),
                "size_ratio_p50_polling": maybe(polling), "sizes": rows,
            }),
        );
    }
    let cell = |row: &Value, path: &str| figure(row.pointer(path).and_then(Value::as_f64));
    let cells = rows.iter().map(|row| {
        let mut cells = vec![row["size"].as_str().unwrap_or_default().to_owned()];
        for path in [
            "/blocking_us/p50",
            "/blocking_us/p90",
            "/blocking_us/p99",
            "/polling_us/p50",
            "/polling_us/p90",
            "/polling_us/p99",
            "/send_cpu_us/p50",
            "/wake_cpu_us",
        ] {
            cells.push(cell(row, path));
        }
        cells
    });
    say(&table(
        &[
            "µs",
            ">blocking p50",
            ">p90",
            ">p99",
            ">polling p50",
            ">p90",
            ">p99",
            ">CPU send",
            ">CPU wake",
        ],
        cells.collect(),
    ))?;
    if sizes.len() > 1 {
        say(&format!(
            "\nlast size over first, p50: blocking {}, polling {}",
            figure(blocking),
            figure(polling)
        ))?;
    }
    Ok(())
}
