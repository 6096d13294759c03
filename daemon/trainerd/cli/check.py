"""`trainerd check`: what a resume of a training script would not restore. Needs no supervisor."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trainerd.cli.options import json_option
from trainerd.cli.output import ending_quietly, print_json, wanted_color
from trainerd.cli.script_file import UnreadableScriptError, script_bytes, shown_name
from trainerd.contract.counted import counted

if TYPE_CHECKING:
    from trainerd.analysis.script_finding import ScriptFinding

_FOUND: Final = 1
_USAGE: Final = 2


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@json_option
@click.pass_context
def command(context: click.Context, *, files: tuple[Path, ...], as_json: bool) -> None:
    """Find what a resume of a script would not restore.

    Reads the script, and does not run it. Finds variables that a loop carries from one batch, step or epoch
    to the next and that are not in the checkpoint; variables of a loop that are read after it; optimizers,
    schedulers, scalers, averages and generators that are not tracked; counts of enumerate, the clock and
    unseeded generators on which the loop depends; and two training loops that are open at once.

    Each finding has the line, the reason why a resume is not exact there, and what to write instead. The
    comment `# trainerd: ok` at the end of a line suppresses its findings.

    Exits with 0 if nothing is found, 1 if anything is, 2 if a file cannot be read or is not Python.

    \b
    Example:
      trainerd check train.py
      trainerd check train.py model.py --json | jq -r '.[].findings[].rule'
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.analysis.check_script import check
    from trainerd.analysis.script import Script
    from trainerd.analysis.script_finding import ScriptSyntaxError
    from trainerd.analysis.source_text import decoded

    results: list[dict[str, Any]] = []
    with ending_quietly():
        for file in files:
            try:
                script = Script(decoded(script_bytes(file)))
                findings = check(script)
            except ScriptSyntaxError as error:
                results.append(_failed(file, f"not a Python script: {error}", error.line, as_json=as_json))
            except UnreadableScriptError as error:
                results.append(_failed(file, str(error), None, as_json=as_json))
            else:
                found = [_plain(each) for each in findings]
                results.append({"file": str(file), "has_session": script.has_session, "findings": found})
                if not as_json:
                    _show(file, findings, has_session=script.has_session)
        if as_json:
            print_json(results)
    if any("error" in result for result in results):
        context.exit(_USAGE)
    context.exit(_FOUND if any(result["findings"] for result in results) else 0)


def _plain(finding: ScriptFinding) -> dict[str, Any]:
    """Return what a finding says; the lines of the loops that it is about are the session's business."""
    plain = dataclasses.asdict(finding)
    del plain["loops"]
    return plain


def _failed(file: Path, message: str, line: int | None, *, as_json: bool) -> dict[str, Any]:
    if not as_json:
        place = shown_name(file) if line is None else f"{shown_name(file)}:{line}"
        click.echo(f"error: {place}: {message}", err=True)
    return {"file": str(file), "error": message, "line": line}


def _show(file: Path, findings: tuple[ScriptFinding, ...], *, has_session: bool) -> None:
    for finding in findings:
        place = click.style(f"{shown_name(file)}:{finding.line}:", bold=True)
        rule = click.style(f"[{finding.rule}]", dim=True)
        click.echo(f"{place} {finding.why} {rule}", color=wanted_color())
        click.echo(f"    instead: {finding.instead}", color=wanted_color())
    if findings:
        count = counted(len(findings), "finding")
        click.echo(
            f"{shown_name(file)}: {count}; the comment `# trainerd: ok` at the end of a line silences it"
        )
    elif has_session:
        click.echo(f"{shown_name(file)}: nothing found")
    else:
        click.echo(
            f"{shown_name(file)}: not checked: it opens no session and has no loop that a session drives\n"
            "    begin with: with trainerd.session() as session: (docs/training-api.md)"
        )
