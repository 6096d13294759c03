"""Runs the command of a hook: its own process group, a time limit, and no pipe that could block."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final

from trainerd.contract.safe_text import one_line
from trainerd.supervisor.attempt.launch_record import inherited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

ERROR_BYTES_SHOWN: Final = 200
"""So much of what a failed command wrote last to standard error is told, in bytes."""

KILL_WAIT_S: Final = 2.0
"""How long a killed command is waited for, in seconds."""


class RunningCommands:
    """Commands that run, so that they can be ended before this process ends. Used from several threads."""

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def pids(self) -> frozenset[int]:
        """Process ids of the commands."""
        with self._lock:
            return frozenset(self._pids)

    def add(self, pid: int) -> bool:
        """Note a command; return whether it may go on."""
        with self._lock:
            self._pids.add(pid)
            return not self._is_closed

    def discard(self, pid: int) -> None:
        with self._lock:
            self._pids.discard(pid)

    def kill_all(self) -> None:
        """End all of them, and whatever is started from now on."""
        with self._lock:
            self._is_closed = True
            for pid in self._pids:
                _kill_group(pid)


def run_command(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    standard_input: bytes,
    folder: str | None,
    limit_s: float,
    running: RunningCommands,
) -> str | None:
    """Run a command; return how it failed, None if it has succeeded. Blocks.

    Args:
        command: Program and arguments.
        variables: Added to what a job would inherit of this process's environment.
        standard_input: What it can read.
        folder: Where it starts.
        limit_s: How long it may take, in seconds; then its process group is killed.
        running: Where it is noted while it runs.

    Raises:
        OSError: It cannot be started.
    """
    environment = inherited(os.environ) | dict(variables)
    # Files instead of pipes: a command that reads nothing, or leaves a child with them, holds up nothing.
    with TemporaryFile() as source, TemporaryFile() as errors:
        source.write(standard_input)
        source.seek(0)
        process = subprocess.Popen(
            list(command),
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            if not running.add(process.pid):
                _kill_group(process.pid)
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _kill_group(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_WAIT_S)
            return f"did not end within {limit_s:g} s"
        finally:
            running.discard(process.pid)
        return None if code == 0 else _failure(code, errors)


def _failure(code: int, errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(size - ERROR_BYTES_SHOWN, 0))
    said = one_line(errors.read().decode("utf-8", "replace"))
    how = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
    return f"{how}: {said}" if said else how


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
