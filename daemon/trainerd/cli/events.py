"""`trainerd events`: what happened, from the journal."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.human import NOTHING
from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, pause, print_json, print_json_line
from trainerd.cli.shown_zone import moment, utc_option
from trainerd.errors import TryAgainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trainerd.cli.followed_reader import FollowedReader
    from trainerd.cli.post_mortem import Reader
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import EventView

FOLLOW_INTERVAL_S: Final = 0.5
EVENTS_A_QUESTION: Final = 1000
LINES_DEFAULT: Final = 50

_JOB_WIDTH: Final = 16
_KIND_WIDTH: Final = 24


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Continue with new events, until Ctrl-C.")
@click.option("--job", metavar="NAME", help="Only events of this job.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=LINES_DEFAULT,
    show_default=True,
    help="Number of the newest events; 0 shows all.",
)
@state_option
@utc_option
@json_option
def command(follow: bool, job: str | None, lines: int, state: StatePaths, as_json: bool) -> None:
    """Show the events of all jobs, with their reasons.

    Every change of state of every job is an event.

    \b
    Example:
      trainerd events -f
      trainerd events --job mnist -n 0
      trainerd events -f --json | jq -c 'select(.kind == "job.parked")'
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.followed_reader import FollowedReader

    with ending_quietly(), FollowedReader(state) as client:
        client.daemon()
        if job is not None:
            _check_known(client, state, job)
        # A job's own events are spread thinly, so its last ones can only be found by reading them all.
        after = max(0, client.last_event() - lines) if lines and job is None else 0
        events = deque(events_since(client, job, after), maxlen=lines or None)
        if as_json and not follow:
            print_json(list(events))
            return
        _print(events, as_json=as_json)
        if follow:
            _follow(client, job, events[-1] if events else None, after, as_json=as_json)


def _follow(
    client: FollowedReader, job: str | None, newest: EventView | None, after: int, *, as_json: bool
) -> None:
    """Print what happens next, whether a supervisor runs, comes or goes."""
    from trainerd.cli.client import NotRunningError

    last, last_wall_s = (newest.sequence, newest.wall_s) if newest else (after, 0.0)
    changes = client.changes
    while True:
        pause(FOLLOW_INTERVAL_S)
        try:
            client.daemon()
            # A folder with runs of `trainerd exec` numbers its events otherwise than its supervisor.
            is_new = client.changes != changes
            fresh = list(events_since(client, job, 0 if is_new else last))
        except (NotRunningError, TryAgainError):
            continue  # it is being restarted; the journal has what we miss
        if is_new:
            changes, last = client.changes, fresh[-1].sequence if fresh else 0
            fresh = [event for event in fresh if event.wall_s > last_wall_s]
        _print(fresh, as_json=as_json)
        if fresh:
            last, last_wall_s = fresh[-1].sequence, max(event.wall_s for event in fresh)


def _check_known(client: Reader, state: StatePaths, job: str) -> None:
    """Refuse a name of which there is neither a job nor an event nor a run.

    Raises:
        UserError: There is none; the hint names the nearest one.
    """
    from trainerd.cli.run_folder import find_run

    if client.list_events(job=job, limit=1):
        return  # a job that is gone has its history
    if job not in {each.name for each in client.list_jobs()}:
        find_run(state, job)


def events_since(client: Reader, job: str | None, after: int) -> Iterator[EventView]:
    """Return the events with a sequence number above `after`, oldest first."""
    while True:
        events = client.list_events(job=job, after=after, limit=EVENTS_A_QUESTION)
        yield from events
        if len(events) < EVENTS_A_QUESTION:
            return
        after = events[-1].sequence


def _print(events: Iterable[EventView], *, as_json: bool) -> None:
    for event in events:
        if as_json:
            print_json_line(event)
        else:
            about = f"{event.job or NOTHING:<{_JOB_WIDTH}} {event.kind:<{_KIND_WIDTH}}"
            click.echo(f"{moment(event.wall_s)}  {about} {event.message}")
