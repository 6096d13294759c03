"""What the newest attempts said and how they ended, in memory: a view is made without reading a file."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from trainerd.checkpoint.memory_place import newest_in_memory
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.resume_record import read_resume
from trainerd.errors import CorruptError
from trainerd.supervisor.api.saved_progress import read_saved
from trainerd.supervisor.api.views import outcome_view
from trainerd.supervisor.machine.job_events import AttemptEnded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import RunPaths, StatePaths
    from trainerd.contract.resume_record import ResumeRecord
    from trainerd.supervisor.api.control import OutcomeView
    from trainerd.supervisor.api.saved_progress import SavedProgress
    from trainerd.supervisor.bounded_io import BoundedIo
    from trainerd.supervisor.journal.journal import Journal
    from trainerd.supervisor.ledger import Step

ANSWER_WAIT_S: Final = 1.0
"""How long an answer waits for run folders, in seconds; then it shows what was known before."""


class RecentAttempts:
    """Caches of what the journal and the run folders hold.

    Args:
        journal: History of the jobs.
        paths: The state folder.
        io: Makes the calls that block.
    """

    def __init__(self, journal: Journal, paths: StatePaths, io: BoundedIo) -> None:
        self._journal = journal
        self._paths = paths
        self._io = io
        self._outcomes = {name: outcome_view(row) for name, row in journal.last_endings().items()}
        self._heartbeats: dict[str, tuple[int, Heartbeat | None]] = {}
        self._resumes: dict[str, ResumeRecord | None] = {}
        self._saved: dict[str, SavedProgress | None] = {}
        self._memory_steps: dict[str, int | None] = {}
        self._observing: set[asyncio.Task[None]] = set()
        self._gone: set[str] = set()  # jobs that went while they were observed

    def note(self, step: Step) -> None:
        """Observe a step of the loop."""
        if isinstance(step.event, AttemptEnded):
            for ending in self._journal.endings(step.name, attempt=step.event.attempt):
                self._outcomes[step.name] = outcome_view(ending)
            self._heartbeats.pop(step.name, None)

        if step.after is None:
            for kept in (self._outcomes, self._heartbeats, self._resumes, self._saved, self._memory_steps):
                kept.pop(step.name, None)
            if self._observing:
                self._gone.add(step.name)

    def last_outcome(self, name: str) -> OutcomeView | None:
        """Return how the newest ended attempt of a job ended, None if none has."""
        return self._outcomes.get(name)

    def last_heartbeat(self, name: str, attempt: int) -> Heartbeat | None:
        """Return what an attempt of a job said last, as far as it was observed."""
        number, beat = self._heartbeats.get(name, (0, None))
        return beat if number == attempt else None

    def last_resume(self, name: str) -> ResumeRecord | None:
        """Return what is known of the newest resume of a job, as far as it was observed."""
        return self._resumes.get(name)

    def last_saved(self, name: str) -> SavedProgress | None:
        """Return what is in the run folder of a job, as far as it was observed."""
        return self._saved.get(name)

    def memory_step(self, name: str) -> int | None:
        """Return the step of the newest copy that a job has in memory, as last observed."""
        return self._memory_steps.get(name)

    async def observe(self, attempts: Mapping[str, int]) -> None:
        """Read what these attempts said last, by job, and how the jobs' resumes went.

        Return when that is known.

        Returns after `ANSWER_WAIT_S` at the latest: what comes later is there for the next view.
        """
        task = asyncio.create_task(self._observe(attempts))
        self._observing.add(task)
        task.add_done_callback(self._observed)
        await asyncio.wait({task}, timeout=ANSWER_WAIT_S)
        if task.done():
            task.result()

    def _observed(self, task: asyncio.Task[None]) -> None:
        self._observing.discard(task)
        if not self._observing:
            self._gone.clear()

    async def _observe(self, attempts: Mapping[str, int]) -> None:
        runs = {name: self._paths.run(name) for name in attempts}
        seen = await self._io.sweep(
            {
                run.root: partial(_read, run, self._unread(name, attempts[name]), self._saved.get(name))
                for name, run in runs.items()
            }
        )
        for name, run in runs.items():
            if run.root in seen and name not in self._gone:
                beat, self._resumes[name], self._saved[name], self._memory_steps[name] = seen[run.root]
                if self._unread(name, attempts[name]):
                    self._heartbeats[name] = attempts[name], beat

    def _unread(self, name: str, attempt: int) -> int:
        """Return the attempt if its last heartbeat has not been read yet, else 0."""
        return 0 if self._heartbeats.get(name, (0, None))[0] == attempt else attempt


def _read(
    run: RunPaths, attempt: int, known: SavedProgress | None
) -> tuple[Heartbeat | None, ResumeRecord | None, SavedProgress | None, int | None]:
    beat = None
    if attempt:
        with contextlib.suppress(OSError, ValueError):
            beat = read_heartbeat(run.attempt(attempt).heartbeat(0))
    saved, memory_step = read_saved(run, known), newest_in_memory(run.checkpoints)
    try:
        return beat, read_resume(run.resume), saved, memory_step
    except (CorruptError, OSError):
        return beat, None, saved, memory_step  # unknown, and nothing hangs on it
