"""Events over the real bus."""

import ctypes
import logging
import unittest

import iceoryx2 as iox
from framebus import Client, Direction, EventKind, VersionError, layout
from framebus.checks import check_event
from framebus.errors import BadHeader
from instance import EVENT_SENT, Instance


def event(number: int, **fields: object) -> layout.Event:
    """An honest event."""
    made = layout.Event(version=layout.VERSION, kind=6, direction=1)
    made.camera, made.place, made.label = b"front", b"door", b"person"
    made.epoch_ns, made.sequence, made.index, made.track = 0xAB, 40 + number, 1, 7
    made.event_epoch_ns, made.event_sequence, made.age_ns = 5, number, 2_500_000_000
    made.bbox[:] = [1.0, 2.0, 3.0, 4.0]
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Publisher:
    """The events service of an instance."""

    def __init__(self, instance: Instance) -> None:
        key = iox.ServiceName.new("events")
        node = instance._node
        self._service = (
            node.service_builder(key)
            .publish_subscribe(iox.Slice[layout.Event])
            .max_publishers(2)
            .max_subscribers(2)
            .subscriber_max_buffer_size(4)
            .subscriber_max_borrowed_samples(2)
            .history_size(0)
            .enable_safe_overflow(True)
            .create()
        )
        self._wakes = node.service_builder(key).event().event_id_max_value(3).create()
        builder = self._service.publisher_builder().initial_max_slice_len(8)
        self._publisher = builder.max_loaned_samples(2).create()
        builder = self._wakes.notifier_builder()
        self._notifier = builder.default_event_id(iox.EventId.new(EVENT_SENT)).create()

    def send(self, *events: layout.Event) -> None:
        """Sends one sample."""
        sample = self._publisher.loan_slice_uninit(len(events))
        size = ctypes.sizeof(layout.Event)
        for number, one in enumerate(events):
            ctypes.memmove(sample.payload_ptr + number * size, ctypes.addressof(one), size)
        sample.assume_init().send()
        self._notifier.notify()


class Events(unittest.TestCase):
    """As an instance sends them."""

    def test_events_come_in_order_with_losses_and_lies_counted(self) -> None:
        logging.disable(logging.WARNING)
        self.addCleanup(logging.disable, logging.NOTSET)
        with Instance() as instance:
            publisher = Publisher(instance)
            with Client(instance.name, instance.root) as client, client.events() as events:
                self.assertIsNone(events.wait(0.05))
                publisher.send(event(0), event(1, kind=99), event(2, kind=3, direction=0))
                publisher.send(event(5))
                first, second, third = (events.wait(5) for _ in range(3))
                assert first and second and third
                self.assertIsNone(events.poll())
                self.assertEqual(
                    (first.kind, first.camera, first.place, first.direction, first.track),
                    (EventKind.CROSS, "front", "door", Direction.FORWARD, 7),
                )
                self.assertEqual((first.label, first.box), ("person", (1.0, 2.0, 3.0, 4.0)))
                self.assertEqual((first.id, first.age_s), ("front-ab-40-1", 2.5))
                self.assertEqual((second.kind, second.direction), (EventKind.ENTER, ""))
                self.assertEqual(third.event_sequence, 5)
                self.assertEqual(events.bad_headers, 1)
                # The one that lies cannot be counted, and three are missing before the last.
                self.assertEqual(events.lost, 3)

    def test_a_slow_reader_loses_the_oldest(self) -> None:
        with Instance() as instance:
            publisher = Publisher(instance)
            with Client(instance.name, instance.root) as client, client.events() as events:
                publisher.send(event(0))
                self.assertIsNotNone(events.wait(5))
                for number in range(1, 10):
                    publisher.send(event(number))
                found = events.wait(5)
                assert found
                self.assertEqual((found.event_sequence, events.lost), (6, 5))

    def test_another_version_is_an_error(self) -> None:
        with self.assertRaises(VersionError):
            check_event(event(0, version=2))
        with self.assertRaises(BadHeader):
            check_event(event(0, direction=3))


if __name__ == "__main__":
    unittest.main()
