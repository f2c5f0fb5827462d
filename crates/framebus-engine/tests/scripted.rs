//! The fake keeps the promises that scheduler tests build on.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use common::{Picture, thresholds};
use framebus_engine::scripted::{Action, Call, Gate, Script, ScriptedBackend};
use framebus_engine::{BatchOutput, Context, Engine, EngineError, FrameRequest, Shape};
use framebus_vision::Detection;
use std::time::Duration;

fn zero() -> u64 {
    0
}

const BASE: Shape = Shape { height: 640, width: 640 };

fn all(mut engine: Box<dyn Engine>) -> Vec<Box<dyn Context>> {
    engine.contexts(BASE).unwrap()
}

#[test]
fn steps_in_order_then_the_rest() {
    let object = Detection { bbox: [0.0, 0.0, 1.0, 1.0], score: 0.9, class: 1 };
    let script = Script { max_batch: 2, contexts: 2, ..Script::default() }
        .then(Action::Answer(vec![object]))
        .then(Action::Fail("out of memory".to_owned()))
        .then(Action::NotFinite);
    let backend = ScriptedBackend::new(script);
    let mut contexts = all(backend.engine(&["a", "b"], zero));
    assert_eq!(contexts.len(), 2);
    let (small, large) = (Picture::black(4, 2), Picture::black(8, 6));
    let limits = thresholds(0.25, 0.7);
    let request =
        |picture| FrameRequest { view: Picture::view(picture), thresholds: &limits, memory: None };
    let batch = [request(&small), request(&large)];
    let mut output = BatchOutput::default();

    contexts[1].run(&batch, &mut output).unwrap();
    assert_eq!(output.frames.len(), 2);
    assert_eq!(output.frames[1].detections, [object]);
    let text = contexts[0].run(&batch, &mut output).unwrap_err().to_string();
    assert!(text.contains("out of memory"), "{text}");
    let text = contexts[0].run(&batch, &mut output).unwrap_err().to_string();
    assert!(text.contains("not finite"), "{text}");
    contexts[0].run(&batch[..1], &mut output).unwrap();
    assert_eq!(output.frames[0].detections, []);
    assert_eq!(backend.calls()[0], Call { context: 1, shape: BASE, sizes: vec![(4, 2), (8, 6)] });
    assert_eq!(backend.calls().len(), 4);
}

#[test]
fn death_is_for_ever_and_for_every_context() {
    let script = Script { contexts: 2, ..Script::default() }.then(Action::Die);
    let mut contexts = all(ScriptedBackend::new(script).engine(&["a"], zero));
    let (picture, limits) = (Picture::black(4, 2), thresholds(0.25, 0.7));
    let batch = [FrameRequest { view: picture.view(), thresholds: &limits, memory: None }];
    for context in [0, 1, 0] {
        let answer = contexts[context].run(&batch, &mut BatchOutput::default());
        assert!(matches!(answer, Err(EngineError::Run { .. })));
    }
}

#[test]
fn a_gate_holds_a_call_until_the_test_says_so() {
    let gate = Gate::default();
    let script = Script { gate: Some(gate.clone()), ..Script::default() };
    let mut context = all(ScriptedBackend::new(script).engine(&["a"], zero)).pop().unwrap();
    let limit = Duration::from_secs(20);
    std::thread::scope(|scope| {
        let call = scope.spawn(move || {
            let (picture, limits) = (Picture::black(4, 2), thresholds(0.25, 0.7));
            let batch = [FrameRequest { view: picture.view(), thresholds: &limits, memory: None }];
            context.run(&batch, &mut BatchOutput::default())
        });
        assert!(gate.wait_for_waiting(1, limit));
        assert!(!call.is_finished());
        gate.release(1);
        call.join().unwrap().unwrap();
    });
}
