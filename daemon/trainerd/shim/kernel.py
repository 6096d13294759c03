"""What the shim asks of the kernel once, before anything else.

Invariant: from `hold_signals` on, every signal that can be held is held, so none can end the shim or
interrupt it half-way; they are taken one at a time by `wait_for_signal`. The launcher holds them for the shim
from its first instruction on, so that a request to stop is never lost, however early it comes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
from pathlib import Path
from typing import ClassVar, Final

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
"""Asked of the ranks: finish the step, checkpoint, leave."""

WAITED: Final = STOP_SIGNALS | {signal.SIGQUIT, signal.SIGCHLD}

_FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})
_CANNOT_BE_HELD: Final = frozenset({signal.SIGKILL, signal.SIGSTOP})
HELD: Final = frozenset(signal.valid_signals()) - _FAULTS - _CANNOT_BE_HELD

_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_SYS_CLONE3: Final = 435  # on every architecture but Alpha
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
_FIRST_INHERITED: Final = 3
_SIGNAL_SET_BYTES: Final = 128  # sigset_t of glibc and musl alike


def hold_signals() -> None:
    """Hold every signal.

    Whatever the launcher, or Python, ignores is not ignored here, nor later in the ranks.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, HELD)
    for number in signal.valid_signals() - _CANNOT_BE_HELD:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)


class _Timespec(ctypes.Structure):
    _fields_: ClassVar = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def wait_for_signal(timeout_s: float) -> int | None:
    """Return the next signal of `WAITED`, None if none came in `timeout_s` or the wait was broken off.

    Not `signal.sigtimedwait`: where a process is stopped, and continued once the time is up, CPython returns
    what happened to be on its stack, which is no signal at all or, worse, one that had come before.

    Raises:
        OSError: The kernel refuses.
    """
    wait = max(timeout_s, 0.0)
    limit = _Timespec(int(wait), int(wait % 1 * 1e9))
    libc = ctypes.CDLL(None, use_errno=True)
    number: int = libc.sigtimedwait(_signal_set(), None, ctypes.byref(limit))
    if number > 0:
        return number
    if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
        raise OSError(ctypes.get_errno(), "sigtimedwait failed")
    return None


def _signal_set() -> ctypes.Array[ctypes.c_char]:
    """Return `WAITED` as the C library has it."""
    libc = ctypes.CDLL(None)
    signals = ctypes.create_string_buffer(_SIGNAL_SET_BYTES)
    libc.sigemptyset(signals)
    for number in WAITED:
        libc.sigaddset(signals, int(number))
    return signals


def followed_folder(path: Path) -> Path:
    """Return a path that means this folder wherever it is moved, for as long as this process lives."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return Path(f"/proc/self/fd/{descriptor}")


def set_title(title: str) -> None:
    """Have `ps` and `top` show what this process is, as far as its command line had room.

    A shim that was forked by a template has the template's command line. What was there is overwritten in
    place, as the kernel shows that memory.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        room = end - start - 1
        if start and room > 0:
            data = title.encode(errors="replace")[:room].ljust(room + 1, b"\0")
            ctypes.memmove(start, data, len(data))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, ctypes.create_string_buffer(title.encode(errors="replace")[:15]), 0, 0, 0)


def write_notes_to(path: Path) -> None:
    """Have standard output and error appended to a file.

    They stay as they are where that cannot be opened.
    """
    with contextlib.suppress(OSError):
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)


def become_session_leader() -> None:
    """Leave the launcher's session, so that no terminal's hang-up or Ctrl-C reaches the attempt."""
    with contextlib.suppress(PermissionError):  # the launcher has already seen to it
        os.setsid()


def become_subreaper() -> None:
    """Have every orphan among the descendants become a child of this process.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def fork_into(cgroup: int) -> int:
    """Fork a child that is born in a cgroup of version 2; return its pid, and 0 in the child.

    A process that moves into one by itself waits for all processors to take notice, some 6 ms; a newborn does
    not.

    Args:
        cgroup: Descriptor of the cgroup's folder.

    Raises:
        OSError: The kernel, or a sandbox, does not do that; or there is no room for a process.
    """
    arguments = _CloneArguments(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=cgroup)
    # By way of `PyDLL`, which keeps the interpreter's lock: the child goes on with it, and has this thread
    # alone.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    pid: int = call(_SYS_CLONE3, ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return pid


class _CloneArguments(ctypes.Structure):
    _fields_: ClassVar = [
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    ]


def close_inherited(*, keep: int | None) -> None:
    """Close what some library of the launcher's forgot to close, and keep `keep` from the ranks."""
    end = os.sysconf("SC_OPEN_MAX")
    if keep is None:
        os.closerange(_FIRST_INHERITED, end)
        return
    os.set_inheritable(keep, False)
    os.closerange(_FIRST_INHERITED, keep)
    os.closerange(keep + 1, end)
