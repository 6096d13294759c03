"""What is cut: saves, prunes, journal commits and records, one after the other, in a process of their own.

The process says what it has done as soon as trainerd reports it, through a pipe: what came out of the pipe
before the cut must be on the disk after it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from chaos.power_cut.small_journal import SmallJournal
from chaos.power_cut.small_run import SmallRun
from chaos.waiting import HarnessError
from trainerd.contract.durable import write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["AIMED", "FILE_BYTES", "WORKS", "Work", "Worker"]

FILE_BYTES: Final = 300_000
"""Size of a checkpoint's tensors: large enough that a save takes a few milliseconds."""

_SAVES_BEFORE_A_PRUNE: Final = 6
_START_LIMIT_S: Final = 20.0

Say: TypeAlias = "Callable[[str], None]"


@dataclass(frozen=True)
class Work:
    """One kind of work.

    Attributes:
        act: Does it, for ever, in a folder of its own.
        kind: Which recovery it needs, as in `chaos.power_cut.scenarios`.
        begins_at: The mark after which it is cut.
        span_s: How long after that mark at most.
        waits: Whether the work stands still once it has said that mark.
    """

    act: Callable[[Path, Say], None]
    kind: str
    begins_at: str
    span_s: float
    waits: bool = False


def _newest(run: SmallRun) -> int:
    found = run.store.newest_verified()
    return found.step if found is not None else 0


def _save(folder: Path, say: Say) -> None:
    run = SmallRun(folder, size_bytes=FILE_BYTES)
    with run.store.lock():
        run.open()
        step = _newest(run)
        say(f"start {step}")
        while True:
            step += 1
            run.save(step, on_committed=lambda step=step: say(f"saved {step}"))  # type: ignore[misc]
            if step % 3 == 0:
                run.prune()


def _prune(folder: Path, say: Say) -> None:
    run = SmallRun(folder, size_bytes=FILE_BYTES)
    with run.store.lock():
        run.open()
        step = _newest(run)
        while True:
            for _ in range(_SAVES_BEFORE_A_PRUNE):
                step += 1
                run.save(step)
            say(f"prune {step}")
            run.prune()


def _journal(folder: Path, say: Say) -> None:
    journal = SmallJournal(folder)
    number = max(journal.decisions(), default=0)
    say(f"start {number}")
    while True:
        number += 1
        journal.decide(number)
        say(f"decided {number}")


def _record(folder: Path, say: Say) -> None:
    path = folder / "exit.json"
    number = int(path.read_bytes().split()[1]) if path.exists() else 0
    say(f"start {number}")
    while True:
        number += 1
        write_file(path, f"version {number} ".encode() * 60)
        say(f"written {number}")


WORKS: Final = {
    "save": Work(_save, "run", "start", 0.06),
    "prune": Work(_prune, "run", "prune", 0.012),
    "journal": Work(_journal, "journal", "start", 0.03),
    "record": Work(_record, "record", "start", 0.02),
}

AIMED: Final = {
    "save, reported": Work(_save, "run", "saved", 0.001, waits=True),
    "record, reported": Work(_record, "record", "written", 0.001, waits=True),
}
"""For controls whose fault shows only between a report and the next sync of any file: the work waits there,
however long the cut takes to come."""


class Worker:
    """A process that works until the disk is gone or it is killed.

    Args:
        work: What it does.
        folder: Where.
        spoil: Called in that process first: the place to break a protocol on purpose.
    """

    def __init__(self, work: Work, folder: Path, *, spoil: Callable[[], None] | None = None) -> None:
        self._begins_at = work.begins_at
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self._said = b""
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        with suppress(BaseException):  # the disk goes away under it: that is the purpose
            if spoil is not None:
                spoil()
            work.act(folder, lambda mark: _say(work, write, mark))
        os._exit(1)

    def said(self) -> tuple[str, ...]:
        """Return everything that it has said by now, whole marks only."""
        with suppress(BlockingIOError):
            while piece := os.read(self._read, 1 << 16):
                self._said += piece
        return tuple(line.decode() for line in self._said.split(b"\n")[:-1])

    def wait_for_begin(self) -> None:
        """Wait for the mark after which it is to be cut.

        Raises:
            HarnessError: It does not come in time.
        """
        deadline_s = time.monotonic() + _START_LIMIT_S
        while not any(one.startswith(self._begins_at) for one in self.said()):
            if time.monotonic() > deadline_s:
                raise HarnessError(f"the work never said {self._begins_at!r}: {self.said()}")
            time.sleep(0.0005)

    def end(self) -> None:
        """Kill it and see it gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._read)


def _say(work: Work, descriptor: int, mark: str) -> None:
    os.write(descriptor, mark.encode() + b"\n")
    while work.waits and mark.startswith(work.begins_at):
        signal.pause()
