//! Pictures and network outputs to measure with: noise, and objects of known
//! number on it.
#![allow(dead_code, unreachable_pub, reason = "each user takes its part as a module of its own")]

use framebus_vision::{
    Candidate, Colour, FrameError, FrameView, HeadScale, Observation, Planes, Thresholds,
};

/// Classes of the COCO models.
pub const CLASSES: usize = 80;
/// Bins of a distance in YOLOv8 and its successors.
pub const BINS: usize = 16;
/// Objects in every output.
pub const OBJECTS: usize = 50;
/// Cells or anchors that find each object.
const CELLS_PER_OBJECT: usize = 10;

/// The product's defaults.
pub const THRESHOLDS: Thresholds<'_> =
    Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `len` values from `low` to `high`.
    fn values(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        let unit = (high - low) / 65536.0;
        (0..len).map(|_| low + unit * (self.bits() >> 48) as f32).collect()
    }
}

/// A picture that owns its bytes.
pub struct Picture {
    width: usize,
    height: usize,
    rgb: bool,
    bytes: Vec<u8>,
}

impl Picture {
    pub fn new(width: usize, height: usize, rgb: bool) -> Self {
        let mut noise = Noise(1);
        let len = if rgb { 3 * width * height } else { width * height * 3 / 2 };
        let bytes = (0..len).map(|_| (noise.bits() >> 56) as u8).collect();
        Self { width, height, rgb, bytes }
    }

    pub fn view(&self) -> Result<FrameView<'_>, FrameError> {
        let Self { width, height, .. } = *self;
        let (y, uv) = self.bytes.split_at(width * height);
        let planes = if self.rgb {
            Planes::Rgb24 { data: &self.bytes, stride: 3 * width }
        } else {
            Planes::Nv12 { y, y_stride: width, uv, uv_stride: width }
        };
        FrameView::new(width, height, planes, Colour::default())
    }
}

/// Strides of the scales, and the objects that each of them finds.
const SCALES: [(usize, usize); 3] = [(8, 30), (16, 15), (32, 5)];

/// A cut head's output.
pub struct Heads {
    maps: Vec<Map>,
}

struct Map {
    boxes: Vec<f32>,
    classes: Vec<f32>,
    width: usize,
    height: usize,
    stride: usize,
}

impl Heads {
    /// The output for a network input of this size, multiples of 32.
    pub fn new(input_w: usize, input_h: usize) -> Self {
        let mut noise = Noise(2);
        let mut object = 0;
        let maps = SCALES.map(|(stride, objects)| {
            let (width, height) = (input_w / stride, input_h / stride);
            let cells = width * height;
            let mut map = Map {
                boxes: noise.values(4 * BINS * cells, -2.0, 2.0),
                classes: noise.values(CLASSES * cells, -12.0, -4.0),
                width,
                height,
                stride,
            };
            for _ in 0..objects {
                map.place(object);
                object += 1;
            }
            map
        });
        Self { maps: maps.into() }
    }

    pub fn scales(&self) -> Vec<HeadScale<'_>> {
        self.maps.iter().map(Map::scale).collect()
    }
}

impl Map {
    fn scale(&self) -> HeadScale<'_> {
        let &Self { ref boxes, ref classes, width, height, stride } = self;
        HeadScale { boxes, classes, width, height, stride }
    }

    /// An object that a patch of four by three cells answers for, less its end.
    fn place(&mut self, object: usize) {
        let cells = self.width * self.height;
        let left = object * 7 % (self.width - 4);
        let top = object * 5 % (self.height - 3);
        for i in 0..CELLS_PER_OBJECT {
            let (column, row) = (i % 4, i / 4);
            let cell = (top + row) * self.width + left + column;
            self.classes[object * 13 % CLASSES * cells + cell] = 2.0 - 0.1 * i as f32;
            let (x, y) = (column as f32, row as f32);
            for (side, distance) in [2.0 + x, 2.0 + y, 6.0 - x, 5.0 - y].into_iter().enumerate() {
                for bin in 0..BINS {
                    self.boxes[(side * BINS + bin) * cells + cell] =
                        -2.0 * (bin as f32 - distance).abs();
                }
            }
        }
    }
}

/// A whole network's dense output, channels first: `[4 + CLASSES, anchors]`.
pub fn dense(anchors: usize) -> Vec<f32> {
    let mut data = Noise(3).values((4 + CLASSES) * anchors, 0.0, 0.05);
    for (i, candidate) in candidates().into_iter().enumerate() {
        let anchor = i * (anchors / (OBJECTS * CELLS_PER_OBJECT));
        let [x1, y1, x2, y2] = candidate.bbox;
        let values = [(x1 + x2) / 2.0, (y1 + y2) / 2.0, x2 - x1, y2 - y1];
        for (channel, value) in values.into_iter().enumerate() {
            data[channel * anchors + anchor] = value;
        }
        data[(4 + candidate.class as usize) * anchors + anchor] = candidate.score;
    }
    data
}

/// Candidates of all objects, object by object, a class each.
pub fn candidates() -> Vec<Candidate> {
    (0..OBJECTS * CELLS_PER_OBJECT)
        .map(|i| {
            let (object, cell) = (i / CELLS_PER_OBJECT, (i % CELLS_PER_OBJECT) as f32);
            let (x, y) = (60.0 * (object % 10) as f32 + cell / 2.0, 70.0 * (object / 10) as f32);
            let class = (object * 13 % CLASSES) as u32;
            Candidate { bbox: [x, y, x + 40.0, y + 60.0], score: 0.9 - 0.01 * cell, class }
        })
        .collect()
}

/// A crowd in a 1080p picture at a step of its walk: persons of 60 x 150 in rows, each
/// overlapped by the next, all walking to the right with a jitter of their own.
pub fn crowd(count: usize, step: u16) -> Vec<Observation> {
    let mut noise = Noise(u64::from(step) + 1);
    let mut all = Vec::with_capacity(count);
    for index in 0..count {
        let jitter = noise.values(4, -2.0, 2.0);
        let (column, row) = (index % 38, index / 38);
        let x = column as f32 * 48.0 + 2.0 * f32::from(step % 25);
        let y = row as f32 * 110.0 + 10.0;
        let bbox = [x + jitter[0], y + jitter[1], x + 60.0 + jitter[2], y + 150.0 + jitter[3]];
        // Every fifth is half hidden.
        let score = if (index + usize::from(step)).is_multiple_of(5) { 0.3 } else { 0.9 };
        all.push(Observation { bbox, score, class: 0 });
    }
    all
}
