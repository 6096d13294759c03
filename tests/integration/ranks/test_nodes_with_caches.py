"""`trainerd exec` on two hosts that share the run folder by a network filesystem with caches.

Each host sees late what the other one has done. Whatever is struck, the run equals an undisturbed one, as the
disk of the server has it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import pytest

from tests.support.at_once import at_once
from tests.support.lab_hosts import LINKED, LabHost, child_of, linked_hosts, why_no_hosts, write_hosts
from tests.support.network_folder import ADDRESS, STALE_S, NetworkFolder, why_no_network_folder
from tests.support.training_runs import TINY, Result, result_of
from tests.support.two_nodes import LIMIT_S, LONG_LOOP, TrainingNode, TwoNodes
from tests.support.waiting import wait_for
from trainerd.contract import records
from trainerd.contract.paths import StatePaths
from trainerd.contract.records import OutcomeRecord

WHY_NOT: Final = why_no_hosts() or why_no_network_folder()
END_LIMIT_S: Final = 240.0

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[TwoNodes, NetworkFolder]]:
    """Two hosts and a server, joined by links, and a job on them."""
    folder.mkdir()
    write_hosts(folder, LINKED | {"store": ADDRESS})
    with LabHost(folder, "store") as server, linked_hosts(folder) as (first, second, _):
        shared = NetworkFolder(folder, server, (first, second))
        with TwoNodes(folder, *LONG_LOOP, hosts=(first, second), common="net/run") as job:
            yield job, shared


def finish(job: TwoNodes, nodes: tuple[TrainingNode, ...]) -> None:
    assert [node.end(END_LIMIT_S) for node in nodes] == [0, 0], job.said


def undisturbed(job: TwoNodes) -> None:
    finish(job, job.start_both())


def the_rank_of_the_first_is_killed(job: TwoNodes) -> None:
    nodes = job.start_training()
    job.hosts[0].run("kill", "-KILL", str(nodes[0].rank_pid))
    finish(job, nodes)


def the_rank_of_the_second_is_killed(job: TwoNodes) -> None:
    nodes = job.start_training()
    job.hosts[1].run("kill", "-KILL", str(nodes[1].rank_pid))
    finish(job, nodes)


def the_second_is_asked_to_leave(job: TwoNodes) -> None:
    nodes = job.start_training()
    nodes[1].ask_to_leave()
    assert [node.end(END_LIMIT_S) for node in nodes] == [85, 85], job.said
    finish(job, job.start_both())


SCENARIOS: Final[tuple[Callable[[TwoNodes], None], ...]] = (
    the_rank_of_the_first_is_killed,
    the_rank_of_the_second_is_killed,
    the_second_is_asked_to_leave,
)


def run_of(folder: Path, scenario: Callable[[TwoNodes], None]) -> Result:
    with two_hosts(folder) as (job, shared):
        scenario(job)
        return result_of(shared.disk / "run")


@pytest.fixture(scope="module")
def began(request, tmp_path_factory) -> Iterator[dict[object, Future]]:
    folder = tmp_path_factory.mktemp("hosts")
    with at_once(request, "scenario", lambda each: run_of(folder / each.__name__, each), most=3) as futures:
        yield futures


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Result:
    return run_of(tmp_path_factory.mktemp("alone") / "job", undisturbed)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_a_run_on_a_filesystem_with_caches_equals_one_that_was_left_alone(began, alone, scenario):
    assert began[scenario].result() == alone


def exec_on(host: LabHost, folder: Path, state: str, *words: str) -> subprocess.Popen[str]:
    own = [sys.executable, "-m", "trainerd", "exec", "tiny.json", "--state", state, *words]
    return host.start(*own, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=END_LIMIT_S)
    return process.returncode, said


def test_an_attempt_that_was_stopped_is_fenced_by_the_other_host_and_saves_nothing_more(tmp_path):
    """The state folder of a job of one node is on the network; the fence holds in spite of the caches."""
    folder = tmp_path / "job"
    command = [sys.executable, str(TINY), "--epochs", "3", "--batches", "20", "--step-ms", "60"]
    every = {"every": {"steps": 5, "epochs": 1}}
    spec = {"command": command, "workdir": str(tmp_path), "checkpoint": every, "grace": "5s"}
    with two_hosts(folder) as (job, shared):
        (folder / "tiny.json").write_text(json.dumps(spec))
        undisturbed = exec_on(job.hosts[1], folder, "undisturbed")
        first = exec_on(job.hosts[0], folder, "net/state")
        run = StatePaths(shared.disk / "state").run("tiny")
        wait_for((run.checkpoints / "last").exists, "a checkpoint", limit_s=LIMIT_S)
        family = [child_of(first), *child_of(first).children(recursive=True)]
        for process in family:
            process.suspend()
        code, said = end_of(exec_on(job.hosts[1], folder, "net/state", "--takeover-after", "2s"))
        assert (code, "may still run; it is fenced" in said) == (0, True), said
        for process in reversed(family):
            process.resume()
        first.send_signal(signal.SIGCONT)  # nsenter stops with its child
        code, said = end_of(first)
        assert (code, "has taken over" in said) == (1, True), said
        outcome = records.read(run.attempt(1).outcome(0), OutcomeRecord)
        assert outcome is not None
        assert outcome.kind == "fenced"
        assert end_of(undisturbed)[0] == 0
        assert result_of(run.root) == result_of(StatePaths(folder / "undisturbed").run("tiny").root)


def test_the_filesystem_shows_late_what_another_host_has_done(tmp_path):
    """What the others test is worth nothing otherwise."""
    with two_hosts(tmp_path / "job") as (job, _):
        first, second = job.hosts
        second.run("sh", "-c", "test ! -e net/new")
        first.run("touch", "net/new")
        began_s = time.monotonic()
        look = ("sh", "-c", "test -e net/new && echo there || echo not")
        wait_for(lambda: second.run(*look) == "there\n", "the name", limit_s=10 * STALE_S)
        assert time.monotonic() - began_s > STALE_S / 2
