"""`trainerd adopt`: change a plain training script so that it resumes, check it, and rehearse its death."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.adopted_drill import DrillResult, drilled
from trainerd.cli.drill_first import seconds_of
from trainerd.cli.needs_package import needing
from trainerd.cli.options import json_option
from trainerd.cli.output import ending_quietly, print_json
from trainerd.cli.script_file import UnreadableScriptError, encoded_as, script_bytes, shown_name
from trainerd.contract.counted import counted
from trainerd.contract.durable import write_file
from trainerd.contract.names import ADOPTED_SUFFIX
from trainerd.contract.safe_text import safe_line
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.adoption.adopt_script import Adoption
    from trainerd.adoption.refusal import Refusal

_REFUSED: Final = 1
_USAGE: Final = 2


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENT...]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="NEW",
    help="Where to write the changed script.  [default: FILE with _adopted in its name]",
)
@click.option(
    "--in-place", is_flag=True, help="Replace FILE itself, once the changed script is found resumable."
)
@click.option("--force", is_flag=True, help="Overwrite the changed script of an earlier time.")
@click.option("--budget", default="3m", show_default=True, metavar="TIME", help="Time for the drill.")
@click.option(
    "--no-drill", is_flag=True, help="Do not run the changed script: it is then not known to resume."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    file: Path,
    arguments: tuple[str, ...],
    output: Path | None,
    in_place: bool,
    force: bool,
    budget: str,
    no_drill: bool,
    as_json: bool,
) -> None:
    """Change a plain script so that it resumes, and prove it.

    Reads a script of the usual shape: a loop over epochs around one over a DataLoader, or a loop over steps;
    gradients, and an optimizer that steps. Writes the changed script beside it and shows the difference: at
    most 16 of its lines are changed, and comments and formatting stay. What is not understood is refused,
    with its line and the reason; nothing is written then.

    The changed script is checked (`trainerd check`) and drilled (`trainerd drill`): run on copies, killed and
    compared. It is called resumable only if the drill found everything equal. ARGUMENTs are those with which
    the drill runs the script.

    Exits with 0 if the script is resumable, or was changed with --no-drill; 1 if it is refused, or the drill
    found a difference, showed too little or did not take place; 2 for a usage error, or if the file cannot be
    read or is not Python.

    \b
    Example:
      trainerd adopt train.py
      trainerd adopt train.py --in-place --budget 5m -- --epochs 2
    """  # noqa: D301 (click leaves alone the lines after this escape)
    if in_place and output is not None:
        raise click.UsageError("--in-place replaces FILE itself: -o names another place, so give one of them")
    seconds_of(budget)
    target = output or file.with_name(f"{file.stem}{ADOPTED_SUFFIX}{file.suffix}")
    code = _REFUSED  # where Ctrl-C ends the drill
    with ending_quietly():
        data, text, adoption = _adopted(context, file, as_json=as_json)
        new = encoded_as(adoption.text, data)
        if target.resolve() == file.resolve():
            raise UserError(f"{target} is the script itself", hint="--in-place replaces it")
        if target.is_dir() or not target.absolute().parent.is_dir():
            what = "is a folder" if target.is_dir() else "is in a folder that is not there"
            raise UserError(f"{target} {what}", hint="-o NEW names the file to write")
        if not force and target.exists() and target.read_bytes() != new:
            raise UserError(f"{target} exists already, and is another script", hint="--force, or -o NEW")
        is_new = not target.exists()
        _write(target, new, file.stat().st_mode & 0o777)
        if not as_json:
            _show(file, file if in_place and no_drill else target, text, adoption)
        drill = (
            DrillResult.left_out(file if in_place else target, arguments)
            if no_drill
            else drilled(target, arguments, budget, is_shown=not as_json)
        )
        replaced = in_place and (drill.is_exact or no_drill)
        if replaced:
            _replace(file, data, new)
            if is_new:
                target.unlink()
        written = file if replaced else target
        if as_json:
            print_json(_document(file, written, adoption, drill))
        else:
            _conclude(file, written, drill, in_place=in_place)
        code = 0 if drill.is_exact or no_drill else _REFUSED
    context.exit(code)


def _write(target: Path, new: bytes, mode: int) -> None:
    try:
        write_file(target, new)
        target.chmod(mode)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror}", hint="-o NEW names another place"
        ) from error


def _replace(file: Path, data: bytes, new: bytes) -> None:
    """Replace a script, unless it was changed while the drill ran.

    Raises:
        UserError: It was.
    """
    place = file.resolve()
    if place.read_bytes() != data:
        raise UserError(
            f"{file} was changed while the drill ran", hint="trainerd adopt again; it was left as it is"
        )
    mode = place.stat().st_mode & 0o777
    write_file(place, new)
    place.chmod(mode)


def _adopted(context: click.Context, file: Path, *, as_json: bool) -> tuple[bytes, str, Adoption]:
    """Return the contents of a script, its text, and what becomes of it; end where it is refused."""
    from trainerd.analysis.script_finding import ScriptSyntaxError
    from trainerd.analysis.source_text import decoded

    with needing("libcst", "trainerd adopt", "adopt"):
        from trainerd.adoption.adopt_script import adopt_source
        from trainerd.adoption.refusal import AdoptionRefusedError
    try:
        data = script_bytes(file)
        text = decoded(data)
        return data, text, adopt_source(text)
    except UnreadableScriptError as error:
        _fail(file, str(error), None, as_json=as_json)
    except ScriptSyntaxError as error:
        _fail(file, f"not a Python script: {error}", error.line, as_json=as_json)
    except AdoptionRefusedError as error:
        if as_json:
            print_json({"file": str(file), "verdict": "refused", "refusals": list(error.refusals)})
        else:
            _show_refusals(file, error.refusals)
        context.exit(_REFUSED)
    context.exit(_USAGE)
    raise AssertionError  # context.exit raises


def _fail(file: Path, message: str, line: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(file), "verdict": "error", "error": message, "line": line})
    else:
        place = shown_name(file) if line is None else f"{shown_name(file)}:{line}"
        click.echo(f"error: {place}: {message}", err=True)


def _show_refusals(file: Path, refusals: tuple[Refusal, ...]) -> None:
    for refusal in refusals:
        click.echo(f"{shown_name(file)}:{refusal.line}: {safe_line(refusal.reason)}")
        if refusal.instead:
            click.echo(f"    instead: {safe_line(refusal.instead)}")
    click.echo(f"{shown_name(file)}: refused; nothing was written")


def _show(file: Path, written: Path, text: str, adoption: Adoption) -> None:
    lines = difflib.unified_diff(
        text.removesuffix("\n").split("\n"),
        adoption.text.removesuffix("\n").split("\n"),
        shown_name(file),
        shown_name(written),
        lineterm="",
    )
    for line in lines:
        click.echo(safe_line(line))
    click.echo(
        f"{shown_name(written)}: {counted(adoption.changed, 'line')} changed, {adoption.added} added, "
        f"{adoption.indented} only indented"
    )
    for note in adoption.notes:
        click.echo(f"  note: {safe_line(note)}")
    click.echo("check: nothing found")


def _conclude(file: Path, written: Path, drill: DrillResult, *, in_place: bool) -> None:
    if drill.is_exact:
        click.echo(f"{shown_name(written)}: resumable: the drill found everything equal")
    else:
        click.echo(f"{shown_name(written)}: {drill.verdict}: {safe_line(drill.reason)}")
    if in_place and written != file:
        click.echo(f"{shown_name(file)}: left as it is")


def _document(file: Path, written: Path, adoption: Adoption, drill: DrillResult) -> dict[str, Any]:
    return {
        "file": str(file),
        "verdict": drill.verdict,
        "reason": drill.reason,
        "written": str(written),
        "changed": adoption.changed,
        "added": adoption.added,
        "indented": adoption.indented,
        "notes": list(adoption.notes),
        "drill": drill.report,
    }
