//! How a frame lies in its sample, and how its colours are to be read.

use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Fourcc, FrameHeader, MAX_PLANES};
use gst_video::{VideoChromaSite, VideoColorMatrix, VideoColorRange, VideoFormat, VideoInfo};

/// Up to this height video without a colorimetry counts as BT.601, above as
/// BT.709: GStreamer's rule.
pub(crate) const SD_HEIGHT: u32 = 576;

/// Size, planes and colour of frames; the part of a header that changes only
/// with the stream's caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) fourcc: Fourcc,
    pub(crate) matrix: ColourMatrix,
    pub(crate) range: ColourRange,
    pub(crate) chroma_site: ChromaSite,
    pub(crate) strides: [u32; MAX_PLANES],
    pub(crate) offsets: [u32; MAX_PLANES],
    /// Bytes of the payload.
    pub(crate) bytes: usize,
}

impl Layout {
    /// Layout of GStreamer's own NV12 buffers; `None` for another format or a
    /// frame beyond 4 GiB.
    pub(crate) fn nv12(info: &VideoInfo, caps: &gst::CapsRef) -> Option<Self> {
        if info.format() != VideoFormat::Nv12 || info.n_planes() != 2 {
            return None;
        }
        let mut strides = [0; MAX_PLANES];
        let mut offsets = [0; MAX_PLANES];
        for plane in 0..2 {
            strides[plane] = u32::try_from(*info.stride().get(plane)?).ok()?;
            offsets[plane] = u32::try_from(*info.offset().get(plane)?).ok()?;
        }
        Some(Self {
            width: info.width(),
            height: info.height(),
            fourcc: Fourcc::Nv12,
            matrix: matrix(info),
            range: match info.colorimetry().range() {
                VideoColorRange::Range0_255 => ColourRange::Full,
                _ => ColourRange::Limited,
            },
            chroma_site: chroma_site(info, caps),
            strides,
            offsets,
            bytes: info.size(),
        })
    }

    /// Tightly packed RGB; `None` for a frame beyond 4 GiB.
    pub(crate) fn rgb24(width: u32, height: u32) -> Option<Self> {
        let stride = width.checked_mul(3)?;
        let bytes = usize::try_from(stride.checked_mul(height)?).ok()?;
        Some(Self {
            width,
            height,
            fourcc: Fourcc::Rgb24,
            // Not used for RGB; what a JPEG has.
            matrix: ColourMatrix::Bt601,
            range: ColourRange::Full,
            chroma_site: ChromaSite::Center,
            strides: [stride, 0, 0, 0],
            offsets: [0; MAX_PLANES],
            bytes,
        })
    }

    pub(crate) fn write(&self, header: &mut FrameHeader) {
        header.width = self.width;
        header.height = self.height;
        header.fourcc = self.fourcc.into();
        header.matrix = self.matrix.into();
        header.range = self.range.into();
        header.chroma_site = self.chroma_site.into();
        header.strides = self.strides;
        header.offsets = self.offsets;
    }
}

/// Caps that say nothing have been filled in by GStreamer already; what remains
/// (FCC, SMPTE 240M, unknown) follows its rule of height.
fn matrix(info: &VideoInfo) -> ColourMatrix {
    match info.colorimetry().matrix() {
        VideoColorMatrix::Bt601 => ColourMatrix::Bt601,
        VideoColorMatrix::Bt709 => ColourMatrix::Bt709,
        VideoColorMatrix::Bt2020 => ColourMatrix::Bt2020,
        _ if info.height() > SD_HEIGHT => ColourMatrix::Bt709,
        _ => ColourMatrix::Bt601,
    }
}

/// Read from the caps themselves: without a colorimetry beside it, GStreamer
/// 1.22 puts its default in the place of what they say.
fn chroma_site(info: &VideoInfo, caps: &gst::CapsRef) -> ChromaSite {
    let stated = caps.structure(0).and_then(|s| s.get::<&str>("chroma-site").ok());
    match stated {
        Some("mpeg2" | "cosited" | "dv") => ChromaSite::Left,
        Some("jpeg" | "none" | "v-cosited") => ChromaSite::Center,
        // "Sited nowhere": between the samples. No bits at all mean unknown,
        // which for H.264 and MPEG-2 is left.
        _ if info.chroma_site() == VideoChromaSite::NONE => ChromaSite::Center,
        _ => ChromaSite::Left,
    }
}

/// Output size for a `max_width`: the same aspect, even sides (NV12 shares
/// chroma between pairs); unchanged when narrow enough.
pub(crate) fn scaled(width: u32, height: u32, max_width: Option<u32>) -> (u32, u32) {
    match max_width {
        Some(max) if width > max => {
            let even = |side: f64| ((side / 2.0).round() as u32 * 2).max(2);
            let new_width = (max / 2 * 2).max(2);
            (new_width, even(f64::from(height) * f64::from(new_width) / f64::from(width)))
        }
        _ => (width, height),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gst_video::VideoColorimetry;

    fn layout(caps: &str) -> Option<Layout> {
        gst::init().expect("GStreamer");
        let caps: gst::Caps = caps.parse().expect("caps");
        Layout::nv12(&VideoInfo::from_caps(&caps).expect("video caps"), &caps)
    }

    fn nv12(width: u32, height: u32, rest: &str) -> Layout {
        layout(&format!("video/x-raw,format=NV12,width={width},height={height}{rest}"))
            .expect("NV12")
    }

    #[test]
    fn odd_sizes_fit_into_their_payload() {
        for (width, height) in [(640, 480), (641, 480), (639, 361), (17, 17), (1, 1)] {
            let layout = nv12(width, height, "");
            let (rows, pairs) = (height.div_ceil(2), width.div_ceil(2));
            assert!(layout.strides[0] >= width && layout.strides[1] >= 2 * pairs);
            assert!(layout.offsets[1] >= layout.strides[0] * height);
            let end = layout.offsets[1] + layout.strides[1] * (rows - 1) + 2 * pairs;
            assert!(end as usize <= layout.bytes, "{width}x{height}");
            assert_eq!(
                layout.bytes,
                framebus_bus::memory::nv12_bytes(width as usize, height as usize),
                "the memory calculated beforehand is what GStreamer lays out: {width}x{height}"
            );
        }
    }

    #[test]
    fn colours_are_the_caps() {
        for (caps, matrix, range) in [
            (",colorimetry=bt709", ColourMatrix::Bt709, ColourRange::Limited),
            (",colorimetry=bt601", ColourMatrix::Bt601, ColourRange::Limited),
            (",colorimetry=bt2020", ColourMatrix::Bt2020, ColourRange::Limited),
            // range:matrix:transfer:primaries; 1 = full, 4 = BT.601.
            (",colorimetry=(string)1:4:0:0", ColourMatrix::Bt601, ColourRange::Full),
            (",colorimetry=(string)1:4:7:1", ColourMatrix::Bt601, ColourRange::Full),
        ] {
            let layout = nv12(64, 64, caps);
            assert_eq!((layout.matrix, layout.range), (matrix, range), "{caps}");
        }
        assert_eq!(nv12(1024, 576, "").matrix, ColourMatrix::Bt601);
        assert_eq!(nv12(1024, 578, "").matrix, ColourMatrix::Bt709);
        assert_eq!(nv12(64, 64, ",chroma-site=mpeg2").chroma_site, ChromaSite::Left);
        assert_eq!(nv12(64, 64, ",chroma-site=jpeg").chroma_site, ChromaSite::Center);
    }

    #[test]
    fn an_unknown_matrix_follows_the_height() {
        gst::init().expect("GStreamer");
        let unknown = VideoColorimetry::new(
            VideoColorRange::Unknown,
            VideoColorMatrix::Unknown,
            gst_video::VideoTransferFunction::Unknown,
            gst_video::VideoColorPrimaries::Unknown,
        );
        for (height, expected) in [(480, ColourMatrix::Bt601), (720, ColourMatrix::Bt709)] {
            let info = VideoInfo::builder(VideoFormat::Nv12, 640, height)
                .colorimetry(&unknown)
                .build()
                .expect("info");
            let caps = gst::Caps::new_empty_simple("video/x-raw");
            let layout = Layout::nv12(&info, &caps).expect("NV12");
            assert_eq!((layout.matrix, layout.range), (expected, ColourRange::Limited));
        }
    }

    #[test]
    fn other_formats_are_not_published() {
        assert_eq!(layout("video/x-raw,format=I420,width=64,height=64"), None);
    }

    #[test]
    fn scaling_keeps_the_aspect_and_evenness() {
        assert_eq!(scaled(1920, 1080, None), (1920, 1080));
        assert_eq!(scaled(1920, 1080, Some(1920)), (1920, 1080));
        assert_eq!(scaled(1920, 1080, Some(640)), (640, 360));
        assert_eq!(scaled(1920, 1080, Some(641)), (640, 360));
        assert_eq!(scaled(1000, 333, Some(500)), (500, 166));
        assert_eq!(scaled(8000, 16, Some(64)), (64, 2));
    }
}
