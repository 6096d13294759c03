"""`trainerd sweep`: one job for each combination of values."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainerd.cli.options import json_option, unsought_state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.contract.names import check_name
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.cli.client import Client


@click.command()
@click.argument("template", type=click.Path(path_type=Path, readable=False), metavar="TEMPLATE")
@click.option(
    "--set",
    "axes",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="Values to try: a list 0.1,0.01 or a range 1..5, 0..1:0.25 (step), 1e-4..1e-1*10 (factor).",
)
@click.option("--name", metavar="NAME", help="Beginning of the names.  [default: that of the template]")
@click.option("--max-running", type=click.IntRange(min=1), metavar="N", help="Run at most N of them at once.")
@click.option("--replace", is_flag=True, help="Replace specs of the same jobs.")
@click.option("--dry-run", is_flag=True, help="Only list what would be submitted. Needs no supervisor.")
@unsought_state_option
@json_option
def command(
    *,
    template: Path,
    axes: tuple[str, ...],
    name: str | None,
    max_running: int | None,
    replace: bool,
    dry_run: bool,
    state: Path | None,
    as_json: bool,
) -> None:
    """Submit one job for each combination of values.

    TEMPLATE is a spec. A KEY is a placeholder {KEY} anywhere in it, else a field such as env.SEED or
    resources.gpus, else an option of its command: --KEY VALUE, --KEY=VALUE or KEY=VALUE. Each job is named
    after its values.

    \b
    Example:
      trainerd sweep job.yaml --set lr=0.1,0.01 --set seed=1..5 --max-running 2
      trainerd sweep job.yaml --set lr=1e-4..1e-1*10 --dry-run
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.changed_spec import read_template, with_values
    from trainerd.cli.swept_values import combinations, read_axis, sweep_names

    each = combinations([read_axis(text) for text in axes])
    root, own_name = read_template(template)
    base = check_name(name or own_name or template.stem)
    group = {"group": {"name": base, "max_running": max_running}} if max_running is not None else {}
    specs = dict(
        zip(sweep_names(base, each), [with_values(root, values) | group for values in each], strict=True)
    )
    with ending_quietly(), tempfile.TemporaryDirectory() as folder:
        files = _written(Path(folder), specs)
        if dry_run:
            commands = {name: spec["command"] for name, spec in specs.items()}
            if as_json:
                print_json([{"job": name, "command": words} for name, words in commands.items()])
            for name_, words in () if as_json else commands.items():
                click.echo(f"{name_}: {shlex.join(words)}")
            return
        from trainerd.cli.client import Client
        from trainerd.cli.options import find_state

        with Client(find_state(state)) as client:
            _submit(client, files, replace=replace, as_json=as_json)


def _written(folder: Path, specs: dict[str, dict[str, object]]) -> dict[str, Path]:
    """Write the specs and check each; return their files by name.

    Raises:
        SpecError: One would not be accepted.
    """
    from trainerd.cli.ad_hoc import write_spec
    from trainerd.supervisor.specs.load import load_spec

    files = {}
    for name, spec in specs.items():
        files[name] = write_spec(folder, name, spec)
        load_spec(files[name], trust=None)
    return files


def _submit(client: Client, files: dict[str, Path], *, replace: bool, as_json: bool) -> None:
    from trainerd.cli.submit import acknowledged
    from trainerd.supervisor.specs.load import load_spec
    from trainerd.supervisor.specs.placement import place_spec

    jobs_dir = Path(client.daemon().jobs_dir)
    taken = sorted(files.keys() & {job.name for job in client.list_jobs()})
    if taken and not replace:
        raise UserError(
            f"there are already jobs of these names: {', '.join(taken)}",
            hint="replace their specs with --replace, or give others with --name; nothing was submitted",
        )
    placed = [place_spec(file, jobs_dir, replace=replace) for file in files.values()]
    jobs = [acknowledged(client, load_spec(path, trust=None)) for path in placed]
    if as_json:
        print_json(jobs)
        return
    for job in jobs:
        click.echo(f"{job.name}: {job.state}: {job.reason}")
