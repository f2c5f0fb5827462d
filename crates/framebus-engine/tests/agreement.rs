//! The real YOLOv8n with its head cut off against the same model as exported, and
//! camera-shaped inputs against square ones.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, asset, openvino, options, run, thresholds};
use framebus_engine::{Context, InputShape, LoadOptions, Mode, Shape, ShapePolicy};
use framebus_model::Model;
use framebus_vision::{Detection, iou};

const SQUARE: Shape = Shape { height: 640, width: 640 };

/// Every picture that the set-up fetches.
const PICTURES: [&str; 6] =
    ["bus", "giraffe", "zidane", "motorcyclists", "MichaelMiley", "Millenial-at-work"];

fn context(options: &LoadOptions) -> Option<Box<dyn Context>> {
    let backend = openvino()?;
    let model = Model::open(asset("models/yolov8n.onnx")?).unwrap();
    let mut engine = backend.load(&model, options).unwrap();
    engine.contexts(engine.info().base).unwrap().pop()
}

fn picture(name: &str) -> Option<Picture> {
    Some(common::decode(&asset(&format!("media/{name}.jpg"))?))
}

/// Noise that is the same everywhere.
fn noise(width: usize, height: usize) -> Picture {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    Picture { width, height, data: (0..3 * width * height).map(|_| next()).collect() }
}

/// Gives each of `some` over `limit` a partner of its own among `others`; the largest
/// differences of scores and of box sides in pixels.
fn paired(
    some: &[Detection],
    others: &[Detection],
    limit: f32,
    (score, pixels): (f32, f32),
) -> Result<(usize, f32, f32), Detection> {
    let differences = |a: &Detection, b: &Detection| {
        let sides = a.bbox.iter().zip(b.bbox).map(|(a, b)| (a - b).abs());
        ((a.score - b.score).abs(), sides.fold(0.0, f32::max))
    };
    let mut left = others.to_vec();
    let mut largest = (0, 0.0_f32, 0.0_f32);
    for one in some.iter().filter(|one| one.score > limit) {
        let partner = left.iter().position(|other| {
            let (by_score, by_pixels) = differences(one, other);
            other.class == one.class && by_score <= score && by_pixels <= pixels
        });
        let other = left.swap_remove(partner.ok_or(*one)?);
        let (by_score, by_pixels) = differences(one, &other);
        largest = (largest.0 + 1, largest.1.max(by_score), largest.2.max(by_pixels));
    }
    Ok(largest)
}

#[test]
fn the_cut_model_answers_as_the_whole_one() {
    let whole = LoadOptions { as_is: true, ..options() };
    let cut = LoadOptions { input: InputShape::Fixed(SQUARE), ..options() };
    let (Some(mut whole), Some(mut cut)) = (context(&whole), context(&cut)) else { return };
    // Noise shows no object: there the weak scores are compared.
    let mut cases = vec![("noise", noise(640, 640), 1e-4, 1e-6)];
    for name in ["bus", "giraffe", "zidane"] {
        let Some(picture) = picture(name) else { return };
        cases.push((name, picture, 0.25, 0.002));
    }
    for (name, picture, confidence, score) in cases {
        // What one has just over the threshold the other may have just below.
        let found = |context: &mut dyn Context| {
            run(context, &picture, &thresholds(confidence - score, 0.7)).unwrap()
        };
        let (whole, cut) = (found(whole.as_mut()), found(cut.as_mut()));
        let limit = confidence + score;
        let there = paired(&whole, &cut, limit, (score, 0.5))
            .unwrap_or_else(|one| panic!("{name}: {one:?} is not among the cut model's {cut:?}"));
        let back = paired(&cut, &whole, limit, (score, 0.5)).unwrap_or_else(|one| {
            panic!("{name}: {one:?} is not among the whole model's {whole:?}")
        });
        assert_eq!(there.0, back.0, "{name}");
        assert!(there.0 > 0, "{name}: nothing to compare");
        println!(
            "{name}: {} boxes over {limit} differ by at most {:.1e} in score and {:.1e} pixels",
            there.0, there.1, there.2
        );
    }
}

#[test]
fn camera_shaped_inputs_find_what_square_ones_find() {
    let square = LoadOptions { input: InputShape::Fixed(SQUARE), ..options() };
    let Some(mut square) = context(&square) else { return };
    let Some(backend) = openvino() else { return };
    let model = Model::open(asset("models/yolov8n.onnx").unwrap()).unwrap();
    let mut engine = backend.load(&model, &options()).unwrap();
    let policy = engine.info().shapes;
    assert_eq!(policy, ShapePolicy::CameraShaped { side: 640, stride: 32 });
    assert_eq!(engine.info().base, Shape { height: 384, width: 640 });
    let mut shaped: Vec<(Shape, Box<dyn Context>)> = Vec::new();
    let (mut all, mut found_again) = (0, 0);
    for name in PICTURES {
        let Some(whole) = picture(name) else { return };
        // What cameras of other formats would see of it.
        for view in [whole.crop(16, 9), whole.crop(4, 3), whole.crop(9, 16), whole.mirrored()] {
            let shape = policy.shape_for(view.width, view.height);
            let index = shaped.iter().position(|(known, _)| *known == shape);
            let index = index.unwrap_or_else(|| {
                shaped.push((shape, engine.contexts(shape).unwrap().pop().unwrap()));
                shaped.len() - 1
            });
            let want = run(square.as_mut(), &view, &thresholds(0.4, 0.7)).unwrap();
            let have = run(shaped[index].1.as_mut(), &view, &thresholds(0.25, 0.7)).unwrap();
            for box_ in &want {
                let again = have
                    .iter()
                    .any(|other| other.class == box_.class && iou(other.bbox, box_.bbox) >= 0.5);
                all += 1;
                found_again += usize::from(again);
                if !again {
                    println!("{name} {}x{} lost {box_:?}", view.width, view.height);
                }
            }
        }
    }
    let shapes: Vec<String> = shaped.iter().map(|(shape, _)| shape.to_string()).collect();
    println!("{found_again} of {all} boxes over 0.4 found again in {}", shapes.join(", "));
    assert!(all >= 100, "only {all} boxes to compare");
    assert!(found_again as f64 >= 0.98 * f64::from(all as u32), "{found_again} of {all}");
}

#[test]
fn shapes_are_handed_out_once_and_refused_when_they_are_none() {
    let Some(backend) = openvino() else { return };
    let Some(path) = asset("models/yolov8n.onnx") else { return };
    let model = Model::open(path).unwrap();
    let options = LoadOptions { mode: Mode::Throughput, contexts: 2, ..options() };
    let mut engine = backend.load(&model, &options).unwrap();
    let (base, tall) = (engine.info().base, Shape { height: 640, width: 384 });
    for shape in [base, tall] {
        assert_eq!(engine.contexts(shape).unwrap().len(), 2);
        assert!(engine.contexts(shape).unwrap().is_empty());
    }
    let error = engine.contexts(Shape { height: 360, width: 640 }).err().expect("refused");
    assert!(error.to_string().contains("multiples of 32 pixels"), "{error}");
    // A refused shape leaves the others usable.
    assert_eq!(engine.contexts(Shape { height: 480, width: 640 }).unwrap().len(), 2);

    let fixed = LoadOptions { input: InputShape::Fixed(tall), ..options };
    let mut engine = backend.load(&model, &fixed).unwrap();
    assert_eq!(engine.info().shapes, ShapePolicy::Fixed(tall));
    let error = engine.contexts(base).err().expect("refused");
    assert!(error.to_string().contains("it was loaded for 640x384"), "{error}");
}
