"""`trainerd exec` twice as two nodes of one job: each with a host name, a boot id, a machine id and a state
folder of its own, and one run folder that both see.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import psutil

from tests.support.lab_hosts import LabHost, child_of
from tests.support.own_host import as_host
from tests.support.rank_runs import RANKS_LOOP, free_port
from tests.support.training_runs import OF_A_JOB, Result, has_done_step, result_of
from tests.support.waiting import wait_for
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import RanksRecord

LIMIT_S = 180.0
GRACE_S = 20
LOOP = ("--ddp", "--step-ms", 100, "--epochs", 2)
LONG_LOOP = ("--ddp", "--step-ms", 150, "--epochs", 2, "--samples", 240)


class TrainingNode:
    """`trainerd exec` on one of two hosts."""

    def __init__(self, job: TwoNodes, number: int, *words: str) -> None:
        self.number = number
        host = f"n{number}"
        own = [sys.executable, "-m", "trainerd", "exec", "job.json", "--state", f"state-{host}"]
        rendezvous = f"{job.hosts[0].name if job.hosts else '127.0.0.1'}:{job.port}"
        place = ["--nnodes", "2", "--node-rank", str(number), "--rendezvous", rendezvous]
        self.run = StatePaths(job.folder / f"state-{host}" / f"node-{number}").run("job")
        self.said = job.folder / f"said-{number}"
        command = [*own, *place, "--run", job.common, *words]
        if job.hosts:
            command = job.hosts[number].command(*command, cwd=job.folder)
        else:
            command = as_host(job.folder, host, command)
        with self.said.open("a") as said:
            self.process = subprocess.Popen(command, cwd=job.folder, stdout=subprocess.DEVNULL, stderr=said)
        self._is_below = bool(job.hosts)

    def wait_for_step(self, step: int) -> None:
        """Wait until the first rank of this node has finished a step."""

        def is_there() -> bool:
            is_done = has_done_step(self.run.attempt(self.run.newest_attempt()).heartbeat(0), step)
            assert is_done or self.process.poll() is None, self.said.read_text()
            return is_done

        wait_for(is_there, f"step {step} of node {self.number}", limit_s=LIMIT_S, story=self.said.read_text)

    @property
    def rank_pid(self) -> int:
        """The process of the first rank of this node."""
        record = records.read(self.run.attempt(self.run.newest_attempt()).ranks, RanksRecord)
        assert record is not None
        return record.processes[0].pid

    def ask_to_leave(self) -> None:
        """Send SIGTERM to `exec`."""
        own = child_of(self.process) if self._is_below else self.process
        own.send_signal(signal.SIGTERM)

    def family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def end(self, limit_s: float = LIMIT_S) -> int:
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"node {self.number} hangs: {self.said.read_text()}") from None


class TwoNodes:
    """A job of two nodes in a folder, as a context manager.

    Args:
        folder: Where all of it lies; made if it is missing.
        arguments: Of the program, which is the loop of several ranks unless `fields` has another command.
        common: Run folder of both nodes, in the folder.
        hosts: With networks of their own; without them both nodes use that of this machine.
        fields: Of the spec.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        hosts: tuple[LabHost, ...] = (),
        common: str = "run",
        **fields: Any,
    ) -> None:
        self.folder, self.port, self.hosts, self.common = folder, free_port(), hosts, common
        self.nodes: list[TrainingNode] = []
        folder.mkdir(exist_ok=True)
        document = {
            # A rank that was stopped for a minute does not hang, and to show its stacks then may end it.
            "command": [sys.executable, str(RANKS_LOOP), "--hang-s", "600", *map(str, arguments)],
            "workdir": str(folder),
            "nproc": 1,
            "grace": f"{GRACE_S}s",
            "checkpoint": {"every": {"steps": 5, "epochs": 1}},
            "restart": {"budget": 3, "backoff": {"initial": "0.2s", "max": "1s"}},
            "env": OF_A_JOB,
        }
        (folder / "job.json").write_text(json.dumps(document | fields))

    def start(self, number: int, *words: str) -> TrainingNode:
        self.nodes.append(TrainingNode(self, number, *words))
        return self.nodes[-1]

    def start_both(self) -> tuple[TrainingNode, TrainingNode]:
        return self.start(0), self.start(1)

    def start_training(self) -> tuple[TrainingNode, TrainingNode]:
        """Start both nodes and wait until each is beyond its first checkpoint."""
        nodes = self.start_both()
        for node in nodes:
            node.wait_for_step(7)
        return nodes

    @property
    def result(self) -> Result:
        return result_of(self.folder / "run")

    @property
    def verdict(self) -> int:
        """What `trainerd verdict` says of the folder that both see."""
        command = [sys.executable, "-m", "trainerd", "verdict", "./run"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False).returncode

    @property
    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("said-*")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            with contextlib.suppress(psutil.Error):
                for process in node.family():
                    process.kill()
            node.process.wait()
            for path in node.run.attempts.glob("*/s*.json"):  # a shim outlives its exec
                with contextlib.suppress(OSError, KeyError, psutil.Error):
                    who = json.loads(path.read_text())["process"]
                    left = psutil.Process(who["pid"])
                    if any(str(node.run.root) in word for word in left.cmdline()):
                        left.kill()
