"""`trainerd slurm`: the batch script of a job for Slurm. Needs no supervisor."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from trainerd.cli.exec_ import EXEC_STATES
from trainerd.cli.options import json_option
from trainerd.cli.output import print_json
from trainerd.cli.slurm_script import SlurmWish, batch_script
from trainerd.contract import exit_codes
from trainerd.contract.safe_text import safe_text
from trainerd.errors import UserError

_OPTION: Final = re.compile(r"-{0,2}([a-z][a-z0-9-]*(?:=[\x21-\x7e][\x20-\x7e]*)?)")
_OWN: Final = frozenset(
    {"signal", "requeue", "no-requeue", "open-mode", "nodes", "ntasks", "ntasks-per-node", "time", "job-name"}
)
SUBMIT_LIMIT_S: Final = 120.0
"""How long `sbatch` may take, in seconds."""


@click.command()
@click.argument("spec", type=click.Path(path_type=Path, readable=False))
@click.option("--time", "time", metavar="LIMIT", help="Time limit, as for sbatch: minutes, 4:00:00, 1-12.")
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Nodes; each has what the spec asks for.  [default: 1]",
)
@click.option(
    "--sbatch",
    "options",
    multiple=True,
    metavar="OPTION",
    help="Another option of sbatch, such as partition=gpu; may be given several times.",
)
@click.option(
    "--state-dir",
    "--state",
    "state_dir",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help=f"State folder of this job, seen by all nodes.  [default: ./{EXEC_STATES}/NAME]",
)
@click.option(
    "--run",
    "common",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run folder of several nodes, seen by all.  [default: `run` in the state folder]",
)
@click.option("--submit", is_flag=True, help="Give the script to sbatch instead of printing it.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    spec: Path,
    time: str | None,
    nodes: int,
    options: tuple[str, ...],
    state_dir: Path | None,
    common: Path | None,
    submit: bool,
    as_json: bool,
) -> None:
    """Print a batch script that runs a job under Slurm.

    The warning time is computed from the job's grace period. The job is requeued when its time is over or
    it is preempted, and continues from its checkpoint; a cancelled job stays cancelled.

    \b
    Example:
      trainerd slurm job.yaml --time 4:00:00
      trainerd slurm job.yaml --time 4:00:00 --sbatch partition=gpu --submit
      trainerd slurm job.yaml --nodes 2 --run /shared/mnist
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.supervisor.service.foreground import DRAIN_MARGIN_S
    from trainerd.supervisor.specs.load import load_spec

    if nodes == 1 and common is not None:
        raise click.UsageError("--run is for several nodes: one node keeps its run in the state folder")
    wish = SlurmWish(time, tuple(_option(text) for text in options), nodes)
    try:
        job = load_spec(spec, trust=None)
    except UserError as error:
        click.echo(f"error: {safe_text(str(error))}", err=True)
        context.exit(exit_codes.NEVER_RETRY)
    state = (state_dir or EXEC_STATES / job.name).absolute()
    own: tuple[str, ...] = (
        sys.executable,
        "-m",
        "trainerd",
        "exec",
        str(spec.absolute()),
        "--state",
        str(state),
    )
    if nodes > 1:
        own = (*own, "--run", str((common or state / "run").absolute()))
    try:
        script = batch_script(job, wish, command=own, margin_s=DRAIN_MARGIN_S)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    answer = _submit(script) if submit else None
    if as_json:
        print_json({"job": job.name, "script": script, "submitted": answer})
    else:
        click.echo(script if answer is None else answer, nl=answer is not None)


def _option(text: str) -> str:
    found = _OPTION.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--sbatch {text[:60]!r} is no option of sbatch: write NAME=VALUE, or NAME")
    name = found[1].partition("=")[0]
    if name in _OWN:
        raise click.UsageError(
            f"--sbatch {name}: the script needs its own {name}; without --sbatch it has one"
        )
    return found[1]


def _submit(script: str) -> str:
    """Give a script to sbatch; return what that answers.

    Raises:
        UserError: There is no sbatch, or it refuses.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise UserError("there is no sbatch on PATH", hint="run this on a login node of the cluster")
    try:
        done = subprocess.run(
            [program], input=script, capture_output=True, text=True, timeout=SUBMIT_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(
            f"sbatch: {error}", hint="look with squeue whether the job was taken before you try again"
        ) from error
    if done.returncode != 0:
        raise UserError(f"sbatch refused the job: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout.strip()
