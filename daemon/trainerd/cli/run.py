"""`trainerd run`: the supervisor, in the foreground."""

from __future__ import annotations

import gc
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from trainerd.supervisor.api.web.web_server import WebSettings


@click.command()
@click.option(
    "--jobs",
    "jobs_dir",
    type=click.Path(path_type=Path, readable=False),
    default=Path("jobs"),
    show_default=True,
    help="Folder to watch: a new spec in it submits a job.",
)
@click.option(
    "--state",
    "--state-dir",
    "state_dir",
    type=click.Path(path_type=Path, readable=False),
    default=Path(".trainerd"),
    show_default=True,
    help="Folder for the journal, the logs and the runs. One supervisor each.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML file with limits and settings; every one has a default. Read again at a reload.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Only check the code, the configuration, the folders and the journal; start and change nothing.",
)
@click.option(
    "--web",
    metavar="ADDRESS",
    help="Serve a page for browsers: HOST:PORT such as 127.0.0.1:7878, opened by a token that "
    "is printed, or "
    "unix:PATH for a proxy.  [default: none]",
)
@click.option("--web-actions", is_flag=True, help="Let the page stop, hold, resume, retry and restart jobs.")
def command(
    *, jobs_dir: Path, state_dir: Path, config: Path | None, check: bool, web: str | None, web_actions: bool
) -> None:
    """Supervise every job of a folder, in the foreground.

    SIGTERM or Ctrl-C drains all jobs and exits 0; the next `trainerd run` resumes them. A second signal
    shortens the drain. SIGHUP checks the present code and configuration and, if they are valid, replaces
    the program in place: the process stays, jobs are not disturbed, and requests wait until it answers.

    \b
    Example:
      trainerd run --jobs jobs --state .trainerd
      trainerd run --web 127.0.0.1:7878
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.contract.folder_owner import refuse_root_on_anothers
    from trainerd.supervisor.service.configuration import load_configuration

    settings = _web_settings(web, allows_actions=web_actions)
    if check:
        from trainerd.contract.folder_owner import acting_as_owner_of
        from trainerd.contract.paths import StatePaths
        from trainerd.supervisor.service.preflight import check_code, check_soundness

        check_code()
        with acting_as_owner_of(state_dir.absolute()):  # who is checked is who will run
            configuration = load_configuration(config)
            check_soundness(StatePaths(state_dir.absolute()), jobs_dir.absolute(), configuration)
        click.echo("all is well")
        return
    refuse_root_on_anothers(
        state_dir.absolute(), shlex.join(["trainerd", *sys.argv[1:]]), unit=_unit_of(state_dir.absolute())
    )
    configuration = load_configuration(config)
    # Nothing that is loaded now is ever garbage; looking for some costs a tenth of the start, and of a
    # reload's silence.
    gc.disable()
    from trainerd.supervisor.service.service import serve

    serve(jobs_dir=jobs_dir, state_dir=state_dir, configuration=configuration, web=settings)


def _web_settings(web: str | None, *, allows_actions: bool) -> WebSettings | None:
    if web is None:
        if allows_actions:
            raise click.UsageError("--web-actions needs --web ADDRESS")
        return None
    from trainerd.supervisor.api.web.web_address import parse_web_address
    from trainerd.supervisor.api.web.web_server import WebSettings

    return WebSettings(parse_web_address(web), allows_actions=allows_actions)


def _unit_of(state_dir: Path) -> str | None:
    """Return the unit that is installed for a state folder, None if none is."""
    from trainerd.cli.how_to_start import unit_exists
    from trainerd.cli.options import SYSTEM_STATE

    return "trainerd" if state_dir == SYSTEM_STATE and unit_exists("system") else None
