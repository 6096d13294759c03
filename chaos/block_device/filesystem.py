"""A filesystem of one's own in a file, which can be shut down as a power cut would.

Invariants:
    The process that mounts has a mount namespace of its own (`own_mounts`), and a loop device that frees
    itself with the last mount. So nothing is left behind even by a process that is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

from chaos.waiting import HarnessError

__all__ = ["KINDS", "Filesystem", "missing", "own_mounts"]

KINDS: Final = ("ext4", "xfs")

_IMAGE_BYTES: Final = {"ext4": 96 << 20, "xfs": 320 << 20}
_MAKE: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
}
_PACKAGES: Final = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}

_FS_IOC_SHUTDOWN: Final = 0x8004587D
_WITHOUT_LOG_FLUSH: Final = 2
_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_MAJOR: Final = 7
_CLONE_NEWNS: Final = 0x00020000
_MS_PRIVATE_RECURSIVE: Final = (1 << 18) | (1 << 14)
_UNMOUNT_LIMIT_S: Final = 10.0


def missing(kind: str) -> str | None:
    """Return why a filesystem of this kind cannot be had here, None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which(_MAKE[kind][0]) is None:
        return f"{_MAKE[kind][0]} is missing: apt-get install {_PACKAGES[kind]}"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices here"
    return None


def own_mounts() -> None:
    """Give this process a mount namespace of its own, whose mounts no other sees and that ends with it.

    Raises:
        HarnessError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_PRIVATE_RECURSIVE, None):
        raise HarnessError(f"a mount namespace cannot be had: {os.strerror(ctypes.get_errno())}")


class Filesystem:
    """One new filesystem, mounted by `mount` at `root`.

    Args:
        kind: One of `KINDS`.
        scratch: A folder for the image and the mount point.
    """

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind = kind
        self.root = scratch / f"{kind}-mounted"
        self.root.mkdir()
        self._image = scratch / f"{kind}.img"
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES[kind])
        _run(*_MAKE[kind], str(self._image))

    def mount(self) -> None:
        """Mount it; the filesystem replays its log."""
        _make_loop_node()
        _run("mount", "-t", self.kind, "-o", "loop", str(self._image), str(self.root))

    def shut_down(self) -> None:
        """Cut it off from its disk at once: what is in memory only is lost, the log too."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Unmount it. The processes that used it have ended."""
        deadline_s = time.monotonic() + _UNMOUNT_LIMIT_S
        while True:
            try:
                _run("umount", str(self.root))
            except HarnessError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)
            else:
                return

    def remove(self) -> None:
        """Unmount it if it is mounted, and give the room back."""
        if os.path.ismount(self.root):
            self.unmount()
        self._image.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()


def _make_loop_node() -> None:
    """Make the device file of the next free loop device, where udev does not."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    path = f"/dev/loop{number}"
    if not Path(path).exists():
        os.mknod(path, 0o660 | stat.S_IFBLK, os.makedev(_LOOP_MAJOR, number))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise HarnessError(f"{' '.join(command)}: {done.stderr.decode().strip()}")
