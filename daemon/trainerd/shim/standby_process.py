"""A standby process as its parent, the prepared shim, sees it: see `warm_program` for what it does.

Invariants: it is started with the command's interpreter and options, the working folder, the session, the
signal mask and the whole environment that the rank would be started with. If any of these differs at the
hand-over, or the process does not answer in time, it is killed before any code of the user's has run in it.
The variables of the attempt, the script and its arguments may differ: the process is told, and looks itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trainerd.errors import UserError
from trainerd.shim import low_priority
from trainerd.shim.cgroup_members import write_to_kernel
from trainerd.shim.notes import note
from trainerd.shim.spawn import DEFAULT_PATH, OF_AN_ATTEMPT, find_program, spawn_inside
from trainerd.shim.standby_fit import what_differs
from trainerd.shim.warm_command import divide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainerd.contract.module_note import ModuleNote
    from trainerd.shim.cgroup import AttemptCgroup
    from trainerd.shim.spawn import RankStart
    from trainerd.shim.standby_cgroup import StandbyCgroup

PREPARE_LIMIT_S: Final = 180.0
"""How long a standby may take until it is ready, at the lowest priority."""

HAND_OVER_LIMIT_S: Final = 1.0
"""How long the standby is waited for at the hand-over, before the job is started cold."""

ROOM: Final = "TRAINERD_ROOM"
"""Variable at the end of what a standby is started with: room for the variables of another attempt there."""

_ROOM_BYTES: Final = 4096
_PROGRAM: Final = Path(__file__).with_name("warm_program.py")
_MESSAGE_BYTES: Final = 4096
_RECIPE: Final = 3
_CHANNEL: Final = 4
_HIGH: Final = 64  # above what is open


class StandbyProcess:
    """A process that waits to become a rank.

    Args:
        start: What the rank will be started with.
        seen: What the last attempt imported.
        cgroup: That of the attempt, if it is to be born there; None if it is moved there when it is used.

    Attributes:
        pid: Its number; it is a child of this process.
        channel: Where it answers.
        cgroup: As given.

    Raises:
        UserError: It cannot be started.
        OSError: Likewise.
    """

    def __init__(self, start: RankStart, seen: ModuleNote, *, cgroup: StandbyCgroup | None = None) -> None:
        self._start = start
        self.cgroup = cgroup
        self._priority = low_priority.priority_of(0)
        self._output = os.memfd_create("standby-output", os.MFD_CLOEXEC)
        self.channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(HAND_OVER_LIMIT_S)
        with its:
            self.pid = self._spawn(its.fileno(), seen)
        if low_priority.can_be_restored():
            with contextlib.suppress(OSError):
                low_priority.lower(self.pid)

    def _spawn(self, channel: int, seen: ModuleNote) -> int:
        command, workdir, environ, held = self._start
        self._program = _program_file(self._start)
        words = divide(command)
        if isinstance(words, str):
            raise UserError(words)
        environ = environ | {ROOM: " " * _ROOM_BYTES}
        recipe = os.memfd_create("standby-recipe", os.MFD_CLOEXEC)
        try:
            content = _program_of(command) | {
                "of_an_attempt": sorted(OF_AN_ATTEMPT | {ROOM}),
                "modules": seen.modules,
                "environment": seen.environment,
                "files": [
                    (file.path, file.modified_ns, file.changed_ns, file.size_bytes, file.inode, file.imports)
                    for file in seen.files
                ],
            }
            _write(recipe, content)
            os.chdir(workdir)
            program = find_program(command[0], environ.get("PATH", DEFAULT_PATH))
            arguments = [command[0], *words.options, str(_PROGRAM), str(_RECIPE), str(_CHANNEL)]
            if self.cgroup is not None:
                become = partial(self._become, program, arguments, environ, recipe, channel)
                return spawn_inside(self.cgroup.cgroup, become)
            return os.posix_spawn(
                program,
                arguments,
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, self._output, 1),
                    (os.POSIX_SPAWN_DUP2, self._output, 2),
                    (os.POSIX_SPAWN_DUP2, recipe, _HIGH),
                    (os.POSIX_SPAWN_DUP2, channel, _HIGH + 1),
                    (os.POSIX_SPAWN_DUP2, _HIGH, _RECIPE),
                    (os.POSIX_SPAWN_DUP2, _HIGH + 1, _CHANNEL),
                    (os.POSIX_SPAWN_CLOSE, _HIGH),
                    (os.POSIX_SPAWN_CLOSE, _HIGH + 1),
                ],
                setsid=True,
                setsigmask=held,
            )
        finally:
            os.close(recipe)
            os.chdir("/")

    def _become(
        self, program: str, arguments: list[str], environ: dict[str, str], recipe: int, channel: int
    ) -> None:
        """Be what `posix_spawn` makes of a child."""
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for standard in (1, 2):
            os.dup2(self._output, standard)
        for high, descriptor in ((_HIGH, recipe), (_HIGH + 1, channel)):
            os.dup2(descriptor, high, inheritable=False)
        for low, high in ((_RECIPE, _HIGH), (_CHANNEL, _HIGH + 1)):
            os.dup2(high, low)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._start.held)
        os.execve(program, arguments, environ)  # noqa: S606 - the job's own interpreter

    def take(self, start: RankStart, *, log_descriptor: int, cgroup: AttemptCgroup) -> int | None:
        """Have it become a rank; return its pid, None if the rank must be started cold."""
        why = self._why_not_counted(cgroup) or self._why_unfit(start, log_descriptor)
        if why is None:
            try:
                for folder in self._to_enter(cgroup):
                    if not write_to_kernel(folder / "cgroup.procs", str(self.pid)):
                        why = f"it cannot be moved into {folder}"
                low_priority.restore(self.pid, self._priority)
            except OSError as error:
                why = f"its priority cannot be restored: {error.strerror}"
        if why is not None:
            note(f"the standby is not used: {why}")
            self.end()
            return None
        self._show_output(log_descriptor)
        with contextlib.suppress(OSError):  # if it has ended just now, it is collected as a rank that ended
            self.channel.send(b"go")
        self.channel.close()
        os.close(self._output)
        return self.pid

    def _to_enter(self, cgroup: AttemptCgroup) -> tuple[Path, ...]:
        """Return the cgroups that it is moved into: none of those in which it was born."""
        return () if self.cgroup is not None and self.cgroup.cgroup is cgroup else cgroup.folders

    def _why_not_counted(self, cgroup: AttemptCgroup) -> str | None:
        """Return why what it holds would not count in the limit of the attempt's memory."""
        if cgroup.memory_limit_bytes is None or not self._to_enter(cgroup):
            return None
        return "what it holds would not count in the limit of memory"

    def _why_unfit(self, start: RankStart, log_descriptor: int) -> str | None:
        if differing := what_differs(self._start, start):
            return f"the {differing} has changed"
        try:
            if _program_file(start) != self._program:
                return "the interpreter has changed"
            if not Path(start.workdir).samefile(f"/proc/{self.pid}/cwd"):
                return "the working folder is another folder now"
        except (OSError, UserError) as error:
            return str(error)
        order = os.memfd_create("standby-order", os.MFD_CLOEXEC)
        try:
            if start != self._start:
                variables = [(name, value) for name, value in start.environ.items() if name in OF_AN_ATTEMPT]
                _write(order, _program_of(start.command) | {"variables": variables})
            socket.send_fds(self.channel, [b"run"], [log_descriptor, order])
            answer = self.channel.recv(_MESSAGE_BYTES).decode(errors="replace")
        except OSError as error:
            return f"it does not answer: {error}"
        finally:
            os.close(order)
        if answer != "fit":
            return answer.removeprefix("unfit ") or "it has ended"
        return None

    def _show_output(self, log_descriptor: int) -> None:
        """Append what its imports printed to the rank's log, where a cold start prints it."""
        with contextlib.suppress(OSError):
            size_bytes = os.fstat(self._output).st_size
            if size_bytes:
                os.write(log_descriptor, os.pread(self._output, min(size_bytes, 1 << 20), 0))

    def end(self) -> None:
        """Kill it and collect it."""
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def memory_bytes(self) -> int:
        """Return how much memory it holds, 0 if that cannot be seen."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0


def _program_file(start: RankStart) -> tuple[int, ...]:
    """Return marks of the file that a start runs, wherever links lead.

    Raises:
        UserError: There is none.
        OSError: Likewise.
    """
    os.chdir(start.workdir)
    try:
        found = os.stat(find_program(start.command[0], start.environ.get("PATH", DEFAULT_PATH)))  # noqa: PTH116
    finally:
        os.chdir("/")
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _program_of(command: Sequence[str]) -> dict[str, Any]:
    words = divide(command)
    assert not isinstance(words, str), "a command without a standby is refused before"
    return {
        "command": command,
        "arguments": words.arguments,
        "script": words.script,
        "module": words.module,
    }


def _write(descriptor: int, content: dict[str, Any]) -> None:
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(content).encode(errors="surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)


def wait_for(descriptors: list[int], limit_s: float | None) -> set[int]:
    """Return which of some descriptors can be read, none of them if that took longer than the limit."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return {
        descriptor for descriptor, _ in poller.poll(None if limit_s is None else max(limit_s, 0.0) * 1000)
    }
