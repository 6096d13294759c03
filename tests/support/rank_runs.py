"""Attempts of several ranks without a supervisor: started, watched, signalled, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.fork_server import ForkedProcess
from tests.support.rank_server import RankServer
from tests.support.training_runs import (
    FORK_SERVER,
    PYTHONPATH,
    REPOSITORY,
    has_done_step,
    training_environment,
)
from tests.support.waiting import wait_for
from trainerd.contract.paths import RunPaths

SCRIPTS = REPOSITORY / "tests" / "support" / "scripts"
RANKS_LOOP = SCRIPTS / "ranks_loop.py"
SHARDED_LOOP = SCRIPTS / "sharded_loop.py"
SHAPES_LOOP = SCRIPTS / "shapes_loop.py"
PARALLEL_LOOP = SCRIPTS / "parallel_loop.py"
RUN_LIMIT_S = 60
_LOOK_S = 0.002
_sharding_server = RankServer("torch.distributed.fsdp", "torch._dynamo")
_servers = {  # each starts with its first rank and ends with this process
    RANKS_LOOP: FORK_SERVER,
    SHARDED_LOOP: _sharding_server,
    SHAPES_LOOP: _sharding_server,
    PARALLEL_LOOP: _sharding_server,
}
_USED = re.compile(r"^used (\d+) (\d+) (\d+) (\d+) (\[.*\])$", re.MULTILINE)


@dataclass(frozen=True)
class Used:
    """A batch that a rank has used."""

    attempt: int
    rank: int
    epoch: int
    step: int
    indices: tuple[int, ...]


class Attempt:
    """One attempt of several ranks, as a context manager."""

    def __init__(
        self,
        run_dir: Path,
        *arguments: object,
        script: Path = RANKS_LOOP,
        world_size: int = 2,
        failpoints: str = "",
        fails_on: int | None = None,
        **environment: object,
    ) -> None:
        self.run_dir = run_dir
        self._former = attempt_numbers(run_dir)
        port = free_port()
        self.logs = [
            run_dir.parent / f"{run_dir.name}-{len(self._former)}-{rank}.log" for rank in range(world_size)
        ]
        self.ranks: list[ForkedProcess] = []
        for rank, log in enumerate(self.logs):
            log.touch()  # the rank opens it, in its own time
            environment_of_rank = training_environment(
                run_dir,
                failpoints=failpoints if fails_on in {None, rank} else "",
                PYTHONPATH=PYTHONPATH,
                RANK=rank,
                LOCAL_RANK=rank,
                WORLD_SIZE=world_size,
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                **environment,
            )
            self.ranks.append(
                _servers[script].launch(script, [*map(str, arguments)], environment_of_rank, log)
            )

    def wait(self, limit_s: float = RUN_LIMIT_S) -> list[int]:
        """Wait until all ranks have ended; return their exit codes."""
        deadline_s = time.monotonic() + limit_s
        for rank, process in enumerate(self.ranks):
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"rank {rank} hangs\n{self.output}") from None
        return [process.wait(0) for process in self.ranks]

    def wait_for_step(self, rank: int, step: int, limit_s: float = RUN_LIMIT_S) -> None:
        """Wait until a rank has finished a step."""
        run = RunPaths(self.run_dir)

        def is_there() -> bool:
            new = attempt_numbers(self.run_dir) - self._former
            return bool(new) and has_done_step(run.attempt(max(new)).heartbeat(rank), step)

        self._wait_for(rank, is_there, f"step {step} of rank {rank}", limit_s)

    def wait_for_word(self, rank: int, word: str, limit_s: float = RUN_LIMIT_S) -> None:
        """Wait until a rank has printed a line."""
        log = self.logs[rank]

        def is_said() -> bool:
            return word in log.read_text().splitlines()

        self._wait_for(rank, is_said, f"{word!r} of rank {rank}", limit_s)

    def _wait_for(self, rank: int, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        """Wait for something that a rank does before it ends."""

        def is_true() -> bool:
            found = condition()
            assert found or self.ranks[rank].poll() is None, self.output
            return found

        wait_for(is_true, what, limit_s=limit_s, look_s=_LOOK_S, story=lambda: self.output)

    def send(self, rank: int, signum: int) -> None:
        self.ranks[rank].send_signal(signum)

    @property
    def output(self) -> str:
        """What the ranks have said so far."""
        return "\n".join(f"--- rank {rank}\n{log.read_text()[-3000:]}" for rank, log in enumerate(self.logs))

    @property
    def used(self) -> list[Used]:
        """The batches that were used, rank by rank."""
        return [used for log in self.logs for used in used_in(log.read_text())]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.ranks:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_ranks(
    run_dir: Path,
    *arguments: object,
    script: Path = RANKS_LOOP,
    world_size: int = 2,
    limit_s: float = RUN_LIMIT_S,
    **environment: object,
) -> Attempt:
    """Run one attempt to its end; all ranks must have finished."""
    with Attempt(run_dir, *arguments, script=script, world_size=world_size, **environment) as attempt:
        assert attempt.wait(limit_s) == [0] * world_size, attempt.output
    return attempt


def used_in(text: str) -> list[Used]:
    return [
        Used(*map(int, found.groups()[:4]), tuple(map(int, found[5].strip("[]").split(","))))
        for found in _USED.finditer(text)
    ]


def attempt_numbers(run_dir: Path) -> set[int]:
    return {int(path.name) for path in RunPaths(run_dir).attempts.glob("*") if path.name.isdigit()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
