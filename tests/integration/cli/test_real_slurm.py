"""`trainerd slurm JOB --submit` on a real Slurm: whatever that does to a job, it equals one left alone.

One cluster serves the whole file. Each scenario has nodes of its own and waits for most of its time, so
several run at once; a test is the end of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import pytest

from tests.support.at_once import at_once
from tests.support.rank_runs import RANKS_LOOP
from tests.support.real_slurm import RealSlurm, why_no_slurm
from tests.support.training_runs import REPOSITORY, TINY, Result, result_of
from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.records import OutcomeRecord

LIMIT_S: Final = 240.0
STATE_LIMIT_S: Final = 90.0
GRACE_S: Final = 5
START_AFTER_S: Final = 4
ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}/daemon{os.pathsep}{REPOSITORY}"}

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_slurm()), reason=why_no_slurm()),
]


class Job:
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
            "env": ENVIRONMENT,
        }
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(document))

    def script(self, partition: str, *words: str) -> str:
        own = ["slurm", "job.json", "--state", "state", "--nodes", str(self.nodes)]
        chosen = ["--sbatch", f"partition={partition}", *words]
        return self.cluster.ask(
            "env", f"PYTHONPATH={ENVIRONMENT['PYTHONPATH']}", sys.executable, "-m", "trainerd", *own, *chosen,
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
        def is_there() -> bool:
            with contextlib.suppress(OSError):
                beat = read_heartbeat(self.run.attempt(attempt).heartbeat(0))
                return beat is not None and beat.resumed_step >= 0 and beat.step >= step
            return False

        self.wait_for(f"step {step} of attempt {attempt}", is_there)

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


def cancelled(job: Job) -> None:
    """S6: it stays cancelled, has lost nothing, and goes on when it is submitted again."""
    job.submit("main")
    job.wait_for_step(7)
    job.cluster.ask("scancel", str(job.number))
    job.end("CANCELLED")
    assert job.kind_of_end(1) == "drained", job.log
    assert job.said["Restarts"] == "0"
    job.submit("main")
    job.end()
    assert job.run.newest_attempt() == 2


def warned_before_the_first_checkpoint(job: Job) -> None:
    """S7: while the program is imported, which has nothing to save yet."""
    job.submit("main")
    job.wait_for("an attempt", job.run.attempt(1).launch.exists)
    job.warn()
    job.wait_until_running(restarts=1)
    job.end()


def preempted_with_a_warning(job: Job) -> None:
    """S9: the partition grants 30 s."""
    job.submit("warned")
    job.wait_for_step(7)
    job.preempt()
    job.wait_until_running(restarts=1)
    assert job.kind_of_end(1) == "drained", job.log
    job.end()


def preempted_without_a_warning(job: Job) -> None:
    """S10: SIGTERM to every process at once."""
    job.submit("abrupt")
    job.wait_for_step(7)
    job.preempt()
    job.wait_until_running(restarts=1)
    assert job.kind_of_end(1) == "drained", job.log
    job.end()


def ended_by_its_limit(job: Job) -> None:
    """S11: without a warning, from a script that was changed by hand."""
    lines = job.script("main").splitlines(keepends=True)
    left = [line for line in lines if not line.startswith("#SBATCH --signal=")]
    assert len(left) == len(lines) - 1
    (job.folder / "job.sh").write_text("".join(left))
    job.number = int(job.cluster.ask("sbatch", "--time=1", "job.sh", cwd=job.folder).split()[-1])
    job.wait_until_running(restarts=1)
    assert job.kind_of_end(1) == "drained", job.log
    job.cluster.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.end()


def warned_and_requeued_by_the_operator(job: Job) -> None:
    """S13: two nodes, warned once, then put back by hand."""
    job.submit("main")
    job.wait_for_step(7)
    job.warn()
    job.wait_until_running(restarts=1)
    job.wait_for_step(20, attempt=2)
    job.cluster.ask("scontrol", "requeue", str(job.number))
    job.wait_until_running(restarts=2)
    job.end()
    assert job.run.newest_attempt() == 3


def warned_by_its_limit(job: Job) -> None:
    """S14: in time before each limit, until it has finished."""
    job.submit("main", "--time", "2")
    for restarts in (1, 2):
        job.wait_until_running(restarts)
        assert job.kind_of_end(restarts) == "drained", job.log
    job.cluster.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.end()


def its_node_dies(job: Job) -> None:
    """S16: with all its processes."""
    job.submit("dying")
    job.wait_for_step(7)
    node = job.said["NodeList"]
    job.cluster.nodes[node].power_off()
    job.wait_until_running(restarts=1)
    assert job.said["NodeList"] != node
    job.end()


def its_node_is_cut_off(job: Job) -> None:
    """S17: the job goes on there while Slurm starts it elsewhere; the node comes back before the end."""
    job.submit("cut")
    job.wait_for_step(7)
    node = job.said["NodeList"]
    job.cluster.cables[node].cut()
    job.wait_until_running(restarts=1)
    assert job.said["NodeList"] != node
    job.wait_for("a second attempt", job.run.attempt(2).root.exists, LIMIT_S)
    # It is fenced, unless its `exec` sees before that, in the shared folder, that it was taken over from.
    job.wait_for("the first has left", lambda: job.kind_of_end(1) in {"fenced", "drained"})
    job.cluster.cables[node].mend()
    job.end()


SCENARIOS: Final[dict[Callable[[Job], None], dict[str, int]]] = {
    cancelled: {},
    warned_before_the_first_checkpoint: {},
    preempted_with_a_warning: {},
    preempted_without_a_warning: {},
    ended_by_its_limit: {"step_ms": 1000},
    warned_and_requeued_by_the_operator: {"nodes": 2, "step_ms": 200},
    warned_by_its_limit: {"step_ms": 1000},
    its_node_dies: {},
    its_node_is_cut_off: {"step_ms": 1000},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[RealSlurm]:
    nodes = ("m1", "m2", "m3", "m4", "w1", "a1", "d1", "d2", "c1", "c2")
    partitions = {
        "main": "Nodes=m[1-4] Default=YES",
        "warned": "Nodes=w1 PriorityTier=1 GraceTime=30",
        "abrupt": "Nodes=a1 PriorityTier=1 GraceTime=0",
        "high": "Nodes=w1,a1 PriorityTier=10 PreemptMode=OFF",
        "dying": "Nodes=d[1-2]",
        "cut": "Nodes=c[1-2]",
    }
    with RealSlurm(tmp_path_factory.mktemp("slurm"), nodes, partitions) as running:
        yield running


@pytest.fixture(scope="module")
def began(request, cluster, tmp_path_factory) -> Iterator[dict[object, Future]]:
    folder = tmp_path_factory.mktemp("jobs")

    def run(scenario: Callable[[Job], None]) -> Job:
        job = Job(cluster, folder / scenario.__name__, **SCENARIOS[scenario])
        scenario(job)
        return job

    with at_once(request, "scenario", run, most=5) as futures:
        yield futures


@pytest.fixture(scope="module")
def alone(cluster, tmp_path_factory) -> dict[int, Result]:
    """What undisturbed runs leave, by their number of nodes."""
    jobs = [Job(cluster, tmp_path_factory.mktemp("alone") / "job", nodes=nodes) for nodes in (1, 2)]
    for job in jobs:
        job.submit("main")
    for job in jobs:
        job.end()
    return {job.nodes: result_of(job.run.root) for job in jobs}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_a_job_ends_equal_to_one_that_was_left_alone(began, alone, scenario):
    job = began[scenario].result()
    assert result_of(job.run.root) == alone[job.nodes]
