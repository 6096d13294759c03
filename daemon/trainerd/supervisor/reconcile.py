"""What the jobs folder asks for, beside what there is: pure.

By level, not by edge: the whole view is compared with all jobs each time, so a lost or repeated wake-up costs
time and nothing else. Only differences become events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainerd.supervisor.machine.job_events import SpecAccepted, SpecRefused, SpecVanished
from trainerd.supervisor.machine.states import Draining, DrainReason, Rejected
from trainerd.supervisor.specs.view import Accepted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.supervisor.machine.job_events import Event
    from trainerd.supervisor.machine.states import Job
    from trainerd.supervisor.specs.view import FolderView


def spec_events(
    jobs: Mapping[str, Job], view: FolderView, *, newest_attempts: Mapping[str, tuple[int, bool]]
) -> list[tuple[str, Event]]:
    """Return the events that lead from the jobs to what the folder says.

    Args:
        jobs: All jobs, by name.
        view: What the folder says.
        newest_attempts: For each name of `accepted_news`, the number of the newest attempt in the run folder,
            0 if there is none, and whether it may still have processes. Where it is not known, the spec
            waits.
    """
    events: list[tuple[str, Event]] = []
    for name, reading in view.specs.items():
        job = jobs.get(name)
        if not isinstance(reading, Accepted):
            if job is None or job.refusal != reading.error_text:
                events.append((name, SpecRefused(reading.error_text)))
        elif name in newest_attempts and _is_news(job, reading):
            # Asked even of a known job: by the time of the decision it may have been forgotten.
            newest_attempt, is_live = newest_attempts[name]
            events.append((name, SpecAccepted(reading.job, newest_attempt, is_live)))
    events += [
        (name, SpecVanished())
        for name, job in jobs.items()
        if view.is_removed(name, job.spec.spec_path if job.spec is not None else "") and not _is_leaving(job)
    ]
    return events


def accepted_news(jobs: Mapping[str, Job], view: FolderView) -> set[str]:
    """Return the names of accepted specs that say something new about their jobs."""
    return {
        name
        for name, reading in view.specs.items()
        if isinstance(reading, Accepted) and _is_news(jobs.get(name), reading)
    }


def _is_news(job: Job | None, reading: Accepted) -> bool:
    return job is None or job.spec is None or _is_out_of_date(job, reading)


def _is_out_of_date(job: Job, reading: Accepted) -> bool:
    assert job.spec is not None
    return (
        job.refusal is not None
        or _is_leaving(job)
        or job.spec.spec_digest != reading.job.spec_digest
        or job.spec.spec_path != reading.job.spec_path
        or (isinstance(job.state, Rejected) and job.state.by == "spec")
    )


def _is_leaving(job: Job) -> bool:
    return isinstance(job.state, Draining) and job.state.why is DrainReason.REMOVED
