//! Reading a recording, from its beginning to wherever it ends.

use super::cdr::Reader as Cdr;
use super::schemas;
use framebus_types::{Detection, FrameHeader, ResultHeader, text};
use mcap::sans_io::summary_reader::SummaryReaderOptions;
use mcap::sans_io::{LinearReaderOptions, SummaryReadEvent, SummaryReader};
use mcap::{McapError, Message, Summary};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

/// Longest record and chunk that is read: a frame of 16384x16384 pixels has half of it.
const RECORD_MAX: usize = 1 << 30;

/// What was recorded.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A frame; `image` is its `RawImage`.
    Frame { header: Box<FrameHeader>, image: Vec<u8> },
    /// A result.
    Result { header: Box<ResultHeader>, detections: Vec<Detection> },
}

/// Reads messages in the order in which they were written: a frame before its result.
pub(crate) struct Reader {
    messages: mcap::io::MessageReader<BufReader<File>>,
    /// A frame's header whose picture is the next message of its camera.
    headers: Vec<FrameHeader>,
    cut: Option<String>,
}

impl Reader {
    pub(crate) fn open(file: &Path) -> std::io::Result<Self> {
        let options = LinearReaderOptions::default()
            .with_prevalidate_chunk_crcs(true)
            .with_record_length_limit(RECORD_MAX);
        let file = BufReader::with_capacity(1 << 18, File::open(file)?);
        let messages = mcap::io::MessageReader::new_with_options(file, options);
        Ok(Self { messages, headers: Vec::new(), cut: None })
    }

    /// Why it ended before its end: its recorder was killed, or it is damaged. What came
    /// before is whole.
    pub(crate) fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    fn entry(&mut self, message: &Message<'_>) -> Option<Entry> {
        let schema = message.channel.schema.as_ref()?.name.as_str();
        if schema == schemas::FRAME.0 {
            let header: FrameHeader =
                pod(Cdr::new(&message.data)?.bytes(size_of::<FrameHeader>())?)?;
            self.headers.retain(|other| other.camera != header.camera);
            self.headers.push(header);
        } else if schema == schemas::RAW_IMAGE.0 {
            let camera = message.channel.metadata.get("camera")?;
            let of = |header: &FrameHeader| {
                text::unpack(&header.camera) == camera
                    && header.sequence as u32 == message.sequence
                    && header.wall_ns == message.log_time
            };
            let header = self.headers.iter().position(of)?;
            let header = Box::new(self.headers.swap_remove(header));
            return Some(Entry::Frame { header, image: message.data.to_vec() });
        } else if schema == schemas::RESULT.0 {
            let mut cdr = Cdr::new(&message.data)?;
            let header: ResultHeader = pod(cdr.bytes(size_of::<ResultHeader>())?)?;
            let (_padding, count) = (cdr.u32()?, cdr.u32()? as usize);
            let detections = cdr.bytes(count.checked_mul(size_of::<Detection>())?)?;
            let detections = detections.chunks_exact(size_of::<Detection>()).filter_map(pod);
            let detections = detections.collect();
            return Some(Entry::Result { header: Box::new(header), detections });
        }
        None
    }
}

fn pod<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}

impl Iterator for Reader {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            match self.messages.next()? {
                Ok(message) => {
                    if let Some(entry) = self.entry(&message) {
                        return Some(entry);
                    }
                }
                Err(error) => {
                    self.cut = Some(reason(&error));
                    return None;
                }
            }
        }
    }
}

fn reason(error: &McapError) -> String {
    match error {
        McapError::BadMagic => "it is no MCAP file".to_owned(),
        McapError::Io(error) => error.to_string(),
        McapError::UnsupportedCompression(name) => format!(
            "its chunks are compressed with {name}; framebus reads lz4 and uncompressed ones: \
             mcap compress --compression lz4"
        ),
        other => other.to_string(),
    }
}

/// What a recording holds, before it is read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Overview {
    /// Frames with pixels that can be replayed, by camera.
    pub(crate) frames: BTreeMap<String, u64>,
    /// Results of all cameras.
    pub(crate) results: u64,
    /// It has pictures that are not the pixels.
    pub(crate) has_jpeg: bool,
    /// Why it has no end, where it has none.
    pub(crate) cut: Option<String>,
}

impl Overview {
    /// By the file's summary; where it has none, by reading all of it.
    pub(crate) fn of(file: &Path) -> std::io::Result<Self> {
        match summary(file)? {
            Some(summary) => Ok(Self::of_summary(&summary)),
            None => Self::of_messages(file),
        }
    }

    fn of_summary(summary: &Summary) -> Self {
        let mut overview = Self::default();
        let counts = summary.stats.as_ref().map(|stats| &stats.channel_message_counts);
        for (id, channel) in &summary.channels {
            let Some(schema) = &channel.schema else { continue };
            let count = counts.and_then(|counts| counts.get(id)).copied().unwrap_or_default();
            let camera = channel.metadata.get("camera");
            match (schema.name.as_str(), camera) {
                (name, Some(camera)) if name == schemas::RAW_IMAGE.0 && count > 0 => {
                    *overview.frames.entry(camera.clone()).or_default() += count;
                }
                (name, Some(_)) if name == schemas::RESULT.0 => overview.results += count,
                (name, _) => overview.has_jpeg |= name == schemas::COMPRESSED_IMAGE.0,
            }
        }
        overview
    }

    fn of_messages(file: &Path) -> std::io::Result<Self> {
        let mut overview = Self::default();
        let mut reader = Reader::open(file)?;
        for entry in reader.by_ref() {
            match entry {
                Entry::Frame { header, .. } => {
                    let camera = text::unpack(&header.camera).to_owned();
                    *overview.frames.entry(camera).or_default() += 1;
                }
                Entry::Result { .. } => overview.results += 1,
            }
        }
        overview.has_jpeg = (0..u16::MAX)
            .map_while(|id| reader.messages.get_channel(id + 1))
            .filter_map(|channel| channel.schema.clone())
            .any(|schema| schema.name == schemas::COMPRESSED_IMAGE.0);
        overview.cut = reader.cut;
        Ok(overview)
    }
}

/// The summary at the end of the file; `None` where there is none that can be read.
fn summary(path: &Path) -> std::io::Result<Option<Summary>> {
    let mut file = File::open(path)?;
    let mut reader = SummaryReader::new_with_options(
        SummaryReaderOptions::default().with_file_size(file.metadata()?.len()),
    );
    while let Some(event) = reader.next_event() {
        match event {
            Ok(SummaryReadEvent::ReadRequest(bytes)) => {
                let read = file.read(reader.insert(bytes))?;
                reader.notify_read(read);
            }
            Ok(SummaryReadEvent::SeekRequest(to)) => match file.seek(to) {
                Ok(place) => reader.notify_seeked(place),
                // A file that is shorter than a footer.
                Err(_) => return Ok(None),
            },
            Err(_) => return Ok(None),
        }
    }
    Ok(reader.finish().filter(|summary| !summary.channels.is_empty()))
}
