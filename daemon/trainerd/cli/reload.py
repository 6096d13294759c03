"""`trainerd reload`: new configuration and code, without disturbing jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.options import json_option, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.contract.clock import SystemClock
from trainerd.errors import TryAgainError, UserError

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import DaemonView

POLL_S: Final = 0.05
"""How often the supervisor is asked whether it is back, in seconds."""
RELOAD_LIMIT_S: Final = 90.0
"""How long it may take to be back, in seconds."""


@click.command()
@state_option
@json_option
def command(state: StatePaths, as_json: bool) -> None:
    """Reload the supervisor in place; jobs are not disturbed.

    Configuration and code are read again, and the process stays. Jobs are not disturbed. If the new code
    or configuration has a mistake, the old program continues and the reason is shown. The same as
    `systemctl reload trainerd` and SIGHUP, but returns when the supervisor answers again.

    \b
    Example:
      trainerd reload
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client

    with ending_quietly(), Client(state) as client:
        before = client.daemon()
        client.reload()
        after = _when_back(client, before)
        if as_json:
            print_json(after)
        else:
            click.echo(
                f"trainerd {after.version} (process {after.pid}) has started again; no job was disturbed"
            )


def _when_back(client: Client, before: DaemonView) -> DaemonView:
    """Wait for the supervisor that began after `before`.

    Raises:
        UserError: The new program or its configuration is not sound, so the old one goes on.
        TryAgainError: It is not back in time.
    """
    from trainerd.cli.client import NotRunningError

    clock = SystemClock()
    deadline_s = clock.monotonic_s() + RELOAD_LIMIT_S
    while clock.monotonic_s() < deadline_s:
        try:
            now = client.daemon()
        except (NotRunningError, TryAgainError):
            pass  # between two programs there is no answer
        else:
            if now.started_wall_s > before.started_wall_s:
                return now
            if now.reload_refused_wall_s != before.reload_refused_wall_s:
                raise UserError(
                    f"the reload was refused: {now.reload_refusal}",
                    hint="the supervisor continues as before; fix that and reload again",
                )
        time.sleep(POLL_S)
    raise TryAgainError(
        f"the supervisor has not started again within {RELOAD_LIMIT_S:.0f} s",
        hint="its log says why: `trainerd logs --daemon -n 20`; jobs go on without it",
    )
