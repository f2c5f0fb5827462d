//! Writing a recording.

use super::cdr::Writer as Cdr;
use super::image::Image;
use super::{Compression, Pictures, WriteError, schemas};
use crate::annotate::COLOURS;
use framebus_types::{Detection, FrameHeader, ResultHeader};
use mcap::records::MessageHeader;
use mcap::write::Metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};

/// A chunk is closed when this much, uncompressed, lies in it: so much is lost at most when
/// the recorder is killed, and so much memory it costs.
const CHUNK: usize = 4 << 20;
/// What a file without a summary ends with: an empty `DataEnd` and `Footer` record, and
/// the magic bytes (<https://mcap.dev/spec#records>).
const END: [u8; 50] = {
    let mut end = [0; 50];
    (end[0], end[1]) = (0x0f, 4);
    (end[13], end[14]) = (0x02, 20);
    let magic = *b"\x89MCAP0\r\n";
    let mut i = 0;
    while i < magic.len() {
        end[42 + i] = magic[i];
        i += 1;
    }
    end
};

/// A camera's channels.
#[derive(Debug, Clone, Copy)]
struct Channels {
    frame: u16,
    image: u16,
    annotations: u16,
    result: u16,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) frames: u64,
    pub(crate) results: u64,
    /// Of the file.
    pub(crate) bytes: u64,
}

/// A recording that is being written.
pub(crate) struct Recording {
    writer: mcap::Writer<BufWriter<File>>,
    /// The same open file: it shares its place.
    file: File,
    pictures: Pictures,
    schemas: [u16; 4],
    cameras: Vec<(String, Channels)>,
    /// Bytes in the open chunk, uncompressed.
    pending: usize,
    /// End of the last whole chunk.
    whole: u64,
    written: Written,
    message: Vec<u8>,
}

impl Recording {
    /// Begins a recording in an empty file.
    pub(crate) fn create(
        file: File,
        pictures: Pictures,
        compression: Compression,
    ) -> Result<Self, WriteError> {
        let mut writer = mcap::WriteOptions::new()
            .library(concat!("framebus ", env!("CARGO_PKG_VERSION")))
            .compression(match compression {
                Compression::Lz4 => Some(mcap::Compression::Lz4),
                Compression::None => None,
            })
            // Chunks are ended here, and written in one piece: what a killed recorder leaves
            // ends in a chunk that is cut off, not in one that was never filled in.
            .chunk_size(None)
            .disable_seeking(true)
            .create(BufWriter::with_capacity(1 << 18, file.try_clone()?))?;
        let image = match pictures {
            Pictures::Jpeg => schemas::COMPRESSED_IMAGE,
            Pictures::Raw | Pictures::None => schemas::RAW_IMAGE,
        };
        let mut schema =
            |(name, text): schemas::Schema| writer.add_schema(name, "ros2msg", text.as_bytes());
        let schemas = [
            schema(schemas::FRAME)?,
            schema(image)?,
            schema(schemas::ANNOTATIONS)?,
            schema(schemas::RESULT)?,
        ];
        Ok(Self {
            writer,
            file,
            pictures,
            schemas,
            cameras: Vec::new(),
            pending: 0,
            whole: 0,
            written: Written::default(),
            message: Vec::new(),
        })
    }

    /// Notes something about the whole recording.
    pub(crate) fn note(
        &mut self,
        name: &str,
        values: BTreeMap<String, String>,
    ) -> Result<(), WriteError> {
        self.writer.write_metadata(&Metadata { name: name.to_owned(), metadata: values })?;
        self.chunk()
    }

    /// Number of a camera, whose channels are made when it is new.
    pub(crate) fn camera(&mut self, name: &str) -> Result<usize, WriteError> {
        if let Some(known) = self.cameras.iter().position(|(known, _)| known == name) {
            return Ok(known);
        }
        let about = BTreeMap::from([("camera".to_owned(), name.to_owned())]);
        let mut channel = |schema: u16, topic: &str| {
            self.writer.add_channel(schema, &format!("/{name}/{topic}"), "cdr", &about)
        };
        let [frame, image, annotations, result] = self.schemas;
        let channels = Channels {
            frame: channel(frame, "frame")?,
            image: channel(image, "image")?,
            annotations: channel(annotations, "annotations")?,
            result: channel(result, "result")?,
        };
        self.cameras.push((name.to_owned(), channels));
        Ok(self.cameras.len() - 1)
    }

    /// Writes a frame; `image` is its `RawImage`.
    pub(crate) fn frame(
        &mut self,
        camera: usize,
        header: &FrameHeader,
        image: &[u8],
    ) -> Result<(), WriteError> {
        let channels = self.cameras[camera].1;
        let stamp = |channel_id| MessageHeader {
            channel_id,
            sequence: header.sequence as u32,
            log_time: header.wall_ns,
            publish_time: wall(header.wall_ns, header.capture_ns, header.publish_ns),
        };
        Cdr::new(&mut self.message).bytes(bytemuck::bytes_of(header));
        self.writer.write_to_known_channel(&stamp(channels.frame), &self.message)?;
        let mut length = self.message.len() + image.len();
        if self.pictures == Pictures::Jpeg {
            let raw = Image::parse(image).ok_or_else(|| WriteError::Picture("no image".into()))?;
            let camera = &self.cameras[camera].0;
            raw.compress(header, camera, &mut self.message).map_err(WriteError::Picture)?;
            self.writer.write_to_known_channel(&stamp(channels.image), &self.message)?;
            length = self.message.len();
        } else {
            self.writer.write_to_known_channel(&stamp(channels.image), image)?;
        }
        self.written.frames += 1;
        self.grown(length)
    }

    /// Writes a result.
    pub(crate) fn result(
        &mut self,
        camera: usize,
        header: &ResultHeader,
        detections: &[Detection],
    ) -> Result<(), WriteError> {
        let channels = self.cameras[camera].1;
        // By the time of its frame, so that a viewer lays boxes over their own picture.
        let stamp = |channel_id| MessageHeader {
            channel_id,
            sequence: header.sequence as u32,
            log_time: header.wall_ns,
            publish_time: wall(header.wall_ns, header.times.capture_ns, header.times.result_ns),
        };
        let mut cdr = Cdr::new(&mut self.message);
        // What lies behind the detections on the bus is not recorded.
        let header = ResultHeader { count: detections.len() as u32, extra: 0, ..*header };
        cdr.bytes(bytemuck::bytes_of(&header));
        cdr.u32(0);
        cdr.count(detections.len());
        cdr.bytes(bytemuck::cast_slice(detections));
        self.writer.write_to_known_channel(&stamp(channels.result), &self.message)?;
        let mut length = self.message.len();
        // Of a frame that was not looked at nothing is known: the boxes before it stay.
        if header.outcome == u32::from(framebus_types::Outcome::Ok) {
            annotations(&header, detections, &mut self.message);
            self.writer.write_to_known_channel(&stamp(channels.annotations), &self.message)?;
            length += self.message.len();
        }
        self.written.results += 1;
        self.grown(length)
    }

    fn grown(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.pending += bytes;
        if self.pending >= CHUNK { self.chunk() } else { Ok(()) }
    }

    /// Ends the chunk: what was written is in the file.
    fn chunk(&mut self) -> Result<(), WriteError> {
        self.writer.flush()?;
        self.pending = 0;
        self.whole = self.file.stream_position()?;
        self.written.bytes = self.whole;
        Ok(())
    }

    /// What has been written so far.
    pub(crate) fn written(&self) -> Written {
        self.written
    }

    /// Free bytes where the file lies.
    pub(crate) fn free(&self) -> Option<u64> {
        let disk = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(disk.f_bavail * disk.f_frsize)
    }

    /// Ends the recording with its index.
    pub(crate) fn finish(&mut self) -> Result<Written, WriteError> {
        // What is in the open chunk is safe before the index is tried.
        self.chunk()?;
        self.writer.finish()?;
        self.written.bytes = self.file.metadata()?.len();
        Ok(self.written)
    }

    /// Ends a recording that could not be written on: with its last whole chunk and without
    /// an index, which readers make themselves.
    pub(crate) fn salvage(self) -> Result<u64, WriteError> {
        let Self { writer, mut file, whole, .. } = self;
        // What it still holds must not reach the file.
        let (_, _unwritten) = writer.into_inner().into_parts();
        file.set_len(whole)?;
        file.seek(std::io::SeekFrom::Start(whole))?;
        file.write_all(&END)?;
        Ok(whole + END.len() as u64)
    }
}

/// A moment of CLOCK_MONOTONIC by the wall clock, by another moment of which both are known.
fn wall(wall_ns: u64, capture_ns: u64, moment_ns: u64) -> u64 {
    wall_ns.saturating_add(moment_ns.saturating_sub(capture_ns))
}

/// Boxes and labels.
fn annotations(header: &ResultHeader, detections: &[Detection], message: &mut Vec<u8>) {
    let scale = (header.width.max(header.height) / 640).clamp(1, 8);
    let mut cdr = Cdr::new(message);
    let rgba = |cdr: &mut Cdr<'_>, colour: [u8; 3], alpha: f64| {
        colour.iter().for_each(|value| cdr.f64(f64::from(*value) / 255.0));
        cdr.f64(alpha);
    };
    let colour = |found: &Detection| COLOURS[found.class as usize % COLOURS.len()];
    cdr.count(0);
    cdr.count(detections.len());
    for found in detections {
        let [left, top, right, bottom] = found.bbox.map(f64::from);
        cdr.time(header.wall_ns);
        // LINE_LOOP
        cdr.u8(2);
        cdr.count(4);
        for (x, y) in [(left, top), (right, top), (right, bottom), (left, bottom)] {
            cdr.f64(x);
            cdr.f64(y);
        }
        rgba(&mut cdr, colour(found), 1.0);
        cdr.count(0);
        rgba(&mut cdr, [0; 3], 0.0);
        cdr.f64(f64::from(2 * scale));
    }
    cdr.count(detections.len());
    for found in detections {
        cdr.time(header.wall_ns);
        cdr.f64(f64::from(found.bbox[0]));
        cdr.f64(f64::from(found.bbox[1]));
        match found.track {
            0 => cdr.text(&format!("{} {:.2}", found.label(), found.score)),
            track => cdr.text(&format!("{} {:.2} #{track}", found.label(), found.score)),
        }
        cdr.f64(f64::from(12 * scale));
        rgba(&mut cdr, [0; 3], 1.0);
        rgba(&mut cdr, colour(found), 1.0);
    }
}
