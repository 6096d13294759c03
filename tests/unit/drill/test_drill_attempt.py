"""One attempt of a drill, with commands that open no session."""

from __future__ import annotations

import dataclasses
import sys
import time

import pytest

from tests.support.training_runs import REPOSITORY
from trainerd.contract.paths import RunPaths
from trainerd.contract.save_journal import SaveEvent
from trainerd.drill import drill_attempt
from trainerd.drill.drill_attempt import TRAINING_S_MIN, is_saving, run_attempt
from trainerd.drill.drilled_job import job_of_command
from trainerd.supervisor.attempt.launch_record import launch_record

LIMIT_S = 60.0
PATH = str(REPOSITORY / "daemon")

RANKS = """
import os, pathlib, sys, time
from trainerd.contract import records
from trainerd.contract.paths import AttemptPaths
from trainerd.contract.records import OutcomeRecord
attempt = AttemptPaths(pathlib.Path(os.environ["TRAINERD_ATTEMPT_DIR"]))
if os.environ["RANK"] == "0":
    while not attempt.outcome(1).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
records.write(attempt.outcome(1), OutcomeRecord(kind="exception", error_type="RankLostError"))
time.sleep(60)
"""
"""Rank 1 fails, and rank 0 is killed."""


def test_a_module_of_the_job_s_folder_does_not_stand_in_for_one_of_the_shim(tmp_path, monkeypatch):
    (tmp_path / "token.py").write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path / "run")
    job = job_of_command(("/bin/echo", "hello"), tmp_path, {})
    launch = launch_record(job, run, 1, environ={})
    end = run_attempt(run.attempt(1), launch, limit_s=LIMIT_S)
    assert (end.kind, end.message.splitlines()[-1].strip()) == ("no-session", "hello")


@pytest.mark.parametrize(("was_struck", "kind"), [(True, "killed"), (False, "failed")])
def test_ranks_that_fail_because_another_was_struck_are_part_of_the_kill(tmp_path, was_struck, kind):
    run = RunPaths(tmp_path / "run")
    job = job_of_command((sys.executable, "-c", RANKS), tmp_path, {})
    launch = launch_record(dataclasses.replace(job, nproc=2), run, 1, environ={"PYTHONPATH": PATH})
    end = run_attempt(run.attempt(1), launch, limit_s=LIMIT_S, was_struck=lambda: was_struck)
    assert end.kind == kind, end


STEPS = """
import itertools, os, pathlib, time
from trainerd.contract.heartbeat import HeartbeatWriter, Phase
from trainerd.contract.paths import AttemptPaths
writer = HeartbeatWriter(AttemptPaths(pathlib.Path(os.environ["TRAINERD_ATTEMPT_DIR"])).heartbeat(0))
for step in itertools.count(1):
    writer.beat(
        Phase.STEP, step=step, epoch=0, epochs=1, batch=step, batches=-1, checkpoint_step=-1, loss=0.0,
        saves=0, resumed_step=0,
    )
    time.sleep(0.01)
"""
"""Steps of 10 ms, without end."""


class _Clock:
    """A clock that is put forward by 1000 s once some steps are made."""

    def __init__(self):
        self.ahead_s = 0.0
        self.sleep = time.sleep

    def monotonic(self):
        return time.monotonic() + self.ahead_s


@pytest.mark.parametrize(
    ("newest_step_s_max", "patience_s", "found"),
    [
        (2000.0, 5000.0, ("left", False)),
        (2000.0, 500.0, ("too-slow", True)),
        (10.0, 5000.0, ("too-slow", False)),
    ],
    ids=["trains", "trains-and-the-patience-is-over", "stands-still"],
)
def test_at_its_limit_an_attempt_that_makes_steps_has_more_time_than_one_that_stands_still(
    tmp_path, monkeypatch, newest_step_s_max, patience_s, found
):
    clock = _Clock()
    monkeypatch.setattr(drill_attempt, "time", clock)
    monkeypatch.setattr(drill_attempt, "TRAINING_S_MIN", newest_step_s_max)

    def is_enough(beat, _since_first_s):
        clock.ahead_s = 1000.0 if beat.step >= 5 else 0.0
        return beat.step >= 50

    run = RunPaths(tmp_path / "run")
    job = job_of_command((sys.executable, "-c", STEPS), tmp_path, {})
    launch = launch_record(job, run, 1, environ={"PYTHONPATH": PATH})
    end = run_attempt(run.attempt(1), launch, limit_s=300.0, patience_s=patience_s, is_enough=is_enough)
    assert (end.kind, end.is_training) == found, end


def events(*moments_s, kind="save"):
    return [SaveEvent("open", 1, monotonic_s=0.0)] + [
        SaveEvent(kind, 1, monotonic_s=at_s) for at_s in moments_s
    ]


@pytest.mark.parametrize(
    ("seen", "is_on_its_way"),
    [
        (events(), False),
        (events(1000.0 - TRAINING_S_MIN), True),
        (events(1000.0 - TRAINING_S_MIN, kind="update"), True),
        (events(999.0 - TRAINING_S_MIN), False),
        (events(700.0, 800.0), True),
        (events(500.0, 600.0), False),
        (events(1000.0, kind="strike"), False),
    ],
    ids=["nothing", "just now", "a step", "long ago", "saves seldom", "not for three intervals", "is struck"],
)
def test_an_attempt_without_a_session_gets_on_as_long_as_it_saves(seen, is_on_its_way):
    assert is_saving(seen, 1000.0) == is_on_its_way
