//! What goes wrong, over a double that does it on demand.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::{
    Copies, Fail, Place, Random, Segment, Shape, assert_close, clock, fault, memory, number,
    over_double, resampled,
};
use framebus_cuda::{
    BufferSet, CudaError, Device, Element, Frame, HostAccess, Lane, Outputs, RunError, Spec,
};
use framebus_vision::Colour;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const SIZE: [usize; 2] = [32, 32];
const VALUES: usize = 3 * 32 * 32;

struct World {
    place: Place,
    shape: Shape,
    lane: Arc<Lane<Copies>>,
    device: Device,
    _segment: Segment,
}

impl World {
    fn new() -> Self {
        let device = Device::open(0).unwrap();
        let network = Copies::input(&device, VALUES * Element::F32.bytes());
        let lane = Lane::new(&device, network).unwrap();
        let colour = Colour::default();
        let shape = Shape { width: 61, height: 35, stride: 64, uv_at: Some(64 * 35), colour };
        let segment = Segment::new(1 << 16);
        segment.write(0, &Random(5).bytes(shape.len()));
        let mut place = Place::new(1 << 16);
        place.show(&segment, 0);
        Self { place, shape, lane, device, _segment: segment }
    }

    fn set(&self) -> BufferSet<Copies> {
        self.try_set().unwrap()
    }

    fn try_set(&self) -> Result<BufferSet<Copies>, CudaError> {
        let outputs = Outputs::Whole { values: vec![VALUES], element: Element::F32 };
        let [width, height] = SIZE;
        let input = Element::F32;
        let spec = Spec { height, width, input, max_batch: 4, outputs, graphs: true };
        BufferSet::new(&self.device, &self.lane, spec)
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            view: self.shape.view(self.place.bytes(0, self.shape.len())),
            letterbox: self.shape.letterbox(SIZE),
            confidence: 0.5,
            memory: memory(1, 1),
        }
    }

    /// Call `call` from now on, counted from 1, goes wrong.
    fn fail(&self, call: usize, how: Fail) {
        let set = |network: &mut Copies| {
            network.fails = Some((network.calls + call, how));
        };
        self.lane.with_network(|network, _| set(network)).unwrap();
    }

    fn assert_works(&self, set: &mut BufferSet<Copies>, batch: usize) {
        let frames = vec![self.frame(); batch];
        set.run(&frames, clock).unwrap();
        let want = resampled(&self.frame().view, SIZE);
        for index in 0..batch {
            assert_close(set.output(0, index), &want, 0.15, "after the fault");
        }
    }
}

#[test]
fn out_of_memory_passes() {
    over_double("out_of_memory_passes", "", || {
        let world = World::new();
        fault("oom");
        let Err(error) = world.try_set() else { panic!("there is no memory") };
        let text = error.to_string();
        assert!(text.contains("CUDA_ERROR_OUT_OF_MEMORY (2)"), "{text}");
        assert!(!error.is_lost());
        fault("");
        let mut set = world.set();
        // Room for pixels comes with the first frame.
        fault("oom");
        let error = set.run(&[world.frame()], clock).unwrap_err();
        assert!(matches!(&error, RunError::Cuda(CudaError::Call { code: 2, .. })), "{error}");
        assert!(!error.is_lost());
        assert!(set.output(0, 0).is_empty(), "no answer of a batch that failed");
        fault("");
        world.assert_works(&mut set, 1);
    });
}

#[test]
fn a_failed_launch_loses_the_device() {
    over_double("a_failed_launch_loses_the_device", "", || {
        let world = World::new();
        let mut set = world.set();
        world.assert_works(&mut set, 2);
        fault("launch");
        let error = set.run(&[world.frame(); 2], clock).unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(error.to_string().contains("CUDA_ERROR_LAUNCH_FAILED (719)"), "{error}");
        fault("");
        assert!(set.run(&[world.frame()], clock).unwrap_err().is_lost());
        assert!(set.infer_only().unwrap_err().is_lost());
    });
}

#[test]
fn a_lost_device_is_said_to_be_lost() {
    over_double("a_lost_device_is_said_to_be_lost", "", || {
        let world = World::new();
        let mut set = world.set();
        world.assert_works(&mut set, 1);
        fault("lost");
        let error = set.run(&[world.frame()], clock).unwrap_err();
        assert!(error.is_lost(), "{error}");
        assert!(set.run(&[world.frame()], clock).unwrap_err().is_lost());
        assert!(Device::open(0).is_err());
    });
}

#[test]
fn an_error_or_a_panic_of_the_network_costs_one_batch() {
    over_double("an_error_or_a_panic_of_the_network_costs_one_batch", "", || {
        let world = World::new();
        let mut set = world.set();
        world.fail(1, Fail::Error);
        let error = set.run(&[world.frame()], clock).unwrap_err();
        assert_eq!(error.to_string(), "network: no words");
        assert!(!error.is_lost());
        world.assert_works(&mut set, 1);
        world.fail(1, Fail::Panic);
        let frames = [world.frame(); 2];
        catch_unwind(AssertUnwindSafe(|| set.run(&frames, clock))).unwrap_err();
        world.assert_works(&mut set, 2);
        // In the middle of being recorded.
        world.fail(2, Fail::Panic);
        let frames = [world.frame(); 3];
        catch_unwind(AssertUnwindSafe(|| set.run(&frames, clock))).unwrap_err();
        world.assert_works(&mut set, 3);
    });
}

#[test]
fn without_a_graph_batches_are_launched_piece_by_piece() {
    over_double("without_a_graph_batches_are_launched_piece_by_piece", "", || {
        let world = World::new();
        let mut set = world.set();
        // The second call is the one that is recorded.
        world.fail(2, Fail::Error);
        for _ in 0..3 {
            world.assert_works(&mut set, 1);
        }
        assert_eq!(number("graph_launches"), 0);
        assert_eq!(number("graphs"), 0);
        for _ in 0..3 {
            world.assert_works(&mut set, 2);
        }
        assert_eq!(number("graph_launches"), 2);
        assert_eq!(number("graphs"), 1);
    });
}

#[test]
fn frames_are_free_when_a_batch_fails() {
    over_double("frames_are_free_when_a_batch_fails", "", || {
        let world = World::new();
        let mut set = world.set();
        let frames = [world.frame(); 4];
        // Each copy takes 20 ms, the error comes at once.
        fault("slow-copy=20000");
        world.fail(1, Fail::Error);
        set.run(&frames, clock).unwrap_err();
        let copied = number("copies_h2d_bytes");
        assert!(copied >= 4 * 61 * 35, "{copied} bytes were copied before the frames were free");
        let (_keep, nothing) = std::sync::mpsc::channel::<()>();
        nothing.recv_timeout(std::time::Duration::from_millis(200)).unwrap_err();
        assert_eq!(number("copies_h2d_bytes"), copied);
        fault("");
        world.assert_works(&mut set, 4);
    });
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_enqueued() {
    over_double("what_does_not_fit_is_refused_before_anything_is_enqueued", "", || {
        let world = World::new();
        let mut set = world.set();
        let refused = |error: RunError| (error.is_lost(), error.to_string());
        let text = "a batch of 0 frames; 1 to 4 fit".to_owned();
        assert_eq!(refused(set.run(&[], clock).unwrap_err()), (false, text));
        let text = "a batch of 5 frames; 1 to 4 fit".to_owned();
        assert_eq!(refused(set.run(&[world.frame(); 5], clock).unwrap_err()), (false, text));
        let letterbox = world.shape.letterbox([64, 64]);
        let other = Frame { letterbox, ..world.frame() };
        let (_, text) = refused(set.run(&[world.frame(), other], clock).unwrap_err());
        assert!(text.starts_with("frame 1 of the batch: 61x35 pixels with a letterbox"), "{text}");
        assert_eq!(number("copies_h2d"), 0);
        let spec = |outputs| Spec {
            height: 32,
            width: 32,
            input: Element::F16,
            max_batch: 1,
            outputs,
            graphs: false,
        };
        let none = Outputs::Whole { values: vec![], element: Element::F32 };
        let (scales, element) = (vec![], Element::F32);
        let head = Outputs::Heads { scales, bins: 16, classes: 80, element };
        for outputs in [none, head] {
            let made = BufferSet::new(&world.device, &world.lane, spec(outputs));
            assert!(matches!(made, Err(CudaError::Spec { .. })));
        }
    });
}

#[test]
fn frames_reach_the_device_when_registration_is_refused() {
    over_double("frames_reach_the_device_when_registration_is_refused", "", || {
        let world = World::new();
        assert_eq!(world.device.info().host_access, HostAccess::Registered);
        fault("register");
        let mut set = world.set();
        for _ in 0..3 {
            world.assert_works(&mut set, 2);
        }
        assert_eq!(number("registered"), 0);
    });
}
