//! Pictures as messages.

use super::cdr::{Reader, Writer};
use crate::annotate;
use framebus_bus::FrameSample;
use framebus_types::{Fourcc, FrameHeader};
use framebus_vision::Planes;

/// Quality of recorded JPEG pictures, 1 to 100.
const JPEG_QUALITY: u8 = 85;

/// A `foxglove_msgs/msg/RawImage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image<'a> {
    pub(crate) fourcc: Fourcc,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Bytes from one row to the next, in every plane.
    pub(crate) step: u32,
    /// The planes, one behind the other.
    pub(crate) data: &'a [u8],
}

fn encoding(fourcc: Fourcc) -> &'static str {
    match fourcc {
        Fourcc::Nv12 => "nv12",
        Fourcc::Rgb24 => "rgb8",
    }
}

/// Bytes of a row and rows of each plane. Foxglove wants NV12 of even sides; those of odd
/// ones have a row of chroma more, for replay alone.
fn planes(fourcc: Fourcc, width: u32, height: u32) -> (usize, [usize; 2]) {
    let (width, height) = (width as usize, height as usize);
    match fourcc {
        Fourcc::Nv12 => (width.next_multiple_of(2), [height, height.div_ceil(2)]),
        Fourcc::Rgb24 => (3 * width, [height, 0]),
    }
}

/// Writes a frame as a `RawImage` into `message`: the one copy of its pixels. Rows are
/// closed up where they had room between them.
pub(crate) fn raw(frame: &FrameSample, message: &mut Vec<u8>) {
    let header = frame.header();
    let (step, rows) = planes(frame.fourcc(), header.width, header.height);
    let length = step * (rows[0] + rows[1]);
    message.reserve(length + 128);
    let mut cdr = Writer::new(message);
    cdr.time(header.wall_ns);
    cdr.text(frame.camera());
    cdr.u32(header.width);
    cdr.u32(header.height);
    cdr.text(encoding(frame.fourcc()));
    cdr.u32(step as u32);
    cdr.count(length);
    for (plane, rows) in rows.into_iter().enumerate().filter(|(_, rows)| *rows > 0) {
        let (pixels, stride) = frame.plane(plane);
        if stride == step && pixels.len() == step * rows {
            cdr.bytes(pixels);
            continue;
        }
        // A row of odd width has a byte less than the step.
        for row in pixels.chunks(stride).take(rows) {
            let row = &row[..step.min(row.len())];
            cdr.bytes(row);
            cdr.bytes(&[0; 2][..step - row.len()]);
        }
    }
}

impl<'a> Image<'a> {
    /// Reads a `RawImage` that [`raw`] wrote; `None` for anything else.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let mut cdr = Reader::new(message)?;
        let _time = (cdr.u32()?, cdr.u32()?);
        let _frame_id = cdr.text()?;
        let (width, height) = (cdr.u32()?, cdr.u32()?);
        let fourcc = match cdr.text()? {
            "nv12" => Fourcc::Nv12,
            "rgb8" => Fourcc::Rgb24,
            _ => return None,
        };
        let step = cdr.u32()?;
        let length = cdr.u32()? as usize;
        let data = cdr.bytes(length)?;
        Some(Self { fourcc, width, height, step, data })
    }

    /// The frame's header with the layout that the pixels have here; `None` when the two do
    /// not belong together.
    pub(crate) fn layout(&self, header: &FrameHeader) -> Option<FrameHeader> {
        let same = (header.width, header.height, header.fourcc)
            == (self.width, self.height, u32::from(self.fourcc));
        let (strides, chroma) = match self.fourcc {
            Fourcc::Nv12 => ([self.step, self.step, 0, 0], self.step.checked_mul(self.height)?),
            Fourcc::Rgb24 => ([self.step, 0, 0, 0], 0),
        };
        same.then_some(FrameHeader { strides, offsets: [0, chroma, 0, 0], ..*header })
    }

    /// The picture as JPEG, into `message` as a `CompressedImage`.
    pub(super) fn compress(
        &self,
        header: &FrameHeader,
        camera: &str,
        message: &mut Vec<u8>,
    ) -> Result<(), String> {
        let step = self.step as usize;
        let planes = match self.fourcc {
            Fourcc::Nv12 => {
                let split = step * self.height as usize;
                let (y, uv) = self.data.split_at_checked(split).ok_or("it is cut off")?;
                Planes::Nv12 { y, y_stride: step, uv, uv_stride: step }
            }
            Fourcc::Rgb24 => Planes::Rgb24 { data: self.data, stride: step },
        };
        let picture = annotate::rgb_of(header, planes)?;
        let jpeg = annotate::jpeg(&picture, JPEG_QUALITY).map_err(|error| error.to_string())?;
        let mut cdr = Writer::new(message);
        cdr.time(header.wall_ns);
        cdr.text(camera);
        cdr.count(jpeg.len());
        cdr.bytes(&jpeg);
        cdr.text("jpeg");
        Ok(())
    }
}
