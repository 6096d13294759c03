"""Has the ranks of a stalled attempt show where they stand, in their logs, before they are ended.

A rank that uses the session has a handler, in C, that writes the stacks of its threads to its log: it answers
even while some thread never lets go of the interpreter lock. A process that is stopped, or that has no such
handler, is described from /proc. Nothing here ends anything, and nothing that fails here keeps a rank alive.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract.counted import counted
from trainerd.contract.process import open_pidfd
from trainerd.contract.signals import STACKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.contract.process import ProcessIdentity

STACKS_LIMIT_S: Final = 3.0
"""How long the ranks may take to write their stacks, all of them together."""

QUIET_S: Final = 0.2
"""A log that has not grown for so long after the first line holds all that was to be written."""

LOOK_S: Final = 0.02
THREADS_MAX: Final = 32
FRAMES_MAX: Final = 8
STACK_BYTES_MAX: Final = 256 * 1024

_STOPPED: Final = "T"
_FRAME: Final = re.compile(r'\s+File "(.+)", line (\d+) in (.+)')


def show_stacks(ranks: Sequence[ProcessIdentity], logs: Sequence[Path], *, headline: str) -> tuple[str, ...]:
    """Write to each rank's log why and where it stands; return the gist, a line or some a rank. Blocks.

    Args:
        ranks: The ranks' processes, by rank.
        logs: Their logs.
        headline: What is written above it.
    """
    found = [_about(identity) for identity in ranks]
    for log, lines in zip(logs, found, strict=False):
        _append(log, [f"--- {headline} ---", *lines])
    sizes = [_size(log) for log in logs]
    asked = [rank for rank, identity in enumerate(ranks) if _ask(identity)]
    _wait_until_quiet([logs[rank] for rank in asked], [sizes[rank] for rank in asked])
    gist: list[str] = []
    for rank, (log, lines) in enumerate(zip(logs, found, strict=False)):
        gist.append(f"rank {rank}: {lines[0]}")
        frames = _frames(log, sizes[rank]) if rank in asked else []
        gist += [f"    {frame}" for frame in frames]
        _append(log, ["--- end of what it was doing ---"])
    return tuple(gist)


def _about(identity: ProcessIdentity) -> list[str]:
    """Describe a process from /proc: its state first, then its threads."""
    lines = [f"process {identity.pid}: {_state(Path('/proc') / str(identity.pid))}"]
    with contextlib.suppress(OSError):
        tasks = sorted(Path(f"/proc/{identity.pid}/task").iterdir(), key=lambda path: int(path.name))
        lines += [
            f"  thread {task.name} ({_read(task / 'comm')}): {_state(task)}" for task in tasks[:THREADS_MAX]
        ]
        if len(tasks) > THREADS_MAX:
            lines.append(f"  and {counted(len(tasks) - THREADS_MAX, 'more thread')}")
    return lines


def _state(folder: Path) -> str:
    state = _status(folder).get("State", "cannot be looked at")
    channel = _read(folder / "wchan")
    return f"{state}, waits in {channel}" if channel not in {"", "0"} else state


def _status(folder: Path) -> dict[str, str]:
    fields = (line.partition(":") for line in _read(folder / "status").splitlines())
    return {name: value.strip() for name, _, value in fields}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _ask(identity: ProcessIdentity) -> bool:
    """Send the signal, if the process has a handler and can run it. Without one it would end the process."""
    status = _status(Path("/proc") / str(identity.pid))
    try:
        has_handler = bool(int(status.get("SigCgt", "0"), 16) & (1 << (STACKS - 1)))
        descriptor = open_pidfd(identity)
    except (OSError, ValueError):
        return False
    if descriptor is None:
        return False
    try:
        if not has_handler or status.get("State", "").startswith(_STOPPED):
            return False
        signal.pidfd_send_signal(descriptor, STACKS)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _wait_until_quiet(logs: Sequence[Path], sizes: Sequence[int]) -> None:
    deadline_s = time.monotonic() + STACKS_LIMIT_S
    last, quiet_since_s = list(sizes), time.monotonic()
    while time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        now = [_size(log) for log in logs]
        if now != last:
            last, quiet_since_s = now, time.monotonic()
        have_all_begun = all(size > before for size, before in zip(now, sizes, strict=True))
        if have_all_begun and time.monotonic() - quiet_since_s >= QUIET_S:
            return


def _frames(log: Path, begin: int) -> list[str]:
    """Return where the thread that took the signal stands: the main one, innermost frame first."""
    try:
        with log.open("rb") as stream:
            stream.seek(begin)
            lines = stream.read(STACK_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        return []
    at = next((i for i, line in enumerate(lines) if line.startswith("Current thread")), None)
    if at is None:
        return []
    frames = []
    for line in lines[at + 1 : at + 1 + FRAMES_MAX]:
        match = _FRAME.match(line)
        if match is None:
            break
        frames.append(f"in {match[3]} ({match[1]}:{match[2]})")
    return frames


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _append(log: Path, lines: Sequence[str]) -> None:
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
        stream.write("".join(f"{line}\n" for line in lines))
