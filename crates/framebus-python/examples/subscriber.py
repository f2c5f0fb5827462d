"""Prints every detection of an instance: `python subscriber.py demo`."""

import sys

from framebus import Client

for result in Client(sys.argv[1] if len(sys.argv) > 1 else "default").results():
    for found in result.detections:
        box = [round(edge, 1) for edge in found.box]
        print(result.camera, found.label, f"{found.score:.2f}", box, flush=True)
