"""`trainerd edit`: change the spec of a job in an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.options import json_option, name_argument, state_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.contract.safe_text import safe_text
from trainerd.errors import SpecError, UserError

if TYPE_CHECKING:
    from trainerd.cli.client import Client
    from trainerd.contract.paths import StatePaths

EDITOR_DEFAULT: Final = "vi"


@click.command()
@name_argument
@click.option("--dry-run", is_flag=True, help="Only say what the changes would do.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before the spec is replaced.")
@state_option
@json_option
def command(*, name: str, dry_run: bool, yes: bool, state: StatePaths, as_json: bool) -> None:
    """Change the spec of a job in $EDITOR.

    The editor opens a copy. When the copy is valid, the command shows what will happen, and replaces the
    spec in one step. An invalid copy can be edited again at once. Nothing happens if the file is saved
    unchanged, or if another program has changed the spec meanwhile; then the copy stays.

    \b
    Example:
      trainerd edit mnist
      EDITOR=nano trainerd edit mnist
      trainerd edit mnist --dry-run
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.cli.client import Client
    from trainerd.cli.plan import jobs_by_name, placing_plan, show_plan

    with ending_quietly(), Client(state) as client:
        target, before = _spec_of(client, name)
        copy = _copy(target, before)
        after = _edited(copy, target, name)
        if after == before:
            copy.unlink()
            click.echo(f"{name}: unchanged", err=as_json)
            return
        plan = placing_plan(name, target, after, jobs_dir=target.parent, jobs=jobs_by_name(client))
        if as_json:
            print_json(plan.as_plain())
        else:
            show_plan(plan)
        if dry_run:
            copy.unlink()
            return
        if not yes and sys.stdin.isatty() and not click.confirm("replace the spec?", default=True, err=True):
            click.echo(f"the copy is kept: {copy}", err=True)
            return
        _replace(target, before, after, copy)
        copy.unlink()
        client.rescan()


def _spec_of(client: Client, name: str) -> tuple[Path, bytes]:
    from trainerd.supervisor.specs.jobs_dir import specs_of
    from trainerd.supervisor.specs.load import read_bytes

    job = client.get_job(name)
    jobs_dir = Path(client.daemon().jobs_dir)
    # The file that the job has. One that was never accepted has none in the journal, and one that was renamed
    # just now has another: then the file that gives the job.
    target = Path(job.spec_path) if job.spec_path else None
    if target is None or not target.exists():
        target = next(iter(specs_of(name, jobs_dir)), None)
    if target is None:
        raise UserError(f"the spec of {name!r} is not there any more", hint="submit it again")
    if target.is_symlink():
        raise UserError(f"{target} is a link", hint=f"edit {target.resolve()} instead")
    try:
        return target, read_bytes(target, None)[0]
    except OSError as error:
        raise UserError(f"cannot read {target}: {error.strerror}") from error


def _copy(target: Path, data: bytes) -> Path:
    descriptor, copy = tempfile.mkstemp(prefix=f"{target.stem}-", suffix=target.suffix)
    os.close(descriptor)
    Path(copy).write_bytes(data)
    return Path(copy)


def _edited(copy: Path, target: Path, name: str) -> bytes:
    """Let the copy be edited until it would be accepted.

    Raises:
        UserError: The editor failed, or the copy is not valid and is not fixed.
    """
    while True:
        _run_editor(copy)
        data = copy.read_bytes()
        try:
            _check(target, data, name)
        except UserError as error:
            click.echo(f"error: {safe_text(str(error))}", err=True)
            if sys.stdin.isatty() and click.confirm("edit it again?", default=True, err=True):
                continue
            raise UserError("the spec is unchanged", hint=f"the copy is kept: {copy}") from error
        return data


def _run_editor(copy: Path) -> None:
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR_DEFAULT)
    try:
        code = subprocess.run([*words, str(copy)], check=False).returncode
    except OSError as error:
        raise UserError(
            f"cannot start the editor {words[0]}: {error.strerror}", hint="name another in EDITOR"
        ) from error
    if code:
        raise UserError(
            f"the editor exited with {code}: nothing was changed", hint=f"the copy is kept: {copy}"
        )


def _check(target: Path, data: bytes, name: str) -> None:
    from trainerd.supervisor.specs.load import parse_spec

    job = parse_spec(target, data).resolve(None)
    if job.name != name:
        raise SpecError(
            f"names the job {job.name!r}, and this is {name!r}",
            file=target,
            field="name",
            hint="another name is another job: submit it, and remove this one",
        )


def _replace(target: Path, before: bytes, after: bytes, copy: Path) -> None:
    import stat

    from trainerd.contract.durable import write_file
    from trainerd.contract.folder_owner import acting_as_owner_of
    from trainerd.supervisor.specs.jobs_dir import locked, translated
    from trainerd.supervisor.specs.load import read_bytes

    with acting_as_owner_of(target.parent), locked(target.parent), translated(target.parent):
        now, status = read_bytes(target, None)
        if now != before:
            raise UserError(
                f"{target} was changed by another program meanwhile: it is left alone",
                hint=f"the copy is kept: {copy}",
            )
        write_file(target, after, mode=stat.S_IMODE(status.st_mode))
