"""A workbench: real shims, real ranks, and nobody left behind when a test is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from tests.support import waiting
from trainerd.contract import process, records
from trainerd.contract.paths import StatePaths
from trainerd.contract.process import identify, open_pidfd
from trainerd.contract.records import LaunchRecord, ShimRecord
from trainerd.supervisor.attempt.launcher import ShimLauncher
from trainerd.supervisor.attempt.probe import ProbedEnded, ProbedLost, ProbedNotStarted, ProbedRunning, probe

DEADLINE_S = 15.0
LOOK_S = 0.005

# What a training process does: be ready, then finish its step when asked to. HERE is a folder of the test's
# own.
OBEDIENT = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
open(os.environ["HERE"] + "/ready-" + os.environ["RANK"], "w").close()
while True: signal.pause()
"""
STUBBORN = """
import os, signal
def note(number, _):
    with open(os.environ["HERE"] + "/received", "a") as file: print(number, file=file)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1): signal.signal(number, note)
open(os.environ["HERE"] + "/ready-" + os.environ["RANK"], "w").close()
while True: signal.pause()
"""


def python(code):
    """Return the command of a rank that runs `code`, and starts fast."""
    return (sys.executable, "-I", "-S", "-c", code)


def shell(script):
    return ("sh", "-c", script)


def wait_for(condition, what="the condition"):
    """Return what `condition` returns once it is true."""
    return waiting.wait_for(condition, what, limit_s=DEADLINE_S, look_s=LOOK_S)


def runs(pid):
    """Return whether a process of this number exists and is no zombie."""
    identity = identify(pid)
    return identity is not None and process.is_alive(identity)


class Workbench:
    def __init__(self, root: Path):
        self.here = root / "here"
        self.here.mkdir()
        self.state = StatePaths(root / "state")
        self.run = self.state.run("job")
        self.launcher = ShimLauncher()

    def record(
        self,
        command,
        *,
        attempt=1,
        nproc=1,
        grace_s=30.0,
        env_file=None,
        workdir=None,
        memory_bytes=None,
        uses_cgroup=True,
        **env,
    ):
        return LaunchRecord(
            job="job",
            attempt=attempt,
            command=tuple(command),
            workdir=str(workdir or self.here),
            env={"PATH": os.environ["PATH"], "HERE": str(self.here), **env},
            nproc=nproc,
            grace_s=grace_s,
            log_paths=tuple(str(self.run.rank_log(rank)) for rank in range(nproc)),
            env_file=str(env_file) if env_file else None,
            memory_bytes=memory_bytes,
            uses_cgroup=uses_cgroup,
        )

    def launch(self, command, *, attempt=1, **options):
        paths = self.run.attempt(attempt)
        self.launcher.launch(paths, self.record(command, attempt=attempt, **options))
        return paths

    def running(self, paths, *, ready=()):
        """Wait until the ranks are on record, and those in `ready` have said that they are."""

        def look():
            state = probe(paths)
            assert not isinstance(state, ProbedEnded | ProbedLost | ProbedNotStarted), (
                paths.shim_log.read_text()
            )
            return state if isinstance(state, ProbedRunning) and state.ranks else None

        state = wait_for(look, "ranks on record")
        for rank in ready:
            wait_for((self.here / f"ready-{rank}").exists, f"rank {rank} ready")
        return state

    def ended(self, paths):
        def look():
            state = probe(paths)
            assert not isinstance(state, ProbedLost | ProbedNotStarted), paths.shim_log.read_text()
            return state if isinstance(state, ProbedEnded) else None

        return wait_for(look, "the end").record

    def run_to_end(self, command, **options):
        return self.ended(self.launch(command, **options))

    def log(self, rank=0):
        return self.run.rank_log(rank).read_text()

    def pids_in(self, name, count=1):
        """Wait for a file of `count` pids that a rank leaves in HERE."""
        path = self.here / name

        def look():
            words = path.read_text().split() if path.exists() else []
            return [int(word) for word in words] if len(words) == count else None

        return wait_for(look, f"{count} pids in {name}")

    def watch(self, paths, launcher=None):
        """Return every state that `watch` yields."""

        async def collect():
            return [state async for state in (launcher or self.launcher).watch(paths)]

        return asyncio.run(asyncio.wait_for(collect(), DEADLINE_S))

    def clean_up(self):
        for folder in sorted(self.run.attempts.glob("*")):
            paths = self.run.attempt(int(folder.name))
            with contextlib.suppress(Exception):
                shim = records.read(paths.shim, ShimRecord)
                descriptor = open_pidfd(shim.process) if shim else None
                if descriptor is not None:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    os.close(descriptor)
                    wait_for(lambda shim=shim: not process.is_alive(shim.process))
                self.launcher.end_survivors(paths)
        for pid in self.launcher.child_pids:
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
