"""A supervisor of our own: started, asked, drained, and shown to have left nothing behind.

Invariants:
    * However this program ends, the supervisor is asked to drain: by `drain` or, if this program is killed,
      by the kernel, which then sends it SIGTERM.
    * It has a session of its own. Ctrl-C in a terminal goes to every process of the foreground group, and a
      supervisor that gets it twice hurries.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from chaos.waiting import POLL_S, HarnessError, Interruption, wait_for
from trainerd.contract import records
from trainerd.contract.paths import AttemptPaths, RunPaths, StatePaths
from trainerd.contract.process import ProcessIdentity, is_alive, open_pidfd
from trainerd.contract.records import RanksRecord, ShimRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_LIMIT_S: Final = 30.0
REQUEST_LIMIT_S: Final = 5.0
DRAIN_LIMIT_S: Final = 90.0
LEAVE_LIMIT_S: Final = 10.0
TAIL_LINES: Final = 15

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Departure:
    """How a supervisor left.

    Attributes:
        exit_code: As `subprocess` has it: negative for a signal. -9 is ours, for one that did not leave in
            time.
        leftovers: Pids of the shims and ranks that it left running, and that were ended for it.
    """

    exit_code: int
    leftovers: tuple[int, ...]

    @property
    def is_clean(self) -> bool:
        return self.exit_code == 0 and not self.leftovers


class Supervised:
    """The supervisor on `root`/jobs and `root`/state, as a child process."""

    def __init__(
        self, root: Path, interruption: Interruption, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is added to the supervisor's."""
        self._root = root
        self._folder: int | None = None
        self.jobs = root / "jobs"
        self.state = StatePaths(root / "state")
        self.output = root / "supervisor.out"
        self._interruption = interruption
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None

    def start(self, *, limit_s: float = START_LIMIT_S) -> int:
        """Start it and wait until it answers, at most so many seconds; return its pid.

        Raises:
            HarnessError: It does not answer.
        """
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "trainerd", "run"),
                    *("--jobs", self.jobs, "--state", self.state.root),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | self._environment,
                preexec_fn=_drain_if_parent_dies,  # noqa: PLW1509 -- this process has one thread
            )
        # A socket address holds 107 bytes, and a folder may lie deep: it is named by a descriptor.
        if self._folder is None:
            self._folder = os.open(self._root, os.O_PATH | os.O_DIRECTORY)
        address = f"/proc/self/fd/{self._folder}/{self.state.socket.relative_to(self._root)}"
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=address, verify=False),  # a Unix socket has no certificate
            base_url="http://trainerd",
            timeout=REQUEST_LIMIT_S,
        )
        wait_for(
            "the supervisor to answer",
            lambda: self._ask("/v1/daemon"),
            limit_s=limit_s,
            interruption=self._interruption,
        )
        return self._process.pid

    @property
    def pid(self) -> int | None:
        """Its pid; None if it was never started or has ended."""
        is_there = self._process is not None and self._process.poll() is None
        return self._process.pid if is_there and self._process is not None else None

    def job(self, name: str) -> dict[str, Any] | None:
        """Describe a job; None is not known, at this moment or at all."""
        found = self._ask(f"/v1/jobs/{name}")
        return found if isinstance(found, dict) else None

    def outcomes(self, name: str) -> list[dict[str, Any]]:
        """Say how each attempt of a job ended, oldest first."""
        found = self._ask(f"/v1/jobs/{name}/outcomes")
        return found if isinstance(found, list) else []

    def _ask(self, path: str) -> Any:
        """Return an answer, None if there is none.

        Raises:
            HarnessError: The supervisor has ended.
        """
        assert self._process is not None
        assert self._client is not None
        if self._process.poll() is not None:
            raise HarnessError(f"the supervisor has left with exit code {self._process.returncode}")
        try:
            answer = self._client.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.is_success else None

    def drain(self) -> Departure | None:
        """Ask it to drain all jobs and leave, and end what it may have left; None if it was never started.

        Each further request to stop is passed on, so a second Ctrl-C hurries as it would in a terminal of its
        own.
        """
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        seen = self._interruption.requests
        deadline_s = time.monotonic() + DRAIN_LIMIT_S
        while self._process.poll() is None:
            if self._interruption.requests > max(seen, 1):
                seen = self._interruption.requests
                self._process.send_signal(signal.SIGTERM)
            if time.monotonic() > deadline_s:
                self._process.kill()
            time.sleep(POLL_S)
        if self._client is not None:
            self._client.close()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
        return Departure(self._process.returncode, tuple(end_leftovers(self.state)))

    def tails(self, *names: str) -> str:
        """Return the ends of the logs of the supervisor and of some jobs."""
        paths = [self.output, *(self.state.run(name).rank_log(0) for name in names)]
        return "\n".join(f"--- {path}\n{_tail(path)}" for path in paths if path.exists())


def end_leftovers(state: StatePaths) -> list[int]:
    """End every shim and rank that the records of a state folder name and that still runs; return their pids.

    A shim ends its whole attempt, so it is asked first and the ranks are killed only once it is gone.
    """
    left = [identity for identity in _recorded(state) if is_alive(identity)]
    for number, limit_s in ((signal.SIGTERM, DRAIN_LIMIT_S), (signal.SIGKILL, LEAVE_LIMIT_S)):
        alive = [identity for identity in left if is_alive(identity)]
        for identity in alive:
            _signal(identity, number)
        deadline_s = time.monotonic() + limit_s
        while any(is_alive(identity) for identity in alive) and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
    return [identity.pid for identity in left]


def _recorded(state: StatePaths) -> Iterator[ProcessIdentity]:
    for folder in state.runs.glob("*"):
        for attempt in RunPaths(folder).attempts.glob("*"):
            paths = AttemptPaths(attempt)
            if shim := records.read(paths.shim, ShimRecord):
                yield shim.process
            if ranks := records.read(paths.ranks, RanksRecord):
                yield from ranks.processes


def _signal(identity: ProcessIdentity, number: int) -> None:
    descriptor = open_pidfd(identity)
    if descriptor is None:
        return
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def _drain_if_parent_dies() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (empty)"
