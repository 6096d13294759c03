"""One attempt of a drill, with commands that open no session."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from tests.support.training_runs import REPOSITORY
from trainerd.contract.paths import RunPaths
from trainerd.drill.drill_attempt import run_attempt
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
