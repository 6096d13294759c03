"""`trainerd drill`: rehearse the death of the user's own job on copies, and compare. Needs no supervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.drill_first import DEFAULT_BUDGET, seconds_of
from trainerd.cli.needs_torch import needing_torch
from trainerd.cli.options import LOCAL_STATE, json_option
from trainerd.cli.output import make_table, print_json, show
from trainerd.cli.stop_signals import leaving_on_stop_signals
from trainerd.errors import UserError

if TYPE_CHECKING:
    from trainerd.contract.resolved import ResolvedJob
    from trainerd.drill.drill_report import DrillReport

_NOT_EXACT: Final = 1


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("job", nargs=-1, required=True, metavar="SPEC | -- COMMAND...", type=click.UNPROCESSED)
@click.option(
    "--budget", default=DEFAULT_BUDGET, show_default=True, metavar="TIME", help="Time for the drill."
)
@click.option(
    "--steps", type=click.IntRange(min=2), metavar="N", help="Steps of each run.  [default: as many as fit]"
)
@click.option("--ranks", type=click.IntRange(min=1), metavar="N", help="Also resume on this number of ranks.")
@click.option(
    "--fault",
    "only",
    multiple=True,
    metavar="NAME",
    help="Only this one, such as kill; may be given several times.  [default: all]",
)
@click.option(
    "--link",
    "linked",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="In the working folder: linked into the copies, not copied. The job must only read it.",
)
@click.option("--in-place", is_flag=True, help="Run in the real working folder, not in copies.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page, too."
)
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the folders of all runs here."
)
# What `trainerd adopt` judges a drill by, whose report goes to the terminal.
@click.option("--report", "document", type=click.Path(path_type=Path, dir_okay=False), hidden=True)
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    job: tuple[str, ...],
    budget: str,
    steps: int | None,
    ranks: int | None,
    only: tuple[str, ...],
    linked: tuple[Path, ...],
    in_place: bool,
    html: Path | None,
    keep: Path | None,
    document: Path | None,
    as_json: bool,
) -> None:
    """Kill and drain copies of a job, and compare.

    Runs the job undisturbed twice, and then once for each fault: a drain, a SIGKILL, a drain in evaluation,
    the end of the grace period after a loop, a drain at the end of an epoch, two faults in an epoch, another
    number of loader workers. Each run is compared with the undisturbed one: the whole state at common
    boundaries tensor by tensor, logged numbers, reports, samples. For each difference it prints the first
    step and value, and the likely cause.

    Each run has a run folder and a copy of the working folder of its own, and loggers (wandb, mlflow,
    neptune, comet, clearml) are set offline: the real run is not touched. Files beside the working folder,
    and those that --link names, are linked: the job must only read them.

    Exits with 0 if at least one fault was run and all results are exact, 1 if something differs, no fault was
    run or the job fails, 2 for a usage error.

    \b
    Example:
      trainerd drill -- python train.py --epochs 3
      trainerd drill job.yaml --budget 10m --html drill.html
    """  # noqa: D301 (click leaves alone the lines after this escape)
    budget_s = seconds_of(budget)
    with needing_torch("drill"):
        import trainerd.drill.conduct  # noqa: F401 - whether it can be had

    _check_faults(only)
    for file in filter(None, (html, document)):
        if not file.absolute().parent.is_dir():
            raise click.UsageError(f"{file}: there is no folder {file.parent} to write it into")
    parsed = _job_of(job)
    links = tuple(_within(each, Path(parsed.workdir)) for each in linked)
    if ranks == parsed.nproc:
        raise click.UsageError(f"--ranks {ranks}: the job has so many ranks already; name another number")
    report = drill_job(
        parsed,
        budget_s=budget_s,
        steps=steps,
        ranks=ranks,
        only=only,
        linked=links,
        is_in_place=in_place,
        keep=keep,
    )
    show_report(report, as_json=as_json)
    _write_reports(report, html, document)
    context.exit(0 if report.verdict == "exact" else _NOT_EXACT)


def drill_job(
    job: ResolvedJob,
    *,
    budget_s: float,
    steps: int | None = None,
    ranks: int | None = None,
    only: tuple[str, ...] = (),
    linked: tuple[Path, ...] = (),
    is_in_place: bool = False,
    keep: Path | None = None,
) -> DrillReport:
    """Drill a job in a folder that is removed at the end; what happens is said on standard error.

    Raises:
        UserError: The job does not run, or opens no session.
    """
    from trainerd.drill.conduct import Drill
    from trainerd.drill.drilled_run import RunPlaces

    root, is_first = _folder_for(keep)
    try:
        places = RunPlaces(root, is_in_place=is_in_place, linked=linked, keeps=keep is not None)
        drill = Drill(
            job,
            places,
            budget_s=budget_s,
            steps=steps,
            ranks=ranks,
            only=only,
            say=lambda line: click.echo(f"trainerd: drill: {line}", err=True),
        )
        # A signal must not leave a job of the drill behind.
        with leaving_on_stop_signals():
            return drill.conduct()
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)
            if is_first:  # else the other verbs would take it for the state folder of a supervisor
                with contextlib.suppress(OSError):
                    root.parent.rmdir()


def show_report(report: DrillReport, *, as_json: bool, err: bool = False) -> None:
    """Print a report; the table of one that goes to standard error is left out."""
    from trainerd.drill.report_text import closing_line, explanations, table_rows

    if as_json:
        print_json(report)
        return
    if not err:
        _show_table(table_rows(report))
    for line in explanations(report):
        click.echo(line, err=err)
    click.echo(closing_line(report), err=err)


def _write_reports(report: DrillReport, html: Path | None, document: Path | None) -> None:
    """Write a report into the files that were asked for.

    Raises:
        UserError: One cannot be written.
    """
    from trainerd.drill.drill_report import encode_report
    from trainerd.drill.report_html import page

    for file, text in ((html, page(report).encode()), (document, encode_report(report))):
        if file is None:
            continue
        try:
            file.write_bytes(text)
        except OSError as error:
            raise UserError(f"cannot write the report to {file}: {error.strerror}") from error


def _show_table(rows: list[tuple[str, str, str, str]]) -> None:
    table = make_table("FAULT", "RESULT", "LOST", "BACK AFTER", right=("LOST", "BACK AFTER"))
    for row in rows:
        table.add_row(*row)
    show(table)


def _job_of(words: tuple[str, ...]) -> ResolvedJob:
    """Return the job: a spec if it is one word that ends as specs do, otherwise a command.

    Raises:
        click.UsageError: It is neither.
    """
    from trainerd.drill.drilled_job import job_of_command, job_of_spec
    from trainerd.supervisor.specs.load import load_spec

    try:
        if len(words) == 1 and words[0].endswith((".yaml", ".yml", ".json", ".toml")):
            return job_of_spec(load_spec(Path(words[0]), trust=None))
        return job_of_command(words, Path.cwd(), os.environ)
    except UserError as error:
        raise click.UsageError(str(error)) from error


def _check_faults(names: tuple[str, ...]) -> None:
    from trainerd.contract.nearest import nearest_hint
    from trainerd.drill.fault_plan import TITLES

    for name in names:
        if name not in TITLES:
            raise click.UsageError(f"--fault {name}: no such fault; {nearest_hint(name, TITLES)}")


def _within(path: Path, workdir: Path) -> Path:
    absolute = path.absolute()
    if not absolute.is_relative_to(workdir):
        raise click.UsageError(f"--link {path} is not in the working folder {workdir}")
    return absolute


def _folder_for(keep: Path | None) -> tuple[Path, bool]:
    """Return a new folder for a drill, and whether the folder around it is new as well."""
    parent = (keep or LOCAL_STATE).absolute()
    is_first = not parent.exists()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="drill-", dir=parent)), is_first
    except OSError as error:
        raise UserError(
            f"cannot make a folder in {parent}: {error.strerror}", hint="name one with --keep"
        ) from error
