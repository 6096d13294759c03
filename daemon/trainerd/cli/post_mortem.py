"""Answers about jobs when no supervisor runs: from its journal and the run folders, which it only reads."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from trainerd.contract.names import check_name
from trainerd.contract.nearest import nearest_hint
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths, StatePaths
    from trainerd.supervisor.api.control import EventView, JobView, OutcomeView
    from trainerd.supervisor.journal.journal import Journal

ENDED: Final = "ended"
"""State of a job whose attempt has ended with no supervisor to judge it."""

UNKNOWN: Final = "unknown"
"""State of a run that no journal knows and of which something cannot be read."""


class Reader(Protocol):
    """What answers questions about jobs: a supervisor, or what is left of one. `Client` is one too."""

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        ...

    def get_job(self, name: str) -> JobView:
        """Describe one job."""
        ...

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        ...

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`."""
        ...

    def last_event(self) -> int:
        """Return the sequence number of the newest event, 0 if there is none."""
        ...


class PostMortem:
    """What the journal and the run folders hold. Has those methods of `Client` that only read.

    Args:
        state: The state folder.
        journal: A copy of its journal; None if it has none.
    """

    def __init__(self, state: StatePaths, journal: Journal | None) -> None:
        self._state = state
        self._journal = journal
        self._jobs = journal.jobs() if journal is not None else {}
        self._endings = journal.last_endings() if journal is not None else {}

    def last_event(self) -> int:
        """Return the sequence number of the newest event, 0 if there is none."""
        return self._journal.last_sequence() if self._journal is not None else 0

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job of the journal; without one, every run."""
        names = self._jobs if self._journal is not None else self._runs()
        return tuple([self._listed(name) for name in sorted(names)])

    def get_job(self, name: str) -> JobView:
        """Describe one job.

        Raises:
            UserError: There is no such job, and no run of that name.
        """
        from trainerd.cli.post_mortem_views import folder_view, journal_view
        from trainerd.supervisor.api.views import outcome_view

        run = self._state.run(check_name(name))
        job = self._jobs.get(name)
        if job is not None:
            ending = self._endings.get(name)
            return journal_view(job, run, outcome_view(ending) if ending is not None else None)
        self._check_run(name, run)
        outcomes = self.list_outcomes(name)
        return folder_view(name, run, outcomes[-1] if outcomes else None)

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        from trainerd.supervisor.api.views import outcome_view

        if name not in self._jobs:
            self._check_run(name, self._state.run(check_name(name)))
        if name not in self._jobs:
            from trainerd.cli.plain_runs import plain_endings

            if found := plain_endings(self._state.run(name)):
                return found
        if self._journal is None:
            return ()
        return tuple(outcome_view(row) for row in self._journal.endings(name))

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`."""
        from trainerd.supervisor.api.views import event_view

        if self._journal is None:
            return ()
        return tuple(event_view(row) for row in self._journal.events(job=job, after=after, limit=limit))

    def _listed(self, name: str) -> JobView:
        """Describe one job of several: what is closed to this user does not hide the others."""
        from trainerd.cli.post_mortem_views import unknown_view

        try:
            return self.get_job(name)
        except OSError as error:
            return unknown_view(name, self._state.run(name), error)

    def _runs(self) -> set[str]:
        found = set()
        with contextlib.suppress(OSError):
            for folder in self._state.runs.iterdir():
                with contextlib.suppress(UserError, OSError):
                    if folder.is_dir():
                        found.add(check_name(folder.name))
        return found

    def _check_run(self, name: str, run: RunPaths) -> None:
        if not run.root.is_dir():
            raise UserError(f"no job {name!r}", hint=nearest_hint(name, {*self._jobs, *self._runs()}))


def newest_attempt(run: RunPaths) -> int:
    """Return the number of the newest attempt of a run, 0 if there is none or it cannot be told."""
    try:
        return run.newest_attempt()
    except OSError:
        return 0
