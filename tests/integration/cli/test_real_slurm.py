"""`trainerd slurm JOB --submit` on a real Slurm: whatever that does to a job, it equals one left alone.

One cluster serves the whole file. Each scenario has nodes of its own and waits for most of its time, so
several run at once; a test is the end of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Final

import pytest

from tests.support.at_once import at_once
from tests.support.real_slurm import RealSlurm, why_no_slurm
from tests.support.slurm_job import LIMIT_S, SlurmJob
from tests.support.training_runs import Result, result_of

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_slurm()), reason=why_no_slurm()),
]


def cancelled(job: SlurmJob) -> None:
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


def warned_before_the_first_checkpoint(job: SlurmJob) -> None:
    """S7: while the program is imported, which has nothing to save yet."""
    job.submit("main")
    job.wait_for("an attempt", job.run.attempt(1).launch.exists)
    job.warn()
    job.wait_until_running(restarts=1)
    job.end()


def preempted_with_a_warning(job: SlurmJob) -> None:
    """S9: the partition grants 30 s."""
    job.submit("warned")
    job.wait_for_step(7)
    job.preempt()
    job.wait_until_running(restarts=1)
    assert job.kind_of_end(1) == "drained", job.log
    job.end()


def preempted_without_a_warning(job: SlurmJob) -> None:
    """S10: SIGTERM to every process at once."""
    job.submit("abrupt")
    job.wait_for_step(7)
    job.preempt()
    job.wait_until_running(restarts=1)
    assert job.kind_of_end(1) == "drained", job.log
    job.end()


def ended_by_its_limit(job: SlurmJob) -> None:
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


def warned_and_requeued_by_the_operator(job: SlurmJob) -> None:
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


def warned_by_its_limit(job: SlurmJob) -> None:
    """S14: in time before each limit, until it has finished."""
    job.submit("main", "--time", "2")
    for restarts in (1, 2):
        job.wait_until_running(restarts)
        assert job.kind_of_end(restarts) == "drained", job.log
    job.cluster.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.end()


def its_node_dies(job: SlurmJob) -> None:
    """S16: with all its processes."""
    job.submit("dying")
    job.wait_for_step(7)
    node = job.said["NodeList"]
    job.cluster.nodes[node].power_off()
    job.wait_until_running(restarts=1)
    assert job.said["NodeList"] != node
    job.end()


def its_node_is_cut_off(job: SlurmJob) -> None:
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


SCENARIOS: Final[dict[Callable[[SlurmJob], None], dict[str, int]]] = {
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

    def run(scenario: Callable[[SlurmJob], None]) -> SlurmJob:
        job = SlurmJob(cluster, folder / scenario.__name__, **SCENARIOS[scenario])
        scenario(job)
        return job

    with at_once(request, "scenario", run, most=5) as futures:
        yield futures


@pytest.fixture(scope="module")
def alone(cluster, tmp_path_factory) -> dict[int, Result]:
    """What undisturbed runs leave, by their number of nodes."""
    jobs = [SlurmJob(cluster, tmp_path_factory.mktemp("alone") / "job", nodes=nodes) for nodes in (1, 2)]
    for job in jobs:
        job.submit("main")
    for job in jobs:
        job.end()
    return {job.nodes: result_of(job.run.root) for job in jobs}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_a_job_ends_equal_to_one_that_was_left_alone(began, alone, scenario):
    job = began[scenario].result()
    assert result_of(job.run.root) == alone[job.nodes]
