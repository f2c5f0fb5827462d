//! A clip's detections against the same engine fed by a plain f64 letterbox of
//! the same samples: what colour conversion and resampling cost in boxes.

use framebus_bus::{Bus, Delivery};
use framebus_engine::{BatchOutput, FrameRequest, InputShape, LoadOptions, Precision};
use framebus_engine::{Thresholds, backend};
use framebus_model::Model;
use framebus_tests::{Collector, Expected, World, asset, matches, openvino};
use framebus_types::{ChromaSite, ColourMatrix, ColourRange, Fourcc, Outcome};
use framebus_vision::{Colour, FrameView, Planes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Every eighth frame is compared.
const STEP: u64 = 8;
/// Side of the network's square input.
const SIDE: usize = 640;
/// Side of the reference picture.
const DOUBLE: usize = 2 * SIDE;

/// NV12 samples with what their header says of them.
struct Nv12 {
    sequence: u64,
    width: usize,
    height: usize,
    colour: (ColourMatrix, ColourRange, ChromaSite),
    luma: (Vec<u8>, usize),
    chroma: (Vec<u8>, usize),
}

/// Geometry of the letterbox: scale per axis, offsets.
struct Geometry {
    scale: [f64; 2],
    inside: [usize; 2],
    offset: [usize; 2],
}

impl Geometry {
    fn new(width: usize, height: usize) -> Self {
        let scale = (SIDE as f64 / width as f64).min(SIDE as f64 / height as f64);
        let inside = [width, height].map(|side| (side as f64 * scale).round() as usize);
        let offset = inside.map(|side| ((SIDE - side) as f64 / 2.0 - 0.1).round() as usize);
        let scale = [inside[0] as f64 / width as f64, inside[1] as f64 / height as f64];
        Self { scale, inside, offset }
    }
}

impl Nv12 {
    /// Linear between the four samples around, the border repeated.
    fn sample((bytes, stride): (&[u8], usize), step: usize, size: [usize; 2], at: [f64; 2]) -> f64 {
        let clamped = [0, 1].map(|axis| at[axis].clamp(0.0, size[axis] as f64 - 1.0));
        let low = clamped.map(|value| value.floor() as usize);
        let high = [0, 1].map(|axis| (low[axis] + 1).min(size[axis] - 1));
        let part = [clamped[0] - low[0] as f64, clamped[1] - low[1] as f64];
        let value = |x: usize, y: usize| f64::from(bytes[y * stride + x * step]);
        let row = |y: usize| value(low[0], y) * (1.0 - part[0]) + value(high[0], y) * part[0];
        row(low[1]) * (1.0 - part[1]) + row(high[1]) * part[1]
    }

    /// R, G, B in 0..=1 at a place in luma pixels.
    fn rgb(&self, x: f64, y: f64) -> [f64; 3] {
        let (matrix, range, site) = self.colour;
        let half = [self.width.div_ceil(2), self.height.div_ceil(2)];
        let chroma_x = if site == ChromaSite::Left { x / 2.0 } else { (x - 0.5) / 2.0 };
        let at = [chroma_x, (y - 0.5) / 2.0];
        let whole = [self.width, self.height];
        let luma = Self::sample((&self.luma.0, self.luma.1), 1, whole, [x, y]);
        let (pairs, stride) = (&self.chroma.0, self.chroma.1);
        let cb = Self::sample((pairs, stride), 2, half, at) - 128.0;
        let cr = Self::sample((&pairs[1..], stride), 2, half, at) - 128.0;
        let (luma, cb, cr) = match range {
            ColourRange::Limited => ((luma - 16.0) / 219.0, cb / 224.0, cr / 224.0),
            ColourRange::Full => (luma / 255.0, cb / 255.0, cr / 255.0),
        };
        let (kr, kb) = match matrix {
            ColourMatrix::Bt601 => (0.299, 0.114),
            ColourMatrix::Bt709 => (0.2126, 0.0722),
            ColourMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let red = luma + 2.0 * (1.0 - kr) * cr;
        let blue = luma + 2.0 * (1.0 - kb) * cb;
        let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|value| value.clamp(0.0, 1.0))
    }

    /// The network's input as an RGB picture of twice its size: four bytes
    /// average to one value of the input, which is thereby exact to an eighth
    /// of 1/255. Single bytes move scores of weak boxes by 0.02.
    fn letterbox(&self, geometry: &Geometry) -> Vec<u8> {
        let mut input = vec![114_u8; 3 * DOUBLE * DOUBLE];
        for row in 0..geometry.inside[1] {
            for column in 0..geometry.inside[0] {
                let x = (column as f64 + 0.5) / geometry.scale[0] - 0.5;
                let y = (row as f64 + 0.5) / geometry.scale[1] - 0.5;
                let left = 2 * (column + geometry.offset[0]);
                let top = 2 * (row + geometry.offset[1]);
                for (channel, value) in self.rgb(x, y).into_iter().enumerate() {
                    let quarters = (value * 255.0 * 4.0).round() as usize;
                    for part in 0..4 {
                        let (x, y) = (left + part % 2, top + part / 2);
                        let byte = quarters / 4 + usize::from(part < quarters % 4);
                        input[3 * (y * DOUBLE + x) + channel] = byte as u8;
                    }
                }
            }
        }
        input
    }
}

#[test]
fn a_clip_is_seen_as_a_plain_letterbox_sees_it() {
    let (Some(clip), Some(model)) = (asset("media/bikes.mp4"), asset("models/yolov8n.onnx")) else {
        return;
    };
    if !openvino() {
        return;
    }
    let world = World::new();
    let config = world.config(&format!(
        r#"
        [model]
        path = {model:?}
        precision = "f32"
        input = "{SIDE}x{SIDE}"
        [[camera]]
        name = "clip"
        source = "file:{}"
        pace = "fast"
        delivery = "every-frame"
        "#,
        clip.display()
    ));
    let results = Collector::start(&world.domain());
    // A second reader of every frame: the source waits for it too.
    let bus: Bus = Bus::open(&world.domain(), "frames").expect("bus");
    let subscriber =
        bus.frame_subscriber("clip", Delivery::EveryFrame, "frames").expect("a second reader");
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let reader = std::thread::spawn(move || {
        let (mut frames, mut seen) = (Vec::new(), 0_u64);
        while !ended.load(Ordering::Relaxed) {
            let _woken = subscriber.waker().wait(Duration::from_millis(20)).expect("the bus works");
            while let Some(frame) = subscriber.receive().expect("the bus works") {
                let header = frame.header();
                assert_eq!(header.sequence, seen, "every frame, in order");
                seen += 1;
                if header.sequence % STEP == 0 {
                    assert_eq!(frame.fourcc(), Fourcc::Nv12);
                    let plane = |n| {
                        let (bytes, stride) = frame.plane(n);
                        (bytes.to_vec(), stride)
                    };
                    frames.push(Nv12 {
                        sequence: header.sequence,
                        width: header.width as usize,
                        height: header.height as usize,
                        colour: (frame.matrix(), frame.range(), frame.chroma_site()),
                        luma: plane(0),
                        chroma: plane(1),
                    });
                }
            }
        }
        (frames, seen)
    });
    let exit = world.up(&config).wait(240);
    world.assert_ended();
    over.store(true, Ordering::Relaxed);
    let (frames, seen) = reader.join().expect("the reader saw every frame");
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(seen, 250);
    let rows = results.finish();
    assert_eq!(rows.len(), 250);

    let options = LoadOptions {
        precision: Precision::F32,
        input: InputShape::Fixed(framebus_engine::Shape { height: SIDE, width: SIDE }),
        ..LoadOptions::new(framebus_service::clock::monotonic_ns)
    };
    let model = Model::open(&model).expect("the model is one");
    let mut engine =
        backend("openvino").and_then(|b| b.load(&model, &options)).expect("the engine loads");
    let labels = engine.info().labels.clone();
    let mut context = engine.contexts(engine.info().base).unwrap().pop().expect("a context");
    let thresholds = Thresholds { confidence: 0.25, iou: 0.7, max_detections: 300, classes: None };
    let (mut output, mut boxes) = (BatchOutput::default(), 0);
    for frame in &frames {
        let geometry = Geometry::new(frame.width, frame.height);
        let data = frame.letterbox(&geometry);
        let planes = Planes::Rgb24 { data: &data, stride: 3 * DOUBLE };
        let view = FrameView::new(DOUBLE, DOUBLE, planes, Colour::default()).expect("a picture");
        context
            .run(&[FrameRequest { view, thresholds: &thresholds, memory: None }], &mut output)
            .expect("runs");
        let size = [frame.width as f64, frame.height as f64];
        let want: Vec<Expected> = output.frames[0]
            .detections
            .iter()
            .map(|found| Expected {
                label: labels[found.class as usize].clone(),
                score: f64::from(found.score),
                bbox: [0, 1, 2, 3].map(|edge| {
                    let axis = edge % 2;
                    let network = f64::from(found.bbox[edge]) / 2.0;
                    let inside = network - geometry.offset[axis] as f64;
                    (inside / geometry.scale[axis]).clamp(0.0, size[axis])
                }),
            })
            .collect();
        boxes += want.iter().filter(|expected| expected.score > 0.3).count();
        let row = &rows[frame.sequence as usize];
        assert_eq!((row.sequence, row.outcome), (frame.sequence, Outcome::Ok));
        matches(&want, &row.detections, 0.3, 0.98, 0.01, 0.3)
            .unwrap_or_else(|error| panic!("frame {}: {error}", frame.sequence));
    }
    assert_eq!(frames.len(), 32, "every eighth of 250");
    assert!(boxes >= 32, "{boxes} boxes are too few to mean anything");
}
