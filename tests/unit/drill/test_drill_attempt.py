"""One attempt of a drill, with commands that open no session."""

from __future__ import annotations

from trainerd.contract.paths import RunPaths
from trainerd.drill.drill_attempt import run_attempt
from trainerd.drill.drilled_job import job_of_command
from trainerd.supervisor.attempt.launch_record import launch_record

LIMIT_S = 60.0


def test_a_module_of_the_job_s_folder_does_not_stand_in_for_one_of_the_shim(tmp_path, monkeypatch):
    (tmp_path / "token.py").write_text("raise SystemExit('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    run = RunPaths(tmp_path / "run")
    job = job_of_command(("/bin/echo", "hello"), tmp_path, {})
    launch = launch_record(job, run, 1, environ={})
    end = run_attempt(run.attempt(1), launch, limit_s=LIMIT_S)
    assert (end.kind, end.message.splitlines()[-1].strip()) == ("no-session", "hello")
