"""What reading costs: `python cost.py INSTANCE SECONDS CAMERA…` reads all results and the
frames of these cameras, in place, and says how much of a core that took."""

import sys
import time

from framebus import Client, Frames, Selector

instance, seconds, *cameras = sys.argv[1:]
client = Client(instance)
results = client.results()
streams = [results, *(client.frames(camera) for camera in cameras)]
selector = Selector(*streams)
taken = found = seen = bright = 0
begin, cpu = time.monotonic(), time.process_time()
while (left := begin + float(seconds) - time.monotonic()) > 0:
    for stream in selector.wait(left):
        while (item := stream.poll()) is not None:
            if isinstance(stream, Frames):
                with item as frame:
                    seen += 1
                    bright += int(frame.y[frame.height // 2].mean())
            else:
                taken += 1
                found += len(item.detections)
spent, passed = time.process_time() - cpu, time.monotonic() - begin
missed = sum(stream.lost for stream in streams) - results.lost
boxes = found / max(1, taken)
print(f"{taken / passed:.1f} results/s with {boxes:.1f} detections, {results.lost} lost")
print(f"{seen / passed:.1f} frames/s in place, {missed} lost")
each_us = 1e6 * spent / max(1, taken + seen)
print(f"{100 * spent / passed:.2f} % of a core, {each_us:.0f} us a sample")
