"""Instances: separate worlds on one machine.

The rules are those of framebus-bus/src/domain.rs, seen from outside: a client makes
nothing that the instance has not made.
"""

import os
import stat
import string
from pathlib import Path

from .errors import AbsentError, InstanceError

# Sockets lie below the folder, and their paths end at 108 bytes.
_ROOT_MAX = 48
_PLAIN = frozenset(string.ascii_lowercase + string.digits + "-_")
# Joining takes a few pages here and there; a full /dev/shm would kill by SIGBUS.
_ROOM = 64 * 1024
_SHM = Path("/dev/shm")


def default_root() -> Path:
    """Default folder of all instances of this user."""
    return Path(f"/tmp/framebus-{os.getuid()}")


class Domain:
    """One instance: its own prefix in /dev/shm and its own folder."""

    def __init__(self, instance: str, root: Path) -> None:
        self.instance = instance
        self.root = root
        self.folder = root / instance
        if not 1 <= len(instance) <= 24 or not _PLAIN.issuperset(instance):
            raise self._error("an instance name has 1 to 24 of a-z, 0-9, - and _")
        if not root.is_absolute():
            raise self._error("the folder must be an absolute path")
        length = len(os.fsencode(self.folder))
        if length > _ROOT_MAX:
            raise self._error(
                f"its path has {length} bytes, sockets below it allow {_ROOT_MAX}; "
                "choose a shorter bus.root or instance"
            )
        # The dot ends the name: no prefix is the beginning of another instance's.
        self.prefix = f"fb{os.getuid()}_{instance}."

    def _error(self, reason: str) -> InstanceError:
        return InstanceError(f'instance "{self.instance}" cannot use folder {self.root}: {reason}')

    def check(self) -> None:
        """Whether the instance is there and is this user's: whoever owns its folder
        or its memory could feed us anything."""
        if not self.folder.is_dir():
            raise AbsentError(
                f"nothing publishes instance {self.instance} below {self.root} yet; "
                "is `framebus up` running with the same instance, bus.root and user?"
            )
        user = os.getuid()
        for folder in (self.root, self.folder):
            about = folder.lstat()
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != user:
                raise self._error(
                    f"{folder} is not a folder of user {user} (owner {about.st_uid}); "
                    "all processes of an instance run as one user"
                )
            # Where others may write, they could put a folder of theirs in place of
            # the instance's; in a sticky one they cannot.
            sticky_root = folder == self.root and about.st_mode & stat.S_ISVTX
            if about.st_mode & 0o022 and not sticky_root:
                raise self._error(f"others may write in {folder}: chmod go-w {folder}")
        for entry in os.scandir(_SHM):
            if entry.name.startswith(self.prefix):
                try:
                    owner = entry.stat(follow_symlinks=False).st_uid
                except FileNotFoundError:
                    continue
                if owner != user:
                    raise self._error(
                        f"{entry.path} belongs to user {owner}; remove it, or choose another "
                        "instance name"
                    )
        for place in (_SHM, self.folder):
            self._check_room(place)

    def _check_room(self, place: Path) -> None:
        about = os.statvfs(place)
        free = about.f_bavail * about.f_frsize
        # Some file systems do not count files and say 0 of 0.
        no_files = about.f_files > 0 and about.f_favail == 0
        if free < _ROOM or no_files:
            raise self._error(
                f"{place} has {free // 1024} KiB and {about.f_favail} files free, joining the "
                f"bus needs {_ROOM // 1024} KiB: make room there or mount it larger"
            )
