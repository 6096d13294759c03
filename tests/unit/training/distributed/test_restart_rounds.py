"""A round that torchrun starts after a drain ends at once; one after a crash trains."""

from __future__ import annotations

import os
import time

import pytest

from trainerd.contract import records
from trainerd.contract.paths import RunPaths
from trainerd.contract.records import OutcomeRecord
from trainerd.training.distributed.restart_rounds import parent_began_wall_s, stays_drained

pytestmark = pytest.mark.torch


def said(run, kind, *, attempt=1, rank=0, at_s=1000.0):
    path = run.attempt(attempt).outcome(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write(path, OutcomeRecord(kind))
    os.utime(path, (at_s, at_s))


def stays(run, *, attempt, number="1", began_s=900.0):
    environ = {"TORCHELASTIC_RESTART_COUNT": number}
    return stays_drained(run, run.attempt(attempt), environ, agent_began_wall_s=began_s)


def test_a_restart_after_a_drain_stays_drained(tmp_path):
    run = RunPaths(tmp_path)
    said(run, "drained", rank=1)
    assert stays(run, attempt=1)
    assert stays(run, attempt=2)
    assert not stays(run, attempt=1, number="0")


def test_what_was_drained_before_this_torchrun_began_does_not_count(tmp_path):
    run = RunPaths(tmp_path)
    said(run, "drained")
    assert not stays(run, attempt=2, began_s=1001.0)


def test_a_restart_after_a_crash_trains(tmp_path):
    run = RunPaths(tmp_path)
    said(run, "drained", at_s=1000.0)
    said(run, "exception", attempt=2, at_s=1001.0)
    assert not stays(run, attempt=3)


def test_the_parent_began_before_now():
    assert time.time() - 7 * 86400 < parent_began_wall_s() < time.time()
