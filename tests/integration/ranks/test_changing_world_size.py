"""The number of ranks changes between attempts: every sample of an epoch is used exactly once all the
same."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.support.rank_runs import Attempt, run_ranks
from trainerd.checkpoint.store import CheckpointStore
from trainerd.contract.exit_codes import DRAINED
from trainerd.contract.paths import RunPaths

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

SAMPLES = 163


def counted(used):
    """Return how often each sample was used, by epoch."""
    counts = {}
    for each in used:
        counts.setdefault(each.epoch, Counter()).update(each.indices)
    return counts


def test_every_sample_is_used_once_an_epoch_with_one_two_and_three_ranks(tmp_path):
    for world_size in (1, 2, 3):
        attempt = run_ranks(
            tmp_path / f"run-{world_size}", "--samples", SAMPLES, "--epochs", 1, world_size=world_size
        )
        assert counted(attempt.used) == {0: Counter(range(SAMPLES))}


def test_two_one_two_ranks_lose_no_sample_and_repeat_none(tmp_path):
    run, used = tmp_path / "run", []
    for world_size, step in ((2, 6), (1, 12), (2, 17)):
        with Attempt(
            run, "--samples", SAMPLES, "--epochs", 2, "--step-ms", 20, world_size=world_size
        ) as attempt:
            attempt.wait_for_step(0, step)
            attempt.send(world_size - 1, signal.SIGTERM)
            assert attempt.wait() == [DRAINED] * world_size, attempt.output
        used += attempt.used
    last = run_ranks(run, "--samples", SAMPLES, "--epochs", 2, world_size=2)
    assert counted(used + last.used) == {epoch: Counter(range(SAMPLES)) for epoch in range(2)}
    final = CheckpointStore.of_run(RunPaths(run)).checkpoints()[-1]
    assert final.manifest.world_size == 2


def test_the_change_is_said_once(tmp_path):
    run = tmp_path / "run"
    run_ranks(run, "--epochs", 1)
    attempt = run_ranks(run, "--epochs", 2, world_size=1)
    assert attempt.output.count("is of 2 ranks and goes on with 1") == 1
