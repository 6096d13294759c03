"""`trainerd explain`: how each attempt of a job ended, and why that was judged so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.human import NOTHING, duration, moment
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.contract.clock import SystemClock

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import OutcomeView


@click.command()
@name_argument
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N attempts.")
@state_option
@json_option
def command(name: str, last: int | None, state: StatePaths, as_json: bool) -> None:
    """Show how each attempt of a job ended, and why.

    Oldest first.

    Each ending has its class, the evidence that it rests on, the newest valid checkpoint, and what the
    supervisor did about it.

    \b
    Example:
      trainerd explain mnist
      trainerd explain mnist --last 1
      trainerd explain mnist --json | jq -r '.[].kind' | sort | uniq -c
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    with ending_quietly(), Client(state) as client:
        outcomes = client.list_outcomes(name)
        outcomes = outcomes[-last:] if last is not None else outcomes
        if as_json:
            print_json(outcomes)
        elif outcomes:
            now_s = SystemClock().wall_s()
            blocks = ("\n".join(outcome_lines(outcome, now_s)) for outcome in outcomes)
            click.echo("\n\n".join(blocks))
        else:
            click.echo(f"no attempt of {name} has ended yet")


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
