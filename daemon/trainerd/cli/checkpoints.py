"""`trainerd checkpoints`: what a job could go back to. Needs no supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from trainerd.cli.human import NOTHING, duration, number, size
from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import cut, ending_quietly, make_table, print_json, show
from trainerd.cli.run_folder import find_run
from trainerd.contract.clock import SystemClock
from trainerd.contract.safe_text import safe_line, safe_text
from trainerd.errors import CorruptError, UserError

if TYPE_CHECKING:
    from rich.table import Table

    from trainerd.checkpoint.store import Aside, Checkpoint, CheckpointStore
    from trainerd.contract.paths import StatePaths

SHOWN_OF_MANIFEST = (
    "step",
    "epoch",
    "batch",
    "reason",
    "scores",
    "bytes",
    "created_wall_s",
    "attempt",
    "world_size",
    "lineage",
    "is_final",
)


@click.command()
@name_argument
@click.option("--verify", is_flag=True, help="Read every byte and compare sizes and digests; change nothing.")
@state_option
@json_option
@click.pass_context
def command(context: click.Context, *, name: str, verify: bool, state: StatePaths, as_json: bool) -> None:
    """Show the checkpoints of a job.

    Oldest first. Those in quarantine and those that a rollback has abandoned follow, each with its reason.
    With --verify, exits with 1 if a checkpoint fails or cannot be read.

    \b
    Example:
      trainerd checkpoints mnist
      trainerd checkpoints mnist --verify
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.checkpoint.store import CheckpointStore

    store = CheckpointStore.of_run(find_run(state, name))
    try:
        found = look(store, verify=verify)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or store.directory}: {error.strerror}") from error
    with ending_quietly():
        if as_json:
            print_json({"job": name} | found)
        else:
            _show(name, found, is_verified=verify)
    if verify and (found["problems"] or any(row["verified"] is not True for row in found["checkpoints"])):
        context.exit(1)


def look(store: CheckpointStore, *, verify: bool) -> dict[str, Any]:
    """Return all there is to say of a store, as `--json` prints it. Changes nothing."""
    pins = store.pins()
    rows = (_row(store, checkpoint, pins, verify=verify) for checkpoint in store.checkpoints())
    return {
        "checkpoints": [row for row in rows if row is not None],
        "quarantined": [_aside(one) for one in store.quarantined()],
        "abandoned": [_aside(one) for one in store.abandoned()],
        "problems": [problem.message for problem in store.problems()],
    }


def _row(
    store: CheckpointStore, checkpoint: Checkpoint, pins: dict[str, str], *, verify: bool
) -> dict[str, Any] | None:
    """Describe a checkpoint, None if it was pruned while we looked."""
    verified, problem = None, None
    if verify:
        try:
            store.verify(checkpoint)
            verified = True
        except CorruptError as error:
            if not checkpoint.path.exists():
                return None
            verified, problem = False, error.message
        except OSError as error:  # not read is not the same as not sound
            problem = f"could not be read: {error}"
    return {
        "name": checkpoint.name,
        "path": str(checkpoint.path),
        "ordinal": checkpoint.ordinal,
        **{field: getattr(checkpoint.manifest, field) for field in SHOWN_OF_MANIFEST},
        "pin": pins.get(checkpoint.name),
        "verified": verified,
        "problem": problem,
    }


def _aside(one: Aside) -> dict[str, str]:
    return {"name": one.path.name, "path": str(one.path), "reason": one.reason}


def _show(name: str, found: dict[str, Any], *, is_verified: bool) -> None:
    if found["checkpoints"]:
        show(_table(found["checkpoints"], is_verified=is_verified))
    else:
        what = "that can be read" if found["problems"] else "yet"
        click.echo(f"{name} has no checkpoint {what}")
    for row in found["checkpoints"]:
        if row["pin"]:
            click.echo(f"\npinned: {row['name']}\n  {safe_text(row['pin'])}")
    for row in found["checkpoints"]:
        if row["problem"]:
            click.echo(f"\nfailed: {safe_text(row['problem'])}")
    for what in ("quarantined", "abandoned"):
        for one in found[what]:
            click.echo(f"\n{what}: {safe_line(one['path'])}\n  {safe_text(one['reason'])}")
    for problem in found["problems"]:
        click.echo(f"\nunreadable: {safe_text(problem)}")


def _table(rows: list[dict[str, Any]], *, is_verified: bool) -> Table:
    verdict = ("VERIFIED",) if is_verified else ()
    numbers = ("STEP", "EPOCH", "SIZE", "AGE")
    headings = ("NAME", "STEP", "EPOCH", "WHY", "SIZE", "AGE", *verdict, "PIN", "SCORES")
    table = make_table(*headings, right=numbers, flexible="SCORES")
    now_s = SystemClock().wall_s()
    for row in rows:
        scores = " ".join(f"{metric}={number(score)}" for metric, score in sorted(row["scores"].items()))
        table.add_row(
            row["name"],
            str(row["step"]),
            str(row["epoch"]),
            row["reason"] + (", final" if row["is_final"] and row["reason"] != "final" else ""),
            size(row["bytes"]),
            duration(now_s - row["created_wall_s"]),
            *((_verdict(row["verified"]),) if is_verified else ()),
            "pinned" if row["pin"] is not None else NOTHING,
            cut(scores or NOTHING),
        )
    return table


def _verdict(verified: bool | None) -> str:
    return {True: "yes", False: "FAILED", None: "unknown"}[verified]
