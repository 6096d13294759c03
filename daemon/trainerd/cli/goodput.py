"""`trainerd goodput`: where the time of a run went. Needs no supervisor."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.alone_note import say_if_alone
from trainerd.cli.human import duration
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, make_table, print_json, show
from trainerd.cli.run_folder import find_run
from trainerd.cli.unread_files import unread_error
from trainerd.contract.clock import SystemClock
from trainerd.contract.counted import counted
from trainerd.contract.paths import StatePaths

if TYPE_CHECKING:
    from collections.abc import Collection

    from trainerd.supervisor.goodput.goodput_buckets import Goodput

_MEANINGS: Final = {
    "starting": "from the launch until the session is open",
    "loading": "from there until the first step is done",
    "useful": "steps done for the first time, and evaluation",
    "repeated": "steps that an earlier attempt had done and lost",
    "saving": "training waits for a save; draining, finishing",
    "waiting": "for a slot, for room on the disk, or stopped",
    "down": "lost with a fault, or no supervisor ran",
}


@click.command()
@name_argument
@state_option
@json_option
@click.pass_context
def command(context: click.Context, *, name: str, state: StatePaths, as_json: bool) -> None:
    """Show where the time of a run went.

    Every second of its wall time is in one bucket, and the buckets add up. The time in which it was finished
    is not counted. Exits with 1 if a file of the run cannot be read: its times are missing.

    \b
    Example:
      trainerd goodput mnist
      trainerd goodput mnist --json | jq .share
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.supervisor.goodput.goodput_facts import read_facts

    run = find_run(state, name)
    say_if_alone(run)
    # That of a run of `trainerd exec` is in a state folder of its own.
    facts = read_facts(StatePaths(run.root.parent.parent), name)
    goodput = facts.goodput(SystemClock().wall_s())
    if facts.unread and not goodput.wall_s:
        raise unread_error(facts.unread)
    with ending_quietly():
        if as_json:
            unread = [str(each.path) for each in facts.unread]
            print_json({"job": name, **dataclasses.asdict(goodput), "unread": unread})
        else:
            _show(name, goodput, {each.attempt for each in facts.unread})
    if facts.unread:
        click.echo(f"incomplete: {unread_error(facts.unread)}", err=True)
        context.exit(1)


def _show(name: str, goodput: Goodput, unread: Collection[int | None]) -> None:
    """Show the buckets; attempts of which a file could not be read are not called silent."""
    if not goodput.wall_s:
        click.echo(f"{name} has not begun")
        return
    table = make_table("BUCKET", "TIME", "SHARE", "WHAT", right=("TIME", "SHARE"))
    for bucket, seconds in goodput.buckets.items():
        share = f"{100 * seconds / goodput.wall_s:.1f} %"
        table.add_row(bucket, _precise(seconds), share, _MEANINGS[bucket])
    table.add_row("sum", _precise(goodput.wall_s), "100.0 %", "")
    show(table)
    attempts, lost = counted(goodput.attempts, "attempt"), counted(goodput.lost_steps, "lost step")
    click.echo(f"\n{attempts}, {lost}", nl=False)
    if goodput.return_s is not None:
        click.echo(f"; back at work {_precise(goodput.return_s)} after the newest death", nl=False)
    click.echo()
    silent = ", ".join(str(number) for number in goodput.silent_attempts if not {number, None} & set(unread))
    if silent:
        click.echo(f"of attempt {silent} only beginning and end are known: no session noted its times")


def _precise(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else duration(seconds)
