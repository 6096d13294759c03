"""Starts one rank: its program, its environment, its own session, its log."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trainerd.contract import environment as names
from trainerd.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainerd.contract.records import LaunchRecord

LOOPBACK: Final = "127.0.0.1"
_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_OURS: Final = "TRAINERD_"


def rank_environment(
    launch: LaunchRecord, secrets: Mapping[str, str], *, rank: int, mark: str, master_port: int | None
) -> dict[str, str]:
    """Return the whole environment of one rank.

    `secrets` win over the spec's `env`, and over nothing that trainerd itself has to say. A rendezvous address
    that the user gave is left as it is.
    """
    ours = {name: value for name, value in launch.env.items() if name.startswith(_OURS)}
    rendezvous = {}
    if master_port is not None:
        rendezvous = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(master_port)}
    return (
        rendezvous
        | launch.env
        | dict(secrets)
        | ours
        | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(launch.nproc),
            "LOCAL_WORLD_SIZE": str(launch.nproc),
            names.ATTEMPT_ID: mark,
        }
    )


def free_port() -> int:
    """Return a port of the loopback address that nobody listened on a moment ago."""
    import socket  # only attempts with several ranks need it

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def spawn(command: tuple[str, ...], workdir: str, environ: Mapping[str, str], log_descriptor: int) -> int:
    """Start a program in a session of its own, with no signal held; return its pid.

    What is ignored is inherited: the shim ignores nothing, so neither does the rank.

    Raises:
        UserError: It cannot be started; the message says what and why.
    """
    try:
        os.chdir(workdir)
    except OSError as error:
        raise UserError(
            f"workdir: cannot enter {workdir}: {error.strerror}", hint="make the folder, or mend `workdir`"
        ) from error
    try:
        program = find_program(command[0], environ.get("PATH", _DEFAULT_PATH))
        return os.posix_spawn(
            program,
            command,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log_descriptor, 1),
                (os.POSIX_SPAWN_DUP2, log_descriptor, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"command: cannot start {command[0]!r} in {workdir}: {reason}",
            hint="is it executable, and does the interpreter in its first line exist?",
        ) from error
    finally:
        os.chdir("/")


def find_program(name: str, search_path: str) -> str:
    """Return the file that `name` means, looked for as a shell would, with the rank's own PATH.

    Raises:
        UserError: There is none.
    """
    if "/" in name:
        return name
    for folder in search_path.split(os.pathsep):
        candidate = Path(folder or ".") / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise UserError(
        f"command: {name!r} was not found in PATH={search_path}",
        hint="give the program's full path, or set PATH under `env`",
    )
