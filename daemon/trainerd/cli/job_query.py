"""Which jobs are shown, in which order and in which form: pure."""

from __future__ import annotations

import dataclasses
import fnmatch
import string
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.human import NOTHING, number
from trainerd.contract.nearest import nearest_hint
from trainerd.contract.safe_text import safe_line
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trainerd.supervisor.api.control import JobView

STATES: Final = (
    "queued",
    "starting",
    "running",
    "draining",
    "backing-off",
    "paused",
    "stopped",
    "finished",
    "parked",
    "rejected",
    "faulted",
    "ended",
)
"""States that can be asked for; `ended` is there only when no supervisor runs."""

SORT_KEYS: Final[dict[str, Callable[[JobView], Any]]] = {
    "name": lambda job: job.name,
    "state": lambda job: STATES.index(job.state) if job.state in STATES else len(STATES),
    "since": lambda job: -job.since_wall_s,
    "attempt": lambda job: job.attempt,
    "step": lambda job: job.step,
    "epoch": lambda job: None if job.epoch is None else (job.epoch, job.batch or 0),
    "loss": lambda job: None if job.loss is None or job.loss != job.loss else job.loss,
    "checkpoint": lambda job: job.checkpoint_step,
    "priority": lambda job: job.priority,
}


def read_states(given: Sequence[str]) -> frozenset[str]:
    """Return the states that are named, each alone or in a list with commas.

    Raises:
        UsageError: One is none; the message has the nearest.
    """
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    for name in names:
        if name not in STATES:
            hint = nearest_hint(name, STATES)
            raise click.UsageError(
                f"there is no state {name!r}; {hint or 'states are ' + ', '.join(STATES)}"
                " (the folder of a supervisor is --state-dir)"
            )
    return frozenset(names)


def choose(jobs: Sequence[JobView], names: Sequence[str], states: frozenset[str]) -> list[JobView]:
    """Return the jobs that are asked for; none named is all. A name may be a pattern, such as ``mnist-*``.

    Raises:
        UserError: There is no job of a name; the hint has the nearest.
    """
    known = {job.name for job in jobs}
    for name in names:
        if not fnmatch.filter(known, name):
            raise UserError(f"no job {name!r}", hint=nearest_hint(name, known))

    def is_named(job: JobView) -> bool:
        return not names or any(fnmatch.fnmatchcase(job.name, name) for name in names)

    return [job for job in jobs if is_named(job) and (not states or job.state in states)]


def sort_jobs(jobs: Sequence[JobView], key: str | None) -> list[JobView]:
    """Return the jobs in order; those of which the value is not known come last.

    Args:
        jobs: The jobs.
        key: One of `SORT_KEYS`, with a minus before it for the other direction; None keeps the order.

    Raises:
        UsageError: There is no such key.
    """
    if key is None:
        return list(jobs)
    plain = key.removeprefix("-")
    value = SORT_KEYS.get(plain)
    if value is None:
        hint = nearest_hint(plain, SORT_KEYS)
        raise click.UsageError(f"cannot sort by {plain!r}; {hint or 'keys are ' + ', '.join(SORT_KEYS)}")
    known = [job for job in jobs if value(job) is not None]
    rest = [job for job in jobs if value(job) is None]
    return sorted(known, key=value, reverse=key.startswith("-")) + rest


def read_format(text: str) -> Callable[[JobView], str]:
    r"""Return what makes a line of a job from a text such as ``{name} {state}``.

    The names in braces are the keys of ``--json``; ``{name:<20}`` pads; ``\t`` is a tab and ``\n`` a newline.

    Raises:
        UsageError: It names no key of a job, or is not such a text.
    """
    from trainerd.supervisor.api.control import JobView

    keys = {field.name for field in dataclasses.fields(JobView)}
    try:
        parts = list(string.Formatter().parse(text.replace("\\t", "\t").replace("\\n", "\n")))
        for _, key, spec, conversion in parts:
            if key is None:
                continue
            if key not in keys or conversion or "{" in (spec or ""):
                hint = nearest_hint(key, keys)
                raise click.UsageError(
                    f"--format: there is no key {key!r} of a job; {hint or 'see `trainerd ps --json`'}"
                )
            format("", spec or "")
    except ValueError as error:
        raise click.UsageError(f"--format: {error}") from error

    def line_of(job: JobView) -> str:
        return "".join(
            literal + ("" if key is None else format(_shown(getattr(job, key)), spec or ""))
            for literal, key, spec, _ in parts
        )

    return line_of


def _shown(value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if dataclasses.is_dataclass(value):
        return safe_line(str(getattr(value, "kind", NOTHING)))
    if isinstance(value, tuple):
        return ",".join(_shown(each) for each in value) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return safe_line(number(value))
