"""`trainerd export`: a model as a plain file. Needs no supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from trainerd.cli.needs_torch import needing_torch
from trainerd.cli.options import json_option, unsought_state_option
from trainerd.cli.output import print_json
from trainerd.cli.run_place import store_at
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.checkpoint.store import Checkpoint, CheckpointStore
    from trainerd.contract.paths import RunPaths
    from trainerd.contract.policy import KeepBest


@click.command()
@click.argument("name", metavar="NAME|DIR")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT")
@click.option("--best", metavar="METRIC", help="The checkpoint with the best score, instead of the newest.")
@click.option(
    "--mode", type=click.Choice(["max", "min"]), help="Which scores are better, if the run does not say."
)
@click.option("--checkpoint", "which", metavar="STEP", help="This checkpoint, such as step-120.")
@click.option(
    "--object",
    "tracked",
    metavar="NAME",
    help="Which module, if the script tracks several.  [default: model]",
)
@click.option("--all", "is_whole", is_flag=True, help="All that is tracked, optimizer included (.pt only).")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@unsought_state_option
@json_option
def command(
    *,
    name: str,
    out: Path,
    best: str | None,
    mode: Literal["max", "min"] | None,
    which: str | None,
    tracked: str | None,
    is_whole: bool,
    force: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Write the model of a run as one plain file.

    OUT.pt is read by torch.load(OUT, weights_only=True), OUT.safetensors by the safetensors library: both
    hold the model's state_dict. The newest checkpoint that verifies is taken, and every byte of it is
    verified.

    NAME is a job; a path with a slash is a run folder, or one that a Checkpointer writes to.

    \b
    Example:
      trainerd export mnist model.pt
      trainerd export mnist --best accuracy model.safetensors
      trainerd export ./checkpoints --checkpoint step-120 --all everything.pt
    """  # noqa: D301 (click leaves alone the lines after this escape)
    with needing_torch("export"):
        from trainerd.training.exporting import export_state, model_state, whole_state

    if best is not None and which is not None:
        raise UserError("--best and --checkpoint name two checkpoints", hint="leave one of them out")
    if is_whole and (tracked is not None or out.suffix == ".safetensors"):
        raise UserError("--all is for .pt files, and goes without --object")
    store, run = store_at(name, state)
    checkpoint = _chosen(store, run, best=best, mode=mode, which=which)
    with store.reading(checkpoint):
        content = whole_state(checkpoint) if is_whole else model_state(checkpoint, tracked)
    export_state(content, out, replace=force)
    size_bytes = out.stat().st_size
    if as_json:
        print_json(
            {"file": str(out), "checkpoint": checkpoint.name, "is_whole": is_whole, "bytes": size_bytes}
        )
    else:
        what = "everything" if is_whole else "the model"
        click.echo(f"{out}: {what} of {checkpoint.name}, {size_bytes} bytes")


def _chosen(
    store: CheckpointStore,
    run: RunPaths,
    *,
    best: str | None,
    mode: Literal["max", "min"] | None,
    which: str | None,
) -> Checkpoint:
    if which is not None:
        return store.find(which)
    if best is None:
        found = store.newest_sound()
    else:
        from trainerd.checkpoint.retention import best_of

        _check_metric(store, best)
        found = best_of(store.checkpoints(), _rule(run, best, mode))
    if found is None:
        wanted = f"no finite score {best!r}" if best is not None else "no checkpoint that verifies"
        raise UserError(f"{store.directory} holds {wanted}", hint="see `trainerd checkpoints`")
    return found


def _check_metric(store: CheckpointStore, metric: str) -> None:
    """Refuse a metric that no checkpoint has a score of.

    Raises:
        UserError: None has; the hint names those that there are.
    """
    from trainerd.contract.nearest import nearest

    known = sorted({name for checkpoint in store.checkpoints() for name in checkpoint.manifest.scores})
    if metric in known:
        return
    if not known:
        hint = "report scores with session.report(accuracy=...), or leave out --best"
    else:
        match = nearest(metric, known)
        hint = f"did you mean {match}? " if match is not None else ""
        hint += f"there are: {', '.join(known)}"
    raise UserError(f"no checkpoint in {store.directory} has a score {metric!r}", hint=hint)


def _rule(run: RunPaths, metric: str, mode: Literal["max", "min"] | None) -> KeepBest:
    """Return what is better: as said here, else as the run itself ranks its checkpoints."""
    from trainerd.contract.policy import KeepBest
    from trainerd.contract.retention_file import read_retention

    if mode is not None:
        return KeepBest(metric, mode=mode)
    if run.retention.is_file():
        for rule in read_retention(run).keep_best:
            if rule.metric == metric:
                return rule
    raise UserError(
        f"is a large {metric} good or bad?", hint="say --mode max or --mode min: the run does not rank by it"
    )
