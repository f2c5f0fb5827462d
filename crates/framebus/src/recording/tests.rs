use super::*;
use framebus_types::{Detection, Fourcc, FrameHeader, Outcome, ResultHeader, text};
use std::fs::File;
use std::path::Path;

const SIDE: u32 = 64;

fn header(sequence: u64) -> FrameHeader {
    FrameHeader {
        camera: text::pack("front"),
        epoch_ns: 5,
        sequence,
        capture_ns: 1000 + sequence,
        wall_ns: 1_700_000_000_000_000_000 + sequence,
        publish_ns: 1500 + sequence,
        width: SIDE,
        height: SIDE,
        fourcc: Fourcc::Nv12.into(),
        motion: 0.25,
        ..FrameHeader::default()
    }
}

fn result(sequence: u64) -> ResultHeader {
    ResultHeader {
        camera: text::pack("front"),
        epoch_ns: 5,
        sequence,
        outcome: Outcome::Ok.into(),
        wall_ns: header(sequence).wall_ns,
        ..ResultHeader::default()
    }
}

fn found(score: f32) -> Detection {
    Detection {
        score,
        bbox: [1.0, 2.0, 3.5, 4.0],
        label: text::pack("cat"),
        ..Detection::default()
    }
}

/// A `RawImage` of noise that no compression makes smaller.
fn image(sequence: u64) -> Vec<u8> {
    let mut message = Vec::new();
    let mut cdr = cdr::Writer::new(&mut message);
    cdr.time(header(sequence).wall_ns);
    cdr.text("front");
    cdr.u32(SIDE);
    cdr.u32(SIDE);
    cdr.text("nv12");
    cdr.u32(SIDE);
    let length = (SIDE * SIDE * 3 / 2) as usize;
    cdr.count(length);
    let mut state = sequence + 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect();
    cdr.bytes(&noise);
    message
}

/// A recording of so many frames, each with its result.
fn record(path: &Path, frames: u64, compression: Compression) -> Recording {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("new");
    let mut recording = Recording::create(file, Pictures::Raw, compression).expect("begun");
    for sequence in 0..frames {
        let camera = recording.camera("front").expect("channels");
        recording.frame(camera, &header(sequence), &image(sequence)).expect("written");
        let detections = vec![found(0.5); sequence as usize % 3];
        recording.result(camera, &result(sequence), &detections).expect("written");
    }
    recording
}

/// Frames that can be read, each checked, and why no more.
fn read(path: &Path) -> (u64, Option<String>) {
    let mut reader = Reader::open(path).expect("opens");
    let mut frames = 0;
    for entry in reader.by_ref() {
        match entry {
            Entry::Frame { header: read, image: message } => {
                assert_eq!(*read, header(frames));
                assert_eq!(message, image(frames));
                let picture = Image::parse(&message).expect("a picture");
                let layout = picture.layout(&read).expect("of this frame");
                let layout = (layout.strides, layout.offsets);
                assert_eq!(layout, ([SIDE, SIDE, 0, 0], [0, SIDE * SIDE, 0, 0]));
                frames += 1;
            }
            Entry::Result { header, detections } => {
                let sequence = frames - 1;
                let count = (sequence % 3) as u32;
                assert_eq!(*header, ResultHeader { count, ..result(sequence) });
                assert_eq!(detections, vec![found(0.5); count as usize]);
            }
        }
    }
    (frames, reader.cut().map(str::to_owned))
}

#[test]
fn what_was_written_is_read_again_bit_by_bit() {
    let folder = tempfile::tempdir().expect("temp dir");
    for (name, compression) in [("lz4", Compression::Lz4), ("none", Compression::None)] {
        let path = folder.path().join(name);
        let written = record(&path, 40, compression).finish().expect("finished");
        let length = std::fs::metadata(&path).expect("there").len();
        assert_eq!(written, Written { frames: 40, results: 40, bytes: length });
        assert_eq!(read(&path), (40, None));
        let overview = Overview::of(&path).expect("readable");
        assert_eq!((overview.frames["front"], overview.results), (40, 40));
        assert_eq!((overview.has_jpeg, overview.cut), (false, None));
    }
}

#[test]
fn a_recording_without_an_end_is_read_up_to_its_last_whole_chunk() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("cut");
    // Some chunks, and one that is never ended.
    let recording = record(&path, 1500, Compression::Lz4);
    let (frames, cut) = read(&path);
    assert!(frames > 600 && frames < 1500, "{frames}");
    assert!(cut.is_some());
    let overview = Overview::of(&path).expect("readable");
    assert_eq!(overview.frames["front"], frames, "counted by reading");
    assert!(overview.cut.is_some());
    // In the middle of a chunk.
    let length = std::fs::metadata(&path).expect("there").len();
    let file = File::options().write(true).open(&path).expect("writable");
    file.set_len(length - 200_000).expect("shorter");
    let (fewer, cut) = read(&path);
    assert!(fewer < frames && fewer > 0 && cut.is_some(), "{fewer} of {frames}");
    file.set_len(length).expect("as it was");
    let bytes = recording.salvage().expect("closed");
    assert_eq!(bytes, std::fs::metadata(&path).expect("there").len());
    assert_eq!(read(&path).1.map(|_| "cut"), Some("cut"), "its last chunk was damaged here");
}

#[test]
fn a_recording_that_could_not_go_on_ends_in_order_without_an_index() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("full");
    let recording = record(&path, 1500, Compression::None);
    let (frames, _) = read(&path);
    recording.salvage().expect("closed");
    assert_eq!(read(&path), (frames, None), "everything up to the last chunk, and an end");
}

#[test]
fn other_files_are_told_from_recordings() {
    let folder = tempfile::tempdir().expect("temp dir");
    for bytes in [&b""[..], b"x", b"no recording, but a text of some length; really not one"] {
        let path = folder.path().join("other");
        std::fs::write(&path, bytes).expect("written");
        let overview = Overview::of(&path).expect("readable");
        assert!(overview.frames.is_empty() && overview.cut.is_some(), "{overview:?}");
    }
}

/// Bytes of a message whose fields all have a fixed size, by its schema.
fn size(schema: &str) -> usize {
    let field = |line: &str| {
        let kind = line.split(' ').next().expect("a type");
        let (kind, count) = match kind.split_once('[') {
            Some((kind, rest)) => (kind, rest.trim_end_matches(']').parse().expect("a number")),
            None => (kind, 1),
        };
        let bits: usize = kind.trim_start_matches(char::is_alphabetic).parse().expect("bits");
        bits / 8 * count
    };
    schema.lines().map(field).sum()
}

#[test]
fn the_schemas_are_the_layouts() {
    assert_eq!(size(schemas::FRAME.1), size_of::<FrameHeader>());
    let (result, detection) = schemas::RESULT.1.split_once("framebus/DetectionV1[] ").expect("one");
    assert_eq!(size(result), size_of::<ResultHeader>() + 4);
    let fields = detection.split_once("MSG: framebus/DetectionV1\n").expect("its fields").1;
    assert_eq!(size(fields), size_of::<Detection>());
}

#[test]
fn odd_sizes_are_closed_up_and_fit_their_header() {
    let header = FrameHeader { width: 5, height: 3, ..header(0) };
    let data = [0; 6 * 5];
    let picture = Image { fourcc: Fourcc::Nv12, width: 5, height: 3, step: 6, data: &data };
    let layout = picture.layout(&header).expect("of this frame");
    assert_eq!((layout.strides[1], layout.offsets[1]), (6, 18));
    assert!(framebus_bus::header::check_frame(&layout, data.len(), "front").is_ok());
    assert!(framebus_bus::header::check_frame(&layout, data.len() - 2, "front").is_err());
    assert_eq!(picture.layout(&FrameHeader { width: 7, ..header }), None);
}
