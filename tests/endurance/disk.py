"""A disk with a volatile write cache, and the moment its power fails.

    platter.img        a plain file: what is written here is kept
    └ outer ext4       plays the disk: its page cache is the disk's write cache
      └ disk.img       the disk, as the relay's file system sees it (a second loop device)
        └ inner ext4   holds the relay's store

A flush of the inner file system becomes an fsync of disk.img, so only what was flushed is on the platter for sure.
The cut shuts the outer file system down without a flush (the ioctl that file-system tests use for this): what lay in
its cache is gone, with what the inner file system had written and not yet flushed.
"""  # fmt: skip

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["VolatileDisk", "volatile_disk", "why_no_disk"]

_SHUTDOWN: Final = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_FLUSH: Final = 2
_MIB: Final = 1 << 20
_CACHE_MIB: Final = 96  # the outer file system's own needs


def why_no_disk() -> str:
    """Return why no such disk can be made here; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root, for loop devices and mounts"
    if not Path("/dev/loop-control").exists():
        return "this machine has no loop devices"
    return ""


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


class VolatileDisk:
    """Both layers. `inner` is where the relay's store belongs while the disk is on."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._outer, self.inner = directory / "outer", directory / "inner"
        self._platter, self._image = directory / "platter.img", self._outer / "disk.img"
        self._size_bytes = size_bytes
        self._outer_device = self._inner_device = ""

    def make(self) -> None:
        """Make both file systems and switch on. Raises OSError: this machine does not let us."""
        for mount_point in (self._outer, self.inner):
            mount_point.mkdir()
        with self._platter.open("wb") as platter:
            platter.truncate(self._size_bytes + _CACHE_MIB * _MIB)
        self._outer_device = _run("losetup", "--find", "--show", self._platter)
        _run("mkfs.ext4", "-q", self._outer_device)
        _run("mount", self._outer_device, self._outer)
        with self._image.open("wb") as image:  # written whole, so that no later write changes the outer's metadata
            for _ in range(self._size_bytes // _MIB):
                image.write(bytes(_MIB))
        self._inner_device = _run("losetup", "--find", "--show", self._image)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._inner_device)
        _run("mount", self._inner_device, self.inner)
        os.sync()

    def cut(self) -> None:
        """Fail the power now. Whoever still writes to the inner file system gets errors."""
        handle = os.open(self._outer, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(handle)

    def power_on(self) -> None:
        """Forget every cache and mount what the platter holds; nobody may have files open."""
        self._detach()
        _run("mount", self._outer_device, self._outer)
        self._inner_device = _run("losetup", "--find", "--show", self._image)
        _run("mount", self._inner_device, self.inner)

    def scrap(self) -> None:
        """Release everything, whatever state it is in."""
        self._detach()
        if self._outer_device:
            _run("losetup", "--detach", self._outer_device)
            self._outer_device = ""

    def _detach(self) -> None:
        if self.inner.is_mount():
            _run("umount", self.inner)
        if self._inner_device:
            _run("losetup", "--detach", self._inner_device)
            self._inner_device = ""
        if self._outer.is_mount():
            _run("umount", self._outer)


@contextmanager
def volatile_disk(directory: Path, size_bytes: int) -> Iterator[VolatileDisk]:
    """Make a disk under *directory* and scrap it at the end. Raises OSError: this machine does not let us."""
    disk = VolatileDisk(directory, size_bytes)
    try:
        disk.make()
        yield disk
    finally:
        disk.scrap()
