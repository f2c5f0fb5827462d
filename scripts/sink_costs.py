#!/usr/bin/env python3
"""What every sink costs, side by side in one instance: CPU and memory of its process.

usage: sink_costs.py BINARIES [SECONDS]       for example: sink_costs.py target/release 60

Four cameras of 1280x720 at 10 frames/s play footage (`make demo` fetches it) in which
objects come and go, a real broker and a Zenoh node take messages, a web server of this
program takes posts and traces (of every frame), metrics are asked for once a second, and
one viewer looks at all cameras. Prints a table for docs/consumers.md. Needs mosquitto and the Python client's
environment (scripts/setup.sh --mqtt --python-client), and a quiet machine for figures
that mean something.
"""

import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/web"))
from cost import Viewer  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
TOKEN = "a-token-of-32-characters-or-more"
CAMERAS = 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Taker(http.server.BaseHTTPRequestHandler):
    """Takes whatever is posted."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def sinks(folder, ports):
    """Name and keys of each."""
    url = f'url = "http://127.0.0.1:{ports["http"]}"'
    listen = f'token = "{TOKEN}"\nlisten = "127.0.0.1:'
    return {
        "jsonl": f'path = "{folder}/results.jsonl"',
        "mqtt": f'url = "mqtt://127.0.0.1:{ports["mqtt"]}"\ndeliver = "both"',
        "webhook": f'{url}\ndeliver = "both"',
        "zenoh": f'url = "tcp://127.0.0.1:{ports["zenoh"]}"\ndeliver = "both"',
        "otlp": f"{url}\nsample = 1.0",
        "history": f'path = "{folder}/history.db"\ndeliver = "both"',
        "prometheus": f'{listen}{ports["prometheus"]}"',
        "web": f'{listen}{ports["web"]}"',
        "clips": f'folder = "{folder}/clips"\nevents = ["enter"]',
        "snapshots": f'folder = "{folder}/snapshots"\nevents = ["enter"]',
    }


def configuration(folder, ports):
    clip = ROOT / ".framebus/media/street720.mp4"
    parts = [
        f'instance = "sinkcosts{os.getpid() % 10000}"\n[bus]\nroot = "{folder}/b"\n'
        f'[model]\npath = "{ROOT}/.framebus/models/yolov8n.onnx"\n'
    ]
    for number in range(CAMERAS):
        parts.append(
            f'[[camera]]\nname = "cam{number}"\nsource = "file:{clip}"\npace = "realtime"\n'
            f'loop = true\nfps = 10\n[[zone]]\ncamera = "cam{number}"\nname = "middle"\n'
            "points = [[0.1, 0.1], [0.9, 0.1], [0.9, 1.0], [0.1, 1.0]]\n"
        )
    for kind, keys in sinks(folder, ports).items():
        parts.append(f'[[sink]]\nname = "{kind}"\nkind = "{kind}"\n{keys}\n')
    path = Path(folder) / "framebus.toml"
    path.write_text("".join(parts))
    return path


def processes(parent):
    """Number of each sink's process, by the sink's name."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if entry.name.isdigit() and int(stat[1]) == parent and words[0].endswith(b"framebus-sink"):
            name = next((w for w in words[1:] if w.decode() in sinks("", _ZEROES)), None)
            if name:
                found[name.decode()] = int(entry.name)
    return found


LISTENER = """
import json, sys, time, zenoh
config = zenoh.Config()
config.insert_json5("listen/endpoints", json.dumps([f"tcp/127.0.0.1:{sys.argv[1]}"]))
config.insert_json5("scouting/multicast/enabled", "false")
config.insert_json5("transport/shared_memory/enabled", "false")
with zenoh.open(config) as session:
    subscriber = session.declare_subscriber("**", lambda sample: None)
    time.sleep(3600)
"""
_ZEROES = dict.fromkeys(("mqtt", "http", "zenoh", "prometheus", "web"), 0)


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid):
    """Most that was resident, and what is the process's own now."""
    lines = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return [int(lines[key].split()[0]) / 1024 for key in ("VmHWM", "RssAnon")]


def ask(url, count, stop):
    """Asks for the metrics once a second."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    while not stop.wait(1):
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
        count.append(1)


def look(url, count, stop):
    """One viewer of all cameras."""
    viewer = Viewer(url, TOKEN)
    viewer.hear()
    viewer.say({"watch": [f"cam{number}" for number in range(CAMERAS)]})
    while not stop.is_set():
        kind, payload = viewer.hear()
        if kind == 2:
            count.append(1)
            viewer.say({"drawn": int.from_bytes(payload[2:4], "little")})


def measure(up, folder, ports, seconds):
    """Prints the table; false when not all sinks came up."""
    pids = {}
    for _ in range(600):
        time.sleep(0.1)
        pids = processes(up.pid)
        if up.poll() is not None:
            return False
        if len(pids) == len(sinks("", _ZEROES)):
            break
    else:
        return False
    stop, asked, seen = threading.Event(), [], []

    def counts():
        with open(f"{folder}/results.jsonl", encoding="utf-8") as lines:
            results = sum(1 for _ in lines)
        files = [sum(1 for _ in Path(folder).glob(f"{kind}/**/*.{ending}"))
                 for kind, ending in (("clips", "mp4"), ("snapshots", "jpg"))]  # fmt: skip
        return [results, *files, len(seen), len(asked)]

    time.sleep(10)
    for work, url, count in (
        (ask, f"http://127.0.0.1:{ports['prometheus']}/metrics", asked),
        (look, f"http://127.0.0.1:{ports['web']}/", seen),
    ):
        threading.Thread(target=work, args=(url, count, stop), daemon=True).start()
    time.sleep(5)
    known = counts()
    begin, first = time.monotonic(), {name: cpu_s(pid) for name, pid in pids.items()}
    last, peak = dict(first), dict.fromkeys(pids, 0.0)
    while time.monotonic() < begin + seconds:
        at = time.monotonic()
        time.sleep(1)
        for name, pid in pids.items():
            now = cpu_s(pid)
            peak[name] = max(peak[name], (now - last[name]) / (time.monotonic() - at) * 100)
            last[name] = now
    spent = time.monotonic() - begin
    new = [now - before for now, before in zip(counts(), known)]
    stop.set()
    what = ("results", "clips", "snapshots", "pictures on the page", "times metrics")
    print(f"within {spent:.0f} s: " + ", ".join(f"{n} {name}" for n, name in zip(new, what)))
    print("| sink | CPU, mean | CPU, busiest second | most resident | of it its own |")
    print("|---|---|---|---|---|")
    for name, pid in pids.items():
        resident, own = memory_mib(pid)
        mean = (last[name] - first[name]) / spent * 100
        print(f"| `{name}` | {mean:.1f} % | {peak[name]:.0f} % | {resident:.0f} MiB | {own:.0f} MiB |")
    return True


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    binaries, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 60
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:" + os.environ["PATH"])
    if not mosquitto:
        sys.exit("error: no mosquitto: scripts/setup.sh --mqtt installs it")
    ports = {name: free_port() for name in _ZEROES}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", ports["http"]), Taker)
    # Connections that are cut at the end.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="fb", dir="/tmp") as folder:
        config = configuration(folder, ports)
        broker = subprocess.Popen(
            [mosquitto, "-p", str(ports["mqtt"])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        listener = subprocess.Popen(
            [ROOT / ".framebus/python-client/bin/python", "-c", LISTENER, str(ports["zenoh"])]
        )
        environment = dict(os.environ)
        environment.setdefault("FRAMEBUS_OPENVINO_LIB", str(ROOT / ".framebus/openvino"))
        log = open(f"{folder}/up.log", "w+", encoding="utf-8")
        up = subprocess.Popen(
            [binaries / "framebus", "up", "--config", config],
            stdout=log,
            stderr=log,
            env=environment,
        )
        try:
            if not measure(up, folder, ports, seconds):
                log.seek(0)
                sys.exit("".join(log.readlines()[-20:]) + "error: framebus did not get so far")
            up.send_signal(signal.SIGINT)
            up.wait(30)
        finally:
            for process in (up, broker, listener):
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    main()
