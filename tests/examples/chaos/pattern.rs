//! Pictures that prove themselves: every row has a value of its own that follows from
//! the picture's number, so a reader sees at once when rows of two pictures are mixed.
//!
//! A test source cannot do that, and a checksum beside the pixels would have to be
//! computed by the code under test: the pictures are written to files before, and
//! GStreamer only reads them.

use framebus_tests::World;
use std::path::PathBuf;

/// Pictures per camera; they come again and again.
const PICTURES: u64 = 17;

/// A camera made of such pictures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Camera {
    pub(crate) name: &'static str,
    /// As `rawvideoparse` calls it. `i420` is interleaved into the bus's own memory,
    /// `nv12` is copied into it.
    format: &'static str,
    width: usize,
    height: usize,
    fps: u32,
}

/// Both ways into shared memory, small and large.
pub(crate) const CAMERAS: [Camera; 4] = [
    Camera { name: "cam0", format: "i420", width: 320, height: 192, fps: 20 },
    Camera { name: "cam1", format: "nv12", width: 640, height: 360, fps: 20 },
    Camera { name: "cam2", format: "i420", width: 1280, height: 720, fps: 10 },
    Camera { name: "cam3", format: "nv12", width: 960, height: 540, fps: 10 },
];

/// The value of a row of plane 0 (Y), 1 (U) or 2 (V).
fn value(picture: u64, plane: u64, row: usize) -> u8 {
    let seed = (picture * 3 + plane) * 4096 + row as u64 + 1;
    // Fibonacci hashing; the range is that of ordinary video, never the 0 of lost data.
    let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    32 + (mixed % 192) as u8
}

impl Camera {
    /// Writes the pictures and returns the camera's lines for the configuration.
    pub(crate) fn prepare(&self, world: &World) -> String {
        let folder = world.path(self.name);
        std::fs::create_dir_all(&folder).expect("the world's folder is writable");
        for picture in 0..PICTURES {
            let path: PathBuf = folder.join(format!("{picture:02}.yuv"));
            std::fs::write(path, self.picture(picture)).expect("the world's folder is writable");
        }
        let Self { name, format, width, height, fps } = self;
        let folder = folder.display();
        format!(
            "[[camera]]\nname = \"{name}\"\nsource = 'gst:multifilesrc \
             location={folder}/%02d.yuv loop=true ! rawvideoparse format={format} \
             width={width} height={height} framerate={fps}/1 ! identity sync=true'\n"
        )
    }

    /// Asserts that mixed pictures are found: a check that cannot fail shows nothing.
    pub(crate) fn check(&self) {
        let nv12 = Self { format: "nv12", ..*self };
        let whole = |bytes: &[u8]| {
            let (luma, chroma) = bytes.split_at(self.width * self.height);
            self.is_whole((luma, self.width), (chroma, self.width))
        };
        let (one, other) = (nv12.picture(0), nv12.picture(2));
        assert!(whole(&one) && whole(&other), "{} is whole", self.name);
        for share in [1, 50, 67, 99] {
            let at = one.len() * share / 100;
            let mixed = [&one[..at], &other[at..]].concat();
            assert!(!whole(&mixed), "{} is mixed at {share} %", self.name);
        }
    }

    fn picture(&self, picture: u64) -> Vec<u8> {
        let (width, height) = (self.width, self.height);
        let mut bytes = Vec::with_capacity(width * height * 3 / 2);
        let mut fill =
            |plane, row, width| bytes.resize(bytes.len() + width, value(picture, plane, row));
        (0..height).for_each(|row| fill(0, row, width));
        if self.format == "i420" {
            (0..height / 2).for_each(|row| fill(1, row, width / 2));
            (0..height / 2).for_each(|row| fill(2, row, width / 2));
        } else {
            for row in 0..height / 2 {
                let pair = [value(picture, 1, row), value(picture, 2, row)];
                bytes.extend(pair.iter().cycle().take(width));
            }
        }
        bytes
    }

    /// Whether luma and chroma, as they lie in NV12, are one whole picture.
    pub(crate) fn is_whole(&self, luma: (&[u8], usize), chroma: (&[u8], usize)) -> bool {
        let first = |row: usize| luma.0.get(row * luma.1).copied();
        let is = |picture: &u64| (0..8).all(|row| first(row) == Some(value(*picture, 0, row)));
        let Some(picture) = (0..PICTURES).find(is) else { return false };
        let rows = |plane: (&[u8], usize), count| {
            plane.0.chunks(plane.1).take(count).filter(|row| row.len() >= self.width).count()
                == count
        };
        let even = |row: &[u8], even: u8, odd: u8| {
            row[..self.width].chunks_exact(2).all(|pair| pair == [even, odd])
        };
        rows(luma, self.height)
            && rows(chroma, self.height / 2)
            && luma.0.chunks(luma.1).enumerate().all(|(row, bytes)| {
                let y = value(picture, 0, row);
                even(bytes, y, y)
            })
            && chroma
                .0
                .chunks(chroma.1)
                .enumerate()
                .all(|(row, bytes)| even(bytes, value(picture, 1, row), value(picture, 2, row)))
    }
}
