#!/usr/bin/env python3
"""Other trackers on the scenes of the example track_eval: track_compare.py FOLDER OWN

FOLDER holds NAME-FPS-SEED.{gt,det,framebus}.txt, OWN the table that the example printed.
All trackers have ByteTrack's thresholds (0.5, 0.6, 0.8) and keep lost tracks for a second.
"""

import pathlib
import sys
from collections import defaultdict

import motmetrics as mm
import numpy as np
import supervision as sv
import trackforge

LOST_S = 1.0


def read(path):
    """{frame: rows of id, left, top, width, height, score}"""
    frames = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        frame, *values = line.split(",")
        frames[int(frame)].append([float(value) for value in values])
    return {frame: np.array(rows) for frame, rows in frames.items()}


def supervision_tracker(fps):
    tracker = sv.ByteTrack(
        track_activation_threshold=0.5,
        lost_track_buffer=int(30 * LOST_S),
        minimum_matching_threshold=0.8,
        frame_rate=fps,
    )

    def step(rows):
        boxes = rows[:, 1:5].copy()
        boxes[:, 2:] += boxes[:, :2]
        seen = sv.Detections(boxes, confidence=rows[:, 5], class_id=np.zeros(len(rows), int))
        found = tracker.update_with_detections(seen)
        return [(track, box) for track, box in zip(found.tracker_id, found.xyxy)]

    return step


def trackforge_tracker(fps):
    tracker = trackforge.BYTETRACK(0.5, int(fps * LOST_S), 0.8, 0.6, 0.5)

    def step(rows):
        seen = [(list(map(float, row[1:5])), float(row[5]), 0) for row in rows]
        found = []
        for track, (left, top, width, height), *_ in tracker.update(seen):
            found.append((track, np.array([left, top, left + width, top + height])))
        return found

    return step


def distances(a, b):
    """1 - overlap of boxes left, top, width, height; NaN where less than half overlaps.
    motmetrics' own needs NumPy 1."""
    near, far = a[:, None, :2], a[:, None, :2] + a[:, None, 2:]
    near, far = np.maximum(near, b[None, :, :2]), np.minimum(far, b[None, :, :2] + b[None, :, 2:])
    both = np.prod(np.clip(far - near, 0, None), axis=2)
    areas = np.prod(a[:, None, 2:], axis=2) + np.prod(b[None, :, 2:], axis=2)
    overlap = both / (areas - both)
    return np.where(overlap >= 0.5, 1 - overlap, np.nan)


def score(truth, answer, frames):
    accumulator = mm.MOTAccumulator()
    for frame in range(1, frames + 1):
        there = truth.get(frame, np.empty((0, 6)))
        ids, boxes = answer.get(frame, ([], np.empty((0, 4))))
        accumulator.update(
            there[:, 0].astype(int), ids, distances(there[:, 1:5], boxes), frameid=frame
        )
    return accumulator


def widths(found):
    boxes = np.array([box for _, box in found]).reshape(-1, 4).copy()
    boxes[:, 2:] -= boxes[:, :2]
    return [int(track) for track, _ in found], boxes


def own_answer(frames):
    return {frame: (rows[:, 0].astype(int), rows[:, 1:5]) for frame, rows in frames.items()}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: track_compare.py FOLDER OWN")
    folder, own = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    scenes = defaultdict(list)
    for path in sorted(folder.glob("*.gt.txt")):
        name, fps, seed = path.name.removesuffix(".gt.txt").split("-")
        scenes[name, int(fps)].append(seed)
    if not scenes:
        sys.exit(f"{folder} holds no scenes; next: cargo run --example track_eval -- {folder}")
    metrics = mm.metrics.create()
    names = ["mota", "idf1", "num_switches"]
    peers = {"supervision": supervision_tracker, "trackforge": trackforge_tracker}
    printed = dict()
    for line in own.read_text(encoding="utf-8").splitlines()[1:]:
        name, fps, *figures = line.split()
        printed[name, int(fps)] = [float(figure) for figure in figures[:3]]
    print("| scene, frames/s | framebus | supervision | trackforge |")
    print("|---|---|---|---|")
    differ = 0
    for (name, fps), seeds in sorted(scenes.items(), key=lambda scene: (scene[0][0], -scene[0][1])):
        cells = []
        for peer in ["framebus", *peers]:
            accumulators = []
            for seed in seeds:
                stem = f"{name}-{fps}-{seed}"
                truth, seen = read(folder / f"{stem}.gt.txt"), read(folder / f"{stem}.det.txt")
                frames = max([*truth, *seen])
                if peer == "framebus":
                    answer = own_answer(read(folder / f"{stem}.framebus.txt"))
                else:
                    step = peers[peer](fps)
                    empty = np.empty((0, 6))
                    answer = {
                        frame: widths(step(seen.get(frame, empty)))
                        for frame in range(1, frames + 1)
                    }
                accumulators.append(score(truth, answer, frames))
            summary = metrics.compute_many(
                accumulators, metrics=names, names=seeds, generate_overall=True
            )
            mota, idf1, switches = summary.loc["OVERALL", names]
            cells.append(f"{100 * mota:.1f} / {100 * idf1:.1f} / {int(switches)}")
            if peer == "framebus":
                have = printed[name, fps]
                want = [100 * mota, 100 * idf1, switches]
                # Half a digit of the printed table; where several pairs of a frame are as good,
                # the two solvers may choose differently.
                if any(abs(a - b) > slack for a, b, slack in zip(have, want, [0.06, 0.06, 1.5])):
                    differ += 1
                    print(f"differs from py-motmetrics: {name} {fps}: {have} for {want}", file=sys.stderr)
        print(f"| {name}, {fps} | " + " | ".join(cells) + " |", flush=True)
    print("each: MOTA % / IDF1 % / identity switches, by py-motmetrics", file=sys.stderr)
    if differ:
        sys.exit(f"{differ} rows of our own figures differ from py-motmetrics")


if __name__ == "__main__":
    main()
