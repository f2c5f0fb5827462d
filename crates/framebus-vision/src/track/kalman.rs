//! Where a box will be: one constant-velocity Kalman filter for each of centre x, centre y,
//! width and height.
//!
//! SORT (Bewley et al. 2016, arXiv:1602.00763) and ByteTrack (Zhang et al. 2022,
//! arXiv:2110.06864) have one filter of eight states whose covariance never couples two of
//! these values; four filters of two states are the same arithmetic. Their noise is given
//! per frame. Here it is a density over time, chosen such that a step of 1/30 s has
//! ByteTrack's figures, because cameras differ in their rate and frames may be missing.

/// ByteTrack's noise is that of videos with so many frames a second.
const REFERENCE_FPS: f64 = 30.0;
/// Standard deviation of a measured value and of one step of position, as a share of the
/// object's size (`std_weight_position` of ByteTrack).
const POSITION: f64 = 1.0 / 20.0;
/// The same of one step of velocity, per frame (`std_weight_velocity`).
const VELOCITY: f64 = 1.0 / 160.0;
/// Standard deviations of a new track: twice a measurement and ten steps of velocity.
const FIRST: (f64, f64) = (2.0, 10.0);
/// Least size in pixels that noise is taken from, and that a prediction shrinks to.
const SMALLEST: f64 = 1.0;

/// One value and its rate of change, in pixels and pixels a second.
#[derive(Debug, Clone, Copy)]
struct Axis {
    value: f64,
    rate: f64,
    /// Covariance: of the value, of value and rate, of the rate.
    covariance: [f64; 3],
}

impl Axis {
    fn new(value: f64, size: f64) -> Self {
        let deviation = FIRST.0 * POSITION * size;
        let rate = FIRST.1 * VELOCITY * size * REFERENCE_FPS;
        Self { value, rate: 0.0, covariance: [deviation * deviation, 0.0, rate * rate] }
    }

    fn predict(&mut self, seconds: f64, size: f64) {
        let position = (POSITION * size).powi(2) * REFERENCE_FPS;
        let velocity = (VELOCITY * size * REFERENCE_FPS).powi(2) * REFERENCE_FPS;
        let [value, both, rate] = self.covariance;
        self.value += self.rate * seconds;
        self.covariance = [
            value + seconds * (2.0 * both + seconds * rate + position),
            both + seconds * rate,
            rate + seconds * velocity,
        ];
    }

    fn correct(&mut self, measured: f64, size: f64) {
        let noise = (POSITION * size).powi(2);
        let [value, both, rate] = self.covariance;
        let (gain, rate_gain) = (value / (value + noise), both / (value + noise));
        let error = measured - self.value;
        self.value += gain * error;
        self.rate += rate_gain * error;
        self.covariance = [(1.0 - gain) * value, (1.0 - gain) * both, rate - rate_gain * both];
    }
}

/// The filters of one box.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoxFilter {
    /// Centre x, centre y, width, height.
    axes: [Axis; 4],
}

fn measure(bbox: [f32; 4]) -> [f64; 4] {
    let [left, top, right, bottom] = bbox.map(f64::from);
    [f64::midpoint(left, right), f64::midpoint(top, bottom), right - left, bottom - top]
}

impl BoxFilter {
    pub(super) fn new(bbox: [f32; 4]) -> Self {
        let values = measure(bbox);
        let size = |axis: usize| values[2 + axis % 2].max(SMALLEST);
        Self { axes: std::array::from_fn(|axis| Axis::new(values[axis], size(axis))) }
    }

    /// Width for what is horizontal, height for what is vertical, as BoT-SORT has it
    /// (Aharon et al. 2022, arXiv:2206.14651): a long object is not as unsure across.
    fn sizes(&self) -> [f64; 2] {
        [self.axes[2].value.max(SMALLEST), self.axes[3].value.max(SMALLEST)]
    }

    pub(super) fn predict(&mut self, seconds: f64) {
        let sizes = self.sizes();
        for (axis, filter) in self.axes.iter_mut().enumerate() {
            filter.predict(seconds, sizes[axis % 2]);
        }
        for size in &mut self.axes[2..] {
            size.value = size.value.max(SMALLEST);
        }
    }

    pub(super) fn correct(&mut self, bbox: [f32; 4]) {
        let sizes = self.sizes();
        for ((axis, filter), value) in self.axes.iter_mut().enumerate().zip(measure(bbox)) {
            filter.correct(value, sizes[axis % 2]);
        }
    }

    /// What is out of sight neither grows nor shrinks, as in ByteTrack.
    pub(super) fn keep_size(&mut self) {
        for size in &mut self.axes[2..] {
            size.rate = 0.0;
        }
    }

    /// Nothing moves.
    pub(super) fn halt(&mut self) {
        for axis in &mut self.axes {
            axis.rate = 0.0;
        }
    }

    /// Left, top, right, bottom in pixels.
    pub(super) fn bbox(&self) -> [f32; 4] {
        let [x, y, width, height] = self.axes.map(|axis| axis.value);
        let (width, height) = (width.max(SMALLEST) / 2.0, height.max(SMALLEST) / 2.0);
        [x - width, y - height, x + width, y + height].map(|value| value as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of ByteTrack's filter at its own rate, written as its paper's code does:
    /// one step adds the noise of one frame.
    #[test]
    fn at_thirty_frames_a_second_the_figures_are_bytetracks() {
        let mut axis = Axis::new(100.0, 80.0);
        assert_eq!(axis.covariance, [64.0, 0.0, 22500.0], "(2 h / 20)^2, (10 h / 160)^2 a frame");
        axis.predict(1.0 / 30.0, 80.0);
        let [value, both, rate] = axis.covariance;
        // 64 + 25 of the velocity + 16 of one step's noise; per frame: 25 + 0.25.
        assert!((value - 105.0).abs() < 1e-9, "{value}");
        assert!((both / 30.0 - 25.0).abs() < 1e-9, "{both}");
        assert!((rate / 900.0 - 25.25).abs() < 1e-9, "{rate}");
        axis.correct(110.0, 80.0);
        let gain = 105.0 / (105.0 + 16.0);
        assert!((axis.value - (100.0 + 10.0 * gain)).abs() < 1e-9, "{}", axis.value);
        assert!((axis.rate / 30.0 - 10.0 * 25.0 / 121.0).abs() < 1e-9, "{}", axis.rate);
    }

    #[test]
    fn velocity_is_learned_whatever_the_rate() {
        for fps in [2.0, 5.0, 15.0, 25.0, 60.0] {
            let at = |seconds: f64| {
                let x = (100.0 + 60.0 * seconds) as f32;
                [x, 50.0, x + 40.0, 130.0]
            };
            let mut filter = BoxFilter::new(at(0.0));
            let frames = (4.0 * fps) as usize;
            for frame in 1..=frames {
                filter.predict(1.0 / fps);
                filter.correct(at(frame as f64 / fps));
            }
            filter.predict(0.5);
            let (have, want) = (filter.bbox(), at(frames as f64 / fps + 0.5));
            for (have, want) in have.into_iter().zip(want) {
                assert!((have - want).abs() < 4.0, "{fps} fps: {have} for {want}");
            }
        }
    }

    #[test]
    fn a_prediction_never_turns_inside_out() {
        let mut filter = BoxFilter::new([0.0, 0.0, 100.0, 100.0]);
        filter.predict(0.04);
        filter.correct([40.0, 40.0, 60.0, 60.0]);
        filter.predict(30.0);
        let [left, top, right, bottom] = filter.bbox();
        assert!(right - left >= 0.9 && bottom - top >= 0.9, "{:?}", filter.bbox());
    }
}
