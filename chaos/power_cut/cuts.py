"""Cuts a recorded program in every way and recovers from each."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.power_cut.operations import Link, Resize, Trace, Write
from chaos.power_cut.recorder import record
from chaos.power_cut.recovery import complaint
from chaos.power_cut.states import cut_states, names_of, write_state

if TYPE_CHECKING:
    from chaos.power_cut.scenarios import Scenario

__all__ = ["Cuts", "Violation", "cut_everywhere", "record_scenario"]


@dataclass(frozen=True)
class Violation:
    """A state from which recovery does not keep the promise."""

    moment: str
    done: tuple[str, ...]
    complaint: str

    def __str__(self) -> str:
        reported = f", after {self.done[-1]!r}" if self.done else ""
        return f"cut before {self.moment}{reported}: {self.complaint}"


@dataclass(frozen=True)
class Cuts:
    """What came of it.

    Attributes:
        states: States that were built and recovered from.
        sampled: How many of them stand for more that were not built.
        violations: Those that broke the promise.
        duration_s: How long it took.
    """

    states: int
    sampled: int
    violations: tuple[Violation, ...]
    duration_s: float


def record_scenario(name: str) -> Trace:
    """Run a scenario under strace, in a folder of its own on an ordinary disk."""
    with tempfile.TemporaryDirectory(prefix="trainerd-cuts-") as scratch:
        folder = Path(scratch) / "disk"
        folder.mkdir()
        command = [sys.executable, "-m", "chaos.power_cut.scenarios", name, str(folder)]
        return _with_any_shared_memory(record(command, folder))


def _with_any_shared_memory(trace: Trace) -> Trace:
    """Let SQLite's shared-memory file hold rubbish whenever it is there.

    It is written through a mapping, which no system call shows, and never synced; the next process that opens
    the database first makes it again, so nothing in it may matter.
    """
    shared = {one.inode for one in trace.operations if isinstance(one, Link) and one.name.endswith("-shm")}
    operations = (
        one for one in trace.operations if not (isinstance(one, Write | Resize) and one.inode in shared)
    )
    rubbish = dict.fromkeys(shared, b"\xa5" * 32768)
    return Trace({**trace.inodes, **rubbish}, tuple(operations))


def cut_everywhere(
    trace: Trace, scenario: Scenario, *, seed: int = 0, violations_max: int = 1, states_max: int | None = None
) -> Cuts:
    """Rebuild every state, recover from each, and stop at the `violations_max`-th that breaks the promise."""
    began_s = time.monotonic()
    violations: list[Violation] = []
    shapes: set[int] = set()
    states = sampled = 0
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="trainerd-cuts-", dir=parent) as scratch:
        folder = Path(scratch) / "disk"
        for state in cut_states(trace, seed=seed):
            folder.mkdir()
            write_state(state.tree, folder)
            # Whether the next save goes well depends on which names are there: asked once for each set of
            # them.
            shape = hash(names_of(state.tree))
            found = complaint(folder, scenario, state.done, goes_on=shape not in shapes)
            shapes.add(shape)
            shutil.rmtree(folder)
            states += 1
            sampled += state.is_sampled
            if found is not None:
                violations.append(Violation(state.moment, state.done, found))
                if len(violations) >= violations_max:
                    break
            if states == states_max:
                break
    return Cuts(states, sampled, tuple(violations), time.monotonic() - began_s)
