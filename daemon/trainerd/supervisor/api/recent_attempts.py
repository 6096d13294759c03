"""What the newest attempts said and how they ended, in memory, so that a listing of a thousand jobs reads nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trainerd.contract.heartbeat import read_heartbeat
from trainerd.supervisor.api.views import outcome_view
from trainerd.supervisor.machine.job_events import AttemptEnded

if TYPE_CHECKING:
    from trainerd.contract.heartbeat import Heartbeat
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import OutcomeView
    from trainerd.supervisor.journal.journal import Journal
    from trainerd.supervisor.ledger import Step


class RecentAttempts:
    """Caches of what the journal and the run folders hold.

    Args:
        journal: History of the jobs.
        paths: The state folder.
    """

    def __init__(self, journal: Journal, paths: StatePaths) -> None:
        self._journal = journal
        self._paths = paths
        self._outcomes = {name: outcome_view(row) for name, row in journal.last_endings().items()}
        self._heartbeats: dict[str, tuple[int, Heartbeat | None]] = {}

    def note(self, step: Step) -> None:
        """Observe a step of the loop."""
        if isinstance(step.event, AttemptEnded):
            endings = self._journal.endings(step.name, attempt=step.event.attempt)
            self._outcomes[step.name] = outcome_view(endings[0])
            self._heartbeats.pop(step.name, None)

    def last_outcome(self, name: str) -> OutcomeView | None:
        """Return how the newest ended attempt of a job ended, None if none has."""
        return self._outcomes.get(name)

    def last_heartbeat(self, name: str, attempt: int) -> Heartbeat | None:
        """Return what an attempt of a job said last, None if it said nothing."""
        known = self._heartbeats.get(name)
        if known is None or known[0] != attempt:
            beat = None
            with contextlib.suppress(OSError, ValueError):
                beat = read_heartbeat(self._paths.run(name).attempt(attempt).heartbeat(0))
            known = self._heartbeats[name] = (attempt, beat)
        return known[1]
