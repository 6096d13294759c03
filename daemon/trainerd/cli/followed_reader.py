"""Answers about jobs again and again: from the supervisor while one runs, else from its state folder."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from trainerd.cli.readers import exec_states, left_behind, say_so
from trainerd.supervisor.journal.journal_copy import file_mark

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.cli.post_mortem import Reader
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import DaemonView, EventView, JobView, OutcomeView


class FollowedReader:
    """A `Reader` that outlives supervisors: they may come and go. Use it as a context manager.

    What is left of a supervisor is read again when it has changed. That none runs is said once each time.

    Args:
        state: The state folder.
        says: Whether to say on standard error that none runs.
    """

    def __init__(self, state: StatePaths, *, says: bool = True) -> None:
        self._state = state
        self._says = says
        self._resources = contextlib.ExitStack()
        self._client: Client | None = None
        self._left: Reader | None = None
        self._mark: object = None
        self.changes = 0
        """How often a supervisor came or went; numbers of events hold between two such changes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def daemon(self) -> DaemonView | None:
        """Describe the supervisor, None if none runs.

        Raises:
            NotRunningError: None runs, and there is nothing to read.
            TryAgainError: It does not answer in time.
        """
        from trainerd.cli.client import Client, NotRunningError

        try:
            if self._client is None:
                client = Client(self._state)
                with contextlib.ExitStack() as opened:
                    opened.push(client)
                    daemon = client.daemon()
                    self._close()
                    self._resources = opened.pop_all()
                self._client = client
                self.changes += 1
                return daemon
            return self._client.daemon()
        except NotRunningError:
            self._read_left()
            return None

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        return self._now().list_jobs()

    def get_job(self, name: str) -> JobView:
        """Describe one job."""
        return self._now().get_job(name)

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        return self._now().list_outcomes(name)

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events with a sequence number above `after`, oldest first, at most `limit`."""
        return self._now().list_events(job=job, after=after, limit=limit)

    def last_event(self) -> int:
        """Return the sequence number of the newest event, 0 if there is none."""
        return self._now().last_event()

    def _now(self) -> Reader:
        self.daemon()
        found = self._client or self._left
        assert found is not None, "`daemon` raises where there is nothing to read"
        return found

    def _read_left(self) -> None:
        """Read what is left, unless that was done and nothing has changed.

        Raises:
            NotRunningError: There is nothing.
        """
        mark = self._changing()
        if self._left is not None and mark == self._mark:
            return
        was_said = self._left is not None
        self._close()
        with contextlib.ExitStack() as opened:
            left = opened.enter_context(left_behind(self._state))
            self._resources = opened.pop_all()
        self._left, self._mark = left, mark
        if not was_said:
            self.changes += 1
            if self._says:
                say_so(self._state, left)

    def _close(self) -> None:
        self._client = self._left = None
        self._resources.close()

    def _changing(self) -> object:
        """Return what changes when there is more to read than before."""
        marks: list[object] = [file_mark(self._state.runs)]
        for state in (self._state, *exec_states(self._state)):
            journal = state.journal
            marks += [file_mark(journal), file_mark(journal.with_name(f"{journal.name}-wal"))]
            marks.append(state.socket.exists())
        return marks
