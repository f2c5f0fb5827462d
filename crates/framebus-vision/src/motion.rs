//! Whether anything moves: a picture's luma against the scene that was learned before it.
//!
//! The picture is seen as a grid of some 120 columns of cells. The mean luma of a cell (a
//! quarter of its rows suffices) is compared with a slowly adapting background; the mean
//! of 32 and more pixels hides the noise of a sensor, and noise that a cell shows all the
//! time (water, leaves, a poor encoder) is learned. Brightness that changes everywhere
//! (exposure, clouds) is estimated as gain and offset and taken out.
//!
//! ```
//! use framebus_vision::{Motion, MotionSettings};
//!
//! let mut motion = Motion::new(640, 360, &MotionSettings { step: 6.0, ignore: Vec::new() });
//! let mut luma = vec![90; 640 * 360];
//! assert_eq!(motion.measure(&luma, 640, 0.04), None, "nothing to compare with");
//! assert_eq!(motion.measure(&luma, 640, 0.04), Some(0.0));
//! for row in 100..164 {
//!     luma[row * 640 + 64..][..32].fill(200);
//! }
//! // 4 x 8 cells of 80 x 45.
//! assert!(motion.measure(&luma, 640, 0.04).is_some_and(|share| share >= 32.0 / 3600.0));
//! ```

/// Cells in a row of the grid, at most.
const COLUMNS: usize = 120;
/// Rows of a cell that are read.
const SAMPLED: usize = 4;
/// Time in which a still cell follows its picture, s: lamps, shadows, the hour.
const QUIET_S: f32 = 4.0;
/// The same for a cell that changed: what comes to rest becomes background.
const CHANGED_S: f32 = 30.0;
/// Time in which the noise of a still cell is learned, s, ...
const NOISE_S: f32 = 10.0;
/// ... and that of one that changes: what moves there all day is no news.
const NOISE_CHANGED_S: f32 = 120.0;
/// A change this many mean deviations above a cell's noise counts (4 standard deviations
/// of Gaussian noise, whose mean deviation is 0.8 of the standard deviation) ...
const NOISE_FACTOR: f32 = 5.0;
/// ... but one of that many steps counts in any noise.
const NOISIEST_STEPS: f32 = 4.0;
/// A greater share is another picture (a camera that turned, a lamp) and learned at once.
const ANEW: f32 = 0.6;
/// Steps of luma that a change of brightness can have either way.
const SHIFTS: usize = 128;

/// What counts as a change.
#[derive(Debug, Clone, PartialEq)]
pub struct MotionSettings {
    /// Least change of a cell's mean luma, in 8-bit steps.
    pub step: f32,
    /// Rectangles `[x, y, width, height]` in fractions of the picture. A cell with its
    /// centre in one of them is left out.
    pub ignore: Vec<[f32; 4]>,
}

/// The learned scene of one camera.
#[derive(Debug, Clone)]
pub struct Motion {
    step: f32,
    /// Side of a cell in pixels, a multiple of 8.
    side: usize,
    columns: usize,
    rows: usize,
    /// 1 where a cell counts.
    counts: Vec<u8>,
    counted: usize,
    learned: bool,
    background: Vec<f32>,
    /// Mean deviation from the background while still.
    noise: Vec<f32>,
    // Of the picture in work:
    sums: Vec<u32>,
    luma: Vec<f32>,
    /// With a margin of one cell all round, so that every cell has four neighbours.
    changed: Vec<u8>,
}

impl Motion {
    /// For pictures of that size in pixels.
    #[must_use]
    pub fn new(width: usize, height: usize, settings: &MotionSettings) -> Self {
        let side = width.div_ceil(COLUMNS).next_multiple_of(8).max(8);
        let (columns, rows) = (width / side, height / side);
        let centre =
            |index: usize, pixels: usize| (index as f32 + 0.5) * side as f32 / pixels as f32;
        let mut counts = Vec::with_capacity(columns * rows);
        for row in 0..rows {
            for column in 0..columns {
                let (cx, cy) = (centre(column, width), centre(row, height));
                let ignored = settings
                    .ignore
                    .iter()
                    .any(|&[x, y, w, h]| (x..=x + w).contains(&cx) && (y..=y + h).contains(&cy));
                counts.push(u8::from(!ignored));
            }
        }
        Self {
            step: settings.step,
            side,
            columns,
            rows,
            counted: counts.iter().map(|&counts| usize::from(counts)).sum(),
            counts,
            learned: false,
            background: vec![0.0; columns * rows],
            noise: vec![0.0; columns * rows],
            sums: vec![0; columns],
            luma: vec![0.0; columns * rows],
            changed: vec![0; (columns + 2) * (rows + 2)],
        }
    }

    /// Columns and rows of the grid.
    #[must_use]
    pub fn grid(&self) -> (usize, usize) {
        (self.columns, self.rows)
    }

    /// The share of the picture, 0 to 1, that differs from the scene; then learns from it.
    /// Areas left out belong to no picture. A cell counts only beside two others.
    ///
    /// `luma` holds rows of 8-bit luma `stride` bytes apart, `elapsed_s` is the time since
    /// the picture before. `None` for the first picture, for a picture smaller than a cell,
    /// where everything is left out, and when `luma` is shorter than the picture.
    pub fn measure(&mut self, luma: &[u8], stride: usize, elapsed_s: f32) -> Option<f32> {
        if self.counted == 0 || !self.average(luma, stride) {
            return None;
        }
        if !self.learned {
            self.learn_anew();
            return None;
        }
        let (offset, gain) = self.brightness();
        self.compare(offset, gain, elapsed_s.max(0.0));
        let share = self.connected() as f32 / self.counted as f32;
        if share > ANEW {
            self.learn_anew();
        }
        Some(share)
    }

    fn learn_anew(&mut self) {
        self.background.copy_from_slice(&self.luma);
        self.learned = true;
    }

    /// Mean luma of every cell.
    fn average(&mut self, luma: &[u8], stride: usize) -> bool {
        let (side, columns) = (self.side, self.columns);
        let scale = 1.0 / (SAMPLED * side) as f32;
        for (row, means) in self.luma.chunks_exact_mut(columns).enumerate() {
            self.sums.fill(0);
            for sample in 0..SAMPLED {
                // In the middle of each quarter.
                let y = row * side + (2 * sample + 1) * side / (2 * SAMPLED);
                let Some(pixels) = luma.get(y * stride..).and_then(|row| row.get(..columns * side))
                else {
                    return false;
                };
                match side {
                    8 => add::<8>(&mut self.sums, pixels),
                    16 => add::<16>(&mut self.sums, pixels),
                    32 => add::<32>(&mut self.sums, pixels),
                    _ => {
                        for (sum, cell) in self.sums.iter_mut().zip(pixels.chunks_exact(side)) {
                            *sum += cell.iter().map(|&pixel| u32::from(pixel)).sum::<u32>();
                        }
                    }
                }
            }
            for (mean, &sum) in means.iter_mut().zip(&self.sums) {
                *mean = sum as f32 * scale;
            }
        }
        true
    }

    /// What brightness did since the background was learned, as `(offset, gain)`: a
    /// background of `b` is now expected at `b + offset + b * gain`.
    ///
    /// From the median changes of the dark and of the bright half of the picture: up to
    /// half of either may move.
    fn brightness(&self) -> (f32, f32) {
        let mut total = 0.0;
        for (&background, &counts) in self.background.iter().zip(&self.counts) {
            total += background * f32::from(counts);
        }
        let middle = total / self.counted as f32;
        let mut halves = [[0_u32; 2 * SHIFTS]; 2];
        let (mut cells, mut sums) = ([0_u32; 2], [0.0_f32; 2]);
        let cell = self.background.iter().zip(&self.luma).zip(&self.counts);
        for ((&background, &luma), &counts) in cell {
            if counts == 0 {
                continue;
            }
            let half = usize::from(background > middle);
            let shift = (luma - background + SHIFTS as f32 + 0.5) as usize;
            halves[half][shift.min(2 * SHIFTS - 1)] += 1;
            cells[half] += 1;
            sums[half] += background;
        }
        let median = |half: usize| {
            let mut below = 0;
            let found = halves[half].iter().position(|&count| {
                below += count;
                2 * below >= cells[half].max(1)
            });
            found.unwrap_or(SHIFTS) as f32 - SHIFTS as f32
        };
        // One level all over has no bright half.
        if cells[1] == 0 {
            return (median(0), 0.0);
        }
        let mean = |half: usize| sums[half] / cells[half].max(1) as f32;
        let distance = mean(1) - mean(0);
        if distance < 16.0 {
            let larger = usize::from(cells[1] > cells[0]);
            return (median(larger), 0.0);
        }
        let gain = ((median(1) - median(0)) / distance).clamp(-0.5, 1.0);
        (median(0) - mean(0) * gain, gain)
    }

    /// Marks the cells that changed and lets the background follow.
    fn compare(&mut self, offset: f32, gain: f32, elapsed_s: f32) {
        let follow = |time_s: f32| elapsed_s / (time_s + elapsed_s);
        let still = (follow(QUIET_S), follow(NOISE_S));
        let changed = (follow(CHANGED_S), follow(NOISE_CHANGED_S));
        let most = NOISIEST_STEPS * self.step;
        let width = self.columns + 2;
        for row in 0..self.rows {
            let cells = row * self.columns..(row + 1) * self.columns;
            let marks = &mut self.changed[(row + 1) * width + 1..][..self.columns];
            let state =
                self.background[cells.clone()].iter_mut().zip(&mut self.noise[cells.clone()]);
            let seen = self.luma[cells.clone()].iter().zip(&self.counts[cells]);
            for ((mark, (background, noise_mean)), (&luma, &counts)) in
                marks.iter_mut().zip(state).zip(seen)
            {
                // Bright cells cannot get brighter than white.
                let expected = (*background + offset + *background * gain).clamp(0.0, 255.0);
                let change = (luma - expected).abs();
                let limit = (NOISE_FACTOR * *noise_mean).clamp(self.step, most);
                let is_changed = change > limit;
                *mark = u8::from(is_changed) & counts;
                let (pace, heed) = if is_changed { changed } else { still };
                *background += pace * (luma - *background);
                *noise_mean += heed * (change.min(limit) - *noise_mean);
            }
        }
    }

    /// Marked cells with at least two marked ones among those above, below, left and right
    /// of them: an object fills a square of cells, while what an encoder redraws at a key
    /// frame is scattered.
    fn connected(&self) -> usize {
        let width = self.columns + 2;
        let mut connected = 0;
        for row in 1..=self.rows {
            let at =
                |row: usize, column: usize| &self.changed[row * width + column..][..self.columns];
            let beside = at(row, 0).iter().zip(at(row, 2));
            let over = at(row - 1, 1).iter().zip(at(row + 1, 1));
            let marks = at(row, 1).iter().zip(beside).zip(over);
            connected += marks
                .map(|((mark, (left, right)), (above, below))| {
                    u32::from(mark & u8::from(left + right + above + below >= 2))
                })
                .sum::<u32>() as usize;
        }
        connected
    }
}

/// Adds the sum of each group of `N` pixels.
fn add<const N: usize>(sums: &mut [u32], pixels: &[u8]) {
    let (cells, _) = pixels.as_chunks::<N>();
    for (sum, cell) in sums.iter_mut().zip(cells) {
        *sum += cell.iter().map(|&pixel| u32::from(pixel)).sum::<u32>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 1280;
    const HEIGHT: usize = 720;
    const FRAME_S: f32 = 1.0 / 25.0;

    /// A scene with edges, gradients and dark and bright parts, under a light, with the
    /// noise of a sensor.
    struct Camera {
        random: u64,
        /// Amplitude of uniform noise, in steps either way.
        noise: i32,
        gain: f32,
        offset: f32,
    }

    impl Camera {
        fn new(noise: i32) -> Self {
            Self { random: 7, noise, gain: 1.0, offset: 0.0 }
        }

        fn picture(&mut self) -> Vec<u8> {
            let mut luma = Vec::with_capacity(WIDTH * HEIGHT);
            for y in 0..HEIGHT {
                for x in 0..WIDTH {
                    self.random ^= self.random << 13;
                    self.random ^= self.random >> 7;
                    self.random ^= self.random << 17;
                    let noise = (self.random >> 33) as i32 % (2 * self.noise + 1) - self.noise;
                    let scene =
                        20 + x * 90 / WIDTH + y * 60 / HEIGHT + 40 * ((x / 150 + y / 90) % 2);
                    let light = scene as f32 * self.gain + self.offset;
                    luma.push((light as i32 + noise).clamp(0, 255) as u8);
                }
            }
            luma
        }
    }

    fn motion(ignore: &[[f32; 4]]) -> Motion {
        Motion::new(WIDTH, HEIGHT, &MotionSettings { step: 6.0, ignore: ignore.to_vec() })
    }

    fn paint(luma: &mut [u8], x: usize, y: usize, width: usize, height: usize) {
        for row in y..y + height {
            for pixel in &mut luma[row * WIDTH + x..][..width] {
                *pixel = pixel.wrapping_add(60);
            }
        }
    }

    #[test]
    fn noise_is_no_motion() {
        for noise in [0, 5, 20] {
            let (mut camera, mut motion) = (Camera::new(noise), motion(&[]));
            assert_eq!(motion.measure(&camera.picture(), WIDTH, 0.0), None);
            for frame in 0..20 {
                let share = motion.measure(&camera.picture(), WIDTH, FRAME_S).expect("measured");
                assert!(share < 0.0005, "noise {noise}, frame {frame}: {share}");
            }
        }
    }

    #[test]
    fn a_block_that_moves_is_found_everywhere_at_its_size() {
        let (mut camera, mut motion) = (Camera::new(5), motion(&[]));
        motion.measure(&camera.picture(), WIDTH, 0.0);
        let (columns, rows) = motion.grid();
        assert_eq!((columns, rows), (80, 45));
        for frame in 0..30 {
            let mut picture = camera.picture();
            paint(&mut picture, 32 + 40 * frame, 16 + 20 * frame, 32, 64);
            let share = motion.measure(&picture, WIDTH, FRAME_S).expect("measured");
            let cells = share * (columns * rows) as f32;
            assert!((4.0..=24.0).contains(&cells), "frame {frame}: {cells} cells");
        }
        // Where it was, nothing is left of it.
        let share = motion.measure(&camera.picture(), WIDTH, FRAME_S).expect("measured");
        assert!(share < 0.0005, "{share}");
    }

    #[test]
    fn what_comes_to_rest_becomes_background() {
        let (mut camera, mut motion) = (Camera::new(2), motion(&[]));
        motion.measure(&camera.picture(), WIDTH, 0.0);
        let mut parked = camera.picture();
        paint(&mut parked, 320, 320, 64, 64);
        let mut last = 1.0;
        let mut seconds = 0;
        while last > 0.0 {
            last = motion.measure(&parked, WIDTH, 1.0).expect("measured");
            seconds += 1;
            assert!(seconds < 200, "{last} after {seconds} s");
        }
        assert!(seconds > 20, "gone after {seconds} s");
    }

    #[test]
    fn brightness_that_changes_everywhere_is_no_motion() {
        for (gain, offset) in [(1.0, 20.0), (1.0, -15.0), (1.2, 0.0), (0.8, 0.0), (1.1, 10.0)] {
            let (mut camera, mut motion) = (Camera::new(3), motion(&[]));
            motion.measure(&camera.picture(), WIDTH, 0.0);
            motion.measure(&camera.picture(), WIDTH, FRAME_S);
            (camera.gain, camera.offset) = (gain, offset);
            let share = motion.measure(&camera.picture(), WIDTH, FRAME_S).expect("measured");
            assert!(share < 0.0005, "gain {gain}, offset {offset}: {share}");
            // Somebody who comes in that moment is still seen.
            let mut picture = camera.picture();
            paint(&mut picture, 640, 320, 48, 96);
            let share = motion.measure(&picture, WIDTH, FRAME_S).expect("measured");
            assert!(share > 0.003, "gain {gain}, offset {offset}: {share}");
        }
    }

    #[test]
    fn another_picture_is_motion_once() {
        let (mut camera, mut motion) = (Camera::new(2), motion(&[]));
        motion.measure(&camera.picture(), WIDTH, 0.0);
        let mut turned = camera.picture();
        turned.reverse();
        assert!(motion.measure(&turned, WIDTH, FRAME_S).is_some_and(|share| share > 0.3));
        for _ in 0..3 {
            motion.measure(&turned, WIDTH, FRAME_S);
        }
        let share = motion.measure(&turned, WIDTH, FRAME_S).expect("measured");
        assert!(share < 0.6, "{share}");
    }

    #[test]
    fn areas_that_are_left_out_do_not_count() {
        let mut camera = Camera::new(3);
        let mut motion = motion(&[[0.0, 0.0, 0.3, 0.2], [0.5, 0.5, 0.5, 0.5]]);
        motion.measure(&camera.picture(), WIDTH, 0.0);
        let mut picture = camera.picture();
        paint(&mut picture, 16, 16, 200, 80);
        paint(&mut picture, 700, 400, 300, 200);
        assert_eq!(motion.measure(&picture, WIDTH, FRAME_S), Some(0.0));
        paint(&mut picture, 800, 100, 64, 64);
        assert!(motion.measure(&picture, WIDTH, FRAME_S).is_some_and(|share| share > 0.003));
    }

    #[test]
    fn pictures_that_do_not_fit_are_not_measured() {
        let settings = MotionSettings { step: 6.0, ignore: Vec::new() };
        let mut tiny = Motion::new(7, 7, &settings);
        assert_eq!(tiny.measure(&[0; 49], 7, FRAME_S), None);
        let mut short = motion(&[]);
        for _ in 0..2 {
            assert_eq!(short.measure(&[0; WIDTH * 100], WIDTH, FRAME_S), None);
        }
        let mut masked = motion(&[[0.0, 0.0, 1.0, 1.0]]);
        let picture = Camera::new(1).picture();
        for _ in 0..2 {
            assert_eq!(masked.measure(&picture, WIDTH, FRAME_S), None);
        }
        // Sides of a cell that have no code of their own: 24 and 40.
        for width in [2560, 4096] {
            let mut large = Motion::new(width, 480, &settings);
            let luma = vec![50; width * 480];
            large.measure(&luma, width, FRAME_S);
            assert_eq!(large.measure(&luma, width, FRAME_S), Some(0.0));
        }
    }
}
