#!/usr/bin/env python3
"""Makes synthetic footage of an idle camera, to measure the motion and idle gates with.

usage: make_idle_clip.py PICTURE_DIR OUT_DIR

Writes idle_day_gop30.mp4, idle_day_gop250.mp4 and idle_night_gop30.mp4, 60 s of
1080p H.264 at 30 frames/s with a key frame every 30 and 250 frames, and idle.json: when
something is to be seen. The scene is a still picture with the noise of a sensor: by day
what a camera's own filter leaves of it (Gaussian, sigma 1 step of luma), by night
sigma 3, with an encoder that is held to 2 Mbit/s. Now and then a person, cut out of another picture, walks through it. So the
footage is synthetic: nothing else moves, the light stays, the noise of one frame says
nothing of the next, and the cut-out has a rectangular edge. The encoder works as in a
camera: no B frames, no look-ahead, constant quality. Standard library and GStreamer
only; the same on every run.
"""

import json
import operator
import os
import random
import subprocess
import sys
import tempfile

from make_clips import still, window

FPS, SECONDS, W, H = 30, 60, 1920, 1080
# Name, sigma of the noise, limit in kbit/s, frames from one key frame to the next.
CLIPS = (("day", 1.0, 20000, (30, 250)), ("night", 3.0, 2048, (30,)))
# Rows of noise to draw from, for each row of the picture.
VARIANTS = 8
SCENE = "motorcyclists.jpg"
# The man on the left of bus.jpg, in pixels of that picture: x, y, width, height.
PERSON = ("bus.jpg", 52, 400, 196, 500)
# Height in pixels, start and end in seconds, row of the feet, first and last
# column, and how long the walk pauses in the middle in seconds.
WALKS = (
    (200, 8.0, 13.0, 1000, -80, W, 0.0),
    (120, 18.0, 23.0, 760, W, -60, 0.0),
    (80, 28.0, 33.0, 600, -40, W // 2, 0.0),
    (120, 38.2, 39.0, 900, 900, 960, 0.0),
    (48, 43.5, 47.5, 420, 1100, 1300, 0.0),
    (200, 50.3, 57.3, 1040, -80, W, 3.0),
)


def noisy(row, noise):
    """A row of luma with noise; `clamp` takes -64..319."""
    at = random.randrange(len(noise) - len(row))
    return bytes(map(CLAMP.__getitem__, map(operator.add, row, noise[at:at + len(row)])))


# Python counts negative indices from the end, which is what is wanted here.
CLAMP = bytes(min(i, 255) for i in range(320)) + bytes(64)


def column(walk, t):
    _, start, end, _, x0, x1, pause = walk
    moving = (end - start - pause) / 2
    done = t - start
    if pause and done > moving:
        done = moving if done < moving + pause else done - pause
    return int(x0 + (x1 - x0) * done / (end - start - pause)) // 2 * 2


def paste(rows, planes, walk, x):
    """Puts the person into the rows of Y, U and V."""
    height, feet = walk[0], walk[3]
    width, rows_of = planes
    for plane, (first, d) in enumerate(((0, 1), (H, 2), (H + H // 2, 2))):
        full, left = W // d, x // d
        top = (feet - height) // d
        for i, cut in enumerate(rows_of[plane]):
            a, b = max(left, 0), min(left + width // d, full)
            if a < b:
                row = rows[first + top + i]
                rows[first + top + i] = row[:a] + cut[a - left:b - left] + row[b:]


def person(path, height, scratch):
    """Width and rows of the cut-out, per plane, for a height in pixels."""
    _, px, py, pw, ph = PERSON
    scale = height / ph
    w, h, planes = still(path, int(810 * scale) // 8 * 8, scratch)
    scale = w / 810
    x, y, cw = int(px * scale) // 2 * 2, int(py * scale) // 2 * 2, int(pw * scale) // 2 * 2
    rows = []
    for i, (plane, stride) in enumerate(planes):
        d = 1 if i == 0 else 2
        rows.append([plane[(y // d + r) * stride + x // d:][:cw // d] for r in range(height // d)])
    return cw, rows


def footage(name, sigma, kbit, gops, scene, people, out):
    random.seed(1)
    noise = [max(-64, min(64, round(random.gauss(0, sigma)))) for _ in range(1 << 18)]
    luma = [[noisy(scene[y * W:(y + 1) * W], noise) for _ in range(VARIANTS)] for y in range(H)]
    chroma = [scene[W * H + i * W // 2:][:W // 2] for i in range(H)]
    branches = []
    for gop in gops:
        branches += ["t.", "!", "queue", "!", "x264enc", "threads=1", "tune=zerolatency", "speed-preset=superfast",
                     "pass=qual", "quantizer=26", f"bitrate={kbit}", f"key-int-max={gop}", "option-string=scenecut=0", "!",
                     "video/x-h264,profile=main", "!", "h264parse", "!", "mp4mux", "!", "filesink",
                     f"location={os.path.join(out, f'idle_{name}_gop{gop}.mp4')}"]
    encoder = subprocess.Popen(
        ["gst-launch-1.0", "-q", "fdsrc", "fd=0", "!", "rawvideoparse", "format=i420", f"width={W}", f"height={H}",
         f"framerate={FPS}/1", "!", "tee", "name=t", *branches], stdin=subprocess.PIPE)
    for k in range(FPS * SECONDS):
        t = k / FPS
        rows = [random.choice(variants) for variants in luma] + chroma
        for walk in WALKS:
            if walk[1] <= t < walk[2]:
                paste(rows, people[walk[0]], walk, column(walk, t))
        encoder.stdin.write(b"".join(rows))
    encoder.stdin.close()
    if encoder.wait() != 0:
        raise SystemExit(f"the encoder for {name} failed")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    pictures, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        # A little wider than the frame, so that it is high enough.
        _, h, planes = still(os.path.join(pictures, SCENE), 1928, scratch)
        scene = window(planes, 0, (h - H) // 2 // 2 * 2, W, H)
        people = {walk[0]: person(os.path.join(pictures, PERSON[0]), walk[0], scratch) for walk in WALKS}
    for name, sigma, kbit, gops in CLIPS:
        footage(name, sigma, kbit, gops, scene, people, out)
    truth = [{"height": walk[0], "from_s": walk[1], "to_s": walk[2]} for walk in WALKS]
    with open(os.path.join(out, "idle.json"), "w") as f:
        json.dump(truth, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
