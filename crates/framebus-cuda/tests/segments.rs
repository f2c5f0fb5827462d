//! Shared memory that comes and goes under the frames.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

mod common;

use common::{
    Copies, Place, Random, Segment, Shape, assert_close, clock, fault, memory, number, over_double,
    over_double_or_gpu, resampled,
};
use framebus_cuda::{BufferSet, Device, Element, Frame, HostAccess, Lane, MemoryId, Outputs, Spec};
use framebus_vision::Colour;

const SIZE: [usize; 2] = [32, 32];
const VALUES: usize = 3 * 32 * 32;
const ROOM: usize = 1 << 14;

struct World {
    set: BufferSet<Copies>,
    shape: Shape,
    random: Random,
    place: Place,
}

fn set(device: &Device) -> BufferSet<Copies> {
    let network = Copies::input(device, VALUES * Element::F32.bytes());
    let lane = Lane::new(device, network).unwrap();
    let outputs = Outputs::Whole { values: vec![VALUES], element: Element::F32 };
    let [width, height] = SIZE;
    let input = Element::F32;
    let spec = Spec { height, width, input, max_batch: 1, outputs, graphs: true };
    BufferSet::new(device, &lane, spec).unwrap()
}

impl World {
    fn new(access: HostAccess) -> Self {
        let device = Device::open_with(0, Some(access)).unwrap();
        let set = set(&device);
        let colour = Colour::default();
        let shape = Shape { width: 50, height: 34, stride: 52, uv_at: Some(52 * 34), colour };
        Self { set, shape, random: Random(3), place: Place::new(4 * ROOM) }
    }

    fn segment(&mut self) -> Segment {
        let segment = Segment::new(ROOM);
        segment.write(0, &self.random.bytes(ROOM));
        segment
    }

    /// The frame at an address is what the device sees.
    fn assert_seen(&mut self, at: usize, memory: Option<MemoryId>) {
        let view = self.shape.view(self.place.bytes(at, self.shape.len()));
        let letterbox = self.shape.letterbox(SIZE);
        self.set.run(&[Frame { view, letterbox, confidence: 0.5, memory }], clock).unwrap();
        assert_close(self.set.output(0, 0), &resampled(&view, SIZE), 0.15, "a frame");
    }
}

#[test]
fn another_segment_at_the_same_address() {
    over_double_or_gpu("another_segment_at_the_same_address", "integrated=1", || {
        for access in [HostAccess::Mapped, HostAccess::Registered] {
            let mut world = World::new(access);
            for number in 1..5 {
                let segment = world.segment();
                world.place.show(&segment, 0);
                for at in [0, 4096, 5000] {
                    world.assert_seen(at, memory(7, number));
                }
            }
        }
    });
}

#[test]
fn an_older_segment_is_let_go() {
    over_double("an_older_segment_is_let_go", "", || {
        let mut world = World::new(HostAccess::Registered);
        let [old, new] = [world.segment(), world.segment()];
        world.place.show(&old, 0);
        world.place.show(&new, ROOM);
        world.assert_seen(0, memory(7, 1));
        assert_eq!(number("registered"), 1);
        world.assert_seen(ROOM, memory(7, 2));
        assert_eq!(number("registered"), 1);
        // What was sent before the memory grew is copied by the CPU.
        let staged = number("copies_h2d");
        world.assert_seen(0, memory(7, 1));
        world.assert_seen(ROOM, memory(7, 2));
        assert_eq!(number("copies_h2d") - staged, 4);
        assert_eq!(number("registered"), 1);
        // Another publisher's is another one.
        world.assert_seen(0, memory(8, 1));
        assert_eq!(number("registered"), 2);
    });
}

#[test]
fn segments_of_publishers_that_are_gone_are_let_go() {
    over_double("segments_of_publishers_that_are_gone_are_let_go", "", || {
        let mut world = World::new(HostAccess::Registered);
        for publisher in 1..20 {
            let segment = world.segment();
            world.place.show(&segment, 0);
            world.assert_seen(0, memory(publisher, 1));
            assert_eq!(number("registered"), 1, "those before it have no name any more");
        }
    });
}

#[test]
fn one_segment_mapped_twice_and_mapped_anew() {
    over_double_or_gpu("one_segment_mapped_twice_and_mapped_anew", "integrated=1", || {
        for access in [HostAccess::Mapped, HostAccess::Registered] {
            let mut world = World::new(access);
            let segment = world.segment();
            world.place.show(&segment, 0);
            world.place.show(&segment, 2 * ROOM);
            for at in [0, 2 * ROOM, 100, 2 * ROOM + 100] {
                world.assert_seen(at, memory(7, 1));
            }
            // A page on: old addresses hold other bytes of the same segment now.
            world.place.show(&segment, 4096);
            for at in [4096, 5000, 8192, 2 * ROOM] {
                world.assert_seen(at, memory(7, 1));
            }
        }
    });
}

#[test]
fn what_cannot_be_registered_is_copied_by_the_cpu() {
    over_double("what_cannot_be_registered_is_copied_by_the_cpu", "", || {
        let mut world = World::new(HostAccess::Registered);
        // Without a name.
        let segment = world.segment();
        world.place.show(&segment, 0);
        segment.delete();
        world.assert_seen(0, memory(1, 1));
        world.assert_seen(64, memory(1, 1));
        // Under an identity that was another file's.
        let [one, two] = [world.segment(), world.segment()];
        world.place.show(&one, 0);
        world.assert_seen(0, memory(2, 1));
        assert_eq!(number("registered"), 1);
        world.place.show(&two, 0);
        world.assert_seen(0, memory(2, 1));
        world.assert_seen(0, memory(2, 1));
        assert_eq!(number("registered"), 0);
        // No shared memory at all.
        world.assert_seen(0, None);
        let bytes = world.random.bytes(world.shape.len());
        let view = world.shape.view(&bytes);
        let letterbox = world.shape.letterbox(SIZE);
        let memory = memory(3, 1);
        world.set.run(&[Frame { view, letterbox, confidence: 0.5, memory }], clock).unwrap();
        assert_close(world.set.output(0, 0), &resampled(&view, SIZE), 0.15, "heap");
        assert_eq!(number("registered"), 0);
    });
}

#[test]
fn a_device_that_takes_no_read_only_memory_copies() {
    over_double("a_device_that_takes_no_read_only_memory_copies", "readonly=0", || {
        let mut world = World::new(HostAccess::Registered);
        let segment = world.segment();
        world.place.show(&segment, 0);
        world.assert_seen(0, memory(1, 1));
        world.assert_seen(9, memory(1, 1));
        assert_eq!(number("registered"), 0);
    });
}

#[test]
fn segments_are_bounded_and_the_least_used_goes() {
    over_double("segments_are_bounded_and_the_least_used_goes", "", || {
        let mut world = World::new(HostAccess::Registered);
        let segment = world.segment();
        world.place.show(&segment, 0);
        for publisher in 1..=70 {
            world.assert_seen(0, memory(publisher, 1));
            // Always in use.
            world.assert_seen(0, memory(1, 1));
            assert_eq!(number("registered"), publisher.min(64));
        }
    });
}

#[test]
fn buffers_grow_with_the_frames() {
    over_double_or_gpu("buffers_grow_with_the_frames", "", || {
        for access in [HostAccess::Registered, HostAccess::Staged] {
            let mut world = World::new(access);
            world.place = Place::new(1 << 24);
            let segment = Segment::new(1 << 24);
            segment.write(0, &world.random.bytes(1 << 20));
            world.place.show(&segment, 0);
            for (width, height) in [(64, 64), (1921, 1081), (3840, 2160), (333, 77)] {
                let stride = 2 * width;
                let uv_at = Some(stride * height);
                let colour = Colour::default();
                // Row by row, then in one piece.
                world.shape = Shape { width, height, stride, uv_at, colour };
                if world.shape.len() <= 1 << 24 {
                    world.assert_seen(0, memory(1, 1));
                }
                world.shape =
                    Shape { stride: width + 1, uv_at: Some((width + 1) * height), ..world.shape };
                world.assert_seen(3, memory(1, 1));
            }
        }
    });
}

#[test]
fn a_segment_stays_until_its_last_upload_is_done() {
    over_double("a_segment_stays_until_its_last_upload_is_done", "", || {
        let device = Device::open(0).unwrap();
        let shared = |device: &Device| World { set: set(device), ..World::new(HostAccess::Staged) };
        let [mut one, mut two] = [shared(&device), shared(&device)];
        let [old, new] = [one.segment(), two.segment()];
        one.place.show(&old, 0);
        two.place.show(&new, 0);
        fault("slow-copy=50000");
        std::thread::scope(|scope| {
            let uploading = scope.spawn(|| one.assert_seen(0, memory(7, 1)));
            while number("registered") == 0 {
                std::thread::yield_now();
            }
            // Takes the place of the other, whose copies are under way.
            let newer = scope.spawn(|| two.assert_seen(0, memory(7, 2)));
            while number("registered") < 2 {
                assert!(!uploading.is_finished(), "too fast to show anything");
                std::thread::yield_now();
            }
            uploading.join().unwrap();
            newer.join().unwrap();
        });
        assert_eq!(number("registered"), 1);
    });
}
