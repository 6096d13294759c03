"""Waiting for jobs to come to rest, through restarts of the supervisor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.client import NotRunningError
from trainerd.errors import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trainerd.cli.client import Client
    from trainerd.supervisor.control import JobView

POLL_S: Final = 0.3
"""How often the supervisor is asked, in seconds."""
ABSENCE_MAX_S: Final = 60.0
"""How long a supervisor may be away while it is waited for, in seconds."""

RESTING: Final = frozenset({"stopped", "finished", "parked", "rejected"})
"""States that a job leaves only when somebody does something."""


def wait_for_rest(client: Client, names: Iterable[str], *, aloud: bool) -> dict[str, JobView]:
    """Wait until each job is in a state of rest, and return how it is then.

    There is no limit: a job may train for weeks.

    Args:
        client: Whom to ask.
        names: Of the jobs.
        aloud: Whether to say each change of state on standard error.

    Raises:
        NotRunningError: The supervisor was away for too long.
        UserError: A job is not there any more.
    """
    waiting, at_rest = list(names), {}
    shown: dict[str, str] = {}
    while waiting:
        for name in tuple(waiting):
            job = _patiently(client, name)
            if aloud and shown.get(name) != job.state:
                click.echo(f"{name}: {job.state}: {job.reason}", err=True)
                shown[name] = job.state
            if job.state in RESTING:
                at_rest[name] = job
                waiting.remove(name)
        if waiting:
            time.sleep(POLL_S)
    return at_rest


def _patiently(client: Client, name: str) -> JobView:
    deadline_s = time.monotonic() + ABSENCE_MAX_S
    while True:
        try:
            return client.get_job(name)
        except (NotRunningError, TryAgainError):
            if time.monotonic() >= deadline_s:
                raise
            time.sleep(POLL_S)
