"""`trainerd validate`: whether specs would be accepted. Needs no supervisor."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainerd.cli.options import json_option
from trainerd.cli.output import print_json
from trainerd.contract.safe_text import safe_line, safe_text
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.resolved import ResolvedJob


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False), metavar="FILE..."
)
@click.option(
    "--jobs",
    "jobs_dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Check the specs as `submit` would place them into this jobs folder: relative paths begin at the "
    "folder of a spec.",
)
@json_option
@click.pass_context
def command(context: click.Context, *, files: tuple[Path, ...], jobs_dir: Path | None, as_json: bool) -> None:
    """Check specs without running anything.

    Every mistake is shown with its line and the nearest valid name.

    Exits with 1 if a spec would not be accepted.

    \b
    Example:
      trainerd validate jobs/*.yaml
      trainerd validate --jobs jobs jobs/examples/mnist/job.yaml
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.supervisor.specs.load import load_spec, parse_spec
    from trainerd.supervisor.specs.placement import plan_placement

    if jobs_dir is not None and not jobs_dir.is_dir():
        raise UserError(f"--jobs {jobs_dir}: there is no such folder")

    def judged(file: Path) -> ResolvedJob:
        if jobs_dir is None:
            return load_spec(file, trust=None)
        placement = plan_placement(file, jobs_dir)
        return parse_spec(placement.target, placement.data).resolve(None)

    results: list[dict[str, Any]] = []
    for file in files:
        try:
            job = judged(file)
        except UserError as error:
            results.append({"file": str(file), "ok": False, "error": error.message, "hint": error.hint})
            if not as_json:
                click.echo(f"error: {safe_text(str(error))}", err=True)
        else:
            results.append({"file": str(file), "ok": True, "job": job.name, "command": job.command})
            if not as_json:
                click.echo(safe_line(f"ok: {file}: {_described(job)}"))
    if as_json:
        print_json(results)
    context.exit(0 if all(result["ok"] for result in results) else 1)


def _described(job: ResolvedJob) -> str:
    ranks = f", {job.nproc} ranks" if job.nproc > 1 else ""
    return f"job {job.name!r} runs `{shlex.join(job.command)}` in {job.workdir}{ranks}"
