"""Which queued jobs wait for others to finish: pure.

A job with `after` is not launched under its spec before each of those jobs is finished. Once it was launched
it goes on, whatever becomes of them. What can never come true without a person is said: a job that is parked,
rejected, stopped or gone, and jobs that wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trainerd.contract.nearest import nearest_hint
from trainerd.supervisor.machine.states import Faulted, Finished, Job, Parked, Queued, Rejected, Stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCKED: Final = ("never starts", "waits until these are finished")
"""How the reasons of jobs that wait for others begin."""

_STUCK: Final = (Parked, Rejected, Stopped, Faulted)
"""States that a job leaves only when a person does something."""


def blocked_jobs(jobs: Mapping[str, Job]) -> dict[str, str]:
    """Return why each queued job that waits for others does, by name."""
    waiting = {name: missing for name, job in jobs.items() if (missing := _unfinished(jobs, job))}
    return {name: _reason(jobs, waiting, name) for name in waiting}


def is_blocked(jobs: Mapping[str, Job], job: Job) -> bool:
    """Return whether a job waits for others to finish."""
    return bool(_unfinished(jobs, job))


def _unfinished(jobs: Mapping[str, Job], job: Job) -> tuple[str, ...]:
    spec = job.spec
    if spec is None or not spec.after or not isinstance(job.state, Queued):
        return ()
    if job.attempt and job.attempt_digest == spec.spec_digest:
        return ()  # it has begun under this spec
    return tuple(name for name in spec.after if not _is_finished(jobs.get(name)))


def _is_finished(job: Job | None) -> bool:
    return job is not None and isinstance(job.state, Finished)


def _reason(jobs: Mapping[str, Job], waiting: Mapping[str, tuple[str, ...]], name: str) -> str:
    circle = _circle(waiting, name)
    if circle is not None:
        chain = " after ".join(circle)
        return f"{BLOCKED[0]}: its spec and others wait for each other ({chain}); take one out of `after`"
    stuck = [text for each in waiting[name] if (text := _stuck(jobs, each)) is not None]
    if stuck:
        return f"{BLOCKED[0]} as things are: " + "; ".join(stuck)
    return f"{BLOCKED[1]}: " + ", ".join(f"{each} ({jobs[each].state.NAME})" for each in waiting[name])


def _stuck(jobs: Mapping[str, Job], name: str) -> str | None:
    """Return why a job will not finish by itself, None if it may."""
    job = jobs.get(name)
    if job is None:
        hint = nearest_hint(name, jobs)
        return f"it is after {name}, and there is no such job" + (f" ({hint})" if hint else "")
    if not isinstance(job.state, _STUCK):
        return None
    remedy = f"trainerd {'resume' if isinstance(job.state, Stopped) else 'explain'} {name}"
    return f"it is after {name}, which is {job.state.NAME} (`{remedy}`)"


def _circle(waiting: Mapping[str, tuple[str, ...]], name: str) -> tuple[str, ...] | None:
    """Return a way from a job back to itself along what each waits for, None if there is none."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for following in waiting.get(way[-1], ()):
            if following == name:
                return (*way, name)
            if following not in seen:
                seen.add(following)
                ways.append((*way, following))
    return None
