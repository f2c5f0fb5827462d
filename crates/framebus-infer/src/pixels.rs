//! From a frame on the bus to what the engine reads.

use framebus_bus::FrameSample;
use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Fourcc};
use framebus_vision::{self as vision, FrameView, Planes};

/// The picture that a sample holds, borrowed.
pub(crate) fn view(frame: &FrameSample) -> Result<FrameView<'_>, vision::FrameError> {
    let header = frame.header();
    let planes = match frame.fourcc() {
        Fourcc::Nv12 => {
            let ((y, y_stride), (uv, uv_stride)) = (frame.plane(0), frame.plane(1));
            Planes::Nv12 { y, y_stride, uv, uv_stride }
        }
        Fourcc::Rgb24 => {
            let (data, stride) = frame.plane(0);
            Planes::Rgb24 { data, stride }
        }
    };
    let colour = vision::Colour {
        matrix: match frame.matrix() {
            ColourMatrix::Bt601 => vision::Matrix::Bt601,
            ColourMatrix::Bt709 => vision::Matrix::Bt709,
            ColourMatrix::Bt2020 => vision::Matrix::Bt2020,
        },
        range: match frame.range() {
            ColourRange::Limited => vision::Range::Limited,
            ColourRange::Full => vision::Range::Full,
        },
        site: match frame.chroma_site() {
            ChromaSite::Left => vision::ChromaSite::Left,
            ChromaSite::Center => vision::ChromaSite::Center,
        },
    };
    FrameView::new(header.width as usize, header.height as usize, planes, colour)
}
