"""What the page and the metrics show of runs beyond the views: read in threads, never on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from trainerd.contract.regular_file import open_regular
from trainerd.contract.safe_text import safe_text
from trainerd.errors import TrainerdError
from trainerd.supervisor.api.checkpoint_rows import CheckpointRow, checkpoint_rows
from trainerd.supervisor.api.metric_curve import TAIL_BYTES, Curves, read_curves
from trainerd.supervisor.attempt.gpu_use import GpuUse, GpuUseReader
from trainerd.supervisor.goodput.goodput_facts import RunFacts, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import JobView
    from trainerd.supervisor.bounded_io import BoundedIo

ANSWER_WAIT_S: Final = 2.0
"""How long an answer waits for run folders, in seconds; then it shows what was known before."""

SUMMARY_AGE_S: Final = 2.0
"""How old what is shown of a job that runs may be, in seconds."""

SPARK_POINTS: Final = 60

LOG_BYTES: Final = 32 << 10
"""How much of the end of a rank's log is shown, in bytes."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")

Value = TypeVar("Value")


@dataclass(frozen=True)
class RunSummary:
    """What is shown of a run in a line.

    Attributes:
        facts: What its ledger is computed from.
        checkpoints: Its checkpoints, newest first; None if they could not be read.
        loss: The end of its loss curve.
        memory_bytes: Memory that its ranks hold now; None if none runs.
        free_bytes: Room on the filesystem of its run folder; None if not known.
        gpus: Use of the GPUs that it was given, as far as known.
    """

    facts: RunFacts = field(default_factory=RunFacts)
    checkpoints: tuple[CheckpointRow, ...] | None = None
    loss: tuple[tuple[int, float], ...] = ()
    memory_bytes: int | None = None
    free_bytes: int | None = None
    gpus: tuple[GpuUse, ...] = ()

    @property
    def disk_bytes(self) -> int | None:
        """Size of its checkpoints in bytes, without those that cannot be read; None if none could be."""
        if self.checkpoints is None:
            return None
        return sum(row.size_bytes or 0 for row in self.checkpoints)

    @property
    def readable(self) -> tuple[CheckpointRow, ...]:
        """Checkpoints whose manifests could be read, newest first."""
        return tuple([row for row in self.checkpoints or () if row.size_bytes is not None])


class RunReadings:
    """Reads run folders for one event loop, and keeps what it has read.

    What it observes has names of its own, not those of the folders: the supervisor's own observations of a
    folder do not wait until a large history has been read for a display.

    Args:
        paths: The state folder.
        io: Makes the calls that block.
        gpus: Reads the use of GPUs.
    """

    def __init__(self, paths: StatePaths, io: BoundedIo, *, gpus: GpuUseReader | None = None) -> None:
        self._gpus = gpus if gpus is not None else GpuUseReader()
        self._paths = paths
        self._io = io
        self._summaries: dict[str, RunSummary] = {}
        self._read_at: dict[str, tuple[object, float]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def summaries(self, jobs: Iterable[JobView], *, is_all: bool = False) -> Mapping[str, RunSummary]:
        """Return what is known of these jobs' runs, by job; those not read in time are missing or older.

        Args:
            jobs: The jobs.
            is_all: Whether these are all there are: what was kept of others is dropped.
        """
        jobs = tuple(jobs)
        known = {job.name for job in jobs}
        for gone in self._read_at.keys() - known if is_all else ():
            self._summaries.pop(gone, None)
            self._read_at.pop(gone, None)
        if self._reading is None or self._reading.done():
            stale = [job for job in jobs if self._is_stale(job)]
            if stale:
                self._reading = asyncio.create_task(self._read(stale))
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=ANSWER_WAIT_S)
            if self._reading.done():
                self._reading.result()
        return {name: summary for name, summary in self._summaries.items() if name in known}

    async def curves(self, name: str) -> Curves:
        """Return the whole curves of a run; empty ones if its folder does not answer."""
        run = self._paths.run(name)
        return await self._observed(("curves", name), partial(read_curves, run.metrics), Curves())

    async def log_tail(self, name: str) -> str:
        """Return the end of the log of a run's rank 0."""
        run = self._paths.run(name)
        return await self._observed(("log", name), partial(_tail, run.rank_log(0)), "")

    async def _observed(self, key: tuple[str, str], call: Callable[[], Value], otherwise: Value) -> Value:
        try:
            return await self._io.observe(key, call)
        except (TrainerdError, OSError):
            return otherwise

    def _is_stale(self, job: JobView) -> bool:
        mark, at_s = self._read_at.get(job.name, (None, 0.0))
        is_old = asyncio.get_running_loop().time() - at_s > SUMMARY_AGE_S
        return mark != _mark(job) or (is_old and _may_change(job))

    async def _read(self, jobs: list[JobView]) -> None:
        calls = {job.name: partial(_summary, self._paths, job, self._gpus) for job in jobs}
        marks = {job.name: _mark(job) for job in jobs}
        found = await self._io.sweep({("summary", name): call for name, call in calls.items()})
        at_s = asyncio.get_running_loop().time()
        for (_, name), summary in found.items():
            self._summaries[name] = summary
            self._read_at[name] = marks[name], at_s


def _may_change(job: JobView) -> bool:
    return job.state in {"starting", "running", "draining"}


def _mark(job: JobView) -> object:
    """Return what changes when what was read of a job that does not run is no longer right."""
    return job.attempt, job.state, job.since_wall_s


def _summary(paths: StatePaths, job: JobView, gpus: GpuUseReader) -> RunSummary:
    run = paths.run(job.name)
    checkpoints = None
    with contextlib.suppress(TrainerdError, OSError):
        checkpoints = checkpoint_rows(run)
    curves = read_curves(run.metrics, read_bytes_max=TAIL_BYTES, points_max=SPARK_POINTS)
    free = None
    with contextlib.suppress(OSError):
        status = os.statvfs(run.root)
        free = status.f_bavail * status.f_frsize
    return RunSummary(
        read_facts(paths, job.name),
        checkpoints,
        tuple(curves.kept.get("loss", ())),
        _memory(job.pids),
        free,
        gpus.read(job.gpus),
    )


def _memory(pids: tuple[int, ...]) -> int | None:
    """Return the memory that processes hold, in bytes, None if none of them is there."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES)
    return sum(found) if found else None


def _tail(path: Path) -> str:
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, LOG_BYTES, max(size - LOG_BYTES, 0))
    finally:
        os.close(descriptor)
    if size > LOG_BYTES:
        data = data.partition(b"\n")[2]
    return safe_text(data.decode(errors="replace"), characters_max=LOG_BYTES)
