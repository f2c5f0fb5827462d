#!/usr/bin/env python3
"""framebus beside the usual Python loops and benchmark_app, in turns.

usage: compare.py WHAT --framebus PROGRAM --model FILE --clip FILE --camera-clip FILE
                  [--rounds N] [--seconds S] [--json FILE]

WHAT: clip     one clip, decoding included, every frame
      cameras  four cameras at 15 frames/s: four loops, or one framebus
      engine   `framebus bench engine` and OpenVINO's own benchmark_app
      all
In each round every contender runs once; a ratio is taken within its round, and
the median over the rounds is shown. Nothing else should run on the machine.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CAMERAS, CAMERA_FPS = 4, 15


def last_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        raise SystemExit(f"failed with {done.returncode}: {' '.join(command)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def loop_command(args, engine, clip):
    return [sys.executable, os.path.join(HERE, "loop.py"), engine, args.model, clip]


def framebus(args, *what):
    return last_json([args.framebus, "bench", *what, "--model", args.model, "--json"])


def as_row(clip):
    """A `bench clip` object in the words of the loops."""
    return {
        "frames_per_s": clip["frames_per_s"], "cpu_ms_per_frame": clip["cpu_ms_per_frame"],
        "p50_ms": clip["age_ms"]["p50"], "p99_ms": clip["age_ms"]["p99"],
        "memory_mb": clip["pss_mib"], "frames": clip["frames"], "dropped": clip["dropped"],
        "detections": clip["detections"],
    }


def one_clip(args, name):
    if name == "framebus":
        return as_row(framebus(args, "clip", args.clip))
    row = last_json(loop_command(args, name, args.clip))
    return {**row, "memory_mb": row["pss_mb"], "ages_ms": None}


def four_cameras(args, name):
    if name == "framebus":
        return as_row(framebus(args, "clip", args.camera_clip, "--realtime", "--cameras", str(CAMERAS),
                               "--fps", str(CAMERA_FPS), "--seconds", str(args.seconds)))
    with tempfile.TemporaryDirectory() as barrier:
        command = loop_command(args, name, args.camera_clip)
        command += ["--realtime", str(CAMERA_FPS), str(args.seconds), "--barrier", barrier, str(CAMERAS)]
        loops = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CAMERAS)]
        try:
            rows = [json.loads(loop.communicate()[0]) for loop in loops]
        finally:
            for loop in loops:
                loop.kill()
    frames = sum(row["frames"] for row in rows)
    ages = sorted(age for row in rows for age in row["ages_ms"])
    return {
        "frames_per_s": sum(row["frames_per_s"] for row in rows), "frames": frames,
        "cpu_ms_per_frame": sum(row["cpu_s"] for row in rows) * 1e3 / frames,
        "p50_ms": ages[len(ages) // 2], "p99_ms": ages[min(len(ages) - 1, int(len(ages) * 0.99))],
        "memory_mb": sum(row["pss_mb"] for row in rows), "dropped": sum(row["dropped"] for row in rows),
        "detections": sum(row["detections"] for row in rows),
    }


def benchmark_app(args, hint, model, shape, precision, seconds):
    """Median latency in ms and frames/s of OpenVINO's own tool."""
    tool = os.path.join(os.path.dirname(sys.executable), "benchmark_app")
    command = [tool, "-m", model, "-d", "CPU", "-hint", hint, "-t", str(seconds),
               "-infer_precision", precision, "-shape", f"[1,3,{shape.replace('x', ',')}]"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    median = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    fps = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    if done.returncode != 0 or not median or not fps:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout[-2000:]}")
    return float(median.group(1)), float(fps.group(1))


def engine(args, results):
    """Rounds of a few seconds: machines change their speed, neighbours share it."""
    cases = [("as exported", args.model, "640x640", ["--as-is"])]
    if args.prepared:
        cases.append(("head cut", args.prepared, "384x640", []))
    for name, model, shape, extra in cases:
        ratios = {"latency": [], "throughput": []}
        for _ in range(args.rounds * 2):
            for mode, values in ratios.items():
                ours = last_json([args.framebus, "bench", "engine", "--model", model, "--input", shape, "--mode", mode,
                                  "--seconds", "3", "--json", *extra])
                precision = ours[f"{mode}_engine"]["precision"]
                median_ms, fps = benchmark_app(args, mode, model, shape, precision, 3)
                if mode == "latency":
                    values.append((ours["latency_ms"]["p50"], median_ms))
                else:
                    values.append((ours["throughput_fps"]["p50"], fps))
        for mode, values in ratios.items():
            ratio = statistics.median(ours / theirs for ours, theirs in values)
            unit = "ms" if mode == "latency" else "frames/s"
            ours, theirs = (statistics.median(pair[i] for pair in values) for i in (0, 1))
            results.append({"what": "engine", "model": name, "input": shape, "precision": precision, "mode": mode,
                            "framebus": ours, "benchmark_app": theirs, "ratio": round(ratio, 4)})
            print(f"{name:12} {shape} {precision:4} {mode:10} framebus {ours:8.2f} {unit}, "
                  f"benchmark_app {theirs:8.2f}, ratio {ratio:.3f}", flush=True)


COLUMNS = ("frames_per_s", "cpu_ms_per_frame", "p50_ms", "p99_ms", "memory_mb", "dropped", "detections")


def contest(what, contenders, run, args, results):
    rounds = []
    for number in range(args.rounds):
        # Everybody is first once: what the one before leaves behind (heat, caches) moves on.
        order = contenders[number % len(contenders):] + contenders[:number % len(contenders)]
        rounds.append({name: run(args, name) for name in order})
        print(f"{what}: round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    print(f"{what:14}" + "".join(f"{column:>18}" for column in COLUMNS) + f"{'framebus: speed':>18}{'memory':>9}")
    for name in contenders:
        row = {column: statistics.median(r[name][column] for r in rounds) for column in COLUMNS}
        speed = statistics.median(r["framebus"]["frames_per_s"] / r[name]["frames_per_s"] for r in rounds)
        memory = statistics.median(r["framebus"]["memory_mb"] / r[name]["memory_mb"] for r in rounds)
        results.append({"what": what, "name": name, **row, "framebus_speed_ratio": round(speed, 3),
                        "framebus_memory_ratio": round(memory, 3)})
        print(f"{name:14}" + "".join(f"{row[column]:18.1f}" for column in COLUMNS) + f"{speed:17.2f}x{memory:8.2f}x",
              flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("clip", "cameras", "engine", "all"))
    for name in ("framebus", "model", "clip", "camera-clip"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--prepared", help="the model with its head cut off, for benchmark_app")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json")
    args = parser.parse_args()
    results = []
    if args.what in ("clip", "all"):
        contest("clip", ["framebus", "openvino", "onnxruntime"], one_clip, args, results)
    if args.what in ("cameras", "all"):
        contest("cameras", ["framebus", "openvino", "onnxruntime"], four_cameras, args, results)
    if args.what in ("engine", "all"):
        engine(args, results)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
