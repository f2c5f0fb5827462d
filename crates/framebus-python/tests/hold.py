"""Subscribes to everything, takes as many frames as it may, reads no result, and holds all
that until it is killed: `python hold.py INSTANCE ROOT CAMERA`"""

import sys
import time

from framebus import Client, HeldError

instance, root, camera = sys.argv[1:]
client = Client(instance, root)
results, frames = client.results(), client.frames(camera)
held = []
try:
    for frame in frames:
        held.append(frame.y)
except HeldError:
    # The exception refers to what was going on; nothing of it is a frame.
    sums = [int(luma.sum()) for luma in held]
print(f"holding {len(held)}", flush=True)
while True:
    time.sleep(0.2)
    if [int(luma.sum()) for luma in held] != sums:
        print("a frame changed under its reader", flush=True)
