#!/usr/bin/env python3
"""Draws what `make soak` wrote: plot_soak.py SAMPLES.csv PICTURE.png

Memory, descriptors and threads of each process and the instance's shared memory over
time. Every curve should be level after the first minutes.
"""

import csv
import sys
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHM = "/dev/shm"


def read(path):
    """{process: {column: [value, ...]}}"""
    curves = defaultdict(lambda: defaultdict(list))
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            process = row.pop("process")
            for column, value in row.items():
                curves[process][column].append(float(value))
    return curves


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: plot_soak.py SAMPLES.csv PICTURE.png")
    curves = read(sys.argv[1])
    if not curves:
        sys.exit(f"{sys.argv[1]} holds no samples")
    panels = [
        ("resident memory, MiB", "rss_kib", 1024, False),
        ("resident memory without shared memory, MiB", "own_kib", 1024, False),
        ("file descriptors", "fds", 1, False),
        ("threads", "threads", 1, False),
        ("/dev/shm, MiB", "rss_kib", 1024, True),
        ("/dev/shm, files", "fds", 1, True),
    ]
    figure, axes = plt.subplots(3, 2, figsize=(11, 9), sharex=True)
    for axis, (title, column, unit, shared) in zip(axes.flat, panels):
        for process, columns in sorted(curves.items()):
            if (process == SHM) != shared:
                continue
            minutes = [second / 60 for second in columns["seconds"]]
            axis.plot(minutes, [value / unit for value in columns[column]], label=process, lw=1.2)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(len(labels), 4), fontsize=9)
    figure.suptitle("Four cameras, inference and a sink under one supervisor")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
