"""Two ranks on two CUDA devices, with DistributedDataParallel over NCCL: drained or killed, the run equals
one left alone."""

from __future__ import annotations

import signal

import pytest
import torch

from tests.support.rank_runs import Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.contract.exit_codes import DRAINED

DEVICES = torch.cuda.device_count()

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        DEVICES < 2, reason=f"NCCL needs a CUDA device for each of 2 ranks, and there are {DEVICES}"
    ),
]

NCCL = ("--ddp", "--nccl")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_ranks(run, *NCCL)
    return result_of(run)


@pytest.mark.parametrize("struck", [0, 1])
def test_ranks_over_nccl_drain_at_one_step_and_go_on_exactly(tmp_path, undisturbed, struck):
    run = tmp_path / "run"
    with Attempt(run, *NCCL, "--step-ms", 20) as attempt:
        attempt.wait_for_step(struck, 7)
        attempt.send(struck, signal.SIGTERM)
        assert attempt.wait() == [DRAINED, DRAINED], attempt.output
    run_ranks(run, *NCCL)
    assert result_of(run) == undisturbed


def test_a_rank_killed_under_nccl_ends_the_other_and_the_next_attempt_is_exact(tmp_path, undisturbed):
    run = tmp_path / "run"
    with Attempt(run, *NCCL, "--step-ms", 20) as attempt:
        attempt.wait_for_step(1, 7)
        attempt.send(1, signal.SIGKILL)
        assert attempt.wait(30)[0] not in {0, DRAINED}, attempt.output
    run_ranks(run, *NCCL)
    assert result_of(run) == undisturbed
