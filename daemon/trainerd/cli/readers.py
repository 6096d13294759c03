"""Opens what answers questions about jobs: a supervisor, else what lies in its state folder."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.changes import LIVE
from trainerd.cli.post_mortem import UNKNOWN, PostMortem
from trainerd.cli.run_folder import EXEC
from trainerd.contract.names import check_name
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.paths import StatePaths
from trainerd.errors import TrainerdError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trainerd.cli.post_mortem import Reader
    from trainerd.supervisor.api.control import EventView, JobView, OutcomeView
    from trainerd.supervisor.journal.journal import Journal

EVENTS_A_QUESTION: Final = 1000
"""Most events in one answer of a supervisor."""


@contextlib.contextmanager
def reader(state: StatePaths) -> Iterator[Reader]:
    """Open what answers on a state folder.

    With no supervisor there, that is its journal and the run folders, with those of `trainerd exec` in it.

    Raises:
        NotRunningError: No supervisor runs and there is nothing to read.
        UserError: This user may not talk to the supervisor or not read its journal.
    """
    from trainerd.cli.client import Client, NotRunningError

    with contextlib.ExitStack() as resources:
        try:
            client = resources.enter_context(Client(state))
            client.daemon()
        except NotRunningError:
            left = resources.enter_context(left_behind(state))
        else:
            yield client
            return
        say_so(state, left)
        yield left


@contextlib.contextmanager
def left_behind(state: StatePaths) -> Iterator[Reader]:
    """Open what is left of a supervisor, and of each `trainerd exec`.

    Raises:
        NotRunningError: There is nothing to read.
    """
    from trainerd.cli.client import not_running

    with contextlib.ExitStack() as resources:
        own = None
        if state.journal.exists() or _has_folders(state):
            own = PostMortem(state, resources.enter_context(_journal(state)))
        others = {}
        for folder in exec_states(state):
            with contextlib.suppress(TrainerdError):
                others[folder.root.name] = resources.enter_context(_exec_reader(folder))
        found = SeveralReaders(own, others) if others else own
        if found is None:
            raise not_running(state)
        yield found


@contextlib.contextmanager
def _exec_reader(state: StatePaths) -> Iterator[Reader]:
    from trainerd.cli.client import Client, NotRunningError

    with contextlib.ExitStack() as resources:
        try:
            client = resources.enter_context(Client(state))
            client.daemon()
        except NotRunningError:
            yield PostMortem(state, resources.enter_context(_journal(state)))
        else:
            yield client


def exec_states(state: StatePaths) -> list[StatePaths]:
    """Return the state folders of jobs that `trainerd exec` ran here, by name."""
    try:
        folders = sorted((state.root / EXEC).iterdir())
    except OSError:
        return []
    return [StatePaths(folder) for folder in folders if StatePaths(folder).journal.exists()]


def _has_folders(state: StatePaths) -> bool:
    try:
        return any(folder.is_dir() for folder in state.runs.iterdir())
    except OSError:
        return False


@contextlib.contextmanager
def _journal(state: StatePaths) -> Iterator[Journal | None]:
    if not state.journal.exists():
        yield None
        return
    import structlog

    from trainerd.supervisor.journal.journal_copy import journal_copy

    # What the journal says of damaged rows goes beside the answer, not into it.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with journal_copy(state.journal) as journal:
        yield journal


def say_so(state: StatePaths, left: Reader) -> None:
    """Say on standard error that no supervisor runs, and which jobs go on without one."""
    from trainerd.cli.how_to_start import start_command

    jobs = [job for job in left.list_jobs() if job.state in {*LIVE, UNKNOWN}]
    live = [job.name for job in jobs if job.shim_pid is not None]
    unsure = [job.name for job in jobs if job.shim_pid is None]
    goes_on = f"; these go on without it: {', '.join(live)}" if live else ""
    goes_on += f"; cannot tell whether these run: {', '.join(unsure)}" if unsure else ""
    goes_on = goes_on or "; no job runs"
    click.echo(
        f"no supervisor is running on {state.root}{goes_on}\n"
        f"  shown is what its folder holds; start one with `{start_command(state)}`",
        err=True,
    )


class SeveralReaders:
    """Readers of several state folders as one. A name that several have is the first one's.

    Args:
        own: Of the folder itself.
        others: Of each job that `trainerd exec` ran, by name.
    """

    def __init__(self, own: Reader | None, others: Mapping[str, Reader]) -> None:
        self._own = own
        self._readers = (*([own] if own is not None else []), *others.values())

    @cached_property
    def _events(self) -> list[EventView]:
        """All events; most verbs ask for none."""
        found = [event for one in self._readers for event in _all_events(one)]
        found.sort(key=lambda event: event.wall_s)
        return [dataclasses.replace(event, sequence=number) for number, event in enumerate(found, start=1)]

    def last_event(self) -> int:
        """Return the number of the newest event."""
        return len(self._events)

    def list_jobs(self) -> tuple[JobView, ...]:
        """Describe every job, by name."""
        return tuple(job for _, (_, job) in sorted(self._found().items()))

    def get_job(self, name: str) -> JobView:
        """Describe one job.

        Raises:
            UserError: There is no such job.
        """
        return self._reader_of(name).get_job(name)

    def list_outcomes(self, name: str) -> tuple[OutcomeView, ...]:
        """Return how each attempt of a job ended, oldest first."""
        return self._reader_of(name).list_outcomes(name)

    def list_events(
        self, *, job: str | None = None, after: int = 0, limit: int = 200
    ) -> tuple[EventView, ...]:
        """Return events by their time, numbered from 1."""
        chosen = [event for event in self._events if event.sequence > after and job in {None, event.job}]
        return tuple(chosen[:limit])

    def _reader_of(self, name: str) -> Reader:
        known = self._found()
        found = known.get(check_name(name))
        if found is not None:
            return found[0]
        if self._own is not None:
            return self._own  # it may have a run of that name
        raise UserError(f"no job {name!r}", hint=nearest_hint(name, known))

    def _found(self) -> dict[str, tuple[Reader, JobView]]:
        """Return each job as it is now, with who knows it."""
        jobs: dict[str, tuple[Reader, JobView]] = {}
        for one in self._readers:
            for job in one.list_jobs():
                jobs.setdefault(job.name, (one, job))
        return jobs


def _all_events(source: Reader) -> Iterator[EventView]:
    after = 0
    while events := source.list_events(after=after, limit=EVENTS_A_QUESTION):
        yield from events
        after = events[-1].sequence
