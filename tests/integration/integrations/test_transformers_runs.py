"""A Transformers `Trainer` under real kills and requests to stop ends as an undisturbed one, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_ranks import compare_ranks
from tests.integration.integrations.disturbed_runs import compare_runs

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("transformers") is None or find_spec("accelerate") is None,
        reason="transformers and accelerate are not installed",
    ),
]

JOB = Path(__file__).with_name("transformers_job.py")

STRIKES = {
    1: (
        "1:KILL",  # the first step, before any checkpoint
        "3.5:TERM",  # its log runs before the drain
        "4:KILL",
        "checkpoint.data.written=kill",  # during a save
        "validation11:KILL",
        "11:TERM",  # the last step of an epoch
        "epoch11:KILL",  # between two epochs
        "15:INT",
        "validation22:TERM",
        "trained33:KILL",
    ),
    4: ("1:KILL", "2:TERM", "validation3:KILL", "5:INT", "epoch6:KILL", "trained9:KILL"),
}
"""By how many batches a step takes: 11 steps an epoch, or 3."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_and_drains_change_nothing(workers: int, accumulate: int, tmp_path: Path) -> None:
    compare_runs(JOB, tmp_path, STRIKES[accumulate], workers=workers, accumulate=accumulate)


@pytest.mark.timeout(600)
def test_two_ranks_stop_together_and_go_on(tmp_path: Path) -> None:
    strikes = ("2:TERM@0", "5:KILL@1", "validation6:KILL", "9:TERM", "epoch12:KILL@0")  # of six an epoch
    modules = ("tests.support.transformers_program",)
    compare_ranks(JOB, tmp_path, strikes, modules=modules, workers=0, accumulate=1)
