"""Waiting for jobs to come to rest, through restarts of the supervisor."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import click

from trainerd.cli.changes import LIVE
from trainerd.cli.client import NotRunningError
from trainerd.errors import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trainerd.cli.client import Client
    from trainerd.supervisor.api.control import JobView

Answer = TypeVar("Answer")

POLL_S: Final = 0.3
"""How often the supervisor is asked, in seconds."""
ABSENCE_MAX_S: Final = 60.0
"""How long a supervisor may be away while it is waited for, in seconds."""

RESTING: Final = frozenset({"stopped", "finished", "parked", "rejected", "faulted"})
"""States that a job leaves only when a user acts."""


def wait_until_idle(client: Client, names: Iterable[str], *, shows_progress: bool) -> None:
    """Wait until no job of `names`, or none at all if that is empty, has an attempt that may run.

    Drains end within their grace periods, so the wait does too.

    Args:
        client: Whom to ask.
        names: Of the jobs; empty for all.
        shows_progress: Whether to say each change of state on standard error.

    Raises:
        NotRunningError: The supervisor was away for too long.
    """
    wanted = frozenset(names)
    shown: dict[str, str] = {}
    while True:
        jobs = [job for job in patiently(client.list_jobs) if job.name in wanted or not wanted]
        for job in jobs:
            if (
                shows_progress
                and (job.state in LIVE or job.name in shown)
                and shown.get(job.name) != job.state
            ):
                click.echo(f"{job.name}: {job.state}: {job.reason}", err=True)
                shown[job.name] = job.state
        if not any(job.state in LIVE for job in jobs):
            return
        time.sleep(POLL_S)


def wait_for_rest(client: Client, names: Iterable[str], *, shows_progress: bool) -> dict[str, JobView]:
    """Wait until each job is in a state of rest, and return how it is then.

    There is no limit: a job may train for weeks.

    Args:
        client: Whom to ask.
        names: Of the jobs.
        shows_progress: Whether to say each change of state on standard error.

    Raises:
        NotRunningError: The supervisor was away for too long.
        UserError: A job is not there any more.
    """
    waiting, at_rest = list(names), {}
    shown: dict[str, str] = {}
    while waiting:
        for name in tuple(waiting):
            job = patiently(partial(client.get_job, name))
            if shows_progress and shown.get(name) != job.state:
                click.echo(f"{name}: {job.state}: {job.reason}", err=True)
                shown[name] = job.state
            if job.state in RESTING:
                at_rest[name] = job
                waiting.remove(name)
        if waiting:
            time.sleep(POLL_S)
    return at_rest


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask until there is an answer: a supervisor may be restarted meanwhile."""
    deadline_s = time.monotonic() + ABSENCE_MAX_S
    while True:
        try:
            return ask()
        except (NotRunningError, TryAgainError):
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(POLL_S)
