"""Says that a job goes on with no supervisor, for verbs that read a run folder and need none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.post_mortem import newest_attempt
from trainerd.contract.paths import StatePaths

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths


def say_if_alone(run: RunPaths) -> None:
    """Say on standard error that a job runs and that no supervisor would restart it, where that is so."""
    from trainerd.supervisor.api.unix_socket import is_answered
    from trainerd.supervisor.attempt.probe import ProbedRunning, probe

    attempt = newest_attempt(run)
    if not attempt or not isinstance(probe(run.attempt(attempt)), ProbedRunning):
        return
    state = StatePaths(run.root.parent.parent)
    try:
        is_alone = not is_answered(state.socket.absolute())
    except OSError:
        return  # it may well run
    if is_alone:
        click.echo(f"no supervisor is running on {state.root}; {run.root.name} goes on without it", err=True)
