//! From the decoder's pixels to NV12: what is asked of GStreamer's converter, and the
//! cases that need none.
//!
//! Software decoders deliver I420. GStreamer 1.22 turns that into NV12 by way of a packed
//! intermediate format, row by row, at 1.3 ms a 1080p frame; copying the luma and
//! interleaving the chroma is all there is to it, and takes a quarter of that.

use crate::layout::{Layout, SD_HEIGHT, scaled};
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};

/// Writes frames of one format into samples: same size, same colours, 8-bit 4:2:0.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    /// What comes.
    pub(crate) input: VideoInfo,
    /// What is published.
    pub(crate) layout: Layout,
    /// It is NV12 already: a mere copy.
    pub(crate) same: bool,
}

impl Writer {
    /// For the converter's frames.
    pub(crate) fn nv12(caps: &gst::CapsRef) -> Option<Self> {
        let input = VideoInfo::from_caps(caps).ok()?;
        let layout = Layout::nv12(&input, caps)?;
        Some(Self { input, layout, same: true })
    }

    /// For a source's frames; `None` where they need a converter.
    pub(crate) fn direct(input: &gst::CapsRef, max_width: Option<u32>) -> Option<Self> {
        let memory = input.features(0)?;
        if memory.is_any() || !(memory.is_empty() || memory.contains("memory:SystemMemory")) {
            return None;
        }
        let info = VideoInfo::from_caps(input).ok()?;
        let same = match info.format() {
            VideoFormat::I420 => false,
            VideoFormat::Nv12 => true,
            _ => return None,
        };
        let mut caps = output_caps(input, max_width)?;
        // The converter hands the chroma site on.
        if let Ok(site) = input.structure(0)?.get::<&str>("chroma-site") {
            caps.make_mut().set("chroma-site", site);
        }
        let output = VideoInfo::from_caps(&caps).ok()?;
        let layout = Layout::nv12(&output, &caps)?;
        let as_large = (layout.width, layout.height) == (info.width(), info.height());
        as_large.then_some(Self { input: info, layout, same })
    }

    /// Writes a frame; `None` when its planes are not where its format says.
    pub(crate) fn write(
        &self,
        frame: &VideoFrameRef<&gst::BufferRef>,
        payload: &mut [u8],
    ) -> Option<()> {
        copy_plane(frame, 0, &self.layout, payload)?;
        if self.same {
            copy_plane(frame, 1, &self.layout, payload)
        } else {
            interleave(frame, &self.layout, payload)
        }
    }
}

/// Caps behind the converter: NV12 in the stream's own size (or smaller),
/// pixel aspect and colorimetry, so that nothing is converted but the format.
pub(crate) fn output_caps(input: &gst::CapsRef, max_width: Option<u32>) -> Option<gst::Caps> {
    let info = VideoInfo::from_caps(input).ok()?;
    let (width, height) = scaled(info.width(), info.height(), max_width);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "NV12")
        .field("width", i32::try_from(width).ok()?)
        .field("height", i32::try_from(height).ok()?)
        .field("pixel-aspect-ratio", info.par());
    // Without a colorimetry in the caps GStreamer takes it from the height; a
    // frame made smaller must not change sides. Where both sides are the same
    // it stays unsaid: with one, GStreamer 1.22 reads the chroma site too, and
    // would convert between what it read and what it did not.
    let crosses = info.height() > SD_HEIGHT && height <= SD_HEIGHT;
    let colorimetry = match input.structure(0)?.get::<&str>("colorimetry") {
        Ok(stated) => Some(stated.to_owned()),
        Err(_) if crosses => Some(info.colorimetry().to_string()),
        Err(_) => None,
    };
    Some(match colorimetry.filter(|text| info.is_yuv() && !text.is_empty()) {
        Some(colorimetry) => caps.field("colorimetry", colorimetry).build(),
        None => caps.build(),
    })
}

/// Copies row by row: the source's strides may differ from the layout's.
fn copy_plane(
    frame: &VideoFrameRef<&gst::BufferRef>,
    plane: usize,
    layout: &Layout,
    payload: &mut [u8],
) -> Option<()> {
    let (width, height) = (layout.width as usize, layout.height as usize);
    let (row_bytes, rows) = match plane {
        0 => (width, height),
        _ => (2 * width.div_ceil(2), height.div_ceil(2)),
    };
    let (from, from_stride) = source(frame, plane)?;
    let to = payload.get_mut(layout.offsets[plane] as usize..)?;
    let to_stride = layout.strides[plane] as usize;
    for row in 0..rows {
        let source = from.get(row * from_stride..)?.get(..row_bytes)?;
        to.get_mut(row * to_stride..)?.get_mut(..row_bytes)?.copy_from_slice(source);
    }
    Some(())
}

/// Planes U and V of an I420 frame into the second plane of an NV12 layout.
fn interleave(
    frame: &VideoFrameRef<&gst::BufferRef>,
    layout: &Layout,
    payload: &mut [u8],
) -> Option<()> {
    let (pairs, rows) = (layout.width.div_ceil(2) as usize, layout.height.div_ceil(2) as usize);
    let ((u, u_stride), (v, v_stride)) = (source(frame, 1)?, source(frame, 2)?);
    let to = payload.get_mut(layout.offsets[1] as usize..)?;
    let to_stride = layout.strides[1] as usize;
    for row in 0..rows {
        let u = u.get(row * u_stride..)?.get(..pairs)?;
        let v = v.get(row * v_stride..)?.get(..pairs)?;
        let to = to.get_mut(row * to_stride..)?.get_mut(..2 * pairs)?;
        for ((to, u), v) in to.chunks_exact_mut(2).zip(u).zip(v) {
            to[0] = *u;
            to[1] = *v;
        }
    }
    Some(())
}

fn source<'a>(
    frame: &'a VideoFrameRef<&gst::BufferRef>,
    plane: usize,
) -> Option<(&'a [u8], usize)> {
    let stride = usize::try_from(*frame.plane_stride().get(plane)?).ok()?;
    Some((frame.plane_data(plane as u32).ok()?, stride))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(input: &str, max_width: Option<u32>) -> String {
        gst::init().expect("GStreamer");
        let caps: gst::Caps = input.parse().expect("caps");
        let output = output_caps(&caps, max_width).expect("video");
        let info = output.structure(0).expect("one structure");
        format!(
            "{}x{} {:?} {}",
            info.get::<i32>("width").expect("width"),
            info.get::<i32>("height").expect("height"),
            info.get::<gst::Fraction>("pixel-aspect-ratio").expect("par").0,
            info.get::<&str>("colorimetry").unwrap_or("-"),
        )
    }

    #[test]
    fn only_the_format_is_converted() {
        let i420 = "video/x-raw,format=I420,width=1920,height=1080";
        assert!(output(i420, None).starts_with("1920x1080"), "{}", output(i420, None));
        assert!(output(i420, None).ends_with(" -"), "{}", output(i420, None));
        // The colours of an HD stream stay so when it is made small.
        assert!(output(i420, Some(640)).ends_with(" bt709"), "{}", output(i420, Some(640)));
        let stated = format!("{i420},colorimetry=1:4:0:0");
        assert!(output(&stated, Some(640)).ends_with(" 1:4:0:0"), "{}", output(&stated, None));
        let rgb = "video/x-raw,format=RGB,width=1920,height=1080";
        assert!(output(rgb, None).ends_with(" -"), "{}", output(rgb, None));
    }
}
