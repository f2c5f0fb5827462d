"""Touches the pixels, in place: prints the mean brightness of one camera's frames, and
what was found in them. `python pixels.py demo street`"""

import sys

from framebus import Client

instance, camera = sys.argv[1:3] if len(sys.argv) > 2 else ("default", "front")
pairs = Client(instance).joined(camera)
for frame, result in pairs:
    with frame:
        mean = frame.y.mean()  # read where the camera's process put it
    labels = ",".join(found.label for found in result.detections)
    print(f"{camera} #{frame.sequence} mean {mean:.1f} [{labels}], {pairs.frames.lost} lost",
          flush=True)  # fmt: skip
