#!/usr/bin/env python3
"""The usual loop: cv2.VideoCapture, letterbox, engine, NMS. Prints one JSON line.

usage: loop.py ENGINE MODEL CLIP [--realtime FPS SECONDS [--barrier FOLDER COUNT]]

Without --realtime: every frame, as fast as it goes; loading the model and one
inference on zeros are not counted, opening and decoding the clip is.
With --realtime: the clip is a camera that gives a frame each 1/FPS s; a thread
decodes it, the newest frame wins, older ones are dropped. With --barrier the
loops of several processes begin together: each makes a file in FOLDER and waits
until there are COUNT.
"""

import argparse
import json
import os
import resource
import threading
import time

import cv2
import numpy as np

from detector import Detector

# Longest wait for the other loops: one that failed never comes.
BARRIER_S = 120


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_mib():
    """(proportional, resident) memory of this process."""
    sizes = {}
    with open("/proc/self/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            key, *rest = line.split()
            if key in ("Pss:", "Rss:"):
                sizes[key] = int(rest[0]) / 1024
    return sizes["Pss:"], sizes["Rss:"]


class Camera:
    """Decodes a clip in real time, again and again, and keeps the newest frame."""

    def __init__(self, clip, fps, seconds):
        self.clip, self.fps, self.frames = clip, fps, int(fps * seconds)
        self.newest, self.over, self.dropped = None, False, 0
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.decode)

    def decode(self):
        capture = cv2.VideoCapture(self.clip)
        start = time.perf_counter()
        for number in range(self.frames):
            if not capture.grab():
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                capture.grab()
            wait = start + number / self.fps - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            taken = time.perf_counter()
            _, frame = capture.retrieve()
            with self.changed:
                self.dropped += self.newest is not None
                self.newest = taken, frame
                self.changed.notify()
        with self.changed:
            self.over = True
            self.changed.notify()

    def __iter__(self):
        self.thread.start()
        while True:
            with self.changed:
                while self.newest is None and not self.over:
                    self.changed.wait()
                if self.newest is None:
                    return
                item, self.newest = self.newest, None
            yield item


def clip_frames(clip):
    capture = cv2.VideoCapture(clip)
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield time.perf_counter(), frame


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--realtime", nargs=2, type=float, metavar=("FPS", "SECONDS"))
    parser.add_argument("--barrier", nargs=2, metavar=("FOLDER", "COUNT"))
    args = parser.parse_args()

    detect = Detector(args.engine, args.model)
    if args.barrier:
        folder, count = args.barrier
        with open(os.path.join(folder, str(os.getpid())), "w", encoding="ascii"):
            pass
        give_up = time.monotonic() + BARRIER_S
        while len(os.listdir(folder)) < int(count):
            if time.monotonic() > give_up:
                raise SystemExit(f"fewer than {count} loops were ready within {BARRIER_S} s")
            time.sleep(0.01)
    camera = Camera(args.clip, *args.realtime) if args.realtime else None

    ages_ms, found, pss, rss, looked = [], 0, 0.0, 0.0, 0.0
    start, start_cpu = time.perf_counter(), cpu_s()
    for taken, frame in camera or clip_frames(args.clip):
        found += len(detect(frame))
        now = time.perf_counter()
        ages_ms.append((now - taken) * 1e3)
        if now - looked > 1.0:
            looked = now
            pss, rss = max((pss, rss), memory_mib())
    loop_s, used_s = time.perf_counter() - start, cpu_s() - start_cpu
    p50, p99 = np.percentile(ages_ms or [0.0], [50, 99])
    print(json.dumps({
        "engine": args.engine, "frames": len(ages_ms), "detections": found,
        "loop_s": round(loop_s, 3), "frames_per_s": round(len(ages_ms) / loop_s, 2),
        "cpu_s": round(used_s, 3), "cpu_ms_per_frame": round(used_s * 1e3 / max(len(ages_ms), 1), 2),
        "p50_ms": round(p50, 2), "p99_ms": round(p99, 2),
        "dropped": camera.dropped if camera else 0,
        "pss_mb": round(pss, 1), "rss_mb": round(rss, 1), "ages_ms": [round(age, 1) for age in ages_ms],
    }))


if __name__ == "__main__":
    main()
