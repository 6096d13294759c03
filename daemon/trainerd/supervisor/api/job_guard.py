"""Keeps jobs from commanding the supervisor: a request of theirs that changes its state is refused.

A job runs as the supervisor's user, so the kernel vouches for it as for that user. What tells it apart is
where it comes from: below a shim, with the mark of an attempt, or in the cgroup of one. This keeps accidents
away, not attackers: the same user can signal processes and write files (docs/security.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from trainerd.contract.ancestry import GENERATIONS_MAX
from trainerd.contract.environment import ATTEMPT_ID
from trainerd.contract.process import stat_fields
from trainerd.shim.cgroup import PREFIX
from trainerd.shim.cgroup_place import SUPERVISOR_LEAF

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Message, Receive, Send], Awaitable[None]]

LOOK_LIMIT_S: Final = 2.0
"""How long it may take to find out whether a peer is a job's, in seconds; after that it is refused."""

HARMLESS_PATHS: Final = frozenset({"/v1/rescan"})
"""What every caller may ask for: the supervisor does it by itself all the time."""

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_log = structlog.get_logger(__name__)


class JobGuard:
    """The application as one peer of the supervisor's own user may use it.

    Args:
        app: What answers.
        pid: The process that connected.
        runs: Folder of the runs of this supervisor, by which its jobs are known.
    """

    def __init__(self, app: Application, pid: int, runs: Path) -> None:
        self._app = app
        self._pid = pid
        self._runs = runs

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope.get("method") not in _READING and scope.get("path") not in HARMLESS_PATHS:
            refusal = await self._refusal()
            if refusal is not None:
                await _refuse(send, refusal)
                return
        await self._app(scope, receive, send)

    async def _refusal(self) -> str | None:
        """Return why this peer may change nothing, None if it may. What cannot be found out is refused."""
        try:
            look = asyncio.to_thread(is_of_a_job, self._pid, self._runs)
            if not await asyncio.wait_for(look, LOOK_LIMIT_S):
                return None
        except Exception as error:  # noqa: BLE001 - a guard that fails refuses
            _log.warning("api.peer-unknown", reason=f"{type(error).__name__}: {error}")
            return "it cannot be found out whether this request comes from a job"
        return "a job may not command the supervisor that runs it"


async def _refuse(send: Send, reason: str) -> None:
    hint = "ask from outside the job; a script ends its run through its session or its exit code"
    body = json.dumps({"error": reason, "hint": hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(HTTPStatus.FORBIDDEN), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_of_a_job(pid: int, runs: Path, proc: Path = Path("/proc")) -> bool:
    """Return whether a process belongs to an attempt of a supervisor.

    Args:
        pid: The process.
        runs: Folder of that supervisor's runs.
        proc: Where processes are shown.

    Raises:
        OSError: The process, or one above it, is not there or cannot be seen.
    """
    if pid <= 0:
        raise ProcessLookupError("the process is not seen from here")
    root = re.escape(os.fsencode(runs.absolute()))
    mark = re.compile(rb"(?:^|\0)%s=%s/" % (ATTEMPT_ID.encode(), root))
    shim = re.compile(rb"(?:trainerd\.shim[ \0]|: )%s/" % root)
    if _is_in_attempt_cgroup(proc / str(pid), proc / "self"):
        return True
    current = pid
    for _ in range(GENERATIONS_MAX):
        folder = proc / str(current)
        if shim.search((folder / "cmdline").read_bytes()) or mark.search(_environment(folder)):
            return True
        current = int(stat_fields((folder / "stat").read_bytes())[1])
        if current <= 1:
            return False
    raise ProcessLookupError("too many processes above it")


def _environment(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except PermissionError:  # another user's: it is no rank, and what is above it is looked at too
        return b""


def _is_in_attempt_cgroup(peer: Path, own: Path) -> bool:
    """Return whether a process is in a cgroup that was made for an attempt below that of this process."""
    here = dict(_cgroups(own))
    for hierarchy, path in _cgroups(peer):
        place = here.get(hierarchy)
        if place is not None:
            place = place.removesuffix(f"/{SUPERVISOR_LEAF}").rstrip("/")
            if path.startswith(f"{place}/{PREFIX}"):
                return True
    return False


def _cgroups(folder: Path) -> list[tuple[str, str]]:
    lines = os.fsdecode((folder / "cgroup").read_bytes()).splitlines()
    return [(hierarchy, path) for hierarchy, _, path in (line.split(":", 2) for line in lines)]
