"""Measures what a page costs its sink: CPU and memory of the process, with and without
somebody who looks, and how old pictures are when they arrive.

usage: cost.py URL TOKEN PID-OF-THE-SINK [SECONDS] [CAMERAS...]

For a page on this machine. It takes pictures as a browser does, but draws nothing.
"""

import base64
import json
import os
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

TICKS = os.sysconf("SC_CLK_TCK")


class Viewer:
    """The client's side of RFC 6455, as far as this page needs it."""

    def __init__(self, url, token):
        host = urlsplit(url).netloc
        name, port = host.rsplit(":", 1)
        self.socket = socket.create_connection((name, int(port)), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        self.reader = self.socket.makefile("rb")
        status = self.reader.readline().decode()
        if " 101 " not in status:
            sys.exit(f"error: the page answers {status.strip()}")
        while self.reader.readline().strip():
            pass

    def say(self, value):
        payload = json.dumps(value).encode()
        mask = os.urandom(4)
        size = len(payload)
        head = bytes([0x81, 0x80 | size]) if size < 126 else struct.pack(">BBH", 0x81, 0xFE, size)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

    def hear(self):
        """Kind (1 text, 2 picture, …) and payload of the next message."""
        first, size = self.reader.read(2)
        if size == 126:
            (size,) = struct.unpack(">H", self.reader.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.reader.read(8))
        return first & 15, self.reader.read(size)


def used(pid):
    """CPU seconds and resident memory without what is shared, MiB."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    own = shared = 0
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                own = int(line.split()[1])
            elif line.startswith("VmRSS:"):
                shared = int(line.split()[1])
    return (int(fields[11]) + int(fields[12])) / TICKS, own / 1024, shared / 1024


def report(what, pid, begin, cpu, rest=""):
    spent = time.monotonic() - begin
    now, own, resident = used(pid)
    share = (now - cpu) / spent * 100
    print(f"{what}: {share:.1f} % of a core, {own:.0f} MiB own, {resident:.0f} MiB resident{rest}")


def main():
    url, token, pid = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 15
    begin, (cpu, _, _) = time.monotonic(), used(pid)
    time.sleep(seconds)
    report("nobody", pid, begin, cpu)
    viewer = Viewer(url, token)
    hello = json.loads(viewer.hear()[1])
    names = sys.argv[5:] or [camera["name"] for camera in hello["cameras"]]
    viewer.say({"watch": names})
    # The threads start, and see what they need.
    warm, until = time.monotonic() + 2, time.monotonic() + 2 + seconds
    begin, cpu, pictures, size, ages = None, 0, 0, 0, []
    while time.monotonic() < until:
        kind, payload = viewer.hear()
        if kind == 2:
            (number,) = struct.unpack_from("<H", payload, 2)
            (wall,) = struct.unpack_from("<Q", payload, 28)
            age = time.time_ns() - wall
            viewer.say({"drawn": number})
            if begin is not None:
                pictures, size = pictures + 1, size + len(payload)
                ages.append(age / 1e6)
        if begin is None and time.monotonic() >= warm:
            begin, (cpu, _, _) = time.monotonic(), used(pid)
    ages.sort()
    if not ages:
        sys.exit("error: no picture came")
    rate = pictures / (time.monotonic() - begin)
    report(
        f"one viewer of {len(names)}", pid, begin, cpu,
        f"; {rate:.0f} pictures/s of {size / pictures / 1024:.0f} KiB, "
        f"{ages[len(ages) // 2]:.1f} ms old (p99 {ages[len(ages) * 99 // 100]:.1f})",
    )


if __name__ == "__main__":
    main()
