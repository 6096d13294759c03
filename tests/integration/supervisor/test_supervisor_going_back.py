"""Failures that repeat, and losses that are no numbers: real sessions under a real supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "support" / "scripts" / "failing.py"


def drop(bench, name, how, **fields):
    command = [sys.executable, str(SCRIPT), how]
    restart = {"budget": 9, "backoff": {"initial": 0.05, "max": 0.05}}
    bench.drop(name, "", command=command, **({"restart": restart, "resources": {"cpus": 0.5}} | fields))


def kinds(bench, name):
    return [ending["kind"] for ending in bench.outcomes(name)]


def abandoned(bench, name):
    return sorted(path.name for path in bench.state.run(name).abandoned.glob("step-*") if path.is_dir())


@pytest.mark.slow
@pytest.mark.torch
def test_a_failure_that_repeats_goes_back_and_helps_if_it_was_the_checkpoint(bench):
    """From step 10 on it fails at step 13 for ever; from step 5 it gets through.

    A crash saves the newest boundary in memory, so the next attempt begins later; that is the same failure.
    """
    bench.start()
    drop(bench, "spoilt", "spoilt")
    job = bench.wait_state("spoilt", "finished", "parked", limit_s=100)
    assert job["state"] == "finished", bench.outcomes("spoilt")
    assert kinds(bench, "spoilt") == ["crashed"] * 4 + ["finished"]
    assert abandoned(bench, "spoilt")
    assert "step-000000005" in bench.outcomes("spoilt")[-2]["next_action"]


@pytest.mark.slow
@pytest.mark.torch
def test_a_failure_that_comes_again_from_the_checkpoint_before_is_parked_with_the_evidence(bench):
    bench.start()
    drop(bench, "always", "always")
    job = bench.wait_state("always", "finished", "parked", limit_s=100)
    assert job["state"] == "parked"
    assert "again after going back to an earlier checkpoint" in job["reason"]
    assert kinds(bench, "always") == ["crashed"] * 5
    assert any("ValueError: as injected" in line for line in bench.outcomes("always")[-1]["evidence"])


@pytest.mark.slow
@pytest.mark.torch
def test_a_loss_that_is_no_number_is_ignored_stops_the_job_or_takes_it_back(bench):
    bench.start()
    for policy in ["ignore", "stop", "rollback"]:
        drop(bench, policy, "nan", on_nonfinite_loss=policy)
    assert bench.wait_state("ignore", "finished", "parked", limit_s=100)["state"] == "finished"
    job = bench.wait_state("stop", "finished", "parked", limit_s=100)
    assert (job["state"], kinds(bench, "stop")) == ("parked", ["non-finite-loss"])
    assert "the loss after step 13 is nan" in job["reason"]
    job = bench.wait_state("rollback", "finished", "parked", limit_s=100)
    assert (job["state"], kinds(bench, "rollback")) == ("parked", ["non-finite-loss"] * 2)
    assert len(abandoned(bench, "rollback")) == 1
