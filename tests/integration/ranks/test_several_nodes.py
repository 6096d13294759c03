"""`trainerd exec` twice as two nodes of one job: each with a host name, a boot id, a machine id and a state
folder of its own, and one run folder that both see.

Whatever is struck on either node, the run equals one that was left alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support.own_host import has_host_namespaces
from tests.support.rank_runs import RANKS_LOOP
from tests.support.two_nodes import GRACE_S, LIMIT_S, LOOP, TwoNodes
from tests.support.waiting import wait_for
from trainerd.contract.paths import RunPaths
from trainerd.training.distributed.life_signs import SILENCE_LIMIT_S

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not has_host_namespaces(), reason="needs mount and UTS namespaces, and /etc/machine-id"
    ),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with TwoNodes(tmp_path_factory.mktemp("undisturbed") / "job", *LOOP) as job:
        first, second = job.start_both()
        assert (first.end(), second.end()) == (0, 0), job.said
        return job.result


def test_copies_in_memory_are_off_and_rank_0_says_so(tmp_path, undisturbed):
    fields = {"checkpoint": {"every": {"steps": 5, "epochs": 1}, "memory": "auto"}}
    with TwoNodes(tmp_path / "job", *LOOP, **fields) as job:
        first, second = job.start_both()
        assert (first.end(), second.end()) == (0, 0), job.said
        log = first.run.rank_log(0).read_text()
        assert log.count("no copies are kept in memory: the ranks are on several nodes") == 1, log
        assert job.result == undisturbed


@pytest.mark.parametrize("struck", [0, 1])
def test_a_rank_that_is_killed_is_restarted_and_its_node_alone_charges_it(tmp_path, undisturbed, struck):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        nodes = job.start_training()
        os.kill(nodes[struck].rank_pid, signal.SIGKILL)
        assert [node.end() for node in nodes] == [0, 0], job.said
        said = [node.said.read_text() for node in nodes]
    assert job.result == undisturbed
    assert "backing-off: killed: rank 0 was killed by SIGKILL from outside" in said[struck]
    assert "queued: lost: rank 0 has lost the other nodes" in said[1 - struck]
    assert "backing-off" not in said[1 - struck]


@pytest.mark.parametrize("asked", [(0,), (1,), (0, 1)])
def test_a_node_that_is_asked_to_leave_drains_all_and_they_meet_again(tmp_path, undisturbed, asked):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        nodes = job.start_training()
        began_s = time.monotonic()
        for number in asked:
            nodes[number].ask_to_leave()
        assert [node.end() for node in nodes] == [85, 85], job.said
        assert time.monotonic() - began_s < GRACE_S
        assert job.verdict == 85
        nodes = job.start_both()
        assert [node.end() for node in nodes] == [0, 0], job.said
    assert job.result == undisturbed


@pytest.mark.parametrize("struck", [0, 1])
def test_an_exec_that_is_killed_and_started_again_finds_its_rank_and_the_other_node_goes_on(
    tmp_path, undisturbed, struck
):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        nodes = job.start_training()
        nodes[struck].process.kill()
        nodes[struck].end()
        again = job.start(struck)
        assert (again.end(), nodes[1 - struck].end()) == (0, 0), job.said
    assert job.result == undisturbed
    assert len(list((tmp_path / "job" / "run" / "attempts").iterdir())) == 1


@pytest.mark.parametrize("struck", [0, 1])
def test_a_node_that_dies_with_all_its_processes_and_disk_is_replaced(tmp_path, undisturbed, struck):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        nodes = job.start_training()
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
    with TwoNodes(tmp_path / "job", "--epochs", 1) as job:
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        again = job.start(1)
        assert again.end() == 0, job.said
        assert "to begin a new run: name another folder with --run" in again.said.read_text()
        (tmp_path / "job" / "state-n1").rename(tmp_path / "job" / "lost")
        assert job.start(1).end() == 0, job.said
        assert "the run is finished" in again.said.read_text()


def test_a_node_that_never_comes_is_waited_for_within_a_limit(tmp_path):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        alone = job.start(0, "--meet-within", "3s")
        assert alone.end(60) == 85, job.said
        assert "the ranks of the other nodes did not come within 3 s" in job.said
        assert "not now: run it again" in job.said


@pytest.mark.parametrize(("program", "whole"), [(3, 1), (93, 93)])
def test_a_node_that_gives_up_is_followed_by_the_other(tmp_path, program, whole):
    loop = f"{sys.executable} {RANKS_LOOP} --epochs 1"
    command = ["sh", "-c", f"if [ $GROUP_RANK = 1 ]; then exit {program}; else exec {loop}; fi"]
    with TwoNodes(tmp_path / "job", command=command, restart={"budget": 1}) as job:
        nodes = job.start_both()
        assert [node.end(60) for node in nodes] == [whole, whole], job.said
        assert job.verdict == whole, "without the exit code of anything"
        assert "node 1 has ended: " in nodes[0].said.read_text()
        assert "has ended: " not in nodes[1].said.read_text()


def test_a_node_that_vanishes_is_noticed_without_a_collective_within_a_minute(tmp_path):
    with TwoNodes(tmp_path / "job", "--step-ms", 100, "--epochs", 99) as job:
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
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        nodes = job.start_training()
        os.kill(nodes[1].rank_pid, signal.SIGSTOP)
        wait_for(
            lambda: "has lost the other nodes" in nodes[0].said.read_text(),
            "node 0 to miss node 1",
            limit_s=SILENCE_LIMIT_S + 60,
            story=lambda: job.said,
        )
        os.kill(nodes[1].rank_pid, signal.SIGCONT)
        assert [node.end() for node in nodes] == [0, 0], job.said
    assert job.result == undisturbed
    assert "backing-off" not in job.said, "on neither node was it the fault of the job"


def test_a_request_is_obeyed_within_the_grace_period_while_a_node_that_vanished_is_not_missed_yet(tmp_path):
    loop = ("--step-ms", 100, "--epochs", 2)
    with TwoNodes(tmp_path / "alone", *loop) as job:
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        undisturbed = job.result
    with TwoNodes(tmp_path / "job", *loop, grace="5s") as job:
        nodes = job.start_training()
        for process in nodes[1].family():
            process.kill()
        nodes[0].ask_to_leave()
        assert nodes[0].end(5 + 5) == 85, job.said
        assert [node.end() for node in job.start_both()] == [0, 0], job.said
        assert job.result == undisturbed


def test_a_request_while_it_waits_for_the_other_node_is_obeyed_within_the_grace_period(tmp_path):
    with TwoNodes(tmp_path / "job", *LOOP) as job:
        alone = job.start(1)
        wait_for(alone.run.attempt(1).ranks.exists, "a rank", limit_s=LIMIT_S)
        alone.ask_to_leave()
        assert alone.end(GRACE_S + 5) == 85, job.said


def test_nodes_that_see_different_folders_are_refused(tmp_path):
    with TwoNodes(tmp_path / "job", *LOOP, restart={"budget": 1}) as job:
        first, second = job.start(0), job.start(1, "--run", "elsewhere")
        assert (first.end(), second.end()) == (1, 1), job.said
        log = RunPaths(second.run.root).rank_log(0).read_text()
        assert "the run folder is not shared: rank 1 (n1:" in log


def test_two_ranks_on_each_node_are_numbered_over_both(tmp_path):
    with TwoNodes(tmp_path / "job", "--step-ms", 5, "--epochs", 1, nproc=2) as job:
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
