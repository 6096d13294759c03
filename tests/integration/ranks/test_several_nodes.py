"""`trainerd exec` twice as two nodes of one job: each with a host name, a boot id, a machine id and a state
folder of its own, and one run folder that both see.

Whatever is struck on either node, the run equals one that was left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.support.own_host import as_host, has_host_namespaces
from tests.support.rank_runs import RANKS_LOOP, free_port
from tests.support.training_runs import REPOSITORY, Result, result_of
from trainerd.contract import records
from trainerd.contract.heartbeat import read_heartbeat
from trainerd.contract.paths import RunPaths, StatePaths
from trainerd.contract.records import RanksRecord
from trainerd.training.distributed.life_signs import SILENCE_LIMIT_S

LIMIT_S = 120.0
LOOK_S = 0.02
GRACE_S = 20
pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not has_host_namespaces(), reason="needs mount and UTS namespaces, and /etc/machine-id"
    ),
]


class Node:
    """`trainerd exec` on one of two hosts."""

    def __init__(self, job: Job, number: int, *words: str) -> None:
        self.number = number
        host = f"n{number}"
        own = [sys.executable, "-m", "trainerd", "exec", "job.json", "--state", f"state-{host}"]
        place = ["--nnodes", "2", "--node-rank", str(number), "--rendezvous", f"127.0.0.1:{job.port}"]
        self.run = StatePaths(job.folder / f"state-{host}" / f"node-{number}").run("job")
        self.said = job.folder / f"said-{number}"
        with self.said.open("a") as said:
            self.process = subprocess.Popen(
                as_host(job.folder, host, [*own, *place, "--run", "run", *words]),
                cwd=job.folder,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def wait_for_step(self, step: int) -> None:
        """Wait until the first rank of this node has finished a step."""
        deadline_s = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                beat = read_heartbeat(self.run.attempt(self.run.newest_attempt()).heartbeat(0))
                if beat is not None and beat.resumed_step >= 0 and beat.step >= step:
                    return
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(LOOK_S)
        raise AssertionError(f"node {self.number} did not come to step {step}: {self.said.read_text()}")

    @property
    def rank_pid(self) -> int:
        """The process of the first rank of this node."""
        record = records.read(self.run.attempt(self.run.newest_attempt()).ranks, RanksRecord)
        assert record is not None
        return record.processes[0].pid

    def family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def end(self, limit_s: float = LIMIT_S) -> int:
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"node {self.number} hangs: {self.said.read_text()}") from None


class Job:
    """A job of two nodes in a folder, as a context manager."""

    def __init__(self, folder: Path, *arguments: object, **fields: object) -> None:
        self.folder, self.port = folder, free_port()
        self.nodes: list[Node] = []
        folder.mkdir(exist_ok=True)
        document = {
            # A rank that was stopped for a minute does not hang, and to show its stacks then may end it.
            "command": [sys.executable, str(RANKS_LOOP), "--hang-s", "600", *map(str, arguments)],
            "workdir": str(folder),
            "nproc": 1,
            "grace": f"{GRACE_S}s",
            "checkpoint": {"every": {"steps": 5, "epochs": 1}},
            "restart": {"budget": 3, "backoff": {"initial": "0.2s", "max": "1s"}},
            "env": {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}/daemon{os.pathsep}{REPOSITORY}"},
        }
        (folder / "job.json").write_text(json.dumps(document | fields))

    def start(self, number: int, *words: str) -> Node:
        self.nodes.append(Node(self, number, *words))
        return self.nodes[-1]

    def start_both(self) -> tuple[Node, Node]:
        return self.start(0), self.start(1)

    @property
    def result(self) -> Result:
        return result_of(self.folder / "run")

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


LOOP = ("--ddp", "--step-ms", 100, "--epochs", 2)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with Job(tmp_path_factory.mktemp("undisturbed") / "job", *LOOP) as job:
        first, second = job.start_both()
        assert (first.end(), second.end()) == (0, 0), job.said
        return job.result


def test_copies_in_memory_are_off_and_rank_0_says_so(tmp_path, undisturbed):
    fields = {"checkpoint": {"every": {"steps": 5, "epochs": 1}, "memory": "auto"}}
    with Job(tmp_path / "job", *LOOP, **fields) as job:
        first, second = job.start_both()
        assert (first.end(), second.end()) == (0, 0), job.said
        log = first.run.rank_log(0).read_text()
        assert log.count("no copies are kept in memory: the ranks are on several nodes") == 1, log
        assert job.result == undisturbed


@pytest.mark.parametrize("struck", [0, 1])
def test_a_rank_that_is_killed_is_restarted_and_its_node_alone_charges_it(tmp_path, undisturbed, struck):
    with Job(tmp_path / "job", *LOOP) as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        os.kill(nodes[struck].rank_pid, signal.SIGKILL)
        assert [node.end() for node in nodes] == [0, 0], job.said
        said = [node.said.read_text() for node in nodes]
    assert job.result == undisturbed
    assert "backing-off: killed: rank 0 was killed by SIGKILL from outside" in said[struck]
    assert "queued: lost: rank 0 has lost the other nodes" in said[1 - struck]
    assert "backing-off" not in said[1 - struck]


@pytest.mark.parametrize("asked", [(0,), (1,), (0, 1)])
def test_a_node_that_is_asked_to_leave_drains_all_and_they_meet_again(tmp_path, undisturbed, asked):
    with Job(tmp_path / "job", *LOOP) as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        began_s = time.monotonic()
        for number in asked:
            nodes[number].process.send_signal(signal.SIGTERM)
        assert [node.end() for node in nodes] == [85, 85], job.said
        assert time.monotonic() - began_s < GRACE_S
        nodes = job.start_both()
        assert [node.end() for node in nodes] == [0, 0], job.said
    assert job.result == undisturbed


@pytest.mark.parametrize("struck", [0, 1])
def test_an_exec_that_is_killed_and_started_again_finds_its_rank_and_the_other_node_goes_on(
    tmp_path, undisturbed, struck
):
    with Job(tmp_path / "job", *LOOP) as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        nodes[struck].process.kill()
        nodes[struck].end()
        again = job.start(struck)
        assert (again.end(), nodes[1 - struck].end()) == (0, 0), job.said
    assert job.result == undisturbed
    assert len(list((tmp_path / "job" / "run" / "attempts").iterdir())) == 1


@pytest.mark.parametrize("struck", [0, 1])
def test_a_node_that_dies_with_all_its_processes_and_disk_is_replaced(tmp_path, undisturbed, struck):
    with Job(tmp_path / "job", *LOOP) as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        for process in nodes[struck].family():
            process.kill()
        nodes[struck].end()
        state = tmp_path / "job" / f"state-n{struck}"
        state.rename(state.with_name("lost"))
        again = job.start(struck)
        assert (again.end(), nodes[1 - struck].end()) == (0, 0), job.said
    assert job.result == undisturbed
    numbers = sorted(path.name for path in (tmp_path / "job" / "run" / "attempts").iterdir())
    assert numbers == ["000001", "000002"], "the run counts the attempts, whatever a node has forgotten"


def test_a_node_that_comes_when_the_run_is_finished_has_nothing_left_to_do(tmp_path):
    with Job(tmp_path / "job", "--epochs", 1) as job:
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        again = job.start(1)
        assert again.end() == 0, job.said
        assert "to begin a new run: name another folder with --run" in again.said.read_text()
        (tmp_path / "job" / "state-n1").rename(tmp_path / "job" / "lost")
        assert job.start(1).end() == 0, job.said
        assert "the run is finished" in again.said.read_text()


def test_a_node_that_never_comes_is_waited_for_within_a_limit(tmp_path):
    with Job(tmp_path / "job", *LOOP) as job:
        alone = job.start(0, "--meet-within", "3s")
        assert alone.end(60) == 85, job.said
        assert "the ranks of the other nodes did not come within 3 s" in job.said
        assert "not now: run it again" in job.said


@pytest.mark.parametrize(("program", "whole"), [(3, 1), (93, 93)])
def test_a_node_that_gives_up_is_followed_by_the_other(tmp_path, program, whole):
    loop = f"{sys.executable} {RANKS_LOOP} --epochs 1"
    command = ["sh", "-c", f"if [ $GROUP_RANK = 1 ]; then exit {program}; else exec {loop}; fi"]
    with Job(tmp_path / "job", command=command, restart={"budget": 1}) as job:
        nodes = job.start_both()
        assert [node.end(60) for node in nodes] == [whole, whole], job.said
        assert "node 1 has ended: " in nodes[0].said.read_text()
        assert "has ended: " not in nodes[1].said.read_text()


def test_a_node_that_vanishes_is_noticed_without_a_collective_within_a_minute(tmp_path):
    with Job(tmp_path / "job", "--step-ms", 100, "--epochs", 99) as job:
        first, second = job.start(0, "--meet-within", "20s"), job.start(1)
        for node in (first, second):
            node.wait_for_step(7)
        for process in second.family():
            process.kill()
        assert first.end(SILENCE_LIMIT_S + 60) == 85, job.said
        (silent_s,) = re.findall(r"rank 1 has given no life sign for (\d+) s", first.said.read_text())
        assert SILENCE_LIMIT_S <= int(silent_s) <= SILENCE_LIMIT_S + 10
        assert "the ranks of the other nodes did not come within 20 s" in first.said.read_text()


def test_a_rank_that_is_stopped_for_longer_than_the_limit_meets_the_others_when_it_wakes(
    tmp_path, undisturbed
):
    with Job(tmp_path / "job", *LOOP) as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        os.kill(nodes[1].rank_pid, signal.SIGSTOP)
        deadline_s = time.monotonic() + SILENCE_LIMIT_S + 60
        while "has lost the other nodes" not in nodes[0].said.read_text():
            assert time.monotonic() < deadline_s, job.said
            time.sleep(LOOK_S)
        os.kill(nodes[1].rank_pid, signal.SIGCONT)
        assert [node.end() for node in nodes] == [0, 0], job.said
    assert job.result == undisturbed
    assert "backing-off" not in job.said, "on neither node was it the fault of the job"


def test_a_request_is_obeyed_within_the_grace_period_while_a_node_that_vanished_is_not_missed_yet(tmp_path):
    loop = ("--step-ms", 100, "--epochs", 2)
    with Job(tmp_path / "alone", *loop) as job:
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        undisturbed = job.result
    with Job(tmp_path / "job", *loop, grace="5s") as job:
        nodes = job.start_both()
        for node in nodes:
            node.wait_for_step(7)
        for process in nodes[1].family():
            process.kill()
        nodes[0].process.send_signal(signal.SIGTERM)
        assert nodes[0].end(5 + 5) == 85, job.said
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        assert job.result == undisturbed


def test_a_request_while_it_waits_for_the_other_node_is_obeyed_within_the_grace_period(tmp_path):
    with Job(tmp_path / "job", *LOOP) as job:
        alone = job.start(1)
        deadline_s = time.monotonic() + LIMIT_S
        while not alone.run.attempt(1).ranks.exists():
            assert time.monotonic() < deadline_s
            time.sleep(LOOK_S)
        alone.process.send_signal(signal.SIGTERM)
        assert alone.end(GRACE_S + 5) == 85, job.said


def test_nodes_that_see_different_folders_are_refused(tmp_path):
    with Job(tmp_path / "job", *LOOP, restart={"budget": 1}) as job:
        first, second = job.start(0), job.start(1, "--run", "elsewhere")
        assert (first.end(), second.end()) == (1, 1), job.said
        log = RunPaths(second.run.root).rank_log(0).read_text()
        assert "the run folder is not shared: rank 1 (n1:" in log


def test_two_ranks_on_each_node_are_numbered_over_both(tmp_path):
    with Job(tmp_path / "job", "--step-ms", 5, "--epochs", 1, nproc=2) as job:
        nodes = job.start_both()
        assert [node.end() for node in nodes] == [0, 0], job.said
        for node in nodes:
            for rank in range(2):
                log = node.run.rank_log(rank).read_text()
                assert f"rank {node.number * 2 + rank} is done" in log
        for node in nodes:
            words = ["checkpoints", "job", "--state", str(node.run.root.parents[1]), "--json"]
            shown = subprocess.run(
                [sys.executable, "-m", "trainerd", *words], capture_output=True, check=True
            )
            assert b"step-" in shown.stdout, "what all nodes share is found from the state folder of each"
        assert set(job.result.files) == {
            f"rank-{rank:05d}.{kind}" for rank in range(4) for kind in ("json", "safetensors")
        }
