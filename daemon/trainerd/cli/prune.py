"""`trainerd prune`: remove what retention no longer keeps, or only say what that would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trainerd.cli.missing_scores import missing_from, missing_scores_line
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import print_json
from trainerd.contract.safe_text import safe_text

if TYPE_CHECKING:
    from trainerd.contract.paths import RunPaths, StatePaths
    from trainerd.contract.policy import RetentionPolicy


@click.command()
@name_argument
@click.option("--dry-run", is_flag=True, help="Only say what would be kept and pruned, and why.")
@state_option
@json_option
def command(*, name: str, dry_run: bool, state: StatePaths, as_json: bool) -> None:
    """Remove the checkpoints that retention no longer keeps.

    The policy is that of the newest attempt.

    A running job prunes by itself after each save; then only --dry-run is possible.

    \b
    Example:
      trainerd prune mnist --dry-run
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.checkpoint.store import CheckpointStore
    from trainerd.cli.run_folder import find_run
    from trainerd.contract.folder_owner import acting_as_owner_of

    run = find_run(state, name)
    store, policy = CheckpointStore.of_run(run), _policy_of(run, name)
    if dry_run:
        plan = store.plan(policy)
    else:
        with acting_as_owner_of(run.root), store.lock():
            plan = store.prune(policy)
    if as_json:
        decisions = [
            {"checkpoint": each.name, "is_kept": each.is_kept, "reasons": list(each.reasons)}
            for each in plan.decisions
        ]
        unread = [problem.message for problem in store.problems()]
        print_json({"job": name, "is_dry_run": dry_run, "decisions": decisions, "problems": unread})
    else:
        problems = store.problems()
        what = "no checkpoint that can be read" if problems else "no checkpoints"
        click.echo(str(plan) or f"{name} has {what}")
        for problem in problems:
            click.echo(f"unreadable, and kept: {safe_text(problem.message)}")
        if note := missing_scores_line(missing_from(store.checkpoints(), policy)):
            click.echo(f"keep_best: {note}")


def _policy_of(run: RunPaths, name: str) -> RetentionPolicy:
    from trainerd.contract.retention_file import read_retention
    from trainerd.errors import UserError

    try:
        return read_retention(run)
    except FileNotFoundError:
        raise UserError(
            f"{name} has not said what it keeps", hint="it does so when its training session begins"
        ) from None
