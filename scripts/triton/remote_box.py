#!/usr/bin/env python3
"""Runs a command on "another machine", for tests of a server that is far away.

usage: remote_box.py [OPTION...] -- COMMAND [ARGUMENT...]
  --rtt-ms N         round trip time of the link (1)
  --mbit N           its rate in each direction, Mbit/s; 0 does not limit it (100)
  --mtu N            largest packet, bytes (1500)
  --subnet A.B.C     this machine becomes A.B.C.1, the other A.B.C.2 (10.77.0)
  --shm-mib N        size of the other machine's /dev/shm (512)
  --grace-s N        from SIGTERM to SIGKILL for COMMAND (10)

  remote_box.py --rtt-ms 20 -- deploy/triton/serve.sh --repository D --address 10.77.0.2

COMMAND gets a network namespace, with loopback and one point-to-point link to the
namespace of this script, and a /dev/shm of its own. Files and processes stay those of
this machine. It needs root, /dev/net/tun and ip, not netem.

The first line on stdout is JSON: address (of the other machine), host (of this one),
pid (COMMAND's), box (this script's), interface (this end of the link), namespace (for
`ip netns exec`). What COMMAND prints follows. Counts of packets go to stderr at the end.

SIGTERM and SIGINT end COMMAND and then the box; when this script is killed, so is
COMMAND, and the next box removes the namespace. SIGUSR1 pulls the cable: packets
vanish, nobody is told. SIGUSR2 plugs it in again. Exit status: COMMAND's (128 + N for
signal N), 64 usage, 69 when the box cannot be made.

The link is two TUN devices whose packets this script passes on: each direction sends
one packet after the other at the given rate, then lets it travel for half a round trip.
Up to 100 ms of packets wait to be sent, as in a router; what comes then is dropped and
counted. Large TCP packets stay whole, as in network cards, and arrive with their last byte.
"""

import argparse
import collections
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import select
import signal
import struct
import subprocess
import sys
import time

NAME = "framebus-box-"
# Longest wait for the link, s.
QUEUE_S = 0.1
# What passing a packet on takes by itself, s.
OWN_S = 200e-6
# Bytes of a packet: TCP and IP headers, what Ethernet adds, struct virtio_net_hdr.
HEADERS, FRAMING, PREFIX = 40, 38, 10

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK, PR_SET_CHILD_SUBREAPER = 1, 29, 36
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 1, 2
ENDS, CABLE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP), (signal.SIGUSR1, signal.SIGUSR2)


def stop(message, code=69):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def call(name, *words):
    """A function of the C library that Python's os does not have."""
    if getattr(LIBC, name)(*words) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def handle(numbers, handler):
    for number in numbers:
        signal.signal(number, handler)


def ip(words):
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(done.returncode, done.stderr.strip(), f"ip {words}")
    return done.stdout


def tun(name, own, peer, mtu):
    """A TUN device of the present namespace; gone when it is closed."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    ip(f"address add {own} peer {peer} dev {name}")
    ip(f"link set dev {name} addrgenmode none mtu {mtu} txqueuelen 4000")
    ip(f"link set dev {name} up")
    return device


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, source, sink, options):
        self.source, self.sink, self.segment = source, sink, options.mtu - HEADERS
        self.delay_s = max(0.0, options.rtt_ms / 2000 - OWN_S)
        self.s_per_byte = 8e-6 / options.mbit if options.mbit else 0.0
        # When the link has sent all that it was given.
        self.free = 0.0
        # (when it arrives, packet)
        self.way = collections.deque()
        self.passed = self.bytes = self.dropped = 0

    def take(self, connected):
        """Reads what wants to be sent."""
        # Not all, so that everybody's turn comes.
        for _ in range(64):
            try:
                packet = os.read(self.source, 65536 + PREFIX)
            except BlockingIOError:
                return
            now = time.monotonic()
            self.free = max(self.free, now)
            if self.free - now > QUEUE_S or not connected:
                self.dropped += 1
                continue
            # Each part of a large packet would have headers of its own.
            size = len(packet) - PREFIX
            parts = max(1, -(-(size - HEADERS) // self.segment))
            self.free += (size + HEADERS * (parts - 1) + FRAMING * parts) * self.s_per_byte
            self.way.append((self.free + self.delay_s, packet))

    def give(self, now, connected):
        """Writes what has arrived."""
        while self.way and self.way[0][0] <= now + OWN_S / 4:
            packet = self.way.popleft()[1]
            try:
                self.bytes += os.write(self.sink, packet) - PREFIX if connected else 0
                self.passed += connected
                self.dropped += not connected
            except OSError:
                self.dropped += 1


class Box:
    def __init__(self, options):
        self.options = options
        self.namespace = f"{NAME}{os.getpid()}"
        self.interface = f"fbox{os.getpid()}"
        self.host, self.address = options.subnet + ".1", options.subnet + ".2"
        self.child = self.status = self.kill_at = None
        self.connected, self.directions = True, []

    def make(self):
        """Both ends of the link; answers the namespace."""
        # Killed boxes have left theirs.
        for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
            if name.startswith(NAME) and not os.path.exists(f"/proc/{name.removeprefix(NAME)}"):
                ip(f"netns delete {name}")
        if f" {self.host} " in ip("-4 -oneline address"):
            stop(f"{self.host} is in use on this machine; choose another --subnet")
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        ip(f"netns add {self.namespace}")
        near = tun(self.interface, self.host, self.address, self.options.mtu)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
        call("setns", there, CLONE_NEWNET)
        try:
            ip("link set dev lo up")
            far = tun("fbox", self.address, self.host, self.options.mtu)
        finally:
            call("setns", here, CLONE_NEWNET)
        self.directions = [Direction(near, far, self.options), Direction(far, near, self.options)]
        return there

    def start(self, there):
        waits, goes = os.pipe2(os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        child = os.fork()
        if child == 0:
            try:
                self.become(there, waits, goes)
            except OSError as error:
                what = error.filename or self.options.command[0]
                os.write(2, f"error: {what}: {error.strerror}\n".encode())
            os._exit(69)
        self.child = child
        handle((*ENDS, *CABLE), self.on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        about = {"address": self.address, "host": self.host, "pid": child, "box": os.getpid()}
        print(json.dumps(about | {"interface": self.interface, "namespace": self.namespace}), flush=True)
        os.close(goes)

    def become(self, there, waits, goes):
        """The child: COMMAND in its namespaces, once the first line is out."""
        handle((*ENDS, signal.SIGPIPE), signal.SIG_DFL)
        os.setsid()
        call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        os.close(goes)
        os.read(waits, 1)
        call("setns", there, CLONE_NEWNET)
        call("unshare", CLONE_NEWNS)
        call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        call("mount", b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"mode=1777,size={self.options.shm_mib}m".encode())
        os.execvp(self.options.command[0], self.options.command)

    def on_signal(self, number, _frame):
        if number in CABLE:
            self.connected = number == signal.SIGUSR2
        elif self.status is None:
            # Once more: at once.
            self.tell(signal.SIGTERM if self.kill_at is None else signal.SIGKILL)
            self.kill_at = time.monotonic() + self.options.grace_s

    def tell(self, number):
        # To its group, which may not be made yet.
        (os.killpg if os.getpgid(self.child) == self.child else os.kill)(self.child, number)

    def reap(self):
        """Also what COMMAND started and left, which are our children then."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
                if ended[0] == self.child:
                    self.status = os.waitstatus_to_exitcode(ended[1])

    def run(self):
        wakes, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        sources = {direction.source: direction for direction in self.directions}
        self.reap()
        while self.status is None:
            times = [direction.way[0][0] for direction in self.directions if direction.way]
            times += [self.kill_at] if self.kill_at is not None else []
            wait = max(0.0, min(times) - time.monotonic()) if times else None
            for fd in select.select([wakes, *sources], [], [], wait)[0]:
                if fd == wakes:
                    os.read(wakes, 512)
                    self.reap()
                else:
                    sources[fd].take(self.connected)
            now = time.monotonic()
            for direction in self.directions:
                direction.give(now, self.connected)
            if self.status is None and self.kill_at is not None and now >= self.kill_at:
                self.tell(signal.SIGKILL)
                self.kill_at = now + 1
        for where, way in zip(("to the other machine", "back"), self.directions):
            print(f"{where}: {way.passed} packets, {way.bytes} bytes, {way.dropped} dropped", file=sys.stderr)
        return self.status

    def clear(self):
        """Ends what is left of COMMAND, and removes the namespace."""
        handle(ENDS, signal.SIG_IGN)
        self.reap()
        while left := pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)
            self.reap()
        if os.path.exists(f"/run/netns/{self.namespace}"):
            ip(f"netns delete {self.namespace}")


def arguments():
    parser = argparse.ArgumentParser(add_help=False, formatter_class=argparse.RawTextHelpFormatter)
    parser.error = lambda message: stop(f"{message} (see --help)", 64)
    numbers = {"--rtt-ms": 1.0, "--mbit": 100.0, "--mtu": 1500, "--shm-mib": 512, "--grace-s": 10.0}
    for name, value in {**numbers, "--subnet": "10.77.0"}.items():
        parser.add_argument(name, type=type(value), default=value)
    parser.add_argument("-h", "--help", action="version", version=__doc__.strip())
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    options.command = sys.argv[split + 1 :]
    if not options.command or not re.fullmatch(r"\d+\.\d+\.\d+", options.subnet):
        stop("-- COMMAND is missing, or --subnet is not A.B.C (see --help)", 64)
    if not (0 <= options.rtt_ms <= 10000 and options.mbit >= 0 and 576 <= options.mtu <= 9000):
        stop("--rtt-ms is 0 to 10000, --mbit 0 or more, --mtu 576 to 9000", 64)
    if os.geteuid() != 0:
        stop("a network namespace needs root")
    return options


def main():
    box = Box(arguments())
    call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    call("prctl", PR_SET_TIMERSLACK, 1, 0, 0, 0)
    handle(ENDS, lambda number, _: sys.exit(128 + number))
    try:
        box.start(box.make())
        status = box.run()
    except OSError as error:
        stop(f"{error.filename}: {error.strerror}")
    finally:
        box.clear()
    sys.exit(status if status >= 0 else 128 - status)


main()
