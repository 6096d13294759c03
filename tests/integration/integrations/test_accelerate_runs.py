"""A loop with Accelerate under real kills and requests to stop ends as an undisturbed one, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_ranks import compare_ranks
from tests.integration.integrations.disturbed_runs import compare_runs

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed"),
]

JOB = Path(__file__).with_name("accelerate_job.py")

STRIKES = {
    1: (
        "0.0:KILL",  # the first batch, before any checkpoint
        "0.2:TERM",
        "0.5:KILL",
        "checkpoint.data.written=kill",  # during a save
        "0.10:KILL",  # the last batch of an epoch
        "validation0:TERM",
        "epoch1:KILL",  # between two epochs
        "1.3:INT",
        "1.7:TERM",  # a resume of a resume, within one epoch and into the next
        "2.9:KILL",
    ),
    4: (
        "0.5:TERM",  # within a step of four batches
        "0.10:TERM",  # the last batch of an epoch, which ends a step of three
        "validation1:KILL",
        "2.6:KILL",
    ),
}
"""By how many batches a step takes: 11 batches an epoch."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("workers", "accumulate"), [(0, 1), (2, 4)])
def test_kills_and_drains_change_nothing(workers: int, accumulate: int, tmp_path: Path) -> None:
    compare_runs(
        JOB, tmp_path, STRIKES[accumulate], first_batch="0.0:KILL", workers=workers, accumulate=accumulate
    )


@pytest.mark.timeout(600)
def test_two_ranks_stop_together_and_go_on(tmp_path: Path) -> None:
    strikes = ("0.1:TERM@0", "1.1:KILL@1", "1.3:KILL", "validation1:KILL", "2.1:TERM")  # of six batches
    found = compare_ranks(JOB, tmp_path, strikes, modules=("accelerate",), workers=0, accumulate=2)
    assert [each[1] for each in found["curve"]] == [41] * 3, "samples that fill up are left out"
