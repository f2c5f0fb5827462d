//! Where a picture lies inside the network's input.
//!
//! The picture keeps its aspect ratio, is centred, and the rest is grey. Sizes
//! and rounding follow the letterbox that YOLO models are trained and evaluated
//! with, so that boxes agree with other tools to the pixel.

/// Geometry of one letterbox.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letterbox {
    src: [usize; 2],
    origin: [usize; 2],
    dst: [usize; 2],
    resized: [usize; 2],
    offset: [usize; 2],
    scale: f64,
}

impl Letterbox {
    /// Fits a picture of `src_w` x `src_h` pixels into `dst_w` x `dst_h`,
    /// enlarging it when it is smaller.
    ///
    /// A side of zero counts as one pixel; a side that would shrink to nothing
    /// keeps one.
    #[must_use]
    pub fn new(src_w: usize, src_h: usize, dst_w: usize, dst_h: usize) -> Self {
        let src = [src_w.max(1), src_h.max(1)];
        let dst = [dst_w.max(1), dst_h.max(1)];
        let scale = (dst[1] as f64 / src[1] as f64).min(dst[0] as f64 / src[0] as f64);
        let resized = [0, 1].map(|axis| {
            // Halves go to the even side, as in the Python that others run.
            let size = (src[axis] as f64 * scale).round_ties_even() as usize;
            size.clamp(1, dst[axis])
        });
        // The 0.1 sends the odd pixel of padding to the right and the bottom.
        let offset = [0, 1].map(|axis| {
            let half = (dst[axis] - resized[axis]) as f64 / 2.0;
            (half - 0.1).round().max(0.0) as usize
        });
        Self { src, origin: [0, 0], dst, resized, offset, scale }
    }

    /// The same letterbox of a region whose left upper corner lies at `x`, `y` of a
    /// larger picture: boxes are mapped from and to the pixels of that picture.
    #[must_use]
    pub fn with_origin(self, x: usize, y: usize) -> Self {
        Self { origin: [x, y], ..self }
    }

    /// Width of the picture, or of its region, in source pixels.
    #[must_use]
    pub fn src_width(&self) -> usize {
        self.src[0]
    }

    /// Height of the picture, or of its region, in source pixels.
    #[must_use]
    pub fn src_height(&self) -> usize {
        self.src[1]
    }

    /// Width of the network's input.
    #[must_use]
    pub fn dst_width(&self) -> usize {
        self.dst[0]
    }

    /// Height of the network's input.
    #[must_use]
    pub fn dst_height(&self) -> usize {
        self.dst[1]
    }

    /// Width of the picture inside the network's input.
    #[must_use]
    pub fn resized_width(&self) -> usize {
        self.resized[0]
    }

    /// Height of the picture inside the network's input.
    #[must_use]
    pub fn resized_height(&self) -> usize {
        self.resized[1]
    }

    /// Columns of padding left of the picture.
    #[must_use]
    pub fn left(&self) -> usize {
        self.offset[0]
    }

    /// Rows of padding above the picture.
    #[must_use]
    pub fn top(&self) -> usize {
        self.offset[1]
    }

    /// Network pixels per source pixel, before the resized size is rounded.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Maps a box `[x1, y1, x2, y2]` of network pixels to source pixels and clips
    /// it to the picture or the region.
    ///
    /// Uses the resized size of each axis rather than [`Self::scale`]: this is
    /// the exact inverse of the resampling, rounding included. NaN stays NaN.
    #[must_use]
    pub fn to_source(&self, bbox: [f32; 4]) -> [f32; 4] {
        let map = |value: f32, axis: usize| {
            let step = self.src[axis] as f64 / self.resized[axis] as f64;
            let source = (f64::from(value) - self.offset[axis] as f64) * step;
            (source.clamp(0.0, self.src[axis] as f64) + self.origin[axis] as f64) as f32
        };
        [map(bbox[0], 0), map(bbox[1], 1), map(bbox[2], 0), map(bbox[3], 1)]
    }

    /// Maps a box of source pixels to network pixels: the inverse of
    /// [`Self::to_source`] for boxes inside the picture.
    #[must_use]
    pub fn to_network(&self, bbox: [f32; 4]) -> [f32; 4] {
        let map = |value: f32, axis: usize| {
            let step = self.resized[axis] as f64 / self.src[axis] as f64;
            let inside = f64::from(value) - self.origin[axis] as f64;
            (inside * step + self.offset[axis] as f64) as f32
        };
        [map(bbox[0], 0), map(bbox[1], 1), map(bbox[2], 0), map(bbox[3], 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::Letterbox;

    fn layout(src: [usize; 2], dst: [usize; 2]) -> [usize; 4] {
        let l = Letterbox::new(src[0], src[1], dst[0], dst[1]);
        [l.resized_width(), l.resized_height(), l.left(), l.top()]
    }

    #[test]
    fn known_sizes() {
        assert_eq!(layout([1920, 1080], [640, 640]), [640, 360, 0, 140]);
        assert_eq!(layout([1920, 1080], [640, 384]), [640, 360, 0, 12]);
        assert_eq!(layout([810, 1080], [640, 640]), [480, 640, 80, 0]);
        assert_eq!(layout([640, 640], [640, 640]), [640, 640, 0, 0]);
        // Enlarged.
        assert_eq!(layout([320, 180], [640, 640]), [640, 360, 0, 140]);
        // 426.5 rounds to the even 426; 213 rows of padding are 106 above, 107 below.
        assert_eq!(layout([1280, 853], [640, 640]), [640, 426, 0, 107]);
        assert_eq!(layout([1280, 854], [640, 640]), [640, 427, 0, 106]);
    }

    #[test]
    fn extreme_sizes_keep_one_pixel() {
        assert_eq!(layout([10_000, 1], [640, 640]), [640, 1, 0, 319]);
        assert_eq!(layout([1, 1], [640, 640]), [640, 640, 0, 0]);
        assert_eq!(layout([0, 0], [0, 0]), [1, 1, 0, 0]);
    }

    #[test]
    fn boxes_map_to_source_and_are_clipped() {
        let l = Letterbox::new(1920, 1080, 640, 640);
        assert_eq!(l.to_source([0.0, 140.0, 640.0, 500.0]), [0.0, 0.0, 1920.0, 1080.0]);
        assert_eq!(l.to_source([100.0, 240.0, 200.0, 340.0]), [300.0, 300.0, 600.0, 600.0]);
        assert_eq!(l.to_source([-50.0, 0.0, 700.0, 640.0]), [0.0, 0.0, 1920.0, 1080.0]);
        assert_eq!(l.to_source([f32::MAX, f32::MIN, 0.0, 140.0]), [1920.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn boxes_of_a_region_are_those_of_the_whole_picture() {
        let l = Letterbox::new(960, 540, 640, 640).with_origin(400, 200);
        assert_eq!(l.to_source([0.0, 140.0, 640.0, 500.0]), [400.0, 200.0, 1360.0, 740.0]);
        assert_eq!(l.to_source([-9.0, 0.0, 999.0, 640.0]), [400.0, 200.0, 1360.0, 740.0]);
        assert_eq!(l.to_network([700.0, 350.0, 1360.0, 740.0]), [200.0, 240.0, 640.0, 500.0]);
    }
}
