"""A job that is given to a real Slurm by `trainerd slurm --submit`, and what can be done to it there."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.rank_runs import RANKS_LOOP
from tests.support.real_slurm import RealSlurm
from tests.support.training_runs import OF_A_JOB, PYTHONPATH, TINY, has_done_step
from trainerd.contract import records
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.records import OutcomeRecord

LIMIT_S: Final = 240.0
STATE_LIMIT_S: Final = 90.0
GRACE_S: Final = 5
START_AFTER_S: Final = 4


class SlurmJob:
    """A job in a folder, and its number at the controller once it is submitted."""

    def __init__(self, cluster: RealSlurm, folder: Path, *, step_ms: int = 50, nodes: int = 1) -> None:
        self.cluster, self.folder, self.nodes = cluster, folder, nodes
        self.number = 0
        tiny = [str(TINY), "--epochs", "3", "--batches", "40"]
        ranks = [str(RANKS_LOOP), "--ddp", "--epochs", "2", "--samples", "240"]
        document = {
            "command": [sys.executable, *(tiny if nodes == 1 else ranks), "--step-ms", str(step_ms)],
            "workdir": str(folder),
            "grace": f"{GRACE_S}s",
            "checkpoint": {"every": {"steps": 5, "epochs": 1}},
            "env": OF_A_JOB,
        }
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(document))

    def script(self, partition: str, *words: str) -> str:
        own = ["slurm", "job.json", "--state", "state", "--nodes", str(self.nodes)]
        chosen = ["--sbatch", f"partition={partition}", *words]
        return self.cluster.ask(
            "env", f"PYTHONPATH={PYTHONPATH}", sys.executable, "-m", "trainerd", *own, *chosen,
            cwd=self.folder,
        )  # fmt: skip

    def submit(self, partition: str, *words: str) -> None:
        said = self.script(partition, *words, "--submit")
        self.number = int(said.split()[-1])

    @property
    def run(self) -> RunPaths:
        """Its run folder; that of the first node if it has several."""
        state = self.folder / "state"
        return StatePaths(state if self.nodes == 1 else state / "node-0").run("job")

    @property
    def said(self) -> dict[str, str]:
        return self.cluster.job(self.number)

    @property
    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("job-*.log"))

    def wait_for(self, what: str, fact: Callable[[], object], limit_s: float = STATE_LIMIT_S) -> None:
        try:
            self.cluster.wait_for(what, fact, limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said}\n{self.log}") from None

    def wait_for_step(self, step: int, attempt: int = 1) -> None:
        page = self.run.attempt(attempt).heartbeat(0)
        self.wait_for(f"step {step} of attempt {attempt}", lambda: has_done_step(page, step))

    def wait_until_running(self, restarts: int = 0) -> None:
        """Wait until Slurm has started the job so often again; it waits two minutes, unless it is told.

        A node refuses what it is to start in the same second in which it has ended the job.
        """
        brought_forward_s = 0.0

        def is_running() -> bool:
            nonlocal brought_forward_s
            said, now_s = self.said, time.monotonic()
            is_waiting = said["JobState"] == "PENDING" and said["Reason"] == "BeginTime"
            if is_waiting and now_s - brought_forward_s > 2 * START_AFTER_S:
                with contextlib.suppress(AssertionError):  # not while it is being put back
                    self.cluster.ask(
                        "scontrol", "update", f"JobId={self.number}", f"StartTime=now+{START_AFTER_S}"
                    )
                    brought_forward_s = now_s
            return said["JobState"] == "RUNNING" and int(said["Restarts"]) == restarts

        self.wait_for(f"running, restarted {restarts} times", is_running, LIMIT_S)

    def end(self, state: str = "COMPLETED", limit_s: float = LIMIT_S) -> None:
        finals = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        self.wait_for("an end", lambda: self.said["JobState"] in finals, limit_s)
        assert self.said["JobState"] == state, f"{self.said}\n{self.log}"

    def warn(self) -> None:
        """Have Slurm tell the batch shell what `--signal=B:USR1@…` has it tell before a limit."""
        self.cluster.ask("scancel", "--signal=USR1", "--batch", str(self.number))

    def preempt(self) -> None:
        """Submit a job of a higher partition that needs the whole node."""
        node = self.said["NodeList"]
        self.cluster.ask(
            "sbatch", "-p", "high", "-w", node, "--exclusive", "--wrap", "sleep 2", cwd=self.folder
        )

    def kind_of_end(self, attempt: int) -> str:
        said = records.read(self.run.attempt(attempt).outcome(0), OutcomeRecord)
        return said.kind if said is not None else ""
