"""`trainerd doctor`: problems of this installation, and their remedies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from trainerd.cli.how_to_start import last_jobs_dir, start_command
from trainerd.cli.options import find_state, json_option
from trainerd.cli.output import ending_quietly, print_json, wanted_color
from trainerd.contract.folder_owner import ROOT_UID, acting_as_user, owner_of
from trainerd.contract.paths import StatePaths
from trainerd.contract.safe_text import safe_line
from trainerd.errors import TrainerdError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.supervisor.api.control import DaemonView
    from trainerd.supervisor.doctor.finding import Finding

_STYLES: Final = {"ok": "green", "skipped": "bright_black", "warning": "yellow", "broken": "red"}


@click.command()
@click.option(
    "--state-dir",
    "--state",
    "state_dir",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="State folder to look at.  [default: as of the other verbs]",
)
@click.option(
    "--jobs",
    "jobs_dir",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="Jobs folder to look at.  [default: the running supervisor's, else of its last runs, else ./jobs]",
)
@json_option
@click.pass_context
def command(context: click.Context, *, state_dir: Path | None, jobs_dir: Path | None, as_json: bool) -> None:
    """Find problems of this installation.

    Folders and their permissions, disks, the socket, inotify, the clock, the systemd unit, cgroups, copies in
    memory of runs that are gone, GPUs, and what the jobs' interpreters can import. Each fault is shown with
    its remedy. Changes nothing, and works with no supervisor. Exits with 1 if something is broken.

    \b
    Example:
      trainerd doctor
      trainerd doctor --state /var/lib/trainerd --jobs /etc/trainerd/jobs
      trainerd doctor --json | jq -r '.[] | select(.status == "broken") | .remedy'
    """  # noqa: D301 (click leaves alone the lines after this escape)
    from trainerd.supervisor.doctor.finding import Status

    with ending_quietly():
        findings = _examine(state_dir, jobs_dir)
        if as_json:
            print_json(
                [
                    {
                        "check": each.check,
                        "status": each.status.value,
                        "message": each.message,
                        "remedy": each.remedy,
                    }
                    for each in findings
                ]
            )
        else:
            _show(findings)
        context.exit(1 if any(each.status is Status.BROKEN for each in findings) else 0)


def _examine(state_dir: Path | None, jobs_dir: Path | None) -> list[Finding]:
    from trainerd.supervisor.doctor import (
        cgroup_checks,
        folders,
        installation,
        machine,
        memory_places,
        slurm_settings,
        standby_processes,
    )
    from trainerd.supervisor.doctor.finding import skipped

    findings: list[Finding] = [
        *machine.check_kernel(),
        *machine.check_limits(),
        *machine.check_clock(),
        *machine.check_inotify(),
        *machine.check_gpus(),
        *installation.check_unit(),
        *slurm_settings.check_slurm(),
    ]
    state = _state(state_dir)
    daemon = _daemon(state)
    uid = _supervisor_uid(state, daemon, jobs_dir)
    findings += cgroup_checks.check_cgroups(daemon.pid if daemon is not None else None)
    findings += memory_places.check_memory_places(uid)
    findings += standby_processes.check_standbys()
    if state is None:
        findings.append(skipped("state folder", "none is named, and none is in the usual places"))
    else:
        command = start_command(state)
        findings += [
            *folders.check_state_folder(state, uid, start_command=command),
            *folders.check_socket(state, uid, start_command=command),
        ]
    jobs_dir = jobs_dir or _jobs_dir(daemon, state, uid)
    if jobs_dir is None:
        findings.append(skipped("jobs folder", "none is named, and none of its supervisor is known"))
        return findings
    findings += folders.check_jobs_folder(jobs_dir, uid)
    with acting_as_user(uid, jobs_dir):
        about_specs, jobs = folders.check_specs(jobs_dir, uid)
    # Specs name programs, which are asked: never as root, where the supervisor is another user.
    is_root_for_another = os.geteuid() == ROOT_UID != uid
    interpreters = installation.check_interpreters(jobs, uid if is_root_for_another else None)
    return [*findings, *about_specs, *interpreters]


def _supervisor_uid(state: StatePaths | None, daemon: DaemonView | None, jobs_dir: Path | None) -> int:
    """Return the user by whom the installation is judged: its supervisor's, not the one who asks.

    That is the user of the process that answers, else the owner of the state folder, else of the jobs folder.
    """
    places = [] if daemon is None else [Path(f"/proc/{daemon.pid}")]
    places += [] if state is None else [state.root]
    places += [] if jobs_dir is None else [jobs_dir]
    return next((owner for place in places if (owner := owner_of(place)) is not None), os.geteuid())


def _state(given: Path | None) -> StatePaths | None:
    try:
        return find_state(given)
    except UserError:
        return None


def _daemon(state: StatePaths | None) -> DaemonView | None:
    """Return what the supervisor that runs says of itself, if one does."""
    from trainerd.cli.client import Client

    if state is not None and os.path.exists(state.socket):  # noqa: PTH110 (never raises)
        with contextlib.suppress(TrainerdError), Client(state) as client:
            return client.daemon()
    return None


def _jobs_dir(daemon: DaemonView | None, state: StatePaths | None, uid: int) -> Path | None:
    """Return the jobs folder of the running supervisor, of its last runs, or ./jobs if that is its user's.

    A folder of that name that is another user's is not a fault of this supervisor: it has its own elsewhere.
    """
    if daemon is not None:
        return Path(daemon.jobs_dir)
    usual = Path("jobs").absolute()
    return (last_jobs_dir(state) if state is not None else None) or (
        usual if owner_of(usual) == uid and usual.is_dir() else None
    )


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(each.check) for each in findings)
    for each in findings:
        status = click.style(f"{each.status.value:<7}", fg=_STYLES[each.status.value])
        click.echo(f"{status}  {each.check:<{width}}  {safe_line(each.message)}", color=wanted_color())
        if each.remedy:
            click.echo(f"{'':<7}  {'':<{width}}  -> {safe_line(each.remedy)}")
