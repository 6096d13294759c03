"""Ignite under real kills and real requests to stop: the end is that of an undisturbed run, bit for bit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.integrations.disturbed_ranks import compare_ranks
from tests.integration.integrations.disturbed_runs import compare_runs

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    # Looked for and not imported: that takes 2 s of every collection.
    pytest.mark.skipif(find_spec("ignite") is None, reason="pytorch-ignite is not installed"),
]

JOB = Path(__file__).with_name("ignite_job.py")

STRIKES = (
    "1:KILL",  # the first batch, before any checkpoint
    "1:TERM",
    "4:KILL",
    "checkpoint.data.written=kill",  # during a save
    "6:KILL",  # the last batch of an epoch
    "6:TERM",
    "validation1:KILL",
    "validation1:TERM",
    "epoch2:KILL",  # between two epochs
    "epoch2:TERM",
    "9:INT",
    "10:TERM",  # a resume of a resume, within one epoch and into the next
    "validation3:TERM",
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_kills_and_drains_change_nothing(workers: int, accumulate: int, tmp_path: Path) -> None:
    compare_runs(JOB, tmp_path, STRIKES, workers=workers, accumulate=accumulate)


@pytest.mark.timeout(600)
def test_two_ranks_stop_together_and_go_on(tmp_path: Path) -> None:
    strikes = ("1:TERM@0", "4:KILL@1", "5:TERM", "validation2:KILL", "8:KILL@0")  # of three batches an epoch
    modules = ("ignite.engine", "ignite.handlers", "ignite.metrics")
    compare_ranks(JOB, tmp_path, strikes, modules=modules, workers=0, accumulate=1)
