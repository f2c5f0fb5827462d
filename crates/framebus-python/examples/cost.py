"""What reading costs: `python cost.py INSTANCE SECONDS PACE CAMERA…` reads all results and
the frames of these cameras, in place, and says how much of a core that took. PACE is in
seconds, 0 for a wake-up per sample."""

import sys
import time

from framebus import Client, Frames, Selector

instance, seconds, pace, *cameras = sys.argv[1:]
client = Client(instance)
results = client.results(pace=float(pace))
streams = [results, *(client.frames(camera) for camera in cameras)]
selector = Selector(*streams, pace=float(pace))
taken = found = seen = bright = 0
lag = 0.0
begin, cpu = time.monotonic(), time.process_time()
while (left := begin + float(seconds) - time.monotonic()) > 0:
    if not cameras:
        # One stream needs no selector.
        if (result := results.wait(left)) is not None:
            taken += 1
            found += len(result.detections)
            lag += results.lag_ms
        continue
    for stream in selector.wait(left):
        while (item := stream.poll()) is not None:
            if isinstance(stream, Frames):
                with item as frame:
                    seen += 1
                    bright += int(frame.y[frame.height // 2].mean())
            else:
                taken += 1
                found += len(item.detections)
                lag += results.lag_ms
spent, passed = time.process_time() - cpu, time.monotonic() - begin
missed = sum(stream.lost for stream in streams) - results.lost
boxes, late_ms = found / max(1, taken), lag / max(1, taken)
print(f"{taken / passed:.1f} results/s with {boxes:.1f} detections, {results.lost} lost, "
      f"{late_ms:.1f} ms behind")  # fmt: skip
print(f"{seen / passed:.1f} frames/s in place, {missed} lost")
each_us = 1e6 * spent / max(1, taken + seen)
print(f"{100 * spent / passed:.2f} % of a core, {each_us:.0f} us a sample")
