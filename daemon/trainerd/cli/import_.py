"""`trainerd import`: begin a run with what a plain training script saved. Needs no supervisor."""

from __future__ import annotations

from pathlib import Path

import click

from trainerd.cli.needs_torch import needing_torch
from trainerd.cli.options import json_option, unsought_state_option
from trainerd.cli.output import print_json
from trainerd.cli.run_place import run_at
from trainerd.contract.folder_owner import acting_as_owner_of, nearest_folder
from trainerd.errors import UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pt")
@click.option("--run", "place", required=True, metavar="NAME|DIR", help="The job, or a run folder.")
@click.option(
    "--map", "mapping", multiple=True, metavar="KEY=NAME", help="Track the state under KEY as NAME."
)
@click.option("--epochs-done", type=click.IntRange(min=0), metavar="N", help="Continue with epoch N, from 0.")
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="Optimizer steps done.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the run: data order and generators.")
@unsought_state_option
@json_option
def command(
    *,
    file: Path,
    place: str,
    mapping: tuple[str, ...],
    epochs_done: int | None,
    step: int | None,
    seed: int,
    state: Path | None,
    as_json: bool,
) -> None:
    """Begin a run with a torch.save file of a plain script.

    FILE.pt is what tutorials write: a dict with "epoch", "model_state_dict", "optimizer_state_dict" and the
    like, or a bare state_dict. It becomes the first checkpoint of the run, and the job's session resumes from
    it. The states are tracked as model, optimizer, and so on: as their keys say without "_state_dict". Other
    values, such as "loss", are found with session.value. No code in the file is executed.

    \b
    Example:
      trainerd import checkpoint.pt --run mnist
      trainerd import checkpoint.pt --run .trainerd/runs/train --map net=model --epochs-done 5
    """  # noqa: D301 (click leaves alone the lines after this escape)
    with needing_torch("import"):
        from trainerd.training.importing import read_plain_checkpoint, start_run

    plain = read_plain_checkpoint(file, names=_names(mapping), epochs_done=epochs_done, step=step)
    run = run_at(place, state)
    with acting_as_owner_of(nearest_folder(run.root)):
        checkpoint = start_run(plain, run, seed=seed, source=file.name)
    if as_json:
        print_json(
            {
                "checkpoint": checkpoint.name,
                "path": str(checkpoint.path),
                "tracked": list(plain.states),
                "values": list(plain.values),
                "step": plain.step,
                "epochs_done": plain.epochs_done,
                "notes": list(plain.notes),
            }
        )
    else:
        tracked = ", ".join(plain.states)
        click.echo(f"{checkpoint.path}: {tracked}; step {plain.step}, next epoch {plain.epochs_done}")
        if plain.values:
            click.echo(f"with session.value: {', '.join(plain.values)}")
    for note in plain.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(
        f"warning: the file holds no random states: the generators begin as in a new run with seed {seed}",
        err=True,
    )


def _names(mapping: tuple[str, ...]) -> dict[str, str]:
    names = {}
    for item in mapping:
        key, separator, name = item.partition("=")
        if not separator or not key or not name.isidentifier():
            raise UserError(f"--map {item}: KEY=NAME is meant", hint="NAME is what the script tracks it as")
        names[key] = name
    return names
