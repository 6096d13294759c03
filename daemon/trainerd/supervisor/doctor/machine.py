"""The machine: kernel, limits, clock, GPUs."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import counted
from trainerd.supervisor.doctor.finding import broken, ok, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainerd.supervisor.doctor.finding import Finding

OPEN_FILES_MIN: Final = 1024
WATCHES_MIN: Final = 1024
EPOCH_MIN_S: Final = 1_735_689_600.0
"""The beginning of 2025: a clock before that was never set."""

_TIMEX_BYTES: Final = 256
_TIME_ERROR: Final = 5
_INOTIFY: Final = Path("/proc/sys/fs/inotify")


def check_kernel() -> Iterator[Finding]:
    """Look for what the supervisor needs of the kernel."""
    release = platform.release()
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        yield broken(
            "kernel",
            f"{release} gives no process descriptors (pidfd_open): {error}",
            "use Linux 5.3 or newer, and a sandbox that allows the call",
        )
    else:
        yield ok("kernel", f"Linux {release} gives process descriptors")


def check_limits() -> Iterator[Finding]:
    """Look at how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_MIN and soft != resource.RLIM_INFINITY:
        yield warning(
            "open files",
            f"only {soft} files may be open at once (hard limit {hard})",
            "ulimit -n 65536, or LimitNOFILE=65536 in the unit",
        )
    else:
        yield ok("open files", f"{soft} files may be open at once")


def check_inotify() -> Iterator[Finding]:
    """Look whether changes of the jobs folder can be noticed at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        reason = os.strerror(ctypes.get_errno())
        yield warning(
            "inotify",
            f"no watch is to be had ({reason}): the jobs folder is looked at every second instead",
            "sudo sysctl fs.inotify.max_user_instances=512",
        )
        return
    os.close(descriptor)
    watches = _number(_INOTIFY / "max_user_watches")
    if watches is not None and watches < WATCHES_MIN:
        yield warning(
            "inotify",
            f"only {watches} folders may be watched by a user",
            "sudo sysctl fs.inotify.max_user_watches=65536",
        )
    else:
        yield ok("inotify", "changes of the jobs folder are noticed at once")


def check_clock() -> Iterator[Finding]:
    """Look whether the clock is set and kept right; times in logs, and waits over a restart, are by it."""
    if time.time() < EPOCH_MIN_S:
        yield broken(
            "clock", f"the clock says {time.strftime('%Y-%m-%d')}", "set it: sudo timedatectl set-ntp true"
        )
        return
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # all zero: only asks
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if answer < 0:
        yield skipped("clock", "the kernel does not say whether it is synchronized")
    elif answer == _TIME_ERROR:
        yield warning(
            "clock",
            "it is not synchronized: times of different machines cannot be compared",
            "sudo timedatectl set-ntp true, or see that the host does it",
        )
    else:
        yield ok("clock", "it is synchronized")


def check_gpus(devices: Path = Path("/dev")) -> Iterator[Finding]:
    """Look for NVIDIA GPUs and for the library that tells about them."""
    found = sorted(path.name for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdigit())
    if not found:
        yield skipped("gpu", "no NVIDIA device is visible")
        return
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        yield warning(
            "gpu",
            f"{counted(len(found), 'device')} ({', '.join(found)}), and no NVML to ask about them",
            "install the driver's libnvidia-ml, or in a container: --gpus all with the utility capability",
        )
        return
    code = library.nvmlInit_v2()
    if code:
        yield broken(
            "gpu",
            f"{counted(len(found), 'device')}, and NVML does not start (error {code}): driver and library do "
            "not fit",
            "see `nvidia-smi`; after an upgrade of the driver the machine has to restart",
        )
        return
    count = ctypes.c_uint(0)
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    library.nvmlShutdown()
    yield ok("gpu", f"NVML tells of {counted(count.value, 'GPU')}")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
