//! Frames on their way to the device: in place, by DMA from registered memory, or
//! through a pinned buffer.

#![allow(unsafe_code)]

use crate::context::Context;
use crate::entry::{FrameEntry, NV12, RGB24};
use crate::error::CudaError;
use crate::memory::{DeviceBuffer, Pinned};
use crate::segments::Located;
use crate::stream::{Rows, Stream};
use framebus_vision::{FrameView, Planes as Pixels};
use std::ops::Range;
use std::sync::Arc;

/// Smallest buffer of a frame: below it, growing costs more than memory.
const ROOM_MIN: usize = 1 << 20;

/// Room that one frame may take: 16384x16384 of RGB24 and then some.
const ROOM_MAX: usize = 1 << 30;

/// Where the second plane starts, and rows that were moved apart from their source.
const ALIGNMENT: usize = 256;

/// Room for one frame of a batch, on both sides; grows to the largest one so far.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pixels: Option<DeviceBuffer>,
    staging: Option<Pinned>,
}

/// One plane, its slice cut to the bytes that belong to the picture.
#[derive(Debug, Clone, Copy)]
struct Plane<'a> {
    bytes: &'a [u8],
    stride: usize,
    row_bytes: usize,
    rows: usize,
}

/// The planes of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes<'a> {
    first: Plane<'a>,
    second: Option<Plane<'a>>,
}

/// Where the planes lie in a slot's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    pitch: usize,
    second_at: usize,
    second_pitch: usize,
    bytes: usize,
    /// At the same distances as at the source, so that one copy takes both.
    joined: bool,
}

impl<'a> Plane<'a> {
    fn new(bytes: &'a [u8], stride: usize, row_bytes: usize, rows: usize) -> Self {
        // `FrameView` has checked that the slice is as long.
        let bytes = &bytes[..bytes.len().min(stride * (rows - 1) + row_bytes)];
        Self { bytes, stride, row_bytes, rows }
    }

    fn addresses(&self) -> Range<usize> {
        let start = self.bytes.as_ptr().addr();
        start..start + self.bytes.len()
    }

    /// Rows little farther apart than they are long are copied in one piece, gaps
    /// included; a part of a wider picture is copied row by row.
    fn pitch(&self) -> usize {
        if self.stride - self.row_bytes <= self.row_bytes / 8 {
            self.stride
        } else {
            self.row_bytes.next_multiple_of(ALIGNMENT)
        }
    }

    fn len_at(&self, pitch: usize) -> usize {
        pitch * (self.rows - 1) + self.row_bytes
    }
}

pub(super) fn planes<'a>(view: &FrameView<'a>) -> Planes<'a> {
    let (width, height) = (view.width(), view.height());
    match view.planes() {
        Pixels::Nv12 { y, y_stride, uv, uv_stride } => Planes {
            first: Plane::new(y, y_stride, width, height),
            second: Some(Plane::new(uv, uv_stride, 2 * width.div_ceil(2), height.div_ceil(2))),
        },
        Pixels::Rgb24 { data, stride } => {
            Planes { first: Plane::new(data, stride, 3 * width, height), second: None }
        }
    }
}

impl<'a> Planes<'a> {
    /// Addresses from the first byte of all to the last, and the plane at the start.
    pub(super) fn span(&self) -> (Range<usize>, &'a [u8]) {
        let one = self.first.addresses();
        let Some(second) = self.second else { return (one, self.first.bytes) };
        let two = second.addresses();
        let first = if one.start <= two.start { self.first.bytes } else { second.bytes };
        (one.start.min(two.start)..one.end.max(two.end), first)
    }

    /// Bytes of a plane from the start of the span.
    fn offset(&self, plane: &Plane<'_>) -> usize {
        plane.addresses().start - self.span().0.start
    }

    fn layout(&self) -> Layout {
        let pitch = self.first.pitch();
        let len = self.first.len_at(pitch);
        let Some(second) = self.second else {
            return Layout { pitch, second_at: 0, second_pitch: 0, bytes: len, joined: false };
        };
        let second_pitch = second.pitch();
        let unmoved = pitch == self.first.stride && second_pitch == second.stride;
        // What lies between, as the padding of the last row: two rows at most.
        let apart = second.addresses().start.checked_sub(self.first.addresses().start);
        let near = apart.filter(|&apart| unmoved && (len..=len + 2 * pitch).contains(&apart));
        let second_at = near.unwrap_or_else(|| len.next_multiple_of(ALIGNMENT));
        let bytes = second_at + second.len_at(second_pitch);
        Layout { pitch, second_at, second_pitch, bytes, joined: near.is_some() }
    }

    /// Says where the planes are.
    fn tell(&self, entry: &mut FrameEntry, first: u64, second: u64, [one, two]: [usize; 2]) {
        entry.format = if self.second.is_some() { NV12 } else { RGB24 };
        entry.y = first;
        // Strides were checked to fit.
        entry.y_stride = one as u32;
        if self.second.is_some() {
            (entry.uv, entry.uv_stride) = (second, two as u32);
        }
    }

    /// Lets kernels read the frame where it lies; false if they cannot.
    pub(super) fn in_place(&self, at: &Located, entry: &mut FrameEntry) -> bool {
        let place = |plane: &Plane<'_>| at.memory.device(at.offset + self.offset(plane));
        let second = self.second.as_ref();
        let (Some(first), Some(second_at)) = (place(&self.first), second.map_or(Some(0), place))
        else {
            return false;
        };
        let second_stride = second.map_or(0, |plane| plane.stride);
        self.tell(entry, first, second_at, [self.first.stride, second_stride]);
        true
    }
}

impl Slot {
    /// Enqueues the copy of a frame that lies in registered memory. That memory, this
    /// slot and the frame stay as they are until the stream has passed.
    pub(super) fn copy_from(
        &mut self,
        context: &Arc<Context>,
        copy: &Stream,
        planes: &Planes<'_>,
        at: &Located,
        entry: &mut FrameEntry,
    ) -> Result<(), CudaError> {
        let layout = planes.layout();
        let to = self.pixels(context, layout.bytes)?;
        planes.tell(entry, to, to + layout.second_at as u64, [layout.pitch, layout.second_pitch]);
        let from = |plane: &Plane<'_>| at.memory.host(at.offset + planes.offset(plane));
        if layout.joined {
            // SAFETY: source and destination hold both planes, as `layout` counted
            // them and `locate` found them; the run waits for the stream while it
            // holds both.
            return unsafe { copy.copy_to_device(to, from(&planes.first), layout.bytes) };
        }
        let second = planes
            .second
            .as_ref()
            .map(|plane| (plane, to + layout.second_at as u64, layout.second_pitch));
        for (plane, to, pitch) in [(&planes.first, to, layout.pitch)].into_iter().chain(second) {
            if pitch == plane.stride {
                // SAFETY: as above, for one plane.
                unsafe { copy.copy_to_device(to, from(plane), plane.bytes.len()) }?;
                continue;
            }
            let rows = Rows {
                bytes: plane.row_bytes,
                count: plane.rows,
                from_pitch: plane.stride,
                to_pitch: pitch,
            };
            // SAFETY: as above, row by row.
            unsafe { copy.copy_rows_to_device(to, from(plane), rows) }?;
        }
        Ok(())
    }

    /// Copies a frame to pinned memory and enqueues the copy from there. The slot stays
    /// as it is until the stream has passed.
    pub(super) fn stage(
        &mut self,
        context: &Arc<Context>,
        copy: &Stream,
        planes: &Planes<'_>,
        entry: &mut FrameEntry,
    ) -> Result<(), CudaError> {
        let layout = planes.layout();
        let to = self.pixels(context, layout.bytes)?;
        planes.tell(entry, to, to + layout.second_at as u64, [layout.pitch, layout.second_pitch]);
        if self.staging.as_ref().is_none_or(|staging| staging.bytes() < layout.bytes) {
            self.staging = None;
        }
        let staging = match &mut self.staging {
            Some(staging) => staging,
            none => none.insert(Pinned::new(context, room(layout.bytes)?)?),
        };
        let (first, second) = staging.values_mut::<u8>().split_at_mut(if layout.second_at == 0 {
            layout.bytes
        } else {
            layout.second_at
        });
        copy_plane(first, layout.pitch, &planes.first);
        if let Some(plane) = &planes.second {
            copy_plane(second, layout.second_pitch, plane);
        }
        // SAFETY: both buffers hold `bytes`; the run waits for the stream before it
        // touches the slot again.
        unsafe { copy.copy_to_device(to, staging.as_ptr(), layout.bytes) }
    }

    /// Device memory for `bytes`; what it held is no longer needed.
    fn pixels(&mut self, context: &Arc<Context>, bytes: usize) -> Result<u64, CudaError> {
        if self.pixels.as_ref().is_none_or(|pixels| pixels.bytes() < bytes) {
            // First free, then allocate: both at once may not fit.
            self.pixels = None;
            self.pixels = Some(DeviceBuffer::new(context, room(bytes)?)?);
        }
        Ok(self.pixels.as_ref().map_or(0, DeviceBuffer::address))
    }
}

/// Sizes of buffers: powers of two, so that a few growths reach any size.
fn room(bytes: usize) -> Result<usize, CudaError> {
    if bytes > ROOM_MAX {
        let reason = format!("a frame of {bytes} bytes; {ROOM_MAX} at most");
        return Err(CudaError::Spec { reason });
    }
    Ok(bytes.next_power_of_two().max(ROOM_MIN))
}

fn copy_plane(to: &mut [u8], pitch: usize, plane: &Plane<'_>) {
    if pitch == plane.stride {
        to[..plane.bytes.len()].copy_from_slice(plane.bytes);
        return;
    }
    for (to, from) in to.chunks_mut(pitch).zip(plane.bytes.chunks(plane.stride)) {
        to[..plane.row_bytes].copy_from_slice(&from[..plane.row_bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use framebus_vision::{Colour, FrameView};

    fn view(bytes: &[u8], [width, height]: [usize; 2], stride: usize, uv: usize) -> FrameView<'_> {
        let planes =
            Pixels::Nv12 { y: bytes, y_stride: stride, uv: &bytes[uv..], uv_stride: stride };
        FrameView::new(width, height, planes, Colour::default()).unwrap()
    }

    #[test]
    fn a_whole_picture_is_one_copy() {
        let bytes = vec![0; 64 * 54];
        let planes = planes(&view(&bytes, [60, 36], 64, 64 * 36));
        let layout = planes.layout();
        assert!(layout.joined);
        assert_eq!((layout.pitch, layout.second_at, layout.second_pitch), (64, 64 * 36, 64));
        assert_eq!(layout.bytes, 64 * 36 + 64 * 17 + 60);
        assert_eq!(planes.span().0.len(), layout.bytes);
    }

    #[test]
    fn a_part_of_a_picture_is_copied_row_by_row() {
        let bytes = vec![0; 64 * 54];
        let layout = planes(&view(&bytes, [16, 10], 64, 64 * 36)).layout();
        assert!(!layout.joined);
        assert_eq!((layout.pitch, layout.second_pitch), (256, 256));
        assert_eq!(layout.second_at, (9 * 256 + 16_usize).next_multiple_of(256));
        assert_eq!(layout.bytes, layout.second_at + 4 * 256 + 16);
    }

    #[test]
    fn room_grows_in_powers_of_two_to_a_bound() {
        assert_eq!(room(1).unwrap(), ROOM_MIN);
        assert_eq!(room(ROOM_MIN + 1).unwrap(), 2 * ROOM_MIN);
        assert_eq!(room(ROOM_MAX).unwrap(), ROOM_MAX);
        assert!(room(ROOM_MAX + 1).is_err());
    }
}
