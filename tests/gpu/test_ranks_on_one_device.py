"""Two ranks that share one CUDA device, over gloo: drained or killed, the run equals one left alone."""

from __future__ import annotations

import signal

import pytest

from tests.gpu.on_devices import HAS_CUDA
from tests.support.rank_runs import Attempt, run_ranks
from tests.support.training_runs import result_of
from trainerd.contract.exit_codes import DRAINED

pytestmark = [
    pytest.mark.torch,
    pytest.mark.gpu,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device"),
]

ONE_DEVICE = ("--ddp", "--one-device")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    run_ranks(run, *ONE_DEVICE)
    return result_of(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_two_ranks_that_share_a_device_go_on_exactly(tmp_path, undisturbed, number):
    run = tmp_path / "run"
    with Attempt(run, *ONE_DEVICE, "--step-ms", 20) as attempt:
        attempt.wait_for_step(1, 7)
        attempt.send(1, number)
        codes = attempt.wait(60)
        assert (codes == [DRAINED, DRAINED]) == (number == signal.SIGTERM), attempt.output
    run_ranks(run, *ONE_DEVICE)
    assert result_of(run) == undisturbed
