//! One frame, as its readers have it.

use crate::header::{self, check_frame};
use crate::segments::SegmentId;
use crate::{BadHeader, Ipc};
use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Fourcc, FrameHeader, text};
use iceoryx2::sample::Sample;
use iceoryx2::service::Service;

/// A frame in shared memory whose header has been checked. Holding it keeps the
/// memory; the publisher has a sample for every frame that may be held.
#[derive(Debug)]
pub struct FrameSample<S: Service = Ipc> {
    sample: Sample<S, [u8], FrameHeader>,
    header: FrameHeader,
    fourcc: Fourcc,
    matrix: ColourMatrix,
    range: ColourRange,
    chroma_site: ChromaSite,
}

impl<S: Service> FrameSample<S> {
    pub(crate) fn check(
        sample: Sample<S, [u8], FrameHeader>,
        camera: &str,
    ) -> Result<Self, BadHeader> {
        // One copy: what was checked is what is used, whatever the publisher
        // writes afterwards.
        let header = *sample.user_header();
        let fourcc = check_frame(&header, sample.payload().len(), camera)?;
        Ok(Self {
            fourcc,
            matrix: ColourMatrix::try_from(header.matrix)?,
            range: ColourRange::try_from(header.range)?,
            chroma_site: ChromaSite::try_from(header.chroma_site)?,
            header,
            sample,
        })
    }

    /// The header as it was when the frame was received.
    #[must_use]
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// Camera name.
    #[must_use]
    pub fn camera(&self) -> &str {
        text::unpack(&self.header.camera)
    }

    /// Which shared-memory segment the planes lie in; `None` when the publisher, of an
    /// older version, does not say. [`SegmentId`] says what may be concluded from it.
    #[must_use]
    pub fn memory(&self) -> Option<SegmentId> {
        let segment = self.header.segment;
        let publisher = self.sample.origin().value();
        (segment != 0).then_some(SegmentId { publisher, segment })
    }

    /// Pixel format.
    #[must_use]
    pub fn fourcc(&self) -> Fourcc {
        self.fourcc
    }

    /// YCbCr matrix.
    #[must_use]
    pub fn matrix(&self) -> ColourMatrix {
        self.matrix
    }

    /// Sample range.
    #[must_use]
    pub fn range(&self) -> ColourRange {
        self.range
    }

    /// Chroma sample position.
    #[must_use]
    pub fn chroma_site(&self) -> ChromaSite {
        self.chroma_site
    }

    /// Bytes of plane `plane`, from its first row to the end of its last, and
    /// its stride. Empty for a plane that the format does not have.
    #[must_use]
    pub fn plane(&self, plane: usize) -> (&[u8], usize) {
        let Some((range, stride)) = header::plane(self.fourcc, &self.header, plane) else {
            return (&[], 0);
        };
        // Checked in `check`; the payload's length does not change.
        (&self.sample.payload()[range], stride)
    }
}
