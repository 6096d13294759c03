"""Names that the shell completes for a verb: those of the jobs that the verb would accept as they are now."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from trainerd.cli.options import complete_job_names, find_state
from trainerd.contract.paths import StatePaths
from trainerd.errors import TrainerdError

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from trainerd.supervisor.api.control import JobView


def complete_names_of(
    accepts: Callable[[JobView], bool],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a completion of the jobs that are accepted; of all runs where no journal can be read."""

    def complete(context: click.Context, parameter: click.Parameter, beginning: str) -> list[str]:
        given = context.params.get("state")
        written = context.params.get("names") or ()
        try:
            jobs = _jobs(given if isinstance(given, StatePaths) else find_state(given))
        except (TrainerdError, OSError):
            return complete_job_names(context, parameter, beginning)
        return [
            job.name
            for job in jobs
            if job.name.startswith(beginning) and job.name not in written and accepts(job)
        ]

    return complete


def _jobs(state: StatePaths) -> tuple[JobView, ...]:
    from trainerd.cli.readers import reader

    # What a reader says of a supervisor that does not run would land in the line that is being typed.
    with contextlib.redirect_stderr(io.StringIO()), reader(state) as source:
        return source.list_jobs()


def is_in(*states: str) -> Callable[[JobView], bool]:
    """Return whether a job is in one of some states."""
    return lambda job: job.state in states


def may_resume(job: JobView) -> bool:
    """Return whether `trainerd resume` has something to do for a job."""
    return job.is_held or job.state in {"stopped", "parked", "paused", "backing-off", "faulted"}


def may_stop(job: JobView) -> bool:
    """Return whether `trainerd stop` has something to do for a job."""
    return job.state in {"queued", "starting", "running", "draining", "backing-off", "paused"}


def may_hold(job: JobView) -> bool:
    """Return whether `trainerd hold` has something to do for a job."""
    return not job.is_held and job.state not in {"finished", "rejected", "parked", "ended"}
