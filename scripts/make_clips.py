#!/usr/bin/env python3
"""Makes the demo's and the tests' street footage out of still pictures.

usage: make_clips.py PICTURE_DIR OUT_DIR

Writes street1080.mp4 and street720.mp4: 12 s of H.264 at 30 frames/s, no B
frames, one key frame a second. Four shots of three seconds each, in each of
which the camera glides over a picture. Every pixel follows from the pictures,
so the frames are the same on every run. Standard library and GStreamer only.
"""

import math
import os
import subprocess
import sys
import tempfile

FPS = 30
FRAMES_PER_SHOT = 90
SIZES = (("street1080.mp4", 1920, 1080, 4000), ("street720.mp4", 1280, 720, 2000))
# Picture, its width over the frame's width, start and end of the glide as
# fractions of the room there is: (x, y).
SHOTS = (
    ("motorcyclists.jpg", 1.25, (0.0, 1.0), (1.0, 0.5)),
    ("bus.jpg", 1.10, (0.0, 0.45), (1.0, 0.75)),
    ("motorcyclists.jpg", 1.60, (1.0, 0.4), (0.1, 0.9)),
    ("zidane.jpg", 1.20, (0.0, 0.6), (1.0, 0.2)),
)


def still(path, width, scratch):
    """The picture as I420 of the given width: (width, height, planes)."""
    out = os.path.join(scratch, "still.y4m")
    # BT.709 is what GStreamer takes raw video of these sizes for, and so what
    # the clip is labelled as.
    caps = f"video/x-raw,format=I420,width={width},pixel-aspect-ratio=1/1,colorimetry=bt709"
    gst("filesrc", f"location={path}", "!", "jpegdec", "!", "videoconvert", "!",
        "videoscale", "method=lanczos", "!", caps, "!", "y4menc", "!", "filesink", f"location={out}")
    with open(out, "rb") as f:
        fields = f.readline().decode().split()
        if f.readline().rstrip() != b"FRAME":
            raise SystemExit(f"{path}: y4menc wrote no frame")
        data = f.read()
    w, h = (int(next(x[1:] for x in fields if x[0] == k)) for k in "WH")
    # Widths are multiples of 8 here, so rows carry no padding; GStreamer
    # rounds an odd number of luma rows up.
    strides = [w, w // 2, w // 2]
    rows = [h + h % 2, (h + 1) // 2, (h + 1) // 2]
    if len(data) != sum(s * r for s, r in zip(strides, rows)):
        raise SystemExit(f"{path}: {len(data)} bytes are no I420 picture of {w}x{h}")
    planes, at = [], 0
    for s, r in zip(strides, rows):
        planes.append((data[at:at + s * r], s))
        at += s * r
    return w, h, planes


def window(planes, x, y, w, h):
    """Cuts w x h at (x, y), all even, out of I420 planes."""
    out = []
    for i, (plane, stride) in enumerate(planes):
        d = 1 if i == 0 else 2
        first = (y // d) * stride + x // d
        out.extend(plane[first + row * stride:first + row * stride + w // d] for row in range(h // d))
    return b"".join(out)


def gst(*args, **kwargs):
    subprocess.run(["gst-launch-1.0", "-q", *args], check=True, **kwargs)


def encode(pictures, out, w, h, kbit, scratch):
    # One thread: x264 places its bits differently with another number.
    encoder = subprocess.Popen(
        ["gst-launch-1.0", "-q", "fdsrc", "fd=0", "!", "rawvideoparse", "format=i420", f"width={w}", f"height={h}",
         f"framerate={FPS}/1", "!", "x264enc", "threads=1", "speed-preset=veryfast", f"bitrate={kbit}", "bframes=0",
         f"key-int-max={FPS}", "!", "video/x-h264,profile=main", "!", "h264parse", "!", "mp4mux", "faststart=true", "!",
         "filesink", f"location={out}"],
        stdin=subprocess.PIPE)
    try:
        for name, zoom, start, end in SHOTS:
            path = os.path.join(pictures, name)
            pw, ph, planes = still(path, int(w * zoom) // 8 * 8, scratch)
            if ph < h:
                raise SystemExit(f"{path}: {pw}x{ph} is too flat for a frame of {w}x{h}")
            for k in range(FRAMES_PER_SHOT):
                # Starts and stops gently.
                p = 0.5 - 0.5 * math.cos(math.pi * k / (FRAMES_PER_SHOT - 1))
                x = int((pw - w) * (start[0] + (end[0] - start[0]) * p)) // 2 * 2
                y = int((ph - h) * (start[1] + (end[1] - start[1]) * p)) // 2 * 2
                encoder.stdin.write(window(planes, x, y, w, h))
    except BrokenPipeError:
        pass  # the encoder said why on stderr; its exit code is checked below
    finally:
        try:
            encoder.stdin.close()
        except BrokenPipeError:
            pass
        code = encoder.wait()
    if code != 0 or not os.path.exists(out):
        raise SystemExit(f"the encoder for {out} ended with code {code}")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        for name, w, h, kbit in SIZES:
            encode(sys.argv[1], os.path.join(sys.argv[2], name), w, h, kbit, scratch)


if __name__ == "__main__":
    main()
