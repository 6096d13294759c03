"""What the runs of a drill are started with."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from trainerd.contract.compiled_code import this_machine
from trainerd.contract.paths import RunPaths
from trainerd.drill.drilled_job import job_of_command
from trainerd.drill.drilled_run import DrilledRun, RunPlaces

LIMIT_S = 60.0
NAMES = ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TOKEN", "TRAINERD_CHECKPOINT_EVERY_STEPS", "TRAINERD_SEED")


@pytest.mark.parametrize("has_env_file", [False, True], ids=["plain", "env-file"])
def test_loggers_are_set_aside_whatever_the_environment_says(tmp_path, monkeypatch, has_env_file):
    said = "MLFLOW_TRACKING_URI=https://real.example\nWANDB_MODE=online\nTOKEN=secret\n"
    (tmp_path / "work").mkdir()
    (tmp_path / "secrets").write_text(said)
    for line in said.splitlines():
        monkeypatch.setenv(*line.split("="))
    monkeypatch.setenv("TRAINERD_CHECKPOINT_EVERY_STEPS", "77")
    monkeypatch.setenv("TRAINERD_SEED", "7")
    code = f"import os; print([os.environ.get(name) for name in {NAMES}])"
    job = job_of_command((sys.executable, "-S", "-c", code), tmp_path / "work", {})
    if has_env_file:
        job = dataclasses.replace(job, env_file=str(tmp_path / "secrets"))
    run = DrilledRun(job, RunPlaces(tmp_path / "drill"), "probe", every_steps=3)
    end = run.attempt(limit_s=LIMIT_S)
    assert end.kind == "no-session"
    folder = tmp_path / "drill" / "probe"
    log = RunPaths(folder / "run").rank_log(0).read_text()
    uri = (folder / "loggers" / "mlruns").as_uri()
    assert str([uri, "offline", "secret", "3", None]) in log


def test_the_runs_of_a_drill_share_what_is_compiled(tmp_path, monkeypatch):
    """Each with a folder of its own would choose kernels of its own, with other bits."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)  # compiling in this process sets it
    (tmp_path / "work").mkdir()
    code = "import os; print('folder', os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    job = job_of_command((sys.executable, "-S", "-c", code), tmp_path / "work", {})
    folders = set()
    for name in ("probe", "reference"):
        assert (
            DrilledRun(job, RunPlaces(tmp_path / "drill"), name).attempt(limit_s=LIMIT_S).kind == "no-session"
        )
        log = RunPaths(tmp_path / "drill" / name / "run").rank_log(0).read_text()
        folders |= {line for line in log.splitlines() if line.startswith("folder")}
    assert folders == {f"folder {tmp_path}/drill/compiled/{this_machine()}/inductor"}
