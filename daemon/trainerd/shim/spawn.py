"""Starts one rank: its program, its environment, its own session, its log, its cgroup."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from trainerd.contract import environment as names
from trainerd.contract.compiled_code import INDUCTOR, TRITON, this_machine, with_compiled_place
from trainerd.contract.signals import SIGNALS_HELD
from trainerd.errors import UserError
from trainerd.shim import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trainerd.contract.records import LaunchRecord
    from trainerd.shim.cgroup import AttemptCgroup

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
"""Where programs are looked for without PATH."""
OF_AN_ATTEMPT: Final = frozenset({*names.VARIABLES, SIGNALS_HELD, INDUCTOR, TRITON})
"""Variables that differ from attempt to attempt; few libraries read one when they are imported."""
_OURS: Final = "TRAINERD_"
_NOT_STARTED: Final = 127


class RankStart(NamedTuple):
    """What a rank is started with, beside its log and its cgroup.

    Attributes:
        command: Program and arguments.
        workdir: The working folder.
        environ: The whole environment, the variables of the attempt last.
        held: Signals that are held.
    """

    command: tuple[str, ...]
    workdir: str
    environ: dict[str, str]
    held: frozenset[signal.Signals]


def rank_start(
    launch: LaunchRecord,
    secrets: Mapping[str, str],
    held: frozenset[signal.Signals],
    *,
    rank: int,
    mark: str,
    master_port: int | None,
) -> RankStart:
    """Return what one rank is started with."""
    environ = rank_environment(launch, secrets, rank=rank, mark=mark, master_port=master_port)
    environ = with_compiled_place(environ, this_machine())
    if held:
        environ[SIGNALS_HELD] = "1"
    its_own = {name: value for name, value in environ.items() if name in OF_AN_ATTEMPT}
    others = {name: value for name, value in environ.items() if name not in OF_AN_ATTEMPT}
    return RankStart(launch.command, launch.workdir, others | its_own, held)


def rank_environment(
    launch: LaunchRecord, secrets: Mapping[str, str], *, rank: int, mark: str, master_port: int | None
) -> dict[str, str]:
    """Return the whole environment of one rank.

    `secrets` win over the spec's `env`, and over nothing that trainerd itself has to say. A rendezvous
    address that the user gave is left as it is. A program that is no group is told nothing of ranks: many
    take the presence of RANK for a rendezvous.
    """
    ours = {name: value for name, value in launch.env.items() if name.startswith(_OURS)}
    defaults, position = {}, {}
    if master_port is not None:
        defaults = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(master_port)}
    if launch.is_group:
        defaults["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "1"
        position = _position(launch, rank)
    if launch.place is not None:  # known to all nodes alike, unlike what the spec of one of them may say
        position |= {"MASTER_ADDR": launch.place.address, "MASTER_PORT": str(launch.place.port)}
    return defaults | launch.env | dict(secrets) | ours | position | {names.ATTEMPT_ID: mark}


def _position(launch: LaunchRecord, rank: int) -> dict[str, str]:
    """Return what torchrun tells a rank, by its number on this machine, less where it meets the others."""
    nodes, node = (1, 0) if launch.place is None else (launch.place.nodes, launch.place.node)
    this, all_of_them = str(launch.first_rank + rank), str(nodes * launch.nproc)
    return {
        "RANK": this,
        "LOCAL_RANK": str(rank),
        "ROLE_RANK": this,
        "GROUP_RANK": str(node),
        "ROLE_NAME": "default",
        "WORLD_SIZE": all_of_them,
        "LOCAL_WORLD_SIZE": str(launch.nproc),
        "ROLE_WORLD_SIZE": all_of_them,
        "GROUP_WORLD_SIZE": str(nodes),
        "TORCHELASTIC_RUN_ID": launch.job,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # rank 0 serves it: there is no agent
    }


def free_port() -> int:
    """Return a port of the loopback address on which no process listened just now."""
    import socket  # only attempts with several ranks need it

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def spawn(
    command: tuple[str, ...],
    workdir: str,
    environ: Mapping[str, str],
    log_descriptor: int,
    *,
    cgroup: AttemptCgroup | None = None,
    held: frozenset[signal.Signals] = frozenset(),
) -> int:
    """Start a program in a session of its own, with only the signals in `held` held; return its pid.

    What is ignored is inherited: the shim ignores nothing, so neither does the rank.

    Raises:
        UserError: It cannot be started; the message says what and why.
    """
    try:
        os.chdir(workdir)
    except OSError as error:
        raise UserError(
            f"workdir: cannot enter {workdir}: {error.strerror}", hint="make the folder, or correct `workdir`"
        ) from error
    try:
        program = find_program(command[0], environ.get("PATH", DEFAULT_PATH))
        if cgroup is not None and cgroup.folders:
            become = partial(_become_program, program, command, environ, log_descriptor, held)
            return spawn_inside(cgroup, become)
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
            setsigmask=held,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"command: cannot start {command[0]!r} in {workdir}: {reason}",
            hint="is it executable, and does the interpreter in its first line exist?",
        ) from error
    finally:
        os.chdir("/")


def _become_program(
    program: str,
    command: tuple[str, ...],
    environ: Mapping[str, str],
    log_descriptor: int,
    held: frozenset[signal.Signals],
) -> None:
    """Be what `posix_spawn` makes of a child."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log_descriptor, 1)
    os.dup2(log_descriptor, 2)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    os.execve(program, command, environ)  # noqa: S606 - running the user's command is the purpose


def spawn_inside(cgroup: AttemptCgroup, become_rank: Callable[[], None]) -> int:
    """Fork a process that is in a cgroup before it becomes the rank; return its pid.

    Raises:
        OSError: It cannot be started.
        ValueError: Likewise.
    """
    why_not, say_why_not = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(why_not, encoding="utf-8", errors="replace") as answer:
        try:
            with cgroup.entrance() as entrance:
                is_born_inside, pid = _fork(entrance)
                if pid == 0:
                    _become(cgroup, become_rank, say_why_not, is_born_inside=is_born_inside)
        finally:
            os.close(say_why_not)
        cgroup.may_leak |= not is_born_inside
        number, _, message = answer.read().partition(" ")  # nothing, once it has become the rank
    if not number:
        return pid
    os.waitpid(pid, 0)
    raise OSError(int(number), message) if int(number) else ValueError(message)


def _fork(entrance: int | None) -> tuple[bool, int]:
    """Fork; return whether the child was born in the cgroup, and its pid, which is 0 in the child."""
    if entrance is not None:
        with contextlib.suppress(
            OSError
        ):  # the kernel, or a sandbox, will not: then the child moves by itself
            return True, kernel.fork_into(entrance)
    return False, os.fork()


def _become(
    cgroup: AttemptCgroup, become_rank: Callable[[], None], say_why_not: int, *, is_born_inside: bool
) -> NoReturn:
    """Turn this newborn process into the rank, or say why not and end."""
    try:
        cgroup.enter(is_born_inside=is_born_inside)
        become_rank()
    except OSError as error:
        os.write(say_why_not, f"{error.errno} {error.strerror}".encode())
    except ValueError as error:
        os.write(say_why_not, f"0 {error}".encode())
    finally:
        os._exit(_NOT_STARTED)


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
