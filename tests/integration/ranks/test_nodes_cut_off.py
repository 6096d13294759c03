"""`trainerd exec` on two hosts with a network of their own, whose link fails: equal to an undisturbed run.

The hosts see the same run folder all the time. Several scenarios run at once: each has hosts of its own, and
waits for most of its time.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import pytest

from tests.support.at_once import at_once
from tests.support.lab_hosts import LINKED, Cable, linked_hosts, why_no_hosts, write_hosts
from tests.support.two_nodes import GRACE_S, LONG_LOOP, TrainingNode, TwoNodes
from tests.support.waiting import wait_for
from trainerd.contract.paths import RunPaths
from trainerd.training.distributed.agreement import LOST_LIMIT_S
from trainerd.training.distributed.life_signs import SILENCE_LIMIT_S

SHORT_S: Final = 20.0
LONG_S: Final = 90.0
MARGIN_S: Final = 15.0
START_LIMIT_S: Final = 40.0
"""How long a rank may take to be started again, and to see that there is nothing to wait for, in seconds."""

AGAIN_LIMIT_S: Final = 240.0

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts()),
]


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[TwoNodes, Cable]]:
    """Two hosts joined by a link, and a job on them."""
    folder.mkdir()
    write_hosts(folder, LINKED)
    with (
        linked_hosts(folder) as (first, second, cable),
        TwoNodes(folder, *LONG_LOOP, hosts=(first, second)) as job,
    ):
        yield job, cable


def wait_until_missed(nodes: tuple[TrainingNode, ...], limit_s: float) -> None:
    """Wait until each node has missed the other."""
    said = [node.said.read_text for node in nodes]
    wait_for(
        lambda: all("has lost the other nodes" in text() for text in said),
        "both nodes to miss one another",
        limit_s=limit_s,
        story=lambda: "\n".join(text() for text in said),
    )


def finish(job: TwoNodes, nodes: tuple[TrainingNode, ...]) -> None:
    assert [node.end(AGAIN_LIMIT_S) for node in nodes] == [0, 0], job.said
    assert "backing-off" not in job.said, "on neither node was it the fault of the job"


def undisturbed(job: TwoNodes, _cable: Cable) -> None:
    finish(job, job.start_both())


def down_for_a_while(job: TwoNodes, cable: Cable) -> None:
    """For less than the limit: what was sent is sent again, and no rank is restarted."""
    nodes = job.start_training()
    cable.cut()
    time.sleep(SHORT_S)
    cable.mend()
    finish(job, nodes)
    assert "has lost the other nodes" not in job.said


def down_for_long(job: TwoNodes, cable: Cable) -> None:
    """Both nodes miss one another within the limit, and meet again once the link is up."""
    missed_after(job, cable.cut, cable.mend)


def silent_for_long(job: TwoNodes, cable: Cable) -> None:
    """As above, but no host is told that its link is down: what it sends arrives nowhere."""
    missed_after(job, cable.silence, cable.speak)


def missed_after(job: TwoNodes, cut: Callable[[], None], mend: Callable[[], None]) -> None:
    nodes = job.start_training()
    cut()
    began_s = time.monotonic()
    wait_until_missed(nodes, SILENCE_LIMIT_S + MARGIN_S + LOST_LIMIT_S)
    for node in nodes:
        (missed_s,) = re.findall(r"given no (?:answer|life sign) for (\d+) s", node.said.read_text())
        assert SILENCE_LIMIT_S <= int(missed_s) <= SILENCE_LIMIT_S + MARGIN_S
    time.sleep(max(0.0, began_s + LONG_S - time.monotonic()))
    mend()
    finish(job, nodes)


def down_while_both_are_asked_to_leave(job: TwoNodes, cable: Cable) -> None:
    leave_while_down(job, cable, (0, 1))


def down_while_the_first_is_asked_to_leave(job: TwoNodes, cable: Cable) -> None:
    leave_while_down(job, cable, (0,))


def down_while_the_second_is_asked_to_leave(job: TwoNodes, cable: Cable) -> None:
    leave_while_down(job, cable, (1,))


def leave_while_down(job: TwoNodes, cable: Cable, asked: tuple[int, ...]) -> None:
    """The grace period is kept without an answer of the other node, which leaves once it has missed this."""
    nodes = job.start_training()
    cable.cut()
    for number in asked:
        nodes[number].ask_to_leave()
    for number in asked:
        assert nodes[number].end(GRACE_S + MARGIN_S) == 85, job.said
    for node in nodes:
        assert node.end(SILENCE_LIMIT_S + START_LIMIT_S) == 85, job.said
    cable.mend()
    finish(job, job.start_both())


SCENARIOS: Final[tuple[Callable[[TwoNodes, Cable], None], ...]] = (
    down_for_a_while,
    down_for_long,
    silent_for_long,
    down_while_both_are_asked_to_leave,
    down_while_the_first_is_asked_to_leave,
    down_while_the_second_is_asked_to_leave,
)


@pytest.fixture(scope="module")
def began(request, tmp_path_factory) -> Iterator[dict[object, Future]]:
    folder = tmp_path_factory.mktemp("hosts")

    def run(scenario: Callable[[TwoNodes, Cable], None]) -> TwoNodes:
        with two_hosts(folder / scenario.__name__) as (job, cable):
            scenario(job, cable)
            return job

    with at_once(request, "scenario", run, most=3) as futures:
        yield futures


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> TwoNodes:
    with two_hosts(tmp_path_factory.mktemp("alone") / "job") as (job, cable):
        undisturbed(job, cable)
        return job


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_a_run_whose_nodes_are_cut_off_equals_one_that_was_left_alone(began, alone, scenario):
    job = began[scenario].result()
    assert job.result == alone.result
    numbers = [int(path.name) for path in RunPaths(job.folder / "run").attempts.iterdir()]
    begun = [1] if scenario is down_for_a_while else [1, 2]
    assert sorted(numbers) == begun, "no attempt was begun twice"
