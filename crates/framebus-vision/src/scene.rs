//! Whether a picture is one: unchanged, without contrast, green where data is missing, or
//! with much less detail than the camera used to show.
//!
//! Luma is read in every fourth band of small blocks (4 x 4 pixels of 1080p), whose means
//! hide the noise of a sensor and are as fine as what a network sees. Detail is the mean
//! difference between neighbouring blocks over the brightness above black, which less light
//! lowers alike, in patches, each compared with its own past: somebody who stands in the
//! way covers some patches, a hand or fog covers most. Dark patches are not judged.
//!
//! ```
//! use framebus_vision::{Scene, Sight};
//!
//! let mut scene = Scene::new(640, 360, 0.6);
//! let grey = vec![90; 640 * 360];
//! let first = scene.look(&grey, 640, 0.0).expect("a picture");
//! assert!(first.change > 255.0 && first.contrast < 0.5);
//! assert_eq!(scene.look(&grey, 640, 0.2).expect("a picture").change, 0.0);
//! ```

/// Blocks in a row, at least, where the picture is wide enough.
const COLUMNS: usize = 320;
/// Of so many bands of blocks one is read.
const SKIP: usize = 4;
/// Patches in a row and in a column.
const PATCHES: (usize, usize) = (16, 9);
/// Black of video in limited range.
const BLACK: f32 = 16.0;
/// A patch is judged when it is brighter than this: below, noise and rounding are as large
/// as detail, and a lamp that is switched off is no fault.
const LIT: f32 = 36.0;
/// Detail over brightness below which a patch never had any: sky, a wall.
const TEXTURE: f32 = 0.015;
/// Share of all patches that must be fit to be judged.
const JUDGED: f32 = 0.1;
/// Time in which the usual detail is first learned, s, ...
const LEARN_S: f32 = 5.0;
/// ... in which it follows dusk and dawn, ...
const FOLLOW_S: f32 = 120.0;
/// ... and in which a scene that changed for good is accepted.
const ACCEPT_S: f32 = 1200.0;
/// Share of the judged patches that must have lost their detail.
const MOST: f32 = 0.6;
/// Chroma below this in both planes is outside of what video may have. Decoders leave zero.
const NO_CHROMA: u8 = 12;
/// Rows of chroma that are looked at.
const CHROMA_ROWS: usize = 24;

/// What one look at a picture tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Largest change of a block since the picture before, in 8-bit steps; infinite for the
    /// first picture, 0 when not one block differs.
    pub change: f32,
    /// Mean luma.
    pub light: f32,
    /// Standard deviation of luma, in 8-bit steps.
    pub contrast: f32,
    /// Most of the picture has lost its detail.
    pub blurred: bool,
}

/// What a camera usually shows.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Share of its detail that a patch must have lost.
    drop: f32,
    /// Side of a block in pixels: 1, 2, 4 or 8.
    side: usize,
    columns: usize,
    bands: usize,
    /// Sums of the blocks of the picture before, bands one after the other.
    before: Vec<u16>,
    /// The same of the band in work.
    band: Vec<u16>,
    /// Usual detail of every patch; negative where it was never lit.
    usual: Vec<f32>,
    /// Of the picture in work: sums of the differences, of the blocks, and their number.
    patches: Vec<(u32, u32, u32)>,
    /// For how long detail has been learned, s.
    learned_s: f32,
    seen: bool,
}

impl Scene {
    /// For pictures of that size in pixels. A patch has lost its detail when less than
    /// `1 - drop` of it is left; with 0 detail is not looked at.
    #[must_use]
    pub fn new(width: usize, height: usize, drop: f32) -> Self {
        let side = [8, 4, 2].into_iter().find(|side| width / side >= COLUMNS).unwrap_or(1);
        let (columns, bands) = (width / side, (height / side).div_ceil(SKIP));
        Self {
            drop,
            side,
            columns,
            bands,
            before: vec![0; columns * bands],
            band: vec![0; columns],
            usual: vec![-1.0; PATCHES.0 * PATCHES.1],
            patches: vec![(0, 0, 0); PATCHES.0 * PATCHES.1],
            learned_s: 0.0,
            seen: false,
        }
    }

    /// Looks at a picture and learns from it. `luma` holds rows of 8-bit luma `stride` bytes
    /// apart, `elapsed_s` is the time since the look before. `None` when the picture is too
    /// small for patches, and when `luma` is shorter than the picture.
    pub fn look(&mut self, luma: &[u8], stride: usize, elapsed_s: f32) -> Option<Sight> {
        // Detail needs neighbours.
        if self.columns < 2 * PATCHES.0 || self.bands < PATCHES.1 {
            return None;
        }
        self.patches.fill((0, 0, 0));
        let (mut total, mut squares, mut change) = (0_u64, 0_u64, 0_u16);
        for band in 0..self.bands {
            self.sum_blocks(luma, stride, band)?;
            let before = &mut self.before[band * self.columns..][..self.columns];
            let changes = before.iter().zip(&self.band).map(|(&a, &b)| a.abs_diff(b));
            change = change.max(changes.max().unwrap_or(0));
            before.copy_from_slice(&self.band);
            total += self.band.iter().map(|&sum| u64::from(sum)).sum::<u64>();
            squares += self.band.iter().map(|&sum| u64::from(u32::from(sum).pow(2))).sum::<u64>();
            self.add_detail(band);
        }
        let first = !std::mem::replace(&mut self.seen, true);
        let blocks = (self.columns * self.bands) as f64;
        let mean = total as f64 / blocks;
        let variance = (squares as f64 / blocks - mean * mean).max(0.0);
        let blurred = self.drop > 0.0 && self.compare(elapsed_s.max(0.0));
        let pixels = self.pixels();
        let (light, contrast) = ((mean / pixels) as f32, (variance.sqrt() / pixels) as f32);
        let change = if first { f32::INFINITY } else { (f64::from(change) / pixels) as f32 };
        Some(Sight { change, light, contrast, blurred })
    }

    /// Pixels of a block.
    fn pixels(&self) -> f64 {
        (self.side * self.side) as f64
    }

    fn sum_blocks(&mut self, luma: &[u8], stride: usize, band: usize) -> Option<()> {
        let (side, columns) = (self.side, self.columns);
        self.band.fill(0);
        for row in band * SKIP * side..(band * SKIP + 1) * side {
            let pixels = luma.get(row * stride..)?.get(..columns * side)?;
            match side {
                8 => add::<8>(&mut self.band, pixels),
                4 => add::<4>(&mut self.band, pixels),
                2 => add::<2>(&mut self.band, pixels),
                _ => add::<1>(&mut self.band, pixels),
            }
        }
        Some(())
    }

    fn add_detail(&mut self, band: usize) {
        let width = self.columns / PATCHES.0;
        let row = band * PATCHES.1 / self.bands;
        let patches = &mut self.patches[row * PATCHES.0..][..PATCHES.0];
        for (patch, blocks) in patches.iter_mut().zip(self.band.chunks_exact(width)) {
            let pairs = blocks.iter().zip(&blocks[1..]);
            patch.0 += pairs.map(|(&left, &right)| u32::from(left.abs_diff(right))).sum::<u32>();
            patch.1 += blocks.iter().map(|&sum| u32::from(sum)).sum::<u32>();
            patch.2 += width as u32;
        }
    }

    /// Whether most patches have lost their detail; then learns from the picture.
    fn compare(&mut self, elapsed_s: f32) -> bool {
        let pixels = self.pixels() as f32;
        let width = (self.columns / PATCHES.0) as f32;
        let rest = 1.0 - self.drop;
        let (mut judged, mut lost) = (0, 0);
        let detail = |&(differences, sum, count): &(u32, u32, u32)| {
            let light = sum as f32 / (count as f32 * pixels);
            let difference = differences as f32 / (count as f32 * pixels) * width / (width - 1.0);
            (light >= LIT).then(|| difference / (light - BLACK))
        };
        for (patch, &usual) in self.patches.iter().zip(&self.usual) {
            if let Some(detail) = detail(patch)
                && usual >= TEXTURE
            {
                judged += 1;
                lost += u32::from(detail < rest * usual);
            }
        }
        let enough = judged as f32 >= JUDGED * self.patches.len() as f32;
        let learned = self.learned_s >= LEARN_S;
        let blurred = learned && enough && lost as f32 >= MOST * judged as f32;
        self.learned_s += elapsed_s;
        let time_s = match (learned, blurred) {
            // The mean of the pictures so far.
            (false, _) => self.learned_s.max(1e-3),
            (true, false) => FOLLOW_S,
            (true, true) => ACCEPT_S,
        };
        let pace = elapsed_s / (time_s + elapsed_s);
        for (patch, usual) in self.patches.iter().zip(&mut self.usual) {
            match detail(patch) {
                Some(detail) if *usual < 0.0 => *usual = detail,
                Some(detail) => *usual += pace * (detail - *usual),
                None => {}
            }
        }
        blurred
    }
}

/// Share of the picture, 0 to 1, that has the green of missing data: both chroma values next
/// to zero, which cameras never send. `chroma` holds rows of interleaved pairs (NV12) `stride`
/// bytes apart; `width` and `height` are those of the picture. `None` when it is shorter.
#[must_use]
pub fn missing(chroma: &[u8], stride: usize, width: usize, height: usize) -> Option<f32> {
    let (pairs, rows) = (width.div_ceil(2), height.div_ceil(2));
    let sampled = rows.min(CHROMA_ROWS);
    let mut green = 0;
    for sample in 0..sampled {
        let row = (2 * sample + 1) * rows / (2 * sampled);
        let (values, _) = chroma.get(row * stride..)?.get(..2 * pairs)?.as_chunks::<2>();
        green += values
            .iter()
            .map(|[u, v]| u32::from(*u < NO_CHROMA) & u32::from(*v < NO_CHROMA))
            .sum::<u32>();
    }
    Some(green as f32 / (sampled * pairs).max(1) as f32)
}

/// Adds the sum of each group of `N` pixels.
fn add<const N: usize>(sums: &mut [u16], pixels: &[u8]) {
    let (groups, _) = pixels.as_chunks::<N>();
    for (sum, group) in sums.iter_mut().zip(groups) {
        *sum += group.iter().map(|&pixel| u16::from(pixel)).sum::<u16>();
    }
}

#[cfg(test)]
#[path = "scene_tests.rs"]
mod tests;
