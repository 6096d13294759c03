"""Several ranks, and no boundary comes in time: what all of them hold in memory is saved instead."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.rank_runs import Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths
from trainerd.contract.signals import SECOND_AFTER_S

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

NEVER = {"TRAINERD_CHECKPOINT_EVERY_STEPS": "never", "TRAINERD_CHECKPOINT_EVERY_EPOCHS": "never"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_ranks(run, "--ddp", **NEVER)
    return result_of(run)


def newest(run):
    return CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1]


@pytest.mark.parametrize("hurry", [pytest.param("the grace ends", marks=pytest.mark.slow), "a second signal"])
def test_a_step_that_takes_a_minute_is_left_with_what_both_ranks_hold(tmp_path, undisturbed, hurry):
    run = tmp_path / "run"
    grace_s = 3 if hurry == "the grace ends" else 60
    steps = ("--ddp", "--step-ms", 600, "--epochs", 3, "--stall-at", 7)
    with Attempt(run, *steps, TRAINERD_GRACE_S=grace_s, **NEVER) as attempt:
        for rank in (0, 1):
            attempt.wait_for_word(rank, "stalls")
        attempt.send(1, signal.SIGTERM)
        if hurry == "a second signal":
            time.sleep(SECOND_AFTER_S)  # sooner, it would be the same request
            attempt.send(1, signal.SIGINT)
        assert attempt.wait(20) == [DRAINED, DRAINED], attempt.output
    assert newest(run).manifest.reason == "flushed"
    assert 0 < newest(run).step <= 7
    assert f"saved {newest(run).name}" in attempt.output
    run_ranks(run, "--ddp", **NEVER)
    assert result_of(run) == undisturbed


def test_a_rank_that_waits_in_a_barrier_for_one_that_drains_is_saved_from_what_it_holds(
    tmp_path, undisturbed
):
    run = tmp_path / "run"
    with Attempt(run, "--ddp", "--barrier", "--evaluate-ms", 1000, **NEVER) as attempt:
        attempt.wait_for_word(0, "evaluates")
        attempt.wait_for_word(1, "waits")
        attempt.send(0, signal.SIGTERM)
        assert attempt.wait(20) == [DRAINED, DRAINED], attempt.output
    assert newest(run).manifest.reason == "drain"
    assert newest(run).step == 8
    run_ranks(run, "--ddp", "--barrier", **NEVER)
    assert result_of(run) == undisturbed


def test_ranks_that_hold_different_steps_leave_with_what_there_is(tmp_path):
    run = tmp_path / "run"
    apart = ("--step-ms", 2, "--slow-rank-ms", 400, "--stall-at", 9)  # rank 0 is in the second epoch then
    with Attempt(run, *apart, TRAINERD_GRACE_S=2, **NEVER) as attempt:
        attempt.wait_for_word(0, "stalls")
        attempt.send(0, signal.SIGTERM)
        assert attempt.wait(20) == [DRAINED, DRAINED], attempt.output
    assert "hold no boundary in common" in attempt.output
    assert CheckpointStore.of_run(RunPaths(run)).checkpoints() == ()
