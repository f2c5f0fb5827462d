//! Fuzz targets: plain functions over bytes, with seeds.
//!
//! `make fuzz` runs them for long under libFuzzer (`fuzz/`), which looks for inputs that
//! reach new code; an ordinary test runs each for a fixed number of inputs that
//! [`mutate`] makes of the seeds. A target fails by panicking.

use crate::repository;
use framebus_bus::header;
use framebus_client::json;
use framebus_infer::ledger::{self, Ledger, Legacy};
use framebus_model::Model;
use framebus_model::testing::{TinyDetector, not_yolo, tiny_detector};
use framebus_types::{
    Detection, FrameHeader, Health, ResultHeader, Stage, StageTimes, histogram, text,
};
use framebus_vision::{Colour, FrameView, Planes};
use std::path::Path;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its program in `fuzz/`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs in the bounded test: some seconds for all targets together.
    pub bounded: u64,
}

/// Every target.
pub const TARGETS: [Target; 5] = [
    Target { name: "config", run: config, seeds: config_seeds, bounded: 15_000 },
    Target { name: "headers", run: headers, seeds: header_seeds, bounded: 100_000 },
    Target { name: "ledger", run: ledger, seeds: ledger_seeds, bounded: 2_000 },
    Target { name: "onnx", run: onnx, seeds: onnx_seeds, bounded: 30_000 },
    Target { name: "url", run: url, seeds: url_seeds, bounded: 50_000 },
];

/// Configuration text, as somebody who edits it leaves it.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let variable = |name: &str| name.starts_with('C').then(|| "value".to_owned());
    match framebus_config::parse(text, Path::new("fuzz.toml"), &variable) {
        Ok(config) => {
            // What has been accepted describes an instance, or says why it does not.
            let _ = framebus_service::domain(&config);
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

fn config_seeds() -> Vec<Vec<u8>> {
    let folders = ["configs", "crates/framebus-config/tests/broken"];
    let files = folders.iter().flat_map(|folder| {
        std::fs::read_dir(repository().join(folder)).into_iter().flatten().flatten()
    });
    let mut paths: Vec<_> = files
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// The password that no output may have.
const PASSWORD: &str = "hunter2hunter2";

/// `user` and the rest of an RTSP URL, a line each, around a password: whatever else is
/// wrong with the URL, the password shows nowhere.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (user, rest) = text.split_once('\n').unwrap_or(("", text));
    let url = format!("rtsp://{user}:{PASSWORD}@{rest}");
    let source = serde_json::Value::from(url).to_string().replace('\x7f', "\\u007F");
    let config =
        format!("[model]\npath = \"m.onnx\"\n[[camera]]\nname = \"a\"\nsource = {source}\n");
    match framebus_config::parse(&config, Path::new("fuzz.toml"), &|_| None) {
        Ok(config) => {
            for camera in &config.cameras {
                let said = format!("{} {camera:?}", camera.source);
                assert!(!said.contains(PASSWORD), "{said}");
            }
        }
        Err(errors) => assert!(!errors.to_string().contains(PASSWORD), "{errors}"),
    }
}

fn url_seeds() -> Vec<Vec<u8>> {
    let seeds = [
        "admin\n192.168.1.20/stream1",
        "admin\n[fe80::1]:554/h264?channel=1&subtype=0",
        "a%40b\ncamera.local:8554/live.sdp?user=x&password=y#t",
        "\nhost",
        "a:b/c\nuser:pw@host:99999/../?token=1",
        "rtsp://x\n rtsps://y@z",
        "\u{e4}\n\u{1f4f7}.example/\u{7f}\"'\\",
    ];
    seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
}

/// The bytes of an ONNX file.
pub fn onnx(data: &[u8]) {
    let Ok(model) = Model::from_bytes(Path::new("fuzz.onnx"), data.to_vec()) else { return };
    let _ = (model.labels().len(), model.size(), model.layout(), model.stride(), model.batch());
    let Ok(cut) = model.cut() else { return };
    let _ = (cut.size(), cut.heads().len(), cut.bins());
    if let Some(bytes) = cut.bytes() {
        let again = Model::from_bytes(Path::new("cut.onnx"), bytes.clone());
        assert!(again.is_ok(), "what was cut cannot be read: {again:?}");
    }
}

fn onnx_seeds() -> Vec<Vec<u8>> {
    vec![
        tiny_detector(2, Some((64, 96))),
        tiny_detector(3, None),
        TinyDetector::with_head(2, Some((64, 64))).build(),
        TinyDetector::with_head(1, None).with_metadata("names", "{0: 'a'}").build(),
        not_yolo(),
    ]
}

/// Payloads are never longer than this here; only their length is looked at.
const PAYLOAD_MAX: usize = 1 << 20;

/// What another process may have put into shared memory: the length of the payload, then
/// a frame header, a result header, a detection and a health record.
pub fn headers(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let len = bytes.by_ref().take(4).fold(0, |len, byte| len << 8 | usize::from(byte));
    let len = len % (PAYLOAD_MAX + 1);
    let mut parts = Parts { rest: data.get(4..).unwrap_or_default() };
    frame(&parts.next(), len);
    let result: ResultHeader = parts.next();
    if header::check_result(&result, len).is_ok() {
        assert!(result.count as usize * size_of::<Detection>() + result.extra as usize <= len);
    }
    let said = [text::unpack(&result.message), result.model(), result.backend()];
    assert!(said.iter().all(|said| !said.contains('\0')));
    times(&result.times);
    let detection: Detection = parts.next();
    let printed = json::detections(&[detection]).to_string();
    assert!(serde_json::from_str::<serde_json::Value>(&printed).is_ok(), "{printed}");
    let health: Health = parts.next();
    if header::check_health(&health) {
        let _ = (text::unpack(&health.name), text::unpack(&health.reason));
        for stage in &health.stages {
            let _ = histogram::quantile_us(&stage.counts, None, 0.99);
        }
    }
}

/// Reads one record after the other; zeros where the bytes have come to their end.
struct Parts<'a> {
    rest: &'a [u8],
}

impl Parts<'_> {
    fn next<T: bytemuck::Pod>(&mut self) -> T {
        let mut value = T::zeroed();
        let (now, later) = self.rest.split_at(size_of::<T>().min(self.rest.len()));
        bytemuck::bytes_of_mut(&mut value)[..now.len()].copy_from_slice(now);
        self.rest = later;
        value
    }
}

fn frame(found: &FrameHeader, len: usize) {
    let camera = text::unpack(&found.camera).to_owned();
    let Ok(fourcc) = header::check_frame(found, len, &camera) else { return };
    let payload = vec![0; len];
    let plane = |plane| {
        let (range, stride) = header::plane(fourcc, found, plane).unwrap_or((0..0, 0));
        (&payload[range], stride)
    };
    let planes = match fourcc {
        framebus_types::Fourcc::Nv12 => {
            let ((y, y_stride), (uv, uv_stride)) = (plane(0), plane(1));
            Planes::Nv12 { y, y_stride, uv, uv_stride }
        }
        framebus_types::Fourcc::Rgb24 => {
            let (data, stride) = plane(0);
            Planes::Rgb24 { data, stride }
        }
    };
    let (width, height) = (found.width as usize, found.height as usize);
    let view = FrameView::new(width, height, planes, Colour::default());
    assert!(view.is_ok(), "the bus passed what is no picture: {:?}", view.err());
}

fn times(times: &StageTimes) {
    for (stage, duration) in Stage::ALL.into_iter().zip(times.durations_ns()) {
        let bucket = duration.map_or(0, histogram::bucket);
        assert!(bucket < histogram::BUCKETS, "{stage:?}");
    }
    let _ = json::stages(times);
}

fn header_seeds() -> Vec<Vec<u8>> {
    let (width, height): (u32, u32) = (64, 32);
    let seed = |fourcc: framebus_types::Fourcc, strides: [u32; 4]| {
        let len = 4 * width * height;
        let frame = FrameHeader {
            camera: text::pack("a"),
            width,
            height,
            fourcc: fourcc.into(),
            strides,
            offsets: [0, width * height, 0, 0],
            ..FrameHeader::default()
        };
        let result = ResultHeader { outcome: 1, count: 3, extra: 8, ..ResultHeader::default() };
        let detection = Detection { score: 0.5, label: text::pack("red"), ..Detection::default() };
        let health = Health { role: 1, state: 2, name: text::pack("a"), ..Health::default() };
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend_from_slice(bytemuck::bytes_of(&frame));
        bytes.extend_from_slice(bytemuck::bytes_of(&result));
        bytes.extend_from_slice(bytemuck::bytes_of(&detection));
        bytes.extend_from_slice(bytemuck::bytes_of(&health));
        bytes
    };
    vec![
        seed(framebus_types::Fourcc::Nv12, [width, width, 0, 0]),
        seed(framebus_types::Fourcc::Rgb24, [3 * width, 0, 0, 0]),
        Vec::new(),
    ]
}

/// Bytes of a boot's name in a ledger, behind its magic number.
const BOOT: std::ops::Range<usize> = 16..56;

/// The beginning of the file in which the inference process notes frames, of this boot as
/// it says itself; the rest of the file is empty.
pub fn ledger(data: &[u8]) {
    let mut file = data.to_vec();
    file.resize(ledger::BYTES, 0);
    let mut boot = [0; 40];
    boot.copy_from_slice(&file[BOOT]);
    let Some(Legacy { orphans, .. }) = Legacy::parse(&file, boot) else { return };
    assert!(orphans.is_sorted_by_key(|orphan| orphan.taken_ns));
    for orphan in &orphans {
        let camera = text::unpack(&orphan.header.camera);
        assert!(framebus_config::CameraName::try_from(camera).is_ok(), "{camera:?}");
    }
}

fn ledger_seeds() -> Vec<Vec<u8>> {
    let seed = |frames: u64| {
        let folder = tempfile::tempdir().ok()?;
        let (ledger, _) = Ledger::open(folder.path()).ok()?;
        ledger.loaded("openvino", "yolov8n");
        for sequence in 0..frames {
            let header =
                FrameHeader { camera: text::pack("a"), sequence, ..FrameHeader::default() };
            let _ = ledger.enter(&header, 100 - sequence);
        }
        let files = std::fs::read_dir(folder.path()).ok()?.flatten();
        let mut bytes = files.map(|file| std::fs::read(file.path())).next()?.ok()?;
        // Where the records end that are used.
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0)? + 1);
        Some(bytes)
    };
    [0, 1, 3].into_iter().filter_map(seed).collect()
}

/// The next of a sequence of random numbers (xorshift64, Marsaglia 2003).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Input number `number` of a target, made from its seeds: the same one every time.
///
/// # Panics
/// When there are no seeds.
#[must_use]
pub fn mutate(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |limit: usize| (random(&mut state) % limit.max(1) as u64) as usize;
    let mut data = seeds[below(seeds.len())].clone();
    for _ in 0..=below(6) {
        let at = below(data.len() + 1);
        let end = (at + 1 + below(16)).min(data.len());
        match below(7) {
            0 if at < data.len() => data[at] ^= 1 << below(8),
            1 if at < data.len() => data[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'=', b'@'][below(8)],
            2 => data.truncate(at),
            3 => drop(data.drain(at..end)),
            4 => {
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            5 => {
                let other = &seeds[below(seeds.len())];
                let from = below(other.len());
                let until = (from + 1 + below(64)).min(other.len());
                data.splice(at..at, other[from..until].iter().copied());
            }
            _ => data[at..end].fill([0, 0xff][below(2)]),
        }
    }
    data
}
