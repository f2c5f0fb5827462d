//! Headers from shared memory: trusted only after this.
//!
//! Another process wrote them, which may be of another version, broken or hostile. These
//! functions read nothing but their arguments; subscribers call them on a copy.

use crate::services::{PACKET_MAX, PACKET_PART};
use crate::{BadHeader, BusError};
use framebus_types::{
    Codec, Detection, Direction, Event, EventKind, Fourcc, FrameHeader, Health, MAX_PLANES,
    Outcome, PacketHeader, Reason, ResultHeader, Role, State, VERSION, text,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Samples that one look passes over. A publisher that sends nothing but garbage, and
/// faster than it is read, must not keep a reader from its other work.
pub(crate) const SKIPS_MAX: usize = 64;

/// Counts the samples that were skipped because their headers lie.
#[derive(Debug, Default)]
pub(crate) struct BadHeaders {
    count: AtomicU64,
    /// One was understood.
    understood: AtomicBool,
}

impl BadHeaders {
    /// Counts one; logged ever more rarely, so that a flood does not fill the disk.
    pub(crate) fn count(&self, service: &str, error: &BadHeader) {
        let so_far = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_power_of_two() {
            tracing::warn!(service, %error, so_far, "sample skipped");
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// A header was understood.
    pub(crate) fn understood(&self) {
        self.understood.store(true, Ordering::Relaxed);
    }
}

/// Takes note of a header that is not trusted. Observers, who come from outside with
/// whatever version they were built with, are told that it is another one: to them
/// silence would look like an instance that sends nothing. Once they have understood
/// somebody, another version is somebody else's lie, and no reason to end.
///
/// # Errors
/// [`BusError::Version`], for an observer.
pub(crate) fn reject(
    counter: &BadHeaders,
    service: &str,
    observer: bool,
    error: &BadHeader,
) -> Result<(), BusError> {
    match *error {
        BadHeader::Version { found, expected }
            if observer && !counter.understood.load(Ordering::Relaxed) =>
        {
            Err(BusError::Version { service: service.to_owned(), found, expected })
        }
        _ => {
            counter.count(service, error);
            Ok(())
        }
    }
}

/// Bytes of a row and number of rows.
fn plane_size(fourcc: Fourcc, header: &FrameHeader, plane: usize) -> Option<(usize, usize)> {
    let (width, height) = (header.width as usize, header.height as usize);
    match (fourcc, plane) {
        (Fourcc::Nv12, 0) => Some((width, height)),
        (Fourcc::Nv12, 1) => Some((2 * width.div_ceil(2), height.div_ceil(2))),
        (Fourcc::Rgb24, 0) => Some((3 * width, height)),
        _ => None,
    }
}

/// Where plane `plane` lies in the payload, and its stride; `None` for one that the format
/// does not have. Only for a header that [`check_frame`] has passed.
#[must_use]
pub fn plane(fourcc: Fourcc, header: &FrameHeader, plane: usize) -> Option<(Range<usize>, usize)> {
    let (row, rows) = plane_size(fourcc, header, plane)?;
    let stride = header.strides[plane] as usize;
    let start = header.offsets[plane] as usize;
    Some((start..start + stride * (rows - 1) + row, stride))
}

/// Whether the result that the header describes lies inside a payload of `len` bytes.
///
/// # Errors
/// What does not hold.
pub fn check_result(header: &ResultHeader, len: usize) -> Result<(Outcome, Reason), BadHeader> {
    if header.version != VERSION {
        return Err(BadHeader::Version { found: header.version, expected: VERSION });
    }
    let need = u64::from(header.count) * size_of::<Detection>() as u64 + u64::from(header.extra);
    if need > len as u64 {
        return Err(BadHeader::Count { count: header.count, extra: header.extra, len });
    }
    Ok((Outcome::try_from(header.outcome)?, Reason::try_from(header.reason)?))
}

/// Whether an event can be understood.
///
/// # Errors
/// What does not hold.
pub fn check_event(event: &Event) -> Result<(), BadHeader> {
    if event.version != VERSION {
        return Err(BadHeader::Version { found: event.version, expected: VERSION });
    }
    EventKind::try_from(event.kind)?;
    Direction::try_from(event.direction)?;
    Ok(())
}

/// Whether a payload of `len` bytes is the part of a packet that the header describes, and
/// the packet is of `camera`. Parts are full but for the last; a key frame has its
/// configuration in front.
///
/// # Errors
/// What does not hold.
pub fn check_packet(header: &PacketHeader, len: usize, camera: &str) -> Result<Codec, BadHeader> {
    if header.version != VERSION {
        return Err(BadHeader::Version { found: header.version, expected: VERSION });
    }
    let found = text::unpack(&header.camera);
    if found != camera {
        return Err(BadHeader::Camera { found: found.to_owned(), expected: camera.to_owned() });
    }
    let codec = Codec::try_from(header.codec)?;
    let PacketHeader { part_offset: offset, total_len: total, config_len: config, .. } = *header;
    let left = (total as usize).saturating_sub(offset as usize);
    let honest = total as usize <= PACKET_MAX
        && (offset as usize).is_multiple_of(PACKET_PART)
        && left > 0
        && len == left.min(PACKET_PART)
        && config < total
        && (config > 0) == header.is_key();
    if !honest {
        return Err(BadHeader::Packet { offset, total, config, len });
    }
    Ok(codec)
}

/// Whether a health record can be understood.
#[must_use]
pub fn check_health(record: &Health) -> bool {
    record.version == VERSION
        && Role::try_from(record.role).is_ok()
        && State::try_from(record.state).is_ok()
}

/// Whether every plane that the header describes lies inside a payload of `len`
/// bytes, and the frame is of `camera`.
///
/// # Errors
/// What does not hold.
pub fn check_frame(header: &FrameHeader, len: usize, camera: &str) -> Result<Fourcc, BadHeader> {
    if header.version != VERSION {
        return Err(BadHeader::Version { found: header.version, expected: VERSION });
    }
    let found = text::unpack(&header.camera);
    if found != camera {
        return Err(BadHeader::Camera { found: found.to_owned(), expected: camera.to_owned() });
    }
    let fourcc = Fourcc::try_from(header.fourcc)?;
    let (width, height) = (header.width, header.height);
    for plane in 0..MAX_PLANES {
        let Some((row, rows)) = plane_size(fourcc, header, plane) else {
            continue;
        };
        let stride = header.strides[plane];
        if row == 0 || rows == 0 || (stride as usize) < row {
            return Err(BadHeader::Stride { plane, width, height, stride });
        }
        let end =
            u64::from(header.offsets[plane]) + u64::from(stride) * (rows as u64 - 1) + row as u64;
        if end > len as u64 {
            return Err(BadHeader::Plane { plane, width, height, end, len });
        }
    }
    Ok(fourcc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nv12(width: u32, height: u32) -> (FrameHeader, usize) {
        let header = FrameHeader {
            camera: text::pack("a"),
            width,
            height,
            fourcc: Fourcc::Nv12.into(),
            strides: [width, width, 0, 0],
            offsets: [0, width * height, 0, 0],
            ..FrameHeader::default()
        };
        (header, (width * height * 3 / 2) as usize)
    }

    #[test]
    fn results_that_announce_more_than_there_is_are_found() {
        let header = |count, extra| ResultHeader {
            outcome: Outcome::Ok.into(),
            count,
            extra,
            ..ResultHeader::default()
        };
        let one = size_of::<Detection>();
        assert_eq!(check_result(&header(1, 4), one + 4), Ok((Outcome::Ok, Reason::None)));
        for (count, extra) in [(2, 0), (1, 5), (u32::MAX, u32::MAX)] {
            let error = check_result(&header(count, extra), one + 4).expect_err("too much");
            assert!(matches!(error, BadHeader::Count { .. }), "{error}");
        }
    }

    #[test]
    fn parts_of_packets_are_whole_and_inside() {
        let good = PacketHeader {
            camera: text::pack("a"),
            codec: Codec::H264.into(),
            flags: framebus_types::PACKET_KEY,
            config_len: 40,
            total_len: PACKET_PART as u32 + 7,
            part_offset: PACKET_PART as u32,
            ..PacketHeader::default()
        };
        assert_eq!(check_packet(&good, 7, "a"), Ok(Codec::H264));
        let first = PacketHeader { part_offset: 0, ..good };
        assert_eq!(check_packet(&first, PACKET_PART, "a"), Ok(Codec::H264));
        type Lie = (fn(&mut PacketHeader), usize);
        let lies: [Lie; 10] = [
            (|h| h.version = 2, 7),
            (|h| h.camera = text::pack("b"), 7),
            (|h| h.codec = 9, 7),
            (|_| {}, 6),
            (|_| {}, 8),
            (|h| h.part_offset = 1, 7),
            (|h| h.part_offset = 2 * PACKET_PART as u32, 7),
            (|h| h.total_len = u32::MAX, PACKET_PART),
            (|h| h.config_len = h.total_len, 7),
            (|h| h.flags = 0, 7),
        ];
        for (number, (lie, len)) in lies.into_iter().enumerate() {
            let mut header = good;
            lie(&mut header);
            check_packet(&header, len, "a").expect_err(&number.to_string());
        }
    }

    #[test]
    fn honest_headers_pass() {
        let (header, len) = nv12(64, 32);
        assert_eq!(check_frame(&header, len, "a"), Ok(Fourcc::Nv12));
    }

    #[test]
    fn lies_are_found() {
        let (good, len) = nv12(64, 32);
        type Lie = fn(&mut FrameHeader);
        let lies: [(&str, Lie); 10] = [
            ("header version 9, this program reads version 1", |h| h.version = 9),
            ("camera name \"b\" where \"a\" was expected", |h| h.camera = text::pack("b")),
            ("unknown pixel format code 1", |h| h.fourcc = 1),
            ("0x32 frame with a stride of 64 bytes in plane 0", |h| h.width = 0),
            ("64x0 frame with a stride of 64 bytes in plane 0", |h| h.height = 0),
            ("64x32 frame with a stride of 63 bytes in plane 0", |h| h.strides[0] = 63),
            ("64x32 frame with a stride of 0 bytes in plane 1", |h| h.strides[1] = 0),
            ("plane 1 of a 64x34 frame ends at byte 3136, the payload has 3072", |h| h.height = 34),
            ("plane 1 of a 64x32 frame ends at byte 4294968319, the payload has 3072", |h| {
                h.offsets[1] = u32::MAX
            }),
            (
                "plane 0 of a 64x4294967295 frame ends at byte 18446744060824649794, the payload has 3072",
                |h| {
                    h.height = u32::MAX;
                    h.strides[0] = u32::MAX;
                },
            ),
        ];
        for (message, lie) in lies {
            let mut header = good;
            lie(&mut header);
            let error = check_frame(&header, len, "a").expect_err(message);
            assert_eq!(error.to_string(), message);
        }
    }
}
