"""Options that several verbs share, so that they are named, explained and read alike."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from trainerd.contract.paths import StatePaths
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainerd.supervisor.api.control import JobView

STATE_VARIABLE: Final = "TRAINERD_STATE"
LOCAL_STATE: Final = Path(".trainerd")
SYSTEM_STATE: Final = Path("/var/lib/trainerd")

Command = TypeVar("Command", bound="Callable[..., Any]")


def state_option(command: Command) -> Command:
    """Add ``--state-dir``, also as ``--state``; the verb's parameter `state` is a `StatePaths`."""
    return _state_option("--state-dir", "--state")(command)


def unsought_state_option(command: Command) -> Command:
    """Add ``--state-dir`` to a verb that may do without; `state` is what was written, or None."""
    return _state_option("--state-dir", "--state", is_sought=False)(command)


def unsought_state_dir_option(command: Command) -> Command:
    """Add ``--state-dir`` alone, where ``--state`` is something else; `state` is what was written."""
    return _state_option("--state-dir", is_sought=False)(command)


def _state_option(*spellings: str, is_sought: bool = True) -> Callable[[Command], Command]:
    return click.option(
        *spellings,
        "state",
        type=click.Path(path_type=Path, readable=False),  # who may not look is told more than that
        metavar="DIR",
        callback=lambda _context, _option, value: find_state(value) if is_sought else value,
        help=f"State folder of the supervisor.  [default: ${STATE_VARIABLE}, else {LOCAL_STATE} in this "
        f"folder or the nearest one above, else {SYSTEM_STATE}]",
    )


def names_argument(command: Command) -> Command:
    """Add ``NAME...``, at least one; the verb's parameter is `names`."""
    return click.argument(
        "names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_job_names
    )(command)


def names_argument_or_all(command: Command) -> Command:
    """Add ``[NAME...]``; the verb's parameter is `names`, empty for all."""
    return click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_job_names)(command)


def names_argument_of(
    accepts: Callable[[JobView], bool], *, is_any_needed: bool = True
) -> Callable[[Command], Command]:
    """Return what adds ``NAME...``, of which the shell completes the jobs that a verb would accept now."""
    from trainerd.cli.job_names import complete_names_of

    return click.argument(
        "names",
        nargs=-1,
        required=is_any_needed,
        metavar="NAME..." if is_any_needed else "[NAME...]",
        shell_complete=complete_names_of(accepts),
    )


def name_argument(command: Command) -> Command:
    """Add ``NAME``; the verb's parameter is `name`."""
    return click.argument("name", shell_complete=complete_job_names)(command)


def complete_job_names(context: click.Context, _parameter: click.Parameter, beginning: str) -> list[str]:
    """Return the names of runs that begin so, for the shell, from the state folder."""
    try:
        given = context.params.get("state")
        state = given if isinstance(given, StatePaths) else find_state(given)
        return sorted(each.name for each in state.runs.iterdir() if each.name.startswith(beginning))
    except (UserError, OSError):
        return []


def json_option(command: Command) -> Command:
    """Add ``--json``; the verb's parameter is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, with keys that stay.")(command)


def find_state(given: Path | None) -> StatePaths:
    """Return the state folder that is meant.

    Raises:
        UserError: None was named, and there is none in the usual places.
    """
    if given is None and os.environ.get(STATE_VARIABLE):
        given = Path(os.environ[STATE_VARIABLE])
    if given is not None:
        return StatePaths(given)
    found = _nearest_state()
    if found is None and os.path.isdir(SYSTEM_STATE):  # noqa: PTH112 (never raises)
        found = SYSTEM_STATE
    if found is not None:
        return StatePaths(found)
    raise UserError(
        f"no state folder: there is no ./{LOCAL_STATE} here, none in a folder above, and no {SYSTEM_STATE}",
        hint=f"name it with --state-dir DIR or {STATE_VARIABLE}, or start a supervisor with `trainerd run`",
    )


def _nearest_state() -> Path | None:
    """Return the state folder here, else the nearest one above, as git looks for its own.

    Above, only folders of this user and of root count: any user may make one in /tmp.
    """
    if os.path.isdir(LOCAL_STATE):  # noqa: PTH112 (never raises)
        return LOCAL_STATE
    try:
        here = Path.cwd()
    except OSError:
        return None
    for folder in here.parents:
        candidate = folder / LOCAL_STATE
        try:
            status = candidate.stat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_uid in {os.geteuid(), 0}:
            return candidate
    return None
