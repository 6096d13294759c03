"""`trainerd clone`: a copy of a job with other values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainerd.cli.options import complete_job_names, json_option, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.paths import StatePaths


@click.command()
@click.argument("name", shell_complete=complete_job_names)
@click.argument("new", metavar="NEW")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A value that differs from that in NAME."
)
@click.option("--dry-run", is_flag=True, help="Only print the spec.")
@state_option
@json_option
def command(
    *, name: str, new: str, settings: tuple[str, ...], dry_run: bool, state: StatePaths, as_json: bool
) -> None:
    """Submit a copy of a job with other values.

    NEW begins a run of its own; the checkpoints of NAME stay with NAME. KEYs are those of `sweep`: a field
    such as env.SEED, or an option of the command.

    \b
    Example:
      trainerd clone mnist mnist-fast --set lr=0.5
      trainerd clone mnist mnist-2 --set env.SEED=2 --dry-run
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.ad_hoc import write_spec
    from trainerd.cli.changed_spec import read_template, with_values
    from trainerd.cli.client import Client
    from trainerd.cli.submit import acknowledged
    from trainerd.cli.swept_values import read_setting
    from trainerd.contract.names import check_name
    from trainerd.supervisor.specs.load import load_spec
    from trainerd.supervisor.specs.placement import place_spec

    check_name(new)
    values = dict(read_setting(text) for text in settings)
    with ending_quietly(), Client(state) as client, tempfile.TemporaryDirectory() as folder:
        job = client.get_job(name)
        if not job.spec_path or not Path(job.spec_path).exists():
            raise UserError(f"the spec of {name} is gone: {job.spec_path or 'none is known'}")
        root, _ = read_template(Path(job.spec_path))
        spec = with_values(root, values)
        file = write_spec(Path(folder), new, spec)
        load_spec(file, trust=None)
        if dry_run:
            if as_json:
                print_json({"name": new} | spec)
            else:
                click.echo(file.read_text(), nl=False)
            return
        path = place_spec(file, Path(client.daemon().jobs_dir), replace=False)
        answer = acknowledged(client, load_spec(path, trust=None))
        if as_json:
            print_json(answer)
        else:
            click.echo(f"{answer.name}: {answer.state}: {answer.reason}")
