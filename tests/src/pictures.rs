//! The pictures of the set-up, and what engines found in them.

use crate::{Expected, Found, assets::asset};
use framebus_engine::BatchOutput;
use framebus_vision::{Colour, FrameView, Planes};

/// A decoded picture, RGB.
#[derive(Debug)]
pub struct Picture {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Picture {
    /// The picture `media/<name>.jpg`; `None`, after saying SKIPPED, where it is missing.
    ///
    /// # Panics
    /// When it is missing and `FRAMEBUS_REQUIRE_ASSETS=1`, or no picture.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        let pixels = image::open(asset(&format!("media/{name}.jpg"))?).expect("a picture");
        let pixels = pixels.into_rgb8();
        let (width, height) = (pixels.width() as usize, pixels.height() as usize);
        Some(Self { width, height, data: pixels.into_raw() })
    }

    /// For an engine.
    ///
    /// # Panics
    /// Never: a picture has its size.
    #[must_use]
    pub fn view(&self) -> FrameView<'_> {
        let planes = Planes::Rgb24 { data: &self.data, stride: 3 * self.width };
        FrameView::new(self.width, self.height, planes, Colour::default()).expect("a picture")
    }
}

/// What an engine found in frame `index` of a batch.
#[must_use]
pub fn found(labels: &[String], output: &BatchOutput, index: usize) -> Vec<Found> {
    let one = |found: &framebus_vision::Detection| Found {
        label: labels[found.class as usize].clone(),
        class: found.class,
        score: found.score,
        bbox: found.bbox,
    };
    output.frames[index].detections.iter().map(one).collect()
}

/// The same as what another engine shall find.
#[must_use]
pub fn expected(found: &[Found]) -> Vec<Expected> {
    let one = |found: &Found| Expected {
        label: found.label.clone(),
        score: f64::from(found.score),
        bbox: found.bbox.map(f64::from),
    };
    found.iter().map(one).collect()
}
