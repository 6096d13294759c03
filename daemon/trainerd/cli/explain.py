"""`trainerd explain`: how each attempt of a job ended, and why that was judged so."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import click

from trainerd.cli.events import events_since
from trainerd.cli.human import NOTHING, duration
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.post_mortem import ENDED
from trainerd.cli.shown_zone import moment, utc_option
from trainerd.contract.clock import SystemClock
from trainerd.contract.safe_text import safe_line

if TYPE_CHECKING:
    from trainerd.cli.post_mortem import Reader
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import EventView, JobView, OutcomeView


@click.command()
@name_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N attempts.")
@state_option
@utc_option
@json_option
def command(name: str, last: int | None, state: StatePaths, as_json: bool) -> None:
    """Show how each attempt of a job ended, with evidence.

    Oldest first.

    Each ending has its outcome, the evidence for it, the newest valid checkpoint, and what the supervisor
    did next. For a faulted job, the traceback comes last.

    \b
    Example:
      trainerd explain mnist
      trainerd explain mnist --last 1
      trainerd explain mnist --json | jq -r '.[].kind' | sort | uniq -c
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.readers import reader
    from trainerd.supervisor.dependencies import BLOCKED

    with ending_quietly(), reader(state) as client:
        outcomes = client.list_outcomes(name)
        outcomes = outcomes[-last:] if last is not None else outcomes
        if as_json:
            print_json(outcomes)
            return
        now_s = SystemClock().wall_s()
        blocks = ["\n".join(outcome_lines(outcome, now_s)) for outcome in outcomes]
        fault = _newest_fault(client, name)
        if fault is not None:
            blocks.append("\n".join(fault_lines(fault, now_s)))
        job = client.get_job(name)
        if job.state == "queued" and job.reason.startswith(BLOCKED):
            blocks.append(f"{name} is queued: {job.reason}")
        click.echo("\n\n".join(blocks) or _nothing_ended(job))


def _nothing_ended(job: JobView) -> str:
    if job.state in {"finished", ENDED}:
        return f"{job.name}: {job.reason}; how its attempts ended is not on record"
    return f"no attempt of {job.name} has ended yet"


def _newest_fault(client: Reader, name: str) -> EventView | None:
    """Return the event by which a job was set aside, None if it is not set aside."""
    if client.get_job(name).state != "faulted":
        return None
    faults = (event for event in events_since(client, name, 0) if "traceback" in event.data)
    return next(iter(deque(faults, maxlen=1)), None)


def fault_lines(fault: EventView, now_s: float) -> list[str]:
    """Describe why a job is set aside, a line each."""
    found = fault.data.get("traceback")
    first, *more = [str(line) for line in found] if isinstance(found, list) and found else [NOTHING]
    return [
        f"set aside as faulted, {moment(fault.wall_s)} ({duration(now_s - fault.wall_s)} ago)",
        f"  reason      {safe_line(fault.message)}",
        f"  traceback   {safe_line(first)}",
        *(f"              {safe_line(line)}" for line in more),
        f"  next        none until `trainerd resume {fault.job}` has it handled again",
    ]


def outcome_lines(outcome: OutcomeView, now_s: float) -> list[str]:
    """Describe how an attempt ended, a line each."""
    when = f"{moment(outcome.wall_s)} ({duration(now_s - outcome.wall_s)} ago)"
    first, *more = outcome.evidence or (NOTHING,)
    return [
        f"attempt {outcome.attempt} {outcome.kind}, {when}",
        f"  reason      {outcome.reason}",
        f"  evidence    {first}",
        *(f"              {line}" for line in more),
        f"  last step   {NOTHING if outcome.step is None else outcome.step}",
        f"  checkpoint  {outcome.checkpoint or NOTHING}",
        f"  next        {outcome.next_action or NOTHING}",
    ]
