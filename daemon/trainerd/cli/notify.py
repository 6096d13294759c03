"""`trainerd notify`: try the hooks that tell of what happens to jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainerd.cli.options import find_state, json_option, unsought_state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths
    from trainerd.supervisor.api.control import TrialView


@click.command()
@click.argument("name", required=False)
@click.option("--test", is_flag=True, help="Deliver a test notice, once.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Try the hooks of this configuration, without a supervisor.",
)
@unsought_state_option
@json_option
def command(name: str | None, test: bool, config: Path | None, state: Path | None, as_json: bool) -> None:
    """Send a test notice through the hooks.

    NAME is a hook of the supervisor's configuration, or a job with hooks of its own (`notify` in its spec);
    all hooks of the configuration if absent. The supervisor delivers the notice, with its rights and its
    network. Exits with 1 if a hook fails.

    \b
    Example:
      trainerd notify --test
      trainerd notify --test ops
      trainerd notify --test --config /etc/trainerd/trainerd.toml
    """  # noqa: D301 (click leaves alone the lines after this escape)
    if not test:
        raise UserError("say what to do", hint="`trainerd notify --test` tries all hooks")
    with ending_quietly():
        trials = _tried_here(config, name) if config is not None else _tried_there(find_state(state), name)
        if as_json:
            print_json(trials)
        else:
            for trial in trials:
                click.echo(f"{trial.hook} ({trial.kind}): {trial.problem or 'delivered'}")
            if not trials:
                click.echo("no hooks: add a section [notify.NAME] to the configuration (docs/notices.md)")
    if any(trial.problem for trial in trials):
        raise click.exceptions.Exit(1)


def _tried_there(state: StatePaths, name: str | None) -> tuple[TrialView, ...]:
    from trainerd.cli.client import Client

    with Client(state) as client:
        return client.test_hooks(name)


def _tried_here(config: Path, name: str | None) -> tuple[TrialView, ...]:
    """Deliver in this process, as the user who asks."""
    import asyncio
    import os

    from trainerd.contract.clock import SystemClock
    from trainerd.contract.nearest import nearest_hint
    from trainerd.supervisor.api.control import TrialView
    from trainerd.supervisor.notices.notice_rules import trial_notice
    from trainerd.supervisor.notices.outbox import Outbox
    from trainerd.supervisor.notices.payloads import Origin
    from trainerd.supervisor.service.configuration import load_configuration

    configuration = load_configuration(config)
    hooks = [hook for hook in configuration.hooks if name in {None, hook.name}]
    if name is not None and not hooks:
        known = [hook.name for hook in configuration.hooks]
        raise UserError(f"{config} has no hook {name!r}", hint=nearest_hint(name, known))

    async def tried() -> tuple[TrialView, ...]:
        outbox = Outbox(hooks, Origin(os.uname().nodename, ""), configuration.mail)
        trials = await outbox.try_hooks(hooks, trial_notice(SystemClock().wall_s()))
        await outbox.leave()
        return tuple(TrialView(each.hook, each.kind, each.problem) for each in trials)

    return asyncio.run(tried())
